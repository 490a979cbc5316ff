"""Ledger: id to slot, and the label of each slot. Nothing else.

Slots number the samples of a split in the order in which they were first seen. Besides the id
values a sample costs 4 bytes for its label and, only once ids come in another order, at most 8
for the table that finds them: the same order costs one comparison.
"""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from fastdiv.batch import IdValues
from fastdiv.errors import DataError

Slots = slice | NDArray[np.int64]
Number = TypeVar("Number", bound=np.generic)
TABLE_FILL = 0.8  # rebuilt at this fill to half of it or more: at most 8 bytes a sample
GROWTH = 1.5
LABEL_GROWTH = 1.125  # with a table just rebuilt, 12 bytes a sample in all
RUSH = 16  # times the samples seen: so far what is expected is believed
MOST_SLOTS = 2**31 - 2


class Ledger:
    """Ids of one split and their slots.

    `expected` samples save copying while it grows; room is taken for samples that come.
    """

    def __init__(self, expected: int = 0) -> None:
        self.n = 0
        self.labels: NDArray[np.int32] = np.full(16, -1, np.int32)
        self._labelled = 0  # no slot from here on has a label
        self._newly: Slots = slice(0, 0)  # given a label by the last call of `relabel`
        self._expected = expected
        self._ids: _Integers | _Strings | None = None

    def slots(self, ids: IdValues | None, n: int, guess: int) -> Slots:
        """Return the slots of n samples, adding those never seen.

        `guess` is where the samples stand if they come in the same order as before; without
        ids they stand there by definition.
        """
        if ids is None:
            found: Slots = slice(guess, guess + n)
            self.n = max(self.n, guess + n)
        else:
            if self._ids is None:
                self._ids = (
                    _Strings(ids.type)
                    if isinstance(ids, pa.Array)
                    else _Integers(ids.dtype, self._expected)
                )
            if not self._ids.takes(ids):
                now = ids.type if isinstance(ids, pa.Array) else ids.dtype
                raise DataError(
                    f"sample ids are {self._ids.values().type} in one place and {now} in "
                    "another: write them as one type"
                )
            found = self._ids.slots(ids, guess)
            self.n = self._ids.n
        if self.n > MOST_SLOTS:
            raise DataError(f"more than {MOST_SLOTS} samples in one split: split the data")
        used = len(self.labels)
        self.labels = _with_room(self.labels, used, self.n, LABEL_GROWTH, self._expected)
        self.labels[used:] = -1
        return found

    def relabel(
        self, slots: Slots, labels: NDArray[np.int32]
    ) -> tuple[NDArray[np.int64], NDArray[np.int32]] | None:
        """Note labels; return slots and labels of samples that had another one, if any."""
        if isinstance(slots, slice) and slots.start >= self._labelled:  # all of them are new
            self.labels[slots] = labels
            self._labelled, self._newly = slots.stop, slots
            return None
        self._newly = slice(0, 0)
        if isinstance(slots, slice) and len(labels):
            from fastdiv_kernels.cpu import lookup

            if lookup.same_ints(self.labels, slots.start, labels):
                return None
        known = self.labels[slots]
        if np.array_equal(known, labels):
            return None
        where = np.arange(slots.start, slots.stop) if isinstance(slots, slice) else slots
        self._labelled = max(self._labelled, int(where.max()) + 1)
        new = np.flatnonzero((known < 0) & (labels >= 0))[::-1]  # so that the first row counts
        self._newly = where[new]
        self.labels[self._newly] = labels[new]
        differs = (labels >= 0) & (labels != self.labels[slots])
        if differs.any() and not isinstance(slots, slice):  # of a sample's rows, the first
            _, first = np.unique(where, return_index=True)
            later = np.ones(len(where), np.bool_)
            later[first] = False
            differs &= ~later
        return (where[differs], labels[differs]) if differs.any() else None

    def undo(self, n: int) -> None:
        """Take back the last rows that came, before which there were n slots."""
        self.labels[self._newly] = -1
        self.cut(n)

    def cut(self, n: int) -> None:
        """Forget all slots from n on."""
        self.labels[n : self.n] = -1
        self.n = n
        if self._ids is not None:
            self._ids.cut(n)

    def ids(self) -> pa.Array:
        """Return the ids in slot order: int64, uint64 or as the strings came."""
        if self._ids is None:
            return pa.array(np.arange(self.n))
        return self._ids.values()

    @property
    def positional(self) -> bool:
        """Whether samples are identified by position."""
        return self._ids is None

    @property
    def nbytes(self) -> int:
        """Bytes held, id values included."""
        return self.labels.nbytes + (self._ids.nbytes if self._ids is not None else 0)


class _Table:
    """Slots by the hash of their id; see `fastdiv_kernels.cpu.lookup`."""

    def __init__(self) -> None:
        self.slots: NDArray[np.int32] | None = None

    def room(self) -> int:
        return 0 if self.slots is None else int(len(self.slots) * TABLE_FILL)

    def clear(self, n: int) -> NDArray[np.int32]:
        """Make an empty table with room for n slots and some more."""
        self.slots = None  # given back before more is taken
        self.slots = np.full(max(64, int(n * GROWTH / TABLE_FILL) + 1), -1, np.int32)
        return self.slots

    @property
    def nbytes(self) -> int:
        return 0 if self.slots is None else self.slots.nbytes


class _Integers:
    def __init__(self, dtype: np.dtype[np.generic], expected: int) -> None:
        self.n = 0
        self.dtype = dtype
        self.expected = expected
        self.keys: NDArray[np.int64] = np.empty(16, np.int64)
        self.table = _Table()

    def takes(self, ids: IdValues) -> bool:
        return not isinstance(ids, pa.Array) and ids.dtype == self.dtype

    def slots(self, ids: IdValues, guess: int) -> Slots:
        from fastdiv_kernels.cpu import lookup

        keys = ids.view(np.int64)
        m = len(keys)
        if guess + m <= self.n and m and lookup.same_ints(self.keys, guess, keys):
            return slice(guess, guess + m)
        if self.table.slots is None and self._continues(ids):
            self._room_for(self.n + m)
            self.keys[self.n : self.n + m] = keys
            self.n += m
            return slice(self.n - m, self.n)
        found = np.empty(m, np.int64)
        done = 0
        while True:
            if self.n >= self.table.room():
                lookup.index_ints(self.keys, self.n, self.table.clear(self.n))
            most = self.table.room()
            self._room_for(min(most, self.n + m - done))
            done, self.n = lookup.find_ints(
                keys, done, self.keys, self.n, self.table.slots, found, min(most, len(self.keys))
            )
            if done == m:
                return _as_slice(found)

    def cut(self, n: int) -> None:
        from fastdiv_kernels.cpu import lookup

        self.n = n
        if self.table.slots is not None:
            lookup.index_ints(self.keys, n, self.table.clear(n))

    def _continues(self, ids: IdValues) -> bool:
        """Say whether ids go on increasing, as running numbers do: then none is known."""
        if self.n and not self.keys[self.n - 1 : self.n].view(self.dtype)[0] < ids[0]:
            return False
        from fastdiv_kernels.cpu import lookup

        return bool(lookup.increase(ids))

    def _room_for(self, n: int) -> None:
        self.keys = _with_room(self.keys, self.n, n, GROWTH, self.expected)

    def values(self) -> pa.Array:
        return pa.array(self.keys[: self.n].view(self.dtype))

    @property
    def nbytes(self) -> int:
        return self.keys.nbytes + self.table.nbytes


class _Strings:
    def __init__(self, type_: pa.DataType) -> None:
        self.n = 0
        self.type = type_  # of 64-bit offsets
        self.offsets: NDArray[np.int64] = np.zeros(17, np.int64)
        self.data: NDArray[np.uint8] = np.empty(256, np.uint8)
        self.table = _Table()

    def takes(self, ids: IdValues) -> bool:
        return isinstance(ids, pa.Array) and ids.type == self.type

    def slots(self, ids: IdValues, guess: int) -> Slots:
        from fastdiv_kernels.cpu import lookup

        offsets, data = _buffers(ids)
        m = len(offsets) - 1
        if guess + m <= self.n and self._equal(guess, offsets, data):
            return slice(guess, guess + m)
        found = np.empty(m, np.int64)
        done = 0
        while True:
            if self.n >= self.table.room():
                lookup.index_bytes(self.offsets, self.data, self.n, self.table.clear(self.n))
            most = self.table.room()
            self._room_for(min(most, self.n + m - done), int(offsets[-1] - offsets[done]))
            done, self.n = lookup.find_bytes(
                offsets, data, done, self.offsets, self.data, self.n, self.table.slots, found,
                min(most, len(self.offsets) - 1),
            )  # fmt: skip
            if done == m:
                return _as_slice(found)

    def cut(self, n: int) -> None:
        from fastdiv_kernels.cpu import lookup

        self.n = n
        if self.table.slots is not None:
            lookup.index_bytes(self.offsets, self.data, n, self.table.clear(n))

    def _equal(self, guess: int, offsets: NDArray[np.int64], data: NDArray[np.uint8]) -> bool:
        known = self.offsets[guess : guess + len(offsets)]
        return np.array_equal(known - known[0], offsets - offsets[0]) and np.array_equal(
            self.data[known[0] : known[-1]], data[offsets[0] : offsets[-1]]
        )

    def _room_for(self, n: int, more_bytes: int) -> None:
        used = int(self.offsets[self.n])
        self.offsets = _with_room(self.offsets, self.n + 1, n + 1)
        self.data = _with_room(self.data, used, used + more_bytes)

    def values(self) -> pa.Array:
        buffers = [None, pa.py_buffer(self.offsets[: self.n + 1]), pa.py_buffer(self.data)]
        return pa.Array.from_buffers(self.type, self.n, buffers)

    @property
    def nbytes(self) -> int:
        return self.offsets.nbytes + self.data.nbytes + self.table.nbytes


def _with_room(
    array: NDArray[Number], used: int, size: int, growth: float = GROWTH, expected: int = 0
) -> NDArray[Number]:
    """Return an array of at least `size`, with the first `used` entries of the one given."""
    if size <= len(array):
        return array
    likely = min(expected, RUSH * size)  # of a damaged file, what it claims is not true
    grown = np.empty(likely if likely >= size else max(size, int(len(array) * growth)), array.dtype)
    grown[:used] = array[:used]
    return grown


def _buffers(ids: pa.Array) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    """Return offsets (n + 1,) and bytes of a large_string array."""
    _, offsets, data = ids.buffers()
    ends = np.frombuffer(offsets, np.int64, len(ids) + 1, ids.offset * 8)
    if data is None:
        return np.zeros(len(ids) + 1, np.int64), np.zeros(0, np.uint8)
    # Of a slice only its own bytes: the buffer may be that of a whole column.
    used = np.frombuffer(data, np.uint8)[ends[0] : ends[-1]]
    return ends - ends[0], used.copy()


def _as_slice(slots: NDArray[np.int64]) -> Slots:
    """Return slots as a slice where they run on without a gap, which is stored faster."""
    n = len(slots)
    if n and slots[-1] - slots[0] == n - 1 and bool((np.diff(slots) == 1).all()):
        return slice(int(slots[0]), int(slots[0]) + n)
    return slots

"""Ledger: id to slot, and the label of each slot. Nothing else.

Slots number the samples of a split in the order in which they were first seen. Besides the id
values a sample costs 4 bytes for its label and, only once ids come in another order, at most 8
for the table that finds them: the same order costs one comparison.
"""

from __future__ import annotations

import os
from typing import TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from fastdiv.arrays import address
from fastdiv.batch import IdValues
from fastdiv.errors import DataError

Slots = slice | NDArray[np.int64]
Number = TypeVar("Number", bound=np.generic)
FREE = 2**32 - 1  # an entry of a table that holds none
GROUP = 16  # entries of a cache line
FEWEST = 64  # ids, for a table by the id itself
CLOSE = 1.25  # places an id in such a table, at most: with room on both sides 7.5 bytes a sample
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
        if self.n > used:
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
        if self._same_labels(slots, labels):
            return None
        known = self.labels[slots]
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

    def _same_labels(self, slots: Slots, labels: NDArray[np.int32]) -> bool:
        from fastdiv_kernels.cpu import lookup

        labels = _whole(labels.astype(np.int32, copy=False))
        if isinstance(slots, slice):
            known = address(self.labels) + 4 * slots.start
            return bool(lookup.equal_bytes(known, address(labels), labels.nbytes))
        return bool(lookup.same_labels(self.labels, slots, address(labels)))

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
    """Slots by the hash of their id, or by the id itself; see `fastdiv_kernels.cpu.lookup`."""

    def __init__(self) -> None:
        self.slots: NDArray[np.uint32] | None = None
        self.room = 0  # slots that it takes
        self.mask = np.uint32(0)  # bits of an entry that are of the hash
        self.seed = np.uint64(int.from_bytes(os.urandom(8)))
        self.base: np.uint64 | None = None  # the first place, of a table by the id itself

    def clear(self, n: int) -> NDArray[np.uint32]:
        """Make an empty table by hash with room for n slots and some more."""
        self.slots = None  # given back before more is taken
        groups = max(4, int(n * GROWTH / TABLE_FILL) // GROUP + 1)
        line = np.full((groups + 1) * GROUP, FREE, np.uint32)
        skip = -line.ctypes.data % (4 * GROUP) // 4
        self.slots = line[skip : skip + groups * GROUP]
        self.room = min(int(groups * GROUP * TABLE_FILL), FREE - 1)
        self.mask = np.uint32(FREE << self.room.bit_length() & FREE)
        self.base = None
        return self.slots

    def clear_places(self, n: int, low: int, high: int) -> NDArray[np.uint32]:
        """Make an empty table by the id itself, of n ids from low to high and some on either side.

        A place is the distance from `base`, modulo 2**64.
        """
        self.slots = None
        size = int(n * GROWTH / TABLE_FILL)
        self.slots = np.full(size, FREE, np.uint32)
        self.room = size
        self.base = np.uint64((low - (size - (high - low + 1)) // 2) % 2**64)
        return self.slots

    def reaches(self, id_: int) -> bool:
        """Say whether there is a place for an id, which a table by hash has for any."""
        return self.base is None or (id_ - int(self.base)) % 2**64 < self.room

    @property
    def nbytes(self) -> int:
        return 0 if self.slots is None else self.slots.nbytes


class _Integers:
    def __init__(self, dtype: np.dtype[np.generic], expected: int) -> None:
        self.n = 0
        self.dtype = dtype
        self.flip = -(2**63) if dtype.kind == "u" else 0  # makes the order that of int64
        self.expected = expected
        self.keys: NDArray[np.int64] = np.empty(16, np.int64)
        self.table = _Table()

    def takes(self, ids: IdValues) -> bool:
        return not isinstance(ids, pa.Array) and ids.dtype == self.dtype

    def slots(self, ids: IdValues, guess: int) -> Slots:
        from fastdiv_kernels.cpu import lookup

        ids = _whole(ids)
        m, at = len(ids), address(ids)
        if guess + m <= self.n and lookup.count_equal(address(self.keys) + 8 * guess, at, m) == m:
            return slice(guess, guess + m)
        if self.table.slots is None and self._continues(ids):
            self._room_for(self.n + m)
            self.keys[self.n : self.n + m] = ids.view(np.int64)
            self.n += m
            return slice(self.n - m, self.n)
        found = np.empty(m, np.int64)
        done = 0
        while True:
            self._make_table_for(int(ids[done]))
            table = self.table
            self._room_for(min(table.room, self.n + m - done))
            most = min(table.room, len(self.keys))
            likely = int(found[done - 1]) + 1 if done else guess
            if table.base is not None:
                done, self.n = lookup.find_places(
                    at, m, done, likely, self.keys, self.n, table.base, table.slots, found, most
                )
            else:
                done, self.n = lookup.find_ints(
                    at, m, done, likely, self.keys, self.n, table.slots, table.mask, table.seed,
                    found, most,
                )  # fmt: skip
            if done == m:
                return _as_slice(found)

    def cut(self, n: int) -> None:
        before, self.n = self.n, n
        table = self.table
        if table.slots is None or n == before:
            return
        if table.base is None:
            self._index(table.clear(n))
        else:
            table.slots.fill(FREE)
            self._index(table.slots)

    def _continues(self, ids: IdValues) -> bool:
        """Say whether ids go on increasing, as running numbers do: then none is known."""
        from fastdiv_kernels.cpu import lookup

        if self.n and not self.keys[self.n - 1 : self.n].view(self.dtype)[0] < ids[0]:
            return False
        return bool(lookup.increasing(address(ids), len(ids), self.flip))

    def _make_table_for(self, coming: int) -> None:
        """Make a table that can take one more id, which is coming, if this one cannot."""
        table, n = self.table, self.n
        if table.slots is not None and n < table.room and table.reaches(coming):
            return
        keys = self.keys[:n].view(self.dtype)
        low, high = (int(keys.min()), int(keys.max())) if n else (coming, coming)
        low, high = min(low, coming), max(high, coming)
        if n >= FEWEST and high - low < n * CLOSE:
            self._index(table.clear_places(n, low, high))
        else:
            self._index(table.clear(n))

    def _index(self, empty: NDArray[np.uint32]) -> None:
        from fastdiv_kernels.cpu import lookup

        table = self.table
        if table.base is not None:
            lookup.index_places(self.keys, self.n, table.base, empty)
        else:
            lookup.index_ints(self.keys, self.n, empty, table.mask, table.seed)

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

        m = len(ids)
        if m == 0:
            return slice(guess, guess)
        ends, bytes_at = _buffers(ids)
        at = address(ends)
        if guess + m <= self.n and lookup.equal_strings(
            address(self.offsets) + 8 * guess, address(self.data), at, bytes_at, m
        ):
            return slice(guess, guess + m)
        found = np.empty(m, np.int64)
        done, table = 0, self.table
        while True:
            if table.slots is None or self.n >= table.room:
                self._index(table.clear(self.n))
            self._room_for(min(table.room, self.n + m - done), int(ends[-1] - ends[done]))
            likely = int(found[done - 1]) + 1 if done else guess
            done, self.n = lookup.find_bytes(
                at, bytes_at, m, done, likely, self.offsets, self.data, self.n, table.slots,
                table.mask, table.seed, found, min(table.room, len(self.offsets) - 1),
            )  # fmt: skip
            if done == m:
                return _as_slice(found)

    def cut(self, n: int) -> None:
        before, self.n = self.n, n
        if self.table.slots is not None and n != before:
            self._index(self.table.clear(n))

    def _index(self, empty: NDArray[np.uint32]) -> None:
        from fastdiv_kernels.cpu import lookup

        table = self.table
        lookup.index_bytes(self.offsets, self.data, self.n, empty, table.mask, table.seed)

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


def _buffers(ids: pa.Array) -> tuple[NDArray[np.int64], int]:
    """Return offsets (n + 1,) of a large_string array, n > 0, and the address of its bytes."""
    _, offsets, data = ids.buffers()
    ends = np.frombuffer(offsets, np.int64, len(ids) + 1, ids.offset * 8)
    return _whole(ends), 0 if data is None else data.address


def _whole(array: NDArray[Number]) -> NDArray[Number]:
    """Return an array whose entries lie behind one another, each where its size divides."""
    array = np.ascontiguousarray(array)
    return array if array.flags.aligned else array.copy()


def _as_slice(slots: NDArray[np.int64]) -> Slots:
    """Return slots as a slice where they run on without a gap, which is stored faster."""
    from fastdiv_kernels.cpu import lookup

    n = len(slots)
    if n and slots[-1] - slots[0] == n - 1 and lookup.consecutive(slots):
        return slice(int(slots[0]), int(slots[0]) + n)
    return slots

"""EpochFile: the stored scores of one epoch, in a mapped file that grows by blocks.

Within a block, of a power of two of slots, each field is contiguous. So chunks scatter into it in
any order, a file grows by appending blocks, and a block is what later computations take at once.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Container, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fastdiv.batch import Scores
from fastdiv.disk import extend, write_all
from fastdiv.ledger import Slots
from fastdiv.stored import COLUMNS, FIELDS, Stored, stored_bytes
from fastdiv_kernels.contract import REASON, Array

AGREES_NATS = 1e-6  # losses of two rows of one sample that count as the same
ONCE: Mapping[int, float] = MappingProxyType({})  # every sample has one row


class Contradiction(Exception):  # noqa: N818  # not an error by itself: the engine words it
    """Two rows of one sample in one epoch disagree; `row` is the second's place in its batch."""

    def __init__(self, row: int) -> None:
        super().__init__(row)
        self.row = row


def _rank(row: list[Any]) -> list[tuple[float, bool]]:
    """Return what rows of one sample are compared by; -0.0 comes before 0.0."""
    numbers = [*row[:-1], *row[-1].tolist()]
    return [(float(x), not np.signbit(float(x))) for x in numbers]


def _words(column: Array) -> Array:
    """Return a column as the compiled index takes it: it only copies what Numba does not know."""
    return column.view(np.uint16) if column.dtype == np.float16 else column


class EpochFile:
    """The stored scores of one epoch."""

    def __init__(
        self, path: Path, block: int, loss_dtype: np.dtype[Any], classes: int, width: int
    ) -> None:
        self.path = path
        self.block = block  # slots
        self.loss_dtype = loss_dtype
        self.classes = classes
        self.width = width  # of a profile
        self.blocks = 0  # in the file
        self.views: dict[str, Array] | None = None  # (blocks, block) each, while mapped
        self.filled = 0  # no slot from here on is taken
        self._labels: NDArray[np.uint32] | None = None  # (slots,) label + 1, 0: as the ledger says
        self.relabelled = False  # whether there are labels that are not the ledger's
        self._descriptor: int | None = None  # that it is written through, while mapped
        self.stale = False  # whether slots without a sample hold what was there before
        self.saved = False  # then it is not written, and need not be writable
        self.highest: dict[int, float] = {}  # loss of slots of whose rows one with less is kept

    @property
    def block_bytes(self) -> int:
        """Bytes of a block, with all its fields."""
        return self.block * stored_bytes(self.loss_dtype, self.width)

    def _grow(self, blocks: int) -> None:
        self.unmap()
        extend(self.path, blocks * self.block_bytes)
        if self.relabelled:
            extend(self.labels_path, blocks * self.block * 4)
        self.blocks = blocks

    def remove(self) -> None:
        """Remove the file."""
        self.unmap()
        self.path.unlink(missing_ok=True)
        self.labels_path.unlink(missing_ok=True)

    def take_over(self, old: EpochFile) -> None:
        """Be written over the file of an epoch that is forgotten; this one has none yet."""
        old.labels_path.unlink(missing_ok=True)
        old.close()
        old.path.rename(self.path)
        self.blocks, self.views = old.blocks, old.views
        old.views = None
        self.map()["flags"][:] = 0
        self.stale = True

    def settle(self) -> None:
        """Leave nothing of the epoch that the file was of before."""
        if not self.stale:
            return
        views = self.map()
        for b in range(self.blocks):
            missing = np.flatnonzero(views["flags"][b] == 0)
            for name in COLUMNS if len(missing) else ():
                views[name][b, missing] = 0
        self.stale = False

    @property
    def labels_path(self) -> Path:
        """Where labels that are not the ledger's are kept, if there are any."""
        return self.path.with_suffix(".labels")

    def _other_labels(self) -> NDArray[np.uint32]:
        """Map the labels that are not the ledger's; only where `relabelled`."""
        if self._labels is None:
            mode: Literal["c", "r+"] = "c" if self.saved else "r+"
            shape = (self.blocks * self.block,)
            self._labels = np.memmap(self.labels_path, np.uint32, mode, shape=shape)
        return self._labels

    def map(self) -> dict[str, Array]:
        """Map the file, unless it is."""
        if self.views is None:
            access = mmap.ACCESS_COPY if self.saved else mmap.ACCESS_WRITE
            with self.path.open("rb" if self.saved else "r+b") as file:
                mapped = mmap.mmap(file.fileno(), self.blocks * self.block_bytes, access=access)
            views: dict[str, Array] = {}
            offset = 0
            for name, dtype in self._dtypes().items():
                shape, strides = (self.blocks, self.block), (self.block_bytes, dtype.itemsize)
                views[name] = np.ndarray(shape, dtype, mapped, offset, strides)
                offset += self.block * dtype.itemsize
            views["profile"] = np.ndarray(
                (self.blocks, self.block, self.width), np.float16, mapped,
                offset if self.width else 0, (self.block_bytes, 2 * self.width, 2),
            )  # fmt: skip
            self.views = views
        return self.views

    def _dtypes(self) -> dict[str, np.dtype[Any]]:
        """Return the fields of a block, in their order; a profile comes after them."""
        return dict(zip(FIELDS, (self.loss_dtype, *map(np.dtype, "fffiB")), strict=True))

    def read_ahead(self, names: Container[str]) -> None:
        """Have the system fetch some fields of all blocks, where it takes such advice.

        By itself it would read what lies between them too.
        """
        if not hasattr(os, "posix_fadvise"):
            return
        with self.path.open("rb") as file:
            for start in range(0, self.blocks * self.block_bytes, self.block_bytes):
                offset = start
                for name, dtype in self._dtypes().items():
                    size = self.block * dtype.itemsize
                    if name in names:
                        os.posix_fadvise(file.fileno(), offset, size, os.POSIX_FADV_WILLNEED)
                    offset += size

    def unmap(self) -> None:
        """Give the mappings back; the data stays in the files."""
        self.views = self._labels = None
        self.close()

    def close(self) -> None:
        """Close what it was written through."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def __del__(self) -> None:
        """Close what it was written through, if it still is."""
        self.close()

    def relabel(self, slots: NDArray[np.int64], labels: NDArray[np.int32]) -> None:
        """Note labels that are not the ledger's, of rows about to be put; the first row counts."""
        flags = self._room_for(int(slots.max()) + 1)["flags"]
        new = flags[slots // self.block, slots % self.block] == 0
        if not self.relabelled:
            self.relabelled = True
            extend(self.labels_path, self.blocks * self.block * 4)
        self._other_labels()[slots[new]] = labels[new].astype(np.uint32) + 1

    def forget_labels(self, slots: NDArray[np.int64]) -> None:
        """Take back what `relabel` noted of rows that were not put after all."""
        flags = self._room_for(int(slots.max()) + 1)["flags"]
        free = flags[slots // self.block, slots % self.block] == 0
        self._other_labels()[slots[free]] = 0

    def put(
        self,
        slots: Slots,
        scores: Scores | Stored,
        flags: NDArray[np.uint8],  # (n,) of the rows, see `flags_of`
        labels: NDArray[np.int32],  # (n,) of the rows
        known: NDArray[np.int32],  # of every slot, the ledger's
        first_wins: bool,
        highest: Mapping[int, float] = ONCE,  # row -> loss, of rows that stand for several
    ) -> int:
        """Write scores to slots; return how many rows were of samples already there.

        Rows of one sample that agree count once, whichever order they come in. Rows that do not
        raise Contradiction, unless `first_wins`; then nothing is written.
        """
        columns = [*(getattr(scores, name) for name in FIELDS[:-1]), flags, self._profile(scores)]
        if isinstance(slots, slice):
            if slots.start >= self.filled or not self._taken(slots.start, slots.stop):
                self._put_run(slots.start, slots.stop, columns)
                self.highest.update((slots.start + row, loss) for row, loss in highest.items())
                return 0
            slots = np.arange(slots.start, slots.stop)
        views = self._room_for(int(slots.max()) + 1)
        self.filled = max(self.filled, int(slots.max()) + 1)
        again = self._scatter(slots, columns, views)
        if len(again) and not first_wins:
            try:
                self._compare(slots, columns, labels, known, again, views, highest)
            except Contradiction:
                put = np.delete(slots, again)
                for name in COLUMNS:
                    views[name][put // self.block, put % self.block] = 0
                raise
        for row, loss in highest.items():
            self.highest.setdefault(int(slots[row]), loss)
        return len(again)

    def _profile(self, scores: Scores | Stored) -> Array:
        """Return what is kept of the vectors of scores (n, width)."""
        if not self.width:
            return np.empty((len(scores.loss), 0), np.float16)
        assert scores.profile is not None
        return scores.profile

    def _runs(self, start: int, stop: int) -> Iterator[tuple[int, int, int]]:
        """Divide consecutive slots into (block, place in it, number)."""
        while start < stop:
            b, at = divmod(start, self.block)
            n = min(self.block - at, stop - start)
            yield b, at, n
            start += n

    def _taken(self, start: int, stop: int) -> bool:
        flags = self._room_for(stop)["flags"]
        return any(flags[b, at : at + n].any() for b, at, n in self._runs(start, stop))

    def _put_run(self, start: int, stop: int, columns: list[Array]) -> None:
        """Write consecutive slots: by the file, which is faster than touching mapped pages."""
        self._room_for(stop, mapped=False)
        self.filled = max(self.filled, stop)
        row = 0
        if self._descriptor is None:
            self._descriptor = os.open(self.path, os.O_RDWR | getattr(os, "O_CLOEXEC", 0))
        columns = [np.ascontiguousarray(column) for column in columns if column.size]
        sizes = [column.nbytes // len(column) for column in columns]
        parts = []
        for b, at, n in self._runs(start, stop):
            field = b * self.block_bytes
            for column, size in zip(columns, sizes, strict=True):
                parts.append((column, row * size, n * size, field + at * size))
                field += self.block * size
            row += n
        write_all(self._descriptor, parts)

    def _scatter(
        self, slots: NDArray[np.int64], columns: list[Array], views: dict[str, Array]
    ) -> NDArray[np.int64]:
        """Write rows to their slots; return those whose slot was taken instead."""
        from fastdiv_kernels.cpu.lookup import scatter

        shift = self.block.bit_length() - 1
        targets = tuple(_words(views[name]) for name in COLUMNS)
        columns = [_words(x) for x in columns]
        done = int(scatter(0, slots, tuple(columns), targets, shift))
        if done == len(slots):
            return np.empty(0, np.int64)
        rest = slots[done:]
        _, first = np.unique(rest, return_index=True)
        new = np.zeros(len(rest), np.bool_)
        new[first] = views["flags"][rest[first] // self.block, rest[first] % self.block] == 0
        rows = done + np.flatnonzero(new)
        scatter(0, slots[rows], tuple(x[rows] for x in columns), targets, shift)
        return done + np.flatnonzero(~new)

    def _compare(
        self, slots: NDArray[np.int64], columns: list[Array], labels: NDArray[np.int32],
        known: NDArray[np.int32], again: NDArray[np.int64], views: dict[str, Array],
        highest: Mapping[int, float],
    ) -> None:  # fmt: skip
        """Compare rows with those of the same samples; keep the least, or raise Contradiction."""
        where = slots[again]
        at = where // self.block, where % self.block
        label_there = known[where]
        if self.relabelled:
            others = self._other_labels()[where]
            label_there = np.where(others > 0, (others - 1).astype(np.int32), label_there)
        differs = np.isin(again, list(highest)) if highest else np.zeros(len(again), np.bool_)
        for name, column in zip(COLUMNS, columns, strict=True):  # most are the same to the bit
            bits = np.dtype(f"u{column.itemsize}")
            other = column[again].view(bits) != views[name][at].view(bits)
            differs |= other.any(axis=1) if other.ndim == 2 else other
        other_label = (labels[again] >= 0) & (labels[again] != label_there)
        before: dict[int, tuple[list[Any], float | None]] = {}  # to be put back
        try:
            for i in np.flatnonzero(differs | other_label).tolist():
                row, slot = int(again[i]), int(where[i])
                if other_label[i]:
                    raise Contradiction(row)
                if slot not in before:
                    place = divmod(slot, self.block)
                    old = [views[n][place].copy() for n in COLUMNS]
                    before[slot] = (old, self.highest.get(slot))
                self._merge(slot, views, [x[row] for x in columns], row, highest.get(row))
        except Contradiction:
            for slot, (old, loss) in before.items():
                for name, x in zip(COLUMNS, old, strict=True):
                    views[name][divmod(slot, self.block)] = x
                self.highest.pop(slot, None)
                if loss is not None:
                    self.highest[slot] = loss
            raise

    def _merge(
        self, slot: int, views: dict[str, Array], new: list[Any], row: int, highest: float | None
    ) -> None:
        """Keep one of the rows of a sample: the least, so that their order does not matter."""
        at = divmod(slot, self.block)
        old = [views[name][at] for name in COLUMNS]
        same = old[4] == new[4] and old[5] & REASON == new[5] & REASON
        lowest = min(float(old[0]), float(new[0]))
        known = self.highest.get(slot, float(old[0]))
        highest = max(known, float(new[0]) if highest is None else highest)
        if not same or highest - lowest > AGREES_NATS:
            raise Contradiction(row)
        if highest > lowest:
            self.highest[slot] = highest
        if _rank(new) < _rank(old):
            for name, x in zip(COLUMNS, new, strict=True):
                views[name][at] = x

    def _room_for(self, slots: int, mapped: bool = True) -> dict[str, Array]:
        blocks = -(-slots // self.block)
        if blocks > self.blocks:
            self._grow(max(blocks, self.blocks * 3 // 2))
        return self.map() if mapped else {}

    def read(self, b: int, n: int, labels: NDArray[np.int32]) -> Stored:
        """Return the first n slots of a block; `labels` are the ledger's for them."""
        if b < self.blocks:
            views = self.map()
            columns = {name: views[name][b, :n] for name in COLUMNS}
        else:
            columns = {name: np.zeros(n, np.float32) for name in FIELDS}
            columns["loss"] = np.zeros(n, self.loss_dtype)
            columns["predicted"] = np.zeros(n, np.int32)
            columns["flags"] = np.zeros(n, np.uint8)
            columns["profile"] = np.zeros((n, self.width), np.float16)
        if self.relabelled and b < self.blocks:
            first = b * self.block
            others = self._other_labels()[first : first + n]
            labels = np.where(others > 0, (others - 1).astype(np.int32), labels[: len(others)])
        return Stored(**columns, labels=labels, classes=self.classes)

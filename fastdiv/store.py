"""Store: (epoch, slot) to what is kept of Scores, in mapped files.

One file an epoch, in blocks of a power of two of slots; within a block each field is
contiguous. So chunks scatter into it in any order, a file grows by appending blocks, and a block
is what later computations take at once.
"""

from __future__ import annotations

import json
import mmap
import os
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fastdiv.batch import Scores
from fastdiv.disk import copy_file, extend, write_at
from fastdiv.errors import DataError
from fastdiv.ledger import Slots
from fastdiv_kernels.contract import CORRECT, PRESENT, REASON, TOP5, Array

LARGEST_BLOCK = 1 << 16
SMALLEST_BLOCK = 1 << 6
USUAL_BLOCK = 1 << 12
OPEN_FILES = 64  # mapped at once
AGREES_NATS = 1e-6  # losses of two rows of one sample that count as the same
ONCE: Mapping[int, float] = MappingProxyType({})  # every sample has one row


@dataclass(slots=True)
class Stored:
    """What is kept of the scores of consecutive slots in one epoch."""

    loss: Array  # (n,) float32 or float64
    confidence: Array  # (n,) float32
    margin: Array  # (n,) float32
    brier: Array  # (n,) float32
    predicted: Array  # (n,) int32
    flags: Array  # (n,) uint8: status, CORRECT, TOP5, PRESENT; 0 where the sample is missing
    labels: Array  # (n,) int32, of this epoch

    def take(self, rows: NDArray[np.int64]) -> Stored:
        """Return some rows."""
        return Stored(*(getattr(self, f.name)[rows] for f in fields(self)))


class Contradiction(Exception):  # noqa: N818  # not an error by itself: the engine words it
    """Two rows of one sample in one epoch disagree; `row` is the second's place in its batch."""

    def __init__(self, row: int) -> None:
        super().__init__(row)
        self.row = row


def _rank(row: list[Any]) -> list[tuple[float, bool]]:
    """Return what rows of one sample are compared by; -0.0 comes before 0.0."""
    return [(float(x), not np.signbit(float(x))) for x in row]


def flags_of(scores: Scores) -> NDArray[np.uint8]:
    """Return the flags (n,) that are stored of scores."""
    correct = scores.correct.view(np.uint8) * np.uint8(CORRECT)
    top5 = (scores.rank.view(np.uint32) < 5).view(np.uint8) * np.uint8(TOP5)  # -1 is large
    return np.asarray(scores.status | correct | top5 | np.uint8(PRESENT), np.uint8)


FIELDS = ("loss", "confidence", "margin", "brier", "predicted", "flags")


class EpochFile:
    """The stored scores of one epoch."""

    def __init__(self, path: Path, block: int, loss_dtype: np.dtype[Any]) -> None:
        self.path = path
        self.block = block  # slots
        self.loss_dtype = loss_dtype
        self.blocks = 0  # in the file
        self.views: dict[str, Array] | None = None  # (blocks, block) each, while mapped
        self.filled = 0  # no slot from here on is taken
        self._labels: NDArray[np.uint32] | None = None  # (slots,) label + 1, 0: as the ledger says
        self.relabelled = False  # whether there are labels that are not the ledger's
        self.saved = False  # then it is not written, and need not be writable
        self.highest: dict[int, float] = {}  # loss of slots of whose rows one with less is kept

    @property
    def block_bytes(self) -> int:
        """Bytes of a block, with all its fields."""
        return self.block * (self.loss_dtype.itemsize + 4 * 4 + 1)

    def _grow(self, blocks: int) -> None:
        self.unmap()
        extend(self.path, blocks * self.block_bytes)
        if self.relabelled:
            extend(self.labels_path, blocks * self.block * 4)
        self.blocks = blocks

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
            dtypes: list[np.dtype[Any]] = [self.loss_dtype, *map(np.dtype, "fffiB")]
            views: dict[str, Array] = {}
            offset = 0
            for name, dtype in zip(FIELDS, dtypes, strict=True):
                shape, strides = (self.blocks, self.block), (self.block_bytes, dtype.itemsize)
                views[name] = np.ndarray(shape, dtype, mapped, offset, strides)
                offset += self.block * dtype.itemsize
            self.views = views
        return self.views

    def unmap(self) -> None:
        """Give the mappings back; the data stays in the files."""
        self.views = self._labels = None

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
        columns = [*(getattr(scores, name) for name in FIELDS[:-1]), flags]
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
                for name in FIELDS:
                    views[name][put // self.block, put % self.block] = 0
                raise
        for row, loss in highest.items():
            self.highest.setdefault(int(slots[row]), loss)
        return len(again)

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
        with self.path.open("r+b", buffering=0) as file:
            for b, at, n in self._runs(start, stop):
                field = b * self.block_bytes
                for column in columns:
                    place = field + at * column.itemsize
                    write_at(file.fileno(), column[row : row + n].view(np.uint8), place)
                    field += self.block * column.itemsize
                row += n

    def _scatter(
        self, slots: NDArray[np.int64], columns: list[Array], views: dict[str, Array]
    ) -> NDArray[np.int64]:
        """Write rows to their slots; return those whose slot was taken instead."""
        from fastdiv_kernels.cpu.lookup import scatter

        shift = self.block.bit_length() - 1
        targets = tuple(views[name] for name in FIELDS)
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
        for name, column in zip(FIELDS, columns, strict=True):  # most are the same to the bit
            bits = np.dtype(f"u{column.itemsize}")
            differs |= column[again].view(bits) != views[name][at].view(bits)
        other_label = (labels[again] >= 0) & (labels[again] != label_there)
        before: dict[int, tuple[list[Any], float | None]] = {}  # to be put back
        try:
            for i in np.flatnonzero(differs | other_label).tolist():
                row, slot = int(again[i]), int(where[i])
                if other_label[i]:
                    raise Contradiction(row)
                if slot not in before:
                    place = divmod(slot, self.block)
                    before[slot] = ([views[n][place] for n in FIELDS], self.highest.get(slot))
                self._merge(slot, views, [x[row] for x in columns], row, highest.get(row))
        except Contradiction:
            for slot, (old, loss) in before.items():
                for name, x in zip(FIELDS, old, strict=True):
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
        old = [views[name][at] for name in FIELDS]
        same = old[4] == new[4] and old[5] & REASON == new[5] & REASON
        lowest = min(float(old[0]), float(new[0]))
        known = self.highest.get(slot, float(old[0]))
        highest = max(known, float(new[0]) if highest is None else highest)
        if not same or highest - lowest > AGREES_NATS:
            raise Contradiction(row)
        if highest > lowest:
            self.highest[slot] = highest
        if _rank(new) < _rank(old):
            for name, x in zip(FIELDS, new, strict=True):
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
            columns = {name: views[name][b, :n] for name in FIELDS}
        else:
            columns = {name: np.zeros(n, np.float32) for name in FIELDS}
            columns["loss"] = np.zeros(n, self.loss_dtype)
            columns["predicted"] = np.zeros(n, np.int32)
            columns["flags"] = np.zeros(n, np.uint8)
        if self.relabelled and b < self.blocks:
            first = b * self.block
            others = self._other_labels()[first : first + n]
            labels = np.where(others > 0, (others - 1).astype(np.int32), labels[: len(others)])
        return Stored(**columns, labels=labels)


class Store:
    """The stored scores of one split, an EpochFile for each epoch."""

    def __init__(self, directory: Path, loss_dtype: np.dtype[Any], block: int) -> None:
        self.directory = directory
        self.loss_dtype = loss_dtype
        self.block = block
        self.files: dict[int, EpochFile] = {}
        self._mapped: OrderedDict[int, None] = OrderedDict()

    @classmethod
    def create(cls, directory: Path, loss_dtype: np.dtype[Any], expected: int) -> Store:
        """Make an empty store, with blocks that suit the samples expected (0: unknown)."""
        directory.mkdir(parents=True)
        block = 1 << max(expected - 1, 1).bit_length() if expected else USUAL_BLOCK
        return cls(directory, loss_dtype, min(max(block, SMALLEST_BLOCK), LARGEST_BLOCK))

    @classmethod
    def open(cls, directory: Path) -> Store:
        """Open a saved store."""
        meta = json.loads((directory / "store.json").read_text())
        store = cls(directory, np.dtype(meta["loss_dtype"]), meta["block"])
        for epoch, entry in meta["epochs"].items():
            file = store._new(int(epoch))
            file.blocks = entry["blocks"]
            file.filled = file.blocks * store.block
            if not file.path.is_file() or file.path.stat().st_size < file.blocks * file.block_bytes:
                raise DataError(f"{file.path} is missing or too short: the saved run is damaged")
            file.relabelled = entry["relabelled"]
            file.saved = True
            if file.relabelled and not file.labels_path.is_file():
                raise DataError(f"{file.labels_path} is missing: the saved run is damaged")
            store.files[int(epoch)] = file
        return store

    def describe(self, directory: Path) -> None:
        """Write into `directory` what is needed to open the store there."""
        epochs = {
            epoch: {"blocks": file.blocks, "relabelled": file.relabelled}
            for epoch, file in self.files.items()
        }
        meta = {"loss_dtype": self.loss_dtype.name, "block": self.block, "epochs": epochs}
        (directory / "store.json").write_text(json.dumps(meta))

    def _new(self, epoch: int) -> EpochFile:
        path = self.directory / f"epoch_{epoch:06d}.scores"
        return EpochFile(path, self.block, self.loss_dtype)

    def epoch(self, epoch: int) -> EpochFile:
        """Return the file of an epoch, made if there is none, ready for use."""
        if epoch not in self.files:
            self.files[epoch] = self._new(epoch)
        self._mapped[epoch] = None
        self._mapped.move_to_end(epoch)
        if len(self._mapped) > OPEN_FILES:
            oldest, _ = self._mapped.popitem(last=False)
            if oldest in self.files:
                self.files[oldest].unmap()
        return self.files[epoch]

    def copy(self, directory: Path) -> Store:
        """Return a store of the same content in another directory, which is made."""
        directory.mkdir(parents=True)
        store = Store(directory, self.loss_dtype, self.block)
        for epoch, file in self.files.items():
            other = store.files[epoch] = store._new(epoch)
            for old, new in ((file.path, other.path), (file.labels_path, other.labels_path)):
                if old.exists():
                    copy_file(old, new)
            other.blocks, other.filled = file.blocks, file.filled
            other.relabelled, other.highest = file.relabelled, dict(file.highest)
        return store

    def trim(self, samples: int) -> None:
        """Cut off the room for growth that was not used."""
        blocks = -(-samples // self.block)
        for file in self.files.values():
            if file.blocks > blocks:
                file.unmap()
                os.truncate(file.path, blocks * file.block_bytes)
                if file.relabelled:
                    os.truncate(file.labels_path, blocks * file.block * 4)
                file.blocks = blocks

    def drop(self, epoch: int) -> None:
        """Forget an epoch."""
        file = self.files.pop(epoch)
        self._mapped.pop(epoch, None)
        file.unmap()
        file.path.unlink(missing_ok=True)
        file.labels_path.unlink(missing_ok=True)

    def move(self, directory: Path) -> None:
        """Note that the files now lie elsewhere."""
        self.directory = directory
        for file in self.files.values():
            file.unmap()
            file.path = directory / file.path.name

"""SplitScan: what has been read of one split."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from fastdiv.batch import IdValues, Scores
from fastdiv.epoch_file import ONCE, Contradiction
from fastdiv.ledger import Ledger
from fastdiv.metrics import EpochRow, PairRow
from fastdiv.states import RowTotals
from fastdiv.store import Store
from fastdiv.stored import Stored
from fastdiv.tables import History, Samples

CARRIED = 1 << 29  # rows: sums are brought to canonical form each so many


@dataclass(slots=True)
class Held:
    """Rows of an epoch as they are held: those of a run of slots."""

    slots: NDArray[np.int64]  # (n,)
    ids: IdValues | None  # (n,)
    stored: Stored  # (n,)
    highest: Mapping[int, float]  # row -> loss, of rows that stand for several


@dataclass(slots=True)
class SplitScan:
    """Samples, their scores in each epoch, and the rows made of epochs that are complete."""

    name: str | None
    ledger: Ledger
    store: Store
    history: History
    ends: dict[int, int] = field(default_factory=dict)  # epoch -> slot after the last row read
    rows: dict[int, EpochRow] = field(default_factory=dict)
    pairs: list[PairRow] = field(default_factory=list)
    classes: dict[int, pa.Table] = field(default_factory=dict)
    duplicates: Counter[int] = field(default_factory=Counter)
    totals: dict[int, RowTotals | None] = field(default_factory=dict)  # see `put`

    @classmethod
    def create(
        cls, name: str | None, directory: Path, number: int, loss_dtype: np.dtype[Any],
        classes: int, profiles: bool, expected: int, rolling: bool,
    ) -> SplitScan:  # fmt: skip
        """Begin the split of a number in a directory."""
        where = _scores(directory, number)
        store = Store.create(where, loss_dtype, classes, profiles, expected)
        history = History(None if rolling else _history(directory, number))
        return cls(name, Ledger(expected), store, history)

    @property
    def samples(self) -> Samples:
        """What has been read so far, for the functions that make tables."""
        return Samples.of(self.name, self.ledger, self.store)

    def put(
        self, epoch: int, ids: IdValues | None, scores: Scores | Stored,
        flags: NDArray[np.uint8], labels: NDArray[np.int32], first_wins: bool,
        highest: Mapping[int, float] = ONCE, totals: RowTotals | None = None,
    ) -> None:  # fmt: skip
        """Give rows of an epoch their slots and store their scores; see `EpochFile.put`.

        `totals` are those of the rows, if they are known. As long as they are of all rows that
        come, each of another sample, their sum is what the store would be totalled to.
        """
        samples, end = self.ledger.n, self.ends.get(epoch, 0)
        slots = self.ledger.slots(ids, len(labels), end)
        file = self.store.epoch(epoch)
        relabelled = self.ledger.relabel(slots, labels)
        if relabelled is not None:
            file.relabel(*relabelled)
        try:
            again = file.put(slots, scores, flags, labels, self.ledger.labels, first_wins, highest)
        except Contradiction:
            if relabelled is not None:
                file.forget_labels(relabelled[0])
            self.ledger.undo(samples)
            raise
        self.ends[epoch] = slots.stop if isinstance(slots, slice) else int(slots[-1]) + 1
        self.duplicates[epoch] += again
        before = self.totals.get(epoch)
        if again or totals is None:
            self.totals[epoch] = None
        elif epoch not in self.totals:
            self.totals[epoch] = totals
        elif before is not None:
            before.add(totals)
            if before.epoch.n // CARRIED > (before.epoch.n - totals.epoch.n) // CARRIED:
                self.totals[epoch] = before.carried()

    def forget(self, epoch: int) -> None:
        """Forget an epoch; its samples stay, and what they were in others."""
        if epoch in self.store.files:
            self.store.drop(epoch)
        for of_epochs in (self.ends, self.rows, self.classes, self.duplicates, self.totals):
            of_epochs.pop(epoch, None)
        self.pairs = [p for p in self.pairs if epoch not in (p.before.epoch, p.after.epoch)]

    def held(self, epoch: int) -> Iterator[Held]:
        """Yield the rows of an epoch, in slot order."""
        samples, file = self.samples, self.store.epoch(epoch)
        keys = np.array(sorted(file.highest), np.int64)
        for block in range(-(-len(samples) // file.block)):
            x = samples.read(file, block)
            there = np.flatnonzero(x.flags)
            if not len(there):
                continue
            slots = block * file.block + there
            ids: Any = None
            if not self.ledger.positional:
                ids = samples.ids.take(pa.array(slots))
                ids = ids.to_numpy() if pa.types.is_integer(ids.type) else ids
            several = keys[slice(*np.searchsorted(keys, [slots[0], slots[-1] + 1]))]
            rows = np.searchsorted(slots, several)
            highest = {
                row: file.highest[slot]
                for row, slot in zip(rows.tolist(), several.tolist(), strict=True)
            }
            yield Held(slots, ids, x.take(there), highest)

    def copy(self, directory: Path, number: int) -> SplitScan:
        """Return what has been read so far as a split in another directory, to go on by itself."""
        rolling = self.history.path is None
        return SplitScan(
            self.name,
            copy.deepcopy(self.ledger),
            self.store.copy(_scores(directory, number)),
            History.of(self.history.records(), self.history.last)
            if rolling
            else History(_history(directory, number)),
            ends=self.ends.copy(),
            rows=self.rows.copy(),
            pairs=self.pairs.copy(),
            classes=self.classes.copy(),
            duplicates=self.duplicates.copy(),
            totals=copy.deepcopy(self.totals),
        )


def _scores(directory: Path, number: int) -> Path:
    return directory / "scanning" / str(number)


def _history(directory: Path, number: int) -> Path:
    return directory / f"history-{number}"

"""Scan: what has been read so far, from scored batches in order to the rows of the tables."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

import fastdiv
from fastdiv.batch import Batch, Chunk, Scores
from fastdiv.epoch_file import Contradiction
from fastdiv.errors import DataError, UsageError
from fastdiv.invalid import InvalidRows, Tally
from fastdiv.metrics import ClassMeans, EpochRow, PairRow, best_epochs, class_table
from fastdiv.plan import Selection, split_order
from fastdiv.run import SCHEMA_VERSION, tables_of
from fastdiv.run_directory import scores_directory
from fastdiv.sources import Layout
from fastdiv.split import SplitScan
from fastdiv.states import RowTotals
from fastdiv.tables import History, Samples, step_totals
from fastdiv_kernels.contract import Backend, Count, dtype_name

SCORES = ("all", "slim", "rolling")


@dataclass(frozen=True, slots=True)
class Options:
    """What the user asked of a scan, checked."""

    duplicates: str = "error"
    scores: str = "all"
    clip: float | None = None
    strict: bool = False

    def __post_init__(self) -> None:
        if self.duplicates not in ("error", "first"):
            raise UsageError(f"duplicates must be error or first, not {self.duplicates!r}")
        if self.scores not in SCORES:
            raise UsageError(f"scores must be {', '.join(SCORES)}, not {self.scores!r}")
        clip: object = self.clip
        usable = isinstance(clip, float | int) and 0 < clip < 1
        if clip is not None and not usable:
            raise UsageError(f"clip must be a number between 0 and 1, not {clip!r}")

    @property
    def keeps_profiles(self) -> bool:
        """Whether losses at other temperatures can be had of the scores that are stored."""
        return self.scores != "slim"

    @property
    def clip_nats(self) -> float | None:
        """The largest loss in nats."""
        return None if self.clip is None else -float(np.log(self.clip))


class Scan:
    """Takes scored batches in order; `finish` makes the tables.

    Parameters
    ----------
    place
        Names a row of a chunk to a person.
    selected
        The epochs to take; None takes all.
    expected : int
        About how many samples a split has, 0 where nothing tells. No room is taken for more than
        some times the samples that come.
    parts : int
        How many files, tables or arrays are read.
    epoch_names
        Of epochs that are not plain numbers.
    reread
        Yields all batches again up to those of a chunk, to find the first of two rows that
        contradict each other; None where there is no second time.
    """

    def __init__(
        self, layout: Layout, place: Callable[[Chunk, int], str], kernels: Backend,
        options: Options, selected: Selection | None, directory: Path, pool: Executor,
        threads: int, *, expected: int = 0, parts: int = 1,
        epoch_names: Mapping[int, str] | None = None,
        reread: Callable[[Chunk], Iterable[Batch]] | None = None,
    ) -> None:  # fmt: skip
        self.layout = layout
        self.place = place
        self.kernels = kernels
        self.options = options
        self.selected = selected
        self.directory = directory
        self.pool = pool
        self.threads = threads
        self.expected = expected
        self.parts = parts
        self.epoch_names = {} if epoch_names is None else epoch_names  # may still grow
        self.reread = reread
        self.splits: dict[str | None, SplitScan] = {}
        self.tally = Tally(InvalidRows(layout))

    # -- as batches come -------------------------------------------------------------------

    def commit(
        self, batch: Batch, scores: Scores, flags: NDArray[np.uint8], tally: Tally | None = None,
        totals: RowTotals | None = None,
    ) -> None:  # fmt: skip
        """Give a batch's samples their slots, store their scores, and count them.

        A batch of one split and epoch is taken whole, or refused and leaves nothing. `totals` are
        those of all its rows, if they are known.
        """
        tally = self.tally if tally is None else tally
        for split, epoch, rows in groups(batch):
            if self.selected is None or self.selected(epoch):
                of_group = totals if rows is None else None
                self._commit_group(batch, scores, flags, split, epoch, rows, tally, of_group)
        tally.nbytes += batch.nbytes

    def _commit_group(
        self,
        batch: Batch,
        scores: Scores,
        flags: NDArray[np.uint8],
        split: str | None,
        epoch: int,
        rows: NDArray[np.int64] | None,
        tally: Tally,
        totals: RowTotals | None,
    ) -> None:
        labels, ids = batch.labels, batch.ids
        if rows is not None:
            scores = scores.take(rows)
            labels, flags = labels[rows], flags[rows]
            if ids is not None:
                ids = ids.take(pa.array(rows)) if isinstance(ids, pa.Array) else ids[rows]

        def row_of(i: int) -> int:
            return int(i if rows is None else rows[i])

        def place(i: int) -> str:
            return self.place(batch.chunk, batch.start + row_of(i))

        if self.options.strict:
            tally.invalid.refuse(scores.status, place)
        part = self.split(split)
        if self.options.scores == "rolling":
            self._close_before(part, epoch)
        try:
            first_wins = self.options.duplicates == "first"
            part.put(epoch, ids, scores, flags, labels, first_wins, totals=totals)
        except Contradiction as found:
            raise self._contradiction(batch, row_of(found.row), split, epoch) from None
        tally.rows += len(scores)
        tally.invalid.part_rows[batch.chunk.part] += len(scores)
        if totals is None or totals.epoch.invalid:
            tally.invalid.note(batch.chunk.part, scores.status, labels, place)
        if totals is None or totals.epoch.count(Count.INFINITE):
            tally.invalid.note_infinite(scores.loss, place)

    def split(self, name: str | None) -> SplitScan:
        """Return what has been read of a split, begun if nothing has."""
        if name not in self.splits:
            wide = self.layout.dtype == np.float64
            self.splits[name] = SplitScan.create(
                name, self.directory, len(self.splits), np.dtype("f8" if wide else "f4"),
                self.layout.classes, self.options.keeps_profiles, self.expected,
                self.options.scores == "rolling",
            )  # fmt: skip
        return self.splits[name]

    def _contradiction(self, batch: Batch, row: int, split: str | None, epoch: int) -> DataError:
        """Word a contradiction; the first row's place is found by reading ids again."""
        assert batch.ids is not None
        value = _value(batch.ids[row])
        second = (batch.chunk, batch.start + row)
        first = next(self._places_of(value, split, epoch, second), None)
        places = [self.place(*first)] if first is not None else []
        return _contradiction([*places, self.place(*second)], value, epoch)

    def _places_of(
        self, value: Any, split: str | None, epoch: int, before: tuple[Chunk, int]
    ) -> Iterator[tuple[Chunk, int]]:
        for batch in self.reread(before[0]) if self.reread is not None else ():
            for name, e, rows in groups(batch):
                if (name, e) != (split, epoch) or batch.ids is None:
                    continue
                ids = batch.ids.to_pylist() if isinstance(batch.ids, pa.Array) else batch.ids
                for i in range(len(ids)) if rows is None else rows.tolist():
                    if ids[i] == value and (batch.chunk, batch.start + i) != before:
                        yield batch.chunk, batch.start + i

    def absorb(self, other: SplitScan, of: int, epoch: int, where: str) -> int:
        """Take over the rows of an epoch of another scan as rows of `epoch`.

        `where` names the other to a person. Return how many samples came that were not there.
        """
        part = self.split(other.name)
        if self.options.scores == "rolling":
            self._close_before(part, epoch)
        elif part.rows and epoch <= max(part.rows):  # what was totalled may change
            part.rows, part.pairs, part.classes = {}, [], {}
        first_wins = self.options.duplicates == "first"
        before, rows = part.duplicates[epoch], 0
        for held in other.held(of):
            x = held.stored
            rows += len(x.flags)
            try:
                part.put(epoch, held.ids, x, x.flags, x.labels, first_wins, held.highest)
            except Contradiction as found:
                assert held.ids is not None
                raise _contradiction([where], _value(held.ids[found.row]), epoch) from None
        return rows - (part.duplicates[epoch] - before)

    # -- when epochs are complete ----------------------------------------------------------

    def _close_before(self, part: SplitScan, epoch: int) -> None:
        """With rolling scores: total the epochs before one that begins, and forget old ones."""
        if part.ends and epoch < max(part.ends):
            raise DataError(
                f"epoch {epoch} comes after epoch {max(part.ends)}: rolling scores need epochs in "
                "order; sort the dump, or give --scores all"
            )
        if epoch in part.store.files:
            return
        self.close(part)
        old = sorted(part.store.files)[:-1]  # the last one is what the new one comes from
        waiting = part.history.waiting(old)
        if waiting:
            part.history.carry_on(self.kernels, part.samples, waiting, self.pool, self.threads)
        for gone in old:
            part.store.retire(gone)

    def close(self, part: SplitScan) -> None:
        """Make the rows of the epochs there are, and of the transitions between them."""
        samples, layout = part.samples, self.layout
        how = (self.pool, self.threads)
        for epoch in sorted(e for e in part.store.files if e not in part.rows):
            name = self.epoch_names.get(epoch)
            before = part.rows[max(part.rows)] if part.rows else None
            known, part.totals[epoch] = part.totals.get(epoch), None  # rows that still come
            found = step_totals(
                self.kernels, samples, None if before is None else before.epoch, epoch,
                layout.classes, known, *how,
            )  # fmt: skip
            of_classes = found.rows.classes
            means = ClassMeans.of(of_classes.counts)
            row = EpochRow(part.name, epoch, found.rows.epoch, layout.classes, name, means)
            classes = class_table(part.name, epoch, of_classes, layout.class_names)
            part.classes[epoch] = classes
            if before is not None:
                part.pairs.append(PairRow(part.name, before, row, found.pair))
            part.rows[epoch] = row  # last: then all of it is there

    def finish(self) -> dict[str, pa.Table]:
        """Check the whole and make the tables."""
        self.tally.invalid.check_structure()
        if not self.tally.rows:
            raise DataError("no rows: nothing to analyze (with --epochs, none of those is there)")
        parts = self._parts()
        for i, part in enumerate(parts):
            self.close(part)
            final = scores_directory(self.directory, i)
            final.parent.mkdir(exist_ok=True)
            part.store.trim(part.ledger.n)
            part.store.directory.rename(final)
            part.store.move(final)
        (self.directory / "scanning").rmdir()
        return tables_of(
            [row for part in parts for row in part.rows.values()],
            [pair for part in parts for pair in part.pairs],
            [table for part in parts for table in part.classes.values()],
        )

    def copy(self, directory: Path) -> Scan:
        """Return a scan of all that has been read, which goes on by itself."""
        other = copy.copy(self)
        other.directory = directory
        other.splits = {
            name: part.copy(directory, i) for i, (name, part) in enumerate(self.splits.items())
        }
        other.tally = self.tally.copy()
        return other

    def _parts(self) -> list[SplitScan]:
        return [self.splits[name] for name in sorted(self.splits, key=split_order)]

    def _missing_epochs(self) -> list[int]:
        """Return the epochs that were asked for one by one and are nowhere."""
        asked = self.selected.numbers if self.selected is not None else None
        return sorted((asked or frozenset()) - {e for part in self._parts() for e in part.rows})

    @property
    def samples(self) -> list[Samples]:
        """The samples of each split, in the order of the tables."""
        return [part.samples for part in self._parts()]

    @property
    def histories(self) -> list[History]:
        """The records of each split, in the order of the tables."""
        return [part.history for part in self._parts()]

    def discard_working_files(self) -> None:
        """Remove what a saved run does not need."""
        for part in self._parts():
            if part.history.path is not None:
                part.history.path.unlink(missing_ok=True)

    def summary(self) -> dict[str, Any]:
        """Say where the tables come from; JSON can hold it."""
        layout, parts, invalid = self.layout, self._parts(), self.tally.invalid
        there = sorted({epoch for part in parts for epoch in part.rows})
        return {
            "schema_version": SCHEMA_VERSION,
            "fastdiv": fastdiv.__version__,
            "backend": {"name": self.kernels.name, "on": self.kernels.describe()},
            "threads": self.threads,
            "kind": layout.kind.name.lower(),
            "classes": layout.classes,
            "class_names": None if layout.class_names is None else list(layout.class_names),
            "dtype": dtype_name(layout.dtype),
            "columns": layout.evidence,
            "options": {
                "duplicates": self.options.duplicates,
                "scores": self.options.scores,
                "clip": self.options.clip,
                "strict": self.options.strict,
            },
            "epochs_missing": self._missing_epochs(),
            "epoch_names": {str(e): self.epoch_names[e] for e in there if e in self.epoch_names},
            "parts": self.parts,
            "rows": self.tally.rows,
            "bytes": self.tally.nbytes,
            "splits": [
                {
                    "split": part.name,
                    "n_samples": part.ledger.n,
                    "n_epochs": len(part.rows),
                    "ids": "position" if part.ledger.positional else "column",
                    "n_duplicates": sum(part.duplicates.values()),
                    "duplicates_by_epoch": {str(e): n for e, n in part.duplicates.items() if n},
                    **best_epochs(list(part.rows.values())),
                }
                for part in parts
            ],
            "invalid": invalid.summary(),
            "infinite": {"n": invalid.infinite, "first": invalid.infinite_places},
        }


def _value(id_: Any) -> Any:
    return id_.as_py() if isinstance(id_, pa.Scalar) else id_.item()


def _contradiction(places: list[str], id_: Any, epoch: int) -> DataError:
    return DataError(
        f"{' and '.join(places)}: sample {id_!r} is twice in epoch {epoch} with other "
        "predictions or labels: if these are different epochs, name them; if one of them is "
        "to count, give --duplicates first; if ids do not tell samples apart, give --id none"
    )


def groups(batch: Batch) -> Iterator[tuple[str | None, int, NDArray[np.int64] | None]]:
    """Divide the rows of a batch by split and epoch; None stands for all rows."""
    epochs = batch.epochs
    if batch.splits is None and not isinstance(epochs, np.ndarray):
        if len(batch.labels):
            yield batch.chunk.split, epochs, None
        return
    n = len(batch.labels)
    if isinstance(epochs, np.ndarray):
        numbers, of_row = np.unique(epochs, return_inverse=True)
    else:
        numbers, of_row = np.array([epochs]), np.zeros(n, np.int64)
    names: list[str | None] = [batch.chunk.split]
    if batch.splits is not None:
        encoded = batch.splits.dictionary_encode()
        names = [*encoded.dictionary.to_pylist(), None]
        codes = encoded.indices.fill_null(len(names) - 1).to_numpy().astype(np.int64)
        of_row = of_row + codes * len(numbers)
    groups, first = np.unique(of_row, return_index=True)
    for group in groups[np.argsort(first)]:  # in the order in which they come
        split, epoch = divmod(int(group), len(numbers))
        rows = np.flatnonzero(of_row == group)
        yield names[split], int(numbers[epoch]), None if len(rows) == n else rows

"""Scan: what has been read so far, from scored batches in order to the rows of the tables."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Executor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

import fastdiv
from fastdiv.batch import Batch, Chunk, Scores
from fastdiv.errors import DataError, UsageError
from fastdiv.ledger import Ledger
from fastdiv.metrics import EpochRow, PairRow, best_epochs
from fastdiv.plan import Plan, Selection, split_order
from fastdiv.run import SCHEMA_VERSION, scores_directory, tables_of
from fastdiv.sources import Source
from fastdiv.store import Contradiction, Store
from fastdiv.tables import History, Samples, class_rows, epoch_row, pair_row
from fastdiv_kernels.contract import REASON, Backend, Reason

PLACES_NAMED = 5  # of invalid rows, for each reason
WORDS = {
    Reason.NAN: "NaN in the predictions",
    Reason.POSITIVE_INFINITY: "+inf in the predictions",
    Reason.CONTRADICTS_KIND: "values that contradict the kind",
    Reason.NO_MASS: "no mass: every class is 0 or -inf",
    Reason.LABEL: "label missing or out of range",
    Reason.NULL: "null predictions",
    Reason.LENGTH: "wrong number of classes",
}
REMEDY = {
    Reason.CONTRADICTS_KIND: "give the right --kind",
    Reason.LENGTH: "the class count must not change within a data set",
}


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
        if self.scores not in ("all", "rolling"):
            raise UsageError(f"scores must be all or rolling, not {self.scores!r}")
        clip: object = self.clip
        usable = isinstance(clip, float | int) and 0 < clip < 1
        if clip is not None and not usable:
            raise UsageError(f"clip must be a number between 0 and 1, not {clip!r}")


@dataclass(slots=True)
class SplitScan:
    """What has been read of one split."""

    name: str | None
    ledger: Ledger
    store: Store
    history: History
    ends: dict[int, int] = field(default_factory=dict)  # epoch -> slot after the last row read
    rows: dict[int, EpochRow] = field(default_factory=dict)  # of epochs that are complete
    pairs: list[PairRow] = field(default_factory=list)
    classes: list[pa.Table] = field(default_factory=list)
    duplicates: Counter[int] = field(default_factory=Counter)

    @property
    def samples(self) -> Samples:
        """What has been read so far, for the functions that make tables."""
        return Samples.of(self.name, self.ledger, self.store)


class Scan:
    """Takes scored batches in order; `finish` makes the tables."""

    def __init__(
        self, source: Source, plan: Plan, kernels: Backend, options: Options,
        selected: Selection | None, directory: Path, pool: Executor, threads: int,
    ) -> None:  # fmt: skip
        self.source = source
        self.plan = plan
        self.kernels = kernels
        self.options = options
        self.selected = selected
        self.directory = directory
        self.pool = pool
        self.threads = threads
        self.splits: dict[str | None, SplitScan] = {}
        self.invalid: Counter[Reason] = Counter()
        self.places: dict[Reason, list[str]] = {}
        self.structural: dict[int, dict[Reason, tuple[int, str]]] = {}  # by part
        self.part_rows: Counter[int] = Counter()
        self.rows = 0
        self.nbytes = 0

    # -- as batches come -------------------------------------------------------------------

    def commit(self, batch: Batch, scores: Scores, flags: NDArray[np.uint8]) -> None:
        """Give a batch's samples their slots and store their scores."""
        self.nbytes += batch.nbytes
        for split, epoch, rows in _groups(batch):
            if self.selected is None or self.selected(epoch):
                self._commit_group(batch, scores, flags, split, epoch, rows)

    def _commit_group(
        self,
        batch: Batch,
        scores: Scores,
        flags: NDArray[np.uint8],
        split: str | None,
        epoch: int,
        rows: NDArray[np.int64] | None,
    ) -> None:
        labels, ids = batch.labels, batch.ids
        if rows is not None:
            scores = Scores(*(x[rows] for x in scores.arrays()))
            labels, flags = labels[rows], flags[rows]
            if ids is not None:
                ids = ids.take(pa.array(rows)) if isinstance(ids, pa.Array) else ids[rows]
        n = len(scores)
        self.rows += n
        self.part_rows[batch.chunk.part] += n
        self._note_invalid(batch, scores, rows)
        part = self._split(split)
        if self.options.scores == "rolling":
            self._close_before(part, epoch)
        slots = part.ledger.slots(ids, n, part.ends.get(epoch, 0))
        part.ends[epoch] = slots.stop if isinstance(slots, slice) else int(slots[-1]) + 1
        file = part.store.epoch(epoch)
        relabelled = part.ledger.relabel(slots, labels)
        if relabelled is not None:
            file.relabel(*relabelled)
        try:
            first_wins = self.options.duplicates == "first"
            part.duplicates[epoch] += file.put(
                slots, scores, flags, labels, part.ledger.labels, first_wins
            )
        except Contradiction as found:
            row = found.row if rows is None else int(rows[found.row])
            raise self._contradiction(batch, row, split, epoch) from None

    def _split(self, name: str | None) -> SplitScan:
        if name not in self.splits:
            # Where only columns tell the epochs and splits, files begin small and grow.
            known = self.plan.epochs is not None and self.plan.splits is not None
            expected = self.plan.samples // len(self.plan.splits or (None,)) if known else 0
            store = Store.create(
                self.directory / "scanning" / str(len(self.splits)),
                np.dtype(np.float64 if self.source.layout.dtype == np.float64 else np.float32),
                expected,
            )
            rolling = self.options.scores == "rolling"
            path = None if rolling else self.directory / f"history-{len(self.splits)}"
            history = History(path, expected)
            self.splits[name] = SplitScan(name, Ledger(expected), store, history)
        return self.splits[name]

    def _note_invalid(self, batch: Batch, scores: Scores, rows: NDArray[np.int64] | None) -> None:
        reasons = scores.status & REASON
        if not reasons.any():
            return

        def place(i: int) -> str:
            return self.source.place(batch.chunk, batch.start + int(i if rows is None else rows[i]))

        for reason in (Reason(int(r)) for r in np.unique(reasons) if r):
            where = np.flatnonzero(reasons == reason)
            self.invalid[reason] += len(where)
            places = self.places.setdefault(reason, [])
            places += [place(i) for i in where[: PLACES_NAMED - len(places)]]
            if reason in REMEDY:
                counts = self.structural.setdefault(batch.chunk.part, {})
                n, first = counts.get(reason) or (0, place(where[0]))
                counts[reason] = (n + len(where), first)
            if self.options.strict:
                raise DataError(
                    f"{places[0]}: {WORDS[reason]}{self._column(reason)}: mend the row, or leave "
                    "out --strict to count it and go on"
                )

    def _column(self, reason: Reason) -> str:
        layout = self.source.layout
        if reason == Reason.LABEL:
            column = f"column {layout.label!r}, " if layout.label is not None else ""
            return f" ({column}classes 0 to {layout.classes - 1})"
        names = layout.predictions
        return f" (column {names[0]!r})" if len(names) == 1 else f" (columns {names[0]!r} …)"

    def _contradiction(self, batch: Batch, row: int, split: str | None, epoch: int) -> DataError:
        """Word a contradiction; the first row's place is found by reading ids again."""
        assert batch.ids is not None
        id_ = batch.ids[row]
        value = id_.as_py() if isinstance(id_, pa.Scalar) else id_.item()
        second = (batch.chunk, batch.start + row)
        first = next(self._places_of(value, split, epoch, second), None)
        places = [self.source.place(*first)] if first is not None else []
        places.append(self.source.place(*second))
        return DataError(
            f"{' and '.join(places)}: sample {value!r} is twice in epoch {epoch} with other "
            "predictions or labels: if these are different epochs, name them; if one of them is "
            "to count, give --duplicates first"
        )

    def _places_of(
        self, value: Any, split: str | None, epoch: int, before: tuple[Chunk, int]
    ) -> Iterator[tuple[Chunk, int]]:
        for chunk in self.plan.chunks:
            for batch in self.source.read(chunk):
                for name, e, rows in _groups(batch):
                    if (name, e) != (split, epoch) or batch.ids is None:
                        continue
                    ids = batch.ids.to_pylist() if isinstance(batch.ids, pa.Array) else batch.ids
                    for i in range(len(ids)) if rows is None else rows.tolist():
                        if ids[i] == value and (chunk, batch.start + i) != before:
                            yield chunk, batch.start + i
            if chunk == before[0]:
                return

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
        for done in sorted(e for e in part.store.files if e not in part.rows):
            self._close(part, done)
        for old in sorted(part.store.files)[:-1]:  # the last one is what the new one comes from
            part.store.drop(old)

    def _close(self, part: SplitScan, epoch: int) -> None:
        """Make the rows of an epoch and of its transition from the one before."""
        samples, layout = part.samples, self.source.layout
        how = (self.pool, self.threads)
        row = epoch_row(self.kernels, samples, epoch, layout.classes, *how)
        if part.rows:
            before = part.rows[max(part.rows)]
            part.pairs.append(pair_row(self.kernels, samples, before, row, *how))
        part.rows[epoch] = row
        names = layout.class_names
        part.classes.append(class_rows(self.kernels, samples, epoch, layout.classes, names, *how))
        if self.options.scores == "rolling":
            part.history.carry_on(self.kernels, samples, [epoch], *how)

    def finish(self) -> dict[str, pa.Table]:
        """Check the whole and make the tables."""
        self._check_structure()
        if not self.rows:
            raise DataError("no rows: nothing to analyze (with --epochs, none of those is there)")
        for i, name in enumerate(sorted(self.splits, key=split_order)):
            part = self.splits[name]
            for epoch in sorted(part.store.files):
                if epoch not in part.rows:
                    self._close(part, epoch)
            final = scores_directory(self.directory, i)
            final.parent.mkdir(exist_ok=True)
            part.store.trim(part.ledger.n)
            part.store.directory.rename(final)
            part.store.move(final)
        (self.directory / "scanning").rmdir()
        parts = self._parts()
        return tables_of(
            [row for part in parts for row in part.rows.values()],
            [pair for part in parts for pair in part.pairs],
            [table for part in parts for table in part.classes],
        )

    def _parts(self) -> list[SplitScan]:
        return [self.splits[name] for name in sorted(self.splits, key=split_order)]

    def _check_structure(self) -> None:
        """Refuse files most of whose rows are of another kind or class count."""
        for part, counts in self.structural.items():
            for reason, (bad, where) in counts.items():
                if 2 * bad > self.part_rows[part]:
                    raise DataError(
                        f"{where}: {WORDS[reason]}{self._column(reason)}, as in {bad:,} of "
                        f"{self.part_rows[part]:,} rows of its file: {REMEDY[reason]}"
                    )

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

    def summary(self, threads: int) -> dict[str, Any]:
        """Say where the tables come from; JSON can hold it."""
        layout, parts = self.source.layout, self._parts()
        return {
            "schema_version": SCHEMA_VERSION,
            "fastdiv": fastdiv.__version__,
            "backend": {"name": self.kernels.name, "on": self.kernels.describe()},
            "threads": threads,
            "kind": layout.kind.name.lower(),
            "classes": layout.classes,
            "class_names": None if layout.class_names is None else list(layout.class_names),
            "dtype": layout.dtype.name,
            "columns": layout.evidence,
            "options": {
                "duplicates": self.options.duplicates,
                "scores": self.options.scores,
                "clip": self.options.clip,
                "strict": self.options.strict,
            },
            "epochs_missing": self._missing_epochs(),
            "parts": self.plan.parts,
            "rows": self.rows,
            "bytes": self.nbytes,
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
            "invalid": {
                "n": sum(self.invalid.values()),
                "reasons": [
                    {"reason": reason.name.lower(), "in_words": WORDS[reason], "n": n,
                     "first": self.places[reason]}
                    for reason, n in sorted(self.invalid.items())
                ],
            },
        }  # fmt: skip


def _groups(batch: Batch) -> Iterator[tuple[str | None, int, NDArray[np.int64] | None]]:
    """Divide the rows of a batch by split and epoch; None stands for all rows."""
    epochs = batch.epochs
    if isinstance(epochs, np.ndarray) and len(epochs) and (epochs == epochs[0]).all():
        epochs = int(epochs[0])
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

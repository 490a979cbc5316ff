"""EpochRows: the rows of one split and epoch of a source, scored, each sample once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from fastdiv.batch import Batch, Chunk, IdValues, Scores
from fastdiv.errors import UsageError
from fastdiv.ledger import Ledger
from fastdiv.pipeline import Pipeline
from fastdiv.plan import IN_FLIGHT_BYTES, SCORED_ROW_BYTES, Selection, make_plan
from fastdiv.scoring import score_batch
from fastdiv.sources import Source
from fastdiv_kernels.contract import Array, Backend

Rows = NDArray[np.int64]


@dataclass(slots=True)
class ScoredRows:
    """Rows of one batch."""

    labels: NDArray[np.int32]  # (n,)
    scores: Scores  # (n,)
    ids: IdValues | None  # (n,)
    vectors: Array  # (n, c) predictions; (0, 0) once they are not needed any more
    found: Rows = field(default_factory=lambda: np.zeros(0, np.int64))  # rows that were looked for

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return self.vectors.nbytes + len(self) * SCORED_ROW_BYTES

    def take(self, rows: Rows) -> ScoredRows:
        """Return some rows."""
        return ScoredRows(
            self.labels[rows], self.scores.take(rows), taken(self.ids, rows), self.vectors[rows]
        )


def taken(ids: IdValues | None, rows: Rows) -> IdValues | None:
    """Return the ids of some rows."""
    if ids is None:
        return None
    return ids.take(pa.array(rows)) if isinstance(ids, pa.Array) else ids[rows]


class Once:
    """Lets each sample through once: the first of its rows."""

    def __init__(self) -> None:
        self._ledger = Ledger()
        self._seen = np.zeros(0, np.bool_)

    def first(self, ids: IdValues, n: int) -> Rows:
        """Return those of n rows, ascending, whose sample was not there before."""
        found = self._ledger.slots(ids, n, 0)
        slots = np.arange(found.start, found.stop) if isinstance(found, slice) else found
        if self._ledger.n > len(self._seen):
            grown = np.zeros(2 * self._ledger.n, np.bool_)
            grown[: len(self._seen)] = self._seen
            self._seen = grown
        _, rows = np.unique(slots, return_index=True)
        new = np.sort(rows[~self._seen[slots[rows]]])
        self._seen[slots] = True
        return np.asarray(new, np.int64)


class EpochRows:
    """The rows of one split and epoch of a source.

    Parameters
    ----------
    source : Source
    split : str or None
        A source that has no splits is taken for it.
    epoch : int
        Its number in the source.
    kernels : Backend
    clip_nats : float or None
        The largest loss, as the user asked.
    threads : int

    Raises
    ------
    UsageError
        Where the source has no such epoch or split.
    """

    def __init__(
        self, source: Source, split: str | None, epoch: int, kernels: Backend,
        clip_nats: float | None, threads: int,
    ) -> None:  # fmt: skip
        self.source = source
        self.split = split
        self.epoch = epoch
        self.kernels = kernels
        self.clip_nats = clip_nats
        self.threads = threads
        self.chunks = make_plan(source, Selection(frozenset({epoch})), threads, "slim").chunks
        if source.layout.split is None:
            there = {chunk.split for chunk in self.chunks}
            if there == {None}:
                self.split = None
            self.chunks = [chunk for chunk in self.chunks if chunk.split == self.split]
            if not self.chunks:
                known = ", ".join(map(str, sorted(there, key=str)))
                raise UsageError(f"the source has no split {split!r} of the epoch, only {known}")
            source.expect(self.chunks)

    def each(
        self, count: Callable[[ScoredRows], ScoredRows], once: Once | None,
        take: Callable[[ScoredRows], None],
    ) -> None:  # fmt: skip
        """Let `take` have what `count` makes of the rows of each batch, in order, one at a time.

        `count` is called on any thread, in any order; with `once`, which lets only the first row
        of a sample through, in order, too.
        """

        def scored(chunk: Chunk) -> Iterator[ScoredRows]:
            for batch in self.source.read(chunk):
                rows = self._of_batch(batch)
                if rows is not None:
                    yield rows if once is not None else count(rows)

        pipeline = Pipeline(scored, lambda rows: rows.nbytes, IN_FLIGHT_BYTES)

        def take_first(rows: ScoredRows) -> None:
            assert once is not None
            assert rows.ids is not None
            take(count(rows.take(once.first(rows.ids, len(rows)))))

        pipeline.run(self.chunks, self.threads, take if once is None else take_first)

    def _of_batch(self, batch: Batch) -> ScoredRows | None:
        """Score those rows of a batch that are of the split and epoch; None where none is."""
        here = np.ones(len(batch.labels), np.bool_)
        here &= batch.epochs == self.epoch
        if batch.splits is not None:
            if self.split is None:
                here &= batch.splits.is_null().to_numpy(zero_copy_only=False)
            else:
                same = pc.equal(batch.splits, self.split).fill_null(False)
                here &= same.to_numpy(zero_copy_only=False)
        if not here.any():
            return None
        scores = score_batch(self.kernels, batch, self.source.layout.kind, self.clip_nats, False)
        rows = ScoredRows(batch.labels, scores, batch.ids, batch.predictions)
        return rows if here.all() else rows.take(np.flatnonzero(here))

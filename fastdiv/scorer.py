"""Scorer: batches to their scores, flags and totals, tile by tile, while a tile is in cache."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastdiv.batch import Batch, Scores
from fastdiv.scoring import score_batch
from fastdiv.states import RowTotals
from fastdiv.stored import Stored
from fastdiv_kernels.contract import Backend, Kind, profile_width


@dataclass(slots=True)
class Scored:
    """A batch, its scores and its totals."""

    batch: Batch
    scores: Scores  # (n,)
    flags: NDArray[np.uint8]  # (n,)
    totals: RowTotals | None  # of all rows; None where their epochs or splits differ
    room: _Room  # whose arrays these are

    def __len__(self) -> int:
        return len(self.flags)


class Scorer:
    """Scores batches on any thread.

    Arrays are written again once a batch is given back: fresh pages take as long as scoring does.

    Parameters
    ----------
    kernels : Backend
    kind : Kind
    dtype, classes
        Of the predictions.
    rows : int
        Most rows of a batch.
    clip_nats : float or None
        The largest loss.
    profiles : bool
        Keep of each vector what its loss at other temperatures is made from.
    """

    def __init__(
        self, kernels: Backend, kind: Kind, dtype: np.dtype[Any], classes: int, rows: int,
        clip_nats: float | None, profiles: bool,
    ) -> None:  # fmt: skip
        self._kernels = kernels
        self._kind = kind
        self._dtype = dtype
        self._classes = classes
        self._rows = rows
        self._clip_nats = clip_nats
        self._profiles = profiles
        self._free: list[_Room] = []  # its methods are atomic

    def score(self, batch: Batch) -> Scored:
        """Score a batch, and give up its predictions."""
        n, c = len(batch.labels), self._classes
        room = self._take(n)
        # Totals of very many classes would take longer than those of all rows by the store.
        alike = batch.splits is None and not isinstance(batch.epochs, np.ndarray)
        totals = RowTotals.zero(room.scores.loss.dtype, c) if alike and c <= self._rows else None

        no_profile = np.empty((n, 0), np.float16)

        def note(rows: slice, scores: Scores) -> None:
            flags = room.flags[rows]
            self._kernels.write_flags(scores.correct, scores.rank, scores.status, flags)
            if totals is not None:
                x = Stored(
                    scores.loss, scores.confidence, scores.margin, scores.brier,
                    scores.predicted, flags, batch.labels[rows],
                    no_profile[rows] if scores.profile is None else scores.profile, c,
                )  # fmt: skip
                totals.absorb(self._kernels, x)

        scores = score_batch(
            self._kernels, batch, self._kind, self._clip_nats, self._profiles, room.scores, note
        )
        batch.pieces = []
        return Scored(batch, scores, room.flags[:n], totals, room)

    def give_back(self, scored: Scored) -> None:
        """Take arrays back that nobody looks at any more."""
        self._free.append(scored.room)

    def _take(self, n: int) -> _Room:
        try:
            room = self._free.pop()
        except IndexError:
            room = self._new(max(n, self._rows))
        return room if len(room.flags) >= n else self._new(n)

    def _new(self, n: int) -> _Room:
        empty = self._kernels.empty
        scores = Scores.empty(n, self._dtype, empty)
        if self._profiles and profile_width(self._classes):
            scores.profile = empty((n, profile_width(self._classes)), np.float16)
        return _Room(scores, empty(n, np.uint8))


@dataclass(slots=True)
class _Room:
    """Arrays for the scores of a batch."""

    scores: Scores
    flags: NDArray[np.uint8]

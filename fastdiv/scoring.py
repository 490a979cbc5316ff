"""`score`: predictions and labels in memory to Scores, on any backend and number of threads."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fastdiv.arrays import as_labels, as_predictions
from fastdiv.backends import resolve
from fastdiv.batch import Batch, Scores
from fastdiv.errors import UsageError
from fastdiv_kernels.contract import REASON, Backend, Kind, Reason, profile_width

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

KINDS = {"logits": Kind.LOGITS, "probs": Kind.PROBS, "logprobs": Kind.LOGPROBS}
PIECE_BYTES = 4 << 20  # predictions a thread takes at once
TILE_BYTES = 1 << 20  # predictions scored before their profiles are made


def usable_threads(threads: int | None) -> int:
    """Return how many threads to use; None means the processors this process may run on."""
    if threads is None:
        return (
            len(os.sched_getaffinity(0))
            if hasattr(os, "sched_getaffinity")
            else os.cpu_count() or 1
        )
    if threads < 1:
        raise UsageError(f"threads must be at least 1, not {threads}")
    return threads


def kind_of(name: str) -> Kind:
    """Return the Kind of a name."""
    if name not in KINDS:
        raise UsageError(f"kind must be one of {', '.join(KINDS)}, not {name!r}")
    return KINDS[name]


def score(
    predictions: ArrayLike,  # or anything with DLPack
    labels: ArrayLike,
    *,
    kind: str,
    out: Scores | None = None,
    threads: int | None = None,
    backend: str = "auto",
) -> Scores:
    """Score each row of an array of predictions.

    Parameters
    ----------
    predictions : (n, c) float16, bfloat16, float32 or float64
        One row a sample, c >= 2 classes: NumPy, or anything on the host with DLPack (torch, JAX).
        C order; anything else is copied.
    labels : (n,) or (n, 1) integers
        The right class of each row; a label out of [0, c) makes its row invalid.
    kind : {"logits", "probs", "logprobs"}
        What the predictions are. Probabilities and log-probabilities are not renormalised.
    out : Scores, optional
        A previous result of the same shape and dtype, whose arrays are written again.
    threads : int, optional
        Default: the processors this process may run on. Does not change a bit of the result.
    backend : {"auto", "cpu", "reference"}

    Returns
    -------
    Scores
        See there for shapes, dtypes and units. Rows with NaN, +inf, no mass or a label out of
        range are marked in `status` and raise nothing.

    Raises
    ------
    UsageError
        Where shapes or dtypes do not fit.
    """
    kernels = resolve(backend)
    of_kind = kind_of(kind)
    x = as_predictions(predictions)
    y = as_labels(labels, len(x))
    if out is None:
        out = Scores.empty(len(x), x.dtype)
    else:
        _check_out(out, len(x), x.dtype)
    step = max(1, PIECE_BYTES // max(1, x.itemsize * x.shape[1]))
    pieces = range(0, len(x), step)

    def score_piece(start: int) -> None:
        stop = min(start + step, len(x))
        kernels.score(x[start:stop], y[start:stop], of_kind, *out.rows(start, stop).arrays())

    run_all(score_piece, pieces, usable_threads(threads))
    return out


def run_all(work: Callable[[int], None], items: range, threads: int) -> None:
    """Call `work` on every item, on a thread pool where that helps."""
    if threads == 1 or len(items) <= 1:
        for item in items:
            work(item)
    else:
        with ThreadPoolExecutor(min(threads, len(items))) as pool:
            list(pool.map(work, items))


class Room:
    """Arrays for the scores of batches, which are written again: fresh pages take as long as
    scoring does.

    Parameters
    ----------
    rows : int
        Most rows of a batch.
    dtype
        Of the predictions.
    width : int
        Of a profile; 0 where none is kept.
    """  # noqa: D205

    def __init__(self, rows: int, dtype: np.dtype[np.generic], width: int) -> None:
        self._rows = rows
        self._dtype = dtype
        self._width = width
        self._free: list[Scores] = []  # its methods are atomic

    def take(self, n: int) -> Scores:
        """Return arrays of at least n rows, for whoever gives them back."""
        try:
            scores = self._free.pop()
        except IndexError:
            scores = self._new(max(n, self._rows))
        return scores if len(scores) >= n else self._new(n)

    def give_back(self, scores: Scores) -> None:
        """Take arrays back that nobody looks at any more."""
        self._free.append(scores)

    def _new(self, n: int) -> Scores:
        scores = Scores.empty(n, self._dtype)
        if self._width:
            scores.profile = np.empty((n, self._width), np.float16)
        return scores


def score_batch(
    kernels: Backend, batch: Batch, kind: Kind, clip_nats: float | None, profiles: bool,
    room: Scores | None = None,
) -> Scores:  # fmt: skip
    """Score a batch, with the problems that only its source could see, and the user's clipping.

    `profiles`: keep of each vector what its loss at other temperatures is made from. `room`: at
    least as many rows, and profiles if they are kept, of which the first are written.
    """
    x = batch.predictions
    n, c = x.shape
    if room is None:
        room = Room(n, x.dtype, profile_width(c) if profiles else 0).take(n)
    # Tiles are in cache when their profiles are made.
    step = max(1, TILE_BYTES // (x.itemsize * c)) if room.profile is not None else n
    for start in range(0, n, max(1, step)):
        rows = slice(start, min(start + step, n))
        scores = room.take(rows)
        kernels.score(x[rows], batch.labels[rows], kind, *scores.arrays())
        if batch.problems is not None:
            _note_problems(scores, batch.problems[rows])
        if scores.profile is not None:
            kernels.profile(x[rows], kind, scores.predicted, scores.profile)
        if clip_nats is not None:
            np.minimum(scores.loss, scores.loss.dtype.type(clip_nats), out=scores.loss)
    return room.rows(0, n)


def _note_problems(scores: Scores, problems: NDArray[np.uint8]) -> None:
    """Make rows invalid in which a source saw a problem."""
    for reason in (Reason.NULL, Reason.LENGTH):
        scores.status[problems == reason] = reason
    bad = (scores.status & REASON) != 0
    scores.correct[bad] = False
    scores.predicted[bad] = scores.rank[bad] = -1
    for values in (scores.loss, scores.confidence, scores.margin, scores.brier):
        values[bad] = np.nan


def _check_out(out: Scores, n: int, dtype: np.dtype[np.generic]) -> None:
    if not isinstance(out, Scores):
        raise UsageError(f"out must be the Scores of an earlier call, not {type(out).__name__}")
    expected = Scores.empty(0, dtype)
    for have, want in zip(out.arrays(), expected.arrays(), strict=True):
        usable = have.flags.c_contiguous and have.flags.writeable and have.flags.aligned
        if len(have) != n or have.dtype != want.dtype or not usable:
            raise UsageError(
                f"out holds {len(have)} rows of {have.dtype} where {n} of {want.dtype} are needed, "
                "contiguous and writable"
            )

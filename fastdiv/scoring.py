"""`score`: predictions and labels in memory to Scores, on any backend and number of threads."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np

from fastdiv.backends import resolve
from fastdiv.batch import Batch, Scores
from fastdiv.errors import UsageError
from fastdiv_kernels.contract import REASON, Backend, Kind, Reason

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from fastdiv_kernels.contract import Array

KINDS = {"logits": Kind.LOGITS, "probs": Kind.PROBS, "logprobs": Kind.LOGPROBS}
PIECE_BYTES = 4 << 20  # predictions a thread takes at once
INT32 = np.iinfo(np.int32)


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
    predictions: ArrayLike,
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
    predictions : (n, c) float16, float32 or float64
        One row a sample, c >= 2 classes. C order; anything else is copied.
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


def score_batch(kernels: Backend, batch: Batch, kind: Kind, clip_nats: float | None) -> Scores:
    """Score a batch, with the problems that only its source could see, and the user's clipping."""
    scores = Scores.empty(len(batch.labels), batch.predictions.dtype)
    kernels.score(batch.predictions, batch.labels, kind, *scores.arrays())
    if batch.problems is not None:
        for reason in (Reason.NULL, Reason.LENGTH):
            scores.status[batch.problems == reason] = reason
        bad = (scores.status & REASON) != 0
        scores.correct[bad] = False
        scores.predicted[bad] = scores.rank[bad] = -1
        for values in (scores.loss, scores.confidence, scores.margin, scores.brier):
            values[bad] = np.nan
    if clip_nats is not None:
        np.minimum(scores.loss, scores.loss.dtype.type(clip_nats), out=scores.loss)
    return scores


def as_predictions(predictions: ArrayLike) -> Array:
    """Return predictions as kernels take them, or say what is wrong with them."""
    x = np.asarray(predictions)
    if x.ndim != 2:
        raise UsageError(f"predictions must have shape (n, c), not {x.shape}")
    if x.dtype.kind != "f" or x.dtype.itemsize not in (2, 4, 8):
        raise UsageError(f"predictions must be float16, float32 or float64, not {x.dtype}")
    if x.shape[1] < 2:
        raise UsageError(
            f"predictions have {x.shape[1]} class(es): at least 2 are needed "
            "(for one score p of the positive class, pass the two columns 1 - p and p)"
        )
    return np.ascontiguousarray(x, dtype=x.dtype.newbyteorder("="))


def as_labels(labels: ArrayLike, n: int) -> Array:
    """Return integer labels as (n,) int32, those that do not fit as -1."""
    y = np.asarray(labels)
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.shape != (n,):
        raise UsageError(f"labels must have shape ({n},) like the predictions, not {y.shape}")
    if y.dtype == np.bool_:
        y = y.astype(np.int32)
    if y.dtype.kind not in "iu":
        raise UsageError(f"labels must be integers, not {y.dtype}")
    if y.dtype.itemsize > 4 or y.dtype == np.uint32:
        y = np.where((y < 0) | (y > INT32.max), -1, y)
    return np.ascontiguousarray(y, dtype=np.int32)


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

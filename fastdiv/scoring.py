"""`score`: predictions and labels in memory to Scores, on any backend and number of threads."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fastdiv.arrays import address, as_int32, as_predictions, integer_labels, on_device
from fastdiv.backends import load, resolve, why_not
from fastdiv.batch import Batch, Scores
from fastdiv.errors import UsageError
from fastdiv_kernels.contract import (
    BFLOAT16,
    REASON,
    Array,
    Backend,
    Kind,
    Reason,
    profile_width,
)

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

KINDS = {"logits": Kind.LOGITS, "probs": Kind.PROBS, "logprobs": Kind.LOGPROBS}
PIECE_BYTES = 4 << 20  # predictions a thread takes at once
COPIED_BYTES = 16 << 20  # ... where they go to a device, which costs more for each time
MOST_HELPERS = 256  # threads are begun one by one, as they are needed
# Predictions scored before more is made of them and their scores: so many bytes, or rows where
# these are more, for each tile costs some calls; but no more bytes than that.
TILE_BYTES, TILE_ROWS, MOST_TILE_BYTES = 1 << 20, 1 << 10, 4 << 20


# The dtypes of Scores, that of losses for all predictions but float64.
SCORES = {
    name: getattr(Scores.empty(0, np.dtype(np.float32)), name).dtype
    for name in Scores.__dataclass_fields__
    if name != "profile"
}


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
        One row a sample, c >= 2 classes: NumPy, or anything with DLPack (torch, JAX, CuPy). C
        order; anything else is copied. Of a GPU they are scored there.
    labels : (n,) or (n, 1) integers
        The right class of each row; a label out of [0, c) makes its row invalid.
    kind : {"logits", "probs", "logprobs"}
        What the predictions are. Probabilities and log-probabilities are not renormalised.
    out : Scores, optional
        A previous result of the same shape and dtype, whose arrays are written again.
    threads : int, optional
        Default: the processors this process may run on. Does not change a bit of the result.
    backend : {"auto", "cpu", "cuda", "reference"}
        By default where the predictions lie.

    Returns
    -------
    Scores
        See there for shapes, dtypes and units; of a GPU its arrays are CuPy's, until `on_host`
        is asked for. Rows with NaN, +inf, no mass or a label out of
        range are marked in `status` and raise nothing.

    Raises
    ------
    UsageError
        Where shapes or dtypes do not fit.
    """
    of_kind, threads = kind_of(kind), usable_threads(threads)
    if backend in ("auto", "cuda") and on_device(predictions):
        return _score_on_device(predictions, labels, of_kind, out)
    kernels = resolve(backend)
    x = as_predictions(predictions)
    y = integer_labels(labels, len(x))
    if out is None:
        out = Scores.empty(len(x), x.dtype)
    else:
        _check_out(out, len(x), x.dtype)
    bytes_at_once = COPIED_BYTES if kernels.copies else PIECE_BYTES
    step = max(1, bytes_at_once // max(1, x.itemsize * x.shape[1]))
    pieces = range(0, len(x), step)

    if len(pieces) == 1:
        kernels.score(x, as_int32(y), of_kind, *out.arrays())
        return out

    def score_piece(start: int) -> None:
        rows = slice(start, start + step)
        kernels.score(x[rows], as_int32(y[rows]), of_kind, *out.take(rows).arrays())

    run_all(score_piece, pieces, threads)
    return out


def _score_on_device(predictions: Any, labels: Any, kind: Kind, out: Scores | None) -> Scores:
    """Score predictions where they lie, on a GPU; so do the scores."""
    kernels = kernels_on_device()
    with kernels.beside(predictions) as device:
        scores = _scored_there(kernels, device, predictions, labels, kind, out)
        device.leave(predictions, labels)
        return scores


def _scored_there(
    kernels: Any, device: Any, predictions: Any, labels: Any, kind: Kind, out: Scores | None
) -> Scores:
    x, y = predictions_on(device, predictions), kernels.labels(labels)
    if y is None or y.shape != (len(x),):
        raise UsageError(f"labels must be integers of shape ({len(x)},), like the predictions")
    if out is None:
        out = Scores.empty(len(x), x.dtype, device.empty)
    else:
        _check_out(out, len(x), x.dtype)
    kernels.score(x, y, kind, *out.arrays())
    return out


def kernels_on_device() -> Any:
    """Return the backend of a GPU that predictions lie on."""
    why = why_not("cuda")
    if why is not None:
        raise UsageError(
            f"predictions lie on a device, where backend 'cuda' scores them, but {why}; or pass "
            "them from host memory, as x.cpu() gives them"
        )
    return load("cuda")


def predictions_on(device: Any, predictions: Any) -> Any:
    """Return predictions (n, c) on a device as kernels take them, or say what is wrong."""
    x = device.put(predictions)
    if x.ndim != 2 or x.shape[1] < 2 or (x.dtype.kind != "f" and x.dtype != BFLOAT16):
        raise UsageError(
            "predictions must be float16, bfloat16, float32 or float64 of shape (n, c) with at "
            f"least 2 classes, not {x.dtype} of shape {x.shape}"
        )
    return x


_helpers: ThreadPoolExecutor | None = None  # threads, made when they are needed, and kept


def _forget_helpers() -> None:
    """Let a forked process make its own threads: it has none of its parent's."""
    global _helpers
    _helpers = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_helpers)


def run_all(work: Callable[[int], None], items: range, threads: int) -> None:
    """Call `work` on every item, in this thread and as many others as help."""
    global _helpers
    left, taking = iter(items), Lock()

    def work_off() -> None:
        try:
            while True:
                with taking:
                    item = next(left, None)
                if item is None:
                    return
                work(item)
        except BaseException:
            with taking:  # nobody begins another item
                for _ in left:
                    pass
            raise

    futures = []
    if min(threads, len(items)) > 1:
        pool = _helpers = _helpers or ThreadPoolExecutor(MOST_HELPERS, "fastdiv-scores")
        futures = [pool.submit(work_off) for _ in range(min(threads, len(items)) - 1)]
    try:
        work_off()
    finally:
        waiting = [future for future in futures if not future.cancel()]
        wait(waiting)
    for future in waiting:
        future.result()


def score_batch(
    kernels: Backend, batch: Batch, kind: Kind, clip_nats: float | None, profiles: bool,
    room: Scores | None = None, note: Callable[[slice, Scores], None] | None = None,
) -> Scores:  # fmt: skip
    """Score a batch, with the problems that only its source could see, and the user's clipping.

    `profiles`: keep of each vector what its loss at other temperatures is made from. `room`: at
    least as many rows, and profiles if they are kept, of which the first are written. `note` is
    told the rows and scores of one tile or some, which are then in cache, and calls kernels with
    them: where no more is to be done, Python only says once for all tiles what is called.
    """
    n = len(batch.labels)
    c, dtype = batch.pieces[0].shape[1], batch.pieces[0].dtype
    if room is None:
        room = Scores.empty(n, dtype, kernels.empty)
        if profiles and profile_width(c):
            room.profile = kernels.empty((n, profile_width(c)), np.float16)
    row_bytes = dtype.itemsize * c
    step = max(1, TILE_BYTES // row_bytes, min(TILE_ROWS, MOST_TILE_BYTES // row_bytes))

    def score_rows(x: Array, labels: NDArray[np.int32], scores: Scores) -> None:
        kernels.score(x, labels, kind, *scores.arrays())
        if scores.profile is not None:
            kernels.profile(x, kind, scores.predicted, scores.profile)

    def mend(scores: Scores, start: int) -> None:
        if batch.problems is not None:
            _note_problems(scores, batch.problems[start : start + len(scores)])
        if clip_nats is not None:
            np.minimum(scores.loss, scores.loss.dtype.type(clip_nats), out=scores.loss)

    whole = room.rows(0, n)
    groups = [lambda: score_rows(batch.pieces[0], batch.labels, whole)]
    if note is not None:
        groups.append(lambda: note(slice(0, n), whole))
    only_kernels = batch.problems is None and clip_nats is None
    # With few rows saying what is called takes longer than calling it, but for copies.
    if kernels.copies or (only_kernels and 4 * n > step):
        steps = _steps(batch.pieces, step, n, only_kernels and note is not None)
        if only_kernels and steps and kernels.in_tiles(groups, steps):
            return whole
        if not only_kernels and steps and kernels.in_tiles(groups[:1], steps):
            mend(whole, 0)
            if note is not None:
                kernels.in_tiles(groups[1:], [(0, 0, n, 0)])
            return whole
    start = noted = 0
    for piece in batch.pieces:
        for at in range(0, len(piece), step):
            x = piece[at : at + step]
            rows = slice(start, start + len(x))
            score_rows(x, batch.labels[rows], room.take(rows))
            mend(room.take(rows), start)
            start = rows.stop
            if note is not None and (start - noted >= TILE_ROWS or start == n):
                rows = slice(noted, start)
                note(rows, room.take(rows))
                noted = start
    return whole


def _steps(pieces: list[Array], step: int, n: int, noting: bool) -> list[tuple[int, int, int, int]]:
    """Return the steps of a batch (see `Backend.in_tiles`); none where pieces lie otherwise."""
    steps = []
    start = noted = 0
    for piece in pieces:
        if not piece.flags.c_contiguous or piece.dtype != pieces[0].dtype:
            return []
        first = 0 if on_device(piece) else address(piece)
        row_bytes = piece.strides[0]
        for at in range(0, len(piece), step):
            rows = min(step, len(piece) - at)
            steps.append((0, start, rows, first + at * row_bytes))
            start += rows
            if noting and (start - noted >= TILE_ROWS or start == n):
                steps.append((1, noted, start - noted, 0))
                noted = start
    return steps


def _note_problems(scores: Scores, problems: NDArray[np.uint8]) -> None:
    """Make rows invalid in which a source saw a problem."""
    for reason in (Reason.NULL, Reason.LENGTH):
        scores.status[problems == reason] = reason
    bad = (scores.status & REASON) != 0
    scores.correct[bad] = False
    scores.predicted[bad] = scores.rank[bad] = -1
    for values in (scores.loss, scores.confidence, scores.margin, scores.brier):
        values[bad] = np.nan
    if scores.profile is not None:
        scores.profile[bad] = 0


def _check_out(out: Scores, n: int, dtype: np.dtype[np.generic]) -> None:
    if not isinstance(out, Scores):
        raise UsageError(f"out must be the Scores of an earlier call, not {type(out).__name__}")
    wanted = {**SCORES, "loss": np.dtype(np.float64)} if dtype == np.float64 else SCORES
    for have, want in zip(out.arrays(), wanted.values(), strict=True):
        flags = have.flags
        usable = flags.c_contiguous and getattr(flags, "writeable", True)  # CuPy's are
        if len(have) != n or have.dtype != want or not (usable and getattr(flags, "aligned", True)):
            raise UsageError(
                f"out holds {len(have)} rows of {have.dtype} where {n} of {want} are needed, "
                "contiguous and writable"
            )

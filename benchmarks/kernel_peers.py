"""What the contract makes of logits: batches as the engine takes them, into buffers used again.

What a kernel writes stays in a cache, where the engine's next step would find it. The peers,
`torch_peers.compile_full_batches` and `compile_temperatures`, get the same: buffers, and batches
of the size they like best.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.turns import pieces_of, shared
from fastdiv_kernels import exact
from fastdiv_kernels.contract import GRID

if TYPE_CHECKING:
    from benchmarks.array_peers import Means
    from benchmarks.data import Arrays
    from fastdiv.batch import Scores

Check = Callable[[], "Means"]  # scores once more, to say what was computed
Run = Callable[[], Check]
Tempered = dict[int, tuple[float, float]]  # 0: mean loss at half and twice the logits


def fastdiv_score(arrays: Arrays) -> Run:
    from fastdiv.backends import resolve
    from fastdiv.batch import Scores
    from fastdiv_kernels.contract import Kind

    kernels = resolve()
    x, y = arrays.logits, arrays.labels
    n, step = len(y), _step(arrays)

    def scoring(buffer: Scores) -> Callable[[slice], tuple[Any, Any]]:
        def work(rows: slice) -> tuple[Any, Any]:
            scores = buffer if rows.stop - rows.start == step else buffer.rows(0, n % step)
            kernels.score(x[rows], y[rows], Kind.LOGITS, *scores.arrays())
            return scores.loss, scores.correct

        return work

    works = [scoring(Scores.empty(step, x.dtype)) for _ in range(arrays.threads)]
    return in_batches(shared(works, n, step), works[0], n, step)


def fastdiv_temperatures(arrays: Arrays) -> Callable[[], Tempered]:
    """Do what comes after `score`, of which nothing but the scores is there beforehand."""
    import fastdiv
    from fastdiv.backends import resolve
    from fastdiv.stored import flags_of
    from fastdiv_kernels.contract import Kind, profile_width

    kernels = resolve()
    x, classes = arrays.logits, arrays.logits.shape[1]
    n, step, width = len(x), _step(arrays), profile_width(classes)
    scores = fastdiv.score(x, arrays.labels, kind="logits", threads=arrays.threads)
    loss, margin, predicted = scores.loss, scores.margin, scores.predicted
    flags = flags_of(scores)
    totals = [
        (np.zeros(1, np.int64), np.zeros((2 * len(GRID), exact.LIMBS_FIXED), np.int64))
        for _ in range(arrays.threads)
    ]

    def tempering(counts: Any, sums: Any) -> Callable[[slice], None]:
        buffer = np.empty((step, width), np.float16)

        def work(rows: slice) -> None:
            profile = buffer[: rows.stop - rows.start]
            if width:
                kernels.profile(x[rows], Kind.LOGITS, predicted[rows], profile)
            kernels.tally_temperatures(
                loss[rows], margin[rows], flags[rows], profile, classes, counts, sums
            )

        return work

    run_all = shared([tempering(*own) for own in totals], n, step)

    def run() -> Tempered:
        for counts, sums in totals:
            counts.fill(0)
            sums.fill(0)
        run_all()
        n_taken = sum(int(counts[0]) for counts, _ in totals)
        sums = np.sum([sums for _, sums in totals], axis=0)
        return at_half_and_double([exact.mean(row, n_taken) for row in sums[: len(GRID)]])

    return run


def at_half_and_double(losses: Sequence[float]) -> Tempered:
    """Return two of the mean losses at the inverse temperatures of `GRID`."""
    return {0: (losses[GRID.index(0.5)], losses[GRID.index(2.0)])}


def _step(arrays: Arrays) -> int:
    """Return how many rows the engine takes at once."""
    from fastdiv.sources import layout

    row_bytes: int = arrays.logits.itemsize * arrays.logits.shape[1]
    return max(1, min(layout.BATCH_ROWS, layout.BATCH_BYTES // row_bytes))


def in_batches(run_all: Callable[[], None], work: Callable[[slice], Any], n: int, step: int) -> Run:
    """Return a call that scores all rows, and returns what can say what it computed.

    `work` returns the losses and the correctness of a batch.
    """

    def check() -> Means:
        loss = right = 0.0
        for rows in pieces_of(n, step):
            losses, correct = (np.asarray(values) for values in work(rows))
            loss += float(losses.sum(dtype=np.float64))
            right += int(correct.sum())
        return loss / n, right / n

    def run() -> Check:
        run_all()
        return check

    return run

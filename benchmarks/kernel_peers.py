"""`score` of the contract alone: batches as the engine takes them, into buffers used again.

What a kernel writes stays in a cache, where the engine's next step would find it. The peer,
`torch_peers.compile_full_batches`, gets the same: buffers, and batches of the size it likes best.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.turns import pieces_of, shared

if TYPE_CHECKING:
    from benchmarks.array_peers import Means
    from benchmarks.data import Arrays
    from fastdiv.batch import Scores

Check = Callable[[], "Means"]  # scores once more, to say what was computed
Run = Callable[[], Check]


def fastdiv_score(arrays: Arrays) -> Run:
    from fastdiv.backends import resolve
    from fastdiv.batch import Scores
    from fastdiv.sources.layout import BATCH_BYTES, BATCH_ROWS
    from fastdiv_kernels.contract import Kind

    kernels = resolve()
    x, y = arrays.logits, arrays.labels
    n, c = x.shape
    step = max(1, min(BATCH_ROWS, BATCH_BYTES // (4 * c)))

    def scoring(buffer: Scores) -> Callable[[slice], tuple[Any, Any]]:
        def work(rows: slice) -> tuple[Any, Any]:
            scores = buffer if rows.stop - rows.start == step else buffer.rows(0, n % step)
            kernels.score(x[rows], y[rows], Kind.LOGITS, *scores.arrays())
            return scores.loss, scores.correct

        return work

    works = [scoring(Scores.empty(step, x.dtype)) for _ in range(arrays.threads)]
    return in_batches(shared(works, n, step), works[0], n, step)


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

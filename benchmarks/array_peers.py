"""From logits and labels in memory to scores, as each library does it best; torch has its own file.

Each function takes `Arrays` and returns what is timed: a call that returns the loss and the
correctness of each row, or their means. What a library wants in another form (labels as int64,
tensors) is converted beforehand, at no cost to it. Peers are imported when asked for, each in a
process of its own.

The full set is loss, correctness, confidence, margin and Brier score; fastdiv adds the rank of
the label, the prediction and a status.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.turns import pieces_of

if TYPE_CHECKING:
    from benchmarks.data import Arrays

PIECE_BYTES = 1 << 20  # of logits; NumPy's temporaries of a piece stay in cache

Means = tuple[Any, Any]  # loss and correctness, (n,) or already averaged
Run = Callable[[], Means]


def fastdiv_score(arrays: Arrays) -> Run:
    import fastdiv

    x, y = arrays.logits, arrays.labels
    scores = fastdiv.score(x, y, kind="logits", threads=arrays.threads)

    def run() -> Means:
        fastdiv.score(x, y, kind="logits", out=scores, threads=arrays.threads)
        return scores.loss, scores.correct

    return run


def scipy_numpy(arrays: Arrays) -> Run:
    from scipy.special import log_softmax

    loss = np.empty(len(arrays.labels), np.float32)
    correct = np.empty(len(arrays.labels), np.bool_)

    def piece(rows: slice) -> None:
        x, y = arrays.logits[rows], arrays.labels[rows]
        np.negative(log_softmax(x, axis=1)[np.arange(len(y)), y], out=loss[rows])
        np.equal(x.argmax(1), y, out=correct[rows])

    def run() -> Means:
        _on_threads(arrays, piece)
        return loss, correct

    return run


def sklearn(arrays: Arrays) -> Run:
    from scipy.special import softmax
    from sklearn.metrics import accuracy_score, log_loss

    n, c = arrays.logits.shape
    classes = np.arange(c)

    def piece(rows: slice) -> tuple[float, float]:
        x, y = arrays.logits[rows], arrays.labels[rows]
        loss = log_loss(y, softmax(x, axis=1), labels=classes, normalize=False)
        return loss, accuracy_score(y, x.argmax(1), normalize=False)

    def run() -> Means:
        sums = np.sum(_on_threads(arrays, piece), axis=0)
        return sums[0] / n, sums[1] / n

    return run


def _on_threads(arrays: Arrays, work: Callable[[slice], Any]) -> list[Any]:
    """Return `work(rows)` of all pieces, on a pool of threads."""
    n, c = arrays.logits.shape
    with ThreadPoolExecutor(arrays.threads) as pool:
        return list(pool.map(work, pieces_of(n, max(1, PIECE_BYTES // (4 * c)))))

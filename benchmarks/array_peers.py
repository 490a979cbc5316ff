"""From logits and labels in memory to scores, as each library does it best.

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
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from benchmarks.data import Labels, Logits

PIECE_BYTES = 1 << 20  # of logits; NumPy's temporaries of a piece stay in cache

Means = tuple[Any, Any]  # loss and correctness, (n,) or already averaged
Run = Callable[[], Means]


class UnavailableError(Exception):
    """A peer is installed but cannot do its work on this machine; the text says why."""


@dataclass(frozen=True)
class Arrays:
    """What is scored, and on how many threads."""

    logits: Logits  # (n, c)
    labels: Labels  # (n,)
    threads: int


def fastdiv_score(arrays: Arrays) -> Run:
    import fastdiv

    x, y = arrays.logits, arrays.labels
    scores = fastdiv.score(x, y, kind="logits", threads=arrays.threads)

    def run() -> Means:
        fastdiv.score(x, y, kind="logits", out=scores, threads=arrays.threads)
        return scores.loss, scores.correct

    return run


def torch_eager_two(arrays: Arrays) -> Run:
    x, y = _tensors(arrays)
    return lambda: _two(x, y)


def torch_eager_full(arrays: Arrays) -> Run:
    x, y = _tensors(arrays)
    return lambda: _full(x, y)[:2]


def torch_compile_two(arrays: Arrays) -> Run:
    x, y = _tensors(arrays)
    compiled = _compile(_two, x, y)
    return lambda: compiled(x, y)


def torch_compile_full(arrays: Arrays) -> Run:
    x, y = _tensors(arrays)
    compiled = _compile(_full, x, y)
    return lambda: compiled(x, y)[:2]


def _tensors(arrays: Arrays) -> tuple[Any, Any]:
    import torch

    torch.set_num_threads(arrays.threads)
    return torch.from_numpy(arrays.logits), torch.from_numpy(arrays.labels.astype(np.int64))


def _two(x: Any, y: Any) -> Means:
    from torch.nn.functional import cross_entropy

    return cross_entropy(x, y, reduction="none"), x.argmax(1) == y


def _full(x: Any, y: Any) -> tuple[Any, ...]:
    """Return the full set; the margin by a masked maximum, which beats topk."""
    import torch

    log_p = torch.log_softmax(x, 1)
    p = log_p.exp()
    at_label = y[:, None]
    log_p_label = log_p.gather(1, at_label)[:, 0]
    is_label = torch.arange(x.shape[1])[None, :] == at_label
    confidence = p.amax(1)
    margin = log_p_label - log_p.masked_fill(is_label, -torch.inf).amax(1)
    brier = (p - is_label.to(p.dtype)).square().sum(1)
    return -log_p_label, x.argmax(1) == y, confidence, margin, brier


def _compile(function: Callable[..., Any], x: Any, y: Any) -> Callable[..., Any]:
    import torch

    compiled: Callable[..., Any] = torch.compile(function, fullgraph=True, dynamic=False)
    try:
        with torch.no_grad():
            compiled(x, y)
    except (
        Exception
    ) as error:  # no compiler, no headers: many classes, all of them outside our reach
        raise UnavailableError(f"it does not compile here: {_first_line(error)}") from error
    return compiled


def _first_line(error: Exception) -> str:
    lines = (line.strip() for line in str(error).splitlines())
    return f"{type(error).__name__}: {next(filter(None, lines), '')}"[:200]


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
    step = max(1, PIECE_BYTES // (4 * c))
    with ThreadPoolExecutor(arrays.threads) as pool:
        return list(pool.map(work, (slice(i, i + step) for i in range(0, n, step))))

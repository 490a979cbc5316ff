"""A whole scan of the logits of two epochs in memory, with what other temperatures need, or not.

Each function takes the `Arrays` of the first epoch, from which the second is made, and returns
what is timed: a call that analyzes both and returns ``{epoch: (mean loss, accuracy)}``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from benchmarks import data
from benchmarks.dump_peers import Epochs, found

if TYPE_CHECKING:
    from benchmarks.data import Arrays


def fastdiv_all(arrays: Arrays) -> Callable[[], Epochs]:
    return _fastdiv(arrays, "all")


def fastdiv_slim(arrays: Arrays) -> Callable[[], Epochs]:
    return _fastdiv(arrays, "slim")


def _fastdiv(arrays: Arrays, scores: str) -> Callable[[], Epochs]:
    import fastdiv

    source = two_epochs(arrays)
    return lambda: found(
        fastdiv.analyze(source, kind="logits", scores=scores, threads=arrays.threads)
    )


def two_epochs(arrays: Arrays) -> dict[int, tuple[Any, Any]]:
    """Return logits and labels of an epoch and the next."""
    later = arrays.logits.copy()
    data.next_epoch(later, seed=2)
    return {0: (arrays.logits, arrays.labels), 1: (later, arrays.labels)}

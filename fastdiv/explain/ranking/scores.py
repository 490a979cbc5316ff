"""The scores that samples are ranked by, and their curves: logits of a class against the rest."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from fastdiv.errors import UsageError
from fastdiv.explain.evidence import Floats, Side
from fastdiv.explain.ranking.curve import CurveState

_ROWS: Final = 1 << 14  # at once, so that their vectors stay in cache


def binary_score(side: Side) -> NDArray[np.float32]:
    """Return the logits (n,) of class 1 of two: its margin over class 0.

    Raises
    ------
    UsageError
        Where there are not two classes.
    """
    if side.classes != 2:
        raise UsageError(
            f"one threshold decides between 2 classes, not {side.classes}: "
            "look at each class against the rest with ranking()"
        )
    return np.where(side.labels == 1, side.margin, -side.margin)


def one_vs_rest(side: Side) -> Floats | None:
    """Return (c, n) logits of each class against all others; None where vectors were not kept.

    The logarithm of p / (1 - p), which orders samples as p does and still tells them apart where p
    rounds to 1. Of two classes the margin, exactly; else good to 5e-4 of the differences of
    logits, see `Side.log_probabilities`.
    """
    if side.classes == 2:
        score = binary_score(side).astype(np.float64)
        return np.stack([-score, score])
    log_p = side.log_probabilities()
    if log_p is None:
        return None
    log_p = np.ascontiguousarray(log_p.T)
    every = np.arange(len(side))
    top = log_p.argmax(axis=0)
    p = np.exp(log_p)
    p[top, every] = 0.0
    with np.errstate(divide="ignore"):
        # 1 - p of the highest is the sum of the others, and of the others nothing cancels.
        rest = np.log(p.sum(axis=0))
        others = np.log1p(-p)
    others[top, every] = rest
    return np.asarray(log_p - others)


def curves(side: Side) -> list[CurveState] | None:
    """Return the curve of each class; None where vectors were not kept. They merge."""
    if not side.has_vectors:
        return None
    states = [CurveState.zero() for _ in range(side.classes)]
    for first in range(0, max(1, len(side)), _ROWS):
        part = side.take(np.arange(first, min(first + _ROWS, len(side))))
        scores = one_vs_rest(part)
        if scores is None:
            return None
        for k, state in enumerate(states):
            state.absorb(scores[k], part.labels == k)
    return states

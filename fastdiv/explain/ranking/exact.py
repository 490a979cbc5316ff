"""Ranking curves exactly, by sorting the scores."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastdiv.explain.evidence import Floats, Ints
from fastdiv.explain.ranking.curve import checked
from fastdiv.explain.ranking.steps import Bounds, Steps

Scores = NDArray[np.floating[Any]]


def _distinct(score: Scores, positive: NDArray[Any]) -> tuple[Scores, Ints, Ints]:
    """Return the distinct scores, falling, and how many positives and negatives reach each."""
    score, positive = checked(score, positive)
    order = np.argsort(score)[::-1]
    falling = score[order]
    last = np.append(np.flatnonzero(falling[1:] != falling[:-1]), len(score) - 1)[: len(score)]
    tp = np.cumsum(positive[order], dtype=np.int64)[last]
    return falling[last], tp, last + 1 - tp


def _between(higher: Floats, lower: Floats) -> Floats:
    """Return thresholds between neighbouring scores: midpoints, or a logit from the finite one."""
    top, bottom = np.isfinite(higher), np.isfinite(lower)
    middle = np.where(top, higher, 0.0) / 2 + np.where(bottom, lower, 0.0) / 2
    middle = np.where(top & ~bottom, np.where(top, higher, 0.0) - 1.0, middle)
    middle = np.where(bottom & ~top, np.where(bottom, lower, 0.0) + 1.0, middle)
    return np.where(middle < higher, middle, lower)  # of neighbouring floats it may round up


def sorted_steps(score: Scores, positive: NDArray[Any]) -> Steps:
    """Return what lies above each threshold that can be told apart, in O(n log n).

    Parameters
    ----------
    score : (n,) floating
        Logits.
    positive : (n,) bool
    """
    falling, tp, fp = _distinct(score, positive)
    values = falling.astype(np.float64)
    middles = _between(values[:-1], values[1:])
    ends = [-np.inf] if len(values) else []
    zero = np.zeros(1, np.int64)
    return Steps(
        np.concatenate([[np.inf], middles, ends]),
        np.concatenate([zero, tp]),
        np.concatenate([zero, fp]),
    )


def roc_curve(score: Scores, positive: NDArray[Any]) -> tuple[Floats, Floats, Floats] | None:
    """Return the ROC curve; None without positives or without negatives.

    `sklearn.metrics.roc_curve` with ``drop_intermediate=False``, which warns and returns NaN
    where this is None.

    Parameters
    ----------
    score : (n,) floating
        Anything that grows with the probability of being positive.
    positive : (n,) bool

    Returns
    -------
    false_positive_rate, true_positive_rate : (m,) float64
    threshold : (m,) float64
        The distinct scores, falling, after infinity; positive is what reaches it.
    """
    falling, tp, fp = _distinct(score, positive)
    if not len(tp) or not (tp[-1] and fp[-1]):
        return None
    tpr, fpr = (np.append(0, x) / x[-1] for x in (tp, fp))
    return fpr, tpr, np.append(np.inf, falling)


def roc_auc(score: Scores, positive: NDArray[Any]) -> float | None:
    """Return the area under the ROC curve, of which ties are half.

    The share of pairs of a positive and a negative in which the positive scores higher
    (Mann-Whitney), correctly rounded; `sklearn.metrics.roc_auc_score`. None without positives or
    without negatives.

    Parameters
    ----------
    score : (n,) floating
        Anything that grows with the probability of being positive.
    positive : (n,) bool
    """
    return _value(sorted_steps(score, positive).roc_auc(exact=True))


def average_precision(score: Scores, positive: NDArray[Any]) -> float | None:
    """Return the sum over thresholds of precision times the step in recall.

    `sklearn.metrics.average_precision_score`, which is 0 without positives, where this is None.

    Parameters
    ----------
    score : (n,) floating
        Anything that grows with the probability of being positive.
    positive : (n,) bool
    """
    return _value(sorted_steps(score, positive).average_precision(exact=True))


def _value(bounds: Bounds | None) -> float | None:
    return None if bounds is None else bounds.value

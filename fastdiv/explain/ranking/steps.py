"""Ranking curves as steps: how many positives and negatives score above falling thresholds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fastdiv.errors import UsageError
from fastdiv.explain.evidence import Floats, Ints

_INT64_PAIRS: Final = 1 << 61  # of positives and negatives; more are counted in Python's integers


@dataclass(frozen=True, slots=True)
class Bounds:
    """A number, and between which it lies: all the same where it is exact."""

    value: float
    low: float
    high: float

    @property
    def error(self) -> float:
        """How far the truth may be from the value."""
        return max(self.high - self.value, self.value - self.low)


@dataclass(frozen=True, slots=True)
class Best:
    """The threshold that does best by a metric.

    Attributes
    ----------
    metric : str
    value : float
        What the threshold attains.
    value_high : float
        What no threshold exceeds; the value itself where scores were sorted.
    threshold : float
        As a probability: positive is what lies above. 0 stands for all, 1 for none.
    threshold_error : float
        How far it is, as a probability, to the farther of the next edges, between which and this
        no threshold was tried; 0 where scores were sorted.
    logit : float
        The threshold as a logit, which can still tell where probabilities round to 0 or 1.
    """

    metric: str
    value: float
    value_high: float
    threshold: float
    threshold_error: float
    logit: float


def sigmoid(logit: NDArray[Any]) -> Floats:
    """Return probabilities of logits, which may be infinite."""
    x = np.asarray(logit, np.float64)
    small = np.exp(-np.abs(x))
    return np.asarray(np.where(x >= 0, 1.0, small) / (1.0 + small))


def logit(probability: NDArray[Any]) -> Floats:
    """Return logits of probabilities; exactly 0 of .5, infinite of 0 and 1."""
    p = np.asarray(probability, np.float64)
    with np.errstate(divide="ignore"):
        return np.asarray(np.log(p / (1.0 - p)))


# Metrics of a threshold, from true positives, false positives, all positives, all negatives.


def accuracy(tp: Ints, fp: Ints, p: int, n: int) -> Floats:
    """Return the share of samples called what they are."""
    return np.asarray((tp + (n - fp)) / (p + n))


def f1(tp: Ints, fp: Ints, p: int, n: int) -> Floats:
    """Return the harmonic mean of precision and recall; 0 where nothing is called positive."""
    return np.asarray(2 * tp / (p + tp + fp))


def f2(tp: Ints, fp: Ints, p: int, n: int) -> Floats:
    """Return F-beta with beta 2: recall outweighs precision."""
    return np.asarray(5 * tp / (4 * p + tp + fp))


def youden(tp: Ints, fp: Ints, p: int, n: int) -> Floats:
    """Return Youden's J: true positive rate minus false positive rate (Youden 1950)."""
    return np.asarray(tp / p - fp / n)


@dataclass(frozen=True, slots=True)
class ThresholdMetric:
    """A metric of a threshold, which rises with true and falls with false positives."""

    of: Callable[[Ints, Ints, int, int], Floats]
    needs_positives: bool
    needs_negatives: bool


METRICS: Final = {
    "accuracy": ThresholdMetric(accuracy, False, False),
    "f1": ThresholdMetric(f1, True, False),
    "f2": ThresholdMetric(f2, True, False),
    "youden": ThresholdMetric(youden, True, True),
}


@dataclass(frozen=True, slots=True)
class Steps:
    """Positives and negatives above each of a falling sequence of thresholds.

    Attributes
    ----------
    threshold : (m,) float64
        Logits; infinite the first, above which nothing lies.
    tp, fp : (m,) int64
        Positives and negatives above; all of them at the last.
    """

    threshold: Floats
    tp: Ints
    fp: Ints

    @property
    def positives(self) -> int:
        """All positives."""
        return int(self.tp[-1])

    @property
    def negatives(self) -> int:
        """All negatives."""
        return int(self.fp[-1])

    def roc_auc(self, exact: bool) -> Bounds | None:
        """Return the area under the ROC curve, where what lies between two thresholds is tied.

        Without `exact` that may not be so, and bounds say what it may cost: half of all pairs of
        a positive and a negative that lie between the same two.
        """
        pairs = self.positives * self.negatives
        if not pairs:
            return None
        integer = np.int64 if pairs < _INT64_PAIRS else object
        tp, fp = self.tp.astype(integer), self.fp.astype(integer)
        new_fp = np.diff(fp)
        twice = int(np.dot(new_fp, tp[1:] + tp[:-1]))
        value = twice / (2 * pairs)
        if exact:
            return Bounds(value, value, value)
        shared = int(np.dot(new_fp, np.diff(tp)))
        return Bounds(value, (twice - shared) / (2 * pairs), (twice + shared) / (2 * pairs))

    def average_precision(self, exact: bool) -> Bounds | None:
        """Return the sum of precision times the step in recall, over the thresholds.

        What lies between two thresholds is tied; without `exact` that may not be so.
        """
        p = self.positives
        if not p:
            return None
        new = np.diff(self.tp)
        at = np.flatnonzero(new)
        new, tp, fp, fp_before = new[at], self.tp[1:][at], self.fp[1:][at], self.fp[:-1][at]
        value = float(np.dot(new, tp / (tp + fp))) / p
        if exact:
            return Bounds(value, value, value)
        high = float(np.dot(new, tp / (tp + fp_before))) / p
        # The i-th positive of a bin has at least precision (before + i) / (before + i + fp), and
        # the sum of 1 / (a + i) is at most the integral of 1 / t from a + 1/2 to a + new + 1/2.
        start = tp - new + fp + 0.5
        low = float(np.sum(new - fp * np.log1p(new / start))) / p
        return Bounds(value, min(low, value), max(high, value))

    def best(self, metric: str, exact: bool) -> Best | None:
        """Return the best threshold; of equally good ones that nearest to p = .5.

        None where the metric means nothing: F without positives, J without either.

        Raises
        ------
        UsageError
            Where the metric is none of `METRICS`.
        """
        if metric not in METRICS:
            raise UsageError(f"metric is {metric!r}: choose one of {', '.join(METRICS)}")
        rule, p, n = METRICS[metric], self.positives, self.negatives
        if p + n == 0 or (rule.needs_positives and not p) or (rule.needs_negatives and not n):
            return None
        values = rule.of(self.tp, self.fp, p, n)
        value = float(values.max())
        equal = np.flatnonzero(values == value)
        i = int(equal[np.abs(self.threshold[equal]).argmin()])
        near = sigmoid(self.threshold[max(0, i - 1) : i + 2])
        threshold = float(sigmoid(self.threshold[i : i + 1])[0])
        if exact:
            high, error = value, 0.0
        else:  # a threshold between two may be above all positives between them, no negatives
            high = float(max(value, rule.of(self.tp[1:], self.fp[:-1], p, n).max()))
            error = float(np.abs(near - threshold).max())
        return Best(metric, value, high, threshold, error, float(self.threshold[i]))

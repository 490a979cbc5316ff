"""What another threshold than .5 would do: the best one by a metric, and accuracy as its function.

A sample is called positive where its probability is above the threshold; scikit-learn's curves
have "reaches it", but at .5 that would not be the prediction, which of equals is class 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from fastdiv.errors import UsageError
from fastdiv.explain.evidence import Floats, Ints, Side
from fastdiv.explain.ranking.curve import CurveState
from fastdiv.explain.ranking.exact import Scores, sorted_steps
from fastdiv.explain.ranking.scores import binary_score
from fastdiv.explain.ranking.steps import METRICS, Best, logit, sigmoid


def best_threshold(score: Scores, positive: NDArray[Any], metric: str = "accuracy") -> Best | None:
    """Return the threshold that does best by a metric, of all there are.

    It lies midway, as a logit, between two neighbouring scores; 0 and 1 stand for calling all and
    none positive. Of equally good ones it is that nearest to .5. Chosen on the samples
    that it is measured on, so its value is optimistic.

    Parameters
    ----------
    score : (n,) floating
        Logits of being positive, possibly infinite.
    positive : (n,) bool
    metric : {"accuracy", "f1", "f2", "youden"}

    Returns
    -------
    Best or None
        None where the metric means nothing: of no samples, F without positives, Youden's J
        without positives or without negatives.
    """
    return sorted_steps(score, positive).best(metric, exact=True)


def _quotient(part: NDArray[Any], whole: Any) -> pa.Array:
    """Divide; null of nothing."""
    whole = np.broadcast_to(whole, part.shape)
    nothing = whole == 0
    return pa.array(part / np.where(nothing, 1, whole), mask=nothing)


def _threshold_table(thresholds: Floats, tp: Ints, fp: Ints, p: int, n: int) -> pa.Table:
    """Return the metrics of thresholds with tp positives and fp negatives above."""
    columns = {
        name: pa.array(rule.of(tp, fp, p, n))
        if p + n and (p or not rule.needs_positives) and (n or not rule.needs_negatives)
        else pa.nulls(len(tp), pa.float64())
        for name, rule in METRICS.items()
    }
    return pa.table(
        {
            "threshold": pa.array(thresholds),
            "true_positive": pa.array(tp),
            "false_positive": pa.array(fp),
            "precision": _quotient(tp, tp + fp),
            "recall": _quotient(tp, p),
            **columns,
        }
    )


def accuracy_by_threshold(side: Side, thresholds: Sequence[float] | None = None) -> pa.Table:
    """Return accuracy and its kin as functions of the threshold, of two classes, exactly.

    Parameters
    ----------
    side : Side
        Of two classes; 1 is the positive one.
    thresholds : sequence of float, optional
        Probabilities; 0, .01, ... 1 if None. Positive is what lies above; at 0 all are.

    Returns
    -------
    pa.Table
        A row for each threshold, as given:

        threshold : double
        true_positive, false_positive : int64
        precision, recall, accuracy, f1, f2, youden : double
            Null where a number means nothing: precision where nothing is called positive, recall
            and F without positives, Youden's J without positives or without negatives.

    Raises
    ------
    UsageError
        Where there are not two classes, or a threshold is no probability.
    """
    score = binary_score(side)
    t = np.arange(101) / 100 if thresholds is None else np.asarray(thresholds, np.float64).ravel()
    if not ((t >= 0) & (t <= 1)).all():
        raise UsageError("a threshold is not a probability: give numbers from 0 to 1")
    above = {}
    for label in (0, 1):
        of_class = np.sort(score[side.labels == label])
        at_most = np.searchsorted(of_class, logit(t), side="right")
        above[label] = len(of_class) - np.where(t == 0, 0, at_most)
    p = int(np.count_nonzero(side.labels))
    return _threshold_table(t, above[1], above[0], p, len(side) - p)


def accuracy_of_curve(state: CurveState) -> pa.Table:
    """Return what `accuracy_by_threshold` does, of a streamed curve, at the edges of its bins.

    Exact at every edge, .5 among them; edges with no sample between them and the last are left
    out. Between two rows, accuracy differs from either by no more than the share of samples that
    are above the lower and not above the higher.
    """
    steps = state.steps()
    kept = np.concatenate([[True], (np.diff(steps.tp) + np.diff(steps.fp)) > 0])
    kept |= steps.threshold == 0
    return _threshold_table(
        sigmoid(steps.threshold[kept]), steps.tp[kept], steps.fp[kept],
        steps.positives, steps.negatives,
    )  # fmt: skip

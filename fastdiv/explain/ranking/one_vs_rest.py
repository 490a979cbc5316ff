"""How well scores rank, whatever the threshold: two classes, or each of a few against the rest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from fastdiv.explain.classes.confusions import class_column
from fastdiv.explain.evidence import Side
from fastdiv.explain.ranking.change import TOLERANCE, RankingChange, ranking_change
from fastdiv.explain.ranking.curve import CurveState
from fastdiv.explain.ranking.exact import average_precision, roc_auc, roc_curve, sorted_steps
from fastdiv.explain.ranking.scores import curves, one_vs_rest
from fastdiv.explain.ranking.steps import METRICS, Steps

__all__ = [
    "CurveState", "RankingChange", "average_precision", "curves", "ranking", "ranking_change",
    "ranking_of_curves", "roc_auc", "roc_curve",
]  # fmt: skip


def _describe(steps: Steps, exact: bool) -> dict[str, Any]:
    """Return the columns of one class."""
    auc, precision = steps.roc_auc(exact), steps.average_precision(exact)
    row: dict[str, Any] = {
        "positives": steps.positives,
        "roc_auc": auc and auc.value,
        "roc_auc_error": auc and auc.error,
        "average_precision": precision and precision.value,
        "average_precision_low": precision and precision.low,
        "average_precision_high": precision and precision.high,
    }
    for metric in METRICS:
        best = steps.best(metric, exact)
        row |= {
            f"best_{metric}": best and best.value,
            f"best_{metric}_high": best and best.value_high,
            f"threshold_{metric}": best and best.threshold,
            f"threshold_{metric}_error": best and best.threshold_error,
        }
    return row


def _told(steps: Steps, tolerance: float) -> Steps | None:
    """Return a curve, or None where it does not tell its AUC within a tolerance."""
    area = steps.roc_auc(exact=False)
    return steps if area is None or area.error <= tolerance else None


def _mean_row(rows: list[dict[str, Any]], weighted: bool) -> dict[str, Any]:
    """Return the mean of rows, of each column over those that have it; thresholds have none."""
    row: dict[str, Any] = {"positives": sum(r["positives"] for r in rows)}
    for name in rows[0] if rows else ():
        if name == "positives" or name.startswith("threshold"):
            continue
        said = [(r[name], r["positives"] if weighted else 1) for r in rows if r[name] is not None]
        weight = sum(w for _, w in said)
        row[name] = sum(value * w for value, w in said) / weight if weight else None
    return row


def ranking(
    side: Side,
    exact: bool = False,
    class_names: Sequence[str] | None = None,
    tolerance: float = TOLERANCE,
) -> pa.Table | None:
    """Return ROC AUC, average precision and best thresholds of each class against the rest.

    From a `CurveState` of each class, or by sorting with `exact`, or where a curve does not tell
    the AUC within `tolerance` (of a network that has learned nothing yet, all scores
    are nearly the same). The errors and bounds then show it: they are 0 wide.

    Parameters
    ----------
    side : Side
    exact : bool
        Sort all classes.
    class_names : sequence of str, optional
    tolerance : float

    Returns
    -------
    pa.Table or None
        None where vectors were not kept (more than 16 classes, or slim scores of more than 2).
        A row for each class in order, then the macro and the weighted mean (by positives) of
        the classes for which a number exists:

        class : int32, or string where classes have names; null for a mean
        average : string
            macro or weighted; null for a class
        positives : int64
        roc_auc, roc_auc_error : double
            The area, and how far it may be off; null without positives or without negatives.
            As `sklearn.metrics.roc_auc_score`, ``multi_class="ovr"``, which refuses where a class
            has no samples; here such a class is left out of the means.
        average_precision, average_precision_low, average_precision_high : double
            Null without positives, where scikit-learn has 0.
        best_M, best_M_high : double, for M of accuracy, f1, f2, youden
            What the best threshold attains, and what none exceeds.
        threshold_M, threshold_M_error : double
            That threshold as a probability, see `Best`; null for a mean.
    """
    if exact:
        curve_steps: list[Steps | None] = [None] * side.classes
    else:
        states = curves(side)
        if states is None:
            return None
        curve_steps = [_told(state.steps(), tolerance) for state in states]
    scores = one_vs_rest(side) if any(steps is None for steps in curve_steps) else None
    rows = []
    for k, steps in enumerate(curve_steps):
        if steps is not None:
            rows.append(_describe(steps, exact=False))
        elif scores is not None:
            rows.append(_describe(sorted_steps(scores[k], side.labels == k), exact=True))
        else:
            return None
    return _table(rows, range(len(rows)), class_names, side.classes)


def ranking_of_curves(
    states: Sequence[CurveState], index: Sequence[int], class_names: Sequence[str] | None,
    classes: int,
) -> pa.Table:  # fmt: skip
    """Return the table of `ranking` of some classes, from their curves alone.

    Parameters
    ----------
    states : sequence of CurveState
        At least one.
    index : sequence of int
        Which class each is of. The means are over these.
    class_names : sequence of str or None
    classes : int
        How many there are in all.
    """
    rows = [_describe(state.steps(), exact=False) for state in states]
    return _table(rows, index, class_names, classes)


def _table(
    rows: list[dict[str, Any]], index: Sequence[int], class_names: Sequence[str] | None,
    classes: int,
) -> pa.Table:  # fmt: skip
    """Return the rows of classes, and their means."""
    n_classes = len(rows)
    rows = [*rows, _mean_row(rows, weighted=False), _mean_row(rows, weighted=True)]
    columns = {
        name: pa.array([r.get(name) for r in rows], pa.float64())
        for name in rows[0]
        if name != "positives"
    }
    of = pa.array([*index, None, None], pa.int32())
    return pa.table(
        {
            "class": class_column(of, class_names, classes),
            "average": pa.array([*[None] * n_classes, "macro", "weighted"], pa.string()),
            "positives": pa.array([r["positives"] for r in rows], pa.int64()),
            **columns,
        }
    )

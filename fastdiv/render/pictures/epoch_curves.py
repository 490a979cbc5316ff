"""Curves of two classes, by epoch: as few points as show them, and what is said of them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import numpy as np

from fastdiv.explain.evidence import Floats, Ints
from fastdiv.explain.ranking.change import TOLERANCE
from fastdiv.explain.ranking.curve import CurveState, edges
from fastdiv.explain.ranking.exact import sorted_steps
from fastdiv.explain.ranking.scores import binary_score
from fastdiv.explain.ranking.steps import Best, Bounds, Steps, logit, sigmoid
from fastdiv.render.pictures.polyline import simplified
from fastdiv.render.pictures.single_epochs import valid_blocks

if TYPE_CHECKING:
    from fastdiv.explain.view import SplitView

MOST_POINTS = 200  # of a curve
SEEN = 5e-4  # of the height or width: what is nearer is the same pixel
THRESHOLDS = np.arange(1, 100) / 100
Points = tuple[Floats, Floats, Floats]


@dataclass(frozen=True, slots=True)
class EpochCurves:
    """What is drawn and said of one epoch.

    Attributes
    ----------
    positives, negatives : int
    roc, precision_recall : ((m,), (m,), (m,)) float64, or None
        Across, up, and the threshold (a probability) of each point. None where there are no
        positives, or for ROC no negatives.
    tp, fp : (99,) int64
        Positives and negatives above each of `cuts`.
    area, average_precision : Bounds or None
        As `SplitView.ranking` has them.
    best_accuracy, best_f1 : Best or None
    off : (float, float)
        How far, at most, either curve is from the line through its points.
    """

    positives: int
    negatives: int
    roc: Points | None
    precision_recall: Points | None
    tp: Ints
    fp: Ints
    area: Bounds | None
    average_precision: Bounds | None
    best_accuracy: Best | None
    best_f1: Best | None
    off: tuple[float, float]

    @classmethod
    def of(cls, view: SplitView, epoch: int) -> EpochCurves:
        """Make them of an epoch of two classes."""
        state = CurveState.zero()
        for block in valid_blocks(view, epoch):
            positive = block.labels == 1
            state.absorb(np.where(positive, block.margin, -block.margin), positive)
        binned = state.steps()
        area = binned.roc_auc(exact=False)
        exact = area is not None and area.error > TOLERANCE
        steps = binned
        if exact:
            side = view.side(epoch)
            steps = sorted_steps(binary_score(side), side.labels == 1)
        roc, off_roc = _roc(steps)
        precision_recall, off = _precision_recall(steps)
        at, _ = cuts()
        return cls(
            positives=steps.positives,
            negatives=steps.negatives,
            roc=roc,
            precision_recall=precision_recall,
            tp=binned.tp[at],
            fp=binned.fp[at],
            area=steps.roc_auc(exact),
            average_precision=steps.average_precision(exact),
            best_accuracy=steps.best("accuracy", exact),
            best_f1=steps.best("f1", exact),
            off=(off_roc, off),
        )


def _roc(steps: Steps) -> tuple[Points | None, float]:
    """Return the ROC curve, and how far its points leave it."""
    if not (steps.positives and steps.negatives):
        return None, 0.0
    x, y = steps.fp / steps.negatives, steps.tp / steps.positives
    at, off = simplified(x, y, MOST_POINTS, SEEN)
    return (x[at], y[at], sigmoid(steps.threshold[at])), off


def _precision_recall(steps: Steps) -> tuple[Points | None, float]:
    """Return precision by recall, and how far its points leave it.

    From the highest threshold that anything is above.
    """
    if not steps.positives:
        return None, 0.0
    some = steps.tp + steps.fp > 0
    tp, fp = steps.tp[some], steps.fp[some]
    x, y = tp / steps.positives, tp / (tp + fp)
    at, off = simplified(x, y, MOST_POINTS, SEEN)
    return (x[at], y[at], sigmoid(steps.threshold[some][at])), off


@cache
def cuts() -> tuple[Ints, Floats]:
    """Return which steps of a `CurveState` are nearest to `THRESHOLDS`, and where these are.

    What lies above these (99,) probabilities is known exactly; .5 is one of them.
    """
    rising = edges()
    wanted = logit(THRESHOLDS)
    above = np.searchsorted(rising, wanted)
    nearest = np.where(rising[above] - wanted < wanted - rising[above - 1], above, above - 1)
    return len(rising) - 1 - nearest, sigmoid(rising[nearest])


# The three pictures are of the same curves, and each epoch takes a pass over all samples.
_MADE: WeakKeyDictionary[SplitView, dict[int, EpochCurves]] = WeakKeyDictionary()


def curves_of(view: SplitView, epoch: int) -> EpochCurves:
    """Return the curves of an epoch."""
    known = _MADE.setdefault(view, {})
    if epoch not in known:
        known[epoch] = EpochCurves.of(view, epoch)
    return known[epoch]

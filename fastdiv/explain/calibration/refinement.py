"""Loss = refinement + calibration: of samples in an epoch, and of their change between two.

Found from what is kept of every sample's vector, at any temperature: exactly up to 16 classes and
by interpolation beyond, so that any subset of samples can be asked about. For whole epochs
`fastdiv.temperature` finds the same from the totals.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fastdiv.explain.evidence import Pair, Side
from fastdiv.temperature import Tempered, best_temperature


@dataclass(frozen=True, slots=True)
class RefinementChange:
    """The change in loss of the same samples, as changes in refinement and calibration.

    Each epoch has its own best temperature, fitted on the samples that are compared (Berta et al.,
    "Rethinking Early Stopping: Refine, Then Calibrate", arXiv:2501.19195).

    Attributes
    ----------
    before, after : Tempered
        Each epoch by itself.
    delta_loss, delta_refinement, delta_calibration : float
        Changes in mean nats a sample; the first is the sum of the others.
    closure_error : float
        What rounding leaves of that: the sum of the parts minus the change, in nats.
    n : int
        Samples compared.
    n_infinite : int
        Samples passed over: their loss is infinite in one of the epochs.
    """

    before: Tempered
    after: Tempered
    delta_loss: float
    delta_refinement: float
    delta_calibration: float
    closure_error: float
    n: int
    n_infinite: int


def refinement(side: Side) -> Tempered | None:
    """Find the best temperature of samples in an epoch.

    Parameters
    ----------
    side : Side
        Samples with an infinite loss are passed over: no temperature makes it finite. How many
        they are is ``len(side)`` minus the ``n`` of the result.

    Returns
    -------
    Tempered or None
        None where no loss is finite, or the vectors were not kept.
    """
    finite = side.finite
    if not side.has_profile or not finite.any():
        return None
    side = side if finite.all() else side.take(finite)
    gap = float(side.gap.mean())

    def evaluate(beta: float) -> tuple[float, float, float]:
        s, slope, curvature = side.temper(beta).mean(axis=0).tolist()
        return s + beta * gap, slope + beta * gap, curvature + beta * gap

    return best_temperature(evaluate, len(side), float(side.loss.mean()))


def refinement_change(pair: Pair) -> RefinementChange | None:
    """Split the change in loss between two epochs into refinement and calibration.

    Parameters
    ----------
    pair : Pair
        Samples with an infinite loss in one of the epochs are passed over.

    Returns
    -------
    RefinementChange or None
        None where no change is finite, or the vectors were not kept.
    """
    finite = pair.finite
    compared = pair if finite.all() else pair.take(finite)
    before, after = refinement(compared.before), refinement(compared.after)
    if before is None or after is None:
        return None
    delta = float(np.mean(compared.after.loss - compared.before.loss))
    refined = after.refinement - before.refinement
    calibrated = after.calibration - before.calibration
    return RefinementChange(
        before=before,
        after=after,
        delta_loss=delta,
        delta_refinement=refined,
        delta_calibration=calibrated,
        closure_error=refined + calibrated - delta,
        n=len(compared),
        n_infinite=len(pair) - len(compared),
    )

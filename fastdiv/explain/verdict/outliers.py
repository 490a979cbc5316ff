"""Outliers: samples whose loss no calibrated model would have."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from fastdiv.explain.evidence import Bools, Floats, Side
from fastdiv.explain.verdict.repairable import Repair, Repairable

CHANCE = 0.05  # that a calibrated epoch has a sample beyond the limit
FEW, SHARE = 3, 0.01  # more samples than this are no outliers but a part of the distribution
LEAST_OF_CHANGE, LEAST_OF_LOSS = 0.05, 0.02  # less is not worth a cause
SUSPECTS = 0.01  # share of samples, from which wrong labels explain high losses better


@dataclass(frozen=True, slots=True)
class Outliers:
    """Samples that leave the account before anything is fitted.

    Attributes
    ----------
    rows : (n,) bool
    p : float
        A bound on the chance that a calibrated pair of epochs has losses as high as the highest.
    limits : (float, float)
        Nats, of the loss at the best temperature, in either epoch.
    """

    rows: Bools
    p: float
    limits: tuple[float, float]

    @property
    def n(self) -> int:
        """How many they are."""
        return int(np.count_nonzero(self.rows))


def find(
    sides: tuple[Side, Side], epochs: tuple[Repairable, Repairable], repairs: tuple[Repair, Repair],
    delta: Floats,
) -> Outliers:  # fmt: skip
    """Find the samples that are out of place in one of two epochs.

    Under a calibrated model ``P(loss > x) <= (c - 1) * exp(-x)``, by Markov's inequality on
    ``(1 - p) / p``, whose mean is at most ``c - 1``. Losses are taken at the temperature that fits
    best beside a label-noise floor; where more than 1 % of labels are suspects, a loss must also
    be out of place among theirs and among the margins of right answers.

    Parameters
    ----------
    sides : (Side, Side)
        n samples each, with finite losses.
    epochs : (Repairable, Repairable)
        Of the sides.
    repairs : (Repair, Repair)
        The best temperature and floor of each.
    delta : (n,) float64
        Change in loss.
    """
    n = len(delta)
    rows = np.zeros(n, bool)
    limits, p = [], 1.0
    for side, epoch, repair in zip(sides, epochs, repairs, strict=True):
        losses = epoch.losses(Repair(repair.beta))
        limit = _limit(side, losses, repair)
        rows |= losses > limit
        limits.append(limit)
        p = min(p, 2.0 * max(side.classes - 1, 1) * n * math.exp(-float(losses.max())))
    first, second = limits
    carried = abs(float(delta[rows].sum()))
    whole = abs(float(delta.sum()))
    level = float(sides[0].loss.sum() + sides[1].loss.sum()) / 2
    few = np.count_nonzero(rows) <= _most(n)
    if not (few and carried >= LEAST_OF_CHANGE * whole and carried >= LEAST_OF_LOSS * level):
        rows = np.zeros(n, bool)
    return Outliers(rows, p if rows.any() else 1.0, (first, second))


def _limit(side: Side, losses: Floats, repair: Repair) -> float:
    """Return the loss, at a temperature, beyond which a sample of an epoch is out of place."""
    limit = math.log(max(side.classes - 1, 1) * len(losses) / CHANCE)
    suspects = suspected(losses, repair.eta, side.classes)
    if np.count_nonzero(suspects) <= SUSPECTS * len(losses):
        return limit
    margins = np.abs(side.margin[side.correct].astype(np.float64)) * repair.beta
    margins = margins[np.isfinite(margins)]
    if len(margins):
        limit = max(limit, float(np.quantile(margins, 0.995)))
    # The highest are what is asked about: they must not set their own limit.
    ordinary = np.sort(losses[suspects])
    ordinary = ordinary[: max(len(ordinary) - _most(len(losses)), 0)]
    return max(limit, 2.0 * float(np.quantile(ordinary, 0.95))) if len(ordinary) else limit


def _most(n: int) -> int:
    """Return how many of n samples may be outliers; more are a part of the distribution."""
    return min(int(max(FEW, SHARE * n)), n // 2)


def suspected(losses: Floats, eta: float, classes: int) -> Bools:
    """Tell which samples' labels are more likely random than not, from losses without a floor."""
    if not eta:
        return np.zeros(len(losses), bool)
    return losses > math.log((1.0 - eta) * classes / eta)

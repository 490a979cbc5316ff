"""The best temperature of an epoch: how much of its loss is calibration, and how much remains.

The loss of ``softmax(beta * z)`` is convex in the inverse temperature beta, so that its slope
changes sign once at most. What it is at the best one, the *refinement*, is what no scaling of the
logits takes away; the rest is *calibration* (Berta et al., "Rethinking Early Stopping: Refine,
Then Calibrate", arXiv:2501.19195, with temperature scaling, Guo et al., arXiv:1706.04599, as the
recalibration).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fastdiv_kernels import exact
from fastdiv_kernels.contract import GRID
from fastdiv_kernels.grid import weights

Bound = Literal["lower", "upper"]
Evaluate = Callable[[float], tuple[float, float, float]]

PRECISION = 1e-12  # of log(beta)
# Mean losses are known to this; what a temperature gains below it is taken as nothing.
RESOLUTION = 2.0**exact.ORIGIN_FIXED


@dataclass(frozen=True, slots=True)
class Tempered:
    """Samples of an epoch at the temperature that makes their mean loss lowest.

    Attributes
    ----------
    beta : float
        The best inverse temperature, in [1/8, 4]; exactly 1 where another one gains nothing.
    temperature : float
        1 / beta; the logits divided by it have the lowest loss.
    loss : float
        Mean loss as predicted, in nats.
    refinement : float
        Mean loss at the best temperature, in nats.
    calibration : float
        ``loss - refinement``, in nats. That probabilities do not sum to 1 is part of it; it is
        below 0 only by that, or by the rounding of what was kept to 16 bits.
    bound : {"lower", "upper"}, or None
        The end of the range of beta that the loss still falls at, or at which it stops falling.
    n : int
        Samples concerned: those with a finite loss.
    """

    beta: float
    temperature: float
    loss: float
    refinement: float
    calibration: float
    bound: Bound | None
    n: int


def tempered(
    counts: NDArray[np.int64], sums: NDArray[np.int64], loss: float | None = None
) -> Tempered | None:
    """Find the best temperature from the totals of an epoch.

    Parameters
    ----------
    counts : (1,) int64
    sums : (2 * len(GRID), LIMBS_FIXED) int64
        See ``tally_temperatures`` in `fastdiv_kernels.contract`.
    loss : float, optional
        The mean loss of the same samples as predicted, in nats. By default the one at beta = 1,
        which is that of what was kept of the vectors: as if they were normalised, from 16 bits.

    Returns
    -------
    Tempered or None
        None where nothing was counted.
    """
    n = int(counts[0])
    if not n:
        return None
    means = np.array([exact.mean(row, n) for row in sums])
    return best_temperature(on_grid(means[: len(GRID)], means[len(GRID) :]), n, loss)


def on_grid(values: NDArray[np.float64], slopes: NDArray[np.float64]) -> Evaluate:
    """Return the mean loss as a function of beta, from what it is on the grid.

    The part of it that is linear in beta (what the label's logit lacks to the highest) has no
    bound, and a polynomial in ``log(beta)`` would get it wrong by 1e-6 of itself: as much of it as
    the slope at the highest beta shows is left out of the interpolation, and added exactly.

    Parameters
    ----------
    values, slopes : (len(GRID),) float64
        Mean losses in nats, and their derivatives by ``log(beta)``.
    """
    linear = max(0.0, float(slopes[-1]) / GRID[-1])
    curved = np.concatenate([values, slopes]) - linear * np.array(GRID + GRID)

    def evaluate(beta: float) -> tuple[float, float, float]:
        value, slope, curvature = (weights(beta) @ curved + linear * beta).tolist()
        if beta in GRID:  # without the rounding of an interpolation, which could turn a sign
            k = GRID.index(beta)
            value, slope = float(values[k]), float(slopes[k])
        return value, slope, curvature

    return evaluate


def best_temperature(evaluate: Evaluate, n: int, loss: float | None = None) -> Tempered:
    """Find the beta at which a mean loss is lowest.

    Parameters
    ----------
    evaluate : callable
        Of a beta in [1/8, 4]: the mean loss in nats, and its first and second derivative by
        ``log(beta)``. The first must change sign once at most, from below to above.
    n : int
        Samples that the mean is over.
    loss : float, optional
        The mean loss as predicted, where it is not that at beta = 1.
    """
    at = cache(evaluate)  # some ask for a pass over all samples
    beta, bound = _lowest(at)
    if not at(1.0)[0] - at(beta)[0] > RESOLUTION:
        beta, bound = 1.0, None
    refinement = at(beta)[0]
    loss = at(1.0)[0] if loss is None else loss
    return Tempered(beta, 1.0 / beta, loss, refinement, loss - refinement, bound, n)


def _lowest(evaluate: Evaluate) -> tuple[float, Bound | None]:
    """Walk from beta = 1 down the slope, knot by knot, until it changes sign."""
    at = GRID.index(1.0)
    slope = evaluate(1.0)[1]
    if slope == 0.0:
        return 1.0, None
    step = 1 if slope < 0 else -1
    ends = range(len(GRID))
    while at + step in ends:
        at += step
        next_slope = evaluate(GRID[at])[1]
        if next_slope == 0.0 and at + step in ends:
            return GRID[at], None
        if next_slope * step > 0:
            return _root(evaluate, *sorted((GRID[at - step], GRID[at]))), None
    return GRID[at], "upper" if step > 0 else "lower"


def _root(evaluate: Evaluate, lower: float, upper: float) -> float:
    """Return the beta between two others where a slope goes from below 0 to above it.

    Newton's steps on the slope, from where a straight line would have its root; a bisection where
    one leaves the bracket, or is not half as long as the last.
    """
    low, high = math.log(lower), math.log(upper)
    length = high - low
    before, after = evaluate(lower)[1], evaluate(upper)[1]
    x = low + length * (before / (before - after))
    while True:
        _, slope, curvature = evaluate(math.exp(x))
        if slope == 0.0:
            return math.exp(x)
        low, high = (x, high) if slope < 0 else (low, x)
        step = -slope / curvature if curvature > 0 else math.inf
        newton = low < x + step < high and abs(step) <= 0.5 * length
        if not newton:
            step = 0.5 * (low + high) - x
        length = abs(step)
        x += step
        # A step of Newton's leaves an error of about its square.
        if length <= (math.sqrt(PRECISION) if newton else PRECISION):
            return math.exp(x)

"""Repairs: the temperature, class bias and label-noise floor that fit an epoch best.

Found by Newton's method, safeguarded: every step lowers the mean loss. Temperature and bias have
one minimum (the loss is convex in the logits). A floor may leave several: the best of those that
a fixed grid of starts leads to is taken.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fastdiv.explain.evidence import Floats
from fastdiv.explain.verdict.repairable import Repair, Repairable
from fastdiv_kernels.contract import GRID

T, B, N = KINDS = "TBN"
LOWER = np.array([math.log(GRID[0]), -12.0, math.log(1e-8)])  # log(beta), gamma, log(eta)
UPPER = np.array([math.log(GRID[-1]), 12.0, math.log(0.95)])
FEW = 4096  # samples that starts are compared on; all of them finish the search
START_BETAS = (0.25, 0.5, 1.0, 2.0, 4.0)
START_ETAS = (1e-4, 1e-3, 0.01, 0.05, 0.2)
FIRST_ETA = 1e-5
LONGEST = 1.5  # of a step, so that an epoch far from convex is not left in one
PRECISION = 1e-12  # nats of the mean loss that a further step would save
MOST_STEPS = 100
Derivatives = tuple[float, Floats, Floats]  # a mean loss, its gradient (3,), its Hessian (3, 3)


@dataclass(frozen=True, slots=True)
class Fit:
    """The best repair of some kinds, of an epoch.

    Attributes
    ----------
    kinds : frozenset of str
        Which of T (temperature), B (class bias) and N (label-noise floor) were free.
    repair : Repair
    loss : float
        Mean loss under it, in nats.
    at_bound : tuple of str
        Those of the kinds that stopped at a bound of what is searched; an absent floor does not
        count as one.
    """

    kinds: frozenset[str]
    repair: Repair
    loss: float
    at_bound: tuple[str, ...]


class Fitter:
    """Fits repairs to an epoch, every one at most once.

    Parameters
    ----------
    epoch : Repairable
        At least one sample.
    """

    def __init__(self, epoch: Repairable) -> None:
        self.epoch = epoch
        self._fits: dict[frozenset[str], Fit] = {}
        self._known: dict[tuple[Repair, bool, bool], Derivatives] = {}
        step = len(epoch) // FEW
        self._rows = np.arange(0, len(epoch), max(step, 1))
        self._few = Fitter(epoch.take(self._rows)) if step > 1 else None

    def lean(self, depth: Floats | None) -> None:
        """Give what a bias works on, before one is fitted: depths (n,) of the majority class."""
        self.epoch.depth = depth
        self._known.clear()
        if self._few is not None and depth is not None:
            self._few.lean(depth[self._rows])

    def fit(self, kinds: frozenset[str]) -> Fit:
        """Return the best repair of some kinds (letters of T, B, N)."""
        if kinds not in self._fits:
            self._fits[kinds] = self._fit(kinds)
        return self._fits[kinds]

    def derivatives(self, repair: Repair, biased: bool, floored: bool) -> Derivatives:
        """Return `Repairable.derivatives`: where one search ends, others begin."""
        key = (repair, biased, floored)
        if key not in self._known:
            self._known[key] = self.epoch.derivatives(*key)
        return self._known[key]

    def _fit(self, kinds: frozenset[str]) -> Fit:
        if not kinds:
            return Fit(kinds, Repair(), float(self.epoch.losses(Repair()).mean()), ())
        starts = [self.fit(kinds - {kind}).repair for kind in sorted(kinds)]
        if self._few is not None:
            starts.append(self._few.fit(kinds).repair)
        elif N in kinds:
            starts = self._floored(starts, T in kinds)
        if N in kinds:
            starts = [replace(start, eta=max(start.eta, FIRST_ETA)) for start in starts]
        starts = _distinct(starts)
        tried = [(self.derivatives(s, B in kinds, N in kinds)[0], s) for s in starts]
        tried.sort(key=lambda one: one[0])
        most = 1 if self._few is not None or N not in kinds else 2
        found = [_minimise(self.derivatives, kinds, start) for _, start in tried[:most]]
        if N in kinds:
            found.append(replace(self.fit(kinds - {N}), kinds=kinds))  # no floor at all
        return min(found, key=lambda fit: fit.loss)

    def _floored(self, starts: list[Repair], tempered: bool) -> list[Repair]:
        """Return starts with the best floor of a few, at temperatures far apart too."""
        if tempered:
            starts = starts + [Repair(beta) for beta in START_BETAS]
        floors = np.array(START_ETAS)[:, None]
        result = []
        for start in _distinct([replace(start, eta=0.0) for start in starts]):
            p = np.exp(-self.epoch.losses(start))
            means = -np.log((1.0 - floors) * p + floors / self.epoch.classes).mean(axis=1)
            result.append(replace(start, eta=START_ETAS[int(means.argmin())]))
        return result


def _distinct(repairs: list[Repair]) -> list[Repair]:
    return list(dict.fromkeys(repairs))


def _minimise(
    derivatives: Callable[[Repair, bool, bool], Derivatives], kinds: frozenset[str], start: Repair
) -> Fit:
    """Return the minimum of the mean loss that Newton's method leads to from a start."""
    free = np.array([T in kinds, B in kinds, N in kinds])

    def at(x: Floats) -> Repair:
        beta = min(max(math.exp(x[0]), GRID[0]), GRID[-1])
        return Repair(beta, float(x[1]), math.exp(x[2]) if free[2] else 0.0)

    x = np.array([math.log(start.beta), start.gamma, math.log(max(start.eta, 1e-300))])
    x = np.where(free, np.clip(x, LOWER, UPPER), (0.0, 0.0, 0.0))
    value, gradient, hessian = derivatives(at(x), bool(free[1]), bool(free[2]))
    for _ in range(MOST_STEPS):
        held = ((x <= LOWER) & (gradient > 0)) | ((x >= UPPER) & (gradient < 0))
        moving = free & ~held
        step = _step(gradient, hessian, moving)
        if -gradient @ step < 2 * PRECISION:
            break
        there, found = x, (math.inf, gradient, hessian)
        while not found[0] < value and -gradient @ step >= PRECISION:
            there = np.where(moving, np.clip(x + step, LOWER, UPPER), x)
            found = derivatives(at(there), bool(free[1]), bool(free[2]))
            step = step / 4
        if not found[0] < value:
            break
        x = there
        value, gradient, hessian = found
    bounds = ((x <= LOWER) & (np.array(list(KINDS)) != N)) | (x >= UPPER)
    at_bound = tuple(kind for kind, reached in zip(KINDS, bounds & free, strict=True) if reached)
    return Fit(kinds, at(x), value, at_bound)


def _step(gradient: Floats, hessian: Floats, moving: NDArray[np.bool_]) -> Floats:
    """Return Newton's step (3,) among what moves: downhill though the Hessian is not convex."""
    step = np.zeros(3)
    if moving.any():
        values, vectors = np.linalg.eigh(hessian[np.ix_(moving, moving)])
        curvature = np.maximum(np.abs(values), 1e-12)
        step[moving] = -vectors @ (vectors.T @ gradient[moving] / curvature)
        step *= min(1.0, LONGEST / max(float(np.abs(step).max()), LONGEST))
    return step

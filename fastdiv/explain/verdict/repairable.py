"""Repairable: the loss of every sample under a repair of the predictions, with its derivatives.

A repair multiplies the logits by an inverse temperature, adds a bias to the logit of the most
frequent class, and mixes in a uniform distribution, the floor that mislabelled samples leave:

    loss = -log((1 - floor) * softmax(beta * z + gamma * onehot(majority))[label] + floor / c)

Temperature scaling: Guo et al., "On Calibration of Modern Neural Networks", arXiv:1706.04599;
the floor: symmetric label noise, e.g. Ghosh et al., arXiv:1712.09482.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from fastdiv.explain.evidence import Bools, Floats, Ints, Side
from fastdiv.explain.verdict.sketch import Sketch

BLOCK = 1 << 15  # rows at a time: what is computed of them stays in cache
DEEPEST = -1e6  # nats below the highest logit; a class further down gets no probability


@dataclass(frozen=True, slots=True)
class Repair:
    """A point in the space of repairs; the default leaves the predictions as they are.

    Attributes
    ----------
    beta : float
        Inverse temperature.
    gamma : float
        Bias on the logit of the most frequent class, in nats.
    eta : float
        Share of samples whose label is taken to be random.
    """

    beta: float = 1.0
    gamma: float = 0.0
    eta: float = 0.0


class Repairable:
    """Losses of some samples of an epoch under any repair.

    Parameters
    ----------
    side : Side
        Samples whose losses are finite.
    majority : int
        The class that a bias is on.
    depth : (n,) float64, optional
        How far its logit is below the highest, see `verdict.majority`. Until it is given,
        a bias changes nothing.
    """

    def __init__(self, side: Side, majority: int, depth: Floats | None = None) -> None:
        self._side = side
        self._margin = np.ascontiguousarray(side.margin)
        self._profile = np.ascontiguousarray(side.profile)
        self._sketch = None if side.has_profile else Sketch.of(side)
        self._majority = majority
        self.depth = depth
        self.classes = side.classes
        self.gap: Floats = side.gap
        self.is_majority: Bools = side.labels == majority
        self._tempered: Floats = np.empty((0, 3))
        self._beta: float | None = None  # which temperature that is of

    def __len__(self) -> int:
        return len(self.gap)

    def take(self, rows: Ints) -> Repairable:
        """Return some samples."""
        depth = None if self.depth is None else self.depth[rows]
        return Repairable(self._side.take(rows), self._majority, depth)

    def partition(self, beta: float, rows: slice = slice(None)) -> Floats:
        """Return (k, 3): `Side.temper` of some rows, from what little there is if need be."""
        tempered = np.empty((len(self._margin[rows]), 3))
        self._temper(beta, rows, tempered)
        return tempered

    def _temper(self, beta: float, rows: slice, tempered: Floats) -> None:
        """Write `partition` of k rows to an array (k, 3)."""
        if self._sketch is not None:
            tempered[:] = self._sketch.temper(beta, rows)
            return
        margin, profile = self._margin[rows], self._profile[rows]
        self._side.kernels.temper(margin, profile, self.classes, beta, tempered)

    def _partitions(self, beta: float) -> Iterator[tuple[slice, Floats]]:
        """Yield rows, some at a time, and their `partition`.

        What the last call found is kept: a search of all but the temperature asks again.
        """
        known = beta == self._beta
        self._beta = None  # of which only a part is there meanwhile
        if len(self._tempered) < len(self):
            self._tempered = np.empty((len(self), 3))
        for start in range(0, len(self), BLOCK):
            rows = slice(start, start + BLOCK)
            if not known:
                self._temper(beta, rows, self._tempered[rows])
            yield rows, self._tempered[rows]
        self._beta = beta

    def losses(self, repair: Repair) -> Floats:
        """Return the losses (n,) under a repair, in nats."""
        losses = np.empty(len(self))
        for rows, tempered in self._partitions(repair.beta):
            s = tempered[:, 0]
            x = s + repair.beta * self.gap[rows]
            if repair.gamma and self.depth is not None:
                p = np.exp(np.minimum(repair.beta * self.depth[rows] - s, 0.0))
                x += np.log1p(np.expm1(repair.gamma) * p) - repair.gamma * self.is_majority[rows]
            if repair.eta:
                x = -np.log((1.0 - repair.eta) * np.exp(-x) + repair.eta / self.classes)
            losses[rows] = x
        return losses

    def right(self, repair: Repair) -> Bools:
        """Tell which samples (n,) are correct under a repair, of which only a bias changes that.

        Where vectors were not kept, a third class is taken not to stand in between.
        """
        right = self._side.correct
        if not repair.gamma or self.depth is None:
            return right
        shift = repair.gamma / repair.beta
        margin = self._margin.astype(np.float64)
        is_top = self._side.predicted == self._majority
        third = np.full(len(self), -np.inf)
        if self._side.has_vectors and self.classes > 2:
            others = self._profile.astype(np.float32)
            others[np.arange(len(self)), self._side.labels] = -np.inf
            others[:, self._majority] = -np.inf
            third = others.max(axis=1)
        gained = is_top & (shift < margin) & (-self.gap >= third)
        lost = right & (self.depth + shift > 0.0)
        return np.where(self.is_majority, margin + shift > 0.0, (right & ~lost) | gained)

    def derivatives(
        self, repair: Repair, biased: bool, floored: bool
    ) -> tuple[float, Floats, Floats]:
        """Return the mean loss under a repair, its gradient (3,) and its Hessian (3, 3).

        By ``log(beta)``, ``gamma`` and ``log(eta)``; zeros where `biased` or `floored` is false.
        """
        sums = np.zeros(10)
        for rows, tempered in self._partitions(repair.beta):
            sums += self._sums(repair, biased, floored, rows, tempered)
        sums /= len(self)
        hessian = np.zeros((3, 3))
        hessian[np.triu_indices(3)] = sums[4:]
        return float(sums[0]), sums[1:4], hessian + np.triu(hessian, 1).T

    def _sums(
        self, at: Repair, biased: bool, floored: bool, rows: slice, tempered: Floats
    ) -> Floats:
        """Sum (10,): losses, their gradients, the upper triangles of their Hessians, by rows."""
        s, s1, s2 = tempered.T
        pull = at.beta * self.gap[rows]
        x, by_t, by_tt = s + pull, s1 + pull, s2 + pull
        by_g = by_gg = by_tg = np.zeros(len(x))
        if biased and self.depth is not None:
            labelled = self.is_majority[rows]
            depth = at.beta * self.depth[rows]
            p = np.exp(np.minimum(depth - s, 0.0))
            extra = np.expm1(at.gamma)
            left = p / (1.0 + extra * p)
            q = np.exp(at.gamma) * left
            k = extra * left
            u = depth - s1
            x = x + np.log1p(extra * p) - at.gamma * labelled
            by_t = by_t + k * u
            by_tt = by_tt + k * (1.0 - k) * u * u + k * (depth - s2)
            by_g = q - labelled
            by_gg = q * (1.0 - q)
            by_tg = q * u * (1.0 - k)
        if not floored:
            nothing = np.zeros(1)
            known = (x, by_t, by_g, nothing, by_tt, by_tg, nothing, by_gg, nothing, nothing)
            return np.array([part.sum() for part in known])
        unfloored = np.exp(-x)
        mixed = (1.0 - at.eta) * unfloored + at.eta / self.classes
        w = (1.0 - at.eta) * unfloored / mixed  # probability that the label is not random
        h = at.eta * (unfloored - 1.0 / self.classes) / mixed
        across = -at.eta * unfloored / (self.classes * mixed * mixed)
        spread = w * (1.0 - w)
        parts = (
            -np.log(mixed), w * by_t, w * by_g, h,
            w * by_tt - spread * by_t * by_t,
            w * by_tg - spread * by_t * by_g,
            across * by_t,
            w * by_gg - spread * by_g * by_g,
            across * by_g,
            h * h + h,
        )  # fmt: skip
        return np.array([part.sum() for part in parts])

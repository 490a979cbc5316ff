"""Credits: the change in loss of every sample, divided among repairs and what they leave."""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from fastdiv.explain.chance.tests import mean_test, probability
from fastdiv.explain.evidence import Floats, Side
from fastdiv.explain.verdict.majority import depths
from fastdiv.explain.verdict.repairable import BLOCK, Repair, Repairable
from fastdiv.explain.verdict.repairs import B, Fit, Fitter, N, T
from fastdiv_kernels.contract import GRID

LEAST_SAVED = 8.0  # nats, all samples together: more than twice what a useless parameter saves
NO_SKILL = 0.95  # of the loss of equal shares: from there on predictions are random
LEVEL = 0.02  # of the test that a repair has a share in the change
Kinds = frozenset[str]
NONE: Kinds = frozenset()
Made = TypeVar("Made")


@dataclass(frozen=True, slots=True)
class Credits:
    """How the change in loss of n samples divides.

    Attributes
    ----------
    order : tuple of str
        Kinds of repair, the one that saved most first.
    fits : tuple of (Fit, Fit)
        Of either epoch, after one repair, two, and so on; the last are joint fits of all.
    gains : dict of str to ((n,) float64, (n,) float64)
        Nats that each kind of repair, in its turn, saves of a sample's loss, by epoch.
    raw : (n,) float64
        Change in loss before any repair (of normalised predictions).
    left : (n,) float64
        Change in loss after all of them.
    alone, last : dict of str to ((n,) float64, (n,) float64)
        As `gains`, of each kind by itself, and after all others.
    alone_fits : dict of str to (Fit, Fit)
    """

    order: tuple[str, ...]
    fits: tuple[tuple[Fit, Fit], ...]
    gains: dict[str, tuple[Floats, Floats]]
    raw: Floats
    left: Floats
    alone: dict[str, tuple[Floats, Floats]]
    last: dict[str, tuple[Floats, Floats]]
    alone_fits: dict[str, tuple[Fit, Fit]]

    @property
    def joint(self) -> tuple[Fit, Fit]:
        """The joint fits of all repairs, by epoch."""
        return self.fits[-1]

    @property
    def repairs(self) -> tuple[Repair, Repair]:
        """The joint repairs, by epoch."""
        return self.joint[0].repair, self.joint[1].repair


class Repairers:
    """The fitters of two epochs of the same samples, whose losses are finite."""

    def __init__(self, sides: tuple[Side, Side], majority: int) -> None:
        self.sides = sides
        self.epochs = Repairable(sides[0], majority), Repairable(sides[1], majority)
        self._fitters = Fitter(self.epochs[0]), Fitter(self.epochs[1])
        self._fits: dict[Kinds, tuple[Fit, Fit]] = {}
        self._losses: dict[Kinds, tuple[Floats, Floats]] = {}

        def lean(i: int) -> None:
            self._fitters[i].lean(depths(sides[i], majority, self._fitters[i]))

        self._of_either(lean)

    def _of_either(self, make: Callable[[int], Made]) -> tuple[Made, Made]:
        """Make something of either epoch, at once where that pays: they share nothing."""
        if len(self.epochs[0]) <= BLOCK:
            return make(0), make(1)
        with ThreadPoolExecutor(1) as pool:
            after = pool.submit(make, 1)
            return make(0), after.result()

    def fit(self, kinds: Kinds) -> tuple[Fit, Fit]:
        """Return the best repair of some kinds of either epoch."""
        if kinds not in self._fits:
            self._fits[kinds] = self._of_either(lambda i: self._fitters[i].fit(kinds))
        return self._fits[kinds]

    def losses(self, kinds: Kinds) -> tuple[Floats, Floats]:
        """Return the losses (n,) of either epoch under its best repair."""
        if kinds not in self._losses:
            fits = self.fit(kinds)
            self._losses[kinds] = self._of_either(lambda i: self.epochs[i].losses(fits[i].repair))
        return self._losses[kinds]

    def matters(self, kind: str) -> bool:
        """Tell whether a repair beyond temperature saves more than a useless one would.

        A bias must not save as much in both epochs. A floor need not differ: without it the
        temperatures that are fitted are those of the wrong labels.
        """
        with_it, without = self.fit(frozenset({T, kind})), self.fit(frozenset(T))
        n = len(self.epochs[0])
        saved = [n * (b.loss - a.loss) for a, b in zip(with_it, without, strict=True)]
        if kind == N:
            told = [self._tells_floor(*fits) for fits in zip(with_it, without, strict=True)]
            if any(x > LEAST_SAVED and not tells for x, tells in zip(saved, told, strict=True)):
                return False
        if max(saved) <= LEAST_SAVED or kind == N:
            return max(saved) > LEAST_SAVED
        both = frozenset({T, kind})
        turn = frozenset(self.order(both)[: self.order(both).index(kind)])
        before, after = _gains(self.losses(turn), self.losses(turn | {kind}))
        return probability(mean_test(after - before)) < LEVEL

    def _tells_floor(self, fit: Fit, tempered: Fit) -> bool:
        """Tell whether random labels can be told from predictions that are random.

        They cannot where a temperature alone leaves hardly less than equal shares would, as of a
        network before it is trained, nor where the logits are larger than any temperature that is
        searched undoes.
        """
        skilled = tempered.loss < NO_SKILL * math.log(self.epochs[0].classes)
        return skilled and fit.repair.beta > GRID[0]

    def order(self, kinds: Kinds) -> tuple[str, ...]:
        """Order repairs: always next the one that, with those before it, leaves the lowest loss."""
        order: list[str] = []
        while len(order) < len(kinds):
            left = sorted(kinds - set(order), key="TBN".index)
            order.append(min(left, key=lambda kind: self._both(frozenset([*order, kind]))))
        return tuple(order)

    def _both(self, kinds: Kinds) -> float:
        before, after = self.fit(kinds)
        return before.loss + after.loss


def _gains(a: tuple[Floats, Floats], b: tuple[Floats, Floats]) -> tuple[Floats, Floats]:
    return a[0] - b[0], a[1] - b[1]


def credit(repairers: Repairers) -> Credits:
    """Divide the change in loss of the same n samples among repairs; n is at least 1."""
    kinds = frozenset({T} | {kind for kind in (B, N) if repairers.matters(kind)})
    order = repairers.order(kinds)
    first = now = repairers.losses(NONE)
    gains, fits = {}, []
    for k, kind in enumerate(order, 1):
        so_far = frozenset(order[:k])
        after = repairers.losses(so_far)
        gains[kind] = _gains(now, after)
        fits.append(repairers.fit(so_far))
        now = after
    alone = {kind: _gains(first, repairers.losses(frozenset(kind))) for kind in order}
    last = {kind: _gains(repairers.losses(kinds - {kind}), now) for kind in order}
    alone_fits = {kind: repairers.fit(frozenset(kind)) for kind in order}
    return Credits(
        order, tuple(fits), gains, first[1] - first[0], now[1] - now[0], alone, last, alone_fits
    )

"""Causes: the terms of the account under the names of what they mean, tested and ranked."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from fastdiv.explain.chance.tests import mean_test, probability
from fastdiv.explain.evidence import Bools, Floats, Ints
from fastdiv.explain.verdict.credits import Credits
from fastdiv.explain.verdict.groups import CERTAINTY
from fastdiv.explain.verdict.repairs import B, T

LEVEL = 0.02  # of the test of a term, adjusted for how many there are
LEAST = 0.05  # of the largest term; less is not named
MASS = 0.3  # of the samples: where more changed sides, the boundary itself moved
MOST_OF_RISE = 0.8  # of what is left: from there on a group is a cause by itself
IMBALANCED = 0.05  # nats between the entropy of the class shares and that of equal ones
OUTLIERS, UNNORMALIZED, NOISE = "outliers", "unnormalized", "noise"
INFINITE, CLIPPED = "infinite", "clipped"  # labels of probability 0, where losses are clipped
OVERCONFIDENCE, UNDERCONFIDENCE = "overconfidence", "underconfidence"
IMBALANCE, THRESHOLD, CLASS_BIAS, LABEL_NOISE, SEPARATION = (
    "imbalance", "threshold", "class_bias", "label_noise", "separation",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Term:
    """One term of the account, of the n samples that it is fitted on.

    Attributes
    ----------
    nats : (n,) float64
        What it carries of each sample's change in loss.
    alone, last : float
        Sums over samples: were it credited by itself, and after all others.
    n : int
        Samples concerned.
    """

    nats: Floats
    alone: float
    last: float
    n: int


def bias_name(shares: Floats) -> str:
    """Name what a bias on the most frequent class means, by the class shares (c,)."""
    seen = shares[shares > 0]
    lacking = math.log(len(shares)) + float((seen * np.log(seen)).sum())
    if lacking >= IMBALANCED:
        return IMBALANCE
    return THRESHOLD if len(shares) == 2 else CLASS_BIAS


def repair_terms(credits: Credits, bias: str, noisy: Bools, moved: Bools) -> dict[str, Term]:
    """Name the terms of repairs.

    Temperature by epoch: what it saves counts as over- or underconfidence of that epoch. The floor
    that wrong labels leave is itself what they cost: of these, label noise carries what no
    repair undoes as well.

    Parameters
    ----------
    credits : Credits
        Of n samples.
    bias : str
        The name of a class bias.
    noisy : (n,) bool
        Whose label is more likely random than not, in either epoch.
    moved : (n,) bool
        Flips, whose part is not label noise's: errors that came.
    """
    n = len(moved)
    terms: dict[str, Term] = {}
    for turn, kind in enumerate(credits.order):
        if kind == T:
            terms |= _confidence(credits, turn)
            continue
        nats = credits.gains[kind][1] - credits.gains[kind][0]
        alone, last = (x[kind][1] - x[kind][0] for x in (credits.alone, credits.last))
        if kind == B:
            terms[bias] = Term(nats, float(alone.sum()), float(last.sum()), n)
            continue
        floor = 0.0 if moved.any() else floor_cost(credits)
        terms[LABEL_NOISE] = Term(
            np.where(moved, 0.0, nats) + np.where(noisy, credits.left, floor),
            float(alone[~moved].sum()), float(last[~moved].sum()),
            int(np.count_nonzero(noisy)),
        )  # fmt: skip
    return terms


def floor_cost(credits: Credits) -> float:
    """Return by how much the floors' cost to samples whose label is right changed, each."""
    before, after = (repair.eta for repair in credits.repairs)
    return math.log1p(-before) - math.log1p(-after)


def _confidence(credits: Credits, turn: int) -> dict[str, Term]:
    """Return the terms of temperature: of an epoch with beta below 1, and above."""
    n = len(credits.raw)
    terms = {}
    for name, sharp in ((OVERCONFIDENCE, True), (UNDERCONFIDENCE, False)):
        nats, alone, last, concerned = np.zeros(n), 0.0, 0.0, False
        for k, sign in ((0, -1.0), (1, 1.0)):
            if (credits.fits[turn][k].repair.beta < 1) == sharp:
                nats = nats + sign * credits.gains[T][k]
                concerned = True
            if (credits.alone_fits[T][k].repair.beta < 1) == sharp:
                alone += sign * float(credits.alone[T][k].sum())
            if (credits.joint[k].repair.beta < 1) == sharp:
                last += sign * float(credits.last[T][k].sum())
        if concerned:
            terms[name] = Term(nats, alone, last, n)
    return terms


def group_terms(raw: Floats, left: Floats, groups: dict[str, Bools]) -> dict[str, Term]:
    """Name what repairs leave (n,), by group; as one cause what is one movement.

    Learning and forgetting show in flips and in certainty alike: those groups that move the same
    way as certainty does are separation, unless one of them is nearly all of it and few samples
    flipped: of an untrained network all samples are near the boundary.
    """
    tests = {name: mean_test(np.where(rows, left, 0.0)) for name, rows in groups.items()}
    up = tests[CERTAINTY].mean > 0
    alike = {
        name: test
        for name, test in tests.items()
        if (test.mean > 0) == up and probability(test) < LEVEL
    }
    whole = sum(test.mean for test in alike.values())
    merged = frozenset[str]()
    if len(alike) > 1 and CERTAINTY in alike:
        largest = max(abs(test.mean) for test in alike.values())
        flipped = sum(int(rows.sum()) for name, rows in groups.items() if name != CERTAINTY)
        if largest < MOST_OF_RISE * abs(whole) or flipped > MASS * len(left):
            merged = frozenset(alike)
    terms = {}
    one = np.zeros(len(left), bool)
    for name, rows in groups.items():
        if name in merged:
            one |= rows
        else:
            terms[name] = _group(rows, raw, left)
    if merged:
        terms[SEPARATION] = _group(one, raw, left)
    return terms


def _group(rows: Bools, raw: Floats, left: Floats) -> Term:
    return Term(
        np.where(rows, left, 0.0), float(raw[rows].sum()), float(left[rows].sum()),
        int(np.count_nonzero(rows)),
    )  # fmt: skip


def rank(
    nats: dict[str, float], points: dict[str, float], delta: float, turned: float,
    by_points: bool,
) -> list[str]:  # fmt: skip
    """Order names: those that push the way of the change first, then the larger first.

    Parameters
    ----------
    nats, points : dict of str to float
        Of each name, signed.
    delta, turned : float
        Changes in loss and in accuracy.
    by_points : bool
        Whether accuracy, not loss, is what moved.
    """
    worth, way = (points, turned) if by_points else (nats, delta)
    return sorted(nats, key=lambda name: (worth[name] * way <= 0, -abs(worth[name])))


def heaviest(nats: Floats, sign: float, most: int = 10) -> Ints:
    """Return the positions of the samples that carry most of a sum, in its direction."""
    x = nats if sign >= 0 else -nats
    if len(x) > 4 * most:
        least = np.partition(x, len(x) - most)[len(x) - most]
        candidates = np.flatnonzero(x >= max(least, 0.0))
    else:
        candidates = np.arange(len(x))
    candidates = candidates[x[candidates] > 0]
    return candidates[np.argsort(-x[candidates], kind="stable")][:most]

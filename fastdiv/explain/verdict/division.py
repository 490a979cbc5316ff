"""Division: the change of every sample as the sum of named terms, and of its correctness."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from fastdiv.explain.chance.tests import mcnemar
from fastdiv.explain.evidence import Bools, Floats, Ints, Pair
from fastdiv.explain.explanation import SampleAccount
from fastdiv.explain.verdict import causes
from fastdiv.explain.verdict.causes import Term
from fastdiv.explain.verdict.credits import Credits, Repairers, credit
from fastdiv.explain.verdict.groups import CONFIDENT_FLIPS, GROUPS, grouped
from fastdiv.explain.verdict.outliers import Outliers, find, suspected
from fastdiv.explain.verdict.repairs import N, T

TEMPERATURE, FLOORED = frozenset({T}), frozenset({T, N})


@dataclass(frozen=True, slots=True)
class Division:
    """The change of the n samples of a pair with finite losses, divided.

    Attributes
    ----------
    rows : (n,) int64
        Their positions in the pair.
    delta : (n,) float64
        Change in loss.
    terms : dict of str to Term
        Their nats sum to delta.
    outliers : Outliers
    credits : Credits
        Of the samples that are no outliers.
    bias : str
        The name of a class bias.
    majority : int
        The most frequent class, which it is on.
    majority_share : float
    calibration : float
        Change in what temperature alone would save, a mean over samples.
    n_suspects : int
        Whose label is more likely random than not, in either epoch.
    account : SampleAccount
    """

    rows: Ints
    delta: Floats
    terms: dict[str, Term]
    outliers: Outliers
    credits: Credits
    bias: str
    majority: int
    majority_share: float
    calibration: float
    n_suspects: int
    account: SampleAccount


def hopeless(pair: Pair) -> str:
    """Name what samples have that gave their label probability 0."""
    infinite = np.isinf(pair.before.loss).any() or np.isinf(pair.after.loss).any()
    return causes.INFINITE if infinite or pair.finite.all() else causes.CLIPPED


def divide(pair: Pair) -> Division | None:
    """Divide the change between two epochs; None where no sample has a finite loss in both."""
    finite = pair.finite
    rows = np.flatnonzero(finite)
    if not len(rows):
        return None
    sides = pair.before.take(finite), pair.after.take(finite)
    shares = np.bincount(sides[0].labels, minlength=sides[0].classes) / len(rows)
    majority, bias = int(shares.argmax()), causes.bias_name(shares)
    delta = sides[1].loss - sides[0].loss
    repairers = Repairers(sides, majority)
    tempered = repairers.fit(TEMPERATURE)
    saved = [float(s.loss.mean()) - fit.loss for s, fit in zip(sides, tempered, strict=True)]
    floored = repairers.fit(FLOORED)
    outliers = find(sides, repairers.epochs, (floored[0].repair, floored[1].repair), delta)
    kept = np.flatnonzero(~outliers.rows)
    everyone = repairers
    if outliers.n:
        repairers = Repairers((sides[0].take(kept), sides[1].take(kept)), majority)
    credits = credit(repairers)
    right = _right(repairers, credits)
    groups = grouped(repairers.sides, right, credits.repairs)
    suspects = _suspects(repairers, credits)
    noisy, moved = _parted(repairers, credits, groups, suspects)
    terms = _terms(credits, bias, groups, noisy, moved, delta[kept])
    groups = {**groups, causes.LABEL_NOISE: noisy}
    account = _account(pair, rows[kept], rows[outliers.rows], right, groups, terms, bias)
    if outliers.n:
        terms = _with_outliers(terms, kept, outliers, everyone, credits, delta)
    account = replace(account, rows=rows, terms={name: term.nats for name, term in terms.items()})
    return Division(
        rows, delta, terms, outliers, credits, bias, majority, float(shares[majority]),
        saved[1] - saved[0],
        int(np.count_nonzero(suspects)), account,
    )  # fmt: skip


def _right(repairers: Repairers, credits: Credits) -> tuple[Bools, Bools]:
    """Tell which samples are correct in either epoch, once a class bias is undone."""
    (before, after), (first, second) = repairers.epochs, credits.repairs
    return before.right(first), after.right(second)


def _suspects(repairers: Repairers, credits: Credits) -> Bools:
    """Tell which samples' labels are more likely random than not, in either epoch."""
    found = np.zeros(len(credits.raw), bool)
    for epoch, repair in zip(repairers.epochs, credits.repairs, strict=True):
        if repair.eta:
            losses = epoch.losses(replace(repair, eta=0.0))
            found |= suspected(losses, repair.eta, epoch.classes)
    return found


def _parted(
    repairers: Repairers, credits: Credits, groups: dict[str, Bools], suspects: Bools
) -> tuple[Bools, Bools]:
    """Tell whose change is label noise's, repaired or not, and whose is not though it was repaired.

    Errors that come are the model's. Those that go, where samples with doubtful labels are among
    them, may be wrong labels, learnt by heart: from two epochs nobody can tell.
    """
    before, after = repairers.sides
    flipped = before.correct != after.correct
    came = int(np.count_nonzero(flipped & suspects & before.correct))
    went = int(np.count_nonzero(flipped & suspects & after.correct))
    told = mcnemar(came, went) < causes.LEVEL
    moved = flipped & (told and came > went)
    noisy = suspects & ~moved
    if told and came < went:
        noisy |= groups[CONFIDENT_FLIPS]
    return noisy, moved


def _terms(
    credits: Credits, bias: str, groups: dict[str, Bools], noisy: Bools, moved: Bools, delta: Floats
) -> dict[str, Term]:  # fmt: skip
    """Return the terms of the samples that are no outliers."""
    odd = delta - credits.raw
    terms = {causes.UNNORMALIZED: Term(odd, float(odd.sum()), float(odd.sum()), len(odd))}
    terms |= causes.repair_terms(credits, bias, noisy, moved)
    floor = 0.0 if moved.any() else causes.floor_cost(credits)
    left = np.where(noisy, 0.0, credits.left - floor)
    if N in credits.order:
        left += np.where(moved, credits.gains[N][1] - credits.gains[N][0], 0.0)
    return terms | causes.group_terms(credits.raw, left, groups)


def _with_outliers(
    terms: dict[str, Term], kept: Ints, outliers: Outliers, repairers: Repairers,
    credits: Credits, delta: Floats,
) -> dict[str, Term]:  # fmt: skip
    """Return terms of all samples: zero where an outlier is, whose change is a term of its own."""
    result = {}
    for name, term in terms.items():
        nats = np.zeros(len(delta))
        nats[kept] = term.nats
        result[name] = replace(term, nats=nats)
    last = 0.0
    for sign, epoch, repair in zip((-1, 1), repairers.epochs, credits.repairs, strict=True):
        last += sign * float(epoch.losses(repair)[outliers.rows].sum())
    alone = float(delta[outliers.rows].sum())
    nats = np.where(outliers.rows, delta, 0.0)
    return {causes.OUTLIERS: Term(nats, alone, last, outliers.n), **result}


def _account(
    pair: Pair, kept: Ints, outliers: Ints, right: tuple[Bools, Bools], groups: dict[str, Bools],
    terms: dict[str, Term], bias: str,
) -> SampleAccount:  # fmt: skip
    """Return the account of accuracy, of all samples of a pair; rows are positions in it."""
    names = (
        hopeless(pair), causes.OUTLIERS, bias, causes.LABEL_NOISE, *GROUPS, causes.SEPARATION
    )  # fmt: skip
    places = np.zeros(len(pair), np.int8)  # infinite, where nothing else is said
    places[outliers] = names.index(causes.OUTLIERS)
    here = np.zeros(len(kept), np.int8)
    for name, inside in groups.items():
        place = name if name in terms or name == causes.LABEL_NOISE else causes.SEPARATION
        here[inside] = names.index(place)
    places[kept] = here
    turned = pair.after.correct.astype(np.int8) - pair.before.correct.astype(np.int8)
    biased = np.zeros(len(pair), np.int8)
    biased[kept] = turned[kept] - (right[1].astype(np.int8) - right[0].astype(np.int8))
    by_bias = np.full(len(pair), names.index(bias), np.int8)
    return SampleAccount(kept, {}, names, (turned - biased, biased), (places, by_bias))

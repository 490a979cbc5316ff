"""The verdict: which causes moved loss and accuracy between two epochs, and how far each.

One account that closes sample by sample. Outliers leave first; a temperature, a class bias and a
label-noise floor are fitted to either epoch and credited in the order of what they save; what they
leave goes to groups that treat both epochs alike.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fastdiv.explain.chance.tests import holm, mcnemar, mean_test, probability
from fastdiv.explain.evidence import Bools, Pair
from fastdiv.explain.explanation import Cause, Explanation, Finding, SampleAccount
from fastdiv.explain.verdict import causes
from fastdiv.explain.verdict.advice import Facts, advice, evidence
from fastdiv.explain.verdict.division import Division, divide, hopeless
from fastdiv.explain.verdict.groups import BORDERLINE_FLIPS, CONFIDENT_FLIPS

FAR_MORE = 3.0  # times as many standard errors: from there on accuracy is what moved
FLIPS = (BORDERLINE_FLIPS, CONFIDENT_FLIPS, causes.LABEL_NOISE, causes.SEPARATION)
LEAST_TOLD = 0.5  # of a change in accuracy: if named causes tell less, flips are named as well
UNCERTAIN = "likely, though no term by itself is beyond chance"
BY_OUTLIERS = 0.5  # of a change: from there on it is as certain as they are


@dataclass(frozen=True, slots=True)
class Tests:
    """What chance has to say, adjusted for all terms and both totals (Holm).

    Attributes
    ----------
    terms : dict of str to float
        By name, 1 where too few samples carry a term.
    told : frozenset of str
        The names of which p says something: enough samples carry them.
    points : dict of str to float
        By name, where flips may be: of what it carries of accuracy.
    loss, accuracy : float
        Of the totals.
    raw_loss : float or None
    raw_accuracy : float
        As they are without adjustment.
    by_points : bool
        Whether accuracy moved, and loss far less.
    """

    terms: dict[str, float]
    told: frozenset[str]
    points: dict[str, float]
    loss: float
    accuracy: float
    raw_loss: float | None
    raw_accuracy: float
    by_points: bool


def explain_pair(pair: Pair) -> Explanation:
    """Explain why loss and accuracy moved between two epochs of the same samples.

    Where vectors of more than two classes were not kept, losses at other temperatures are
    estimates, see `fastdiv.explain.verdict.sketch`; the account closes all the same.
    """
    division = divide(pair)
    tests = _tests(pair, division)
    facts = _facts(pair, division, tests)
    account = division.account if division else _empty(pair)
    total = division.delta if division else np.zeros(0)
    n = len(total)
    delta = float(total.mean()) if n else None
    nats = {name: x / n for name, x in account.nats().items()}
    points = {name: x / len(pair) for name, x in account.points().items()}
    moved, turned = delta or 0.0, sum(points.values())
    named = []
    if division:
        names = _named(tests, nats, points, moved, turned)
        named = [_cause(name, pair, division, tests, facts, nats, points) for name in names]
    if _changed(~pair.before.finite, ~pair.after.finite) < causes.LEVEL:
        named.insert(0, _plain(hopeless(pair), 0.0, delta, points, facts, _infinite(pair)))
    if division and not named and min(tests.loss, tests.accuracy) < causes.LEVEL:
        # Something moved, though no term by itself is beyond chance: the largest is told.
        worth, way = points, turned
        if tests.loss < causes.LEVEL:
            worth, way = nats, moved
        able = [term for term in division.terms if term in tests.terms]
        name = max(able, key=lambda term: worth.get(term, 0.0) * way)
        if worth.get(name, 0.0) * way > 0:
            likely = _cause(name, pair, division, tests, facts, nats, points)
            named = [replace(likely, evidence=f"{UNCERTAIN}: {likely.evidence}")]
    significant = bool(named)
    if not named and len(pair):
        everything = {causes.NOISE: turned}
        named.append(_plain(causes.NOISE, moved, delta, everything, facts, np.zeros(0)))
    ways = (
        _way(moved, tests.loss),
        _way(turned, tests.accuracy),
    )
    return Explanation(
        split=pair.split,
        epoch_from=pair.before.epoch,
        epoch_to=pair.after.epoch,
        n=n,
        quadrant=f"loss_{ways[0]}_accuracy_{ways[1]}",
        delta_loss=delta,
        delta_accuracy=turned if len(pair) else None,
        delta_refinement=delta - division.calibration if division and delta is not None else None,
        delta_calibration=division.calibration if division else None,
        significant=significant,
        causes=tuple(named),
        findings=_findings(pair, facts),
        unnamed={name: x for name, x in nats.items() if name not in {c.name for c in named}},
        closure_error=sum(nats.values()) - moved,
        repairs=_repairs(division),
        order=division.credits.order if division else (),
        n_infinite_before=facts.infinite[0],
        n_infinite_after=facts.infinite[1],
        n_invalid=pair.n_invalid,
        n_relabelled=pair.n_relabelled,
        n_only_before=pair.n_only_before,
        n_only_after=pair.n_only_after,
        approximate=pair.before.classes > 2
        and not (pair.before.has_profile and pair.after.has_profile),
        account=account,
    )


# Chance -----------------------------------------------------------------------------------------


def _changed(before: Bools, after: Bools) -> float:
    """Return McNemar's p of a property that samples have before and after."""
    lost, gained = np.count_nonzero(before & ~after), np.count_nonzero(after & ~before)
    return mcnemar(int(lost), int(gained))


def _tests(pair: Pair, division: Division | None) -> Tests:
    p_accuracy = _changed(pair.before.correct, pair.after.correct)
    if division is None:
        return Tests(
            {}, frozenset(), {}, 1.0, p_accuracy, None, p_accuracy, p_accuracy < causes.LEVEL
        )
    total = mean_test(division.delta)
    ps, told = {}, set()
    largest = max(abs(float(term.nats.mean())) for term in division.terms.values())
    for name, term in division.terms.items():
        test = mean_test(term.nats)
        small = abs(test.mean) < causes.LEAST * largest
        if name == causes.OUTLIERS:
            ps[name] = division.outliers.p
        elif not (name == causes.UNNORMALIZED and small):  # rounding, as a rule: not a question
            ps[name] = probability(test)
        if test.p is not None:
            told.add(name)
    p_loss = probability(total)
    carried = abs(float(division.delta[division.outliers.rows].sum()))
    by_outliers = carried >= BY_OUTLIERS * abs(float(division.delta.sum())) > 0
    if by_outliers:
        p_loss = min(p_loss, division.outliers.p)
    flips = {
        name: mcnemar(*counts)
        for name, counts in division.account.flips().items()
        if name in ps and name in FLIPS
    }
    all_of_them = holm([*ps.values(), *flips.values(), p_loss, p_accuracy])
    *terms, loss, accuracy = (1.0 if p is None else p for p in all_of_them)
    turned = pair.after.correct.astype(np.float64) - pair.before.correct
    z_loss, z_accuracy = abs(total.t_corrected), abs(mean_test(turned).t_corrected)
    return Tests(
        dict(zip(ps, terms, strict=False)),
        frozenset(told),
        dict(zip(flips, terms[len(ps) :], strict=True)),
        loss, accuracy, total.p, p_accuracy,
        accuracy < causes.LEVEL
        and (loss >= causes.LEVEL or (z_accuracy > FAR_MORE * z_loss and not by_outliers)),
    )  # fmt: skip


def _way(change: float, p: float) -> str:
    if p >= causes.LEVEL or change == 0:
        return "flat"
    return "up" if change > 0 else "down"


# Causes -----------------------------------------------------------------------------------------


def _named(
    tests: Tests, nats: dict[str, float], points: dict[str, float], delta: float, turned: float
) -> list[str]:
    """Return the terms that are causes, the most important first."""
    largest = max(map(abs, nats.values()))
    names = [
        name
        for name, p in tests.terms.items()
        if p < causes.LEVEL and abs(nats[name]) >= causes.LEAST * largest > 0
    ]
    told = sum(points.get(name, 0.0) for name in names)
    untold = tests.accuracy < causes.LEVEL and told / turned < LEAST_TOLD
    if tests.by_points or untold:
        most = max(map(abs, points.values()))
        names += [
            name
            for name, p in tests.points.items()
            if name not in names and p < causes.LEVEL and abs(points[name]) >= causes.LEAST * most
        ]
    return causes.rank(
        {name: nats[name] for name in names}, {name: points.get(name, 0.0) for name in names},
        delta, turned, tests.by_points,
    )  # fmt: skip


def _cause(
    name: str, pair: Pair, division: Division, tests: Tests, facts: Facts,
    nats: dict[str, float], points: dict[str, float],
) -> Cause:  # fmt: skip
    term, n = division.terms[name], len(division.rows)
    delta = float(division.delta.mean())
    heaviest = division.rows[causes.heaviest(term.nats, nats[name])]
    return Cause(
        name=name,
        nats=nats[name],
        share=nats[name] / delta if delta else None,
        nats_alone=term.alone / n,
        nats_last=term.last / n,
        points=points.get(name, 0.0),
        n=term.n,
        p=tests.terms[name] if name in tests.told else None,
        sample_ids=tuple(pair.ids.take(heaviest).to_pylist()),
        evidence=evidence(name, nats[name], facts),
        advice=advice(name, nats[name]),
    )


def _plain(
    name: str, nats: float, delta: float | None, points: dict[str, float], facts: Facts,
    ids: Any,
) -> Cause:  # fmt: skip
    """Return a cause that is no term of the account of nats."""
    before, after = facts.infinite
    way = nats if name == causes.NOISE else float(after - before)
    return Cause(
        name=name,
        nats=nats,
        share=nats / delta if delta else None,
        nats_alone=nats,
        nats_last=nats,
        points=points.get(name, 0.0),
        n=facts.n if name == causes.NOISE else max(before, after),
        p=None,
        sample_ids=tuple(ids),
        evidence=evidence(name, nats, facts),
        advice=advice(name, way),
    )


# What else is told ------------------------------------------------------------------------------


def _facts(pair: Pair, division: Division | None, tests: Tests) -> Facts:
    infinite = tuple(int(np.count_nonzero(~side.finite)) for side in (pair.before, pair.after))
    majority = division.majority if division else 0
    worst = (0.0, 0.0)
    turns = {}
    if division:
        before, after = (side.loss[division.rows] for side in (pair.before, pair.after))
        worst = float(before.max()), float(after.max())
        turns = dict(zip(division.credits.order, division.credits.fits, strict=True))
    names = pair.class_names
    return Facts(
        n=len(division.rows) if division else 0,
        turns=turns,
        flips=division.account.flips() if division else {},
        n_outliers=division.outliers.n if division else 0,
        n_suspects=division.n_suspects if division else 0,
        majority=names[majority] if names else f"class {majority}",
        majority_share=division.majority_share if division else 0.0,
        infinite=(infinite[0], infinite[1]),
        worst=worst,
        p=tests.raw_loss,
        p_accuracy=tests.raw_accuracy,
    )


def _infinite(pair: Pair) -> Any:
    became = np.flatnonzero(pair.before.finite != pair.after.finite)[:10]
    return pair.ids.take(became).to_pylist()


def _findings(pair: Pair, facts: Facts) -> tuple[Finding, ...]:
    before, after = facts.infinite
    if not before + after:
        return ()
    n, name = int(np.count_nonzero(~pair.finite)), hopeless(pair)
    what = "make the mean loss infinite" if name == causes.INFINITE else "have a clipped loss"
    sentence = (
        f"{n:,} samples got probability 0 for their label ({before:,} before, {after:,} after): "
        f"they {what}, which no temperature changes, and have no part in the change that is told."
    )
    return (Finding(name, {"n_before": before, "n_after": after, "n": n}, sentence),)


def _repairs(division: Division | None) -> dict[str, dict[str, Any]]:
    if division is None:
        return {}
    return {
        when: {
            "beta": fit.repair.beta,
            "gamma": fit.repair.gamma,
            "eta": fit.repair.eta,
            "at_bound": list(fit.at_bound),
        }
        for when, fit in zip(("before", "after"), division.credits.joint, strict=True)
    }


def _empty(pair: Pair) -> SampleAccount:
    turned = pair.after.correct.astype(np.int8) - pair.before.correct.astype(np.int8)
    nothing = np.zeros(len(pair), np.int8)
    return SampleAccount(
        np.zeros(0, np.int64), {}, (hopeless(pair),), (turned, nothing), (nothing, nothing)
    )

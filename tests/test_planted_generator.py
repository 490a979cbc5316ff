"""The generator of planted causes plants what it says, in epochs that are calibrated without it."""

import hashlib
import json
from collections import namedtuple
from dataclasses import dataclass

import numpy as np
import pytest
from scipy.optimize import minimize, minimize_scalar

from benchmarks import verdicts
from tests import real_training
from tests.calibrated import draw_world, losses
from tests.planted import CAUSES, CLASSES, PAIRS, Case, cases, draw, draw_two

VARIANTS = [(name, k) for name, cause in CAUSES.items() for k in range(len(cause.variants))]
FLIPS = ("borderline_flips", "confident_flips", "corrected_errors")


def best_scale(z, labels):
    """Return the inverse temperature at which the mean loss is least."""
    found = minimize_scalar(
        lambda s: losses(z * np.float32(np.exp(s)), labels).mean(), bounds=(-1.6, 1.6)
    )
    return float(np.exp(found.x))


def margins(z, labels):
    rows = np.arange(len(z))
    other = z.astype(float)
    other[rows, labels] = -np.inf
    return z[rows, labels] - other.max(axis=1)


def some(name, variant=0, n=6000, seed=40, classes=None, strength=None):
    """Draw a cause in the middle of its strengths."""
    cause = CAUSES[name]
    strengths = cause.variants[variant].strengths
    c = classes or (2 if 10 not in cause.classes else 10)
    return draw(name, strength or strengths[len(strengths) // 2], c, n, seed, variant)


@pytest.mark.parametrize(("classes", "n"), [(2, 50_000), (10, 50_000), (100, 15_000)])
@pytest.mark.parametrize("skewed", [False, True])
def test_both_epochs_are_calibrated(classes, n, skewed):
    world = draw_world(np.random.default_rng(classes), classes, n, skewed)
    for z in (world.before, world.after):
        assert best_scale(z, world.labels) == pytest.approx(1.0, abs=0.03)
        # ... and so is every class: no bias of any makes the loss lower by what can be seen.
        p = np.exp(z.astype(float) - z.max(axis=1, keepdims=True))
        p /= p.sum(axis=1, keepdims=True)
        counts = np.bincount(world.labels, minlength=classes)
        spread = np.sqrt((p * (1 - p)).sum(axis=0))
        assert (np.abs(counts - p.sum(axis=0)) / spread).max() < 4.5
        # ... and confidence, in each of ten bins of it.
        confidence, right = p.max(axis=1), p.argmax(axis=1) == world.labels
        edges = np.quantile(confidence, np.linspace(0, 1, 11)[1:-1])
        for k in range(10):
            inside = np.searchsorted(edges, confidence) == k
            variance = (confidence * (1 - confidence))[inside].sum()
            assert abs((right[inside] - confidence[inside]).sum()) < 4.5 * np.sqrt(variance) + 1


def test_the_sharp_world_is_calibrated_too_and_its_later_epoch_knows_more():
    world = draw_world(np.random.default_rng(5), 10, 50_000, False, sharp=True)
    for z in (world.before, world.after):
        # Errors are few: the slope of the loss by the scale, in standard errors of it.
        p = np.exp(z.astype(float) - z.max(axis=1, keepdims=True))
        p /= p.sum(axis=1, keepdims=True)
        mean = (p * z).sum(axis=1)
        slope = (mean - z[np.arange(len(z)), world.labels]).sum()
        assert abs(slope) < 4 * np.sqrt((p * z**2).sum() - (mean**2).sum())
    before, after = (margins(z, world.labels) for z in (world.before, world.after))
    assert np.median(after - before) > 5
    assert (before > 0).mean() > 0.9


def test_without_a_plant_nothing_changes_but_by_chance():
    seen_losses, seen_accuracies = [], []
    for case in cases("tuning", 150, ["noise"]):
        small = Case(case.causes, case.strengths, min(case.classes, 50), 2000, case.seed, 0)
        p = small.draw()
        assert p.expected == ("noise",)
        assert not p.strong
        assert p.direction == 0
        assert not p.planted_delta.any()
        d = p.unplanted_delta
        right = [(margins(z, p.labels) > 0).astype(float) for z in (p.before, p.after)]
        flips = right[1] - right[0]
        seen_losses.append(d.mean() / (d.std() / np.sqrt(len(d))))
        seen_accuracies.append(flips.sum() / np.sqrt((flips**2).sum()))
        assert d.std() > 0.02
    for z in (np.array(seen_losses), np.array(seen_accuracies)):
        assert (np.abs(z) <= 3).mean() >= 0.98
        assert abs(z.mean()) < 3 / np.sqrt(len(z))
        assert 0.8 < z.std() < 1.2


@pytest.mark.parametrize(("name", "variant"), VARIANTS)
def test_the_change_is_the_sum_of_what_was_planted_and_what_was_not(name, variant):
    p = some(name, variant)
    d = losses(p.after, p.labels) - losses(p.before, p.labels)
    assert np.allclose(d, p.planted_delta + p.unplanted_delta, rtol=1e-9, atol=1e-9)
    assert p.reversed == CAUSES[name].variants[variant].reversed
    assert p.before.dtype == p.after.dtype == np.float32
    assert p.labels.dtype == np.int32
    assert (p.labels.min(), p.labels.max()) == (0, p.before.shape[1] - 1)
    if name != "noise":
        assert p.z > 4
        assert p.strong == (p.z_change >= 4)
        assert p.direction == np.sign(p.planted_delta.sum())


@pytest.mark.parametrize(("name", "variant"), VARIANTS)
def test_the_stronger_the_plant_the_larger_its_effect(name, variant):
    strengths = CAUSES[name].variants[variant].strengths
    effects = [abs(some(name, variant, strength=s).planted_delta.mean()) for s in strengths]
    if name == "underconfidence":
        effects.reverse()
    assert effects == sorted(effects)
    assert len(set(effects)) == len(strengths)


def planted_epoch(p):
    return p.before if p.reversed else p.after


@pytest.mark.parametrize("variant", [0, 1])
@pytest.mark.parametrize(("name", "strength"), [("overconfidence", 2.0), ("underconfidence", 0.5)])
def test_scaled_logits_need_their_scale_back(name, strength, variant):
    p = some(name, variant, strength=strength, n=30_000)
    assert best_scale(planted_epoch(p), p.labels) * strength == pytest.approx(1.0, abs=0.04)
    assert p.direction == (-1 if p.reversed else 1)


@pytest.mark.parametrize(("name", "variant"), [v for v in VARIANTS if v[0] in FLIPS])
def test_flips_cross_the_boundary_as_far_as_they_were_from_it(name, variant):
    p = some(name, variant)
    moved = np.flatnonzero(p.planted_delta)
    before, after = margins(p.before, p.labels)[moved], margins(p.after, p.labels)[moved]
    assert (before * after < 0).all()
    comes = CAUSES[name].variants[variant].plant.__name__.startswith("break") != p.reversed
    assert p.direction == (1 if comes else -1)
    assert np.sign(after[0] - before[0]) == -p.direction
    there = np.abs(before if p.reversed else after)
    if name == "borderline_flips":
        assert there.max() <= 1.0
    else:
        assert min(np.abs(before).min(), np.abs(after).min()) > 2.0


@pytest.mark.parametrize("variant", [0, 1])
def test_outliers_are_few_and_out_of_place_in_a_calibrated_epoch(variant):
    p = some("outliers", variant, n=20_000, strength=0.002)
    loss = losses(planted_epoch(p), p.labels)
    beyond = loss > np.log(9 * 20_000 / 0.05)
    assert beyond.sum() == pytest.approx(40, abs=2)
    assert (beyond == (np.abs(p.planted_delta) > 10)).mean() > 0.9999
    other = p.after if p.reversed else p.before
    assert (losses(other, p.labels) > np.log(9 * 20_000 / 0.05)).sum() <= 2


def test_wrong_labels_cost_more_where_the_later_epoch_is_sharper():
    for variant in (0, 1):
        p = some("label_noise_validation", variant, strength=0.1)
        sharp, dull = (p.before, p.after) if p.reversed else (p.after, p.before)
        wrong = np.abs(p.planted_delta) > 1e-9
        assert wrong.mean() == pytest.approx(0.1, abs=0.01)
        more = margins(dull, p.labels)[wrong] - margins(sharp, p.labels)[wrong]
        assert np.median(more) > 3
        assert abs(p.unplanted_delta.mean()) < abs(p.planted_delta.mean()) / 4


def test_wrong_labels_learnt_by_heart_are_predicted_ever_more():
    p = some("label_noise_memorised", strength=0.75)
    learnt = p.planted_delta < 0
    assert (margins(p.before, p.labels)[learnt] < 0).mean() > 0.9
    assert (margins(p.after, p.labels)[learnt] > 0).all()
    assert 0.02 < learnt.mean() < 0.3
    assert p.direction == -1


@pytest.mark.parametrize("variant", [0, 1])
@pytest.mark.parametrize(
    ("name", "classes"), [("imbalance", 10), ("imbalance", 2), ("threshold", 2)]
)
def test_a_bias_on_the_most_frequent_class_can_be_undone(name, classes, variant):
    p = some(name, variant, n=20_000, strength=1.5, classes=classes)
    shares = np.bincount(p.labels, minlength=classes) / len(p.labels)
    lacks = np.log(classes) + (shares * np.log(shares)).sum()
    assert (lacks >= 0.08) if name == "imbalance" else (lacks < 0.01)
    z, top = planted_epoch(p), shares.argmax()

    def loss_at(x):
        shifted = z * np.float32(x[0])
        shifted[:, top] += np.float32(x[1])
        return losses(shifted, p.labels).mean()

    scale, bias = minimize(loss_at, [1.0, 0.0], method="Nelder-Mead").x
    assert scale == pytest.approx(1.0, abs=0.08)
    assert abs(bias) == pytest.approx(1.5, abs=0.25)


@pytest.mark.parametrize("name", ["learning", "forgetting"])
@pytest.mark.parametrize("classes", [2, 100])
def test_what_learns_or_forgets_is_calibrated_before_and_after(name, classes):
    p = some(name, n=40_000 if classes == 2 else 15_000, classes=classes)
    for z in (p.before, p.after):
        assert best_scale(z, p.labels) == pytest.approx(1.0, abs=0.04)
    accuracy = [(margins(z, p.labels) > 0).mean() for z in (p.before, p.after)]
    sign = 1 if name == "learning" else -1
    assert sign * (accuracy[1] - accuracy[0]) > 0.02
    assert p.direction == -sign


def digest(p):
    arrays = (p.before, p.after, p.labels, p.planted_delta, p.unplanted_delta)
    return hashlib.sha256(b"".join(np.ascontiguousarray(a).tobytes() for a in arrays)).hexdigest()


def test_a_case_is_the_same_whenever_it_is_drawn_and_no_other():
    names = ["overconfidence", "outliers", ("learning", "threshold")]
    first = [*cases("tuning", 3, names)]
    assert first == [*cases("tuning", 3, names)]
    digests = [digest(case.draw()) for case in first]
    assert digests == [digest(case.draw()) for case in first]
    assert len(set(digests)) == len(digests)
    assert [*cases("tuning", 1, names[:1], start=2)] == first[2:3]


def test_the_proof_has_seeds_of_its_own_and_cases_of_all_sizes():
    tuning, proof = ([*cases(split, 60)] for split in ("tuning", "proof"))
    assert {case.seed % 2 for case in tuning} == {0}
    assert {case.seed % 2 for case in proof} == {1}
    assert {case.causes[0] for case in proof} == set(CAUSES)
    assert {case.classes for case in proof} == set(CLASSES)
    rows = [case.n for case in proof]
    assert min(rows) < 1_300
    assert max(rows) > 40_000
    assert min(rows) >= 1_000
    assert max(case.n * case.classes for case in proof) <= 2e7
    for name, cause in CAUSES.items():
        mine = [case for case in proof if case.causes == (name,)]
        assert {case.variant for case in mine} == set(range(len(cause.variants)))
        assert {s for case in mine for s in case.strengths} == {
            s for v in cause.variants for s in v.strengths
        }
    with pytest.raises(ValueError, match="tuning or proof"):
        next(cases("test", 1))


@pytest.mark.parametrize("pair", PAIRS, ids=" + ".join)
def test_two_causes_are_both_there(pair):
    (case,) = cases("tuning", 1, [pair])
    c = min(case.classes, 10)
    p = draw_two(pair, case.strengths, c, 5000, case.seed, case.variant)
    assert p.cause == " + ".join(pair)
    assert set(p.expected) >= {name for cause in pair for name in CAUSES[cause].expected}
    d = losses(p.after, p.labels) - losses(p.before, p.labels)
    assert np.allclose(d, p.planted_delta + p.unplanted_delta, rtol=1e-9, atol=1e-9)
    assert p.z > 0
    alone = [
        Case((name,), (s,), c, 5000, case.seed, 0).draw()
        for name, s in zip(pair, case.strengths, strict=True)
    ]
    assert not any(np.array_equal(p.planted_delta, one.planted_delta) for one in alone)


def test_pairs_do_not_undo_each_other():
    assert len(PAIRS) > 40
    for opposed in ({"learning", "forgetting"}, {"imbalance", "threshold"}):
        assert opposed not in [set(pair) for pair in PAIRS]


# What runs them -------------------------------------------------------------------------------


@dataclass
class Named:
    name: str
    nats: float


@dataclass
class Said:
    causes: list


def by_change(pair):
    """Name a cause by what any explanation can see: which way the loss went, if far enough."""
    d = pair.delta
    z = d.mean() / (d.std() / np.sqrt(len(d)))
    name = "noise" if abs(z) < 4 else "overconfidence" if z > 0 else "separation"
    return Said([Named(name, float(d.mean()))])


@pytest.fixture
def inline(monkeypatch):
    """Run the draws in this process, which knows the function above."""

    class Pool:
        def __init__(self, processes): ...
        def __enter__(self):
            return self

        def __exit__(self, *error): ...
        def imap(self, function, entries):
            return map(function, entries)

    monkeypatch.setattr(
        verdicts.multiprocessing, "get_context", lambda _: namedtuple("C", "Pool")(Pool)
    )


def test_the_runner_tells_what_was_planted_and_what_was_named(inline, tmp_path, monkeypatch):
    monkeypatch.setattr("tests.planted.MOST_VALUES", 100_000)
    out, data = tmp_path / "table.md", tmp_path / "draws.json"
    code = verdicts.main([
        "--draws", "4", "--pair-draws", "2", "--causes", "noise", "overconfidence", "learning",
        "--explain", f"{__name__}:by_change", "-o", str(out), "--json", str(data),
    ])  # fmt: skip
    assert code == 0
    records = json.loads(data.read_text())
    text = out.read_text()
    rows = {
        line.split("|")[1].strip(): line.split("|")[2:-1]
        for line in text.splitlines()
        if "|" in line
    }
    for planted in ("noise", "overconfidence", "learning", "overconfidence + learning"):
        mine = [r for r in records if " + ".join(r["case"]["causes"]) == planted and r["counts"]]
        assert int(rows[planted][0]) == len(mine)
        assert len(mine) == 4 or "+" in planted
        right = [r for r in mine if r["first"] in r["expected"]]
        assert rows[planted][1].split()[0] == str(len(right))
    assert rows["learning"][1].split() == ["4", "(100", "%)"]
    falling = [r for r in records if r["case"]["causes"] == ["overconfidence"] and r["reversed"]]
    assert {r["first"] for r in falling} <= {"separation", "noise"}
    weaker = [r for r in records if not r["counts"]]
    assert all(min(r["z"], r["z_change"]) < 4 for r in weaker)
    assert "False alarms under pure noise: 0 of 4." in text
    assert "tuning split" in text


def test_the_runner_goes_on_until_enough_draws_count():
    def judged(entries):
        for case in entries:
            z = 9.0 if case.seed % 4 else 0.5  # one of two counts
            yield verdicts.Record(case, ("outliers",), False, 0.1, 0.1, z, z, (), 0.0)

    records = [*verdicts.gather("outliers", "tuning", 10, judged)]
    assert sum(r.counts for r in records) == 10
    assert [r.case.seed for r in records] == [*range(0, 2 * len(records), 2)]
    assert {r.first for r in records} == {"noise"}
    never = [*verdicts.gather("outliers", "tuning", 10, lambda es: (
        verdicts.Record(case, (), False, 0.0, 0.0, 0.0, 0.0, (), 0.0) for case in es
    ))]  # fmt: skip
    assert len(never) == 10 * verdicts.MOST_TRIED


# Real training --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", real_training.CASES)
def test_real_training_gives_what_it_says(name):
    trained = real_training.CASES[name](0)
    n, c = trained.before.shape
    assert trained.after.shape == (n, c)
    assert len(trained.labels) == n
    assert np.isfinite(trained.before).all()
    assert np.isfinite(trained.after).all()
    before, after = (losses(z, trained.labels) for z in (trained.before, trained.after))
    right = [(z.argmax(axis=1) == trained.labels).mean() for z in (trained.before, trained.after)]
    z = (after - before).mean() / ((after - before).std() / np.sqrt(n))
    assert right[0] > 0.75
    match name:
        case "looks_twice":
            assert abs(z) < 3
        case "learns":
            assert z < -4
            assert right[1] > right[0] + 0.02
        case "learnt_by_heart" | "learnt_from_scratch":
            assert z < -4
            assert right[1] > 0.9 > right[0]
        case "broken_inputs":
            assert np.sort(after)[-5:].min() > np.log((c - 1) * n / 0.05)
            assert after.mean() > before.mean() + 1
            assert abs(right[1] - right[0]) < 0.02
        case "scaled_up" | "scaled_down" | "iris_scaled_down":
            assert after.mean() > before.mean() + 0.05
            assert right[1] == right[0]
        case _:
            assert z > 3

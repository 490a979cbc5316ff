"""The verdict: causes made on purpose are named, and the account closes for every sample."""

import dataclasses
import json
import math

import numpy as np
import pyarrow as pa
import pytest
from sides import pair_of

from fastdiv.explain.verdict import causes
from fastdiv.explain.verdict.explain import explain_pair
from fastdiv.explain.verdict.repairable import Repair, Repairable
from tests.planted import CAUSES, draw

PLANTS = [  # cause, strength, classes, n, seed, variant
    ("overconfidence", 2.0, 10, 3000, 100, 0),
    ("underconfidence", 0.5, 3, 3000, 102, 1),
    ("borderline_flips", 0.75, 5, 4000, 104, 0),
    ("confident_flips", 0.05, 10, 4000, 106, 0),
    ("corrected_errors", 0.1, 10, 4000, 108, 0),
    ("outliers", 0.005, 10, 6000, 110, 0),
    ("label_noise_memorised", 1.0, 10, 3000, 112, 0),
    ("label_noise_validation", 0.2, 30, 3000, 114, 1),
    ("imbalance", 2.0, 8, 3000, 116, 0),
    ("imbalance", 3.0, 50, 4000, 118, 1),
    ("threshold", 1.5, 2, 3000, 120, 0),
    ("learning", 0.8, 20, 3000, 122, 0),
    ("forgetting", 0.8, 2, 3000, 124, 0),
]
ALL = [*PLANTS, ("noise", 0.0, 10, 3000, 126, 0), ("noise", 0.0, 50, 3000, 128, 0)]


def planted_pair(cause, strength, c, n, seed, variant):
    planted = draw(cause, strength, c, n, seed, variant)
    return planted, pair_of(planted.before, planted.after, planted.labels)


def slim(pair):
    sides = (
        dataclasses.replace(side, has_profile=False, profile=side.profile[:, :0])
        for side in (pair.before, pair.after)
    )
    before, after = sides
    return dataclasses.replace(pair, before=before, after=after)


def swapped(pair):
    return dataclasses.replace(pair, before=pair.after, after=pair.before)


def all_terms(made):
    return {**made.unnamed, **{cause.name: cause.nats for cause in made.causes}}


def assert_closes(made, pair):
    """Every sample's terms add to its change in loss, and in correctness."""
    account = made.account
    finite = pair.finite
    total = sum(account.terms.values(), np.zeros(finite.sum()))
    np.testing.assert_allclose(total, pair.delta[finite], atol=1e-9, rtol=1e-9)
    assert abs(made.closure_error) < 1e-9 * max(1.0, abs(made.delta_loss or 0))
    turned = pair.after.correct.astype(int) - pair.before.correct
    assert sum(account.points().values()) == turned.sum()
    some = np.arange(len(pair)) % 7 == 3
    assert sum(account.points(some).values()) == turned[some].sum()
    assert sum(account.nats(some).values()) == pytest.approx(pair.delta[some & finite].sum())


@pytest.mark.parametrize("plant", ALL, ids=lambda plant: f"{plant[0]}-{plant[2]}")
def test_what_was_planted_is_named_first_and_the_account_closes(plant):
    _, pair = planted_pair(*plant)
    made = explain_pair(pair)
    assert made.causes[0].name in CAUSES[plant[0]].expected
    assert made.significant == (plant[0] != "noise")
    if plant[0] == "noise":
        assert made.quadrant == "loss_flat_accuracy_flat"
        assert len(made.causes) == 1
    assert_closes(made, pair)
    assert_plain(made)
    assert made.delta_loss == pytest.approx(pair.delta.mean(), abs=1e-12)
    assert made.delta_refinement + made.delta_calibration == pytest.approx(made.delta_loss)
    assert not made.approximate
    shares = sum(x for x in all_terms(made).values()) if plant[0] != "noise" else made.delta_loss
    assert shares == pytest.approx(made.delta_loss, abs=1e-9)


@pytest.mark.parametrize("plant", ALL, ids=lambda plant: f"{plant[0]}-{plant[2]}")
def test_slim_scores_give_a_poorer_verdict_that_says_so(plant):
    _, pair = planted_pair(*plant)
    made = explain_pair(slim(pair))
    assert made.approximate == (plant[2] > 2)
    assert made.causes[0].name in CAUSES[plant[0]].expected
    assert_closes(made, pair)


def assert_plain(made):
    """JSON can hold an explanation, and every cause says what it rests on."""
    plain = json.loads(json.dumps(made.to_dict(), allow_nan=False))
    assert [cause["name"] for cause in plain["causes"]] == [cause.name for cause in made.causes]
    for cause in made.causes:
        assert cause.evidence
        assert cause.advice
        assert len(cause.sample_ids) <= 10
        if cause.name != causes.NOISE:
            assert cause.share == pytest.approx(cause.nats / made.delta_loss)
            nats = [made.account.terms[cause.name][i] for i in cause.sample_ids]
            assert all(x * cause.nats > 0 for x in nats)
            assert nats == sorted(nats, key=abs, reverse=True)


@pytest.mark.parametrize("plant", ALL, ids=lambda plant: f"{plant[0]}-{plant[2]}")
def test_back_again_everything_has_the_other_sign(plant):
    """All but label noise, whose part in flips depends on whether errors come or go."""
    _, pair = planted_pair(*plant)
    made, back = explain_pair(pair), explain_pair(swapped(pair))
    assert back.delta_loss == pytest.approx(-made.delta_loss, abs=1e-12)
    assert back.delta_calibration == pytest.approx(-made.delta_calibration, abs=1e-9)
    assert back.repairs["before"] == made.repairs["after"]
    if "N" not in made.order and plant[0] != "noise":
        for name, nats in all_terms(made).items():
            assert all_terms(back)[name] == pytest.approx(-nats, abs=1e-9)


@pytest.mark.parametrize("c", [2, 5, 40])
def test_nothing_but_the_predictions_matters(c):
    """Neither a constant added to logits, nor the order of classes or samples."""
    planted, pair = planted_pair("label_noise_validation", 0.1, c, 3000, 130, 0)
    wanted = all_terms(explain_pair(pair))
    rng = np.random.default_rng(0)
    order = rng.permutation(c)
    back = np.argsort(order).astype(np.int32)
    before, after = (x.astype(np.float64) for x in (planted.before, planted.after))
    moved = pair_of(before[:, order] + 3, after[:, order] - 2, back[planted.labels])
    for name, nats in all_terms(explain_pair(moved)).items():
        assert nats == pytest.approx(wanted[name], abs=1e-3)
    rows = rng.permutation(len(pair))
    shuffled = explain_pair(pair.take(rows))
    for name, nats in all_terms(shuffled).items():
        assert nats == pytest.approx(wanted[name], abs=1e-6)
    assert explain_pair(pair).to_dict() == explain_pair(pair).to_dict()


def test_two_causes_at_once_are_both_named():
    planted = draw("overconfidence", 2.0, 5, 6000, 132)
    after = planted.after.copy()
    after[:20, 0], after[:20, 1:] = np.where(planted.labels[:20] == 0, -60, 60), 0
    made = explain_pair(pair_of(planted.before, after, planted.labels))
    assert {"overconfidence", "outliers"} <= {cause.name for cause in made.causes}
    outliers = next(cause for cause in made.causes if cause.name == "outliers")
    assert outliers.n <= 20
    assert set(outliers.sample_ids) <= set(range(20))


def test_the_temperature_is_told_and_so_is_what_a_cause_carries_alone_and_last():
    planted, pair = planted_pair("overconfidence", 2.0, 10, 20_000, 134, 0)
    made = explain_pair(pair)
    first = made.causes[0]
    assert made.repairs["after"]["beta"] == pytest.approx(0.5, abs=0.03)
    assert made.repairs["before"]["beta"] == pytest.approx(1.0, abs=0.05)
    assert first.nats_alone == pytest.approx(first.nats, abs=0.02)
    assert first.nats_last == pytest.approx(first.nats, abs=0.02)
    assert first.nats == pytest.approx(planted.planted_delta.mean(), rel=0.05)
    assert first.points == 0


def test_a_threshold_carries_the_accuracy_that_it_costs():
    _, pair = planted_pair("threshold", 2.5, 2, 20_000, 136, 0)
    made = explain_pair(pair)
    first = made.causes[0]
    assert first.name == "threshold"
    assert abs(made.repairs["after"]["gamma"]) == pytest.approx(2.5, abs=0.2)
    assert first.points == pytest.approx(made.delta_accuracy, abs=0.01)
    assert made.delta_accuracy < -0.02


def test_infinite_losses_are_counted_and_told_and_have_no_part_in_the_change():
    rng = np.random.default_rng(0)
    p = rng.dirichlet(np.ones(4), 500)
    y = (p.cumsum(axis=1) > rng.random((500, 1))).argmax(axis=1)
    after = p.copy()
    after[np.arange(40), y[:40]] = 0
    after /= after.sum(axis=1, keepdims=True)
    pair = pair_of(p, after, y, "probs", ids=[f"s{i:03}" for i in range(500)])
    made = explain_pair(pair)
    assert (made.n, made.n_infinite_before, made.n_infinite_after) == (460, 0, 40)
    assert made.delta_loss == pytest.approx(0, abs=1e-15)
    assert made.causes[0].name == "infinite"
    assert made.causes[0].sample_ids == tuple(f"s{i:03}" for i in range(10))
    assert [finding.name for finding in made.findings] == ["infinite"]
    assert made.causes[0].points == pytest.approx(made.delta_accuracy)
    assert_closes(made, pair)


def test_probabilities_that_do_not_add_to_1_are_a_cause_of_their_own():
    rng = np.random.default_rng(1)
    z = rng.standard_t(4, (2000, 5)) * 2
    y = (z + rng.gumbel(size=z.shape)).argmax(axis=1)
    p = np.exp(z - z.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    pair = pair_of(p, 0.9 * p, y, "probs")
    made = explain_pair(pair)
    assert [cause.name for cause in made.causes] == ["unnormalized"]
    assert made.causes[0].nats == pytest.approx(-math.log(0.9), abs=1e-3)
    assert_closes(made, pair)


@pytest.mark.parametrize("keep", [lambda pair: pair, slim], ids=["all", "slim"])
@pytest.mark.parametrize("c", [2, 3, 12, 40])
@pytest.mark.parametrize("n", [0, 1, 2, 60])
def test_few_samples_or_of_one_kind_have_a_defined_verdict(n, c, keep):
    rng = np.random.default_rng(n)
    z = 2 * rng.normal(size=(n, c))
    right, wrong = (x.astype(np.int32) for x in (z.argmax(axis=1), z.argmin(axis=1)))
    certain = np.eye(c)[right]
    made = [
        (explain_pair(pair), pair)
        for pair in map(
            keep,
            (
                pair_of(z, 1.5 * z, right),
                pair_of(z, 1.5 * z, wrong),
                pair_of(z, z, rng.integers(0, c, n)),
                pair_of(z, 0.5 * z, np.zeros(n, np.int32)),
                pair_of(1e4 * z, 1e-4 * z, wrong),
                pair_of(0 * z, 0 * z, right),
                pair_of(certain, certain, wrong, "probs"),
                pair_of(certain, certain, right, "probs"),
            ),
        )
    ]
    for one, pair in made:
        assert_closes(one, pair)
        json.dumps(one.to_dict(), allow_nan=False)
        assert (one.delta_loss is None) == (one.n == 0)
        assert (one.delta_accuracy is None) == (n == 0)
        if n == 0:
            assert one.causes == ()
        elif n < 3:
            assert [cause.name for cause in one.causes] in (["noise"], ["outliers"])
    identical = made[2][0]
    assert identical.quadrant == "loss_flat_accuracy_flat"
    assert identical.delta_loss in (None, 0.0)
    nowhere = made[6][0]
    assert nowhere.n == 0
    assert nowhere.n_infinite_before == n


def test_ids_of_any_type_are_told():
    planted, _ = planted_pair("overconfidence", 3.0, 3, 1000, 138, 0)
    ids = pa.array([f"img-{i:04}" for i in range(1000)])
    made = explain_pair(pair_of(planted.before, planted.after, planted.labels, ids=ids))
    assert all(name.startswith("img-") for name in made.causes[0].sample_ids)


def test_outliers_are_beyond_what_a_calibrated_model_pays():
    _, pair = planted_pair("outliers", 0.002, 10, 10_000, 140, 0)
    made = explain_pair(pair)
    first = made.causes[0]
    assert first.name == "outliers"
    repair = Repair(made.repairs["after"]["beta"])
    losses = Repairable(pair.after, 0).losses(repair)[list(first.sample_ids)]
    assert losses.min() > math.log(9 * 10_000 / 0.05)
    assert made.repairs["after"]["beta"] == pytest.approx(1, abs=0.05)  # fitted without them

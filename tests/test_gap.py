"""Training beside validation: gaps by hand, over-fitting by name, an account between splits."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sides import pair_of

from fastdiv.errors import UsageError
from fastdiv.explain.training.gap import Fit, between_splits, gap, overfitting


def rows(losses, accuracies=None, first=0):
    accuracies = [0.5] * len(losses) if accuracies is None else accuracies
    return [
        {"epoch": first + i, "loss_finite": loss, "accuracy": accuracy}
        for i, (loss, accuracy) in enumerate(zip(losses, accuracies, strict=True))
    ]


def test_gap_by_hand():
    train = rows([1.0, 0.5, 0.25], [0.5, 0.75, 1.0])
    val = rows([1.5, 1.0, 2.0], [0.5, 0.5, 0.625])
    table = gap(reversed(train), [*val, {"epoch": 9, "loss_finite": 0.0, "accuracy": 1.0}])
    assert table["epoch"].to_pylist() == [0, 1, 2]
    assert table["train_loss"].to_pylist() == [1.0, 0.5, 0.25]
    assert table["val_loss"].to_pylist() == [1.5, 1.0, 2.0]
    assert table["loss_gap"].to_pylist() == [0.5, 0.5, 1.75]
    assert table["loss_gap_change"].to_pylist() == [0.0, 0.0, 1.25]
    assert table["accuracy_gap"].to_pylist() == [0.0, -0.25, -0.375]
    assert table["accuracy_gap_change"].to_pylist() == [0.25, 0.0, -0.125]


def test_gap_where_nothing_is_known():
    assert len(gap([], [])) == 0
    assert gap([], []).schema == gap(rows([1.0]), rows([1.0])).schema
    table = gap(rows([None, 1.0]), rows([2.0, None]))
    assert table["loss_gap"].to_pylist() == [None, None]
    assert table["loss_gap_change"].to_pylist() == [None, None]
    assert table["train_loss"].to_pylist() == [None, 1.0]
    assert gap(rows([None]), rows([None]))["loss_gap_change"].to_pylist() == [None]
    with pytest.raises(UsageError, match="epoch 0 comes twice"):
        gap(rows([1.0]) * 2, rows([1.0]))


STEPS = np.arange(40)
FALLING = 0.1 + 2 * np.exp(-STEPS / 10)
TURNING = 0.5 + ((STEPS - 15) / 25) ** 2


def noise(seed, sd):
    return np.random.default_rng(seed).normal(0, sd, len(STEPS))


def test_overfitting_is_called_by_name():
    train, val = rows(FALLING, 1 - FALLING / 3), rows(TURNING, np.full(40, 0.7), first=0)
    found = overfitting(train, val)
    assert found.name is Fit.OVERFITTING
    assert (found.epoch, found.last_epoch, found.n_epochs) == (15, 39, 24)
    assert found.n_rising == 24
    assert found.val_loss_change == pytest.approx((24 / 25) ** 2)
    assert found.train_loss_change == pytest.approx(FALLING[39] - FALLING[15])
    assert found.gap_change == pytest.approx(found.val_loss_change - found.train_loss_change)
    assert found.val_accuracy_change == 0
    assert found.train_accuracy_change == pytest.approx((FALLING[15] - FALLING[39]) / 3)
    held = json.loads(json.dumps(found.to_dict()))
    assert (held["name"], held["epoch"]) == ("overfitting", 15)


@pytest.mark.parametrize(
    ("train", "val", "name"),
    [
        (FALLING, FALLING + 0.3, Fit.BOTH_FALLING),
        (np.full(40, 0.3), np.full(40, 0.4), Fit.FLAT),
        (TURNING, TURNING, Fit.DIVERGING),
        (FALLING, np.full(40, 0.4), Fit.FLAT),
        ([1.0, 0.5], [1.0, 1.5], Fit.OVERFITTING),
        ([1.0, 1.5], [1.0, 1.5], Fit.DIVERGING),
        ([1.0, 0.5], [1.0, 0.5], Fit.BOTH_FALLING),
        ([1.0], [1.0], Fit.FLAT),
        ([None], [1.0], Fit.UNKNOWN),
        ([], [], Fit.UNKNOWN),
    ],
)
def test_names(train, val, name):
    assert overfitting(rows(train), rows(val)).name is name


def test_underfitting_takes_what_no_skill_is():
    flat = rows(np.full(40, 2.0))
    assert overfitting(flat, flat).name is Fit.FLAT
    assert overfitting(flat, flat, no_skill_loss=np.log(10)).name is Fit.UNDERFITTING
    assert overfitting(flat, flat, no_skill_loss=np.log(10), least_skill=0.1).name is Fit.FLAT
    falling = rows(FALLING + 2)
    assert overfitting(falling, falling, no_skill_loss=np.log(10)).name is Fit.BOTH_FALLING


def test_a_spike_at_the_end_is_not_overfitting():
    spiked = np.full(40, 0.4)
    spiked[-1] = 2.0
    spiked[10] = 0.39
    assert overfitting(rows(FALLING), rows(spiked)).name is Fit.FLAT


def test_jitter_is_not_overfitting_and_overfitting_is_found_in_jitter():
    """On 200 draws each, none of which the thresholds were chosen on."""
    flat = [
        overfitting(rows(FALLING + noise(i, 0.02)), rows(0.5 + noise(1000 + i, 0.05))).name
        for i in range(200)
    ]
    assert flat.count(Fit.OVERFITTING) + flat.count(Fit.DIVERGING) <= 6
    still = [
        overfitting(rows(FALLING + noise(i, 0.02)), rows(FALLING + noise(500 + i, 0.05))).name
        for i in range(200)
    ]
    assert still.count(Fit.OVERFITTING) <= 6
    found = [
        overfitting(rows(FALLING + noise(i, 0.02)), rows(TURNING + noise(2000 + i, 0.05)))
        for i in range(200)
    ]
    assert sum(f.name is Fit.OVERFITTING for f in found) >= 196
    assert sum(5 <= f.epoch <= 25 for f in found) >= 196
    assert 0.05 < np.median([f.val_standard_error for f in found]) < 0.09  # .05 * sqrt(2)


def test_a_standard_error_is_heeded():
    train, val = rows([1.0, 0.5]), rows([1.0, 1.1])
    assert overfitting(train, val, standard_error=0.01).name is Fit.OVERFITTING
    unsure = overfitting(train, val, standard_error=0.1)
    assert (unsure.name, unsure.val_standard_error) == (Fit.FLAT, 0.1)
    assert overfitting(train, val, standard_error=0.1, z=0.5).name is Fit.OVERFITTING
    assert overfitting(train, val, train_standard_error=1.0).name is Fit.DIVERGING


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(*[st.one_of(st.none(), st.floats(0, 1e6))] * 2), min_size=0, max_size=12
    )
)  # fmt: skip
def test_changes_are_those_of_the_table(pairs):
    train, val = (rows([p[i] for p in pairs]) for i in (0, 1))
    found, table = overfitting(train, val), gap(train, val)
    both = [
        r for r in table.to_pylist() if r["train_loss"] is not None and r["val_loss"] is not None
    ]
    if not both:
        assert found.name is Fit.UNKNOWN
        return
    at = min(both, key=lambda r: (r["val_loss"], r["epoch"]))
    last = both[-1]
    assert (found.epoch, found.last_epoch) == (at["epoch"], last["epoch"])
    assert found.val_loss_change == last["val_loss"] - at["val_loss"] >= 0
    assert found.train_loss_change == last["train_loss"] - at["train_loss"]
    assert found.n_rising <= found.n_epochs
    if found.name in (Fit.OVERFITTING, Fit.DIVERGING):
        assert found.val_loss_change > 0


def test_between_splits_closes():
    rng = np.random.default_rng(0)
    z, y = rng.normal(0, 2, (500, 4)), rng.integers(0, 4, 500)
    pair = pair_of(z, z + rng.normal(0, 1, (500, 4)), y)
    found = between_splits(pair)
    assert found.delta_loss == pytest.approx(np.mean(pair.after.loss - pair.before.loss))
    assert found.delta_accuracy == pytest.approx(
        pair.after.correct.mean() - pair.before.correct.mean()
    )
    for account in (found.cells, found.parts):
        assert sum(t.value for t in account.terms) == pytest.approx(found.delta_loss, abs=1e-6)
    assert (found.n, found.n_infinite) == (500, 0)
    assert json.loads(json.dumps(found.to_dict()))["n"] == 500


def test_between_splits_of_nothing():
    pair = pair_of(np.zeros((0, 3)), np.zeros((0, 3)), [])
    found = between_splits(pair)
    assert (found.n, found.delta_loss, found.delta_accuracy) == (0, None, None)

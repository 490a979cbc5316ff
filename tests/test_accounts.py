"""Accounts of a change: hand-worked numbers, the oracle, what is rare."""

import json
from dataclasses import replace
from math import fsum, inf, log

import numpy as np
import pyarrow as pa
import pytest
from oracle import CELLS, Epoch, transition_row
from sides import pair_of

from fastdiv.errors import UsageError
from fastdiv.explain.accounts.by_class import by_cell_and_class, by_class
from fastdiv.explain.accounts.exact import (
    accounts,
    accuracy_and_confidence,
    by_cell,
    by_margin,
    wrongness_unsureness,
)

OF_BOTH = (by_cell, by_margin, accuracy_and_confidence)
EXACT = 1e-15  # relative to the largest loss: rounding of a few hundred float64 numbers
STORED = 2e-6  # the same where parts are stored as float32


def values(account):
    return {term.name: term.value for term in account.terms}


def counts(account):
    return {term.name: term.n for term in account.terms}


@pytest.fixture
def five():
    """One sample a cell: rr, rw, wr, ww with the same prediction, ww with another."""
    before = [[0.5, 0.3, 0.2], [0.6, 0.4, 0.0], [0.3, 0.6, 0.1], [0.2, 0.8, 0.0], [0.1, 0.6, 0.3]]
    after = [[0.8, 0.1, 0.1], [0.2, 0.8, 0.0], [0.9, 0.1, 0.0], [0.1, 0.9, 0.0], [0.2, 0.3, 0.5]]
    return pair_of(np.array(before), np.array(after), [0] * 5, "probs")


def test_by_cell_by_hand(five):
    account = by_cell(five)
    ratios = {
        "rr": 0.5 / 0.8, "rw": 0.6 / 0.2, "wr": 0.3 / 0.9, "ww_same": 0.2 / 0.1,
        "ww_changed": 0.1 / 0.2,
    }  # fmt: skip
    assert values(account) == pytest.approx({cell: log(x) / 5 for cell, x in ratios.items()})
    assert counts(account) == dict.fromkeys(CELLS, 1)
    assert account.total == pytest.approx(log(0.625) / 5)  # the others cancel
    assert (account.n, account.n_left_out) == (5, 0)
    assert account["rw"].value == pytest.approx(log(3) / 5)
    with pytest.raises(KeyError):
        account["up"]


def test_brier_by_cell_by_hand(five):
    brier = {  # before, after: (p - onehot)² summed
        "rr": (0.25 + 0.09 + 0.04, 0.04 + 0.01 + 0.01),
        "rw": (0.16 + 0.16, 0.64 + 0.64),
        "wr": (0.49 + 0.36 + 0.01, 0.01 + 0.01),
        "ww_same": (0.64 + 0.64, 0.81 + 0.81),
        "ww_changed": (0.81 + 0.36 + 0.09, 0.64 + 0.09 + 0.25),
    }
    found = values(by_cell(five, "brier"))
    assert found == pytest.approx({c: (b - a) / 5 for c, (a, b) in brier.items()}, rel=1e-6)


def test_by_margin_by_hand(five):
    # Margins: ln 1.5 and -ln 4 (right, then wrong); -ln 2 and ln 9 (wrong, then right).
    assert counts(by_margin(five)) == {
        "borderline_rw": 1, "borderline_wr": 1, "confident_rw": 0, "confident_wr": 0,
        "unchanged_right": 1, "unchanged_wrong": 2,
    }  # fmt: skip
    account = by_margin(five, boundary=0.5)
    assert counts(account) == {
        "borderline_rw": 1, "borderline_wr": 0, "confident_rw": 0, "confident_wr": 1,
        "unchanged_right": 1, "unchanged_wrong": 2,
    }  # fmt: skip
    assert account.boundary_nats == 0.5
    assert account["borderline_rw"].value == pytest.approx(log(3) / 5)
    assert account["confident_wr"].value == pytest.approx(-log(3) / 5)
    assert account["unchanged_right"].value == pytest.approx(log(0.625) / 5)
    assert account["unchanged_wrong"].value == pytest.approx(0.0, abs=1e-16)


def test_a_margin_at_the_boundary_is_borderline():
    pair = pair_of(np.array([[1.0, 0.0]]), np.array([[0.0, 5.0]]), [0])
    assert counts(by_margin(pair, 1.0))["borderline_rw"] == 1
    assert counts(by_margin(pair, 0.999))["confident_rw"] == 1


def test_wrongness_and_unsureness_by_hand(five):
    account = wrongness_unsureness(five)
    # -log(confidence), and log(confidence / p of the label), summed over the five.
    unsure = [log(5 / 8), log(6 / 8), log(6 / 9), log(8 / 9), log(6 / 5)]
    wrong = [0, log(4), -log(2), log(9) - log(4), log(2.5) - log(6)]
    assert values(account) == pytest.approx(
        {"wrongness": sum(wrong) / 5, "unsureness": sum(unsure) / 5}, rel=1e-6
    )
    assert counts(account) == {"wrongness": 4, "unsureness": 5}
    assert 0 < abs(account.closure_error) < 1e-7  # what float32 leaves, and shown


def test_accuracy_and_confidence_by_hand():
    # Right .8 .8, wrong .2 .4; then right .9 .9 .6, wrong .1.
    before = np.array([[0.8, 0.2], [0.8, 0.2], [0.2, 0.8], [0.4, 0.6]])
    after = np.array([[0.9, 0.1], [0.9, 0.1], [0.1, 0.9], [0.6, 0.4]])
    account = accuracy_and_confidence(pair_of(before, after, [0] * 4, "probs"))
    r0, w0 = -log(0.8), -(log(0.2) + log(0.4)) / 2
    r1, w1 = -(2 * log(0.9) + log(0.6)) / 3, -log(0.1)
    assert values(account) == pytest.approx(
        {
            "accuracy_effect": ((r0 + r1) / 2 - (w0 + w1) / 2) * 0.25,
            "confidence_of_right": 0.625 * (r1 - r0),
            "confidence_of_wrong": 0.375 * (w1 - w0),
        }
    )
    assert counts(account) == {
        "accuracy_effect": 1, "confidence_of_right": 3, "confidence_of_wrong": 2
    }  # fmt: skip
    # The loss rises though accuracy does: the wrong one that became surer outweighs it.
    assert account["accuracy_effect"].value < 0 < account["confidence_of_wrong"].value


def test_a_group_that_is_empty_in_one_epoch_takes_the_mean_of_the_other():
    right, wrong = np.array([[0.8, 0.2], [0.6, 0.4]]), np.array([[0.3, 0.7], [0.1, 0.9]])
    account = accuracy_and_confidence(pair_of(right, wrong, [0, 0], "probs"))
    r, w = -(log(0.8) + log(0.6)) / 2, -(log(0.3) + log(0.1)) / 2
    assert values(account) == pytest.approx(
        {"accuracy_effect": w - r, "confidence_of_right": 0.0, "confidence_of_wrong": 0.0}
    )
    assert abs(account.closure_error) < EXACT

    mixed = np.array([[0.8, 0.2], [0.1, 0.9]])  # one wrong, after none
    account = accuracy_and_confidence(pair_of(right, mixed, [0, 0], "probs"))
    r1, w1 = -log(0.8), -log(0.1)
    assert values(account) == pytest.approx(
        {
            "accuracy_effect": ((r + r1) / 2 - w1) * -0.5,
            "confidence_of_right": 0.75 * (r1 - r),
            "confidence_of_wrong": 0.0,
        }
    )
    assert abs(account.closure_error) < EXACT


@pytest.mark.parametrize("predictions", [[[0.8, 0.2], [0.6, 0.4]], [[0.3, 0.7], [0.1, 0.9]]])
def test_all_right_and_all_wrong(predictions):
    before = np.array(predictions)
    pair = pair_of(before, before[::-1] ** 2 / (before[::-1] ** 2).sum(1)[:, None], [0, 0], "probs")
    right = bool(pair.before.correct[0])
    account = accuracy_and_confidence(pair)
    name, other = ("right", "wrong") if right else ("wrong", "right")
    assert account[f"confidence_of_{name}"].value == pytest.approx(account.total)
    assert account[f"confidence_of_{other}"].value == account["accuracy_effect"].value == 0.0
    assert account[f"confidence_of_{other}"].n == 0
    assert values(by_margin(pair))[f"unchanged_{name}"] == pytest.approx(account.total)


def test_the_accounts_agree_with_the_oracle():
    rng = np.random.default_rng(4)
    labels = rng.integers(0, 4, 300)
    before, after = rng.normal(0, 3, (2, 300, 4))
    before[7, labels[7]] = after[8, labels[8]] = -inf
    row = transition_row(
        None, 0, Epoch(before, labels, "logits"), 1, Epoch(after, labels, "logits")
    )
    pair = pair_of(before, after, labels)
    account = by_cell(pair)
    assert account.total == pytest.approx(row["delta_loss"], abs=1e-14)
    assert values(account) == pytest.approx({c: row[f"delta_loss_{c}"] for c in CELLS}, abs=1e-14)
    assert (account.n, account.n_left_out) == (298, 2)
    by = by_cell_and_class(pair).to_pylist()
    for cell in CELLS:
        of_cell = [r for r in by if r["cell"] == cell]
        assert sum(r["n"] for r in of_cell) == row[cell]
        found = fsum(r["delta_loss"] for r in of_cell)
        assert found == pytest.approx(row[f"delta_loss_{cell}"], abs=1e-14)
    classes = by_class(pair)["delta_accuracy"].to_pylist()
    assert fsum(classes) == pytest.approx(row["delta_accuracy"], abs=1e-15)


# What is rare --------------------------------------------------------------------------------


def test_infinite_losses_are_counted_and_left_out_of_the_loss_alone():
    before = np.array([[0.6, 0.4], [0.0, 1.0], [0.7, 0.3], [0.0, 1.0]])
    after = np.array([[0.3, 0.7], [0.5, 0.5], [0.0, 1.0], [0.0, 1.0]])
    pair = pair_of(before, after, [0] * 4, "probs")
    for f in (*OF_BOTH, wrongness_unsureness):
        account = f(pair)
        assert (account.n, account.n_left_out) == (1, 3)
        assert account.total == pytest.approx(log(2))
    brier = by_cell(pair, "brier")
    assert (brier.n, brier.n_left_out) == (4, 0)
    assert counts(brier) == {"rr": 0, "rw": 2, "wr": 1, "ww_same": 1, "ww_changed": 0}
    # Both of the second sample's margins and one of the third's are infinite or zero.
    assert counts(by_margin(pair, 1e300, "brier"))["confident_rw"] == 0
    sure = pair_of(np.array([[1.0, 0.0]]), np.array([[0.0, 1.0]]), [0], "probs")
    assert counts(by_margin(sure, 1e300, "brier"))["confident_rw"] == 1


def test_a_clipped_loss_closes():
    rng = np.random.default_rng(1)
    x = rng.normal(0, 30, (2, 400, 3)).astype(np.float32)
    x[1, :50, 1] = -inf
    pair = pair_of(*x, rng.integers(0, 3, 400))
    clip = -log(1e-7)
    sides = (replace(s, loss=np.minimum(s.loss, clip)) for s in (pair.before, pair.after))
    pair = replace(pair, before=next(sides), after=next(sides))
    assert (pair.after.loss == clip).mean() > 0.2
    account = wrongness_unsureness(pair)
    assert account.n_left_out == 0
    assert abs(account.closure_error) < STORED
    # A clip takes from the wrong alone: the right are as unsure as they were.
    right = pair.before.correct & pair.after.correct
    unsure = np.log(pair.before.confidence) - np.log(pair.after.confidence)
    assert account["unsureness"].value == pytest.approx(unsure.mean(), abs=1e-9)
    assert account["wrongness"].n == np.count_nonzero(~right)


def test_a_confidence_too_small_for_float32_closes():
    x = np.array([[-800.0, -900.0], [-900.0, -800.0], [-700.0, -1e39]])
    pair = pair_of(np.array([[-0.1, -3.0]] * 3), x, [0, 0, 0], "logprobs")
    assert (pair.after.confidence == 0).all()
    account = wrongness_unsureness(pair)
    assert account.total == pytest.approx((800 + 900 + 700 - 0.3) / 3)
    assert account["wrongness"].value == pytest.approx(100 / 3)
    assert abs(account.closure_error) < 1e-6


def test_losses_that_would_overflow_when_summed_close():
    pair = pair_of(np.zeros((4, 2)), np.zeros((4, 2)), [0, 1, 0, 1])
    pair = replace(pair, after=replace(pair.after, loss=np.full(4, 1.5e308)))
    for f in OF_BOTH:
        account = f(pair)
        assert account.total == pytest.approx(1.5e308)
        assert abs(account.closure_error) < 1e294
    json.dumps(accounts(pair), allow_nan=False)


def test_nothing_and_one_sample():
    empty = pair_of(np.zeros((0, 3)), np.zeros((0, 3)), [])
    found = accounts(empty)
    assert (found["n"], found["n_infinite"]) == (0, 0)
    assert found["by_class"] == found["by_cell_and_class"] == []
    assert {a["total"] for q in ("loss", "brier") for a in found[q].values()} == {None}

    one = pair_of(np.array([[0.25, 0.75]]), np.array([[0.5, 0.5]]), [0], "probs")
    found = accounts(one)
    assert found["loss"]["by_cell"]["total"] == -log(2)
    assert {abs(a["closure_error"]) < STORED for a in found["loss"].values()} == {True}
    assert [row["delta_accuracy"] for row in found["by_class"]] == [1.0]


def test_accounts_hold_each_account(five):
    found = accounts(five, boundary=0.5)
    assert list(found["loss"]) == [
        "by_cell", "by_margin", "wrongness_unsureness", "accuracy_and_confidence"
    ]  # fmt: skip
    assert list(found["brier"]) == ["by_cell", "by_margin", "accuracy_and_confidence"]
    assert found["loss"]["by_margin"] == by_margin(five, 0.5).to_dict()
    assert found["brier"]["by_margin"]["boundary_nats"] == 0.5
    assert found["by_class"] == by_class(five).to_pylist()
    assert found["by_cell_and_class"] == by_cell_and_class(five).to_pylist()
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_a_table_of_several_accounts(five):
    made = [by_cell(five), wrongness_unsureness(five)]
    table = pa.concat_tables([account.to_table() for account in made])
    assert table["term"].to_pylist() == [*CELLS, "wrongness", "unsureness"]
    for row, term in zip(table.to_pylist(), [*made[0].terms, *made[1].terms], strict=True):
        account = made[0] if row["account"] == "by_cell" else made[1]
        assert (row["value"], row["n"]) == (term.value, term.n)
        assert (row["total"], row["closure_error"]) == (account.total, account.closure_error)
        assert row["quantity"] == "loss"


def test_columns_of_classes(five):
    table = by_cell_and_class(five)
    assert table.schema.names == ["class", "cell", "n", "n_infinite", "delta_loss", "delta_brier"]
    assert table.schema.field("class").type == pa.int32()
    assert by_class(five).schema.names[-1] == "delta_accuracy"
    named = replace(five, class_names=("cat", "dog", "horse"))
    assert by_class(named)["class"].to_pylist() == ["cat"]


@pytest.mark.parametrize("f", OF_BOTH)
def test_what_has_no_account(five, f):
    with pytest.raises(UsageError, match="'margin' has no account: ask for one of loss, brier"):
        f(five, quantity="margin")


def test_wrong_arguments(five):
    with pytest.raises(UsageError, match="parts of the loss, not of 'brier'"):
        wrongness_unsureness(five, "brier")
    for boundary in (-0.1, inf, float("nan")):
        with pytest.raises(UsageError, match="finite margin in nats, 0 or more"):
            by_margin(five, boundary)

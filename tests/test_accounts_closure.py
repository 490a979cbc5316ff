"""Accounts of a change, for whatever comes: they close, and are what they are defined to be."""

import json
from dataclasses import replace
from math import fsum, inf, log

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import CELLS
from sides import pair_of
from test_accounts import EXACT, OF_BOTH, STORED, counts, values

from fastdiv.explain.accounts.by_class import by_cell_and_class, by_class
from fastdiv.explain.accounts.exact import (
    accounts,
    accuracy_and_confidence,
    by_cell,
    by_margin,
    wrongness_unsureness,
)
from fastdiv.explain.accounts.terms import change_of


@st.composite
def pairs(draw):
    """Two epochs of logits or probabilities with zeros, ties, sums off one, extreme numbers."""
    n, c = draw(st.integers(0, 30)), draw(st.sampled_from([1, 2, 3, 7]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    kind = draw(st.sampled_from(["logits", "probs", "logprobs"]))
    dtype = draw(st.sampled_from([np.float32, np.float64]))
    scale = draw(st.sampled_from([0.1, 3.0, 40.0, 5000.0]))
    sides = []
    for _ in range(2):
        x = rng.normal(0, scale, (n, c))
        if draw(st.booleans()):
            x = np.round(x)
        x[rng.random((n, c)) < draw(st.sampled_from([0.0, 0.3]))] = -inf
        if c:
            x[np.isneginf(x).all(axis=1), 0] = 0.0
        if kind != "logits" and n:
            x = x - x.max(axis=1, keepdims=True)
            x -= np.log(np.exp(x).sum(axis=1, keepdims=True))
            x += rng.choice([0.0, -0.5, 0.009], (n, 1))  # probabilities that do not add to one
        sides.append((np.exp(x) if kind == "probs" else x).astype(dtype))
    labels = rng.integers(0, c, n)
    names = tuple(f"class {k}" for k in range(c)) if draw(st.booleans()) else None
    return pair_of(*sides, labels, kind, class_names=names)


def scale_of(pair, quantity):
    """Return the largest number that was added up."""
    sides = [getattr(side, quantity) for side in (pair.before, pair.after)]
    return max([1.0, *(float(x.max(initial=0.0, where=np.isfinite(x))) for x in sides)])


@settings(max_examples=150, deadline=None)
@given(pairs(), st.sampled_from([0.0, log(3), 1e300]))
def test_every_account_closes(pair, boundary):
    for quantity in ("loss", "brier"):
        before, after = (getattr(s, quantity) for s in (pair.before, pair.after))
        used = [bool(np.isfinite(a) and np.isfinite(b)) for a, b in zip(before, after, strict=True)]
        deltas = [b - a for a, b, u in zip(before, after, used, strict=True) if u]
        bound = scale_of(pair, quantity)
        made = [f(pair, quantity=quantity) for f in (by_cell, accuracy_and_confidence)]
        made.append(by_margin(pair, boundary, quantity))
        if quantity == "loss":
            made.append(wrongness_unsureness(pair))
        for account in made:
            assert (account.n, account.n_left_out) == (len(deltas), len(pair) - len(deltas))
            if not deltas:
                assert account.total is account.closure_error is None
                assert set(values(account).values()) == {None}
                assert set(counts(account).values()) == {0}
                continue
            rounding = STORED if account.name == "wrongness_unsureness" else EXACT
            assert abs(account.total - fsum(deltas) / len(deltas)) <= EXACT * bound
            assert account.closure_error == account.total - fsum(values(account).values())
            assert abs(account.closure_error) <= rounding * bound, account
        for account in (made[0], made[2]):
            assert sum(counts(account).values()) == account.n
    json.dumps(accounts(pair, boundary), allow_nan=False)


@settings(max_examples=100, deadline=None)
@given(pairs())
def test_classes_by_their_definition(pair):
    used = [change_of(pair, quantity).used for quantity in ("loss", "brier")]
    names = pair.class_names or range(pair.before.classes)
    wanted = {}
    for i, label in enumerate(pair.labels):
        a, b = (bool(s.correct[i]) for s in (pair.before, pair.after))
        same = pair.before.predicted[i] == pair.after.predicted[i]
        cell = {(1, 1): 0, (1, 0): 1, (0, 1): 2}.get((a, b), 3 if same else 4)
        row = wanted.setdefault((int(label), cell), [0, 0, 0.0, 0.0, 0])
        row[0] += 1
        row[1] += int(not used[0][i])
        if used[0][i]:
            row[2] += (pair.after.loss[i] - pair.before.loss[i]) / used[0].sum()
        row[3] += (pair.after.brier[i] - pair.before.brier[i]) / len(pair)
        row[4] += b - a
    bound = scale_of(pair, "loss")
    found = by_cell_and_class(pair).to_pylist()
    assert [(r["class"], r["cell"]) for r in found] == [
        (names[c], CELLS[cell]) for c, cell in sorted(wanted)
    ]
    for row, (_, want) in zip(found, sorted(wanted.items()), strict=True):
        assert (row["n"], row["n_infinite"]) == tuple(want[:2])
        if used[0].any():
            assert row["delta_loss"] == pytest.approx(want[2], abs=EXACT * bound)
        else:
            assert row["delta_loss"] is None
        assert row["delta_brier"] == pytest.approx(want[3], abs=1e-14)

    classes = by_class(pair).to_pylist()
    assert [r["class"] for r in classes] == [names[c] for c in sorted({c for c, _ in wanted})]
    for row in classes:
        mine = [r for r in found if r["class"] == row["class"]]
        assert row["n"] == sum(r["n"] for r in mine)
        assert row["n_infinite"] == sum(r["n_infinite"] for r in mine)
        gained = sum(w[4] for (c, _), w in wanted.items() if names[c] == row["class"])
        assert row["delta_accuracy"] == gained / len(pair)
        if used[0].any():
            total = fsum(r["delta_loss"] for r in mine)
            assert row["delta_loss"] == pytest.approx(total, abs=EXACT * bound)


@settings(max_examples=60, deadline=None)
@given(pairs(), st.sampled_from([0.0, 0.5, log(3), 1e300]))
def test_margins_by_their_definition(pair, boundary):
    wanted = dict.fromkeys(
        ["borderline_rw", "borderline_wr", "confident_rw", "confident_wr"], 0
    ) | {"unchanged_right": 0, "unchanged_wrong": 0}
    for a, b, m0, m1 in zip(
        pair.before.correct, pair.after.correct, pair.before.margin, pair.after.margin, strict=True
    ):
        nearest = min(abs(float(m0)), abs(float(m1)))
        if a == b:
            wanted["unchanged_right" if a else "unchanged_wrong"] += 1
        else:
            wanted[
                f"{'borderline' if nearest <= boundary else 'confident'}_{'rw' if a else 'wr'}"
            ] += 1
    assert counts(by_margin(pair, boundary, "brier")) == wanted


@settings(max_examples=60, deadline=None)
@given(pairs())
def test_the_way_back_has_the_same_terms_with_the_other_sign(pair):
    back = replace(pair, before=pair.after, after=pair.before)
    swapped = {"rw": "wr", "wr": "rw"}
    for f in (*OF_BOTH, wrongness_unsureness):
        there, again = values(f(pair)), values(f(back))
        for name, value in there.items():
            start, _, way = name.rpartition("_")
            opposite = f"{start}_{swapped[way]}".lstrip("_") if way in swapped else name
            if value is None:
                assert again[opposite] is None
            else:
                slack = 1e-14 * scale_of(pair, "loss")
                assert again[opposite] == pytest.approx(-value, abs=slack), (f, name)

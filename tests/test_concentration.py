"""Concentration: plain sorted definitions, SciPy, hand-worked numbers, and a loss of 162."""

import json
from dataclasses import replace
from fractions import Fraction
from math import ceil, fsum, inf, isfinite, log

import numpy as np
import pyarrow as pa
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from sides import pair_of, side_of

from fastdiv.errors import UsageError
from fastdiv.explain.accounts.concentration import concentration, concentration_of_change


def side_with(loss):
    """Return a side with these losses; all else is of no account."""
    loss = np.asarray(loss, np.float64)
    return replace(side_of(np.zeros((len(loss), 2)), np.zeros(len(loss))), loss=loss)


def pair_with(before, after):
    """Return a pair with these losses."""
    n = len(before)
    pair = pair_of(np.zeros((n, 2)), np.zeros((n, 2)), np.zeros(n))
    return replace(pair, before=side_with(before), after=side_with(after))


# A validation loss of 162 at 61 % accuracy ---------------------------------------------------


def logits_of(losses, right):
    """Return logits (n, 2) with label 0 and, nearly, these losses where the answer is wrong."""
    margins = np.where(right, -np.log(np.expm1(losses.clip(max=0.6))), -losses)
    return np.stack([margins, np.zeros(len(losses))], axis=1)


def test_a_loss_of_162_at_61_percent_is_explained_by_the_samples_that_did_it():
    rng = np.random.default_rng(0)
    n = 1000
    right = np.arange(n) < 610
    losses = np.where(right, rng.uniform(0.01, 0.6, n), rng.uniform(0.8, 2.5, n))
    culprits = [700, 950, 955]
    losses[culprits] = 64_000.0, 50_000.0, 47_160.0
    order = rng.permutation(n)
    side = side_of(logits_of(losses, right)[order], np.zeros(n, int))
    ids = pa.array([f"img-{i:04}" for i in order])
    assert side.correct.mean() == 0.61
    assert side.loss.mean() == pytest.approx(162, abs=0.5)

    found = concentration(side, ids)
    assert found.mean == pytest.approx(side.loss.mean())
    assert found.median < 0.7
    assert found.trimmed_mean < 1.0
    assert found.n_half == 2
    assert found.gini > 0.99
    assert found.worst["sample_id"].to_pylist()[:3] == ["img-0700", "img-0950", "img-0955"]
    assert found.worst["loss"].to_pylist()[:3] == pytest.approx([64_000, 50_000, 47_160])
    assert found.worst["loss"][3].as_py() < 2.6
    assert found.worst["confidence"].to_pylist()[:3] == [1.0] * 3
    assert found.worst["predicted"].to_pylist()[:3] == [1] * 3
    assert found.worst["row"].to_pylist()[:3] == [
        int(np.flatnonzero(order == c)[0]) for c in culprits
    ]
    one, ten, *_ = found.carried
    assert (one.k, ten.k) == (1, 10)
    assert one.of_total == pytest.approx(64_000 / side.loss.sum())
    assert ten.of_total > 0.99
    assert ten.mean_without == pytest.approx(np.sort(side.loss)[:-10].mean())
    assert ten.mean_without < 1.0


def test_the_same_162_where_all_the_wrong_share_it_is_not_concentrated():
    n = 1000
    right = np.arange(n) < 610
    losses = np.where(right, 0.3, 415.0)
    side = side_of(logits_of(losses, right), np.zeros(n, int))
    assert side.loss.mean() == pytest.approx(162, abs=0.5)
    found = concentration(side)
    assert found.n_half == 196
    assert found.carried[1].of_total == pytest.approx(10 / 390, rel=0.01)
    assert found.carried[1].mean_without > 159
    assert found.median == pytest.approx(0.3)
    assert found.worst["row"].to_pylist() == list(range(610, 630))  # equals, in order


def test_a_loss_that_rose_to_162_is_explained_by_the_samples_that_rose():
    rng = np.random.default_rng(2)
    n = 1000
    right = np.arange(n) < 610
    before = np.where(right, rng.uniform(0.01, 0.6, n), rng.uniform(0.8, 2.5, n))
    after = before * rng.uniform(0.9, 1.1, n)
    after[[700, 950]] = 100_000.0, 61_000.0
    ids = [f"img-{i:04}" for i in range(n)]
    pair = pair_of(logits_of(before, right), logits_of(after, right), np.zeros(n, int), ids=ids)
    assert pair.after.correct.mean() == 0.61
    found = concentration_of_change(pair)
    assert found.mean == pytest.approx(161, abs=0.5)
    assert abs(found.median) < 0.01
    assert abs(found.trimmed_mean) < 0.01
    assert found.n_half == 1
    assert found.carried[1].of_total > 0.999
    assert found.carried[1].of_net == pytest.approx(1, abs=1e-3)
    assert abs(found.carried[1].mean_without) < 0.01
    first, second = found.worst.to_pylist()[:2]
    assert (first["sample_id"], second["sample_id"]) == ("img-0700", "img-0950")
    assert first["loss_before"] < 2.6
    assert first["loss_after"] == pytest.approx(100_000)
    assert first["delta"] == first["loss_after"] - first["loss_before"]
    assert (first["label"], first["predicted_before"], first["predicted_after"]) == (0, 1, 1)
    assert first["confidence_before"] < 0.95 < first["confidence_after"] == 1.0


# By hand -------------------------------------------------------------------------------------


def test_by_hand():
    found = concentration(side_with([1, 5, 2, 0, 2]), shares=(0.1, 0.4, 0.41, 1.0), most=3)
    assert (found.n, found.n_infinite, found.mean, found.median) == (5, 0, 2.0, 2.0)
    assert found.trimmed_mean == 2.0  # of 5 none is trimmed
    assert found.n_half == 1
    assert found.gini == pytest.approx(
        2 * (1 * 0 + 2 * 1 + 3 * 2 + 4 * 2 + 5 * 5) / (5 * 10) - 6 / 5
    )
    assert [c.k for c in found.carried] == [1, 2, 3, 5]
    assert [c.of_total for c in found.carried] == pytest.approx([0.5, 0.7, 0.9, 1.0])
    assert [c.adds for c in found.carried] == pytest.approx([1.0, 1.4, 1.8, 2.0])
    assert [c.mean_without for c in found.carried] == [1.25, 1.0, 0.5, None]
    assert found.worst["row"].to_pylist() == [1, 2, 4]


def test_changes_by_hand():
    pair = pair_with([1, 1, 1, 1], [4, 3, 0, 1])  # 3, 2, -1, 0
    found = concentration_of_change(pair, shares=(0.25, 0.5, 0.75))
    assert (found.mean, found.median, found.n_half) == (1.0, 1.0, 1)
    assert [c.of_total for c in found.carried] == pytest.approx([3 / 6, 5 / 6, 1.0])
    assert [c.adds for c in found.carried] == [0.75, 1.25, 1.0]
    assert [c.of_net for c in found.carried] == [0.75, 1.25, 1.0]
    assert [c.mean_without for c in found.carried] == pytest.approx([1 / 3, -0.5, 0.0])
    assert found.worst["row"].to_pylist() == [0, 1, 2]  # what did not change is not listed
    assert found.worst["delta"].to_pylist() == [3.0, 2.0, -1.0]


def test_changes_that_cancel_have_no_share_of_the_net():
    found = concentration_of_change(pair_with([1, 2, 5], [2, 1, 5]))
    assert found.mean == 0.0
    assert {c.of_net for c in found.carried} == {None}
    assert found.carried[0].of_total == 0.5
    assert found.worst["row"].to_pylist() == [0, 1]


def test_a_share_is_the_decimal_that_is_written():
    # As floats .07 * 100 and .1 * 30 would be above 7 and 3, and rounded up to one more.
    assert [concentration(side_with(np.ones(100)), shares=(0.07,)).carried[0].k] == [7]
    for n in (1, 29, 30, 31, 1000, 1001):
        found = concentration(side_with(np.ones(n)))
        wanted = [max(1, ceil(Fraction(s) * n)) for s in ("0.001", "0.01", "0.05", "0.1")]
        assert [c.k for c in found.carried] == wanted


# Against plain definitions and SciPy ---------------------------------------------------------

NUMBERS = st.one_of(
    st.sampled_from([0.0, 0.5, 1.0, 7.0]),  # ties
    st.floats(0, 1e6, allow_subnormal=False),
    st.just(inf),
)
LOSSES = st.lists(NUMBERS, max_size=60)
SHARES = st.lists(st.sampled_from([0.001, 0.01, 0.05, 0.1, 0.3, 0.5, 0.999, 1.0]), max_size=4)


def assert_centre(found, values):
    """Compare mean, median and trimmed mean."""
    near = {"rel": 1e-12, "abs": 1e-12 * max(map(abs, values))}
    assert found.mean == pytest.approx(fsum(values) / len(values), **near)
    assert found.median == pytest.approx(float(np.median(values)), **near)
    assert found.trimmed_mean == pytest.approx(scipy.stats.trim_mean(values, 0.05), **near)


def assert_carried(found, values, shares):
    """Compare what is carried with values sorted by size, equals in order."""
    n = len(values)
    ordered = sorted(values, key=lambda x: -abs(x))
    total, net = fsum(map(abs, values)), fsum(values)
    tiny = 1e-12 * max(map(abs, values))
    assert [c.share for c in found.carried] == shares
    for c in found.carried:
        assert c.k == max(1, ceil(Fraction(str(c.share)) * n))
        top, rest = ordered[: c.k], ordered[c.k :]
        assert c.adds == pytest.approx(fsum(top) / n, rel=1e-12, abs=tiny)
        if total > 0:
            assert c.of_total == pytest.approx(fsum(map(abs, top)) / total)
        else:
            assert c.of_total is None
        if abs(net) > 1e-6 * total:
            assert c.of_net == pytest.approx(fsum(top) / net)
        if rest:
            assert c.mean_without == pytest.approx(fsum(rest) / len(rest), rel=1e-12, abs=tiny)
        else:
            assert c.mean_without is None


def assert_spread(found, sizes):
    """Compare the Gini coefficient and the number that carry half."""
    total = fsum(sizes)
    if total <= 0:
        assert found.gini is found.n_half is None
        return
    pairs = fsum(abs(a - b) for a in sizes for b in sizes)
    assert found.gini == pytest.approx(pairs / (2 * len(sizes) * total), abs=1e-12)
    ordered = sorted(sizes, reverse=True)
    assert fsum(ordered[: found.n_half]) >= total / 2 * (1 - 1e-12)
    assert fsum(ordered[: found.n_half - 1]) <= total / 2 * (1 + 1e-12)


@settings(max_examples=200, deadline=None)
@given(LOSSES, SHARES, st.integers(0, 70))
def test_losses_by_their_definition(losses, shares, most):
    found = concentration(side_with(losses), shares=shares, most=most)
    json.dumps(found.to_dict(), allow_nan=False)
    worst = sorted(range(len(losses)), key=lambda i: (-losses[i], i))[:most]
    assert found.worst["row"].to_pylist() == worst
    assert found.worst["loss"].to_pylist() == [losses[i] for i in worst]
    values = [x for x in losses if isfinite(x)]
    assert (found.n, found.n_infinite) == (len(values), len(losses) - len(values))
    if values:
        assert_centre(found, values)
        assert_carried(found, values, shares)
        assert_spread(found, values)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(NUMBERS, NUMBERS), max_size=60), SHARES, st.integers(0, 70))
def test_changes_by_their_definition(losses, shares, most):
    before, after = ([pair[k] for pair in losses] for k in (0, 1))
    found = concentration_of_change(pair_with(before, after), shares, most)
    json.dumps(found.to_dict(), allow_nan=False)
    delta = [b - a if min(a, b) < inf else 0.0 for a, b in losses]
    worst = sorted(range(len(losses)), key=lambda i: (-abs(delta[i]), i))[:most]
    worst = [i for i in worst if delta[i]]
    assert found.worst["row"].to_pylist() == worst
    assert found.worst["delta"].to_pylist() == [delta[i] for i in worst]
    assert found.worst["loss_before"].to_pylist() == [before[i] for i in worst]
    assert found.worst["loss_after"].to_pylist() == [after[i] for i in worst]
    values = [b - a for a, b in losses if max(a, b) < inf]
    assert (found.n, found.n_infinite) == (len(values), len(losses) - len(values))
    if values:
        assert_centre(found, values)
        assert_carried(found, values, shares)
        assert_spread(found, [abs(x) for x in values])


def test_many_samples_against_scipy():
    rng = np.random.default_rng(5)
    loss = rng.pareto(1.2, 50_000)
    found = concentration(side_with(loss))
    assert found.trimmed_mean == pytest.approx(scipy.stats.trim_mean(loss, 0.05), rel=1e-12)
    assert found.median == np.median(loss)
    ordered = np.sort(loss)[::-1]
    for c, k in zip(found.carried, (50, 500, 2500, 5000), strict=True):
        assert c.k == k
        assert c.of_total == pytest.approx(ordered[:k].sum() / loss.sum())
        assert c.mean_without == pytest.approx(ordered[k:].mean())


# What is rare --------------------------------------------------------------------------------


def test_infinite_losses_are_the_worst_and_counted_apart():
    found = concentration(side_with([1.0, inf, 3.0, inf]), shares=(0.5,), most=3)
    assert (found.n, found.n_infinite, found.mean) == (2, 2, 2.0)
    assert found.worst["row"].to_pylist() == [1, 3, 2]
    assert (found.carried[0].k, found.carried[0].of_total) == (1, 0.75)
    assert [row["loss"] for row in found.to_dict()["worst"]] == [None, None, 3.0]


def test_changes_from_and_to_infinity():
    pair = pair_with([1.0, 1.0, inf, inf, 0.0], [2.0, inf, inf, 1.0, 0.5])
    found = concentration_of_change(pair)
    assert (found.n, found.n_infinite, found.mean) == (2, 3, 0.75)
    assert found.worst["row"].to_pylist() == [1, 3, 0, 4]
    assert found.worst["delta"].to_pylist() == [inf, -inf, 1.0, 0.5]
    first = found.to_dict()["worst"][0]
    assert (first["delta"], first["loss_before"], first["loss_after"]) == (None, 1.0, None)


@pytest.mark.parametrize("losses", [[], [inf, inf]])
def test_nothing_finite(losses):
    for found in (
        concentration(side_with(losses)), concentration_of_change(pair_with(losses, losses))
    ):  # fmt: skip
        assert (found.n, found.n_infinite) == (0, len(losses))
        assert found.mean is found.median is found.trimmed_mean is found.gini is None
        assert found.n_half is None
        assert [c.k for c in found.carried] == [0] * 4
        assert {c.of_total for c in found.carried} == {c.mean_without for c in found.carried}
        json.dumps(found.to_dict(), allow_nan=False)
    assert concentration(side_with(losses)).worst["row"].to_pylist() == list(range(len(losses)))
    assert not concentration_of_change(pair_with(losses, losses)).worst.num_rows


def test_one_sample_and_no_loss_at_all():
    one = concentration(side_with([2.5]))
    assert (one.mean, one.median, one.trimmed_mean, one.gini, one.n_half) == (2.5, 2.5, 2.5, 0, 1)
    assert {c.of_total for c in one.carried} == {1.0}
    assert {c.mean_without for c in one.carried} == {None}
    none = concentration(side_with([0.0, 0.0]))
    assert (none.mean, none.gini, none.n_half) == (0.0, None, None)
    assert {c.of_total for c in none.carried} == {c.of_net for c in none.carried} == {None}
    assert {c.mean_without for c in none.carried} == {0.0}


def test_losses_below_zero_where_probabilities_exceed_one():
    side = side_of(np.array([[1.009, 0.0], [0.5, 0.5], [1.009, 0.0]]), [0, 0, 0], "probs")
    found = concentration(side, shares=(0.3,))
    assert (side.loss < 0).sum() == 2
    assert found.carried[0].of_total == pytest.approx(log(2) / (log(2) - 2 * log(1.009)))
    assert found.n_half == 1
    only = concentration(side.take(np.array([0, 2])))
    assert (only.n_half, only.gini, only.carried[0].of_total) == (None, None, None)
    assert only.mean == pytest.approx(-log(1.009))


def test_sums_that_would_overflow():
    found = concentration(side_with([1e308, 1.5e308, 1.7e308, 1.0]), shares=(0.25, 0.5))
    assert found.mean == pytest.approx(1.05e308)
    assert found.median == pytest.approx(1.25e308)
    assert found.carried[1].of_total == pytest.approx(3.2 / 4.2)
    assert found.carried[0].mean_without == pytest.approx(2.5 / 3 * 1e308)
    assert found.gini == pytest.approx((2 * (1.0 * 2 + 1.5 * 3 + 1.7 * 4) / 4.2 - 5) / 4)


def test_ids_and_names_are_what_the_caller_has():
    x = np.array([[2.0, 0.0, 0.0], [0.0, 5.0, 0.0], [0.0, 0.0, 1.0]])
    side = side_of(x, [0, 2, 2])
    assert concentration(side).worst.schema.names == [
        "row", "label", "predicted", "loss", "confidence"
    ]  # fmt: skip
    found = concentration(
        side, pa.array([b"\x00a", b"b", b"c"]), most=1, class_names=("x", "y", "z")
    )
    assert found.worst.to_pylist()[0] | {"loss": 0, "confidence": 0} == {
        "row": 1, "sample_id": b"b", "label": "z", "predicted": "y", "loss": 0, "confidence": 0
    }  # fmt: skip
    assert found.to_dict()["worst"][0]["sample_id"] == b"b".hex()
    pair = pair_of(x, 2 * x, [0, 2, 2], class_names=("x", "y", "z"), ids=["a", "b", "c"])
    row = concentration_of_change(pair, most=1).to_dict()["worst"][0]
    assert (row["sample_id"], row["label"], row["predicted_before"], row["predicted_after"]) == (
        "b", "z", "y", "y"
    )  # fmt: skip
    assert (
        concentration_of_change(replace(pair, class_names=None)).worst["label"].type == pa.int32()
    )


def test_wrong_arguments():
    side = side_with([1.0, 2.0])
    for share in (0.0, -0.1, 1.5, float("nan")):
        with pytest.raises(UsageError, match="above 0 and at most 1"):
            concentration(side, shares=(0.1, share))
    with pytest.raises(UsageError, match="0 or more, not -1"):
        concentration(side, most=-1)
    with pytest.raises(UsageError, match="3 ids do not name 2 samples"):
        concentration(side, pa.array([1, 2, 3]))

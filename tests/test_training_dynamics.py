"""Regions, forgetting, oscillation and subsets, against plain definitions sample by sample."""

import numpy as np
import pyarrow as pa
import pytest
from dumps import Rows
from hypothesis import given, settings
from hypothesis import strategies as st
from sides import pair_of, side_of

import fastdiv
from fastdiv.errors import UsageError
from fastdiv.explain.training.dynamics import (
    Region,
    flips,
    forgetting,
    oscillation,
    region_of,
    regions,
)
from fastdiv.explain.training.subsets import subset


def run_of(right, seed=0):
    """Analyze a dump of two classes in which right (epochs, n) says who is right when."""
    right = np.asarray(right, bool)
    rng = np.random.default_rng(seed)
    dump = {}
    for epoch, row in enumerate(right):
        n = len(row)
        y = np.arange(n) % 2
        x = np.zeros((n, 2), np.float32)
        x[np.arange(n), np.where(row, y, 1 - y)] = rng.uniform(0.5, 3, n)
        dump[epoch * 2] = Rows(x, y, np.arange(n)).arrays()
    return fastdiv.analyze(dump, kind="logits")


def samples_of(**columns):
    n = len(next(iter(columns.values())))
    defaults = {
        "n_epochs": [3] * n, "learned": [True] * n, "first_learned": [0] * n,
        "forgetting_events": [0] * n, "confidence": [0.5] * n, "variability": [0.0] * n,
        "last_loss": [1.0] * n, "last_correct": [True] * n,
    }  # fmt: skip
    types = {"learned": pa.bool_(), "last_correct": pa.bool_()} | dict.fromkeys(
        ("confidence", "variability", "last_loss"), pa.float64()
    )
    return pa.table(
        {k: pa.array(v, types.get(k, pa.int64())) for k, v in (defaults | columns).items()}
    )


# Regions ----------------------------------------------------------------------------------------


def test_regions_by_hand():
    samples = samples_of(
        confidence=[0.9, 0.8, 0.5, 0.4, 0.2, 0.1, None],
        variability=[0.0, 0.3, 0.1, 0.1, 0.1, 0.4, None],
        last_loss=[0.5, 1.5, 1.0, 1.0, 3.0, np.inf, None],
        last_correct=[True, True, True, False, False, False, None],
        n_epochs=[3] * 6 + [0],
        forgetting_events=[0, 1, 1, 0, 0, 2, 0],
    )
    easy, ambiguous, hard, between, unseen = Region
    third = 1 / 3 + 1e-9
    assert region_of(samples, third).tolist() == [
        easy, ambiguous, between, between, hard, ambiguous, unseen
    ]  # fmt: skip
    by_confidence = region_of(samples, third, ambiguous_first=False)
    assert by_confidence.tolist() == [easy, easy, between, between, hard, hard, unseen]
    table = regions(samples, third)
    assert table["region"].to_pylist() == ["easy", "ambiguous", "hard", "between"]
    assert table["n"].to_pylist() == [1, 2, 1, 2]
    assert table["n_selected"].to_pylist() == [2, 2, 2, None]
    assert table["share"].to_pylist() == [1 / 6, 2 / 6, 1 / 6, 2 / 6]
    assert table["loss"].to_pylist() == [0.5, np.inf, 3.0, 1.0]
    assert table["loss_finite"].to_pylist() == [0.5, 1.5, 3.0, 1.0]
    assert table["accuracy"].to_pylist() == [1.0, 0.5, 0.0, 0.5]
    assert table["confidence"].to_pylist() == pytest.approx([0.9, 0.45, 0.2, 0.45])
    assert table["forgetting_events"].to_pylist() == [0, 1.5, 0, 0.5]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3)), max_size=30),
    st.floats(0.01, 0.5),
    st.booleans(),
)
def test_regions_are_a_partition_of_the_extremes(values, share, ambiguous_first):
    confidence = np.array([v[0] for v in values]) / 5
    variability = np.array([v[1] for v in values]) / 10
    samples = samples_of(confidence=confidence, variability=variability)
    region = region_of(samples, share, ambiguous_first=ambiguous_first)
    table = regions(samples, share, ambiguous_first=ambiguous_first)
    k = int(share * len(values))
    assert table["n"].to_pylist() == [int((region == r).sum()) for r in list(Region)[:4]]
    assert sum(table["n"].to_pylist()) == len(values)
    assert table["n_selected"].to_pylist()[:3] == [k] * 3
    if ambiguous_first:
        assert (region == Region.AMBIGUOUS).sum() == k
    else:
        assert [(region == r).sum() for r in (Region.EASY, Region.HARD)] == [k, k]
    ranked = np.sort(confidence)
    if k:
        assert (confidence[region == Region.EASY] >= ranked[-k]).all()
        assert (confidence[region == Region.HARD] <= ranked[k - 1]).all()
        assert (variability[region == Region.AMBIGUOUS] >= np.sort(variability)[-k]).all()


def test_regions_refuse():
    samples = samples_of(confidence=[0.5])
    for share in (0.0, 0.6, np.nan):
        with pytest.raises(UsageError, match="share of a region"):
            regions(samples, share)
    two = pa.concat_tables([
        samples.append_column("split", pa.array([s])) for s in ("train", "val")
    ])  # fmt: skip
    for measure in (regions, forgetting, lambda s: oscillation(s, [0])):
        with pytest.raises(UsageError, match="several splits"):
            measure(two)
    with pytest.raises(UsageError, match="no column 'variability'"):
        regions(samples.drop_columns("variability"))


# Forgetting and oscillation ---------------------------------------------------------------------

HISTORIES = np.array(
    [
        [1, 1, 1, 1],  # unforgettable
        [0, 0, 1, 1],  # unforgettable, learned late
        [0, 0, 0, 0],  # never learned
        [1, 0, 1, 0],  # forgotten twice
        [0, 1, 0, 1],  # forgotten once
    ]
).T


def test_forgetting_by_hand():
    run = run_of(HISTORIES)
    found = forgetting(run.samples)
    assert (found.n, found.n_never_learned) == (5, 1)
    assert (found.n_unforgettable, found.n_forgotten) == (2, 2)
    assert found.mean_events == 3 / 4
    assert found.events["forgetting_events"].to_pylist() == [0, 1, 2]
    assert found.events["n"].to_pylist() == [2, 1, 1]
    assert found.events["share"].to_pylist() == [0.4, 0.2, 0.2]
    assert found.events["accuracy"].to_pylist() == [1.0, 1.0, 0.0]
    losses = run.samples["last_loss"].to_numpy()
    assert found.events["loss"].to_pylist() == pytest.approx(
        [losses[:2].mean(), losses[4], losses[3]]
    )
    assert found.first_learned.to_pylist() == [
        {"epoch": 0, "n": 2, "share": 0.4, "cumulative_share": 0.4},
        {"epoch": 2, "n": 1, "share": 0.2, "cumulative_share": 0.6},
        {"epoch": 4, "n": 1, "share": 0.2, "cumulative_share": 0.8},
    ]


def test_oscillation_by_hand():
    table = oscillation(run_of(HISTORIES).samples, [0, 2, 4, 6])
    assert table["changes"].to_pylist() == [0, 1, 3]
    assert table["n"].to_pylist() == [2, 1, 2]
    assert table["share"].to_pylist() == [0.4, 0.2, 0.4]
    assert table["accuracy"].to_pylist() == [0.5, 1.0, 0.5]
    with pytest.raises(UsageError, match="no epochs"):
        oscillation(run_of(HISTORIES).samples, [])


histories = st.integers(1, 6).flatmap(
    lambda epochs: st.lists(
        st.lists(st.booleans(), min_size=epochs, max_size=epochs), min_size=1, max_size=12
    )
)


@settings(max_examples=15, deadline=None)
@given(histories)
def test_histories_against_plain_definitions(history):
    right = np.array(history).T
    run = run_of(right)
    found = forgetting(run.samples)
    changed = np.count_nonzero(right[1:] != right[:-1], axis=0)
    forgotten = np.count_nonzero(right[:-1] & ~right[1:], axis=0)
    learned = right.any(axis=0)
    assert found.n == right.shape[1]
    assert found.n_never_learned == np.count_nonzero(~learned)
    assert found.n_unforgettable == np.count_nonzero(learned & (forgotten == 0))
    assert found.n_forgotten == np.count_nonzero(forgotten)
    assert found.n_never_learned + found.n_unforgettable + found.n_forgotten == found.n
    counted = dict(
        zip(
            found.events["forgetting_events"].to_pylist(),
            found.events["n"].to_pylist(),
            strict=True,
        )
    )
    assert counted == {k: (forgotten[learned] == k).sum() for k in set(forgotten[learned])}
    first = 2 * right.argmax(axis=0)[learned]
    assert found.first_learned["epoch"].to_pylist() == sorted(set(first))
    assert found.first_learned["n"].to_pylist() == [(first == e).sum() for e in sorted(set(first))]
    table = oscillation(run.samples, [2 * e for e in range(len(right))])
    assert table["changes"].to_pylist() == sorted(set(changed))
    assert table["n"].to_pylist() == [(changed == k).sum() for k in sorted(set(changed))]
    changes = flips(run.transitions)
    assert changes["positive_flips"].to_pylist() == (~right[:-1] & right[1:]).sum(axis=1).tolist()
    assert changes["negative_flips"].to_pylist() == (right[:-1] & ~right[1:]).sum(axis=1).tolist()
    assert sum(changes["oscillation"].to_pylist()) == pytest.approx(changed.mean())


def test_samples_that_miss_an_epoch_do_not_oscillate():
    samples = samples_of(
        n_epochs=[3, 2, 0], first_learned=[0, 4, None], learned=[True, True, False]
    )
    table = oscillation(samples, [0, 2, 4])
    assert table["n"].to_pylist() == [1]
    assert table["share"].to_pylist() == [1.0]


def test_flips_by_hand():
    table = flips(run_of(HISTORIES).transitions)
    assert table["positive_flips"].to_pylist() == [1, 2, 1]
    assert table["negative_flips"].to_pylist() == [1, 1, 1]
    assert table["oscillation"].to_pylist() == [0.4, 0.6, 0.4]
    assert table["churn"].to_pylist() == [0.4, 0.6, 0.4]  # two classes: the same
    assert table["net_share"].to_pylist() == [0.0, 1 / 3, 0.0]
    still = flips(run_of([[1, 1], [1, 1]]).transitions)
    assert still["net_share"].to_pylist() == [None]
    assert still["oscillation"].to_pylist() == [0.0]


def test_of_no_samples():
    empty = samples_of(n_epochs=[0], learned=[False], first_learned=pa.array([None], pa.int64()))
    for samples in (empty, empty.slice(0, 0)):
        found = forgetting(samples)
        assert (found.n, found.n_unforgettable, found.mean_events) == (0, 0, None)
        assert len(found.events) == len(found.first_learned) == 0
        assert regions(samples)["n"].to_pylist() == [0, 0, 0, 0]
        assert regions(samples)["share"].to_pylist() == [None] * 4
        assert len(oscillation(samples, [0])) == 0
    assert len(flips(run_of([[1, 1]]).transitions)) == 0


# Subsets ----------------------------------------------------------------------------------------


def test_subset_by_hand():
    log = np.log
    before = log([[0.5, 0.5], [0.25, 0.75], [0.8, 0.2], [0.1, 0.9]])
    after = log([[0.25, 0.75], [0.5, 0.5], [0.8, 0.2], [0.9, 0.1]])
    pair = pair_of(before, after, [0] * 4)
    first, second = subset((pair.before, pair.after), np.array([0, 1])).to_pylist()
    assert (first["epoch"], first["n"], first["n_rest"]) == (0, 2, 2)
    assert first["loss"] == pytest.approx((log(2) + log(4)) / 2)
    assert first["accuracy"] == 0.5
    assert first["accuracy_rest"] == 0.5
    assert first["delta_loss"] == first["delta_loss_subset"] == first["delta_accuracy"] == 0
    assert second["loss"] == pytest.approx((log(2) + log(4)) / 2)
    assert second["delta_loss_subset"] == pytest.approx(0)
    assert second["delta_loss_rest"] == pytest.approx((log(0.1) - log(0.9)) / 4)
    assert second["delta_loss"] == pytest.approx((log(0.1) - log(0.9)) / 4)
    assert second["delta_accuracy_subset"] == 0
    assert second["delta_accuracy"] == second["delta_accuracy_rest"] == 0.25


def test_a_subset_is_a_mask_or_positions_or_ids():
    rng = np.random.default_rng(0)
    z, y = rng.normal(0, 2, (50, 3)), rng.integers(0, 3, 50)
    ids = pa.array([f"s{i:02}" for i in range(50)])
    pair = pair_of(z, z * 2, y, ids=ids)
    sides = pair.before, pair.after
    mask = y == 1
    table = subset(sides, mask)
    assert subset(sides, np.flatnonzero(mask)).equals(table)
    assert subset(sides, ids.filter(pa.array(mask)), ids).equals(table)
    assert subset(sides, pa.chunked_array([ids.filter(pa.array(mask))]), ids).equals(table)
    with pytest.raises(UsageError, match="give `ids`"):
        subset(sides, ids)
    with pytest.raises(UsageError, match="a mask of 49"):
        subset(sides, mask[1:])
    with pytest.raises(UsageError, match="positions run from 0 to 50"):
        subset(sides, np.array([0, 50]))
    with pytest.raises(UsageError, match="different samples"):
        subset((pair.before, pair.after.take(mask)), mask)
    with pytest.raises(UsageError, match="no sides"):
        subset((), mask)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 5), st.integers(0, 5)), max_size=20))
def test_subset_and_rest_make_up_the_change(rows):
    """The label's probability is tenths; 0 makes the loss infinite."""
    n = len(rows)
    mask = np.array([r[0] for r in rows], bool)
    p = [np.array([[r[i] / 10, 1 - r[i] / 10] for r in rows]).reshape(n, 2) for i in (1, 2)]
    pair = pair_of(*p, [0] * n, "probs")
    first, second = subset((pair.before, pair.after), mask).to_pylist()
    delta = pair.after.loss[pair.finite] - pair.before.loss[pair.finite]
    if len(delta):
        assert second["delta_loss"] == pytest.approx(delta.mean())
        inside = delta[mask[pair.finite]].sum() / len(delta)
        assert second["delta_loss_subset"] == pytest.approx(inside)
        assert second["delta_loss_rest"] == pytest.approx(delta.mean() - inside)
    else:
        assert second["delta_loss"] is second["delta_loss_subset"] is None
    for row, side in ((first, pair.before), (second, pair.after)):
        for suffix, m in (("", mask), ("_rest", ~mask)):
            loss = side.loss[m]
            finite = loss[np.isfinite(loss)]
            assert row[f"n{suffix}"] == len(loss)
            assert row[f"loss{suffix}"] == (pytest.approx(loss.mean()) if len(loss) else None)
            assert row[f"loss_finite{suffix}"] == (
                pytest.approx(finite.mean()) if len(finite) else None
            )
            assert row[f"accuracy{suffix}"] == (
                pytest.approx(side.correct[m].mean()) if len(loss) else None
            )


def test_means_of_the_largest_losses_stay_finite():
    z = np.array([[0.0, 1.7e308]] * 4)
    side = side_of(z, [0] * 4)
    row = subset((side,), np.ones(4, bool)).to_pylist()[0]
    assert row["loss"] == row["loss_finite"] == pytest.approx(1.7e308)

"""Suspects and the confident joint, against hand-made cases, people's verdicts and cleanlab."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sides import pair_of, side_of

from fastdiv.errors import UsageError
from fastdiv.explain.labels.joint import class_thresholds, confident_joint, joint_of, latent_labels
from fastdiv.explain.labels.suspects import (
    HIGHEST_GAP,
    RANKINGS,
    confident_elsewhere,
    normalized_margin,
    self_confidence,
    suspects,
    suspicion,
    wrong_in_both,
)

DATA = Path(__file__).resolve().parents[1].parent / "shared" / "data" / "label_errors"


def random_probabilities(n, c, seed=0, sharpness=2.0):
    rng = np.random.default_rng(seed)
    z = rng.normal(0, sharpness, (n, c))
    labels = rng.integers(0, c, n)
    z[np.arange(n), labels] += 1.5
    p = np.exp(z - z.max(axis=1, keepdims=True))
    return p / p.sum(axis=1, keepdims=True), labels


def history_of(ids, **columns):
    n = len(ids)
    zeros = {
        name: [0] * n for name in ("n_epochs", "n_correct", "forgetting_events")
    } | {name: [0.0] * n for name in ("aum", "variability")}  # fmt: skip
    return pa.table({"sample_id": ids, **zeros, **columns})


# Suspects ---------------------------------------------------------------------------------------

# Of label 0, each before and after: wrong in the same way, right then wrong, wrong then right,
# wrong in two ways, and a label that is ruled out at first.
BEFORE = np.array([[1, 9, 0], [8, 1, 1], [3, 2, 5], [0.5, 1.5, 8], [0, 4, 6]]) / 10
AFTER = np.array([[2, 8, 0], [1, 8, 1], [6, 2, 2], [1, 7, 2], [1, 2, 7]]) / 10


def test_suspects_by_hand():
    pair = pair_of(BEFORE, AFTER, [0] * 5, "probs", ids=list("abcde"))
    assert wrong_in_both(pair).tolist() == [True, False, False, True, True]
    table = suspects(pair)
    ids = table["sample_id"].to_pylist()
    assert sorted(ids) == ["a", "d", "e"]
    assert table["rank"].to_pylist() == [1, 2, 3]
    row = {r["sample_id"]: r for r in table.to_pylist()}
    log = np.log
    wanted = {
        "a": (0.9 * log(9) + 0.8 * log(4)) / 2,
        "d": (0.8 * log(16) + 0.7 * log(7)) / 2,
        "e": (0.6 * HIGHEST_GAP + 0.7 * log(7)) / 2,
    }
    assert ids == sorted(wanted, key=wanted.get, reverse=True)
    for key, score in wanted.items():
        assert row[key]["score"] == pytest.approx(score, rel=1e-6)
    assert (row["a"]["label"], row["a"]["predicted_before"], row["a"]["predicted_after"]) == (
        0,
        1,
        1,
    )
    assert row["a"]["same_prediction"]
    assert not row["d"]["same_prediction"]
    assert row["d"]["predicted_before"] == 2
    assert row["d"]["p_label_before"] == pytest.approx(0.05)
    assert row["d"]["p_predicted_after"] == pytest.approx(0.7)
    assert row["d"]["normalized_margin_before"] == pytest.approx((0.05 - 0.8 + 1) / 2)
    assert row["d"]["loss_after"] == pytest.approx(-log(0.1))
    assert row["e"]["loss_before"] == np.inf
    assert row["e"]["p_label_before"] == 0
    assert row["a"]["n_epochs"] is None


def test_one_epoch_is_a_pair_of_equal_sides():
    side = side_of(BEFORE, [0] * 5, "probs")
    pair = pair_of(BEFORE, BEFORE, [0] * 5, "probs")
    assert suspects(side).equals(suspects(pair))
    named = suspects(side, ids=pa.array(list("abcde")))
    assert set(named["sample_id"].to_pylist()) == {"a", "c", "d", "e"}
    with pytest.raises(UsageError, match="2 ids for 5 samples"):
        suspects(side, ids=pa.array([1, 2]))


def test_history_is_found_by_id_whatever_its_order():
    pair = pair_of(BEFORE, AFTER, [0] * 5, "probs", ids=[10, 20, 30, 40, 50])
    history = history_of(
        pa.array([50, 60, 40, 10], pa.int64()),
        n_epochs=[5, 6, 4, 1], n_correct=[1, 0, 2, 0], forgetting_events=[1, 0, 2, 0],
        aum=[-3.0, 9.0, None, -1.0],
    )  # fmt: skip
    rows = {r["sample_id"]: r for r in suspects(pair, history).to_pylist()}
    assert [rows[i]["n_epochs"] for i in (10, 40, 50)] == [1, 4, 5]
    assert [rows[i]["forgetting_events"] for i in (10, 40, 50)] == [0, 2, 1]
    assert [rows[i]["aum"] for i in (10, 40, 50)] == [-1.0, None, -3.0]
    by_aum = suspects(pair, history, rank_by="aum")
    assert by_aum["sample_id"].to_pylist() == [50, 10, 40]  # one without an aum comes last
    strings = history.set_column(0, "sample_id", history["sample_id"].cast(pa.large_string()))
    assert suspects(pair, strings)["n_epochs"].equals(suspects(pair, history)["n_epochs"])
    with pytest.raises(UsageError, match="more than once"):
        suspects(pair, pa.concat_tables([history, history]))
    with pytest.raises(UsageError, match="no column 'aum'"):
        suspects(pair, history.drop_columns("aum"))
    other = history.set_column(0, "sample_id", pa.array([None] * 4, pa.date32()))
    with pytest.raises(UsageError, match="ids are date32"):
        suspects(pair, other)
    with pytest.raises(UsageError, match="to rank by aum takes a history"):
        suspects(pair, rank_by="aum")


def test_history_of_the_pairs_split_is_taken():
    pair = pair_of(BEFORE, AFTER, [0] * 5, "probs")
    object.__setattr__(pair, "split", "val")
    ids = pa.array(range(5), pa.int64())
    halves = [
        history_of(ids, n_epochs=[k] * 5, split=[split] * 5)
        for k, split in ((1, "train"), (2, "val"))
    ]
    assert set(suspects(pair, pa.concat_tables(halves))["n_epochs"].to_pylist()) == {2}


def test_rankings_and_limit():
    p, y = random_probabilities(300, 4)
    q, _ = random_probabilities(300, 4, seed=1)
    pair = pair_of(p, q, y, "probs")
    whole = suspects(pair)
    assert np.all(np.diff(whole["score"].to_numpy()) <= 0)
    assert suspects(pair, limit=7).equals(whole.slice(0, 7))
    for name, columns in (("self_confidence", "p_label"), ("normalized_margin",) * 2):
        t = suspects(pair, rank_by=name)
        key = t[f"{columns}_before"].to_numpy() + t[f"{columns}_after"].to_numpy()
        assert np.all(np.diff(key) >= 0)
    assert "aum" in RANKINGS
    with pytest.raises(UsageError, match="ranked by one of"):
        suspects(pair, rank_by="loss")


def test_class_names():
    table = suspects(pair_of(BEFORE, BEFORE, [0] * 5, "probs", class_names=("cat", "dog", "horse")))
    assert table["label"].to_pylist() == ["cat"] * 4
    assert set(table["predicted_before"].to_pylist()) == {"dog", "horse"}


@pytest.mark.parametrize("n", [0, 1])
@pytest.mark.parametrize("wrong", [True, False])
def test_few_samples(n, wrong):
    p = np.array([[0.9, 0.1]])[:n]
    pair = pair_of(p, p, [int(wrong)] * n, "probs")
    table = suspects(pair, history_of(pa.array([], pa.int64())))
    assert len(table) == (n if wrong else 0)
    assert table.schema.field("aum").type == pa.float64()
    assert table.schema.field("n_epochs").type == pa.int64()
    assert len(suspects(pair.before)) == len(table)


def test_extremes_are_finite_and_ordered():
    z = np.array([[0.0, -np.inf], [-2000.0, 0.0], [-800.0, 0.0], [0.0, 0.0], [-np.inf, 0.0]])
    side = side_of(z, [1, 0, 0, 1, 1])
    score = suspicion(side)
    assert score.tolist() == [HIGHEST_GAP, HIGHEST_GAP, HIGHEST_GAP, 0.0, 0.0]
    assert normalized_margin(side).tolist() == [0.0, 0.0, 0.0, 0.5, 1.0]
    assert suspects(side)["score"].is_valid().to_pylist() == [True] * 4


# Against cleanlab -------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("c", [2, 3, 10, 30])
def test_scores_equal_those_of_cleanlab(c, dtype):
    rank = pytest.importorskip("cleanlab.rank")
    p, y = random_probabilities(2000, c, sharpness=4.0)
    p = p.astype(dtype)
    side = side_of(p, y, "probs")
    wanted = rank.get_self_confidence_for_each_label(y, p)
    np.testing.assert_allclose(self_confidence(side), wanted, rtol=0, atol=1e-6)
    wanted = rank.get_normalized_margin_for_each_label(y, p)
    np.testing.assert_allclose(normalized_margin(side), wanted, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["cifar10", "mnist", "imdb", "20news"])
def test_real_scores_equal_those_of_cleanlab(name):
    rank = pytest.importorskip("cleanlab.rank")
    p, y = label_errors(name)
    side = side_of(p, y, "probs")
    for ours, theirs in (
        (self_confidence, rank.get_self_confidence_for_each_label),
        (normalized_margin, rank.get_normalized_margin_for_each_label),
    ):
        np.testing.assert_allclose(ours(side), theirs(y, p), rtol=0, atol=1e-6)


def label_errors(name):
    if not DATA.is_dir():
        pytest.skip(f"no real predictions in {DATA}")
    p = np.load(DATA / f"{name}_test_set_pyx.npy").astype(np.float64)
    return p, np.load(DATA / f"{name}_test_set_original_labels.npy").astype(np.int64)


def verdicts():
    """Return for which CIFAR-10 samples most of five people did not agree with the label."""
    path = DATA / "cifar10_mturk.json"
    if not path.is_file():
        pytest.skip(f"no verdicts in {DATA}")
    rows = json.loads(path.read_text())
    return np.array([row["id"] for row in rows if row["mturk"]["given"] < 3])


def found(order, wrong, k):
    return int(np.isin(order[:k], wrong).sum())


def test_suspects_are_no_worse_than_those_of_cleanlab_by_peoples_verdicts():
    pytest.importorskip("cleanlab")
    from cleanlab.filter import find_label_issues
    from cleanlab.rank import get_label_quality_scores

    p, y = label_errors("cifar10")
    wrong = verdicts()
    assert len(wrong) == 54  # as in the paper, arXiv:2103.14749
    ours = suspects(side_of(p, y, "probs"))["sample_id"].to_numpy()
    scores = ("self_confidence", "normalized_margin", "confidence_weighted_entropy")
    filters = ("prune_by_noise_rate", "confident_learning", "low_normalized_margin")
    theirs = {s: np.argsort(get_label_quality_scores(y, p, method=s)) for s in scores}
    theirs |= {
        (f, s): find_label_issues(y, p, filter_by=f, return_indices_ranked_by=s, n_jobs=1)
        for f in filters
        for s in scores
    }
    for k in (100, 500):
        best = max(found(order, wrong, k) for order in theirs.values())
        assert found(ours, wrong, k) >= best
    assert (found(ours, wrong, 100), found(ours, wrong, 500)) == (26, 54)


@pytest.mark.parametrize(("name", "better"), [("cifar10", 0), ("20news", 1)])
def test_planted_wrong_labels_are_found_nearly_as_well_as_by_the_better_score(name, better):
    """Of as many as were planted; the two scores of cleanlab are each better on one of these."""
    rank = pytest.importorskip("cleanlab.rank")
    p, original = label_errors(name)
    n, c = p.shape
    m = n // 30
    ours, theirs = 0, [0, 0]
    for seed in range(3):
        rng = np.random.default_rng(seed)
        y, planted = original.copy(), rng.choice(n, m, replace=False)
        y[planted] = (y[planted] + rng.integers(1, c, m)) % c
        ours += found(suspects(side_of(p, y, "probs"))["sample_id"].to_numpy(), planted, m)
        for i, method in enumerate(("self_confidence", "normalized_margin")):
            scores = rank.get_label_quality_scores(y, p, method=method)
            theirs[i] += found(np.argsort(scores, kind="stable"), planted, m)
    assert theirs[better] > theirs[1 - better]
    assert theirs[1 - better] < ours
    assert ours >= 0.96 * theirs[better]


# Confident joint --------------------------------------------------------------------------------


def test_joint_by_hand():
    p = np.array([[0.9, 0.1], [0.7, 0.3], [0.2, 0.8], [0.4, 0.6], [0.1, 0.9], [0.52, 0.48]])
    y = np.array([0, 0, 0, 1, 1, 1])
    joint = confident_joint(y, p)
    # Thresholds (.9 + .7 + .2) / 3 = .6 and (.6 + .9 + .48) / 3 = .66.
    assert joint.thresholds.tolist() == pytest.approx([0.6, 0.66])
    assert latent_labels(p, joint.thresholds).tolist() == [0, 0, 1, -1, 1, -1]
    assert joint.n_confident == 4
    assert joint.dense().tolist() == [[2, 1], [0, 1]]
    assert joint.dense(calibrated=True).tolist() == [[2, 1], [0, 3]]
    assert joint.issues.tolist() == [2]
    assert (joint.n, joint.n_off_diagonal, joint.noise_rate) == (6, 1, 1 / 6)
    assert joint.latent_prior.tolist() == [2 / 6, 4 / 6]
    table = joint.table(("cat", "dog"))
    assert table.to_pylist() == [
        {"label": "cat", "latent": "dog", "count": 1, "calibrated": 1, "share": 1 / 6}
    ]


def test_joint_of_nothing_and_of_bad_labels():
    joint = confident_joint(np.zeros(0, int), np.zeros((0, 3)))
    assert (joint.n, joint.noise_rate, joint.latent_prior) == (0, None, None)
    assert joint.dense().tolist() == np.eye(3, dtype=int).tolist()
    assert joint.calibrated.tolist() == [0, 0, 0]
    assert len(joint.table()) == 0
    with pytest.raises(UsageError, match="labels run from 0 to 3"):
        confident_joint(np.array([0, 3]), np.ones((2, 3)) / 3)
    with pytest.raises(UsageError, match="do not fit"):
        confident_joint(np.array([0]), np.ones((2, 3)) / 3)


def compare_with_cleanlab(y, p):
    count = pytest.importorskip("cleanlab.count")
    ours = confident_joint(y, p)
    raw, issues = count.compute_confident_joint(
        y, p, calibrate=False, return_indices_of_off_diagonals=True
    )
    assert np.array_equal(ours.dense(), raw)
    assert np.array_equal(ours.thresholds, count.get_confident_thresholds(y, p))
    p_label = p[np.arange(len(y)), y]
    assert np.array_equal(ours.thresholds, class_thresholds(y, p_label, p.shape[1]))
    assert set(ours.issues) <= set(issues)
    assert len(ours.issues) == count.num_label_issues(y, p)
    calibrated = count.compute_confident_joint(y, p, calibrate=True)
    mine = ours.dense(calibrated=True)
    assert np.array_equal(mine.sum(axis=1), np.bincount(y, minlength=p.shape[1]))
    # What is rounded up among equal remainders is all that may differ.
    exact = raw * ours.support[:, None] / raw.sum(axis=1, keepdims=True)
    assert np.abs(mine - exact).max() < 1
    differs = mine != calibrated
    assert np.abs(mine - calibrated).max() <= 1
    for k in np.flatnonzero(differs.any(axis=1)):
        remainders = (exact[k] % 1)[differs[k]]
        assert np.allclose(remainders, remainders[0], atol=1e-9)
    return ours, calibrated


@pytest.mark.parametrize(("n", "c"), [(500, 2), (2000, 5), (3000, 40), (60, 12)])
def test_joint_equals_that_of_cleanlab(n, c):
    pytest.importorskip("cleanlab")
    p, y = random_probabilities(n, c)
    compare_with_cleanlab(y, p)


@pytest.mark.parametrize("name", ["cifar10", "mnist", "imdb", "20news"])
def test_real_joint_equals_that_of_cleanlab(name):
    count = pytest.importorskip("cleanlab.count")
    p, y = label_errors(name)
    p /= p.sum(axis=1, keepdims=True)  # cleanlab refuses the sums of imdb, 1.00002
    joint, calibrated = compare_with_cleanlab(y, p)
    if name != "20news":  # whose counts have equal remainders
        assert np.array_equal(joint.dense(calibrated=True), calibrated)
    prior, _, _ = count.estimate_latent(joint.dense(calibrated=True), y)
    np.testing.assert_allclose(joint.latent_prior, prior, rtol=1e-6)
    assert joint.n_off_diagonal == count.num_label_issues(
        y, p, estimation_method="off_diagonal_calibrated"
    )


@st.composite
def coarse(draw):
    """Probabilities in tenths: ties of classes, and with thresholds; classes without samples."""
    c = draw(st.integers(2, 5))
    n = draw(st.integers(2, 25))
    weights = draw(
        st.lists(st.lists(st.integers(0, 4), min_size=c, max_size=c), min_size=n, max_size=n)
    )
    w = np.array(weights, float)
    w[w.sum(axis=1) == 0] = 1
    labels = draw(
        st.lists(st.integers(0, c - 1), min_size=n, max_size=n).filter(lambda x: len(set(x)) > 1)
    )
    return np.array(labels), w / w.sum(axis=1, keepdims=True)


@settings(max_examples=100, deadline=None)
@given(coarse())
def test_joint_equals_that_of_cleanlab_with_ties_and_empty_classes(case):
    pytest.importorskip("cleanlab")
    compare_with_cleanlab(*case)


def test_joint_does_not_depend_on_chunks(monkeypatch):
    p, y = random_probabilities(1000, 7)
    whole = confident_joint(y, p)
    monkeypatch.setattr("fastdiv.explain.labels.joint.VALUES_AT_ONCE", 7 * 13)
    parts = confident_joint(y, p)
    assert np.array_equal(whole.dense(), parts.dense())
    assert np.array_equal(whole.issues, parts.issues)


def test_joint_of_many_classes_is_sparse():
    c = 50_000
    y = np.array([0, 0, 9])
    p = np.zeros((3, c))
    p[[0, 1, 2], [0, 9, 9]] = 1.0
    joint = confident_joint(y, p)
    assert len(joint.count) == c + 1
    assert joint.table().to_pylist() == [
        {"label": 0, "latent": 9, "count": 1, "calibrated": 1, "share": 1 / 3}
    ]


@pytest.mark.parametrize("c", [2, 4, 16])
def test_joint_of_what_is_stored(c):
    p, y = random_probabilities(1500, c)
    joint = joint_of(side_of(p, y, "probs"))
    exact = confident_joint(y, p)
    # The vectors are kept in 16 bits: a few samples may be on the other side of a threshold.
    assert np.abs(joint.dense() - exact.dense()).sum() <= 0.005 * len(y)
    assert np.allclose(joint.thresholds, exact.thresholds, atol=5e-4)
    p, y = random_probabilities(50, 17)
    assert joint_of(side_of(p, y, "probs")) is None  # of so many classes no vectors are kept


@pytest.mark.parametrize("c", [2, 3, 10])
def test_confident_elsewhere_is_the_joint_but_for_third_classes(c):
    p, y = random_probabilities(3000, c)
    side = side_of(p, y, "probs")
    joint = confident_joint(y, p)
    ours, full = set(np.flatnonzero(confident_elsewhere(side))), set(joint.issues)
    assert ours <= full
    latent = latent_labels(p, joint.thresholds)
    assert all(latent[i] != p[i].argmax() for i in full - ours)
    assert len(ours) > 100

"""Ranking curves, thresholds and changes of ranking, against scikit-learn and by hand."""

import json
from dataclasses import asdict
from itertools import product
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from scipy import stats
from sides import pair_of, side_of
from sklearn import metrics

from fastdiv.errors import UsageError
from fastdiv.explain.ranking import curve
from fastdiv.explain.ranking.change import influence, placements, ranking_change
from fastdiv.explain.ranking.curve import CurveState, bins_of, edges
from fastdiv.explain.ranking.one_vs_rest import average_precision, ranking, roc_auc, roc_curve
from fastdiv.explain.ranking.scores import curves, one_vs_rest
from fastdiv.explain.ranking.steps import METRICS, logit, sigmoid
from fastdiv.explain.ranking.thresholds import (
    accuracy_by_threshold,
    accuracy_of_curve,
    best_threshold,
)

EXACT = 1e-12
DATA = Path(__file__).resolve().parents[1].parent / "shared" / "data"
SKLEARN = {
    "accuracy": metrics.accuracy_score,
    "f1": metrics.f1_score,
    "f2": lambda y, guess: metrics.fbeta_score(y, guess, beta=2),
    "youden": lambda y, guess: metrics.balanced_accuracy_score(y, guess, adjusted=True),
}


def drawn(n=300, seed=0, steps=None, share=0.3):
    """Return float32 logits of one class against another, some tied if in steps, and labels."""
    r = np.random.default_rng(seed)
    positive = r.random(n) < share
    score = r.normal(size=n) * 2 + 1.5 * positive - 1
    return (score if steps is None else np.round(score * steps) / steps).astype("f4"), positive


def two_classes(score):
    """Return logits (n, 2) whose signed difference is the score."""
    return np.stack([np.zeros_like(score), score], axis=1)


@pytest.mark.parametrize(("n", "steps"), [(300, None), (300, 2), (1000, 8), (5, None)])
def test_exact_curves_are_those_of_scikit_learn(n, steps):
    score, y = drawn(n, steps=steps, seed=3)
    assert roc_auc(score, y) == pytest.approx(metrics.roc_auc_score(y, score), rel=EXACT)
    wanted = metrics.average_precision_score(y, score)
    assert average_precision(score, y) == pytest.approx(wanted, rel=EXACT)
    for got, expected in zip(
        roc_curve(score, y), metrics.roc_curve(y, score, drop_intermediate=False), strict=True
    ):
        np.testing.assert_allclose(got, expected, rtol=EXACT)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("steps", [None, 2])
def test_no_threshold_does_better_than_the_best(metric, steps):
    score, y = drawn(80, steps=steps)
    of = SKLEARN[metric]
    best = best_threshold(score, y, metric)
    assert best.value == best.value_high == pytest.approx(of(y, score > best.logit), rel=EXACT)
    assert of(y, sigmoid(score.astype("f8")) > best.threshold) == of(y, score > best.logit)
    values = [of(y, score >= t) for t in [*np.unique(score), np.inf]]
    assert best.value == pytest.approx(max(values), rel=EXACT)
    # midway between neighbours, as a probability
    lower, higher = score[score <= best.logit].max(), score[score > best.logit].min()
    assert best.logit == pytest.approx((float(lower) + float(higher)) / 2, rel=EXACT)
    assert best.threshold == pytest.approx(1 / (1 + np.exp(-best.logit)), rel=EXACT)


def test_of_equally_good_thresholds_the_nearest_to_a_half_is_taken():
    score, y = np.array([-9, -3, 1, 8.0]), np.array([0, 1, 0, 1], bool)
    assert best_threshold(score, y).logit == 4.5  # as good as -6
    assert best_threshold(score[:2], y[:2]).logit == -6
    assert best_threshold(score, np.ones(4, bool)).threshold == 0
    assert best_threshold(score, np.zeros(4, bool)).threshold == 1


def test_infinite_scores_have_a_rank():
    score = np.array([-np.inf, -np.inf, 2.0, np.inf, np.inf, -1.0])
    y = np.array([0, 1, 1, 1, 0, 0], bool)
    finite = np.where(np.isinf(score), np.sign(score) * 99, score)
    assert roc_auc(score, y) == roc_auc(finite, y) == metrics.roc_auc_score(y, finite)
    assert best_threshold(score, y).value == best_threshold(finite, y).value
    split = np.array([-np.inf, np.inf])
    assert best_threshold(split, np.array([False, True])).threshold == 0.5
    assert best_threshold(np.array([-np.inf, 2.0]), np.array([False, True])).logit == 1
    assert best_threshold(np.array([3.0, np.inf]), np.array([False, True])).logit == 4
    state = CurveState.zero()
    state.absorb(score, y)
    assert state.roc_auc().value == roc_auc(score, y)


def test_neighbouring_floats_can_be_told_apart():
    low = np.nextafter(1.0, 2)
    score = np.array([low, np.nextafter(low, 2)])
    best = best_threshold(score, np.array([False, True]))
    assert best.value == 1
    assert (score > best.logit).tolist() == [False, True]


@pytest.mark.parametrize("y", [[], [0], [1], [0, 0], [1, 1]])
def test_what_means_nothing_is_none(y):
    score, y = np.arange(len(y), dtype="f8"), np.array(y, bool)
    state = CurveState.zero()
    state.absorb(score, y)
    assert roc_auc(score, y) is roc_curve(score, y) is state.roc_auc() is None
    assert (
        (average_precision(score, y) is None)
        == (state.average_precision() is None)
        == (not y.any())
    )
    for metric in METRICS:
        known = len(y) > 0 and metric != "youden" and (metric == "accuracy" or y.any())
        assert (best_threshold(score, y, metric) is not None) == known
        assert (state.steps().best(metric, exact=False) is not None) == known
    accuracy_of_curve(state)
    side = side_of(two_classes(score), y)
    for exact in (False, True):
        assert ranking(side, exact=exact).num_rows == 4
    assert accuracy_by_threshold(side).num_rows == 101
    change = ranking_change(pair_of(two_classes(score), two_classes(-score), y))
    assert change.delta_auc is change.p is change.unchanged is None
    assert (change.delta_accuracy is None) == (len(y) == 0)


def test_scores_that_have_no_rank_are_refused():
    with pytest.raises(UsageError, match="score 1 is NaN"):
        roc_auc(np.array([0, np.nan]), np.array([True, False]))
    with pytest.raises(UsageError, match=r"shape \(2,\), positives \(1,\)"):
        CurveState.zero().absorb(np.zeros(2), np.ones(1, bool))
    with pytest.raises(UsageError, match="choose one of accuracy, f1"):
        best_threshold(np.zeros(2), np.ones(2, bool), "mcc")


# Curves in bins --------------------------------------------------------------------------------


def test_a_bin_holds_what_lies_above_its_lower_and_up_to_its_upper_edge():
    ends = edges()
    assert len(ends) == curve.BINS + 1
    assert (np.diff(ends) > 0).all()
    assert ends[curve.HALF] == 0
    inner = ends[1:-1]
    np.testing.assert_array_equal(inner, -inner[::-1])
    np.testing.assert_array_equal(bins_of(inner), np.arange(curve.BINS - 1))
    single = np.nextafter(inner.astype("f4"), np.float32(np.inf))
    np.testing.assert_array_equal(bins_of(single), np.arange(1, curve.BINS))
    extremes = np.array([-np.inf, -1e300, -0.0, 0.0, 1e-300, 1e300, np.inf])
    last, half = curve.BINS - 1, curve.HALF
    assert bins_of(extremes).tolist() == [0, 0, half - 1, half - 1, half, last, last]
    r = np.random.default_rng(0)
    x = np.sort(r.normal(size=5000) * 10.0 ** r.integers(-8, 4, 5000)).astype("f4")
    b = bins_of(x)
    assert (np.diff(b) >= 0).all()
    assert ((ends[b] < x) & (x <= ends[b + 1])).all()


def state_of(score, y):
    state = CurveState.zero()
    state.absorb(score, y)
    return state


def test_states_add_up_in_any_order():
    parts = [state_of(*drawn(50, seed=s)) for s in range(3)]
    a, b, c = parts
    whole = CurveState.zero()
    for s in range(3):
        whole.absorb(*drawn(50, seed=s))
    together = np.concatenate([drawn(50, seed=s)[0] for s in range(3)])
    labels = np.concatenate([drawn(50, seed=s)[1] for s in range(3)])
    for merged in (
        a.merge(b).merge(c), a.merge(b.merge(c)), c.merge(a).merge(b), whole,
        whole.merge(CurveState.zero()), state_of(together, labels),
    ):  # fmt: skip
        np.testing.assert_array_equal(merged.counts, whole.counts)
    assert (whole.positives, whole.negatives) == (labels.sum(), (~labels).sum())
    assert whole.counts.sum() == 150


@pytest.mark.parametrize(
    ("scale", "shift", "steps"),
    [(1, 0, None), (0.01, 0, None), (1e-4, -2.3, None), (300, 50, None), (1, 0, 1), (1, -5, 64)],
)
def test_bounds_hold_and_the_value_is_that_of_binned_scores(scale, shift, steps):
    score, y = drawn(4000, steps=steps)
    score = (score * scale + shift).astype("f4")
    state = state_of(score, y)
    binned = bins_of(score)
    auc, precision = state.roc_auc(), state.average_precision()
    assert auc.value == pytest.approx(metrics.roc_auc_score(y, binned), rel=EXACT)
    assert precision.value == pytest.approx(metrics.average_precision_score(y, binned), rel=EXACT)
    counts = state.counts
    shared = (counts[:, 0] * counts[:, 1]).sum() / 2 / y.sum() / (~y).sum()
    assert auc.error == pytest.approx(shared, rel=1e-9, abs=EXACT)
    assert auc.low - EXACT <= roc_auc(score, y) <= auc.high + EXACT
    assert precision.low - EXACT <= average_precision(score, y) <= precision.high + EXACT
    for metric in METRICS:
        found, truth = state.steps().best(metric, exact=False), best_threshold(score, y, metric)
        assert found.value <= truth.value + EXACT
        assert truth.value <= found.value_high + EXACT
        assert found.value == pytest.approx(SKLEARN[metric](y, score > found.logit), rel=EXACT)


def test_bounds_are_attained_by_the_worst_and_the_best_order_within_a_bin():
    """One bin after another, with every order of three positives and two negatives in it."""
    above = [(5.0, True), (5.5, False)]
    found = []
    for inside in product([1e-9, 2e-9, 3e-9], repeat=5):
        pairs = [*above, *zip(inside, [True, True, True, False, False], strict=True)]
        score, y = (np.array(x) for x in zip(*pairs, strict=True))
        found.append((roc_auc(score, y), average_precision(score, y)))
    state = state_of(score, y)
    aucs, precisions = zip(*found, strict=True)
    assert (min(aucs), max(aucs)) == pytest.approx((state.roc_auc().low, state.roc_auc().high))
    bounds = state.average_precision()
    assert max(precisions) == pytest.approx(bounds.high)
    assert bounds.low <= min(precisions) < bounds.low + 0.05  # no tie of positives is the worst


def test_more_pairs_than_64_bits_hold_are_counted():
    state = state_of(np.array([-1.0, 1.0, 1.0, -1.0]), np.array([0, 1, 0, 1], bool))
    many = CurveState(state.counts * 3_000_000_000)
    assert many.roc_auc().value == state.roc_auc().value == 0.5
    assert many.roc_auc().error == state.roc_auc().error == 0.25


def test_the_accuracy_of_a_curve_is_exact_at_its_edges():
    score, y = drawn(500)
    rows = accuracy_of_curve(state_of(score, y)).to_pylist()
    for row in rows[:: len(rows) // 40]:
        guess = score > (logit(np.array([row["threshold"]]))[0])
        assert row["accuracy"] == pytest.approx((guess == y).mean(), abs=2 / 500)
    (half,) = (row for row in rows if row["threshold"] == 0.5)
    assert half["accuracy"] == ((score > 0) == y).mean()
    assert (rows[0]["threshold"], rows[0]["true_positive"]) == (1, 0)
    assert rows[-1]["true_positive"] + rows[-1]["false_positive"] == 500


# Sides -----------------------------------------------------------------------------------------


def many_classes(n=3000, c=5, seed=0, scale=1.0):
    r = np.random.default_rng(seed)
    y = r.integers(0, c, n)
    return ((r.normal(size=(n, c)) + np.eye(c)[y]) * scale).astype("f4"), y


@pytest.mark.parametrize("scale", [1.0, 20.0])
def test_one_vs_rest_scores_are_logits_that_do_not_saturate(scale):
    logits, y = many_classes(scale=scale)
    side = side_of(logits, y)
    x = side.profile.astype("f8")
    for k, score in enumerate(one_vs_rest(side)):
        others = np.delete(x, k, axis=1)
        wanted = x[:, k] - np.log(np.exp(others).sum(1))
        np.testing.assert_allclose(score, wanted, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("exact", [False, True])
def test_ranking_is_that_of_scikit_learn(exact):
    logits, y = many_classes()
    side = side_of(logits, y)
    p = np.exp(side.log_probabilities())
    p /= p.sum(1, keepdims=True)
    table = ranking(side, exact=exact, class_names=list("abcde"))
    rows = table.to_pylist()
    assert table["class"].to_pylist() == [*"abcde", None, None]
    off = 1e-9 if exact else 1e-4
    for k, row in enumerate(rows[:5]):
        auc = metrics.roc_auc_score(y == k, p[:, k])
        assert row["positives"] == (y == k).sum()
        assert abs(row["roc_auc"] - auc) <= row["roc_auc_error"] + 1e-9
        assert row["roc_auc_error"] <= off
        precision = metrics.average_precision_score(y == k, p[:, k])
        assert row["average_precision_low"] - 1e-9 <= precision
        assert precision <= row["average_precision_high"] + 1e-9
        best = max(metrics.f1_score(y == k, p[:, k] >= t) for t in p[::60, k])
        assert row["best_f1_high"] >= best - EXACT
        assert metrics.f1_score(y == k, p[:, k] > row["threshold_f1"]) == pytest.approx(
            row["best_f1"], abs=2e-3
        )
    for average, row in zip(("macro", "weighted"), rows[5:], strict=True):
        auc = metrics.roc_auc_score(y, p, multi_class="ovr", average=average)
        assert row["average"] == average
        assert abs(row["roc_auc"] - auc) <= row["roc_auc_error"] + 1e-9
        assert row["threshold_f1"] is None
        assert row["positives"] == len(y)


def test_a_curve_that_does_not_tell_is_sorted():
    logits, y = many_classes(scale=1e-4)
    side = side_of(logits, y)
    assert max(state.roc_auc().error for state in curves(side)) > 0.1
    told = ranking(side)
    assert told.equals(ranking(side, exact=True))
    assert set(told["roc_auc_error"].to_pylist()) == {0}
    assert ranking(side, tolerance=1.0)["roc_auc_error"].to_pylist()[0] > 0.1


def test_classes_without_samples_are_left_out_of_means():
    logits, y = many_classes(c=4)
    y[y == 2] = 1
    rows = ranking(side_of(logits, y), exact=True).to_pylist()
    assert rows[2]["roc_auc"] is rows[2]["average_precision"] is rows[2]["best_f1"] is None
    assert rows[2]["best_accuracy"] == 1
    known = [rows[k]["roc_auc"] for k in (0, 1, 3)]
    assert rows[4]["roc_auc"] == pytest.approx(np.mean(known), rel=EXACT)


def test_vectors_that_were_not_kept_rank_nothing():
    logits, y = many_classes(n=40, c=20)
    pair = pair_of(logits, logits, y)
    assert ranking(pair.before) is ranking(pair.before, exact=True) is None
    assert curves(pair.before) is ranking_change(pair) is None
    assert ranking(pair.before.take(np.arange(0))) is None


def test_accuracy_by_threshold_is_that_of_the_predictions_at_a_half():
    score, y = drawn(500, steps=4)
    side = side_of(two_classes(score), y)
    rows = accuracy_by_threshold(side).to_pylist()
    assert rows[50]["threshold"] == 0.5
    assert rows[50]["accuracy"] == side.correct.mean()
    p = sigmoid(score.astype("f8"))
    for row in rows[1:-1]:
        guess = p > row["threshold"]
        for name, of in SKLEARN.items():
            if guess.any() or name in ("accuracy", "youden"):
                assert row[name] == pytest.approx(of(y, guess), rel=EXACT, abs=EXACT)
        assert row["recall"] == pytest.approx(metrics.recall_score(y, guess), rel=EXACT)
    assert (rows[0]["accuracy"], rows[-1]["accuracy"]) == (y.mean(), 1 - y.mean())
    assert rows[-1]["precision"] is None
    assert accuracy_by_threshold(side, [0.25])["threshold"].to_pylist() == [0.25]
    certain = side_of(np.array([[1.0, 0], [0, 1]]), [1, 0], "probs")
    found = accuracy_by_threshold(certain, [0, 0.5, 1])
    assert found["true_positive"].to_pylist() == [1, 0, 0]
    assert found["false_positive"].to_pylist() == [1, 1, 0]
    with pytest.raises(UsageError, match="not a probability"):
        accuracy_by_threshold(side, [1.5])
    with pytest.raises(UsageError, match="2 classes, not 5"):
        accuracy_by_threshold(side_of(*many_classes(n=9)))


# Changes ---------------------------------------------------------------------------------------


def delong_by_hand(before, after, y):
    """Return the standard error of the change by the definition, over all pairs."""
    out = []
    for score in (before, after):
        x, z = score[y][:, None], score[~y][None, :]
        wins = (x > z) + 0.5 * (x == z)
        out.append((wins.mean(1), wins.mean(0)))
    (v10, v01), (w10, w01) = out
    s10, s01 = np.cov(v10, w10), np.cov(v01, w01)
    contrast = np.array([-1, 1])
    return np.sqrt(contrast @ (s10 / len(v10) + s01 / len(v01)) @ contrast)


@pytest.mark.parametrize("steps", [None, 2])
def test_the_standard_error_is_delongs(steps):
    before, y = drawn(150, steps=steps)
    after = (before + np.random.default_rng(5).normal(size=150)).astype("f4")
    change = ranking_change(pair_of(two_classes(before), two_classes(after), y))
    aucs = [metrics.roc_auc_score(y, s) for s in (before, after)]
    assert (change.roc_auc_before, change.roc_auc_after) == pytest.approx(aucs, rel=EXACT)
    assert change.delta_auc == pytest.approx(aucs[1] - aucs[0], abs=EXACT)
    assert change.delta_auc_error == 0
    wanted = delong_by_hand(before, after, y)
    assert change.standard_error == pytest.approx(wanted, rel=1e-10)
    assert change.z == pytest.approx(change.delta_auc / wanted, rel=1e-10)
    assert change.p == pytest.approx(2 * stats.norm.sf(abs(change.z)), rel=1e-10)
    json.dumps(asdict(change), allow_nan=False)


def test_the_standard_error_of_a_macro_mean_is_that_of_a_bootstrap():
    logits, y = many_classes(n=600, c=3)
    r = np.random.default_rng(6)
    later = (logits + r.normal(size=logits.shape)).astype("f4")
    pair = pair_of(logits, later, y)
    change = ranking_change(pair)
    exact = ranking_change(pair, exact=True)
    assert abs(change.delta_auc - exact.delta_auc) <= change.delta_auc_error <= 2e-4
    assert change.standard_error == pytest.approx(exact.standard_error, rel=1e-3)
    assert (exact.classes_ranked, exact.best_accuracy_after, exact.threshold_share) == (
        3,
        None,
        None,
    )
    scores = [one_vs_rest(side) for side in (pair.before, pair.after)]
    deltas = []
    for _ in range(300):
        rows = r.integers(0, 600, 600)
        deltas.append(
            np.mean(
                [
                    roc_auc(scores[1][k][rows], y[rows] == k)
                    - roc_auc(scores[0][k][rows], y[rows] == k)
                    for k in range(3)
                ]
            )
        )
    assert exact.standard_error == pytest.approx(np.std(deltas), rel=0.15)
    aucs = []
    for score in scores:
        p = sigmoid(score.T)
        p /= p.sum(1, keepdims=True)
        aucs.append(metrics.roc_auc_score(y, p, multi_class="ovr"))
    assert exact.delta_auc == pytest.approx(aucs[1] - aucs[0], abs=1e-9)


def test_a_shift_moves_accuracy_and_no_rank():
    score, y = drawn(2000, steps=64)
    change = ranking_change(pair_of(two_classes(score), two_classes(score + np.float32(4)), y))
    assert change.delta_accuracy < -0.2
    assert (change.delta_auc, change.z, change.p, change.unchanged) == (0, 0, 1, True)
    assert change.delta_best_accuracy == 0
    assert change.threshold_share == 1
    back = (
        logit(np.array([change.threshold_after]))[0] - logit(np.array([change.threshold_before]))[0]
    )
    assert back == pytest.approx(4, abs=1e-9)


def test_worse_scores_do_change_the_ranking():
    score, y = drawn(2000, share=0.5)
    noise = np.random.default_rng(1).normal(size=2000) * 4
    change = ranking_change(pair_of(two_classes(score), two_classes(score + noise), y))
    assert change.delta_auc < -0.05
    assert change.p < 1e-6
    assert change.unchanged is False
    assert abs(change.threshold_share) < 0.2


def test_what_is_significant_or_large_is_no_unchanged_ranking():
    score, y = drawn(60)
    large = score + np.random.default_rng(3).normal(size=60) * 3
    change = ranking_change(pair_of(two_classes(score), two_classes(large), y))
    assert (abs(change.delta_auc) > 0.005, change.unchanged) == (True, False)
    reversed_, y = np.array([-2.0, -1, 1, 2]), np.array([0, 0, 1, 1])
    change = ranking_change(pair_of(two_classes(reversed_), two_classes(-reversed_), y))
    assert (change.delta_auc, change.standard_error, change.p) == (-1, 0, None)
    assert change.unchanged is False
    alone = ranking_change(pair_of(two_classes(reversed_), two_classes(-reversed_), [0, 0, 0, 1]))
    assert alone.standard_error is alone.p is None


def test_two_sided_p_is_uniform_where_nothing_changed():
    """Two epochs that differ by independent noise of the same size: 5 % are significant."""
    significant = 0
    for seed in range(400):
        r = np.random.default_rng(seed)
        signal, y = drawn(200, seed=seed)
        a, b = (signal + r.normal(size=200) for _ in range(2))
        changes = [placements(s, y)[0] for s in (a, b)]
        total = influence(changes[1] - changes[0], y)
        delta = roc_auc(b, y) - roc_auc(a, y)
        significant += abs(delta) > 1.96 * np.sqrt((total**2).sum())
    assert 8 <= significant <= 34  # 20 expected, standard deviation 4.4


# Real predictions ------------------------------------------------------------------------------


@pytest.mark.skipif(not DATA.is_dir(), reason=f"no real predictions in {DATA}")
@pytest.mark.parametrize("name", ["lenet-5", "wideresnet-16-4", "fashion 20", "fashion 99", "hpc"])
def test_curves_of_real_predictions_tell_the_auc_within_one_in_ten_thousand(name):
    if name.startswith("fashion"):
        folder = DATA / "distill" / "fashion_mnist_test" / f"epoch={name.split()[1]}"
        t = pq.ParquetFile(folder / "part-0.parquet").read()
        p, y = np.stack(t["probs"].to_pylist()).astype("f4"), t["label"].to_numpy()
    elif name == "hpc":
        t = pq.read_table(DATA / "modeldata" / "hpc_cv.parquet")
        classes = ["VF", "F", "M", "L"]
        p = np.stack([t[k].to_numpy() for k in classes], axis=1)
        y = np.array([classes.index(k) for k in t["obs"].to_pylist()])
    else:
        arrays = np.load(DATA / "calibration_framework" / f"{name}-cifar-10.npz")
        p, y = arrays["predictions"], arrays["ground_truth"]
    side = side_of(p, y, "probs")
    errors = [state.roc_auc().error for state in curves(side)]
    assert max(errors) < 1e-4
    for k, row in enumerate(ranking(side).to_pylist()[: side.classes]):
        # 16 bits of a difference of logits are what is kept; ranks move by no more than this.
        auc = metrics.roc_auc_score(y == k, p[:, k])
        assert row["roc_auc"] == pytest.approx(auc, abs=row["roc_auc_error"] + 1e-4)

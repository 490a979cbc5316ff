"""Reliability tables, calibration errors and Murphy's decomposition, against plain definitions."""

import math
from pathlib import Path

import numpy as np
import pytest
from sides import side_of
from sklearn.calibration import calibration_curve

from fastdiv.errors import UsageError
from fastdiv.explain.calibration.errors import binned, calibration, reliability
from fastdiv.explain.calibration.murphy import decompose, murphy
from fastdiv_kernels import reference
from fastdiv_kernels.contract import BINS, PRESENT, Count, LossSum, TallySum
from fastdiv_kernels.exact import LIMBS_32, LIMBS_64

DATA = Path(__file__).resolve().parents[1].parent / "shared" / "data"
real = pytest.mark.skipif(not DATA.is_dir(), reason=f"no real predictions in {DATA}")


def softmax(z):
    u = np.exp(z - z.max(axis=1, keepdims=True))
    return u / u.sum(axis=1, keepdims=True)


def draw(n, c, sharpness=1.0, seed=0):
    rng = np.random.default_rng(seed)
    z = 2.0 * rng.standard_normal((n, c))
    labels = (rng.random((n, 1)) > softmax(z).cumsum(axis=1)).sum(axis=1)
    return softmax(sharpness * z), np.minimum(labels, c - 1)


def side(n, c, sharpness=1.0, seed=0):
    return side_of(*draw(n, c, sharpness, seed), kind="probs")


def errors(p, hit, bins=15):
    """Return the errors from their definitions, a bin at a time; closed on the right."""
    gaps = []
    for i in range(bins):
        held = (np.ceil(bins * p) - 1).clip(0, bins - 1) == i
        if held.any():
            gaps.append((held.mean(), p[held].mean() - hit[held].mean()))
    return {
        "ece": sum(w * abs(g) for w, g in gaps),
        "overconfidence": sum(w * g for w, g in gaps if g > 0),
        "underconfidence": sum(-w * g for w, g in gaps if g < 0),
        "maximum": max(abs(g) for _, g in gaps),
        "rms": math.sqrt(sum(w * g * g for w, g in gaps)),
    }


# Reliability ------------------------------------------------------------------------------------


def test_by_hand():
    p = np.array([[0.9, 0.1], [0.3, 0.7], [0.5, 0.5], [0.25, 0.75], [1.0, 0.0], [1.0, 0.0]])
    x = side_of(p, [0, 0, 1, 1, 0, 1], kind="probs")
    rows = reliability(x, 4).to_pylist()
    assert [row["n"] for row in rows] == [0, 1, 2, 3]
    assert [(row["lower"], row["upper"]) for row in rows] == [
        (0.0, 0.25), (0.25, 0.5), (0.5, 0.75), (0.75, 1.0),
    ]  # fmt: skip
    empty = {"confidence": None, "accuracy": None, "gap": None, "loss": None, "n_infinite": 0}
    assert rows[0].items() >= empty.items()
    wanted = [
        (0.5, 0.0, -math.log(0.5), 0),
        (0.725, 0.5, -(math.log(0.3) + math.log(0.75)) / 2, 0),
        (2.9 / 3, 2 / 3, -math.log(0.9) / 2, 1),
    ]
    for row, (confidence, accuracy, loss, infinite) in zip(rows[1:], wanted, strict=True):
        assert row["confidence"] == pytest.approx(confidence, rel=1e-7)
        assert row["accuracy"] == pytest.approx(accuracy)
        assert row["gap"] == pytest.approx(confidence - accuracy, rel=1e-6)
        assert row["loss"] == pytest.approx(loss, rel=1e-6)
        assert row["n_infinite"] == infinite
    found = calibration(x, 4)
    assert found.ece == pytest.approx((0.5 + 2 * 0.225 + 0.9) / 6, rel=1e-6)
    assert (found.overconfidence, found.underconfidence) == (found.ece, 0.0)
    assert found.maximum == pytest.approx(0.5)


@pytest.mark.parametrize("c", [2, 3, 20])
def test_bins_are_those_of_the_tables(c):
    p, y = draw(3000, c)
    p[:200] = np.eye(c)[y[:200]]  # a confidence of 1, and edges of bins as float32 has them
    p[200:400, 0], p[200:400, 1:] = 0.6, 0.4 / (c - 1)
    x = side_of(p, y, kind="probs")
    counts, bins = np.zeros(len(Count), np.int64), np.zeros((BINS, 2), np.int64)
    losses = np.zeros((len(LossSum), LIMBS_64), np.int64)
    sums = np.zeros((TallySum.BIN_CONFIDENCE + BINS, LIMBS_32), np.int64)
    flags = np.full(len(x), PRESENT, np.uint8)
    stored = [a.astype(np.float32) for a in (x.confidence, x.margin, x.brier)]
    reference.tally(x.loss, *stored, flags, counts, bins, losses, sums)
    assert reliability(x)["n"].to_pylist() == bins[:, 0].tolist()


@pytest.mark.parametrize("bins", [1, 2, 10, 15, 40])
@pytest.mark.parametrize(("scheme", "strategy"), [("width", "uniform"), ("mass", "quantile")])
def test_against_scikit_learn(scheme, strategy, bins):
    x = side(2000, 3, 1.7)
    table = reliability(x, bins, scheme)
    held = table.filter(np.asarray(table["n"]) > 0)
    accuracy, confidence = calibration_curve(
        x.correct, x.confidence, n_bins=bins, strategy=strategy
    )
    np.testing.assert_allclose(held["accuracy"], accuracy, rtol=1e-9)
    np.testing.assert_allclose(held["confidence"], confidence, rtol=1e-9)
    assert sum(table["n"].to_pylist()) == len(x)


def test_bins_of_equal_mass_hold_as_many():
    table = reliability(side(1507, 4), 15, "mass")
    n = np.asarray(table["n"])
    assert n.sum() == 1507
    assert np.ptp(n) <= 1
    lower, upper = np.asarray(table["lower"]), np.asarray(table["upper"])
    np.testing.assert_array_equal(lower[1:], upper[:-1])
    confidence = np.asarray(table["confidence"])
    assert ((lower <= confidence) & (confidence <= upper)).all()


@pytest.mark.parametrize("scheme", ["width", "mass"])
def test_the_order_of_samples_does_not_matter(scheme):
    """Many confidences are equal here, with different outcomes."""
    p, y = draw(900, 3, 3.0)
    p = np.round(p, 1)
    p /= p.sum(axis=1, keepdims=True)
    at = np.random.default_rng(1).permutation(900)
    tables = [
        reliability(side_of(p[i], y[i], kind="probs"), 15, scheme) for i in (np.arange(900), at)
    ]
    assert len(np.unique(side_of(p, y, kind="probs").confidence)) < 40
    for name in ("n", "lower", "upper", "n_infinite"):
        assert tables[0][name] == tables[1][name]
    for name in ("confidence", "accuracy", "gap", "loss"):
        a, b = (np.array(t[name].to_pylist(), np.float64) for t in tables)
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-14)


def test_equal_probabilities_share_the_lowest_bin_they_reach():
    cut = binned(np.array([0.5, 1.0, 1.0, 0.2, 1.0, 1.0, 1.0, 1.0]), 4, "mass")
    # The inner edges have ranks 1, 3 and 5 of 0.2 0.5 1 1 1 1 1 1.
    assert cut.index.tolist() == [0, 1, 1, 0, 1, 1, 1, 1]
    assert cut.edges.tolist() == [0.2, 0.5, 1.0, 1.0, 1.0]
    assert cut.n.tolist() == [2, 6, 0, 0]


# Errors -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("bins", [1, 10, 15])
@pytest.mark.parametrize("sharpness", [0.4, 1.0, 3.0])
@pytest.mark.parametrize("c", [2, 3, 10, 40])
def test_against_definitions(c, sharpness, bins):
    x = side(1500, c, sharpness, seed=c)
    found = calibration(x, bins)
    for name, wanted in errors(x.confidence, x.correct, bins).items():
        assert getattr(found, name) == pytest.approx(wanted, rel=1e-9, abs=1e-15), name
    assert found.overconfidence + found.underconfidence == pytest.approx(found.ece, rel=1e-12)
    if sharpness != 1.0:
        more, less = found.overconfidence, found.underconfidence
        assert (more > less) == (sharpness > 1)


@pytest.mark.parametrize("bins", [1, 10, 15])
@pytest.mark.parametrize("c", [2, 3, 10])
def test_adaptive_against_its_definition(c, bins):
    x = side(1500, c, seed=c)
    assert len(np.unique(x.confidence)) == 1500
    gaps = (x.confidence - x.correct)[np.argsort(x.confidence)]
    last = [i * 1499 // bins for i in range(1, bins)]  # of each bin but the last
    adaptive = sum(abs(part.sum()) for part in np.split(gaps, np.array(last, int) + 1)) / 1500
    assert calibration(x, bins).adaptive_ece == pytest.approx(adaptive, rel=1e-9)


@pytest.mark.parametrize("c", [2, 3, 10])
def test_class_by_class(c):
    p, y = draw(2000, c, 2.0)
    x = side_of(p, y, kind="probs")
    found = calibration(x)
    kept = np.exp(x.log_probabilities())
    by_class = [errors(kept[:, k], y == k)["ece"] for k in range(c)]
    np.testing.assert_allclose(found.classwise["ece"], by_class, rtol=1e-9)
    assert found.classwise_ece == pytest.approx(np.mean(by_class), rel=1e-9)
    # What 16 bits of each difference of logits cost; two classes are kept in 32.
    exact = np.mean([errors(p[:, k], y == k)["ece"] for k in range(c)])
    assert found.classwise_ece == pytest.approx(exact, rel=1e-6 if c == 2 else 5e-3)
    rows = found.classwise.to_pylist()
    assert [row["class"] for row in rows] == list(range(c))
    assert [row["support"] for row in rows] == np.bincount(y, minlength=c).tolist()
    for k, row in enumerate(rows):
        assert row["frequency"] == pytest.approx((y == k).mean())
        assert row["probability"] == pytest.approx(p[:, k].mean(), rel=1e-4)
        assert row["gap"] == pytest.approx(row["probability"] - row["frequency"], abs=1e-15)


def test_class_by_class_needs_the_vectors():
    many = calibration(side(100, 20))
    assert (many.classwise, many.classwise_ece) == (None, None)
    assert many.ece is not None


@pytest.mark.parametrize("sharpness", [0.5, 1.3])
@pytest.mark.parametrize("c", [2, 5])
def test_against_torchmetrics(c, sharpness):
    """Its bins are closed on the left, and 1 has one of its own: no confidence here is an edge."""
    pytest.importorskip("torchmetrics")
    import torch
    from torchmetrics.functional.classification import multiclass_calibration_error

    p, y = draw(200, c, sharpness)
    found = calibration(side_of(p, y, kind="probs"), 12)
    for norm, name in (("l1", "ece"), ("l2", "rms"), ("max", "maximum")):
        wanted = multiclass_calibration_error(
            torch.from_numpy(p), torch.from_numpy(y), c, n_bins=12, norm=norm
        )
        # It adds in float32, up to 200 here.
        assert getattr(found, name) == pytest.approx(float(wanted), rel=1e-6, abs=2e-7)


@real
@pytest.mark.parametrize("name", ["lenet-5", "wideresnet-16-4"])
def test_real_networks(name):
    arrays = np.load(DATA / "calibration_framework" / f"{name}-cifar-10.npz")
    p, y = arrays["predictions"], arrays["ground_truth"].ravel()
    x = side_of(p, y, kind="probs")
    found = calibration(x)
    for key, wanted in errors(x.confidence, x.correct).items():
        assert getattr(found, key) == pytest.approx(wanted, rel=1e-9, abs=1e-15)
    wide = p.astype(np.float64)
    exact = np.mean([errors(wide[:, k], y == k)["ece"] for k in range(10)])
    assert found.classwise_ece == pytest.approx(exact, rel=1e-2)
    for scheme in ("width", "mass"):
        assert abs(murphy(x, scheme=scheme).closure_error) < 1e-14


# Murphy -----------------------------------------------------------------------------------------


def parts(m):
    return (
        m.reliability - m.resolution + m.uncertainty
        + m.within_bin_variance - m.within_bin_covariance
    )  # fmt: skip


def test_murphy_by_hand():
    """Two bins: (.1, .3) with outcomes 0, 1 and (.7, .9, .9) with 1, 1, 0."""
    m = decompose(np.array([0.1, 0.3, 0.7, 0.9, 0.9]), np.array([0, 1, 1, 1, 0], bool), 2)
    second = 2.5 / 3
    assert m.brier == pytest.approx((0.01 + 0.49 + 0.09 + 0.01 + 0.81) / 5)
    assert m.uncertainty == pytest.approx(0.24)
    assert m.reliability == pytest.approx((2 * 0.3**2 + 3 * (second - 2 / 3) ** 2) / 5)
    assert m.resolution == pytest.approx((2 * 0.1**2 + 3 * (2 / 3 - 0.6) ** 2) / 5)
    spread = 2 * 0.1**2 + (0.7 - second) ** 2 + 2 * (0.9 - second) ** 2
    assert m.within_bin_variance == pytest.approx(spread / 5)
    shared = 2 * (0.1 * 0.5) + (0.7 - second) / 3 + (0.9 - second) * (1 / 3 - 2 / 3)
    assert m.within_bin_covariance == pytest.approx(2 * shared / 5)
    assert parts(m) == pytest.approx(m.brier, abs=1e-15)
    assert m.reliability - m.generalized_resolution + m.uncertainty == pytest.approx(m.brier)


@pytest.mark.parametrize("scheme", ["width", "mass"])
@pytest.mark.parametrize("bins", [1, 7, 15, 5000])
@pytest.mark.parametrize("c", [2, 6])
def test_murphy_closes(c, bins, scheme):
    x = side(1000, c, 2.0)
    for event in ("correct", "positive") if c == 2 else ("correct",):
        m = murphy(x, event, bins, scheme)
        assert abs(m.closure_error) < 1e-14
        assert parts(m) - m.brier == pytest.approx(m.closure_error, abs=1e-16)
        hit = x.correct if event == "correct" else x.labels == 1
        assert m.uncertainty == pytest.approx(hit.mean() * (1 - hit.mean()))
    if c == 2:
        assert murphy(x, "positive").brier == pytest.approx(x.brier.mean() / 2, rel=1e-6)


def test_forecasts_of_few_values_have_nothing_within_bins():
    rng = np.random.default_rng(0)
    forecasts = rng.choice([0.05, 0.25, 0.65], 500)
    m = decompose(forecasts, rng.random(500) < forecasts, 10)
    assert m.within_bin_variance == pytest.approx(0.0, abs=1e-15)
    assert m.within_bin_covariance == pytest.approx(0.0, abs=1e-15)
    assert m.brier == pytest.approx(m.reliability - m.resolution + m.uncertainty, abs=1e-14)


def test_murphy_of_what_is_not_binary():
    with pytest.raises(UsageError, match="3 classes: a positive one is there of two"):
        murphy(side(5, 3), "positive")
    with pytest.raises(UsageError, match="no decomposition for the event 'rain'"):
        murphy(side(5, 2), "rain")


# The edges of what can be -----------------------------------------------------------------------


def test_no_samples():
    none = side_of(np.zeros((0, 3)), [])
    for scheme in ("width", "mass"):
        table = reliability(none, 5, scheme)
        assert table["n"].to_pylist() == [0] * 5
        assert table["confidence"].null_count == table["loss"].null_count == 5
    found = calibration(none)
    assert (found.n, found.ece, found.adaptive_ece, found.classwise) == (0, None, None, None)
    assert murphy(none) is None


@pytest.mark.parametrize("right", [True, False])
@pytest.mark.parametrize("c", [2, 3])
def test_all_right_or_all_wrong_or_one(c, right):
    for n in (1, 20):
        p = np.full((n, c), 0.2 / (c - 1))
        p[:, 0] = 0.8
        x = side_of(p, np.full(n, 0 if right else 1), kind="probs")
        found, m = calibration(x), murphy(x)
        gap = 0.2 if right else 0.8
        assert found.ece == found.adaptive_ece == pytest.approx(gap, rel=1e-6)
        assert found.maximum == found.rms == pytest.approx(gap, rel=1e-6)
        assert (found.underconfidence > 0) == right
        assert (found.overconfidence > 0) == (not right)
        assert m.brier == pytest.approx(gap**2, rel=1e-6)
        assert (m.uncertainty, m.resolution) == (0.0, 0.0)


def test_infinite_losses():
    p = np.eye(3)[[0, 1, 2, 0]]
    x = side_of(p, [1, 1, 1, 1], kind="probs")
    (row,) = (row for row in reliability(x, 15).to_pylist() if row["n"])
    assert (row["n"], row["n_infinite"], row["loss"]) == (4, 3, 0.0)
    only = reliability(x.take(~np.isfinite(x.loss)), 15)
    assert only["loss"].null_count == 15
    found = calibration(x)
    assert found.ece == found.maximum == found.overconfidence == 0.75
    assert found.classwise_ece == pytest.approx((0.5 + 0.75 + 0.25) / 3)
    assert murphy(x).brier == 0.75


def test_one_class():
    x = side_of(np.zeros((4, 1)), [0] * 4)
    found = calibration(x)
    assert found.ece == found.adaptive_ece == found.classwise_ece == 0.0
    assert murphy(x).brier == 0.0


def test_bins_that_cannot_be():
    with pytest.raises(UsageError, match="0 bins: ask for 1 or more"):
        reliability(side(5, 2), 0)
    with pytest.raises(UsageError, match="no bins of equal depth: take 'width' or 'mass'"):
        reliability(side(5, 2), 5, "depth")

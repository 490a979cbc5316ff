"""The best temperature, from totals and from samples, against SciPy on the logits themselves."""

import math
from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from sides import pair_of, side_of

from fastdiv.explain.calibration.refinement import refinement, refinement_change
from fastdiv.temperature import Tempered, best_temperature, on_grid, tempered
from fastdiv_kernels import reference
from fastdiv_kernels.contract import GRID, PRESENT
from fastdiv_kernels.exact import LIMBS_FIXED

DATA = Path(__file__).resolve().parents[1].parent / "shared" / "data"
real = pytest.mark.skipif(not DATA.is_dir(), reason=f"no real predictions in {DATA}")

LOSS = 1e-4  # nats that a refined loss may be off by
BETA = 1e-3  # of itself, that the best inverse temperature may be


def curve(logits, labels):
    """Return the mean loss as a function of log(beta), in float64."""
    z = np.asarray(logits).astype(np.float64)
    x = z - z.max(axis=1, keepdims=True)
    gap = -x[np.arange(len(x)), labels].mean()
    return lambda t: np.log(np.exp(math.exp(t) * x).sum(axis=1)).mean() + math.exp(t) * gap


def best(logits, labels):
    """Return the best beta in the range of the grid, the loss there and at 1, as SciPy finds it."""
    loss = curve(logits, labels)
    limits = math.log(GRID[0]), math.log(GRID[-1])
    found = minimize_scalar(loss, bounds=limits, method="bounded", options={"xatol": 1e-9})
    return math.exp(found.x), found.fun, loss(0.0)


def totals(side):
    counts = np.zeros(1, np.int64)
    sums = np.zeros((2 * len(GRID), LIMBS_FIXED), np.int64)
    flags = np.full(len(side), PRESENT, np.uint8)
    reference.tally_temperatures(
        side.loss, side.margin, flags, side.profile, side.classes, counts, sums
    )
    return counts, sums


def draw(n, c, tails, factor, dtype=np.float64, seed=0):
    """Draw calibrated logits with heavy tails, and multiply them: the best beta is 1 / factor."""
    rng = np.random.default_rng(seed)
    if tails == "t":
        z = 1.5 * rng.standard_t(3, (n, c))
    else:
        z = rng.standard_normal((n, c)) * rng.lognormal(0.5, 1.0, (n, 1))
    p = np.exp(z - z.max(axis=1, keepdims=True))
    labels = (rng.random((n, 1)) > (p / p.sum(axis=1, keepdims=True)).cumsum(axis=1)).sum(axis=1)
    return (factor * z).astype(dtype), np.minimum(labels, c - 1)


def of_totals(side):
    """Find the best temperature from totals; None where no loss is finite."""
    finite = side.loss[side.finite]
    return tempered(*totals(side), float(finite.mean()) if len(finite) else None)


def assert_near(found, wanted, loss_within=LOSS, beta_within=BETA):
    beta, lowest, loss = wanted
    assert found.bound is None
    assert found.refinement == pytest.approx(lowest, abs=loss_within)
    assert found.beta == pytest.approx(beta, rel=beta_within)
    assert found.temperature == pytest.approx(1 / beta, rel=beta_within)
    assert found.loss == pytest.approx(loss, abs=1e-6)
    assert found.refinement + found.calibration == pytest.approx(found.loss, abs=1e-15)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("factor", [1 / 3.5, 0.6, 1.0, 2.5, 6.0])
@pytest.mark.parametrize("tails", ["t", "lognormal"])
@pytest.mark.parametrize("c", [2, 3, 10])
def test_few_classes(c, tails, factor, dtype):
    z, y = draw(1000, c, tails, factor, dtype, seed=c)
    wanted, side = best(z, y), side_of(z, y)
    assert_near(of_totals(side), wanted)
    # Samples are evaluated at any temperature, without an interpolation.
    assert_near(refinement(side), wanted, 2e-5, 5e-5)


@pytest.mark.parametrize(
    ("c", "tails", "factor", "dtype"),
    [
        (100, "t", 1 / 3.5, np.float64),
        (100, "t", 6.0, np.float16),
        (100, "lognormal", 0.6, np.float32),
        (100, "lognormal", 1.0, np.float64),
        (1000, "t", 1 / 3.5, np.float32),
        (1000, "lognormal", 1 / 3.5, np.float16),
        (1000, "lognormal", 1.3, np.float32),
        (1000, "lognormal", 6.0, np.float64),
    ],
)
def test_many_classes(c, tails, factor, dtype):
    z, y = draw(1000, c, tails, factor, dtype, seed=c)
    wanted, side = best(z, y), side_of(z, y)
    whole = of_totals(side)
    assert_near(whole, wanted)
    # Of samples too no more is kept than the grid: all that differs is the rounding of sums.
    found = refinement(side)
    assert found.beta == pytest.approx(whole.beta, rel=1e-6)
    assert found.refinement == pytest.approx(whole.refinement, abs=1e-6)
    assert found.loss == whole.loss


def test_to_twelve_digits():
    """Of two classes with one margin m, a share a right: sigmoid(beta * m) = a at the best."""
    z = np.tile([[0.0, 2.0]], (10, 1))
    y = [1] * 8 + [0] * 2
    found = refinement(side_of(z, y))
    assert found.beta == pytest.approx(math.log(4) / 2, rel=1e-12)
    entropy = -(0.8 * math.log(0.8) + 0.2 * math.log(0.2))
    assert found.refinement == pytest.approx(entropy, abs=1e-12)
    for beta in (0.13, 0.3, 0.97, 1.9, 3.9):
        slope = (lambda b: lambda x: ((x - b) ** 2, 2 * x * (x - b), 2 * x * (2 * x - b)))(beta)
        assert best_temperature(slope, 1).beta == pytest.approx(beta, rel=2e-12)


def test_nothing_gained_is_exactly_one():
    calibrated = np.tile([[0.0, math.log(4)]], (10, 1))
    side = side_of(calibrated.astype(np.float32), [1] * 8 + [0] * 2)
    for found in (refinement(side), tempered(*totals(side))):
        assert (found.beta, found.temperature, found.bound) == (1.0, 1.0, None)
        assert found.calibration == pytest.approx(0.0, abs=1e-7)


@pytest.mark.parametrize("c", [2, 3, 20])
@pytest.mark.parametrize("right", [True, False])
def test_bounds(c, right):
    """Where all are right, sharper is better without end; where all are wrong, flatter."""
    z = np.random.default_rng(1).standard_normal((50, c))
    y = z.argmax(axis=1) if right else z.argmin(axis=1)
    side = side_of(z, y)
    for found in (refinement(side), tempered(*totals(side))):
        end, name = (GRID[-1], "upper") if right else (GRID[0], "lower")
        assert (found.beta, found.bound, found.n) == (end, name, 50)
        assert found.refinement == pytest.approx(curve(z, y)(math.log(end)), abs=5e-4)
        assert found.calibration > 0


@pytest.mark.parametrize(
    ("logits", "label"), [([0.0, 0.0, 0.0], 1), ([0.0, 80.0, 0.0], 1), ([5.0], 0)]
)
def test_the_same_at_all_temperatures(logits, label):
    side = side_of(np.array([logits]), [label])
    for found in (refinement(side), tempered(*totals(side))):
        assert (found.beta, found.bound, found.n) == (1.0, None, 1)
        assert found.calibration == pytest.approx(0.0, abs=1e-7)


@pytest.mark.parametrize("c", [2, 3, 20])
def test_one_sample(c):
    z = np.arange(c, dtype=np.float64)[None, :]
    for label, end in ((c - 1, "upper"), (0, "lower")):
        side = side_of(z, [label])
        assert refinement(side).bound == of_totals(side).bound == end


def test_nothing_to_tell():
    assert tempered(np.zeros(1, np.int64), np.zeros((2 * len(GRID), 2), np.int64)) is None
    none = side_of(np.zeros((0, 3)), [])
    assert refinement(none) is None
    infinite = side_of(np.array([[1.0, 0.0, 0.0]]), [1], kind="probs")
    assert refinement(infinite) is None
    assert tempered(*totals(infinite)) is None
    nothing_kept = side_of(np.zeros((4, 3)), [0, 1, 2, 0])
    object.__setattr__(nothing_kept, "has_profile", False)
    assert refinement(nothing_kept) is None


def test_totals_add_up():
    z, y = draw(600, 5, "t", 2.0)
    whole = totals(side_of(z, y))
    parts = [totals(side_of(z[i], y[i])) for i in (slice(0, 7), slice(7, 600))]
    added = [a + b for a, b in zip(*parts, strict=True)]
    assert tempered(*added) == tempered(*whole)


def test_a_few_terrible_predictions_are_not_interpolated():
    """What is linear in beta is exact, however large: here the mean loss is a million nats."""
    z, y = draw(500, 4, "t", 1.0)
    loss, far = curve(z, y), 1e6
    knots = [math.log(beta) for beta in GRID]
    values = np.array([loss(t) + far * math.exp(t) for t in knots])
    h = 1e-5
    slopes = np.array([(loss(t + h) - loss(t - h)) / (2 * h) + far * math.exp(t) for t in knots])
    evaluate = on_grid(values, slopes)
    for t in np.linspace(knots[0], knots[-1], 41):
        assert evaluate(math.exp(t))[0] == pytest.approx(loss(t) + far * math.exp(t), abs=1e-3)


def test_an_infinite_loss_is_passed_over_and_counted():
    p = np.array([[0.7, 0.2, 0.1], [0.2, 0.5, 0.3], [0.6, 0.4, 0.0], [0.1, 0.1, 0.8]] * 5)
    y = np.array([0, 2, 2, 2] * 5)
    side = side_of(p, y, kind="probs")
    kept = y != np.where(p[:, 2] == 0, 2, -1)
    assert refinement(side) == refinement(side.take(np.flatnonzero(kept)))
    assert refinement(side).n == tempered(*totals(side)).n == 15
    with np.errstate(divide="ignore"):
        assert_near(refinement(side), best(np.log(p[kept]), y[kept]))


def test_a_change():
    z, y = draw(800, 6, "lognormal", 1.0)
    before, after = z.copy(), 4.0 * z
    after[:10, :] = -np.inf
    after[np.arange(10), (y[:10] + 1) % 6] = 0.0
    change = refinement_change(pair_of(before, after, y))
    assert (change.n, change.n_infinite) == (790, 10)
    assert abs(change.closure_error) < 1e-14
    # The same logits but for a factor: nothing is lost but calibration.
    assert change.delta_refinement == pytest.approx(0.0, abs=1e-5)
    assert change.delta_calibration == pytest.approx(change.delta_loss, abs=1e-5)
    assert change.after.beta * 4 == pytest.approx(change.before.beta, rel=1e-4)
    wanted = curve(after[10:], y[10:])(0.0) - curve(before[10:], y[10:])(0.0)
    assert change.delta_loss == pytest.approx(wanted, abs=1e-12)
    assert isinstance(change.before, Tempered)


def test_no_change_to_tell():
    p = np.array([[1.0, 0.0], [0.5, 0.5]])
    assert refinement_change(pair_of(p, p[::-1], [1, 1], kind="probs")) is None
    assert refinement_change(pair_of(np.zeros((0, 3)), np.zeros((0, 3)), [])) is None


# Other people's predictions -------------------------------------------------------------------


def label_errors(name):
    p = np.load(DATA / "label_errors" / f"{name}_test_set_pyx.npy")
    return p, np.load(DATA / "label_errors" / f"{name}_test_set_original_labels.npy")


def networks(name):
    arrays = np.load(DATA / "calibration_framework" / f"{name}-cifar-10.npz")
    return arrays["predictions"], arrays["ground_truth"]


@real
@pytest.mark.parametrize(
    ("read", "name"),
    [
        (networks, "lenet-5"),
        (networks, "wideresnet-16-4"),
        (label_errors, "imdb"),
        (label_errors, "cifar10"),
        (label_errors, "mnist"),
    ],
)
def test_real_networks(read, name):
    p, y = read(name)
    y = y.ravel()
    side = side_of(p, y, kind="probs")
    with np.errstate(divide="ignore"):
        beta, lowest, _ = best(np.log(p), y)
        wanted = beta, lowest, -np.log(p[np.arange(len(y)), y]).mean()  # not renormalised
    assert_near(of_totals(side), wanted)
    assert_near(refinement(side), wanted, 1e-5, 1e-4)


@real
def test_where_the_logarithm_of_zero_is_cut_does_not_matter():
    """Each cut moves the result by less than what is promised of it."""
    p, y = label_errors("20news")
    side = side_of(p, y, kind="probs")
    rows = np.arange(len(y))
    assert (p == 0).sum() > 61
    assert (p[rows, y] == 0).sum() == 61
    found = of_totals(side)
    assert found.n == refinement(side).n == len(y) - 61
    kept = p[rows, y] > 0
    of_cuts = []
    for lowest in (-np.inf, -745.0, -103.0, -36.0):
        with np.errstate(divide="ignore"):
            cut = np.maximum(np.log(p[kept]), lowest)
        beta, loss, _ = best(cut, y[kept])
        assert found.beta == pytest.approx(beta, rel=BETA)
        assert found.refinement == pytest.approx(loss, abs=LOSS)
        of_cuts.append(of_totals(side_of(cut, y[kept])))
    assert np.ptp([each.beta for each in of_cuts]) < BETA * found.beta
    assert np.ptp([each.refinement for each in of_cuts]) < LOSS

"""Chance: tails against scipy, intervals against what they promise, and false alarms counted."""

import json
import math
from itertools import product

import numpy as np
import pyarrow as pa
import pytest
from scipy import optimize, stats
from sides import pair_of

from fastdiv.errors import UsageError
from fastdiv.explain.chance.change import change, changes
from fastdiv.explain.chance.normal import (
    fair_binomial_tail,
    normal_quantile,
    normal_two_sided,
    student_limit,
    student_two_sided,
)
from fastdiv.explain.chance.tests import (
    FEWEST,
    accuracy_interval,
    holm,
    mcnemar,
    mean_test,
    mean_test_of_moments,
    probability,
    significant,
)


@pytest.mark.parametrize("q", [1e-300, 1e-100, 1e-16, 1e-3, 0.025, 0.4999, 0.5, 0.7, 0.975])
def test_normal_tails(q):
    assert normal_quantile(q) == pytest.approx(stats.norm.ppf(q), rel=1e-14, abs=1e-15)
    z = stats.norm.ppf(q)
    assert normal_two_sided(z) == pytest.approx(2 * stats.norm.sf(abs(z)), rel=1e-12)


def test_normal_quantiles_at_the_ends():
    assert (normal_quantile(0), normal_quantile(1)) == (-math.inf, math.inf)
    assert normal_quantile(5e-324) == normal_quantile(1e-300)
    for q in (-0.1, 1.1, math.nan):
        with pytest.raises(ValueError, match="not a probability"):
            normal_quantile(q)


@pytest.mark.parametrize("degrees", [0.3, 0.7, 2, 3.5, 10, 29, 100, 999.5, 1e4, 1.1e4, 1e6, 1e8])
def test_student_tails(degrees):
    for t in (0.1, 0.5, 1.7, 3, -3, 10, 30):
        expected = 2 * stats.t.sf(abs(t), degrees)
        assert student_two_sided(t, degrees) == pytest.approx(expected, rel=1e-8)
    for p in (0.5, 0.05, 0.01, 1e-6):
        assert student_limit(p, degrees) == pytest.approx(stats.t.isf(p / 2, degrees), rel=1e-10)


def test_student_tails_at_the_ends():
    assert student_two_sided(0.0, 5) == 1
    assert student_two_sided(math.inf, 5) == 0
    assert student_two_sided(math.inf, 0) == 1
    assert student_limit(0.05, 0.1) == math.inf


def test_mcnemar_is_the_exact_binomial_test():
    for b, c in product((0, 1, 2, 3, 7, 15, 16, 17, 100), (0, 1, 5, 16, 40, 120)):
        if b + c:
            expected = stats.binomtest(b, b + c).pvalue
            assert mcnemar(b, c) == mcnemar(c, b) == pytest.approx(expected, rel=1e-12)
    assert mcnemar(0, 0) == 1


@pytest.mark.parametrize(
    ("b", "c"), [(1000, 1200), (50_000, 51_000), (10**6, 10**6 + 1), (499_900_000, 500_000_000)]
)
def test_mcnemar_of_large_counts(b, c):
    expected = min(1, 2 * stats.binom.cdf(b, b + c, 0.5))
    assert mcnemar(b, c) == pytest.approx(expected, rel=1e-9)


def test_mcnemar_neither_overflows_nor_divides_by_nothing():
    assert mcnemar(0, 10**9) == 0
    assert mcnemar(10**6, 10**9) == 0
    assert fair_binomial_tail(0, 0) == 1


def score_by_maximum_likelihood(b, c, n, change):
    """Tango's statistic, its nuisance parameter found by a search."""

    def minus_log_likelihood(lost):
        terms = ((b, lost), (c, lost + change), (n - b - c, 1 - 2 * lost - change))
        return -sum(k * math.log(max(p, 1e-300)) for k, p in terms if k)

    bounds = (max(0.0, -change), (1 - change) / 2)
    lost = optimize.minimize_scalar(minus_log_likelihood, bounds=bounds, options={"xatol": 1e-12}).x
    return (c - b - n * change) / math.sqrt(n * (2 * lost + change * (1 - change)))


@pytest.mark.parametrize(("b", "c", "n"), [(3, 9, 100), (1, 0, 20), (40, 12, 64), (5, 5, 1000)])
def test_the_interval_of_accuracy_is_where_tangos_score_ends(b, c, n):
    low, high = accuracy_interval(b, c, n)
    assert low < (c - b) / n < high
    z = stats.norm.ppf(0.975)
    assert score_by_maximum_likelihood(b, c, n, low) == pytest.approx(z, abs=1e-4)
    assert score_by_maximum_likelihood(b, c, n, high) == pytest.approx(-z, abs=1e-4)


def test_the_interval_of_accuracy_at_the_ends():
    z2 = stats.norm.ppf(0.975) ** 2
    assert accuracy_interval(0, 0, 100) == pytest.approx((-z2 / (100 + z2), z2 / (100 + z2)))
    assert accuracy_interval(0, 0, 0) == (-1, 1)
    assert accuracy_interval(0, 1, 1)[1] == 1
    assert accuracy_interval(10, 0, 10)[0] == -1
    low, high = accuracy_interval(10**6, 10**6 + 1000, 10**9)
    se = math.sqrt(2 * 10**6) / 10**9
    assert (low, high) == pytest.approx((1e-6 - 1.96 * se, 1e-6 + 1.96 * se), rel=1e-3)
    assert accuracy_interval(3, 9, 50) == tuple(-x for x in accuracy_interval(9, 3, 50)[::-1])
    with pytest.raises(UsageError, match="between 0 and 1"):
        accuracy_interval(1, 2, 3, level=95)


def test_the_interval_of_accuracy_covers_as_often_as_it_says():
    n, lost, won = 40, 0.1, 0.2
    covered = 0.0
    for b, c in product(range(n + 1), repeat=2):
        p = (
            stats.multinomial.pmf([b, c, n - b - c], n, [lost, won, 1 - lost - won])
            if b + c <= n
            else 0
        )
        if p > 1e-6:
            low, high = accuracy_interval(b, c, n)
            covered += p * (low <= won - lost <= high)
    assert 0.94 < covered < 0.965


def test_a_mean_test_is_hall_against_student():
    d = np.random.default_rng(0).exponential(size=400) - 0.9
    test = mean_test(d)
    n, se = len(d), stats.sem(d)
    assert (test.n, test.mean, test.standard_error) == pytest.approx((n, d.mean(), se))
    assert test.skewness == pytest.approx(stats.skew(d))
    assert test.effective_n == pytest.approx((d**2).sum() ** 2 / (d**4).sum())
    assert test.t == pytest.approx(stats.ttest_1samp(d, 0).statistic)
    t, k = test.t, stats.skew(d) / math.sqrt(n)
    hall = t + k * t**2 / 3 + k**2 * t**3 / 27 + k / 6
    assert test.t_corrected == pytest.approx(hall)
    assert test.p == pytest.approx(2 * stats.t.sf(abs(hall), test.effective_n - 1))
    assert test.p == probability(test)


@pytest.mark.parametrize("level", [0.8, 0.95, 0.999])
def test_the_interval_is_where_halls_statistic_is_at_its_limit(level):
    d = np.random.default_rng(1).exponential(size=300)
    test = mean_test(d, level)
    k = test.skewness / math.sqrt(test.n)
    limit = stats.t.isf((1 - level) / 2, test.effective_n - 1)
    for end, wanted in ((test.low, limit), (test.high, -limit)):
        t = (test.mean - end) / test.standard_error
        assert t + k * t**2 / 3 + k**2 * t**3 / 27 + k / 6 == pytest.approx(wanted, rel=1e-9)


@pytest.mark.parametrize("draw", ["standard_normal", "standard_cauchy", "standard_exponential"])
def test_the_interval_holds_0_exactly_where_nothing_is_significant(draw):
    rng = np.random.default_rng(2)
    decided = set()
    for n in (1, 2, 3, 5, 6, 7, 10, 50, 300):
        for shift in (0, 0.3, -1, 10):
            test = mean_test(getattr(rng, draw)(n) + shift)
            assert significant(test) == (not test.low <= 0 <= test.high)
            decided.add(significant(test))
    assert decided == {True, False}


def test_sums_of_parts_give_the_same_test():
    d = np.random.default_rng(3).standard_t(3, 1000)
    sums = np.sum([[(part**k).sum() for k in (1, 2, 3, 4)] for part in np.split(d, 4)], axis=0)
    whole, merged = mean_test(d), mean_test_of_moments(len(d), *map(float, sums))
    for name in whole.to_dict():
        assert getattr(merged, name) == pytest.approx(getattr(whole, name), rel=1e-9)


@pytest.mark.parametrize("scale", [1e-300, 1e-30, 1e30, 1e300])
def test_no_size_of_numbers_changes_what_is_found(scale):
    d = np.random.default_rng(4).exponential(size=50)
    test, scaled = mean_test(d), mean_test(d * scale)
    assert scaled.t_corrected == pytest.approx(test.t_corrected, rel=1e-12)
    assert (scaled.low, scaled.high) == pytest.approx((test.low * scale, test.high * scale))


@pytest.mark.parametrize(
    ("d", "effective", "p", "interval"),
    [
        ([], 0, None, (-math.inf, math.inf)),
        ([3.0], 1, None, (-math.inf, math.inf)),
        ([0.0] * 100, 0, None, (0, 0)),
        ([0.1] * 3, 3, None, (-math.inf, math.inf)),
        ([0.1] * 50, 50, 2.0**-49, (0.1, 0.1)),
        ([5e-324] * 40, 40, 2.0**-39, (5e-324, 5e-324)),
        ([1e308, -1e308], 2, None, (-math.inf, math.inf)),
        ([0.0] * 500 + [9.0], 1, None, (-math.inf, math.inf)),
    ],
)
def test_where_little_can_be_said(d, effective, p, interval):
    test = mean_test(np.array(d))
    assert test.effective_n == pytest.approx(effective)
    assert test.p == p
    assert (test.low, test.high) == pytest.approx(interval)
    assert significant(test) == (p is not None)
    assert "Infinity" not in json.dumps(test.to_dict())
    if len(d) < 2:
        assert mean_test_of_moments(len(d), *(float(sum(d)) ** k for k in (1, 2, 3, 4))) == test
    assert not any(isinstance(v, float) and math.isnan(v) for v in test.to_dict().values())


def test_what_is_no_number_is_refused():
    for bad in (math.nan, math.inf):
        with pytest.raises(ValueError, match="finite"):
            mean_test(np.array([1.0, bad]))
        with pytest.raises(ValueError, match="finite"):
            mean_test_of_moments(2, bad, 1, 1, 1)
    with pytest.raises(UsageError, match="between 0 and 1"):
        mean_test(np.ones(3), level=95)


def test_a_few_samples_that_carry_a_change_have_no_p_value_but_a_cautious_decision():
    d = np.zeros(1000)
    d[:4] = 1.0
    test = mean_test(d)
    assert test.effective_n == 4
    assert test.p is None
    assert abs(test.t_corrected) > 2.5  # which the normal distribution would call significant
    assert not significant(test)
    d[:20] = 1.0
    assert mean_test(d).p is None
    assert significant(mean_test(d))


DRAWS = {
    "normal": lambda rng, n: rng.standard_normal(n),
    "lognormal": lambda rng, n: rng.lognormal(size=n) - math.exp(0.5),
    "t(2.5)": lambda rng, n: rng.standard_t(2.5, n),
    ".3 % carry": lambda rng, n: (
        0.01 * rng.standard_normal(n)
        + (rng.random(n) < 0.003) * rng.exponential(size=n) * rng.choice([-1, 1], n)
    ),
}


@pytest.mark.parametrize("name", DRAWS)
@pytest.mark.parametrize("n", [100, 1000])
def test_false_alarms_are_as_rare_as_promised(name, n):
    rng, times = np.random.default_rng(5), 1500
    alarms = sum(significant(mean_test(DRAWS[name](rng, n))) for _ in range(times))
    # 6 % and two standard errors of what is counted, 1.2 %
    assert alarms / times < 0.072


def test_a_real_change_is_found_about_as_often_as_by_students_test():
    rng, times = np.random.default_rng(6), 1000
    found = sum(significant(mean_test(rng.standard_normal(100) + 0.3)) for _ in range(times))
    assert found / times > 0.78  # Student's own power is 84 %


def test_holm_steps_down():
    assert holm([]) == []
    assert holm([None]) == [None]
    p = [0.01, None, 0.04, 0.03, 0.005]
    assert holm(p) == pytest.approx([0.03, None, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]


@pytest.mark.parametrize("seed", range(5))
def test_holm_rejects_what_its_definition_rejects(seed):
    p = np.random.default_rng(seed).random(12) ** 4
    order = np.argsort(p)
    kept = next((i for i, j in enumerate(order) if p[j] > 0.05 / (12 - i)), 12)
    rejected = {i for i, value in enumerate(holm(p.tolist())) if value <= 0.05}
    assert rejected == set(order[:kept].tolist())


def shifted(n, before, after, seed=0, noise=0.2):
    """Return a pair of two classes whose label's logit moves from one to another."""
    rng = np.random.default_rng(seed)
    sides = []
    for level in (before, after):
        x = np.zeros((n, 2))
        x[:, 0] = level + noise * rng.standard_normal(n)
        sides.append(x)
    return pair_of(*sides, np.zeros(n, int))


@pytest.mark.parametrize(
    ("before", "after", "quadrant"),
    [
        (0.05, -0.05, "loss_up_accuracy_down"),
        (-0.05, 0.05, "loss_down_accuracy_up"),
        (2.0, 3.0, "loss_down_accuracy_flat"),
        (3.0, 2.0, "loss_up_accuracy_flat"),
        (1.0, 1.0, "loss_flat_accuracy_flat"),
    ],
)
def test_quadrants(before, after, quadrant):
    pair = shifted(2000, before, after)
    found = change(pair)
    assert found.quadrant == quadrant
    assert found.significant == (quadrant != "loss_flat_accuracy_flat")
    assert found.loss.mean == pytest.approx(np.mean(pair.after.loss - pair.before.loss))
    accuracy = pair.after.correct.mean() - pair.before.correct.mean()
    assert found.delta_accuracy == pytest.approx(accuracy)
    assert found.accuracy_low < accuracy < found.accuracy_high or accuracy == 0
    assert found.p_accuracy == mcnemar(found.n_right_to_wrong, found.n_wrong_to_right)
    assert changes([pair]) == [found]


def test_many_pairs_share_one_chance_of_error():
    pairs = [shifted(400, 1, 1, seed) for seed in range(40)] + [shifted(400, 1, 1.2, 99)]
    alone = [change(pair).direction_loss for pair in pairs]
    together = [one.direction_loss for one in changes(iter(pairs))]
    assert alone[-1] == together[-1] == "down"
    assert set(alone[:-1]) != {"flat"}  # one in twenty of nothing is called something
    assert set(together[:-1]) == {"flat"}
    p = holm([probability(change(pair).loss) for pair in pairs])
    assert [one.p_loss for one in changes(pairs)] == p


def test_infinite_losses_are_counted_and_left_out_of_the_mean():
    before = np.array([[0.5, 0.5], [1.0, 0.0], [1.0, 0.0], [0.9, 0.1]])
    after = np.array([[0.9, 0.1], [1.0, 0.0], [0.4, 0.6], [1.0, 0.0]])
    found = change(pair_of(before, after, [0, 1, 1, 1], kind="probs"))
    assert (found.n, found.loss.n) == (4, 1)
    assert (found.n_became_infinite, found.n_ceased_infinite) == (1, 1)
    assert found.delta_accuracy == 0.25


@pytest.mark.parametrize("n", [0, 1])
def test_no_sample_and_one_sample(n):
    x = np.array([[0.0, 1.0]] * n, np.float32).reshape(n, 2)
    pair = pair_of(x, -x, np.zeros(n, int), ids=pa.array(np.arange(n)))
    found = change(pair)
    assert found.quadrant == "loss_flat_accuracy_flat"
    assert found.delta_accuracy == (1.0 if n else None)
    assert (found.p_loss, found.p_accuracy) == ((1.0, 1.0) if n else (None, None))
    assert json.loads(json.dumps(found.to_dict(), allow_nan=False))["n"] == n
    assert changes([pair, shifted(400, 1, 2)])[0] == found
    assert changes([]) == []


def test_fewest_is_where_p_values_begin():
    for n in (FEWEST - 1, FEWEST):
        assert (mean_test(np.tile([1.0, -1.0], n)[:n]).p is None) == (n < FEWEST)

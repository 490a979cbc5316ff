"""Exact sums: no order, no split and no size of number changes what they come to."""

from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastdiv_kernels import exact, reference
from fastdiv_kernels.cpu import sums as cpu

DTYPES = ["f4", "f8"]
MOST_ADDITIONS = 2**30  # between two carries


def add_on_cpu(limbs, which, x, signs):
    add = cpu.add_32 if x.dtype == np.float32 else cpu.add_64
    for row, value, sign in zip(which, x, signs, strict=True):
        add(limbs, int(row), value, int(sign))


def add_by_reference(limbs, which, x, signs):
    for sign in (1, -1):
        rows = np.asarray(signs) == sign
        reference._add(limbs, np.asarray(which)[rows], x[rows], sign)


ADDERS = {"cpu": add_on_cpu, "reference": add_by_reference}


def sum_of(adder, x):
    """Return the canonical limbs (k,) of the sum of x."""
    limbs = exact.zeros(1, x.dtype)
    ADDERS[adder](limbs, np.zeros(len(x), np.int64), x, np.ones(len(x), int))
    return exact.carry(limbs)[0]


def true_sum(x):
    return sum(map(Fraction, x.tolist()), Fraction(0))


def finite_floats(dtype):
    info = np.finfo(dtype)
    edges = [info.max, info.tiny, info.smallest_subnormal, 1e-9, 1.0, info.eps, 0.0]
    edges += [float(np.nextafter(info.tiny, np.array(0, dtype))), 2.0**31, 2.0**32, 2.0**33 - 1]
    signed = [s * float(np.array(x, dtype)) for x in edges for s in (1, -1)]
    width = info.bits
    any_finite = st.floats(allow_nan=False, allow_infinity=False, width=width)
    number = st.sampled_from(signed) | any_finite
    return st.lists(number, max_size=20).map(lambda x: np.array(x, dtype))


some_floats = st.sampled_from(DTYPES).flatmap(finite_floats)


@pytest.mark.parametrize("adder", ADDERS)
@settings(max_examples=150, deadline=None)
@given(x=some_floats)
def test_a_sum_is_the_sum_of_fractions(adder, x):
    assert exact.value(sum_of(adder, x)) == true_sum(x)


@pytest.mark.parametrize("adder", ADDERS)
@settings(max_examples=100, deadline=None)
@given(x=some_floats, data=st.data())
def test_any_order_and_any_split_gives_the_same_limbs(adder, x, data):
    whole = sum_of(adder, x)
    shuffled = np.array(data.draw(st.permutations(x.tolist())), x.dtype)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(x)), max_size=4)))
    merged = exact.zeros((), x.dtype)
    for a, b in pairwise([0, *cuts, len(x)]):
        merged = exact.carry(merged + sum_of(adder, shuffled[a:b]))
    np.testing.assert_array_equal(merged, whole)


@settings(max_examples=150, deadline=None)
@given(x=some_floats, data=st.data())
def test_cpu_and_reference_add_alike(x, data):
    n = len(x)
    rows = data.draw(st.lists(st.integers(0, 2), min_size=n, max_size=n))
    signs = data.draw(st.lists(st.sampled_from([1, -1]), min_size=n, max_size=n))
    results = []
    for add in ADDERS.values():
        limbs = exact.zeros(3, x.dtype)
        add(limbs, np.array(rows, np.int64), x, signs)
        results.append(exact.carry(limbs))
    np.testing.assert_array_equal(*results)


@pytest.mark.parametrize("adder", ADDERS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_what_is_added_and_taken_away_leaves_nothing(adder, dtype):
    info = np.finfo(dtype)
    x = np.array([info.max, 1.5, info.tiny, info.smallest_subnormal, 3e-9], dtype)
    limbs = exact.zeros(1, x.dtype)
    zeros = np.zeros(len(x), np.int64)
    ADDERS[adder](limbs, zeros, x, np.ones(5, int))
    ADDERS[adder](limbs, zeros, x[::-1], -np.ones(5, int))
    assert not exact.carry(limbs).any()


@pytest.mark.parametrize("adder", ADDERS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_power_of_two_is_added_exactly(adder, dtype):
    info = np.finfo(dtype)
    lowest = int(np.log2(float(info.smallest_subnormal)))
    for exponent in range(lowest, info.maxexp, 1 if dtype == "f4" else 5):
        x = np.array([np.ldexp(1.0, exponent)], dtype)
        assert exact.value(sum_of(adder, x)) == Fraction(2) ** exponent
        assert exact.value(sum_of(adder, -x)) == -(Fraction(2) ** exponent)


@pytest.mark.parametrize("adder", ADDERS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_no_limb_overflows_before_a_carry_is_due(adder, dtype):
    info = np.finfo(dtype)
    worst = np.nextafter(np.array(2, dtype), np.array(0, dtype))  # all bits of the mantissa set
    for exponent in range(int(info.minexp), info.maxexp):
        x = np.array([np.ldexp(worst, exponent)], dtype)
        for value in (x, -x):
            limbs = exact.zeros(1, x.dtype)
            ADDERS[adder](limbs, np.zeros(1, np.int64), value, [1])
            assert int(np.abs(limbs).max()) * MOST_ADDITIONS < 2**63


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_billion_of_the_largest_numbers_are_summed(dtype):
    largest = np.array([np.finfo(dtype).max], dtype)
    limbs = exact.zeros(1, largest.dtype)
    add_on_cpu(limbs, [0], largest, [1])
    many = exact.carry(limbs * MOST_ADDITIONS)[0]  # as if it had been added so often
    assert exact.value(many) == Fraction(float(largest[0])) * MOST_ADDITIONS
    assert exact.mean(many, MOST_ADDITIONS) == float(largest[0])
    for _ in range(3):  # and totals that large may be merged
        many = exact.carry(many + many)
    assert exact.mean(many, 8 * MOST_ADDITIONS) == float(largest[0])


@pytest.mark.parametrize("adder", ADDERS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [1e-9, 1e-30])
def test_a_small_mean_is_correctly_rounded_beside_large_numbers(adder, dtype, size):
    rng = np.random.default_rng(0)
    small = (size * (1 + rng.random(500))).astype(dtype)
    x = np.concatenate([np.array([1e30, -1e30, 7e20, -7e20], dtype), small])
    wanted = float(true_sum(small) / len(small))
    limbs = sum_of(adder, rng.permutation(x))
    assert exact.mean(limbs, len(small)) == wanted
    assert wanted == pytest.approx(1.5 * size, rel=0.05)


@pytest.mark.parametrize("adder", ADDERS)
@settings(max_examples=100, deadline=None)
@given(x=some_floats.filter(len))
def test_a_mean_is_correctly_rounded(adder, x):
    assert exact.mean(sum_of(adder, x), len(x)) == float(true_sum(x) / len(x))


@settings(max_examples=100, deadline=None)
@given(
    limbs=st.lists(st.integers(-(2**62), 2**62), min_size=12, max_size=12),
    rows=st.integers(1, 3),
)
def test_carry_keeps_the_value_and_makes_limbs_canonical(limbs, rows):
    before = np.tile(np.array(limbs, np.int64), (rows, 1))
    before[:, -1] >>= 8  # room for what is carried into the last
    after = exact.carry(before.copy())
    for a, b in zip(after, before, strict=True):
        assert exact.value(a) == exact.value(b)
    assert ((after[:, :-1] >= 0) & (after[:, :-1] < 2**32)).all()
    np.testing.assert_array_equal(exact.carry(after.copy()), after)


def test_a_sum_of_nothing_is_zero():
    for dtype, limbs in (("f4", exact.LIMBS_32), ("f8", exact.LIMBS_64)):
        empty = exact.zeros((2, 3), np.dtype(dtype))
        assert empty.shape == (2, 3, limbs)
        assert empty.dtype == np.int64
        assert exact.value(empty[1, 2]) == 0
        assert exact.mean(empty[0, 0], 5) == 0.0


@pytest.mark.parametrize(("dtype", "origin"), [("f4", exact.ORIGIN_32), ("f8", exact.ORIGIN_64)])
def test_limbs_span_the_range_of_the_dtype_with_room_for_2_to_the_31_numbers(dtype, origin):
    info = np.finfo(dtype)
    top = origin + 32 * exact.zeros((), np.dtype(dtype)).shape[-1]
    assert Fraction(2) ** origin <= Fraction(float(info.smallest_subnormal))
    assert Fraction(2) ** top > 2**31 * Fraction(float(info.max))

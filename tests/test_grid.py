"""Interpolation over the grid of inverse temperatures."""

import math
from itertools import pairwise

import numpy as np
import pytest

from fastdiv_kernels.contract import GRID
from fastdiv_kernels.grid import weights

LOGS = np.log(GRID)
# At knots, just beside them, in the middle of every interval, and anywhere.
INSIDE = sorted(
    [
        *GRID,
        *(g * 2.0**shift for g in GRID[1:-1] for shift in (-1e-9, 1e-9)),
        *(math.sqrt(a * b) for a, b in pairwise(GRID)),
        *(0.125 * 2.0 ** np.random.default_rng(0).uniform(0, 5, 20)),
    ]
)


def conditions(function, slope):
    """Return what `weights` is multiplied with: values at the grid, then slopes by log(beta)."""
    return np.concatenate([function(LOGS), slope(LOGS)])


@pytest.mark.parametrize("degree", range(8))
@pytest.mark.parametrize("beta", INSIDE)
def test_polynomials_up_to_degree_seven_are_interpolated_exactly(beta, degree):
    p = np.polynomial.Polynomial([0.3 * (-1) ** k / (k + 1) for k in range(degree + 1)])
    got = weights(beta) @ conditions(p, p.deriv() if degree else np.zeros_like)
    wanted = [p.deriv(m)(math.log(beta)) if m else p(math.log(beta)) for m in range(3)]
    np.testing.assert_allclose(got, wanted, rtol=1e-10, atol=1e-10)


def test_a_polynomial_of_degree_eight_is_not():
    p = np.polynomial.Polynomial([0, 0, 0, 0, 0, 0, 0, 0, 1])
    beta = math.sqrt(2)
    got = weights(beta) @ conditions(p, p.deriv())
    assert abs(got[0] - p(math.log(beta))) > 1e-6


@pytest.mark.parametrize("k", range(len(GRID)))
def test_values_and_slopes_at_the_knots_are_given_back(k):
    size = len(GRID)
    w = weights(GRID[k])
    np.testing.assert_allclose(w[0], np.eye(2 * size)[k], atol=1e-12)
    np.testing.assert_allclose(w[1], np.eye(2 * size)[size + k], atol=1e-11)


@pytest.mark.parametrize("beta", INSIDE)
def test_weights_of_values_sum_to_one_and_of_their_derivatives_to_zero(beta):
    sums = weights(beta)[:, : len(GRID)].sum(axis=1)
    np.testing.assert_allclose(sums, [1, 0, 0], atol=1e-10)


@pytest.mark.parametrize(("beyond", "end"), [(1e-9, 0.125), (0.1, 0.125), (4.1, 4.0), (1e9, 4.0)])
def test_beyond_the_grid_its_ends_are_taken(beyond, end):
    np.testing.assert_array_equal(weights(beyond), weights(end))


@pytest.mark.parametrize("scale", [0.5, 3.0, 10.0])
def test_log_partition_functions_of_20_classes_are_good_to_3e_4_on_average(scale):
    x = np.random.default_rng(0).normal(size=(200, 20)) * scale
    x -= x.max(axis=1, keepdims=True)

    def partition(beta):
        u = np.exp(beta * x)
        return np.log(u.sum(axis=1)), beta * (u * x).sum(axis=1) / u.sum(axis=1)

    knots = np.concatenate([np.stack([partition(g)[k] for g in GRID]) for k in range(2)])
    for beta in INSIDE:
        s, slope = partition(beta)
        got = weights(beta) @ knots
        np.testing.assert_allclose(got[0], s, atol=5e-3)  # of one row
        np.testing.assert_allclose(got[0].mean(), s.mean(), atol=3e-4)
        np.testing.assert_allclose(got[1].mean(), slope.mean(), atol=3e-3)

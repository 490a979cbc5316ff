"""Interpolation over the grid of inverse temperatures, from values and derivatives.

Between two temperatures of `GRID`, a function of ``log(beta)`` is taken as the polynomial of
degree seven that has its values and its derivatives at the four nearest ones (Hermite). The
polynomials of neighbouring intervals meet with equal values and derivatives. For log-losses of
1,000 classes that is good to 1e-5 nats; with an octave between temperatures it would be 3e-3.
"""

import math
from bisect import bisect_right
from fractions import Fraction
from functools import cache

import numpy as np
from numpy.typing import NDArray

from fastdiv_kernels.contract import GRID

KNOTS = 4  # of a polynomial
LOGS = tuple(math.log(beta) for beta in GRID)


@cache
def _basis(first: int) -> NDArray[np.float64]:
    """Return the polynomials (coefficient, condition) on four knots: their values, then slopes.

    They are in ``log(beta)`` counted from the first knot.
    """
    size = 2 * KNOTS
    knots = [Fraction(x) - Fraction(LOGS[first]) for x in LOGS[first : first + KNOTS]]
    rows = [[x**m for m in range(size)] for x in knots]
    rows += [[m * x ** (m - 1) if m else Fraction(0) for m in range(size)] for x in knots]
    unit = [[Fraction(int(i == j)) for j in range(size)] for i in range(size)]
    for i in range(size):  # Gauss and Jordan, exactly
        pivot = next(r for r in range(i, size) if rows[r][i])
        rows[i], rows[pivot], unit[i], unit[pivot] = rows[pivot], rows[i], unit[pivot], unit[i]
        scale = rows[i][i]
        rows[i] = [x / scale for x in rows[i]]
        unit[i] = [x / scale for x in unit[i]]
        for r in range(size):
            if r != i and rows[r][i]:
                factor = rows[r][i]
                rows[r] = [x - factor * y for x, y in zip(rows[r], rows[i], strict=True)]
                unit[r] = [x - factor * y for x, y in zip(unit[r], unit[i], strict=True)]
    return np.array(unit, np.float64)


def weights(beta: float) -> NDArray[np.float64]:
    """Return what values and derivatives at the grid's temperatures count for at another one.

    Parameters
    ----------
    beta : float
        Inverse temperature; beyond the ends of the grid the ends are taken.

    Returns
    -------
    (3, 2 * len(GRID)) float64
        Rows: the value, the first and the second derivative by ``log(beta)``. Columns: the values
        at the grid's temperatures, then the derivatives by ``log(beta)`` there.
    """
    beta = min(max(beta, GRID[0]), GRID[-1])
    first = min(max(bisect_right(GRID, beta) - KNOTS // 2, 0), len(GRID) - KNOTS)
    x = math.log(beta) - LOGS[first]
    powers = np.zeros((3, 2 * KNOTS))
    for m in range(2 * KNOTS):
        powers[0, m] = x**m
        powers[1, m] = m * x ** (m - 1) if m > 0 else 0.0
        powers[2, m] = m * (m - 1) * x ** (m - 2) if m > 1 else 0.0
    local = powers @ _basis(first)
    result = np.zeros((3, 2 * len(GRID)))
    result[:, first : first + KNOTS] = local[:, :KNOTS]
    slopes = len(GRID) + first
    result[:, slopes : slopes + KNOTS] = local[:, KNOTS:]
    return result

"""Sums of floating-point numbers without rounding, so that no order of addition changes a bit.

A sum is a row of ``k`` int64 limbs with radix 2**32: its value is
``sum(limb[i] * 2**(32 * i)) * 2**origin``. The limbs span the whole range of the dtype, so the
smallest subnormal and the largest finite number are both added exactly, and merging two sums is
an integer addition. (The "small superaccumulator" of R. M. Neal, "Fast exact summation using
small and large superaccumulators", arXiv:1505.05571, with a radix that needs no carries for
2**30 additions.)

What is computed rather than read, and has no use for bits below 2**-32, is summed in fixed point:
rounded to a multiple of that, in two limbs whose origin it is. The order matters as little.
"""

from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

ORIGIN_32 = -160  # float32: values are multiples of 2**-149
ORIGIN_64 = -1088  # float64: multiples of 2**-1074
LIMBS_32 = 12
LIMBS_64 = 70
LIMBS_FIXED = 2
ORIGIN_FIXED = -32


def zeros(shape: tuple[int, ...] | int, dtype: np.dtype[np.generic]) -> NDArray[np.int64]:
    """Make empty sums of numbers of `dtype` (float32 or float64): int64 (*shape, k)."""
    shape = (shape,) if isinstance(shape, int) else shape
    limbs = LIMBS_64 if dtype == np.float64 else LIMBS_32
    return np.zeros((*shape, limbs), dtype=np.int64)


def carry(sums: NDArray[np.int64]) -> NDArray[np.int64]:
    """Bring sums (..., k) to canonical form, in place: all limbs but the last in [0, 2**32).

    Equal sums then have equal limbs; needed at the latest every 2**30 additions.
    """
    for i in range(sums.shape[-1] - 1):
        over = sums[..., i] >> 32
        sums[..., i] -= over << 32
        sums[..., i + 1] += over
    return sums


def mean(limbs: NDArray[np.int64], n: int) -> float:
    """Return the mean of the n numbers in one sum (k,), correctly rounded."""
    numerator, denominator = _ratio(limbs)
    return numerator / (denominator * n)


def value(limbs: NDArray[np.int64]) -> Fraction:
    """Return the exact value of one sum (k,)."""
    return Fraction(*_ratio(limbs))


def _ratio(limbs: NDArray[np.int64]) -> tuple[int, int]:
    total = 0
    for limb in reversed(limbs.tolist()):
        total = (total << 32) + limb
    origin = {LIMBS_32: ORIGIN_32, LIMBS_64: ORIGIN_64, LIMBS_FIXED: ORIGIN_FIXED}[len(limbs)]
    return total, 1 << -origin

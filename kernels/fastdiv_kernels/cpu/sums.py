"""Adding a number to an exact sum; the layout of a sum is told in `fastdiv_kernels.exact`."""

from typing import Any

import numpy as np

from fastdiv_kernels.cpu.arithmetic import as_int
from fastdiv_kernels.cpu.jit import inner, overload, types
from fastdiv_kernels.exact import ORIGIN_32, ORIGIN_64

LOW = np.int64(0xFFFFFFFF)
SHIFT_32 = -149 - ORIGIN_32  # where the lowest bit of the smallest subnormal stands in the limbs
SHIFT_64 = -1074 - ORIGIN_64


@inner()
def add_32(limbs: Any, which: Any, x: Any, sign: Any) -> None:
    """Add sign * x, a finite float32, to row `which` of limbs (rows, k)."""
    bits = np.int64(as_int(x))
    exponent = (bits >> 23) & 0xFF
    mantissa = bits & 0x7FFFFF
    if exponent > 0:
        mantissa |= 0x800000
        exponent -= 1
    position = exponent + SHIFT_32
    word = mantissa << (position & 31)
    sign = -sign if bits < 0 else sign
    limb = position >> 5
    limbs[which, limb] += sign * (word & LOW)
    limbs[which, limb + 1] += sign * (word >> 32)


@inner()
def add_64(limbs: Any, which: Any, x: Any, sign: Any) -> None:
    """Add sign * x, a finite float64, to row `which` of limbs (rows, k)."""
    bits = as_int(x)
    exponent = (bits >> 52) & 0x7FF
    mantissa = bits & 0xFFFFFFFFFFFFF
    if exponent > 0:
        mantissa |= 0x10000000000000
        exponent -= 1
    position = exponent + SHIFT_64
    shift = position & 31
    sign = -sign if bits < 0 else sign
    limb = position >> 5
    low = (mantissa & LOW) << shift
    high = (mantissa >> 32) << shift
    middle = (low >> 32 & LOW) + (high & LOW)
    limbs[which, limb] += sign * (low & LOW)
    limbs[which, limb + 1] += sign * middle
    limbs[which, limb + 2] += sign * (high >> 32)


def add(limbs: Any, which: Any, x: Any, sign: Any) -> None:
    """Add sign * x (sign 1 or -1) exactly, by the dtype of x; see `add_32`."""
    raise NotImplementedError  # kernels get the overload below


@overload(add)
def _add(limbs: Any, which: Any, x: Any, sign: Any) -> Any:
    by_dtype = add_32 if x == types.float32 else add_64

    def implementation(limbs: Any, which: Any, x: Any, sign: Any) -> None:
        by_dtype(limbs, which, x, sign)

    return implementation

"""Exact sums of many float32, some of whose exponents are near one another: in fixed point.

A float32 whose exponent lies in a window of 30 is, times a power of two, a whole number of at most
54 bits; so many of them can be added as int64 without rounding, in vectors. What lies in no window
is added by itself (`sums`). The result is the same to the last bit.
"""

from typing import Any

import numpy as np

from fastdiv_kernels.cpu.jit import inner
from fastdiv_kernels.cpu.sums import LOW
from fastdiv_kernels.exact import ORIGIN_32

BLOCK = 512  # rows whose sums in fixed point cannot overflow: 2**9 times 2**53
SPAN = 30  # exponents of a window


@inner()
def sum_window(x: Any, start: Any, stop: Any, least: Any, below: Any, scale: Any) -> Any:
    """Sum x[start:stop], of those with least <= abs(x) < below, times `scale`, a power of two."""
    total = np.int64(0)
    for i in range(np.uint64(start), np.uint64(stop)):
        v = np.float64(x[i])
        size = abs(v)
        inside = (size >= least) & (size < below)
        total += np.int64((v if inside else 0.0) * scale)
    return total


@inner()
def sum_window_where(
    x: Any, flags: Any, mask: Any, start: Any, stop: Any, least: Any, below: Any, scale: Any
) -> Any:
    """Sum the same of rows with a bit in their flags."""
    total = np.int64(0)
    for i in range(np.uint64(start), np.uint64(stop)):
        v = np.float64(x[i])
        inside = (v >= least) & (v < below) & ((flags[i] & mask) != 0)
        total += np.int64((v if inside else 0.0) * scale)
    return total


@inner()
def count_outside(x: Any, start: Any, stop: Any, least: Any, below: Any) -> Any:
    """Count what is in no window from `least` to `below`, and not 0."""
    n = np.int32(0)
    for i in range(np.uint64(start), np.uint64(stop)):
        size = abs(x[i])
        inside = ((size >= np.float32(least)) & (size < np.float32(below))) | (size == 0)
        n += np.int32(not inside)
    return n


@inner()
def is_outside(x: Any, least: Any, below: Any) -> Any:
    """Say whether one number is; NaN is."""
    size = abs(x)
    return not (((size >= np.float32(least)) & (size < np.float32(below))) | (size == 0))


@inner()
def add_fixed(limbs: Any, which: Any, total: Any, exponent: Any) -> None:
    """Add total * 2**exponent to row `which` of limbs (rows, k), the sums of float32."""
    position = exponent - ORIGIN_32
    limb, shift = position >> 5, position & 31
    low = (total & LOW) << shift
    high = (total >> 32) << shift
    limbs[which, limb] += low & LOW
    limbs[which, limb + 1] += (low >> 32) + (high & LOW)
    limbs[which, limb + 2] += high >> 32

"""Sums of exp(beta * x) and of exp(beta * x) * x at each inverse temperature of the grid.

All are powers of one exponential an element, exp(x / 16): its square begins a chain of squares, its
cube another. That multiplies its relative error, by 64 at most, to 8e-6.
"""

from typing import Any

import numpy as np

from fastdiv_kernels.contract import GRID
from fastdiv_kernels.cpu.arithmetic import E2, E3, E4, E5, E6, as_float, as_int, log1p
from fastdiv_kernels.cpu.blocks import SIDE, transpose
from fastdiv_kernels.cpu.jit import inner

SQUARES, CUBES = GRID[::2], GRID[1::2]
assert SQUARES == (0.125, 0.25, 0.5, 1.0, 2.0, 4.0), "what the chain of squares is"
assert CUBES == (0.1875, 0.375, 0.75, 1.5, 3.0), "what the chain of cubes is"

TILE = 64  # rows; twice as many take 2 ns a row more with ten classes: less fits the first cache
POWERS = len(GRID)
CURVE = 2 * POWERS  # numbers of a profile
UNROLLED = 4  # classes added to the accumulators at once, which are loaded and stored for it
# A tile's accumulators, flat, each with TILE lanes: sums of exp(beta * x), then of exp(beta * x) *
# x, both by temperature; how many x are 0. One array, so that LLVM sees how far apart they are.
# `tile_curves` puts s and its derivatives in the places of the sums.
SLOPES = POWERS * TILE
ATTAINED = 2 * POWERS * TILE
SCRATCH = (CURVE + SIDE) // SIDE * SIDE * TILE  # whole blocks, for `transpose`

BETAS = np.array(GRID, np.float32)
ZERO = np.float32(0.0)
ONE = np.float32(1.0)
# What is squared is kept above the root of the smallest normal number, because products below that
# are slow on many processors; 1e-19 adds nothing to a sum beside exp(0).
TINY = np.float32(2.0**-63)
LOWEST = np.float32(-698.0)  # whose exp(x / 16) is just above TINY; stands for probability 0

LOG2E_16 = np.float32(1.4426950408889634 / 16)
LN2_16_HIGH = np.float32(0.693359375 * 16)
LN2_16_LOW = np.float32(-2.1219444005469057e-4 * 16)
ROUND = np.float32(1.5 * 2**23)  # added and taken away, leaves the nearest integer
E1_16 = np.float32(1 / 16)  # the polynomial of `exp_32` for an argument 16 times as large
E2_16 = np.float32(E2 / 16**2)
E3_16 = np.float32(E3 / 16**3)
E4_16 = np.float32(E4 / 16**4)
E5_16 = np.float32(E5 / 16**5)
E6_16 = np.float32(E6 / 16**6)


@inner("contract")
def exp_sixteenth(x: Any) -> Any:
    """Return exp(x / 16) for float32 x from LOWEST to 0."""
    shifted = x * LOG2E_16 + ROUND
    n = shifted - ROUND
    r = (x - n * LN2_16_HIGH) - n * LN2_16_LOW
    p = ONE + r * (E1_16 + r * (E2_16 + r * (E3_16 + r * (E4_16 + r * (E5_16 + r * E6_16)))))
    # n, the low bits of `shifted`, is added to the exponent.
    return as_float(np.int32(as_int(p) + np.int32(as_int(shifted) << np.int32(23))))


@inner()
def product(u: Any, v: Any) -> Any:
    """Return u * v, but no less than TINY."""
    both = u * v
    return both if both > TINY else TINY


@inner()
def squared(u: Any) -> Any:
    """Return u**2, but no less than TINY."""
    return product(u, u)


@inner()
def tile_room(classes: Any) -> Any:
    """Return how many numbers a tile of columns takes: whole blocks of classes."""
    return (classes + SIDE - 1) // SIDE * SIDE * TILE


@inner()
def tile_turn(rows: Any, classes: Any, columns: Any) -> None:
    """Turn a tile's rows into columns; what is beyond the last class is set to LOWEST."""
    transpose(rows, TILE, classes, classes, columns, TILE)
    for i in range(np.uint64(classes * TILE), np.uint64(len(columns))):
        columns[i] = LOWEST


@inner("contract")
def tile_powers(x: Any, classes: Any, w: Any) -> None:
    """Sum over the classes of x (classes, TILE), flat, all from LOWEST to 0.

    What is 0 is counted instead, for log1p. After the last class there may be others up to a
    multiple of UNROLLED, all LOWEST.
    """
    for i in range(np.uint64(SCRATCH)):
        w[i] = ZERO
    for j in range(0, classes, UNROLLED):
        at = np.uint64(j * TILE)
        for lane in range(np.uint64(TILE)):
            t0 = x[at + lane]
            t1 = x[at + np.uint64(TILE) + lane]
            t2 = x[at + np.uint64(2 * TILE) + lane]
            t3 = x[at + np.uint64(3 * TILE) + lane]
            u0, n0 = below_zero(t0)
            u1, n1 = below_zero(t1)
            u2, n2 = below_zero(t2)
            u3, n3 = below_zero(t3)
            w[ATTAINED + lane] += (n0 + n1) + (n2 + n3)
            s0, s1, s2, s3 = squared(u0), squared(u1), squared(u2), squared(u3)
            c0, c1, c2, c3 = product(s0, u0), product(s1, u1), product(s2, u2), product(s3, u3)
            accumulate(w, lane, s0, s1, s2, s3, t0, t1, t2, t3)
            accumulate(w, TILE + lane, c0, c1, c2, c3, t0, t1, t2, t3)
            s0, s1, s2, s3 = squared(s0), squared(s1), squared(s2), squared(s3)
            accumulate(w, 2 * TILE + lane, s0, s1, s2, s3, t0, t1, t2, t3)
            c0, c1, c2, c3 = squared(c0), squared(c1), squared(c2), squared(c3)
            accumulate(w, 3 * TILE + lane, c0, c1, c2, c3, t0, t1, t2, t3)
            s0, s1, s2, s3 = squared(s0), squared(s1), squared(s2), squared(s3)
            accumulate(w, 4 * TILE + lane, s0, s1, s2, s3, t0, t1, t2, t3)
            c0, c1, c2, c3 = squared(c0), squared(c1), squared(c2), squared(c3)
            accumulate(w, 5 * TILE + lane, c0, c1, c2, c3, t0, t1, t2, t3)
            s0, s1, s2, s3 = squared(s0), squared(s1), squared(s2), squared(s3)
            accumulate(w, 6 * TILE + lane, s0, s1, s2, s3, t0, t1, t2, t3)
            c0, c1, c2, c3 = squared(c0), squared(c1), squared(c2), squared(c3)
            accumulate(w, 7 * TILE + lane, c0, c1, c2, c3, t0, t1, t2, t3)
            s0, s1, s2, s3 = squared(s0), squared(s1), squared(s2), squared(s3)
            accumulate(w, 8 * TILE + lane, s0, s1, s2, s3, t0, t1, t2, t3)
            c0, c1, c2, c3 = squared(c0), squared(c1), squared(c2), squared(c3)
            accumulate(w, 9 * TILE + lane, c0, c1, c2, c3, t0, t1, t2, t3)
            s0, s1, s2, s3 = squared(s0), squared(s1), squared(s2), squared(s3)
            accumulate(w, 10 * TILE + lane, s0, s1, s2, s3, t0, t1, t2, t3)


@inner("contract")
def below_zero(t: Any) -> Any:
    """Return (exp(t / 16), 0), or (0, 1) where t is 0."""
    u = exp_sixteenth(t)
    return (u if t < ZERO else ZERO), (ZERO if t < ZERO else ONE)


@inner("contract")
def accumulate(
    w: Any, at: Any, u0: Any, u1: Any, u2: Any, u3: Any, t0: Any, t1: Any, t2: Any, t3: Any
) -> None:
    """Add four exponentials of one temperature to their sums."""
    w[at] += (u0 + u1) + (u2 + u3)
    w[SLOPES + at] += (u0 * t0 + u1 * t1) + (u2 * t2 + u3 * t3)


@inner("contract")
def pair_powers(x: Any, w: Any) -> None:
    """Make the sums of one number of x (TILE,) beside a 0."""
    for lane in range(np.uint64(TILE)):
        t = x[lane]
        w[ATTAINED + lane] = ONE
        u = exp_sixteenth(t)
        s = squared(u)
        c = product(s, u)
        put(w, lane, s, t)
        put(w, TILE + lane, c, t)
        s = squared(s)
        put(w, 2 * TILE + lane, s, t)
        c = squared(c)
        put(w, 3 * TILE + lane, c, t)
        s = squared(s)
        put(w, 4 * TILE + lane, s, t)
        c = squared(c)
        put(w, 5 * TILE + lane, c, t)
        s = squared(s)
        put(w, 6 * TILE + lane, s, t)
        c = squared(c)
        put(w, 7 * TILE + lane, c, t)
        s = squared(s)
        put(w, 8 * TILE + lane, s, t)
        c = squared(c)
        put(w, 9 * TILE + lane, c, t)
        s = squared(s)
        put(w, 10 * TILE + lane, s, t)


@inner()
def put(w: Any, at: Any, u: Any, t: Any) -> None:
    """Write the sums of one temperature where there is one exponential."""
    w[at] = u
    w[SLOPES + at] = u * t


@inner("reassoc", "nsz", "contract")
def row_powers(x: Any, w: Any, lane: Any) -> None:
    """Sum over all of x, from LOWEST to 0, into a lane of a tile's accumulators."""
    a0 = a1 = a2 = a3 = a4 = a5 = a6 = a7 = a8 = a9 = a10 = ZERO
    b0 = b1 = b2 = b3 = b4 = b5 = b6 = b7 = b8 = b9 = b10 = ZERO
    for j in range(np.uint64(len(x))):
        t = x[j]
        u = exp_sixteenth(t)
        s = squared(u)
        c = product(s, u)
        a0 += s
        b0 += s * t
        a1 += c
        b1 += c * t
        s = squared(s)
        a2 += s
        b2 += s * t
        c = squared(c)
        a3 += c
        b3 += c * t
        s = squared(s)
        a4 += s
        b4 += s * t
        c = squared(c)
        a5 += c
        b5 += c * t
        s = squared(s)
        a6 += s
        b6 += s * t
        c = squared(c)
        a7 += c
        b7 += c * t
        s = squared(s)
        a8 += s
        b8 += s * t
        c = squared(c)
        a9 += c
        b9 += c * t
        s = squared(s)
        a10 += s
        b10 += s * t
    sums = (a0, a1, a2, a3, a4, a5, a6, a7, a8, a9, a10)
    slopes = (b0, b1, b2, b3, b4, b5, b6, b7, b8, b9, b10)
    for k in range(POWERS):
        w[np.uint64(k * TILE) + lane] = sums[k]
        w[np.uint64(SLOPES + k * TILE) + lane] = slopes[k]


@inner("contract")
def tile_curves(w: Any) -> None:
    """Make of a tile's sums s(beta) and its derivatives by log(beta)."""
    for k in range(np.uint64(POWERS)):
        beta = BETAS[k]
        at = k * np.uint64(TILE)
        for lane in range(np.uint64(TILE)):
            rest = w[at + lane]
            attained = w[ATTAINED + lane]
            w[at + lane] = log1p(rest + (attained - ONE))
            w[SLOPES + at + lane] = beta * w[SLOPES + at + lane] / (rest + attained)

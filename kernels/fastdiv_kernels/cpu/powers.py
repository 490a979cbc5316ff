"""Sums of exp(beta * x) and of exp(beta * x) * x at each inverse temperature of the grid.

All are powers of one exponential an element, exp(x / 16): its square begins a chain of squares, its
cube another. That multiplies its relative error, by 64 at most, to 1e-5. The powers of what is far
below the maximum are subnormal: callers have `flush_tiny` done.

A vector takes 10 instructions for the exponential, 11 for its powers and two for each of those.
Where registers do not hold all sums, exponentials are found first, and each chain has a loop over
them: short loops whose steps do not wait for one another long.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from llvmlite import ir

from fastdiv_kernels.contract import GRID
from fastdiv_kernels.cpu.blocks import LOWEST_WORD, SIDE, transpose
from fastdiv_kernels.cpu.jit import cgutils, inner, intrinsic, types
from fastdiv_kernels.cpu.lanes import I32, I64, WIDE, Lanes, alloca, on_floats

SQUARES, CUBES = GRID[::2], GRID[1::2]
assert SQUARES == (0.125, 0.25, 0.5, 1.0, 2.0, 4.0), "what the chain of squares is"
assert CUBES == (0.1875, 0.375, 0.75, 1.5, 3.0), "what the chain of cubes is"

TILE = 16  # rows
POWERS = len(GRID)
CURVE = 2 * POWERS  # numbers of a profile
# Registers hold the 22 sums of 16 rows where there are 32 of 16 lanes each. Elsewhere 8 rows are
# summed at a time, and each chain of powers in a loop of its own.
WIDTH = 16 if WIDE else 8
CHAINS = (range(POWERS),) if WIDE else (range(0, POWERS, 2), range(1, POWERS, 2))
# A tile's sums, flat, each with TILE lanes: of exp(beta * x), then of exp(beta * x) * x, both by
# temperature. `tile_curves` puts s and its derivatives in the places of sums.
SLOPES = POWERS * TILE
SCRATCH = (CURVE + SIDE) // SIDE * SIDE * TILE  # whole blocks, for `transpose`
# Sums whose inverses are found with one division, which takes its time where vectors are wide: of
# 2e9 classes four do not overflow.
DIVIDED = 4 if WIDE else 2

ZERO = np.float32(0.0)
ONE = np.float32(1.0)
# exp(x / 16) of it is just a normal number, and its square is none; stands for probability 0.
LOWEST = np.float32(-1380.0)
assert np.float16(LOWEST).view(np.uint16) == LOWEST_WORD
LOG2E_16 = np.float32(1.4426950408889634 / 16)


def chains(lanes: Lanes, u: Any, chain: Sequence[int]) -> list[Any]:
    """Return the powers of u = exp(x / 16) at the temperatures of a chain or of both."""
    multiply = lanes.builder.fmul
    square = multiply(u, u)
    cube = multiply(square, u)
    found = []
    for k in range(POWERS):
        found.append(cube if k % 2 else square)
        if k % 2:
            cube = multiply(cube, cube)
        else:
            square = multiply(square, square)
    return [found[k] for k in chain]


def add_powers(lanes: Lanes, u: Any, x: Any, chain: Sequence[int], sums: Sequence[Any]) -> None:
    """Add the powers of u to the sums of a chain (places), the products with x to those after."""
    builder = lanes.builder
    for i, power in enumerate(chains(lanes, u, chain)):
        total, slope = sums[i], sums[len(chain) + i]
        builder.store(builder.fadd(builder.load(total), power), total)
        builder.store(lanes.multiply_add(power, x, builder.load(slope)), slope)


@intrinsic
def tile_powers(typing_context: Any, x: Any, u: Any, classes: Any, w: Any, to: Any) -> Any:
    """Sum over the classes of x (classes, TILE), flat, from LOWEST to 0, but for the first 0.

    The last class is taken in the place of that one. The sums begin at w[to]; x and u, of the same
    size, are scratch afterwards.
    """

    def body(builder: Any, place: Callable[..., Any], args: Any) -> None:
        lanes = Lanes(builder, WIDTH)
        zero = lanes.every(0.0)
        others = builder.sub(args[2], i64(1))
        parts = range(0, TILE, WIDTH)

        def column(which: int, j: Any, at: int) -> Any:
            return place(which, builder.add(builder.mul(j, i64(TILE)), i64(at)))

        def loop(each: Callable[[Any], None]) -> None:
            with cgutils.for_range(builder, others, intp=I64) as loop:
                each(loop.index)

        def without_first(j: Any, at: int, last: Any) -> Any:
            t, substitute = lanes.load(column(0, j, at), 4), builder.load(last)
            is_first = builder.fcmp_ordered("==", t, zero)
            builder.store(builder.select(is_first, zero, substitute), last)
            # A choice between t and another would be stored as one in parts, which AMD is slow at.
            return builder.fadd(t, builder.select(is_first, substitute, zero))

        def exponentials(j: Any) -> None:
            for at, last in zip(parts, lasts, strict=True):
                t = without_first(j, at, last)
                lanes.store(t, column(0, j, at), 4)
                lanes.store(lanes.exp2(t, LOG2E_16), column(1, j, at), 4)

        lasts = [alloca(builder, lanes.load(column(0, others, at), 4)) for at in parts]
        if not WIDE:
            loop(exponentials)
        for at, last in zip(parts, lasts, strict=True):
            for chain in CHAINS:
                sums = [alloca(builder, zero) for _ in range(2 * len(chain))]

                def powers(
                    j: Any, at: int = at, last: Any = last, chain: Any = chain, sums: Any = sums
                ) -> None:
                    if WIDE:
                        t = without_first(j, at, last)
                        u = lanes.exp2(t, LOG2E_16)
                    else:
                        t, u = (lanes.load(column(which, j, at), 4) for which in range(2))
                    add_powers(lanes, u, t, chain, sums)

                loop(powers)
                places = [k * TILE for k in chain] + [SLOPES + k * TILE for k in chain]
                for total, first in zip(sums, places, strict=True):
                    lanes.store(builder.load(total), place(3, first + at, args[4]), 4)

    return types.void(x, u, classes, w, to), on_floats(body)


def i64(x: int) -> Any:
    """Return a constant index."""
    return ir.Constant(I64, x)


@intrinsic
def pair_powers(typing_context: Any, margin: Any, at: Any, w: Any, to: Any) -> Any:
    """Write powers of x = -abs(margin), for TILE margins from `at` on, at w[to]; x at SLOPES."""

    def body(builder: Any, place: Callable[..., Any], args: Any) -> None:
        lanes = Lanes(builder, WIDTH)
        for part in range(0, TILE, WIDTH):
            m = lanes.load(place(0, builder.add(args[1], i64(part))), 1)
            sign = builder.or_(lanes.as_ints(m), lanes.every(-0x80000000, I32))
            x = lanes.at_least(lanes.as_floats(sign), lanes.every(LOWEST))
            lanes.store(x, place(2, SLOPES + part, args[3]), 4)
            for k, power in enumerate(chains(lanes, lanes.exp2(x, LOG2E_16), range(POWERS))):
                lanes.store(power, place(2, k * TILE + part, args[3]), 4)

    return types.void(margin, at, w, to), on_floats(body)


def each_curve(lanes: Lanes, load: Callable[[int], Any], emit: Callable[[int, Any], None]) -> None:
    """Make of sums (`load` by position in w) s(beta), and of slopes the means of x."""
    builder = lanes.builder
    for first in range(0, POWERS, DIVIDED):
        group = range(first, min(first + DIVIDED, POWERS))
        others = [load(k * TILE) for k in group]
        whole = [builder.fadd(x, lanes.every(1.0)) for x in others]
        inverses = lanes.inverses(whole, lanes.every(1.0))
        for k, x, total, inverse in zip(group, others, whole, inverses, strict=True):
            emit(k, lanes.log1p(x, total))
            emit(POWERS + k, builder.fmul(load(SLOPES + k * TILE), inverse))


@intrinsic
def tile_curves(typing_context: Any, w: Any, at: Any, curves: Any) -> Any:
    """Make s(beta) and its derivatives by log(beta), (CURVE, TILE), flat, of sums at w[at]."""

    def body(builder: Any, place: Callable[..., Any], args: Any) -> None:
        lanes = Lanes(builder, WIDTH)
        for part in range(0, TILE, WIDTH):

            def load(at: int, part: int = part) -> Any:
                return lanes.load(place(0, at + part, args[1]), 4)

            def emit(k: int, x: Any, part: int = part) -> None:
                if k >= POWERS:
                    x = builder.fmul(x, lanes.every(GRID[k - POWERS]))
                lanes.store(x, place(2, k * TILE + part), 4)

            each_curve(lanes, load, emit)

    return types.void(w, at, curves), on_floats(body)


@intrinsic
def keep_sums(typing_context: Any, scales: Any, scale_at: Any, w: Any, at: Any) -> Any:
    """Make 0 of the sums at w[at] of rows whose scale is 0."""

    def body(builder: Any, place: Callable[..., Any], args: Any) -> None:
        lanes = Lanes(builder, WIDTH)
        zero = lanes.every(0.0)
        for part in range(0, TILE, WIDTH):
            there = builder.fcmp_ordered(">", lanes.load(place(0, part, args[1]), 4), zero)
            factor = builder.select(there, lanes.every(1.0), zero)
            with cgutils.for_range(builder, i64(CURVE), intp=I64) as loop:
                at = builder.add(builder.mul(loop.index, i64(TILE)), i64(part))
                total = place(2, builder.add(args[3], at))
                lanes.store(builder.fmul(lanes.load(total, 4), factor), total, 4)

    return types.void(scales, scale_at, w, at), on_floats(body)


@inner()
def tile_turn(rows: Any, classes: Any, columns: Any) -> None:
    """Turn a tile's rows into columns; `columns` has room for whole blocks."""
    transpose(rows, TILE, classes, classes, columns, TILE)


@inner()
def tile_room(classes: Any) -> Any:
    """Return how many numbers a tile of columns takes: whole blocks of classes."""
    return (classes + SIDE - 1) // SIDE * SIDE * TILE

"""Sums of exp(beta * x) and of exp(beta * x) * x at each inverse temperature of the grid.

All are powers of one exponential an element, exp(x / 16): its square begins a chain of squares, its
cube another. That multiplies its relative error, by 64 at most, to 1e-5. The powers of what is far
below the maximum are subnormal: callers have `flush_tiny` done.

A vector takes 10 instructions for the exponential, 11 for its powers and two for each of those.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from llvmlite import ir

from fastdiv_kernels.contract import GRID
from fastdiv_kernels.cpu.blocks import SIDE, transpose
from fastdiv_kernels.cpu.jit import cgutils, inner, intrinsic, types
from fastdiv_kernels.cpu.lanes import I32, I64, WIDE, Lanes, alloca, on_floats, pointer

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
ROW_SUMS = (CURVE + WIDTH - 1) // WIDTH * WIDTH  # a row's, and room up to a whole vector
TOGETHER = 4  # sums whose inverses are found with one division: of 2e9 classes it does not overflow

ZERO = np.float32(0.0)
ONE = np.float32(1.0)
# exp(x / 16) of it is just a normal number, and its square is none; stands for probability 0.
LOWEST = np.float32(-1380.0)
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
def tile_powers(typing_context: Any, x: Any, classes: Any, w: Any, to: Any) -> Any:
    """Sum over the classes of x (classes, TILE), flat, from LOWEST to 0, but for the first 0.

    The last class is taken in the place of that one. The sums begin at w[to].
    """

    def body(builder: Any, place: Callable[..., Any], args: Any) -> None:
        lanes = Lanes(builder, WIDTH)
        zero = lanes.every(0.0)
        others = builder.sub(args[1], i64(1))
        for at in range(0, TILE, WIDTH):

            def column(j: Any, at: int = at) -> Any:
                return lanes.load(place(0, builder.add(builder.mul(j, i64(TILE)), i64(at))), 4)

            for chain in CHAINS:
                sums = [alloca(builder, zero) for _ in range(2 * len(chain))]
                last = alloca(builder, column(others))
                with cgutils.for_range(builder, others, intp=I64) as loop:
                    t, substitute = column(loop.index), builder.load(last)
                    is_first = builder.fcmp_ordered("==", t, zero)
                    t = builder.select(is_first, substitute, t)
                    builder.store(builder.select(is_first, zero, substitute), last)
                    add_powers(lanes, lanes.exp2(t, LOG2E_16), t, chain, sums)
                places = [k * TILE for k in chain] + [SLOPES + k * TILE for k in chain]
                for total, first in zip(sums, places, strict=True):
                    lanes.store(builder.load(total), place(2, first + at, args[3]), 4)

    return types.void(x, classes, w, to), on_floats(body)


def i64(x: int) -> Any:
    """Return a constant index."""
    return ir.Constant(I64, x)


@intrinsic
def pair_powers(typing_context: Any, margin: Any, at: Any, w: Any, to: Any) -> Any:
    """Make the sums of x = -abs(margin) beside a 0, for TILE margins from `at` on, at w[to]."""

    def body(builder: Any, place: Callable[..., Any], args: Any) -> None:
        lanes = Lanes(builder, WIDTH)
        for part in range(0, TILE, WIDTH):
            m = lanes.load(place(0, builder.add(args[1], i64(part))), 1)
            sign = builder.and_(lanes.as_ints(m), lanes.every(0x7FFFFFFF, I32))
            x = builder.fneg(lanes.as_floats(sign))
            x = lanes.at_least(x, lanes.every(LOWEST))
            for k, power in enumerate(chains(lanes, lanes.exp2(x, LOG2E_16), range(POWERS))):
                lanes.store(power, place(2, k * TILE + part, args[3]), 4)
                slope = place(2, SLOPES + k * TILE + part, args[3])
                lanes.store(builder.fmul(power, x), slope, 4)

    return types.void(margin, at, w, to), on_floats(body)


@intrinsic
def row_powers(
    typing_context: Any, values: Any, at: Any, classes: Any, first: Any, m: Any, probs: Any,
    sums: Any, to: Any,
) -> Any:  # fmt: skip
    """Sum over the classes of a row, but for `first`, into sums[to : to + ROW_SUMS].

    The row begins at values[at] and has WIDTH classes or more: logits, of which m is taken, or
    probabilities, not of float64, of whose logarithms it is taken, if `probs`, which is a literal.
    """
    stored = values.dtype

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        lanes = Lanes(builder, WIDTH)
        zero, none = lanes.every(0.0), lanes.every(LOWEST)
        start, classes, first, largest = args[1], args[2], args[3], lanes.spread(args[4])
        vector = builder.udiv(first, i64(WIDTH))  # that holds `first`
        whole = builder.udiv(classes, i64(WIDTH))
        rest = builder.urem(classes, i64(WIDTH))
        among_whole = builder.icmp_unsigned("<", vector, whole)

        def x_from(element: Any) -> Any:
            place = pointer(context, builder, signature, args, 0, builder.add(start, element))
            v = lanes.numbers(lanes.load(place, 1), stored)
            v = lanes.log(lanes.at_least(v, zero)) if probs.literal_value else v
            x = builder.fsub(v, largest)
            x = x if stored != types.float64 else builder.fptrunc(x, lanes.floats)
            return lanes.at_least(x, none)

        def add(x: Any, chain: Sequence[int], places: Sequence[Any]) -> None:
            add_powers(lanes, lanes.exp2(x, LOG2E_16), x, chain, places)

        def vectors(part: Any) -> tuple[Any, Any]:
            """Return from where to where vectors are whole, before and after that of `first`."""
            before = builder.select(among_whole, vector, whole)
            after = builder.add(vector, i64(1))
            return builder.select(part, after, i64(0)), builder.select(part, whole, before)

        def with_a_gap(last: Any) -> Any:
            """Return x of the vector of `first`, or of the row's last, less what is added."""
            element = builder.select(
                last, builder.sub(classes, i64(WIDTH)), builder.mul(vector, i64(WIDTH))
            )
            added = builder.select(last, builder.sub(i64(WIDTH), rest), i64(0))
            ranks = ir.Constant(lanes.ints, list(range(WIDTH)))
            low = lanes.spread(builder.trunc(added, I32))
            gap = lanes.spread(builder.trunc(builder.sub(first, element), I32))
            there = builder.icmp_signed(">=", ranks, low)
            there = builder.and_(there, builder.icmp_signed("!=", ranks, gap))
            return builder.select(there, x_from(element), none)

        totals: list[Any] = [zero] * ROW_SUMS
        for chain in CHAINS:
            places = [alloca(builder, zero) for _ in range(2 * len(chain))]
            with cgutils.for_range(builder, i64(2), intp=I64) as part:
                begin, end = vectors(builder.trunc(part.index, ir.IntType(1)))
                with cgutils.for_range(builder, end, start=begin, intp=I64) as loop:
                    add(x_from(builder.mul(loop.index, i64(WIDTH))), chain, places)
            begin = builder.select(among_whole, i64(0), i64(1))
            end = builder.select(builder.icmp_unsigned(">", rest, i64(0)), i64(2), i64(1))
            with cgutils.for_range(builder, end, start=begin, intp=I64) as part:
                add(with_a_gap(builder.trunc(part.index, ir.IntType(1))), chain, places)
            for i, k in enumerate(chain):
                totals[k] = builder.load(places[i])
                totals[POWERS + k] = builder.load(places[len(chain) + i])
        for i, total in enumerate(lanes.sums(totals)):
            to = builder.add(args[7], i64(i * WIDTH))
            lanes.store(total, pointer(context, builder, signature, args, 6, to), 4)
        return context.get_dummy_value()

    if not isinstance(probs, types.Literal):
        return None
    return types.void(values, at, classes, first, m, probs, sums, to), generate


def each_curve(
    lanes: Lanes, load: Callable[[int], Any], emit: Callable[[int, Any], None], pairs: bool = False
) -> None:
    """Make of sums (`load` by position in w) s(beta), and of slopes the means of x.

    Sums are of one number, and so not above 1, if `pairs`.
    """
    builder = lanes.builder
    log1p = lanes.log1p_to_one if pairs else lanes.log1p
    for first in range(0, POWERS, TOGETHER):
        group = range(first, min(first + TOGETHER, POWERS))
        others = [load(k * TILE) for k in group]
        whole = [builder.fadd(x, lanes.every(1.0)) for x in others]
        for k, x, total, inverse in zip(group, others, whole, lanes.inverses(whole), strict=True):
            emit(k, log1p(x, total))
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


@inner()
def tile_turn(rows: Any, classes: Any, columns: Any) -> None:
    """Turn a tile's rows into columns; `columns` has room for whole blocks."""
    transpose(rows, TILE, classes, classes, columns, TILE)


@inner()
def tile_room(classes: Any) -> Any:
    """Return how many numbers a tile of columns takes: whole blocks of classes."""
    return (classes + SIDE - 1) // SIDE * SIDE * TILE

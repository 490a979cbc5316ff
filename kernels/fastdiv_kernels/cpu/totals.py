"""Totals of a tile's losses at the temperatures of the grid, in fixed point.

Gaps are summed once, in multiples of 2**-28, and multiplied by sixteen times beta at the end, as
are the means of x that slopes are made of; s is rounded to multiples of 2**-32. All is whole
numbers, in any order.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from fastdiv_kernels.contract import GRID
from fastdiv_kernels.cpu.jit import inner, intrinsic, types
from fastdiv_kernels.cpu.lanes import ALIGNED, FLOAT, Lanes, aligned, on_floats
from fastdiv_kernels.cpu.powers import CURVE, POWERS, TILE, WIDTH, each_curve

SIXTEENTHS = np.array([round(16 * beta) for beta in GRID], np.int64)
assert tuple(SIXTEENTHS / 16) == GRID

LOW = np.int64(0xFFFFFFFF)
FAR = np.float32(32.0)  # nats: s and slopes are nearer to 0, of 16 classes by far, of 7e13 just so
# A number is split in multiples of 2**-11 and a rest. Either is rounded by adding a number so large
# that the last bit of the sum is the unit, and is then read off the bits.
HIGH_BITS = 11
LOW_BITS = 32
MEAN_BITS = 28  # of gaps, and of means of x, both to be multiplied by sixteenths
# High parts are added to what rounds them, which has room for 64 numbers of FAR, then to integers.
ROOM = 64  # tiles
TILES = 1024  # whose parts, no more than 2**20, are added in 32 bits
# Totals, flat, 32 bits, each with TILE lanes: high parts by position in a curve, as floats and as
# integers, low parts; high and low parts of the gap; rows.
HIGHS = CURVE * TILE
LOWS = 2 * CURVE * TILE
GAP_HIGH = 3 * CURVE * TILE
GAP_LOW = GAP_HIGH + TILE
ROWS = GAP_LOW + TILE
TOTALS = ROWS + TILE


def rounding(bits: int) -> float:
    """Return what is added to round to multiples of 2**-bits."""
    return float(1.5 * 2.0 ** (23 - bits))


def add_fixed(lanes: Lanes, x: Any, high: Any, low: Any, bits: int) -> None:
    """Add x, between -FAR and FAR, to totals (places of floats and of ints)."""
    builder = lanes.builder
    before = lanes.as_floats(lanes.load(high, 4))
    after = builder.fadd(before, x)
    lanes.store(after, builder.bitcast(high, FLOAT.as_pointer()), 4)
    add_rest(lanes, builder.fsub(x, builder.fsub(after, before)), low, bits)


def add_rest(lanes: Lanes, rest: Any, low: Any, bits: int) -> None:
    """Add what is no more than half the unit of high parts to totals (a place)."""
    rounded = lanes.as_ints(lanes.builder.fadd(rest, lanes.every(rounding(bits))))
    lanes.store(lanes.builder.add(lanes.load(low, 4), rounded), low, 4)


def add_gaps(lanes: Lanes, place: Callable[..., Any], args: Any, part: int) -> Any:
    """Add gaps (arguments 2 and 3) to totals (argument 4); return which rows have one."""
    builder = lanes.builder
    gap = lanes.load(place(2, part, args[3]), 4)
    there = builder.fcmp_ordered(">=", gap, lanes.every(0.0))
    gap = builder.select(there, gap, lanes.every(0.0))
    coarse = lanes.every(rounding(HIGH_BITS))
    high, shifted = place(4, GAP_HIGH + part), builder.fadd(gap, coarse)
    lanes.store(builder.add(lanes.load(high, 4), lanes.as_ints(shifted)), high, 4)
    rest = builder.fsub(gap, builder.fsub(shifted, coarse))
    add_rest(lanes, rest, place(4, GAP_LOW + part), MEAN_BITS)
    return there


def adds_sums(pairs: bool) -> Callable[..., Any]:
    """Make the intrinsic that adds what sums of powers tell; sums are of one number if `pairs`."""

    def add(typing_context: Any, w: Any, at: Any, gap: Any, gap_at: Any, totals: Any) -> Any:
        def body(builder: Any, place: Callable[..., Any], args: Any) -> None:
            lanes = Lanes(builder, WIDTH)
            for part in range(0, TILE, WIDTH):
                there = add_gaps(lanes, place, args, part)

                def load(at: int, part: int = part, there: Any = there) -> Any:
                    x = lanes.load(place(0, at + part, args[1]), 4)
                    return builder.select(there, x, lanes.every(0.0))

                def emit(k: int, x: Any, part: int = part) -> None:
                    at = k * TILE + part
                    bits = LOW_BITS if k < POWERS else MEAN_BITS
                    add_fixed(lanes, x, place(4, at), place(4, LOWS + at), bits)

                each_curve(lanes, load, emit, pairs)

        return types.void(w, at, gap, gap_at, totals), on_floats(body)

    return intrinsic(add)


add_sums = adds_sums(False)
add_pairs = adds_sums(True)


@intrinsic
def add_curves(
    typing_context: Any, curves: Any, first: Any, gap: Any, gap_at: Any, totals: Any
) -> Any:
    """Add a tile's curves (CURVE, TILE), flat, of rows with a gap."""

    def body(builder: Any, place: Callable[..., Any], args: Any) -> None:
        lanes = Lanes(builder, WIDTH)
        for part in range(0, TILE, WIDTH):
            there = add_gaps(lanes, place, args, part)
            for at in range(part, CURVE * TILE, TILE):
                x = builder.select(there, lanes.load(place(0, at, args[1]), 4), lanes.every(0.0))
                add_fixed(lanes, x, place(4, at), place(4, LOWS + at), LOW_BITS)

    return types.void(curves, first, gap, gap_at, totals), on_floats(body)


@inner()
def make_room(totals: Any) -> None:
    """Move high parts from floats to integers."""
    begin = np.int32(bits_of_rounding(HIGH_BITS))
    for i in range(np.uint64(CURVE * TILE)):
        totals[HIGHS + i] += totals[i] - begin
        totals[i] = begin


@inner()
def new_totals() -> Any:
    """Make totals of nothing."""
    totals = aligned(np.zeros(TOTALS + ALIGNED, np.int32))
    totals[:HIGHS] = np.int32(bits_of_rounding(HIGH_BITS))
    return totals


@inner()
def add_integer(sums: Any, k: Any, fixed: Any) -> None:
    """Add multiples of 2**-32 to row k of sums."""
    sums[k, 0] += fixed & LOW
    sums[k, 1] += fixed >> 32


@inner()
def settle(totals: Any, tiles: Any, slope_bits: Any, counts: Any, sums: Any) -> None:
    """Add the totals of so many tiles to those of the caller, and begin anew.

    Slopes are multiples of 2**-32, or are to be multiplied by beta if of another unit.
    """
    make_room(totals)
    high_of_gaps = tiles * bits_of_rounding(HIGH_BITS)
    gap = joined(totals, GAP_HIGH, high_of_gaps, GAP_LOW, tiles, MEAN_BITS)
    for k in range(CURVE):
        bits = LOW_BITS if k < POWERS else slope_bits
        at = k * TILE
        fixed = joined(totals, HIGHS + at, 0, LOWS + at, tiles, bits)
        beta = SIXTEENTHS[k % POWERS]
        fixed = fixed if bits == LOW_BITS else beta * fixed
        add_integer(sums, k, fixed + beta * gap)
    for lane in range(TILE):
        counts[0] += totals[ROWS + lane]
    totals[HIGHS:] = 0


@inner()
def joined(totals: Any, high: Any, too_high: Any, low: Any, tiles: Any, bits: Any) -> Any:
    """Return a sum over lanes as a multiple of 2**-bits, from its two parts."""
    too_low = tiles * bits_of_rounding(bits)
    fixed = np.int64(0)
    for lane in range(TILE):
        fixed += np.int64(np.int32(totals[high + lane] - too_high)) << (bits - HIGH_BITS)
        fixed += np.int64(np.int32(totals[low + lane] - too_low))
    return fixed


@inner()
def bits_of_rounding(bits: Any) -> Any:
    """Return the bits of what `rounding` returns."""
    return np.int64(127 + 23 - bits) << 23 | np.int64(1 << 22)

"""`tally_temperatures` on the CPU: sums of losses at the temperatures of the grid, in fixed point.

A row adds ``s(beta) + beta * gap`` and a slope at each temperature. The gap is summed once, in
multiples of 2**-28, and multiplied by sixteen times beta at the end; s and the slope, which no
number of classes makes larger than some tens, are rounded to multiples of 2**-32. All is whole
numbers, in any order. Rows that lack `FAST` nats or more are added one by one.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types

from fastdiv_kernels.contract import GRID, HIGHEST_SUMMED, PRESENT, REASON
from fastdiv_kernels.cpu.blocks import SIDE, columns_of_halves
from fastdiv_kernels.cpu.jit import inner, intrinsic, kernel
from fastdiv_kernels.cpu.lanes import (
    ALIGNED,
    I32,
    I64,
    Lanes,
    aligned,
    flush_tiny,
    on_floats,
    pointer,
    restore,
)
from fastdiv_kernels.cpu.powers import (
    ATTAINED,
    CURVE,
    LOWEST,
    POWERS,
    SCRATCH,
    TILE,
    WIDTH,
    ZERO,
    each_curve,
    pair_powers,
    tile_curves,
    tile_powers,
)

BETAS = np.array(GRID, np.float32)
SIXTEENTHS = np.array([round(16 * beta) for beta in GRID], np.int64)
assert tuple(SIXTEENTHS / 16) == GRID

SCALE = np.float32(2.0**32)  # of fixed point
HIGHEST = np.float32(HIGHEST_SUMMED)
LOW = np.int64(0xFFFFFFFF)
FAST = np.float32(512.0)  # nats
# A number below FAST is split in multiples of 2**-13 and a rest. Either is rounded by adding a
# number so large that the last bit of the sum is the unit, and is then read off the bits.
HIGH_BITS = 13
LOW_BITS = 32
GAP_BITS = 28
TILES = 256  # whose numbers' high parts, no more than 2**22, are added in 32 bits
# Totals, flat, int32, each with TILE lanes: high parts by position in a curve, low parts; the
# same two of the gap; rows.
LOWS = CURVE * TILE
GAP_HIGH = 2 * CURVE * TILE
GAP_LOW = GAP_HIGH + TILE
ROWS = GAP_LOW + TILE
TOTALS = ROWS + TILE
SPARE = 2 * TILE  # rows at the end, which are copied: vectors reach beyond the last
OVERRUN = 3  # rows, of three classes and more, that eight numbers reach beyond


def rounding(bits: int) -> float:
    """Return what is added to round to multiples of 2**-bits."""
    return float(1.5 * 2.0 ** (23 - bits))


def add_fixed(lanes: Lanes, x: Any, high: Any, low: Any, bits: int = LOW_BITS) -> None:
    """Add x, between -FAST and FAST, to totals (places), in multiples of 2**-bits."""
    builder = lanes.builder
    coarse, fine = lanes.every(rounding(HIGH_BITS)), lanes.every(rounding(bits))
    shifted = builder.fadd(x, coarse)
    rest = builder.fsub(x, builder.fsub(shifted, coarse))
    for total, parts in ((high, shifted), (low, builder.fadd(rest, fine))):
        lanes.store(builder.add(lanes.load(total, 4), lanes.as_ints(parts)), total, 4)


@intrinsic
def find_gaps(
    typing_context: Any, loss: Any, margin: Any, flags: Any, at: Any, gap: Any, totals: Any
) -> Any:
    """Count the rows of a tile that are added, write their gaps, and -1 for all others.

    Returns bits of the rows whose gap is FAST or more: -1 is written for these too.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        def place(which: int, at: Any) -> Any:
            return pointer(context, builder, signature, args, which, at)

        lanes = Lanes(builder, TILE)
        state = builder.zext(lanes.load(place(2, args[3]), 1), lanes.ints)
        state = builder.and_(state, lanes.every(PRESENT | REASON, I32))
        there = builder.icmp_signed("==", state, lanes.every(PRESENT, I32))
        losses = lanes.load(place(0, args[3]), 1)
        infinite = ir.Constant(losses.type, [float("inf")] * TILE)
        there = builder.and_(there, builder.fcmp_ordered("<", losses, infinite))
        m = lanes.load(place(1, args[3]), 1)
        finite = builder.fcmp_ordered(">", m, lanes.every(-np.inf))
        there = builder.and_(there, finite)
        total = place(5, ROWS)
        rows = builder.add(lanes.load(total, 4), builder.zext(there, lanes.ints))
        lanes.store(rows, total, 4)
        lacking = builder.fcmp_ordered("<", m, lanes.every(0.0))
        lacks = builder.select(lacking, builder.fneg(m), lanes.every(0.0))
        near = builder.fcmp_ordered("<", lacks, lanes.every(FAST))
        fast = builder.and_(there, near)
        lanes.store(builder.select(fast, lacks, lanes.every(-1.0)), place(4, 0), 4)
        slow = builder.and_(there, builder.not_(near))
        return builder.zext(builder.bitcast(slow, ir.IntType(TILE)), I64)

    return types.uint64(loss, margin, flags, at, gap, totals), generate


def add_gaps(lanes: Lanes, place: Callable[[int, Any], Any], part: int) -> Any:
    """Add gaps (argument 1) to totals (argument 2); return which rows have one."""
    gap = lanes.load(place(1, part), 4)
    there = lanes.builder.fcmp_ordered(">=", gap, lanes.every(0.0))
    gap = lanes.builder.select(there, gap, lanes.every(0.0))
    add_fixed(lanes, gap, place(2, GAP_HIGH + part), place(2, GAP_LOW + part), GAP_BITS)
    return there


@intrinsic
def add_sums(typing_context: Any, w: Any, gap: Any, totals: Any) -> Any:
    """Add what a tile's sums of powers tell of rows with a gap."""

    def body(builder: Any, place: Callable[[int, Any], Any], args: Any) -> None:
        lanes = Lanes(builder, WIDTH)
        for part in range(0, TILE, WIDTH):
            there = add_gaps(lanes, place, part)

            def load(at: int, part: int = part, there: Any = there) -> Any:
                nothing = lanes.every(1.0 if at == ATTAINED else 0.0)
                return builder.select(there, lanes.load(place(0, at + part), 4), nothing)

            def emit(k: int, x: Any, part: int = part) -> None:
                at = k * TILE + part
                add_fixed(lanes, x, place(2, at), place(2, LOWS + at))

            each_curve(lanes, load, emit)

    return types.void(w, gap, totals), on_floats(body)


@intrinsic
def add_curves(typing_context: Any, curves: Any, gap: Any, totals: Any) -> Any:
    """Add a tile's curves (CURVE, TILE), flat, of rows with a gap."""

    def body(builder: Any, place: Callable[[int, Any], Any], args: Any) -> None:
        lanes = Lanes(builder, WIDTH)
        for part in range(0, TILE, WIDTH):
            there = add_gaps(lanes, place, part)
            for at in range(part, CURVE * TILE, TILE):
                x = builder.select(there, lanes.load(place(0, at), 4), lanes.every(0.0))
                add_fixed(lanes, x, place(2, at), place(2, LOWS + at))

    return types.void(curves, gap, totals), on_floats(body)


@inner("contract")
def add_rows(slow: Any, margin: Any, at: Any, curves: Any, sums: Any) -> None:
    """Add the rows of a tile whose bits are in `slow`, given its curves."""
    for lane in range(np.uint64(TILE)):
        if not (slow >> lane) & np.uint64(1):
            continue
        for k in range(np.uint64(CURVE)):
            x = (
                curves[k * np.uint64(TILE) + lane]
                - BETAS[k % np.uint64(POWERS)] * margin[at + lane]
            )
            x = x if x < HIGHEST else HIGHEST
            add_integer(sums, k, np.int64(np.rint(x * SCALE)))


@inner()
def add_integer(sums: Any, k: Any, fixed: Any) -> None:
    """Add multiples of 2**-32 to row k of sums."""
    sums[k, 0] += fixed & LOW
    sums[k, 1] += fixed >> 32


@inner()
def settle(totals: Any, tiles: Any, counts: Any, sums: Any) -> None:
    """Add the totals of so many tiles to those of the caller, and begin anew."""
    gap = joined(totals, GAP_HIGH, GAP_LOW, tiles, GAP_BITS)
    for k in range(CURVE):
        fixed = joined(totals, k * TILE, LOWS + k * TILE, tiles, LOW_BITS)
        add_integer(sums, k, fixed + SIXTEENTHS[k % POWERS] * gap)
    for lane in range(TILE):
        counts[0] += totals[ROWS + lane]
    totals[:] = 0


@inner()
def joined(totals: Any, high: Any, low: Any, tiles: Any, bits: Any) -> Any:
    """Return a sum over lanes as a multiple of 2**-bits, from its two parts."""
    coarse = tiles * bits_of_rounding(HIGH_BITS)
    fine = tiles * bits_of_rounding(bits)
    fixed = np.int64(0)
    for lane in range(TILE):
        fixed += np.int64(np.int32(totals[high + lane] - coarse)) << (bits - HIGH_BITS)
        fixed += np.int64(np.int32(totals[low + lane] - fine))
    return fixed


@inner()
def bits_of_rounding(bits: Any) -> Any:
    """Return the bits of what `rounding` returns."""
    return np.int64(127 + 23 - bits) << 23 | np.int64(1 << 22)


@inner()
def whole_tiles(n: Any) -> Any:
    """Return how many of n rows are taken where they lie; after them are some that are copied."""
    return max(n - OVERRUN, 0) // TILE * TILE


@inner()
def spare(column: Any, start: Any, width: Any) -> Any:
    """Return the rows from `start` on, with room for SPARE of them, 0 where there are none."""
    rows = np.zeros(SPARE * width + SIDE, column.dtype)
    for i in range(len(column) - start * width):
        rows[i] = column[start * width + i]
    return rows


@kernel
def tally_pairs(loss: Any, margin: Any, flags: Any, counts: Any, sums: Any) -> None:
    """Add the losses of two classes at the temperatures of the grid to totals."""
    n = len(flags)
    whole = whole_tiles(n)
    w = aligned(np.zeros(SCRATCH + ALIGNED, np.float32))
    curves = aligned(np.zeros(SCRATCH + ALIGNED, np.float32))
    gap = aligned(np.zeros(TILE + ALIGNED, np.float32))
    totals = aligned(np.zeros(TOTALS + ALIGNED, np.int32))
    tiles = 0
    state = flush_tiny()
    for part in range(2):
        stop = whole
        if part:
            stop = n - whole
            loss, margin = spare(loss, whole, 1), spare(margin, whole, 1)
            flags = spare(flags, whole, 1)
        for start in range(0, stop, TILE):
            at = np.uint64(start)
            slow = find_gaps(loss, margin, flags, at, gap, totals)
            pair_powers(margin, at, w)
            add_sums(w, gap, totals)
            if slow:
                tile_curves(w, curves)
                add_rows(slow, margin, at, curves, sums)
            tiles += 1
            if tiles == TILES:
                settle(totals, tiles, counts, sums)
                tiles = 0
    restore(state)
    settle(totals, tiles, counts, sums)


@kernel
def tally_vectors(loss: Any, margin: Any, flags: Any, profile: Any, counts: Any, sums: Any) -> None:
    """Add the losses of rows of differences at the temperatures of the grid to totals."""
    n, c = profile.shape
    whole = whole_tiles(n)
    values = profile.reshape(n * c)
    x = aligned(np.zeros((c + SIDE) * TILE + ALIGNED, np.float32))
    w = aligned(np.zeros(SCRATCH + ALIGNED, np.float32))
    curves = aligned(np.zeros(SCRATCH + ALIGNED, np.float32))
    gap = aligned(np.zeros(TILE + ALIGNED, np.float32))
    totals = aligned(np.zeros(TOTALS + ALIGNED, np.int32))
    tiles = 0
    state = flush_tiny()
    for part in range(2):
        stop = whole
        if part:
            stop = n - whole
            loss, margin = spare(loss, whole, 1), spare(margin, whole, 1)
            flags, values = spare(flags, whole, 1), spare(values, whole, c)
        for start in range(0, stop, TILE):
            at = np.uint64(start)
            slow = find_gaps(loss, margin, flags, at, gap, totals)
            turn(values, at, c, LOWEST, ZERO, x)
            tile_powers(x, c, w)
            add_sums(w, gap, totals)
            if slow:
                tile_curves(w, curves)
                add_rows(slow, margin, at, curves, sums)
            tiles += 1
            if tiles == TILES:
                settle(totals, tiles, counts, sums)
                tiles = 0
    restore(state)
    settle(totals, tiles, counts, sums)


@kernel
def tally_curves(loss: Any, margin: Any, flags: Any, profile: Any, counts: Any, sums: Any) -> None:
    """Add the losses of rows of curves at the temperatures of the grid to totals."""
    n = len(flags)
    whole = whole_tiles(n)
    values = profile.reshape(n * CURVE)
    curves = aligned(np.zeros(SCRATCH + ALIGNED, np.float32))
    gap = aligned(np.zeros(TILE + ALIGNED, np.float32))
    totals = aligned(np.zeros(TOTALS + ALIGNED, np.int32))
    tiles = 0
    for part in range(2):
        stop = whole
        if part:
            stop = n - whole
            loss, margin = spare(loss, whole, 1), spare(margin, whole, 1)
            flags, values = spare(flags, whole, 1), spare(values, whole, CURVE)
        for start in range(0, stop, TILE):
            at = np.uint64(start)
            slow = find_gaps(loss, margin, flags, at, gap, totals)
            turn(values, at, CURVE, -FAST, FAST, curves)
            add_curves(curves, gap, totals)
            if slow:
                add_rows(slow, margin, at, curves, sums)
            tiles += 1
            if tiles == TILES:
                settle(totals, tiles, counts, sums)
                tiles = 0
    settle(totals, tiles, counts, sums)


@inner()
def turn(values: Any, at: Any, width: Any, lowest: Any, highest: Any, x: Any) -> None:
    """Make columns of floats (width, TILE), flat, of a tile's rows of words of half precision.

    Reads up to SIDE numbers of each row that has fewer, and so of the next ones.
    """
    first = at * np.uint64(width)
    for j in range(0, width - SIDE, SIDE):
        columns_of_halves(values, first, np.uint64(width), np.uint64(j), lowest, highest, x)
    j = np.uint64(max(width - SIDE, 0))
    columns_of_halves(values, first, np.uint64(width), j, lowest, highest, x)

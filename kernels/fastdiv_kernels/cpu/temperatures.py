"""`tally_temperatures` on the CPU: sums of losses at the temperatures of the grid, in fixed point.

A row adds ``s(beta) + beta * gap`` and a slope at each temperature. Gaps are summed once, in
multiples of 2**-28, and multiplied by sixteen times beta at the end, as are the means of x that
slopes are made of; s, which no number of classes makes larger than some tens, is rounded to
multiples of 2**-32. All is whole numbers, in any order. Rows that lack `FAST` nats or more are
added one by one.
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
    FLOAT,
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
TOGETHER = 4  # tiles
SPARE = 2 * TILE  # rows at the end, which are copied: vectors reach beyond the last
OVERRUN = 3  # rows, of three classes and more, that eight numbers reach beyond


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


@intrinsic
def find_gaps(
    typing_context: Any, loss: Any, margin: Any, flags: Any, at: Any, gap: Any, to: Any, totals: Any
) -> Any:
    """Count the rows of a tile that are added, write their gaps to gap[to], -1 for all others.

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
        total = place(6, ROWS)
        rows = builder.add(lanes.load(total, 4), builder.zext(there, lanes.ints))
        lanes.store(rows, total, 4)
        lacking = builder.fcmp_ordered("<", m, lanes.every(0.0))
        lacks = builder.select(lacking, builder.fneg(m), lanes.every(0.0))
        near = builder.fcmp_ordered("<", lacks, lanes.every(FAST))
        fast = builder.and_(there, near)
        lanes.store(builder.select(fast, lacks, lanes.every(-1.0)), place(4, args[5]), 4)
        slow = builder.and_(there, builder.not_(near))
        return builder.zext(builder.bitcast(slow, ir.IntType(TILE)), I64)

    return types.uint64(loss, margin, flags, at, gap, to, totals), generate


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
        def body(builder: Any, place: Callable[[int, Any], Any], args: Any) -> None:
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

    def body(builder: Any, place: Callable[[int, Any], Any], args: Any) -> None:
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
    state = flush_tiny()
    tally_tiles(
        loss, margin, flags, margin, 1, MEAN_BITS, of_margins, add_pairs_of, curves_of_sums, counts,
        sums,
    )  # fmt: skip
    restore(state)


@kernel
def tally_vectors(loss: Any, margin: Any, flags: Any, profile: Any, counts: Any, sums: Any) -> None:
    """Add the losses of rows of differences at the temperatures of the grid to totals."""
    n, c = profile.shape
    state = flush_tiny()
    tally_tiles(
        loss, margin, flags, profile.reshape(n * c), c, MEAN_BITS, of_differences, add_sums_of,
        curves_of_sums, counts, sums,
    )  # fmt: skip
    restore(state)


@kernel
def tally_curves(loss: Any, margin: Any, flags: Any, profile: Any, counts: Any, sums: Any) -> None:
    """Add the losses of rows of curves at the temperatures of the grid to totals."""
    tally_tiles(
        loss, margin, flags, profile.reshape(len(profile) * CURVE), CURVE, LOW_BITS, of_curves,
        add_curves_of, curves_themselves, counts, sums,
    )  # fmt: skip


@inner()
def tally_tiles(
    loss: Any, margin: Any, flags: Any, values: Any, width: Any, slope_bits: Any, make: Any,
    add: Any, curves_of: Any, counts: Any, sums: Any,
) -> None:  # fmt: skip
    """Add losses to totals, given what `make` makes numbers of a tile of, and `add` adds.

    Some tiles are made before the first of them is added: neither waits for the other's last
    result. `values` has `width` numbers a row.
    """
    n = len(flags)
    whole = whole_tiles(n)
    x = aligned(np.zeros((width + SIDE) * TILE + ALIGNED, np.float32))
    w = aligned(np.zeros(TOGETHER * SCRATCH + ALIGNED, np.float32))
    curves = aligned(np.zeros(SCRATCH + ALIGNED, np.float32))
    gap = aligned(np.zeros(TOGETHER * TILE + ALIGNED, np.float32))
    slow = np.zeros(TOGETHER, np.uint64)
    totals = new_totals()
    tiles = added = 0
    for part in range(2):
        stop = whole
        if part:
            stop = n - whole
            loss, margin = spare(loss, whole, 1), spare(margin, whole, 1)
            flags, values = spare(flags, whole, 1), spare(values, whole, width)
        for start in range(0, stop, TOGETHER * TILE):
            several = min((stop - start + TILE - 1) // TILE, TOGETHER)
            for i in range(np.uint64(several)):
                at, to = np.uint64(start) + i * np.uint64(TILE), i * np.uint64(TILE)
                slow[i] = find_gaps(loss, margin, flags, at, gap, to, totals)
                make(values, at, width, x, w, i * np.uint64(SCRATCH))
            for i in range(np.uint64(several)):
                add(w, i * np.uint64(SCRATCH), gap, i * np.uint64(TILE), totals)
                if slow[i]:
                    at = np.uint64(start) + i * np.uint64(TILE)
                    curves_of(w, i * np.uint64(SCRATCH), curves)
                    add_rows(slow[i], margin, at, curves, sums)
            tiles += several
            added += several
            if added > ROOM - TOGETHER:
                make_room(totals)
                added = 0
            if tiles > TILES - TOGETHER:
                settle(totals, tiles, slope_bits, counts, sums)
                tiles = added = 0
    settle(totals, tiles, slope_bits, counts, sums)


@inner()
def of_margins(margin: Any, at: Any, width: Any, x: Any, w: Any, to: Any) -> None:
    """Make sums of powers of a tile of margins."""
    pair_powers(margin, at, w, to)


@inner()
def of_differences(values: Any, at: Any, width: Any, x: Any, w: Any, to: Any) -> None:
    """Make sums of powers of a tile of differences."""
    turn(values, at, width, LOWEST, ZERO, x, np.uint64(0))
    tile_powers(x, width, w, to)


@inner()
def of_curves(values: Any, at: Any, width: Any, x: Any, w: Any, to: Any) -> None:
    """Make columns of a tile of curves."""
    turn(values, at, width, -FAR, FAR, w, to)


@inner()
def add_pairs_of(w: Any, at: Any, gap: Any, gap_at: Any, totals: Any) -> None:
    """Add a tile of pairs."""
    add_pairs(w, at, gap, gap_at, totals)


@inner()
def add_sums_of(w: Any, at: Any, gap: Any, gap_at: Any, totals: Any) -> None:
    """Add a tile of vectors."""
    add_sums(w, at, gap, gap_at, totals)


@inner()
def add_curves_of(w: Any, at: Any, gap: Any, gap_at: Any, totals: Any) -> None:
    """Add a tile of curves."""
    add_curves(w, at, gap, gap_at, totals)


@inner()
def curves_of_sums(w: Any, at: Any, curves: Any) -> None:
    """Make curves of sums."""
    tile_curves(w, at, curves)


@inner()
def curves_themselves(w: Any, at: Any, curves: Any) -> None:
    """Copy curves."""
    for i in range(np.uint64(CURVE * TILE)):
        curves[i] = w[at + i]


@inner()
def turn(
    values: Any, at: Any, width: Any, lowest: Any, highest: Any, x: Any, to: Any
) -> None:  # fmt: skip
    """Make columns of floats x[to:] (width, TILE), flat, of a tile's rows of half precision.

    Reads up to SIDE numbers of each row that has fewer, and so of the next ones.
    """
    first = at * np.uint64(width)
    for j in range(0, width - SIDE, SIDE):
        columns_of_halves(values, first, np.uint64(width), np.uint64(j), lowest, highest, x, to)
    j = np.uint64(max(width - SIDE, 0))
    columns_of_halves(values, first, np.uint64(width), j, lowest, highest, x, to)

"""`tally_temperatures` on the CPU: sums of losses at the temperatures of the grid, in fixed point.

A row adds ``s(beta) + beta * gap`` and a slope at each temperature; see `totals`. Rows that lack
`FAST` nats or more are added one by one.
"""

from typing import Any

import numpy as np
from llvmlite import ir

from fastdiv_kernels.contract import GRID, HIGHEST_SUMMED, PRESENT, REASON
from fastdiv_kernels.cpu.arithmetic import value
from fastdiv_kernels.cpu.blocks import SIDE, columns_of_differences
from fastdiv_kernels.cpu.jit import inner, intrinsic, kernel, types
from fastdiv_kernels.cpu.lanes import (
    ALIGNED,
    I32,
    I64,
    Lanes,
    aligned,
    flush_tiny,
    pointer,
    restore,
)
from fastdiv_kernels.cpu.powers import (
    CURVE,
    POWERS,
    SCRATCH,
    TILE,
    keep_sums,
    pair_powers,
    tile_curves,
    tile_powers,
)
from fastdiv_kernels.cpu.totals import (
    CURVES,
    FAR,
    PAIRS,
    ROWS,
    STORED_BITS,
    TILES,
    TOGETHER,
    VECTORS,
    add_curves,
    add_gaps,
    add_integer,
    add_pairs,
    add_sums,
    new_totals,
    settle,
)

BETAS = np.array(GRID, np.float32)
SCALE = np.float32(2.0**32)  # of fixed point
HIGHEST = np.float32(HIGHEST_SUMMED)
FAST = np.float32(512.0)  # nats
ALL = np.uint64((1 << TILE) - 1)  # rows of a tile that are added
SPARE = 2 * TILE  # rows at the end, which are copied: vectors reach beyond the last
OVERRUN = 3  # rows, of three classes and more, that eight numbers reach beyond


@intrinsic
def find_gaps(
    typing_context: Any, loss: Any, margin: Any, flags: Any, at: Any, scales: Any, to: Any,
    totals: Any,
) -> Any:  # fmt: skip
    """Count the rows of a tile that are added, and add the gaps that are below FAST.

    The scale of their curves is written to scales[to], 0 of all others. Returns 32 bits: which rows
    these are, and above them those with a gap of FAST or more.
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
        near = builder.fcmp_ordered(">", m, lanes.every(-FAST))
        fast = builder.and_(there, near)
        gap = lanes.at_least(builder.fneg(m), lanes.every(0.0))
        add_gaps(lanes, gap, fast, lambda at: place(6, at))
        scale = builder.select(fast, lanes.every(2.0**STORED_BITS), lanes.every(0.0))
        lanes.store(scale, place(4, args[5]), 4)
        slow = builder.and_(there, builder.not_(near))
        fast, slow = (
            builder.zext(builder.bitcast(mask, ir.IntType(TILE)), I64) for mask in (fast, slow)
        )
        return builder.or_(fast, builder.shl(slow, ir.Constant(I64, TILE)))

    return types.uint64(loss, margin, flags, at, scales, to, totals), generate


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
        loss, margin, flags, margin, 1, PAIRS, of_margins, nothing, only_those, add_pairs_of,
        counts, sums,
    )  # fmt: skip
    restore(state)


@kernel
def tally_vectors(loss: Any, margin: Any, flags: Any, profile: Any, counts: Any, sums: Any) -> None:
    """Add the losses of rows of differences at the temperatures of the grid to totals."""
    n, c = profile.shape
    state = flush_tiny()
    tally_tiles(
        loss, margin, flags, profile.reshape(n * c), c, VECTORS, of_differences, curves_of_sums,
        only_those, add_sums_of, counts, sums,
    )  # fmt: skip
    restore(state)


@kernel
def tally_curves(loss: Any, margin: Any, flags: Any, profile: Any, counts: Any, sums: Any) -> None:
    """Add the losses of rows of curves at the temperatures of the grid to totals."""
    tally_tiles(
        loss, margin, flags, profile.reshape(len(profile) * CURVE), CURVE, CURVES, as_stored,
        curves_themselves, all_of_them, add_curves_of, counts, sums,
    )  # fmt: skip


@inner()
def tally_tiles(
    loss: Any, margin: Any, flags: Any, values: Any, width: Any, kind: Any, make: Any,
    curves_of: Any, keep: Any, add: Any, counts: Any, sums: Any,
) -> None:  # fmt: skip
    """Add losses to totals, given what `make` makes numbers of a tile of, and `add` adds.

    Some tiles are made and then added together: neither waits for the other's last result, and
    totals are in registers meanwhile. `values` has `width` numbers a row.
    """
    n = len(flags)
    whole = whole_tiles(n)
    x = aligned(np.zeros(2 * (width + SIDE) * TILE + ALIGNED, np.float32))
    w = aligned(np.zeros(TOGETHER * SCRATCH + ALIGNED, np.float32))
    curves = aligned(np.zeros(SCRATCH + ALIGNED, np.float32))
    scales = aligned(np.zeros(TOGETHER * TILE + ALIGNED, np.float32))
    totals = new_totals()
    tiles = 0
    for part in range(2):
        stop = whole
        if part:
            stop = n - whole
            loss, margin = spare(loss, whole, 1), spare(margin, whole, 1)
            flags, values = spare(flags, whole, 1), spare(values, whole, width)
        for start in range(0, stop, TOGETHER * TILE):
            several = min((stop - start + TILE - 1) // TILE, TOGETHER)
            for i in range(np.uint64(several)):
                at, to = np.uint64(start) + i * np.uint64(TILE), i * np.uint64(SCRATCH)
                rows = find_gaps(loss, margin, flags, at, scales, i * np.uint64(TILE), totals)
                make(values, at, width, x, w, to)
                slow = rows >> np.uint64(TILE)
                if slow:
                    curves_of(values, at, w, to, curves)
                    add_rows(slow, margin, at, curves, sums)
                if rows != ALL:
                    keep(scales, i * np.uint64(TILE), w, to)
            add(values, np.uint64(start), several, scales, w, totals)
            tiles += several
            if tiles > TILES - TOGETHER:
                settle(totals, tiles, kind, counts, sums)
                tiles = 0
    settle(totals, tiles, kind, counts, sums)


@inner()
def of_margins(margin: Any, at: Any, width: Any, x: Any, w: Any, to: Any) -> None:
    """Make powers of a tile of margins."""
    pair_powers(margin, at, w, to)


@inner()
def of_differences(values: Any, at: Any, width: Any, x: Any, w: Any, to: Any) -> None:
    """Make sums of powers of a tile of differences."""
    turn(values, at, width, x)
    tile_powers(x, x[len(x) // 2 :], width, w, to)


@inner()
def as_stored(values: Any, at: Any, width: Any, x: Any, w: Any, to: Any) -> None:
    """Leave curves where they are."""


@inner()
def nothing(values: Any, at: Any, w: Any, to: Any, curves: Any) -> None:
    """Make no curves of pairs that are FAST apart: there s and slopes are 0."""
    curves[:] = 0.0


@inner()
def curves_of_sums(values: Any, at: Any, w: Any, to: Any, curves: Any) -> None:
    """Make curves of sums."""
    tile_curves(w, to, curves)


@inner()
def curves_themselves(values: Any, at: Any, w: Any, to: Any, curves: Any) -> None:
    """Turn curves into columns."""
    for lane in range(np.uint64(TILE)):
        for k in range(np.uint64(CURVE)):
            x = value(values[(at + lane) * np.uint64(CURVE) + k])
            curves[k * np.uint64(TILE) + lane] = min(max(x, -FAR), FAR)


@inner()
def only_those(scales: Any, scale_at: Any, w: Any, to: Any) -> None:
    """Make nothing of the sums of rows that are not added."""
    keep_sums(scales, scale_at, w, to)


@inner()
def all_of_them(scales: Any, scale_at: Any, w: Any, to: Any) -> None:
    """Leave curves to their scales."""


@inner()
def add_pairs_of(values: Any, at: Any, tiles: Any, scales: Any, w: Any, totals: Any) -> None:
    """Add tiles of pairs."""
    add_pairs(w, tiles, totals)


@inner()
def add_sums_of(values: Any, at: Any, tiles: Any, scales: Any, w: Any, totals: Any) -> None:
    """Add tiles of vectors."""
    add_sums(w, tiles, totals)


@inner()
def add_curves_of(values: Any, at: Any, tiles: Any, scales: Any, w: Any, totals: Any) -> None:
    """Add tiles of curves."""
    add_curves(values, at * np.uint64(CURVE), tiles * TILE, scales, totals)


@inner()
def turn(values: Any, at: Any, width: Any, x: Any) -> None:
    """Make columns of floats x (width, TILE), flat, of a tile's rows of differences.

    Reads up to SIDE numbers of each row that has fewer, and so of the next ones.
    """
    first = at * np.uint64(width)
    for j in range(0, width - SIDE, SIDE):
        columns_of_differences(values, first, np.uint64(width), np.uint64(j), x)
    last = np.uint64(max(width - SIDE, 0))
    columns_of_differences(values, first, np.uint64(width), last, x)

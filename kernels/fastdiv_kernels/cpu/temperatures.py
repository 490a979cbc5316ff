"""`tally_temperatures` on the CPU: sums of losses at the temperatures of the grid, in fixed point.

A row adds ``s(beta) + beta * gap`` and a slope at each temperature; see `totals`. Rows that lack
`FAST` nats or more are added one by one.
"""

from typing import Any

import numpy as np
from llvmlite import ir

from fastdiv_kernels.contract import GRID, HIGHEST_SUMMED, PRESENT, REASON
from fastdiv_kernels.cpu.blocks import SIDE, columns_of_halves
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
    LOWEST,
    POWERS,
    SCRATCH,
    TILE,
    ZERO,
    pair_powers,
    tile_curves,
    tile_powers,
)
from fastdiv_kernels.cpu.totals import (
    FAR,
    LOW_BITS,
    MEAN_BITS,
    ROOM,
    ROWS,
    TILES,
    add_curves,
    add_integer,
    add_pairs,
    add_sums,
    make_room,
    new_totals,
    settle,
)

BETAS = np.array(GRID, np.float32)
SCALE = np.float32(2.0**32)  # of fixed point
HIGHEST = np.float32(HIGHEST_SUMMED)
FAST = np.float32(512.0)  # nats
TOGETHER = 4  # tiles
SPARE = 2 * TILE  # rows at the end, which are copied: vectors reach beyond the last
OVERRUN = 3  # rows, of three classes and more, that eight numbers reach beyond


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
    last = np.uint64(max(width - SIDE, 0))
    columns_of_halves(values, first, np.uint64(width), last, lowest, highest, x, to)

"""`distributions`: how confidence, loss and margin of the right and the wrong are spread."""

from typing import Any

import numpy as np

from fastdiv_kernels.contract import (
    CONFIDENCE_EDGES,
    CORRECT,
    LOSS_EDGES,
    MARGIN_EDGES,
    PRESENT,
)
from fastdiv_kernels.cpu.arithmetic import as_int
from fastdiv_kernels.cpu.eights import (
    EIGHT,
    FLOAT,
    I32,
    I64,
    VALID,
    Rows,
    data_of,
    in_order,
    padded,
    whole_eights,
)
from fastdiv_kernels.cpu.jit import inner, intrinsic, kernel, overload, types
from fastdiv_kernels.cpu.packed import COPIES, LEVELS, settle_bins, tally_bins
from fastdiv_kernels.cpu.scattered import (
    MOST,
    add_loss_rows,
    add_losses,
    is_whole,
    new_table,
    rows_of,
)
from fastdiv_kernels.cpu.sums import add
from fastdiv_kernels.cpu.windows import TILE, count_rows

LAST_CONFIDENCE = len(CONFIDENCE_EDGES) - 2
CONFIDENCES = len(CONFIDENCE_EDGES) - 1  # bins from 0 to 1
LAST_LOSS = len(LOSS_EDGES) - 2
LOWEST_OCTAVE = int(np.log2(LOSS_EDGES[1]))
LAST_MARGIN = len(MARGIN_EDGES) - 2
LOWEST_MARGIN, HIGHEST_MARGIN = float(MARGIN_EDGES[1]), float(MARGIN_EDGES[-2])
MARGINS = 1 / float(MARGIN_EDGES[2] - MARGIN_EDGES[1])  # bins a nat, exactly 2
# Keys of rows in tables: a bin, SPREAD more where the row is right, or NO_KEY.
SPREAD = max(LAST_CONFIDENCE, LAST_LOSS, LAST_MARGIN) + 1
NO_KEY = 2 * SPREAD
KEYS = NO_KEY + 1
CONFIDENCE, MARGIN = range(2)
# Of NumPy's type: a kernel that is given Python's integers is compiled for each apart.
FIRST_BIN, NO_TOTAL = np.int64(0), np.int64(-1)
START = np.uint64(0)
SETTLED = np.uint64(MOST)
RIGHT_BIT = CORRECT.bit_length() - 1


@kernel
def distributions(
    loss: Any, confidence: Any, margin: Any, flags: Any, counts: Any, confidences: Any,
    losses: Any, margins: Any, bins: Any, loss_sums: Any, confidence_sums: Any,
) -> None:  # fmt: skip
    """Add the stored scores of one epoch to its distributions; see the contract."""
    loss, confidence = in_order(loss), in_order(confidence)
    margin, flags = in_order(margin), in_order(flags)
    keys, loss_keys = np.empty((2, TILE), np.uint32), np.empty(TILE, np.int32)
    levels, words = np.empty(TILE, np.uint64), np.empty(TILE, np.int64)
    table, loss_table = np.zeros(COPIES * LEVELS, np.int64), new_table(NO_KEY)
    found = np.zeros((3, LEVELS), np.int64)
    counted = np.zeros((2, COPIES * KEYS), np.int64)
    n = np.uint64(len(flags))
    for at in range(START, n, np.uint64(TILE)):
        rows = min(np.uint64(TILE), n - at)
        if rows % EIGHT == 0:
            add_tile(
                loss, confidence, margin, flags, at, rows, keys, loss_keys, levels, words, table,
                loss_table, found, counted, counts, losses, bins, loss_sums, confidence_sums,
            )  # fmt: skip
        else:
            add_tile(
                padded(loss, at, rows), padded(confidence, at, rows), padded(margin, at, rows),
                padded(flags, at, rows), START, whole_eights(rows), keys, loss_keys, levels, words,
                table, loss_table, found, counted, counts, losses, bins, loss_sums,
                confidence_sums,
            )  # fmt: skip
        if (at + np.uint64(TILE)) % SETTLED == 0:
            settle_losses(loss_table, losses, loss_sums)
            settle_bins(found, bins, confidence_sums, FIRST_BIN, NO_TOTAL)
    settle_losses(loss_table, losses, loss_sums)
    settle_bins(found, bins, confidence_sums, FIRST_BIN, NO_TOTAL)
    add_counts(counted[CONFIDENCE], confidences)
    add_counts(counted[MARGIN], margins)


@kernel
def add_tile(
    loss: Any, confidence: Any, margin: Any, flags: Any, at: Any, rows: Any, keys: Any,
    loss_keys: Any, levels: Any, words: Any, table: Any, loss_table: Any, found: Any, counted: Any,
    counts: Any, losses: Any, bins: Any, loss_sums: Any, confidence_sums: Any,
) -> None:  # fmt: skip
    """Add whole eights of rows from `at`."""
    counts[0] += count_rows(flags, at, rows, VALID, PRESENT)
    find_keys(confidence, margin, flags, at, rows, keys)
    for which in range(2):
        count_keys(keys[which], rows, counted[which])
    tally_bins(
        confidence, flags, at, rows, levels, words, table, found, bins, confidence_sums,
        FIRST_BIN, NO_TOTAL,
    )  # fmt: skip
    odd = find_loss_keys(loss, flags, at, rows, loss_keys)
    scatter(loss, flags, at, rows, loss_keys, loss_table)
    if odd != 0:
        for i in range(rows):
            flag, x = flags[at + i], loss[at + i]
            if loss_keys[i] == NO_KEY and flag & VALID == PRESENT:
                if abs(x) < np.inf:
                    losses[1 if flag & CORRECT != 0 else 0, loss_bin(x)] += 1
                    add(loss_sums, loss_bin(x), x, 1)
                else:
                    counts[1] += 1


@inner()
def settle_losses(table: Any, losses: Any, loss_sums: Any) -> None:
    """Add a table of losses to counts (2, bins) and sums, and empty it."""
    for k in range(LAST_LOSS + 1):
        for right in range(2):
            key = k + right * SPREAD
            rows = rows_of(table, key)[0]
            if rows != 0:
                losses[right, k] += rows
                add_losses(table, key, loss_sums, k)
    table[:] = 0


@intrinsic
def find_loss_keys(
    typing_context: Any, loss: Any, flags: Any, at: Any, rows: Any, keys: Any
) -> Any:  # fmt: skip
    """Write the keys of losses, NO_KEY of rows that are not valid or do not fit the table.

    Returns 0 if all rows that are valid fit it.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        loss, flags, at, rows, keys = data_of(context, builder, signature, args)
        lanes = Rows(builder)
        odd = lanes.places(1, I32)[0]
        with lanes.each(at, rows) as (before, i):
            own, x = lanes.flags(flags, i), lanes.load(loss, i)
            valid, whole = lanes.valid(own), is_whole(lanes, x)
            lanes.join(odd, builder.and_(valid, builder.not_(whole)))
            # Octaves are exponents, and the two highest bits of the mantissa quarters of one.
            bits, mantissa, bias = (23, I32, 127) if x.type.element == FLOAT else (52, I64, 1023)
            k = builder.ashr(lanes.ints(x), lanes.every(mantissa, bits - 2))
            k = k if mantissa == I32 else builder.trunc(k, lanes.vector(I32))
            k = builder.sub(k, lanes.every(I32, 4 * (bias + LOWEST_OCTAVE) - 1))
            for sign, limit in ((">", 0), ("<", LAST_LOSS)):
                limit = lanes.every(I32, limit)
                k = builder.select(builder.icmp_signed(sign, k, limit), k, limit)
            right = builder.and_(lanes.has(own, RIGHT_BIT), lanes.every(I32, SPREAD))
            usual = builder.and_(valid, whole)
            key = lanes.chosen(usual, builder.add(k, right), lanes.every(I32, NO_KEY))
            lanes.store(key, keys, before)
        return lanes.any(builder.load(odd))

    return types.int32(loss, flags, types.uint64, types.uint64, keys), generate


@intrinsic
def scatter(
    typing_context: Any, loss: Any, flags: Any, at: Any, rows: Any, keys: Any, table: Any
) -> Any:  # fmt: skip
    """Add losses to the table."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        loss, flags, at, rows, keys, table = data_of(context, builder, signature, args)
        lanes = Rows(builder)
        with lanes.each(at, rows) as (before, i):
            add_loss_rows(lanes, loss, flags, i, keys, before, table)
        return context.get_dummy_value()

    return types.void(loss, flags, types.uint64, types.uint64, keys, table), generate


@inner()
def find_keys(
    confidence: Any, margin: Any, flags: Any, at: Any, rows: Any, keys: Any
) -> None:  # fmt: skip
    """Write a tile's bins to keys (2, TILE): SPREAD more for rows that are right.

    Rows that are not valid have the key NO_KEY.
    """
    zero, one = np.uint64(CONFIDENCE), np.uint64(MARGIN)
    for i in range(rows):
        keys[zero, i] = key_of(confidence_bin(confidence[at + i]), flags[at + i])
    for i in range(rows):
        keys[one, i] = key_of(margin_bin(margin[at + i]), flags[at + i])


@inner()
def key_of(k: Any, flag: Any) -> Any:
    """Return the key of a row in bin k."""
    key = np.uint32(k) + (SPREAD if flag & CORRECT != 0 else 0)
    return np.uint32(key if flag & VALID == PRESENT else NO_KEY)


@inner()
def count_keys(keys: Any, rows: Any, counted: Any) -> None:
    """Count a tile's keys by turns in tables (COPIES * KEYS,), and some that are NO_KEY."""
    one, two, three = np.uint64(1), np.uint64(2), np.uint64(3)
    for i in range(np.uint64(0), rows, np.uint64(COPIES)):
        counted[np.uint64(keys[i])] += 1
        counted[np.uint64(KEYS) + np.uint64(keys[i + one])] += 1
        counted[np.uint64(2 * KEYS) + np.uint64(keys[i + two])] += 1
        counted[np.uint64(3 * KEYS) + np.uint64(keys[i + three])] += 1


@inner()
def add_counts(counted: Any, to: Any) -> None:
    """Add what `count_keys` counted to counts (2, bins), wrong rows first."""
    for copy in range(COPIES):
        for right in range(2):
            for k in range(to.shape[1]):
                to[right, k] += counted[copy * KEYS + right * SPREAD + k]


@inner()
def confidence_bin(confidence: Any) -> Any:
    """Return the bin of CONFIDENCE_EDGES that a float32 is in.

    The product is exact in float64, and no float32 lies between an edge and its rounding.
    """
    p = np.float64(confidence)
    within = p if p < 1.0 else 0.0  # no branch, and nothing that is no integer is made one
    within = within if within > 0.0 else 0.0
    return np.int32(CONFIDENCES * within) if p < 1.0 else LAST_CONFIDENCE


@inner()
def margin_bin(margin: Any) -> Any:
    """Return the bin of MARGIN_EDGES that a float32 is in: half a nat wide, but for the outer."""
    x = np.float64(margin)
    within = x if x < HIGHEST_MARGIN else HIGHEST_MARGIN
    within = within if within > LOWEST_MARGIN else LOWEST_MARGIN
    # The lowest edge is taken off after rounding down: a difference of floats might round up.
    k: Any = np.int32(np.floor(MARGINS * within)) - int(MARGINS * LOWEST_MARGIN) + 1
    k = k if x < HIGHEST_MARGIN else LAST_MARGIN
    return 0 if x < LOWEST_MARGIN else k


def loss_bin(loss: Any) -> Any:
    """Return the bin of LOSS_EDGES that a finite float32 or float64 is in.

    Octaves are exponents, and the two highest bits of the mantissa are the quarter of an octave.
    """
    raise NotImplementedError  # kernels get the overload below


@overload(loss_bin)
def _loss_bin(loss: Any) -> Any:
    bits, bias = (23, 127) if loss == types.float32 else (52, 1023)
    shift, first = bits - 2, 4 * (bias + LOWEST_OCTAVE) - 1

    def implementation(loss: Any) -> Any:
        k: Any = np.int64(as_int(loss) >> shift) - first  # below 0 where the loss is
        k = k if k > 0 else 0
        return k if k < LAST_LOSS else LAST_LOSS

    return implementation

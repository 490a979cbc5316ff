"""`profile` on the CPU: differences to the maximum, or what they sum to at each temperature.

`score` has found where the maximum is. Up to VECTORS_UP_TO classes the differences themselves are
kept, in one pass over a tile's numbers as they lie; beyond, they are summed across the rows of a
tile or, of many classes, along the row (see `powers`).
"""

from typing import Any

import numpy as np

from fastdiv_kernels.contract import LOWEST_KEPT
from fastdiv_kernels.cpu.arithmetic import float_to_half, log, value
from fastdiv_kernels.cpu.blocks import SIDE, WIDTH, fill, transpose
from fastdiv_kernels.cpu.finish import PROBS
from fastdiv_kernels.cpu.jit import inner, intrinsic, kernel, overload, types
from fastdiv_kernels.cpu.lanes import (
    ALIGNED,
    FLOAT,
    I16,
    Lanes,
    aligned,
    flush_tiny,
    pointer,
    restore,
)
from fastdiv_kernels.cpu.powers import (
    CURVE,
    LOWEST,
    SCRATCH,
    TILE,
    ZERO,
    tile_curves,
    tile_powers,
    tile_room,
    tile_turn,
)
from fastdiv_kernels.cpu.row_powers import ROW_SCRATCH, ROW_SUMS, row_powers

FIRST = np.uint64(0)


@inner()
def difference(v: Any, m: Any) -> Any:
    """Return x of a logit or log-probability, given the largest."""
    return v - m


@inner("contract")
def log_ratio(v: Any, m: Any) -> Any:
    """Return x of a probability, given the largest; -inf where it is 0, or below by rounding."""
    ratio = v / m
    zero = m - m
    return log(ratio if ratio > zero else zero)


@kernel
def profile_vectors(predictions: Any, kind: Any, predicted: Any, profile: Any) -> None:
    """Keep the differences of rows with few classes; profile is uint16, the words of float16."""
    if kind == PROBS:
        keep_probs(predictions, predicted, profile)
    elif predictions.shape[1] <= SIDE:
        keep_rows(predictions, predicted, profile, False, SIDE)
    else:
        keep_rows(predictions, predicted, profile, False, WIDTH)


@inner()
def keep_rows(predictions: Any, predicted: Any, profile: Any, probs: Any, width: Any) -> None:
    """Keep rows one by one.

    A row takes loads and stores of a fixed width: what is written beyond it, the next overwrites.
    """
    n, c = predictions.shape
    values, kept = predictions.reshape(n * c), profile.reshape(n * c)
    whole = max(n * c - width + c, 0) // c
    for row in range(np.uint64(whole)):
        first = predicted[row]
        at = row * np.uint64(c)
        m = value(values[at + np.uint64(max(first, 0))])
        keep_row(values, at, m, first >= 0, kept, at, probs, width)
    numbers, words = np.zeros(width, values.dtype), np.zeros(width, np.uint16)
    for row in range(whole, n):
        first = predicted[row]
        for j in range(c):
            numbers[j] = predictions[row, j]
        m = value(predictions[row, max(first, 0)])
        keep_row(numbers, np.uint64(0), m, first >= 0, words, np.uint64(0), probs, width)
        for j in range(c):
            profile[row, j] = words[j]


@intrinsic
def keep_row(
    typing_context: Any, values: Any, at: Any, m: Any, valid: Any, kept: Any, to: Any, probs: Any,
    width: Any,
) -> Any:  # fmt: skip
    """Write x of `width` numbers from values[at] on in 16 bits to kept[to], given the largest.

    It is -inf of -inf alone, not of what overflows, and 0 where the row is not `valid`. Numbers
    are logits, or probabilities, not of float64, if `probs`; it and the width are
    literals.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        lanes = Lanes(builder, width.literal_value)
        stored = lanes.load(pointer(context, builder, signature, args, 0, args[1]), 1)
        v = lanes.numbers(stored, signature.args[0].dtype)
        largest = lanes.spread(args[2])
        real = v.type.element
        if probs.literal_value:
            x = lanes.log(lanes.at_least(builder.fdiv(v, largest), lanes.every(0.0)))
        else:
            x = builder.fsub(v, largest)
            x = lanes.at_least(x, lanes.every(LOWEST_KEPT, real))
            nothing = lanes.every(-np.inf, real)
            x = builder.select(builder.fcmp_ordered(">", v, nothing), x, nothing)
        words = lanes.to_halves(x if real == FLOAT else builder.fptrunc(x, lanes.floats))
        there = context.cast(builder, args[3], signature.args[3], types.boolean)
        words = builder.select(lanes.spread(there), words, lanes.every(0, I16))
        lanes.store(words, pointer(context, builder, signature, args, 4, args[5]), 1)
        return context.get_dummy_value()

    if not (isinstance(probs, types.Literal) and isinstance(width, types.Literal)):
        return None
    return types.void(values, at, m, valid, kept, to, probs, width), generate


def keep_probs(predictions: Any, predicted: Any, profile: Any) -> None:
    """Keep the logarithms of ratios of probabilities."""
    raise NotImplementedError  # kernels get the overload below


@overload(keep_probs)
def _keep_probs(predictions: Any, predicted: Any, profile: Any) -> Any:
    def by_row(predictions: Any, predicted: Any, profile: Any) -> None:
        keep_rows(predictions, predicted, profile, True, WIDTH)

    def of_float64(predictions: Any, predicted: Any, profile: Any) -> None:
        keep_log_ratios(predictions, predicted, profile)

    return of_float64 if predictions.dtype == types.float64 else by_row


@inner()
def keep_log_ratios(predictions: Any, predicted: Any, profile: Any) -> None:
    """Keep the logarithms of ratios of probabilities of float64."""
    n, c = predictions.shape
    values, kept = predictions.reshape(n * c), profile.reshape(n * c)
    maxima = np.zeros(TILE * c + WIDTH)
    for start in range(0, n, TILE):
        live = min(TILE, n - start)
        spread_maxima(predictions, predicted, start, live, maxima)
        at = np.uint64(start * c)
        for i in range(np.uint64(live * c)):
            kept[at + i] = float_to_half(np.float32(log_ratio(value(values[at + i]), maxima[i])))
        for row in range(start, start + live):
            if predicted[row] < 0:
                for j in range(c):
                    kept[row * c + j] = 0


@inner()
def spread_maxima(predictions: Any, predicted: Any, start: Any, live: Any, maxima: Any) -> None:
    """Write the maximum of its row for every number of a tile.

    A row takes stores of a fixed width, whose excess the next row overwrites.
    """
    c = np.uint64(predictions.shape[1])
    for i in range(np.uint64(live)):
        row = np.uint64(start) + i
        m = value(predictions[row, max(predicted[row], 0)])
        for j in range(np.uint64(0), c, np.uint64(WIDTH)):
            fill(maxima, i * c + j, m)


@kernel
def profile_tile(predictions: Any, kind: Any, predicted: Any, profile: Any) -> None:
    """Keep the curves of rows, TILE at a time; shapes and dtypes as in the contract."""
    n, c = predictions.shape
    if n == 0:
        return
    values = predictions.reshape(n * c)
    kept = profile.reshape(n * CURVE)
    maxima = np.full(TILE * c + WIDTH, value(values[0]))
    rows = np.full(TILE * c + SIDE, LOWEST)
    columns = aligned(np.full(tile_room(c) + ALIGNED, LOWEST))
    u = aligned(np.zeros(tile_room(c) + ALIGNED, np.float32))
    w = aligned(np.zeros(SCRATCH + ALIGNED, np.float32))
    out = np.zeros(TILE * CURVE + SIDE, np.float32)
    for start in range(0, n, TILE):
        live = min(TILE, n - start)
        spread_maxima(predictions, predicted, start, live, maxima)
        if kind == PROBS:
            differences(values, maxima, start * c, live * c, rows, log_ratio)
        else:
            differences(values, maxima, start * c, live * c, rows, difference)
        tile_turn(rows, c, columns)
        state = flush_tiny()
        tile_powers(columns, u, c, w, FIRST)
        restore(state)
        tile_curves(w, FIRST, w)
        write_curves(w, out, predicted, start, live, kept)


@inner()
def differences(values: Any, maxima: Any, start: Any, size: Any, x: Any, x_of: Any) -> None:
    """Write x of `size` values in float32, none below LOWEST."""
    at = np.uint64(start)
    for i in range(np.uint64(size)):
        t = np.float32(x_of(value(values[at + i]), maxima[i]))
        x[i] = t if t > LOWEST else LOWEST


@inner()
def write_curves(w: Any, out: Any, predicted: Any, start: Any, live: Any, kept: Any) -> None:
    """Write a tile's curves in 16 bits, and zeros for invalid rows; `out` is scratch."""
    transpose(w, CURVE, TILE, TILE, out, CURVE)
    at = np.uint64(start * CURVE)
    for i in range(np.uint64(live * CURVE)):
        kept[at + i] = float_to_half(out[i])
    for row in range(start, start + live):
        if predicted[row] < 0:
            for k in range(CURVE):
                kept[row * CURVE + k] = 0


@kernel
def profile_rows(predictions: Any, kind: Any, predicted: Any, profile: Any) -> None:
    """Keep the curves of rows with many classes; shapes and dtypes as in the contract."""
    n, c = predictions.shape
    values, kept = predictions.reshape(n * c), profile.reshape(n * CURVE)
    x = np.zeros(c, np.float32)
    scratch = aligned(np.zeros(ROW_SCRATCH + ALIGNED, np.float32))
    sums = np.zeros(TILE * ROW_SUMS + SIDE, np.float32)
    w = aligned(np.zeros(SCRATCH + ALIGNED, np.float32))
    out = np.zeros(TILE * CURVE + SIDE, np.float32)
    state = flush_tiny()
    for start in range(0, n, TILE):
        live = min(TILE, n - start)
        for i in range(live):
            row = start + i
            if predicted[row] < 0:
                continue
            first, at, to = np.uint64(predicted[row]), np.uint64(row * c), np.uint64(i * ROW_SUMS)
            m = value(values[at + first])
            if kind == PROBS:
                probs_powers(values, at, np.uint64(c), first, m, x, scratch, sums, to)
            else:
                row_powers(values, at, np.uint64(c), first, m, False, scratch, sums, to)
        transpose(sums, TILE, CURVE, ROW_SUMS, w, TILE)
        tile_curves(w, FIRST, w)
        write_curves(w, out, predicted, start, live, kept)
    restore(state)


def probs_powers(
    values: Any, at: Any, c: Any, first: Any, m: Any, x: Any, scratch: Any, sums: Any, to: Any
) -> None:
    """Sum over the classes of a row of probabilities; x (c,) is scratch."""
    raise NotImplementedError  # kernels get the overload below


@overload(probs_powers)
def _probs_powers(
    values: Any, at: Any, c: Any, first: Any, m: Any, x: Any, scratch: Any, sums: Any, to: Any
) -> Any:
    def in_one_pass(
        values: Any, at: Any, c: Any, first: Any, m: Any, x: Any, scratch: Any, sums: Any, to: Any
    ) -> None:
        row_powers(values, at, c, first, log(m), True, scratch, sums, to)

    def of_float64(
        values: Any, at: Any, c: Any, first: Any, m: Any, x: Any, scratch: Any, sums: Any, to: Any
    ) -> None:
        log_differences(values, at, log(m), x)
        row_powers(x, np.uint64(0), c, first, ZERO, False, scratch, sums, to)

    return of_float64 if values.dtype == types.float64 else in_one_pass


@inner("contract")
def log_differences(values: Any, at: Any, log_m: Any, x: Any) -> None:
    """Write x of a row of probabilities of float64 in float32, given the largest's logarithm.

    It has one division less than `log_ratio` and loses digits near a tie; to a sum of exp(x) they
    are nothing.
    """
    for j in range(np.uint64(len(x))):
        v = values[at + j]
        t = np.float32(log(v if v > 0.0 else 0.0) - log_m)
        x[j] = t if t > LOWEST else LOWEST

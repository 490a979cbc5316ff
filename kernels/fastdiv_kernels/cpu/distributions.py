"""`distributions`: how confidence, loss and margin of the right and the wrong are spread."""

from typing import Any

import numpy as np

from fastdiv_kernels.contract import (
    BINS,
    CONFIDENCE_EDGES,
    CORRECT,
    LOSS_EDGES,
    MARGIN_EDGES,
    PRESENT,
)
from fastdiv_kernels.cpu.arithmetic import as_int
from fastdiv_kernels.cpu.jit import inner, kernel, overload, types
from fastdiv_kernels.cpu.packed import COPIES, add_words, tally_bins
from fastdiv_kernels.cpu.sums import add
from fastdiv_kernels.cpu.windows import TILE, VALID, add_column, add_fixed, count_rows

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
CONFIDENCE, LOSS, MARGIN, SUMMED = range(4)
# Of NumPy's type: a kernel that is given Python's integers is compiled for each apart.
FIRST_BIN, NO_TOTAL, NO_BIT = np.int64(0), np.int64(-1), np.int64(0)
START = np.uint64(0)


@kernel
def distributions(
    loss: Any, confidence: Any, margin: Any, flags: Any, counts: Any, confidences: Any,
    losses: Any, margins: Any, bins: Any, loss_sums: Any, confidence_sums: Any,
) -> None:  # fmt: skip
    """Add the stored scores of one epoch to its distributions; see the contract."""
    keys = np.zeros((4, TILE + COPIES), np.uint32)
    words = np.zeros(TILE + COPIES, np.int64)
    table = np.zeros(COPIES * BINS, np.int64)
    counted = np.zeros((3, COPIES * KEYS), np.int64)
    mantissas = np.zeros(COPIES * KEYS, np.int64)
    small = np.zeros(TILE, loss.dtype)
    present = np.full(TILE, PRESENT, np.uint8)
    n = np.uint64(len(flags))
    for at in range(np.uint64(0), n, np.uint64(TILE)):
        rows = min(np.uint64(TILE), n - at)
        counts[0] += count_rows(flags, at, rows, VALID, PRESENT)
        find_keys(loss, confidence, margin, flags, at, rows, keys)
        counts[1] += add_losses(
            loss, flags, at, rows, keys[LOSS], keys[SUMMED], words, mantissas, small, present,
            loss_sums,
        )  # fmt: skip
        for which in range(3):
            count_keys(keys[which], rows, counted[which])
        tally_bins(
            confidence, flags, at, rows, keys[SUMMED], words, table, bins, confidence_sums,
            FIRST_BIN, NO_TOTAL,
        )  # fmt: skip
    add_counts(counted[CONFIDENCE], confidences)
    add_counts(counted[LOSS], losses)
    add_counts(counted[MARGIN], margins)


@kernel
def find_keys(
    loss: Any, confidence: Any, margin: Any, flags: Any, at: Any, rows: Any, keys: Any
) -> None:  # fmt: skip
    """Write a tile's bins to keys (3, TILE): SPREAD more for rows that are right.

    Rows that are not valid, and losses that are not finite, have the key NO_KEY. Beyond `rows`
    there is room for COPIES - 1 more.
    """
    for which in range(np.uint64(3)):
        for i in range(rows, rows + np.uint64(COPIES - 1)):
            keys[which, i] = NO_KEY
    zero, one, two = np.uint64(CONFIDENCE), np.uint64(LOSS), np.uint64(MARGIN)
    for i in range(rows):
        keys[zero, i] = key_of(confidence_bin(confidence[at + i]), flags[at + i])
    for i in range(rows):
        finite = abs(loss[at + i]) < np.inf
        key = key_of(loss_bin(loss[at + i]), flags[at + i])
        keys[one, i] = key if finite else NO_KEY
    for i in range(rows):
        keys[two, i] = key_of(margin_bin(margin[at + i]), flags[at + i])


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


@kernel
def add_losses(
    loss: Any, flags: Any, at: Any, rows: Any, keys: Any, summed: Any, words: Any, table: Any,
    small: Any, present: Any, loss_sums: Any,
) -> Any:  # fmt: skip
    """Add a tile's finite losses to the sums of their bins; returns how many are not finite.

    All numbers of a bin have one exponent, so that their mantissas are summed; but for the lowest
    bin, which is summed as a column is, and the highest. `small` and `present` are (TILE,), the
    second all PRESENT.
    """
    low = high = unbounded = np.int64(0)
    for i in range(rows):
        k = loss_bin(loss[at + i])
        finite = keys[i] != NO_KEY
        within = (k > 0) & (k < LAST_LOSS) & finite
        summed[i] = k if within else 0
        words[i] = mantissa(loss[at + i]) if within else 0
        low += 1 if (k == 0) & finite else 0
        high += 1 if (k == LAST_LOSS) & finite else 0
        unbounded += 1 if (flags[at + i] & VALID == PRESENT) & (not finite) else 0
    add_words(summed, words, rows, table, KEYS)
    for k in range(1, LAST_LOSS):
        if table[k] != 0:
            add_fixed(loss_sums, k, table[k], fraction_bits(loss[0], k))
    if low > 0:
        for i in range(rows):
            x = loss[at + i]
            small[i] = x if (keys[i] != NO_KEY) & (loss_bin(x) == 0) else 0
        add_column(small, present, START, rows, NO_BIT, loss_sums, FIRST_BIN, FIRST_BIN)
    if high > 0:
        for i in range(rows):
            if keys[i] != NO_KEY and loss_bin(loss[at + i]) == LAST_LOSS:
                add(loss_sums, LAST_LOSS, loss[at + i], 1)
    return unbounded


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


def mantissa(loss: Any) -> Any:
    """Return the mantissa of a normal float32 or float64 as an integer."""
    raise NotImplementedError


def fraction_bits(loss: Any, k: Any) -> Any:
    """Return which power of 1/2 a mantissa counts, for a dtype's numbers in bin k of the losses."""
    raise NotImplementedError


@overload(loss_bin)
def _loss_bin(loss: Any) -> Any:
    bits, bias = (23, 127) if loss == types.float32 else (52, 1023)
    shift, first = bits - 2, 4 * (bias + LOWEST_OCTAVE) - 1

    def implementation(loss: Any) -> Any:
        k: Any = np.int64(as_int(loss) >> shift) - first  # below 0 where the loss is
        k = k if k > 0 else 0
        return k if k < LAST_LOSS else LAST_LOSS

    return implementation


@overload(mantissa)
def _mantissa(loss: Any) -> Any:
    bits = 23 if loss == types.float32 else 52
    below, leading = (1 << bits) - 1, 1 << bits

    def implementation(loss: Any) -> Any:
        return (np.int64(as_int(loss)) & below) | leading

    return implementation


@overload(fraction_bits)
def _fraction_bits(loss: Any, k: Any) -> Any:
    bits = 23 if loss == types.float32 else 52

    def implementation(loss: Any, k: Any) -> Any:
        return bits - LOWEST_OCTAVE - (k - 1) // 4

    return implementation

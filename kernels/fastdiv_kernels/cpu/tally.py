"""`tally`: the totals of one epoch, from its stored scores."""

from typing import Any

import numpy as np

from fastdiv_kernels.contract import (
    CORRECT,
    PRESENT,
    REASON,
    TIE,
    TOP5,
    UNNORMALIZED,
    Count,
    LossSum,
    TallySum,
)
from fastdiv_kernels.cpu.eights import EIGHT, VALID, in_order, padded, whole_eights
from fastdiv_kernels.cpu.jit import inner, kernel
from fastdiv_kernels.cpu.packed import COPIES, LEVELS, settle_bins, tally_bins
from fastdiv_kernels.cpu.windows import TILE, add_column, add_column_apart, count_rows

INFINITE = int(Count.INFINITE)
N_UNNORMALIZED = int(Count.UNNORMALIZED)
TIES = int(Count.TIES)
RIGHT = int(Count.RIGHT)
N_TOP5 = int(Count.TOP5)
FINITE_MARGIN = int(Count.FINITE_MARGIN)
# Of NumPy's type: a kernel that is given Python's integers is compiled for each apart.
CONFIDENCE = np.int64(TallySum.CONFIDENCE)
MARGIN = np.int64(TallySum.MARGIN)
BRIER = np.int64(TallySum.BRIER)
BIN_CONFIDENCE = np.int64(TallySum.BIN_CONFIDENCE)
LOSS_RIGHT = np.int64(LossSum.RIGHT)
LOSS_WRONG = np.int64(LossSum.WRONG)
START = np.uint64(0)
SETTLED = np.uint64(1 << 20)  # rows, whose confidences stay in 64 bits by far


@kernel
def tally(
    loss: Any, confidence: Any, margin: Any, brier: Any, flags: Any, counts: Any, bins: Any,
    loss_sums: Any, sums: Any,
) -> None:  # fmt: skip
    """Add the stored scores of one epoch to its totals; see the contract."""
    loss, confidence, margin = in_order(loss), in_order(confidence), in_order(margin)
    brier, flags = in_order(brier), in_order(flags)
    keys, words = np.empty(TILE, np.uint64), np.empty(TILE, np.int64)
    table = np.zeros(COPIES * LEVELS, np.int64)
    found = np.zeros((3, LEVELS), np.int64)
    n = np.uint64(len(flags))
    for at in range(np.uint64(0), n, np.uint64(TILE)):
        rows = min(np.uint64(TILE), n - at)
        if rows % EIGHT == 0:
            add_tile(
                loss, confidence, margin, brier, flags, at, rows, keys, words, table, found,
                counts, bins, loss_sums, sums,
            )  # fmt: skip
        else:
            add_tile(
                padded(loss, at, rows), padded(confidence, at, rows), padded(margin, at, rows),
                padded(brier, at, rows), padded(flags, at, rows), START, whole_eights(rows), keys,
                words, table, found, counts, bins, loss_sums, sums,
            )  # fmt: skip
        if at % SETTLED == 0:
            settle_bins(found, bins, sums, BIN_CONFIDENCE, CONFIDENCE)
    settle_bins(found, bins, sums, BIN_CONFIDENCE, CONFIDENCE)


@kernel
def add_tile(
    loss: Any, confidence: Any, margin: Any, brier: Any, flags: Any, at: Any, rows: Any, keys: Any,
    words: Any, table: Any, found: Any, counts: Any, bins: Any, loss_sums: Any, sums: Any,
) -> None:  # fmt: skip
    """Add a tile, whole eights of rows from `at`, to the totals."""
    valid = count_rows(flags, at, rows, VALID, PRESENT)
    counts[0] += valid
    counts[N_UNNORMALIZED] += count_valid(flags, at, rows, UNNORMALIZED)
    counts[TIES] += count_valid(flags, at, rows, TIE)
    counts[RIGHT] += count_valid(flags, at, rows, CORRECT)
    counts[N_TOP5] += count_valid(flags, at, rows, TOP5)
    if valid < rows:
        count_invalid(flags, at, rows, counts)
    counts[INFINITE] += add_column_apart(loss, flags, at, rows, loss_sums, LOSS_WRONG, LOSS_RIGHT)
    counts[FINITE_MARGIN] += valid - add_column(margin, flags, at, rows, sums, MARGIN)
    add_column(brier, flags, at, rows, sums, BRIER)
    tally_bins(
        confidence, flags, at, rows, keys, words, table, found, bins, sums, BIN_CONFIDENCE,
        CONFIDENCE,
    )  # fmt: skip


@inner()
def count_valid(flags: Any, at: Any, rows: Any, bit: Any) -> Any:
    """Count the valid rows of a tile whose flags have a bit."""
    return count_rows(flags, at, rows, VALID | bit, PRESENT | bit)


@inner()
def count_invalid(flags: Any, at: Any, rows: Any, counts: Any) -> None:
    """Count the rows of a tile that are present but not valid, by reason."""
    for i in range(rows):
        flag = flags[at + i]
        if flag & PRESENT != 0 and flag & REASON != 0:
            counts[flag & REASON] += 1

"""`tally`, `tally_classes`: the totals of one epoch, from its stored scores."""

from typing import Any

import numpy as np

from fastdiv_kernels.contract import (
    BINS,
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
from fastdiv_kernels.cpu.jit import inner, kernel
from fastdiv_kernels.cpu.packed import COPIES, add_loss, tally_bins, tally_few_classes
from fastdiv_kernels.cpu.windows import TILE, VALID, add_column, count_rows

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
RIGHT_BIT, NO_BIT = np.int64(CORRECT), np.int64(0)
LOSS_RIGHT = np.int64(LossSum.RIGHT)
LOSS_WRONG = np.int64(LossSum.WRONG)
PACKED_UP_TO = 64  # classes; a table of packed words is read for every tile


@kernel
def tally(
    loss: Any, confidence: Any, margin: Any, brier: Any, flags: Any, counts: Any, bins: Any,
    loss_sums: Any, sums: Any,
) -> None:  # fmt: skip
    """Add the stored scores of one epoch to its totals; see the contract."""
    keys = np.zeros(TILE + COPIES, np.uint32)
    words = np.zeros(TILE + COPIES, np.int64)
    table = np.zeros(COPIES * BINS, np.int64)
    n = np.uint64(len(flags))
    for at in range(np.uint64(0), n, np.uint64(TILE)):
        rows = min(np.uint64(TILE), n - at)
        valid = count_rows(flags, at, rows, VALID, PRESENT)
        counts[0] += valid
        counts[N_UNNORMALIZED] += count_valid(flags, at, rows, UNNORMALIZED)
        counts[TIES] += count_valid(flags, at, rows, TIE)
        counts[RIGHT] += count_valid(flags, at, rows, CORRECT)
        counts[N_TOP5] += count_valid(flags, at, rows, TOP5)
        if valid < rows:
            count_invalid(flags, at, rows, counts)
        counts[INFINITE] += add_column(
            loss, flags, at, rows, RIGHT_BIT, loss_sums, LOSS_WRONG, LOSS_RIGHT
        )
        unbounded = add_column(margin, flags, at, rows, NO_BIT, sums, MARGIN, MARGIN)
        counts[FINITE_MARGIN] += valid - unbounded
        add_column(brier, flags, at, rows, NO_BIT, sums, BRIER, BRIER)
        tally_bins(
            confidence, flags, at, rows, keys, words, table, bins, sums, BIN_CONFIDENCE, CONFIDENCE
        )


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


@kernel
def tally_classes(
    loss: Any, predicted: Any, labels: Any, flags: Any, counts: Any, loss_sums: Any
) -> None:
    """Add the stored scores of one epoch to its totals by class; see the contract."""
    n, c = np.uint64(len(flags)), np.uint64(len(counts))
    if c <= PACKED_UP_TO:
        keys = np.zeros((2, TILE + COPIES), np.uint32)
        words = np.zeros((3, TILE + COPIES), np.int64)
        table = np.zeros(COPIES * c, np.int64)
        for at in range(np.uint64(0), n, np.uint64(TILE)):
            rows = min(np.uint64(TILE), n - at)
            tally_few_classes(
                loss, predicted, labels, flags, at, rows, keys, words, table, counts, loss_sums
            )
    else:
        for i in range(n):
            if flags[i] & VALID == PRESENT:
                label = labels[i]
                counts[label, 0] += 1
                counts[predicted[i], 1] += 1
                counts[label, 2] += flags[i] & CORRECT != 0
                add_loss(loss[i], label, counts, loss_sums)

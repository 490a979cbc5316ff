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
from fastdiv_kernels.cpu.sums import add
from fastdiv_kernels.cpu.windows import (
    BLOCK,
    SPAN,
    add_fixed,
    count_outside,
    is_outside,
    sum_window,
    sum_window_where,
)

INFINITE = int(Count.INFINITE)
N_UNNORMALIZED = int(Count.UNNORMALIZED)
TIES = int(Count.TIES)
RIGHT = int(Count.RIGHT)
N_TOP5 = int(Count.TOP5)
FINITE_MARGIN = int(Count.FINITE_MARGIN)
CONFIDENCE = int(TallySum.CONFIDENCE)
MARGIN = int(TallySum.MARGIN)
BRIER = int(TallySum.BRIER)
BIN_CONFIDENCE = int(TallySum.BIN_CONFIDENCE)
LOSS_RIGHT = int(LossSum.RIGHT)
LOSS_WRONG = int(LossSum.WRONG)
VALID = int(Count.VALID)
COPIES = 4  # of the table of bins
OFTEN = 256  # blocks after which it is emptied: 2**17 times 2**44 does not overflow
LEAST_CONFIDENCE = 2.0**-20  # confidence is no less than one in so many classes as there can be
CONFIDENCE_SCALE = 2.0**43
CONFIDENCE_EXPONENT = -43


@inner()
def reliability_bin(confidence: Any) -> Any:
    """Return which of the BINS a confidence is in; NaN, which no valid row has, is in the last.

    In float64, so that the product is exact and an edge belongs to the bin below it.
    """
    p = np.float64(confidence)
    return int(max(np.ceil(BINS * p) - 1.0, 0.0)) if p < 1.0 else BINS - 1


@kernel
def tally_rows(
    loss: Any, confidence: Any, margin: Any, brier: Any, flags: Any, counts: Any, bins: Any,
    loss_sums: Any, sums: Any,
) -> None:  # fmt: skip
    """Add the stored scores of one epoch to its totals, row by row; see the contract."""
    add_rows(loss, confidence, margin, brier, flags, 0, len(flags), counts, bins, loss_sums, sums)


@inner()
def add_rows(
    loss: Any, confidence: Any, margin: Any, brier: Any, flags: Any, start: Any, stop: Any,
    counts: Any, bins: Any, loss_sums: Any, sums: Any,
) -> None:  # fmt: skip
    """Add rows from start to stop, whatever they are."""
    for i in range(start, stop):
        flag = flags[i]
        if flag & PRESENT == 0:
            continue
        reason = flag & REASON
        counts[reason] += 1
        if reason != 0:
            continue
        right = flag & CORRECT != 0
        counts[N_UNNORMALIZED] += flag & UNNORMALIZED != 0
        counts[TIES] += flag & TIE != 0
        counts[RIGHT] += right
        counts[N_TOP5] += flag & TOP5 != 0
        if loss[i] < np.inf:
            add(loss_sums, LOSS_RIGHT if right else LOSS_WRONG, loss[i], 1)
        else:
            counts[INFINITE] += 1
        if abs(margin[i]) < np.inf:
            counts[FINITE_MARGIN] += 1
            add(sums, MARGIN, margin[i], 1)
        add(sums, CONFIDENCE, confidence[i], 1)
        add(sums, BRIER, brier[i], 1)
        b = reliability_bin(confidence[i])
        bins[b, 0] += 1
        bins[b, 1] += right
        add(sums, BIN_CONFIDENCE + b, confidence[i], 1)


@kernel
def tally_blocks(
    loss: Any, confidence: Any, margin: Any, brier: Any, flags: Any, counts: Any, bins: Any,
    loss_sums: Any, sums: Any,
) -> None:  # fmt: skip
    """Add the stored scores of one epoch to its totals, of float32 losses; see the contract.

    Blocks without a row that is missing or invalid are summed in fixed point.
    """
    n = len(flags)
    table = np.zeros(
        (COPIES, BINS, 2), np.int64
    )  # rows and, 32 bits higher, right rows; confidence
    where = np.zeros(BLOCK, np.uint8)
    for start in range(0, n, BLOCK):
        stop = min(start + BLOCK, n)
        if not all_valid(flags, start, stop) or count_outside(
            confidence, start, stop, LEAST_CONFIDENCE, 2.0
        ):
            add_rows(
                loss, confidence, margin, brier, flags, start, stop, counts, bins, loss_sums, sums
            )
            continue
        counts[VALID] += stop - start
        counts[N_UNNORMALIZED] += count_flags(flags, UNNORMALIZED, start, stop)
        counts[TIES] += count_flags(flags, TIE, start, stop)
        counts[RIGHT] += count_flags(flags, CORRECT, start, stop)
        counts[N_TOP5] += count_flags(flags, TOP5, start, stop)
        add_losses(loss, flags, start, stop, counts, loss_sums)
        counts[FINITE_MARGIN] += stop - start
        total = sum_window(margin, start, stop, 2.0**-23, 2.0**7, 2.0**46)
        add_fixed(sums, MARGIN, total, -46)
        if count_outside(margin, start, stop, 2.0**-23, 2.0**7):
            for i in range(start, stop):
                if is_outside(margin[i], 2.0**-23, 2.0**7):
                    if abs(margin[i]) < np.inf:
                        add(sums, MARGIN, margin[i], 1)
                    else:
                        counts[FINITE_MARGIN] -= 1
        for low in (-29, -59):
            least, scale = 2.0**low, 2.0 ** (23 - low)
            total = sum_window(brier, start, stop, least, least * 2.0**SPAN, scale)
            add_fixed(sums, BRIER, total, low - 23)
        if count_outside(brier, start, stop, 2.0**-59, 2.0):
            for i in range(start, stop):
                if is_outside(brier[i], 2.0**-59, 2.0):
                    add(sums, BRIER, brier[i], 1)
        add_bins(confidence, flags, start, stop, where, table)
        if (start // BLOCK) % OFTEN == OFTEN - 1 or stop == n:
            empty(table, bins, sums)
    empty(table, bins, sums)


@inner()
def all_valid(flags: Any, start: Any, stop: Any) -> Any:
    """Say whether all rows are present and valid."""
    bad = np.uint8(0)
    for i in range(np.uint64(start), np.uint64(stop)):
        bad |= np.uint8((flags[i] ^ np.uint8(PRESENT)) & np.uint8(PRESENT | REASON))
    return bad == 0


@inner()
def count_flags(flags: Any, mask: Any, start: Any, stop: Any) -> Any:
    """Count rows with a bit."""
    n = np.int32(0)
    for i in range(np.uint64(start), np.uint64(stop)):
        n += np.int32((flags[i] & np.uint8(mask)) != 0)
    return n


@inner()
def add_losses(loss: Any, flags: Any, start: Any, stop: Any, counts: Any, loss_sums: Any) -> None:
    """Add losses, of right and of wrong rows."""
    for low in (-24, -54):
        least, scale = 2.0**low, 2.0 ** (23 - low)
        below = least * 2.0**SPAN
        total = sum_window(loss, start, stop, least, below, scale)
        right = sum_window_where(loss, flags, np.uint8(CORRECT), start, stop, least, below, scale)
        # A loss below 0 is in neither window of the second.
        add_fixed(loss_sums, LOSS_RIGHT, right, low - 23)
        add_fixed(loss_sums, LOSS_WRONG, total - right, low - 23)
    if count_outside(loss, start, stop, 2.0**-54, 2.0**6) or lowest(loss, start, stop) < 0:
        for i in range(start, stop):
            x = loss[i]
            right_row = flags[i] & CORRECT != 0
            if is_outside(x, 2.0**-54, 2.0**6):
                if x < np.inf:
                    add(loss_sums, LOSS_RIGHT if right_row else LOSS_WRONG, x, 1)
                else:
                    counts[INFINITE] += 1
            elif x < 0 and right_row:  # it was counted as wrong
                add(loss_sums, LOSS_WRONG, x, -1)
                add(loss_sums, LOSS_RIGHT, x, 1)


@inner()
def lowest(x: Any, start: Any, stop: Any) -> Any:
    """Return a number below 0 where one is, else 0."""
    result = np.float32(0)
    for i in range(np.uint64(start), np.uint64(stop)):
        result = x[i] if x[i] < result else result
    return result


@inner()
def add_bins(confidence: Any, flags: Any, start: Any, stop: Any, where: Any, table: Any) -> None:
    """Add rows to the bins of confidence of some copies of a table, so that none waits long."""
    first = np.uint64(start)
    for i in range(np.uint64(stop - start)):
        p = np.float64(confidence[first + i]) * BINS
        b: Any = np.int32(np.ceil(p)) - 1
        b = b if b > 0 else 0
        where[i] = np.uint8(b if b < BINS - 1 else BINS - 1)
    for i in range(np.uint64(stop - start)):
        copy, at = i % np.uint64(COPIES), np.uint64(where[i])
        right = np.int64(flags[first + i] & np.uint8(CORRECT) != 0)
        table[copy, at, 0] += np.int64(1) + (right << 32)
        table[copy, at, 1] += np.int64(np.float64(confidence[first + i]) * CONFIDENCE_SCALE)


@inner()
def empty(table: Any, bins: Any, sums: Any) -> None:
    """Add a table's copies to the totals, and make it empty."""
    for b in range(BINS):
        for copy in range(COPIES):
            rows, total = table[copy, b, 0], table[copy, b, 1]
            bins[b, 0] += rows & 0xFFFFFFFF
            bins[b, 1] += rows >> 32
            add_fixed(sums, BIN_CONFIDENCE + b, total, CONFIDENCE_EXPONENT)
            add_fixed(sums, CONFIDENCE, total, CONFIDENCE_EXPONENT)
            table[copy, b, 0] = table[copy, b, 1] = 0


@kernel
def tally_classes(
    loss: Any, predicted: Any, labels: Any, flags: Any, counts: Any, loss_sums: Any
) -> None:
    """Add the stored scores of one epoch to its totals by class; see the contract."""
    for i in range(len(flags)):
        flag = flags[i]
        if flag & PRESENT == 0 or flag & REASON != 0:
            continue
        label = labels[i]
        counts[label, 0] += 1
        counts[predicted[i], 1] += 1
        counts[label, 2] += flag & CORRECT != 0
        if loss[i] < np.inf:
            add(loss_sums, label, loss[i], 1)
        else:
            counts[label, 3] += 1

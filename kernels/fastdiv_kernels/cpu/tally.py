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


@inner()
def reliability_bin(confidence: Any) -> Any:
    """Return which of the BINS a confidence is in; NaN, which no valid row has, is in the last.

    In float64, so that the product is exact and an edge belongs to the bin below it.
    """
    p = np.float64(confidence)
    return int(max(np.ceil(BINS * p) - 1.0, 0.0)) if p < 1.0 else BINS - 1


@kernel
def tally(
    loss: Any, confidence: Any, margin: Any, brier: Any, flags: Any, counts: Any, bins: Any,
    loss_sums: Any, sums: Any,
) -> None:  # fmt: skip
    """Add the stored scores of one epoch to its totals; see the contract."""
    for i in range(len(flags)):
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

"""`transitions`, `dynamics`: the same samples from one epoch to the next."""

from typing import Any

import numpy as np

from fastdiv_kernels.contract import CORRECT, PRESENT, REASON, Cell, PairCount
from fastdiv_kernels.cpu.arithmetic import exp_64
from fastdiv_kernels.cpu.jit import kernel
from fastdiv_kernels.cpu.sums import add

RR = int(Cell.RR)
RW = int(Cell.RW)
WR = int(Cell.WR)
WW_SAME = int(Cell.WW_SAME)
WW_CHANGED = int(Cell.WW_CHANGED)
INFINITE = int(PairCount.INFINITE)
INVALID = int(PairCount.INVALID)
RELABELLED = int(PairCount.RELABELLED)
ONLY_FROM = int(PairCount.ONLY_FROM)
ONLY_TO = int(PairCount.ONLY_TO)


@kernel
def transitions(
    loss_from: Any, predicted_from: Any, labels_from: Any, flags_from: Any, loss_to: Any,
    predicted_to: Any, labels_to: Any, flags_to: Any, counts: Any, delta_sums: Any,
) -> None:  # fmt: skip
    """Add the same samples in two epochs to the cells of their table; see the contract."""
    for i in range(len(flags_from)):
        before = flags_from[i]
        after = flags_to[i]
        if before & after & PRESENT == 0:
            if before & PRESENT != 0:
                counts[ONLY_FROM] += 1
            elif after & PRESENT != 0:
                counts[ONLY_TO] += 1
            continue
        if (before | after) & REASON != 0:
            counts[INVALID] += 1
            continue
        if labels_from[i] != labels_to[i]:
            counts[RELABELLED] += 1
            continue
        if before & CORRECT != 0:
            cell = RR if after & CORRECT != 0 else RW
        elif after & CORRECT != 0:
            cell = WR
        else:
            cell = WW_SAME if predicted_from[i] == predicted_to[i] else WW_CHANGED
        counts[cell] += 1
        if loss_from[i] < np.inf and loss_to[i] < np.inf:
            add(delta_sums, cell, loss_to[i], 1)
            add(delta_sums, cell, loss_from[i], -1)
        else:
            counts[INFINITE] += 1


@kernel
def dynamics(
    epoch: Any, loss: Any, margin: Any, predicted: Any, labels: Any, flags: Any, records: Any
) -> None:
    """Carry each sample's history on by one epoch; see the contract."""
    for i in range(len(flags)):
        flag = flags[i]
        if flag & PRESENT == 0 or flag & REASON != 0:
            continue
        record = records[i]
        right = flag & CORRECT != 0
        was_right = record.n_epochs > 0 and record.last_predicted == record.label
        record.n_epochs += 1
        p = exp_64(-np.float64(loss[i]))
        difference = p - record.mean_p
        record.mean_p += difference / record.n_epochs
        record.m2_p += difference * (p - record.mean_p)
        if abs(margin[i]) < np.inf:
            record.n_margin += 1
            record.margin_sum += np.float64(margin[i])
        if right:
            if record.n_right == 0:
                record.first_right = epoch
            record.n_right += 1
        elif was_right:
            record.forgetting += 1
        record.last_loss = np.float64(loss[i])
        record.last_predicted = predicted[i]
        record.label = labels[i]

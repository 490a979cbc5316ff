"""`transitions`, `dynamics`: the same samples from one epoch to the next."""

from typing import Any

import numpy as np

from fastdiv_kernels.contract import CORRECT, PRESENT, REASON, Cell, PairCount
from fastdiv_kernels.cpu.arithmetic import exp_64
from fastdiv_kernels.cpu.jit import inner, kernel
from fastdiv_kernels.cpu.sums import add
from fastdiv_kernels.cpu.windows import TILE, VALID, add_window, count_rows, split

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
CELLS = len(Cell)
NO_CELL = 0xFF
RIGHT_BIT = CORRECT.bit_length() - 1


@kernel
def transitions(
    loss_from: Any, predicted_from: Any, labels_from: Any, flags_from: Any, loss_to: Any,
    predicted_to: Any, labels_to: Any, flags_to: Any, counts: Any, delta_sums: Any,
) -> None:  # fmt: skip
    """Add the same samples in two epochs to the cells of their table; see the contract."""
    cells = np.zeros(TILE, np.uint8)
    n = np.uint64(len(flags_from))
    for at in range(np.uint64(0), n, np.uint64(TILE)):
        rows = min(np.uint64(TILE), n - at)
        find_cells(
            predicted_from, labels_from, flags_from, predicted_to, labels_to, flags_to, at, rows,
            cells,
        )  # fmt: skip
        compared = np.int64(0)
        for cell in range(CELLS):
            found = count_rows(cells, np.uint64(0), rows, 0xFF, cell)
            counts[cell] += found
            compared += found
        if compared < rows:
            count_others(labels_from, flags_from, labels_to, flags_to, at, rows, counts)
        counts[INFINITE] += add_deltas(loss_from, loss_to, cells, at, rows, delta_sums)


@inner()
def find_cells(
    predicted_from: Any, labels_from: Any, flags_from: Any, predicted_to: Any, labels_to: Any,
    flags_to: Any, at: Any, rows: Any, cells: Any,
) -> None:  # fmt: skip
    """Write the cell of each row of a tile to cells (TILE,), NO_CELL where there is none."""
    for i in range(rows):
        before, after = flags_from[at + i], flags_to[at + i]
        wrong = WW_SAME if predicted_from[at + i] == predicted_to[at + i] else WW_CHANGED
        was_wrong = WR if after & CORRECT != 0 else wrong
        was_right = RR if after & CORRECT != 0 else RW
        cell = was_right if before & CORRECT != 0 else was_wrong
        both = ((before & after & PRESENT) | ((before | after) & REASON)) == PRESENT
        cells[i] = cell if both & (labels_from[at + i] == labels_to[at + i]) else NO_CELL


@inner()
def count_others(
    labels_from: Any, flags_from: Any, labels_to: Any, flags_to: Any, at: Any, rows: Any,
    counts: Any,
) -> None:  # fmt: skip
    """Count the rows of a tile that are in no cell, by what keeps them from it."""
    for i in range(rows):
        before, after = flags_from[at + i], flags_to[at + i]
        if before & after & PRESENT == 0:
            if before & PRESENT != 0:
                counts[ONLY_FROM] += 1
            elif after & PRESENT != 0:
                counts[ONLY_TO] += 1
        elif (before | after) & REASON != 0:
            counts[INVALID] += 1
        elif labels_from[at + i] != labels_to[at + i]:
            counts[RELABELLED] += 1


@kernel
def add_deltas(
    loss_from: Any, loss_to: Any, cells: Any, at: Any, rows: Any, delta_sums: Any
) -> Any:  # fmt: skip
    """Add a tile's finite changes of loss to the sums of their cells; returns how many are not."""
    totals, odd = delta_totals(loss_from, loss_to, cells, at, rows)
    for cell in range(CELLS):
        add_window(delta_sums, cell, totals[cell], totals[CELLS + cell], 0)
    unbounded = np.int64(0)
    if odd > 0:
        for i in range(rows):
            before, after = loss_from[at + i], loss_to[at + i]
            if cells[i] == NO_CELL:
                continue
            if not (before < np.inf and after < np.inf):
                unbounded += 1
            elif not (split(np.float64(before))[2] and split(np.float64(after))[2]):
                add(delta_sums, cells[i], after, 1)
                add(delta_sums, cells[i], before, -1)
    return unbounded


@inner()
def delta_totals(loss_from: Any, loss_to: Any, cells: Any, at: Any, rows: Any) -> Any:
    """Add up the changes of loss of a tile by cell, as `split` gives them.

    Returns the coarse totals of the cells, then the fine ones, and how many rows are in none.
    """
    a0 = a1 = a2 = a3 = a4 = b0 = b1 = b2 = b3 = b4 = odd = np.int64(0)
    for i in range(rows):
        cell = cells[i]
        before = np.float64(loss_from[at + i]) if cell != NO_CELL else 0.0
        after = np.float64(loss_to[at + i]) if cell != NO_CELL else 0.0
        coarse, fine, whole = split(after)
        coarse_before, fine_before, whole_before = split(before)
        whole = whole & whole_before
        coarse = coarse - coarse_before if whole else 0
        fine = fine - fine_before if whole else 0
        odd += 0 if whole else 1
        a0 += coarse if cell == RR else 0
        a1 += coarse if cell == RW else 0
        a2 += coarse if cell == WR else 0
        a3 += coarse if cell == WW_SAME else 0
        a4 += coarse
        b0 += fine if cell == RR else 0
        b1 += fine if cell == RW else 0
        b2 += fine if cell == WR else 0
        b3 += fine if cell == WW_SAME else 0
        b4 += fine
    last = (a4 - a0 - a1 - a2 - a3, b4 - b0 - b1 - b2 - b3)
    return (a0, a1, a2, a3, last[0], b0, b1, b2, b3, last[1]), odd


@kernel
def dynamics(
    epoch: Any, loss: Any, margin: Any, predicted: Any, labels: Any, flags: Any, records: Any
) -> None:
    """Carry each sample's history on by one epoch; see the contract."""
    p = np.zeros(TILE, np.float64)
    n = np.uint64(len(flags))
    for at in range(np.uint64(0), n, np.uint64(TILE)):
        rows = min(np.uint64(TILE), n - at)
        find_probabilities(loss, at, rows, p)
        carry_on_tile(epoch, loss, p, margin, predicted, labels, flags, at, rows, records)


@kernel  # inlined, its polynomial's coefficients would be kept in registers during the other loop
def find_probabilities(loss: Any, at: Any, rows: Any, p: Any) -> None:
    """Write the label's probability to p (TILE,) for each row of a tile."""
    for i in range(rows):
        p[i] = exp_64(-np.float64(loss[at + i]))


@kernel
def carry_on_tile(
    epoch: Any, loss: Any, p: Any, margin: Any, predicted: Any, labels: Any, flags: Any, at: Any,
    rows: Any, records: Any,
) -> None:  # fmt: skip
    """Add one epoch to the records of a tile's valid rows, with p (TILE,) as it was found."""
    for i in range(rows):
        row = at + i
        if flags[row] & VALID == PRESENT:
            right = (flags[row] >> RIGHT_BIT) & 1
            carry_on(
                records[row], epoch, loss[row], p[i], margin[row], predicted[row], labels[row],
                right,
            )  # fmt: skip


@inner()
def carry_on(
    record: Any, epoch: Any, loss: Any, p: Any, margin: Any, predicted: Any, label: Any, right: Any
) -> None:  # fmt: skip
    """Add one epoch to one record, without branches, which would be hard to predict.

    right is 0 or 1.
    """
    n_epochs, n_right, n_margin = record.n_epochs, record.n_right, record.n_margin
    mean_p, margin_sum = record.mean_p, record.margin_sum
    was_right = np.int64((n_epochs > 0) & (record.last_predicted == record.label))
    finite = abs(margin) < np.inf
    difference = p - mean_p
    mean_after = mean_p + difference / (n_epochs + 1)
    first = -np.int64(right * (n_right == 0))  # all bits, or none
    first_right = (epoch & first) | (record.first_right & ~first)
    forgetting = record.forgetting + was_right * (1 - right)
    m2_p = record.m2_p + difference * (p - mean_after)
    record.mean_p = mean_after
    record.m2_p = m2_p
    record.margin_sum = margin_sum + np.float64(margin) if finite else margin_sum
    record.last_loss = np.float64(loss)
    record.first_right = first_right
    record.n_epochs = n_epochs + 1
    record.n_right = n_right + right
    record.n_margin = n_margin + (1 if finite else 0)
    record.forgetting = forgetting
    record.last_predicted = predicted
    record.label = label

"""`transitions`: the same samples in two epochs."""

import functools
from typing import Any

import numpy as np

from fastdiv_kernels.contract import CORRECT, PRESENT, REASON, Cell, PairCount
from fastdiv_kernels.cpu.eights import (
    EIGHT,
    I32,
    I64,
    Rows,
    data_of,
    in_order,
    padded,
    whole_eights,
)
from fastdiv_kernels.cpu.jit import inner, intrinsic, kernel, types
from fastdiv_kernels.cpu.scattered import (
    MOST,
    add_losses,
    add_rows,
    is_whole,
    new_table,
    parts,
    rows_of,
)
from fastdiv_kernels.cpu.sums import add
from fastdiv_kernels.cpu.windows import TILE

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
RIGHT_BIT = CORRECT.bit_length() - 1
START = np.uint64(0)
SETTLED = np.uint64(MOST)


@kernel
def transitions(
    loss_from: Any, predicted_from: Any, labels_from: Any, flags_from: Any, loss_to: Any,
    predicted_to: Any, labels_to: Any, flags_to: Any, counts: Any, delta_sums: Any,
) -> None:  # fmt: skip
    """Add the same samples in two epochs to the cells of their table; see the contract."""
    loss_from, predicted_from = in_order(loss_from), in_order(predicted_from)
    labels_from, flags_from = in_order(labels_from), in_order(flags_from)
    loss_to, predicted_to = in_order(loss_to), in_order(predicted_to)
    labels_to, flags_to = in_order(labels_to), in_order(flags_to)
    cells = np.empty(TILE, np.int32)
    table = new_table(CELLS)
    n = np.uint64(len(flags_from))
    for at in range(START, n, np.uint64(TILE)):
        rows = min(np.uint64(TILE), n - at)
        if rows % EIGHT == 0:
            add_tile(
                loss_from, predicted_from, labels_from, flags_from, loss_to, predicted_to,
                labels_to, flags_to, at, rows, cells, table, counts, delta_sums,
            )  # fmt: skip
        else:
            add_tile(
                padded(loss_from, at, rows), padded(predicted_from, at, rows),
                padded(labels_from, at, rows), padded(flags_from, at, rows),
                padded(loss_to, at, rows), padded(predicted_to, at, rows),
                padded(labels_to, at, rows), padded(flags_to, at, rows), START,
                whole_eights(rows), cells, table, counts, delta_sums,
            )  # fmt: skip
        if (at + np.uint64(TILE)) % SETTLED == 0:
            settle(table, counts, delta_sums)
    settle(table, counts, delta_sums)


@kernel
def add_tile(
    loss_from: Any, predicted_from: Any, labels_from: Any, flags_from: Any, loss_to: Any,
    predicted_to: Any, labels_to: Any, flags_to: Any, at: Any, rows: Any, cells: Any, table: Any,
    counts: Any, delta_sums: Any,
) -> None:  # fmt: skip
    """Add whole eights of rows to the table; those in no cell, or that do not fit it, to totals."""
    odd = find_cells(
        loss_from, predicted_from, labels_from, flags_from, loss_to, predicted_to, labels_to,
        flags_to, at, rows, cells,
    )  # fmt: skip
    scatter(loss_from, loss_to, at, rows, cells, table)
    if odd != 0:
        for i in range(rows):
            if cells[i] == CELLS:
                row = at + i
                add_row(
                    loss_from[row], predicted_from[row], labels_from[row], flags_from[row],
                    loss_to[row], predicted_to[row], labels_to[row], flags_to[row], counts,
                    delta_sums,
                )  # fmt: skip


@inner()
def add_row(
    loss_from: Any, predicted_from: Any, label_from: Any, before: Any, loss_to: Any,
    predicted_to: Any, label_to: Any, after: Any, counts: Any, delta_sums: Any,
) -> None:  # fmt: skip
    """Add one row, in a cell or not, to the totals."""
    if before & after & PRESENT == 0:
        if before & PRESENT != 0:
            counts[ONLY_FROM] += 1
        elif after & PRESENT != 0:
            counts[ONLY_TO] += 1
    elif (before | after) & REASON != 0:
        counts[INVALID] += 1
    elif label_from != label_to:
        counts[RELABELLED] += 1
    else:
        wrong = WW_SAME if predicted_from == predicted_to else WW_CHANGED
        was_wrong = WR if after & CORRECT != 0 else wrong
        was_right = RR if after & CORRECT != 0 else RW
        cell = was_right if before & CORRECT != 0 else was_wrong
        counts[cell] += 1
        if loss_from < np.inf and loss_to < np.inf:
            add(delta_sums, cell, loss_to, 1)
            add(delta_sums, cell, loss_from, -1)
        else:
            counts[INFINITE] += 1


@inner()
def settle(table: Any, counts: Any, delta_sums: Any) -> None:
    """Add a table to the totals, and empty it."""
    for cell in range(CELLS):
        counts[cell] += rows_of(table, cell)[0]
        add_losses(table, cell, delta_sums, cell)
    table[:] = 0


@intrinsic
def find_cells(
    typing_context: Any, loss_from: Any, predicted_from: Any, labels_from: Any, flags_from: Any,
    loss_to: Any, predicted_to: Any, labels_to: Any, flags_to: Any, at: Any, rows: Any, cells: Any,
) -> Any:  # fmt: skip
    """Write the cells of rows, CELLS where there is none or losses do not fit a table.

    Returns 0 if there are none of these.
    """
    assert tuple(range(6)) == (RR, RW, WR, WW_SAME, WW_CHANGED, CELLS)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        *columns, at, rows, cells = data_of(context, builder, signature, args)
        lanes = Rows(builder)
        odd = lanes.places(1, I32)[0]
        one, four = lanes.every(I32, WR - RR - 1), lanes.every(I32, WW_CHANGED)
        with lanes.each(at, rows) as (before, i):
            loss, predicted, labels = ([lanes.load(x, i) for x in columns[k::4]] for k in range(3))
            flags = [lanes.flags(x, i) for x in columns[3::4]]
            was_right, is_right = (lanes.has(x, RIGHT_BIT) for x in flags)
            # Masks are -1: RR and RW are 0 and 1, WR is 2, WW_SAME and WW_CHANGED 3 and 4.
            wrong = builder.add(four, lanes.equal(*predicted))
            then_wrong = lanes.chosen(is_right, lanes.every(I32, WR), wrong)
            cell = lanes.chosen(was_right, builder.add(one, is_right), then_wrong)
            usual = lanes.equal(*labels)
            for mask in (*map(lanes.valid, flags), *(is_whole(lanes, x) for x in loss)):
                usual = builder.and_(usual, mask)
            lanes.store(lanes.chosen(usual, cell, lanes.every(I32, CELLS)), cells, before)
            lanes.join(odd, builder.not_(usual))
        return lanes.any(builder.load(odd))

    before = (loss_from, predicted_from, labels_from, flags_from)
    after = (loss_to, predicted_to, labels_to, flags_to)
    return types.int32(*before, *after, types.uint64, types.uint64, cells), generate


@intrinsic
def scatter(
    typing_context: Any, loss_from: Any, loss_to: Any, at: Any, rows: Any, cells: Any, table: Any
) -> Any:  # fmt: skip
    """Add changes of loss, and rows, to a table by cell."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        loss_from, loss_to, at, rows, cells, table = data_of(context, builder, signature, args)
        lanes = Rows(builder)
        with lanes.each(at, rows) as (before, i):
            split = functools.partial(parts, lanes)
            losses = (lanes.double(lanes.load(x, i)) for x in (loss_from, loss_to))
            changes = [builder.sub(b, a) for a, b in zip(*map(split, losses), strict=True)]
            add_rows(lanes, [*changes, lanes.every(I64, 1)], cells, before, table)
        return context.get_dummy_value()

    numbers = (types.uint64, types.uint64)
    return types.void(loss_from, loss_to, *numbers, cells, table), generate

"""`tally_classes`: the totals of one epoch by class, from its stored scores."""

from typing import Any

import numpy as np
from llvmlite import ir

from fastdiv_kernels.contract import CORRECT, PRESENT
from fastdiv_kernels.cpu.eights import (
    EIGHT,
    I32,
    I64,
    ROWS,
    VALID,
    Rows,
    data_of,
    in_order,
    padded,
    whole_eights,
)
from fastdiv_kernels.cpu.jit import inner, intrinsic, kernel, types
from fastdiv_kernels.cpu.scattered import (
    COPIES,
    MOST,
    add_loss_rows,
    add_losses,
    is_whole,
    new_table,
    rows_of,
)
from fastdiv_kernels.cpu.sums import add
from fastdiv_kernels.cpu.windows import TILE

START = np.uint64(0)
SETTLED = np.uint64(MOST)


@kernel
def tally_classes(
    loss: Any, predicted: Any, labels: Any, flags: Any, counts: Any, loss_sums: Any
) -> None:
    """Add the stored scores of one epoch to its totals by class; see the contract."""
    loss, predicted = in_order(loss), in_order(predicted)
    labels, flags = in_order(labels), in_order(flags)
    n, c = np.uint64(len(flags)), np.uint64(len(counts))
    if n < c:  # a table would be longer than the rows
        for i in range(n):
            if flags[i] & VALID == PRESENT:
                add_row(loss[i], predicted[i], labels[i], flags[i], counts, loss_sums)
        return
    keys = np.empty((2, TILE), np.int32)
    table = new_table(c)
    predictions = np.zeros((c + np.uint64(1)) * np.uint64(COPIES), np.int32)
    for at in range(START, n, np.uint64(TILE)):
        rows = min(np.uint64(TILE), n - at)
        if rows % EIGHT == 0:
            add_tile(
                loss, predicted, labels, flags, at, rows, keys[0], keys[1], table, predictions,
                counts, loss_sums,
            )  # fmt: skip
        else:
            add_tile(
                padded(loss, at, rows), padded(predicted, at, rows), padded(labels, at, rows),
                padded(flags, at, rows), START, whole_eights(rows), keys[0], keys[1], table,
                predictions, counts, loss_sums,
            )  # fmt: skip
        if (at + np.uint64(TILE)) % SETTLED == 0:
            settle(table, predictions, counts, loss_sums)
    settle(table, predictions, counts, loss_sums)


@kernel
def add_tile(
    loss: Any, predicted: Any, labels: Any, flags: Any, at: Any, rows: Any, keys: Any,
    predicted_keys: Any, table: Any, predictions: Any, counts: Any, loss_sums: Any,
) -> None:  # fmt: skip
    """Add whole eights of rows to tables; those that do not fit these to the totals themselves."""
    last = np.int32(len(counts))
    odd = find_keys(loss, predicted, labels, flags, at, rows, last, keys, predicted_keys)
    scatter(loss, flags, at, rows, keys, predicted_keys, table, predictions)
    if odd != 0:
        for i in range(rows):
            if keys[i] == last and flags[at + i] & VALID == PRESENT:
                row = at + i
                add_row(loss[row], predicted[row], labels[row], flags[row], counts, loss_sums)


@inner()
def add_row(
    loss: Any, predicted: Any, label: Any, flag: Any, counts: Any, loss_sums: Any
) -> None:  # fmt: skip
    """Add one row to the totals."""
    counts[label, 0] += 1
    counts[predicted, 1] += 1
    counts[label, 2] += flag & CORRECT != 0
    if loss < np.inf:
        add(loss_sums, label, loss, 1)
    else:
        counts[label, 3] += 1


@inner()
def settle(table: Any, predictions: Any, counts: Any, loss_sums: Any) -> None:
    """Add tables to the totals, and empty them."""
    for k in range(len(counts)):
        for copy in range(COPIES):
            counts[k, 1] += predictions[k * COPIES + copy]
        rows, right = rows_of(table, k)
        if rows != 0:
            counts[k, 0] += rows
            counts[k, 2] += right
            add_losses(table, k, loss_sums, k)
    table[:] = 0
    predictions[:] = 0


@intrinsic
def find_keys(
    typing_context: Any, loss: Any, predicted: Any, labels: Any, flags: Any, at: Any, rows: Any,
    last: Any, keys: Any, predicted_keys: Any,
) -> Any:  # fmt: skip
    """Write labels and predictions of rows, or `last` for a row that is not for tables.

    Returns 0 if all rows that are valid are for tables.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        loss, predicted, labels, flags, at, rows, last, *found = data_of(
            context, builder, signature, args
        )
        lanes = Rows(builder)
        odd = lanes.places(1, I32)[0]
        last = lanes.splat(last)
        with lanes.each(at, rows) as (before, i):
            valid = lanes.valid(lanes.flags(flags, i))
            whole = is_whole(lanes, lanes.load(loss, i))
            lanes.join(odd, builder.and_(valid, builder.not_(whole)))
            usual = builder.and_(valid, whole)
            for given, to in zip((labels, predicted), found, strict=True):
                lanes.store(lanes.chosen(usual, lanes.load(given, i), last), to, before)
        return lanes.any(builder.load(odd))

    arrays = (loss, predicted, labels, flags)
    rest = (types.uint64, types.uint64, types.int32, keys, predicted_keys)
    return types.int32(*arrays, *rest), generate


@intrinsic
def scatter(
    typing_context: Any, loss: Any, flags: Any, at: Any, rows: Any, keys: Any, predicted_keys: Any,
    table: Any, predictions: Any,
) -> Any:  # fmt: skip
    """Add rows to the table of labels' losses, and to that of predictions."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        loss, flags, at, rows, keys, predicted_keys, table, predictions = data_of(
            context, builder, signature, args
        )
        lanes = Rows(builder)
        with lanes.each(at, rows) as (before, i):
            add_loss_rows(lanes, loss, flags, i, keys, before, table)
            for row in range(ROWS):
                place = builder.gep(predicted_keys, [builder.add(before, ir.Constant(I64, row))])
                key = builder.zext(builder.load(place, align=4), I64)
                key = builder.mul(key, ir.Constant(I64, COPIES))
                place = builder.gep(predictions, [builder.add(key, ir.Constant(I64, row % COPIES))])
                builder.store(builder.add(builder.load(place), ir.Constant(I32, 1)), place)
        return context.get_dummy_value()

    arrays = (keys, predicted_keys, table, predictions)
    return types.void(loss, flags, types.uint64, types.uint64, *arrays), generate

"""`tally` and `transitions` of the contract alone, over stored scores in memory.

Each function takes a `StoredPair` and returns what is timed: a call that returns loss and
accuracy of the first epoch, as ``{0: (loss, accuracy)}``, or of each cell of the transition table
the change in mean loss that it adds and its share of the samples, ``{cell: (delta, share)}``.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.turns import shared
from fastdiv_kernels import exact
from fastdiv_kernels.contract import BINS, CORRECT, Cell, Count, LossSum, PairCount, TallySum

if TYPE_CHECKING:
    from benchmarks.data import StoredPair

Found = dict[int, tuple[float, float]]
Run = Callable[[], Found]


def fastdiv_tally(pair: StoredPair) -> Run:
    from fastdiv.backends import resolve

    e = pair.first
    n = len(e.flags)
    totals = [
        (
            np.zeros(len(Count), np.int64),
            np.zeros((BINS, 2), np.int64),
            exact.zeros(len(LossSum), e.loss.dtype),
            exact.zeros(TallySum.BIN_CONFIDENCE + BINS, np.dtype(np.float32)),
        )
        for _ in range(pair.threads)
    ]
    columns = (e.loss, e.confidence, e.margin, e.brier, e.flags)
    add_up = _adding(resolve().tally, columns, totals)

    def run() -> Found:
        counts, _, loss_sums, _ = add_up()
        return {0: (exact.mean(loss_sums.sum(0), n), int(counts[Count.RIGHT]) / n)}

    return run


def fastdiv_transitions(pair: StoredPair) -> Run:
    from fastdiv.backends import resolve

    y, n = pair.labels, len(pair.labels)
    totals = [
        (np.zeros(len(PairCount), np.int64), exact.zeros(len(Cell), pair.first.loss.dtype))
        for _ in range(pair.threads)
    ]
    columns = [a for e in (pair.first, pair.second) for a in (e.loss, e.predicted, y, e.flags)]
    add_up = _adding(resolve().transitions, columns, totals)

    def run() -> Found:
        counts, sums = add_up()
        return {int(cell): (exact.mean(sums[cell], n), int(counts[cell]) / n) for cell in Cell}

    return run


def _adding(
    kernel: Callable[..., None], columns: Sequence[Any], totals: list[tuple[Any, ...]]
) -> Callable[[], list[Any]]:
    """Return a call that adds blocks of columns (n,) to each thread's totals, and these up."""
    from fastdiv.store import LARGEST_BLOCK

    def adding(own: tuple[Any, ...]) -> Callable[[slice], None]:
        return lambda rows: kernel(*(column[rows] for column in columns), *own)

    work = shared([adding(own) for own in totals], len(columns[0]), LARGEST_BLOCK)

    def add_up() -> list[Any]:
        for total in itertools.chain.from_iterable(totals):
            total.fill(0)
        work()
        return [sum(parts) for parts in zip(*totals, strict=True)]

    return add_up


def polars_transitions(pair: StoredPair) -> Run:
    """Sum under a mask for each cell, streaming: group_by takes 2.6 times as long, filter 1.9."""
    import polars as pl

    columns: dict[str, Any] = {}
    for name, e in (("from", pair.first), ("to", pair.second)):
        columns[f"loss_{name}"] = e.loss
        columns[f"predicted_{name}"] = e.predicted
        columns[f"right_{name}"] = (e.flags & CORRECT) != 0
    right_from, right_to = pl.col("right_from"), pl.col("right_to")
    wrong = ~right_from & ~right_to
    same = pl.col("predicted_from") == pl.col("predicted_to")
    of_cell = {
        Cell.RR: right_from & right_to,
        Cell.RW: right_from & ~right_to,
        Cell.WR: ~right_from & right_to,
        Cell.WW_SAME: wrong & same,
        Cell.WW_CHANGED: wrong & ~same,
    }
    delta = (pl.col("loss_to") - pl.col("loss_from")).cast(pl.Float64)
    query = (
        pl.DataFrame(columns)
        .lazy()
        .with_columns(delta=delta, **{cell.name: mask for cell, mask in of_cell.items()})
        .select(
            *(pl.when(cell.name).then("delta").otherwise(0.0).mean().alias(f"delta_{cell.name}")
              for cell in Cell),
            *(pl.col(cell.name).mean() for cell in Cell),
        )
    )  # fmt: skip

    def run() -> Found:
        row = query.collect(engine="streaming").row(0, named=True)
        return {int(cell): (row[f"delta_{cell.name}"], row[cell.name]) for cell in Cell}

    return run

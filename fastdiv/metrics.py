"""METRICS: what each column of a result table is made from.

A metric over what the kernels already count is one row here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import pyarrow as pa

from fastdiv.states import ClassTotals, EpochTotals, PairTotals
from fastdiv_kernels import exact
from fastdiv_kernels.contract import BINS, Cell, Count, LossSum, PairCount, TallySum

INT = pa.int64()
REAL = pa.float64()


@dataclass(frozen=True, slots=True)
class EpochRow:
    """One epoch of one split: what the columns of `epochs` are made from."""

    split: str | None
    epoch: int
    totals: EpochTotals
    classes: int  # number of classes
    name: str | None = None  # where epochs are not plain numbers


@dataclass(frozen=True, slots=True)
class PairRow:
    """Two epochs of one split: what the columns of `transitions` are made from."""

    split: str | None
    before: EpochRow
    after: EpochRow
    totals: PairTotals


@dataclass(frozen=True, slots=True)
class Metric:
    """A column: its name, its type, and how its value comes from a row."""

    name: str
    type: pa.DataType
    of: Callable[[Any], Any]


def share(part: int, whole: int) -> float | None:
    """Return part / whole, or None of nothing."""
    return part / whole if whole else None


def mean(limbs: Any, n: int) -> float | None:
    """Return the correctly rounded mean of an exact sum of n numbers, or None of nothing."""
    return exact.mean(limbs, n) if n else None


def valid(row: EpochRow) -> int:
    """Return the number of valid samples."""
    return row.totals.count(Count.VALID)


def finite(row: EpochRow) -> int:
    """Return the number of valid samples with a finite loss."""
    return valid(row) - row.totals.count(Count.INFINITE)


def loss_finite(row: EpochRow) -> float | None:
    """Return the mean of the finite losses, in nats."""
    return mean(row.totals.finite_loss_sum, finite(row))


def loss(row: EpochRow) -> float | None:
    """Return the mean loss in nats, infinite if any is."""
    return np.inf if row.totals.count(Count.INFINITE) else loss_finite(row)


def accuracy(row: EpochRow) -> float | None:
    """Return the share of valid samples that are right."""
    return share(row.totals.count(Count.RIGHT), valid(row))


def loss_wrong(row: EpochRow) -> float | None:
    """Return the mean loss of the wrong, infinite if any is."""
    if row.totals.count(Count.INFINITE):  # no right answer has an infinite loss
        return np.inf
    return mean(row.totals.loss_sums[LossSum.WRONG], valid(row) - row.totals.count(Count.RIGHT))


def ece(row: EpochRow) -> float | None:
    """Return the expected calibration error (Guo et al. 2017, arXiv:1706.04599), 15 bins."""
    if not valid(row):
        return None
    gaps = Fraction(0)
    for b in range(BINS):
        confidence = exact.value(row.totals.sums[TallySum.BIN_CONFIDENCE + b])
        gaps += abs(int(row.totals.bins[b, 1]) - confidence)
    return float(gaps / valid(row))


def of_count(which: Count) -> Callable[[EpochRow], int]:
    """Return a metric that is a count."""
    return lambda row: row.totals.count(which)


EPOCH_METRICS = (
    Metric("split", pa.string(), lambda row: row.split),
    Metric("epoch", INT, lambda row: row.epoch),
    Metric("epoch_name", pa.string(), lambda row: row.name),
    Metric("n", INT, lambda row: row.totals.n),
    Metric("n_invalid", INT, lambda row: row.totals.n - valid(row)),
    Metric("n_infinite", INT, of_count(Count.INFINITE)),
    Metric("n_unnormalized", INT, of_count(Count.UNNORMALIZED)),
    Metric("n_ties", INT, of_count(Count.TIES)),
    Metric("loss", REAL, loss),
    Metric("loss_finite", REAL, loss_finite),
    Metric("accuracy", REAL, accuracy),
    Metric(
        "confidence", REAL, lambda row: mean(row.totals.sums[TallySum.CONFIDENCE], valid(row))
    ),
    Metric("brier", REAL, lambda row: mean(row.totals.sums[TallySum.BRIER], valid(row))),
    Metric(
        "margin", REAL,
        lambda row: mean(
            row.totals.sums[TallySum.MARGIN], row.totals.count(Count.FINITE_MARGIN)
        ),
    ),
    Metric(
        "loss_right", REAL,
        lambda row: mean(row.totals.loss_sums[LossSum.RIGHT], row.totals.count(Count.RIGHT)),
    ),
    Metric("loss_wrong", REAL, loss_wrong),
    Metric(
        "top5_accuracy", REAL,
        lambda row: share(row.totals.count(Count.TOP5), valid(row)) if row.classes > 5 else None,
    ),
    Metric("ece", REAL, ece),
)  # fmt: skip


def matched(row: PairRow) -> int:
    """Return the number of samples that the loss parts are divided by."""
    return row.totals.n - row.totals.count(PairCount.INFINITE)


def delta_loss_of(cell: Cell) -> Callable[[PairRow], float | None]:
    """Return the metric of what a cell adds to the change in mean loss, in nats."""
    return lambda row: mean(row.totals.delta_sums[cell], matched(row))


def delta_loss_exact(row: PairRow) -> Fraction:
    """Return the change in mean loss over samples that are in both epochs."""
    return sum((exact.value(s) for s in row.totals.delta_sums), Fraction(0)) / matched(row)


def delta_loss(row: PairRow) -> float | None:
    """Return the change in mean loss over samples that are in both epochs, in nats."""
    return float(delta_loss_exact(row)) if matched(row) else None


def delta_loss_membership(row: PairRow) -> float | None:
    """Return what is left of the change in `loss_finite`: samples that came and went."""
    if not (matched(row) and finite(row.before) and finite(row.after)):
        return None
    means = [exact.value(r.totals.finite_loss_sum) / finite(r) for r in (row.before, row.after)]
    return float(means[1] - means[0] - delta_loss_exact(row))


def changed(row: PairRow) -> float | None:
    """Return the share of samples whose prediction changed (churn)."""
    cells = (Cell.RW, Cell.WR, Cell.WW_CHANGED)
    return share(sum(row.totals.count(cell) for cell in cells), row.totals.n)


def of_pair(which: PairCount) -> Callable[[PairRow], int]:
    """Return a metric that is a count."""
    return lambda row: row.totals.count(which)


TRANSITION_METRICS = (
    Metric("split", pa.string(), lambda row: row.split),
    Metric("epoch_from", INT, lambda row: row.before.epoch),
    Metric("epoch_to", INT, lambda row: row.after.epoch),
    Metric("n", INT, lambda row: row.totals.n),
    Metric("n_infinite", INT, of_pair(PairCount.INFINITE)),
    Metric("n_invalid", INT, of_pair(PairCount.INVALID)),
    Metric("n_relabelled", INT, of_pair(PairCount.RELABELLED)),
    Metric("n_only_from", INT, of_pair(PairCount.ONLY_FROM)),
    Metric("n_only_to", INT, of_pair(PairCount.ONLY_TO)),
    *(Metric(cell.name.lower(), INT, of_pair(PairCount(cell))) for cell in Cell),
    Metric(
        "delta_accuracy", REAL,
        lambda row: share(row.totals.count(Cell.WR) - row.totals.count(Cell.RW), row.totals.n),
    ),
    Metric("delta_loss", REAL, delta_loss),
    *(Metric(f"delta_loss_{cell.name.lower()}", REAL, delta_loss_of(cell)) for cell in Cell),
    Metric("delta_loss_membership", REAL, delta_loss_membership),
    Metric("churn", REAL, changed),
    Metric(
        "negative_flip_rate", REAL, lambda row: share(row.totals.count(Cell.RW), row.totals.n)
    ),
)  # fmt: skip


def table(metrics: tuple[Metric, ...], rows: list[Any]) -> pa.Table:
    """Make a table of rows, a column for each metric."""
    columns = [pa.array([m.of(row) for row in rows], m.type) for m in metrics]
    return pa.table(columns, schema=pa.schema([(m.name, m.type) for m in metrics]))


def class_table(
    split: str | None, epoch: int, totals: ClassTotals, names: tuple[str, ...] | None
) -> pa.Table:
    """Make the rows of `classes` of one epoch: one for each class."""
    c = len(totals.counts)
    support, infinite = totals.counts[:, 0], totals.counts[:, 3]
    losses = [
        np.inf if infinite[i] else mean(totals.loss_sums[i], int(support[i])) for i in range(c)
    ]
    return pa.table(
        {
            "split": pa.array([split] * c, pa.string()),
            "epoch": pa.array(np.full(c, epoch, np.int64)),
            "class": pa.array(names, pa.string()) if names else pa.array(np.arange(c, dtype="i4")),
            "support": pa.array(support),
            "predicted": pa.array(totals.counts[:, 1]),
            "true_positive": pa.array(totals.counts[:, 2]),
            "loss": pa.array(losses, REAL),
        }
    )


def best_epochs(rows: Iterable[EpochRow]) -> dict[str, Any]:
    """Return the epochs with the lowest loss and the highest accuracy, the earliest of equals.

    The loss is the mean of the finite losses; both are None where nothing is valid.
    """
    rows = sorted(rows, key=lambda row: row.epoch)
    measured = [(row.epoch, loss_finite(row), accuracy(row)) for row in rows]
    by_loss = [(loss, epoch) for epoch, loss, _ in measured if loss is not None]
    by_accuracy = [(-accuracy, epoch) for epoch, _, accuracy in measured if accuracy is not None]
    return {
        "epoch_lowest_loss": min(by_loss)[1] if by_loss else None,
        "epoch_highest_accuracy": min(by_accuracy)[1] if by_accuracy else None,
    }

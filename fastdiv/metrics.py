"""METRICS: what each column of a result table is made from.

A metric over what the kernels already count is one row here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa

from fastdiv.states import ClassTotals, EpochTotals, PairTotals
from fastdiv.temperature import Tempered, tempered
from fastdiv_kernels import exact
from fastdiv_kernels.contract import BINS, Cell, Count, LossSum, PairCount, TallySum

INT = pa.int64()
REAL = pa.float64()


@dataclass(frozen=True, slots=True)
class ClassMeans:
    """Means over the classes of one epoch, and what its priors alone would reach.

    Zero where a class was never predicted (precision), as scikit-learn's ``zero_division=0``.
    """

    balanced_accuracy: float | None  # mean recall of the classes that occur among labels
    f1_macro: float | None  # over classes that occur among labels or predictions
    f1_weighted: float | None  # by support
    mcc: float | None  # Matthews correlation (Gorodkin 2004); None where one class is all there is
    accuracy_majority: float | None  # of always predicting the most frequent class
    prior_entropy: float | None  # nats: the loss of always predicting the class shares

    @classmethod
    def of(cls, counts: Any) -> ClassMeans:
        """Make them from support, predicted and true positive of each class, (c, >= 3) int64."""
        support, predicted, right = (counts[:, i].astype(np.float64) for i in range(3))
        n = float(support.sum())
        if not n:
            return cls(None, None, None, None, None, None)
        labelled, occurring = support > 0, (support > 0) | (predicted > 0)
        recall = right[labelled] / support[labelled]
        f1 = 2 * right[occurring] / (support[occurring] + predicted[occurring])
        share = support[labelled] / n
        spread = [n * n - float((x * x).sum()) for x in (support, predicted)]
        agreement = float(right.sum()) * n - float((support * predicted).sum())
        return cls(
            balanced_accuracy=float(recall.mean()),
            f1_macro=float(f1.mean()),
            f1_weighted=float((f1 * support[occurring]).sum() / n),
            mcc=agreement / math.sqrt(spread[0] * spread[1]) if all(spread) else None,
            accuracy_majority=float(share.max()),
            prior_entropy=abs(float((share * np.log(share)).sum())),
        )


@dataclass(frozen=True)
class EpochRow:
    """One epoch of one split: what the columns of `epochs` are made from."""

    split: str | None
    epoch: int
    totals: EpochTotals
    classes: int  # number of classes
    name: str | None = None  # where epochs are not plain numbers
    means: ClassMeans | None = None

    @cached_property
    def gaps(self) -> list[Fraction]:
        """For each bin of confidence, the sum of confidence minus correctness of its samples."""
        return [
            exact.value(self.totals.sums[TallySum.BIN_CONFIDENCE + b]) - int(self.totals.bins[b, 1])
            for b in range(BINS)
        ]

    @cached_property
    def tempered(self) -> Tempered | None:
        """The best temperature and what it leaves of the loss; None where that was not kept."""
        same = int(self.totals.tempered_counts[0]) == finite(self)  # some, clipped, have none
        whole = loss_finite(self) if same else None
        return tempered(self.totals.tempered_counts, self.totals.tempered_sums, whole)


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
    return float(sum(map(abs, row.gaps)) / valid(row)) if valid(row) else None


def overconfidence(row: EpochRow) -> float | None:
    """Return the part of the calibration error that is of bins more confident than right."""
    return float(sum(g for g in row.gaps if g > 0) / valid(row)) if valid(row) else None


def largest_gap(row: EpochRow) -> float | None:
    """Return the maximum calibration error: that of the bin where it is largest."""
    n = row.totals.bins[:, 0].tolist()
    by_bin = [float(abs(g) / k) for g, k in zip(row.gaps, n, strict=True) if k]
    return max(by_bin, default=None)


def of_temper(field: str) -> Callable[[EpochRow], float | None]:
    """Return a metric of the best temperature; None where nothing tells it."""
    return lambda row: getattr(row.tempered, field) if row.tempered else None


def of_classes(field: str) -> Callable[[EpochRow], float | None]:
    """Return a metric that is a mean over classes."""
    return lambda row: getattr(row.means, field) if row.means else None


def skill(row: EpochRow) -> float | None:
    """Return D², the share of the loss of predicting class shares that is saved; minus infinity
    where the loss is infinite, None where one class is all there is.
    """  # noqa: D205
    value, entropy = loss(row), row.means.prior_entropy if row.means else None
    return 1 - value / entropy if value is not None and entropy else None


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
    Metric("ece_overconfident", REAL, overconfidence),
    Metric("mce", REAL, largest_gap),
    Metric("temperature", REAL, of_temper("temperature")),
    Metric("temperature_bound", pa.string(), of_temper("bound")),
    Metric("refinement", REAL, of_temper("refinement")),
    Metric("calibration", REAL, of_temper("calibration")),
    Metric("balanced_accuracy", REAL, of_classes("balanced_accuracy")),
    Metric("f1_macro", REAL, of_classes("f1_macro")),
    Metric("f1_weighted", REAL, of_classes("f1_weighted")),
    Metric("mcc", REAL, of_classes("mcc")),
    Metric("accuracy_majority", REAL, of_classes("accuracy_majority")),
    Metric("prior_entropy", REAL, of_classes("prior_entropy")),
    Metric("d2_log_loss", REAL, skill),
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
    support, predicted, right, infinite = totals.counts.T

    def ratio(part: Any, whole: Any) -> pa.Array:
        with np.errstate(invalid="ignore"):
            return pa.array(part / whole, mask=whole == 0)

    losses = [
        np.inf if infinite[i] else mean(totals.loss_sums[i], int(support[i])) for i in range(c)
    ]
    return pa.table(
        {
            "split": pa.array([split] * c, pa.string()),
            "epoch": pa.array(np.full(c, epoch, np.int64)),
            "class": pa.array(names, pa.string()) if names else pa.array(np.arange(c, dtype="i4")),
            "support": pa.array(support),
            "predicted": pa.array(predicted),
            "true_positive": pa.array(right),
            "loss": pa.array(losses, REAL),
            "precision": ratio(right, predicted),
            "recall": ratio(right, support),
            "f1": ratio(2 * right, support + predicted),
        }
    )


def best_epochs(rows: Iterable[EpochRow]) -> dict[str, Any]:
    """Return the epochs that are best by loss, accuracy and refinement, the earliest of equals.

    Epochs with an infinite loss come after all others, by the mean of their finite losses. None
    where nothing is valid, or not kept.
    """
    rows = sorted(rows, key=lambda row: row.epoch)

    def lowest(of: Callable[[EpochRow], float | None]) -> int | None:
        found = [
            (of is not errors and row.totals.count(Count.INFINITE) > 0, value, row.epoch)
            for row in rows
            if (value := of(row)) is not None
        ]
        return min(found)[2] if found else None

    def errors(row: EpochRow) -> float | None:
        right = accuracy(row)
        return None if right is None else -right

    return {
        "epoch_lowest_loss": lowest(loss_finite),
        "epoch_highest_accuracy": lowest(errors),
        "epoch_lowest_refinement": lowest(of_temper("refinement")),
    }

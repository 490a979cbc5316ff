"""Of each class, what it adds to the loss and the accuracy of an epoch, and to their change.

From the rows of `Run.classes`: no scores are needed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from fastdiv.explain.evidence import Floats, Ints


@dataclass(frozen=True, slots=True)
class ClassesOf:
    """The classes of one epoch.

    Attributes
    ----------
    support, predicted, right : (c,) int64
    loss : (c,) float64
        Nats, infinite where that of any sample is, NaN of a class without samples.
    """

    support: Ints
    predicted: Ints
    right: Ints
    loss: Floats

    @property
    def n(self) -> int:
        """Valid samples."""
        return int(self.support.sum())

    @property
    def losses(self) -> Floats:
        """What each class (c,) adds to the mean loss, in nats; infinite where its loss is."""
        sums = np.zeros(len(self.loss))
        np.multiply(self.loss, self.support, out=sums, where=self.support > 0)
        return sums / self.n

    @property
    def accuracies(self) -> Floats:
        """What each class (c,) adds to the accuracy."""
        return self.right / self.n

    @property
    def recall(self) -> Floats:
        """The recall (c,), NaN of nothing."""
        return _over(self.right, self.support)

    @property
    def precision(self) -> Floats:
        """The precision (c,), NaN of nothing."""
        return _over(self.right, self.predicted)

    @property
    def f1(self) -> Floats:
        """The F1 score (c,), NaN of nothing."""
        return _over(2 * self.right, self.support + self.predicted)


def _over(part: Ints, whole: Ints) -> Floats:
    ratio = np.full(len(part), np.nan)
    np.divide(part, whole, out=ratio, where=whole > 0)
    return ratio


def classes_by_epoch(table: pa.Table, c: int) -> dict[int, ClassesOf]:
    """Return the classes of each epoch of one split.

    Parameters
    ----------
    table : pyarrow.Table
        The split's rows of `Run.classes`: for each epoch, all `c` classes in their order.
    c : int
    """
    epochs = table["epoch"].to_numpy()
    columns = [table[x].to_numpy() for x in ("support", "predicted", "true_positive", "loss")]
    return {
        int(epochs[at]): ClassesOf(*(column[at : at + c] for column in columns))
        for at in range(0, len(epochs), c)
    }


def contributions(before: ClassesOf, after: ClassesOf) -> tuple[Floats, Floats]:
    """Return what each class adds to the change between two epochs that have valid samples.

    Both are over all valid samples of each epoch, and so add up to the change in `loss` and
    `accuracy` of `Run.epochs`.

    Returns
    -------
    nats : (c,) float64
        NaN of a class that has an infinite loss in either.
    accuracy : (c,) float64
        A fraction of 1.
    """
    with np.errstate(invalid="ignore"):
        nats = after.losses - before.losses
    nats[~np.isfinite(nats)] = np.nan
    return nats, after.accuracies - before.accuracies

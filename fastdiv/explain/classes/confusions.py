"""Which classes are taken for which: the confusions that occur, never a table of all pairs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from fastdiv.errors import UsageError
from fastdiv.explain.evidence import Side


def class_column(
    index: NDArray[Any] | pa.Array, class_names: Sequence[str] | None, classes: int
) -> pa.Array:
    """Return classes as tables show them: by name where they have names, else as int32.

    Raises
    ------
    UsageError
        Where there are not as many names as classes.
    """
    column = pa.array(index, pa.int32())
    if class_names is None:
        return column
    if len(class_names) != classes:
        raise UsageError(
            f"class_names has {len(class_names)} names for {classes} classes: "
            "give one name for each class, in the order of the predictions"
        )
    return pa.array(class_names, pa.string()).take(column)


def confusions(
    side: Side, class_names: Sequence[str] | None = None, most: int | None = None
) -> pa.Table:
    """Return the confusions that occur: the off-diagonal, non-zero cells of the confusion matrix.

    Memory and time go with the number of samples, whatever the number of classes.

    Parameters
    ----------
    side : Side
    class_names : sequence of str, optional
        One for each class.
    most : int, optional
        How many of the most frequent to return; all if None.

    Returns
    -------
    pa.Table
        The most frequent first, then by index of label and prediction:

        label, predicted : int32, or string where classes have names
        n : int64
            Samples of the label that are predicted so.
        share_of_label : double
            n over the label's samples.
        loss : double
            Their mean loss in nats; infinite if any is.
    """
    if most is not None and most < 0:
        raise UsageError(f"most is {most}: give the number of confusions to list, 0 or more")
    wrong = side.predicted != side.labels
    pairs = side.labels[wrong].astype(np.int64) * side.classes + side.predicted[wrong]
    if side.classes**2 <= len(pairs):  # counting is then faster than sorting
        every = np.bincount(pairs)
        cells = np.flatnonzero(every)
        n = every[cells]
        losses = np.bincount(pairs, side.loss[wrong])[cells] / n
    else:
        cells, cell, n = np.unique(pairs, return_inverse=True, return_counts=True)
        losses = np.bincount(cell, side.loss[wrong], len(cells)) / n
    order = np.argsort(-n, kind="stable")[:most]
    label, predicted = np.divmod(cells[order], side.classes)
    support = np.bincount(side.labels, minlength=side.classes)
    return pa.table(
        {
            "label": class_column(label, class_names, side.classes),
            "predicted": class_column(predicted, class_names, side.classes),
            "n": pa.array(n[order]),
            "share_of_label": pa.array(n[order] / support[label]),
            "loss": pa.array(losses[order]),
        }
    )

"""Which classes, and which of their samples, move the loss, the Brier score and the accuracy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from fastdiv.explain.accounts.terms import BRIER, LOSS, cells, change_of
from fastdiv.explain.classes.confusions import class_column
from fastdiv.explain.evidence import Ints, Pair
from fastdiv_kernels.contract import Cell

CELL_NAMES = pa.array([cell.name.lower() for cell in Cell])


def by_cell_and_class(pair: Pair) -> pa.Table:
    """Return what each transition cell of each class adds to the change.

    Parameters
    ----------
    pair : Pair

    Returns
    -------
    pa.Table
        A row for each combination that occurs, by class, then by cell: class (int32, or string
        where classes have names), cell (string), n and n_infinite (int64; samples, and how many
        of them have an infinite loss in either epoch), delta_loss and delta_brier (float64).
        delta_loss sums to the change in mean loss, in nats, over the samples whose loss is
        finite in both epochs, and is null where there are none; delta_brier to the change in
        mean Brier score over all samples.
    """
    key = len(Cell) * pair.labels.astype(np.int64) + cells(pair)
    keys, columns = _added(pair, key, len(Cell) * pair.before.classes)
    names = CELL_NAMES.take(pa.array(keys % len(Cell)))
    return pa.table({"class": _classes(pair, keys // len(Cell)), "cell": names, **columns})


def by_class(pair: Pair) -> pa.Table:
    """Return what each class adds to the change.

    Parameters
    ----------
    pair : Pair

    Returns
    -------
    pa.Table
        A row for each class that has samples: class, n, n_infinite, delta_loss, delta_brier as
        in `by_cell_and_class`, and delta_accuracy (float64), which sums to the change in
        accuracy over all samples.
    """
    labels = pair.labels
    keys, columns = _added(pair, labels, pair.before.classes)
    gained = [
        np.bincount(labels[side.correct], minlength=pair.before.classes)[keys]
        for side in (pair.before, pair.after)
    ]
    accuracy = pa.array((gained[1] - gained[0]) / max(len(pair), 1))
    return pa.table({"class": _classes(pair, keys), **columns, "delta_accuracy": accuracy})


def _added(pair: Pair, groups: NDArray[Any], k: int) -> tuple[Ints, dict[str, pa.Array]]:
    """Return the groups (n,) of k that occur, and columns of what they add."""
    loss, brier = change_of(pair, LOSS), change_of(pair, BRIER)
    counts = np.bincount(groups, minlength=k)
    keys = np.flatnonzero(counts)
    (delta_loss, finite), (delta_brier, _) = loss.grouped(groups, k), brier.grouped(groups, k)
    nothing = None if loss.n else np.ones(len(keys), bool)
    return keys, {
        "n": pa.array(counts[keys]),
        "n_infinite": pa.array((counts - finite)[keys]),
        "delta_loss": pa.array(delta_loss[keys], mask=nothing),
        "delta_brier": pa.array(delta_brier[keys]),
    }


def _classes(pair: Pair, classes: Ints) -> pa.Array:
    return class_column(classes.astype(np.int32), pair.class_names, pair.before.classes)

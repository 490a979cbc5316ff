"""Subsets: some samples beside all others, over several epochs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fastdiv.errors import UsageError
from fastdiv.explain.evidence import Bools, Ints, Side
from fastdiv.explain.training.dynamics import mean


def subset(
    sides: Sequence[Side], rows: Ints | Bools | pa.Array, ids: pa.Array | None = None
) -> pa.Table:
    """Compare some samples with all others, in several epochs.

    Parameters
    ----------
    sides : sequence of Side
        The same samples in the same order, such as the two sides of a Pair.
    rows : (k,) positions, (n,) mask, or pyarrow.Array of ids
        The samples of the subset.
    ids : pyarrow.Array, optional
        (n,) ids of the samples, where `rows` are ids.

    Returns
    -------
    pyarrow.Table
        A row a side: ``epoch``; ``n``, ``loss`` (mean, nats, infinite if any is), ``loss_finite``
        (mean of the finite ones), ``accuracy``; the same of all others with ``_rest``. Since the
        first side, over samples whose loss is finite in both: ``delta_loss``, the change in mean
        loss of all, and what either adds to it, ``delta_loss_subset`` and ``delta_loss_rest``;
        ``delta_accuracy`` and its parts likewise. Null of nothing.

    Raises
    ------
    UsageError
        Where sides differ in length or rows fit none of the three.
    """
    if not sides:
        raise UsageError("no sides: give one epoch at least")
    n = len(sides[0])
    if any(len(side) != n for side in sides):
        raise UsageError("the sides hold different samples: give those that all epochs have")
    mask = _mask(rows, n, ids)
    found = [
        {"epoch": side.epoch}
        | _scores(side, mask, "")
        | _scores(side, ~mask, "_rest")
        | _changes(sides[0], side, mask)
        for side in sides
    ]
    types = {"epoch": pa.int64(), "n": pa.int64(), "n_rest": pa.int64()}
    schema = pa.schema([(name, types.get(name, pa.float64())) for name in found[0]])
    return pa.Table.from_pylist(found, schema)


def _mask(rows: Ints | Bools | pa.Array, n: int, ids: pa.Array | None) -> Bools:
    """Return which of n samples are in a subset."""
    if isinstance(rows, pa.Array | pa.ChunkedArray):
        if ids is None or len(ids) != n:
            raise UsageError("a subset by ids takes the ids of all samples: give `ids`")
        return np.asarray(
            pc.is_in(ids, value_set=rows.cast(ids.type)).to_numpy(zero_copy_only=False)
        )
    if rows.dtype == np.bool_:
        if len(rows) != n:
            raise UsageError(f"a mask of {len(rows)} for {n} samples: give one value a sample")
        return np.asarray(rows)
    if len(rows) and not -n <= rows.min() <= rows.max() < n:
        raise UsageError(f"positions run from {rows.min()} to {rows.max()} for {n} samples")
    mask = np.zeros(n, bool)
    mask[rows] = True
    return mask


def _scores(side: Side, mask: Bools, suffix: str) -> dict[str, Any]:
    loss, right = side.loss[mask], side.correct[mask]
    scores = {
        "n": len(loss),
        "loss": mean(loss),
        "loss_finite": mean(loss[np.isfinite(loss)]),
        "accuracy": mean(right),
    }
    return {f"{name}{suffix}": value for name, value in scores.items()}


def _changes(first: Side, side: Side, mask: Bools) -> dict[str, float | None]:
    """Return the changes of all in mean loss and accuracy, and what subset and rest add."""
    finite = np.isfinite(first.loss) & np.isfinite(side.loss)
    moved = {
        "loss": np.where(finite, side.loss, 0.0) - np.where(finite, first.loss, 0.0),
        "accuracy": side.correct.astype(np.float64) - first.correct,
    }
    changes: dict[str, float | None] = {}
    for name, x in moved.items():
        n = int(finite.sum()) if name == "loss" else len(x)
        parts = [float(np.sum(x[m] / n)) if n else None for m in (mask, ~mask)]
        total = float(np.sum(x / n)) if n else None
        names = (f"delta_{name}", f"delta_{name}_subset", f"delta_{name}_rest")
        changes |= dict(zip(names, (total, *parts), strict=True))
    return changes

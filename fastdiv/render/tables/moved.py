"""The table of what changed for whom: the samples whose loss moved most between two epochs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from fastdiv.explain.classes.confusions import class_column
from fastdiv.explain.evidence import Floats, Ints, Pair
from fastdiv.explain.pair import CELLS
from fastdiv.render.pictures.picture import pair_key, signed
from fastdiv.render.pictures.single_epochs import samples
from fastdiv.render.tables.glossary import GLOSSARY
from fastdiv.render.tables.table import (
    Column,
    Table,
    TableFrame,
    class_values,
    epoch_words,
    numbers,
    plain_ids,
)
from fastdiv.render.tables.worst import largest

if TYPE_CHECKING:
    from fastdiv.explain.view import SplitView

COLUMNS = (
    Column("id", "Sample", "id"),
    Column("label", "Label", "class"),
    Column("predicted_before", "Predicted before", "class"),
    Column("predicted_after", "Predicted after", "class"),
    Column("cell", "What became of it", "text", "Whether it was right before, and is after."),
    Column("delta", "Change in loss", "nats", "Of the sample's own log-loss, in nats."),
    Column("loss_before", "Loss before", "loss", GLOSSARY["log-loss"]),
    Column("loss_after", "Loss after", "loss", GLOSSARY["log-loss"]),
    Column("confidence_before", "Confidence before", "share", GLOSSARY["confidence"]),
    Column("confidence_after", "Confidence after", "share", GLOSSARY["confidence"]),
)


def moved(view: SplitView, pairs: Sequence[tuple[int, int]], most: int = 200) -> Table | None:
    """Return the samples whose loss moved most between two epochs, up or down.

    Losses that became infinite, or finite again, come first.

    Parameters
    ----------
    view : SplitView
    pairs : sequence of (int, int)
        Those without stored scores, or without a sample in common, are left out.
    most : int
        Samples of a pair.
    """
    kept = set(view.evidence.epochs)
    frames: dict[str, TableFrame] = {}
    for a, b in pairs:
        if not {a, b} <= kept:
            continue
        pair = view.pair(a, b)
        if not len(pair):
            continue
        labels = epoch_words(view, a), epoch_words(view, b)
        frames[pair_key(a, b)] = _frame(pair, most, labels)
    if not frames:
        return None
    return Table(
        "moved",
        "What changed for whom",
        "The samples whose loss moved most between the two epochs, up or down: a positive change "
        "made the loss higher.",
        COLUMNS,
        {},
        by="pair",
        frames=frames,
    )


def _frame(pair: Pair, most: int, labels: tuple[str, str]) -> TableFrame:
    before, after = pair.before, pair.after
    with np.errstate(invalid="ignore"):
        delta = after.loss - before.loss  # NaN where infinite in both
    rows = largest(np.nan_to_num(np.abs(delta), nan=0.0, posinf=np.inf), most)
    c = before.classes

    def named(index: Any) -> list[Any]:
        return list(class_values(class_column(index[rows], pair.class_names, c)))

    said = list(CELLS.values())
    values: dict[str, list[Any]] = {
        "id": plain_ids(pair.ids.take(pa.array(rows))),
        "label": named(pair.labels),
        "predicted_before": named(before.predicted),
        "predicted_after": named(after.predicted),
        "cell": [said[k] for k in _cells(pair, rows)],
        "delta": numbers(delta[rows]),
        "loss_before": numbers(before.loss[rows]),
        "loss_after": numbers(after.loss[rows]),
        "confidence_before": numbers(before.confidence[rows]),
        "confidence_after": numbers(after.confidence[rows]),
    }
    return TableFrame(_text(delta, rows, labels), values)


def _cells(pair: Pair, rows: Ints) -> Ints:
    """Return which of `CELLS` some samples are in."""
    was, now = pair.before.correct[rows], pair.after.correct[rows]
    other = pair.before.predicted[rows] != pair.after.predicted[rows]
    return np.where(was, np.where(now, 0, 1), np.where(now, 2, np.where(other, 4, 3)))


def _text(delta: Floats, rows: Ints, labels: tuple[str, str]) -> str:
    """Say what the samples shown carry of the change."""
    finite = np.isfinite(delta)
    shown, up = delta[rows], int((delta > 0).sum())
    start = f"From epoch {labels[0]} to {labels[1]} the loss of {samples(up)} rose and of "
    start += f"{int((delta < 0).sum()):,} fell"
    if infinite := int(np.isinf(delta).sum()):
        start += f"; {infinite:,} of them became infinite, or finite again"
    if both := int(np.isnan(delta).sum()):
        start += f"; that of {both:,} is infinite in both"
    if not finite.any():
        return f"{start}."
    n = int(finite.sum())
    carried = float(shown[np.isfinite(shown)].sum()) / n
    whole = float(delta[finite].sum()) / n
    one = len(rows) == 1
    return (
        f"{start}. The {'sample' if one else f'{len(rows):,} samples'} that moved most "
        f"{'adds' if one else 'add'} {signed(carried)} of {signed(whole)} nats to the mean."
    )

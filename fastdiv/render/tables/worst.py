"""The table of the worst: the samples with the highest loss of an epoch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from fastdiv.explain.classes.confusions import class_column
from fastdiv.explain.evidence import Floats, Ints
from fastdiv.explain.pair import epoch_label
from fastdiv.render.pictures.picture import epoch_key
from fastdiv.render.tables.glossary import GLOSSARY
from fastdiv.render.tables.history import HISTORY_COLUMNS, history
from fastdiv.render.tables.table import (
    Column,
    Table,
    TableFrame,
    class_values,
    numbers,
    plain_ids,
    some_of,
)

if TYPE_CHECKING:
    from fastdiv.explain.view import SplitView

COLUMNS = (
    Column("id", "Sample", "id"),
    Column("label", "Label", "class"),
    Column("predicted", "Predicted", "class"),
    Column("loss", "Loss", "loss", GLOSSARY["log-loss"]),
    Column(
        "share", "Of all loss", "share",
        "What the sample carries of the sum of all finite losses of the epoch.",
    ),
    Column("confidence", "Confidence", "share", GLOSSARY["confidence"]),
    *HISTORY_COLUMNS,
)  # fmt: skip


def largest(size: Floats, k: int) -> Ints:
    """Return the places of the k largest of n numbers, the largest first, of equals the first.

    Infinity is the largest; there must be no NaN.
    """
    if not 0 < k < len(size):
        return np.argsort(-size, kind="stable")[:k]
    least = np.partition(size, len(size) - k)[len(size) - k]
    rows = np.flatnonzero(size >= least)
    return np.asarray(rows[np.argsort(-size[rows], kind="stable")[:k]])


def worst(view: SplitView, epochs: Sequence[int], most: int = 200) -> Table | None:
    """Return the samples with the highest loss of epochs, infinite ones first.

    Parameters
    ----------
    view : SplitView
    epochs : sequence of int
        Those without stored scores or valid samples are left out; of many epochs with many
        samples, some are taken, the best, the first and the last among them.
    most : int
        Samples of an epoch.
    """
    kept = set(view.evidence.epochs)
    epochs = [epoch for epoch in epochs if epoch in kept]
    best = [epoch for epoch in view.best_epochs().values() if epoch is not None]
    taken = some_of(epochs, len(view.evidence.ids), best)
    names, class_names = view._run.summary.get("epoch_names", {}), view.evidence.class_names
    frames: dict[str, TableFrame] = {}
    for epoch in taken:
        side = view.side(epoch)
        if not len(side):
            continue
        rows = largest(side.loss, most)
        loss = side.loss[rows]
        total = float(side.loss[np.isfinite(side.loss)].sum())
        with np.errstate(divide="ignore", invalid="ignore"):
            share = np.where(np.isfinite(loss) & (total > 0), loss / total, np.nan)
        values: dict[str, list[Any]] = {
            "id": plain_ids(view.ids(epoch).take(pa.array(rows))),
            "label": class_values(class_column(side.labels[rows], class_names, side.classes)),
            "predicted": class_values(
                class_column(side.predicted[rows], class_names, side.classes)
            ),
            "loss": numbers(loss),
            "share": numbers(share),
            "confidence": numbers(side.confidence[rows]),
            **history(view, np.flatnonzero(view.evidence.valid(epoch))[rows]),
        }
        text = _text(epoch_label(epoch, names), len(side), side.loss, loss, np.nansum(share))
        frames[epoch_key(epoch)] = TableFrame(text, values)
    if not frames:
        return None
    note = ""
    if len(taken) < len(epochs):
        note = f"{len(taken):,} of {len(epochs):,} epochs: reading all would take long."
    return Table(
        "worst",
        "Highest losses",
        "The samples that cost most in an epoch, infinite losses first: wrong labels, hard or "
        "broken inputs.",
        COLUMNS,
        {},
        by="epoch",
        frames=frames,
        note=note,
    )


def _text(label: str, n: int, losses: Floats, shown: Floats, share: float) -> str:
    """Say what the samples shown carry."""
    k, infinite = len(shown), int(np.isinf(losses).sum())
    said = f"In epoch {label} "
    if infinite:
        some = "1 sample has" if infinite == 1 else f"{infinite:,} samples have"
        said += f"{some} an infinite loss; "
    finite = int(np.isfinite(shown).sum())
    if not finite:
        return f"{said}these come first."
    which = f"the {finite:,} with the next highest losses" if infinite else (
        "the sample with the highest loss" if k == 1 else f"the {k:,} samples with the highest loss"
    )  # fmt: skip
    verb = "carries" if finite == 1 else "carry"
    rest = " of all that is finite" if infinite else " of the loss"
    return f"{said}{which} of {n:,} {verb} {100 * share:.1f} %{rest}."

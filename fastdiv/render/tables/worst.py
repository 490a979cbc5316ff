"""The table of the worst: the samples with the highest loss of an epoch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from fastdiv.explain.classes.confusions import class_column
from fastdiv.explain.evidence import Floats, Ints
from fastdiv.render.pictures.picture import epoch_key
from fastdiv.render.pictures.single_epochs import percent, samples
from fastdiv.render.tables.glossary import GLOSSARY
from fastdiv.render.tables.history import HISTORY_COLUMNS, history
from fastdiv.render.tables.table import (
    Column,
    Table,
    TableFrame,
    class_values,
    epoch_words,
    numbers,
    plain_ids,
    stored_of,
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
    taken, note = stored_of(view, epochs)
    class_names = view.evidence.class_names
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
        text = _text(epoch_words(view, epoch), len(side), side.loss, loss, np.nansum(share))
        frames[epoch_key(epoch)] = TableFrame(text, values)
    if not frames:
        return None
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
    finite, infinite = int(np.isfinite(shown).sum()), int(np.isinf(losses).sum())
    said = f"In epoch {label}, "
    if infinite:
        said += f"{samples(infinite)} {'has' if infinite == 1 else 'have'} an infinite loss"
        if not finite:
            return f"{said}."
        said += "; "
    one = finite == 1
    which = f"the {'sample' if one else f'{finite:,} samples'} with the "
    which += f"{'next ' if infinite else ''}highest loss of {n:,} {'carries' if one else 'carry'}"
    return f"{said}{which} {percent(share)} of the {'finite ' if infinite else ''}loss."

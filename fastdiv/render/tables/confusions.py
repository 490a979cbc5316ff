"""The table of confusions: which classes are taken for which, the most frequent first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from fastdiv.render.pictures.picture import epoch_key
from fastdiv.render.pictures.single_epochs import percent, samples
from fastdiv.render.tables.glossary import GLOSSARY
from fastdiv.render.tables.table import (
    Column,
    Table,
    TableFrame,
    class_values,
    epoch_words,
    numbers,
    stored_of,
)

if TYPE_CHECKING:
    from fastdiv.explain.view import SplitView

COLUMNS = (
    Column("label", "Label", "class"),
    Column("predicted", "Predicted", "class"),
    Column("n", "Samples", "count", GLOSSARY["confusion"]),
    Column(
        "share_of_label", "Of the label", "share",
        "The share of the label's samples that is predicted so.",
    ),
    Column("loss", "Mean loss", "loss", GLOSSARY["log-loss"]),
)  # fmt: skip


def confusions(view: SplitView, epochs: Sequence[int], most: int = 50) -> Table | None:
    """Return the most frequent confusions of epochs.

    Parameters
    ----------
    view : SplitView
    epochs : sequence of int
        Those without stored scores or valid samples are left out; of many epochs with many
        samples, some are taken, the best, the first and the last among them.
    most : int
        Confusions of an epoch.
    """
    taken, note = stored_of(view, epochs)
    frames: dict[str, TableFrame] = {}
    for epoch in taken:
        side = view.side(epoch)
        if not len(side):
            continue
        table = view.confusions(epoch)
        rows = table.slice(0, most)
        values: dict[str, list[Any]] = {
            "label": class_values(rows["label"]),
            "predicted": class_values(rows["predicted"]),
            "n": rows["n"].to_pylist(),
            "share_of_label": numbers(rows["share_of_label"].to_numpy()),
            "loss": numbers(rows["loss"].to_numpy()),
        }
        wrong = int((~side.correct).sum())
        text = _text(epoch_words(view, epoch), wrong, sum(values["n"]), len(side), table.num_rows,
                     rows.num_rows)  # fmt: skip
        frames[epoch_key(epoch)] = TableFrame(text, values)
    if not frames:
        return None
    return Table(
        "confusions",
        "Confusions",
        "Samples of one class that are predicted as another, the most frequent confusion first.",
        COLUMNS,
        {},
        by="epoch",
        frames=frames,
        note=note,
    )


def _text(label: str, wrong: int, told: int, n: int, there: int, shown: int) -> str:
    """Say how many errors there are, and how many of them are told."""
    if not wrong:
        return f"In epoch {label}, no sample of {n:,} is wrong."
    are = "is" if wrong == 1 else "are"
    start = f"In epoch {label}, {wrong:,} of {samples(n)} {are} wrong, in {there:,} "
    start += "confusion" if there == 1 else "confusions"
    if shown == there:
        return f"{start}."
    return f"{start}; the {shown:,} most frequent are {percent(told / wrong, 0)} of the errors."

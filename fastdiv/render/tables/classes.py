"""The table of classes: what each adds to the change in loss and accuracy between two epochs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fastdiv.explain.classes.by_epoch import ClassesOf, classes_by_epoch, contributions
from fastdiv.explain.evidence import Floats, Ints
from fastdiv.render.pictures.picture import pair_key, plain, signed
from fastdiv.render.tables.glossary import GLOSSARY
from fastdiv.render.tables.table import (
    Column,
    Table,
    TableFrame,
    class_values,
    epoch_words,
    numbers,
)

if TYPE_CHECKING:
    from fastdiv.explain.view import SplitView

MOST_BYTES = 4_500_000  # of all pairs together, as JSON
ROW_BYTES = 80  # of a class and pair, without its name
NAMED = 2  # classes in a text


def classes(view: SplitView, pairs: Sequence[tuple[int, int]]) -> Table | None:
    """Return, for pairs of epochs, what each class adds to the change in loss and accuracy.

    Both are over all valid samples of each epoch and so add up to the change in `loss` and
    `accuracy` of `Run.epochs`. No scores are needed.

    Parameters
    ----------
    view : SplitView
    pairs : sequence of (int, int)
        Where there are none, as of a single epoch: how well the last epoch tells each class.

    Returns
    -------
    Table or None
        Classes that add most to the change in loss first. None where no sample is valid.
    """
    c = view._run.summary["classes"]
    names: list[Any] = list(class_values(view.classes["class"].slice(0, c)))
    by_epoch = classes_by_epoch(view.classes, c)
    known = {epoch for epoch, rows in by_epoch.items() if rows.n}
    pairs = [(a, b) for a, b in pairs if a in known and b in known]
    if not pairs:
        return _report(names, by_epoch[max(known)], max(known), view) if known else None
    row_bytes = ROW_BYTES + sum(len(str(name)) for name in names) / len(names)
    most = max(1, int(MOST_BYTES / row_bytes / len(pairs)))
    frames: dict[str, TableFrame] = {}
    infinite = False
    for a, b in pairs:
        before, after = by_epoch[a], by_epoch[b]
        nats, points = contributions(before, after)
        infinite = infinite or bool(np.isnan(nats).any())
        size = np.where(np.isnan(nats), np.inf, np.abs(nats))
        order = np.lexsort((np.arange(len(size)), -np.abs(points), -size))[:most]
        text = _text(view, names, (a, b), nats, points, order)
        frames[pair_key(a, b)] = TableFrame(
            text, _values(names, before, after, nats, points, order)
        )
    notes = []
    if infinite:
        notes.append(
            "Where a label of a class got probability 0, what the class adds to the loss is not "
            "told."
        )
    if most < len(names):
        notes.append(
            f"Of {len(names):,} classes, the {most:,} that add most to the change in loss: "
            "`Run.classes` has all."
        )
    return Table(
        "classes",
        "Classes",
        "What each class adds to the change: the columns of nats and of points add up to the "
        "change in loss and in accuracy.",
        COLUMNS,
        {},
        by="pair",
        frames=frames,
        note=" ".join(notes),
    )


COLUMNS = (
    Column("class", "Class", "class"),
    Column("support", "Samples", "count", GLOSSARY["support"]),
    Column("nats", "Adds to the loss", "nats", GLOSSARY["contribution"]),
    Column("points", "Adds to the accuracy", "points", GLOSSARY["contribution"]),
    Column("recall_before", "Recall before", "share", GLOSSARY["recall"]),
    Column("recall_after", "Recall after", "share", GLOSSARY["recall"]),
    Column("precision_before", "Precision before", "share", GLOSSARY["precision"]),
    Column("precision_after", "Precision after", "share", GLOSSARY["precision"]),
    Column("loss_before", "Loss before", "loss", GLOSSARY["log-loss"]),
    Column("loss_after", "Loss after", "loss", GLOSSARY["log-loss"]),
)


def _values(
    names: list[Any], before: ClassesOf, after: ClassesOf, nats: Floats, points: Floats, order: Ints
) -> dict[str, list[Any]]:
    """Return the columns of a pair, the classes in an order."""
    return {
        "class": [names[k] for k in order],
        "support": after.support[order].tolist(),
        "nats": numbers(nats[order]),
        "points": numbers(points[order]),
        "recall_before": numbers(before.recall[order]),
        "recall_after": numbers(after.recall[order]),
        "precision_before": numbers(before.precision[order]),
        "precision_after": numbers(after.precision[order]),
        "loss_before": numbers(before.loss[order]),
        "loss_after": numbers(after.loss[order]),
    }


def _text(
    view: SplitView, names: list[Any], pair: tuple[int, int], nats: Floats, points: Floats,
    order: Ints,
) -> str:  # fmt: skip
    """Name the classes that move the loss most."""
    before, after = (epoch_words(view, epoch) for epoch in pair)
    told = [k for k in order if np.isfinite(nats[k]) and nats[k]][:NAMED]
    start = f"From epoch {before} to {after}"
    if not told:
        infinite = " by a finite amount" if np.isnan(nats).any() else ""
        return f"{start} no class moves the loss{infinite}."
    said = " and ".join(
        f"{_named(names[k])} adds {signed(float(nats[k]))} nats "
        f"({signed(100 * float(points[k]), 2)} points)"
        for k in told
    )
    moved = "" if np.isnan(nats).any() else f", of {signed(float(nats.sum()))} nats in all"
    return f"{start} {said}{moved}."


def _named(name: Any) -> str:
    """Return a class as a sentence names it."""
    if isinstance(name, int):
        return f"class {name}"
    return f"“{plain(name)}”"


def _report(names: list[Any], rows: ClassesOf, epoch: int, view: SplitView) -> Table:
    """Return how well one epoch tells each class."""
    label = epoch_words(view, epoch)
    recall = rows.recall
    order = np.argsort(recall, kind="stable")  # NaN last
    worst = int(order[0])
    there = int((rows.support > 0).sum())
    said = ""
    if there:
        said = (
            f" The lowest recall is that of {_named(names[worst])}, {100 * recall[worst]:.1f} % of "
            f"{rows.support[worst]:,} samples."
        )
    return Table(
        "classes",
        "Classes",
        "How well each class is found (recall), and how far its predictions can be trusted "
        "(precision); the class found least comes first.",
        (
            Column("class", "Class", "class"),
            Column("support", "Samples", "count", GLOSSARY["support"]),
            Column("recall", "Recall", "share", GLOSSARY["recall"]),
            Column("precision", "Precision", "share", GLOSSARY["precision"]),
            Column("f1", "F1", "share", GLOSSARY["F1"]),
            Column("loss", "Loss", "loss", GLOSSARY["log-loss"]),
        ),
        {
            "class": [names[k] for k in order],
            "support": rows.support[order].tolist(),
            "recall": numbers(recall[order]),
            "precision": numbers(rows.precision[order]),
            "f1": numbers(rows.f1[order]),
            "loss": numbers(rows.loss[order]),
        },
        text=f"{there:,} of {len(names):,} classes have samples in epoch {label}.{said}",
    )

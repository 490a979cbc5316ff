"""The table of epochs: all that training logs have, and what they lack."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastdiv.render.tables.glossary import GLOSSARY
from fastdiv.render.tables.table import Column, Kind, Table, epoch_words, number

if TYPE_CHECKING:
    from fastdiv.explain.view import SplitView

# column of `Run.epochs` -> heading, how it is written, its term in the glossary
COLUMNS: dict[str, tuple[str, Kind, str]] = {
    "n": ("Samples", "count", "sample"),
    "loss": ("Loss", "loss", "loss"),
    "loss_finite": ("Finite loss", "loss", "finite loss"),
    "accuracy": ("Accuracy", "share", "accuracy"),
    "confidence": ("Confidence", "share", "confidence"),
    "ece": ("ECE", "share", "ECE"),
    "ece_overconfident": ("ECE, over-confident", "share", "over-confident part of the ECE"),
    "mce": ("MCE", "share", "MCE"),
    "refinement": ("Refinement", "loss", "refinement"),
    "calibration": ("Calibration", "loss", "calibration"),
    "temperature": ("Temperature", "number", "temperature"),
    "temperature_bound": ("Bound", "text", "temperature bound"),
    "balanced_accuracy": ("Balanced accuracy", "share", "balanced accuracy"),
    "f1_macro": ("F1, macro", "share", "F1, macro"),
    "f1_weighted": ("F1, weighted", "share", "F1, weighted"),
    "mcc": ("MCC", "number", "MCC"),
    "brier": ("Brier score", "number", "Brier score"),
    "margin": ("Margin", "number", "margin"),
    "loss_right": ("Loss of the right", "loss", "loss of the right"),
    "loss_wrong": ("Loss of the wrong", "loss", "loss of the wrong"),
    "top5_accuracy": ("Top-5 accuracy", "share", "top-5 accuracy"),
    "d2_log_loss": ("D²", "number", "D²"),
    "accuracy_majority": ("Majority", "share", "accuracy of the majority"),
    "prior_entropy": ("Prior entropy", "loss", "prior entropy"),
    "churn": ("Churn", "share", "churn"),
    "negative_flip_rate": ("Negative flips", "share", "negative flip rate"),
    "n_invalid": ("Invalid", "count", "invalid"),
    "n_infinite": ("Infinite losses", "count", "infinite loss"),
    "n_unnormalized": ("Unnormalized", "count", "unnormalized"),
    "n_ties": ("Ties", "count", "ties"),
}


def epochs(view: SplitView) -> Table:
    """Return all epochs of a split with what is known of them; no scores are needed."""
    rows = sorted(view.epochs.to_pylist(), key=lambda row: row["epoch"])
    _add_flips(rows, view)
    names = view._run.summary.get("epoch_names", {})
    columns = [Column("epoch", "Epoch", "epoch")]
    values: dict[str, list[Any]] = {"epoch": [row["epoch"] for row in rows]}
    if names:
        columns.append(Column("name", "Name", "text"))
        values["name"] = [names.get(str(row["epoch"])) for row in rows]
    same = all(row["loss"] == row["loss_finite"] for row in rows)
    for name, (title, kind, term) in COLUMNS.items():
        found = [row[name] for row in rows]
        if all(x is None for x in found) or (name == "loss_finite" and same):
            continue
        if name in ("n_unnormalized", "n_ties") and not any(found):
            continue
        columns.append(Column(name, title, kind, GLOSSARY[term]))
        values[name] = [number(x) if isinstance(x, float) else x for x in found]
    return Table(
        "epochs",
        "Epochs",
        "A row for each epoch; what a heading means is told where it is pointed at. Losses are in "
        "nats.",
        tuple(columns),
        values,
        text=_text(rows, view),
    )


def _add_flips(rows: list[dict[str, Any]], view: SplitView) -> None:
    """Add to each epoch the churn since the one before it."""
    flips = {row["epoch_to"]: row for row in view.transitions.to_pylist()}
    for row in rows:
        for name in ("churn", "negative_flip_rate"):
            row[name] = flips.get(row["epoch"], {}).get(name)


def _text(rows: list[dict[str, Any]], view: SplitView) -> str:
    """Name the best epochs."""
    if not rows:
        return "There are no epochs."
    by_epoch = {row["epoch"]: row for row in rows}
    found = view.best_epochs()
    lowest, highest = found.get("epoch_lowest_loss"), found.get("epoch_highest_accuracy")
    many = f"{len(rows):,} epoch{'' if len(rows) == 1 else 's'}"
    if highest is None:
        return f"{many} without a valid sample."
    accuracy = by_epoch[highest]["accuracy"]
    if lowest is None:
        where = "" if len(rows) == 1 else f" in epoch {epoch_words(view, highest)}"
        best = f"accuracy {100 * accuracy:.2f} %"
        return f"{many}: no loss is finite, the {'highest ' if where else ''}{best}{where}."
    told = f"{by_epoch[lowest]['loss_finite']:.4f} nats"
    if by_epoch[lowest]["n_infinite"]:
        told += " (of the finite losses)"
    if len(rows) == 1:
        return f"{many}: loss {told}, accuracy {100 * accuracy:.2f} %."
    return (
        f"{many}: the lowest loss is {told} in epoch {epoch_words(view, lowest)}, "
        f"the highest accuracy {100 * accuracy:.2f} % in epoch {epoch_words(view, highest)}."
    )

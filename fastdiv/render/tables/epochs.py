"""The table of epochs: all that training logs have, and what they lack."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastdiv.explain.pair import epoch_label
from fastdiv.render.tables.glossary import GLOSSARY
from fastdiv.render.tables.table import Column, Kind, Table, number

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
        text=_text(rows, view, names),
    )


def _add_flips(rows: list[dict[str, Any]], view: SplitView) -> None:
    """Add to each epoch the churn since the one before it."""
    flips = {row["epoch_to"]: row for row in view._run.transitions.to_pylist()
             if row["split"] == view.split}  # fmt: skip
    for row in rows:
        for name in ("churn", "negative_flip_rate"):
            row[name] = flips.get(row["epoch"], {}).get(name)


def _text(rows: list[dict[str, Any]], view: SplitView, names: dict[str, str]) -> str:
    """Name the best epochs."""
    if not rows:
        return "There are no epochs."
    by_epoch = {row["epoch"]: row for row in rows}
    best = view.best_epochs()
    lowest, highest = best.get("epoch_lowest_loss"), best.get("epoch_highest_accuracy")
    if lowest is None or highest is None:
        return f"{len(rows):,} epochs without a valid sample."
    loss, accuracy = by_epoch[lowest]["loss_finite"], by_epoch[highest]["accuracy"]
    told = "none is finite" if loss is None else f"{loss:.4f} nats"
    if by_epoch[lowest]["n_infinite"] and loss is not None:
        told += " (of the finite losses)"
    if len(rows) == 1:
        return f"1 epoch: loss {told}, accuracy {100 * accuracy:.2f} %."
    return (
        f"{len(rows):,} epochs: the lowest loss is {told} in epoch {epoch_label(lowest, names)}, "
        f"the highest accuracy {100 * accuracy:.2f} % in epoch {epoch_label(highest, names)}."
    )

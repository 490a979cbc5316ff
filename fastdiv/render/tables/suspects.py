"""The table of suspects: samples whose label is doubtful."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.compute as pc

from fastdiv.explain.labels.suspects import wrong_in_both
from fastdiv.render.tables.glossary import GLOSSARY
from fastdiv.render.tables.history import HISTORY_COLUMNS, history
from fastdiv.render.tables.table import Column, Table, class_values, epoch_words, numbers, plain_ids

if TYPE_CHECKING:
    from fastdiv.explain.view import SplitView


def suspects(view: SplitView, most: int = 500) -> Table | None:
    """Return the samples that are wrong in two epochs, the most suspect label first.

    The epochs are those of `SplitView.suspects`: of lowest loss and of highest accuracy, where
    their scores are stored; they may be the same one. None where no scores are stored.
    """
    if not view.evidence.epochs or None in list(view.best_epochs().values())[:2]:
        return None
    a, b = view.suspect_epochs()
    pair = view.pair(a, b)
    n = int(wrong_in_both(pair).sum())
    found = view.suspects(a, b, limit=most)
    before, after = epoch_words(view, a), epoch_words(view, b)
    columns = [
        Column("id", "Sample", "id"),
        Column("label", "Label", "class"),
        Column("predicted", "Predicted", "class", "The class that the label may rather be."),
        Column("score", "Suspect score", "nats", GLOSSARY["suspect score"]),
        Column("confident", "Confident", "bool", GLOSSARY["confident suspect"]),
        Column("confidence", "Confidence", "share", f"{GLOSSARY['confidence']} In epoch {after}."),
        Column(
            "p_label",
            "Of the label",
            "share",
            f"{GLOSSARY['probability of the label']} In epoch {after}.",
        ),
    ]
    values: dict[str, list[Any]] = {
        "id": plain_ids(found["sample_id"]),
        "label": class_values(found["label"]),
        "predicted": class_values(found["predicted_after"]),
        "score": numbers(found["score"].to_numpy()),
        "confident": found["confident"].to_pylist(),
        "confidence": numbers(found["p_predicted_after"].to_numpy()),
        "p_label": numbers(found["p_label_after"].to_numpy()),
    }
    hint = GLOSSARY["log-loss"]
    if a != b:
        columns.append(Column("loss_before", f"Loss, epoch {before}", "loss", hint))
        values["loss_before"] = numbers(found["loss_before"].to_numpy())
    columns.append(Column("loss", f"Loss, epoch {after}", "loss", hint))
    values["loss"] = numbers(found["loss_after"].to_numpy())
    rows = pc.index_in(found["sample_id"].combine_chunks(), value_set=view.evidence.ids)
    values |= history(view, rows.to_numpy(zero_copy_only=False).astype(np.int64))
    return Table(
        "suspects",
        "Suspect labels",
        "Samples that are wrong in both epochs (the best by loss and by accuracy, where their "
        "scores are stored), the model being sure of another class: the higher the score, the "
        "sooner look at the label."
        if a != b
        else "Samples that are wrong, the model being sure of another class: the higher the score, "
        "the sooner look at the label.",
        (*columns, *HISTORY_COLUMNS),
        values,
        text=_text(n, len(pair), found.num_rows, before, after),
        note=""
        if a != b
        else "From one epoch alone: two tell wrong labels from hard samples better.",
    )


def _text(n: int, of: int, shown: int, before: str, after: str) -> str:
    """Say how many suspects there are in all."""
    where = f"in epoch {after}" if before == after else f"in both epochs {before} and {after}"
    if not of:
        return f"No sample is valid {where}."
    said = f"{n:,} of {of:,} samples ({100 * n / of:.2f} %) are wrong {where}"
    return f"{said}; the {shown:,} most suspect are shown." if shown < n else f"{said}."

"""Loss and accuracy of a single epoch: no curves, but bars beside what no skill would reach."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from fastdiv.render.pictures.epoch_axis import EpochAxis
from fastdiv.render.pictures.picture import (
    COLOURS,
    LEGEND,
    MORE_DIGITS,
    Picture,
    coordinates,
    escaped,
    plain,
)

Row = Mapping[str, Any]


def one_epoch(splits: Mapping[str | None, Sequence[Row]], axis: EpochAxis) -> Picture:
    """Draw the loss and the accuracy of a single epoch as bars, beside what no skill reaches."""
    rows = [rows[0] for rows in splits.values()]
    names = ["" if name is None else escaped(name, 24) for name in splits]
    y = list(range(len(rows)))
    whole = [row["refinement"] is None for row in rows]
    parts = (
        ("loss", [r["loss_finite"] if w else None for r, w in zip(rows, whole, strict=True)]),
        ("refinement", [r["refinement"] for r in rows]),
        ("calibration", [r["calibration"] for r in rows]),
    )
    bars = [
        {
            "type": "bar", "orientation": "h", "name": name, "y": y, "xaxis": "x", "yaxis": "y",
            "x": coordinates([math.nan if v is None else v for v in values], MORE_DIGITS),
            "marker": {
                "color": COLOURS[name],
                "pattern": {"shape": "/" if name == "calibration" else ""},
            },
            "hovertemplate": f"{name} %{{x:.4f}} nats<extra></extra>",
        }
        for name, values in parts
        if any(v is not None for v in values)
    ]  # fmt: skip
    right = {
        "type": "bar", "orientation": "h", "name": "accuracy", "y": y, "xaxis": "x2", "yaxis": "y2",
        "x": values(rows, "accuracy"), "marker": {"color": COLOURS["accuracy"]},
        "hovertemplate": "accuracy %{x:.2%}<extra></extra>",
    }  # fmt: skip
    without = [
        {
            "type": "scatter", "mode": "markers", "name": name, "y": y, "showlegend": first,
            "legendgroup": "without", "xaxis": f"x{k}", "yaxis": f"y{k}",
            "x": values(rows, column),
            "marker": {
                "symbol": "line-ns-open", "size": 34, "color": COLOURS["total"],
                "line": {"width": 3},
            },
            "hovertemplate": f"{said}<extra></extra>",
        }
        for name, column, k, first, said in (
            ("class shares alone", "prior_entropy", "", True,
             "%{x:.4f} nats: always predicting the class shares"),
            ("class shares alone", "accuracy_majority", "2", False,
             "%{x:.2%}: always predicting the most frequent class"),
        )
    ]  # fmt: skip
    ticks = {
        "tickvals": y, "ticktext": names, "automargin": True, "zeroline": False,
        "range": [len(y) - 0.4, -0.6],
    }  # fmt: skip
    layout = {
        "height": 230 + 90 * len(y),
        "margin": {"l": 10, "r": 20, "t": 10, "b": 10},
        "barmode": "stack",
        "annotations": [
            {
                "x": row[column], "y": place, "xref": f"x{k}", "yref": f"y{k}", "xanchor": "left",
                "showarrow": False, "text": f"{row[column]:{form}}",
            }
            for column, k, form in (("loss_finite", "", ".4f"), ("accuracy", "2", ".2%"))
            for place, row in enumerate(rows)
            if row[column] is not None
        ],
        "xaxis": {
            "title": {"text": "loss (nats)"}, "anchor": "y", "automargin": True,
            "rangemode": "tozero",
        },
        "xaxis2": {
            "title": {"text": "accuracy"}, "anchor": "y2", "automargin": True, "range": [0, 1.2],
            "tickformat": "~%", "tickvals": [0, 0.25, 0.5, 0.75, 1],
        },
        "yaxis": {**ticks, "domain": [0.64, 1.0], "anchor": "x"},
        "yaxis2": {**ticks, "domain": [0.0, 0.36], "anchor": "x2"},
        "legend": LEGEND,
    }  # fmt: skip
    said = [
        ("In" if name is None else f"{plain(name)}: in")
        + f" epoch {axis.say(row['epoch'])}, the only one, the loss is {nats(row)} and "
        f"the accuracy {percent(row)}"
        for name, row in zip(splits, rows, strict=True)
        if row["accuracy"] is not None
    ]
    text = "; ".join(said) or "No sample is valid: there is neither loss nor accuracy"
    return Picture(
        name="loss_accuracy",
        title="Loss and accuracy",
        how="Above, the mean loss: lower is better. Below, the accuracy: higher is better. The "
        "upright lines: what always predicting the class shares, and the most frequent class, "
        "would reach.",
        data=[*bars, right, *without],
        layout=layout,
        text=text + ".",
        note=infinite_note(splits),
    )


def nats(row: Row) -> str:
    """Write the mean of the finite losses."""
    return f"{row['loss_finite']:.4f} nats" if row["loss_finite"] is not None else "no finite loss"


def percent(row: Row) -> str:
    """Write the accuracy."""
    return f"{100 * row['accuracy']:.2f} %"


def infinite_note(splits: Mapping[str | None, Sequence[Row]]) -> str:
    """Say which losses are left out."""
    rows = [row for rows in splits.values() for row in rows if row["n_infinite"]]
    if not rows:
        return ""
    most = max(row["n_infinite"] for row in rows)
    return (
        f"Infinite losses are left out of the means: up to {most:,} samples in {len(rows):,} "
        f"epoch{'s' if len(rows) > 1 else ''} have one, because their label got probability 0."
    )


def values(rows: Sequence[Row], column: str) -> list[float | None]:
    """Return a column as JSON holds it."""
    return coordinates([math.nan if r[column] is None else r[column] for r in rows], MORE_DIGITS)

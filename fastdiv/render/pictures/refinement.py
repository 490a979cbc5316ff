"""The loss of each epoch, divided into what temperature can mend and what it cannot."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from fastdiv.render.pictures.epoch_axis import EpochAxis
from fastdiv.render.pictures.picture import COLOURS, LEGEND, MORE_DIGITS, Picture, coordinates
from fastdiv.render.pictures.single_epochs import percent

if TYPE_CHECKING:
    from fastdiv.explain.view import SplitView

BARS = 12  # epochs, at most, that are drawn as bars; areas beyond
# Of the inverse temperature, whose bounds these are.
BOUNDS = {"lower": "the highest that is tried", "upper": "the lowest that is tried"}
PARTS = {
    "refinement": "left at the best temperature",
    "calibration": "taken off by the best temperature",
}


def refinement(view: SplitView) -> Picture | None:
    """Draw refinement, calibration and temperature over epochs; None where none is known."""
    rows = sorted(view.epochs.to_pylist(), key=lambda row: row["epoch"])
    known = [row for row in rows if row["refinement"] is not None]
    if not known:
        return None
    axis = EpochAxis.of(known)
    x = list(axis.numbers)
    bars = len(x) <= BARS
    traces: list[dict[str, Any]] = []
    for name, words in PARTS.items():
        trace: dict[str, Any] = {
            "name": name,
            "x": x,
            "y": coordinates([row[name] for row in known], MORE_DIGITS),
            "yaxis": "y",
            "hovertemplate": f"{name} %{{y:.4f}} nats: {words}<extra></extra>",
        }
        pattern = {"shape": "/" if name == "calibration" else ""}
        if bars:
            traces.append(
                {**trace, "type": "bar", "marker": {"color": COLOURS[name], "pattern": pattern}}
            )
        else:
            look = {
                "mode": "lines",
                "stackgroup": "loss",
                "line": {
                    "color": COLOURS[name],
                    "width": 2,
                    "dash": "dot" if name == "calibration" else "solid",
                },
            }
            traces.append({**trace, "type": "scatter", **look})
    bound = [row["temperature_bound"] for row in known]
    traces.append(
        {
            "type": "scatter",
            "name": "best temperature",
            "x": x,
            "y": coordinates([row["temperature"] for row in known], MORE_DIGITS),
            "yaxis": "y2",
            "mode": "lines+markers" if bars or any(bound) else "lines",
            "line": {"color": COLOURS["calibration"], "width": 2},
            "marker": {
                "color": COLOURS["calibration"],
                "size": [9 if b else 7 if bars else 1 for b in bound],
                "symbol": ["diamond-open" if b else "circle" for b in bound],
            },
            "text": [f" ({BOUNDS.get(b, b)})" if b else "" for b in bound],
            "hovertemplate": "best temperature %{y:.3f}%{text}<extra></extra>",
        }
    )
    layout = {
        "height": 440,
        "margin": {"l": 10, "r": 18, "t": 10, "b": 10},
        "barmode": "stack",
        "xaxis": {**axis.layout(bars=bars), "anchor": "y2"},
        "yaxis": {
            "title": {"text": "loss (nats)"},
            "domain": [0.42, 1.0],
            "automargin": True,
            "rangemode": "tozero",
        },
        "yaxis2": {
            "title": {"text": "temperature"},
            "domain": [0.0, 0.34],
            "automargin": True,
            "type": "log",
            "tickvals": [0.25, 0.5, 1, 2, 4, 8],
            "zeroline": False,
            "range": _range([row["temperature"] for row in known]),
        },
        "shapes": [
            {
                "type": "line", "xref": "paper", "x0": 0, "x1": 1, "yref": "y2", "y0": 1, "y1": 1,
                "line": {"color": COLOURS["total"], "width": 1.5, "dash": "dash"},
            }
        ],
        "hovermode": "x unified",
        "hoversubplots": "axis",
        "legend": LEGEND,
    }  # fmt: skip
    missing = len(rows) - len(known)
    return Picture(
        name="refinement",
        title="Refinement and calibration",
        how="Refinement is the loss that is left once the predictions are divided by the best "
        "temperature, calibration what that takes off; together they are the mean loss. A "
        "temperature above 1 (dashed): over-confident; below: under-confident.",
        data=traces,
        layout=layout,
        text=_text(known, axis),
        note=f"{missing:,} epoch{'s' if missing > 1 else ''} without a refinement: not kept."
        if missing
        else "",
    )


def _range(temperatures: list[float]) -> list[float]:
    """Return the exponents of ten of a range that holds all temperatures, and 1."""
    low, high = min(1.0, *temperatures), max(1.0, *temperatures)
    return [math.log10(low / 1.2), math.log10(high * 1.2)]


def _text(known: list[dict[str, Any]], axis: EpochAxis) -> str:
    """Say where refinement is lowest, and how calibration ends."""
    low, last = min(known, key=lambda row: row["refinement"]), known[-1]
    share = last["calibration"] / last["loss_finite"] if last["loss_finite"] else 0.0
    end = (
        f"in epoch {axis.say(last['epoch'])}, calibration is {last['calibration']:.4f} nats of "
        f"{last['loss_finite']:.4f} ({percent(share)}), which temperature "
        f"{last['temperature']:.2f} would take off."
    )
    if len(known) == 1:
        return end[0].upper() + end[1:]
    if low is last:
        end = end.replace(f"in epoch {axis.say(last['epoch'])}, ", "there, ", 1)
    return (
        f"Refinement is lowest in epoch {axis.say(low['epoch'])} ({low['refinement']:.4f} nats, "
        f"temperature {low['temperature']:.2f}); {end}"
    )

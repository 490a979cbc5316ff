"""The change in loss from epoch to epoch, by what became of the samples."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fastdiv.render.pictures.epoch_axis import EpochAxis
from fastdiv.render.pictures.picture import (
    COLOURS,
    LEGEND,
    MORE_DIGITS,
    Picture,
    coordinates,
    signed,
)
from fastdiv.render.pictures.single_epochs import samples

if TYPE_CHECKING:
    from fastdiv.explain.view import SplitView

# In the order in which they are stacked: column, name, pattern.
CELLS = {
    "rr": ("right, still right", ""),
    "rw": ("right → wrong", "/"),
    "wr": ("wrong → right", "\\"),
    "ww_same": ("wrong, same prediction", ""),
    "ww_changed": ("wrong, another prediction", "x"),
    "membership": ("samples that came and went", "."),
}
WIDE = 30  # bars, at most, that are wide
OUTLYING = 4.0  # times the 80th percentile: bars beyond are cut off at first


def cells(view: SplitView) -> Picture | None:
    """Draw what each cell adds to the change in mean loss; None of a single epoch."""
    rows = sorted(view.transitions.to_pylist(), key=lambda row: row["epoch_to"])
    rows = [row for row in rows if row["delta_loss"] is not None]
    if not rows:
        return None
    axis = EpochAxis.of(view.epochs.to_pylist())
    ends = EpochAxis(tuple(row["epoch_to"] for row in rows), axis.names)
    parts = {cell: _column(rows, f"delta_loss_{cell}") for cell in CELLS}
    if not np.nansum(np.abs(parts["membership"])) > 0:
        del parts["membership"]
    total = np.sum([np.nan_to_num(values) for values in parts.values()], axis=0)
    x = list(ends.numbers)
    steps = [f"{axis.shown(row['epoch_from'])} → {axis.shown(row['epoch_to'])}" for row in rows]
    bars = [
        {
            "type": "bar",
            "name": CELLS[cell][0],
            "x": x,
            "y": coordinates(values, MORE_DIGITS),
            "marker": {
                "color": COLOURS.get(cell, COLOURS["total"]),
                "line": {"width": 0},
                # Patterns tell apart what the colour-blind see as one grey; narrow bars too.
                "pattern": {"shape": CELLS[cell][1], "size": 8 if len(x) <= WIDE else 4},
            },
            "text": _said(rows, cell),
            "textposition": "none",
            "hovertemplate": f"{CELLS[cell][0]}: %{{y:+.4f}} nats%{{text}}<extra></extra>",
        }
        for cell, values in parts.items()
    ]
    line = {
        "type": "scatter",
        "name": "change in loss",
        "mode": "lines+markers",
        "x": x,
        "y": coordinates(total, MORE_DIGITS),
        "line": {"color": COLOURS["total"], "width": 2},
        "marker": {
            "color": COLOURS["total"],
            "symbol": "diamond",
            "size": 11 if len(x) <= WIDE else 6,
            "line": {"color": "white", "width": 1},  # on bars of the same colour
        },
        "text": steps,
        "hovertemplate": "%{text}: %{y:+.4f} nats<extra></extra>",
    }
    shown, cut = _range(list(parts.values()))
    layout = {
        "height": 400,
        "margin": {"l": 10, "r": 18, "t": 10, "b": 10},
        "barmode": "relative",
        "bargap": 0.2 if len(x) <= WIDE else 0.0,
        "xaxis": ends.layout(bars=True),
        "yaxis": {
            "title": {"text": "change in loss (nats)"},
            "automargin": True,
            "zeroline": True,
            **({"range": shown} if cut else {}),
        },
        "hovermode": "x unified",
        "legend": LEGEND,
    }
    return Picture(
        name="cells",
        title="Loss from epoch to epoch",
        how="For each epoch, what each group of samples added to the mean loss since the epoch "
        "before; up is worse. The bars of an epoch add up to the line.",
        data=[*bars, line],
        layout=layout,
        text=_text(parts, rows),
        note="The largest bars are cut off: double-click to see them whole." if cut else "",
    )


def _column(rows: Sequence[Mapping[str, Any]], name: str) -> Any:
    return np.array([math.nan if row[name] is None else row[name] for row in rows])


def _said(rows: Sequence[Mapping[str, Any]], cell: str) -> list[str]:
    """Say how many samples a bar is of."""
    if cell == "membership":
        return [f" ({r['n_only_to']:,} came, {r['n_only_from']:,} went)" for r in rows]
    return [f" ({samples(row[cell])})" for row in rows]


def _range(parts: Sequence[Any]) -> tuple[list[float], bool]:
    """Return a range in which most bars can be read, and whether some are larger."""
    values = np.nan_to_num(np.array(parts))
    up, down = (np.where(sign * values > 0, values, 0).sum(axis=0) for sign in (1, -1))
    size = np.maximum(up, -down)
    limit = OUTLYING * float(np.quantile(size, 0.8))
    if not 0 < limit < size.max():
        return [], False
    return [1.1 * max(float(down.min()), -limit), 1.1 * min(float(up.max()), limit)], True


def _text(parts: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> str:
    """Say which cells raised and lowered the loss most."""
    sums = {cell: float(np.nansum(values)) for cell, values in parts.items()}
    total = sum(sums.values())
    steps = f"{len(rows):,} steps" if len(rows) > 1 else "the only step"
    said = f"Over {steps} the mean loss changed by {signed(total)} nats"
    for words, cell in (("most was added by", max), ("most was taken off by", min)):
        name = cell(sums, key=lambda key: sums[key])
        if sums[name] * (1 if cell is max else -1) > 0:
            said += f"; {words} “{CELLS[name][0]}” ({signed(sums[name])})"
    return said + "."

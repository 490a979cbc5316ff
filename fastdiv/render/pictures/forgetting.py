"""Forgetting: how often samples were forgotten, and when they were first learned."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from fastdiv.explain.training.dynamics import Forgetting
from fastdiv.render.pictures.epoch_axis import EpochAxis
from fastdiv.render.pictures.picture import COLOURS, LEGEND, Picture, coordinates
from fastdiv.render.pictures.single_epochs import MARGIN, SingleEpochs, percent, samples

if TYPE_CHECKING:
    from fastdiv.explain.view import SplitView

MOST_EVENTS = 8  # that have a bar of their own
NEVER = 1.5  # from the last of these to the bar of samples that were never right


def forgetting(view: SplitView) -> Picture | None:
    """Draw how often samples of a split were forgotten, and by when they had been learned.

    None of one epoch, and where no sample is valid.
    """
    if len(view.epochs) < 2:
        return None
    found = view.forgetting()
    if not found.n:
        return None
    axis = SingleEpochs.of(view).axis
    return Picture(
        name="forgetting",
        title="Learning and forgetting",
        how="Above: how many samples were right once and then wrong again in a later epoch, how "
        "many times; striped, those that were never right. Below: the share of samples that had "
        "been right by an epoch.",
        data=[*_events(found), _learned(found, axis)],
        layout=_layout(found, axis),
        text=_text(found, axis),
    )


def _events(found: Forgetting) -> list[dict[str, Any]]:
    """Return the bars: of samples by the number of times they were forgotten, and of the rest."""
    counts: dict[int, int] = {}
    for row in found.events.to_pylist():
        events = min(row["forgetting_events"], MOST_EVENTS)
        counts[events] = counts.get(events, 0) + row["n"]
    last = max(counts, default=0)
    names = [str(k) if k < MOST_EVENTS else f"{k} and more" for k in range(last + 1)]
    bar: dict[str, Any] = {"type": "bar", "xaxis": "x", "yaxis": "y"}
    return [
        {
            **bar,
            "name": "learned",
            "x": list(range(last + 1)),
            "y": [counts.get(k) for k in range(last + 1)],
            "customdata": names,
            "marker": {"color": COLOURS["right"]},
            "hovertemplate": "%{y:,} samples<br>forgotten %{customdata} times<extra></extra>",
        },
        {
            **bar,
            "name": "never learned",
            "x": [last + NEVER],
            "y": [found.n_never_learned or None],
            "marker": {"color": COLOURS["wrong"], "pattern": {"shape": "/"}},
            "hovertemplate": "%{y:,} samples were never right<extra></extra>",
        },
    ]


def _learned(found: Forgetting, axis: EpochAxis) -> dict[str, Any]:
    """Return the share of samples that had been right by each epoch."""
    rows = {row["epoch"]: row for row in found.first_learned.to_pylist()}
    shares, new, so_far = [], [], 0.0
    for epoch in axis.numbers:
        row = rows.get(epoch)
        so_far = so_far if row is None else row["cumulative_share"]
        shares.append(so_far)
        new.append(0 if row is None else row["n"])
    return {
        "type": "scatter",
        "name": "had been right",
        "showlegend": False,
        "xaxis": "x2",
        "yaxis": "y2",
        "mode": "lines+markers",
        "line": {"shape": "hv", "width": 2, "color": COLOURS["right"]},
        "marker": {"size": 5},
        "x": list(axis.numbers),
        "y": coordinates(shares),
        "customdata": [
            [axis.shown(epoch), f"{n:,}"] for epoch, n in zip(axis.numbers, new, strict=True)
        ],
        "hovertemplate": "%{y:.2%} had been right by epoch %{customdata[0]}<br>"
        "%{customdata[1]} for the first time<extra></extra>",
    }


def _layout(found: Forgetting, axis: EpochAxis) -> dict[str, Any]:
    last = min(max(found.events["forgetting_events"].to_pylist(), default=0), MOST_EVENTS)
    ticks = [f"{k}+" if k == MOST_EVENTS else str(k) for k in range(last + 1)]
    return {
        "height": 560,
        "margin": MARGIN,
        "xaxis": {
            "title": {"text": "times forgotten"},
            "tickvals": [*range(last + 1), last + NEVER],
            "ticktext": [*ticks, "never"],
            "anchor": "y",
            "tickangle": 0,
            "automargin": True,
        },
        "yaxis": {
            "title": {"text": "samples"},
            "domain": [0.62, 1.0],
            "automargin": True,
            "type": "log",
            "range": [float(np.log10(0.7)), float(np.log10(found.n * 1.5))],
            "dtick": "D1" if found.n < 10 else 1,
            "exponentformat": "SI",
        },
        "xaxis2": {**axis.layout(), "anchor": "y2"},
        "yaxis2": {
            "title": {"text": "had been right"},
            "domain": [0.0, 0.4],
            "tickformat": "~%",
            "automargin": True,
        },
        "bargap": 0.15,
        "legend": LEGEND,
    }


def _text(found: Forgetting, axis: EpochAxis) -> str:
    """Say how many were learned, forgotten, and never learned."""
    n = found.n
    said = (
        f"Of {samples(n)}, {found.n_unforgettable:,} ({percent(found.n_unforgettable / n)}) were "
        f"learned and never forgotten, {found.n_forgotten:,} ({percent(found.n_forgotten / n)}) "
        f"forgotten at least once, and {found.n_never_learned:,} "
        f"({percent(found.n_never_learned / n)}) never right"
    )
    learned = found.first_learned.to_pylist()
    half = next((row for row in learned if row["cumulative_share"] >= 0.5), None)
    if half is not None:
        epoch = half["epoch"]
        by = axis.say(epoch) if epoch in axis.names else f"epoch {epoch}"
        said += f"; {percent(half['cumulative_share'])} had been right by {by}"
    return f"{said}."

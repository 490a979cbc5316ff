"""The causes of a change in loss, as bars that add up to it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastdiv.explain import wording
from fastdiv.explain.explanation import Explanation
from fastdiv.render.pictures.picture import COLOURS, Frame, Picture, pair_key, plain, signed

ROOM = 0.34  # of the width of all bars, to either side, for the numbers at their ends
ROW, REST = 34, 90  # pixels: a bar, and what is around them


def causes(made: Mapping[tuple[int, int], Explanation]) -> Picture | None:
    """Draw the account of each explanation from 0 to the change; None where there is none.

    Parameters
    ----------
    made : dict of (int, int) to Explanation
        By the pair of epochs, in the order in which they are offered.
    """
    if not made:
        return None
    frames = {pair_key(*pair): _frame(explanation) for pair, explanation in made.items()}
    trace = {
        "type": "waterfall",
        "orientation": "h",
        "increasing": {"marker": {"color": COLOURS["worse"]}},
        "decreasing": {"marker": {"color": COLOURS["better"]}},
        "totals": {"marker": {"color": COLOURS["total"]}},
        "connector": {"mode": "between", "line": {"color": COLOURS["total"], "width": 1}},
        "textposition": "outside",
        "cliponaxis": False,
        "hovertemplate": "%{customdata}<extra></extra>",
    }
    return Picture(
        name="causes",
        title="Causes of the change in loss",
        how="Each bar starts where the one above it ends: to the right it raised the mean loss, "
        "to the left it lowered it. Together they are the change (last bar).",
        data=[trace],
        layout={
            "margin": {"l": 10, "r": 18, "t": 10, "b": 10},
            "showlegend": False,
            "xaxis": {
                "title": {"text": "change in mean loss (nats)"},
                "automargin": True,
                "zeroline": True,
                "nticks": 6,
            },
            "yaxis": {"automargin": True},
        },
        by="pair",
        frames=frames,
    )


def _frame(made: Explanation) -> Frame:
    """Return what is shown of one explanation."""
    rows = wording.rows(made)
    if made.delta_loss is None or not rows:
        return Frame(
            wording.headline(made) + (" There is no loss to divide." if made.n else ""),
            [{"x": [], "y": [], "measure": [], "text": [], "customdata": []}],
            {
                "height": 120,
                "yaxis.range": [-0.6, 0.6],
                "yaxis.tickvals": [],
                "xaxis.range": [-1, 1],
                "annotations": [
                    {
                        "text": "nothing to divide", "showarrow": False, "x": 0.5, "y": 0.5,
                        "xref": "paper", "yref": "paper",
                    }
                ],
            },
        )  # fmt: skip
    n = len(rows)
    ends = [0.0]
    for _, nats, _, _ in rows:
        ends.append(ends[-1] + nats)
    low, high = min(*ends, made.delta_loss), max(*ends, made.delta_loss)
    room = ROOM * ((high - low) or 1.0)
    names = [name.replace(" (uncertain)", "<br>(uncertain)") for name, *_ in rows]
    total = (
        f"change: {signed(made.delta_loss)} nats<br>"
        f"{signed(100 * (made.delta_accuracy or 0.0), 2)} points of accuracy, {made.n:,} samples"
    )
    data: dict[str, Any] = {
        "x": [*(nats for _, nats, _, _ in rows), made.delta_loss],
        "y": list(range(n + 1)),
        "measure": [*["relative"] * n, "total"],
        "text": [signed(x) for x in [*(nats for _, nats, _, _ in rows), made.delta_loss]],
        "customdata": [*_hover(made, rows), total],
    }
    layout = {
        "height": REST + ROW * (n + 1),
        "yaxis.tickvals": list(range(n + 1)),
        "yaxis.ticktext": [*names, "<b>change</b>"],
        "yaxis.range": [n + 0.6, -0.6],
        "xaxis.range": [low - room, high + room],
        "annotations": [],
    }
    return Frame(_text(made, rows), [data], layout)


def _hover(made: Explanation, rows: list[Any]) -> list[str]:
    """Return what is said of each row."""
    causes = [*made.causes, *[None] * (len(rows) - len(made.causes))]
    said = []
    for (name, nats, share, points), cause in zip(rows, causes, strict=True):
        lines = [f"{name}: {signed(nats)} nats"]
        if wording.share(share):
            lines[0] += f", {wording.share(share)} of the change"
        if points is not None:
            lines.append(f"{signed(100 * points, 2)} points of accuracy")
        if cause is not None:
            lines.append(f"{cause.n:,} samples")
            lines.append(
                f"alone {signed(cause.nats_alone)}, after all others {signed(cause.nats_last)}"
            )
        said.append("<br>".join(lines))
    return said


def _text(made: Explanation, rows: list[Any]) -> str:
    """Say what carries the change, in a sentence."""
    before, after = map(plain, made.labels)
    parts = [f"{name} {signed(nats)}" for name, nats, _, _ in rows]
    return (
        f"From epoch {before} to {after} the mean loss changed by "
        f"{signed(made.delta_loss or 0.0)} nats: {', '.join(parts)}."
    )

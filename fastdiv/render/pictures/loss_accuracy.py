"""Loss and accuracy over epochs, and where they part: the first picture anyone sees."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import TYPE_CHECKING, Any

import numpy as np

from fastdiv.explain.training.stretches import Stretch
from fastdiv.render.pictures.epoch_axis import EpochAxis
from fastdiv.render.pictures.one_epoch import infinite_note, nats, one_epoch, percent, values
from fastdiv.render.pictures.picture import COLOURS, LEGEND, Picture, escaped, plain, signed

if TYPE_CHECKING:
    from fastdiv.run import Run

Row = Mapping[str, Any]
TRAINING = ("train", "training", "fit")
DASHES = ("solid", "dashdot", "longdash", "longdashdot")  # of splits that are not for training
POINTS = 40  # epochs, at most, that have a point each
CROWDED = 300  # epochs beyond which lines are thin
SPIKE = 30.0  # times the median loss: beyond, the axis is logarithmic
BEST = {  # which epoch, its measure, its mark, what it is called
    "epoch_lowest_loss": ("loss_finite", "triangle-down", "lowest loss"),
    "epoch_highest_accuracy": ("accuracy", "triangle-up", "highest accuracy"),
    "epoch_lowest_refinement": ("refinement", "diamond-open", "lowest refinement"),
}
# Shares of the height of both panels: where nothing is between them, and where something is.
PANELS = ([0.52, 1.0], [0.0, 0.46])
APART = ([0.56, 1.0], [0.0, 0.42])
STRIPS = (0.515, 0.465)  # between the panels: where both rose, where both fell


def loss_accuracy(run: Run, marked: tuple[int, int] | None = None) -> Picture:
    """Draw loss and accuracy of all splits over epochs.

    Parameters
    ----------
    run : Run
    marked : (int, int), optional
        The pair of epochs to shade. Default: the stretch that matters most.
    """
    view = run.split()
    splits: dict[str | None, list[Row]] = {}
    for row in sorted(run.epochs.to_pylist(), key=lambda row: row["epoch"]):
        splits.setdefault(row["split"], []).append(row)
    order = [view.split, *(name for name in splits if name != view.split)]
    splits = {name: splits[name] for name in order if name in splits}
    axis = EpochAxis.of(row for rows in splits.values() for row in rows)
    if len(axis.numbers) == 1:
        return one_epoch(splits, axis)
    parts = _parting(view.stretches())
    if marked is None:
        first = next(iter(view.stretches()), None)
        marked = (first.epoch_from, first.epoch_to) if first else None
    rows = splits.get(view.split, [])
    best = {key: epoch for key, epoch in view.best_epochs().items() if epoch is not None}
    traces = _curves(splits, rows) + _infinite(splits, axis) + _best(rows, best, axis)
    shapes, notes = _marks(marked, parts, axis)
    losses = [row["loss_finite"] for row in rows if row["loss_finite"] is not None]
    log = bool(losses) and min(losses) > 0 and max(losses) > SPIKE * float(np.median(losses))
    layout = {
        "height": 480,
        "margin": {"l": 10, "r": 18, "t": 10, "b": 10},
        "xaxis": {**axis.layout(), "anchor": "y2"},
        "yaxis": {
            "title": {"text": "loss (nats)"},
            "domain": (APART if parts else PANELS)[0],
            "automargin": True,
            "zeroline": False,
            "type": "log" if log else "linear",
        },
        "yaxis2": {
            "title": {"text": "accuracy"},
            "domain": (APART if parts else PANELS)[1],
            "automargin": True,
            "zeroline": False,
            "tickformat": "~%",
            "autorangeoptions": {"clipmin": -0.02, "clipmax": 1.02},
        },
        "hovermode": "x unified",
        "hoversubplots": "axis",
        "legend": LEGEND,
        "shapes": shapes,
        "annotations": notes,
    }
    return Picture(
        name="loss_accuracy",
        title="Loss and accuracy",
        how=_how(splits, marked, parts, log),
        data=traces,
        layout=layout,
        text=_text(view.split, rows, best, parts, axis),
        note=infinite_note(splits),
    )


def _how(splits: Mapping[str | None, Any], marked: Any, parts: Sequence[Stretch], log: bool) -> str:
    """Say how to read it."""
    said = "Above, the mean loss: lower is better. Below, the accuracy: higher is better."
    if log:
        said += " The loss is on a logarithmic axis."
    if any(name in TRAINING for name in splits) and len(splits) > 1:
        said += " Thin and dotted: training."
    if marked is not None:
        said += " Shaded: the epochs that are explained."
    if parts:
        said += " The bars between the two: where loss and accuracy moved the same way."
    return said


def _curves(splits: Mapping[str | None, Sequence[Row]], default: Sequence[Row]) -> list[Any]:
    """Return loss and accuracy of each split, and the refinement of one."""
    traces: list[dict[str, Any]] = []
    dashes = cycle(DASHES)
    single = len(splits) == 1
    for name, rows in splits.items():
        training = name in TRAINING and not single
        x = [row["epoch"] for row in rows]
        thick = 3 if len(x) <= CROWDED else 1.5
        line = {"width": 1.5, "dash": "dot"} if training else {"width": thick, "dash": next(dashes)}
        mode = "lines+markers" if len(x) <= POINTS else "lines"
        said = "" if name is None else f"{escaped(name)}: "
        for measure, column, unit, panel in (
            ("loss", "loss_finite", "%{y:.4f} nats", "y"),
            ("accuracy", "accuracy", "%{y:.2%}", "y2"),
        ):
            traces.append(
                {
                    "type": "scatter",
                    "name": measure if single else escaped(str(name)),
                    "legendgroup": measure if single else str(list(splits).index(name)),
                    "showlegend": single or measure == "loss",
                    "x": x,
                    "y": values(rows, column),
                    "yaxis": panel,
                    "mode": mode,
                    "line": {**line, "color": COLOURS[measure]},
                    "marker": {"size": 4 if training else 6, "color": COLOURS[measure]},
                    "text": [f"{said}{measure}"] * len(x),
                    "hovertemplate": f"%{{text}} {unit}<extra></extra>",
                }
            )
    refined = values(default, "refinement")
    if any(value is not None for value in refined):
        traces.append(
            {
                "type": "scatter",
                "name": "refinement",
                "x": [row["epoch"] for row in default],
                "y": refined,
                "yaxis": "y",
                "mode": "lines",
                "line": {"width": 1.5, "dash": "dash", "color": COLOURS["refinement"]},
                "hovertemplate": "refinement %{y:.4f} nats<extra></extra>",
            }
        )
    return traces


def _infinite(splits: Mapping[str | None, Sequence[Row]], axis: EpochAxis) -> list[Any]:
    """Return marks on the epochs in which some losses are infinite."""
    found = [(name, row) for name, rows in splits.items() for row in rows if row["n_infinite"]]
    if not found:
        return []
    said = ["" if name is None else f"{escaped(name)}: " for name, _ in found]
    return [
        {
            "type": "scatter",
            "name": "some losses are infinite",
            "x": [row["epoch"] for _, row in found],
            "y": values([row for _, row in found], "loss_finite"),
            "yaxis": "y",
            "mode": "markers",
            "marker": {"symbol": "x-thin-open", "size": 9, "color": COLOURS["loss"]},
            "text": [
                f"{of}{row['n_infinite']:,} of {row['n']:,} losses are infinite"
                for of, (_, row) in zip(said, found, strict=True)
            ],
            "hovertemplate": "%{text}<extra></extra>",
        }
    ]


def _best(rows: Sequence[Row], best: Mapping[str, int], axis: EpochAxis) -> list[Any]:
    """Return marks on the best epochs of a split."""
    by_epoch = {row["epoch"]: row for row in rows}
    traces = []
    for key, (measure, symbol, words) in BEST.items():
        epoch = best.get(key)
        if epoch is None or by_epoch.get(epoch, {}).get(measure) is None:
            continue
        colour = COLOURS[measure.removesuffix("_finite")]
        traces.append(
            {
                "type": "scatter",
                "name": f"{words}: {axis.short(epoch)}",
                "x": [epoch],
                "y": values([by_epoch[epoch]], measure),
                "yaxis": "y2" if measure == "accuracy" else "y",
                "mode": "markers",
                "cliponaxis": False,
                "marker": {
                    "symbol": symbol,
                    "size": 14,
                    "color": colour,
                    "line": {"color": colour},
                },
                "hovertemplate": f"{words}<extra></extra>",
            }
        )
    return traces


def _parting(found: Sequence[Stretch]) -> list[Stretch]:
    """Return the stretches between which loss and accuracy moved the same way."""
    return [stretch for stretch in found if "together" in stretch.why]


def _marks(
    marked: tuple[int, int] | None, parts: Sequence[Stretch], axis: EpochAxis
) -> tuple[list[Any], list[Any]]:
    """Return shapes and annotations: the pair that is explained, and where both moved alike."""
    shapes: list[dict[str, Any]] = []
    notes: list[dict[str, Any]] = []
    if marked is not None:
        a, b = marked
        shapes += [
            {
                "type": "rect", "xref": "x", "yref": "paper", "layer": "below",
                "x0": a, "x1": b, "y0": panel[0], "y1": panel[1],
                "fillcolor": COLOURS["total"], "opacity": 0.18, "line": {"width": 0},
            }
            for panel in (APART if parts else PANELS)
        ]  # fmt: skip
    first, last = axis.numbers[0], axis.numbers[-1]
    for stretch in parts:
        a, b = stretch.epoch_from, stretch.epoch_to
        rose = "rose" in stretch.why
        y = STRIPS[0 if rose else 1]
        line = {"width": 4, "color": COLOURS["worse" if rose else "better"]}
        shapes.append(
            {
                "type": "line", "xref": "x", "yref": "paper",
                "x0": a, "x1": b, "y0": y, "y1": y, "line": line,
            }
        )  # fmt: skip
        middle = ((a + b) / 2 - first) / max(last - first, 1)
        side = "left" if middle < 0.3 else "right" if middle > 0.7 else "center"
        at = {"left": min(a, b), "right": max(a, b), "center": (a + b) / 2}[side]
        words = "both rose" if rose else "both fell"
        notes.append(
            {
                "x": at, "xref": "x", "xanchor": side, "y": y, "yref": "paper",
                "yanchor": "top" if not rose else "bottom", "showarrow": False,
                "text": f"{words}, {axis.short(a)} → {axis.short(b)}",
            }
        )  # fmt: skip
    return shapes, notes


def _text(
    split: str | None, rows: Sequence[Row], best: Mapping[str, int], parts: Sequence[Stretch],
    axis: EpochAxis,
) -> str:  # fmt: skip
    """Say what is to be seen."""
    by_epoch = {row["epoch"]: row for row in rows}
    low, high = (best.get(f"epoch_{key}") for key in ("lowest_loss", "highest_accuracy"))
    if high is None:
        return "No sample is valid: there is neither loss nor accuracy."
    of = "" if split is None else f"{plain(split)}: "
    first = "The" if split is None else "the"
    if low is None:
        return (
            f"{of}{first} accuracy is highest in epoch {axis.say(high)} "
            f"({percent(by_epoch[high])}); no loss is finite."
        )
    at_low, at_high = by_epoch[low], by_epoch[high]
    if low == high:
        said = [
            f"{of}{first} loss is lowest ({nats(at_low)}) and the accuracy highest "
            f"({percent(at_low)}) in one epoch, {axis.say(low)}"
        ]
    else:
        said = [
            f"{of}{first} loss is lowest in epoch {axis.say(low)} ({nats(at_low)}, accuracy "
            f"{percent(at_low)}), the accuracy highest in epoch {axis.say(high)} "
            f"({percent(at_high)}, loss {nats(at_high)})"
        ]
    for stretch in parts:
        a, b = by_epoch[stretch.epoch_from], by_epoch[stretch.epoch_to]
        way = "rose" if "rose" in stretch.why else "fell"
        loss = b["loss_finite"] - a["loss_finite"]
        points = 100 * (b["accuracy"] - a["accuracy"])
        said.append(
            f"both {way} from epoch {axis.say(stretch.epoch_from)} to "
            f"{axis.say(stretch.epoch_to)}: loss by {signed(loss)} nats, accuracy by "
            f"{signed(points, 2)} points"
        )
    return ". ".join(s[0].upper() + s[1:] if i else s for i, s in enumerate(said)) + "."

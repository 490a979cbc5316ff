"""What each class adds to the change in loss and in accuracy between two epochs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fastdiv.explain.classes.by_epoch import ClassesOf, classes_by_epoch, contributions
from fastdiv.explain.evidence import Floats
from fastdiv.render.pictures.epoch_axis import EpochAxis
from fastdiv.render.pictures.picture import (
    COLOURS,
    MORE_DIGITS,
    Frame,
    Picture,
    coordinates,
    escaped,
    pair_key,
    plain,
    signed,
)

if TYPE_CHECKING:
    from fastdiv.explain.view import SplitView

ROW, REST = 26, 90  # pixels: a class, and what is around them
DWARFS = 4.0  # times the largest bar of a class: a longer one of all others is told, not drawn


def class_changes(
    view: SplitView, pairs: Sequence[tuple[int, int]], most: int = 12
) -> Picture | None:
    """Draw what classes add to the change in loss and in accuracy, the largest `most` of them.

    None where no pair has two epochs with valid samples.

    Parameters
    ----------
    view : SplitView
    pairs : sequence of (int, int)
    most : int
        Classes shown; the others are one bar together.
    """
    axis = EpochAxis.of(view.epochs.to_pylist())
    c = view._run.summary["classes"]
    by_epoch = classes_by_epoch(view.classes, c)
    known = {epoch for epoch, rows in by_epoch.items() if rows.n}
    names = [
        name if isinstance(name, str) else f"class {name}"
        for name in view.classes["class"].slice(0, c).to_pylist()
    ]
    frames: dict[str, Frame] = {}
    for a, b in pairs:
        if not {a, b} <= known:
            continue
        before, after = by_epoch[a], by_epoch[b]
        label = (axis.say(a), axis.say(b))
        frames[pair_key(a, b)] = _frame(before, after, names, label, most)
    if not frames:
        return None
    bar = {
        "type": "bar",
        "orientation": "h",
        "hovertemplate": "%{customdata}<extra></extra>",
    }
    panel = {"automargin": True, "zeroline": True, "nticks": 3, "anchor": "y"}
    return Picture(
        name="class_changes",
        title="Change by class",
        how="Left, what the samples of each class add to the change in mean loss: to the right is "
        "worse. Right, what they add to the change in accuracy: to the right is better. The bars "
        "of each side add up to the change.",
        data=[
            {**bar, "name": "loss", "xaxis": "x"},
            {**bar, "name": "accuracy", "xaxis": "x2"},
        ],
        layout={
            "margin": {"l": 10, "r": 18, "t": 10, "b": 10},
            "showlegend": False,
            "xaxis": {**panel, "domain": [0.0, 0.48], "title": {"text": "loss (nats)"}},
            "xaxis2": {**panel, "domain": [0.52, 1.0], "title": {"text": "accuracy (points)"}},
            "yaxis": {"automargin": True, "zeroline": False},
        },
        by="pair",
        frames=frames,
    )


def _frame(
    before: ClassesOf, after: ClassesOf, names: Sequence[str], label: tuple[str, str], most: int
) -> Frame:
    """Return what is shown of one pair."""
    loss, points = contributions(before, after)
    points *= 100
    infinite = np.isnan(loss)
    there = np.flatnonzero((before.support > 0) | (after.support > 0))
    size = np.maximum(_relative(loss), _relative(points)) + infinite  # infinite ones first
    shown = there[np.argsort(-size[there], kind="stable")][:most]
    shown = shown[np.argsort(-np.nan_to_num(loss[shown], nan=np.inf), kind="stable")]
    rest = np.setdiff1d(there, shown)
    rows = [(escaped(names[k], 22), _hover(k, names, before, after, loss, points)) for k in shown]
    nats, moved = loss[shown].tolist(), points[shown].tolist()
    if len(rest):
        nats.append(float(loss[rest].sum()))  # all infinite ones may not be shown: then NaN
        moved.append(float(points[rest].sum()))
        others = f"{len(rest):,} other class{'es' if len(rest) > 1 else ''}"
        rows.append((others, f"{others}: {_nats(nats[-1])}, {signed(moved[-1], 2)} points"))
    y = list(range(len(rows)))
    data = [
        {
            "x": coordinates(_drawn(values, len(shown)), MORE_DIGITS),
            "y": y,
            "customdata": [hover for _, hover in rows],
            "marker": {
                "color": [COLOURS["worse" if sign * v > 0 else "better"] for v in values],
            },
        }
        for sign, values in ((1, nats), (-1, moved))
    ]
    layout = {
        "height": REST + ROW * len(rows),
        "yaxis.tickvals": y,
        "yaxis.ticktext": [name for name, _ in rows],
        "yaxis.range": [len(rows) - 0.4, -0.6],
        "annotations": [
            {
                "x": 0, "y": i, "xref": axis, "yref": "y", "showarrow": False,
                "xanchor": "right" if value < 0 else "left",
                "text": "∞" if np.isnan(value) else signed(value, digits),
            }
            for axis, values, digits in (("x", nats, 4), ("x2", moved, 2))
            for i, value in enumerate(values)
            if np.isnan(_drawn(values, len(shown))[i])
        ],
    }  # fmt: skip
    return Frame(_text(names, loss, points, infinite, label), data, layout)


def _drawn(values: Sequence[float], shown: int) -> list[float]:
    """Return the bars; not that of all other classes, where it dwarfs those of the `shown`."""
    largest = max((abs(x) for x in values[:shown] if np.isfinite(x)), default=0.0)
    return [np.nan if i >= shown and abs(x) > DWARFS * largest else x for i, x in enumerate(values)]


def _relative(values: Floats) -> Floats:
    """Return sizes as shares of the largest."""
    sizes: Floats = np.abs(np.nan_to_num(values))
    return sizes / (sizes.max() or 1.0)


def _nats(x: float) -> str:
    return "infinite loss" if np.isnan(x) else f"{signed(x)} nats"


def _hover(k: Any, names: Sequence[str], before: ClassesOf, after: ClassesOf,
           loss: Floats, points: Floats) -> str:  # fmt: skip
    """Say what a class adds."""
    counts = f"{int(before.support[k]):,}"
    if before.support[k] != after.support[k]:
        counts += f" → {int(after.support[k]):,}"
    moved = f"{_nats(float(loss[k]))}, {signed(points[k], 2)} points"
    return f"{escaped(names[k])}: {moved}<br>{counts} sample{'' if counts == '1' else 's'}"


def _text(
    names: Sequence[str], loss: Floats, points: Floats, infinite: NDArray[np.bool_],
    label: tuple[str, str],
) -> str:  # fmt: skip
    """Say which classes carry most."""
    said = f"From epoch {label[0]} to {label[1]}"
    finite = np.nan_to_num(loss)
    worst, best = int(finite.argmax()), int(finite.argmin())
    parts = []
    if finite[worst] > 0:
        parts.append(f"{plain(names[worst])} raised the mean loss most ({_nats(finite[worst])})")
    if finite[best] < 0:
        it = "it" if parts else "the mean loss"
        parts.append(f"{plain(names[best])} lowered {it} most ({_nats(finite[best])})")
    lost, won = int(points.argmin()), int(points.argmax())
    if points[lost] < 0:
        parts.append(f"{plain(names[lost])} cost most accuracy ({signed(points[lost], 2)} points)")
    if points[won] > 0:
        what = "" if points[lost] < 0 else " accuracy"
        parts.append(f"{plain(names[won])} gained most{what} ({signed(points[won], 2)} points)")
    still = "the accuracy" if infinite.any() else "loss or accuracy"
    said += ", " + ("; ".join(parts) or f"no class moved {still}") + "."
    if infinite.any():
        k = int(infinite.sum())
        said += (
            f" {k:,} class{'es have' if k > 1 else ' has'} an infinite loss in one of the epochs: "
            f"what {'they add' if k > 1 else 'it adds'} to the loss has no size (∞)."
        )
    return said

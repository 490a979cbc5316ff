"""Confusion matrix: which classes are taken for which, of a few classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fastdiv.explain.evidence import Ints
from fastdiv.render.pictures.picture import Frame, Picture, coordinates, epoch_key, escaped, plain
from fastdiv.render.pictures.single_epochs import (
    MARGIN,
    SingleEpochs,
    class_names,
    percent,
    samples,
    thinned,
    valid_blocks,
)

if TYPE_CHECKING:
    from fastdiv.explain.view import SplitView

MOST_CLASSES = 20
MOST_ROWS = 100_000_000  # counted, over all epochs: a second or two
NUMBERED = 12  # classes, at most, whose cells have room for a number
TICK = 14  # letters of a name beside the cells
NAME = 24  # and in what is said of one

# Cividis (Nuñez, Anderton & Renslow 2018), which colour-blind people see as others do. Confusions
# are rare beside what is right: half of the colours are for shares below 18 %.
CIVIDIS = (
    "#00224E", "#12356f", "#3B496C", "#575D6D", "#6F7173", "#8A8678", "#A59C74", "#C3B369",
    "#FEE838",
)  # fmt: skip
SCALE = [[(i / (len(CIVIDIS) - 1)) ** 2.5, colour] for i, colour in enumerate(CIVIDIS)]


def confusion_matrix(view: SplitView, epochs: Sequence[int]) -> Picture | None:
    """Draw the shares of each label that are taken for each class, for each of some epochs.

    None of more than 20 classes, and where no sample is valid.
    """
    found = SingleEpochs.of(view, epochs)
    if not found.any_valid(epochs):
        return None
    raw = class_names(view)
    names = [plain(name, NAME) for name in raw]
    if view.evidence.class_names is None:
        names = [f"class {name}" for name in names]
    c = len(raw)
    if c > MOST_CLASSES:
        return None
    drawn, note = thinned(view, epochs, found, MOST_ROWS)
    frames = {}
    for epoch in drawn:
        counts = counted(view, epoch, c)
        frames[epoch_key(epoch)] = Frame(_text(found, epoch, counts, names), _data(counts))
    return Picture(
        name="confusion_matrix",
        title="Confusions",
        how="Each row is a label; its colours tell what share of its samples is taken for which "
        "class: on the diagonal, the right ones. Cells that never occur are empty.",
        data=[_trace(raw)],
        layout=_layout(raw),
        by="epoch",
        frames=frames,
        note=note,
    )


def counted(view: SplitView, epoch: int, c: int) -> Ints:
    """Return how many (c, c) samples of each label are taken for each class."""
    counts = np.zeros(c * c, np.int64)
    for block in valid_blocks(view, epoch):
        counts += np.bincount(block.labels * np.int32(c) + block.predicted, minlength=c * c)
    return counts.reshape(c, c)


def _data(counts: Ints) -> list[dict[str, Any]]:
    """Return what differs between epochs."""
    support = counts.sum(axis=1, keepdims=True)
    shares = np.where(counts > 0, counts / np.maximum(support, 1), np.nan)
    return [
        {
            "z": [[_short(z) for z in coordinates(row)] for row in shares],
            "customdata": counts.tolist(),
        }
    ]


def _short(share: float | None) -> float | None:
    """Keep the digits that anyone reads of a share."""
    return None if share is None else float(f"{share:.4g}")


def _trace(raw: Sequence[str]) -> dict[str, Any]:
    """Return what all epochs share."""
    names = [escaped(name, NAME) for name in raw]
    trace: dict[str, Any] = {
        "type": "heatmap",
        "x": list(range(len(raw))),
        "y": list(range(len(raw))),
        "text": [
            [f"{a} is right" if a == b else f"{a} taken for {b}" for b in names] for a in names
        ],
        "colorscale": SCALE,
        "zmin": 0,
        "zmax": 1,
        "xgap": 1,
        "ygap": 1,
        "hoverongaps": False,
        "colorbar": {"tickformat": "~%", "thickness": 10, "xpad": 4},
        "hovertemplate": "%{text}<br>%{customdata:,} samples, %{z:.2%} of the label<extra></extra>",
    }
    if len(raw) <= NUMBERED:
        trace["texttemplate"] = "%{z:.0%}"
    return trace


def _layout(raw: Sequence[str]) -> dict[str, Any]:
    c = len(raw)
    axis = {
        "tickvals": list(range(c)),
        "ticktext": [escaped(name, TICK) for name in raw],
        "automargin": True,
        "showgrid": False,
        "zeroline": False,
    }
    return {
        "height": 200 + 26 * max(c, 6),
        "margin": MARGIN,
        "xaxis": {**axis, "title": {"text": "prediction"}, "range": [-0.5, c - 0.5]},
        "yaxis": {**axis, "title": {"text": "label"}, "range": [c - 0.5, -0.5]},
    }


def _text(found: SingleEpochs, epoch: int, counts: Ints, names: Sequence[str]) -> str:
    """Say which confusion is the most frequent, and which label fares worst."""
    n = int(counts.sum())
    if not n:
        return found.nothing(epoch)
    wrong = counts - np.diag(np.diag(counts))
    if not wrong.any():
        return found.say(epoch, f"all {n:,} samples are right.")
    support = counts.sum(axis=1)
    a, b = (int(i) for i in np.unravel_index(wrong.argmax(), wrong.shape))
    recall = np.where(support > 0, np.diag(counts) / np.maximum(support, 1), np.inf)
    worst = int(recall.argmin())
    share = percent(float(wrong[a, b] / support[a]))
    return found.say(
        epoch,
        f"most often, {names[a]} is taken for {names[b]}: "
        f"{samples(int(wrong[a, b]))}, {share} of that label. "
        f"The label that fares worst is {names[worst]}: {percent(float(recall[worst]))} "
        f"of {int(support[worst]):,} are right.",
    )

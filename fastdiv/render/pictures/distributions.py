"""Distributions: how confidence, margin and loss of the right and the wrong lie in an epoch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from fastdiv.explain.evidence import Floats, Ints
from fastdiv.explain.shapes import CONFIDENCE_EDGES, LOSS_EDGES, MARGIN_EDGES, Shapes
from fastdiv.render.pictures.picture import COLOURS, LEGEND, Frame, Picture, coordinates, epoch_key
from fastdiv.render.pictures.single_epochs import MARGIN, SingleEpochs, percent, samples

if TYPE_CHECKING:
    from fastdiv.explain.view import SplitView

Of = Literal["confidence", "margin", "loss"]
OCTAVE = 2.0  # how far the outermost bins of the loss, which have no end, are drawn
# Of a quarter of an octave each but for the outer two; drawn by the octave, as the four quarters
# are not alike on a logarithmic axis and would show steps that are not there.
FIRSTS = np.array([0, *range(1, len(LOSS_EDGES) - 2, 4), len(LOSS_EDGES) - 2])
OCTAVES = LOSS_EDGES[[*FIRSTS, -1]]
SURE = 0.9  # a confidence that is told in text
COSTLY = 2.0  # nats: a loss that is told in text


@dataclass(frozen=True, slots=True)
class Measure:
    """What is counted, how its axis is called, and how it is read."""

    title: str
    axis: str
    edges: Floats
    how: str


# The wrong are drawn over the right, which must be seen through them: outlined and striped.
MARKERS: dict[str, dict[str, Any]] = {
    "right": {"color": COLOURS["right"], "opacity": 0.75, "line": {"width": 0}},
    "wrong": {
        "color": "rgba(213,94,0,0.25)",
        "line": {"width": 1, "color": COLOURS["wrong"]},
        "pattern": {"shape": "/", "fgcolor": COLOURS["wrong"], "size": 6, "solidity": 0.3},
    },
}

MEASURES: dict[Of, Measure] = {
    "confidence": Measure(
        "Confidence of the right and the wrong",
        "confidence",
        CONFIDENCE_EDGES,
        "How sure the model is of its predictions: wrong ones far to the right are what it should "
        "not be sure of. The axis of counts is logarithmic.",
    ),
    "margin": Measure(
        "Margin of the right and the wrong",
        "margin of the label (nats)",
        MARGIN_EDGES,
        "How far the log-probability of the label is above that of the best other class: right of "
        "0 the prediction is right, and the farther left the worse. The axis of counts is "
        "logarithmic.",
    ),
    "loss": Measure(
        "Loss of the right and the wrong",
        "loss (nats)",
        OCTAVES,
        "Above, how many samples have which loss; both axes are logarithmic, and each bin ends "
        "at twice the loss that it begins with. Below, which share "
        "of the whole loss they carry: where the mean comes from.",
    ),
}


def distribution(view: SplitView, epochs: Sequence[int], of: Of) -> Picture | None:
    """Draw histograms of the right and of the wrong, for each of some epochs.

    None where no sample is valid, or of the loss where none is finite.

    Parameters
    ----------
    view : SplitView
    epochs : sequence of int
    of : {"confidence", "margin", "loss"}
    """
    found = SingleEpochs.of(view, epochs)
    if not found.any_valid(epochs):
        return None
    shapes = {epoch: view.shapes(epoch) for epoch in epochs}
    counts: dict[int, Ints] = {epoch: _counts(s, of) for epoch, s in shapes.items()}
    drawn = _drawn(of, counts)
    if drawn is None:
        return None
    measure = MEASURES[of]
    frames = {
        epoch_key(epoch): Frame(
            _text(found, shapes[epoch], of), _data(shapes[epoch], counts[epoch], of, drawn)
        )
        for epoch in epochs
    }
    most = float(max(c[:, drawn].max() for c in counts.values()))
    return Picture(
        name=f"{of}_distribution",
        title=measure.title,
        how=measure.how,
        data=_traces(of, drawn),
        layout=_layout(of, drawn, most),
        by="epoch",
        frames=frames,
    )


def _counts(shape: Shapes, of: Of) -> Ints:
    """Return how many of the wrong, and of the right, are in each bin that may be drawn."""
    if of == "loss":
        return np.add.reduceat(shape.loss, FIRSTS, axis=1)
    counts: Ints = getattr(shape, of)
    return counts


def _drawn(of: Of, counts: Mapping[int, Ints]) -> slice | None:
    """Return the bins that are drawn: from the first to the last that is ever used."""
    k = len(MEASURES[of].edges) - 1
    used = np.sum([c.sum(axis=0) for c in counts.values()], axis=0) > 0
    if of == "margin":
        used[[0, -1]] = False  # they have no end, and are told in text
        used[k // 2 - 1 : k // 2 + 1] = True  # on either side of 0
    at = np.flatnonzero(used)
    return slice(int(at[0]), int(at[-1]) + 1) if len(at) else None


def _ends(of: Of, drawn: slice) -> tuple[Floats, Floats]:
    """Return where the bins that are drawn begin and end, all finite."""
    edges = MEASURES[of].edges.copy()
    if of == "loss":
        edges[0], edges[-1] = edges[1] / OCTAVE, edges[-2] * OCTAVE
    return edges[:-1][drawn], edges[1:][drawn]


def _data(shape: Shapes, counts: Ints, of: Of, drawn: slice) -> list[dict[str, Any]]:
    """Return what differs between epochs: counts of the right and of the wrong."""
    data = [{"y": [k or None for k in counts[row, drawn].tolist()]} for row in (1, 0)]
    if of == "loss":
        total = float(shape.loss_sums.sum())
        sums = np.add.reduceat(shape.loss_sums, FIRSTS)
        carried = sums[drawn] / total if total > 0 else np.zeros(0)
        data.append({"y": [y or None for y in coordinates(carried)]})
    return data


def _traces(of: Of, drawn: slice) -> list[dict[str, Any]]:
    """Return what all epochs share."""
    low, high = _ends(of, drawn)
    x, width = coordinates((low + high) / 2), coordinates(high - low)
    says = _bins_said(of)[drawn]
    bars: dict[str, Any] = {"type": "bar", "x": x, "width": width, "customdata": says}
    traces = [
        {
            **bars,
            "name": name,
            "marker": marker,
            "hovertemplate": f"%{{y:,}} {name}<br>{of} %{{customdata}}<extra></extra>",
        }
        for name, marker in MARKERS.items()
    ]
    if of == "loss":
        traces.append(
            {
                **bars,
                "name": "share of the loss",
                "yaxis": "y2",
                "marker": {"color": COLOURS["total"], "line": {"width": 0}},
                "hovertemplate": "%{y:.2%} of the loss<br>loss %{customdata}<extra></extra>",
            }
        )
    return traces


def _bins_said(of: Of) -> list[str]:
    """Return what each bin is called."""
    edges = MEASURES[of].edges
    unit = "" if of == "confidence" else " nats"
    said = [f"{a:.4g} to {b:.4g}{unit}" for a, b in pairwise(edges.tolist())]
    if of != "confidence":
        said[0], said[-1] = f"below {edges[1]:.4g}{unit}", f"{edges[-2]:.4g}{unit} and more"
    return said


def _layout(of: Of, drawn: slice, most: float) -> dict[str, Any]:
    """Return a layout that is the same for all epochs."""
    low, high = _ends(of, drawn)
    ends = [float(low[0]), float(high[-1])]
    logarithmic = of == "loss"
    x: dict[str, Any] = {
        "title": {"text": MEASURES[of].axis},
        "type": "log" if logarithmic else "linear",
        "range": [float(np.log10(end)) for end in ends] if logarithmic else ends,
        "automargin": True,
        "zeroline": of == "margin",
    }
    if of == "confidence":
        x["tickformat"] = "~%"
    if logarithmic:
        x |= {"exponentformat": "none", "dtick": 1, "anchor": "y2"}
    y: dict[str, Any] = {
        "title": {"text": "samples in each bin"},
        "type": "log",
        "range": [float(np.log10(0.7)), float(np.log10(max(most, 1.0) * 1.5))],
        "exponentformat": "SI",
        "dtick": "D1" if most < 10 else 1,
        "automargin": True,
    }
    layout = {
        "height": 380,
        "margin": MARGIN,
        "barmode": "overlay",
        "bargap": 0,
        "xaxis": x,
        "yaxis": y,
        "legend": LEGEND,
    }
    if logarithmic:
        layout["height"] = 520
        layout["yaxis"] = {**y, "domain": [0.4, 1.0]}
        layout["yaxis2"] = {
            "title": {"text": "share of the loss"},
            "tickformat": "~%",
            "domain": [0.0, 0.32],
            "rangemode": "tozero",
            "automargin": True,
        }
    return layout


def _text(found: SingleEpochs, shape: Shapes, of: Of) -> str:
    """Say what is to be seen."""
    if not shape.n:
        return found.nothing(shape.epoch)
    n_wrong, n_right = (int(k) for k in shape.confidence.sum(axis=1))
    if of == "confidence":
        sure = int(np.searchsorted(CONFIDENCE_EDGES, SURE - 1e-9))
        wrong, right = (int(k) for k in shape.confidence[:, sure:].sum(axis=1))
        said = (
            f"of {n_wrong:,} wrong samples {_part(wrong, n_wrong)} have a confidence of "
            f"{percent(SURE, 0)} or more, of {n_right:,} right ones {_part(right, n_right)}."
        )
    elif of == "margin":
        near = slice(len(MARGIN_EDGES) // 2 - 2, len(MARGIN_EDGES) // 2 + 2)
        wrong, right = (int(k) for k in shape.margin[:, near].sum(axis=1))
        below, above = int(shape.margin[:, 0].sum()), int(shape.margin[:, -1].sum())
        said = f"within 1 nat of the other side are {wrong:,} wrong and {right:,} right samples"
        outside = [
            f"{k:,} {'is' if k == 1 else 'are'} {where} nats"
            for k, where in ((below, "below −20"), (above, "above 20"))
            if k
        ]
        said += f"; beyond what is drawn, {' and '.join(outside)}." if outside else "."
    else:
        costly = int(np.searchsorted(LOSS_EDGES, COSTLY))
        many = int(shape.loss[:, costly:].sum())
        loss = f"{'finite ' if shape.n_infinite else ''}loss of {COSTLY:g} nats or more"
        if many:
            share = percent(float(shape.loss_sums[costly:].sum() / shape.loss_sums.sum()))
            said = (
                f"{samples(many)} ({percent(many / shape.n)}) with a {loss} "
                f"{'carries' if many == 1 else 'carry'} {share} of the loss."
            )
        else:
            said = f"no sample has a {loss}."
        if shape.n_infinite:
            said += f" Not drawn: {samples(shape.n_infinite)} with an infinite loss."
    return found.say(shape.epoch, said)


def _part(k: int, n: int) -> str:
    """Write a count with its share."""
    return f"{k:,} ({percent(k / n)})" if n else "none"

"""Reliability diagram: how often samples are right, by how sure the model is of them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from fastdiv.explain.evidence import Floats
from fastdiv.render.pictures.picture import COLOURS, LEGEND, Frame, Picture, coordinates, epoch_key
from fastdiv.render.pictures.single_epochs import MARGIN, SingleEpochs, percent
from fastdiv_kernels.contract import BINS

if TYPE_CHECKING:
    from fastdiv.explain.view import SplitView

Z = 1.96  # standard deviations of a 95 % interval
POINT = (5.0, 22.0)  # pixels across: of a bin with few samples, of one with all
BAR = (0.1 / BINS, 0.8 / BINS)  # and how wide its bar is
EDGES = np.arange(BINS + 1) / BINS


def reliability(view: SplitView, epochs: Sequence[int]) -> Picture | None:
    """Draw accuracy against confidence, in 15 bins of equal width, for each of some epochs.

    None where no sample is valid.
    """
    found = SingleEpochs.of(view, epochs)
    if not found.any_valid(epochs):
        return None
    bins = {epoch: view.shapes(epoch).reliability for epoch in epochs}
    most = float(max(of_epoch[:, 0].max() for of_epoch in bins.values()))
    return Picture(
        name="reliability",
        title="Reliability",
        how="Each point is a bin of confidence, the larger the more samples it has, with a 95 % "
        "interval. On the dotted line, the model is right as often as it says; the bars show how "
        "far it is from that: striped below the line, too sure; dotted above it, too unsure. At "
        "the bottom: how many samples each bin has, on a logarithmic axis.",
        data=_traces(),
        layout=_layout(most),
        by="epoch",
        frames={epoch_key(e): Frame(_text(found, e), _data(b)) for e, b in bins.items()},
    )


def wilson(right: Floats, n: Floats) -> tuple[Floats, Floats]:
    """Return the ends (m,), (m,) of 95 % score intervals of shares ``right / n`` (Wilson 1927)."""
    p, z2 = right / n, Z * Z
    middle = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = Z / (1 + z2 / n) * np.sqrt(p * (1 - p) / n + z2 / (4 * n * n))
    # Rounding must not put the share itself outside.
    return np.clip(middle - half, 0.0, p), np.clip(middle + half, p, 1.0)


def _data(bins: Floats) -> list[dict[str, Any]]:
    """Return what differs between epochs, of bins (15, 3)."""
    n, right, summed = bins[bins[:, 0] > 0].T
    confidence, accuracy = summed / n, right / n
    gap = confidence - accuracy
    low, high = wilson(right, n)
    share = n / max(float(n.sum()), 1.0)
    width = BAR[0] + (BAR[1] - BAR[0]) * np.sqrt(share)
    bars = [
        {
            "x": coordinates(confidence[here]),
            "base": coordinates(np.minimum(accuracy, confidence)[here]),
            "y": coordinates(np.abs(gap)[here]),
            "width": [round(w, 4) for w in width[here].tolist()],
        }
        for here in (gap > 0, gap < 0)
    ]
    size = POINT[0] + (POINT[1] - POINT[0]) * np.sqrt(share)
    points = {
        "x": coordinates(confidence),
        "y": coordinates(accuracy),
        "customdata": [int(k) for k in n.tolist()],
        "marker": {"color": COLOURS["right"], "size": [round(s, 1) for s in size.tolist()]},
        "error_y": {
            "type": "data",
            "symmetric": False,
            "array": coordinates(high - accuracy),
            "arrayminus": coordinates(accuracy - low),
            "thickness": 1,
            "width": 2,
            "color": COLOURS["total"],
        },
    }
    return [{}, *bars, points, {"y": [int(k) or None for k in bins[:, 0].tolist()]}]


def _traces() -> list[dict[str, Any]]:
    """Return what all epochs share: diagonal, gaps, points, histogram."""
    gaps = [
        {
            "type": "bar",
            "name": name,
            "marker": {"color": COLOURS[colour], "opacity": 0.7, "pattern": {"shape": pattern}},
            "hovertemplate": f"{name} by %{{y:.1%}}<extra></extra>",
        }
        for name, colour, pattern in (("too sure", "worse", "/"), ("too unsure", "better", "."))
    ]
    edges = [[f"{a:.3f}", f"{b:.3f}"] for a, b in pairwise(EDGES.tolist())]
    return [
        {
            "type": "scatter",
            "mode": "lines",
            "showlegend": False,
            "x": [0, 1],
            "y": [0, 1],
            "line": {"dash": "dot", "width": 1.5, "color": COLOURS["total"]},
            "hoverinfo": "skip",
        },
        *gaps,
        {
            "type": "scatter",
            "name": "accuracy",
            "mode": "markers",
            "hovertemplate": "%{customdata:,} samples<br>confidence %{x:.2%}<br>"
            "accuracy %{y:.2%}<extra></extra>",
        },
        {
            "type": "bar",
            "name": "samples",
            "showlegend": False,
            "yaxis": "y2",
            "x": coordinates((EDGES[:-1] + EDGES[1:]) / 2),
            "width": 1 / BINS,
            "customdata": edges,
            "marker": {"color": COLOURS["total"], "line": {"width": 0}},
            "hovertemplate": "%{y:,} samples<br>confidence %{customdata[0]} to %{customdata[1]}"
            "<extra></extra>",
        },
    ]


def _layout(most: float) -> dict[str, Any]:
    """Return a layout whose bins hold so many samples at most."""
    return {
        "height": 520,
        "margin": MARGIN,
        "barmode": "overlay",
        "xaxis": {
            "title": {"text": "confidence"},
            "range": [-0.01, 1.02],
            "tickformat": "~%",
            "anchor": "y2",
            "automargin": True,
            "zeroline": False,
        },
        "yaxis": {
            "title": {"text": "accuracy"},
            "range": [-0.02, 1.03],
            "tickformat": "~%",
            "domain": [0.28, 1.0],
            "automargin": True,
            "zeroline": False,
        },
        "yaxis2": {
            "title": {"text": "samples"},
            "type": "log",
            "range": [float(np.log10(0.7)), float(np.log10(max(most, 1.0) * 1.5))],
            "dtick": "D1" if most < 10 else 1 if most < 1e4 else 2,
            "exponentformat": "SI",
            "domain": [0.0, 0.2],
            "automargin": True,
        },
        "legend": LEGEND,
    }


def _text(found: SingleEpochs, epoch: int) -> str:
    """Say how far confidence and accuracy are apart."""
    row = found.rows[epoch]
    if not found.valid(epoch):
        return found.nothing(epoch)
    error, over = row["ece"], row["ece_overconfident"]
    said = (
        f"the model is sure to {percent(row['confidence'])} on average and right in "
        f"{percent(row['accuracy'])}; its calibration error (ECE) is {error:.4f}"
    )
    if error > 0:
        said += f", of which {percent(over / error, 0)} is in bins that are too sure"
    return found.say(epoch, f"{said}.")

"""Concentration: which share of the loss the worst samples carry."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fastdiv.explain.evidence import Floats
from fastdiv.explain.shapes import Shapes
from fastdiv.render.pictures.picture import COLOURS, LEGEND, Frame, Picture, coordinates, epoch_key
from fastdiv.render.pictures.single_epochs import MARGIN, SingleEpochs, percent, samples

if TYPE_CHECKING:
    from fastdiv.explain.view import SplitView

TOLD = (0.01, 0.1)  # shares of the samples that are told in text
POINTS = 8  # of the curve, at least, in each decade of the axis
NOTHING = 5e-4  # of the loss: what no eye sees


def concentration(view: SplitView, epochs: Sequence[int]) -> Picture | None:
    """Draw the share of the loss against the share of the samples, worst first, by epoch.

    Exact at the ends of the bins of `Shapes`. None where no loss is finite and above 0.
    """
    found = SingleEpochs.of(view, epochs)
    curves = {epoch: curve(view.shapes(epoch)) for epoch in epochs}
    if all(of_epoch is None for of_epoch in curves.values()):
        return None
    n = max(found.valid(epoch) for epoch in epochs)
    infinite = any(view.shapes(epoch).n_infinite for epoch in epochs)
    return Picture(
        name="concentration",
        title="How few samples carry the loss",
        how="Read: the worst 1 % of the samples (across) carry this share of the loss (up). The "
        "higher the line is above the dotted one, on which all losses are equal, the fewer "
        "samples decide the mean. The axis of samples is logarithmic.",
        data=_traces(n),
        layout=_layout(n),
        by="epoch",
        frames={
            epoch_key(epoch): Frame(_text(found, view.shapes(epoch), of_epoch), _data(of_epoch, n))
            for epoch, of_epoch in curves.items()
        },
        note="Counted in bins of the loss: exact at their ends, and a little too low between."
        + (" Infinite losses are left out." if infinite else ""),
    )


def curve(shape: Shapes) -> tuple[Floats, Floats] | None:
    """Return shares (m,) of the samples, worst first, and the shares (m,) of the loss they carry.

    At the ends of the bins that hold a sample, from (0, 0) to (1, 1); over finite losses. None
    where these do not sum to more than 0.
    """
    counts = shape.loss.sum(axis=0)[::-1]
    sums = shape.loss_sums[::-1][counts > 0]
    counts = counts[counts > 0]
    total = float(sums.sum())
    if not total > 0:
        return None
    x = np.concatenate([[0.0], np.cumsum(counts) / counts.sum()])
    y = np.concatenate([[0.0], np.cumsum(sums) / total])
    x[-1] = y[-1] = 1.0  # rounding
    return x, y


def _data(of_epoch: tuple[Floats, Floats] | None, n: int) -> list[dict[str, Any]]:
    """Return what differs between epochs."""
    if of_epoch is None:
        return [{}, {"x": [], "y": []}]
    x, y = of_epoch
    # A chord is no straight line on a logarithmic axis: it is drawn through a few points of it.
    told = y <= 1 - NOTHING
    told[-1] = True
    drawn = np.union1d(x[told], _grid(n))
    drawn = drawn[drawn > 0]
    return [{}, {"x": coordinates(drawn), "y": coordinates(np.interp(drawn, x, y))}]


def _grid(n: int) -> Floats:
    """Return shares (m,) of n samples, evenly on a logarithmic axis, from one sample to all."""
    decades = np.log10(max(n, 10))
    return np.logspace(-decades, 0.0, 1 + int(np.ceil(POINTS * decades)))


def _traces(n: int) -> list[dict[str, Any]]:
    """Return what all epochs share."""
    even = coordinates(_grid(n))
    return [
        {
            "type": "scatter",
            "name": "equal losses",
            "mode": "lines",
            "x": even,
            "y": even,
            "line": {"dash": "dot", "width": 1.5, "color": COLOURS["total"]},
            "hoverinfo": "skip",
        },
        {
            "type": "scatter",
            "name": "share of the loss",
            "mode": "lines",
            "line": {"width": 3, "color": COLOURS["loss"]},
            "hovertemplate": "the worst %{x:.3~%} of the samples<br>carry %{y:.1%} of the loss"
            "<extra></extra>",
        },
    ]


def _layout(n: int) -> dict[str, Any]:
    """Return a layout that is the same for all epochs."""
    first = -float(np.log10(max(n, 10)))
    ticks = [10.0**k for k in range(int(np.ceil(first)), 1)]
    return {
        "height": 380,
        "margin": MARGIN,
        "xaxis": {
            "title": {"text": "share of the samples, the worst first"},
            "type": "log",
            "range": [first, 0.02],
            "tickvals": ticks,
            "ticktext": [f"{100 * tick:.6g} %" for tick in ticks],
            "automargin": True,
            "zeroline": False,
        },
        "yaxis": {
            "title": {"text": "share of the loss"},
            "range": [-0.03, 1.02],
            "tickformat": "~%",
            "automargin": True,
        },
        "legend": LEGEND,
    }


def _text(found: SingleEpochs, shape: Shapes, of_epoch: tuple[Floats, Floats] | None) -> str:
    """Say what the worst samples carry."""
    if not shape.n:
        return found.nothing(shape.epoch)
    if of_epoch is None:
        return found.say(shape.epoch, "no sample has a finite loss above 0.")
    x, y = of_epoch
    some, more = (percent(share, 0) for share in TOLD)
    by_some, by_more = (percent(float(np.interp(share, x, y)), 0) for share in TOLD)
    said = (
        f"the worst {some} of the samples carry about {by_some} of the loss, the worst {more} "
        f"about {by_more}; the worst {percent(float(np.interp(0.5, y, x)))} carry half of it."
    )
    if shape.n_infinite:
        said += f" Left out: {samples(shape.n_infinite)} with an infinite loss."
    return found.say(shape.epoch, said)

"""Data map: how sure of their label the model was of samples over training, and how steadily."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from fastdiv.explain.evidence import Floats, Ints
from fastdiv.explain.wording import plain_id
from fastdiv.markup import BLUE, GREEN, PURPLE, VERMILION
from fastdiv.render.pictures.picture import (
    LEGEND,
    Picture,
    coordinates,
    escaped,
)
from fastdiv.render.pictures.single_epochs import MARGIN, percent, samples

if TYPE_CHECKING:
    from fastdiv.explain.view import SplitView

MOST_DRAWN = 5_000
CELLS = (50, 40)  # of the density: across, up
WIDEST = 0.5  # no standard deviation of numbers between 0 and 1 is larger
LETTERS = 40  # of an id, and of a class

# Right in which share of the epochs: above one, up to another.
SHARES = (
    ("never right", -1.0, 0.0, VERMILION, "x"),
    ("up to half", 0.0, 0.5, PURPLE, "triangle-up"),
    ("more than half", 0.5, 1.0 - 1e-12, GREEN, "diamond"),
    ("always right", 1.0 - 1e-12, 1.0, BLUE, "circle"),
)


def cartography(view: SplitView) -> Picture | None:
    """Draw the data map of Swayamdipta et al. (2020, arXiv:2009.10795) of a split.

    None where no sample has two valid epochs: nothing then varies.
    """
    if len(view.epochs) < 2:
        return None
    table = view.samples
    epochs = table["n_epochs"].to_numpy()
    seen = np.flatnonzero(epochs > 0)
    if not len(seen) or int(epochs.max()) < 2:
        return None
    x, y = (table[name].to_numpy()[seen] for name in ("variability", "confidence"))
    n = len(seen)
    drawn = np.arange(n)
    note = ""
    if n > MOST_DRAWN:
        drawn = np.linspace(0, n - 1, MOST_DRAWN).round().astype(np.int64)
        note = f"{MOST_DRAWN:,} of {n:,} samples are drawn, evenly by id; the grey is of all."
    points = table.take(pa.array(seen[drawn]))
    return Picture(
        name="cartography",
        title="Data map",
        how="Each point is a sample. Up: the probability of its label, on average over the epochs; "
        "across: how much that varied (standard deviation). Marks: in how many of its epochs it "
        "was right. Top left is easy to learn, right ambiguous, bottom left hard to learn: wrong "
        "labels gather there. The darker the grey, the more samples.",
        data=[_density(x, y), *_points(points)],
        layout={
            "height": 520,
            "margin": MARGIN,
            "xaxis": {
                "title": {"text": "variability over the epochs"},
                "range": [-0.01, min(WIDEST, float(x.max())) * 1.03 + 0.01],
                "automargin": True,
                "zeroline": False,
            },
            "yaxis": {
                "title": {"text": "mean probability of the label"},
                "range": [-0.02, 1.02],
                "tickformat": "~%",
                "automargin": True,
                "zeroline": False,
            },
            "legend": LEGEND,
            "hovermode": "closest",
        },
        text=_text(view, n),
        note=note,
    )


def density(x: Floats, y: Floats) -> Ints:
    """Return how many points lie in each of `CELLS` (up, across): up to the widest x, and to 1."""
    across, up = CELLS
    widest = max(float(x.max()), 1e-9)
    i = np.clip((x * (across / widest)).astype(np.int64), 0, across - 1)
    j = np.clip((y * up).astype(np.int64), 0, up - 1)
    return np.bincount(j * across + i, minlength=across * up).reshape(up, across)


def _density(x: Floats, y: Floats) -> dict[str, Any]:
    """Return a faint map of all samples."""
    counts = density(x, y)
    across, up = CELLS
    widest = max(float(x.max()), 1e-9)
    shade = np.where(counts > 0, np.log1p(counts), np.nan)
    return {
        "type": "heatmap",
        "x0": widest / across / 2,
        "dx": widest / across,
        "y0": 1 / up / 2,
        "dy": 1 / up,
        "z": [[None if v is None else round(v, 2) for v in coordinates(row)] for row in shade],
        "zmin": 0,
        "colorscale": [[0, "rgba(127,127,127,0.06)"], [1, "rgba(127,127,127,0.6)"]],
        "showscale": False,
        "hoverinfo": "skip",
    }


def _points(table: pa.Table) -> list[dict[str, Any]]:
    """Return a trace for each share of epochs in which samples were right."""
    right, epochs = (table[name].to_numpy() for name in ("n_correct", "n_epochs"))
    share = right / epochs
    traces = []
    for name, above, most, colour, symbol in SHARES:
        some = table.filter(pa.array((share > above) & (share <= most)))
        columns = ("sample_id", "label", "n_correct", "n_epochs", "forgetting_events")
        rows = zip(*(some[column].to_pylist() for column in columns), strict=True)
        traces.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": name,
                "x": coordinates(some["variability"].to_numpy()),
                "y": coordinates(some["confidence"].to_numpy()),
                "customdata": [
                    [escaped(str(plain_id(i)), LETTERS), escaped(str(label), LETTERS), *numbers]
                    for i, label, *numbers in rows
                ],
                "marker": {"color": colour, "symbol": symbol, "size": 5, "opacity": 0.8},
                "hovertemplate": "%{customdata[0]}<br>label %{customdata[1]}<br>"
                "right in %{customdata[2]} of %{customdata[3]} epochs, "
                "forgotten %{customdata[4]} times<extra></extra>",
            }
        )
    return traces


def _text(view: SplitView, n: int) -> str:
    """Say what the regions hold."""
    words = {"easy": "easy to learn", "ambiguous": "ambiguous", "hard": "hard to learn"}
    rows = [row for row in view.regions().to_pylist() if row["region"] in words and row["n"]]
    if not rows:
        return f"There {'is' if n == 1 else 'are'} {samples(n)}."
    regions = _listed([f"{row['n']:,} are {words[row['region']]}" for row in rows])
    right = _listed([percent(row["accuracy"]) for row in rows])
    return f"Of {samples(n)}, {regions}; in their last epoch, {right} of these are right."


def _listed(words: Sequence[str]) -> str:
    """Return words as a sentence lists them."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)

"""Picture: what plotly draws, as plain data, with a frame for each thing the reader may choose."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np

from fastdiv import markup
from fastdiv.errors import UsageError
from fastdiv.markup import BLUE, GREEN, PURPLE, VERMILION

DIGITS = 5  # significant ones of a coordinate
MORE_DIGITS = 8  # where there are few, and their values are read to the last digit
TITLE = 45  # pixels above a figure that shows its own title
# Below the picture, where it may take as many lines as it needs.
LEGEND = {
    "orientation": "h", "x": 0, "xanchor": "left", "yref": "container", "y": 0, "yanchor": "bottom",
}  # fmt: skip

COLOURS = {
    "right": BLUE,
    "wrong": VERMILION,
    "loss": markup.LOSS,
    "accuracy": markup.ACCURACY,
    "rr": BLUE,
    "rw": VERMILION,
    "wr": GREEN,
    "ww_same": "#66666a",  # darker than GREY: not like PURPLE without red or green
    "ww_changed": PURPLE,
    "refinement": GREEN,
    "calibration": PURPLE,
    "better": markup.BETTER,  # lowers the loss
    "worse": markup.WORSE,  # raises it
    "total": markup.TOTAL,
}


@dataclass(frozen=True, slots=True)
class Frame:
    """What a picture shows for one choice of the reader.

    Attributes
    ----------
    text : str
        What is to be seen, in a sentence with numbers: the caption, and what is read aloud.
    data : list of dict
        For each trace, the attributes that replace those of the picture's trace.
    layout : dict
        Attributes that replace those of the picture's layout, by path (``"xaxis.range"``).
    """

    text: str
    data: list[dict[str, Any]] = field(default_factory=list)
    layout: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Picture:
    """A plotly figure as plain data.

    Colours of text, paper and grid are left to the page that shows it.

    Attributes
    ----------
    name : str
    title : str
        What it is of, in a few words.
    how : str
        A sentence that says how to read it.
    data : list of dict
        Traces.
    layout : dict
    text : str
        What is to be seen, in a sentence with numbers; of a picture with frames, see there.
    by : {"epoch", "pair"} or None
        What the reader chooses.
    frames : dict of str to Frame
        By the key of the choice, see `epoch_key` and `pair_key`; one at least where `by` is given.
    note : str
        What is sampled, estimated or left out; empty where nothing is.
    """

    name: str
    title: str
    how: str
    data: list[dict[str, Any]]
    layout: dict[str, Any]
    text: str = ""
    by: Literal["epoch", "pair"] | None = None
    frames: dict[str, Frame] = field(default_factory=dict)
    note: str = ""

    def chosen(self, key: str | None = None) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        """Return traces and layout for a choice; by default, the last frame.

        Raises
        ------
        UsageError
            Where there is no such frame.
        """
        if self.by is None:
            return self.data, self.layout
        frame = self.frame(key)
        replaced = [*frame.data, *({} for _ in self.data[len(frame.data) :])]
        data = [{**trace, **new} for trace, new in zip(self.data, replaced, strict=True)]
        return data, _set(self.layout, frame.layout)

    def frame(self, key: str | None = None) -> Frame:
        """Return the frame for a choice; by default, the last."""
        key = next(reversed(self.frames)) if key is None else key
        if key not in self.frames:
            raise UsageError(
                f"{self.title} is there for {self.by} {', '.join(self.frames)}, not {key}"
            )
        return self.frames[key]

    def figure(self, key: str | None = None) -> Any:
        """Return a ``plotly.graph_objects.Figure``, which can be changed and exported.

        Raises
        ------
        UsageError
            Where plotly is not installed.
        """
        plotly = plotly_or_error()
        data, layout = self.chosen(key)
        title = {"text": escaped(self.title), "x": 0, "xref": "paper", "y": 1, "yanchor": "top"}
        title["pad"] = {"t": 14}
        base = {"template": "plotly_white", "title": title}
        margin = {**layout.get("margin", {}), "t": layout.get("margin", {}).get("t", 0) + TITLE}
        if "height" in layout:
            layout = {**layout, "height": layout["height"] + TITLE}
        return plotly.Figure({"data": data, "layout": {**base, **layout, "margin": margin}})

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain data that JSON can hold."""
        return asdict(self)


def _set(layout: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return a layout with attributes replaced by path."""
    made: dict[str, Any] = dict(layout)
    for path, value in changes.items():
        *parents, last = path.split(".")
        inner = made
        for parent in parents:
            inner[parent] = dict(inner.get(parent, {}))
            inner = inner[parent]
        inner[last] = value
    return made


def plotly_or_error() -> Any:
    """Return ``plotly.graph_objects``."""
    try:
        import plotly.graph_objects as plotly
    except ImportError as error:
        raise UsageError(
            "pictures are drawn by plotly, which is not installed: pip install 'fastdiv[report]'"
        ) from error
    return plotly


def epoch_key(epoch: int) -> str:
    """Return the key of an epoch's frame."""
    return str(epoch)


def pair_key(a: int, b: int) -> str:
    """Return the key of the frame of a pair of epochs."""
    return f"{a}→{b}"


def coordinates(values: Any, digits: int = DIGITS) -> list[float | None]:
    """Return numbers as JSON holds them, in few digits; None where they are not finite."""
    return [
        float(f"{x:.{digits}g}") if np.isfinite(x) else None
        for x in np.asarray(values, np.float64).tolist()
    ]


def signed(x: float, digits: int = 4) -> str:
    """Write a number with a sign, that of minus as plotly writes it; none where it rounds to 0."""
    text = f"{x:+.{digits}f}"
    return text[1:] if float(text) == 0 else text.replace("-", "−")


def plain(text: str, most: int = 60) -> str:
    """Return a name from the data on one line: no control characters, and cut where it is long."""
    return markup.printable(text, most)


def escaped(text: str, most: int = 60) -> str:
    """Return a name from the data as plotly shows it: nothing in it is taken for markup.

    Neither for HTML nor, where MathJax is loaded, for a formula. Line breaks and other control
    characters become spaces; long names are cut.
    """
    line = plain(text, most).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return line.replace("$", "&#36;")

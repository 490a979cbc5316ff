"""Curves of two classes: ROC, precision and recall, and what other thresholds would do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fastdiv.explain.ranking.steps import METRICS, Bounds
from fastdiv.markup import BLUE, GREEN, GREY, PURPLE
from fastdiv.render.pictures.epoch_curves import (
    MOST_POINTS,
    SEEN,
    EpochCurves,
    Points,
    curves_of,
    cuts,
)
from fastdiv.render.pictures.picture import (
    COLOURS,
    LEGEND,
    Frame,
    Picture,
    coordinates,
    epoch_key,
    plain,
    signed,
)
from fastdiv.render.pictures.single_epochs import (
    MARGIN,
    SingleEpochs,
    class_names,
    percent,
    thinned,
)

if TYPE_CHECKING:
    from fastdiv.explain.view import SplitView

Traces = list[dict[str, Any]]
GUESSING = {
    "type": "scatter",
    "name": "guessing",
    "mode": "lines",
    "line": {"dash": "dot", "width": 1.5, "color": COLOURS["total"]},
}


def roc(view: SplitView, epochs: Sequence[int]) -> Picture | None:
    """Draw true against false positive rate, for each of some epochs.

    None where there are not two classes, or no epoch has positives and negatives.
    """
    diagonal = {**GUESSING, "x": [0, 1], "y": [0, 1], "hoverinfo": "skip"}

    def text(made: EpochCurves) -> str:
        if made.area is None:
            return f"{_all_of_a_kind(made)}: there is no ROC curve."
        return (
            f"the area under the ROC curve is {_known(made.area)}: a positive sample scores higher "
            f"than a negative one in {percent(made.area.value)} of all pairs ({made.positives:,} "
            f"positives, {made.negatives:,} negatives)."
        )

    return _picture(
        view, epochs, "roc", "ROC curve",
        how="Each point of the line is a threshold. Across: the share of negatives that are called "
        "positive; up: the share of positives that are. The nearer to the upper left corner, the "
        "better the ranking; the dotted line is guessing.",
        traces=[diagonal, _line("ROC curve", "false positive rate", "true positive rate")],
        data=lambda made: [{}, _points(made.roc)],
        known=lambda made: made.roc is not None,
        text=text,
        axes=("false positive rate", "true positive rate"),
    )  # fmt: skip


def precision_recall(view: SplitView, epochs: Sequence[int]) -> Picture | None:
    """Draw precision against recall, for each of some epochs.

    None where there are not two classes, or no epoch has positives.
    """
    said = "the share of positives: %{y:.2%}<extra></extra>"
    guessing = {**GUESSING, "hovertemplate": said}

    def data(made: EpochCurves) -> Traces:
        share = made.positives / max(made.positives + made.negatives, 1)
        return [{"x": [0, 1], "y": coordinates([share, share])}, _points(made.precision_recall)]

    def text(made: EpochCurves) -> str:
        if made.average_precision is None:
            return f"{_all_of_a_kind(made)}: there is neither precision nor recall to speak of."
        share = made.positives / (made.positives + made.negatives)
        said = (
            f"the average precision is {_known(made.average_precision)}; guessing would reach "
            f"{share:.4f}, the share of positives"
        )
        if made.best_f1 is not None:
            said += (
                f". F1 is best, {made.best_f1.value:.4f}, above the threshold "
                f"{made.best_f1.threshold:.4g}"
            )
        return f"{said}."

    return _picture(
        view, epochs, "precision_recall", "Precision and recall",
        how="Each point of the line is a threshold. Across: the share of positives that are found; "
        "up: the share of what is called positive that is so. The nearer to the upper right "
        "corner, the better; the dotted line is guessing.",
        traces=[guessing, _line("precision", "recall", "precision")],
        data=data,
        known=lambda made: made.precision_recall is not None,
        text=text,
        axes=("recall", "precision"),
    )  # fmt: skip


def thresholds(view: SplitView, epochs: Sequence[int]) -> Picture | None:
    """Draw accuracy, precision, recall and F1 by threshold, for each of some epochs.

    None where there are not two classes, or no sample is valid.
    """
    _, x = cuts()
    lines = [
        {
            "type": "scatter",
            "name": name,
            "mode": "lines",
            "x": coordinates(x),
            "line": {"dash": dash, "width": width, "color": colour},
            "hovertemplate": f"{name} %{{y:.2%}}<extra></extra>",
        }
        for name, dash, width, colour in (
            ("accuracy", "solid", 3, BLUE),
            ("precision", "dash", 2, GREEN),
            ("recall", "dot", 2, PURPLE),
            ("F1", "dashdot", 2, GREY),
        )
    ]
    best = {
        "type": "scatter",
        "name": "best accuracy",
        "mode": "markers",
        "marker": {"symbol": "star", "size": 12, "color": BLUE},
        "hovertemplate": "best accuracy %{y:.2%}, threshold %{x:.4f}<extra></extra>",
    }

    def data(made: EpochCurves) -> Traces:
        p, n, tp, fp = made.positives, made.negatives, made.tp, made.fp
        with np.errstate(invalid="ignore", divide="ignore"):  # of nothing, nothing is drawn
            values = [
                METRICS["accuracy"].of(tp, fp, p, n),
                tp / (tp + fp),
                tp / np.float64(p),
                2 * tp / np.where(p, p + tp + fp, np.nan),
            ]
        star = made.best_accuracy
        at = ([], []) if star is None else ([star.threshold], [star.value])
        return [
            *({"y": coordinates(y)} for y in values),
            {"x": coordinates(at[0]), "y": coordinates(at[1])},
        ]

    def text(made: EpochCurves) -> str:
        star = made.best_accuracy
        if star is None:
            return "no sample is valid."
        now = float(METRICS["accuracy"].of(made.tp, made.fp, made.positives, made.negatives)[49])
        said = f"above the threshold 0.5 the accuracy is {percent(now, 2)}"
        if star.value <= now:
            return f"{said}, and no other threshold does better."
        return (
            f"{said}; the best threshold, {star.threshold:.4g}, would reach "
            f"{percent(star.value, 2)} ({signed(100 * (star.value - now), 2)} points)."
        )

    made = _picture(
        view, epochs, "thresholds", "Other thresholds",
        how="What would be right if samples were called positive above another probability than "
        "0.5, the upright line. The star is the best for accuracy; as it is chosen on the samples "
        "that it is measured on, it is a little too good.",
        traces=[*lines, best],
        data=data,
        known=lambda made: made.best_accuracy is not None,
        text=text,
        axes=("threshold", "accuracy, precision, recall, F1"),
    )  # fmt: skip
    if made is not None:
        values = [y for frame in made.frames.values() for line in frame.data[:4] for y in line["y"]]
        lowest = min(y for y in values if y is not None)
        made.layout["yaxis"]["range"] = [np.floor(lowest * 10 - 0.01) / 10, 1.02]
        made.layout["hovermode"] = "x unified"
        made.layout["xaxis"]["tickformat"] = "~g"
        made.layout["shapes"] = [
            {
                "type": "line", "xref": "x", "yref": "paper", "layer": "below",
                "x0": 0.5, "x1": 0.5, "y0": 0, "y1": 1,
                "line": {"dash": "dot", "width": 1.5, "color": COLOURS["total"]},
            }
        ]  # fmt: skip
    return made


def _picture(
    view: SplitView, epochs: Sequence[int], name: str, title: str, *, how: str, traces: Traces,
    data: Callable[[EpochCurves], Traces], known: Callable[[EpochCurves], bool],
    text: Callable[[EpochCurves], str], axes: tuple[str, str],
) -> Picture | None:  # fmt: skip
    """Return a picture of the curves of some epochs; None where none is known."""
    if not epochs or len(class_names(view)) != 2:
        return None
    found = SingleEpochs.of(view, epochs)
    drawn, note = thinned(view, epochs, found)
    made = {epoch: curves_of(view, epoch) for epoch in drawn}
    if not any(known(curves) for curves in made.values()):
        return None
    positive = plain(class_names(view)[1])
    if view.evidence.class_names is None:
        positive = f"class {positive}"
    if name != "thresholds":
        off = max(curves.off[name != "roc"] for curves in made.values())
        kept = (
            f"The line goes through up to {MOST_POINTS} points of each curve, and is within "
            f"{max(off, SEEN):.4f} of all others."
        )
        note = f"{kept} {note}".strip()
    return Picture(
        name=name,
        title=title,
        how=f"{how} Positive is {positive}.",
        data=traces,
        layout=_layout(*axes),
        by="epoch",
        frames={
            epoch_key(epoch): Frame(found.say(epoch, text(curves)), data(curves))
            for epoch, curves in made.items()
        },
        note=note,
    )


def _line(name: str, across: str, up: str) -> dict[str, Any]:
    """Return the trace of a curve."""
    return {
        "type": "scatter",
        "name": name,
        "mode": "lines",
        "line": {"width": 3, "color": BLUE},
        "hovertemplate": f"{up} %{{y:.2%}}<br>{across} %{{x:.2%}}<br>threshold %{{customdata}}"
        "<extra></extra>",
    }


def _points(points: Points | None) -> dict[str, Any]:
    """Return what differs between epochs."""
    if points is None:
        return {"x": [], "y": [], "customdata": []}
    x, y, threshold = (coordinates(values) for values in points)
    return {"x": x, "y": y, "customdata": threshold}


def _layout(across: str, up: str) -> dict[str, Any]:
    axis = {"range": [-0.01, 1.02], "tickformat": "~%", "automargin": True, "zeroline": False}
    return {
        "height": 440,
        "margin": MARGIN,
        "xaxis": {**axis, "title": {"text": across}},
        "yaxis": {**axis, "title": {"text": up}},
        "legend": LEGEND,
    }


def _known(bounds: Bounds) -> str:
    """Write a number, with how far it may be off where that shows."""
    off = f" (± {bounds.error:.1g})" if bounds.error > 5e-5 else ""
    return f"{bounds.value:.4f}{off}"


def _all_of_a_kind(made: EpochCurves) -> str:
    """Say why there is no curve."""
    if not made.positives + made.negatives:
        return "no sample is valid"
    return f"all samples are {'positive' if made.positives else 'negative'}"

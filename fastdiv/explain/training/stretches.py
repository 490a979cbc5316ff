"""Stretches: which pairs of epochs are worth explaining, where nobody named any."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastdiv.explain.evidence import Floats

MOST_POINTS = 400  # epochs of which all pairs are looked at; more are thinned out
CLEAR = 2.0  # standard deviations of the epoch-to-epoch noise that both must have moved by


@dataclass(frozen=True, slots=True)
class Stretch:
    """Two epochs worth explaining, in the order in which they came, and why."""

    epoch_from: int
    epoch_to: int
    why: str


def stretches(rows: Sequence[Mapping[str, Any]]) -> list[Stretch]:
    """Choose pairs of epochs: between the best ones, where loss and accuracy part, and to the end.

    Parameters
    ----------
    rows : sequence of dict
        Rows of `Run.epochs` of one split.

    Returns
    -------
    list of Stretch
        The first is between the epochs of lowest loss and highest accuracy, where they differ.
        Then the two epochs between which loss and accuracy rose most together, and those between
        which they fell most together: by the smaller of the two changes, each in standard
        deviations of its epoch-to-epoch noise. Last, from the lowest loss to the last epoch. All
        different; none where fewer than two epochs have a finite loss.
    """
    known = [r for r in rows if r["loss_finite"] is not None and r["accuracy"] is not None]
    known = sorted(known, key=lambda r: r["epoch"])
    if len(known) < 2:
        return []
    epochs = [int(r["epoch"]) for r in known]
    loss = np.array([r["loss_finite"] for r in known])
    accuracy = np.array([r["accuracy"] for r in known])
    infinite = np.array([bool(r.get("n_infinite")) for r in known])
    lowest = int(np.lexsort((np.arange(len(loss)), loss, infinite))[0])
    highest = int(accuracy.argmax())
    found = [(lowest, highest, "from the lowest loss to the highest accuracy")]
    if highest < lowest:
        found = [(highest, lowest, "from the highest accuracy to the lowest loss")]
    for sign, words in ((1, "loss and accuracy rose together"), (-1, "both fell together")):
        parting = _parting(sign * loss, sign * accuracy)
        if parting is not None:
            found.append((*parting, words))
    found.append((lowest, len(known) - 1, "from the lowest loss to the last epoch"))
    if len(known) == 2:
        found.append((0, 1, "the two epochs there are"))
    chosen: dict[tuple[int, int], str] = {}
    for a, b, why in found:
        if a != b:
            chosen.setdefault((a, b), why)
    if not chosen:
        chosen = {(0, len(known) - 1): "from the first epoch to the last, the best by both"}
    return [Stretch(epochs[a], epochs[b], why) for (a, b), why in chosen.items()]


def _parting(loss: Floats, accuracy: Floats) -> tuple[int, int] | None:
    """Return the places of the two epochs between which both rose most, if both did clearly."""
    n = len(loss)
    at = np.unique(np.linspace(0, n - 1, min(n, MOST_POINTS)).round().astype(np.int64))
    rises = [_rise(x, at) for x in (loss, accuracy)]
    both = np.minimum(*rises)
    a, b = np.unravel_index(int(both.argmax()), both.shape)
    return (int(at[a]), int(at[b])) if both[a, b] > CLEAR else None


def _rise(x: Floats, at: NDArray[np.int64]) -> Floats:
    """Return how much x rose from each place to each later one, in units of its noise."""
    steps = np.diff(x)
    # Of second differences, a trend is gone: sqrt(6) times the noise of one value.
    bends = np.abs(np.diff(steps)) if len(steps) > 1 else np.abs(steps)
    noise = float(np.median(bends)) / 0.6745 / np.sqrt(6.0)
    scale = max(noise, 1e-3 * float(np.ptp(x)), 1e-300)
    rise = (x[at][None, :] - x[at][:, None]) / scale
    return np.where(at[None, :] > at[:, None], rise, -np.inf)

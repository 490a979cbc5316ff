"""What the pictures of single epochs have in common: whom they are of, and which are drawn."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.compute as pc

from fastdiv.render.pictures.epoch_axis import EpochAxis
from fastdiv_kernels.contract import PRESENT, REASON

if TYPE_CHECKING:
    from fastdiv.explain.view import SplitView
    from fastdiv.stored import Stored

MOST_ROWS = 20_000_000  # scores of samples that one picture reads, over all its epochs
FEW = 5  # epochs that are drawn however many samples they have

MARGIN = {"l": 10, "r": 24, "t": 10, "b": 10}


@dataclass(frozen=True, slots=True)
class SingleEpochs:
    """Epochs of a split, each for itself.

    Attributes
    ----------
    axis : EpochAxis
        What they are called.
    rows : dict of int to dict
        Their rows of `Run.epochs`.
    """

    axis: EpochAxis
    rows: dict[int, dict[str, Any]]

    @classmethod
    def of(cls, view: SplitView, epochs: Sequence[int] = ()) -> SingleEpochs:
        """Take those of a split; refuse those to be drawn whose scores are not stored."""
        for epoch in epochs:
            view.evidence.check(epoch)
        rows = {int(row["epoch"]): row for row in view.epochs.to_pylist()}
        return cls(EpochAxis.of(rows.values()), rows)

    def valid(self, epoch: int) -> int:
        """Return how many samples are valid in an epoch."""
        row = self.rows[epoch]
        return int(row["n"] - row["n_invalid"])

    def any_valid(self, epochs: Sequence[int]) -> bool:
        """Tell whether there is anything to draw in any of some epochs."""
        return any(self.valid(epoch) for epoch in epochs)

    def say(self, epoch: int, sentence: str) -> str:
        """Return a sentence about an epoch, which begins with its number or name."""
        name = self.axis.say(epoch)
        return f"{'' if epoch in self.axis.names else 'Epoch '}{name}: {sentence}"

    def nothing(self, epoch: int) -> str:
        """Say that there is nothing to draw."""
        return self.say(epoch, "no sample is valid.")


def valid_blocks(view: SplitView, epoch: int) -> Iterator[Stored]:
    """Yield what is stored of the valid samples of an epoch, some at a time, in no useful order.

    A fifth of what `SplitView.side` costs, which puts them in the order of their ids.
    """
    samples = view.evidence.samples
    view.evidence.check(epoch)
    file = samples.store.epoch(epoch)
    for block in range(-(-len(samples) // file.block)):
        stored = samples.read(file, block)
        valid = (stored.flags & (PRESENT | REASON)) == PRESENT
        yield stored if valid.all() else stored.take(np.flatnonzero(valid))


def class_names(view: SplitView) -> list[str]:
    """Return what the classes are called: their names, or numbers."""
    epochs = view.classes["epoch"]
    first = view.classes.filter(pc.equal(epochs, epochs[0])) if len(epochs) else view.classes
    return [str(name) for name in first["class"].to_pylist()]


def samples(n: int) -> str:
    """Write how many samples."""
    return f"{n:,} sample{'' if n == 1 else 's'}"


def percent(share: float, digits: int = 1) -> str:
    """Write a share; one that would round to 0 or 100 % but is not has more digits."""
    for more in range(digits, digits + 3):
        text = f"{100 * share:.{more}f}"
        if share in (0.0, 1.0) or float(text) not in (0.0, 100.0):
            return f"{text} %"
    return "nearly 100 %" if share > 0.5 else f"{100 * share:.2g} %"


def thinned(
    view: SplitView, epochs: Sequence[int], found: SingleEpochs, most_rows: int = MOST_ROWS
) -> tuple[list[int], str]:
    """Choose the epochs whose samples are read, so that a picture does not take minutes.

    Parameters
    ----------
    view : SplitView
    epochs : sequence of int
    found : SingleEpochs
    most_rows : int
        Of all epochs together.

    Returns
    -------
    epochs : list of int
        All, or where these have more rows together: the first, the last, the
        best by loss, accuracy and refinement, and others evenly between.
    note : str
        Which, where not all; else empty.
    """
    epochs = list(epochs)
    n = max((found.valid(epoch) for epoch in epochs), default=0)
    most = max(FEW, most_rows // max(n, 1))
    if len(epochs) <= most:
        return epochs, ""
    best = [epoch for epoch in view.best_epochs().values() if epoch in epochs]
    chosen = {epochs[0], epochs[-1], *best}
    # As many evenly spaced ones as there is room for; some of them may be chosen already.
    for k in range(most, 1, -1):
        spaced = {epochs[i] for i in np.linspace(0, len(epochs) - 1, k).round().astype(int)}
        if len(chosen | spaced) <= most:
            chosen |= spaced
            break
    kept = sorted(chosen)
    return kept, (
        f"{len(kept):,} of {len(epochs):,} epochs are drawn, to save time: the first, the last, "
        "the best and some evenly between."
    )

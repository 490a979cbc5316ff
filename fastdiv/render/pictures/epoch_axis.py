"""Epochs along an axis: by number, or by the names that checkpoints have."""

from __future__ import annotations

import string
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

import numpy as np

from fastdiv.render.pictures.picture import escaped, plain

CLOSE = 12  # epochs, at most, so that each has a tick
NAMES = 8  # ticks, at most, of epochs that have names
TICK = 24  # letters of a name at a tick


@dataclass(frozen=True, slots=True)
class EpochAxis:
    """Which epochs there are, in order, and what they are called."""

    numbers: tuple[int, ...]
    names: Mapping[int, str]

    @classmethod
    def of(cls, rows: Iterable[Mapping[str, Any]]) -> EpochAxis:
        """Make it of rows of `Run.epochs`."""
        names = {int(row["epoch"]): row.get("epoch_name") for row in rows}
        known = {epoch: name for epoch, name in names.items() if name is not None}
        return cls(tuple(sorted(names)), known)

    def say(self, epoch: int) -> str:
        """Return the name of an epoch, or its number, as text shows it."""
        return plain(self.names[epoch]) if epoch in self.names else str(epoch)

    def shown(self, epoch: int) -> str:
        """Return the name of an epoch, or its number, as plotly shows it."""
        return escaped(self.names[epoch]) if epoch in self.names else str(epoch)

    def short(self, epoch: int) -> str:
        """Return the name of an epoch, or its number, as plotly shows it where there is no room.

        Of long names, what all begin with is left out: they would be cut to the same letters.
        """
        name = self.names.get(epoch)
        if name is None:
            return str(epoch)
        long = len(self.names) > 1 and max(map(len, self.names.values())) > TICK
        ends = (min(self.names.values()), max(self.names.values())) if long else ("", "")
        letters = takewhile(lambda two: two[0] == two[1], zip(*ends, strict=False))
        alike = "".join(letter for letter, _ in letters)
        alike = alike.rstrip(string.ascii_letters + string.digits)  # whole words are left out
        return escaped(f"…{name[len(alike) :]}" if alike else name, TICK)

    def layout(self, bars: bool = False) -> dict[str, Any]:
        """Return an axis that shows all epochs; where bars stand on them, with room for these."""
        first, last = self.numbers[0], self.numbers[-1]
        step = int(np.diff(self.numbers).min(initial=last - first or 1))
        few = len(self.numbers) <= 3
        least = (1.2 if first == last else 0.6) if bars else 0.4 if few else 0.0
        room = max(0.03 * (last - first), least * step)
        axis: dict[str, Any] = {
            "title": {"text": "epoch"},
            "range": [first - room, last + room],
            "automargin": True,
            "zeroline": False,
        }
        if self.names:
            every = -(-len(self.numbers) // NAMES)
            at = self.numbers[::every]
            text = [self.short(e) for e in at]
            return {**axis, "title": {"text": ""}, "tickvals": list(at), "ticktext": text}
        if len(set(np.diff(self.numbers).tolist())) <= 1 and len(self.numbers) <= CLOSE:
            return {**axis, "tickvals": list(self.numbers), "tickformat": "d"}
        if last - first <= CLOSE:
            return {**axis, "tick0": first, "dtick": 1, "tickformat": "d"}
        return {**axis, "tickformat": "d"}

"""EpochResult: what a tracker says of an epoch that has ended."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, repr=False)
class EpochResult:
    """What `Tracker.end_epoch` says of an epoch; its `repr` is one line.

    Attributes
    ----------
    epoch : int
    row : dict
        The epoch's row of `Run.epochs`.
    transition : dict or None
        The row of `Run.transitions` from the epoch that ended before; None for the first.
    before : dict or None
        That epoch's row of `Run.epochs`.
    """

    epoch: int
    row: dict[str, Any]
    transition: dict[str, Any] | None
    before: dict[str, Any] | None

    @property
    def loss(self) -> float:
        """The mean loss in nats; NaN where no sample is valid."""
        return _number(self.row["loss"])

    @property
    def accuracy(self) -> float:
        """The share of valid samples that are right; NaN where none is valid."""
        return _number(self.row["accuracy"])

    def __repr__(self) -> str:
        split = f"{self.row['split']}, " if self.row["split"] is not None else ""
        values = []
        for name in ("loss", "accuracy"):
            value = _number(self.row[name])
            change = value - _number(self.before[name]) if self.before else math.nan
            more = f" ({change:+.4f})" if math.isfinite(change) else ""
            values.append(f"{name} {value:.4f}{more}")
        line = f"{split}epoch {self.epoch}: {', '.join(values)}; "
        if self.transition is None:
            line += f"{self.row['n']:,} samples"
        else:
            wrong, right, n = (self.transition[name] for name in ("rw", "wr", "n"))
            line += f"{wrong:,} right→wrong, {right:,} wrong→right of {n:,}"
        invalid = self.row["n_invalid"]
        return line + (f"; {invalid:,} invalid" if invalid else "")


def _number(value: float | None) -> float:
    return math.nan if value is None else value

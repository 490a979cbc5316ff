"""What changed between two epochs beyond chance: loss, accuracy, and which quadrant that is."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from fastdiv.explain.accounts.exact import by_cell
from fastdiv.explain.accounts.terms import Term, cells
from fastdiv.explain.chance.tests import (
    MeanTest,
    accuracy_interval,
    holm,
    mcnemar,
    mean_test,
    probability,
)
from fastdiv.explain.chance.wording import as_text
from fastdiv.explain.evidence import Pair
from fastdiv.explain.in_notebook import change_html

ALPHA = 0.05


@dataclass(frozen=True, slots=True)
class Change:
    """The change in loss and accuracy between two epochs, over the samples of both.

    Attributes
    ----------
    split : str or None
    epoch_from, epoch_to : int
    n : int
        Samples; those whose loss is infinite in one epoch count for accuracy alone.
    n_became_infinite, n_ceased_infinite : int
        Samples whose loss is infinite in the later, in the earlier epoch alone.
    loss : MeanTest
        Of the finite changes in loss, in nats.
    n_right_to_wrong, n_wrong_to_right : int
    delta_accuracy : float or None
        Change in the share that is right; None where there is no sample.
    accuracy_low, accuracy_high : float
        Score interval (Tango 1998) of that change at the level ``1 - alpha``.
    p_loss, p_accuracy : float or None
        What the directions rest on: the cautious p-value of `chance.tests.probability` and exact
        McNemar, adjusted by Holm where several pairs are asked about; None where there is no
        sample.
    direction_loss, direction_accuracy : str
        "up", "down", or "flat" where the change is within noise.
    cells : tuple of Term
        rr, rw, wr, ww_same, ww_changed, as in `Run.transitions`: how many samples went so, those
        with infinite losses too, and the nats that they add to the change in mean loss.
    level : float
        Of the intervals.
    name_from, name_to : str or None
        Of epochs that have names.
    """

    split: str | None
    epoch_from: int
    epoch_to: int
    n: int
    n_became_infinite: int
    n_ceased_infinite: int
    loss: MeanTest
    n_right_to_wrong: int
    n_wrong_to_right: int
    delta_accuracy: float | None
    accuracy_low: float
    accuracy_high: float
    p_loss: float | None
    p_accuracy: float | None
    direction_loss: str
    direction_accuracy: str
    cells: tuple[Term, ...]
    level: float
    name_from: str | None = None
    name_to: str | None = None

    def __str__(self) -> str:
        return as_text(self)

    @property
    def labels(self) -> tuple[str, str]:
        """What people call the epochs: their names, or numbers."""
        return self.name_from or str(self.epoch_from), self.name_to or str(self.epoch_to)

    @property
    def quadrant(self) -> str:
        """Both directions in a word, such as "loss_up_accuracy_down"."""
        return f"loss_{self.direction_loss}_accuracy_{self.direction_accuracy}"

    @property
    def significant(self) -> bool:
        """Whether loss or accuracy changed beyond chance."""
        return self.quadrant != "loss_flat_accuracy_flat"

    def _repr_html_(self) -> str:
        return change_html(self)

    def to_dict(self) -> dict[str, Any]:
        """Return the attributes, the quadrant and whether it is significant, for JSON."""
        names = (name for name in self.__dataclass_fields__ if name not in ("loss", "cells"))
        return {
            **{name: getattr(self, name) for name in names},
            "loss": self.loss.to_dict(),
            "cells": [asdict(cell) for cell in self.cells],
            "quadrant": self.quadrant,
            "significant": self.significant,
        }


def change(pair: Pair, alpha: float = ALPHA) -> Change:
    """Tell what changed between two epochs, and whether it is beyond chance.

    Loss and accuracy are each tested at `alpha`.

    Raises
    ------
    UsageError
        Where alpha is not between 0 and 1.
    """
    delta = pair.delta
    loss = mean_test(delta[np.isfinite(delta)], 1 - alpha)
    before, after = np.isinf(pair.before.loss), np.isinf(pair.after.loss)
    b = int(np.count_nonzero(pair.before.correct & ~pair.after.correct))
    c = int(np.count_nonzero(~pair.before.correct & pair.after.correct))
    n = len(pair)
    low, high = accuracy_interval(b, c, n, 1 - alpha)
    untold = Change(
        split=pair.split,
        epoch_from=pair.before.epoch,
        epoch_to=pair.after.epoch,
        n=n,
        n_became_infinite=int(np.count_nonzero(after & ~before)),
        n_ceased_infinite=int(np.count_nonzero(before & ~after)),
        loss=loss,
        n_right_to_wrong=b,
        n_wrong_to_right=c,
        delta_accuracy=(c - b) / n if n else None,
        accuracy_low=low,
        accuracy_high=high,
        p_loss=None,
        p_accuracy=None,
        direction_loss="flat",
        direction_accuracy="flat",
        cells=_cells(pair),
        level=1 - alpha,
    )
    p_loss = probability(loss) if loss.n else None
    return _directed(untold, p_loss, mcnemar(b, c) if n else None, alpha)


def _cells(pair: Pair) -> tuple[Term, ...]:
    """Return what each cell adds to the change in loss, and all of its samples."""
    terms = by_cell(pair).terms
    counts = np.bincount(cells(pair), minlength=len(terms)).tolist()
    return tuple(replace(term, n=n) for term, n in zip(terms, counts, strict=True))


def changes(pairs: Iterable[Pair], alpha: float = ALPHA) -> list[Change]:
    """Tell what changed in each of several pairs, so that all directions together may be believed.

    The p-values are adjusted by Holm's procedure, those of loss among themselves and those of
    accuracy among themselves: with probability ``1 - alpha`` no change in loss is called up or
    down that is chance, however many pairs there are. Intervals stay those of each pair alone.
    Pairs are taken one at a time, so a generator need not hold more than one.
    """
    told = [change(pair, alpha) for pair in pairs]
    losses = holm([one.p_loss for one in told])
    accuracies = holm([one.p_accuracy for one in told])
    return [
        _directed(one, p_loss, p_accuracy, alpha)
        for one, p_loss, p_accuracy in zip(told, losses, accuracies, strict=True)
    ]


def _directed(one: Change, p_loss: float | None, p_accuracy: float | None, alpha: float) -> Change:
    """Return a change with these p-values, and the directions that follow from them."""
    return replace(
        one,
        p_loss=p_loss,
        p_accuracy=p_accuracy,
        direction_loss=_direction(one.loss.mean, p_loss, alpha),
        direction_accuracy=_direction(one.delta_accuracy or 0.0, p_accuracy, alpha),
    )


def _direction(moved: float, p: float | None, alpha: float) -> str:
    if p is None or p >= alpha or not moved:
        return "flat"
    return "up" if moved > 0 else "down"

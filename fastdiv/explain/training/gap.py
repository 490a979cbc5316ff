"""Gap: training beside validation, and over-fitting called by its name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

import numpy as np
import pyarrow as pa

from fastdiv.errors import UsageError
from fastdiv.explain.accounts.exact import by_cell, wrongness_unsureness
from fastdiv.explain.accounts.terms import Account
from fastdiv.explain.evidence import Bools, Floats, Ints, Pair

Rows = Iterable[Mapping[str, Any]]  # of `epochs`, of one split
SMOOTHED = 3  # epochs whose median stands for one where a change is tested
# A second difference of independent noise has 6 times its variance; the median absolute value of
# a normal number is 0.6745 of its standard deviation.
JITTER_OF_SECOND_DIFFERENCE = 1.0 / (0.6745 * 6.0**0.5)


class Fit(StrEnum):
    """How training and validation loss stand at the end."""

    OVERFITTING = "overfitting"  # training loss has fallen while validation loss rose
    DIVERGING = "diverging"  # validation loss has risen and training loss has not fallen
    BOTH_FALLING = "both_falling"  # still learning: the run ended too early to tell more
    UNDERFITTING = "underfitting"  # both flat, with little learned of the training data
    FLAT = "flat"  # neither has changed beyond noise since
    UNKNOWN = "unknown"  # no epoch has both losses


@dataclass(frozen=True, slots=True)
class Overfitting:
    """What became of the two losses since the epoch of the lowest validation loss.

    Attributes
    ----------
    name : Fit
    epoch : int or None
        The lowest validation loss, the earliest of equals; of the epochs that both splits have.
        Over-fitting runs from here on.
    last_epoch : int or None
    n_epochs : int
        Epochs after `epoch`.
    n_rising : int
        Of these, how many have a higher validation loss and a lower training loss than `epoch`.
    train_loss_change, val_loss_change, train_accuracy_change, val_accuracy_change : float or None
        From `epoch` to `last_epoch`; nats for the losses.
    gap_change : float or None
        By how much validation loss moved away from training loss, in nats.
    train_standard_error, val_standard_error : float
        Of a change in mean loss, in nats, as they were used: given, or estimated.
    """

    name: Fit
    epoch: int | None
    last_epoch: int | None
    n_epochs: int
    n_rising: int
    train_loss_change: float | None
    val_loss_change: float | None
    train_accuracy_change: float | None
    val_accuracy_change: float | None
    gap_change: float | None
    train_standard_error: float
    val_standard_error: float

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON holds it."""
        return asdict(self) | {"name": str(self.name)}


@dataclass(frozen=True, slots=True)
class Between:
    """The same samples as they are in two splits, from the one to the other.

    Attributes
    ----------
    n, n_infinite : int
        Samples; of them, those that have an infinite loss in one split at least.
    delta_loss, delta_accuracy : float or None
        The second split minus the first; the loss in nats, over the samples that are finite.
    cells, parts : Account
        By transition cell, and by wrongness and unsureness.
    """

    n: int
    n_infinite: int
    delta_loss: float | None
    delta_accuracy: float | None
    cells: Account
    parts: Account

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON holds it."""
        return {
            "n": self.n,
            "n_infinite": self.n_infinite,
            "delta_loss": self.delta_loss,
            "delta_accuracy": self.delta_accuracy,
            "cells": self.cells.to_dict(),
            "parts": self.parts.to_dict(),
        }


def gap(train_rows: Rows, val_rows: Rows) -> pa.Table:
    """Put training and validation side by side.

    Parameters
    ----------
    train_rows, val_rows : iterable of dict
        Rows of `epochs`, each of one split, in any order; ``epoch``, ``loss_finite`` and
        ``accuracy`` are read.

    Returns
    -------
    pyarrow.Table
        One row an epoch that both have: ``epoch``; ``train_loss``, ``val_loss`` (means of the
        finite losses, nats), ``loss_gap``; ``train_accuracy``, ``val_accuracy``,
        ``accuracy_gap``; gaps are validation minus training. ``loss_gap_change`` and
        ``accuracy_gap_change`` are the gaps minus those at the epoch of the lowest validation
        loss. Null where nothing was valid.

    Raises
    ------
    UsageError
        Where an epoch comes more than once: rows of several splits.
    """
    epochs, train, val = _paired(train_rows, val_rows)
    loss_gap = val["loss_finite"] - train["loss_finite"]
    accuracy_gap = val["accuracy"] - train["accuracy"]
    lowest = _lowest(val["loss_finite"])
    changes = [
        np.full(len(epochs), np.nan) if lowest is None else each - each[lowest]
        for each in (loss_gap, accuracy_gap)
    ]
    columns = {
        "train_loss": train["loss_finite"],
        "val_loss": val["loss_finite"],
        "loss_gap": loss_gap,
        "loss_gap_change": changes[0],
        "train_accuracy": train["accuracy"],
        "val_accuracy": val["accuracy"],
        "accuracy_gap": accuracy_gap,
        "accuracy_gap_change": changes[1],
    }
    return pa.table(
        {"epoch": pa.array(epochs)}
        | {name: pa.array(x, mask=np.isnan(x)) for name, x in columns.items()}
    )


def no_skill_loss(train_rows: Rows) -> float | None:
    """Return the loss in nats of always predicting the training labels' shares; None if unknown."""
    found = (row.get("prior_entropy") for row in train_rows)
    return next((entropy for entropy in found if entropy is not None), None)


def overfitting(
    train_rows: Rows, val_rows: Rows, *, standard_error: float | None = None,
    train_standard_error: float | None = None, z: float = 2.0,
    no_skill_loss: float | None = None, least_skill: float = 0.5,
) -> Overfitting:  # fmt: skip
    """Say whether training loss went on falling while validation loss rose.

    Changes are from the epoch of the lowest validation loss to the last one. One counts if it is
    more than `z` standard errors, taken between medians of three epochs, so that neither a
    lucky lowest epoch nor a spike at the end makes it (between the epochs themselves where there
    are fewer than six). Where validation has not moved since, the last quarter of the epochs, at
    least three, is looked at: if both losses fall there, both are falling still.

    Parameters
    ----------
    train_rows, val_rows : iterable of dict
        See `gap`.
    standard_error, train_standard_error : float, optional
        Of a change in mean loss in nats, from the samples' paired differences. The jitter from
        epoch to epoch, which is estimated from second differences, is used where it is larger.
    z : float
        How many standard errors a change must exceed.
    no_skill_loss : float, optional
        The loss in nats of always predicting the training labels' shares: their entropy. Without
        it, under-fitting cannot be told from `Fit.FLAT`.
    least_skill : float
        Under-fitting is a flat training loss above ``(1 - least_skill) * no_skill_loss``.

    Returns
    -------
    Overfitting
    """
    epochs, train, val = _paired(train_rows, val_rows)
    known = ~np.isnan(train["loss_finite"]) & ~np.isnan(val["loss_finite"])
    epochs, train, val = epochs[known], _rows(train, known), _rows(val, known)
    train_loss, val_loss = train["loss_finite"], val["loss_finite"]
    errors = (
        max(train_standard_error or 0.0, _jitter(train_loss)),
        max(standard_error or 0.0, _jitter(val_loss)),
    )
    lowest = _lowest(val_loss)
    if lowest is None:
        none = (None,) * 5
        return Overfitting(Fit.UNKNOWN, None, None, 0, 0, *none, *errors)
    moved = {
        f"{split}_{name}": float(x[key][-1] - x[key][lowest])
        for split, x in (("train", train), ("val", val))
        for key, name in (("loss_finite", "loss_change"), ("accuracy", "accuracy_change"))
    }
    no_skill = None if no_skill_loss is None else (1.0 - least_skill) * no_skill_loss
    rising = (val_loss[lowest:] > val_loss[lowest]) & (train_loss[lowest:] < train_loss[lowest])
    return Overfitting(
        name=_fit(train_loss, val_loss, lowest, (z * errors[0], z * errors[1]), no_skill),
        epoch=int(epochs[lowest]),
        last_epoch=int(epochs[-1]),
        n_epochs=len(epochs) - 1 - lowest,
        n_rising=int(rising.sum()),
        gap_change=moved["val_loss_change"] - moved["train_loss_change"],
        train_standard_error=errors[0],
        val_standard_error=errors[1],
        **moved,
    )


def between_splits(pair: Pair) -> Between:
    """Account for the difference between two splits over the samples that both hold.

    Parameters
    ----------
    pair : Pair
        Before: one split; after: the other, of the same samples, at one epoch or at two.
    """
    cells = by_cell(pair)
    correct = [int(side.correct.sum()) for side in (pair.before, pair.after)]
    return Between(
        n=len(pair),
        n_infinite=cells.n_left_out,
        delta_loss=cells.total,
        delta_accuracy=(correct[1] - correct[0]) / len(pair) if len(pair) else None,
        cells=cells,
        parts=wrongness_unsureness(pair),
    )


def _paired(train_rows: Rows, val_rows: Rows) -> tuple[Ints, dict[str, Floats], dict[str, Floats]]:
    """Return the epochs that both have, ascending, and columns of each; NaN for None."""
    train, val = _by_epoch(train_rows), _by_epoch(val_rows)
    epochs = sorted(train.keys() & val.keys())
    return np.array(epochs, np.int64), _columns(train, epochs), _columns(val, epochs)


def _by_epoch(rows: Rows) -> dict[int, Mapping[str, Any]]:
    found: dict[int, Mapping[str, Any]] = {}
    for row in rows:
        if row["epoch"] in found:
            raise UsageError(f"epoch {row['epoch']} comes twice: give the rows of one split")
        found[row["epoch"]] = row
    return found


def _columns(by_epoch: dict[int, Mapping[str, Any]], epochs: list[int]) -> dict[str, Floats]:
    return {
        name: np.array([np.nan if (x := by_epoch[e][name]) is None else x for e in epochs], float)
        for name in ("loss_finite", "accuracy")
    }


def _rows(columns: dict[str, Floats], which: Bools) -> dict[str, Floats]:
    return {name: x[which] for name, x in columns.items()}


def _lowest(loss: Floats) -> int | None:
    """Return the position of the lowest loss, the earliest of equals; None where none is known."""
    return None if np.isnan(loss).all() else int(np.nanargmin(loss))


def _jitter(loss: Floats) -> float:
    """Return the standard error of a change between epochs by jitter alone; 0 of few epochs."""
    if len(loss) < 5:
        return 0.0
    noise = np.median(np.abs(np.diff(loss, 2))) * JITTER_OF_SECOND_DIFFERENCE
    return float(noise * 2.0**0.5)


def _level(loss: Floats, at: int) -> float:
    """Return the median of the epochs around one; of few epochs, its own loss."""
    if len(loss) < 2 * SMOOTHED:
        return float(loss[at])
    first = min(max(at - SMOOTHED // 2, 0), len(loss) - SMOOTHED)
    return float(np.median(loss[first : first + SMOOTHED]))


def _fit(
    train: Floats, val: Floats, lowest: int, least: tuple[float, float], no_skill: float | None
) -> Fit:
    last = len(val) - 1
    moved = [_level(x, last) - _level(x, lowest) for x in (train, val)]
    if moved[1] > least[1] and val[last] > val[lowest]:
        return Fit.OVERFITTING if moved[0] < -least[0] else Fit.DIVERGING
    start = max(0, last - max(len(val) // 4, SMOOTHED))
    recent = [_level(x, last) - _level(x, start) for x in (train, val)]
    if recent[0] < -least[0] and recent[1] < -least[1]:
        return Fit.BOTH_FALLING
    if no_skill is not None and _level(train, last) > no_skill:
        return Fit.UNDERFITTING
    return Fit.FLAT

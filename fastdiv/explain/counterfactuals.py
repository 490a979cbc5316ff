"""Counterfactuals: what loss and accuracy would be, had one thing been otherwise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from fastdiv.explain.evidence import Bools, Side
from fastdiv.explain.ranking.scores import binary_score
from fastdiv.explain.ranking.thresholds import best_threshold
from fastdiv.temperature import Tempered

WORST = (0.001, 0.01)  # shares of the samples that are left out


@dataclass(frozen=True, slots=True)
class Counterfactual:
    """One epoch, had one thing been otherwise.

    Attributes
    ----------
    name : str
        as_is, best_temperature, best_threshold, without_worst_0.1%, without_worst_1%,
        without_suspects, equal_classes.
    loss : float or None
        Mean of the finite losses, in nats.
    accuracy : float or None
    n : int
        Samples that the means are over.
    detail : str
        The temperature, the threshold, how many were left out.
    """

    name: str
    loss: float | None
    accuracy: float | None
    n: int
    detail: str


def counterfactuals(
    side: Side, best: Tempered | None, suspects: Bools | None = None
) -> list[Counterfactual]:
    """Compute loss and accuracy of an epoch with one thing changed at a time.

    Parameters
    ----------
    side : Side
    best : Tempered or None
        The epoch's best temperature; None where it is not known.
    suspects : (n,) bool, optional
        Samples whose labels are suspected to be wrong.

    Returns
    -------
    list of Counterfactual
        The first is the epoch as it is. The best threshold (two classes) is that of the highest
        accuracy on these very samples, and so better than it would be on others; the loss does
        not depend on it. With equal classes every class has the same weight.
    """
    n = len(side)
    if not n:
        return [Counterfactual("as_is", None, None, 0, "no valid sample")]
    made = [_of(side, np.ones(n, np.bool_), "as_is", "")]
    accuracy = made[0].accuracy
    if best is not None:
        words = f"temperature {best.temperature:.3g}"
        if best.bound is not None:
            words += ", where the search ends"
        made.append(Counterfactual("best_temperature", best.refinement, accuracy, best.n, words))
    if side.classes == 2:
        found = best_threshold(binary_score(side), side.labels == 1, "accuracy")
        if found is not None:
            words = f"class 1 above p = {found.threshold:.3g}"
            made.append(Counterfactual("best_threshold", made[0].loss, found.value, n, words))
    worst_first = np.argsort(-side.loss, kind="stable")
    for share in WORST:
        k = int(np.ceil(share * n))
        if k >= n:
            continue
        kept = np.ones(n, np.bool_)
        kept[worst_first[:k]] = False
        made.append(_of(side, kept, f"without_worst_{100 * share:g}%", f"without {k:,} samples"))
    if suspects is not None and suspects.any() and not suspects.all():
        words = f"without {int(suspects.sum()):,} samples"
        made.append(_of(side, ~suspects, "without_suspects", words))
    made.append(_with_equal_classes(side))
    return made


def as_table(made: list[Counterfactual]) -> pa.Table:
    """Return counterfactuals as a table, one row each."""
    columns: dict[str, Any] = {
        name: [getattr(x, name) for x in made]
        for name in ("name", "loss", "accuracy", "n", "detail")
    }
    types = [pa.string(), pa.float64(), pa.float64(), pa.int64(), pa.string()]
    return pa.table(
        [pa.array(values, kind) for values, kind in zip(columns.values(), types, strict=True)],
        names=list(columns),
    )


def _of(side: Side, kept: Bools, name: str, detail: str) -> Counterfactual:
    finite = kept & np.isfinite(side.loss)
    loss = float(side.loss[finite].mean()) if finite.any() else None
    accuracy = float(side.correct[kept].mean())
    return Counterfactual(name, loss, accuracy, int(kept.sum()), detail)


def _with_equal_classes(side: Side) -> Counterfactual:
    """Weigh samples so that every class that occurs counts the same."""
    c, finite = side.classes, np.isfinite(side.loss)
    support = np.bincount(side.labels, minlength=c)
    right = np.bincount(side.labels, side.correct.astype(np.float64), minlength=c)
    there = support > 0
    accuracy = float((right[there] / support[there]).mean())
    measured = np.bincount(side.labels[finite], minlength=c)
    total = np.bincount(side.labels[finite], side.loss[finite], minlength=c)
    some = measured > 0
    loss = float((total[some] / measured[some]).mean()) if some.any() else None
    words = f"each of {int(there.sum())} classes weighs the same"
    return Counterfactual("equal_classes", loss, accuracy, len(side), words)

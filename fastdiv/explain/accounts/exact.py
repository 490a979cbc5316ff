"""Accounts: a change in mean loss between two epochs as terms that add up to it exactly.

They are evidence, not causes: right → wrong always raises the loss and wrong → right always
lowers it, by regression to the mean. Each is a sum over samples, so it closes to rounding, and
says by how much it does not.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from fastdiv.errors import UsageError
from fastdiv.explain.accounts.by_class import by_cell_and_class, by_class
from fastdiv.explain.accounts.terms import LOSS, QUANTITIES, Account, Change, Term, cells, change_of
from fastdiv.explain.evidence import Bools, Floats, Pair, Side
from fastdiv_kernels.contract import Cell

BORDERLINE_NATS = float(np.log(3.0))  # of margin: odds of three to one
CELLS = tuple(cell.name.lower() for cell in Cell)
# More than stored float32 numbers can be off, relative to 1 nat plus the loss, and far less than
# a clip takes from any loss that it changes in earnest.
CLIPPED = 1e-5


def by_cell(pair: Pair, quantity: str = LOSS) -> Account:
    """Account by transition cell: rr, rw, wr, ww_same, ww_changed.

    Parameters
    ----------
    pair : Pair
    quantity : str
        "loss" (nats) or "brier".
    """
    return change_of(pair, quantity).account_of_groups("by_cell", cells(pair), CELLS)


def by_margin(pair: Pair, boundary: float = BORDERLINE_NATS, quantity: str = LOSS) -> Account:
    """Account by how near to the boundary the samples are whose correctness changed.

    Parameters
    ----------
    pair : Pair
    boundary : float
        Nats. A flip is borderline where the smaller of its two margins, either side of zero, is
        at most this; ln 3 means odds of three to one. An infinite margin is beyond any boundary.
    quantity : str
        "loss" (nats) or "brier".

    Returns
    -------
    Account
        Terms borderline_rw, borderline_wr, confident_rw, confident_wr, unchanged_right,
        unchanged_wrong.
    """
    if not 0 <= boundary < np.inf:
        raise UsageError(f"the boundary is a finite margin in nats, 0 or more, not {boundary}")
    margin = np.minimum(np.abs(pair.before.margin), np.abs(pair.after.margin))
    confident = margin.astype(np.float64) > boundary
    right, right_after = pair.before.correct, pair.after.correct
    flip = 2 * confident.view(np.int8) + right_after.view(np.int8)
    groups = np.where(right != right_after, flip, 5 - right.view(np.int8))
    names = (
        "borderline_rw", "borderline_wr", "confident_rw", "confident_wr", "unchanged_right",
        "unchanged_wrong",
    )  # fmt: skip
    change = change_of(pair, quantity)
    return change.account_of_groups("by_margin", groups, names, float(boundary))


def wrongness_unsureness(pair: Pair, quantity: str = LOSS) -> Account:
    """Account by how far the label is behind, and by how unsure the prediction is.

    ``loss = -log(confidence) + max(0, -margin)``, whatever the probabilities add up to: the
    second part is the log-probability of the prediction minus that of the label. Confidence and
    margin are stored as float32, which leaves a closure error near 1e-7 of the loss. Where the
    loss was clipped, wrongness is what the clip leaves of it; where the confidence is too small
    for float32, unsureness is what wrongness leaves.

    Parameters
    ----------
    pair : Pair
    quantity : str
        "loss": the Brier score does not come apart like this.

    Returns
    -------
    Account
        Terms wrongness (n: samples wrong in either epoch) and unsureness (n: all).

    Raises
    ------
    UsageError
        For any other quantity.
    """
    if quantity != LOSS:
        raise UsageError(f"wrongness and unsureness are parts of the loss, not of {quantity!r}")
    change = change_of(pair, LOSS)
    before = _wrongness_unsureness(pair.before, change.before)
    after = _wrongness_unsureness(pair.after, change.after)
    moved = [np.where(change.used, b - a, 0.0) for a, b in zip(before, after, strict=True)]
    wrong = ~(pair.before.correct & pair.after.correct)
    terms = (
        Term("wrongness", change.mean(moved[0]), change.count(wrong)),
        Term("unsureness", change.mean(moved[1]), change.n),
    )
    return change.account("wrongness_unsureness", terms)


def _wrongness_unsureness(side: Side, loss: Floats) -> tuple[Floats, Floats]:
    """Take losses (n,) apart, all finite."""
    gap, known = side.gap, side.confidence > 0
    unsureness = np.where(
        known, -np.log(np.where(known, side.confidence, 1.0)), loss - np.minimum(gap, loss)
    )
    clipped = unsureness + gap > loss + CLIPPED * (1.0 + np.abs(loss))
    return np.where(clipped, loss - unsureness, gap), unsureness


def accuracy_and_confidence(pair: Pair, quantity: str = LOSS) -> Account:
    """Account by accuracy, the confidence of the right, and that of the wrong.

    With accuracy a, and r and w the mean losses of the right and of the wrong, the mean loss is
    ``a*r + (1-a)*w``, and of its change ``(r_ - w_)*da + a_*dr + (1-a_)*dw``, where ``_`` is the
    mean over the two epochs (the symmetric form of Kitagawa 1955, "Components of a difference
    between two rates"). Where an epoch has none right (or wrong), its r (or w) is taken to be
    the other epoch's: it has no weight there, the account closes all the same, and the
    confidence of a group that is not there does not change. Where neither epoch has any, it is 0.

    Parameters
    ----------
    pair : Pair
    quantity : str
        "loss" (nats) or "brier".

    Returns
    -------
    Account
        Terms accuracy_effect (n: samples whose correctness changed), confidence_of_right and
        confidence_of_wrong (n: samples right, or wrong, in either epoch).
    """
    change = change_of(pair, quantity)
    right = pair.before.correct, pair.after.correct
    counts = (
        change.count(right[0] != right[1]),
        change.count(right[0] | right[1]),
        change.count(~(right[0] & right[1])),
    )
    values = _accuracy_and_confidence(change, right) if change.n else (None, None, None)
    names = "accuracy_effect", "confidence_of_right", "confidence_of_wrong"
    return change.account("accuracy_and_confidence", tuple(map(Term, names, values, counts)))


def _accuracy_and_confidence(
    change: Change, right: tuple[Bools, Bools]
) -> tuple[float, float, float]:
    a = [change.count(mask) / change.n for mask in right]
    mean_a = (a[0] + a[1]) / 2
    before, after = change.before, change.after
    r = _group_means(before, right[0] & change.used, after, right[1] & change.used)
    w = _group_means(before, ~right[0] & change.used, after, ~right[1] & change.used)
    mean_r, mean_w = (m[0] / 2 + m[1] / 2 for m in (r, w))  # halves first: no sum overflows
    return (
        (mean_r - mean_w) * (a[1] - a[0]),
        mean_a * (r[1] - r[0]),
        (1 - mean_a) * (w[1] - w[0]),
    )


def _group_means(
    before: Floats, in_before: Bools, after: Floats, in_after: Bools
) -> tuple[float, float]:
    """Return the mean of a group in each epoch; of an empty one, that of the other."""
    groups = before[in_before], after[in_after]
    means = [float(np.sum(group / len(group))) for group in groups if len(group)] or [0.0]
    return means[0], means[-1]


def accounts(pair: Pair, boundary: float = BORDERLINE_NATS) -> dict[str, Any]:
    """Return every account of a pair, for JSON.

    Parameters
    ----------
    pair : Pair
    boundary : float
        Nats, see `by_margin`.

    Returns
    -------
    dict
        n (samples), n_infinite (with an infinite loss in either epoch); loss and brier, each a
        dict of accounts by name; by_class and by_cell_and_class, each a list of rows.
    """
    found: dict[str, Any] = {"n": len(pair), "n_infinite": change_of(pair, LOSS).n_left_out}
    for quantity in QUANTITIES:
        made = [by_cell(pair, quantity), by_margin(pair, boundary, quantity)]
        if quantity == LOSS:
            made.append(wrongness_unsureness(pair))
        made.append(accuracy_and_confidence(pair, quantity))
        found[quantity] = {account.name: account.to_dict() for account in made}
    tables: dict[str, pa.Table] = {
        "by_class": by_class(pair), "by_cell_and_class": by_cell_and_class(pair)
    }  # fmt: skip
    return found | {name: table.to_pylist() for name, table in tables.items()}

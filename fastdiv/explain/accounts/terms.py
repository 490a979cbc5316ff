"""What an account of a change is: named terms that add up to it, and what they leave over."""

from __future__ import annotations

from dataclasses import dataclass
from math import fsum
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from fastdiv.errors import UsageError
from fastdiv.explain.evidence import Bools, Floats, Ints, Pair
from fastdiv_kernels.contract import Cell

LOSS, BRIER = QUANTITIES = ("loss", "brier")


@dataclass(frozen=True, slots=True)
class Term:
    """One term of an account.

    Attributes
    ----------
    name : str
    value : float or None
        What it adds to the change in the mean, in nats for the loss; None of no samples at all.
    n : int
        Samples that it is made from.
    """

    name: str
    value: float | None
    n: int


@dataclass(frozen=True, slots=True)
class Account:
    """A change in mean loss, or mean Brier score, taken apart.

    Attributes
    ----------
    name : str
    quantity : str
        "loss" or "brier".
    total : float or None
        The mean over samples of the change, whatever the terms are; None of no samples.
    terms : tuple of Term
    closure_error : float or None
        ``total`` minus the sum of the terms: rounding, and what the parts were rounded to when
        they were stored.
    n, n_left_out : int
        Samples that the mean is over; samples with an infinite loss in either epoch, which no
        account of the loss can hold. The Brier score is always finite: it leaves nothing out.
    boundary_nats : float or None
        The largest margin that is borderline, where the account is by margin.
    """

    name: str
    quantity: str
    total: float | None
    terms: tuple[Term, ...]
    closure_error: float | None
    n: int
    n_left_out: int
    boundary_nats: float | None = None

    def __getitem__(self, name: str) -> Term:
        """Return a term by its name."""
        for term in self.terms:
            if term.name == name:
                return term
        raise KeyError(name)

    def to_dict(self) -> dict[str, Any]:
        """Return plain Python, for JSON."""
        terms = [{"name": t.name, "value": t.value, "n": t.n} for t in self.terms]
        boundary = {} if self.boundary_nats is None else {"boundary_nats": self.boundary_nats}
        return {
            "name": self.name,
            "quantity": self.quantity,
            "total": self.total,
            "n": self.n,
            "n_left_out": self.n_left_out,
            **boundary,
            "terms": terms,
            "closure_error": self.closure_error,
        }

    def to_table(self) -> pa.Table:
        """Return a row a term: account, quantity, term, value, n, total, closure_error.

        The last two are the account's and the same in each row, so that tables of several
        accounts can be joined into one.
        """
        k = len(self.terms)
        return pa.table(
            {
                "account": pa.array([self.name] * k, pa.string()),
                "quantity": pa.array([self.quantity] * k, pa.string()),
                "term": pa.array([t.name for t in self.terms], pa.string()),
                "value": pa.array([t.value for t in self.terms], pa.float64()),
                "n": pa.array([t.n for t in self.terms], pa.int64()),
                "total": pa.array([self.total] * k, pa.float64()),
                "closure_error": pa.array([self.closure_error] * k, pa.float64()),
            }
        )


@dataclass(frozen=True, slots=True)
class Change:
    """A quantity of the samples of a pair, before and after.

    Attributes
    ----------
    quantity : str
    before, after, delta : (n,) float64
        0 where a sample is left out.
    used : (n,) bool
        Samples that are not left out: finite in both epochs.
    n, n_left_out : int
    """

    quantity: str
    before: Floats
    after: Floats
    delta: Floats
    used: Bools
    n: int
    n_left_out: int

    def mean(self, values: Floats) -> float | None:
        """Return the mean over the samples in use of values (n,) that are 0 in all others.

        Each is divided before they are added, so that no finite losses add to an infinite one.
        """
        return float(np.sum(values / self.n)) if self.n else None

    def count(self, where: Bools) -> int:
        """Return how many of the samples (n,) are in use."""
        return int(np.count_nonzero(where & self.used))

    def grouped(self, groups: NDArray[Any], k: int) -> tuple[Floats, Ints]:
        """Return what each of k groups (n,) adds to the mean change, and samples in use, (k,)."""
        weighted = np.bincount(groups, self.delta / max(self.n, 1), k)
        adds = weighted.astype(np.float64, copy=False)
        some = groups if not self.n_left_out else groups[self.used]
        return adds, np.bincount(some, minlength=k)

    def account(
        self, name: str, terms: tuple[Term, ...], boundary_nats: float | None = None
    ) -> Account:
        """Close an account of this change."""
        total = self.mean(self.delta)
        values = [term.value for term in terms if term.value is not None]
        error = None if total is None else total - fsum(values)
        return Account(
            name, self.quantity, total, terms, error, self.n, self.n_left_out, boundary_nats
        )

    def account_of_groups(
        self, name: str, groups: NDArray[Any], names: tuple[str, ...],
        boundary_nats: float | None = None,
    ) -> Account:  # fmt: skip
        """Close an account whose terms are groups (n,) of samples, by index into their names."""
        adds, counts = self.grouped(groups, len(names))
        values = adds.tolist() if self.n else [None] * len(names)
        terms = tuple(map(Term, names, values, counts.tolist()))
        return self.account(name, terms, boundary_nats)


def change_of(pair: Pair, quantity: str) -> Change:
    """Return the change in a quantity, "loss" or "brier", of the samples of a pair."""
    if quantity not in QUANTITIES:
        raise UsageError(f"{quantity!r} has no account: ask for one of {', '.join(QUANTITIES)}")
    before, after = getattr(pair.before, quantity), getattr(pair.after, quantity)
    used = np.isfinite(before) & np.isfinite(after)
    n = int(np.count_nonzero(used))
    if n < len(pair):
        before, after = np.where(used, before, 0.0), np.where(used, after, 0.0)
    return Change(quantity, before, after, after - before, used, n, len(pair) - n)


def cells(pair: Pair) -> NDArray[np.int8]:
    """Return the transition `Cell` (n,) of each sample."""
    wrong_before, wrong_after = ~pair.before.correct, ~pair.after.correct
    cell: NDArray[np.int8] = 2 * wrong_before.view(np.int8) + wrong_after.view(np.int8)
    changed = pair.before.predicted != pair.after.predicted
    cell += changed & (cell == Cell.WW_SAME)
    return cell

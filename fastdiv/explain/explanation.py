"""Explanation: why loss and accuracy moved between two epochs, as data."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastdiv.explain.evidence import Bools, Floats, Ints
from fastdiv.explain.in_notebook import explanation_html, short_names
from fastdiv.explain.wording import as_text, plain_id
from fastdiv.markup import printable

Small = NDArray[np.int8]


@dataclass(frozen=True, slots=True)
class Cause:
    """A reason for a change, and what it carries of it.

    Attributes
    ----------
    name : str
    nats : float
        Of the change in mean loss, signed: what this cause added to it.
    share : float or None
        Nats divided by the change; None where that is 0.
    nats_alone, nats_last : float
        What it would carry were it the only cause credited, and were all others credited first.
    points : float
        Of the change in accuracy (a fraction), signed.
    n : int
        Samples concerned.
    p : float or None
        How likely chance alone moves the loss as much, adjusted for all terms that were tested
        (Holm); None where too few samples carry it for such a test.
    sample_ids : tuple
        The samples that carry most of it, at most 10.
    evidence, advice : str
        A sentence with numbers; one thing to try.
    """

    name: str
    nats: float
    share: float | None
    nats_alone: float
    nats_last: float
    points: float
    n: int
    p: float | None
    sample_ids: tuple[Any, ...]
    evidence: str
    advice: str


@dataclass(frozen=True, slots=True)
class Finding:
    """What moves no loss but should be known, with the statistic that it rests on."""

    name: str
    statistic: dict[str, Any]
    sentence: str


@dataclass(frozen=True, slots=True)
class SampleAccount:
    """The change of every sample as a sum of terms, in nats and in accuracy.

    Attributes
    ----------
    rows : (n,) int64
        Positions in the pair of the samples with finite losses.
    terms : dict of str to (n,) float64
        Nats that each term carries of a sample's change in loss; they sum to that.
    names : tuple of str
        Of all terms that a change of correctness may belong to.
    turned : ((m,) int8, (m,) int8)
        Of all samples of the pair, their change of correctness in two parts: what is left once a
        class bias is undone, and what that undid.
    places : ((m,) int8, (m,) int8)
        Which of `names` either part belongs to.
    """

    rows: Ints
    terms: dict[str, Floats]
    names: tuple[str, ...]
    turned: tuple[Small, Small]
    places: tuple[Small, Small]

    def nats(self, among: Bools | None = None) -> dict[str, float]:
        """Return the sum over samples of each term, in nats.

        Parameters
        ----------
        among : (m,) bool, optional
            Of all samples of the pair, those to account for: a class, a slice, a cell, one id.
        """
        some = slice(None) if among is None else among[self.rows]
        return {name: float(values[some].sum()) for name, values in self.terms.items()}

    def flips(self, among: Bools | None = None) -> dict[str, tuple[int, int]]:
        """Return how many samples each term made wrong, and right; `among` as for `nats`."""
        some = slice(None) if among is None else among
        counts = np.zeros((2, len(self.names)))
        for k, sign in enumerate((-1, 1)):
            for places, turned in zip(self.places, self.turned, strict=True):
                weights = np.maximum(sign * turned[some].astype(np.float64), 0.0)
                counts[k] += np.bincount(places[some], weights, len(self.names))
        return {
            name: (int(wrong), int(right))
            for name, wrong, right in zip(self.names, *counts, strict=True)
            if wrong or right or name in self.terms
        }

    def points(self, among: Bools | None = None) -> dict[str, int]:
        """Return how many samples, net, each term made right; `among` as for `nats`."""
        return {name: right - wrong for name, (wrong, right) in self.flips(among).items()}


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why loss and accuracy moved from one epoch to another.

    Attributes
    ----------
    split : str or None
    epoch_from, epoch_to : int
    n : int
        Samples accounted for: valid in both epochs, with finite losses.
    quadrant : str
        ``loss_<way>_accuracy_<way>``, each way one of up, down, flat: flat is within noise, by a
        test that is adjusted for all terms, and so stricter than that of `SplitView.change`.
    delta_loss : float or None
        Change in mean loss of these samples, in nats; None of no samples.
    delta_accuracy : float or None
        Change in accuracy of all samples valid in both epochs, as a fraction.
    delta_refinement, delta_calibration : float or None
        The change in loss, divided by temperature alone.
    significant : bool
        Whether anything is named but noise: a term may be, where loss and accuracy are flat.
    causes : tuple of Cause
        Ranked, the most important first; none where there is nothing to compare.
    findings : tuple of Finding
    unnamed : dict of str to float
        Nats of the terms that are too small or too uncertain to be causes.
    closure_error : float
        Sum of all terms, named or not, minus the change; what rounding leaves.
    repairs : dict
        By epoch (``before``, ``after``): beta, gamma, eta of the joint fit, and at_bound.
    order : tuple of str
        The repairs in the order of what they saved.
    n_infinite_before, n_infinite_after : int
        Samples with an infinite loss, or one that is clipped because their label got probability
        0; they have no part in the change in loss.
    n_invalid, n_relabelled, n_only_before, n_only_after : int
        Samples left out of everything.
    approximate : bool
        Whether losses at other temperatures are estimates: vectors were not kept.
    account : SampleAccount
        The terms of every sample.
    name_from, name_to : str or None
        Of epochs that have names.
    """

    split: str | None
    epoch_from: int
    epoch_to: int
    n: int
    quadrant: str
    delta_loss: float | None
    delta_accuracy: float | None
    delta_refinement: float | None
    delta_calibration: float | None
    significant: bool
    causes: tuple[Cause, ...]
    findings: tuple[Finding, ...]
    unnamed: dict[str, float]
    closure_error: float
    repairs: dict[str, dict[str, Any]]
    order: tuple[str, ...]
    n_infinite_before: int
    n_infinite_after: int
    n_invalid: int
    n_relabelled: int
    n_only_before: int
    n_only_after: int
    approximate: bool
    account: SampleAccount = field(repr=False, compare=False)
    name_from: str | None = None
    name_to: str | None = None

    def __str__(self) -> str:
        lines = as_text(short_names(self)).split("\n")
        return "\n".join(printable(line, None) for line in lines)

    def _repr_html_(self) -> str:
        return explanation_html(self)

    @property
    def labels(self) -> tuple[str, str]:
        """What people call the epochs: their names, or numbers."""
        return self.name_from or str(self.epoch_from), self.name_to or str(self.epoch_to)

    def to_dict(self) -> dict[str, Any]:
        """Return all but the per-sample terms, as plain data that JSON can hold."""
        plain = {
            name: getattr(self, name)
            for name in self.__dataclass_fields__
            if name not in ("account", "causes", "findings", "order")
        }
        return {
            **plain,
            "order": list(self.order),
            "causes": [
                {**asdict(cause), "sample_ids": [plain_id(i) for i in cause.sample_ids]}
                for cause in self.causes
            ],
            "findings": [asdict(finding) for finding in self.findings],
        }

"""What all probabilities of an epoch say, class by class, counted in one pass: constant memory.

Counts and sums are integers, so that no order of samples, blocks or threads changes a bit, and
states of parts of the data add up.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from fastdiv.explain.calibration.errors import classwise_table, equal_width
from fastdiv.explain.evidence import Floats, Ints
from fastdiv.explain.labels.joint import (
    ConfidentJoint,
    joint_of_counts,
    label_is_highest,
    latent_labels,
)
from fastdiv.explain.ranking.curve import BINS as CURVE_BINS
from fastdiv.explain.ranking.curve import CurveState, bins_of
from fastdiv_kernels import exact
from fastdiv_kernels.contract import BINS, Array, Kind, as_float

ONE: Final = 2.0**-exact.ORIGIN_FIXED  # a probability of 1 in fixed point
VALUES_AT_ONCE: Final = 1 << 17  # probabilities of a block: 1 MiB, which stays in cache
MOST_UNCARRIED: Final = 1 << 29  # rows; see `exact.carry`
MOST_PENDING: Final = 1 << 18  # cells not counted yet, 2 MiB
_ABOVE_FIRST: Final = (1.0 - 1e-12) / BINS  # probabilities up to here are in the first bin


@dataclass(frozen=True, slots=True)
class Block:
    """Some valid samples, and all of their probabilities in float64.

    Attributes
    ----------
    p : (m, c) float64
        The softmax of logits; probabilities and log-probabilities are not renormalised.
    labels : (m,) int64
    vectors : (m, c)
        The predictions as they came.
    kind : Kind
    """

    p: Floats
    labels: Ints
    vectors: NDArray[np.floating[Any]]
    kind: Kind

    @classmethod
    def of(cls, vectors: NDArray[np.floating[Any]], labels: Ints, kind: Kind) -> Block:
        """Make the probabilities of some rows."""
        p = vectors.astype(np.float64)
        if kind != Kind.PROBS:
            if kind == Kind.LOGITS:
                p -= p.max(axis=1, keepdims=True)
            np.exp(p, out=p)
        if kind == Kind.LOGITS:
            p /= p.sum(axis=1, keepdims=True)
        return cls(p, labels, vectors, kind)

    def against_rest(self, classes: Ints) -> Floats:
        """Return the logits (k, m) of some classes against all others: log(p / (1 - p)).

        They order samples as the probabilities do. Those of logits tell samples apart where p
        rounds to 1, log-probabilities as far as they do. Below about -700 they are -inf: beyond
        510 all share a bin of `CurveState`.
        """
        p = np.ascontiguousarray(self.p.T[classes])
        if self.kind == Kind.LOGPROBS:
            rest = -np.expm1(self.vectors.T[classes].astype(np.float64))
        else:
            rest = 1.0 - p
        if self.kind == Kind.LOGITS:  # of the highest that would cancel
            every = np.arange(len(p.T))
            top = self.p.argmax(axis=1)
            others = self.p.copy()
            others[every, top] = 0.0
            rest = np.where(classes[:, None] == top, others.sum(axis=1), rest)
        with np.errstate(divide="ignore"):
            return np.asarray(np.log(np.maximum(p, 0.0)) - np.log(np.maximum(rest, 0.0)))


def blocks(vectors: Array, labels: NDArray[np.integer], kind: Kind) -> Iterator[tuple[int, Block]]:
    """Yield valid predictions (n, c) of any dtype by blocks, with the first row of each."""
    n, c = vectors.shape
    step = max(1, VALUES_AT_ONCE // c)
    for first in range(0, n, step):
        rows = slice(first, first + step)
        yield first, Block.of(as_float(vectors[rows]), labels[rows].astype(np.int64), kind)


@dataclass(slots=True)
class _Cells:
    """How often each of the codes that occur came; memory goes with these."""

    codes: Ints  # ascending
    counts: Ints
    pending: list[Ints] = field(default_factory=list)
    n_pending: int = 0

    @classmethod
    def zero(cls) -> _Cells:
        return cls(np.zeros(0, np.int64), np.zeros(0, np.int64))

    def add(self, codes: Ints) -> None:
        self.pending.append(codes)
        self.n_pending += len(codes)
        if self.n_pending > max(MOST_PENDING, len(self.codes)):
            self.settle()

    def settle(self) -> None:
        """Count what is pending."""
        pending = np.concatenate([*self.pending, self.codes[:0]])
        self.pending, self.n_pending = [], 0
        self._merge(*np.unique(pending, return_counts=True))

    def _merge(self, codes: Ints, counts: Ints) -> None:
        every, of = np.unique(np.concatenate([self.codes, codes]), return_inverse=True)
        total = np.zeros(len(every), np.int64)
        np.add.at(total, of, np.concatenate([self.counts, counts]))
        self.codes, self.counts = every, total

    def merge(self, other: _Cells) -> None:
        other.settle()
        self._merge(other.codes, other.counts)


@dataclass(slots=True)
class ByClass:
    """Counts and sums of samples by class; a commutative monoid for the same thresholds.

    With c classes 512 c bytes, the cells of the confident joint that occur, and 1 MiB for each
    curve. Several threads may add to one state.

    Attributes
    ----------
    thresholds : (c,) float64
        Of the confident joint, see `class_thresholds`.
    curve_classes : (k,) int64
    support : (c,) int64
        Samples by label.
    totals : (c, LIMBS_FIXED) int64
        Sums of the probabilities of each class, in fixed point.
    bin_sums : (c, BINS, LIMBS_FIXED) int64
        Those of the probabilities in each bin but the first, whose sums are what is left.
    hits : (c, BINS) int64
        Samples with the label by the bin of its probability.
    curve_counts : (k, CURVE_BINS, 2) int64
        As in `CurveState`.
    """

    thresholds: Floats
    curve_classes: Ints
    support: Ints
    totals: Ints
    bin_sums: Ints
    hits: Ints
    curve_counts: Ints
    cells: _Cells
    uncarried: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @classmethod
    def zero(cls, thresholds: Floats, curve_classes: Sequence[int] = ()) -> ByClass:
        """Return the state of nothing."""
        c, k = len(thresholds), len(curve_classes)
        return cls(
            thresholds=thresholds,
            curve_classes=np.array(curve_classes, np.int64),
            support=np.zeros(c, np.int64),
            totals=np.zeros((c, exact.LIMBS_FIXED), np.int64),
            bin_sums=np.zeros((c, BINS, exact.LIMBS_FIXED), np.int64),
            hits=np.zeros((c, BINS), np.int64),
            curve_counts=np.zeros((k, CURVE_BINS, 2), np.int64),
            cells=_Cells.zero(),
        )

    def absorb(self, block: Block) -> Ints:
        """Add samples; return the rows whose labels the confident joint takes for wrong.

        As `ConfidentJoint.issues`, but of the block, ascending.
        """
        p, labels = block.p, block.labels
        c = p.shape[1]
        fixed = p * ONE
        np.rint(fixed, out=fixed)
        totals = fixed.sum(axis=0).astype(np.int64)  # integers below 2**53, so exact in any order
        flat = np.flatnonzero(p > _ABOVE_FIRST)
        bins = equal_width(p.ravel()[flat], BINS)
        flat, bins = flat[bins > 0], bins[bins > 0]
        cells = flat % c * BINS + bins
        sums = fixed.ravel()[flat].astype(np.int64)
        of_label = equal_width(p[np.arange(len(labels)), labels], BINS)

        latent = latent_labels(p, self.thresholds)
        confident = np.flatnonzero(latent >= 0)
        codes = labels[confident] * c + latent[confident]
        off = confident[latent[confident] != labels[confident]]
        issues = off[~label_is_highest(p[off], labels[off])]

        curves = None
        if len(self.curve_classes):
            of_curve = bins_of(block.against_rest(self.curve_classes).ravel())
            curve = np.repeat(np.arange(len(self.curve_classes)), len(labels))
            positive = (self.curve_classes[:, None] == labels).ravel()
            curves = (curve * CURVE_BINS + of_curve) * 2 + positive
        with self.lock:
            if self.uncarried + len(labels) > MOST_UNCARRIED:
                self._carry()
            self.uncarried += len(labels)
            self.support += np.bincount(labels, minlength=c)
            self.totals[:, 0] += totals
            np.add.at(self.bin_sums.ravel(), cells * exact.LIMBS_FIXED, sums)
            np.add.at(self.hits.ravel(), labels * BINS + of_label, 1)
            self.cells.add(codes)
            if curves is not None:
                np.add.at(self.curve_counts.ravel(), curves, 1)
        return np.asarray(issues)

    def _carry(self) -> None:
        exact.carry(self.totals)
        exact.carry(self.bin_sums)
        self.uncarried = 0

    def merge(self, other: ByClass) -> None:
        """Add what was counted elsewhere, with the same thresholds and curves."""
        self._carry()
        other._carry()
        for name in ("support", "totals", "bin_sums", "hits", "curve_counts"):
            getattr(self, name)[:] += getattr(other, name)
        self.cells.merge(other.cells)

    def confident_joint(self, issues: Ints) -> ConfidentJoint:
        """Return the confident joint; `issues` are the samples that `absorb` found, numbered."""
        self.cells.settle()
        return joint_of_counts(
            self.cells.codes, self.cells.counts, self.support, self.thresholds, issues
        )

    def classwise(self) -> pa.Table | None:
        """Return the class-wise calibration, see `Calibration.classwise`; None of no samples.

        Probabilities are summed in multiples of 2**-32: means are good to 1.2e-10.
        """
        self._carry()
        n = int(self.support.sum())
        if not n:
            return None
        sums = self.bin_sums.copy()
        sums[:, 0] = self.totals - self.bin_sums.sum(axis=1)
        exact.carry(sums)
        gaps = np.abs(_probability(sums) - self.hits).sum(axis=1)
        return classwise_table(self.support, _probability(self.totals) / n, gaps / n)

    def curves(self) -> list[CurveState]:
        """Return the curve of each of `curve_classes`."""
        return [CurveState(counts) for counts in self.curve_counts]


def _probability(limbs: Ints) -> Floats:
    """Return carried sums in fixed point as numbers."""
    low, high = limbs[..., 0], limbs[..., 1]
    return np.asarray(low / ONE + high)  # the radix is ONE

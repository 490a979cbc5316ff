"""Confident joint: how many labels of one class are, the model is confident, of another.

Confident learning (Northcutt, Jiang and Chuang, arXiv:1911.00068), as cleanlab defines it. A
class's threshold is the mean probability that the samples with its label give it; a sample is
counted to the class whose threshold it reaches, to the predicted one if it reaches several, to
none if it reaches none. Only pairs of classes that occur are held.

Counts equal those of cleanlab 2.9 for the same float64 probabilities, its calibrated ones but for
ties: cleanlab rounds in floating point, and of equal remainders NumPy's sort decides which is
rounded up; here remainders are exact integers, and of equals the lower class is.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from fastdiv.errors import UsageError
from fastdiv.explain.classes.confusions import class_column
from fastdiv.explain.evidence import Bools, Floats, Ints, Side

FUZZ = 1e-6  # by so much a probability may be below a threshold that it reaches
LOWEST_THRESHOLD = 2 * FUZZ
UNREACHED = 2.0  # the threshold of a class without samples
VALUES_AT_ONCE = 1 << 21  # probabilities of a chunk: what is made of them fits a cache of 32 MiB


@dataclass(frozen=True, slots=True)
class ConfidentJoint:
    """Counts by label and latent label, of the m pairs that occur, ascending.

    Attributes
    ----------
    classes : int
    thresholds : (c,) float64
        Of a class without samples 2, which nothing reaches.
    support : (c,) int64
        Samples by label.
    n_confident : int
        Samples that reach a threshold.
    label, latent, count : (m,) int64
        On the diagonal each class counts at least 1, as in cleanlab, whether it has samples or
        not, so that the counts may add to more than `n_confident`.
    calibrated : (m,) int64
        The counts scaled to add to the support of each label, by largest remainders.
    issues : (k,) int64
        Samples counted off the diagonal, ascending, without those whose label has the highest
        probability to within 1e-6: cleanlab's ``filter_by="confident_learning"``.
    """

    classes: int
    thresholds: Floats
    support: Ints
    n_confident: int
    label: Ints
    latent: Ints
    count: Ints
    calibrated: Ints
    issues: Ints

    @property
    def n(self) -> int:
        """The number of samples."""
        return int(self.support.sum())

    @property
    def n_off_diagonal(self) -> int:
        """The estimated number of wrong labels, from the calibrated counts."""
        return int(self.calibrated[self.label != self.latent].sum())

    @property
    def noise_rate(self) -> float | None:
        """The estimated share of wrong labels; None of no samples."""
        return self.n_off_diagonal / self.n if self.n else None

    @property
    def latent_prior(self) -> Floats | None:
        """The estimated shares (c,) of the true classes; None of no samples.

        Column sums of the calibrated joint, cleanlab's ``py_method="marginal"`` without its
        clipping at 1e-6.
        """
        if not self.n:
            return None
        totals: Ints = np.zeros(self.classes, np.int64)
        np.add.at(totals, self.latent, self.calibrated)
        return totals / self.n

    def dense(self, calibrated: bool = False) -> Ints:
        """Return the counts as a matrix (c, c) of label and latent label, for few classes."""
        matrix = np.zeros((self.classes, self.classes), np.int64)
        matrix[self.label, self.latent] = self.calibrated if calibrated else self.count
        return matrix

    def table(self, class_names: tuple[str, ...] | None = None) -> pa.Table:
        """Return pairs that are not equal: label, latent, count, calibrated, share; most first.

        ``share`` is the calibrated count divided by n: the estimated joint probability.
        """
        off = np.flatnonzero(self.label != self.latent)
        order = off[np.lexsort((off, -self.count[off], -self.calibrated[off]))]

        def class_(index: Ints) -> pa.Array:
            return class_column(index.astype(np.int32), class_names, self.classes)

        calibrated = self.calibrated[order]
        return pa.table(
            {
                "label": class_(self.label[order]),
                "latent": class_(self.latent[order]),
                "count": pa.array(self.count[order]),
                "calibrated": pa.array(calibrated),
                "share": pa.array(calibrated / max(self.n, 1)),
            }
        )


def class_thresholds(
    labels: NDArray[np.integer], p_label: NDArray[np.floating], classes: int
) -> Floats:
    """Return the mean probability of the label (c,) by class: needs no vectors.

    At least 2e-6; 2 where a class has no samples.
    """
    thresholds = np.full(classes, UNREACHED)
    labels = labels.astype(np.min_scalar_type(classes))  # NumPy sorts 16 bits by radix
    order = np.argsort(labels, kind="stable")
    sorted_p = p_label[order].astype(np.float64)
    present, starts = np.unique(labels[order], return_index=True)
    for k, p in zip(present.tolist(), np.split(sorted_p, starts[1:]), strict=False):
        thresholds[k] = p.mean()
    return np.asarray(np.maximum(thresholds, LOWEST_THRESHOLD))


def latent_labels(probabilities: NDArray[np.floating], thresholds: Floats) -> Ints:
    """Return the class (n,) that each row of probabilities (n, c) is counted to, or -1."""
    lowest = thresholds - FUZZ
    top = probabilities.argmax(axis=1)
    latent = np.where(probabilities[np.arange(len(top)), top] >= lowest[top], top, -1)
    # If the highest reaches its threshold, it counts whatever others do: most rows end here.
    rest = np.flatnonzero(latent < 0)
    reached = probabilities[rest] >= lowest
    several = np.count_nonzero(reached, axis=1)
    latent[rest[several == 1]] = reached[several == 1].argmax(axis=1)
    latent[rest[several > 1]] = top[rest[several > 1]]
    return latent


def confident_joint(
    labels: NDArray[np.integer], probabilities: NDArray[np.floating]
) -> ConfidentJoint:
    """Count labels against the classes that the model is confident of.

    Parameters
    ----------
    labels : (n,) integers
    probabilities : (n, c) floats
        Valid ones, of one epoch; best from models that did not see the samples in training. It
        is gone through by chunks, and may be a memory map.

    Returns
    -------
    ConfidentJoint

    Raises
    ------
    UsageError
        Where lengths differ or a label is no class.
    """
    if probabilities.ndim != 2 or len(labels) != len(probabilities):
        raise UsageError(
            f"labels {labels.shape} do not fit probabilities {probabilities.shape}: give one row "
            "of probabilities a label"
        )
    n, c = probabilities.shape
    if n and not 0 <= labels.min() <= labels.max() < c:
        raise UsageError(f"labels run from {labels.min()} to {labels.max()}, not in [0, {c})")
    given = np.asarray(labels, np.int64)
    thresholds = class_thresholds(given, probabilities[np.arange(n), given], c)
    latent = np.empty(n, np.int64)
    kept = np.empty(n, bool)
    step = max(1, VALUES_AT_ONCE // max(c, 1))
    for first in range(0, n, step):
        rows = slice(first, first + step)
        chunk = probabilities[rows].astype(np.float64)
        latent[rows] = latent_labels(chunk, thresholds)
        kept[rows] = label_is_highest(chunk, given[rows])
    return _count(given, latent, kept, thresholds)


def joint_of(side: Side) -> ConfidentJoint | None:
    """Return the confident joint of an epoch from what is stored; None where no vectors are.

    Up to 16 classes, from 16-bit differences of logits: samples within 5e-4 of a threshold may be
    counted otherwise than from the predictions themselves.
    """
    log_p = side.log_probabilities()
    return None if log_p is None else confident_joint(side.labels, np.exp(log_p))


def label_is_highest(p: Floats, labels: Ints) -> Bools:
    """Return in which rows the label is the prediction, or so by 1e-6; changes `p`."""
    rows = np.arange(len(labels))
    p[rows, labels] += FUZZ
    return np.asarray(p.argmax(axis=1) == labels)


def _count(labels: Ints, latent: Ints, kept: Bools, thresholds: Floats) -> ConfidentJoint:
    c = len(thresholds)
    confident = latent >= 0
    codes = labels[confident] * c + latent[confident]
    pairs, counts = np.unique(codes, return_counts=True)
    issues = np.flatnonzero(confident & (latent != labels) & ~kept)
    return joint_of_counts(pairs, counts, np.bincount(labels, minlength=c), thresholds, issues)


def joint_of_counts(
    pairs: Ints, counts: Ints, support: Ints, thresholds: Floats, issues: Ints
) -> ConfidentJoint:
    """Return the joint of samples that were counted.

    Parameters
    ----------
    pairs, counts : (m,) int64
        ``label * classes + latent label`` of the pairs that occur, ascending, and how many
        samples each has.
    support : (c,) int64
    thresholds : (c,) float64
    issues : (k,) int64
    """
    c = len(thresholds)
    n_confident = int(counts.sum())
    diagonal = np.arange(c) * (c + 1)
    absent = np.setdiff1d(diagonal, pairs, assume_unique=True)
    pairs = np.concatenate([pairs, absent])
    counts = np.concatenate([counts, np.ones(len(absent), np.int64)])
    order = np.argsort(pairs)
    pairs, counts = pairs[order], counts[order]
    label, latent = pairs // c, pairs % c
    return ConfidentJoint(
        classes=c,
        thresholds=thresholds,
        support=support,
        n_confident=n_confident,
        label=label,
        latent=latent,
        count=counts,
        calibrated=_calibrated(label, counts, support),
        issues=issues,
    )


def _calibrated(label: Ints, counts: Ints, support: Ints) -> Ints:
    """Scale the counts (m,) of each label to its support, in integers: largest remainders.

    Exact up to 3e9 samples. `label` ascends.
    """
    totals = np.zeros(len(support), np.int64)
    np.add.at(totals, label, counts)
    whole, remainder = np.divmod(counts * support[label], totals[label])
    given = np.zeros(len(support), np.int64)
    np.add.at(given, label, whole)
    order = np.lexsort((-remainder, label))  # stable: of equals the lower class
    starts = np.searchsorted(label, np.arange(len(support)))
    place = np.arange(len(label)) - starts[label]  # within the label; `order` keeps labels in order
    up = place < (support - given)[label]
    whole[order[up]] += 1
    return np.asarray(whole)

"""Whether confidence means what it says: reliability tables, and the errors made from them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa

from fastdiv.errors import UsageError
from fastdiv.explain.evidence import Bools, Floats, Ints, Side
from fastdiv_kernels.contract import BINS

Scheme = Literal["width", "mass"]


@dataclass(frozen=True, slots=True)
class Bins:
    """Probabilities in bins; b bins, some of them empty.

    Attributes
    ----------
    index : (n,) int64
        The bin of each probability.
    edges : (b + 1,) float64
        Bin i holds what is above ``edges[i]`` and not above ``edges[i + 1]``; the first also what
        is at or below its lower edge.
    n : (b,) int64
    """

    index: Ints
    edges: Floats
    n: Ints

    def mean(self, values: Floats | Bools) -> Floats:
        """Return the means (b,) of values (n,); NaN where a bin is empty."""
        sums = np.bincount(self.index, values, len(self.n))
        with np.errstate(invalid="ignore"):
            return np.asarray(sums / self.n)


def equal_width(p: Floats, bins: int) -> Ints:
    """Return which of bins of equal width, closed on the right, each probability is in."""
    return np.asarray(np.clip(np.ceil(bins * p) - 1, 0, bins - 1).astype(np.int64))


def binned(p: Floats, bins: int, scheme: Scheme) -> Bins:
    """Put probabilities into bins that are closed on the right.

    Parameters
    ----------
    p : (n,) float64
        In [0, 1]; what is outside goes to the nearest bin.
    bins : int
    scheme : {"width", "mass"}
        Bins of equal width (Guo et al., "On Calibration of Modern Neural Networks",
        arXiv:1706.04599), or of about equally many samples (Nixon et al., "Measuring Calibration
        in Deep Learning", arXiv:1904.01685). The inner edges of these are the probabilities with
        rank ``floor(i * (n - 1) / bins)``, i in 1 ... bins - 1, as in scikit-learn's "quantile"
        strategy; equal probabilities are always in one bin, the lowest they reach, so that no
        order of samples matters. Where many are equal, some bins are empty.
    """
    if bins < 1:
        raise UsageError(f"{bins} bins: ask for 1 or more")
    if scheme == "width":
        index = equal_width(p, bins)
        edges = np.arange(bins + 1) / bins
    elif scheme == "mass":
        index = np.zeros(len(p), np.int64)
        edges = np.full(bins + 1, np.nan)
        if len(p):
            ranks = np.arange(1, bins) * (len(p) - 1) // bins
            inner = np.partition(p, ranks)[ranks] if bins > 1 else p[:0]
            index = np.searchsorted(inner, p, side="left")
            edges = np.concatenate([[p.min()], inner, [p.max()]])
    else:
        raise UsageError(f"no bins of equal {scheme}: take 'width' or 'mass'")
    return Bins(index, edges, np.bincount(index, minlength=bins))


def reliability(side: Side, bins: int = BINS, scheme: Scheme = "width") -> pa.Table:
    """Compare how confident the predictions are with how many are right, bin by bin.

    Parameters
    ----------
    side : Side
    bins : int
    scheme : {"width", "mass"}
        Bins of equal width or of about equally many samples, see `binned`.

    Returns
    -------
    pa.Table
        A row for each bin: ``bin``, int64; its edges ``lower`` (not in it, but for the first) and
        ``upper``; ``n``, int64; the means ``confidence`` and ``accuracy``; ``gap``, the first minus
        the second: positive is overconfident; ``loss``, nats, the mean of the finite ones;
        ``n_infinite``, int64. Where nothing is in a bin its means are null.
    """
    cut = binned(side.confidence, bins, scheme)
    confidence, accuracy = cut.mean(side.confidence), cut.mean(side.correct)
    finite = np.isfinite(side.loss)
    n_finite = np.bincount(cut.index[finite], minlength=bins)
    losses = np.bincount(cut.index[finite], side.loss[finite], bins)
    with np.errstate(invalid="ignore"):
        loss = losses / n_finite
    return pa.table(
        {
            "bin": pa.array(np.arange(bins)),
            "lower": pa.array(cut.edges[:-1], from_pandas=True),
            "upper": pa.array(cut.edges[1:], from_pandas=True),
            "n": pa.array(cut.n),
            "confidence": pa.array(confidence, from_pandas=True),
            "accuracy": pa.array(accuracy, from_pandas=True),
            "gap": pa.array(confidence - accuracy, from_pandas=True),
            "loss": pa.array(loss, from_pandas=True),
            "n_infinite": pa.array(cut.n - n_finite),
        }
    )


@dataclass(frozen=True, slots=True)
class Calibration:
    """Calibration errors of samples in an epoch; None where there are no samples.

    Means are weighted by the samples in a bin; bins are of equal width unless said otherwise. The
    gap of a bin is its mean confidence minus its accuracy.

    Attributes
    ----------
    n, bins : int
    ece : float or None
        Expected calibration error, the mean ``|gap|`` (Guo et al., arXiv:1706.04599).
    overconfidence, underconfidence : float or None
        The parts of `ece` from bins that are more confident than right, and less; they add up.
    maximum : float or None
        Maximum calibration error, the largest ``|gap|`` (Guo et al.).
    rms : float or None
        The root of the mean ``gap**2`` (Hendrycks et al., "Deep Anomaly Detection with Outlier
        Exposure", arXiv:1812.04606).
    adaptive_ece : float or None
        The mean ``|gap|`` over bins of about equally many samples (Nixon et al.,
        arXiv:1904.01685, of the highest probability alone); ties as in `binned`.
    classwise_ece : float or None
        The mean over classes of the expected calibration error of their probabilities, over all
        samples (Kull et al., "Beyond temperature scaling", arXiv:1910.12656; Nixon et al.'s static
        calibration error). None also where the vectors were not kept. These are renormalised and
        from 16 bits, except for two classes.
    classwise : pa.Table or None
        A row for each class, which `classwise_ece` is the mean of: ``class``, int32; ``support``,
        int64; ``frequency``, the share of samples that have the label; ``probability``, the mean
        of what the class was given; ``gap``, that minus the frequency; ``ece``.
    """

    n: int
    bins: int
    ece: float | None
    overconfidence: float | None
    underconfidence: float | None
    maximum: float | None
    rms: float | None
    adaptive_ece: float | None
    classwise_ece: float | None
    classwise: pa.Table | None


def calibration(side: Side, bins: int = BINS) -> Calibration:
    """Measure how far confidence is from accuracy."""
    if not len(side):
        return Calibration(0, bins, *[None] * 8)
    weights, gaps = _gaps(binned(side.confidence, bins, "width"), side.confidence, side.correct)
    adaptive = _gaps(binned(side.confidence, bins, "mass"), side.confidence, side.correct)
    over, under = (float(weights @ np.maximum(sign * gaps, 0.0)) for sign in (1, -1))
    classwise = _classwise(side, bins)
    return Calibration(
        n=len(side),
        bins=bins,
        ece=over + under,
        overconfidence=over,
        underconfidence=under,
        maximum=float(np.abs(gaps).max()),
        rms=math.sqrt(float(weights @ gaps**2)),
        adaptive_ece=float(adaptive[0] @ np.abs(adaptive[1])),
        classwise_ece=float(np.mean(classwise["ece"])) if classwise is not None else None,
        classwise=classwise,
    )


def _gaps(cut: Bins, p: Floats, hit: Bools) -> tuple[Floats, Floats]:
    """Return the share of samples and the gap of each bin that is not empty."""
    held = cut.n > 0
    return (cut.n / len(p))[held], (cut.mean(p) - cut.mean(hit))[held]


def _classwise(side: Side, bins: int) -> pa.Table | None:
    """Return the table of classes; None where the vectors were not kept."""
    log_p = side.log_probabilities()
    if log_p is None:
        return None
    c = log_p.shape[1]
    probability, ece = np.empty(c), np.empty(c)
    for k in range(c):
        p = np.exp(log_p[:, k])
        weights, gaps = _gaps(binned(p, bins, "width"), p, side.labels == k)
        probability[k], ece[k] = p.mean(), weights @ np.abs(gaps)
    return classwise_table(np.bincount(side.labels, minlength=c), probability, ece)


def classwise_table(support: Ints, probability: Floats, ece: Floats) -> pa.Table:
    """Return the table of classes, `Calibration.classwise`, from its columns (c,)."""
    frequency = support / support.sum()
    return pa.table(
        {
            "class": pa.array(np.arange(len(support), dtype=np.int32)),
            "support": pa.array(support),
            "frequency": pa.array(frequency),
            "probability": pa.array(probability),
            "gap": pa.array(probability - frequency),
            "ece": pa.array(ece),
        }
    )

"""Shapes: how confidence, margin and loss of the right and the wrong are distributed in an epoch.

Counted into bins that are the same for every epoch, so that shapes can be laid side by side. Sums
are exact and rounded once: no order of samples and no number of threads changes a bit.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from fastdiv.explain.evidence import Evidence, Floats, Ints
from fastdiv.tables import distributions
from fastdiv_kernels import exact
from fastdiv_kernels.contract import CONFIDENCE_EDGES, LOSS_EDGES, MARGIN_EDGES

__all__ = ["CONFIDENCE_EDGES", "LOSS_EDGES", "MARGIN_EDGES", "Shapes", "shapes"]


@dataclass(frozen=True, slots=True)
class Shapes:
    """Counts of the valid samples of one epoch.

    Attributes
    ----------
    epoch : int
    n : int
        Valid samples.
    n_infinite : int
        Of these, with an infinite loss; no bin of the loss holds them.
    confidence : (2, 50) int64
        Samples by bin of `CONFIDENCE_EDGES`: the wrong, then the right. The last bin holds 1.
    loss : (2, 82) int64
        Samples with a finite loss by bin of `LOSS_EDGES`, nats. The first bin also holds losses
        below 0, of probabilities that sum to more than 1.
    loss_sums : (82,) float64
        Nats of all samples of each bin.
    margin : (2, 82) int64
        Samples by bin of `MARGIN_EDGES`; infinite margins are in the outer bins.
    reliability : (15, 3) float64
        For 15 bins of confidence of equal width, those of the calibration error of `epochs`:
        samples, right ones, sum of confidence.
    """

    epoch: int
    n: int
    n_infinite: int
    confidence: Ints
    loss: Ints
    loss_sums: Floats
    margin: Ints
    reliability: Floats


def shapes(evidence: Evidence, epoch: int) -> Shapes:
    """Count the valid samples of an epoch.

    Raises
    ------
    UsageError
        Where no scores of the epoch are stored.
    """
    evidence.check(epoch)
    with ThreadPoolExecutor(evidence.threads) as pool:
        found = distributions(evidence.kernels, evidence.samples, epoch, pool, evidence.threads)
    n, n_infinite = found.counts.tolist()
    return Shapes(
        epoch=epoch,
        n=n,
        n_infinite=n_infinite,
        confidence=found.confidences,
        loss=found.losses,
        loss_sums=_rounded(found.loss_sums),
        margin=found.margins,
        reliability=np.column_stack([found.bins, _rounded(found.confidence_sums)]),
    )


def _rounded(sums: Ints) -> Floats:
    """Return exact sums (m, k) as numbers (m,), each correctly rounded."""
    return np.array([exact.mean(limbs, 1) for limbs in sums])

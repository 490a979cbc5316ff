"""Shapes: how confidence, margin and loss of the right and the wrong are distributed in an epoch.

Counted into bins that are the same for every epoch, so that shapes can be laid side by side.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fastdiv.explain.evidence import Floats, Ints, Side
from fastdiv_kernels.contract import BINS

CONFIDENCE_EDGES = np.linspace(0.0, 1.0, 51)
# Nats: four bins to each octave from 2^-14 to 2^6, one below and one above.
LOSS_EDGES = np.array(
    [0.0, *(2.0**k * (1 + j / 4) for k in range(-14, 6) for j in range(4)), 64.0, np.inf]
)
MARGIN_EDGES = np.array([-np.inf, *np.linspace(-20.0, 20.0, 81), np.inf])


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
        Samples with a finite loss by bin of `LOSS_EDGES`, nats.
    loss_sums : (82,) float64
        Nats of all samples of each bin.
    margin : (2, 82) int64
        Samples by bin of `MARGIN_EDGES`; infinite margins are in the outer bins.
    reliability : (15, 3) float64
        For 15 bins of confidence of equal width: samples, right ones, sum of confidence.
    """

    epoch: int
    n: int
    n_infinite: int
    confidence: Ints
    loss: Ints
    loss_sums: Floats
    margin: Ints
    reliability: Floats


def shapes(side: Side) -> Shapes:
    """Count the samples of an epoch."""
    right = side.correct.astype(np.int64)

    def by_right(values: Floats, edges: Floats) -> Ints:
        k = len(edges) - 1
        place = np.clip(np.searchsorted(edges, values, "right") - 1, 0, k - 1)
        return np.bincount(right * k + place, minlength=2 * k)[: 2 * k].reshape(2, k)

    finite = np.isfinite(side.loss)
    place = np.searchsorted(LOSS_EDGES, side.loss[finite], "right") - 1
    k = len(LOSS_EDGES) - 1
    bins = np.minimum((side.confidence * BINS).astype(np.int64), BINS - 1)
    return Shapes(
        epoch=side.epoch,
        n=len(side),
        n_infinite=int((~finite).sum()),
        confidence=by_right(side.confidence, CONFIDENCE_EDGES),
        loss=np.bincount(right[finite] * k + place, minlength=2 * k).reshape(2, k),
        loss_sums=np.bincount(place, side.loss[finite], minlength=k),
        margin=by_right(side.margin.astype(np.float64), MARGIN_EDGES),
        reliability=np.stack(
            [np.bincount(bins, w, minlength=BINS) for w in (None, right, side.confidence)], axis=1
        ).astype(np.float64),
    )

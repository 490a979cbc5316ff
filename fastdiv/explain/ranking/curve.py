"""Ranking curves in constant memory: positives and negatives counted in fixed bins of the score.

States of parts of the data add up, in any order and to the last bit, and every number made from
one comes with bounds on what sorting the scores would have found.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from fastdiv.errors import UsageError
from fastdiv.explain.evidence import Bools, Floats, Ints
from fastdiv.explain.ranking.steps import Bounds, Steps

# Bins of the magnitude of a logit x: 4096 equal ones in each octave of |x| + 2, eight octaves.
# Their width is 4.9e-4 below 2, 9.8e-4 below 6, 2e-3 below 14, 3.9e-3 below 30, and so on up to
# 510, beyond which all scores share a bin. On predictions of networks past their first epochs the
# AUC is so known within 1e-4 (it was 7e-3 in the first, when most scores of a class lie within .1
# of each other, and 2e-4 three epochs later); half as many bins doubled that.
OFFSET: Final = 2.0
OCTAVE_BITS: Final = 12
OCTAVES: Final = 8
HALF: Final = OCTAVES << OCTAVE_BITS  # bins of either sign
BINS: Final = 2 * HALF

_SHIFT: Final = 52 - OCTAVE_BITS  # of the bits of a float64, which grow with what they stand for
_FIRST: Final = int(np.float64(OFFSET).view(np.int64))
_ROWS: Final = 1 << 15  # at once, so that what is made of them stays in cache


def edges() -> Floats:
    """Return the ends (BINS + 1,) of the bins, ascending, in logits; the outer are infinite.

    Bin b holds the scores above ``edges()[b]`` up to and including ``edges()[b + 1]``, and the
    first one those of minus infinity too.
    """
    ends = ((np.arange(HALF) << _SHIFT) + _FIRST).view(np.float64) - OFFSET
    return np.concatenate([[-np.inf], -ends[:0:-1], ends, [np.inf]])


def bins_of(score: NDArray[np.floating[Any]]) -> Ints:
    """Return the bins (n,) of logits, which grow with these whatever the machine.

    Exact for float32; in float64 a score within 2e-16 of an edge may be taken for it.
    """
    x = np.asarray(score, np.float64)
    above = x > 0
    step = (np.abs(x) + OFFSET).view(np.int64)
    step -= _FIRST
    step -= above  # the upper end belongs to the bin: a logit of 0, p = .5, is not above .5
    step >>= _SHIFT
    np.clip(step, 0, HALF - 1, out=step)
    return np.where(above, HALF + step, HALF - 1 - step)


def count_bins(bins: Ints, positive: Bools, n_bins: int) -> Ints:
    """Return (n_bins, 2): negatives and positives in each bin."""
    return np.bincount(2 * bins + positive, minlength=2 * n_bins).reshape(n_bins, 2)


@dataclass(slots=True)
class CurveState:
    """Positives and negatives by bin of their score; a commutative monoid, 1 MiB.

    Attributes
    ----------
    counts : (BINS, 2) int64
        Negatives, then positives, in each bin of `edges`.
    """

    counts: Ints

    @classmethod
    def zero(cls) -> Self:
        """Return the state of nothing."""
        return cls(np.zeros((BINS, 2), np.int64))

    def absorb(self, score: NDArray[np.floating[Any]], positive: NDArray[Any]) -> None:
        """Add samples.

        Parameters
        ----------
        score : (n,) floating
            Logits of being positive, possibly infinite; of a probability p, log(p / (1 - p)).
        positive : (n,) bool
        """
        score, positive = checked(score, positive)
        for first in range(0, len(score), _ROWS):
            rows = slice(first, first + _ROWS)
            self.counts += count_bins(bins_of(score[rows]), positive[rows], BINS)

    def merge(self, other: Self) -> Self:
        """Return the state of both parts of the data."""
        return type(self)(self.counts + other.counts)

    @property
    def positives(self) -> int:
        """Samples that are positive."""
        return int(self.counts[:, 1].sum())

    @property
    def negatives(self) -> int:
        """Samples that are negative."""
        return int(self.counts[:, 0].sum())

    def steps(self) -> Steps:
        """Return what lies above each edge, which is exact; all edges, the highest first.

        At the lowest, which stands for calling every sample positive, scores of minus infinity
        count as above.
        """
        above = np.zeros((BINS + 1, 2), np.int64)
        np.cumsum(self.counts[::-1], axis=0, out=above[1:])
        return Steps(edges()[::-1], above[:, 1], above[:, 0])

    def roc_auc(self) -> Bounds | None:
        """Return the area under the ROC curve; None without positives or without negatives.

        Pairs that share a bin count half, as ties do; each may be off by that half.
        """
        return self.steps().roc_auc(exact=False)

    def average_precision(self) -> Bounds | None:
        """Return the average precision, by steps; None without positives.

        The value is that of scores rounded to their bins. Bounds: in each bin all positives tied
        ahead of the negatives, and all negatives ahead of positives no two of which tie.
        """
        return self.steps().average_precision(exact=False)


def checked(
    score: NDArray[np.floating[Any]], positive: NDArray[Any]
) -> tuple[NDArray[np.floating[Any]], Bools]:
    """Return scores and whether each is of a positive, if they are that.

    Raises
    ------
    UsageError
        Where they are not of one length, or a score is NaN.
    """
    score, positive = np.asarray(score), np.asarray(positive)
    if score.ndim != 1 or score.shape != positive.shape:
        raise UsageError(
            f"scores have shape {score.shape}, positives {positive.shape}: "
            "give one of each for every sample"
        )
    if np.isnan(score).any():
        raise UsageError(
            f"score {int(np.isnan(score).argmax())} is NaN and has no rank: leave such samples out"
        )
    if score.dtype.kind != "f":
        score = score.astype(np.float64)
    return score, positive.astype(bool)

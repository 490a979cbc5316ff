"""Whether the ranking changed between two epochs, and by how much more than chance."""

from __future__ import annotations

from dataclasses import dataclass
from math import erfc, sqrt
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fastdiv.explain.evidence import Bools, Floats, Ints, Pair, Side
from fastdiv.explain.ranking.curve import BINS, bins_of, count_bins
from fastdiv.explain.ranking.scores import binary_score, one_vs_rest
from fastdiv.explain.ranking.steps import Bounds
from fastdiv.explain.ranking.thresholds import best_threshold

TOLERANCE: Final = 1e-4  # of an AUC, beyond which scores are sorted
ALIKE: Final = 0.005  # of an AUC, up to which a difference is small
LEVEL: Final = 0.05  # of p, above which a difference may be chance


@dataclass(frozen=True, slots=True)
class RankingChange:
    """The change in ROC AUC between two epochs over the same samples.

    None stands where nothing can be said.

    Attributes
    ----------
    n, classes : int
    classes_ranked : int
        Classes over whose AUC the mean is taken: those with samples inside and outside; 1 of two.
    roc_auc_before, roc_auc_after, delta_auc : float or None
        Of class 1 of two, else the macro mean of each class against the rest.
    delta_auc_error : float or None
        How far the change may be off; 0 where scores were sorted, as they are for two classes.
    standard_error : float or None
        Of the change, paired (DeLong, DeLong & Clarke-Pearson 1988); None where a class has a
        single sample inside or outside. Of a macro mean, from the mean of each
        sample's influence on the classes' changes, so that correlation between classes counts.
    z, p : float or None
        The change over its standard error, and its two-sided p under a normal distribution; 0 and
        1 where nothing changed, None where there is a change without a standard error.
    unchanged : bool or None
        Whether p > .05 and the change is at most .005 either way: neither significant nor large.
    accuracy_before, accuracy_after, delta_accuracy : float or None
        Of the predictions, which for two classes means at the threshold .5.
    best_accuracy_before, best_accuracy_after, delta_best_accuracy : float or None
        At each epoch's own best threshold; of two classes only, as all that follows.
    threshold_before, threshold_after : float or None
        These thresholds, as probabilities.
    threshold_share : float or None
        1 - delta_best_accuracy / delta_accuracy: the part of the change in accuracy that the
        best thresholds give back; 1 where it was all the threshold. None without a change. To be
        read with `unchanged`: where the ranking got worse and one class prevails, the best
        threshold falls back on calling that class always, and so gives back much as well.
    """

    n: int
    classes: int
    classes_ranked: int
    roc_auc_before: float | None
    roc_auc_after: float | None
    delta_auc: float | None
    delta_auc_error: float | None
    standard_error: float | None
    z: float | None
    p: float | None
    unchanged: bool | None
    accuracy_before: float | None
    accuracy_after: float | None
    delta_accuracy: float | None
    best_accuracy_before: float | None
    best_accuracy_after: float | None
    delta_best_accuracy: float | None
    threshold_before: float | None
    threshold_after: float | None
    threshold_share: float | None


def _dense_ranks(score: NDArray[Any]) -> tuple[Ints, int]:
    """Return the ranks (n,) of scores from 0, ties with the same, and how many there are."""
    order = np.argsort(score)
    rising = score[order]
    of_sorted = np.cumsum(np.concatenate([[False], rising[1:] != rising[:-1]]), dtype=np.int64)
    ranks = np.empty_like(of_sorted)
    ranks[order] = of_sorted
    return ranks, int(of_sorted[-1]) + 1


def _place(keys: Ints, positive: Bools, n_keys: int, exact: bool) -> tuple[Floats, Bounds]:
    """Return DeLong's placement values (n,), and the AUC.

    Of a positive the share of negatives below it, of a negative that of positives above it; ties
    are half. Differences of midranks, as Sun & Xu (2014) have it, from counts by key.
    """
    counts = count_bins(keys, positive, n_keys)
    negatives, positives = counts[:, 0], counts[:, 1]
    n, p = int(negatives.sum()), int(positives.sum())
    twice_below = 2 * np.cumsum(negatives) - negatives
    twice_above = 2 * p - 2 * np.cumsum(positives) + positives
    placed = np.where(positive, (twice_below / (2 * n))[keys], (twice_above / (2 * p))[keys])
    twice = int(np.dot(positives, twice_below))
    shared = 0 if exact else int(np.dot(positives, negatives))
    low, value, high = ((twice + d) / (2 * n * p) for d in (-shared, 0, shared))
    return placed, Bounds(value, low, high)


def placements(
    score: NDArray[np.floating[Any]], positive: Bools, exact: bool = True
) -> tuple[Floats, Bounds]:
    """Return DeLong's placement values (n,) and the AUC they average to, by sorting or by bins.

    There must be positives and negatives. By bins, scores of a bin of `ranking.curve` are tied;
    where that leaves more than 1e-4 of the AUC in doubt, they are sorted all the same.
    """
    if not exact:
        placed, auc = _place(bins_of(score), positive, BINS, exact=False)
        if auc.error <= TOLERANCE:
            return placed, auc
    ranks, n_ranks = _dense_ranks(score)
    return _place(ranks, positive, n_ranks, exact=True)


def influence(change: Floats, positive: Bools) -> Floats | None:
    """Return each sample's influence (n,) on the change in AUC, whose squares add up to DeLong's.

    Of change (n,) in placement values. None where there is a single positive or negative.
    """
    result = np.empty(len(change))
    for group in (positive, ~positive):
        of_group = change[group]
        m = len(of_group)
        if m < 2:
            return None
        result[group] = (of_group - of_group.mean()) / sqrt(m * (m - 1.0))
    return result


def _scores(side: Side) -> dict[int, NDArray[np.floating[Any]]] | None:
    """Return the scores (n,) of each class to rank by; None where there are none."""
    if side.classes == 2:
        return {1: binary_score(side)}
    scores = one_vs_rest(side)
    return None if scores is None else dict(enumerate(scores))


def _best_accuracy(side: Side) -> tuple[float | None, float | None]:
    """Return the accuracy at the best threshold, and that; None unless of two classes."""
    if side.classes != 2:
        return None, None
    best = best_threshold(binary_score(side), side.labels == 1)
    return (best.value, best.threshold) if best else (None, None)


def _less(after: float | None, before: float | None) -> float | None:
    return None if after is None or before is None else after - before


def _test(delta: float, standard_error: float | None) -> tuple[float | None, float | None]:
    """Return z and its two-sided p."""
    if delta == 0.0 and standard_error is not None:
        return 0.0, 1.0
    if not standard_error:
        return None, None
    z = delta / standard_error
    return z, erfc(abs(z) / sqrt(2.0))


def ranking_change(pair: Pair, exact: bool = False) -> RankingChange | None:
    """Return how the ranking changed; None where vectors were not kept.

    Two classes are always sorted. More are each ranked against the rest, in bins (see
    `CurveState`) unless `exact`, and sorted where bins leave more than 1e-4 of an AUC in doubt.
    """
    before, after = _scores(pair.before), _scores(pair.after)
    if before is None or after is None:
        return None
    exact = exact or pair.before.classes == 2
    n = len(pair)
    aucs: list[tuple[Bounds, Bounds]] = []
    total: Floats | None = np.zeros(n)
    for k in before:
        positive = pair.labels == k
        if positive.all() or not positive.any():
            continue
        (was, auc_was), (now, auc_now) = (
            placements(scores[k], positive, exact) for scores in (before, after)
        )
        aucs.append((auc_was, auc_now))
        of_class = influence(now - was, positive)
        total = None if total is None or of_class is None else total + of_class
    auc_before = auc_after = delta = error = standard_error = z = p = unchanged = None
    if aucs:
        m = len(aucs)
        auc_before, auc_after = (sum(both[i].value for both in aucs) / m for i in (0, 1))
        delta = sum(now.value - was.value for was, now in aucs) / m
        error = sum(now.error + was.error for was, now in aucs) / m
        standard_error = None if total is None else sqrt(float(np.dot(total, total))) / m
        z, p = _test(delta, standard_error)
        if abs(delta) > ALIKE:
            unchanged = False
        elif p is not None:
            unchanged = p > LEVEL
    accuracy_before, accuracy_after = (
        float(side.correct.mean()) if n else None for side in (pair.before, pair.after)
    )
    best_before, threshold_before = _best_accuracy(pair.before)
    best_after, threshold_after = _best_accuracy(pair.after)
    delta_accuracy = _less(accuracy_after, accuracy_before)
    delta_best = _less(best_after, best_before)
    share = None
    if delta_accuracy and delta_best is not None:
        share = 1.0 - delta_best / delta_accuracy
    return RankingChange(
        n=n,
        classes=pair.before.classes,
        classes_ranked=len(aucs),
        roc_auc_before=auc_before,
        roc_auc_after=auc_after,
        delta_auc=delta,
        delta_auc_error=error,
        standard_error=standard_error,
        z=z,
        p=p,
        unchanged=unchanged,
        accuracy_before=accuracy_before,
        accuracy_after=accuracy_after,
        delta_accuracy=delta_accuracy,
        best_accuracy_before=best_before,
        best_accuracy_after=best_after,
        delta_best_accuracy=delta_best,
        threshold_before=threshold_before,
        threshold_after=threshold_after,
        threshold_share=share,
    )

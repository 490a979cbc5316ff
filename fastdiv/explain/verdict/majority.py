"""How near the most frequent class is to being predicted: what a bias on it works on."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from fastdiv.explain.evidence import Floats, Ints, Side
from fastdiv.explain.verdict.repairable import DEEPEST, Repair
from fastdiv.explain.verdict.repairs import Fitter, N, T

LEAST_SAVED = 4.5  # nats, all samples together: by chance less often than once in 300 epochs
MOST_ROWS = 1 << 16  # that the share of what is left is found on
SHARE_BOUNDS = (-12.0, 4.0)  # of its logarithm, against the class's share of the other labels
GAMMA_BOUNDS = (-12.0, 12.0)
HALVINGS = 24


def depths(side: Side, majority: int, fitter: Fitter) -> Floats | None:
    """Return how far (n,) a class's logit is below the highest; None for less than two classes.

    Known from vectors up to 16 classes, and wherever the class is the label or the
    prediction. Elsewhere its probability is estimated as a share of what prediction and label
    leave. How large a share follows from calibration: where the class is predicted, its
    probability is known, and with it the bias that mends it; the share is the one with which that
    bias mends the class everywhere.

    Parameters
    ----------
    side : Side
        n samples.
    majority : int
        The class.
    fitter : Fitter
        Of the side: temperature and floor are fitted first.
    """
    if side.classes < 2 or not len(side):
        return None
    is_top = side.predicted == majority
    if side.classes == 2:
        depth = np.where(is_top, 0.0, -np.abs(side.margin.astype(np.float64)))
    elif side.has_vectors:
        depth = side.profile[:, majority].astype(np.float64)
    else:
        depth = _estimated(side, majority, fitter)
    return np.maximum(depth, DEEPEST)


def _estimated(side: Side, majority: int, fitter: Fitter) -> Floats:
    is_top, is_label = side.predicted == majority, side.labels == majority
    top = np.maximum(side.confidence, 1e-300)
    at_label = np.where(side.correct, 0.0, np.exp(-side.loss))
    counts = np.bincount(side.labels, minlength=side.classes).astype(np.float64)
    others = len(side) - counts[side.predicted] - np.where(side.correct, 0.0, counts[side.labels])
    share = max(counts[majority], 1.0) / np.maximum(others, max(counts[majority], 1.0))
    left = np.maximum(1.0 - top - at_label, 1e-12)
    highest = np.where(is_label, -side.gap, np.minimum(np.log(left) - np.log(top), 0.0))
    depth = np.where(is_label, -side.gap, highest + np.log(share))
    repair = fitter.fit(frozenset({T, N})).repair
    gamma = _bias(fitter, repair, np.flatnonzero(is_top), is_label[is_top])
    elsewhere = np.flatnonzero(~is_top)
    elsewhere = elsewhere[:: max(len(elsewhere) // MOST_ROWS, 1)]
    s = fitter.epoch.take(elsewhere).partition(repair.beta)[:, 0]
    labelled, floor = is_label[elsewhere], repair.eta / side.classes

    def too_much(more: float) -> bool:
        """Tell whether the class is predicted more often than it is the label, bias and all."""
        x = np.minimum(depth[elsewhere] + more, highest[elsewhere])
        p = np.exp(np.minimum(repair.beta * np.where(labelled, highest[elsewhere], x) - s, 0.0))
        p = _biased(p, gamma)
        return bool(((1.0 - repair.eta) * p + floor - labelled).sum() > 0)

    more = _root(too_much, SHARE_BOUNDS) if len(elsewhere) else 0.0
    depth = np.where(is_label, depth, np.minimum(depth + more, highest))
    return np.where(is_top, 0.0, depth)


def _bias(fitter: Fitter, repair: Repair, rows: Ints, is_label: NDArray[np.bool_]) -> float:
    """Return the bias that mends a class where it is predicted, 0 where it saves next to nothing.

    Rows (k,) have it as their prediction.
    """
    if not len(rows):
        return 0.0
    p = np.exp(-fitter.epoch.take(rows).partition(repair.beta)[:, 0])
    floor = repair.eta / fitter.epoch.classes

    def likelihoods(gamma: float) -> Floats:
        q = (1.0 - repair.eta) * _biased(p, gamma) + floor
        return np.maximum(np.where(is_label, q, 1.0 - q), 1e-300)

    def too_much(gamma: float) -> bool:
        q = _biased(p, gamma)
        slope = (1.0 - repair.eta) * q * (1.0 - q) / likelihoods(gamma)
        return bool(np.where(is_label, slope, -slope).sum() < 0)

    gamma = _root(too_much, GAMMA_BOUNDS)
    saved = float(np.log(likelihoods(gamma)).sum() - np.log(likelihoods(0.0)).sum())
    return gamma if saved >= LEAST_SAVED else 0.0


def _biased(p: Floats, gamma: float) -> Floats:
    raised = math.exp(gamma) * p
    return raised / (1.0 - p + raised)


def _root(too_much: Callable[[float], bool], bounds: tuple[float, float]) -> float:
    """Return where something becomes too much, by halving."""
    low, high = bounds
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (low, middle) if too_much(middle) else (middle, high)
    return (low + high) / 2

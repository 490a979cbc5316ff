"""Murphy's decomposition of the Brier score, with what happens within bins.

A. H. Murphy, "A new vector partition of the probability score", Journal of Applied Meteorology 12
(1973), splits the score of forecasts that take few values into reliability, resolution and
uncertainty. Of forecasts that are put into bins, two terms are left over: D. B. Stephenson,
C. A. S. Coelho and I. T. Jolliffe, "Two extra components in the Brier score decomposition",
Weather and Forecasting 23 (2008).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from fastdiv.errors import UsageError
from fastdiv.explain.calibration.errors import Scheme, binned
from fastdiv.explain.evidence import Bools, Floats, Side
from fastdiv_kernels.contract import BINS

Event = Literal["correct", "positive"]


@dataclass(frozen=True, slots=True)
class Murphy:
    """The Brier score of forecasts of an event, in parts.

    ``brier = reliability - resolution + uncertainty + within_bin_variance -
    within_bin_covariance``. With bins k of n_k forecasts, their means f_k of the forecasts and o_k
    of the outcomes, and o the mean of all outcomes:

    Attributes
    ----------
    n, bins : int
    brier : float
        Mean squared difference of forecast and outcome; for two classes half of `Side.brier`.
    reliability : float
        ``sum(n_k * (f_k - o_k)**2) / n``, the miscalibration: lower is better.
    resolution : float
        ``sum(n_k * (o_k - o)**2) / n``, how far bins tell outcomes apart: higher is better.
    uncertainty : float
        ``o * (1 - o)``, the score of always forecasting o.
    within_bin_variance : float
        Mean squared difference of a forecast and the f_k of its bin.
    within_bin_covariance : float
        Twice the mean product of that difference and the outcome's from o_k.
    closure_error : float
        What rounding leaves: the sum of the parts minus `brier`.
    """

    n: int
    bins: int
    brier: float
    reliability: float
    resolution: float
    uncertainty: float
    within_bin_variance: float
    within_bin_covariance: float
    closure_error: float

    @property
    def generalized_resolution(self) -> float:
        """Resolution with the terms within bins, so that three terms are the score."""
        return self.resolution - self.within_bin_variance + self.within_bin_covariance


def decompose(
    forecasts: Floats, outcomes: Bools, bins: int = BINS, scheme: Scheme = "width"
) -> Murphy | None:
    """Decompose the Brier score of probability forecasts of an event.

    Parameters
    ----------
    forecasts : (n,) float64
    outcomes : (n,) bool
        Whether the event happened.
    bins : int
    scheme : {"width", "mass"}
        Bins of equal width or of about equally many samples, see
        `fastdiv.explain.calibration.errors.binned`.

    Returns
    -------
    Murphy or None
        None of nothing.
    """
    cut = binned(forecasts, bins, scheme)
    n = len(forecasts)
    if not n:
        return None
    forecast, outcome, rate = cut.mean(forecasts), cut.mean(outcomes), float(outcomes.mean())
    held = cut.n > 0
    weights = cut.n[held] / n
    residual = forecasts - forecast[cut.index]
    parts = {
        "reliability": float(weights @ (forecast - outcome)[held] ** 2),
        "resolution": float(weights @ (outcome[held] - rate) ** 2),
        "uncertainty": rate * (1.0 - rate),
        "within_bin_variance": float(np.mean(residual**2)),
        "within_bin_covariance": float(2.0 * np.mean(residual * (outcomes - outcome[cut.index]))),
    }
    brier = float(np.mean((forecasts - outcomes) ** 2))
    whole = (
        parts["reliability"] - parts["resolution"] + parts["uncertainty"]
        + parts["within_bin_variance"] - parts["within_bin_covariance"]
    )  # fmt: skip
    return Murphy(n=n, bins=bins, brier=brier, **parts, closure_error=whole - brier)


def murphy(
    side: Side, event: Event = "correct", bins: int = BINS, scheme: Scheme = "width"
) -> Murphy | None:
    """Decompose the Brier score of samples in an epoch.

    Parameters
    ----------
    side : Side
    event : {"correct", "positive"}
        What is forecast: that the prediction is right, by its confidence; or, of two classes, that
        the label is class 1, by its probability.
    bins, scheme
        See `decompose`.

    Returns
    -------
    Murphy or None
        None where there are no samples.
    """
    if event == "correct":
        return decompose(side.confidence, side.correct, bins, scheme)
    if event != "positive":
        raise UsageError(f"no decomposition for the event {event!r}: take 'correct' or 'positive'")
    log_p = side.log_probabilities() if side.classes == 2 else None
    if log_p is None:
        raise UsageError(f"{side.classes} classes: a positive one is there of two; take 'correct'")
    return decompose(np.exp(log_p[:, 1]), side.labels == 1, bins, scheme)

"""Is it more than chance: tests and intervals for what two epochs differ by, sample by sample.

Why these tests, and how often they raise a false alarm: `docs/decisions/chance.md`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastdiv.errors import UsageError
from fastdiv.explain.chance.normal import (
    fair_binomial_tail,
    normal_quantile,
    normal_two_sided,
    student_limit,
    student_two_sided,
)

__all__ = [
    "FEWEST",
    "MeanTest",
    "accuracy_interval",
    "holm",
    "mcnemar",
    "mean_test",
    "mean_test_of_moments",
    "normal_quantile",
    "normal_two_sided",
    "probability",
    "significant",
]

FEWEST = 30  # effective samples, below which no p-value is given


@dataclass(frozen=True, slots=True)
class MeanTest:
    """Whether the mean of paired differences is 0.

    Attributes
    ----------
    n : int
    mean : float
        0 where there is no sample.
    standard_error : float
        From the variance with n - 1; infinite where there are fewer than two samples.
    skewness : float
        Third central moment over the 3/2 power of the second; 0 where they do not vary.
    effective_n : float
        ``(Σd²)² / Σd⁴``: n where all are equally large, k where k of them carry the change, a
        third of n for a normal distribution around 0; 0 where all are 0.
    t : float
        Mean over standard error; infinite where the differences are equal and not 0.
    t_corrected : float
        ``T = t + k t²/3 + k² t³/27 + k/6`` with ``k = skewness / √n``, the monotone
        transformation of Hall (1992), "On the removal of skewness by transformation", J. R.
        Statist. Soc. B 54, 221-228.
    p : float or None
        Two-sided; None where effective_n < 30, where what carries the change are
        `effective_n` samples, too few to give their probability a number.
    low, high : float
        Confidence interval of the mean. It holds 0 exactly where `significant` says no at that
        level. Infinite where nothing can be said.
    """

    n: int
    mean: float
    standard_error: float
    skewness: float
    effective_n: float
    t: float
    t_corrected: float
    p: float | None
    low: float
    high: float

    def to_dict(self) -> dict[str, Any]:
        """Return the attributes as JSON knows them: null for what is infinite."""
        return {
            key: None if isinstance(value, float) and math.isinf(value) else value
            for key, value in asdict(self).items()
        }


def mean_test(d: NDArray[np.float64], level: float = 0.95) -> MeanTest:
    """Test whether the mean of differences is 0.

    Parameters
    ----------
    d : (n,) float64
        Differences, all finite.
    level : float
        Of the confidence interval, between 0 and 1.

    Raises
    ------
    ValueError
        Where a difference is not finite.
    UsageError
        Where the level is not between 0 and 1.
    """
    n = len(d)
    largest = float(np.abs(d).max(initial=0.0))
    if not math.isfinite(largest):
        raise ValueError("differences must be finite to have a mean")
    # The powers of what is under 2 neither overflow nor vanish together.
    exponent = math.frexp(largest)[1] - 1
    x = np.ldexp(d, -exponent)
    mean = float(x.sum()) / max(n, 1)
    mean += float((x - mean).sum()) / max(n, 1)  # so that equal differences have no variance
    squares = x * x
    deviations = x - mean
    squared = deviations * deviations
    return _test(
        n,
        mean,
        float(squared.sum()) / max(n, 1),
        float((squared * deviations).sum()) / max(n, 1),
        _effective(float(squares.sum()), float((squares * squares).sum())),
        math.ldexp(1.0, exponent),
        level,
    )


def mean_test_of_moments(
    n: int, s1: float, s2: float, s3: float, s4: float, level: float = 0.95
) -> MeanTest:
    """Test whether the mean of differences is 0, from their sums: those of parts can be added.

    The variance comes from ``Σd² - (Σd)²/n`` and loses digits where the mean is far above the
    standard deviation. See `mean_test` for what is returned.

    Parameters
    ----------
    n : int
    s1, s2, s3, s4 : float
        Sums of the differences' first four powers, finite.
    level : float
    """
    if not all(map(math.isfinite, (s1, s2, s3, s4))):
        raise ValueError("sums of differences must be finite to test their mean")
    if not n or s2 <= 0:
        return _test(n, 0.0, 0.0, 0.0, 0.0, 1.0, level)
    scale = math.sqrt(s2 / n)
    mean = s1 / n / scale
    third = s3 / n / scale / scale / scale - 3 * mean + 2 * mean * mean * mean
    return _test(n, mean, max(0.0, 1 - mean * mean), third, _effective(s2, s4), scale, level)


def _effective(s2: float, s4: float) -> float:
    """Return (Σd²)²/Σd⁴, 0 where it cannot be told."""
    return s2 * (s2 / s4) if s4 > 0 else 0.0


def _test(
    n: int, mean: float, second: float, third: float, effective: float, scale: float, level: float
) -> MeanTest:
    """Make a test from central moments, all in units of a scale."""
    if not 0 < level < 1:
        raise UsageError(f"a confidence level of {level} is none: give one between 0 and 1")
    if n < 2:
        return MeanTest(
            n, mean * scale, math.inf, 0.0, effective, 0.0, 0.0, None, -math.inf, math.inf
        )
    error = math.sqrt(second / (n - 1))
    if error > 0:
        largest = (n - 2) / math.sqrt(n - 1)  # of n numbers; beyond it is rounding
        skewness = min(max(third / second / math.sqrt(second), -largest), largest)
        t = mean / error
        k = skewness / math.sqrt(n)
        corrected = t + k * t * t / 3 + k * k * t * t * t / 27 + k / 6
    else:
        skewness = k = 0.0
        t = corrected = math.copysign(math.inf, mean) if mean else 0.0
    limit = _limit(1 - level, n, effective)
    if not error and not mean:
        low = high = 0.0
    elif math.isinf(limit):
        low, high = -math.inf, math.inf
    else:
        low, high = (mean - error * _uncorrected(z, k) for z in (limit, -limit))
    test = MeanTest(
        n, mean * scale, error * scale, skewness, effective, t, corrected, None,
        low * scale, high * scale,
    )  # fmt: skip
    if effective < FEWEST:
        return test
    return MeanTest(**{**asdict(test), "p": probability(test)})


def _uncorrected(corrected: float, k: float) -> float:
    """Return the t that Hall's transformation makes this of; no difference cancels at small k."""
    shifted = corrected - k / 6
    c = math.cbrt(1 + k * shifted)
    return 3 * shifted / (c * c + c + 1)


def _limit(alpha: float, n: int, effective: float) -> float:
    """Return what a corrected t must exceed to be significant at alpha."""
    if not effective or 2.0 ** (1 - n) >= alpha:
        return math.inf
    return student_limit(alpha, effective - 1)


def probability(test: MeanTest) -> float:
    """Return a cautious two-sided p-value, for any number of samples.

    Hall's statistic against Student's t with ``effective_n - 1`` degrees of freedom, and no less
    than ``2^(1-n)``, what n differences of one sign have by the sign test. The attribute `p` is
    this where 30 effective samples or more make it a number to quote; for fewer it is what a
    decision may rest on, not more.
    """
    if test.n < 2 or not test.effective_n:
        return 1.0
    p = student_two_sided(test.t_corrected, test.effective_n - 1)
    return max(p, 2.0 ** (1 - test.n))


def significant(test: MeanTest, alpha: float = 0.05) -> bool:
    """Return whether the mean differs from 0 beyond chance, see `probability`.

    At a nominal 5 %, false alarms among differences of mean 0 are at most 5.1 % from 100 samples
    on, whether they are normal, lognormal, of Student's t(2.5), or .3 % of samples carry them with
    either sign. The exception, which no test can mend, is in `docs/decisions/chance.md`.
    """
    return probability(test) < alpha


def mcnemar(b: int, c: int) -> float:
    """Return the exact two-sided p-value of McNemar's test.

    Parameters
    ----------
    b, c : int
        Samples that went right to wrong, and wrong to right.

    Notes
    -----
    McNemar (1947), "Note on the sampling error of the difference between correlated
    proportions or percentages": twice the smaller binomial tail at 1/2, at most 1.
    """
    if b == c:
        return 1.0
    return min(1.0, 2 * fair_binomial_tail(min(b, c), b + c))


def accuracy_interval(b: int, c: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Return a confidence interval of the change in accuracy, (c - b) / n, of paired samples.

    The score interval of Tango (1998), "Equivalence test and confidence interval for the
    difference in proportions for the paired-sample design", Statist. Med. 17, 891-908. It needs
    only the flips, covers well in small samples, and has a width where there are no flips.

    Parameters
    ----------
    b, c : int
        Samples that went right to wrong, and wrong to right.
    n : int
        All samples; none gives (-1, 1).
    level : float
    """
    if not 0 < level < 1:
        raise UsageError(f"a confidence level of {level} is none: give one between 0 and 1")
    if not n:
        return -1.0, 1.0
    z = -normal_quantile((1 - level) / 2)
    low = -_upper(c, b, n, z)
    return low, _upper(b, c, n, z)


def _upper(b: int, c: int, n: int, z: float) -> float:
    """Return the largest change that the score test does not reject, by bisection."""
    low, high = (c - b) / n, 1.0
    while True:
        change = (low + high) / 2
        if not low < change < high:
            return high
        # The likeliest probability of right to wrong, if this were the change
        p = (2 * n + b - c) * change - b - c
        q = -b * change * (1 - change)
        root = math.sqrt(max(0.0, p * p - 8 * n * q))
        lost = (root - p) / (4 * n) if p < 0 else (-2 * q / (root + p) if root + p else 0.0)
        variance = n * (2 * lost + change * (1 - change))
        if n * change - (c - b) > z * math.sqrt(max(0.0, variance)):
            high = change
        else:
            low = change


def holm(p: Sequence[float | None]) -> list[float | None]:
    """Return p-values adjusted for their number, by Holm's step-down procedure.

    Those that are None stay None and do not count.

    Notes
    -----
    Holm (1979), "A simple sequentially rejective multiple test procedure", Scand. J. Statist. 6,
    65-70.
    """
    adjusted: list[float | None] = [None] * len(p)
    told = sorted((value, i) for i, value in enumerate(p) if value is not None)
    highest = 0.0
    for rank, (value, i) in enumerate(told):
        highest = max(highest, min(1.0, (len(told) - rank) * value))
        adjusted[i] = highest
    return adjusted

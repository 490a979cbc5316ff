"""Tails of the normal, Student's and the fair binomial distribution, to nearly full precision."""

from __future__ import annotations

import math

import numpy as np

SMALLEST_TAIL = 1e-300  # below, the complementary error function has lost its digits
LEAST_DEGREES = 0.2  # below, a 95 % quantile is over a million standard errors
MANY_DEGREES = 1e4  # above, Hill's expansion is as good as the continued fraction


def normal_two_sided(z: float) -> float:
    """Return the probability that a standard normal variable is at least |z| away from 0."""
    return math.erfc(abs(z) / math.sqrt(2))


def normal_quantile(q: float) -> float:
    """Return the z below which a standard normal variable lies with probability q.

    Newton's method on the logarithm of the distribution function. That is concave, so from a
    start below the root every step stays below it. 0 and 1 give minus and plus infinity;
    probabilities under 1e-300 count as that.

    Raises
    ------
    ValueError
        Where q is not a probability.
    """
    if not 0 <= q <= 1:
        raise ValueError(f"{q} is not a probability")
    if q > 0.5:
        return -normal_quantile(1 - q)
    if q == 0:
        return -math.inf
    target = math.log(max(q, SMALLEST_TAIL))
    z = -math.sqrt(-2 * target)  # below the root, since the tail beyond it is under exp(-z²/2) / 2
    for _ in range(50):
        tail = math.erfc(-z / math.sqrt(2)) / 2
        density = math.exp(-z * z / 2) / math.sqrt(2 * math.pi)
        step = (target - math.log(tail)) * tail / density
        z += step
        if abs(step) <= 1e-16 * (1 + abs(z)):
            break
    return z


def _beta_fraction(a: float, b: float, x: float) -> float:
    """Return the continued fraction of the incomplete beta function (DLMF 8.17.22)."""
    tiny = 1e-300
    c, d = 1.0, 1 / (1 - (a + b) * x / (a + 1) or tiny)
    h = d
    for m in range(1, 100_000):
        for term in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d = 1 / (1 + term * d or tiny)
            c = 1 + term / c or tiny
            h *= c * d
        if abs(c * d - 1) < 1e-15:
            break
    return h


def _log_gamma_ratio(a: float) -> float:
    """Return ln(Γ(a + 1/2) / Γ(a)), whose two terms would cancel where a is large."""
    if a < 20:
        return math.lgamma(a + 0.5) - math.lgamma(a)
    r = 1 / (a * a)
    return 0.5 * math.log(a) + (-1 / 8 + r * (1 / 192 + r * (-1 / 640 + r * 17 / 14336))) / a


def student_two_sided(t: float, degrees: float) -> float:
    """Return the probability that Student's t is at least |t| away from 0.

    Parameters
    ----------
    t : float
        Finite or not.
    degrees : float
        Degrees of freedom, whole or not; 1 is returned where they are 0 or less. Above 1e4 by
        Hill (1970), "Algorithm 395: Student's t-distribution".
    """
    if degrees <= 0:
        return 1.0
    if math.isinf(t):
        return 0.0
    a, square = degrees / 2, t * t
    logarithm = math.log1p(square / degrees)
    if degrees > MANY_DEGREES:
        y = (degrees - 0.5) * logarithm
        return normal_two_sided(math.sqrt(y) * (1 + (y + 3) / (48 * (degrees - 0.5) ** 2)))
    if square == 0:
        return 1.0
    # x^a (1 - x)^(1/2) / B(a, 1/2), where x = degrees / (degrees + t²)
    front = math.exp(_log_gamma_ratio(a) - a * logarithm) * abs(t) / math.sqrt(
        math.pi * (degrees + square)
    )  # fmt: skip
    x = 1 / (1 + square / degrees)
    if x < (a + 1) / (a + 2.5):
        return min(1.0, front * _beta_fraction(a, 0.5, x) / a)
    return max(0.0, 1 - front * _beta_fraction(0.5, a, square / (degrees + square)) / 0.5)


def student_limit(p: float, degrees: float) -> float:
    """Return the t > 0 that `student_two_sided` gives the probability p in (0, 1).

    Newton's method on ln p over ln t, which is concave. Infinite below 0.2 degrees of freedom.
    """
    if degrees < LEAST_DEGREES:
        return math.inf
    log_t = math.log(-normal_quantile(p / 2))  # Student's tails are heavier
    for _ in range(100):
        t = math.exp(log_t)
        tail = student_two_sided(t, degrees)
        density = math.exp(
            _log_gamma_ratio(degrees / 2) - (degrees + 1) / 2 * math.log1p(t * t / degrees)
        ) / math.sqrt(math.pi * degrees)
        step = math.log(tail / p) * tail / (2 * density * t)
        log_t += step
        if abs(step) < 1e-14:
            break
    return math.exp(log_t)


def _stirling_error(k: int) -> float:
    """Return ln k! minus Stirling's formula (Loader 2000, "Fast and accurate computation ...")."""
    if k < 16:
        stirling = (k + 0.5) * math.log(k) - k + 0.5 * math.log(2 * math.pi) if k else 0.0
        return math.log(math.factorial(k)) - stirling
    r = 1 / (k * k)
    return (1 / 12 - r * (1 / 360 - r * (1 / 1260 - r * (1 / 1680 - r / 1188)))) / k


def fair_binomial_tail(k: int, n: int) -> float:
    """Return the probability of at most k heads in n throws of a fair coin, 0 <= k <= n / 2.

    The probability of exactly k without a difference of large logarithms, then the ratios of one
    term to the next; exact but for rounding, however large n is.
    """
    if k == 0:
        return math.ldexp(1.0, -n)
    skew = (n - 2 * k) / n
    exponent = n / 2 * ((1 - skew) * math.log1p(-skew) + (1 + skew) * math.log1p(skew))
    correction = _stirling_error(n) - _stirling_error(k) - _stirling_error(n - k)
    most = math.exp(correction - exponent) * math.sqrt(n / (2 * math.pi * k * (n - k)))
    total, term, first, block = 1.0, 1.0, 0, 4096
    while first < k and term > 1e-17 * total:
        i = np.arange(first, min(first + block, k))
        terms = term * np.cumprod((k - i) / (n - k + 1 + i))
        total += float(terms.sum())
        term, first = float(terms[-1]), first + block
    return min(1.0, most * total)

"""From a row's maximum and sums to its Scores; see `fastdiv_kernels.cpu.score`."""

from typing import Any

import numpy as np

from fastdiv_kernels.contract import HIGHEST_PROB, LOWEST_PROB, Kind, Reason
from fastdiv_kernels.cpu.arithmetic import exp, log, log1p
from fastdiv_kernels.cpu.jit import inner

LOGITS = int(Kind.LOGITS)
PROBS = int(Kind.PROBS)
LOGPROBS = int(Kind.LOGPROBS)
NAN = int(Reason.NAN)
POSITIVE_INFINITY = int(Reason.POSITIVE_INFINITY)
CONTRADICTS_KIND = int(Reason.CONTRADICTS_KIND)
NO_MASS = int(Reason.NO_MASS)
LABEL = int(Reason.LABEL)
HIGHEST_LOGPROB = float(np.log(HIGHEST_PROB))

HALF = np.float32(0.5)
SIXTH = np.float32(1 / 6)
CANCELS = np.float32(0.01)  # below, 1 - exp(-loss) is had from its series


@inner()
def invalid(kind: Any, has_nan: Any, highest: Any, lowest: Any, label_ok: Any) -> Any:
    """Return the Reason for which a row is invalid, or 0; extremes are of the row's values."""
    if has_nan:
        return NAN
    if highest == np.inf:
        return POSITIVE_INFINITY
    if kind == PROBS:
        if lowest < LOWEST_PROB or highest > HIGHEST_PROB:
            return CONTRADICTS_KIND
        if highest <= 0.0:
            return NO_MASS
    elif highest == -np.inf:
        return NO_MASS
    elif kind == LOGPROBS and highest > HIGHEST_LOGPROB:
        return CONTRADICTS_KIND
    if not label_ok:
        return LABEL
    return 0


@inner("contract")
def finish_logits(m: Any, of_label: Any, s: Any, q: Any, attained: Any, below: Any) -> Any:
    """Make (loss, confidence, margin, brier, mass) of a valid row; see `finish`."""
    one = exp(m - m)
    at_maximum = of_label == m
    margin = of_label - (below if at_maximum & (attained <= one) else m)
    s = s + (attained - one)  # the maxima beside the one that is left out
    q = q + (attained - one)
    total = one + s
    u = exp(of_label - m)
    others = q if at_maximum else one + q - u * u
    rest = s if at_maximum else total - u
    share = one / total
    brier = (rest * rest + others) * share * share
    return (m - of_label) + log1p(s), share, margin, brier, one


@inner("contract")
def finish_probs(m: Any, of_label: Any, s: Any, q: Any, attained: Any, below: Any) -> Any:
    """Make (loss, confidence, margin, brier, mass) of a valid row; see `finish`."""
    zero = m - m
    one = exp(zero)
    at_maximum = of_label == m
    other = below if at_maximum & (attained <= one) else m
    p = of_label if of_label > zero else zero
    other = other if other > zero else zero
    s = s + (attained - one) * m
    q = q + (attained - one) * m * m
    # Near a tie the difference of the logarithms would cancel; p - other is exact there.
    near = (p < other + other) & (other < p + p)
    log_p = log(p)
    margin = log1p((p - other) / other if near else zero) if near else log_p - log(other)
    rest = one - p
    others = q if at_maximum else m * m + q - p * p
    return zero - log_p, m, margin, rest * rest + others, m + s


@inner("contract")
def finish_logprobs(m: Any, of_label: Any, s: Any, q: Any, attained: Any, below: Any) -> Any:
    """Make (loss, confidence, margin, brier, mass) of a valid row; see `finish`."""
    one = exp(m - m)
    at_maximum = of_label == m
    margin = of_label - (below if at_maximum & (attained <= one) else m)
    s = s + (attained - one)
    q = q + (attained - one)
    highest = exp(m)
    u = exp(of_label - m)
    others = q if at_maximum else one + q - u * u
    loss = (m - m) - of_label  # not -0.0 where p is 1
    # 1 - p, by the series of 1 - exp(-loss) where the subtraction would cancel
    series = loss * (one - loss * (HALF - loss * SIXTH))
    rest = series if abs(loss) < CANCELS else one - exp(of_label)
    brier = rest * rest + others * highest * highest
    return loss, highest, margin, brier, highest * (one + s)


@inner()
def finish(kind: Any, m: Any, of_label: Any, s: Any, q: Any, attained: Any, below: Any) -> Any:
    """Make (loss, confidence, margin, brier, mass) of a valid row's maximum and sums.

    mass is the sum of the probabilities, 1 for logits. The functions by kind hold no branch, so
    that they vectorise across the lanes of a tile.
    """
    if kind == LOGITS:
        return finish_logits(m, of_label, s, q, attained, below)
    if kind == PROBS:
        return finish_probs(m, of_label, s, q, attained, below)
    return finish_logprobs(m, of_label, s, q, attained, below)


@inner("contract")
def weight_of_exp(x: Any, m: Any) -> Any:
    """Return what a logit or log-probability adds to the sums."""
    return exp(x - m)


@inner()
def weight_of_prob(x: Any, m: Any) -> Any:
    """Return what a probability adds to the sums."""
    return x

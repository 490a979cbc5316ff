"""`score` on the CPU: every number of a row in one visit, in one of two shapes.

Both compute, of a row's values x: the maximum m, how many attain it and the first that does, the
largest value below m, the label's rank, and two sums over the values below m, s = sum u and
q = sum u**2, where u = exp(x - m) or, for probabilities, u = x. `finish` makes the Scores of
these. Leaving the maximum out of s keeps a confident right answer's loss, log1p(s), precise
however small it is.

`score_tile` turns TILE rows into columns of a scratch and works across them: for few classes.
`score_rows` works along the row: for many. Which one is chosen by c alone, and in both the
operations on a row and their order depend on c alone, so neighbours cannot change a bit.
"""

from typing import Any

import numpy as np

from fastdiv_kernels.contract import HIGHEST_PROB, LOWEST_PROB, TIE, UNNORMALIZED, Kind, Reason
from fastdiv_kernels.cpu.arithmetic import exp, larger, log, log1p, smaller, value
from fastdiv_kernels.cpu.jit import inner, kernel

TILE = 128  # rows: accumulators and values of up to 20 classes stay in the first cache
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
def finish(
    kind: Any, tolerance: Any, m: Any, of_label: Any, s: Any, q: Any, attained: Any, below: Any
) -> Any:
    """Make (loss, confidence, margin, brier, unnormalized) of a valid row's maximum and sums."""
    zero = m - m  # typed constants, so that float32 stays float32
    one = exp(zero)
    at_maximum = of_label == m
    alone = attained <= one
    other = below if (at_maximum and alone) else m
    again = attained - one  # the maxima beside the one that is left out of s and q
    if kind == PROBS:
        p = of_label if of_label > zero else zero
        s = s + again * m
        q = q + again * m * m
        loss = -log(p)
        other = other if other > zero else zero
        # Near a tie the difference of the logarithms would cancel; p - other is exact there.
        near = (p < other + other) & (other < p + p)
        margin = log1p((p - other) / other) if near else log(p) - log(other)
        rest = one - p
        others = q if at_maximum else m * m + q - p * p
        return loss, m, margin, rest * rest + others, abs(m + s - one) > tolerance
    s = s + again
    q = q + again
    margin = of_label - other
    total = one + s
    u = exp(of_label - m)
    others = q if at_maximum else one + q - u * u
    if kind == LOGITS:
        share = one / total
        rest = s if at_maximum else total - u
        loss = (m - of_label) + log1p(s)
        return loss, share, margin, (rest * rest + others) * share * share, False
    highest = exp(m)
    loss = -of_label
    p = exp(of_label)
    # 1 - p, by the series of 1 - exp(-loss) where the subtraction would cancel
    small = loss * (one - loss * (HALF - loss * SIXTH))
    rest = small if abs(loss) < CANCELS else one - p
    brier = rest * rest + others * highest * highest
    return loss, highest, margin, brier, abs(highest * total - one) > tolerance


@kernel
def score_tile(
    predictions: Any, labels: Any, kind: Any, tolerance: Any, loss: Any, correct: Any,
    predicted: Any, confidence: Any, margin: Any, brier: Any, rank: Any, status: Any,
) -> None:  # fmt: skip
    """Score rows with few classes, TILE at a time; shapes and dtypes as in the contract."""
    n, c = predictions.shape
    values = np.zeros((c, TILE), dtype=loss.dtype)
    # (highest, below, lowest, nans, s, q, attained, first, ahead, of_label, label), by lane
    w = np.zeros((11, TILE), dtype=loss.dtype)
    highest, below, lowest, nans = w[0], w[1], w[2], w[3]
    s, q, attained, first, ahead, of_label, label = w[4], w[5], w[6], w[7], w[8], w[9], w[10]
    results = np.zeros((4, TILE), dtype=loss.dtype)
    off = np.zeros(TILE, dtype=np.bool_)
    for start in range(0, n, TILE):
        live = min(TILE, n - start)
        for lane in range(live):
            row = np.uint64(start + lane)
            for j in range(np.uint64(c)):
                values[j, np.uint64(lane)] = value(predictions[row, j])
            y = labels[row] if 0 <= labels[row] < c else 0
            label[lane] = y
            of_label[lane] = values[y, lane]
        tile_extremes(values, highest, below, lowest, nans)
        if kind == PROBS:
            tile_sums_of_probs(values, highest, s, q)
        else:
            tile_sums_of_exp(values, highest, s, q)
        tile_order(values, highest, of_label, label, attained, first, ahead)
        tile_finish(kind, tolerance, highest, of_label, s, q, attained, below, results, off)
        for lane in range(live):
            row = start + lane
            label_ok = 0 <= labels[row] < c
            reason = invalid(kind, nans[lane] != 0, highest[lane], lowest[lane], label_ok)
            if reason == 0:
                loss[row] = results[0, lane]
                confidence[row] = results[1, lane]
                margin[row] = results[2, lane]
                brier[row] = results[3, lane]
                correct[row] = ahead[lane] == 0
                rank[row] = np.int32(ahead[lane])
                predicted[row] = np.int32(first[lane])
                tie = TIE if attained[lane] > 1 else 0
                status[row] = tie | (UNNORMALIZED if off[lane] else 0)
            else:
                loss[row] = confidence[row] = margin[row] = brier[row] = np.nan
                correct[row] = False
                predicted[row] = rank[row] = -1
                status[row] = reason


@inner()
def tile_extremes(values: Any, highest: Any, below: Any, lowest: Any, nans: Any) -> None:
    """Find each lane's maximum, the largest value below it, the minimum, and count NaNs."""
    highest[:] = -np.inf
    below[:] = -np.inf
    lowest[:] = np.inf
    nans[:] = 0
    one = exp(nans[0])
    zero = one - one
    for j in range(np.uint64(values.shape[0])):
        for lane in range(np.uint64(TILE)):
            x = values[j, lane]
            m = highest[lane]
            b = below[lane]
            least = lowest[lane]
            under = x if x < m else (m if x > m else b)  # what x or m's fall puts below
            highest[lane] = x if x > m else m
            below[lane] = under if under > b else b
            lowest[lane] = x if x < least else least
            nans[lane] += zero if x == x else one


@inner("contract")
def tile_sums_of_exp(values: Any, highest: Any, s: Any, q: Any) -> None:
    """Sum u = exp(x - m) and its square over the values below each lane's maximum."""
    s[:] = 0
    q[:] = 0
    zero = s[0]
    for j in range(np.uint64(values.shape[0])):
        for lane in range(np.uint64(TILE)):
            x = values[j, lane]
            m = highest[lane]
            u = exp(x - m)
            u = u if x < m else zero
            s[lane] += u
            q[lane] += u * u


@inner("contract")
def tile_sums_of_probs(values: Any, highest: Any, s: Any, q: Any) -> None:
    """Sum the values below each lane's maximum, and their squares."""
    s[:] = 0
    q[:] = 0
    zero = s[0]
    for j in range(np.uint64(values.shape[0])):
        for lane in range(np.uint64(TILE)):
            x = values[j, lane]
            u = x if x < highest[lane] else zero
            s[lane] += u
            q[lane] += u * u


@inner()
def tile_order(
    values: Any, highest: Any, of_label: Any, label: Any, attained: Any, first: Any, ahead: Any
) -> None:
    """Count what attains the maximum, find the first that does, and the label's rank."""
    attained[:] = 0
    first[:] = values.shape[0]
    ahead[:] = 0
    zero = attained[0]
    one = exp(zero)
    index = zero
    for j in range(np.uint64(values.shape[0])):
        for lane in range(np.uint64(TILE)):
            x = values[j, lane]
            y = of_label[lane]
            f = first[lane]
            top = x == highest[lane]
            attained[lane] += one if top else zero
            first[lane] = index if (top & (index < f)) else f
            ahead[lane] += one if (x > y) | ((x == y) & (index < label[lane])) else zero
        index += one


@inner("contract")
def tile_finish(
    kind: Any, tolerance: Any, highest: Any, of_label: Any, s: Any, q: Any, attained: Any,
    below: Any, results: Any, off: Any,
) -> None:  # fmt: skip
    """Finish every lane, valid or not."""
    for lane in range(np.uint64(TILE)):
        loss, confidence, margin, brier, unnormalized = finish(
            kind, tolerance, highest[lane], of_label[lane], s[lane], q[lane], attained[lane],
            below[lane],
        )  # fmt: skip
        results[0, lane] = loss
        results[1, lane] = confidence
        results[2, lane] = margin
        results[3, lane] = brier
        off[lane] = unnormalized


@kernel
def score_rows(
    predictions: Any, labels: Any, kind: Any, tolerance: Any, loss: Any, correct: Any,
    predicted: Any, confidence: Any, margin: Any, brier: Any, rank: Any, status: Any,
) -> None:  # fmt: skip
    """Score rows with many classes, one after another; shapes and dtypes as in the contract."""
    n, c = predictions.shape
    real = loss.dtype.type
    for row in range(n):
        y = labels[row]
        label_ok = 0 <= y < c
        y = y if label_ok else 0
        has_nan = row_has_nan(predictions, row)
        m = lowest = real(0)
        reason = NAN
        if not has_nan:
            m, lowest = row_extremes(predictions, row, real(-np.inf), real(np.inf))
            reason = invalid(kind, has_nan, m, lowest, label_ok)
        if reason != 0:
            loss[row] = confidence[row] = margin[row] = brier[row] = np.nan
            correct[row] = False
            predicted[row] = rank[row] = -1
            status[row] = reason
            continue
        of_label = value(predictions[row, y])
        if kind == PROBS:
            s, q = row_sums_of_probs(predictions, row, m)
        else:
            s, q = row_sums_of_exp(predictions, row, m)
        attained, first, below, ahead = row_order(predictions, row, m, of_label, y, real(-np.inf))
        loss[row], confidence[row], margin[row], brier[row], off = finish(
            kind, tolerance, m, of_label, s, q, real(attained), below
        )
        correct[row] = ahead == 0
        rank[row] = ahead
        predicted[row] = first
        status[row] = (TIE if attained > 1 else 0) | (UNNORMALIZED if off else 0)


@inner()
def row_has_nan(predictions: Any, row: Any) -> Any:
    """Say whether a NaN is in a row; here nothing may assume there is none."""
    count = 0
    for j in range(np.uint64(predictions.shape[1])):
        x = value(predictions[np.uint64(row), j])
        count += x != x
    return count > 0


@inner("reassoc", "nnan", "nsz")
def row_extremes(predictions: Any, row: Any, highest: Any, lowest: Any) -> Any:
    """Return the maximum and the minimum of a row without NaN."""
    for j in range(np.uint64(predictions.shape[1])):
        x = value(predictions[np.uint64(row), j])
        highest = larger(highest, x)
        lowest = smaller(lowest, x)
    return highest, lowest


@inner("reassoc", "nnan", "nsz", "contract")
def row_sums_of_exp(predictions: Any, row: Any, m: Any) -> Any:
    """Sum u = exp(x - m) and its square over the values below the maximum."""
    s = m - m
    q = s
    zero = s
    for j in range(np.uint64(predictions.shape[1])):
        x = value(predictions[np.uint64(row), j])
        u = exp(x - m)
        u = u if x < m else zero
        s += u
        q += u * u
    return s, q


@inner("reassoc", "nnan", "nsz", "contract")
def row_sums_of_probs(predictions: Any, row: Any, m: Any) -> Any:
    """Sum the values below the maximum, and their squares."""
    s = m - m
    q = s
    zero = s
    for j in range(np.uint64(predictions.shape[1])):
        x = value(predictions[np.uint64(row), j])
        u = x if x < m else zero
        s += u
        q += u * u
    return s, q


@inner("reassoc", "nnan", "nsz")
def row_order(predictions: Any, row: Any, m: Any, of_label: Any, label: Any, below: Any) -> Any:
    """Return how many values attain m, the first that does, the largest below, and the rank."""
    c = np.int32(predictions.shape[1])
    attained = np.int32(0)
    first = c
    ahead = np.int32(0)
    lowest = below
    for j in range(np.uint64(c)):
        x = value(predictions[np.uint64(row), j])
        index = np.int32(j)
        top = x == m
        attained += np.int32(top)
        first = min(first, index if top else c)
        below = larger(below, lowest if top else x)
        ahead += np.int32((x > of_label) | ((x == of_label) & (index < label)))
    return attained, first, below, ahead

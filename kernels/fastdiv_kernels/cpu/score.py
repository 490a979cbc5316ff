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

from fastdiv_kernels.contract import TIE, UNNORMALIZED
from fastdiv_kernels.cpu.arithmetic import exp, larger, smaller, value
from fastdiv_kernels.cpu.finish import (
    LOGITS,
    NAN,
    PROBS,
    finish,
    finish_logits,
    finish_logprobs,
    finish_probs,
    invalid,
)
from fastdiv_kernels.cpu.jit import inner, kernel

TILE = 128  # rows: accumulators and values of up to 20 classes stay in the first cache
# A tile's scratch, flat: each of these numbers has TILE lanes from here on. One array, so that
# LLVM sees how far apart they are and vectorises without checking for overlap at run time.
(
    HIGHEST, BELOW, LOWEST, NANS, S, Q, ATTAINED, FIRST, AHEAD, OF_LABEL, LABEL_INDEX,
    LOSS, CONFIDENCE, MARGIN, BRIER, MASS,
) = (np.uint64(i * TILE) for i in range(16))  # fmt: skip
SCRATCH = 16 * TILE


@kernel
def score_tile(
    predictions: Any,
    labels: Any,
    kind: Any,
    tolerance: Any,
    loss: Any,
    correct: Any,
    predicted: Any,
    confidence: Any,
    margin: Any,
    brier: Any,
    rank: Any,
    status: Any,
) -> None:
    """Score rows with few classes, TILE at a time; shapes and dtypes as in the contract."""
    n, c = predictions.shape
    values = np.zeros((c, TILE), dtype=loss.dtype)
    w = np.zeros(SCRATCH, dtype=loss.dtype)
    for start in range(0, n, TILE):
        live = min(TILE, n - start)
        for i in range(live):
            row = start + i
            lane = np.uint64(i)
            for j in range(np.uint64(c)):
                values[j, lane] = value(predictions[np.uint64(row), j])
            y = labels[row] if 0 <= labels[row] < c else 0
            w[LABEL_INDEX + lane] = y
            w[OF_LABEL + lane] = values[y, i]
        tile_extremes(values, w)
        if kind == PROBS:
            tile_sums(values, w, weight_of_prob)
        else:
            tile_sums(values, w, weight_of_exp)
        tile_order(values, w)
        if kind == LOGITS:
            tile_finish(w, finish_logits)
        elif kind == PROBS:
            tile_finish(w, finish_probs)
        else:
            tile_finish(w, finish_logprobs)
        # One loop for each array, with unsigned indices: such loops are copies and vectorise.
        at = np.uint64(start)
        lanes = range(np.uint64(live))
        for i in lanes:
            loss[at + i] = w[LOSS + i]
        for i in lanes:
            confidence[at + i] = w[CONFIDENCE + i]
        for i in lanes:
            margin[at + i] = w[MARGIN + i]
        for i in lanes:
            brier[at + i] = w[BRIER + i]
        for i in lanes:
            rank[at + i] = np.int32(w[AHEAD + i])
        for i in lanes:
            correct[at + i] = w[AHEAD + i] == 0
        for i in lanes:
            predicted[at + i] = np.int32(w[FIRST + i])
        for i in lanes:
            tie = TIE if w[ATTAINED + i] > 1 else 0
            off = UNNORMALIZED if abs(w[MASS + i] - 1) > tolerance else 0
            status[at + i] = tie | off
        for i in range(live):
            lane = np.uint64(i)
            row = start + i
            has_nan = w[NANS + lane] != 0
            label_ok = 0 <= labels[row] < c
            reason = invalid(kind, has_nan, w[HIGHEST + lane], w[LOWEST + lane], label_ok)
            if reason != 0:
                loss[row] = confidence[row] = margin[row] = brier[row] = np.nan
                correct[row] = False
                predicted[row] = rank[row] = -1
                status[row] = reason


@inner()
def tile_extremes(values: Any, w: Any) -> None:
    """Find each lane's maximum, the largest value below it, the minimum, and count NaNs."""
    for lane in range(np.uint64(TILE)):
        w[HIGHEST + lane] = -np.inf
        w[BELOW + lane] = -np.inf
        w[LOWEST + lane] = np.inf
        w[NANS + lane] = 0
    zero = w[NANS]
    one = exp(zero)
    for j in range(np.uint64(values.shape[0])):
        for lane in range(np.uint64(TILE)):
            x = values[j, lane]
            m = w[HIGHEST + lane]
            b = w[BELOW + lane]
            least = w[LOWEST + lane]
            under = x if x < m else (m if x > m else b)  # what x or m's fall puts below
            w[HIGHEST + lane] = x if x > m else m
            w[BELOW + lane] = under if under > b else b
            w[LOWEST + lane] = x if x < least else least
            w[NANS + lane] += zero if x == x else one


@inner("contract")
def weight_of_exp(x: Any, m: Any) -> Any:
    """Return what a logit or log-probability adds to the sums."""
    return exp(x - m)


@inner()
def weight_of_prob(x: Any, m: Any) -> Any:
    """Return what a probability adds to the sums."""
    return x


@inner("contract")
def tile_sums(values: Any, w: Any, weight: Any) -> None:
    """Sum the weights, and their squares, of the values below each lane's maximum."""
    for lane in range(np.uint64(TILE)):
        w[S + lane] = 0
        w[Q + lane] = 0
    zero = w[S]
    for j in range(np.uint64(values.shape[0])):
        for lane in range(np.uint64(TILE)):
            x = values[j, lane]
            m = w[HIGHEST + lane]
            u = weight(x, m)
            u = u if x < m else zero
            w[S + lane] += u
            w[Q + lane] += u * u


@inner()
def tile_order(values: Any, w: Any) -> None:
    """Count what attains the maximum, find the first that does, and the label's rank."""
    for lane in range(np.uint64(TILE)):
        w[ATTAINED + lane] = 0
        w[FIRST + lane] = values.shape[0]
        w[AHEAD + lane] = 0
    zero = w[ATTAINED]
    one = exp(zero)
    index = zero
    for j in range(np.uint64(values.shape[0])):
        for lane in range(np.uint64(TILE)):
            x = values[j, lane]
            y = w[OF_LABEL + lane]
            f = w[FIRST + lane]
            top = x == w[HIGHEST + lane]
            w[ATTAINED + lane] += one if top else zero
            w[FIRST + lane] = index if (top & (index < f)) else f
            ahead = (x > y) | ((x == y) & (index < w[LABEL_INDEX + lane]))
            w[AHEAD + lane] += one if ahead else zero
        index += one


@inner("contract")
def tile_finish(w: Any, finish_kind: Any) -> None:
    """Finish every lane, valid or not."""
    for lane in range(np.uint64(TILE)):
        loss, confidence, margin, brier, mass = finish_kind(
            w[HIGHEST + lane], w[OF_LABEL + lane], w[S + lane], w[Q + lane],
            w[ATTAINED + lane], w[BELOW + lane],
        )  # fmt: skip
        w[LOSS + lane] = loss
        w[CONFIDENCE + lane] = confidence
        w[MARGIN + lane] = margin
        w[BRIER + lane] = brier
        w[MASS + lane] = mass


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
            s, q = row_sums(predictions, row, m, weight_of_prob)
        else:
            s, q = row_sums(predictions, row, m, weight_of_exp)
        attained, first, below, ahead = row_order(predictions, row, m, of_label, y, real(-np.inf))
        loss[row], confidence[row], margin[row], brier[row], mass = finish(
            kind, m, of_label, s, q, real(attained), below
        )
        correct[row] = ahead == 0
        rank[row] = ahead
        predicted[row] = first
        off = abs(mass - 1) > tolerance
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
def row_sums(predictions: Any, row: Any, m: Any, weight: Any) -> Any:
    """Sum the weights, and their squares, of the values below the maximum."""
    s = m - m
    q = s
    zero = s
    for j in range(np.uint64(predictions.shape[1])):
        x = value(predictions[np.uint64(row), j])
        u = weight(x, m)
        u = u if x < m else zero
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

"""`score_tile`: rows with few classes, turned into columns and worked across; see `score`."""

from typing import Any

import numpy as np

from fastdiv_kernels.contract import TIE, UNNORMALIZED
from fastdiv_kernels.cpu.arithmetic import exp, value
from fastdiv_kernels.cpu.finish import (
    LOGITS,
    PROBS,
    finish_logits,
    finish_logprobs,
    finish_probs,
    invalid,
    weight_of_exp,
    weight_of_prob,
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
        write_tile(
            w, start, live, tolerance, loss, correct, predicted, confidence, margin, brier, rank,
            status,
        )  # fmt: skip
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
def write_tile(
    w: Any, start: Any, live: Any, tolerance: Any, loss: Any, correct: Any, predicted: Any,
    confidence: Any, margin: Any, brier: Any, rank: Any, status: Any,
) -> None:  # fmt: skip
    """Write the Scores of a tile, valid or not."""
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

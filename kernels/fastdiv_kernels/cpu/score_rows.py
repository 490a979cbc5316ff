"""`score_rows`: rows with many classes, one after another; see `score`."""

from typing import Any

import numpy as np

from fastdiv_kernels.contract import TIE, UNNORMALIZED
from fastdiv_kernels.cpu.arithmetic import larger, smaller, value
from fastdiv_kernels.cpu.finish import (
    NAN,
    PROBS,
    finish,
    invalid,
    weight_of_exp,
    weight_of_prob,
)
from fastdiv_kernels.cpu.jit import inner, kernel


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

"""The executable specification: the contract in plain NumPy, in float64.

Slow and plain on purpose; it is the oracle that every backend is tested against, and a backend
itself (`--backend reference`).
"""

from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from fastdiv_kernels.contract import (
    BINS,
    CONFIDENCE_EDGES,
    CORRECT,
    GRID,
    HIGHEST_PROB,
    HIGHEST_SUMMED,
    LOSS_EDGES,
    LOWEST_KEPT,
    LOWEST_PROB,
    MARGIN_EDGES,
    PRESENT,
    REASON,
    SUM_TOLERANCE,
    SUM_TOLERANCE_16_BIT,
    TIE,
    TOP5,
    UNNORMALIZED,
    VECTORS_UP_TO,
    Array,
    Cell,
    Count,
    Kind,
    LossSum,
    PairCount,
    Reason,
    TallySum,
    as_float,
)
from fastdiv_kernels.exact import LIMBS_64, ORIGIN_32, ORIGIN_64
from fastdiv_kernels.grid import weights

name = "reference"
copies = False
BLOCK_VALUES = 1 << 20  # rows are taken in blocks of about this many predictions


def describe() -> str:
    """Name what the numbers were computed with."""
    return f"NumPy {np.__version__}, float64"


def empty(shape: int | tuple[int, ...], dtype: Any) -> Array:
    """Make an array of the host; see the contract."""
    return np.empty(shape, dtype)


def write_flags(correct: Array, rank: Array, status: Array, flags: Array) -> None:
    """Write what is stored of scores beside them; see the contract."""
    flags[:] = status | PRESENT
    flags[correct] |= CORRECT
    flags[(rank >= 0) & (rank < 5)] |= TOP5


def in_tiles(
    groups: Sequence[Callable[[], None]], steps: Sequence[tuple[int, int, int, int]]
) -> bool:
    """Leave calls to the caller; see the contract."""
    return False


def score(
    predictions: Array, labels: Array, kind: Kind, loss: Array, correct: Array,
    predicted: Array, confidence: Array, margin: Array, brier: Array, rank: Array, status: Array,
) -> None:  # fmt: skip
    """Score each row; see the contract."""
    n, c = predictions.shape
    tolerance = SUM_TOLERANCE_16_BIT if predictions.dtype.itemsize == 2 else SUM_TOLERANCE
    step = max(1, BLOCK_VALUES // c)
    outputs = (loss, correct, predicted, confidence, margin, brier, rank, status)
    for start in range(0, n, step):
        rows = slice(start, min(start + step, n))
        with np.errstate(invalid="ignore"):  # the cast of a signalling NaN
            block = as_float(predictions[rows]).astype(np.float64)
        results = _score_block(block, labels[rows].astype(np.int64), kind, tolerance)
        with np.errstate(over="ignore"):  # float32 cannot hold every loss of huge logits
            for output, result in zip(outputs, results, strict=True):
                output[rows] = result


def _score_block(
    v: NDArray[np.float64], labels: NDArray[np.int64], kind: Kind, tolerance: float
) -> tuple[Array, ...]:
    """Return loss, correct, predicted, confidence, margin, brier, rank and status of (n, c)."""
    n, c = v.shape
    reason = _reasons(v, labels, kind)
    valid = reason == Reason.VALID
    v = np.where(valid[:, None], v, 0.0 if kind == Kind.LOGITS else 1.0)
    y = np.where(valid, labels, 0)
    rows = np.arange(n)
    predicted = v.argmax(axis=1)  # the lowest index among equals
    m = v[rows, predicted]
    of_label = v[rows, y]
    index = np.arange(c)
    ahead = (v > of_label[:, None]) | ((v == of_label[:, None]) & (index < y[:, None]))
    rank = ahead.sum(axis=1)
    others = v.copy()
    others[rows, y] = -np.inf
    best_other = others.max(axis=1)
    off = np.zeros(n, dtype=bool)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        if kind == Kind.LOGITS:
            u = np.exp(v - m[:, None])
            u[rows, predicted] = 0.0  # left out of the sum, for log1p
            s = u.sum(axis=1)
            loss = (m - of_label) + np.log1p(s)
            margin = of_label - best_other
            u[rows, predicted] = 1.0
            p = u / (1.0 + s)[:, None]
            u[rows, y] = 0.0
            not_label = u.sum(axis=1) / (1.0 + s)
        elif kind == Kind.PROBS:
            p = v
            loss = -np.log(np.maximum(of_label, 0.0))
            margin = np.log(np.maximum(of_label, 0.0)) - np.log(np.maximum(best_other, 0.0))
            not_label = 1.0 - np.maximum(of_label, 0.0)
        else:
            p = np.exp(v)
            loss = -of_label
            margin = of_label - best_other
            not_label = -np.expm1(of_label)
        if kind != Kind.LOGITS:
            off = np.abs(p.sum(axis=1) - 1.0) > tolerance
    squares = p * p
    squares[rows, y] = 0.0
    brier = not_label * not_label + squares.sum(axis=1)
    tie = (v == m[:, None]).sum(axis=1) > 1
    status = np.where(valid, TIE * tie + UNNORMALIZED * off, reason)
    nan = np.where(valid, 0.0, np.nan)
    return (
        loss + nan,
        valid & (rank == 0),
        np.where(valid, predicted, -1),
        p[rows, predicted] + nan,
        margin + nan,
        brier + nan,
        np.where(valid, rank, -1),
        status,
    )


def _reasons(v: NDArray[np.float64], labels: NDArray[np.int64], kind: Kind) -> NDArray[np.int64]:
    """Return the Reason of each row; the first that applies, in the order of the conditions."""
    nan = np.isnan(v).any(axis=1)
    highest = np.where(nan, 0.0, v.max(axis=1))
    lowest = np.where(nan, 0.0, v.min(axis=1))
    conditions = [(nan, Reason.NAN), (highest == np.inf, Reason.POSITIVE_INFINITY)]
    if kind == Kind.PROBS:
        out_of_range = (lowest < LOWEST_PROB) | (highest > HIGHEST_PROB)
        conditions += [
            (out_of_range, Reason.CONTRADICTS_KIND),
            (highest <= 0.0, Reason.NO_MASS),
        ]
    else:
        conditions += [(highest == -np.inf, Reason.NO_MASS)]
    if kind == Kind.LOGPROBS:
        conditions += [(highest > np.log(HIGHEST_PROB), Reason.CONTRADICTS_KIND)]
    conditions += [((labels < 0) | (labels >= v.shape[1]), Reason.LABEL)]
    tests, reasons = zip(*conditions, strict=True)
    return np.select(tests, [np.int64(reason) for reason in reasons], np.int64(Reason.VALID))


def profile(predictions: Array, kind: Kind, predicted: Array, profile: Array) -> None:
    """Keep of each row what its loss at other temperatures is made from; see the contract."""
    n, c = predictions.shape
    step = max(1, BLOCK_VALUES // c)
    for start in range(0, n, step):
        rows = slice(start, min(start + step, n))
        valid = predicted[rows] >= 0
        with np.errstate(divide="ignore", invalid="ignore"):
            v = as_float(predictions[rows]).astype(np.float64)
            v = np.log(np.maximum(v, 0.0)) if kind == Kind.PROBS else v
            x = v - v.max(axis=1, keepdims=True)
        x, v = (np.where(valid[:, None], a, 0.0) for a in (x, v))
        x = np.where(v > -np.inf, np.maximum(x, LOWEST_KEPT), -np.inf)
        kept = x if c <= VECTORS_UP_TO else _curve(x)
        profile[rows] = np.where(valid[:, None], kept, 0.0)


def _curve(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return (n, 2 * len(GRID)): s(beta) of x (n, c), then its derivatives by log(beta)."""
    s = [_partition(x, beta) for beta in GRID]
    curve = np.stack([row for k in range(2) for row in (value[:, k] for value in s)], axis=1)
    return np.maximum(curve, LOWEST_KEPT)


def _partition(x: NDArray[np.float64], beta: float) -> NDArray[np.float64]:
    """Return (n, 3): s(beta) of x (n, c), and its first and second derivative by log(beta)."""
    finite = np.where(x > -np.inf, x, 0.0)
    u = np.exp(beta * x)
    total = u.sum(axis=1)
    mean = beta * (u * finite).sum(axis=1) / total
    square = beta * beta * (u * finite * finite).sum(axis=1) / total
    return np.stack([np.log(total), mean, mean + square - mean * mean], axis=1)


def temper(
    margin: Array, profile: Array, classes: int, beta: float, tempered: Array
) -> None:  # fmt: skip
    """Tell each row's log-partition function at an inverse temperature; see the contract."""
    beta = min(max(beta, GRID[0]), GRID[-1])
    if classes > VECTORS_UP_TO:
        tempered[:] = profile.astype(np.float64) @ weights(beta).T
        return
    if classes == 2:
        other = -np.abs(margin.astype(np.float64))
        x = np.stack([np.zeros(len(other)), other], axis=1)
    else:
        x = profile.astype(np.float64)
    tempered[:] = _partition(x, beta)


def tally_temperatures(
    loss: Array, margin: Array, flags: Array, profile: Array, classes: int, counts: Array,
    sums: Array,
) -> None:  # fmt: skip
    """Add the losses of one epoch at each temperature of the grid; see the contract."""
    taken = ((flags & (PRESENT | REASON)) == PRESENT) & np.isfinite(loss) & (margin > -np.inf)
    margin, profile = margin[taken], profile[taken]
    counts[0] += taken.sum()
    gap = np.maximum(0.0, -margin.astype(np.float64))
    tempered = np.empty((len(margin), 3))
    for k, beta in enumerate(GRID):
        temper(margin, profile, classes, beta, tempered)
        for row, values in ((k, tempered[:, 0]), (len(GRID) + k, tempered[:, 1])):
            x = np.minimum(values + beta * gap, HIGHEST_SUMMED)
            fixed = np.rint(x * 2.0**32).astype(np.int64)
            sums[row, 0] += (fixed & 0xFFFFFFFF).sum()
            sums[row, 1] += (fixed >> 32).sum()


def _add(limbs: Array, which: NDArray[np.int64], x: Array, sign: int = 1) -> None:
    """Add sign * x (n,) exactly to rows `which` (n,) of limbs (rows, k)."""
    origin = ORIGIN_64 if limbs.shape[1] == LIMBS_64 else ORIGIN_32
    fraction, exponent = np.frexp(x.astype(np.float64))
    mantissa = (fraction * 2.0**53).astype(np.int64) * sign
    # The value is mantissa * 2**position. Of a float32 the low bits of the mantissa are 0, so
    # shifting them out where the position would be negative loses nothing.
    position = exponent.astype(np.int64) - 53 - origin
    below = np.minimum(position, 0)
    mantissa >>= -below
    position -= below
    shift = position & 31
    low = (mantissa & 0xFFFFFFFF) << shift
    high = (mantissa >> 32) << shift  # signed
    limb = position >> 5
    np.add.at(limbs, (which, limb), low & 0xFFFFFFFF)
    np.add.at(limbs, (which, limb + 1), (low >> 32 & 0x7FFFFFFF) + (high & 0xFFFFFFFF))
    np.add.at(limbs, (which, limb + 2), high >> 32)


def tally(
    loss: Array, confidence: Array, margin: Array, brier: Array, flags: Array, counts: Array,
    bins: Array, loss_sums: Array, sums: Array,
) -> None:  # fmt: skip
    """Add the stored scores of one epoch to its totals; see the contract."""
    present = (flags & PRESENT) != 0
    reason = flags[present] & REASON
    counts[: len(Reason)] += np.bincount(reason, minlength=len(Reason))
    valid = present & ((flags & REASON) == 0)
    loss, confidence, margin, brier, flags = (
        x[valid] for x in (loss, confidence, margin, brier, flags)
    )
    right = (flags & CORRECT) != 0
    finite = np.isfinite(loss)
    finite_margin = np.isfinite(margin)
    for count, rows in (
        (Count.INFINITE, ~finite),
        (Count.UNNORMALIZED, (flags & UNNORMALIZED) != 0),
        (Count.TIES, (flags & TIE) != 0),
        (Count.RIGHT, right),
        (Count.TOP5, (flags & TOP5) != 0),
        (Count.FINITE_MARGIN, finite_margin),
    ):
        counts[count] += rows.sum()
    _add(loss_sums, np.where(right, LossSum.RIGHT, LossSum.WRONG)[finite], loss[finite])
    zero = np.zeros(len(loss), dtype=np.int64)
    _add(sums, zero + TallySum.CONFIDENCE, confidence)
    _add(sums, zero[finite_margin] + TallySum.MARGIN, margin[finite_margin])
    _add(sums, zero + TallySum.BRIER, brier)
    b = _bin(confidence)
    bins[:, 0] += np.bincount(b, minlength=BINS)
    bins[:, 1] += np.bincount(b[right], minlength=BINS)
    _add(sums, TallySum.BIN_CONFIDENCE + b, confidence)


def _bin(confidence: Array) -> NDArray[np.int64]:
    """Return which of the BINS each confidence (n,) is in; NaN, which no valid row has, the last.

    In float64, so that the product is exact and an edge belongs to the bin below it.
    """
    p = np.where(confidence < 1, confidence, 1.0).astype(np.float64)
    return np.asarray(np.clip(np.ceil(BINS * p) - 1, 0, BINS - 1), np.int64)


def _bin_between(edges: NDArray[np.float64], x: Array) -> NDArray[np.int64]:
    """Return which bin each of x (n,) is in, of those between edges; see `distributions`."""
    above = np.searchsorted(edges, x.astype(np.float64), "right")  # NaN is sorted to the end
    return np.asarray(np.clip(above - 1, 0, len(edges) - 2), np.int64)


def distributions(
    loss: Array, confidence: Array, margin: Array, flags: Array, counts: Array,
    confidences: Array, losses: Array, margins: Array, bins: Array, loss_sums: Array,
    confidence_sums: Array,
) -> None:  # fmt: skip
    """Add the stored scores of one epoch to its distributions; see the contract."""
    valid = (flags & (PRESENT | REASON)) == PRESENT
    loss, confidence, margin, flags = (x[valid] for x in (loss, confidence, margin, flags))
    right = ((flags & CORRECT) != 0).astype(np.int64)
    finite = np.isfinite(loss)
    counts += np.array([len(loss), (~finite).sum()])
    np.add.at(confidences, (right, _bin_between(CONFIDENCE_EDGES, confidence)), 1)
    np.add.at(margins, (right, _bin_between(MARGIN_EDGES, margin)), 1)
    place = _bin_between(LOSS_EDGES, loss[finite])
    np.add.at(losses, (right[finite], place), 1)
    _add(loss_sums, place, loss[finite])
    b = _bin(confidence)
    bins[:, 0] += np.bincount(b, minlength=BINS)
    bins[:, 1] += np.bincount(b[right == 1], minlength=BINS)
    number = np.isfinite(confidence)
    _add(confidence_sums, b[number], confidence[number])


def tally_classes(
    loss: Array, predicted: Array, labels: Array, flags: Array, counts: Array, loss_sums: Array
) -> None:
    """Add the stored scores of one epoch to its totals by class; see the contract."""
    valid = (flags & (PRESENT | REASON)) == PRESENT
    loss, predicted, flags = loss[valid], predicted[valid], flags[valid]
    labels = cast(NDArray[np.int64], labels[valid].astype(np.int64))
    c = len(counts)
    finite = np.isfinite(loss)
    counts[:, 0] += np.bincount(labels, minlength=c)
    counts[:, 1] += np.bincount(predicted, minlength=c)
    counts[:, 2] += np.bincount(labels[(flags & CORRECT) != 0], minlength=c)
    counts[:, 3] += np.bincount(labels[~finite], minlength=c)
    _add(loss_sums, labels[finite], loss[finite])


def transitions(
    loss_from: Array, predicted_from: Array, labels_from: Array, flags_from: Array,
    loss_to: Array, predicted_to: Array, labels_to: Array, flags_to: Array, counts: Array,
    delta_sums: Array,
) -> None:  # fmt: skip
    """Add the same samples in two epochs to the cells of their table; see the contract."""
    before = (flags_from & PRESENT) != 0
    after = (flags_to & PRESENT) != 0
    invalid = ((flags_from | flags_to) & REASON) != 0
    both = before & after & ~invalid
    counts[PairCount.ONLY_FROM] += (before & ~after).sum()
    counts[PairCount.ONLY_TO] += (after & ~before).sum()
    counts[PairCount.INVALID] += (before & after & invalid).sum()
    counts[PairCount.RELABELLED] += (both & (labels_from != labels_to)).sum()
    both &= labels_from == labels_to
    right_from = (flags_from & CORRECT) != 0
    right_to = (flags_to & CORRECT) != 0
    same = predicted_from == predicted_to
    cell = np.select(
        [right_from & right_to, right_from, right_to, same],
        [np.int64(Cell.RR), np.int64(Cell.RW), np.int64(Cell.WR), np.int64(Cell.WW_SAME)],
        np.int64(Cell.WW_CHANGED),
    )
    counts[: len(Cell)] += np.bincount(cell[both], minlength=len(Cell))
    finite = both & np.isfinite(loss_from) & np.isfinite(loss_to)
    counts[PairCount.INFINITE] += (both & ~finite).sum()
    _add(delta_sums, cell[finite], loss_to[finite])
    _add(delta_sums, cell[finite], loss_from[finite], -1)


def dynamics(
    epoch: int, loss: Array, margin: Array, predicted: Array, labels: Array, flags: Array,
    records: Array,
) -> None:  # fmt: skip
    """Carry each sample's history on by one epoch; see the contract."""
    valid = (flags & (PRESENT | REASON)) == PRESENT
    r = records[valid]
    right = (flags[valid] & CORRECT) != 0
    was_right = (r["n_epochs"] > 0) & (r["last_predicted"] == r["label"])
    p = np.exp(-loss[valid].astype(np.float64))
    r["n_epochs"] += 1
    difference = p - r["mean_p"]
    r["mean_p"] += difference / r["n_epochs"]
    r["m2_p"] += difference * (p - r["mean_p"])
    finite = np.isfinite(margin[valid])
    r["n_margin"] += finite
    r["margin_sum"] += np.where(finite, margin[valid], 0.0)
    r["forgetting"] += ~right & was_right
    r["first_right"] = np.where(right & (r["n_right"] == 0), epoch, r["first_right"])
    r["n_right"] += right
    r["last_loss"] = loss[valid]
    r["last_predicted"] = predicted[valid]
    r["label"] = labels[valid]
    records[valid] = r

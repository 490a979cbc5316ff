"""`score_rows`: rows with many classes, one after another; see `score`.

A row is read from memory once, in blocks. Of each block first the order is found (`block_order`),
which copies it, then, of the copy in the first cache, the sums (`block_exps`, `block_probs`), and
meanwhile what comes after the block is asked for. The sums are relative to the largest value so
far; where a block has a larger one, they are rescaled.
"""

from typing import Any

import numpy as np

from fastdiv_kernels.contract import TIE, UNNORMALIZED
from fastdiv_kernels.cpu.addresses import address_of
from fastdiv_kernels.cpu.arithmetic import exp, value
from fastdiv_kernels.cpu.finish import (
    LOGITS,
    PROBS,
    finish_logits,
    finish_logprobs,
    finish_probs,
    invalid,
)
from fastdiv_kernels.cpu.jit import inner, kernel
from fastdiv_kernels.cpu.row_lanes import LINE
from fastdiv_kernels.cpu.row_passes import (
    GROUP,
    bits_set,
    block_exps,
    block_order,
    block_probs,
    group_equal,
    group_highest_but,
    leave_out,
    lowest_bit,
    part_of,
    values_of,
)

BLOCK = 1024  # values, a multiple of GROUP
TURN = 1024  # values of rows of one block, of which the order is found before the sums
AT_ONCE = 64  # rows that are finished together
PADDING = 64  # values beside a copy
NEAR = 16384  # bytes ahead of what is worked on, that are asked for
# A scratch, flat, so that LLVM sees that nothing overlaps: these numbers of AT_ONCE rows each.
(
    HIGHEST, SECOND, OF_LABEL, S, Q, ATTAINED, LOSS, CONFIDENCE, MARGIN, BRIER, MASS,
) = (np.uint64(i * AT_ONCE) for i in range(11))  # fmt: skip
SCRATCH = 11 * AT_ONCE
AHEAD, FIRST, REASON = (np.uint64(i * AT_ONCE) for i in range(3))  # places in another, of int32


@kernel
def score_rows(
    predictions: Any, labels: Any, kind: Any, tolerance: Any, loss: Any, correct: Any,
    predicted: Any, confidence: Any, margin: Any, brier: Any, rank: Any, status: Any,
) -> None:  # fmt: skip
    """Score rows of GROUP classes or more; shapes and dtypes as in the contract."""
    n, c = predictions.shape
    if c < GROUP:
        raise ValueError("score_rows is for rows of 64 values or more")
    data = values_of(predictions)
    size = predictions.itemsize
    w = np.zeros(SCRATCH, dtype=loss.dtype)
    places = np.zeros(3 * AT_ONCE, dtype=np.int32)
    per_turn = max(1, min(AT_ONCE, TURN // c))
    # Rooms for copies of the rows of one turn, which begin with a line of cache.
    each = (min(c, BLOCK) + 2 * PADDING - 1) // PADDING * PADDING
    copies = np.empty(2 * PADDING + per_turn * each, dtype=loss.dtype)
    before = -address_of(copies) % LINE // copies.itemsize
    room = part_of(values_of(copies), PADDING + before)
    nothing = w[0] if kind == PROBS else w[0] - np.inf  # to sums, of the dtype of copies
    end = n * c
    for start in range(0, n, AT_ONCE):
        live = min(AT_ONCE, n - start)
        for turn in range(0, live, per_turn):
            for i in range(turn, min(turn + per_turn, live)):
                lane = np.uint64(i)
                at = (start + i) * c
                y = labels[start + i]
                y = at + (y if 0 <= y < c else 0)
                w[OF_LABEL + lane] = value(data[y])
                if c <= BLOCK:
                    near = min(NEAR, (end - at - c) * size)
                    copy = part_of(room, (i - turn) * each)
                    m, other, first, ahead = order_of_row(data, at, c, y, near, copy)
                    leave_out(copy, c, first, nothing)
                    w[HIGHEST + lane] = m
                    w[SECOND + lane] = other
                    places[FIRST + lane] = first
                    places[AHEAD + lane] = ahead
            for i in range(turn, min(turn + per_turn, live)):
                lane = np.uint64(i)
                at = (start + i) * c
                m = w[HIGHEST + lane]
                attained = 1
                if c <= BLOCK:
                    near = min(NEAR, (end - at - c) * size)
                    copy = part_of(room, (i - turn) * each)
                    if w[SECOND + lane] == m:
                        attained = count_equal(data, at, c, m)
                    s, q, lowest = sums_of_block(copy, c, attained - 1, m, kind, data, at, near)
                else:
                    y = labels[start + i]
                    y = at + (y if 0 <= y < c else 0)
                    m, other, first, ahead, attained, s, q, lowest = visit_row(
                        data, at, c, y, kind, room, nothing, end, size
                    )
                    w[HIGHEST + lane] = m
                    w[SECOND + lane] = other
                    places[FIRST + lane] = first
                    places[AHEAD + lane] = ahead
                w[ATTAINED + lane] = attained
                w[S + lane] = s
                w[Q + lane] = q
                has_nan = s != s and count_nan(data, at, c) > 0
                label_ok = 0 <= labels[start + i] < c
                places[REASON + lane] = invalid(kind, has_nan, m, lowest, label_ok)
        if kind == LOGITS:
            finish_all(w, finish_logits)
        elif kind == PROBS:
            finish_all(w, finish_probs)
        else:
            finish_all(w, finish_logprobs)
        # One loop for each array, with unsigned indices: such loops are copies and vectorise.
        to = np.uint64(start)
        lanes = range(np.uint64(live))
        for i in lanes:
            loss[to + i] = w[LOSS + i]
        for i in lanes:
            confidence[to + i] = w[CONFIDENCE + i]
        for i in lanes:
            margin[to + i] = w[MARGIN + i]
        for i in lanes:
            brier[to + i] = w[BRIER + i]
        for i in lanes:
            rank[to + i] = places[AHEAD + i]
        for i in lanes:
            correct[to + i] = places[AHEAD + i] == 0
        for i in lanes:
            predicted[to + i] = places[FIRST + i]
        for i in lanes:
            tie = TIE if w[ATTAINED + i] > 1 else 0
            off = UNNORMALIZED if abs(w[MASS + i] - 1) > tolerance else 0
            status[to + i] = tie | off
        for i in range(live):
            reason = places[REASON + np.uint64(i)]
            if reason != 0:
                row = start + i
                loss[row] = confidence[row] = margin[row] = brier[row] = np.nan
                correct[row] = False
                predicted[row] = rank[row] = -1
                status[row] = reason


@inner()
def order_of_row(data: Any, at: Any, c: Any, label: Any, near: Any, copy: Any) -> Any:
    """Return maximum, second, the maximum's index and the label's rank, of a row of one block."""
    of_label = value(data[label])
    m, other, group, ahead = block_order(data, at, c, of_label, label, near, copy)
    found, other = first_of_group(data, group, at + c, m, other)
    return m, other, found - at, ahead + ties_before(data, at, c, label, of_label)


@inner()
def first_of_group(data: Any, group: Any, stop: Any, m: Any, other: Any) -> Any:
    """Return the place of the first m in a group, and the largest of the rest and `other`.

    The group may reach beyond `stop`, where the row ends; one that begins earlier has all of it.
    """
    group = min(group, stop - GROUP)
    number = lowest_bit(group_equal(data, group, m))
    return group + number, group_highest_but(data, group, number, other)


@inner()
def ties_before(data: Any, at: Any, c: Any, label: Any, of_label: Any) -> Any:
    """Count what equals the label's value in its group, before it."""
    group = at + ((label - at) & -GROUP)
    begin = min(group, at + c - GROUP)
    equal = group_equal(data, begin, of_label)
    one = np.uint64(1)
    before = (one << np.uint64(label - begin)) - (one << np.uint64(group - begin))
    return bits_set(equal & before)


@inner()
def sums_of_block(
    copy: Any, count: Any, also: Any, m: Any, kind: Any, data: Any, at: Any, near: Any
) -> Any:
    """Return the sums relative to m of the values below it, and for probabilities the smallest.

    In the copy are `also` that are not below.
    """
    if kind == PROBS:
        s, q, lowest = block_probs(copy, count, m, data, at, near)
        if also > 0:
            s -= also * m
            q -= also * m * m
        return s, q, lowest
    s, q = block_exps(copy, count, m, data, at, near)
    if also > 0:
        s -= also
        q -= also
    return s, q, s


@inner()
def visit_row(
    data: Any,
    row: Any,
    c: Any,
    label: Any,
    kind: Any,
    room: Any,
    nothing: Any,
    end: Any,
    size: Any,
) -> Any:
    """Return maximum, second, its index, rank, how many attain it, sums and minimum of a row."""
    of_label = value(data[label])
    m = second = lowest = of_label  # of its dtype; the first block replaces them
    s = q = 0.0
    attained = first = 0
    ahead = ties_before(data, row, c, label, of_label)
    for at in range(row, row + c, BLOCK):
        count = min(BLOCK, row + c - at)
        near = min(NEAR, (end - at - count) * size)
        highest, other, group, more = block_order(data, at, count, of_label, label, near, room)
        ahead += more
        but, also = count, 0
        if at == row or highest >= m:
            found, other = first_of_group(data, group, row + c, highest, other)
            here = 1
            if other == highest:
                here = count_equal(data, at, count, highest)
            but, also = found - at, here - 1
            if at == row:
                m, second, attained, first = highest, other, here, found
            elif highest > m:
                if kind == PROBS:
                    s += attained * np.float64(m)
                    q += attained * np.float64(m) * m
                else:
                    scale = exp(np.float64(m) - np.float64(highest))
                    s = (s + attained) * scale
                    q = (q + attained) * scale * scale
                second = max(m, other)
                m, attained, first = highest, here, found
            else:
                attained += here
                second = m
                but, also = count, here
        else:
            second = max(second, highest)
        leave_out(room, count, but, nothing)
        part, squares, least = sums_of_block(room, count, also, m, kind, data, at, near)
        lowest = least if at == row or least < lowest else lowest
        s += part
        q += squares
    return m, second, first - row, ahead, attained, s, q, lowest


@inner()
def count_equal(data: Any, at: Any, count: Any, x: Any) -> Any:
    """Count the values from `at` on that equal x."""
    equal = 0
    for i in range(at, at + count):
        equal += value(data[i]) == x
    return equal


@inner()
def count_nan(data: Any, at: Any, count: Any) -> Any:
    """Count the NaNs from `at` on; here nothing may assume there is none."""
    nan = 0
    for i in range(at, at + count):
        x = value(data[i])
        nan += x != x
    return nan


@inner("contract")
def finish_all(w: Any, finish_kind: Any) -> None:
    """Finish every row of the scratch, valid or not."""
    for lane in range(np.uint64(AT_ONCE)):
        loss, confidence, margin, brier, mass = finish_kind(
            w[HIGHEST + lane], w[OF_LABEL + lane], w[S + lane], w[Q + lane],
            w[ATTAINED + lane], w[SECOND + lane],
        )  # fmt: skip
        w[LOSS + lane] = loss
        w[CONFIDENCE + lane] = confidence
        w[MARGIN + lane] = margin
        w[BRIER + lane] = brier
        w[MASS + lane] = mass

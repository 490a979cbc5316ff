"""`score_long`: rows with many classes, in two passes along each; see `score`.

A row is taken in blocks that stay in cache: the first pass over a block finds its maximum, and so
reads memory; the second sums what is below the highest so far, and has fetched what comes next.
Where a block has a new highest number, sums of the blocks before it are scaled. Sixteen rows are
finished at once.
"""

from typing import Any

import numpy as np
from llvmlite import ir

from fastdiv_kernels.cpu.arithmetic import exp, value
from fastdiv_kernels.cpu.finish import LOGITS, PROBS, invalid
from fastdiv_kernels.cpu.finish_lanes import WIDTH, Finish, Found
from fastdiv_kernels.cpu.jit import inner, intrinsic, kernel, types
from fastdiv_kernels.cpu.lanes import I32, I64, Lanes, pointer
from fastdiv_kernels.cpu.row_passes import PASS, block_ends, find_first, sum_block

BLOCK = 8192  # classes, whose float32 are 32 KB
FETCHED = 8192  # bytes ahead, at least
MOST_FETCHED = 1 << 18  # ... at most: it must still be in cache when its turn comes
NUMBERS = 10  # of a row, each WIDTH lanes of w
HIGHEST, LOWEST_NUMBER, TOTAL, OF_LABEL, S, Q, LOWER, BELOW, FIRST, AHEAD = (
    np.uint64(i * WIDTH) for i in range(NUMBERS)
)
ZERO = np.float32(0.0)
ONE = np.float32(1.0)
NONE = np.float32(-np.inf)


@kernel
def score_long(
    predictions: Any, labels: Any, kind: Any, tolerance: Any, loss: Any, correct: Any,
    predicted: Any, confidence: Any, margin: Any, brier: Any, rank: Any, status: Any,
) -> None:  # fmt: skip
    """Score rows with many classes; shapes and dtypes as in the contract, but for float64."""
    n, c = predictions.shape
    values = predictions.reshape(n * c)
    w = np.zeros(NUMBERS * WIDTH, np.float32)
    x = np.zeros(BLOCK + WIDTH, np.float32)
    found = np.zeros(PASS, np.float32)
    own_labels = np.zeros(WIDTH, np.int32)
    reals = np.zeros(4 * WIDTH, np.float32)
    ints = np.zeros(2 * WIDTH, np.int32)
    flags = np.zeros(WIDTH, np.bool_)
    words = np.zeros(WIDTH, np.uint8)
    blocks = (c + BLOCK - 1) // BLOCK
    size = ((c + blocks - 1) // blocks + WIDTH - 1) // WIDTH * WIDTH  # the last is not much less
    bytes_ahead = np.uint64(min(max(c * predictions.itemsize, FETCHED), MOST_FETCHED))
    for start in range(0, n, WIDTH):
        live = min(WIDTH, n - start)
        for i in range(live):
            label = labels[start + i]
            own_labels[i] = label
            y = label if 0 <= label < c else 0
            if kind == PROBS:
                read_row(
                    values, start + i, c, size, bytes_ahead, y, x, found, w, np.uint64(i), True
                )
            else:
                read_row(
                    values, start + i, c, size, bytes_ahead, y, x, found, w, np.uint64(i), False
                )
        for i in range(live, WIDTH):
            own_labels[i] = 0
        off = np.float32(tolerance)
        if kind == LOGITS:
            wrong = finish_rows(w, np.uint64(c), own_labels, off, reals, ints, flags, words, 0)
        elif kind == PROBS:
            wrong = finish_rows(w, np.uint64(c), own_labels, off, reals, ints, flags, words, 1)
        else:
            wrong = finish_rows(w, np.uint64(c), own_labels, off, reals, ints, flags, words, 2)
        for i in range(live):
            at = start + i
            loss[at] = reals[i]
            confidence[at] = reals[WIDTH + i]
            margin[at] = reals[2 * WIDTH + i]
            brier[at] = reals[3 * WIDTH + i]
            predicted[at] = ints[i]
            rank[at] = ints[WIDTH + i]
            correct[at] = flags[i]
            status[at] = words[i]
            if wrong >> i & 1 != 0:
                reason = why_wrong(values, at, c, kind, labels[at])
                if reason != 0:
                    loss[at] = confidence[at] = margin[at] = brier[at] = np.nan
                    correct[at] = False
                    predicted[at] = rank[at] = -1
                    status[at] = reason


@inner()
def why_wrong(values: Any, row: Any, c: Any, kind: Any, label: Any) -> Any:
    """Return the Reason for which a row is invalid, or 0."""
    has_nan = False
    highest, lowest = NONE, np.float32(np.inf)
    for j in range(c):
        v = value(values[row * c + j])
        has_nan = has_nan | (v != v)
        highest = v if v > highest else highest
        lowest = v if v < lowest else lowest
    return invalid(kind, has_nan, highest, lowest, 0 <= label < c)


@inner()
def read_row(
    values: Any, row: Any, c: Any, size: Any, bytes_ahead: Any, y: Any, x: Any, found: Any, w: Any,
    lane: Any, probs: Any,
) -> None:  # fmt: skip
    """Find what Scores are made of, of one row, in blocks, and write it to a lane of w."""
    begin = row * c
    mine = value(values[begin + y])
    highest, lowest, total = NONE, np.float32(np.inf), ZERO
    s, q, below = ZERO, ZERO, NONE
    attained: Any = 0
    ahead: Any = 0
    first_block: Any = 0
    for start in range(0, c, size):
        n = min(size, c - start)
        at = np.uint64(begin + start)
        m, least = block_ends(values, at, np.uint64(n), x, found, probs)
        lowest = least if least < lowest else lowest
        if m > highest:
            if attained > 0:  # what was highest is below; of probabilities weights stay
                weight = ONE if probs else exp(highest - m)
                scaled = highest if probs else weight
                s = s * weight + np.float32(attained) * scaled
                q = q * weight * weight + np.float32(attained) * scaled * scaled
                below = highest
            highest, attained, first_block = m, 0, start
        sum_block(
            values, at, np.uint64(n), x, highest, mine, np.int64(y - start), bytes_ahead, found,
            probs,
        )  # fmt: skip
        s += found[0]
        q += found[1]
        total += found[2]
        below = found[3] if found[3] > below else below
        attained += n - np.int64(found[4])
        ahead += np.int64(found[5])
    first = first_block
    if highest > NONE:  # of NaN alone nothing is equal to it
        first = first_block + find_first(
            values, np.uint64(begin + first_block), np.uint64(c - first_block), highest
        )
    w[HIGHEST + lane] = highest
    w[LOWEST_NUMBER + lane] = lowest
    w[TOTAL + lane] = total
    w[OF_LABEL + lane] = mine
    w[S + lane] = s
    w[Q + lane] = q
    w[LOWER + lane] = np.float32(c - attained)
    w[BELOW + lane] = below
    w[FIRST + lane] = np.float32(first)
    w[AHEAD + lane] = np.float32(ahead)


@intrinsic
def finish_rows(
    typing_context: Any, w: Any, classes: Any, labels: Any, tolerance: Any, reals: Any, ints: Any,
    flags: Any, words: Any, kind: Any,
) -> Any:  # fmt: skip
    """Write the Scores of WIDTH rows; return which may be invalid, as bits. `kind` is a literal."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        lanes = Lanes(builder, WIDTH)
        finish = Finish(lanes, kind.literal_value, args[3])
        many = lanes.spread(builder.trunc(args[1], I32))

        def number(position: int) -> Any:
            return lanes.load(pointer(context, builder, signature, args, 0, position), 4)

        found = Found(*(number(k * WIDTH) for k in range(NUMBERS)))
        given = lanes.load(pointer(context, builder, signature, args, 2, 0), 4)
        scores, wrong = finish.scores(found, given, many)
        for k, vector in enumerate(scores[:4]):
            lanes.store(vector, pointer(context, builder, signature, args, 4, k * WIDTH), 4)
        for k, vector in enumerate(scores[4:6]):
            lanes.store(vector, pointer(context, builder, signature, args, 5, k * WIDTH), 4)
        for which, vector in zip((6, 7), scores[6:], strict=True):
            to = pointer(context, builder, signature, args, which, 0)
            to = builder.bitcast(to, ir.IntType(8).as_pointer())
            lanes.store(builder.trunc(vector, ir.VectorType(ir.IntType(8), WIDTH)), to, 1)
        return builder.zext(builder.bitcast(wrong, ir.IntType(WIDTH)), I64)

    if not isinstance(kind, types.IntegerLiteral):
        return None
    arguments = (w, classes, labels, tolerance, reals, ints, flags, words, kind)
    return types.int64(*arguments), generate

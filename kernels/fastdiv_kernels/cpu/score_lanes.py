"""`score_lanes`: rows with few classes, 16 at a time, as vectors in registers; see `score`.

`turn` makes columns of 16 rows, four classes at a time. `score_columns` takes two passes over
these, for the maxima, then for all that is told by them, and writes the Scores. Rows in which
something is wrong come out as lanes of a mask, and are looked into one by one.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir

from fastdiv_kernels.cpu.finish import LOGITS, PROBS, invalid
from fastdiv_kernels.cpu.finish_lanes import WIDTH, Finish, Found, i64
from fastdiv_kernels.cpu.jit import cgutils, inner, intrinsic, kernel, types
from fastdiv_kernels.cpu.lanes import I32, I64, Lanes, alloca, pointer, prefetch

QUAD = 4  # classes turned at once
FETCHED = 8192  # bytes ahead: the rows of a step are more streams than hardware follows
MOST_CLASSES = 192


@kernel
def score_lanes(
    predictions: Any, labels: Any, kind: Any, tolerance: Any, loss: Any, correct: Any,
    predicted: Any, confidence: Any, margin: Any, brier: Any, rank: Any, status: Any,
) -> None:  # fmt: skip
    """Score rows with few classes; shapes and dtypes as in the contract, but for float64."""
    n, c = predictions.shape
    values = predictions.reshape(n * c)
    classes = np.uint64(c)
    x = np.zeros(classes * np.uint64(WIDTH), np.float32)
    for row in range(n // WIDTH):
        at = np.uint64(row * WIDTH)
        turn(values, at * classes, classes, x)
        wrong = score_kind(
            values, x, classes, labels, kind, tolerance, at, loss, correct, predicted, confidence,
            margin, brier, rank, status,
        )  # fmt: skip
        if wrong != 0:
            refuse(
                x, c, labels, kind, wrong, at, loss, correct, predicted, confidence, margin, brier,
                rank, status,
            )  # fmt: skip
    done = n // WIDTH * WIDTH
    if done < n:
        # The same operations on rows that are followed by zeros, in arrays of their own.
        rest = np.zeros(WIDTH * c, predictions.dtype)
        rest_labels = np.zeros(WIDTH, np.int32)
        for i in range((n - done) * c):
            rest[i] = values[done * c + i]
        for i in range(n - done):
            rest_labels[i] = labels[done + i]
        reals = np.zeros(4 * WIDTH, np.float32)
        ints = np.zeros(2 * WIDTH, np.int32)
        flags = np.zeros(WIDTH, np.bool_)
        words = np.zeros(WIDTH, np.uint8)
        a, b, d, e = reals[:WIDTH], reals[WIDTH:32], reals[32:48], reals[48:]
        f, g = ints[:WIDTH], ints[WIDTH:]
        zero = np.uint64(0)
        turn(rest, zero, classes, x)
        wrong = score_kind(
            rest, x, classes, rest_labels, kind, tolerance, zero, a, flags, f, b, d, e, g, words
        )
        if wrong != 0:
            refuse(x, c, rest_labels, kind, wrong, zero, a, flags, f, b, d, e, g, words)
        for i in range(n - done):
            at = done + i
            loss[at], confidence[at], margin[at], brier[at] = a[i], b[i], d[i], e[i]
            predicted[at], rank[at] = f[i], g[i]
            correct[at], status[at] = flags[i], words[i]


@inner()
def score_kind(
    values: Any, x: Any, classes: Any, labels: Any, kind: Any, tolerance: Any, at: Any, loss: Any,
    correct: Any, predicted: Any, confidence: Any, margin: Any, brier: Any, rank: Any, status: Any,
) -> Any:  # fmt: skip
    """Score columns of a kind."""
    off = np.float32(tolerance)
    if kind == LOGITS:
        return score_columns(
            values, x, classes, labels, off, at, loss, correct, predicted, confidence, margin,
            brier, rank, status, 0,
        )  # fmt: skip
    if kind == PROBS:
        return score_columns(
            values, x, classes, labels, off, at, loss, correct, predicted, confidence, margin,
            brier, rank, status, 1,
        )  # fmt: skip
    return score_columns(
        values, x, classes, labels, off, at, loss, correct, predicted, confidence, margin,
        brier, rank, status, 2,
    )  # fmt: skip


@inner()
def refuse(
    x: Any, c: Any, labels: Any, kind: Any, wrong: Any, at: Any, loss: Any, correct: Any,
    predicted: Any, confidence: Any, margin: Any, brier: Any, rank: Any, status: Any,
) -> None:  # fmt: skip
    """Write why rows are invalid, of those whose bit is set in `wrong`."""
    for lane in range(np.uint64(WIDTH)):
        if wrong >> np.int64(lane) & 1 == 0:
            continue
        row = at + lane
        has_nan = False
        highest, lowest = np.float32(-np.inf), np.float32(np.inf)
        for j in range(np.uint64(c)):
            v = x[j * np.uint64(WIDTH) + lane]
            has_nan = has_nan | (v != v)
            highest = v if v > highest else highest
            lowest = v if v < lowest else lowest
        reason = invalid(kind, has_nan, highest, lowest, 0 <= labels[row] < c)
        if reason != 0:
            loss[row] = confidence[row] = margin[row] = brier[row] = np.nan
            correct[row] = False
            predicted[row] = rank[row] = -1
            status[row] = reason


@intrinsic
def turn(typing_context: Any, values: Any, at: Any, classes: Any, x: Any) -> Any:
    """Write the columns of WIDTH rows that begin at values[at] to x, flat (classes, WIDTH).

    Nothing beyond these rows is read, whatever the number of classes; values may have any
    alignment.
    """
    stored = values.dtype

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        lanes = Lanes(builder, WIDTH)
        start, classes = args[1], args[2]
        over = [builder.mul(classes, i64(q)) for q in range(QUAD)]

        def place(element: Any) -> Any:
            return pointer(context, builder, signature, args, 0, builder.add(start, element))

        def write(j: Any, column: Any) -> None:
            to = pointer(context, builder, signature, args, 3, builder.mul(j, i64(WIDTH)))
            lanes.store(lanes.numbers(column, stored), to, 4)

        def few(c: int) -> None:
            """Take rows of two or three from where they follow one another."""
            parts = [lanes.load(place(i64(k * WIDTH)), 1) for k in range(c)]
            for j in range(c):
                column = parts[0]
                for k in range(1, c):  # what parts up to k hold of the column
                    lane = [
                        WIDTH + (i * c + j) % WIDTH if (i * c + j) // WIDTH == k
                        else (i if k > 1 else (i * c + j) % WIDTH)
                        for i in range(WIDTH)
                    ]  # fmt: skip
                    column = lanes.shuffle(column, parts[k], lane)
                write(i64(j), column)

        def joined(parts: list[Any]) -> Any:
            while len(parts) > 1:
                size = range(2 * parts[0].type.count)
                parts = [lanes.shuffle(a, b, size)
                         for a, b in zip(parts[::2], parts[1::2], strict=True)]  # fmt: skip
            return parts[0]

        def zipped(a: Any, b: Any, pick: list[int]) -> Any:
            """Take lanes of each group of four of a, and of b (from 4 on)."""
            return lanes.shuffle(
                a, b,
                [g + p if p < QUAD else WIDTH + g + p - QUAD
                 for g in range(0, WIDTH, QUAD) for p in pick],
            )  # fmt: skip

        def quad(j: Any) -> None:
            """Turn four columns: group g of z[q] is row 4 g + q."""
            # From few addresses, so that they stay in registers.
            firsts = [place(builder.add(builder.mul(classes, i64(QUAD * g)), j))
                      for g in range(WIDTH // QUAD)]  # fmt: skip
            z = [
                joined([lanes.load(builder.gep(first, [over[q]]), 1, QUAD) for first in firsts])
                for q in range(QUAD)
            ]
            low = [zipped(z[0], z[1], [0, 4, 1, 5]), zipped(z[2], z[3], [0, 4, 1, 5])]
            high = [zipped(z[0], z[1], [2, 6, 3, 7]), zipped(z[2], z[3], [2, 6, 3, 7])]
            for k, ((a, b), pick) in enumerate(
                [(low, [0, 1, 4, 5]), (low, [2, 3, 6, 7]),
                 (high, [0, 1, 4, 5]), (high, [2, 3, 6, 7])]
            ):  # fmt: skip
                write(builder.add(j, i64(k)), zipped(a, b, pick))

        for c in (2, 3):
            with builder.if_then(builder.icmp_unsigned("==", classes, i64(c))):
                few(c)
        with builder.if_then(builder.icmp_unsigned(">=", classes, i64(QUAD))):
            quads = builder.udiv(builder.add(classes, i64(QUAD - 1)), i64(QUAD))
            last = builder.sub(classes, i64(QUAD))
            with cgutils.for_range(builder, quads, intp=I64) as loop:
                j = builder.mul(loop.index, i64(QUAD))
                # The last four overlap those before.
                j = builder.select(builder.icmp_unsigned("<", j, last), j, last)
                quad(j)
        return context.get_dummy_value()

    return types.void(values, at, classes, x), generate


@intrinsic
def score_columns(
    typing_context: Any, values: Any, x: Any, classes: Any, labels: Any, tolerance: Any, row: Any,
    loss: Any, correct: Any, predicted: Any, confidence: Any, margin: Any, brier: Any, rank: Any,
    status: Any, kind: Any,
) -> Any:  # fmt: skip
    """Score WIDTH rows that are the columns of x, flat (classes, WIDTH), to `row` and the next.

    Return which of them may be invalid, as bits. `kind` is a literal. The rows come from `values`,
    of which what will be needed soon is fetched: that is most of what memory costs.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        lanes = Lanes(builder, WIDTH)
        finish = Finish(lanes, kind.literal_value, args[4])
        classes, row = args[2], args[5]

        def place(which: int, at: Any) -> Any:
            return pointer(context, builder, signature, args, which, at)

        def column(j: Any) -> Any:
            return lanes.load(place(1, builder.mul(j, i64(WIDTH))), 4)

        ahead = builder.bitcast(place(0, builder.mul(row, classes)), ir.IntType(8).as_pointer())
        ahead = builder.gep(ahead, [i64(FETCHED)])
        line = i64(WIDTH * values.dtype.bitwidth // 8)  # of a class there are as many bytes

        def fetch(j: Any) -> None:
            prefetch(builder, builder.gep(ahead, [builder.mul(j, line)]))

        given = lanes.load(place(3, row), 1)
        many = lanes.spread(builder.trunc(classes, I32))
        found = two_passes(finish, column, fetch, place(1, i64(0)), classes, given, many)
        scores, wrong = finish.scores(found, given, many)
        for which, vector in zip((6, 9, 10, 11, 8, 12), scores[:6], strict=True):
            lanes.store(vector, place(which, row), 4)
        for which, vector in zip((7, 13), scores[6:], strict=True):
            to = builder.bitcast(place(which, row), ir.IntType(8).as_pointer())
            lanes.store(builder.trunc(vector, ir.VectorType(ir.IntType(8), WIDTH)), to, 1)
        bits = builder.bitcast(wrong, ir.IntType(WIDTH))
        return builder.zext(bits, I64)

    if not isinstance(kind, types.IntegerLiteral):
        return None
    arguments = (values, x, classes, labels, tolerance, row, loss, correct, predicted, confidence,
                 margin, brier, rank, status, kind)  # fmt: skip
    return types.int64(*arguments), generate


def two_passes(
    finish: Finish, column: Callable[[Any], Any], fetch: Callable[[Any], None], x: Any,
    classes: Any, given: Any, many: Any,
) -> Found:  # fmt: skip
    """Find what Scores are made of, from columns."""
    lanes, b, one, zero = finish.lanes, finish.b, finish.one, finish.zero
    in_range = b.icmp_unsigned("<", given, many)
    label = b.select(in_range, given, lanes.every(0, I32))
    mine = gather(lanes, x, label)

    highest, lowest = alloca(b, finish.none), alloca(b, lanes.every(np.inf))
    with cgutils.for_range(b, classes, intp=I64) as loop:
        v, known = column(loop.index), b.load(highest)
        b.store(b.select(b.fcmp_ordered(">", v, known), v, known), highest)
        if finish.kind == PROBS:
            known = b.load(lowest)
            b.store(b.select(b.fcmp_ordered("<", v, known), v, known), lowest)
    m = b.load(highest)

    # Of classes before the label, those that equal it are ahead: those above the next below.
    just_below = finish.next_below(mine)
    label_index = b.sitofp(label, lanes.floats)

    s, q, total = alloca(b, zero), alloca(b, zero), alloca(b, zero)
    lower, ahead = alloca(b, zero), alloca(b, zero)
    first, below = alloca(b, zero), alloca(b, finish.none)
    index = alloca(b, b.uitofp(many, lanes.floats))
    with cgutils.for_range(b, classes, intp=I64) as loop:
        # From the last class to the first, so that the lowest index is what stays.
        fetch(loop.index)
        v = column(b.sub(b.sub(classes, i64(1)), loop.index))
        j = b.fsub(b.load(index), one)
        b.store(j, index)
        under = b.fcmp_ordered("<", v, m)
        b.store(b.select(under, b.load(first), j), first)
        known = b.load(lower)
        b.store(b.select(under, b.fadd(known, one), known), lower)
        known = b.load(below)
        larger = b.select(b.fcmp_ordered(">", v, known), v, known)
        b.store(b.select(under, larger, known), below)
        bar = b.select(b.fcmp_ordered("<", j, label_index), just_below, mine)
        known = b.load(ahead)
        is_ahead = b.fcmp_unordered(">", v, bar)  # nothing is below -inf: of it, it is NaN
        b.store(b.select(is_ahead, b.fadd(known, one), known), ahead)
        d = v if finish.kind == PROBS else b.fsub(v, m)
        b.store(b.fadd(b.load(total), d), total)
        u = v if finish.kind == PROBS else finish.exp(d)
        known = b.load(s)
        b.store(b.select(under, b.fadd(known, u), known), s)
        known = b.load(q)
        b.store(b.select(under, lanes.multiply_add(u, u, known), known), q)
    return Found(
        m, b.load(lowest), b.load(total), mine, b.load(s), b.load(q), b.load(lower),
        b.load(below), b.load(first), b.load(ahead),
    )  # fmt: skip


def gather(lanes: Lanes, x: Any, label: Any) -> Any:
    """Return of each lane the value of its label's class."""
    b = lanes.builder
    own = ir.Constant(lanes.ints, list(range(WIDTH)))
    result = ir.Constant(lanes.floats, ir.Undefined)
    offsets = b.add(b.shl(label, lanes.every(4, I32)), own)
    for lane in range(WIDTH):
        at = b.extract_element(offsets, ir.Constant(I32, lane))
        v = b.load(b.gep(x, [b.zext(at, I64)]), align=4)
        result = b.insert_element(result, v, ir.Constant(I32, lane))
    return result

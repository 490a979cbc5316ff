"""`score_lanes`: rows with few classes, 16 at a time, as vectors in registers; see `score`.

`turn` makes columns of 16 rows, four classes at a time. `score_columns` takes two passes over
these, for the maxima, then for all that is told by them, and writes the Scores. Rows in which
something is wrong come out as lanes of a mask, and are looked into one by one.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils

from fastdiv_kernels.contract import HIGHEST_PROB, LOWEST_PROB, TIE, UNNORMALIZED
from fastdiv_kernels.cpu.arithmetic import LN2_HIGH, LN2_LOW
from fastdiv_kernels.cpu.finish import CANCELS, HIGHEST_LOGPROB, LOGITS, LOGPROBS, PROBS, invalid
from fastdiv_kernels.cpu.jit import inner, intrinsic, kernel
from fastdiv_kernels.cpu.lanes import (
    EXP2,
    I32,
    I64,
    MANTISSA_BITS,
    ROUND,
    SQRT_HALF_BITS,
    Lanes,
    alloca,
    pointer,
)

WIDTH = 16  # rows taken at once
QUAD = 4  # classes turned at once
LOG2E = np.float32(1.4426950408889634)
LOG2E_REST = np.float32(1.4426950408889634 - float(LOG2E))
TINY = np.float32(-87.3)  # exp of what is below is no normal number, and taken as 0
FETCHED = 8192  # bytes ahead: the rows of a step are more streams than hardware follows
MOST_CLASSES = 128


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


def i64(x: int) -> Any:
    """Return a constant index."""
    return ir.Constant(I64, x)


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
            for k, (pair, pick) in enumerate(
                [(low, [0, 1, 4, 5]), (low, [2, 3, 6, 7]),
                 (high, [0, 1, 4, 5]), (high, [2, 3, 6, 7])]
            ):  # fmt: skip
                write(builder.add(j, i64(k)), zipped(*pair, pick))

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


def prefetch(builder: Any, place: Any) -> None:
    """Have the processor fetch what lies at a place, wherever that is."""
    i8 = ir.IntType(8).as_pointer()
    form = ir.FunctionType(ir.VoidType(), [i8, I32, I32, I32])
    function = cgutils.get_or_insert_function(builder.module, form, "llvm.prefetch.p0")
    # Of data to be read, into the second cache.
    builder.call(function, [place, *(ir.Constant(I32, k) for k in (0, 2, 1))])


@intrinsic
def score_columns(
    typing_context: Any, values: Any, x: Any, classes: Any, labels: Any, tolerance: Any, row: Any,
    loss: Any, correct: Any, predicted: Any, confidence: Any, margin: Any, brier: Any, rank: Any, status: Any,
    kind: Any,
) -> Any:  # fmt: skip
    """Score WIDTH rows that are the columns of x, flat (classes, WIDTH), to `row` and the next.

    Return which of them may be invalid, as bits. `kind` is a literal. The rows come from `values`,
    of which what will be needed soon is fetched: that is most of what memory costs.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        lanes = Lanes(builder, WIDTH)
        column_of = Columns(lanes, kind.literal_value, args[4])
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
        scores, wrong = column_of.scores(column, fetch, place(1, i64(0)), classes, given)
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


class Columns:
    """The arithmetic of `score_columns`; see `finish` for what the numbers are."""

    def __init__(self, lanes: Lanes, kind: int, tolerance: Any) -> None:
        self.lanes = lanes
        self.b = lanes.builder
        self.kind = kind
        self.tolerance = tolerance
        self.zero, self.one = lanes.every(0.0), lanes.every(1.0)
        self.none = lanes.every(-np.inf)
        # What exp gives of TINY is taken away, so that it gives 0 of that and of all below.
        self.nothing = self.raw_exp(alloca_value(self.b, lanes.every(TINY)))

    def exp(self, x: Any) -> Any:
        """Return e**x for x <= 88."""
        return self.b.fsub(
            self.raw_exp(self.lanes.at_least(x, self.lanes.every(TINY))), self.nothing
        )

    def raw_exp(self, x: Any) -> Any:
        """Return e**x for x from TINY to 88, to 2e-7 of itself."""
        b, lanes = self.b, self.lanes
        shifted = lanes.multiply_add(x, lanes.every(LOG2E), lanes.every(ROUND))
        n = b.fsub(shifted, lanes.every(ROUND))
        r = lanes.multiply_add(x, lanes.every(LOG2E), b.fneg(n))
        r = lanes.multiply_add(x, lanes.every(LOG2E_REST), r)
        p = lanes.multiply_add(lanes.polynomial(r, EXP2), r, lanes.every(1.0))
        exponent = b.shl(lanes.as_ints(shifted), lanes.every(23, I32))
        return lanes.as_floats(b.add(lanes.as_ints(p), exponent))

    def scores(
        self,
        column: Callable[[Any], Any],
        fetch: Callable[[Any], None],
        x: Any,
        classes: Any,
        given: Any,
    ) -> tuple[list[Any], Any]:
        """Return loss, confidence, margin, brier, predicted, rank, correct, status; the wrong."""
        b, lanes, one, zero = self.b, self.lanes, self.one, self.zero
        many = lanes.spread(b.trunc(classes, I32))
        in_range = b.icmp_unsigned("<", given, many)
        label = b.select(in_range, given, lanes.every(0, I32))
        mine = self.gather(x, label)

        highest, lowest = alloca(b, self.none), alloca(b, lanes.every(np.inf))
        with cgutils.for_range(b, classes, intp=I64) as loop:
            v, known = column(loop.index), b.load(highest)
            b.store(b.select(b.fcmp_ordered(">", v, known), v, known), highest)
            if self.kind == PROBS:
                known = b.load(lowest)
                b.store(b.select(b.fcmp_ordered("<", v, known), v, known), lowest)
        m = b.load(highest)

        # Of classes before the label, those that equal it are ahead: those above the next below.
        bits = lanes.as_ints(mine)
        step = b.select(b.fcmp_ordered(">", mine, zero), lanes.every(-1, I32), lanes.every(1, I32))
        is_zero = b.fcmp_ordered("==", mine, zero)
        bits = b.select(is_zero, lanes.every(-(2**31), I32), bits)
        just_below = lanes.as_floats(b.add(bits, step))
        label_index = b.sitofp(label, lanes.floats)

        s, q, total = alloca(b, zero), alloca(b, zero), alloca(b, zero)
        lower, ahead = alloca(b, zero), alloca(b, zero)
        first, below = alloca(b, zero), alloca(b, self.none)
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
            d = v if self.kind == PROBS else b.fsub(v, m)
            b.store(b.fadd(b.load(total), d), total)
            u = v if self.kind == PROBS else self.exp(d)
            known = b.load(s)
            b.store(b.select(under, b.fadd(known, u), known), s)
            known = b.load(q)
            b.store(b.select(under, lanes.multiply_add(u, u, known), known), q)

        # NaN, or +inf, or -inf alone: a difference is NaN.
        total = b.load(total)
        wrong = b.or_(b.not_(in_range), b.fcmp_unordered("uno", total, total))
        wrong = b.or_(wrong, self.contradicts(m, b.load(lowest)))
        attained = b.fsub(b.uitofp(many, lanes.floats), b.load(lower))
        extra = b.fsub(attained, one)  # maxima beside the one that is left out
        at_maximum = b.fcmp_ordered("==", mine, m)
        alone = b.fcmp_ordered("<=", attained, one)
        other = b.select(b.and_(at_maximum, alone), b.load(below), m)
        finish = {LOGITS: self.logits, PROBS: self.probs, LOGPROBS: self.logprobs}[self.kind]
        loss, confidence, margin, brier, mass = finish(
            m, mine, b.load(s), b.load(q), extra, at_maximum, other
        )
        rank = b.fptosi(b.load(ahead), lanes.ints)
        correct = b.icmp_signed("==", rank, lanes.every(0, I32))
        status = b.select(alone, lanes.every(0, I32), lanes.every(TIE, I32))
        if mass is not None:
            distance = self.absolute(b.fsub(mass, one))
            off = b.fcmp_ordered(">", distance, lanes.spread(self.tolerance))
            status = b.or_(
                status, b.select(off, lanes.every(UNNORMALIZED, I32), lanes.every(0, I32))
            )
        predicted = b.fptosi(b.load(first), lanes.ints)
        scores = [loss, confidence, margin, brier, predicted, rank]
        return [*scores, b.zext(correct, lanes.ints), status], wrong

    def gather(self, x: Any, label: Any) -> Any:
        """Return of each lane the value of its label's class."""
        b, lanes = self.b, self.lanes
        own = ir.Constant(lanes.ints, list(range(WIDTH)))
        result = ir.Constant(lanes.floats, ir.Undefined)
        offsets = b.add(b.shl(label, lanes.every(4, I32)), own)
        for lane in range(WIDTH):
            at = b.extract_element(offsets, ir.Constant(I32, lane))
            v = b.load(b.gep(x, [b.zext(at, I64)]), align=4)
            result = b.insert_element(result, v, ir.Constant(I32, lane))
        return result

    def log(self, x: Any) -> Any:
        """Return ln x for x >= 0 to the last bit or two; -inf of 0. See `arithmetic.log_32`."""
        b, lanes, every = self.b, self.lanes, self.lanes.every
        tiny = b.fcmp_ordered("<", x, every(2.0**-126))
        y = b.select(tiny, b.fmul(x, every(2.0**23)), x)
        bits = b.sub(lanes.as_ints(y), every(SQRT_HALF_BITS, I32))
        e = b.sitofp(b.ashr(bits, every(23, I32)), lanes.floats)
        e = b.fsub(e, b.select(tiny, every(23.0), every(0.0)))
        m = b.add(b.and_(bits, every(MANTISSA_BITS, I32)), every(SQRT_HALF_BITS, I32))
        f = b.fsub(lanes.as_floats(m), every(1.0))
        ratio = b.fdiv(f, b.fadd(f, every(2.0)))
        square = b.fmul(ratio, ratio)
        odd = lanes.polynomial(square, (2 / 9, 2 / 7, 2 / 5, 2 / 3, 2.0))
        result = lanes.multiply_add(e, every(LN2_LOW), b.fmul(ratio, odd))
        result = lanes.multiply_add(e, every(LN2_HIGH), result)
        return b.select(b.fcmp_ordered(">", x, every(0.0)), result, every(-np.inf))

    def absolute(self, x: Any) -> Any:
        """Return x without its sign."""
        bits = self.b.and_(self.lanes.as_ints(x), self.lanes.every(0x7FFFFFFF, I32))
        return self.lanes.as_floats(bits)

    def contradicts(self, m: Any, lowest: Any) -> Any:
        """Say which rows hold numbers that the kind does not allow."""
        b, every = self.b, self.lanes.every
        if self.kind == PROBS:
            beyond = b.fcmp_unordered(">", m, every(HIGHEST_PROB))
            beyond = b.or_(beyond, b.fcmp_unordered("<", lowest, every(LOWEST_PROB)))
            return b.or_(beyond, b.fcmp_unordered("<=", m, every(0.0)))
        if self.kind == LOGPROBS:
            return b.fcmp_unordered(">", m, every(HIGHEST_LOGPROB))
        return b.fcmp_unordered("uno", m, m)

    def spared(
        self, m: Any, mine: Any, s: Any, q: Any, extra: Any, at_maximum: Any
    ) -> tuple[Any, Any, Any, Any]:
        """Return sums with all maxima but one; what the other classes weigh, and their squares."""
        b, lanes, one = self.b, self.lanes, self.one
        s, q = b.fadd(s, extra), b.fadd(q, extra)
        u = self.exp(b.fsub(mine, m))
        square = lanes.multiply_add(b.fneg(u), u, b.fadd(one, q))
        others = b.select(at_maximum, q, square)
        rest = b.select(at_maximum, s, b.fsub(b.fadd(one, s), u))
        return s, rest, others, u

    def logits(
        self, m: Any, mine: Any, s: Any, q: Any, extra: Any, at_maximum: Any, other: Any
    ) -> list[Any]:
        """Return loss, confidence, margin, brier, and no mass, which is 1."""
        b, lanes = self.b, self.lanes
        s, rest, others, _ = self.spared(m, mine, s, q, extra, at_maximum)
        total = b.fadd(self.one, s)
        share = b.fdiv(self.one, total)
        loss = b.fadd(b.fsub(m, mine), lanes.log1p(s, total))
        brier = b.fmul(lanes.multiply_add(rest, rest, others), b.fmul(share, share))
        return [loss, share, b.fsub(mine, other), brier, None]

    def probs(
        self, m: Any, mine: Any, s: Any, q: Any, extra: Any, at_maximum: Any, other: Any
    ) -> list[Any]:
        """Return loss, confidence, margin, brier and mass."""
        b, lanes, zero, one = self.b, self.lanes, self.zero, self.one
        p, other = lanes.at_least(mine, zero), lanes.at_least(other, zero)
        s = lanes.multiply_add(extra, m, s)
        q = lanes.multiply_add(b.fmul(extra, m), m, q)
        # Near a tie the difference of the logarithms would cancel; p - other is exact there.
        near = b.and_(
            b.fcmp_ordered("<", p, b.fadd(other, other)), b.fcmp_ordered("<", other, b.fadd(p, p))
        )
        ratio = b.select(near, b.fdiv(b.fsub(p, other), other), zero)
        log_p = self.log(p)
        apart = b.fsub(log_p, self.log(other))
        margin = b.select(near, lanes.log1p(ratio, b.fadd(one, ratio)), apart)
        rest = b.fsub(one, p)
        square = lanes.multiply_add(b.fneg(p), p, lanes.multiply_add(m, m, q))
        others = b.select(at_maximum, q, square)
        brier = lanes.multiply_add(rest, rest, others)
        return [b.fsub(zero, log_p), m, margin, brier, b.fadd(m, s)]

    def logprobs(
        self, m: Any, mine: Any, s: Any, q: Any, extra: Any, at_maximum: Any, other: Any
    ) -> list[Any]:
        """Return loss, confidence, margin, brier and mass."""
        b, lanes, one = self.b, self.lanes, self.one
        s, _, others, _ = self.spared(m, mine, s, q, extra, at_maximum)
        highest = self.exp(m)
        loss = b.fsub(self.zero, mine)
        # 1 - p, by the series of 1 - exp(-loss) where the subtraction would cancel.
        third = lanes.multiply_add(loss, lanes.every(-1 / 6), lanes.every(0.5))
        series = b.fmul(loss, lanes.multiply_add(b.fneg(loss), third, one))
        small = b.fcmp_ordered("<", self.absolute(loss), lanes.every(CANCELS))
        rest = b.select(small, series, b.fsub(one, self.exp(mine)))
        brier = lanes.multiply_add(b.fmul(others, highest), highest, b.fmul(rest, rest))
        mass = b.fmul(highest, b.fadd(one, s))
        return [loss, highest, b.fsub(mine, other), brier, mass]


def alloca_value(builder: Any, x: Any) -> Any:
    """Return a vector that LLVM calculates with as it does with any other, once."""
    return builder.load(alloca(builder, x))

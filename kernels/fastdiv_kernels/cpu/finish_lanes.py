"""From the maxima and sums of 16 rows to their Scores; the formulas are those of `finish`."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from llvmlite import ir

from fastdiv_kernels.contract import HIGHEST_PROB, LOWEST_PROB, TIE, UNNORMALIZED
from fastdiv_kernels.cpu.arithmetic import LN2_HIGH, LN2_LOW
from fastdiv_kernels.cpu.finish import CANCELS, HIGHEST_LOGPROB, LOGITS, LOGPROBS, PROBS
from fastdiv_kernels.cpu.lanes import (
    EXP2,
    I32,
    I64,
    MANTISSA_BITS,
    ROUND,
    SQRT_HALF_BITS,
    Lanes,
    alloca,
)

WIDTH = 16  # rows
LOG2E = np.float32(1.4426950408889634)
LOG2E_REST = np.float32(1.4426950408889634 - float(LOG2E))
TINY = np.float32(-87.3)  # exp of what is below is no normal number, and taken as 0


@dataclass
class Found:
    """What is found of rows, a vector each; see `score`."""

    highest: Any
    lowest: Any  # of probabilities
    total: Any  # NaN where something is wrong
    of_label: Any
    s: Any
    q: Any
    lower: Any  # how many are below the highest
    below: Any  # the largest of these
    first: Any  # index of the highest
    ahead: Any  # of the label


def i64(x: int) -> Any:
    """Return a constant index."""
    return ir.Constant(I64, x)


class Finish:
    """From maxima and sums of rows to their Scores, in lanes; see `finish` for the numbers."""

    def __init__(self, lanes: Lanes, kind: int, tolerance: Any) -> None:
        self.lanes = lanes
        self.b = lanes.builder
        self.kind = kind
        self.tolerance = tolerance
        self.zero, self.one = lanes.every(0.0), lanes.every(1.0)
        self.none = lanes.every(-np.inf)
        # What exp gives of TINY is taken away, so that it gives 0 of that and of all below.
        self.nothing = self.raw_exp(alloca_value(self.b, lanes.every(TINY)))

    def next_below(self, x: Any) -> Any:
        """Return the next float below x; below -inf it is NaN."""
        b, lanes = self.b, self.lanes
        bits = lanes.as_ints(x)
        step = b.select(
            b.fcmp_ordered(">", x, self.zero), lanes.every(-1, I32), lanes.every(1, I32)
        )
        is_zero = b.fcmp_ordered("==", x, self.zero)
        bits = b.select(is_zero, lanes.every(-(2**31), I32), bits)
        return lanes.as_floats(b.add(bits, step))

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

    def scores(self, found: Found, given: Any, many: Any) -> tuple[list[Any], Any]:
        """Return loss, confidence, margin, brier, predicted, rank, correct, status; the wrong.

        `given` are the labels as they came, `many` is the number of classes, in all lanes.
        """
        b, lanes, one = self.b, self.lanes, self.one
        m, mine, total = found.highest, found.of_label, found.total
        in_range = b.icmp_unsigned("<", given, many)
        # NaN, or +inf, or -inf alone: a difference is NaN.
        wrong = b.or_(b.not_(in_range), b.fcmp_unordered("uno", total, total))
        wrong = b.or_(wrong, self.contradicts(m, found.lowest))
        attained = b.fsub(b.uitofp(many, lanes.floats), found.lower)
        extra = b.fsub(attained, one)  # maxima beside the one that is left out
        at_maximum = b.fcmp_ordered("==", mine, m)
        alone = b.fcmp_ordered("<=", attained, one)
        other = b.select(b.and_(at_maximum, alone), found.below, m)
        finish = {LOGITS: self.logits, PROBS: self.probs, LOGPROBS: self.logprobs}[self.kind]
        loss, confidence, margin, brier, mass = finish(
            m, mine, found.s, found.q, extra, at_maximum, other
        )
        rank = b.fptosi(found.ahead, lanes.ints)
        correct = b.icmp_signed("==", rank, lanes.every(0, I32))
        status = b.select(alone, lanes.every(0, I32), lanes.every(TIE, I32))
        if mass is not None:
            distance = self.absolute(b.fsub(mass, one))
            off = b.fcmp_ordered(">", distance, lanes.spread(self.tolerance))
            status = b.or_(
                status, b.select(off, lanes.every(UNNORMALIZED, I32), lanes.every(0, I32))
            )
        predicted = b.fptosi(found.first, lanes.ints)
        scores = [loss, confidence, margin, brier, predicted, rank]
        return [*scores, b.zext(correct, lanes.ints), status], wrong

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

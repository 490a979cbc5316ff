"""`score_long`: rows with many classes, in two passes along each; see `score`.

A row is taken in blocks that stay in cache: the first pass over a block finds its maximum, and so
reads memory; the second sums what is below the highest so far, and has fetched what comes next.
Where a block has a new highest number, sums of the blocks before it are scaled. Sixteen rows are
finished at once.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils

from fastdiv_kernels.cpu.arithmetic import exp, value
from fastdiv_kernels.cpu.finish import LOGITS, PROBS, invalid
from fastdiv_kernels.cpu.finish_lanes import WIDTH, Finish, Found, i64, prefetch
from fastdiv_kernels.cpu.jit import inner, intrinsic, kernel
from fastdiv_kernels.cpu.lanes import I32, I64, Lanes, alloca, pointer

BLOCK = 8192  # classes, whose float32 are 32 KB
STREAMS = 4  # vectors whose maxima are found side by side
FETCHED = 8192  # bytes ahead, at least
MOST_FETCHED = 1 << 18  # ... at most: it must still be in cache when its turn comes
NUMBERS = 10  # of a row, each WIDTH lanes of w
HIGHEST, LOWEST_NUMBER, TOTAL, OF_LABEL, S, Q, LOWER, BELOW, FIRST, AHEAD = (
    np.uint64(i * WIDTH) for i in range(NUMBERS)
)
PASS = 6  # numbers that `sum_block` tells
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
    s, q, below, attained, ahead = ZERO, ZERO, NONE, 0, 0
    first_block = 0
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
        first += find_first(
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


def spans(builder: Any, n: Any, width: int) -> tuple[Any, Any]:
    """Return how many whole vectors n numbers are, and how many numbers are left."""
    return builder.udiv(n, i64(width)), builder.urem(n, i64(width))


def reduced(lanes: Lanes, x: Any, combine: Callable[[Any, Any], Any]) -> Any:
    """Combine all lanes of a vector, in an order that is always the same."""
    distance = WIDTH // 2
    while distance:
        other = lanes.shuffle(x, x, [(i + distance) % WIDTH for i in range(WIDTH)])
        x, distance = combine(x, other), distance // 2
    return lanes.builder.extract_element(x, ir.Constant(I32, 0))


def larger(lanes: Lanes, x: Any, y: Any) -> Any:
    """Return the larger of two numbers, y where x is NaN."""
    return lanes.builder.select(lanes.builder.fcmp_ordered(">", x, y), x, y)


def smaller(lanes: Lanes, x: Any, y: Any) -> Any:
    """Return the smaller of two numbers, y where x is NaN."""
    return lanes.builder.select(lanes.builder.fcmp_ordered("<", x, y), x, y)


def in_place(stored: Any) -> bool:
    """Whether numbers are used where they lie, and not converted once for both passes."""
    return bool(stored == types.float32)


@intrinsic
def block_ends(
    typing_context: Any, values: Any, at: Any, n: Any, x: Any, found: Any, probs: Any
) -> Any:
    """Return the largest and, of probabilities (`probs`, a literal), the smallest of n numbers.

    They are WIDTH at least, and begin at values[at]; words are written to x as float32.
    """
    stored = values.dtype

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        lanes = Lanes(builder, WIDTH)
        n = args[2]

        def vector(element: Any) -> Any:
            place = pointer(context, builder, signature, args, 0, builder.add(args[1], element))
            v = lanes.numbers(lanes.load(place, 1), stored)
            if not in_place(stored):
                lanes.store(v, pointer(context, builder, signature, args, 3, element), 4)
            return v

        maxima = [alloca(builder, lanes.every(-np.inf)) for _ in range(STREAMS)]
        minima = [alloca(builder, lanes.every(np.inf)) for _ in range(STREAMS)]

        def take(v: Any, k: int) -> None:
            builder.store(larger(lanes, v, builder.load(maxima[k])), maxima[k])
            if probs.literal_value:
                builder.store(smaller(lanes, v, builder.load(minima[k])), minima[k])

        rounds, rest = spans(builder, n, STREAMS * WIDTH)
        with cgutils.for_range(builder, rounds, intp=I64) as loop:
            first = builder.mul(loop.index, i64(STREAMS * WIDTH))
            for k in range(STREAMS):
                take(vector(builder.add(first, i64(k * WIDTH))), k)
        whole, over = spans(builder, rest, WIDTH)
        begin = builder.sub(n, rest)
        with cgutils.for_range(builder, whole, intp=I64) as loop:
            take(vector(builder.add(begin, builder.mul(loop.index, i64(WIDTH)))), 0)
        with builder.if_then(builder.icmp_unsigned(">", over, i64(0))):
            take(vector(builder.sub(n, i64(WIDTH))), 0)  # some of them again, which is no harm

        def over_all(places: list[Any], combine: Callable[[Any, Any], Any]) -> Any:
            a, b, c, d = map(builder.load, places)
            return reduced(lanes, combine(combine(a, b), combine(c, d)), combine)

        ends = [over_all(maxima, lambda x, y: larger(lanes, x, y))]
        ends.append(over_all(minima, lambda x, y: smaller(lanes, x, y)))
        return context.make_tuple(builder, signature.return_type, ends)

    if not isinstance(probs, types.Literal):
        return None
    pair = types.UniTuple(types.float32, 2)
    return pair(values, at, n, x, found, probs), generate


@intrinsic
def sum_block(
    typing_context: Any, values: Any, at: Any, n: Any, x: Any, highest: Any, of_label: Any,
    label: Any, ahead: Any, found: Any, probs: Any,
) -> Any:  # fmt: skip
    """Sum over a block what is below the highest: see `Found`.

    Writes s, q, total, below, lower and ahead to `found`. `label` counts from the first number,
    and may be another block's; `ahead` is how many bytes ahead memory is fetched.
    """
    stored = values.dtype

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        b, lanes = builder, Lanes(builder, WIDTH)
        finish = Finish(lanes, PROBS if probs.literal_value else LOGITS, None)
        zero, one = finish.zero, finish.one
        n = args[2]
        m, mine = lanes.spread(args[4]), lanes.spread(args[5])
        just_below = finish.next_below(mine)
        start = b.bitcast(
            pointer(context, b, signature, args, 0, args[1]), ir.IntType(8).as_pointer()
        )
        soon = b.gep(start, [args[7]])
        size = i64(stored.bitwidth // 8)

        def vector(element: Any) -> Any:
            if in_place(stored):
                place = pointer(context, b, signature, args, 0, b.add(args[1], element))
            else:
                place = pointer(context, b, signature, args, 3, element)
            return lanes.load(place, 1)

        s, q, total = (alloca(b, zero) for _ in range(3))
        lower, more = alloca(b, zero), alloca(b, zero)
        below = alloca(b, finish.none)

        def take(v: Any, bar: Any, there: Any = None) -> None:
            def also(mask: Any) -> Any:
                return mask if there is None else b.and_(mask, there)

            under = also(b.fcmp_ordered("<", v, m))
            known = b.load(lower)
            b.store(b.select(under, b.fadd(known, one), known), lower)
            known = b.load(below)
            b.store(b.select(under, larger(lanes, v, known), known), below)
            known = b.load(more)
            is_ahead = also(b.fcmp_unordered(">", v, bar))
            b.store(b.select(is_ahead, b.fadd(known, one), known), more)
            d = v if probs.literal_value else b.fsub(v, m)
            u = v if probs.literal_value else finish.exp(d)
            d = d if there is None else b.select(there, d, zero)
            b.store(b.fadd(b.load(total), d), total)
            known = b.load(s)
            b.store(b.select(under, b.fadd(known, u), known), s)
            known = b.load(q)
            b.store(b.select(under, lanes.multiply_add(u, u, known), known), q)

        def fetch(element: Any) -> None:
            prefetch(b, b.gep(soon, [b.mul(element, size)]))

        whole, over = spans(b, n, WIDTH)
        # Vectors before that of the label, and after it.
        inside = b.and_(b.icmp_signed(">=", args[6], i64(0)), b.icmp_signed("<", args[6], n))
        of = b.udiv(args[6], i64(WIDTH))
        here = b.and_(inside, b.icmp_unsigned("<", of, whole))
        is_after = b.icmp_signed(">=", args[6], n)  # the label's class is of a later block
        middle = b.select(here, of, b.select(b.or_(is_after, inside), whole, i64(0)))
        ranks = ir.Constant(lanes.ints, list(range(WIDTH)))

        def bar_at(element: Any) -> Any:
            index = b.add(ranks, lanes.spread(b.trunc(element, I32)))
            before = b.icmp_signed("<", index, lanes.spread(b.trunc(args[6], I32)))
            return b.select(before, just_below, mine)

        with cgutils.for_range(b, middle, intp=I64) as loop:
            element = b.mul(loop.index, i64(WIDTH))
            fetch(element)
            take(vector(element), just_below)
        with b.if_then(here):
            element = b.mul(middle, i64(WIDTH))
            take(vector(element), bar_at(element))
        after = b.select(here, b.add(middle, i64(1)), middle)
        with cgutils.for_range(b, whole, start=after, intp=I64) as loop:
            element = b.mul(loop.index, i64(WIDTH))
            fetch(element)
            take(vector(element), mine)
        with b.if_then(b.icmp_unsigned(">", over, i64(0))):
            element = b.sub(n, i64(WIDTH))
            repeated = b.trunc(b.sub(i64(WIDTH), over), I32)
            there = b.icmp_signed(">=", ranks, lanes.spread(repeated))
            take(vector(element), bar_at(element), there)

        def add(p: Any, r: Any) -> Any:
            return b.fadd(p, r)

        results = [reduced(lanes, b.load(place), add) for place in (s, q, total)]
        results.append(reduced(lanes, b.load(below), lambda p, r: larger(lanes, p, r)))
        results += [reduced(lanes, b.load(place), add) for place in (lower, more)]
        for k, result in enumerate(results):
            b.store(result, pointer(context, b, signature, args, 8, k))
        return context.get_dummy_value()

    if not isinstance(probs, types.Literal):
        return None
    arguments = (values, at, n, x, highest, of_label, label, ahead, found, probs)
    return types.void(*arguments), generate


@intrinsic
def find_first(typing_context: Any, values: Any, at: Any, n: Any, m: Any) -> Any:
    """Return which of n numbers from values[at] on is the first that equals m, or n."""
    stored = values.dtype

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        b, lanes = builder, Lanes(builder, WIDTH)
        n, m = args[2], lanes.spread(args[3])
        result = alloca(b, n)

        def look(element: Any) -> Any:
            place = pointer(context, b, signature, args, 0, b.add(args[1], element))
            v = lanes.numbers(lanes.load(place, 1), stored)
            bits = b.bitcast(b.fcmp_ordered("==", v, m), ir.IntType(WIDTH))
            return b.zext(bits, I64)

        def note(bits: Any, element: Any) -> None:
            lane = b.cttz(bits, ir.Constant(ir.IntType(1), 1))
            b.store(b.add(element, lane), result)

        whole, over = spans(b, n, WIDTH)
        with cgutils.for_range(b, whole, intp=I64) as loop:
            element = b.mul(loop.index, i64(WIDTH))
            bits = look(element)
            with b.if_then(b.icmp_unsigned("!=", bits, i64(0)), likely=False):
                note(bits, element)
                loop.do_break()
        missed = b.icmp_unsigned("==", b.load(result), n)
        left = b.and_(missed, b.icmp_unsigned(">", over, i64(0)))
        with b.if_then(left):
            element = b.sub(n, i64(WIDTH))
            bits = look(element)
            with b.if_then(b.icmp_unsigned("!=", bits, i64(0))):
                note(bits, element)
        return b.load(result)

    return types.int64(values, at, n, m), generate


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

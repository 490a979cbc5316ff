"""The passes of `score_long` over a block of numbers of one row, as vectors in registers."""

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir

from fastdiv_kernels.cpu.finish import LOGITS, PROBS
from fastdiv_kernels.cpu.finish_lanes import WIDTH, Finish, i64
from fastdiv_kernels.cpu.jit import cgutils, intrinsic, types
from fastdiv_kernels.cpu.lanes import I32, I64, Lanes, alloca, pointer, prefetch

STREAMS = 4  # vectors whose maxima are found side by side
PASS = 6  # numbers that `sum_block` tells


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

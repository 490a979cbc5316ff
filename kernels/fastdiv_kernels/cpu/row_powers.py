"""Sums along a long row of exp(beta * x) and of exp(beta * x) * x at the temperatures of the grid.

The maximum is left out. Where registers hold all sums, a row is gone through once. Elsewhere a
part of it is brought to exponentials, and then each chain of powers has a loop over them.
"""

from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir

from fastdiv_kernels.cpu.jit import cgutils, intrinsic, types
from fastdiv_kernels.cpu.lanes import I32, I64, WIDE, Lanes, alloca, pointer
from fastdiv_kernels.cpu.powers import (
    CHAINS,
    CURVE,
    LOG2E_16,
    LOWEST,
    POWERS,
    WIDTH,
    add_powers,
    i64,
)

ROW_SUMS = (CURVE + WIDTH - 1) // WIDTH * WIDTH  # a row's, and room up to a whole vector
PART = 128  # vectors of x and as many of exponentials: 8 KB
EXPONENTIALS = PART * WIDTH
ROW_SCRATCH = 2 * EXPONENTIALS


@intrinsic
def row_powers(
    typing_context: Any, values: Any, at: Any, classes: Any, first: Any, m: Any, probs: Any,
    scratch: Any, sums: Any, to: Any,
) -> Any:  # fmt: skip
    """Sum over the classes of a row, but for `first`, into sums[to : to + ROW_SUMS].

    The row begins at values[at] and has WIDTH classes or more: logits, of which m is taken, or
    probabilities, not of float64, of whose logarithms it is taken, if `probs`, which is a literal.
    """
    stored = values.dtype

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        lanes = Lanes(builder, WIDTH)
        zero, none = lanes.every(0.0), lanes.every(LOWEST)
        start, largest = args[1], lanes.spread(args[4])

        def x_from(element: Any) -> Any:
            place = pointer(context, builder, signature, args, 0, builder.add(start, element))
            v = lanes.numbers(lanes.load(place, 1), stored)
            v = lanes.log(lanes.at_least(v, zero)) if probs.literal_value else v
            x = builder.fsub(v, largest)
            x = x if stored != types.float64 else builder.fptrunc(x, lanes.floats)
            return lanes.at_least(x, none)

        def scratch_at(at: Any) -> Any:
            return pointer(context, builder, signature, args, 6, at)

        totals = [alloca(builder, zero) for _ in range(ROW_SUMS)]
        if WIDE:
            _at_once(lanes, x_from, args[2], args[3], totals)
        else:
            _by_parts(lanes, x_from, args[2], args[3], scratch_at, totals)
        for i, total in enumerate(lanes.sums([builder.load(total) for total in totals])):
            to = builder.add(args[8], i64(i * WIDTH))
            lanes.store(total, pointer(context, builder, signature, args, 7, to), 4)
        return context.get_dummy_value()

    if not isinstance(probs, types.Literal):
        return None
    return types.void(values, at, classes, first, m, probs, scratch, sums, to), generate


def _at_once(
    lanes: Lanes, x_from: Callable[[Any], Any], classes: Any, first: Any, totals: Sequence[Any]
) -> None:
    """Add to totals (places) in one loop; the vector of `first` and the row's last come apart."""
    builder = lanes.builder
    vector = builder.udiv(first, i64(WIDTH))  # that holds `first`
    whole = builder.udiv(classes, i64(WIDTH))
    rest = builder.urem(classes, i64(WIDTH))
    among_whole = builder.icmp_unsigned("<", vector, whole)

    def add(x: Any) -> None:
        add_powers(lanes, lanes.exp2(x, LOG2E_16), x, range(POWERS), totals)

    def vectors(part: Any) -> tuple[Any, Any]:
        """Return from where to where vectors are whole, before and after that of `first`."""
        before = builder.select(among_whole, vector, whole)
        after = builder.add(vector, i64(1))
        return builder.select(part, after, i64(0)), builder.select(part, whole, before)

    def with_a_gap(last: Any) -> Any:
        """Return x of the vector of `first`, or of the row's last, less what is added."""
        element = builder.select(
            last, builder.sub(classes, i64(WIDTH)), builder.mul(vector, i64(WIDTH))
        )
        added = builder.select(last, builder.sub(i64(WIDTH), rest), i64(0))
        low = lanes.spread(builder.trunc(added, I32))
        gap = lanes.spread(builder.trunc(builder.sub(first, element), I32))
        there = builder.icmp_signed(">=", _ranks(lanes), low)
        there = builder.and_(there, builder.icmp_signed("!=", _ranks(lanes), gap))
        return builder.select(there, x_from(element), lanes.every(LOWEST))

    with cgutils.for_range(builder, i64(2), intp=I64) as part:
        begin, end = vectors(builder.trunc(part.index, ir.IntType(1)))
        with cgutils.for_range(builder, end, start=begin, intp=I64) as loop:
            add(x_from(builder.mul(loop.index, i64(WIDTH))))
    begin = builder.select(among_whole, i64(0), i64(1))
    end = builder.select(builder.icmp_unsigned(">", rest, i64(0)), i64(2), i64(1))
    with cgutils.for_range(builder, end, start=begin, intp=I64) as part:
        add(with_a_gap(builder.trunc(part.index, ir.IntType(1))))


def _by_parts(
    lanes: Lanes, x_from: Callable[[Any], Any], classes: Any, first: Any,
    scratch: Callable[[Any], Any], totals: Sequence[Any],
) -> None:  # fmt: skip
    """Add to totals (places) in a loop for each chain, over what another put into scratch.

    The last vector ends with the row; what the one before has of it counts as nothing there, and
    so does `first`.
    """
    builder = lanes.builder
    last = builder.udiv(builder.sub(classes, i64(1)), i64(WIDTH))  # vector
    ends = builder.sub(classes, i64(WIDTH))  # where it begins
    again = builder.sub(builder.mul(last, i64(WIDTH)), ends)
    in_last = builder.icmp_unsigned(">=", first, builder.mul(last, i64(WIDTH)))
    place = builder.select(in_last, builder.add(first, again), first)
    vectors = builder.add(last, i64(1))

    def vector_at(i: Any, base: int = 0) -> Any:
        return scratch(builder.add(builder.mul(i, i64(WIDTH)), i64(base)))

    with cgutils.for_range_slice(builder, i64(0), vectors, i64(PART), intp=I64) as (begin, _):
        left = builder.sub(vectors, begin)
        is_end = builder.icmp_unsigned("<=", left, i64(PART))
        count = builder.select(is_end, left, i64(PART))
        with cgutils.for_range(builder, count, intp=I64) as loop:
            element = builder.mul(builder.add(begin, loop.index), i64(WIDTH))
            over = builder.icmp_unsigned(">", element, ends)
            x = x_from(builder.select(over, ends, element))
            lanes.store(x, vector_at(loop.index), 4)
            lanes.store(lanes.exp2(x, LOG2E_16), vector_at(loop.index, EXPONENTIALS), 4)
        with builder.if_then(is_end):
            final = vector_at(builder.sub(count, i64(1)), EXPONENTIALS)
            low = lanes.spread(builder.trunc(again, I32))
            there = builder.icmp_signed(">=", _ranks(lanes), low)
            u = builder.select(there, lanes.load(final, 4), lanes.every(0.0))
            lanes.store(u, final, 4)
        before = builder.mul(begin, i64(WIDTH))
        inside = builder.sub(place, before)
        with builder.if_then(builder.icmp_unsigned("<", inside, builder.mul(count, i64(WIDTH)))):
            nothing = ir.Constant(ir.FloatType(), 0.0)
            builder.store(nothing, scratch(builder.add(inside, i64(EXPONENTIALS))))
        for chain in CHAINS:
            sums = [totals[k] for k in chain] + [totals[POWERS + k] for k in chain]
            with cgutils.for_range(builder, count, intp=I64) as loop:
                x, u = (lanes.load(vector_at(loop.index, b), 4) for b in (0, EXPONENTIALS))
                add_powers(lanes, u, x, chain, sums)


def _ranks(lanes: Lanes) -> Any:
    """Return the numbers of lanes."""
    return ir.Constant(lanes.ints, list(range(WIDTH)))

"""`dynamics`: the history of each sample, carried on from epoch to epoch.

A record is a cache line, eight words of 64 bits. Rows records become eight columns of words in
registers, are carried on without branches, and become records again; of rows that are not valid
the words stay as they were.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from llvmlite import ir

from fastdiv_kernels.contract import CORRECT, DYNAMICS
from fastdiv_kernels.cpu.addresses import address_of, copy_bytes
from fastdiv_kernels.cpu.arithmetic import (
    EXP_64,
    EXP_LOWEST_64,
    LN2_HIGH_64,
    LN2_LOW_64,
    LOG2E_64,
)
from fastdiv_kernels.cpu.eights import (
    DOUBLE,
    I32,
    I64,
    INFINITY,
    MAGNITUDE,
    ROWS,
    Rows,
    bits_64,
    data_of,
    in_order,
    padded,
)
from fastdiv_kernels.cpu.jit import cgutils, intrinsic, kernel, types

# Words of a record: four doubles, the epoch, and pairs of 32 bits, the first in the low half.
WORDS = 8
PAIRS = ("first_right", "n_epochs", "n_right", "n_margin", "forgetting", "last_predicted", "label")
assert DYNAMICS.names == ("mean_p", "m2_p", "margin_sum", "last_loss", *PAIRS)
assert DYNAMICS.itemsize == 8 * WORDS
RECORD = np.uint64(DYNAMICS.itemsize)
EIGHT = np.uint64(ROWS)
START = np.uint64(0)
TILE = 512  # rows
RIGHT_BIT = CORRECT.bit_length() - 1
HALF = 32
LOW_HALF = (1 << HALF) - 1
ROUND = 1.5 * 2.0**52  # added, it leaves the nearest integer in the lowest bits
INTEGER = 2.0**52  # its bits and those of a smaller integer are those of their sum


@kernel
def dynamics(
    epoch: Any, loss: Any, margin: Any, predicted: Any, labels: Any, flags: Any, records: Any
) -> None:
    """Carry each sample's history on by one epoch; see the contract."""
    loss, margin, flags = in_order(loss), in_order(margin), in_order(flags)
    predicted, labels = in_order(predicted), in_order(labels)
    n = np.uint64(len(flags))
    whole = n // EIGHT * EIGHT
    at = np.uint64(address_of(records))
    carry_on(epoch, loss, margin, predicted, labels, flags, whole, at)
    left = n - whole
    if left > 0:
        room = np.zeros(ROWS * WORDS, np.int64)
        copied = np.uint64(address_of(room))
        copy_bytes(copied, at + RECORD * whole, RECORD * left)
        carry_on(
            epoch, padded(loss, whole, left), padded(margin, whole, left),
            padded(predicted, whole, left), padded(labels, whole, left),
            padded(flags, whole, left), EIGHT, copied,
        )  # fmt: skip
        copy_bytes(at + RECORD * whole, copied, RECORD * left)
        room[0] = 0  # until here it must live


@kernel
def carry_on(
    epoch: Any, loss: Any, margin: Any, predicted: Any, labels: Any, flags: Any, rows: Any, at: Any
) -> None:  # fmt: skip
    """Add one epoch to the records at an address, whole eights."""
    p = np.empty(TILE, np.float64)
    for first in range(START, rows, np.uint64(TILE)):
        tile = min(np.uint64(TILE), rows - first)
        find_probabilities(loss, first, tile, p)
        place = at + RECORD * first
        carry_on_tile(epoch, loss, p, margin, predicted, labels, flags, first, tile, place)


@intrinsic
def find_probabilities(typing_context: Any, loss: Any, at: Any, rows: Any, p: Any) -> Any:
    """Write the label's probability of rows to p: a chain so long that it has a loop of its own."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        loss, at, rows, p = data_of(context, builder, signature, args)
        lanes = Rows(builder)
        with lanes.each(at, rows) as (before, i):
            x = builder.fsub(lanes.every(DOUBLE, -0.0), lanes.double(lanes.load(loss, i)))
            lanes.store(exponential(lanes, x), p, before)
        return context.get_dummy_value()

    return types.void(loss, types.uint64, types.uint64, p), generate


@intrinsic
def carry_on_tile(
    typing_context: Any, epoch: Any, loss: Any, p: Any, margin: Any, predicted: Any, labels: Any,
    flags: Any, at: Any, rows: Any, records: Any,
) -> Any:  # fmt: skip
    """Add one epoch to the records at an address, of rows from `at`, whose p are known."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        epoch, loss, p, *columns, at, rows, records = data_of(context, builder, signature, args)
        lanes = Rows(builder)
        epoch = lanes.splat(epoch)
        with lanes.each(at, rows) as (before, i):
            own = lanes.flags(columns[-1], i)
            valid = lanes.valid(own)
            some = builder.icmp_signed("!=", lanes.any(valid), ir.Constant(I32, 0))
            with builder.if_then(some, likely=True):
                place = builder.mul(before, ir.Constant(I64, int(RECORD)))
                place = builder.add(records, place)
                words = records_at(lanes, place)
                given = [lanes.load(x, i) for x in (loss, *columns[:-1])]
                given.append(lanes.has(own, RIGHT_BIT))
                after = carried_on(lanes, words, epoch, lanes.load(p, before), given)
                mask = lanes.wide(valid)
                chosen = [lanes.blend(mask, b, a) for a, b in zip(words, after, strict=True)]
                write_records(lanes, place, chosen)
        return context.get_dummy_value()

    columns = (loss, p, margin, predicted, labels, flags)
    return types.void(types.int64, *columns, types.uint64, types.uint64, types.uint64), generate


def carried_on(
    lanes: Rows, words: Sequence[Any], epoch: Any, p: Any, given: Sequence[Any]
) -> list[Any]:
    """Return words of records one epoch on, all as integers.

    Given are losses, margins, predictions, labels, and which rows are right: a mask of 32 bits.
    """
    loss, margin, predicted, labels, right = given
    builder = lanes.builder
    doubles = lanes.vector(DOUBLE)
    mean, m2, margin_sum = (builder.bitcast(x, doubles) for x in words[:3])
    _, _, _, _, first_right, seen, kept, last = words
    loss, right = lanes.double(loss), lanes.wide(right)
    one, high, low = (lanes.every(I64, x) for x in (1, 1 << HALF, LOW_HALF))
    half = lanes.every(I64, HALF)
    n = builder.and_(builder.add(seen, one), low)
    divisor = builder.bitcast(builder.or_(n, lanes.every(I64, bits_64(INTEGER))), doubles)
    divisor = builder.fsub(divisor, lanes.every(DOUBLE, INTEGER))
    difference = builder.fsub(p, mean)
    mean = builder.fadd(mean, builder.fdiv(difference, divisor))
    m2 = builder.fadd(m2, builder.fmul(difference, builder.fsub(p, mean)))
    finite = builder.and_(lanes.ints(margin), lanes.every(I32, MAGNITUDE))
    finite = lanes.wide(lanes.below(finite, INFINITY))
    margin_sum = builder.fadd(margin_sum, lanes.kept(lanes.double(margin), finite))
    never_right = lanes.is_zero(builder.lshr(seen, half))
    first_right = lanes.blend(builder.and_(right, never_right), epoch, first_right)
    # Right before: there was an epoch, and its prediction is its label.
    same = lanes.is_zero(builder.and_(builder.xor(last, builder.lshr(last, half)), low))
    was_right = builder.and_(same, builder.not_(lanes.is_zero(builder.and_(seen, low))))
    forgotten = builder.and_(was_right, builder.not_(right))
    seen = builder.add(builder.add(seen, one), builder.and_(right, high))
    kept = builder.add(builder.add(kept, builder.and_(finite, one)), builder.and_(forgotten, high))
    wide = lanes.vector(I64)
    last = builder.or_(builder.zext(predicted, wide), builder.shl(builder.zext(labels, wide), half))
    floats = [lanes.ints(x) for x in (mean, m2, margin_sum, loss)]
    return [*floats, first_right, seen, kept, last]


def exponential(lanes: Rows, x: Any) -> Any:
    """Return e**x as `arithmetic.exp_64` does, for x of about 0 and below."""
    builder = lanes.builder

    def every(number: float) -> Any:
        return lanes.every(DOUBLE, number)

    form = ir.FunctionType(x.type, [x.type] * 3)
    name = f"llvm.fmuladd.v{ROWS}f64"
    fused = cgutils.get_or_insert_function(builder.module, form, name)
    x = builder.select(builder.fcmp_ordered(">", x, every(EXP_LOWEST_64)), x, every(EXP_LOWEST_64))
    shifted = builder.call(fused, [x, every(LOG2E_64), every(ROUND)])
    n = builder.fsub(shifted, every(ROUND))
    r = builder.call(fused, [n, every(-LN2_HIGH_64), x])
    r = builder.call(fused, [n, every(-LN2_LOW_64), r])
    p = every(EXP_64[-1])
    for coefficient in EXP_64[-2::-1]:
        p = builder.call(fused, [p, r, every(coefficient)])
    exponent = builder.add(lanes.ints(shifted), lanes.every(I64, 1023))
    scale = builder.bitcast(builder.shl(exponent, lanes.every(I64, 52)), x.type)
    normal = builder.fcmp_ordered(">=", n, every(-1022.0))
    return builder.select(normal, builder.fmul(p, scale), every(0.0))


def transposed(lanes: Rows, rows: Sequence[Any]) -> list[Any]:
    """Return four vectors of four words as their columns."""
    builder = lanes.builder

    def shuffled(x: Any, y: Any, order: Sequence[int]) -> Any:
        return builder.shuffle_vector(x, y, ir.Constant(ir.VectorType(I32, 4), list(order)))

    a, b, c, d = rows
    even = [shuffled(x, y, (0, 4, 2, 6)) for x, y in ((a, b), (c, d))]
    odd = [shuffled(x, y, (1, 5, 3, 7)) for x, y in ((a, b), (c, d))]
    orders = ((0, 1, 4, 5), (2, 3, 6, 7))
    return [shuffled(pair[0], pair[1], order) for order in orders for pair in (even, odd)]


def halves_at(lanes: Rows, at: Any) -> list[list[Any]]:
    """Return the pointers to the halves of eight records at an address."""
    four = ir.VectorType(I64, 4).as_pointer()
    first = lanes.builder.inttoptr(at, four)
    return [
        [lanes.builder.gep(first, [ir.Constant(I64, 2 * row + half)]) for row in range(ROWS)]
        for half in range(2)
    ]


def records_at(lanes: Rows, at: Any) -> list[Any]:
    """Load eight records as columns of their words."""
    builder, words = lanes.builder, []
    for places in halves_at(lanes, at):
        rows = [builder.load(place, align=1) for place in places]
        halves = zip(transposed(lanes, rows[:4]), transposed(lanes, rows[4:]), strict=True)
        order = ir.Constant(ir.VectorType(I32, ROWS), list(range(ROWS)))
        words += [builder.shuffle_vector(a, b, order) for a, b in halves]
    return words


def write_records(lanes: Rows, at: Any, words: Sequence[Any]) -> None:
    """Store columns of words as eight records."""
    builder = lanes.builder
    for half, places in enumerate(halves_at(lanes, at)):
        for first in (0, 4):
            part = ir.Constant(ir.VectorType(I32, 4), list(range(first, first + 4)))
            columns = [builder.shuffle_vector(x, x, part) for x in words[4 * half : 4 * half + 4]]
            for place, row in zip(places[first:], transposed(lanes, columns), strict=False):
                builder.store(row, place, align=1)

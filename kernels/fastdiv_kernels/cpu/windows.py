"""Exact sums of many numbers at once, in fixed point; for what lies outside there is `sums.add`.

A number is split into a multiple of 2**-COARSE and a rest that is a multiple of 2**-FINE. Both are
made by adding a number so large that what is left of the mantissa is the integer (additions of
float64, which every processor has for vectors), and integers are added in any order. Scalar
additions to limbs take 1.5 to 2 ns each; this takes 0.2 to 0.3, and each tile's totals are then
added to the limbs.
"""

from typing import Any

import numpy as np
from llvmlite import ir

from fastdiv_kernels.contract import CORRECT, PRESENT
from fastdiv_kernels.cpu.arithmetic import as_int
from fastdiv_kernels.cpu.eights import (
    COARSE,
    DOUBLE,
    EIGHT,
    FINE,
    FLOAT,
    I8,
    I32,
    I64,
    INFINITY,
    LEAST,
    LIMIT,
    MAGNITUDE,
    ROUND_COARSE,
    ROUND_FINE,
    ROWS,
    VALID,
    Rows,
    bits_32,
    bits_64,
    data_of,
)
from fastdiv_kernels.cpu.jit import inner, intrinsic, kernel, overload, types
from fastdiv_kernels.cpu.sums import LOW, add
from fastdiv_kernels.exact import LIMBS_32, ORIGIN_32, ORIGIN_64

TILE = 512  # rows whose totals stay in 64 bits, in a window and in a packed word
GROUP = 64  # rows that are counted at once
# What is too small for a window is taken times a power of two: float32 down to the last, float64
# from 2**-83 to 2**-32.
SMALL_32 = 66
SMALL_64 = 51
BITS_COARSE, BITS_FINE = bits_64(ROUND_COARSE), bits_64(ROUND_FINE)
RIGHT_BIT = CORRECT.bit_length() - 1
TOTALS = 6  # what `column_totals` writes


@inner()
def split(x: Any) -> Any:
    """Return x, a float64, in units of 2**-COARSE and 2**-FINE, and whether that is all of x.

    The two integers mean nothing where it is not; no NaN and no infinity ever is.
    """
    shifted = x + ROUND_COARSE
    rest = x - (shifted - ROUND_COARSE)
    shifted_rest = rest + ROUND_FINE
    # & and not `and`: a branch would keep the loop from being vectorised.
    whole = (shifted_rest - ROUND_FINE == rest) & (abs(x) < LIMIT)
    return as_int(shifted) - BITS_COARSE, as_int(shifted_rest) - BITS_FINE, whole


@inner()
def add_window(limbs: Any, which: Any, coarse: Any, fine: Any, shift: Any) -> None:
    """Add totals of numbers times 2**shift, as `split` gives them, to row `which` of limbs."""
    add_fixed(limbs, which, coarse, COARSE + shift)
    add_fixed(limbs, which, fine, FINE + shift)


@inner()
def add_fixed(limbs: Any, which: Any, total: Any, fraction_bits: Any) -> None:
    """Add total * 2**-fraction_bits, an int64 total, to row `which` of limbs (rows, k)."""
    origin = ORIGIN_32 if limbs.shape[1] == LIMBS_32 else ORIGIN_64
    position = np.int64(-origin - fraction_bits)
    shift = position & 31
    limb = position >> 5
    low = (total & LOW) << shift
    high = (total >> 32) << shift
    limbs[which, limb] += low & LOW
    limbs[which, limb + 1] += (low >> 32) + (high & LOW)
    limbs[which, limb + 2] += high >> 32


@inner()
def add_column(x: Any, flags: Any, at: Any, rows: Any, limbs: Any, which: Any) -> Any:
    """Add a column's finite numbers in valid rows from `at` to one sum; rows are whole eights.

    Returns how many are not finite, which NaN is not either.
    """
    totals = np.empty(TOTALS, np.int64)
    column_totals(x, flags, at, rows, totals)
    add_window(limbs, which, totals[0], totals[1], 0)
    return add_left(x, flags, at, rows, limbs, which, which) if totals[4] != 0 else 0


@inner()
def add_column_apart(
    x: Any, flags: Any, at: Any, rows: Any, limbs: Any, wrong: Any, right: Any
) -> Any:  # fmt: skip
    """Add a column to two sums, of the wrong and of the right; see `add_column`."""
    totals = np.empty(TOTALS, np.int64)
    column_totals_apart(x, flags, at, rows, totals)
    add_totals(totals, limbs, wrong, right, 0)
    return add_left(x, flags, at, rows, limbs, wrong, right) if totals[4] != 0 else 0


@kernel  # seldom called
def add_left(
    x: Any, flags: Any, at: Any, rows: Any, limbs: Any, wrong: Any, right: Any
) -> Any:  # fmt: skip
    """Add what `column_totals` left of a column; returns how many are not finite."""
    totals = np.empty(TOTALS, np.int64)
    small_column_totals(x, flags, at, rows, totals)
    shift = SMALL_32 if limbs.shape[1] == LIMBS_32 else SMALL_64
    add_totals(totals, limbs, wrong, right, shift)
    if totals[4] != 0:
        for i in range(at, at + rows):
            if flags[i] & VALID == PRESENT and is_left(x[i]):
                add(limbs, right if flags[i] & CORRECT != 0 else wrong, x[i], 1)
    return totals[5]


@inner()
def add_totals(totals: Any, limbs: Any, wrong: Any, right: Any, shift: Any) -> None:
    """Add a column's totals to its sums."""
    add_window(limbs, right, totals[2], totals[3], shift)
    add_window(limbs, wrong, totals[0] - totals[2], totals[1] - totals[3], shift)


def is_left(x: Any) -> Any:
    """Say whether a finite number is in neither of a column's totals."""
    raise NotImplementedError  # kernels get the overload below


@overload(is_left)
def _is_left(x: Any) -> Any:
    def of_32(x: Any) -> Any:
        return (abs(x) >= LIMIT) & (abs(x) < np.inf)

    def of_64(x: Any) -> Any:
        return (abs(x) < np.inf) & (not split(x)[2]) & (not split(x * 2.0**SMALL_64)[2])

    return of_32 if x == types.float32 else of_64


def totals_of(small: bool, apart: bool) -> Any:
    """Make the intrinsic that adds up a column's valid rows.

    It writes coarse and fine totals of these rows; if `apart`, coarse and fine totals of those
    among them that are right; whether any number is in no total (not 0); and, if `small`, how many
    are not finite: then it is what lies below the window that is added, times a power of two.
    """

    def parts(lanes: Rows, x: Any, valid: Any) -> tuple[Any, Any, Any, Any]:
        """Return a column's bits of shifted and shifted rest, what is left, what is not finite."""
        return (parts_32 if x.type.element == FLOAT else parts_64)(lanes, x, valid)

    def parts_32(lanes: Rows, x: Any, valid: Any) -> tuple[Any, Any, Any, Any]:
        builder = lanes.builder
        bits = builder.and_(lanes.ints(x), lanes.every(I32, MAGNITUDE))
        least, limit = bits_32(LEAST), bits_32(LIMIT)
        if small:
            within = builder.and_(valid, lanes.between(bits, 0, least))
            left = builder.and_(valid, lanes.between(bits, limit, INFINITY))
            d = lanes.double(lanes.kept(x, within))
            d = builder.fmul(d, lanes.every(DOUBLE, 2.0**SMALL_32))
            beyond = builder.and_(valid, builder.not_(lanes.below(bits, INFINITY)))
        else:
            within = builder.and_(valid, lanes.between(bits, least, limit))
            left = builder.and_(bits, builder.and_(valid, builder.not_(within)))
            d, beyond = lanes.double(lanes.kept(x, within)), None
        shifted, shifted_rest, _ = lanes.split(d)
        return lanes.ints(shifted), lanes.ints(shifted_rest), left, beyond

    def parts_64(lanes: Rows, x: Any, valid: Any) -> tuple[Any, Any, Any, Any]:
        builder = lanes.builder
        d, beyond = lanes.kept(x, lanes.wide(valid)), None
        shifted, shifted_rest, rest = lanes.split(d)
        whole = lanes.whole(d, shifted_rest, rest)
        left = builder.not_(whole)
        if small:
            finite = builder.fcmp_ordered("<", lanes.size(d), lanes.every(DOUBLE, np.inf))
            finite = lanes.wide(finite)
            d = lanes.kept(d, builder.and_(left, finite))
            d = builder.fmul(d, lanes.every(DOUBLE, 2.0**SMALL_64))
            shifted, shifted_rest, rest = lanes.split(d)
            whole = lanes.whole(d, shifted_rest, rest)
            left, beyond = builder.not_(whole), builder.not_(finite)
        coarse = lanes.chosen(whole, lanes.ints(shifted), lanes.every(I64, BITS_COARSE))
        fine = lanes.chosen(whole, lanes.ints(shifted_rest), lanes.every(I64, BITS_FINE))
        return coarse, fine, left, beyond

    def column(typing_context: Any, x: Any, flags: Any, at: Any, rows: Any, totals: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            x, flags, at, rows, totals = data_of(context, builder, signature, args)
            lanes = Rows(builder)
            element = x.type.pointee
            sums, masks = lanes.places(4), lanes.places(2, I32)
            odd = lanes.places(2, I32 if element == FLOAT else I64)
            with lanes.each(at, rows) as (_, i):
                own = lanes.flags(flags, i)
                coarse, fine, left, beyond = parts(lanes, lanes.load(x, i), lanes.valid(own))
                lanes.add(sums[:2], [coarse, fine])
                if apart:
                    right = lanes.has(own, RIGHT_BIT)
                    mask = lanes.wide(right)
                    of_right = [builder.and_(part, mask) for part in (coarse, fine)]
                    lanes.add([*sums[2:], masks[0]], [*of_right, right])
                lanes.join(odd[0], left)
                if beyond is not None:
                    lanes.add(odd[1:], [beyond])
            added = [lanes.sum(builder.load(place)) for place in sums]
            right = builder.sext(lanes.sum(builder.load(masks[0])), I64)  # times -1
            roundings = [ir.Constant(I64, bits) for bits in (BITS_COARSE, BITS_FINE)]
            for k, x in enumerate(added):
                rounding = roundings[k % 2]
                if k < 2:
                    x = builder.sub(x, builder.mul(rows, rounding))
                else:
                    x = builder.add(x, builder.mul(right, rounding))
                builder.store(x, builder.gep(totals, [ir.Constant(I64, k)]))
            left, beyond = lanes.any(builder.load(odd[0])), lanes.sum(builder.load(odd[1]))
            if element == FLOAT:
                left, beyond = builder.zext(left, I64), builder.sext(beyond, I64)
            builder.store(left, builder.gep(totals, [ir.Constant(I64, 4)]))
            builder.store(builder.neg(beyond), builder.gep(totals, [ir.Constant(I64, 5)]))
            return context.get_dummy_value()

        return types.void(x, flags, types.uint64, types.uint64, totals), generate

    return intrinsic(column)


column_totals = totals_of(small=False, apart=False)
column_totals_apart = totals_of(small=False, apart=True)
small_column_totals = totals_of(small=True, apart=True)


def counting(group: int) -> Any:
    """Make the intrinsic that counts the rows with flags & mask == wanted among `group` from `at`.

    They are compared at once, and bits are counted: loops over single rows take long to compile.
    """

    def count_flags(typing_context: Any, flags: Any, at: Any, mask: Any, wanted: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            flags, at, mask, wanted = data_of(context, builder, signature, args)
            vector = ir.VectorType(I8, group)
            every = ir.Constant(ir.VectorType(I32, group), [0] * group)

            def splat(x: Any) -> Any:
                none = ir.Constant(vector, ir.Undefined)
                first = builder.insert_element(none, builder.trunc(x, I8), ir.Constant(I32, 0))
                return builder.shuffle_vector(first, first, every)

            place = builder.bitcast(builder.gep(flags, [at]), vector.as_pointer())
            masked = builder.and_(builder.load(place, align=1), splat(mask))
            equal = builder.icmp_unsigned("==", masked, splat(wanted))
            found = builder.ctpop(builder.bitcast(equal, ir.IntType(group)))
            return found if group == GROUP else builder.zext(found, I64)

        return types.int64(flags, at, types.int64, types.int64), generate

    return intrinsic(count_flags)


count_group = counting(GROUP)
count_eight = counting(ROWS)


@inner()
def count_rows(flags: Any, at: Any, rows: Any, mask: Any, wanted: Any) -> Any:
    """Count the rows with flags & mask == wanted among whole eights of rows from row `at`."""
    total = np.int64(0)
    whole = rows // np.uint64(GROUP) * np.uint64(GROUP)
    for i in range(np.uint64(0), whole, np.uint64(GROUP)):
        total += count_group(flags, at + i, mask, wanted)
    for i in range(whole, rows, EIGHT):
        total += count_eight(flags, at + i, mask, wanted)
    return total

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

from fastdiv_kernels.contract import PRESENT, REASON
from fastdiv_kernels.cpu.arithmetic import as_float, as_int
from fastdiv_kernels.cpu.jit import inner, intrinsic, kernel, types
from fastdiv_kernels.cpu.sums import LOW, add
from fastdiv_kernels.exact import LIMBS_32, ORIGIN_32, ORIGIN_64

TILE = 512  # rows whose totals stay in 64 bits, in a window and in a packed word
VALID = PRESENT | REASON  # a valid row has PRESENT alone of these
GROUP = 64  # rows that `count_flags` looks at

COARSE = 32  # all float32 from 2**-61 to 2**19 are within, and 0
FINE = COARSE + 52
LIMIT = 2.0 ** (51 - COARSE)
ROUND_COARSE = 1.5 * 2.0 ** (52 - COARSE)
ROUND_FINE = 1.5 * 2.0 ** (52 - FINE)
# What is too small for that is taken times a power of two: float32 down to the last, float64 from
# 2**-83 to 2**-32.
SMALL_32 = 66
SMALL_64 = 51
BITS_COARSE = int(np.float64(ROUND_COARSE).view(np.int64))
BITS_FINE = int(np.float64(ROUND_FINE).view(np.int64))


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


@kernel  # called once a tile: inlined three times, it took seconds to compile
def add_column(
    x: Any, flags: Any, at: Any, rows: Any, bit: Any, limbs: Any, without: Any, with_bit: Any
) -> Any:  # fmt: skip
    """Add a column's finite numbers in valid rows from `at` to one of two sums, by a bit of flags.

    Returns how many are not finite, which NaN is not either.
    """
    coarse, fine, coarse_bit, fine_bit, odd = column_sums(x, flags, at, rows, bit)
    add_window(limbs, with_bit, coarse_bit, fine_bit, 0)
    add_window(limbs, without, coarse - coarse_bit, fine - fine_bit, 0)
    unbounded = np.int64(0)
    if odd > 0:
        shift = SMALL_32 if limbs.shape[1] == LIMBS_32 else SMALL_64
        scale = as_float(np.int64((1023 + shift) << 52))
        coarse, fine, coarse_bit, fine_bit, unbounded, odd = column_sums_small(
            x, flags, at, rows, bit, scale
        )
        add_window(limbs, with_bit, coarse_bit, fine_bit, shift)
        add_window(limbs, without, coarse - coarse_bit, fine - fine_bit, shift)
        if odd > 0:
            for i in range(rows):
                d = np.float64(x[at + i])
                wanted = (flags[at + i] & VALID == PRESENT) & (abs(d) < np.inf)
                if wanted and not split(d)[2] and not split(d * scale)[2]:
                    add(limbs, with_bit if flags[at + i] & bit != 0 else without, x[at + i], 1)
    return unbounded


@inner()
def column_sums(x: Any, flags: Any, at: Any, rows: Any, bit: Any) -> Any:
    """Add up a column (n,) where rows are valid, from row `at`.

    Returns coarse and fine totals of these rows, coarse and fine totals of those among them that
    have `bit`, and how many rows are in no total because `split` does not hold them whole.
    """
    coarse = fine = coarse_bit = fine_bit = odd = np.int64(0)
    for i in range(rows):
        flag = flags[at + i]
        d = np.float64(x[at + i]) if flag & VALID == PRESENT else 0.0
        a, b, whole = split(d)
        a = a if whole else 0
        b = b if whole else 0
        odd += 0 if whole else 1
        coarse += a
        fine += b
        coarse_bit += a if flag & bit != 0 else 0
        fine_bit += b if flag & bit != 0 else 0
    return coarse, fine, coarse_bit, fine_bit, odd


@inner()
def column_sums_small(x: Any, flags: Any, at: Any, rows: Any, bit: Any, scale: Any) -> Any:
    """Add up what `column_sums` left, times a power of two.

    Returns the same totals, how many numbers are not finite, and how many are still in no total.
    """
    coarse = fine = coarse_bit = fine_bit = unbounded = odd = np.int64(0)
    for i in range(rows):
        flag = flags[at + i]
        d = np.float64(x[at + i]) if flag & VALID == PRESENT else 0.0
        _, _, done = split(d)
        finite = abs(d) < np.inf
        left = finite & (not done)
        a, b, whole = split(d * scale)
        a = a if left & whole else 0
        b = b if left & whole else 0
        unbounded += 0 if finite else 1
        odd += 1 if left & (not whole) else 0
        coarse += a
        fine += b
        coarse_bit += a if flag & bit != 0 else 0
        fine_bit += b if flag & bit != 0 else 0
    return coarse, fine, coarse_bit, fine_bit, unbounded, odd


@intrinsic
def count_flags(typing_context: Any, flags: Any, at: Any, mask: Any, wanted: Any) -> Any:
    """Count the rows with flags & mask == wanted among GROUP from row `at`: compare, popcount."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        vector = ir.VectorType(ir.IntType(8), GROUP)
        every = ir.Constant(ir.VectorType(ir.IntType(32), GROUP), [0] * GROUP)
        zero = ir.Constant(ir.IntType(32), 0)

        def splat(x: Any) -> Any:
            byte = builder.trunc(x, ir.IntType(8))
            first = builder.insert_element(ir.Constant(vector, ir.Undefined), byte, zero)
            return builder.shuffle_vector(first, first, every)

        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        place = builder.bitcast(builder.gep(data, [args[1]]), vector.as_pointer())
        masked = builder.and_(builder.load(place, align=1), splat(args[2]))
        equal = builder.icmp_unsigned("==", masked, splat(args[3]))
        return builder.ctpop(builder.bitcast(equal, ir.IntType(GROUP)))

    return types.int64(flags, at, types.int64, types.int64), generate


@inner()
def count_rows(flags: Any, at: Any, rows: Any, mask: Any, wanted: Any) -> Any:
    """Count the rows with flags & mask == wanted among `rows` rows from row `at`."""
    total = np.int64(0)
    whole = rows // np.uint64(GROUP) * np.uint64(GROUP)
    for i in range(np.uint64(0), whole, np.uint64(GROUP)):
        total += count_flags(flags, at + i, mask, wanted)
    for i in range(whole, rows):
        total += flags[at + i] & mask == wanted
    return total

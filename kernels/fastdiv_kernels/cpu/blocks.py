"""Rows into columns and back, and one number for many, by loads and stores of whole vectors.

LLVM finds neither by itself. Turning rows into columns by scalar loads and stores takes 0.7 ns a
number, by blocks 0.07.
"""

from typing import Any

import numpy as np
from llvmlite import ir

from fastdiv_kernels.cpu.jit import inner, intrinsic, types
from fastdiv_kernels.cpu.lanes import I16, I64, Lanes, pointer

ZERO = ir.Constant(ir.IntType(32), 0)
SIDE = 8  # of a block: eight AVX registers, and half of those that NEON has
WIDTH = 16  # numbers that one number is written for at once
LOWEST_WORD = 0xE564  # -1380 in half precision
MINUS_ZERO = 0x8000
COLUMNS = (0, 4, 2, 6, 1, 5, 3, 7)  # in the order in which interleaving gives them


@inner()
def transpose(source: Any, rows: Any, columns: Any, stride: Any, to: Any, to_stride: Any) -> None:
    """Write row i, column j of `source` to row j, column i of `to`; both flat, float32.

    Whole blocks are read and written: both arrays must have room for `rows` and `columns` up to
    the next multiples of SIDE. Rows of `to` may follow one another closer than that: what spills
    over into the next row is overwritten by that row itself, because blocks go from right to left.
    """
    last = (rows - 1) // SIDE * SIDE
    for j in range(0, columns, SIDE):
        for i in range(last, -1, -SIDE):
            transpose_block(
                source, np.uint64(i * stride + j), np.uint64(stride),
                to, np.uint64(j * to_stride + i), np.uint64(to_stride),
            )  # fmt: skip


@intrinsic
def transpose_block(
    typing_context: Any, source: Any, at: Any, stride: Any, to: Any, to_at: Any, to_stride: Any
) -> Any:
    """Transpose a block that begins at source[at] into one at to[to_at]."""
    vector = ir.VectorType(ir.FloatType(), SIDE)
    columns = range(SIDE)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        def row(array: int, k: int) -> Any:
            data = context.make_array(signature.args[array])(context, builder, args[array]).data
            step = builder.mul(args[array + 2], ir.Constant(ir.IntType(64), k))
            place = builder.gep(data, [builder.add(args[array + 1], step)])
            return builder.bitcast(place, vector.as_pointer())

        rows = [builder.load(row(0, k), align=4) for k in columns]
        for distance in (1, 2, 4):  # exchange off-diagonal quarters, ever larger
            pairs = [(k, k | distance) for k in columns if not k & distance]
            first = [j if not j & distance else SIDE + j - distance for j in columns]
            second = [j + distance if not j & distance else SIDE + j for j in columns]
            for k, other in pairs:
                a, b = rows[k], rows[other]
                for which, lanes in ((k, first), (other, second)):
                    mask = ir.Constant(ir.VectorType(ir.IntType(32), SIDE), lanes)
                    rows[which] = builder.shuffle_vector(a, b, mask)
        for k in columns:
            builder.store(rows[k], row(3, k), align=4)
        return context.get_dummy_value()

    return types.void(source, at, stride, to, to_at, to_stride), generate


@intrinsic
def fill(typing_context: Any, to: Any, at: Any, x: Any) -> Any:
    """Write x to to[at] and the WIDTH - 1 places after it."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        vector = ir.VectorType(args[2].type, WIDTH)
        first = builder.insert_element(ir.Constant(vector, ir.Undefined), args[2], ZERO)
        every = ir.Constant(ir.VectorType(ir.IntType(32), WIDTH), [0] * WIDTH)
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        place = builder.bitcast(builder.gep(data, [args[1]]), vector.as_pointer())
        builder.store(builder.shuffle_vector(first, first, every), place, align=4)
        return context.get_dummy_value()

    return types.void(to, at, x), generate


@intrinsic
def columns_of_differences(
    typing_context: Any, values: Any, at: Any, stride: Any, first: Any, x: Any
) -> Any:
    """Write columns `first` and the next SIDE - 1 of WIDTH rows of words to x, as floats.

    The rows begin at values[at], half precision of any alignment; x is flat (columns, WIDTH). No
    number is written that is below LOWEST_WORD, and -0 for what is above 0, whatever is NaN.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        lanes = Lanes(builder, WIDTH)
        start = builder.add(args[1], args[3])

        def row(i: int) -> Any:
            place = builder.add(start, builder.mul(args[2], ir.Constant(I64, i)))
            return lanes.load(pointer(context, builder, signature, args, 0, place), 1, SIDE)

        def zipped(a: Any, b: Any, size: int) -> list[Any]:
            """Interleave numbers within each 128 bits: the first halves, then the second."""
            kind = ir.VectorType(ir.IntType(size), WIDTH * 16 // size)
            a, b = builder.bitcast(a, kind), builder.bitcast(b, kind)
            each = 128 // size
            return [
                lanes.shuffle(a, b, [
                    lane + half * each // 2 + i + which * kind.count
                    for lane in range(0, kind.count, each) for i in range(each // 2)
                    for which in range(2)
                ])
                for half in range(2)
            ]  # fmt: skip

        # Either 128 bits are of row k, or k + SIDE; then of two rows, of four, of eight: columns.
        turned = [lanes.shuffle(row(k), row(k + SIDE), range(WIDTH)) for k in range(SIDE)]
        for size in (16, 32, 64):
            pairs = zip(turned[::2], turned[1::2], strict=True)
            halves = [zipped(a, b, size) for a, b in pairs]
            turned = [half[which] for which in range(2) for half in halves]
        for k, words in enumerate(turned):
            # As whole numbers, those below 0 are ordered by how far they are from it.
            words = builder.bitcast(words, ir.VectorType(I16, WIDTH))
            for order, bound in ((">", MINUS_ZERO), ("<", LOWEST_WORD)):
                bounds = lanes.every(bound - (1 << 16), I16)
                inside = builder.icmp_unsigned(order, words, bounds)
                words = builder.select(inside, words, bounds)
            column = builder.add(args[3], ir.Constant(I64, COLUMNS[k]))
            to = builder.mul(column, ir.Constant(I64, WIDTH))
            number = lanes.from_halves(words)
            lanes.store(number, pointer(context, builder, signature, args, 4, to), 4)
        return context.get_dummy_value()

    return types.void(values, at, stride, first, x), generate

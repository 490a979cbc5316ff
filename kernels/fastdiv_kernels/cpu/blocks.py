"""Rows into columns and back, and one number for many, by loads and stores of whole vectors.

LLVM finds neither by itself. Turning rows into columns by scalar loads and stores takes 0.7 ns a
number, by blocks 0.07.
"""

from typing import Any

import numpy as np
from llvmlite import ir

from fastdiv_kernels.cpu.jit import inner, intrinsic, types
from fastdiv_kernels.cpu.lanes import I16, I32, I64, Lanes, pointer

ZERO = ir.Constant(ir.IntType(32), 0)
SIDE = 8  # of a block: eight AVX registers, and half of those that NEON has
WIDTH = 16  # numbers that one number is written for at once


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
def columns_of_halves(
    typing_context: Any, values: Any, at: Any, stride: Any, first: Any, lowest: Any, highest: Any,
    x: Any,
) -> Any:  # fmt: skip
    """Write columns `first` and the next SIDE - 1 of WIDTH rows of words to x, as floats.

    The rows begin at values[at], half precision of any alignment; x is flat (columns, WIDTH). No
    number below `lowest` is written, for NaN neither, and none above `highest`.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        lanes = Lanes(builder, WIDTH)
        least, most = lanes.spread(args[4]), lanes.spread(args[5])
        start = builder.add(args[1], args[3])

        def row(i: int) -> Any:
            place = builder.add(start, builder.mul(args[2], ir.Constant(I64, i)))
            return lanes.load(pointer(context, builder, signature, args, 0, place), 1, SIDE)

        def joined(parts: list[Any]) -> Any:
            while len(parts) > 1:
                size = range(2 * parts[0].type.count)
                parts = [
                    lanes.shuffle(a, b, size) for a, b in zip(parts[::2], parts[1::2], strict=True)
                ]
            return parts[0]

        def zipped(a: Any, b: Any, size: int) -> list[Any]:
            """Interleave numbers within each 128 bits: the first halves, then the second."""
            count = a.type.count
            each = 128 // size
            return [
                lanes.shuffle(a, b, [
                    lane + half * each // 2 + i + which * count
                    for lane in range(0, count, each) for i in range(each // 2)
                    for which in range(2)
                ])
                for half in range(2)
            ]  # fmt: skip

        # Each 128 bits of z[q] are rows q, q + 4, q + 8 and q + 12 ...
        z = [joined([row(i) for i in range(q, WIDTH, 4)]) for q in range(4)]
        pairs = [zipped(z[0], z[1], 16), zipped(z[2], z[3], 16)]
        wide = ir.VectorType(I32, WIDTH)
        for half in range(2):
            a, b = (builder.bitcast(pair[half], wide) for pair in pairs)
            for quarter, turned in enumerate(zipped(a, b, 32)):
                # ... and here two columns of four rows.
                quads = builder.bitcast(turned, ir.VectorType(I64, WIDTH // 2))
                for odd in range(2):
                    words = lanes.shuffle(quads, quads, range(odd, WIDTH // 2, 2))
                    words = builder.bitcast(words, ir.VectorType(I16, WIDTH))
                    number = lanes.at_least(lanes.from_halves(words), least)
                    above = builder.fcmp_ordered(">", number, most)
                    number = builder.select(above, most, number)
                    column = 4 * half + 2 * quarter + odd
                    to = builder.mul(
                        builder.add(args[3], ir.Constant(I64, column)), ir.Constant(I64, WIDTH)
                    )
                    place = pointer(context, builder, signature, args, 6, to)
                    lanes.store(number, place, 4)
        return context.get_dummy_value()

    return types.void(values, at, stride, first, lowest, highest, x), generate

"""Rows rows at once, as instructions given to an LLVM builder: columns, flags, exact integers.

Vectors have eight lanes whatever the processor: 64-bit lanes are one register where there is
AVX-512, two with AVX2. Masks are integers of a lane's width, all bits or none, made by arithmetic:
where comparisons choose among what is wider, LLVM converts their single bits in pieces.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from llvmlite import ir

from fastdiv_kernels.contract import PRESENT, REASON
from fastdiv_kernels.cpu.jit import cgutils, inner, overload, types

ROWS = 8
EIGHT = np.uint64(ROWS)
I8, I32, I64 = ir.IntType(8), ir.IntType(32), ir.IntType(64)
FLOAT, DOUBLE = ir.FloatType(), ir.DoubleType()
VALID = PRESENT | REASON  # a valid row has PRESENT alone of these

COARSE = 32  # numbers are split into multiples of 2**-COARSE and of 2**-FINE; see `windows`
FINE = COARSE + 52
LIMIT = 2.0 ** (51 - COARSE)
LEAST = 2.0 ** (23 - FINE)  # float32 from here to LIMIT are within, and 0
ROUND_COARSE = 1.5 * 2.0 ** (52 - COARSE)
ROUND_FINE = 1.5 * 2.0 ** (52 - FINE)
MAGNITUDE = 0x7FFFFFFF  # bits of a float32 without its sign
INFINITY = 0x7F800000


def bits_32(x: float) -> int:
    """Return the bits of a float32."""
    return int(np.float32(x).view(np.int32))


def bits_64(x: float) -> int:
    """Return the bits of a float64."""
    return int(np.float64(x).view(np.int64))


def data_of(context: Any, builder: Any, signature: Any, args: Any) -> list[Any]:
    """Return arguments, of arrays where their data lie."""
    found = []
    for kind, x in zip(signature.args, args, strict=True):
        if not isinstance(kind, types.Array):
            found.append(x)
        elif kind.layout == "C":
            found.append(context.make_array(kind)(context, builder, x).data)
        else:
            raise TypeError(f"an array in C order is needed, not {kind}")
    return found


def in_order(x: Any) -> Any:
    """Return an array in C order, which most are."""
    raise NotImplementedError  # kernels get the overload below


@overload(in_order)
def _in_order(x: Any) -> Any:
    def same(x: Any) -> Any:
        return x

    def copied(x: Any) -> Any:
        return np.ascontiguousarray(x)

    return same if x.layout == "C" else copied


@inner()
def whole_eights(rows: Any) -> Any:
    """Return a number of rows, rounded up."""
    return (rows + EIGHT - np.uint64(1)) // EIGHT * EIGHT


@inner()
def padded(x: Any, at: Any, rows: Any) -> Any:
    """Return a copy of some rows of an array, and zeros up to whole eights; it is in C order."""
    room = np.zeros(whole_eights(rows), x.dtype)
    for i in range(rows):
        room[i] = x[at + i]
    return room


class Rows:
    """Instructions on vectors of eight rows."""

    def __init__(self, builder: Any) -> None:
        self.builder = builder

    def vector(self, element: Any) -> Any:
        """Return the type of vectors of an element."""
        return ir.VectorType(element, ROWS)

    def every(self, element: Any, x: Any) -> Any:
        """Return a constant in all lanes."""
        return ir.Constant(self.vector(element), [x] * ROWS)

    def splat(self, x: Any) -> Any:
        """Return a value in all lanes."""
        none = ir.Constant(self.vector(x.type), ir.Undefined)
        first = self.builder.insert_element(none, x, ir.Constant(I32, 0))
        return self.builder.shuffle_vector(first, none, self.every(I32, 0))

    def load(self, data: Any, at: Any) -> Any:
        """Load elements of an array's data from `at` on; they may lie anywhere."""
        pointer = self.builder.gep(data, [at])
        vector = self.vector(data.type.pointee).as_pointer()
        return self.builder.load(self.builder.bitcast(pointer, vector), align=1)

    def store(self, x: Any, data: Any, at: Any) -> None:
        """Store a vector to an array's data from `at` on."""
        pointer = self.builder.bitcast(self.builder.gep(data, [at]), x.type.as_pointer())
        self.builder.store(x, pointer, align=1)

    def flags(self, data: Any, at: Any) -> Any:
        """Load flags, one to a lane of 32 bits."""
        return self.builder.zext(self.load(data, at), self.vector(I32))

    def below(self, x: Any, limit: int) -> Any:
        """Return which integers, 0 or more, are below a number: a mask.

        From a comparison's single bits LLVM would make masks of 16 bits and of other widths.
        """
        builder = self.builder
        return builder.ashr(builder.sub(x, self.every(I32, limit)), self.every(I32, 31))

    def mask(self, condition: Any) -> Any:
        """Return a condition as a mask of 32 bits."""
        return self.builder.sext(condition, self.vector(I32))

    def wide(self, mask: Any) -> Any:
        """Return a mask as one of 64 bits."""
        if mask.type == self.vector(I64):
            return mask
        return self.builder.sext(mask, self.vector(I64))

    def valid(self, flags: Any) -> Any:
        """Return which rows are valid."""
        own = self.builder.and_(flags, self.every(I32, VALID))
        return self.below(self.builder.xor(own, self.every(I32, PRESENT)), 1)

    def has(self, flags: Any, bit: int) -> Any:
        """Return which flags have a bit, of which its number is given."""
        own = self.builder.shl(flags, self.every(I32, 31 - bit))
        return self.builder.ashr(own, self.every(I32, 31))

    def ints(self, x: Any) -> Any:
        """Return the bits of floats or doubles."""
        element = I32 if x.type.element == FLOAT else I64
        return self.builder.bitcast(x, self.vector(element))

    def kept(self, x: Any, mask: Any) -> Any:
        """Return floats or doubles where a mask of their width is set, 0 elsewhere."""
        return self.builder.bitcast(self.builder.and_(self.ints(x), mask), x.type)

    def double(self, x: Any) -> Any:
        """Return numbers as doubles."""
        if x.type.element == DOUBLE:
            return x
        return self.builder.fpext(x, self.vector(DOUBLE))

    def between(self, x: Any, least: int, limit: int) -> Any:
        """Return which integers, 0 or more, are at least one number and below another."""
        return self.builder.and_(self.below(x, limit), self.builder.not_(self.below(x, least)))

    def split(self, x: Any) -> tuple[Any, Any, Any]:
        """Return doubles rounded as `windows.split` does: shifted, shifted rest, and the rest."""
        builder = self.builder
        coarse, fine = self.every(DOUBLE, ROUND_COARSE), self.every(DOUBLE, ROUND_FINE)
        shifted = builder.fadd(x, coarse)
        rest = builder.fsub(x, builder.fsub(shifted, coarse))
        return shifted, builder.fadd(rest, fine), rest

    def whole(self, x: Any, shifted_rest: Any, rest: Any) -> Any:
        """Return where `split` holds all of x: a mask of 64 bits."""
        builder = self.builder
        back = builder.fsub(shifted_rest, self.every(DOUBLE, ROUND_FINE))
        exact = builder.fcmp_ordered("==", back, rest)
        near = builder.fcmp_ordered("<", self.size(x), self.every(DOUBLE, LIMIT))
        return self.wide(builder.and_(exact, near))

    def size(self, x: Any) -> Any:
        """Return doubles without their signs."""
        return self.kept(x, self.every(I64, (1 << 63) - 1))

    def equal(self, a: Any, b: Any) -> Any:
        """Return which integers of 32 bits are equal."""
        return self.mask(self.builder.icmp_signed("==", a, b))

    def is_zero(self, x: Any) -> Any:
        """Return which integers of 64 bits, 0 or more, are 0: a mask of as many; see `below`."""
        return self.builder.ashr(self.builder.sub(x, self.every(I64, 1)), self.every(I64, 63))

    def blend(self, mask: Any, x: Any, other: Any) -> Any:
        """Return one vector where a mask of 64 bits is set, another elsewhere."""
        negative = self.builder.icmp_signed("<", mask, self.every(I64, 0))
        return self.builder.select(negative, x, other)

    def chosen(self, mask: Any, x: Any, other: Any) -> Any:
        """Return one vector of integers where a mask of their width is set, another elsewhere."""
        difference = self.builder.xor(x, other)
        return self.builder.xor(self.builder.and_(difference, mask), other)

    def sum(self, x: Any) -> Any:
        """Return the sum over the lanes of integers."""
        return self._over_lanes("add", x)

    def any(self, x: Any) -> Any:
        """Return all bits that are set in any lane of integers."""
        return self._over_lanes("or", x)

    def _over_lanes(self, operation: str, x: Any) -> Any:
        element = x.type.element
        form = ir.FunctionType(element, [x.type])
        name = f"llvm.vector.reduce.{operation}.v{ROWS}i{element.width}"
        function = cgutils.get_or_insert_function(self.builder.module, form, name)
        return self.builder.call(function, [x])

    def places(self, count: int, element: Any = I64) -> list[Any]:
        """Return places for vectors that a loop carries, all 0; LLVM makes registers of them."""
        zero = self.every(element, 0)
        places = [cgutils.alloca_once(self.builder, zero.type) for _ in range(count)]
        for place in places:
            self.builder.store(zero, place)
        return places

    def add(self, places: Sequence[Any], values: Sequence[Any]) -> None:
        """Add vectors to what places hold."""
        for place, x in zip(places, values, strict=True):
            self.builder.store(self.builder.add(self.builder.load(place), x), place)

    def join(self, place: Any, x: Any) -> None:
        """Set in a place all bits that are set in a vector."""
        self.builder.store(self.builder.or_(self.builder.load(place), x), place)

    @contextmanager
    def each(self, first: Any, rows: Any) -> Iterator[tuple[Any, Any]]:
        """Emit a loop over rows, whole eights: yields how many were before, and that counted on.

        It is not unrolled: what a loop carries takes all registers that there are.
        """
        builder = self.builder
        before_loop = builder.basic_block
        head, body, end = (builder.append_basic_block(name) for name in ("head", "body", "end"))
        builder.branch(head)
        builder.position_at_end(head)
        before = builder.phi(I64)
        before.add_incoming(ir.Constant(I64, 0), before_loop)
        builder.cbranch(builder.icmp_unsigned("<", before, rows), body, end)
        builder.position_at_end(body)
        yield before, builder.add(first, before)
        before.add_incoming(builder.add(before, ir.Constant(I64, ROWS)), builder.basic_block)
        builder.branch(head).set_metadata("llvm.loop", self._not_unrolled())
        builder.position_at_end(end)

    def _not_unrolled(self) -> Any:
        """Return what tells LLVM so of one loop: it names itself, so that it is no other's."""
        module = self.builder.module
        disable = module.add_metadata([ir.MetaDataString(module, "llvm.loop.unroll.disable")])
        loop = module.add_metadata([disable, ir.Constant(I64, len(module.metadata))])
        loop.operands = (loop, disable)
        return loop

"""Vectors of LLVM, written out: what a pass over a row does with a few numbers at a time.

LLVM vectorises loops by itself, but by half of the registers' width where a processor is known to
clock down (measured with `exp`: half the speed), never a maximum that passes over NaN, and never
both of two sums, of which one is masked. So the passes of `row_passes` are written in vectors, as
wide as registers: twice as wide, and split by LLVM, they need more registers than AVX2 has.
"""

import os
from collections.abc import Callable, Sequence
from typing import Any

import llvmlite.binding as llvm
from llvmlite import ir

from fastdiv_kernels.cpu.arithmetic import IN_HARDWARE
from fastdiv_kernels.cpu.jit import types

# Whether an operation can be told which lanes it is for, and registers have 512 bits.
MASKS = (
    not os.environ.get("NUMBA_CPU_NAME")  # Numba compiles for another machine
    and "NUMBA_CPU_FEATURES" not in os.environ
    and bool(llvm.get_host_cpu_features().get("avx512f"))
)
BITS = 512 if MASKS else 256  # of a vector of float32 or float64
LOCALITY = 2  # of what is asked for: the second cache
LINE = 64  # bytes of a line of cache
INT32, INT64 = ir.IntType(32), ir.IntType(64)

LOG2E = 1.4426950408889634
LN2_64 = (0.693145751953125, 1.42860682030941723212e-6)  # the first of 21 bits: n times it is exact
LN2_32 = (0.6931471824645996,)  # too large by 1.9e-9, for n down to -126 by less than 2.4e-7 in all
# Coefficients of e**r for |r| <= ln(2) / 2, from the highest power to the second; those of r and
# 1 are 1. Of float32 the best in relative error, which is 1.06e-7; of float64 see `exp_64`.
E_32 = (0.008312501013278961, 0.041890330612659454, 0.16667115688323975, 0.499992311000824)
E_64 = (
    2.51052063739570111e-8, 2.76263572414472229e-7, 2.75572554257464343e-6,
    0.0000248015043046997, 0.00019841269874800492, 0.00138888889324885982,
    0.00833333333332614088, 0.0416666666665731426, 0.16666666666666671, 0.500000000000000562,
)  # fmt: skip


class Lanes:
    """Writes operations on vectors of one real type."""

    def __init__(self, builder: Any, stored: Any) -> None:
        """Write vectors of what predictions of a type stand for; see `arithmetic.value`."""
        self.builder, self.stored = builder, stored
        self.double = stored == types.float64
        self.real = ir.DoubleType() if self.double else ir.FloatType()
        self.integer = INT64 if self.double else INT32
        self.bytes = stored.bitwidth // 8
        self.real_bytes = 8 if self.double else 4
        self.width = BITS // (64 if self.double else 32)
        self.vector = ir.VectorType(self.real, self.width)
        self.integers = ir.VectorType(self.integer, self.width)
        self.name = f"v{self.width}f{64 if self.double else 32}"

    def constant(self, x: float) -> Any:
        """Return a number in all lanes."""
        return ir.Constant(self.vector, [x] * self.width)

    def whole(self, x: int) -> Any:
        """Return an integer in all lanes."""
        return ir.Constant(self.integers, [x] * self.width)

    def indices(self) -> Any:
        """Return the number of each lane."""
        return ir.Constant(self.integers, list(range(self.width)))

    def spread(self, x: Any) -> Any:
        """Write a number into every lane."""
        form = ir.VectorType(x.type, self.width)
        first = self.builder.insert_element(ir.Constant(form, ir.Undefined), x, INT32(0))
        every = ir.Constant(ir.VectorType(INT32, self.width), [0] * self.width)
        return self.builder.shuffle_vector(first, first, every)

    def address(self, data: Any, at: Any) -> Any:
        """Return where prediction `at` is, as i8*; `data` may be aligned to nothing."""
        data = self.builder.bitcast(data, ir.IntType(8).as_pointer())
        return self.builder.gep(data, [self.builder.mul(at, INT64(self.bytes))])

    def load(self, place: Any, number: int = 0) -> Any:
        """Load the vector that stands `number` vectors after a place, as real numbers."""
        b = self.builder
        place = b.gep(place, [INT64(number * self.width * self.bytes)])
        of_int = {2: ir.IntType(16), 4: INT32, 8: INT64}[self.bytes]
        stored = self.vector if self.bytes > 2 else ir.VectorType(of_int, self.width)
        words = b.load(b.bitcast(place, stored.as_pointer()), align=1)
        if self.bytes > 2:
            return words
        if self.stored == types.int16:  # bfloat16
            wide = b.shl(b.zext(words, self.integers), self.whole(16))
            return b.bitcast(wide, self.vector)
        if IN_HARDWARE:
            return b.fpext(b.bitcast(words, ir.VectorType(ir.HalfType(), self.width)), self.vector)
        return self._from_half(b.zext(words, self.integers))

    def store(self, x: Any, place: Any, number: int = 0) -> None:
        """Store the vector that stands `number` vectors after a place among real numbers."""
        b = self.builder
        place = b.gep(b.bitcast(place, self.real.as_pointer()), [INT64(number * self.width)])
        b.store(x, b.bitcast(place, self.vector.as_pointer()), align=self.real_bytes)

    def _from_half(self, wide: Any) -> Any:
        """Convert by arithmetic, as `half_to_float_by_arithmetic` does."""
        b = self.builder
        magnitude = b.shl(b.and_(wide, self.whole(0x7FFF)), self.whole(13))
        scaled = b.fmul(b.bitcast(magnitude, self.vector), self.constant(2.0**112))
        bits = b.bitcast(scaled, self.integers)
        exponent = b.and_(wide, self.whole(0x7C00))
        infinite = b.icmp_signed("==", exponent, self.whole(0x7C00))
        bits = b.select(infinite, b.or_(bits, self.whole(0x7F800000)), bits)
        sign = b.shl(b.and_(wide, self.whole(0x8000)), self.whole(16))
        return b.bitcast(b.or_(bits, sign), self.vector)

    def prefetch(self, place: Any, distance: Any) -> None:
        """Ask for the line of cache that is `distance` bytes after a place, wherever that is."""
        b = self.builder
        form = ir.FunctionType(ir.VoidType(), [ir.IntType(8).as_pointer(), INT32, INT32, INT32])
        ask = _declared(b, "llvm.prefetch.p0", form)
        b.call(ask, [b.gep(place, [distance]), INT32(0), INT32(LOCALITY), INT32(1)])

    def fused(self, a: Any, x: Any, c: Any) -> Any:
        """Return a * x + c, rounded once where the processor can."""
        form = ir.FunctionType(self.vector, [self.vector] * 3)
        return self.builder.call(
            _declared(self.builder, f"llvm.fmuladd.{self.name}", form), (a, x, c)
        )

    def larger(self, x: Any, than: Any) -> Any:
        """Return the larger; `than` where x is NaN."""
        return self.builder.select(self.builder.fcmp_ordered(">", x, than), x, than)

    def smaller(self, x: Any, than: Any) -> Any:
        """Return the smaller of two numbers, the second where the first is NaN."""
        return self.builder.select(self.builder.fcmp_ordered("<", x, than), x, than)

    def add(self, a: Any, b: Any) -> Any:
        """Return the sum."""
        return self.builder.fadd(a, b)

    def least(self, a: Any, b: Any) -> Any:
        """Return the smaller of two integers."""
        return self.builder.select(self.builder.icmp_signed("<", a, b), a, b)

    def next_above(self, x: Any) -> Any:
        """Return the least number above a number (no vector) that is not NaN or inf."""
        b, one = self.builder, self.integer(1)
        bits = b.bitcast(x, self.integer)
        away = b.select(
            b.icmp_signed("<", bits, self.integer(0)), b.sub(bits, one), b.add(bits, one)
        )
        is_zero = b.fcmp_ordered("==", x, ir.Constant(self.real, 0.0))
        return b.bitcast(b.select(is_zero, one, away), self.real)

    def fold(self, vector: Any, operation: Callable[[Any, Any], Any]) -> Any:
        """Make one number of a vector, halving it again and again."""
        b, width = self.builder, self.width
        while width > 1:
            width //= 2
            low, high = (
                ir.Constant(ir.VectorType(INT32, width), list(range(k, k + width)))
                for k in (0, width)
            )
            vector = operation(
                b.shuffle_vector(vector, vector, low), b.shuffle_vector(vector, vector, high)
            )
        return b.extract_element(vector, INT32(0))

    def none(self) -> Any:
        """Return where counts begin: of floats under masks, which adds to integers twice."""
        return self.constant(0.0) if MASKS else self.whole(0)

    def counted(self, n: Any, also: Any) -> Any:
        """Return counts, one more in some lanes."""
        b = self.builder
        if MASKS:
            return b.select(also, b.fadd(n, self.constant(1.0)), n)
        return b.sub(n, b.sext(also, self.integers))

    def sum_of_counts(self, n: Any) -> Any:
        """Return the sum of counts, as an integer of 64 bits."""
        b = self.builder
        if MASKS:
            return b.fptosi(self.fold(n, b.fadd), INT64)
        total = self.fold(n, b.add)
        return total if self.integer == INT64 else b.sext(total, INT64)

    def exp(self, d: Any) -> Any:
        """Return e**d for d <= 0, or NaN: 0 below the smallest normal number.

        The sum with `rounds` is the nearest integer and the bias of exponents, in the last bits.
        Multiplied, not added to the exponent, the scale leaves NaN what it is.
        """
        b = self.builder
        bias, bits, lowest = (1023, 52, -709.0) if self.double else (127, 23, -87.9)
        d = self.larger(self.constant(lowest), d)
        rounds = self.constant(1.5 * 2.0**bits + bias)
        t = self.fused(d, self.constant(LOG2E), rounds)
        n = b.fsub(t, rounds)
        r = d
        for part in LN2_64 if self.double else LN2_32:
            r = self.fused(n, self.constant(-part), r)
        p = self._polynomial(r, (*(E_64 if self.double else E_32), 1.0, 1.0))
        scale = b.shl(b.bitcast(t, self.integers), self.whole(bits))
        return b.fmul(p, b.bitcast(scale, self.vector))

    def _polynomial(self, r: Any, coefficients: Sequence[float]) -> Any:
        p = self.constant(coefficients[0])
        for c in coefficients[1:]:
            p = self.fused(p, r, self.constant(c))
        return p


def _declared(builder: Any, name: str, form: Any) -> Any:
    """Return a function of LLVM's by its full name, which llvmlite cannot make of vectors."""
    known = builder.module.globals.get(name)
    return known if known is not None else ir.Function(builder.module, form, name)

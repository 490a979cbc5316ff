"""Vectors of numbers in registers: what intrinsics write their arithmetic with.

LLVM's own vectoriser takes half of the register width that many processors have, and keeps sums of
a loop in memory. Here vectors have the width that is asked for, and a sum is one register.
"""

import os
import platform
from collections.abc import Callable, Sequence
from typing import Any

import llvmlite.binding as llvm
import numpy as np
from llvmlite import ir

from fastdiv_kernels.cpu.arithmetic import IN_HARDWARE
from fastdiv_kernels.cpu.jit import cgutils, inner, intrinsic, types

FLOAT = ir.FloatType()
HALF = ir.HalfType()
I16 = ir.IntType(16)
I32 = ir.IntType(32)
I64 = ir.IntType(64)
ALIGNED = 64  # bytes: what vectors of scratch begin at a multiple of

LN2 = np.float32(0.6931471805599453)
SQRT_HALF_BITS = 0x3F3504F3
MANTISSA = 23  # bits
MANTISSA_BITS = 0x007FFFFF
ONE_BITS = 0x3F800000
ROUND = np.float32(1.5 * 2**23)  # added and taken away, leaves the nearest integer
# (2**r - 1) / r for -1/2 <= r <= 1/2: 2**r to 9e-8 of itself. (ln(1 + f) - f) / f**2 for f from
# sqrt(1/2) - 1 to sqrt(2) - 1: ln(1 + f) to 4e-8. ln(1 + f) / f for the same f, and ln(1 + x) / x
# for 0 <= x <= 1: to 2e-7 of themselves. All from the last power to the first.
EXP2 = (0.0013264723820611835, 0.009671512991189957, 0.05550733581185341, 0.24022242426872253,
        0.6931470036506653)  # fmt: skip
LOG = (-0.1003452850265131, 0.16335641226696612, -0.17326020610563803, 0.19888277707793175,
       -0.249614630602256, 0.33335261394463545, -0.5000058442395869)  # fmt: skip
LN_OF_ONE_MORE = (-0.10106898173330205, 0.1622258432460626, -0.17250830401248024,
                  0.19900165058748812, -0.24969908981987654, 0.33335058956255254,
                  -0.500003651249033, 0.9999999453090905)  # fmt: skip
LOG1P_TO_ONE = (-0.00853921044041967, 0.044089641409499586, -0.10768173127804384,
                0.1774524312846107, -0.2449546362877761, 0.33275479966366767,
                -0.499974054161955, 0.9999998056731105)  # fmt: skip


def _wide() -> bool:
    """Say whether the processor that is compiled for has AVX-512 and its 32 registers."""
    # Numba's settings, read without importing it: it compiles for another machine.
    if os.environ.get("NUMBA_CPU_NAME") or "NUMBA_CPU_FEATURES" in os.environ:
        return False
    features = llvm.get_host_cpu_features()
    return all(bool(features.get(key)) for key in ("avx512f", "avx512dq", "avx512bw", "avx512vl"))


WIDE = _wide()
X86 = platform.machine().lower() in ("x86_64", "amd64")


def pointer(
    context: Any, builder: Any, signature: Any, args: Any, which: int, at: Any, base: Any = None
) -> Any:
    """Return where element `at` (uint64, or an int) of the array `which` of the arguments lies.

    It is counted from element `base` (uint64).
    """
    data = context.make_array(signature.args[which])(context, builder, args[which]).data
    data = data if base is None else builder.gep(data, [base])
    return builder.gep(data, [ir.Constant(I64, at) if isinstance(at, int) else at])


def prefetch(builder: Any, place: Any, level: int = 2) -> None:
    """Have the processor fetch what lies at a place: into its first cache (3) or second (2)."""
    i8 = ir.IntType(8).as_pointer()
    form = ir.FunctionType(ir.VoidType(), [i8, I32, I32, I32])
    function = cgutils.get_or_insert_function(builder.module, form, "llvm.prefetch.p0")
    # Data, to be read.
    builder.call(function, [place, *(ir.Constant(I32, k) for k in (0, level, 1))])


class Lanes:
    """Arithmetic on vectors of `width` lanes, as instructions given to an LLVM builder."""

    def __init__(self, builder: Any, width: int) -> None:
        self.builder = builder
        self.width = width
        self.floats = ir.VectorType(FLOAT, width)
        self.ints = ir.VectorType(I32, width)

    def every(self, x: Any, element: Any = FLOAT) -> Any:
        """Return a constant in all lanes; of floats one that float32 holds."""
        number = int(x) if isinstance(element, ir.IntType) else float(np.float32(x))
        return ir.Constant(ir.VectorType(element, self.width), [number] * self.width)

    def spread(self, scalar: Any) -> Any:
        """Return a scalar in all lanes."""
        vector = ir.VectorType(scalar.type, self.width)
        first = self.builder.insert_element(
            ir.Constant(vector, ir.Undefined), scalar, ir.Constant(I32, 0)
        )
        return self.shuffle(first, first, [0] * self.width)

    def shuffle(self, a: Any, b: Any, lanes: Sequence[int]) -> Any:
        """Return the lanes of a, and of b after them, that are named."""
        mask = ir.Constant(ir.VectorType(I32, len(lanes)), list(lanes))
        return self.builder.shuffle_vector(a, b, mask)

    def load(self, place: Any, align: int, width: int = 0) -> Any:
        """Return the vector that begins at an element."""
        vector = ir.VectorType(place.type.pointee, width or self.width)
        return self.builder.load(self.builder.bitcast(place, vector.as_pointer()), align=align)

    def store(self, x: Any, place: Any, align: int) -> None:
        """Write a vector to where an element is."""
        self.builder.store(x, self.builder.bitcast(place, x.type.as_pointer()), align=align)

    def as_ints(self, x: Any) -> Any:
        """Return the bits of floats."""
        return self.builder.bitcast(x, self.ints)

    def as_floats(self, x: Any) -> Any:
        """Return the floats that bits stand for."""
        return self.builder.bitcast(x, self.floats)

    def multiply_add(self, a: Any, b: Any, c: Any) -> Any:
        """Return a * b + c, rounded once where the processor can."""
        form = ir.FunctionType(a.type, [a.type] * 3)
        name = f"llvm.fmuladd.v{self.width}f32"
        function = cgutils.get_or_insert_function(self.builder.module, form, name)
        return self.builder.call(function, [a, b, c])

    def polynomial(self, x: Any, coefficients: Sequence[float]) -> Any:
        """Return a polynomial by Horner's rule; the last power's coefficient comes first."""
        result = self.every(coefficients[0])
        for coefficient in coefficients[1:]:
            result = self.multiply_add(result, x, self.every(coefficient))
        return result

    def at_least(self, x: Any, lowest: Any) -> Any:
        """Return the larger of x and `lowest`, which also replaces NaN."""
        return self.builder.select(self.builder.fcmp_ordered(">", x, lowest), x, lowest)

    def at_most(self, x: Any, highest: Any) -> Any:
        """Return the smaller of x and `highest`, which also replaces NaN."""
        return self.builder.select(self.builder.fcmp_ordered("<", x, highest), x, highest)

    def exp2(self, x: Any, factor: Any) -> Any:
        """Return 2**(x * factor), to 9e-8, where it is a normal number; 1 exactly of 0."""
        builder = self.builder
        shifted = self.multiply_add(x, self.every(factor), self.every(ROUND))
        n = builder.fsub(shifted, self.every(ROUND))
        r = self.multiply_add(x, self.every(factor), builder.fneg(n))
        p = self.multiply_add(self.polynomial(r, EXP2), r, self.every(1.0))
        # n, the low bits of `shifted`, is added to the exponent.
        exponent = builder.shl(self.as_ints(shifted), self.every(23, I32))
        return self.as_floats(builder.add(self.as_ints(p), exponent))

    def log1p(self, x: Any, one_more: Any) -> Any:
        """Return ln(1 + x) for x >= 0, to 1e-7 of itself, given 1 + x."""
        builder = self.builder
        bits = builder.sub(self.as_ints(one_more), self.every(SQRT_HALF_BITS, I32))
        exponent = builder.ashr(bits, self.every(23, I32))
        mantissa = builder.and_(bits, self.every(MANTISSA_BITS, I32))
        mantissa = self.as_floats(builder.add(mantissa, self.every(SQRT_HALF_BITS, I32)))
        f = builder.fsub(mantissa, self.every(1.0))
        # Below sqrt(2), where digits of x are lost in 1 + x, it is x itself.
        f = builder.select(builder.icmp_signed("==", exponent, self.every(0, I32)), x, f)
        result = self.multiply_add(builder.fmul(f, f), self.polynomial(f, LOG), f)
        return self.multiply_add(builder.sitofp(exponent, self.floats), self.every(LN2), result)

    def mantissa_less_one(self, x: Any) -> tuple[Any, Any]:
        """Return f such that 1 + x is 2**e * (1 + f), for x >= 0, and e times 2**MANTISSA.

        1 + f is from sqrt(1/2) to sqrt(2); where e is 0, f is x itself.
        """
        builder = self.builder
        one_more = builder.fadd(x, self.every(1.0))
        bits = builder.sub(self.as_ints(one_more), self.every(SQRT_HALF_BITS, I32))
        exponent = builder.and_(bits, self.every(~MANTISSA_BITS, I32))
        inverse = self.as_floats(builder.sub(self.every(ONE_BITS, I32), exponent))
        f = self.multiply_add(x, inverse, builder.fsub(inverse, self.every(1.0)))
        return f, exponent

    def log(self, x: Any) -> Any:
        """Return ln x for x >= 0, to 1e-7 of itself; -inf of 0."""
        builder = self.builder
        tiny = builder.fcmp_ordered("<", x, self.every(2.0**-126))
        y = builder.select(tiny, builder.fmul(x, self.every(2.0**23)), x)
        bits = builder.sub(self.as_ints(y), self.every(SQRT_HALF_BITS, I32))
        exponent = builder.sitofp(builder.ashr(bits, self.every(23, I32)), self.floats)
        exponent = builder.fsub(exponent, builder.select(tiny, self.every(23), self.every(0)))
        mantissa = builder.and_(bits, self.every(MANTISSA_BITS, I32))
        mantissa = self.as_floats(builder.add(mantissa, self.every(SQRT_HALF_BITS, I32)))
        f = builder.fsub(mantissa, self.every(1.0))
        result = self.multiply_add(builder.fmul(f, f), self.polynomial(f, LOG), f)
        result = self.multiply_add(exponent, self.every(LN2), result)
        some = builder.fcmp_ordered(">", x, self.every(0.0))
        return builder.select(some, result, self.every(-np.inf))

    def inverses(self, numbers: Sequence[Any], scale: Any) -> list[Any]:
        """Return scale / x of numbers: one division.

        Their product, and what of it the scale is divided by, neither overflows nor underflows.
        """
        builder = self.builder
        before = list(numbers[:1])
        for x in numbers[1:]:
            before.append(builder.fmul(before[-1], x))
        inverse = builder.fdiv(scale, before[-1])
        results = []
        for i in range(len(numbers) - 1, 0, -1):
            results.append(builder.fmul(inverse, before[i - 1]))
            inverse = builder.fmul(inverse, numbers[i])
        return [inverse, *reversed(results)]

    def from_halves(self, words: Any) -> Any:
        """Return the floats that 16-bit words of half precision stand for."""
        builder = self.builder
        if IN_HARDWARE:
            halves = builder.bitcast(words, ir.VectorType(HALF, self.width))
            return builder.fpext(halves, self.floats)
        wide = builder.zext(words, self.ints)
        magnitude = builder.and_(wide, self.every(0x7FFF, I32))
        shifted = self.as_floats(builder.shl(magnitude, self.every(13, I32)))
        x = self.as_ints(builder.fmul(shifted, self.every(2.0**112)))
        finite = builder.icmp_unsigned("<", magnitude, self.every(0x7C00, I32))
        x = builder.select(finite, x, builder.or_(x, self.every(0x7F800000, I32)))
        sign = builder.shl(builder.and_(wide, self.every(0x8000, I32)), self.every(16, I32))
        return self.as_floats(builder.or_(x, sign))

    def to_halves(self, x: Any) -> Any:
        """Round floats of no more than 65504, or infinite, to words of half precision."""
        builder = self.builder
        words = ir.VectorType(I16, self.width)
        if IN_HARDWARE:
            return builder.bitcast(builder.fptrunc(x, ir.VectorType(HALF, self.width)), words)
        bits = self.as_ints(x)
        magnitude = builder.and_(bits, self.every(0x7FFFFFFF, I32))
        odd = builder.and_(builder.lshr(magnitude, self.every(13, I32)), self.every(1, I32))
        rounded = builder.add(builder.add(magnitude, odd), self.every(0xFFF - (112 << 23), I32))
        rounded = builder.lshr(rounded, self.every(13, I32))
        # Of one half, the last bit is the unit of what is subnormal in half precision.
        tiny = builder.fadd(self.as_floats(magnitude), self.every(0.5))
        tiny = builder.sub(self.as_ints(tiny), self.every(0x3F000000, I32))
        is_tiny = builder.icmp_signed("<", magnitude, self.every(113 << 23, I32))
        rounded = builder.select(is_tiny, tiny, rounded)
        finite = builder.icmp_signed("<", magnitude, self.every(0x7F800000, I32))
        rounded = builder.select(finite, rounded, self.every(0x7C00, I32))
        sign = builder.and_(builder.lshr(bits, self.every(16, I32)), self.every(0x8000, I32))
        return builder.trunc(builder.or_(rounded, sign), words)

    def numbers(self, x: Any, stored: Any) -> Any:
        """Return stored predictions as `value` does, given Numba's type of one."""
        if stored == types.uint16:
            return self.from_halves(x)
        if stored == types.int16:
            wide = self.builder.zext(x, self.ints)
            return self.as_floats(self.builder.shl(wide, self.every(16, I32)))
        return x

    def sums(self, vectors: Sequence[Any]) -> list[Any]:
        """Return vectors whose lanes hold the sums over the lanes of as many vectors, in order.

        Pairs of vectors are added as halves of one, until each lane is of another vector.
        """
        builder = self.builder
        distance = 1
        while distance < self.width:
            first = [lane & ~distance if not lane & distance else self.width + (lane & ~distance)
                     for lane in range(self.width)]  # fmt: skip
            second = [lane | distance for lane in first]
            vectors = [
                builder.fadd(self.shuffle(a, b, first), self.shuffle(a, b, second))
                for a, b in zip(vectors[::2], vectors[1::2], strict=True)
            ]
            distance *= 2
        return list(vectors)


def alloca(builder: Any, x: Any) -> Any:
    """Return a place for a vector that a loop carries; LLVM makes a register of it."""
    place = cgutils.alloca_once(builder, x.type)
    builder.store(x, place)
    return place


def on_floats(body: Callable[..., None]) -> Callable[..., Any]:
    """Make an intrinsic's generator of `body(builder, pointer_of, args)`; it returns nothing."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        def place(which: int, at: Any, base: Any = None) -> Any:
            return pointer(context, builder, signature, args, which, at, base)

        body(builder, place, args)
        return context.get_dummy_value()

    return generate


@intrinsic
def address(typing_context: Any, array: Any) -> Any:
    """Return where the first element of an array lies."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.ptrtoint(pointer(context, builder, signature, args, 0, 0), I64)

    return types.uint64(array), generate


@inner()
def aligned(room: Any) -> Any:
    """Return an array's part that begins at a multiple of ALIGNED bytes, ALIGNED bytes shorter."""
    over = np.int64(address(room) % np.uint64(ALIGNED))
    skipped = (ALIGNED - over) // room.itemsize
    return room[skipped : len(room) - ALIGNED // room.itemsize + skipped]


@intrinsic
def flush_tiny(typing_context: Any) -> Any:
    """Have x86 make 0 of results that are subnormal; return what `restore` is given afterwards.

    Many x86 processors calculate with them a hundred times slower; others do not, and are left
    as they are. It is the state of the thread alone.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        if not X86:
            return ir.Constant(I32, 0)
        before = _control(builder, "llvm.x86.sse.stmxcsr", None)
        _control(builder, "llvm.x86.sse.ldmxcsr", builder.or_(before, ir.Constant(I32, 0x8000)))
        return before

    return types.int32(), generate


@intrinsic
def restore(typing_context: Any, before: Any) -> Any:
    """Have subnormal results made as before `flush_tiny`."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        if X86:
            _control(builder, "llvm.x86.sse.ldmxcsr", args[0])
        return context.get_dummy_value()

    return types.void(before), generate


def _control(builder: Any, name: str, state: Any) -> Any:
    """Write or read the state of floating-point arithmetic."""
    place = cgutils.alloca_once(builder, I32)
    if state is not None:
        builder.store(state, place)
    byte = ir.IntType(8).as_pointer()
    form = ir.FunctionType(ir.VoidType(), [byte])
    function = cgutils.get_or_insert_function(builder.module, form, name)
    builder.call(function, [builder.bitcast(place, byte)])
    return builder.load(place)

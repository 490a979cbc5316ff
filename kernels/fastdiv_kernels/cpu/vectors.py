"""Arithmetic on vectors of LANES numbers, written as LLVM IR: what LLVM does not vectorise itself.

`Vectors` wraps an IR builder. Its values are vectors of float, i32 and, of comparisons, i1; LLVM
splits them where registers are narrower. No fast-math flag is used anywhere, so NaN passes as
IEEE 754 says: comparisons are false with NaN unless they are named `..._or_nan`. Which of two
operands `larger` and `smaller` return where one is NaN is part of what they promise.
"""

import os
import platform
from collections.abc import Sequence
from typing import Any

import llvmlite.binding as llvm
import numpy as np
from llvmlite import ir

from fastdiv_kernels.cpu.arithmetic import IN_HARDWARE
from fastdiv_kernels.cpu.control import SIZE, Control
from fastdiv_kernels.cpu.lanes import WIDE

LANES = 16
HELD = 0 if WIDE else 64  # constants that are kept in memory
GROUP = 4  # columns that are turned at once: 128 bits of float32

BIT, BYTE, WORD, HALF_INT = (ir.IntType(bits) for bits in (1, 8, 32, 16))
REAL = ir.FloatType()
FLOATS = ir.VectorType(REAL, LANES)
INTS = ir.VectorType(WORD, LANES)
MASK = ir.VectorType(BIT, LANES)
BYTES = ir.VectorType(BYTE, LANES)

LOG2E = 1.4426950408889634
LN2 = 0.6931471805599453
LN2_HIGH = 0.693359375  # nine bits: n * LN2_HIGH is exact
LN2_LOW = LN2 - LN2_HIGH
EXP_LOWEST = -87.9  # rounds to the exponent -127, whose power of two is 0
# Adding it rounds to whole numbers, which with the bias of exponents are then its lowest bits.
ROUNDS = 1.5 * 2.0**23 + 127
# Of least relative error, found by Lawson's iteration: 3.1e-9 for e**x, 5.9e-9 for log.
EXP = (0.49999993447745444, 0.16666520630984594, 0.04166838805281725, 0.008368716966519682,
       0.001381459859218816)  # fmt: skip
LOG = (0.33333316709358135, -0.2500081097146174, 0.20002287954671066, -0.16624533422431373,
       0.1418114179091253, -0.13128924259389183, 0.12882075447179112,
       -0.07859654153893428)  # fmt: skip
LEAST_NORMAL = 2.0**-126
SQRT_HALF_BITS = 0x3F3504F3


def _fuses() -> bool:
    """Say whether the processor that is compiled for surely multiplies and adds in one rounding."""
    # Numba's settings, read without importing it: it compiles for another machine.
    if os.environ.get("NUMBA_CPU_NAME") or "NUMBA_CPU_FEATURES" in os.environ:
        return False
    machine = platform.machine().lower()
    return machine in ("aarch64", "arm64") or bool(llvm.get_host_cpu_features().get("fma"))


FUSED = _fuses()


def float_below(x: float) -> float:
    """Return the largest float32 that is no more than x."""
    nearest = np.float32(x)
    return float(nearest if nearest <= x else np.nextafter(nearest, np.float32(-np.inf)))


class Vectors(Control):
    """Emits IR for vectors of LANES numbers at the end of a builder's block."""

    def __init__(self, builder: Any, room: Any) -> None:
        super().__init__(builder)
        self.entry = builder.block
        self.room = room
        self.held: dict[float, int] = {}

    # -- constants and conversions ----------------------------------------------------------

    def real(self, x: float) -> Any:
        """Return x in every lane.

        With few registers it is read from the room (the address of HELD vectors) where it is used:
        reading it is part of most instructions, but repeating one number in all lanes is not.
        """
        constant = ir.Constant(FLOATS, [float(np.float32(x))] * LANES)
        if x == 0 or np.isnan(x) or (x not in self.held and len(self.held) == HELD):
            return constant
        if x not in self.held:
            self.held[x] = len(self.held)
            with self.builder.goto_block(self.entry):
                self.store(constant, self.at(self.room, self.held[x], 4 * LANES), 4 * LANES)
        return self.load(self.at(self.room, self.held[x], 4 * LANES), align=4 * LANES)

    def barrier(self) -> None:
        """Keep LLVM from reading constants before; it would read all, and then write them down."""
        if not WIDE:
            self.builder.fence("seq_cst", "singlethread")

    def whole(self, x: int) -> Any:
        """Return an int32 in every lane."""
        return ir.Constant(INTS, [x] * LANES)

    def lane_numbers(self) -> Any:
        """Return 0, 1, 2, ..."""
        return ir.Constant(INTS, list(range(LANES)))

    def everywhere(self, x: Any) -> Any:
        """Return a scalar float or i32 in every lane."""
        vector = ir.VectorType(x.type, LANES)
        first = self.builder.insert_element(
            ir.Constant(vector, ir.Undefined), x, ir.Constant(WORD, 0)
        )
        return self.builder.shuffle_vector(first, first, ir.Constant(INTS, [0] * LANES))

    def bits(self, x: Any) -> Any:
        """Return floats as integers."""
        return self.builder.bitcast(x, INTS)

    def from_bits(self, x: Any) -> Any:
        """Return the floats that integers stand for."""
        return self.builder.bitcast(x, FLOATS)

    # -- arithmetic ---------------------------------------------------------------------------

    def add(self, a: Any, b: Any) -> Any:
        """Return a + b of floats."""
        return self.builder.fadd(a, b)

    def sub(self, a: Any, b: Any) -> Any:
        """Return a - b of floats."""
        return self.builder.fsub(a, b)

    def mul(self, a: Any, b: Any) -> Any:
        """Return a * b of floats."""
        return self.builder.fmul(a, b)

    def divide(self, a: Any, b: Any) -> Any:
        """Return a / b of floats."""
        return self.builder.fdiv(a, b)

    def magnitude(self, x: Any) -> Any:
        """Return |x|."""
        return self._call("llvm.fabs", x)

    def fma(self, a: Any, b: Any, c: Any) -> Any:
        """Return a * b + c, in one rounding where the processor can."""
        return self._call("llvm.fma" if FUSED else "llvm.fmuladd", a, b, c)

    def polynomial(self, x: Any, coefficients: Sequence[float]) -> Any:
        """Return coefficients[0] + coefficients[1] * x + ..., by Horner's rule."""
        result = self.real(coefficients[-1])
        for coefficient in coefficients[-2::-1]:
            result = self.fma(result, x, self.real(coefficient))
        return result

    def series(self, x: Any, coefficients: Sequence[float]) -> Any:
        """Return what `polynomial` does, without WIDE by pairs of terms.

        These are more instructions, of which fewer wait for each other.
        """
        if WIDE:
            return self.polynomial(x, coefficients)
        terms = [self.real(coefficient) for coefficient in coefficients]
        while len(terms) > 1:
            last = terms[len(terms) // 2 * 2 :]
            pairs = zip(terms[::2], terms[1::2], strict=False)
            terms = [self.fma(high, x, low) for low, high in pairs] + last
            x = self.mul(x, x)
        return terms[0]

    def larger(self, a: Any, b: Any) -> Any:
        """Return the larger; b where one is NaN."""
        return self.choose(self.above(a, b), a, b)

    def larger_where(self, mask: Any, a: Any, b: Any) -> Any:
        """Return the larger where the mask is set, else b; a NaN in `a` may give any number."""
        if WIDE:  # one instruction
            form = ir.FunctionType(FLOATS, [FLOATS, FLOATS])
            function = self._declared(f"llvm.maxnum.v{LANES}f32", form)
            larger = self.builder.call(function, [a, b], fastmath=("nnan", "nsz"))
            return self.choose(mask, larger, b)
        return self.larger(self.choose(mask, a, self.real(np.nan)), b)

    def smaller(self, a: Any, b: Any) -> Any:
        """Return the smaller; b where one is NaN."""
        return self.choose(self.above(b, a), a, b)

    # -- masks --------------------------------------------------------------------------------

    def choose(self, mask: Any, a: Any, b: Any) -> Any:
        """Return a where the mask is set, else b."""
        return self.builder.select(mask, a, b)

    def above(self, a: Any, b: Any) -> Any:
        """Tell where a > b."""
        return self.builder.fcmp_ordered(">", a, b)

    def above_or_nan(self, a: Any, b: Any) -> Any:
        """Tell where a > b or one is NaN."""
        return self.builder.fcmp_unordered(">", a, b)

    def differs_or_nan(self, a: Any, b: Any) -> Any:
        """Tell where a != b of floats."""
        return self.builder.fcmp_unordered("!=", a, b)

    def equal(self, a: Any, b: Any) -> Any:
        """Tell where a == b of floats."""
        return self.builder.fcmp_ordered("==", a, b)

    def not_below_or_nan(self, a: Any, b: Any) -> Any:
        """Tell where a >= b or one is NaN."""
        return self.builder.fcmp_unordered(">=", a, b)

    def either_nan(self, a: Any, b: Any) -> Any:
        """Tell where a or b is NaN."""
        return self.builder.fcmp_unordered("uno", a, b)

    def either(self, *masks: Any) -> Any:
        """Tell where any of the masks is set."""
        result = masks[0]
        for mask in masks[1:]:
            result = self.builder.or_(result, mask)
        return result

    def any(self, mask: Any) -> Any:
        """Tell, in one bit, whether a mask is set anywhere."""
        bits = self.builder.bitcast(mask, ir.IntType(LANES))
        return self.builder.icmp_unsigned("!=", bits, ir.Constant(bits.type, 0))

    def none(self) -> Any:
        """Return where a count starts; as floats where masks have registers: one instruction."""
        return self.real(0) if WIDE else self.whole(0)

    def count(self, mask: Any, total: Any) -> Any:
        """Return a count, one more where the mask is set."""
        if WIDE:
            return self.choose(mask, self.add(total, self.real(1)), total)
        return self.builder.sub(total, self.builder.sext(mask, INTS))

    def counted(self, total: Any) -> Any:
        """Return a count as integers."""
        return self.builder.fptosi(total, INTS) if WIDE else total

    def just_below(self, x: Any) -> Any:
        """Return the next smaller number; NaN below -inf."""
        builder = self.builder
        bits = self.bits(x)
        negative = builder.icmp_signed("<", bits, self.whole(0))
        step = self.choose(negative, self.whole(1), self.whole(-1))
        lower = self.from_bits(builder.add(bits, step))
        return self.choose(self.equal(x, self.real(0)), self.real(-(2.0**-149)), lower)

    # -- exponential and logarithm ------------------------------------------------------------

    def exp(self, x: Any, where: Any = None) -> Any:
        """Return e**x of x <= 88, and 0 where the mask `where` is not set.

        Exactly 0 below about -87.7, near the smallest normal number; NaN where x is.
        """
        x = self.larger(self.real(EXP_LOWEST), x)
        rounded = self.fma(x, self.real(LOG2E), self.real(ROUNDS))
        n = self.sub(rounded, self.real(ROUNDS))
        if FUSED:  # n * LN2 needs no rounding, and LN2 as float32 is good to 3e-9
            r = self.fma(n, self.real(-LN2), x)
        else:
            r = self.fma(n, self.real(-LN2_LOW), self.fma(n, self.real(-LN2_HIGH), x))
        # A product, not a sum of exponents, which could make a number of NaN.
        scale = self.from_bits(self.builder.shl(self.bits(rounded), self.whole(23)))
        if WIDE:
            result = self.mul(self.polynomial(r, (1.0, 1.0, *EXP)), scale)
        else:
            result = self.fma(self.series(r, (1.0, *EXP)), self.mul(r, scale), scale)
        return result if where is None else self.choose(where, result, self.real(0))

    def log_of_normal(self, x: Any) -> Any:
        """Return ln x of finite, positive, normal x; some number of others."""
        bits = self.builder.sub(self.bits(x), self.whole(SQRT_HALF_BITS))
        e = self.builder.sitofp(self.builder.ashr(bits, self.whole(23)), FLOATS)
        mantissa = self.builder.and_(bits, self.whole(0x007FFFFF))
        mantissa = self.from_bits(self.builder.add(mantissa, self.whole(SQRT_HALF_BITS)))
        f = self.sub(mantissa, self.real(1))
        square = self.mul(f, f)
        rest = self.mul(self.mul(square, f), self.series(f, LOG))
        rest = self.fma(e, self.real(LN2_LOW), self.fma(square, self.real(-0.5), rest))
        return self.fma(e, self.real(LN2_HIGH), self.add(f, rest))

    def log(self, x: Any) -> Any:
        """Return ln x of finite x >= 0: -inf for 0, subnormals scaled."""
        tiny = self.above(self.real(LEAST_NORMAL), x)
        scaled = self.choose(tiny, self.mul(x, self.real(2.0**23)), x)
        result = self.log_of_normal(scaled)
        result = self.choose(tiny, self.sub(result, self.real(23 * LN2)), result)
        return self.choose(self.above(x, self.real(0)), result, self.real(-np.inf))

    def log1p(self, x: Any) -> tuple[Any, Any]:
        """Return ln(1 + x), to x's own relative precision, and 1 / (1 + x); finite x > -1."""
        w = self.add(x, self.real(1))
        reciprocal = self.divide(self.real(1), w)
        lost = self.sub(x, self.sub(w, self.real(1)))
        return self.fma(lost, reciprocal, self.log_of_normal(w)), reciprocal

    # -- memory -------------------------------------------------------------------------------

    def at(self, address: Any, steps: Any, size: int) -> Any:
        """Return an address (i64) and `steps` (i64 or int) times `size` bytes."""
        if isinstance(steps, int):
            return self.builder.add(address, ir.Constant(SIZE, steps * size))
        return self.builder.add(address, self.builder.mul(steps, ir.Constant(SIZE, size)))

    def load(self, address: Any, kind: Any = FLOATS, align: int = 1) -> Any:
        """Load a vector, or what else `kind` is, from an address (i64) that need not be aligned."""
        return self.builder.load(self.builder.inttoptr(address, kind.as_pointer()), align=align)

    def store(self, x: Any, address: Any, align: int = 1) -> None:
        """Store a vector at an address (i64) that need not be aligned."""
        self.builder.store(x, self.builder.inttoptr(address, x.type.as_pointer()), align=align)

    def gather(self, address: Any, places: Any) -> Any:
        """Load a float from each of the places (int32) after an address (i64)."""
        builder = self.builder
        base = builder.inttoptr(address, REAL.as_pointer())
        pointers = builder.gep(base, [places], source_etype=REAL)
        pointers.type = ir.VectorType(REAL.as_pointer(), LANES)  # llvmlite takes it for a scalar
        form = ir.FunctionType(FLOATS, [pointers.type, WORD, MASK, FLOATS])
        function = self._declared(f"llvm.masked.gather.v{LANES}f32.v{LANES}p0", form)
        every = ir.Constant(MASK, [1] * LANES)
        nothing = ir.Constant(FLOATS, ir.Undefined)
        return builder.call(function, [pointers, ir.Constant(WORD, 4), every, nothing])

    def prefetch(self, address: Any) -> None:
        """Ask for the cache line of an address (i64), which may lie anywhere."""
        pointer = BYTE.as_pointer()
        form = ir.FunctionType(ir.VoidType(), [pointer, WORD, WORD, WORD])
        function = self._declared("llvm.prefetch.p0", form)
        arguments = [ir.Constant(WORD, k) for k in (0, 3, 1)]  # to read, keep, data
        self.builder.call(function, [self.builder.inttoptr(address, pointer), *arguments])

    def load_numbers(self, address: Any, stored: str, width: int) -> Any:
        """Load `width` predictions as float32; stored as float32, uint16 (half) or int16 (bfloat).

        Those are the names of the Numba types in which kernels are given predictions.
        """
        if stored == "float32":
            return self.load(address, ir.VectorType(REAL, width))
        words = self.load(address, ir.VectorType(HALF_INT, width))
        floats, ints = ir.VectorType(REAL, width), ir.VectorType(WORD, width)

        def constant(x: int) -> Any:
            return ir.Constant(ints, [x] * width)

        builder = self.builder
        wide = builder.zext(words, ints)
        if stored == "int16":
            return builder.bitcast(builder.shl(wide, constant(16)), floats)
        if IN_HARDWARE:
            return builder.fpext(
                builder.bitcast(words, ir.VectorType(ir.HalfType(), width)), floats
            )
        # As in `arithmetic`: the exponents' biases differ by 112, all ones stay all ones.
        shifted = builder.shl(builder.and_(wide, constant(0x7FFF)), constant(13))
        factor = ir.Constant(floats, [2.0**112] * width)
        magnitude = builder.fmul(builder.bitcast(shifted, floats), factor)
        magnitude = builder.bitcast(magnitude, ints)
        exponent = builder.and_(wide, constant(0x7C00))
        not_finite = builder.icmp_signed("==", exponent, constant(0x7C00))
        endless = builder.or_(magnitude, constant(0x7F800000))
        magnitude = builder.select(not_finite, endless, magnitude)
        sign = builder.shl(builder.and_(wide, constant(0x8000)), constant(16))
        return builder.bitcast(builder.or_(magnitude, sign), floats)

    def shuffle(self, a: Any, b: Any, lanes: Sequence[int]) -> Any:
        """Return the lanes of a, then b, that are listed."""
        mask = ir.Constant(ir.VectorType(WORD, len(lanes)), list(lanes))
        return self.builder.shuffle_vector(a, b, mask)

    def transpose(self, rows: Sequence[Any]) -> list[Any]:
        """Return GROUP columns of LANES rows, each of GROUP floats (`<4 x float>`)."""
        blocks = range(0, LANES, GROUP)
        quarters = []
        for k in range(GROUP):  # lane block l holds row 4 l + k
            parts = [rows[k + block] for block in blocks]
            while len(parts) > 1:
                lanes = range(2 * LANES // len(parts))
                pairs = zip(parts[::2], parts[1::2], strict=True)
                parts = [self.shuffle(*pair, lanes) for pair in pairs]
            quarters += parts
        first, second = (
            [k for b in blocks for k in (b + j, b + j + LANES, b + j + 1, b + j + 1 + LANES)]
            for j in (0, 2)
        )
        lower, upper = (
            [k for b in blocks for k in (b + j, b + j + 1, b + j + LANES, b + j + 1 + LANES)]
            for j in (0, 2)
        )
        columns = []
        for unpack in (first, second):
            left = self.shuffle(quarters[0], quarters[1], unpack)
            right = self.shuffle(quarters[2], quarters[3], unpack)
            columns += [self.shuffle(left, right, lower), self.shuffle(left, right, upper)]
        return columns

    def _call(self, name: str, *args: Any) -> Any:
        """Call an LLVM intrinsic of floats, by its full name: llvmlite declares none of vectors."""
        form = ir.FunctionType(FLOATS, [FLOATS] * len(args))
        return self.builder.call(self._declared(f"{name}.v{LANES}f32", form), args)

    def _declared(self, name: str, form: Any) -> Any:
        module = self.builder.module
        known = module.globals.get(name)
        return known if known is not None else ir.Function(module, form, name)

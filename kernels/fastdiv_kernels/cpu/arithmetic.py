"""exp, log, log1p and 16-bit numbers as straight-line code that LLVM vectorises.

Numba's own `exp` and `log` are scalar library calls: its wheels come without SVML. The
polynomials are Chebyshev interpolants made for this file, the logarithm is the series of
2 atanh(f / (2 + f)); both are good to the last bit or two of their dtype. Half precision is
converted by the processor where it can: for others LLVM would call functions that Numba lacks.
"""

import os
import platform
from typing import Any

import llvmlite.binding as llvm
import numpy as np
from llvmlite import ir

from fastdiv_kernels.cpu.jit import inner, intrinsic, overload, types

ONE = np.float32(1.0)
HALF = np.float32(0.5)
LOG2E = np.float32(1.4426950408889634)
LN2_HIGH = np.float32(0.693359375)  # nine bits: n * LN2_HIGH is exact
LN2_LOW = np.float32(-2.1219444005469057e-4)
EXP_LOWEST = np.float32(-104.0)  # keeps the exponent in range; the result is flushed to 0
MIN_EXPONENT = np.float32(-126.0)
E2 = np.float32(0.500000001345772715)
E3 = np.float32(0.166665052604081235)
E4 = np.float32(0.0416664650060400488)
E5 = np.float32(0.00836914849085634659)
E6 = np.float32(0.00139336410319867012)

TWO_TO_112 = np.float32(2.0**112)  # the exponents' biases differ by 112
EXPONENT_112 = np.int32(112 << 23)
LEAST_NORMAL_HALF = np.int32(113 << 23)
HALF_BITS = np.int32(0x3F000000)
HALF_INFINITY = np.int32(0x7C00)
INFINITY_BITS = np.int32(0x7F800000)

SQRT_HALF_BITS = np.int32(0x3F3504F3)
MANTISSA_BITS = np.int32(0x007FFFFF)
LN2 = np.float32(0.6931471805599453)
L3 = np.float32(2 / 3)
L5 = np.float32(2 / 5)
L7 = np.float32(2 / 7)
L9 = np.float32(2 / 9)
TWO = np.float32(2.0)
ZERO = np.float32(0.0)
INFINITY = np.float32(np.inf)

LOG2E_64 = 1.4426950408889634
EXP_LOWEST_64 = -746.0
# e**r for -ln(2)/2 <= r <= ln(2)/2, from the first power on.
EXP_64 = (
    1.0, 1.0, 0.500000000000000562, 0.16666666666666671, 0.0416666666665731426,
    0.00833333333332614088, 0.00138888889324885982, 0.00019841269874800492, 0.0000248015043046997,
    2.75572554257464343e-6, 2.76263572414472229e-7, 2.51052063739570111e-8,
)  # fmt: skip
LN2_HIGH_64 = 0.693145751953125  # 21 bits
LN2_LOW_64 = 1.42860682030941723212e-6
SQRT_HALF_BITS_64 = np.int64(0x3FE6A09E667F3BCD)
MANTISSA_BITS_64 = np.int64(0x000FFFFFFFFFFFFF)


@intrinsic
def as_int(typing_context: Any, x: Any) -> Any:
    """Return the bits of a float32 or float64 as an integer of its width."""
    to = types.int32 if x == types.float32 else types.int64

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.bitcast(args[0], context.get_value_type(signature.return_type))

    return to(x), generate


@intrinsic
def as_float(typing_context: Any, bits: Any) -> Any:
    """Return the float32 or float64 that the bits of an int32 or int64 stand for."""
    to = types.float32 if bits == types.int32 else types.float64

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.bitcast(args[0], context.get_value_type(signature.return_type))

    return to(bits), generate


@inner("contract")
def exp_32(x: Any) -> Any:
    """Return e**x for float32 x <= 88; 0 below the smallest normal number; no NaN comes out."""
    x = x if x > EXP_LOWEST else EXP_LOWEST  # max() does not vectorise
    n = np.floor(x * LOG2E + HALF)
    r = (x - n * LN2_HIGH) - n * LN2_LOW
    p = ONE + r * (ONE + r * (E2 + r * (E3 + r * (E4 + r * (E5 + r * E6)))))
    scale = as_float(np.int32((np.int32(n) + np.int32(127)) << np.int32(23)))
    return p * scale if n >= MIN_EXPONENT else ZERO


@inner("contract")
def exp_64(x: Any) -> Any:
    """Return e**x for float64 x <= 709; 0 below the smallest normal number; no NaN comes out."""
    x = x if x > EXP_LOWEST_64 else EXP_LOWEST_64
    n = np.floor(x * LOG2E_64 + 0.5)
    r = (x - n * LN2_HIGH_64) - n * LN2_LOW_64
    p = EXP_64[9] + r * (EXP_64[10] + r * EXP_64[11])
    p = EXP_64[7] + r * (EXP_64[8] + r * p)
    p = EXP_64[5] + r * (EXP_64[6] + r * p)
    p = EXP_64[3] + r * (EXP_64[4] + r * p)
    p = EXP_64[1] + r * (EXP_64[2] + r * p)
    p = EXP_64[0] + r * p
    scale = as_float((np.int64(n) + np.int64(1023)) << np.int64(52))
    return p * scale if n >= -1022.0 else 0.0


@inner("contract")
def log_32(x: Any) -> Any:
    """Return ln x for float32 x >= 0: -inf for 0 and subnormals scaled, inf for inf."""
    tiny = x < np.float32(1.17549435e-38)
    y = x * np.float32(8388608.0) if tiny else x
    # Bits counted from sqrt(1/2), so that the mantissa lands in [sqrt(1/2), sqrt(2)).
    bits = np.int32(as_int(y) - SQRT_HALF_BITS)
    e = np.float32(np.int32(bits >> np.int32(23)))
    m = as_float(np.int32((bits & MANTISSA_BITS) + SQRT_HALF_BITS))
    e = e - np.float32(23.0) if tiny else e
    f = m - ONE
    s = f / (TWO + f)
    w = s * s
    series = s * (TWO + w * (L3 + w * (L5 + w * (L7 + w * L9))))
    result = e * LN2_HIGH + (series + e * LN2_LOW)
    result = result if x > ZERO else -INFINITY
    return result if x < INFINITY else INFINITY


@inner("contract")
def log_64(x: Any) -> Any:
    """Return ln x for float64 x >= 0: -inf for 0, inf for inf."""
    tiny = x < 2.2250738585072014e-308
    y = x * 18014398509481984.0 if tiny else x
    bits = as_int(y) - SQRT_HALF_BITS_64
    e = np.float64(bits >> np.int64(52))
    m = as_float((bits & MANTISSA_BITS_64) + SQRT_HALF_BITS_64)
    e = e - 54.0 if tiny else e
    f = m - 1.0
    s = f / (2.0 + f)
    w = s * s
    p = 2 / 19 + w * (2 / 21 + w * (2 / 23))
    p = 2 / 11 + w * (2 / 13 + w * (2 / 15 + w * (2 / 17 + w * p)))
    p = 2 / 3 + w * (2 / 5 + w * (2 / 7 + w * (2 / 9 + w * p)))
    series = s * (2.0 + w * p)
    result = e * LN2_HIGH_64 + (series + e * LN2_LOW_64)
    result = result if x > 0.0 else -np.inf
    return result if x < np.inf else np.inf


@inner("contract")
def log1p_32(x: Any) -> Any:
    """Return ln(1 + x) for finite float32 x > -1, with x's own relative precision."""
    w = ONE + x
    return log_32(w) + (x - (w - ONE)) / w


@inner("contract")
def log1p_64(x: Any) -> Any:
    """Return ln(1 + x) for finite float64 x > -1, with x's own relative precision."""
    w = 1.0 + x
    return log_64(w) + (x - (w - 1.0)) / w


@intrinsic
def half_to_float_by_instruction(typing_context: Any, bits: Any) -> Any:
    """Convert 16 bits of half precision to float32; becomes vcvtph2ps."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        half = builder.bitcast(args[0], ir.HalfType())
        return builder.fpext(half, ir.FloatType())

    return types.float32(types.uint16), generate


@intrinsic
def float_to_half_by_instruction(typing_context: Any, x: Any) -> Any:
    """Round float32 to half precision, to the nearest or even: 16 bits; becomes vcvtps2ph."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.bitcast(builder.fptrunc(args[0], ir.HalfType()), ir.IntType(16))

    return types.uint16(types.float32), generate


@inner()
def half_to_float_by_arithmetic(bits: Any) -> Any:
    """Convert 16 bits of half precision to float32."""
    wide = np.int32(bits)
    x = as_float(np.int32((wide & np.int32(0x7FFF)) << np.int32(13))) * TWO_TO_112
    magnitude = np.int32(as_int(x))
    not_finite = (wide & HALF_INFINITY) == HALF_INFINITY
    magnitude = np.int32(magnitude | INFINITY_BITS) if not_finite else magnitude
    return as_float(np.int32(magnitude | np.int32((wide & np.int32(0x8000)) << np.int32(16))))


@inner()
def float_to_half_by_arithmetic(x: Any) -> Any:
    """Round a float32 of no more than 65504, or infinite, to the nearest half or even: 16 bits."""
    bits = np.int32(as_int(x))
    magnitude = np.int32(bits & np.int32(0x7FFFFFFF))
    odd = np.int32((magnitude >> np.int32(13)) & np.int32(1))
    rounded = np.int32((magnitude + odd + np.int32(0xFFF) - EXPONENT_112) >> np.int32(13))
    # Of one half, the last bit is the unit of what is subnormal in half precision.
    subnormal = np.int32(as_int(as_float(magnitude) + HALF) - HALF_BITS)
    rounded = subnormal if magnitude < LEAST_NORMAL_HALF else rounded
    rounded = rounded if magnitude < INFINITY_BITS else HALF_INFINITY
    return np.uint16(rounded | np.int32((bits >> np.int32(16)) & np.int32(0x8000)))


def _converts_halves() -> bool:
    """Say whether the processor that is compiled for has instructions for half precision."""
    # Numba's settings, read without importing it: it compiles for another machine.
    if os.environ.get("NUMBA_CPU_NAME") or "NUMBA_CPU_FEATURES" in os.environ:
        return False
    machine = platform.machine().lower()
    return machine in ("aarch64", "arm64") or bool(llvm.get_host_cpu_features().get("f16c"))


IN_HARDWARE = _converts_halves()
half_to_float = half_to_float_by_instruction if IN_HARDWARE else half_to_float_by_arithmetic
float_to_half = float_to_half_by_instruction if IN_HARDWARE else float_to_half_by_arithmetic


def exp(x: Any) -> Any:
    """Return e**x in the precision of x; see `exp_32`."""
    raise NotImplementedError  # kernels get the overload below


def log(x: Any) -> Any:
    """Return ln x in the precision of x; see `log_32`."""
    raise NotImplementedError


def log1p(x: Any) -> Any:
    """Return ln(1 + x) in the precision of x; see `log1p_32`."""
    raise NotImplementedError


def value(x: Any) -> Any:
    """Return a stored prediction as a number; float16 as uint16, bfloat16 as int16 give float32."""
    raise NotImplementedError


@overload(exp)
def _exp(x: Any) -> Any:
    by_dtype = exp_32 if x == types.float32 else exp_64

    def implementation(x: Any) -> Any:
        return by_dtype(x)

    return implementation


@overload(log)
def _log(x: Any) -> Any:
    by_dtype = log_32 if x == types.float32 else log_64

    def implementation(x: Any) -> Any:
        return by_dtype(x)

    return implementation


@overload(log1p)
def _log1p(x: Any) -> Any:
    by_dtype = log1p_32 if x == types.float32 else log1p_64

    def implementation(x: Any) -> Any:
        return by_dtype(x)

    return implementation


@overload(value)
def _value(x: Any) -> Any:
    def from_half(x: Any) -> Any:
        return half_to_float(x)

    def from_bfloat(x: Any) -> Any:
        return as_float(np.int32(np.int32(x) << np.int32(16)))

    def unchanged(x: Any) -> Any:
        return x

    if x == types.uint16:
        return from_half
    return from_bfloat if x == types.int16 else unchanged


@intrinsic
def larger(typing_context: Any, a: Any, b: Any) -> Any:
    """Return the larger of two numbers by llvm.maxnum, the only form of max reduction that
    vectorises (in functions with the flags reassoc, nnan and nsz).
    """  # noqa: D205

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        real = args[0].type
        form = ir.FunctionType(real, [real, real])
        function = builder.module.declare_intrinsic("llvm.maxnum", [real], form)
        return builder.call(function, args, fastmath=("nnan", "nsz", "reassoc"))

    return a(a, a), generate


@intrinsic
def smaller(typing_context: Any, a: Any, b: Any) -> Any:
    """Return the smaller of two numbers by llvm.minnum; see `larger`."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        real = args[0].type
        form = ir.FunctionType(real, [real, real])
        function = builder.module.declare_intrinsic("llvm.minnum", [real], form)
        return builder.call(function, args, fastmath=("nnan", "nsz", "reassoc"))

    return a(a, a), generate

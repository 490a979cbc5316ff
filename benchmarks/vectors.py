"""Sums of float32, and of their exponentials, written as vectors of sixteen.

What the compiler makes of a loop is not what the machine can do: LLVM takes vectors of eight on
processors that have sixteen. A floor measured so would flatter all that is compared with it.
`total` reads into eight sums, `total_exp` works on four vectors at once, so that neither waits
for an addition or a multiplication to end.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

LANES = 16
STEP = 8 * LANES  # values a turn takes
# 2**f for f in [-1/2, 1/2], within 2e-6 relative: less would do for no loss.
EXP2 = (1.0, math.log(2), 0.24022651, 0.0555036, 0.009618131, 0.0013400432)
VECTOR = ir.VectorType(ir.FloatType(), LANES)
INTEGERS = ir.VectorType(ir.IntType(32), LANES)

Step = Callable[[Any, Any], Any]  # of a builder and a vector: the vector that is added


def _call(builder: Any, name: str, arguments: Sequence[Any]) -> Any:
    """Call one of LLVM's own functions of float32 vectors."""
    signature = ir.FunctionType(VECTOR, [VECTOR] * len(arguments))
    function = cgutils.get_or_insert_function(builder.module, signature, f"llvm.{name}.v{LANES}f32")
    return builder.call(function, arguments)


def _constant(x: float) -> Any:
    return ir.Constant(VECTOR, [x] * LANES)


def _exp(builder: Any, x: Any) -> Any:
    """Emit e**x: 2**n times a polynomial of what is left, n added to the bits of the exponent."""
    t = builder.fmul(x, _constant(1 / math.log(2)))
    n = _call(builder, "rint", [t])
    f = builder.fsub(t, n)
    p = _constant(EXP2[-1])
    for coefficient in EXP2[-2::-1]:
        p = _call(builder, "fma", [p, f, _constant(coefficient)])
    shift = ir.Constant(INTEGERS, [23] * LANES)
    exponent = builder.shl(builder.fptosi(n, INTEGERS), shift)
    return builder.bitcast(builder.add(builder.bitcast(p, INTEGERS), exponent), VECTOR)


def _sum(builder: Any, pointer: Any, n: Any, sums: int, step: Step) -> Any:
    """Emit a loop over n values, STEP in a turn; return the float32 sum of what `step` makes."""
    totals = [cgutils.alloca_once_value(builder, _constant(0.0)) for _ in range(sums)]
    turns = builder.udiv(n, ir.Constant(n.type, STEP))
    with cgutils.for_range(builder, turns) as loop:
        start = builder.mul(loop.index, ir.Constant(n.type, STEP))
        for i in range(STEP // LANES):
            at = builder.gep(pointer, [builder.add(start, ir.Constant(n.type, i * LANES))])
            values = builder.load(builder.bitcast(at, VECTOR.as_pointer()), align=4)
            total = totals[i % sums]
            builder.store(builder.fadd(builder.load(total), step(builder, values)), total)
    vector = _constant(0.0)
    for total in totals:
        vector = builder.fadd(vector, builder.load(total))
    lanes = [builder.extract_element(vector, ir.Constant(ir.IntType(32), i)) for i in range(LANES)]
    while len(lanes) > 1:
        lanes = [builder.fadd(a, b) for a, b in zip(lanes[::2], lanes[1::2], strict=True)]
    return lanes[0]


def _over_values(sums: int, step: Step) -> Callable[[Any, Any, Any, Any], Any]:
    """Return what makes an intrinsic of (values (n,) float32, start, n): n a multiple of STEP."""

    def typed(typing_context: Any, values: Any, start: Any, n: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            array = context.make_array(signature.args[0])(context, builder, args[0])
            pointer = builder.gep(array.data, [args[1]])
            return _sum(builder, pointer, args[2], sums, step)

        return types.float32(values, types.int64, types.int64), generate

    return typed


total: Any = intrinsic(_over_values(8, lambda builder, values: values))
total_exp: Any = intrinsic(_over_values(4, _exp))

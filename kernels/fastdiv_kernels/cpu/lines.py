"""Reading memory by whole cache lines: comparing runs, looking at groups, asking for lines early.

LLVM makes none of these of a loop that may stop early.
"""

from typing import Any

import numpy as np
from llvmlite import ir

from fastdiv_kernels.cpu.jit import carray, inner, intrinsic, types

GROUP = 16  # uint32 of a cache line
STEP = 64  # int64 compared at once: 512 bytes of either side
AHEAD = 4096  # bytes
FREE = np.uint32(0xFFFFFFFF)

I1, I16, I32, I64 = (ir.IntType(bits) for bits in (1, 16, 32, 64))


def splat(builder: Any, x: Any, width: int) -> Any:
    """Return a vector of one number."""
    vector = ir.VectorType(x.type, width)
    first = builder.insert_element(ir.Constant(vector, ir.Undefined), x, ir.Constant(I32, 0))
    zeros = ir.Constant(ir.VectorType(I32, width), [0] * width)
    return builder.shuffle_vector(first, first, zeros)


def load(builder: Any, address: Any, element: Any, width: int) -> Any:
    """Load a vector that may lie anywhere."""
    place = builder.inttoptr(address, ir.VectorType(element, width).as_pointer())
    return builder.load(place, align=1)


@intrinsic
def words_at(typing_context: Any, address: Any) -> Any:
    """Return an address as a pointer to int64."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.inttoptr(args[0], I64.as_pointer())

    return types.CPointer(types.int64)(address), generate


@intrinsic
def halves_at(typing_context: Any, address: Any) -> Any:
    """Return an address as a pointer to int32."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.inttoptr(args[0], I32.as_pointer())

    return types.CPointer(types.int32)(address), generate


@intrinsic
def word_at(typing_context: Any, address: Any) -> Any:
    """Load the eight bytes at an address."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.load(builder.inttoptr(args[0], I64.as_pointer()), align=1)

    return types.uint64(address), generate


@intrinsic
def byte_at(typing_context: Any, address: Any) -> Any:
    """Load the byte at an address."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        x = builder.load(builder.inttoptr(args[0], ir.IntType(8).as_pointer()), align=1)
        return builder.zext(x, I64)

    return types.uint64(address), generate


@intrinsic
def prefetch(typing_context: Any, address: Any) -> Any:
    """Ask for the cache line of an address; any address will do."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer = ir.IntType(8).as_pointer()
        function = builder.module.globals.get("llvm.prefetch.p0i8")
        if function is None:
            kind = ir.FunctionType(ir.VoidType(), [pointer, I32, I32, I32])
            function = ir.Function(builder.module, kind, "llvm.prefetch.p0i8")
        read, everywhere, data = (ir.Constant(I32, x) for x in (0, 3, 1))
        builder.call(function, [builder.inttoptr(args[0], pointer), read, everywhere, data])
        return context.get_dummy_value()

    return types.void(address), generate


@intrinsic
def fold(typing_context: Any, a: Any, b: Any) -> Any:
    """Return the halves of the 128-bit product of two uint64, one xor the other."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        wide = ir.IntType(128)
        product = builder.mul(builder.zext(args[0], wide), builder.zext(args[1], wide))
        high = builder.trunc(builder.lshr(product, ir.Constant(wide, 64)), I64)
        return builder.xor(high, builder.trunc(product, I64))

    return types.uint64(types.uint64, types.uint64), generate


@intrinsic
def lowest(typing_context: Any, bits: Any) -> Any:
    """Return the place of the lowest bit set, 64 where none is."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.cttz(args[0], ir.Constant(I1, 0))

    return types.int64(types.int64), generate


@intrinsic
def look(typing_context: Any, address: Any, want: Any, mask: Any) -> Any:
    """Look at a group of entries: bits 0-15 for those whose masked bits are `want`, 16-31 for free.

    A free entry is no match whatever is wanted.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        entries = load(builder, args[0], I32, GROUP)
        wanted, masks = (splat(builder, x, GROUP) for x in args[1:])
        free = builder.icmp_signed("==", entries, ir.Constant(entries.type, [-1] * GROUP))
        match = builder.icmp_signed("==", builder.and_(entries, masks), wanted)
        match = builder.and_(match, builder.not_(free))
        low, high = (builder.zext(builder.bitcast(x, I16), I64) for x in (match, free))
        return builder.or_(low, builder.shl(high, ir.Constant(I64, GROUP)))

    return types.int64(address, types.uint32, types.uint32), generate


@intrinsic
def step_differs(typing_context: Any, a: Any, b: Any, by: Any) -> Any:
    """Say whether the next STEP int64 of a are not those of b plus `by`; a and b are addresses."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        x, y = (load(builder, address, I64, STEP) for address in args[:2])
        differs = builder.icmp_signed("!=", builder.sub(x, y), splat(builder, args[2], STEP))
        return builder.icmp_unsigned("!=", builder.bitcast(differs, I64), ir.Constant(I64, 0))

    return types.boolean(a, b, types.int64), generate


@intrinsic
def step_falls(typing_context: Any, a: Any, flip: Any) -> Any:
    """Say whether of the next STEP + 1 int64 one is no more than that before it, bits flipped."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        after = builder.add(args[0], ir.Constant(I64, 8))
        flips = splat(builder, args[1], STEP)
        x, y = (builder.xor(load(builder, p, I64, STEP), flips) for p in (args[0], after))
        falls = builder.icmp_signed(">=", x, y)
        return builder.icmp_unsigned("!=", builder.bitcast(falls, I64), ir.Constant(I64, 0))

    return types.boolean(a, types.int64), generate


@inner()
def words(address: Any, n: Any) -> Any:
    """Return the n int64 at an address as an array, which holds nothing alive."""
    return carray(words_at(address), (n,))


@inner()
def equal_words(a: Any, b: Any, by: Any, n: Any) -> Any:
    """Count the leading int64, of n, where those at address a are those at b plus `by`."""
    done = np.int64(0)
    while done + STEP <= n and not step_differs(a + 8 * done, b + 8 * done, by):
        for line in range(0, 8 * STEP, 64):
            prefetch(a + 8 * done + AHEAD + line)
            prefetch(b + 8 * done + AHEAD + line)
        done += STEP
    x, y = words(a, n), words(b, n)
    while done < n and x[done] - y[done] == by:
        done += 1
    return done


@inner()
def same_bytes(a: Any, b: Any, n: Any) -> Any:
    """Say whether n bytes at address a are those at b."""
    done = np.int64(0)
    while done + 8 * STEP <= n:
        if step_differs(a + done, b + done, 0):
            return False
        done += 8 * STEP
    while done + 8 <= n:
        if word_at(a + done) != word_at(b + done):
            return False
        done += 8
    if done < n and n >= 8:
        return word_at(a + n - 8) == word_at(b + n - 8)
    while done < n:
        if byte_at(a + done) != byte_at(b + done):
            return False
        done += 1
    return True

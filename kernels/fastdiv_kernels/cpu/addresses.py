"""Arrays as addresses, for kernels whose tiles are written as LLVM IR."""

from typing import Any

from llvmlite import ir

from fastdiv_kernels.cpu.jit import cgutils, intrinsic, types

BYTE, SIZE = ir.IntType(8), ir.IntType(64)


@intrinsic
def address_of(typing_context: Any, array: Any) -> Any:
    """Return where the first number of an array in C order lies; it keeps nothing alive."""
    if array.layout != "C":
        raise TypeError(f"an array in C order is needed, not {array}")

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        return builder.ptrtoint(data, SIZE)

    return types.int64(array), generate


@intrinsic
def copy_bytes(typing_context: Any, to: Any, source: Any, count: Any) -> Any:
    """Copy bytes from one address to another; the two must not overlap."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointers = [builder.inttoptr(x, BYTE.as_pointer()) for x in args[:2]]
        cgutils.raw_memcpy(builder, *pointers, args[2], 1)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64), generate

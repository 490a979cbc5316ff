"""Many writes to a file in one call: Python's lock is let go of once."""

from typing import Any

from llvmlite import ir

from fastdiv_kernels.cpu.addresses import BYTE, SIZE
from fastdiv_kernels.cpu.jit import cgutils, intrinsic, kernel, types


@intrinsic
def write_bytes(
    typing_context: Any, descriptor: Any, address: Any, count: Any, place: Any
) -> Any:  # fmt: skip
    """Write bytes at an address to a place of a file; return how many were, or -1."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        of = ir.FunctionType(SIZE, [ir.IntType(32), BYTE.as_pointer(), SIZE, SIZE])
        function = cgutils.get_or_insert_function(builder.module, of, "pwrite")
        descriptor = builder.trunc(args[0], ir.IntType(32))
        pointer = builder.inttoptr(args[1], BYTE.as_pointer())
        return builder.call(function, [descriptor, pointer, *args[2:]])

    return types.int64(*(types.int64,) * 4), generate


@kernel
def write_parts(descriptor: Any, parts: Any) -> Any:
    """Write parts (k, 3), of an address, bytes and a place in the file each, in their order.

    Return how many were written whole, before the first that was not.
    """
    for k in range(len(parts)):
        if write_bytes(descriptor, parts[k, 0], parts[k, 1], parts[k, 2]) != parts[k, 1]:
            return k
    return len(parts)

"""Columns that lie apart, one a class, as the rows of a matrix."""

from typing import Any

from fastdiv_kernels.cpu.jit import intrinsic, kernel, types

ROWS = 64  # turned at once


@intrinsic
def number_at(typing_context: Any, like: Any, address: Any) -> Any:
    """Return the number of the type of `like` that lies at an address, aligned or not."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = context.get_value_type(signature.return_type)
        place = builder.inttoptr(args[1], kind.as_pointer())
        return builder.load(place, align=1)

    return like(like, types.int64), generate


@kernel
def gather_columns(addresses: Any, rows: Any) -> None:
    """Write columns to rows (n, c): their numbers, n of the same width, lie at addresses (c,)."""
    n, c = rows.shape
    size = rows.itemsize
    like = rows.dtype.type(0)
    for start in range(0, n, ROWS):
        stop = min(start + ROWS, n)
        for j in range(c):
            at = addresses[j]
            for i in range(start, stop):
                rows[i, j] = number_at(like, at + i * size)

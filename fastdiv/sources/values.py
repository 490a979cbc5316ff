"""Arrow arrays as NumPy arrays, in place where that can be: numbers, nulls, lists."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from fastdiv.sources.fields import plain
from fastdiv_kernels.contract import BFLOAT16, Array, as_float


def pieces(column: pa.Array) -> tuple[NDArray[np.int64], NDArray[np.int64], pa.Array]:
    """Return where each list begins in the values, how long it is, and the values.

    The values are those of these lists alone: a column may be a slice of a larger one.
    """
    n = len(column)
    if pa.types.is_fixed_size_list(column.type):
        # `values` are those of the whole array, whatever its offset.
        size = column.type.list_size
        values = column.values.slice(column.offset * size, n * size)
        return np.arange(n, dtype=np.int64) * size, np.full(n, size), plain(values)
    # `values` and `offsets` know of the slice together; `flatten` would drop null rows.
    offsets = column.offsets.to_numpy().astype(np.int64)
    if pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
        first, lengths = offsets[:-1], np.diff(offsets)
    else:  # a view
        first, lengths = offsets, column.sizes.to_numpy().astype(np.int64)
    low = int(first.min()) if n else 0
    high = int((first + lengths).max()) if n else 0
    return first - low, lengths, plain(column.values.slice(low, high - low))


def gapless(column: pa.Array, size: int) -> pa.Array | None:
    """Return the values of lists that all have `size` of them, none null, one after another.

    None of any other column, or where telling would take longer.
    """
    n = len(column)
    if pa.types.is_fixed_size_list(column.type):
        if column.type.list_size != size:
            return None
        values = column.values.slice(column.offset * size, n * size)
    elif pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
        wide = pa.types.is_large_list(column.type)
        dtype = np.dtype(np.int64 if wide else np.int32)
        if not n:
            return None
        at = np.frombuffer(column.buffers()[1], dtype, n + 1, column.offset * dtype.itemsize)
        if at[-1] - at[0] != n * size or ((at[1:] - at[:-1]) != size).any():
            return None
        values = column.values.slice(int(at[0]), n * size)
    else:
        return None
    values = plain(values)
    return None if values.null_count else values


def null_rows(column: pa.Array) -> NDArray[np.bool_]:
    """Say which values (n,) are null."""
    return np.asarray(pc.is_null(column).to_numpy(zero_copy_only=False))


def numbers(values: pa.Array, dtype: np.dtype[Any], words: np.dtype[Any] | None = None) -> Array:
    """Return numbers as an array, without a copy where there are no nulls and the dtype is right.

    What stands in the place of a null means nothing.
    """
    if pa.types.is_null(values.type):
        return np.zeros(len(values), dtype)
    if not pa.types.is_floating(values.type) and words is None:
        values = values.cast(pa.float64(), safe=False)
    width = values.type.bit_width // 8
    own = np.dtype(f"f{width}") if pa.types.is_floating(values.type) else words
    _, data = values.buffers()
    if data is None or not len(values):
        return np.zeros(len(values), dtype)
    return converted(np.frombuffer(data, own, len(values), values.offset * width), dtype)


def converted(numbers: Array, dtype: np.dtype[Any]) -> Array:
    """Return numbers in a dtype that holds them without loss."""
    if numbers.dtype == dtype:
        return numbers
    with np.errstate(invalid="ignore"):  # of signalling NaNs
        return (as_float(numbers) if numbers.dtype == BFLOAT16 else numbers).astype(dtype)


def strings(column: pa.Array) -> pa.Array:
    """Return strings, encoded or not, as large_string."""
    return plain(column).cast(pa.large_string())

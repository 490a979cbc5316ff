"""The form in which predictions are written to Parquet: what reads fastest, or what all tools take.

Predictions are never dictionary-encoded and have no statistics: neither would tell anything. Ids,
labels, epochs and splits have both, by which row groups are chosen and repeated values vanish.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from fastdiv.errors import UsageError
from fastdiv.sources.values import null_rows, numbers
from fastdiv_kernels.contract import BFLOAT16, Array, as_float

COMPRESSIONS = ("none", "snappy", "lz4", "zstd", "gzip", "brotli")
LAYOUTS = ("lists", "bytes")
ROW_GROUP_BYTES = 64 << 20
OTHER_BYTES = 16  # of a row, besides its predictions
PAGE_BYTES = 1 << 20  # of a compressed page: what is decompressed should stay in cache
PLAIN_PAGE_BYTES = 16 << 20  # of others, which are used where they lie: the fewer, the better


@dataclass(frozen=True, slots=True)
class Form:
    """How predictions are written.

    Parameters
    ----------
    layout : {"lists", "bytes"}
    dtype : {"float16"}, optional
        Default: that in which they come.
    compression : {"none", "snappy", "lz4", "zstd", "gzip", "brotli"}
    """

    layout: str
    dtype: str | None
    compression: str

    def __post_init__(self) -> None:
        for name, given, known in (
            ("layout", self.layout, LAYOUTS),
            ("compression", self.compression, COMPRESSIONS),
            ("dtype", self.dtype, (None, "float16")),
        ):
            if given not in known:
                some = ", ".join(x for x in known if x is not None)
                raise UsageError(f"{name} must be one of {some}, not {given!r}")

    def dtype_of(self, value: pa.DataType) -> np.dtype[Any]:
        """Return the dtype that numbers are written in; bfloat16 comes as 16-bit words."""
        if self.dtype is not None:
            return np.dtype(self.dtype)
        return np.dtype(value.to_pandas_dtype()) if pa.types.is_floating(value) else BFLOAT16

    def written(self, lists: pa.Array, name: str) -> pa.Array:
        """Return fixed-size lists (n,) in this form; `name` is what they are called in errors.

        A row with a null in it is null: it has no predictions.
        """
        if self.layout == "lists" and self.dtype is None:
            return lists
        n, c = len(lists), lists.type.list_size
        values = lists.values.slice(lists.offset * c, n * c)
        came = Form("lists", None, self.compression).dtype_of(values.type)
        x = numbers(values, came, came).reshape(n, c)
        missing = null_rows(lists) if lists.null_count else np.zeros(n, np.bool_)
        if values.null_count:
            missing = missing | null_rows(values).reshape(n, c).any(axis=1)
        dtype = self.dtype_of(values.type)
        if dtype != came:
            x = _narrowed(x, missing, dtype, name)
        valid = _valid(missing) if missing.any() else None
        data = pa.py_buffer(np.ascontiguousarray(x))
        if self.layout == "bytes":
            type_ = pa.binary(c * dtype.itemsize)
            return pa.Array.from_buffers(type_, n, [valid, data])
        flat = pa.Array.from_buffers(pa.from_numpy_dtype(dtype), n * c, [None, data])
        type_ = pa.list_(pa.from_numpy_dtype(dtype), c)
        return pa.Array.from_buffers(type_, n, [valid], children=[flat])

    def open(self, path: Path, schema: pa.Schema, predictions: str) -> pq.ParquetWriter:
        """Begin a file."""
        others = [name for name in schema.names if name != predictions]
        return pq.ParquetWriter(
            path,
            schema,
            compression=self.compression,
            use_dictionary=[name for name in others if name != "sample_id"],
            write_statistics=others,
            data_page_size=PLAIN_PAGE_BYTES if self.compression == "none" else PAGE_BYTES,
        )


def _narrowed(x: Array, missing: Array, dtype: np.dtype[Any], name: str) -> Array:
    """Return numbers (n, c) in a narrower dtype, in which no finite one may become infinite."""
    if x.dtype == BFLOAT16:
        x = as_float(x)
    with np.errstate(over="ignore", invalid="ignore"):
        narrow: Array = x.astype(dtype)
    lost = np.isinf(narrow) & np.isfinite(x) & ~missing[:, None]
    if lost.any():
        row, column = (int(i[0]) for i in np.nonzero(lost))
        raise UsageError(
            f"{name}, row {row}: {x[row, column]:g} is beyond {dtype.name}, whose largest is "
            f"{np.finfo(dtype).max:g}: write it as it is"
        )
    return narrow


def _valid(missing: Array) -> pa.Buffer:
    """Return which rows (n,) are not missing, as Arrow holds it."""
    return pa.py_buffer(np.packbits(~missing, bitorder="little"))

"""Arrays in memory as Arrow columns, without a copy: the one way in for all that is no Arrow."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import pyarrow as pa

from fastdiv.arrays import as_array, as_predictions
from fastdiv.errors import UsageError
from fastdiv.sources.fields import is_float_list, is_list, is_word_list
from fastdiv.sources.metadata import with_metadata
from fastdiv_kernels.contract import Array

PREDICTIONS, LABELS, IDS = "predictions", "labels", "ids"


def as_column(array: Array) -> pa.Array:
    """Return an array (n,), (n, 1) or (n, c) as a column of n values or lists; others are refused.

    Bytes of a native, contiguous array are used where they lie.
    """
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.dtype.kind == "V" and array.dtype.itemsize == 2 and array.dtype.names is None:
        array = array.view(np.uint16)  # how np.save writes bfloat16
    if array.ndim not in (1, 2) or array.dtype.kind not in "biufUST":
        raise UsageError(f"an array of {array.dtype}, shape {array.shape}, is no column")
    array = np.ascontiguousarray(array, array.dtype.newbyteorder("="))
    if array.dtype.kind in "UT":
        values = pa.array(array.ravel().tolist(), pa.large_string())
    elif array.dtype.kind == "S":
        values = pa.array(array.ravel().tolist(), pa.large_binary())
    else:
        values = pa.array(array.ravel())
    if array.ndim == 1:
        return values
    return pa.FixedSizeListArray.from_arrays(values, array.shape[1])


def as_record_batch(
    predictions: Any, labels: Any, ids: Any, name: str, dtype: str | None = None
) -> pa.RecordBatch:
    """Return arrays as columns `predictions`, `labels` and, unless None, `ids`.

    Parameters
    ----------
    predictions : (n, c)
        NumPy, DLPack, or an Arrow array of lists; float16, bfloat16, float32 or float64.
    labels : (n,), (n, 1) or one-hot (n, c)
        Integers or class names.
    ids : (n,) or None
        Integers, strings or bytes.
    name : str
        What the arrays are called in errors.
    dtype : {"float16", "bfloat16"}, optional
        What 16-bit words are; arrays that are bfloat16 by themselves need none.
    """
    with named(name):
        of_predictions = _predictions(predictions, dtype)
    columns = columns_beside(len(of_predictions), labels, ids, name)
    batch = pa.record_batch({PREDICTIONS: of_predictions, **columns})
    if is_word_list(of_predictions.type) and dtype in (None, "bfloat16"):
        return batch.replace_schema_metadata(with_metadata(batch.schema, dtype="bfloat16").metadata)
    return batch


@contextmanager
def named(name: str) -> Iterator[None]:
    """Say in errors what the arrays that they are about are called."""
    try:
        yield
    except UsageError as error:
        raise UsageError(f"{name}: {error}") from None


def columns_beside(n: int, labels: Any, ids: Any, name: str) -> dict[str, pa.Array]:
    """Return labels and ids of n predictions as columns; see `as_record_batch`."""
    with named(name):
        columns = {LABELS: _column(labels, "labels")}
        if ids is not None:
            columns[IDS] = _column(ids, "ids")
            if is_list(columns[IDS].type) or pa.types.is_floating(columns[IDS].type):
                raise UsageError(f"ids must be integers or strings, not {columns[IDS].type}")
        for what, column in columns.items():
            if len(column) != n:
                raise UsageError(f"{what} must have shape ({n},), not ({len(column)},)")
    return columns


def _predictions(values: Any, dtype: str | None) -> pa.Array:
    is_frame = len(getattr(values, "shape", ())) == 2  # its columns are the classes
    if not is_frame and (column := _arrow(values)) is not None:
        if is_float_list(column.type) or is_word_list(column.type):
            return column
        raise UsageError(f"predictions must be lists of floats, not {column.type}")
    x = as_predictions(values, dtype)
    return pa.FixedSizeListArray.from_arrays(pa.array(x.ravel()), x.shape[1])


def _column(values: Any, what: str) -> pa.Array:
    if (column := _arrow(values)) is not None:
        return column
    array, _ = as_array(values, what)
    if array.dtype.kind == "O" and what != "predictions":
        kinds = (str, os.PathLike, uuid.UUID)
        array = array.astype(str) if all(isinstance(v, kinds) for v in array.ravel()) else array
    try:
        return as_column(array)
    except UsageError:
        need = "integers, strings or one-hot rows" if what == "labels" else "integers or strings"
        raise UsageError(
            f"{what} must be {need}, not {array.dtype} of shape {array.shape}"
        ) from None


def _arrow(values: Any) -> pa.Array | None:
    """Return what is an Arrow array, or exports one, as a single array."""
    if isinstance(values, pa.ChunkedArray) or hasattr(values, "__arrow_c_stream__"):
        values = pa.chunked_array(values) if not isinstance(values, pa.ChunkedArray) else values
        return values.chunk(0) if values.num_chunks == 1 else values.combine_chunks()
    if isinstance(values, pa.Array):
        return values
    if hasattr(values, "__arrow_c_array__"):
        return pa.array(values)
    return None


def taken_apart(data: Any, name: str) -> tuple[Any, Any, Any]:
    """Return predictions, labels and ids of a tuple or a mapping."""
    if isinstance(data, Mapping):
        unknown = set(data) - {PREDICTIONS, LABELS, IDS}
        if unknown or not {PREDICTIONS, LABELS} <= set(data):
            raise UsageError(
                f"{name}: keys must be predictions, labels and perhaps ids, not "
                f"{', '.join(map(str, data))}"
            )
        data = (data[PREDICTIONS], data[LABELS], data.get(IDS))
    if len(data) not in (2, 3):
        raise UsageError(
            f"{name}: needed is (predictions, labels) or (predictions, labels, "
            f"ids), not {len(data)} things"
        )
    predictions, labels, ids = (*data, None)[:3]
    return predictions, labels, ids

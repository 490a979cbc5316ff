"""From Arrow record batches to Batches: all checking and conversion happens here, once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from fastdiv.batch import Batch, Chunk, IdValues
from fastdiv.errors import DataError
from fastdiv.sources.layout import Layout, is_string
from fastdiv_kernels.contract import Array, Reason

Place = Callable[[Chunk, int], str]  # a row of a chunk -> its place, in words
PlaceInBatch = Callable[[int], str]
INT32_MAX = np.iinfo(np.int32).max


def decode(batch: pa.RecordBatch, layout: Layout, chunk: Chunk, start: int, place: Place) -> Batch:
    """Turn rows of a chunk, from `start` on, into a Batch; `place` names one of them in errors."""

    def place_in_batch(row: int) -> str:
        return place(chunk, start + row)

    n = batch.num_rows
    predictions, problems = predictions_of(batch, layout)
    assert layout.label is not None
    labels = _labels(batch.column(layout.label), layout, place_in_batch)
    epochs: NDArray[np.int64] | int
    if layout.epoch is not None:
        epochs = _epochs(batch.column(layout.epoch), layout.epoch, place_in_batch)
    else:
        assert chunk.epoch is not None
        epochs = chunk.epoch
    return Batch(
        chunk=chunk,
        start=start,
        predictions=predictions,
        labels=labels,
        ids=None if layout.id is None else _ids(batch.column(layout.id), layout.id, place_in_batch),
        epochs=epochs,
        splits=None if layout.split is None else strings(batch.column(layout.split)),
        problems=problems if problems.any() else None,
        nbytes=predictions.nbytes + labels.nbytes + 8 * n * (layout.id is not None),
    )


def predictions_of(batch: pa.RecordBatch, layout: Layout) -> tuple[Array, NDArray[np.uint8]]:
    """Return predictions (n, c), and the Reason (n,) why a row has none, else 0."""
    problems = np.zeros(batch.num_rows, np.uint8)
    if layout.wide:
        return _from_columns(batch, layout, problems), problems
    return _from_list(batch.column(layout.predictions[0]), layout, problems), problems


def sound_predictions(batch: pa.RecordBatch, layout: Layout) -> Array:
    """Return the predictions (m, c) of the rows that have them."""
    predictions, problems = predictions_of(batch, layout)
    return np.asarray(predictions[problems == 0])


def strings(column: pa.Array) -> pa.Array:
    """Return strings, dictionary-encoded or not, as large_string."""
    return column.cast(pa.large_string())


def _from_list(column: pa.Array, layout: Layout, problems: NDArray[np.uint8]) -> Array:
    """Return the lists of a column as (n, c), in place where nothing is missing."""
    n, c = len(column), layout.classes
    if pa.types.is_fixed_size_list(column.type):
        first = np.arange(n, dtype=np.int64) * c + column.offset * c
        lengths = np.full(n, column.type.list_size)
        values = column.values  # of the whole array, whatever its offset
    else:
        # `values` and `offsets` know of the slice together; `flatten` would drop null rows.
        offsets = column.offsets.to_numpy()
        first, lengths = offsets[:-1].astype(np.int64), np.diff(offsets)
        values = column.values
    if column.null_count:
        problems[_null_rows(column)] = Reason.NULL
    problems[(lengths != c) & (problems == 0)] = Reason.LENGTH
    numbers = _numbers(values, layout.dtype)
    usable = problems == 0
    if usable.all():
        start = int(first[0]) if n else 0
        predictions = numbers[start : start + n * c].reshape(n, c)
    else:
        predictions = np.full((n, c), np.nan, layout.dtype)
        predictions[usable] = numbers[first[usable, None] + np.arange(c)]
    if values.null_count:
        missing = np.zeros((n, c), np.bool_)
        nulls = _null_rows(values)
        missing[usable] = nulls[first[usable, None] + np.arange(c)]
        problems[missing.any(axis=1)] = Reason.NULL
    return predictions


def _from_columns(batch: pa.RecordBatch, layout: Layout, problems: NDArray[np.uint8]) -> Array:
    """Gather one column a class into (n, c)."""
    predictions = np.empty((batch.num_rows, layout.classes), layout.dtype)
    for j, name in enumerate(layout.predictions):
        column = batch.column(name)
        predictions[:, j] = _numbers(column, layout.dtype)
        if column.null_count:
            problems[_null_rows(column)] = Reason.NULL
    return predictions


def _null_rows(column: pa.Array) -> NDArray[np.bool_]:
    return np.asarray(pc.is_null(column).to_numpy(zero_copy_only=False))


def _numbers(values: pa.Array, dtype: np.dtype[Any]) -> Array:
    """Return floats as an array, without a copy where there are no nulls and the dtype is right.

    What stands in the place of a null means nothing.
    """
    width = values.type.bit_width // 8
    own = np.dtype(f"f{width}")
    _, data = values.buffers()
    if data is None or not len(values):
        return np.zeros(len(values), dtype)
    numbers = np.frombuffer(data, own, len(values), values.offset * width)
    return numbers if own == dtype else numbers.astype(dtype)


def _labels(column: pa.Array, layout: Layout, place: PlaceInBatch) -> NDArray[np.int32]:
    """Return labels as int32, with -1 for what is no class."""
    if is_string(column.type):
        return label_names(column, layout.class_names or ())
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pa.types.is_boolean(column.type):
        column = column.cast(pa.int8())
    if column.type == pa.int32() and not column.null_count:
        return np.asarray(column.to_numpy())
    labels = (pc.fill_null(column, 0) if column.null_count else column).to_numpy()
    if labels.dtype.kind == "f":
        labels = labels.astype(np.float64)
        labels[np.isnan(labels)] = -1  # how pandas writes a missing integer
        broken = np.flatnonzero(labels != np.floor(labels))
        if len(broken):
            raise DataError(
                f"{place(int(broken[0]))}: label {labels[broken[0]]:g} in column "
                f"{layout.label!r} is no whole number: give class indices or names"
            )
    result = np.where((labels < 0) | (labels > INT32_MAX), -1, labels).astype(np.int32)
    if column.null_count:
        result[_null_rows(column)] = -1
    return result


def label_names(column: pa.Array, class_names: Sequence[str]) -> NDArray[np.int32]:
    """Return the class of each name (n,), -1 where it is none."""
    names = pa.array(class_names, pa.large_string())
    if pa.types.is_dictionary(column.type):
        of_code = pc.fill_null(pc.index_in(strings(column.dictionary), names), -1).to_numpy()
        codes = pc.fill_null(column.indices.cast(pa.int64()), -1).to_numpy()
        return np.asarray(np.append(of_code, -1)[codes], np.int32)  # code -1 finds the last
    found = pc.fill_null(pc.index_in(strings(column), names), -1)
    return np.asarray(found.to_numpy(), np.int32)


def _ids(column: pa.Array, name: str, place: PlaceInBatch) -> IdValues:
    if column.null_count:
        row = int(np.flatnonzero(_null_rows(column))[0])
        raise DataError(
            f"{place(row)}: the id in column {name!r} is null: a sample without an id cannot be "
            "matched between epochs; fill it, or give --id none to match by position"
        )
    if is_string(column.type):
        return strings(column)
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    return integer_ids(column.to_numpy())


def integer_ids(ids: Array) -> IdValues:
    """Return integers as the ledger keeps them: int64, or uint64 where they were that."""
    return np.ascontiguousarray(ids, np.uint64 if ids.dtype == np.uint64 else np.int64)


def _epochs(column: pa.Array, name: str, place: PlaceInBatch) -> NDArray[np.int64]:
    if column.null_count:
        row = int(np.flatnonzero(_null_rows(column))[0])
        raise DataError(f"{place(row)}: the epoch in column {name!r} is null: fill it")
    try:
        return np.asarray(column.cast(pa.int64()).to_numpy(zero_copy_only=False))
    except pa.ArrowInvalid as error:
        raise DataError(
            f"{place(0)} and on: column {name!r} holds no whole epoch numbers: {error}"
        ) from None

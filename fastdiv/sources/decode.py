"""From Arrow record batches to Batches: all checking and conversion happens here, once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from fastdiv.batch import Batch, Chunk, IdValues
from fastdiv.errors import DataError
from fastdiv.sources.fields import (
    flat_column,
    is_binary,
    is_list,
    is_string,
    is_uuid,
    plain,
    plain_column,
)
from fastdiv.sources.layout import Layout
from fastdiv_kernels.contract import BFLOAT16, Array, Kind, Reason, as_float

Place = Callable[[Chunk, int], str]  # a row of a chunk -> its place, in words
PlaceInBatch = Callable[[int], str]
INT32_MAX = np.iinfo(np.int32).max


def decode(batch: pa.RecordBatch, layout: Layout, chunk: Chunk, start: int, place: Place) -> Batch:
    """Turn rows of a chunk, from `start` on, into a Batch; `place` names one of them in errors."""

    def place_in_batch(row: int) -> str:
        return place(chunk, start + row)

    n = batch.num_rows
    read = predictions_of(batch, layout)
    labels = _labels(flat_column(batch, layout.label), layout, place_in_batch)
    if read.lengths is not None:  # a label beyond the choices of its row is none of them
        labels = np.where(labels < read.lengths, labels, -1).astype(np.int32)
    epochs: NDArray[np.int64] | int
    if layout.epoch is not None:
        epochs = _epochs(flat_column(batch, layout.epoch), layout, place_in_batch)
    else:
        assert chunk.epoch is not None
        epochs = chunk.epoch
    ids = None
    if layout.id is not None:
        ids = _ids(flat_column(batch, layout.id), layout.id, place_in_batch)
    return Batch(
        chunk=chunk,
        start=start,
        predictions=read.predictions,
        labels=labels,
        ids=ids,
        epochs=epochs,
        splits=None if layout.split is None else strings(flat_column(batch, layout.split)),
        problems=read.problems if read.problems.any() else None,
        nbytes=read.predictions.nbytes + labels.nbytes + 8 * n * (layout.id is not None),
    )


# -- predictions -------------------------------------------------------------------------------


@dataclass(slots=True)
class Read:
    """Predictions as they were read."""

    predictions: Array  # (n, c)
    problems: NDArray[np.uint8]  # (n,) the Reason why a row has none, else 0
    lengths: NDArray[np.int64] | None = None  # (n,) choices of each row, where they differ


def predictions_of(batch: pa.RecordBatch, layout: Layout) -> Read:
    """Return the predictions of a record batch, of whatever layout."""
    problems = np.zeros(batch.num_rows, np.uint8)
    if layout.wide:
        return Read(_from_columns(batch, layout, problems), problems)
    column = plain(flat_column(batch, layout.predictions[0]))
    if pa.types.is_null(column.type):
        problems[:] = Reason.NULL
        return Read(_unknown(batch.num_rows, layout), problems)
    if layout.positive is not None:
        scores = _scores(column, layout, problems)
        return Read(_both_classes(scores, layout), problems)
    if is_binary(column.type):
        return Read(_from_bytes(column, layout, problems), problems)
    return _from_list(column, layout, problems)


def sound_predictions(batch: pa.RecordBatch, layout: Layout) -> Array:
    """Return the predictions (m, c) of the rows that have them; single scores as (m, 1)."""
    if layout.positive is not None:
        problems = np.zeros(batch.num_rows, np.uint8)
        column = plain(flat_column(batch, layout.predictions[0]))
        return np.asarray(_scores(column, layout, problems)[problems == 0, None])
    read = predictions_of(batch, layout)
    return np.asarray(read.predictions[read.problems == 0])


def _unknown(n: int, layout: Layout) -> Array:
    """Return predictions (n, c) of rows that have none; what stands there means nothing."""
    return np.zeros((n, layout.classes), layout.dtype)


def _from_list(column: pa.Array, layout: Layout, problems: NDArray[np.uint8]) -> Read:
    """Return the lists of a column as (n, c), in place where nothing is missing."""
    n, c = len(column), layout.classes
    first, lengths, values = _pieces(column)
    if column.null_count:
        problems[_null_rows(column)] = Reason.NULL
    short = (lengths > 0) & (lengths < c) if layout.padded else None
    wrong = lengths != c if short is None else (lengths != c) & ~short
    problems[wrong & (problems == 0)] = Reason.LENGTH
    numbers = _numbers(values, layout.dtype, layout.words)
    usable = problems == 0
    everything = bool(usable.all()) and (short is None or not short.any())
    if everything and _are_consecutive(first, c):
        start = int(first[0]) if n else 0
        predictions = numbers[start : start + n * c].reshape(n, c)
    elif short is not None:
        predictions = np.full((n, c), -np.inf, layout.dtype)
        for row in np.flatnonzero(usable):
            stop = lengths[row]
            predictions[row, :stop] = numbers[first[row] : first[row] + stop]
    else:
        predictions = _unknown(n, layout)
        predictions[usable] = numbers[first[usable, None] + np.arange(c)]
    if values.null_count:
        nulls = np.flatnonzero(_null_rows(values))
        at = np.searchsorted(nulls, first)
        has = (at < len(nulls)) & (nulls[np.minimum(at, len(nulls) - 1)] < first + lengths)
        problems[has & usable] = Reason.NULL
    return Read(predictions, problems, lengths if layout.padded else None)


def _pieces(column: pa.Array) -> tuple[NDArray[np.int64], NDArray[np.int64], pa.Array]:
    """Return where each list begins in the values, how long it is, and the values."""
    n = len(column)
    if pa.types.is_fixed_size_list(column.type):
        size = column.type.list_size
        # `values` are those of the whole array, whatever its offset.
        first = np.arange(n, dtype=np.int64) * size + column.offset * size
        return first, np.full(n, size), plain(column.values)
    # `values` and `offsets` know of the slice together; `flatten` would drop null rows.
    offsets = column.offsets.to_numpy().astype(np.int64)
    if pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
        return offsets[:-1], np.diff(offsets), plain(column.values)
    return offsets, column.sizes.to_numpy().astype(np.int64), plain(column.values)  # views


def _are_consecutive(first: NDArray[np.int64], c: int) -> bool:
    """Whether lists of c values lie one after another."""
    return bool((np.diff(first) == c).all())


def _from_bytes(column: pa.Array, layout: Layout, problems: NDArray[np.uint8]) -> Array:
    """Return the numbers that the bytes of each row are, in place where nothing is missing."""
    assert layout.words is not None
    n, c = len(column), layout.classes
    width = c * layout.words.itemsize
    if column.null_count:
        problems[_null_rows(column)] = Reason.NULL
    if pa.types.is_fixed_size_binary(column.type):
        size = column.type.byte_width
        data = column.buffers()[1]
        start = column.offset * size
        lengths = np.full(n, size)
        offsets = start + np.arange(n, dtype=np.int64) * size
    else:
        column = column.cast(pa.large_binary())
        _, ends, data = column.buffers()
        offsets = np.frombuffer(ends, np.int64, n + 1, column.offset * 8)
        offsets, lengths = offsets[:-1], np.diff(offsets)
    problems[(lengths != width) & (problems == 0)] = Reason.LENGTH
    usable = problems == 0
    used = np.zeros(0, np.uint8) if data is None else np.frombuffer(data, np.uint8)
    if n and usable.all() and _are_consecutive(offsets, width):
        whole = used[offsets[0] : offsets[0] + n * width]
    else:
        rows = np.zeros((n, width), np.uint8)
        rows[usable] = used[offsets[usable, None] + np.arange(width)]
        whole = rows.ravel()
    numbers = np.ndarray((n, c), layout.words, whole)  # wherever it lies: bytes are not aligned
    return _converted(numbers, layout.dtype)


def _from_columns(batch: pa.RecordBatch, layout: Layout, problems: NDArray[np.uint8]) -> Array:
    """Gather one column a class into (n, c)."""
    predictions = np.empty((batch.num_rows, layout.classes), layout.dtype)
    for j, name in enumerate(layout.predictions):
        column = plain(flat_column(batch, name))
        predictions[:, j] = _numbers(column, layout.dtype)
        if column.null_count:
            problems[_null_rows(column)] = Reason.NULL
    return predictions


def _scores(column: pa.Array, layout: Layout, problems: NDArray[np.uint8]) -> Array:
    """Return the scores (n,) of one of two classes."""
    if column.null_count:
        problems[_null_rows(column)] = Reason.NULL
    return _numbers(column, layout.dtype)


def _both_classes(scores: Array, layout: Layout) -> Array:
    """Return the predictions (n, 2) of two classes, of one of which there are scores (n,)."""
    both = np.empty((len(scores), 2), layout.dtype)
    both[:, layout.positive] = scores
    with np.errstate(divide="ignore", invalid="ignore"):
        if layout.kind == Kind.LOGITS:
            # The other logit is 0; a score of NaN or infinity makes its row invalid by itself.
            other = np.zeros_like(scores)
        elif layout.kind == Kind.PROBS:
            other = 1 - scores
        else:
            other = np.log1p(-np.exp(scores))
    both[:, 1 - (layout.positive or 0)] = other
    return both


def _null_rows(column: pa.Array) -> NDArray[np.bool_]:
    return np.asarray(pc.is_null(column).to_numpy(zero_copy_only=False))


def _numbers(values: pa.Array, dtype: np.dtype[Any], words: np.dtype[Any] | None = None) -> Array:
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
    return _converted(np.frombuffer(data, own, len(values), values.offset * width), dtype)


def _converted(numbers: Array, dtype: np.dtype[Any]) -> Array:
    """Return numbers in a dtype that holds them without loss."""
    if numbers.dtype == dtype:
        return numbers
    with np.errstate(invalid="ignore"):  # of signalling NaNs
        return (as_float(numbers) if numbers.dtype == BFLOAT16 else numbers).astype(dtype)


# -- labels ------------------------------------------------------------------------------------


def _labels(column: pa.Array, layout: Layout, place: PlaceInBatch) -> NDArray[np.int32]:
    """Return labels as int32, with -1 for what is no class."""
    if pa.types.is_null(column.type):
        return np.full(len(column), -1, np.int32)
    if is_string(column.type):
        if layout.against_rest is not None:
            return _against_rest(strings(column), pa.scalar(layout.against_rest, pa.large_string()))
        return label_names(column, layout.class_names or ())
    column = plain(column)
    if is_list(column.type):
        return _one_hot(column, layout, place)
    if layout.against_rest is not None:
        values = column.cast(pa.float64())
        return _against_rest(values, pa.scalar(_number(layout.against_rest), pa.float64()))
    return _class_indices(column, layout, place)


def _class_indices(column: pa.Array, layout: Layout, place: PlaceInBatch) -> NDArray[np.int32]:
    if pa.types.is_boolean(column.type):
        column = column.cast(pa.int8())
    if pa.types.is_decimal(column.type):
        column = column.cast(pa.float64())
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


def _one_hot(column: pa.Array, layout: Layout, place: PlaceInBatch) -> NDArray[np.int32]:
    """Return the class that a list of one index, or of a single 1 among zeros, stands for."""
    first, lengths, values = _pieces(column)
    lengths = np.where(_null_rows(column), 0, lengths)
    labels = np.full(len(column), -1, np.int32)
    single = np.flatnonzero(lengths == 1)
    if len(single):
        taken = values.take(pa.array(first[single]))
        labels[single] = _class_indices(plain(taken), layout, lambda row: place(int(single[row])))
    rows = np.flatnonzero(lengths == layout.classes)
    if len(rows):
        if pa.types.is_boolean(values.type):
            values = values.cast(pa.int8())
        numbers = _numbers(values, np.dtype(np.float64))
        numbers = np.where(_null_rows(values), np.nan, numbers) if values.null_count else numbers
        of_row = numbers[first[rows, None] + np.arange(layout.classes)]
        ones, zeros = (of_row == 1).sum(axis=1), (of_row == 0).sum(axis=1)
        is_one_hot = (ones == 1) & (zeros == layout.classes - 1)
        labels[rows] = np.where(is_one_hot, (of_row == 1).argmax(axis=1), -1)
    return labels


def _against_rest(column: pa.Array, positive: pa.Scalar) -> NDArray[np.int32]:
    """Return 1 for the positive label, 0 for any other, -1 for none."""
    found = pc.fill_null(pc.equal(column, positive).cast(pa.int32()), -1)
    labels = np.asarray(found.to_numpy(), np.int32)
    if pa.types.is_floating(column.type):
        nan = pc.fill_null(pc.is_nan(column), False).to_numpy(zero_copy_only=False)
        labels = np.where(nan, np.int32(-1), labels)
    return labels


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise DataError(f"labels are numbers, and --positive {text!r} is none") from None


def label_names(column: pa.Array, class_names: Sequence[str]) -> NDArray[np.int32]:
    """Return the class of each name (n,), -1 where it is none."""
    names = pa.array(class_names, pa.large_string())
    if pa.types.is_dictionary(column.type):
        of_code = pc.fill_null(pc.index_in(strings(column.dictionary), names), -1).to_numpy()
        codes = pc.fill_null(column.indices.cast(pa.int64()), -1).to_numpy()
        return np.asarray(np.append(of_code, -1)[codes], np.int32)  # code -1 finds the last
    found = pc.fill_null(pc.index_in(strings(column), names), -1)
    return np.asarray(found.to_numpy(), np.int32)


def label_texts(sample: pa.Table, label: str) -> set[str]:
    """Return the labels of sampled rows as text."""
    column = plain_column(sample, label)
    if is_list(column.type) or pa.types.is_null(column.type):
        return set()
    if pa.types.is_decimal(column.type):
        column = column.cast(pa.float64())
    found = pc.unique(column.cast(pa.large_string())).drop_null().to_pylist()
    return {text.removesuffix(".0") for text in found} - {"nan"}


def strings(column: pa.Array) -> pa.Array:
    """Return strings, encoded or not, as large_string."""
    return plain(column).cast(pa.large_string())


# -- ids and epochs ----------------------------------------------------------------------------


def _ids(column: pa.Array, name: str, place: PlaceInBatch) -> IdValues:
    if column.null_count:
        row = int(np.flatnonzero(_null_rows(column))[0])
        raise DataError(
            f"{place(row)}: the id in column {name!r} is null: a sample without an id cannot be "
            "matched between epochs; fill it, or give --id none to match by position"
        )
    uuid = is_uuid(column.type)
    column = plain(column)
    if uuid:
        return _uuid_texts(column)
    if is_string(column.type) or pa.types.is_decimal(column.type):
        return strings(column)
    if is_binary(column.type):
        return column.cast(pa.large_binary())
    return integer_ids(column.to_numpy())


def _uuid_texts(column: pa.Array) -> pa.Array:
    """Return UUIDs (n,) of 16 bytes in their usual form, as large_string."""
    n = len(column)
    raw = np.frombuffer(column.buffers()[1], np.uint8, 16 * n, 16 * column.offset).reshape(n, 16)
    digits = np.frombuffer(b"0123456789abcdef", np.uint8)
    hexadecimal = np.stack([digits[raw >> 4], digits[raw & 15]], axis=2).reshape(n, 32)
    text = np.full((n, 36), ord("-"), np.uint8)
    for start, stop, at in ((0, 8, 0), (8, 12, 9), (12, 16, 14), (16, 20, 19), (20, 32, 24)):
        text[:, at : at + stop - start] = hexadecimal[:, start:stop]
    offsets = pa.py_buffer(np.arange(0, 36 * (n + 1), 36, dtype=np.int64))
    return pa.Array.from_buffers(pa.large_string(), n, [None, offsets, pa.py_buffer(text)])


def integer_ids(ids: Array) -> IdValues:
    """Return integers as the ledger keeps them: int64, or uint64 where they were that."""
    return np.ascontiguousarray(ids, np.uint64 if ids.dtype == np.uint64 else np.int64)


def _epochs(column: pa.Array, layout: Layout, place: PlaceInBatch) -> NDArray[np.int64]:
    name = layout.epoch
    if column.null_count:
        row = int(np.flatnonzero(_null_rows(column))[0])
        raise DataError(f"{place(row)}: the epoch in column {name!r} is null: fill it")
    if is_string(column.type):
        assert layout.epoch_names is not None
        return layout.epoch_names.numbers(strings(column))
    try:
        return np.asarray(plain(column).cast(pa.int64()).to_numpy(zero_copy_only=False))
    except pa.ArrowInvalid as error:
        raise DataError(
            f"{place(0)} and on: column {name!r} holds no whole epoch numbers: {error}"
        ) from None

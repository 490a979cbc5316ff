"""From Arrow record batches to Batches: all checking and conversion happens here, once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from fastdiv.arrays import address
from fastdiv.batch import Batch, Chunk, IdValues
from fastdiv.errors import DataError
from fastdiv.sources.fields import (
    flat_column,
    is_binary,
    is_integer,
    is_list,
    is_string,
    is_uuid,
    plain,
)
from fastdiv.sources.labels import PlaceInBatch, class_labels
from fastdiv.sources.layout import Layout
from fastdiv.sources.rooms import rooms
from fastdiv.sources.values import converted, gapless, null_rows, numbers, pieces, strings
from fastdiv_kernels.contract import Array, Kind, Reason

Place = Callable[[Chunk, int], str]  # a row of a chunk -> its place, in words


def decode(
    batch: pa.RecordBatch, pieces: Sequence[pa.Array] | None, layout: Layout, chunk: Chunk,
    start: int, place: Place,
) -> Batch:  # fmt: skip
    """Turn rows of a chunk, from `start` on, into a Batch; `place` names one of them in errors.

    `pieces` are the predictions, where they are no column of the record batch.
    """

    def place_in_batch(row: int) -> str:
        return place(chunk, start + row)

    n = batch.num_rows
    if pieces is None:
        reads = [predictions_of(batch, layout)]
    else:
        reads = [predictions_in(plain(piece), layout) for piece in pieces]
    labels = class_labels(flat_column(batch, layout.label), layout, place_in_batch)
    if any(read.lengths is not None for read in reads):
        choices = np.concatenate(
            [
                np.full(len(read.predictions), layout.classes)
                if read.lengths is None
                else read.lengths
                for read in reads
            ]
        )
        # A label beyond the choices of its row is none of them.
        labels = np.where(labels < choices, labels, -1).astype(np.int32)
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
        pieces=[read.predictions for read in reads],
        labels=labels,
        ids=ids,
        epochs=epochs,
        splits=None if layout.split is None else strings(flat_column(batch, layout.split)),
        problems=_problems(reads),
        nbytes=sum(read.predictions.nbytes for read in reads)
        + labels.nbytes
        + 8 * n * (layout.id is not None),
    )


# -- predictions -------------------------------------------------------------------------------


@dataclass(slots=True)
class Read:
    """Predictions as they were read."""

    predictions: Array  # (n, c)
    problems: NDArray[np.uint8] | None  # (n,) the Reason why a row has none, else 0
    lengths: NDArray[np.int64] | None = None  # (n,) choices of each row, where they differ


def _problems(reads: Sequence[Read]) -> NDArray[np.uint8] | None:
    """Return the problems (n,) of all rows; None where there is none."""
    if not any(read.problems is not None and read.problems.any() for read in reads):
        return None
    return np.concatenate(
        [
            np.zeros(len(read.predictions), np.uint8) if read.problems is None else read.problems
            for read in reads
        ]
    )


def predictions_of(batch: pa.RecordBatch, layout: Layout) -> Read:
    """Return the predictions of a record batch, of whatever layout."""
    if layout.wide:
        problems = np.zeros(batch.num_rows, np.uint8)
        return Read(_from_columns(batch, layout, problems), problems)
    return predictions_in(plain(flat_column(batch, layout.predictions[0])), layout)


def predictions_in(column: pa.Array, layout: Layout) -> Read:
    """Return the predictions in a column, which has no extension type and no encoding."""
    n, c = len(column), layout.classes
    if is_list(column.type) and not column.null_count:
        whole = gapless(column, c)
        if whole is not None:  # in place
            return Read(numbers(whole, layout.dtype, layout.words).reshape(n, c), None)
    problems = np.zeros(n, np.uint8)
    if column.null_count == n:  # of whatever type, if nothing told it
        problems[:] = Reason.NULL
        return Read(_unknown(n, layout), problems)
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
    sound = slice(None) if read.problems is None else read.problems == 0
    return np.asarray(read.predictions[sound])


def _unknown(n: int, layout: Layout) -> Array:
    """Return predictions (n, c) of rows that have none; what stands there means nothing."""
    return np.zeros((n, layout.classes), layout.dtype)


def _from_list(column: pa.Array, layout: Layout, problems: NDArray[np.uint8]) -> Read:
    """Return the lists of a column as (n, c), in place where nothing is missing."""
    n, c = len(column), layout.classes
    first, lengths, values = pieces(column)
    if column.null_count:
        problems[null_rows(column)] = Reason.NULL
    short = (lengths > 0) & (lengths < c) if layout.padded else None
    wrong = lengths != c if short is None else (lengths != c) & ~short
    problems[wrong & (problems == 0)] = Reason.LENGTH
    found = numbers(values, layout.dtype, layout.words)
    usable = problems == 0
    everything = bool(usable.all()) and (short is None or not short.any())
    if everything and _are_consecutive(first, c):
        start = int(first[0]) if n else 0
        predictions = found[start : start + n * c].reshape(n, c)
    elif short is not None:
        predictions = np.full((n, c), -np.inf, layout.dtype)
        for row in np.flatnonzero(usable):
            stop = lengths[row]
            predictions[row, :stop] = found[first[row] : first[row] + stop]
    else:
        predictions = _unknown(n, layout)
        predictions[usable] = found[first[usable, None] + np.arange(c)]
    if values.null_count:
        nulls = np.flatnonzero(null_rows(values))
        at = np.searchsorted(nulls, first)
        has = (at < len(nulls)) & (nulls[np.minimum(at, len(nulls) - 1)] < first + lengths)
        problems[has & usable] = Reason.NULL
    return Read(predictions, problems, lengths if layout.padded else None)


def _are_consecutive(first: NDArray[np.int64], c: int) -> bool:
    """Whether lists of c values lie one after another."""
    return bool((np.diff(first) == c).all())


def _from_bytes(column: pa.Array, layout: Layout, problems: NDArray[np.uint8]) -> Array:
    """Return the numbers that the bytes of each row are, in place where nothing is missing."""
    assert layout.words is not None
    n, c = len(column), layout.classes
    width = c * layout.words.itemsize
    fixed = pa.types.is_fixed_size_binary(column.type) and column.type.byte_width == width
    if fixed and not column.null_count and n:  # in place, wherever they lie: bytes are not aligned
        found = np.ndarray((n, c), layout.words, column.buffers()[1], column.offset * width)
        return converted(found, layout.dtype)
    if column.null_count:
        problems[null_rows(column)] = Reason.NULL
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
    # Wherever they lie: bytes are not aligned.
    return converted(np.ndarray((n, c), layout.words, whole), layout.dtype)


def _from_columns(batch: pa.RecordBatch, layout: Layout, problems: NDArray[np.uint8]) -> Array:
    """Gather one column a class into (n, c)."""
    from fastdiv_kernels.cpu.columns import gather_columns

    shape = (batch.num_rows, layout.classes)
    room = rooms.take(shape[0] * shape[1] * layout.dtype.itemsize)
    predictions = np.ndarray(shape, layout.dtype, room)
    columns = []
    for name in layout.predictions:
        column = plain(flat_column(batch, name))
        columns.append(np.ascontiguousarray(numbers(column, layout.dtype)))
        if column.null_count:
            problems[null_rows(column)] = Reason.NULL
    places = np.array([address(x) for x in columns])
    gather_columns(places, predictions.view(f"u{predictions.itemsize}"))
    return predictions


def _scores(column: pa.Array, layout: Layout, problems: NDArray[np.uint8]) -> Array:
    """Return the scores (n,) of one of two classes."""
    if column.null_count:
        problems[null_rows(column)] = Reason.NULL
    return numbers(column, layout.dtype)


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
            other = np.log(-np.expm1(scores.astype(np.float64)))
    both[:, 1 - (layout.positive or 0)] = other
    return both


# -- ids and epochs ----------------------------------------------------------------------------


def _ids(column: pa.Array, name: str, place: PlaceInBatch) -> IdValues:
    uuid = is_uuid(column.type)
    column = plain(column)
    if column.null_count:
        row = int(np.flatnonzero(null_rows(column))[0])
        raise DataError(
            f"{place(row)}: the id in column {name!r} is null: a sample without an id cannot be "
            "matched between epochs; fill it, or give --id none to match by position"
        )
    if uuid:
        return _uuid_texts(column)
    if is_integer(column.type):
        return integer_ids(column.to_numpy())
    return column.cast(pa.large_binary()) if is_binary(column.type) else strings(column)


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
    # Pages of files are not aligned, and the ledger's kernels are compiled for what is.
    return np.require(ids, np.uint64 if ids.dtype == np.uint64 else np.int64, ["C", "A"])


def _epochs(column: pa.Array, layout: Layout, place: PlaceInBatch) -> NDArray[np.int64] | int:
    """Return the epochs (n,) of rows; one number where it is the same in all."""
    epochs = _epoch_numbers(column, layout, place)
    return int(epochs[0]) if len(epochs) and (epochs == epochs[0]).all() else epochs


def _epoch_numbers(
    column: pa.Array, layout: Layout, place: PlaceInBatch
) -> NDArray[np.int64]:  # fmt: skip
    name = layout.epoch
    column = plain(column)
    if column.null_count:
        row = int(np.flatnonzero(null_rows(column))[0])
        raise DataError(f"{place(row)}: the epoch in column {name!r} is null: fill it")
    if is_string(column.type):
        assert layout.epoch_names is not None
        return layout.epoch_names.numbers(strings(column))
    if pa.types.is_signed_integer(column.type):
        return np.asarray(column.to_numpy().astype(np.int64, copy=False))
    try:
        return np.asarray(column.cast(pa.int64()).to_numpy(zero_copy_only=False))
    except pa.ArrowInvalid as error:
        raise DataError(
            f"{place(0)} and on: column {name!r} holds no whole epoch numbers: {error}"
        ) from None

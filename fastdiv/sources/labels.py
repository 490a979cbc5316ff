"""Labels as class indices, however they are written: numbers, names, one-hot lists."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from fastdiv.errors import DataError
from fastdiv.sources.fields import is_binary, is_list, is_string, plain, plain_column
from fastdiv.sources.layout import Layout
from fastdiv.sources.values import null_rows, numbers, pieces, strings

PlaceInBatch = Callable[[int], str]
TOO_LARGE = np.iinfo(np.int32).max  # for any class


def class_labels(column: pa.Array, layout: Layout, place: PlaceInBatch) -> NDArray[np.int32]:
    """Return labels as int32, with -1 for what is no class."""
    if is_string(column.type) or is_binary(column.type):
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
    if pa.types.is_null(column.type):
        return np.full(len(column), -1, np.int32)
    if pa.types.is_boolean(column.type):
        column = column.cast(pa.int8())
    if pa.types.is_decimal(column.type):
        column = column.cast(pa.float64())
    if column.type == pa.int32() and not column.null_count and layout.label_values is None:
        return np.asarray(column.to_numpy())
    labels = (pc.fill_null(column, 0) if column.null_count else column).to_numpy()
    if layout.label_values is None and not column.null_count and _are_indices(labels):
        return np.asarray(labels.astype(np.int32))
    if labels.dtype.kind == "f":
        labels = labels.astype(np.float64)
        labels[np.isnan(labels)] = -1  # how pandas writes a missing integer
        broken = np.flatnonzero(labels != np.floor(labels))
        if len(broken):
            raise DataError(
                f"{place(int(broken[0]))}: label {labels[broken[0]]:g} in column "
                f"{layout.label!r} is no whole number: give class indices or names"
            )
    if layout.label_values is not None:
        values = np.asarray(layout.label_values)
        order = np.argsort(values)
        at = order[np.minimum(np.searchsorted(values, labels, sorter=order), len(values) - 1)]
        labels = np.where(values[at] == labels, at, len(values))
    labels = np.where(labels > TOO_LARGE, TOO_LARGE, labels)
    result = np.where(labels < 0, -1, labels).astype(np.int32)
    if column.null_count:
        result[null_rows(column)] = -1
    return result


def _are_indices(labels: NDArray[np.generic]) -> bool:
    """Whether all are whole numbers that a class can have, as they nearly always are."""
    if labels.dtype.kind not in "iu" or not len(labels):
        return False
    return bool(labels.min() >= 0 and labels.max() <= TOO_LARGE)


def _one_hot(column: pa.Array, layout: Layout, place: PlaceInBatch) -> NDArray[np.int32]:
    """Return the class that a list of one index, or of a single 1 among zeros, stands for."""
    first, lengths, values = pieces(column)
    lengths = np.where(null_rows(column), 0, lengths)
    labels = np.full(len(column), -1, np.int32)
    single = np.flatnonzero(lengths == 1)
    if len(single):
        taken = values.take(pa.array(first[single]))
        labels[single] = _class_indices(plain(taken), layout, lambda row: place(int(single[row])))
    rows = np.flatnonzero(lengths == layout.classes)
    if len(rows):
        if pa.types.is_boolean(values.type):
            values = values.cast(pa.int8())
        found = numbers(values, np.dtype(np.float64))
        found = np.where(null_rows(values), np.nan, found) if values.null_count else found
        of_row = found[first[rows, None] + np.arange(layout.classes)]
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
    """Return the class of each name (n,): -1 where it is missing, their number where it is none."""
    if pa.types.is_dictionary(column.type):
        of_code = label_names(column.dictionary, class_names)
        codes = pc.fill_null(column.indices.cast(pa.int64()), -1).to_numpy()
        return np.asarray(np.append(of_code, np.int32(-1))[codes])  # code -1 finds the last
    texts = strings(column)
    found = pc.fill_null(
        pc.index_in(texts, pa.array(class_names, pa.large_string())), len(class_names)
    )
    labels = np.array(found.to_numpy(), np.int32)
    missing = pc.fill_null(pc.equal(texts, ""), True).to_numpy(zero_copy_only=False)
    labels[missing & (labels == len(class_names))] = -1
    return labels


def label_texts(sample: pa.Table, label: str) -> set[str]:
    """Return the labels of sampled rows as text."""
    column = plain_column(sample, label)
    if is_list(column.type) or pa.types.is_null(column.type):
        return set()
    if pa.types.is_decimal(column.type):
        column = column.cast(pa.float64())
    found = set(pc.unique(column.cast(pa.large_string())).drop_null().to_pylist())
    if is_string(column.type):
        return found
    return {text.removesuffix(".0") for text in found} - {"nan"}

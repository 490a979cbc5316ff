"""The rows of a run as Arrow columns, of every type that a writing may ask for."""

import math
import uuid
import zlib
from decimal import Decimal
from itertools import pairwise

import numpy as np
import pyarrow as pa
from truth import WIDTH, checkpoint, to_bytes, to_words
from writing import INTEGERS, PACKED, STRINGS, WIDE, read_dtype

GARBAGE = 3.0  # under a null, and around what a slice shows


def numbers(values, dtype):
    """Return values as an Arrow array whose first item is cut off, garbage under nulls."""
    missing = np.array([False, *(x is None for x in values)])
    values = [GARBAGE, *(GARBAGE if x is None else x for x in values)]
    array = to_words(values) if dtype == "bfloat16" else np.array(values).astype(dtype)
    return pa.array(array, mask=missing if missing.any() else None)[1:]


def lists_of(rows, layout, dtype, classes):
    """Return rows of values as a column of lists; a null row has items all the same."""
    fixed = layout in ("fixed_size_list", "tensor", "fixed_size_words")
    full = [[None] * (classes if fixed else 2) if row is None else row for row in rows]
    items = numbers([item for row in full for item in row], dtype)
    absent = pa.array([row is None for row in rows]) if None in rows else None
    if fixed:
        column = pa.FixedSizeListArray.from_arrays(items, classes, mask=absent)
        if layout != "tensor":
            return column
        type_ = pa.fixed_shape_tensor(items.type, [classes])
        return pa.ExtensionArray.from_storage(type_, column.cast(type_.storage_type))
    ends = np.cumsum([0, *map(len, full)])
    if layout == "large_list":
        return pa.LargeListArray.from_arrays(pa.array(ends), items, mask=absent)
    ends = pa.array(ends.astype(np.int32))
    if layout == "list_view":
        sizes = pa.array([len(row) for row in full], pa.int32())
        return pa.ListViewArray.from_arrays(ends[:-1], sizes, items, mask=absent)
    return pa.ListArray.from_arrays(ends, items, mask=absent)


def prediction_columns(rows, truth, writing, name):
    """Return {column: array} of the predictions of rows."""
    layout, values = writing.layout, [row.values for row in rows]
    # Text holds float64, and with it the numbers of any dtype.
    dtype = read_dtype(truth, writing.container)
    if layout in WIDE:
        columns = class_columns(truth, writing, name)
        return {col: numbers([v[k] for v in values], dtype) for k, col in enumerate(columns)}
    if layout == "score":
        scores = [None if v is None else v[truth.score_of] for v in values]
        return {name: numbers(scores, dtype)}
    if layout == "nested":
        inner = [lists_of(values, "list", dtype, truth.classes), pa.array(range(len(values)))]
        absent = pa.array([v is None for v in values], pa.bool_())
        outer, _, leaf = name.partition(".")
        return {outer: pa.StructArray.from_arrays(inner, [leaf, "n"], mask=absent)}
    if layout in PACKED:
        data = [None if v is None else to_bytes(v, dtype) for v in values]
        width = -1 if layout == "binary" else WIDTH[dtype] * truth.classes
        type_ = pa.large_binary() if layout == "large_binary" else pa.binary(width)
        return {name: pa.array(data, type_)}
    return {name: lists_of(values, layout, dtype, truth.classes)}


def class_columns(truth, writing, name):
    """Return the names of the columns of the classes, in order of the classes."""
    if writing.layout == "by class":
        prefix = f"{name}_" if writing.seed % 2 else ""
        return [prefix + of_class for of_class in truth.names]
    return [f"{name}_{k + int(writing.layout[-1])}" for k in range(truth.classes)]


def label_column(rows, truth, writing):
    """Return labels as a column; those that are no class in all the ways that the type has."""
    c, kind, first = truth.classes, writing.label, writing.no_class
    # Of one score any label but the positive one is the other class.
    beyond = [-1, c] if writing.layout != "score" else []
    if kind in INTEGERS:
        low, high = (np.iinfo(kind).min, np.iinfo(kind).max)
        ways = [x for x in (*beyond, low, high) if low <= x <= high and not 0 <= x < c and beyond]
        return pa.array(said(rows, int, [None, *ways], first), kind)
    if kind.startswith("float"):
        ways = [math.nan, None, *map(float, beyond), *([math.inf] if beyond else [])]
        return pa.array(said(rows, float, ways, first), pa.float64()).cast(getattr(pa, kind)())
    if kind in STRINGS:
        names = said(rows, lambda y: truth.names[y], [None, "nobody", ""], first)
        return string_column(names, kind)
    if kind == "dictionary<int>":
        # Parquet and IPC files take no null among the entries.
        none = c if writing.container in ("parquet", "ipc") else None
        entries = pa.array([*range(c)[::-1], none, *beyond])
        ways = [None, *range(c, len(entries))] if beyond else [None]
        codes = said(rows, lambda y: c - 1 - y, ways, first)
        return pa.DictionaryArray.from_arrays(pa.array(codes, pa.int16()), entries)
    if kind == "run_end":
        labels = said(rows, int, [None, *beyond], first)
        ends = [i + 1 for i, (a, b) in enumerate(pairwise([*labels, "end"])) if a != b]
        values = pa.array([labels[end - 1] for end in ends], pa.int32())
        return pa.RunEndEncodedArray.from_arrays(pa.array(ends, pa.int32()), values)
    if kind == "decimal":
        ways = [None, *map(Decimal, beyond)]
        return pa.array(said(rows, Decimal, ways, first), pa.decimal128(6, 0))
    if kind == "bool":
        return pa.array(said(rows, bool, [None], first), pa.bool_())
    if kind == "single":
        ways = [None, [None], [-1], [c]]
        return pa.array(said(rows, lambda y: [y], ways, first), pa.list_(pa.int64()))
    if kind == "arrow array":
        return pa.array(said(rows, int, [None, *beyond], first), pa.int64())
    ways = [None, [0] * c, [1, 1] + [0] * (c - 2), [2] + [0] * (c - 1), [None] * c]
    type_ = {"one-hot": pa.list_(pa.float32()), "one-hot bytes": pa.list_(pa.uint8(), c)}[kind]
    return pa.array(said(rows, lambda y: one_hot(y, c), ways, first), type_)


def said(rows, what, ways, first):
    """Return what each row's label is written as: one of many ways where it is no class."""
    return [
        ways[(first + zlib.crc32(repr(row.id).encode())) % len(ways)] if row.label is None
        else what(row.label)
        for row in rows
    ]  # fmt: skip


def one_hot(y, c):
    return [int(k == y) for k in range(c)]


def string_column(strings, kind):
    if kind == "dictionary<string>":
        return pa.array(strings, pa.string()).dictionary_encode()
    return pa.array(strings, getattr(pa, kind)())


def id_column(ids, kind):
    if kind == "uuid":
        return pa.array([uuid.UUID(i).bytes for i in ids], pa.uuid())
    if kind == "fixed_size_binary":
        return pa.array(ids, pa.binary(16))
    if kind == "dictionary<int>":
        return pa.array(ids, pa.int64()).dictionary_encode()
    return string_column(ids, kind)


def epoch_column(epochs, kind):
    if kind in STRINGS:
        return string_column([checkpoint(epoch) for epoch in epochs], kind)
    column = pa.array(epochs, pa.int64())
    return column.dictionary_encode() if kind == "dictionary<int>" else column.cast(kind)


def extra_column(name, n):
    """Return a column that is of no concern."""
    some = [i if i % 3 else None for i in range(n)]

    def of(what, type_):
        return pa.array([None if i is None else what(i) for i in some], type_)

    made = {
        "note": lambda: of(str, pa.string()),
        "size": lambda: of(int, pa.int32()),
        "ok": lambda: of(lambda i: i % 2 == 0, pa.bool_()),
        "when": lambda: of(int, pa.timestamp("us")),
        "tags": lambda: of(lambda i: ["x"] * (i % 3), pa.list_(pa.string())),
        "meta": lambda: of(lambda i: {"a": i}, pa.struct([("a", pa.int64())])),
        "void": lambda: pa.nulls(n),
        "blob": lambda: of(lambda i: b"\0" * i, pa.binary()),
        "logits": lambda: pa.array([[0.5, float(i)] for i in range(n)], pa.list_(pa.float32())),
        "label": lambda: pa.array([0] * n, pa.int64()),
        "sample_id": lambda: pa.array(range(n), pa.int64()),
        "epoch": lambda: pa.array(range(n, 0, -1), pa.int64()),
        "split": lambda: pa.array(["x"] * n, pa.string()),
    }
    return made.get(name, lambda: pa.array([0.5] * n, pa.float64()))()


def recoded(piece):
    """Return a table whose dictionaries hold nothing but what stands in it."""
    for i, found in enumerate(piece.schema):
        if pa.types.is_dictionary(found.type):
            column = piece.column(i).combine_chunks()
            column = column.cast(found.type.value_type).dictionary_encode()
            piece = piece.set_column(i, found.name, column)
    return piece


# Things that export arrays and columns, and nothing else.


class Exporter:
    def __init__(self, table):
        self._table = table

    def __arrow_c_stream__(self, requested_schema=None):
        return self._table.__arrow_c_stream__(requested_schema)


class DLPack:
    def __init__(self, array):
        self._array = array

    def __dlpack__(self, **options):
        return self._array.__dlpack__(**options)

    def __dlpack_device__(self):
        return self._array.__dlpack_device__()


class Interface:
    def __init__(self, array):
        self._array = array

    def __array__(self, dtype=None, copy=None):
        return self._array

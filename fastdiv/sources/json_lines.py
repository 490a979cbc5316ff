"""JSON lines: an object a row, as dataset cartography and lm-evaluation-harness write them.

Python's own parser reads them: NaN and Infinity, which Python writes, are no JSON to others.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

import pyarrow as pa

from fastdiv.errors import DataError
from fastdiv.sources.container import Whole, one_line, unchanged
from fastdiv.sources.fields import top_columns
from fastdiv.sources.files.file import File
from fastdiv.sources.harness import answer, is_answer
from fastdiv.sources.metadata import with_metadata
from fastdiv.sources.text_files import most_rows, open_text

MOST_LINE = 16 << 20  # characters: several times what 200,000 classes take
MOST_ARRAY = 256 << 20  # that must be parsed at once
SNIFFED = 200  # rows, by which the columns and their types are found
EPOCH_IN_KEY = re.compile(r"(.+)_epoch_(\d+)")  # of a list, as cartography names its logits
Record = dict[str, Any]


class JsonLinesContainer(Whole):
    """A file with a JSON object a line, or one JSON array of objects."""

    def __init__(self, file: File) -> None:
        self.file = file
        self.path = file.name
        first = list(islice(self._records(), SNIFFED))
        self._harness = bool(first) and is_answer(first[0])
        self.padded = self._harness
        self._renamed: dict[str, str] = {}  # as the columns are called here -> in the file
        if self._harness:
            first = [answer(record) for record in first]
        else:
            self._find_epoch(first[0] if first else {})
            first = [self._as_named(record) for record in first]
        try:
            keys = dict.fromkeys(key for record in first for key in record)
            schema = pa.table({key: [r.get(key) for r in first] for key in keys}).schema
        except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
            raise DataError(
                f"{self.path}: the first {len(first)} rows do not agree: {one_line(error)}"
            ) from error
        schema = pa.schema([pa.field(f.name, _settled(f.type)) for f in schema])
        if self._harness:
            schema = with_metadata(schema, kind="logits")
        super().__init__(self.path, schema, file.size())
        self.rows = (None,) if first else ()

    def _find_epoch(self, record: Record) -> None:
        found = [
            (match, key)
            for key, value in record.items()
            if isinstance(value, list) and (match := EPOCH_IN_KEY.fullmatch(key))
        ]
        if len(found) == 1:
            match, key = found[0]
            self._renamed[match[1]] = key
            self.epoch = int(match[2])

    def _as_named(self, record: Record) -> Record:
        for name, key in self._renamed.items():
            if key in record:
                record[name] = record.pop(key)
        return record

    def _records(self) -> Iterator[Record]:
        """Yield the objects of the file."""
        row = 0
        try:
            with open_text(self.file) as file:
                if _begins_with_bracket(file):
                    yield from self._array(file)
                    return
                while line := file.readline(MOST_LINE):
                    if len(line) == MOST_LINE and not line.endswith("\n"):
                        raise DataError(
                            f"{self.path}, row {row}: is longer than {MOST_LINE >> 20} million "
                            "characters: one object a line is needed"
                        )
                    if line.strip():
                        yield self._object(json.loads(line), row)
                        row += 1
        except json.JSONDecodeError as error:
            raise DataError(
                f"{self.path}, row {row}: is no JSON: {error.msg} at character {error.pos}"
            ) from error
        except (OSError, pa.ArrowException, UnicodeError, RecursionError, ValueError) as error:
            raise DataError(f"{self.path}, row {row}: cannot be read: {one_line(error)}") from error

    def _array(self, file: Any) -> Iterator[Record]:
        text = file.read(MOST_ARRAY)
        if len(text) == MOST_ARRAY:
            raise DataError(
                f"{self.path}: is one JSON array of more than {MOST_ARRAY >> 20} million "
                "characters: write an object a line"
            )
        found = json.loads(text)
        for row, record in enumerate(found):
            yield self._object(record, row)

    def _object(self, found: Any, row: int) -> Record:
        if not isinstance(found, dict):
            raise DataError(f"{self.path}, row {row}: is no JSON object, but {str(found)[:40]!r}")
        return found

    def most_rows(self, group: int, classes: int) -> int | None:
        """Return how often braces, and a digit and a comma a class, fit into the file."""
        return most_rows(self.file, 2 * (1 if self.padded else classes) + 2)

    def read(self, group: int, columns: Sequence[str], rows: int) -> Iterator[pa.RecordBatch]:
        """Yield the rows, at most so many at a time."""
        wanted = top_columns(self.schema, columns)
        fields = [self.schema.field(name) for name in wanted]
        # What was null in the first rows may hold numbers further on.
        schema = pa.schema(
            [f.with_type(pa.float64()) if pa.types.is_null(f.type) else f for f in fields]
        )
        records = self._records()
        done = 0
        while piece := list(islice(records, rows)):
            if self._harness:
                piece = [answer(record) for record in piece]
            keys = [self._renamed.get(name, name) for name in wanted]
            arrays = [
                self._column([record.get(key) for record in piece], field, done)
                for key, field in zip(keys, schema, strict=True)
            ]
            yield pa.record_batch(arrays, schema=schema)
            done += len(piece)
        unchanged(self.file, self.place(0, done))

    def _column(self, values: list[Any], field: pa.Field, done: int) -> pa.Array:
        try:
            return pa.array(values, field.type)
        except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
            row, value = next(
                ((i, v) for i, v in enumerate(values) if not _fits(v, field.type)), (0, None)
            )
            raise DataError(
                f"{self.place(0, done + row)}: column {field.name!r} holds {str(value)[:40]!r}, "
                f"but {field.type} in the first rows"
            ) from error


def _fits(value: Any, type_: pa.DataType) -> bool:
    try:
        pa.array([value], type_)
    except (pa.ArrowException, TypeError, ValueError, OverflowError):
        return False
    return True


def _begins_with_bracket(file: Any) -> bool:
    """Whether a file, not read from yet, is one array."""
    return bool(file.buffer.peek(64).lstrip(b"\xef\xbb\xbf \t\r\n")[:1] == b"[")


def _settled(type_: pa.DataType) -> pa.DataType:
    """Return the type to read by: a list that begins with whole numbers may go on with others."""
    if pa.types.is_struct(type_):
        return pa.struct([f.with_type(_settled(f.type)) for f in type_.fields])
    if pa.types.is_list(type_) and pa.types.is_integer(type_.value_type):
        return pa.list_(pa.float64())
    return type_

"""CSV and its like, with a column a class."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.csv

from fastdiv.errors import DataError, UsageError
from fastdiv.sources.container import Whole, one_line, sliced, unchanged
from fastdiv.sources.files.file import File
from fastdiv.sources.layout import numbered
from fastdiv.sources.text_files import most_rows, open_bytes, open_text

DELIMITERS = ",;\t|"
NULLS = ["", "NULL", "null", "NA", "N/A", "#N/A", "None", "none"]  # of numbers; NaN stays NaN
BLOCK_BYTES = 1 << 20
FAILURES = (pa.ArrowException, OSError, ValueError)


class DelimitedContainer(Whole):
    """A CSV file; the types of its columns are those of its first megabyte."""

    def __init__(self, file: File, skip_lines: int = 0) -> None:
        self.file = file
        self.path = file.name
        self._skip = skip_lines
        first, row = self._first_lines()
        counts = [first.count(delimiter) for delimiter in DELIMITERS]
        self._delimiter = DELIMITERS[counts.index(max(counts))]
        cells = [cell.strip().strip('"') for cell in first.split(self._delimiter)]
        second = [cell.strip().strip('"') for cell in row.split(self._delimiter)]
        self._names: list[str] | None = None
        if all(_is_number(cell) or not cell for cell in cells):  # no line of names
            self._names = [f"column_{i}" for i in range(len(cells))]
        self._decimal = "," if any(re.fullmatch(r"-?\d+,\d+", cell) for cell in second) else "."
        reader = self._open(None, None)
        schema = reader.schema
        types = {field.name: field.type for field in schema}
        for name, cell in zip(schema.names, second, strict=False):
            if pa.types.is_null(types[name]) and cell:  # a class may be called none
                types[name] = pa.string()
        for names in numbered(schema.names).values():  # class 3 may begin with zeros only
            if self._names is None and any(pa.types.is_floating(types[name]) for name in names):
                types |= {n: pa.float64() for n in names if pa.types.is_integer(types[n])}
        schema = pa.schema([pa.field(name, types[name]) for name in schema.names])
        super().__init__(self.path, schema, file.size())
        if next(self._batches(reader), None) is None:
            self.rows = ()

    def _first_lines(self) -> tuple[str, str]:
        """Return the line of names and the first row, or what stands in their places."""
        try:
            with open_text(self.file) as file:
                for _ in range(self._skip):
                    if not file.readline(BLOCK_BYTES):
                        raise UsageError(
                            f"{self.path}: has no more than the {self._skip} lines to skip"
                        )
                first, second = (file.readline(BLOCK_BYTES).rstrip("\r\n") for _ in range(2))
                return first, second
        except (*FAILURES, UnicodeError) as error:
            raise self._unreadable(self.path, error, ": save it as UTF-8") from error

    def _open(self, types: dict[str, Any] | None, columns: list[str] | None) -> Any:
        csv = pyarrow.csv
        try:
            return csv.open_csv(
                open_bytes(self.file),
                csv.ReadOptions(
                    use_threads=False, block_size=BLOCK_BYTES, skip_rows=self._skip,
                    column_names=self._names,
                ),
                csv.ParseOptions(delimiter=self._delimiter),
                csv.ConvertOptions(
                    null_values=NULLS, strings_can_be_null=False, column_types=types,
                    include_columns=columns, decimal_point=self._decimal,
                ),
            )  # fmt: skip
        except FAILURES as error:
            raise self._unreadable(self.path, error) from error

    def most_rows(self, group: int, classes: int) -> int | None:
        """Return how often a digit and a comma a class fit into the file."""
        return most_rows(self.file, 2 * classes)

    def read(self, group: int, columns: Sequence[str], rows: int) -> Iterator[pa.RecordBatch]:
        """Yield the rows, at most so many at a time."""
        wanted = list(dict.fromkeys(columns))
        types = {name: _settled(self.schema.field(name).type) for name in wanted}
        for batch in self._batches(self._open(types, wanted)):
            yield from sliced(batch, rows)
        unchanged(self.file, self.path)

    def _batches(self, reader: Any) -> Iterator[pa.RecordBatch]:
        """Yield what a reader gives, until it ends."""
        done = 0
        while True:
            try:
                batch = reader.read_next_batch()
            except StopIteration:
                return
            except FAILURES as error:
                raise self._unreadable(f"{self.place(0, done)} or later", error) from error
            if batch.num_rows:
                yield batch
            done += batch.num_rows

    @staticmethod
    def _unreadable(where: str, error: BaseException, hint: str = "") -> DataError:
        if "Expected" in str(error) and "columns" in str(error):
            hint = ": if lines stand before the table, leave them out with --skip-lines"
        return DataError(f"{where}: cannot be read as CSV: {one_line(error)}{hint}")


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _settled(type_: pa.DataType) -> pa.DataType:
    """Return the type to read by: what is empty at first may hold numbers."""
    return pa.float64() if pa.types.is_null(type_) else type_

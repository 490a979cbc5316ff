"""Parquet files: what is there, in which row groups, and reading one."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from fastdiv.errors import DataError
from fastdiv.sources.container import Apart, Whole, first_rows, one_line, sound
from fastdiv.sources.fields import (
    flat_column,
    is_integer,
    is_list,
    is_string,
    plain,
    plain_type,
)
from fastdiv.sources.pages.group import Group, ReadBy, chunk_of, mapped
from fastdiv.sources.parquet_footer import ColumnChunk, read_footer

SAMPLE_BYTES = 16 << 20
READ_BYTES = 1 << 20  # of a column at once: a row group may be larger than memory


class ParquetContainer(Whole):
    """A Parquet file. Its footer is kept and the file closed: there may be thousands."""

    def __init__(self, path: str) -> None:
        file = _open(path)
        self._metadata = file.metadata
        self.path = path
        super().__init__(path, _named(lambda: file.schema_arrow, path), os.path.getsize(path))
        footer = _named(lambda: read_footer(path), path)
        self._groups, self._stored = footer.groups, footer.leaves
        self.read_by = ReadBy()
        self.rows = [group.num_rows for group in self._groups]
        self._leaves = _leaves(
            [chunk.path for chunk in self._groups[0].columns] if self._groups else []
        )
        self._check_claims(footer.rows)

    def _check_claims(self, rows: int) -> None:
        """Refuse a footer that contradicts itself, or tells of more than the file can hold."""
        schema = self._metadata.schema
        flat = {j for j in range(len(schema)) if not schema.column(j).max_repetition_level}
        for g, group in enumerate(self._groups):
            if [c.path for c in group.columns] != [c.path for c in self._groups[0].columns]:
                raise DataError(f"{self.path}, row group {g}: has other columns: it is damaged")
            sizes = [chunk.total_compressed_size for chunk in group.columns]
            values = {c.num_values for j, c in enumerate(group.columns) if j in flat}
            values = values or {group.num_rows}
            if group.num_rows < 0 or any(not 0 <= size <= self.size for size in sizes):
                raise DataError(
                    f"{self.path}, row group {g}: its metadata claims {group.num_rows} rows in "
                    f"{max(sizes, default=0)} bytes, but the file has {self.size}: it is damaged"
                )
            if values != {group.num_rows}:
                raise DataError(
                    f"{self.path}, row group {g}: its metadata claims {group.num_rows} rows, but "
                    f"columns of {', '.join(map(str, sorted(values)))} values: it is damaged"
                )
        if rows != sum(group.num_rows for group in self._groups):
            raise DataError(
                f"{self.path}: its metadata claims {rows} rows, but row groups of "
                f"{sum(group.num_rows for group in self._groups)}: it is damaged"
            )

    def most_rows(self, group: int, classes: int) -> int | None:
        """Return what the metadata says."""
        return self.rows[group]

    def _chunks(self, group: int, name: str) -> Iterator[ColumnChunk]:
        """Yield what is stored of a column."""
        chunks = self._groups[group].columns
        return (chunks[j] for j in self._leaves.get(name, ()))

    def nbytes(self, group: int, columns: Sequence[str]) -> int:
        """Return the compressed size of some columns of a row group."""
        return sum(c.total_compressed_size for name in columns for c in self._chunks(group, name))

    def bounds(self, group: int, column: str) -> range | None:
        """Return the bounds of an integer column by its statistics."""
        unsigned = pa.types.is_unsigned_integer(plain_type(self.flat.field(column).type))
        formats = {1: "<I", 2: "<Q"} if unsigned else {1: "<i", 2: "<q"}
        for chunk in self._chunks(group, column):
            ends = chunk.minimum, chunk.maximum
            known = all(end is not None and len(end) == 4 * chunk.type for end in ends)
            if known and chunk.type in formats and is_integer(self.flat.field(column).type):
                low, high = (struct.unpack(formats[chunk.type], end or b"")[0] for end in ends)
                return range(low, high + 1)
        return None

    def head(self, columns: Sequence[str], rows: int) -> pa.Table:
        """Return the first rows, fewer where they are very wide."""
        group = next((group for group in self._groups if group.num_rows), None)
        if group is not None:
            size = sum(chunk.total_uncompressed_size for chunk in group.columns)
            rows = min(rows, max(1, SAMPLE_BYTES // max(1, size // group.num_rows)))
        return first_rows(self, columns, rows, self._by_arrow)  # of the types of the schema

    def read(self, group: int, columns: Sequence[str], rows: int) -> Iterator[pa.RecordBatch]:
        """Yield a row group, at most so many rows at a time, so that its size does not matter."""
        return (batch for batch, _ in self._read(group, columns, rows, None))

    def read_apart(
        self, group: int, columns: Sequence[str], rows: int, apart: str
    ) -> Iterator[Apart]:
        """Yield the same with the values of one of the columns, in the pieces they lie in."""
        return self._read(group, columns, rows, apart)

    def _read(
        self, group: int, columns: Sequence[str], rows: int, apart: str | None
    ) -> Iterator[Apart]:
        file = _named(lambda: mapped(self.path, self.size), self.path)
        reader = Group(
            partial(chunk_of, file), self._groups[group], self._stored, self.schema,
            lambda names, n: self._by_arrow(group, names, n),
        )  # fmt: skip
        done = 0
        for batch, pieces in reader.read(columns, rows, apart):
            yield batch, pieces
            done += batch.num_rows
        if done != self.rows[group]:
            raise DataError(self._ends_at(group, done))
        self.read_by.note(reader.reasons, len(columns))

    def _ends_at(self, group: int, row: int) -> str:
        return (
            f"{self.place(group, row)}: the row group ends here, but its metadata says "
            f"{self.rows[group]} rows: the file is damaged"
        )

    def _by_arrow(self, group: int, columns: Sequence[str], rows: int) -> Iterator[pa.RecordBatch]:
        """Yield some columns of a row group as Arrow reads them."""
        done = 0
        types = {name: self.flat.field(name).type for name in columns}
        lists = [name for name, type_ in types.items() if is_list(plain_type(type_))]
        values = dict.fromkeys(lists, 0)
        texts = [n for n, t in types.items() if is_string(t) or pa.types.is_dictionary(t)]
        batches = _open(self.path, self._metadata).iter_batches(
            rows, row_groups=[group], columns=list(columns), use_threads=False
        )
        while True:
            where = self.place(group, done)
            batch = _named(partial(next, batches, None), where)
            if batch is None:
                break
            for name in lists:
                values[name] += _stored_values(flat_column(batch, name))
            for name in texts:
                sound(flat_column(batch, name), where)
            yield batch
            done += batch.num_rows
        if done != self.rows[group]:
            raise DataError(self._ends_at(group, done))
        for name, n in values.items():
            if n != sum(chunk.num_values for chunk in self._chunks(group, name)):
                raise DataError(
                    f"{self.place(group, 0)}: the lists of column {name!r} hold {n} values, but "
                    "its metadata says another number: the file is damaged"
                )

    def place(self, group: int, row: int) -> str:
        """Name a row of a row group to a person."""
        return f"{self.name}, row group {group}, row {row}"


def _open(path: str, metadata: Any = None) -> Any:
    return _named(
        lambda: pq.ParquetFile(
            path, metadata=metadata, buffer_size=READ_BYTES, pre_buffer=False,
            page_checksum_verification=True,
        ),
        path,
    )  # fmt: skip


def _leaves(paths: Sequence[tuple[str, ...]]) -> dict[str, list[int]]:
    """Return which columns as stored make up each column, by its path."""
    found: dict[str, list[int]] = {}
    for j, path in enumerate(paths):
        for n in range(1, len(path) + 1):
            found.setdefault(".".join(path[:n]), []).append(j)
    return found


def _stored_values(column: pa.Array) -> int:
    """Return how many values Parquet stores of lists: an empty or missing one takes one."""
    column = plain(column)
    if pa.types.is_fixed_size_list(column.type) and not column.null_count:
        return len(column) * max(1, int(column.type.list_size))
    lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy(zero_copy_only=False)
    return int(np.maximum(lengths, 1).sum())


def _named(read: Callable[[], Any], where: str) -> Any:
    """Call into Arrow; whatever it refuses becomes one line that names the place."""
    try:
        return read()
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DataError(f"{where}: cannot be read as Parquet: {one_line(error)}") from error

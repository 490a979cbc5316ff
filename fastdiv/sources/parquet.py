"""Parquet files: what is there, in which row groups, and reading one."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
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
from fastdiv.sources.files.file import File, LocalFile, RemoteFile, UnreadError, as_file
from fastdiv.sources.pages.group import Group, ReadBy
from fastdiv.sources.parquet_bytes import Fetched, Mapped
from fastdiv.sources.parquet_footer import ColumnChunk, read_footer, read_tail

SAMPLE_BYTES = 16 << 20
READ_BYTES = 1 << 20  # of a column at once: a row group may be larger than memory
HEAD_BYTES = 64 << 10  # the same where only the first page of each column is fetched


class ParquetContainer(Whole):
    """A Parquet file. Its footer is kept and the file closed: there may be thousands."""

    def __init__(self, file: File | str) -> None:
        self.file = file = as_file(file)
        self.path = path = file.name
        size = _named(file.size, path)
        if isinstance(file, LocalFile):
            opened = _open(file.path, path)
            tail = _named(lambda: read_tail(partial(_read_local, file.path), size), path)
        else:
            tail = _named(lambda: read_tail(file.handle().read, size), path)
            opened = _open(pa.BufferReader(tail[-4:] + tail), path)
        self._metadata = opened.metadata
        super().__init__(path, _named(lambda: opened.schema_arrow, path), size)
        footer = _named(lambda: read_footer(tail), path)
        self._groups, self._stored = footer.groups, footer.leaves
        self.read_by = ReadBy()
        self.rows = [group.num_rows for group in self._groups]
        self._leaves = _leaves(
            [chunk.path for chunk in self._groups[0].columns] if self._groups else []
        )
        self._check_claims(footer.rows)
        self._prepared: dict[int, tuple[list[str], Fetched]] = {}

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
        # By Arrow, so that they have the types of the schema.
        return first_rows(self, columns, rows, self._first_by_arrow)

    def _first_by_arrow(
        self, group: int, columns: Sequence[str], rows: int
    ) -> Iterator[pa.RecordBatch]:
        """Yield a row group as Arrow reads it, of which only the first rows are needed."""
        if isinstance(self.file, LocalFile):
            yield from self._by_arrow(group, columns, rows)
            return
        some = Fetched(self.file, self._stored_of(group, columns), first=True)
        with closing(some):
            yield from self._by_arrow(group, columns, rows, some.arrow(), HEAD_BYTES)

    def prepare(self, group: int, columns: Sequence[str]) -> None:
        """Begin to fetch a row group of a remote file."""
        if isinstance(self.file, RemoteFile) and group not in self._prepared:
            fetched = Fetched(self.file, self._stored_of(group, columns))
            self._prepared[group] = list(columns), fetched

    def _bytes(self, group: int, columns: Sequence[str]) -> Mapped | Fetched:
        """Return the bytes of columns of a row group: those prepared, if they are the same."""
        if isinstance(self.file, LocalFile):
            return Mapped(self.file, self.size)
        names, fetched = self._prepared.pop(group, ([], None))
        if fetched is not None and names == list(columns):
            return fetched
        if fetched is not None:
            fetched.close()
        return Fetched(self.file, self._stored_of(group, columns))

    def _stored_of(self, group: int, columns: Sequence[str]) -> list[ColumnChunk]:
        return [chunk for name in columns for chunk in self._chunks(group, name)]

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
        done = 0
        with closing(_named(lambda: self._bytes(group, columns), self.path)) as stored:
            reader = Group(
                stored.chunk, self._groups[group], self._stored, self.schema,
                lambda names, n: self._by_arrow(group, names, n, stored.arrow()),
            )  # fmt: skip
            try:
                try:
                    for batch, pieces in reader.read(columns, rows, apart):
                        yield batch, pieces
                        done += batch.num_rows
                except DataError:
                    stored.check()  # it may look damaged because it was written over
                    raise
                stored.check()
            except UnreadError as error:
                raise _unread(self.place(group, done), error) from error
        if done != self.rows[group]:
            raise DataError(self._ends_at(group, done))
        self.read_by.note(reader.reasons, len(columns))

    def _ends_at(self, group: int, row: int) -> str:
        return (
            f"{self.place(group, row)}: the row group ends here, but its metadata says "
            f"{self.rows[group]} rows: the file is damaged"
        )

    def _by_arrow(
        self, group: int, columns: Sequence[str], rows: int, source: Any = None,
        buffer: int = READ_BYTES,
    ) -> Iterator[pa.RecordBatch]:  # fmt: skip
        """Yield some columns of a row group as Arrow reads them, by default from a local path."""
        done = 0
        types = {name: self.flat.field(name).type for name in columns}
        lists = [name for name, type_ in types.items() if is_list(plain_type(type_))]
        values = dict.fromkeys(lists, 0)
        texts = [n for n, t in types.items() if is_string(t) or pa.types.is_dictionary(t)]
        batches = _open(
            self.file.path if source is None else source, self.path, self._metadata, buffer
        ).iter_batches(rows, row_groups=[group], columns=list(columns), use_threads=False)
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


def _open(source: Any, name: str, metadata: Any = None, buffer: int = READ_BYTES) -> Any:
    return _named(
        lambda: pq.ParquetFile(
            source, metadata=metadata, buffer_size=buffer, pre_buffer=False,
            page_checksum_verification=True,
        ),
        name,
    )  # fmt: skip


def _read_local(path: str, start: int, stop: int) -> bytes:
    with open(path, "rb") as file:
        file.seek(start)
        return file.read(stop - start)


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
    except UnreadError as error:
        raise _unread(where, error) from error
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DataError(f"{where}: cannot be read as Parquet: {one_line(error)}") from error


def _unread(where: str, error: UnreadError) -> DataError:
    return DataError(f"{where}: cannot be read: {one_line(error)}")

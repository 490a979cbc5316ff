"""Arrow IPC: files (mapped, by record batch), streams in files, and readers in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat
from typing import Any

import pyarrow as pa

from fastdiv.errors import DataError, UsageError
from fastdiv.sources.container import Whole, one_line, sliced, sound, unchanged
from fastdiv.sources.fields import top_columns
from fastdiv.sources.files.file import File, LocalFile
from fastdiv.sources.files.transfers import READERS

SMALL_ROWS = 1024
SMALL_BYTES = 1 << 20  # of a record batch of a remote file that is read whole for its rows
RUN_BYTES = 32 << 20  # of record batches of a remote file that are read together
FAILURES = (pa.ArrowException, OSError, ValueError)


class FileContainer(Whole):
    """An Arrow IPC file (Feather V2); a row group is a record batch, used where it is mapped.

    Of a remote file a row group is a run of record batches.
    """

    def __init__(self, file: File) -> None:
        self.file = file
        self.path = file.name
        size = file.size()
        try:
            with self._opened() as opened:
                reader = pa.ipc.open_file(opened)
                schema = reader.schema
                batches = reader.num_record_batches
            # Rows are counted in the narrowest column: what is compressed is decompressed for it.
            narrow = min(range(len(schema)), key=lambda i: _width(schema.field(i).type), default=0)
            options = pa.ipc.IpcReadOptions(included_fields=[narrow], use_threads=False)
            self._batch_rows = self._counted(batches, options)
        except FAILURES as error:
            raise _unreadable(self.path, error) from error
        several = 1
        if not isinstance(file, LocalFile) and batches:
            several = max(1, RUN_BYTES * batches // max(1, size))
        self._runs = [range(batches)[i : i + several] for i in range(0, batches, several)]
        self.rows = [sum(self._batch_rows[i] for i in run) for run in self._runs]
        super().__init__(self.path, schema, size)

    def _counted(self, batches: int, options: Any) -> list[int]:
        """Return how many rows each record batch has."""

        def count(some: range, opened_by: Callable[[], Any]) -> list[int]:
            with opened_by() as opened:
                reader = pa.ipc.open_file(opened, options=options)
                return [reader.get_batch(i).num_rows for i in some]

        file = self.file
        if isinstance(file, LocalFile) or file.size() < SMALL_BYTES * batches:
            return count(range(batches), self._opened)
        share = -(-batches // READERS)  # one column of each is read, which is mostly waiting
        shares = [range(batches)[i : i + share] for i in range(0, batches, share)]
        with ThreadPoolExecutor(READERS) as pool:
            return [n for some in pool.map(count, shares, repeat(file.at_places)) for n in some]

    def _opened(self) -> Any:
        """Open the file; batches of one that is mapped end the mapping with the last of them."""
        if isinstance(self.file, LocalFile):
            return pa.memory_map(self.file.path)
        return self.file.arrow()

    def most_rows(self, group: int, classes: int) -> int | None:
        """Return what the record batches say."""
        return self.rows[group]

    def nbytes(self, group: int, columns: Sequence[str]) -> int:
        """Return a row group's share of the file."""
        rows = sum(n or 0 for n in self.rows)
        return self.size * (self.rows[group] or 0) // max(1, rows)

    def read(self, group: int, columns: Sequence[str], rows: int) -> Iterator[pa.RecordBatch]:
        """Yield a row group, at most so many rows at a time; nothing is copied."""
        wanted = top_columns(self.schema, columns)
        fields = [i for i, name in enumerate(self.schema.names) if name in wanted]
        options = pa.ipc.IpcReadOptions(included_fields=fields, use_threads=False)
        reader = None
        for i in self._runs[group]:
            where = self._place_in(i, 0)
            try:
                if reader is None:
                    reader = pa.ipc.open_file(self._opened(), options=options)
                batch = reader.get_batch(i)
            except FAILURES as error:
                raise _unreadable(where, error) from error
            yield from sliced(sound(batch, where), rows)
        unchanged(self.file, self.place(group, self.rows[group] or 0))

    def place(self, group: int, row: int) -> str:
        """Name a row of a record batch to a person."""
        for i in self._runs[group]:
            if row < self._batch_rows[i] or i == self._runs[group][-1]:
                break
            row -= self._batch_rows[i]
        return self._place_in(i, row)

    def _place_in(self, batch: int, row: int) -> str:
        return f"{self.name}, record batch {batch}, row {row}"


class StreamContainer(Whole):
    """An Arrow IPC stream in a file."""

    def __init__(self, file: File) -> None:
        self.file = file
        self.path = file.name
        try:
            with file.arrow() as opened:
                schema = pa.ipc.open_stream(opened).schema
        except FAILURES as error:
            raise _unreadable(self.path, error) from error
        super().__init__(self.path, schema, file.size())

    def read(self, group: int, columns: Sequence[str], rows: int) -> Iterator[pa.RecordBatch]:
        """Yield the record batches of the stream, at most so many rows at a time."""
        done = 0
        with self.file.arrow() as file:
            try:
                options = pa.ipc.IpcReadOptions(use_threads=False)
                reader = pa.ipc.open_stream(file, options=options)
            except FAILURES as error:
                raise _unreadable(self.name, error) from error
            while True:
                where, at = self.place(0, done), file.tell()
                try:
                    batch = reader.read_next_batch()
                except StopIteration:
                    break
                except FAILURES as error:
                    raise _unreadable(where, error) from error
                yield from sliced(sound(_select(batch, columns), where), rows)
                done += batch.num_rows
            if file.tell() == at:  # a stream ends with a marker, a file that was cut without
                raise DataError(
                    f"{self.place(0, done)}: the stream breaks off here, without an end: it is cut "
                    "or still being written"
                )
        unchanged(self.file, self.place(0, done))


class ReaderContainer(Whole):
    """A record-batch reader in memory, or what exports one; it can be read once."""

    once = True

    def __init__(self, name: str, data: Any) -> None:
        try:
            self._reader = (
                data
                if isinstance(data, pa.RecordBatchReader)
                else pa.RecordBatchReader.from_stream(data)
            )
        except (*FAILURES, TypeError, NotImplementedError) as error:
            raise UsageError(f"{name}: gives no Arrow stream of columns: {error}") from error
        super().__init__(name, self._reader.schema, 0)
        self._first: list[pa.RecordBatch] = []  # read to find the columns, and not taken yet
        self._taken = False

    def _next(self, where: str) -> pa.RecordBatch | None:
        try:
            return self._reader.read_next_batch()
        except StopIteration:
            return None
        except FAILURES as error:
            raise _unreadable(where, error) from error

    def head(self, columns: Sequence[str], rows: int) -> pa.Table:
        """Return the first rows, which are kept for `read`."""
        have = sum(len(batch) for batch in self._first)
        while have < rows and (batch := self._next(self.name)) is not None:
            self._first.append(batch)
            have += len(batch)
        table = pa.Table.from_batches(self._first, self.schema)
        return table.slice(0, rows).select(top_columns(self.schema, columns))

    def read(self, group: int, columns: Sequence[str], rows: int) -> Iterator[pa.RecordBatch]:
        """Yield what the reader gives, at most so many rows at a time."""
        if self._taken:
            raise UsageError(f"{self.name}: it has been read, and can be read only once")
        self._taken = True
        done = waiting = 0
        small: list[pa.RecordBatch] = []  # what costs little to copy and much to take one by one
        while True:
            batch = self._first.pop(0) if self._first else self._next(self.place(0, done))
            if batch is not None:
                small.append(_select(batch, columns))
                waiting += batch.num_rows
                done += batch.num_rows
            if small and (batch is None or waiting >= min(rows, SMALL_ROWS)):
                whole = small[0] if len(small) == 1 else pa.concat_batches(small)
                small, waiting = [], 0
                yield from sliced(whole, rows)
            if batch is None:
                return


def _select(batch: pa.RecordBatch, columns: Sequence[str]) -> pa.RecordBatch:
    return batch.select(top_columns(batch.schema, columns))


def _width(type_: pa.DataType) -> int:
    """Return the bits of a value; what has no width comes last."""
    try:
        return int(type_.bit_width)
    except ValueError:
        return 1 << 30


def _unreadable(where: str, error: BaseException) -> DataError:
    return DataError(f"{where}: cannot be read as Arrow: {one_line(error)}")

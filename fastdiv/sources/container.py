"""Container: a file, table or stream that yields rows as Arrow record batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, TypeVar

import pyarrow as pa

from fastdiv.errors import DataError
from fastdiv.sources.fields import flat_column, flat_schema, top_columns
from fastdiv.sources.files.file import File

Apart = tuple[pa.RecordBatch, list[pa.Array]]  # rows, and a column of them that need not be there


class Container(Protocol):
    """What `Source` asks of whatever holds rows.

    Its row groups are read independently, on any thread; where there is none that can be, there
    is one row group, the whole. Names of columns may be paths (`outputs.logits`).
    """

    name: str  # for messages
    schema: pa.Schema
    flat: pa.Schema  # the same with nested columns beside the others, see `fields`
    rows: Sequence[int | None]  # of each row group; None: only reading tells
    size: int  # bytes that are really there, whatever a header claims
    once: bool  # can be read only once
    padded: bool  # short lists are rows with fewer choices
    epoch: int | None  # that the content tells, for all rows
    left_out: str  # what is no column, for errors about columns; empty where all is

    def most_rows(self, group: int, classes: int) -> int | None:
        """Return at most how many rows a row group can have; None: nothing tells."""
        ...

    def nbytes(self, group: int, columns: Sequence[str]) -> int:
        """Return the stored size of some columns of a row group."""
        ...

    def bounds(self, group: int, column: str) -> range | None:
        """Return the bounds of a column of integers, if they are known without reading it."""
        ...

    def head(self, columns: Sequence[str], rows: int) -> pa.Table:
        """Return the first rows, at most so many."""
        ...

    def prepare(self, group: int, columns: Sequence[str]) -> None:
        """Begin to fetch a row group that will be read soon."""
        ...

    def read(self, group: int, columns: Sequence[str], rows: int) -> Iterator[pa.RecordBatch]:
        """Yield a row group, at most so many rows at a time."""
        ...

    def read_apart(
        self, group: int, columns: Sequence[str], rows: int, apart: str
    ) -> Iterator[Apart]:
        """Yield the same with the values of one of the columns, in the pieces they lie in."""
        ...

    def place(self, group: int, row: int) -> str:
        """Name a row of a row group to a person."""
        ...


class Whole:
    """A container that is read from its beginning to its end, and what most of these share."""

    rows: Sequence[int | None] = (None,)
    once = False
    padded = False
    epoch: int | None = None
    left_out = ""

    def __init__(self, name: str, schema: pa.Schema, size: int) -> None:
        self.name = name
        try:
            self.flat = flat_schema(schema)
        except UnicodeDecodeError as error:
            raise DataError(
                f"{name}: the name of a column is no UTF-8: the file is damaged"
            ) from error
        self.schema = schema
        self.size = size

    def most_rows(self, group: int, classes: int) -> int | None:
        """Return None: nothing tells."""
        return None

    def nbytes(self, group: int, columns: Sequence[str]) -> int:
        """Return the size of all there is."""
        return self.size

    def bounds(self, group: int, column: str) -> range | None:
        """Return None: only reading tells."""
        return None

    def prepare(self, group: int, columns: Sequence[str]) -> None:
        """Do nothing: it is there, or read from its beginning on."""

    def head(self, columns: Sequence[str], rows: int) -> pa.Table:
        """Return the first rows, at most so many."""
        return first_rows(self, columns, rows)  # type: ignore[arg-type]

    def read_apart(
        self, group: int, columns: Sequence[str], rows: int, apart: str
    ) -> Iterator[Apart]:
        """Yield the same with the values of one of the columns, in one piece."""
        for batch in self.read(group, columns, rows):  # type: ignore[attr-defined]
            yield batch, [flat_column(batch, apart)]

    def place(self, group: int, row: int) -> str:
        """Name a row to a person."""
        return f"{self.name}, row {row}"


class Empty(Whole):
    """A container without a single row, which tells of no columns."""

    rows: Sequence[int | None] = ()

    def __init__(self, name: str) -> None:
        super().__init__(name, pa.schema([]), 0)

    def read(self, group: int, columns: Sequence[str], rows: int) -> Iterator[pa.RecordBatch]:
        """Yield nothing."""
        yield from ()


Read = Callable[[int, Sequence[str], int], Iterator[pa.RecordBatch]]


def first_rows(
    container: Container, columns: Sequence[str], rows: int, read: Read | None = None
) -> pa.Table:
    """Read the first rows of a container, over its row groups, at most so many.

    `read`: how, where it is not the container's own way.
    """
    batches: list[Any] = []
    for group in range(len(container.rows)):
        for batch in (read or container.read)(group, columns, rows):
            if batch.num_rows:
                batches.append(batch.slice(0, rows))
                rows -= len(batches[-1])
            if rows <= 0:
                break
        if rows <= 0:
            break
    if not batches:
        tops = top_columns(container.schema, columns)
        fields = [container.schema.field(name) for name in tops]
        return pa.Table.from_batches([], pa.schema(fields))
    return pa.Table.from_batches(batches)


def unchanged(file: File, where: str) -> None:
    """Refuse a remote file that was written over while it was read up to some place."""
    try:
        file.check()
    except OSError as error:
        raise DataError(f"{where}: cannot be read: {one_line(error)}") from error


def sliced(batch: pa.RecordBatch, rows: int) -> Iterator[pa.RecordBatch]:
    """Yield a record batch, at most so many rows at a time."""
    for start in range(0, batch.num_rows, rows):
        yield batch.slice(start, rows)


Arrow = TypeVar("Arrow", pa.RecordBatch, pa.Array)


def sound(batch: Arrow, where: str) -> Arrow:
    """Return rows or a column whose buffers hold what they claim; of a damaged file they may not.

    Reading values out of one that does not would end the process.
    """
    try:
        batch.validate(full=True)
    except (pa.ArrowException, ValueError) as error:
        raise DataError(f"{where}: the data is damaged: {one_line(error)}") from error
    return batch


def one_line(error: BaseException) -> str:
    """Return the first line of what an error says."""
    return str(error).strip().split("\n")[0]

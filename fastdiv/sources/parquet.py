"""Parquet files: what is there, in which row groups, and reading one."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from fastdiv.errors import DataError
from fastdiv.sources.container import Whole, first_rows, one_line

SAMPLE_BYTES = 16 << 20
READ_BYTES = 1 << 20  # of a column at once: a row group may be larger than memory


class ParquetContainer(Whole):
    """A Parquet file. Its footer is kept and the file closed: there may be thousands."""

    def __init__(self, path: str) -> None:
        file = _open(path)
        self._metadata = file.metadata
        self.path = path
        super().__init__(path, _named(lambda: file.schema_arrow, path), os.path.getsize(path))
        self._check_claims()
        self.rows = [
            self._metadata.row_group(g).num_rows for g in range(self._metadata.num_row_groups)
        ]

    def _check_claims(self) -> None:
        """Refuse a footer that tells of more than the file can hold."""
        for g in range(self._metadata.num_row_groups):
            group = self._metadata.row_group(g)
            sizes = [group.column(j).total_compressed_size for j in range(group.num_columns)]
            if group.num_rows < 0 or any(not 0 <= size <= self.size for size in sizes):
                raise DataError(
                    f"{self.path}, row group {g}: its metadata claims {group.num_rows} rows in "
                    f"{max(sizes, default=0)} bytes, but the file has {self.size}: it is damaged"
                )

    def most_rows(self, group: int, classes: int) -> int | None:
        """Return what the metadata says."""
        return self.rows[group]

    def nbytes(self, group: int, columns: Sequence[str]) -> int:
        """Return the compressed size of some columns of a row group."""
        stored = self._metadata.row_group(group)
        found = (stored.column(j) for j in range(stored.num_columns))
        return sum(
            c.total_compressed_size
            for c in found
            if any(f"{c.path_in_schema}.".startswith(f"{name}.") for name in columns)
        )

    def bounds(self, group: int, column: str) -> range | None:
        """Return the bounds of an integer column by its statistics."""
        stored = self._metadata.row_group(group)
        found = (stored.column(j) for j in range(stored.num_columns))
        chunk = next((c for c in found if c.path_in_schema == column), None)
        stats = chunk.statistics if chunk is not None else None
        if stats is None or not stats.has_min_max or not isinstance(stats.min, int):
            return None
        return range(stats.min, stats.max + 1)

    def head(self, columns: Sequence[str], rows: int) -> pa.Table:
        """Return the first rows, fewer where they are very wide."""
        group = next(
            (g for g in map(self._metadata.row_group, range(len(self.rows))) if g.num_rows), None
        )
        if group is not None:
            width = max(1, group.total_byte_size // group.num_rows)
            rows = min(rows, max(1, SAMPLE_BYTES // width))
        return first_rows(self, columns, rows)

    def read(self, group: int, columns: Sequence[str], rows: int) -> Iterator[pa.RecordBatch]:
        """Yield a row group, a few thousand rows at a time, so that its size does not matter."""
        done = 0
        batches = _open(self.path, self._metadata).iter_batches(
            rows, row_groups=[group], columns=list(columns), use_threads=False
        )
        while True:
            batch = _named(partial(next, batches, None), self.place(group, done))
            if batch is None:
                break
            yield batch
            done += batch.num_rows
        if done != self.rows[group]:
            raise DataError(
                f"{self.place(group, done)}: the row group ends here, but its metadata says "
                f"{self.rows[group]} rows: the file is damaged"
            )

    def place(self, group: int, row: int) -> str:
        """Name a row of a row group to a person."""
        return f"{self.name}, row group {group}, row {row}"


def _open(path: str, metadata: Any = None) -> Any:
    return _named(
        lambda: pq.ParquetFile(path, metadata=metadata, buffer_size=READ_BYTES, pre_buffer=False),
        path,
    )


def _named(read: Callable[[], Any], where: str) -> Any:
    """Call into Arrow; whatever it refuses becomes one line that names the place."""
    try:
        return read()
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DataError(f"{where}: cannot be read as Parquet: {one_line(error)}") from error

"""Tables in memory, cut into runs of rows that are read independently."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pyarrow as pa

from fastdiv.sources.container import Whole
from fastdiv.sources.fields import top_columns

RUN_ROWS = 1 << 18


class TableContainer(Whole):
    """An Arrow table; a row group is a run of its rows."""

    def __init__(self, name: str, table: pa.Table) -> None:
        super().__init__(name, table.schema, table.nbytes)
        self._table = table
        n = table.num_rows
        self.rows = [min(RUN_ROWS, n - start) for start in range(0, n, RUN_ROWS)]

    def _run(self, group: int, columns: Sequence[str]) -> pa.Table:
        tops = top_columns(self.schema, columns)
        return self._table.slice(group * RUN_ROWS, RUN_ROWS).select(tops)

    def most_rows(self, group: int, classes: int) -> int | None:
        """Return the rows of a run."""
        return self.rows[group]

    def nbytes(self, group: int, columns: Sequence[str]) -> int:
        """Return the size of some columns of a run."""
        return int(self._run(group, columns).nbytes)

    def read(self, group: int, columns: Sequence[str], rows: int) -> Iterator[pa.RecordBatch]:
        """Yield a run, at most so many rows at a time; nothing is copied."""
        yield from self._run(group, columns).to_batches(max_chunksize=rows)

    def place(self, group: int, row: int) -> str:
        """Name a row of the table to a person."""
        return f"{self.name}, row {group * RUN_ROWS + row}"

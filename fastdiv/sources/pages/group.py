"""A row group as record batches, its columns read by pages where that can be, else by Arrow."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pyarrow as pa

from fastdiv.sources.container import Apart
from fastdiv.sources.fields import flat_column, top_column
from fastdiv.sources.pages.chunk import ChunkBytes
from fastdiv.sources.pages.columns import Column, plan_of
from fastdiv.sources.pages.headers import Unexpected
from fastdiv.sources.parquet_footer import ColumnChunk, Leaf, RowGroup

Batches = Iterator[pa.RecordBatch]
MADE_BYTES = 4 << 20  # of values that are no place in the file: they should be in cache when used


class ReadBy:
    """How many column chunks were read by pages, and why others were not."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.pages = 0
        self.arrow: Counter[tuple[str, str]] = Counter()  # column, reason

    def merge(self, other: ReadBy) -> None:
        """Count what was read of another file."""
        with self._lock:
            self.pages += other.pages
            self.arrow += other.arrow

    def summary(self) -> dict[str, Any]:
        """Say how column chunks were read; JSON can hold it."""
        reasons = sorted(self.arrow.items())
        return {
            "pages": self.pages,
            "arrow": [{"column": c, "reason": reason, "n": n} for (c, reason), n in reasons],
        }

    def note(self, reasons: dict[str, str], columns: int) -> None:
        """Count the columns of a row group."""
        with self._lock:
            self.pages += columns - len(reasons)
            self.arrow.update(reasons.items())


class ArrowRows:
    """Rows of some columns as Arrow reads them, of which any number can be taken at a time."""

    def __init__(self, batches: Batches) -> None:
        self._batches = batches
        self._waiting: list[pa.RecordBatch] = []

    def take(self, rows: int) -> dict[str, pa.Array] | None:
        """Return the next rows, by column; None where so many are not left."""
        parts: list[pa.RecordBatch] = []
        while rows:
            if not self._waiting:
                batch = next(self._batches, None)
                if batch is None:
                    return None
                self._waiting.append(batch)
            batch = self._waiting.pop()
            part = batch.slice(0, rows)
            if part.num_rows:
                parts.append(part)
            rows -= part.num_rows
            if part.num_rows < batch.num_rows:
                self._waiting.append(batch.slice(part.num_rows))
        if not parts:
            return {}
        if len(parts) == 1:
            return dict(zip(parts[0].schema.names, parts[0].columns, strict=True))
        names = parts[0].schema.names
        return {name: pa.concat_arrays([part.column(name) for part in parts]) for name in names}


class Group:
    """A row group.

    Parameters
    ----------
    stored : callable
        Of a column chunk: its bytes, none where the file has not all of them.
    group, leaves
        What the footer says.
    schema : pyarrow.Schema
        Of the top-level columns.
    by_arrow : callable
        Of columns and a number of rows: record batches of them, from the first row on.
    """

    def __init__(
        self, stored: Callable[[ColumnChunk], ChunkBytes], group: RowGroup, leaves: list[Leaf],
        schema: pa.Schema, by_arrow: Callable[[Sequence[str], int], Batches],
    ) -> None:  # fmt: skip
        self._stored = stored
        self._group = group
        self._leaves = leaves
        self._schema = schema
        self._by_arrow = by_arrow
        self.reasons: dict[str, str] = {}  # column -> why Arrow reads it

    def read(self, columns: Sequence[str], rows: int, apart: str | None = None) -> Iterator[Apart]:
        """Yield all rows, at most `rows` at a time.

        The values of the column `apart` come in as many pieces as they lie in. Others are copied
        together, which costs less than many batches.
        """
        tops = list(dict.fromkeys(top_column(self._schema, name) for name in columns))
        by_pages: dict[str, Column] = {}
        for name in tops:
            try:
                by_pages[name] = self._column(name)
            except Unexpected as why:
                self.reasons[name] = str(why)
        by_arrow = [name for name in columns if top_column(self._schema, name) in self.reasons]
        if not by_pages:
            for batch in self._by_arrow(by_arrow, rows):
                yield batch, [] if apart is None else [flat_column(batch, apart)]
            return
        others: list[ArrowRows] = []
        if by_arrow:
            others.append(ArrowRows(self._by_arrow(by_arrow, rows)))
        if apart in by_pages and not by_pages[apart].in_place:
            rows = max(1, min(rows, MADE_BYTES // by_pages[apart].row_bytes))
        done, total = 0, self._group.num_rows
        while done < total:
            n = min(rows, total - done)
            arrays: dict[str, pa.Array] = {}
            pieces: list[pa.Array] = []
            for name in list(by_pages):
                try:
                    if name == apart:
                        pieces = by_pages[name].pieces(n)
                    else:
                        arrays[name] = by_pages[name].take(n)
                    if done + n == total:
                        by_pages[name].check_end()
                except Unexpected as why:  # Arrow goes on from where the pages ended
                    del by_pages[name]
                    arrays.pop(name, None)
                    pieces = [] if name == apart else pieces
                    self.reasons[name] = str(why)
                    rest = ArrowRows(self._by_arrow([name], rows))
                    if rest.take(done) is None:
                        return
                    others.append(rest)
            for rest in others:
                found = rest.take(n)
                if found is None:  # fewer than the footer says: the caller tells
                    return
                arrays |= found
            there = [name for name in tops if name in arrays]
            batch = pa.record_batch([arrays[name] for name in there], names=there)
            if apart is not None and not pieces:
                pieces = [flat_column(batch, apart)]
            yield batch, pieces
            done += n

    def _column(self, name: str) -> Column:
        at = [i for i, leaf in enumerate(self._leaves) if leaf.path[0] == name]
        if self._schema.names.count(name) != 1:
            raise Unexpected("a name that several columns have")
        plan = plan_of(self._schema.field(name), [self._leaves[i] for i in at])
        chunk: ColumnChunk = self._group.columns[at[0]]
        leaf = self._leaves[at[0]]
        if chunk.path != leaf.path or chunk.type != leaf.type:
            raise Unexpected("a column that is not that of the schema")
        return Column(self._stored(chunk), chunk, leaf, plan, self._group.num_rows)

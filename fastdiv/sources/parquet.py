"""Parquet files as a source: what is there, in which row groups, and reading one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from fastdiv.batch import Batch, Chunk
from fastdiv.errors import DataError, UsageError
from fastdiv.sources.columns import detect, sampled_columns
from fastdiv.sources.decode import decode, sound_predictions
from fastdiv.sources.discover import File, has_key
from fastdiv.sources.kinds import settle_kind
from fastdiv.sources.layout import SAMPLE_ROWS, Asked, Layout, agree

SAMPLE_BYTES = 16 << 20
READ_BYTES = 1 << 20  # of a column at once: a row group may be larger than memory


class ParquetSource:
    """Rows of Parquet files; a chunk is a row group."""

    def __init__(self, files: Sequence[File], asked: Asked) -> None:
        self.files = files
        self._metadata, self._schemas = [], []
        for file in files:  # one open at a time: there may be thousands
            opened = _open(file.path)
            self._metadata.append(opened.metadata)
            self._schemas.append(opened.schema_arrow)
        self.layout = self._layout(asked)

    # -- what is there ---------------------------------------------------------------------

    def _layout(self, asked: Asked) -> Layout:
        full = [i for i, metadata in enumerate(self._metadata) if metadata.num_rows]
        if not full:
            more = f" and {len(self.files) - 1} more files" if len(self.files) > 1 else ""
            raise DataError(f"no rows in {self.files[0].path}{more}: nothing to analyze")
        ends = list(dict.fromkeys((full[0], full[-1])))
        first, schema = self.files[full[0]], self._schemas[full[0]]
        keys = {
            "epoch": any(
                file.epoch_given or has_key(file.path, asked.epoch) for file in self.files
            ),
            "split": any(
                file.split_given or has_key(file.path, asked.split) for file in self.files
            ),
        }
        rows = SAMPLE_ROWS // len(ends)
        samples = {
            ends[0]: list(self._sample(ends[0], sampled_columns(schema, asked, first.path), rows))
        }
        table = pa.Table.from_batches(samples[ends[0]])
        layout = detect(schema, table, asked, first.path, keys)
        for file, other in zip(self.files, self._schemas, strict=True):
            layout = agree(layout, schema, other, first.path, file.path)
        if ends[-1] != ends[0]:
            samples[ends[-1]] = list(self._sample(ends[-1], list(layout.predictions), rows))
        predictions = [
            (np.concatenate([sound_predictions(b, layout) for b in batches]), self.files[i].path)
            for i, batches in samples.items()
        ]
        return self._with_epochs_and_splits(settle_kind(layout, predictions, asked.kind))

    def _sample(self, i: int, columns: list[str], rows: int) -> Iterator[Any]:
        """Yield the first rows of a file, by row group: at most `rows`, fewer of very wide ones."""
        metadata = self._metadata[i]
        file = _open(self.files[i].path, metadata)
        for g in range(metadata.num_row_groups):
            group = metadata.row_group(g)
            width = max(1, group.total_byte_size // max(1, group.num_rows))
            rows = min(rows, max(1, SAMPLE_BYTES // width))
            place = self.place(Chunk(i, g, group.num_rows), 0)
            batch = _named_errors(partial(_first_rows, file, g, columns, rows), place)
            if batch is not None:
                yield batch
                rows -= batch.num_rows
            if rows <= 0:
                return

    def _with_epochs_and_splits(self, layout: Layout) -> Layout:
        files = self.files
        if any(file.epoch_given for file in files):  # the caller's word counts for all rows
            layout = replace(layout, epoch=None)
        if layout.epoch is None:
            known = [file for file in files if file.epoch is not None]
            if known and len(known) < len(files):
                missing = next(file for file in files if file.epoch is None)
                raise UsageError(
                    f"{known[0].path} is of epoch {known[0].epoch}, but the path of {missing.path} "
                    "names no epoch: name it like epoch_7, or give --epoch COLUMN"
                )
            none = f"no column and no path names one: {self._count_of_files()} taken as epoch 0"
            layout = layout.with_evidence(epoch=known[0].epoch_from if known else none)
        if any(file.split_given for file in files):
            layout = replace(layout, split=None)
        if layout.split is None and files[0].split is not None:
            layout = layout.with_evidence(split=files[0].split_from)
        return layout

    def _count_of_files(self) -> str:
        return "1 file" if len(self.files) == 1 else f"{len(self.files)} files"

    def plan(self) -> list[Chunk]:
        """List the row groups, in natural path order."""
        return [
            Chunk(
                part=i,
                row_group=g,
                rows=metadata.row_group(g).num_rows,
                split=file.split,
                epoch=None if self.layout.epoch is not None else (file.epoch or 0),
            )
            for i, (file, metadata) in enumerate(zip(self.files, self._metadata, strict=True))
            for g in range(metadata.num_row_groups)
        ]

    def epochs_in(self, chunk: Chunk) -> range | None:
        """Return the bounds of a chunk's epochs as far as they can be known without reading it."""
        if chunk.epoch is not None:
            return range(chunk.epoch, chunk.epoch + 1)
        column = self._column(chunk, str(self.layout.epoch))
        stats = column.statistics if column is not None else None
        if stats is None or not stats.has_min_max or not isinstance(stats.min, int):
            return None
        return range(stats.min, stats.max + 1)

    def nbytes(self, chunk: Chunk) -> int:
        """Return the stored size of the columns of a chunk that are read."""
        group = self._metadata[chunk.part].row_group(chunk.row_group)
        wanted = set(self.layout.columns)
        columns = (group.column(j) for j in range(group.num_columns))
        return sum(
            c.total_compressed_size for c in columns if c.path_in_schema.split(".")[0] in wanted
        )

    def _column(self, chunk: Chunk, name: str) -> Any:
        group = self._metadata[chunk.part].row_group(chunk.row_group)
        columns = (group.column(j) for j in range(group.num_columns))
        return next((c for c in columns if c.path_in_schema == name), None)

    # -- reading ---------------------------------------------------------------------------

    def read(self, chunk: Chunk) -> Iterator[Batch]:
        """Read a row group, a few thousand rows at a time, so that its size does not matter."""
        path = self.files[chunk.part].path
        start = 0
        batches = _open(path, self._metadata[chunk.part]).iter_batches(
            self.layout.batch_rows,
            row_groups=[chunk.row_group],
            columns=self.layout.columns,
            use_threads=False,
        )
        while True:
            where = self.place(chunk, start)
            rows = _named_errors(lambda: next(batches, None), where)
            if rows is None:
                break
            yield decode(rows, self.layout, chunk, start, self.place)
            start += rows.num_rows
        if start != chunk.rows:
            raise DataError(
                f"{self.place(chunk, start)}: the row group ends here, but its "
                f"metadata says {chunk.rows} rows: the file is damaged"
            )

    def place(self, chunk: Chunk, row: int) -> str:
        """Name a row of a chunk to a person."""
        return f"{self.files[chunk.part].path}, row group {chunk.row_group}, row {row}"


def _open(path: str, metadata: Any = None) -> Any:
    return _named_errors(
        lambda: pq.ParquetFile(path, metadata=metadata, buffer_size=READ_BYTES, pre_buffer=False),
        path,
    )


def _named_errors(read: Callable[[], Any], where: str) -> Any:
    """Call into Arrow; whatever it refuses becomes one line that names the place."""
    try:
        return read()
    except (pa.ArrowException, OSError, ValueError) as error:
        reason = str(error).strip().split("\n")[0]
        raise DataError(f"{where}: cannot be read as Parquet: {reason}") from error


def _first_rows(file: Any, group: int, columns: list[str], rows: int) -> Any:
    batches = file.iter_batches(rows, row_groups=[group], columns=columns, use_threads=False)
    return next(batches, None)

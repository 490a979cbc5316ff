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
from fastdiv.sources.decode import decode
from fastdiv.sources.discover import File
from fastdiv.sources.layout import Asked, Layout, detect, detect_kind, is_float_list

SAMPLE_ROWS = 1000
SAMPLE_BYTES = 16 << 20
BATCH_BYTES = 4 << 20  # of predictions decoded at once: they should still be in cache when scored
BATCH_ROWS = 1 << 15


class ParquetSource:
    """Rows of Parquet files; a chunk is a row group."""

    def __init__(self, files: Sequence[File], asked: Asked) -> None:
        self.files = files
        opened = [_open(file.path) for file in files]
        self._metadata = [file.metadata for file in opened]
        self._schemas = [file.schema_arrow for file in opened]
        self.layout = self._layout(asked)

    # -- what is there ---------------------------------------------------------------------

    def _layout(self, asked: Asked) -> Layout:
        schemas = self._schemas
        ends = [i for i in (0, len(self.files) - 1) if self._metadata[i].num_rows]
        if not ends:
            ends = [i for i, m in enumerate(self._metadata) if m.num_rows][:1]
        if not ends:
            raise DataError(f"no rows in {self._count_of_files()}: nothing to analyze")
        first = self.files[ends[0]]
        sample = _sample(first.path, schemas[ends[0]].names, SAMPLE_ROWS // 2)
        layout = detect(schemas[ends[0]], sample, asked, first.path)
        for file, schema in zip(self.files, schemas, strict=True):
            layout = _agree(layout, schemas[ends[0]], schema, first.path, file.path)
        kinds = []
        for i in dict.fromkeys(ends):
            rows = _sample(self.files[i].path, layout.columns, SAMPLE_ROWS // len(set(ends)))
            chunk = Chunk(i, 0, rows.num_rows, epoch=0)
            batch = decode(rows.to_batches()[0], layout, chunk, 0, partial(self.place, chunk))
            good = slice(None) if batch.problems is None else batch.problems == 0
            name = layout.predictions[0]
            kinds.append((*detect_kind(batch.predictions[good], name, asked.kind), i))
        if kinds[0][0] != kinds[-1][0]:
            said = " but ".join(
                f"{self.files[i].path} holds {kind.name.lower()} ({by})" for kind, by, i in kinds
            )
            raise DataError(f"predictions change their kind: {said}: give one --kind")
        layout = replace(layout, kind=kinds[0][0])
        layout = layout.with_evidence(kind=f"{kinds[0][0].name.lower()}: {kinds[0][1]}")
        return self._with_epochs_and_splits(layout, asked)

    def _with_epochs_and_splits(self, layout: Layout, asked: Asked) -> Layout:
        if layout.epoch is None:
            known = [file for file in self.files if file.epoch is not None]
            if asked.epoch is not None and not known:
                raise UsageError(
                    f"no column and no directory key {asked.epoch!r} for --epoch in "
                    f"{self.files[0].path}"
                )
            if known and len(known) < len(self.files):
                missing = next(file for file in self.files if file.epoch is None)
                raise UsageError(
                    f"{known[0].path} is of epoch {known[0].epoch}, but the path of {missing.path} "
                    "names no epoch: name it like epoch_7, or give --epoch COLUMN"
                )
            by = (
                known[0].epoch_from
                if known
                else (f"no column and no path names one: {self._count_of_files()} taken as epoch 0")
            )
            layout = layout.with_evidence(epoch=str(by))
        if layout.split is None:
            if asked.split is not None and all(f.split is None for f in self.files):
                raise UsageError(
                    f"no column and no directory key {asked.split!r} for --split in "
                    f"{self.files[0].path}"
                )
            if self.files[0].split_from is not None:
                layout = layout.with_evidence(split=str(self.files[0].split_from))
        elif self.files[0].split is not None:
            # A split that the caller or the path names counts for all rows of the file.
            layout = replace(layout, split=None)
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

    @property
    def batch_rows(self) -> int:
        """Rows decoded at once."""
        width = self.layout.classes * self.layout.dtype.itemsize
        return max(1, min(BATCH_ROWS, BATCH_BYTES // width))

    def read(self, chunk: Chunk) -> Iterator[Batch]:
        """Read a row group, a few thousand rows at a time, so that its size does not matter."""
        path = self.files[chunk.part].path
        start = 0
        batches = _open(path, self._metadata[chunk.part]).iter_batches(
            self.batch_rows,
            row_groups=[chunk.row_group],
            columns=self.layout.columns,
            use_threads=False,
        )
        while True:
            where = self.place(chunk, start)
            rows = _named_errors(lambda: next(batches, None), where)
            if rows is None:
                break
            yield decode(rows, self.layout, chunk, start, self._placer(chunk, start))
            start += rows.num_rows
        if start != chunk.rows:
            raise DataError(
                f"{self.place(chunk, start)}: the row group ends here, but its "
                f"metadata says {chunk.rows} rows: the file is damaged"
            )

    def _placer(self, chunk: Chunk, start: int) -> Callable[[int], str]:
        return lambda row: self.place(chunk, start + row)

    def place(self, chunk: Chunk, row: int) -> str:
        """Name a row of a chunk to a person."""
        return f"{self.files[chunk.part].path}, row group {chunk.row_group}, row {row}"

    def part(self, chunk: Chunk) -> str:
        """Name a chunk's part: the file."""
        return self.files[chunk.part].path


def _open(path: str, metadata: Any = None) -> Any:
    return _named_errors(
        lambda: pq.ParquetFile(path, metadata=metadata, memory_map=True, pre_buffer=False), path
    )


def _named_errors(read: Callable[[], Any], where: str) -> Any:
    """Call into Arrow; whatever it refuses becomes one line that names the place."""
    try:
        return read()
    except (pa.ArrowException, OSError, ValueError) as error:
        reason = str(error).strip().split("\n")[0]
        raise DataError(f"{where}: cannot be read as Parquet: {reason}") from error


def _sample(path: str, columns: list[str], rows: int) -> pa.Table:
    """Read the first rows of a file: at most `rows`, fewer where they are very wide."""
    file = _open(path)
    group = file.metadata.row_group(0)
    width = max(1, group.total_byte_size // max(1, group.num_rows))
    rows = max(1, min(rows, SAMPLE_BYTES // width))
    groups = list(range(file.metadata.num_row_groups))
    batches = file.iter_batches(rows, row_groups=groups, columns=columns, use_threads=False)
    batch = _named_errors(lambda: next(batches), path)
    return pa.Table.from_batches([batch])


def _agree(
    layout: Layout, first: pa.Schema, schema: pa.Schema, first_path: str, path: str
) -> Layout:
    """Check that a file has the columns of the first, of like type; widen the dtype if need be."""
    for name in layout.columns:
        if name not in schema.names:
            raise DataError(
                f"{path}: no column {name!r}, which {first_path} has: the files of a "
                f"data set must agree; it has {', '.join(schema.names)}"
            )
        here, there = schema.field(name).type, first.field(name).type
        if _category(here) != _category(there):
            raise DataError(
                f"{path}: column {name!r} holds {here}, but {there} in {first_path}: "
                "write it as one type"
            )
        if name in layout.predictions:
            value = here.value_type if is_float_list(here) else here
            wider = np.promote_types(layout.dtype, value.to_pandas_dtype())
            layout = replace(layout, dtype=wider)
            if pa.types.is_fixed_size_list(here) and here.list_size != layout.classes:
                raise DataError(
                    f"{path}: {here.list_size} classes in column {name!r}, but "
                    f"{layout.classes} in {first_path}"
                )
    return layout


def _category(type_: pa.DataType) -> str:
    if is_float_list(type_):
        return "list of floats"
    if pa.types.is_dictionary(type_):
        type_ = type_.value_type
    if pa.types.is_integer(type_):
        return "unsigned 64" if type_ == pa.uint64() else "integer"
    if pa.types.is_floating(type_):
        return "float"
    return "string" if pa.types.is_string(type_) or pa.types.is_large_string(type_) else str(type_)

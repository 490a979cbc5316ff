"""PredictionWriter: appends batches of a job to a dump that `analyze` reads with no options."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from fastdiv.errors import UsageError
from fastdiv.scoring import kind_of
from fastdiv.scratch import Scratch
from fastdiv.sources import parse_class_names
from fastdiv.sources.arrays import IDS, LABELS, PREDICTIONS, as_record_batch
from fastdiv.sources.fields import plain
from fastdiv.sources.metadata import with_metadata
from fastdiv.told import class_count, kind_of_ids, whole_number
from fastdiv.written import OTHER_BYTES, ROW_GROUP_BYTES, Form
from fastdiv_kernels.contract import dtype_name

SUFFIXES = (".parquet", ".pq", ".parq")


class PredictionWriter:
    """Writes predictions to a Parquet file, batch by batch.

    The file has its name only once it is closed, whole. It says itself what the predictions are.
    At most a row group is held in memory, and batches may be reused once they are written.

    Parameters
    ----------
    path : path
        Of the file, ``.parquet``; directories above it are made.
    kind : {"logits", "probs", "logprobs"}
    classes : int, optional
        Number of classes. Default: as many as the first batch has.
    class_names : str or iterable of str, optional
        In the order of the predictions; labels may then be names.
    epoch : int, optional
        Of all batches that come without one.
    row_group_bytes : int
        Of predictions in a row group, about.
    compression : {"snappy", "none", "lz4", "zstd", "gzip", "brotli"}
        Floats hardly shrink; ids and labels do.
    layout : {"lists", "bytes"}
        How the predictions of a row are written: as a list, which every tool takes for numbers, or
        as bytes of one width, which is read fastest and is plain fixed-size binary to other tools.
    dtype : {"float16"}, optional
        Write predictions in half precision. Default: as they come.
    overwrite : bool
        Replace a file that is there.

    Examples
    --------
    >>> with fastdiv.PredictionWriter("preds/val.parquet", kind="logits") as writer:
    ...     for epoch in range(epochs):
    ...         train_one_epoch(model)
    ...         with torch.inference_mode():
    ...             for images, labels, ids in loader:
    ...                 writer.write(model(images).cpu(), labels, ids, epoch=epoch)
    >>> run = fastdiv.analyze("preds/val.parquet")
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        kind: str,
        classes: int | None = None,
        class_names: str | Path | Iterable[str] | None = None,
        epoch: int | None = None,
        row_group_bytes: int = ROW_GROUP_BYTES,
        compression: str = "snappy",
        layout: str = "lists",
        dtype: str | None = None,
        overwrite: bool = False,
    ) -> None:
        kind_of(kind)
        self._form = Form(layout, dtype, compression)
        names = parse_class_names(class_names)
        classes = class_count(classes, names)
        row_group_bytes = whole_number(row_group_bytes, "row_group_bytes", 1)
        self.path = Path(path).absolute()
        if self.path.suffix.lower() not in SUFFIXES:
            raise UsageError(f"{path}: the name must end in .parquet, by which it is read")
        self._kind = kind
        self._classes = classes
        self._class_names = names
        self._epoch = epoch
        self._row_group_bytes = row_group_bytes
        self._overwrite = overwrite
        self._check_target()
        self._partial = self.path.parent / f".{self.path.name}-{uuid.uuid4().hex[:8]}.partial"
        self._schema: pa.Schema | None = None
        self._found: pa.DataType | None = None  # of the lists that came last
        self._file: pq.ParquetWriter | None = None
        self._rows_at_once = 0  # of a row group
        self._waiting: list[pa.RecordBatch] = []
        self._rows_waiting = 0
        self._closed = False
        self._writes = 0
        self._scratch = Scratch(self, self._partial)

    def write(
        self,
        predictions: Any,
        labels: Any,
        ids: Any = None,
        *,
        epoch: int | str | None = None,
        split: str | None = None,
    ) -> None:
        """Append a batch.

        Parameters
        ----------
        predictions : (n, c) float16, bfloat16, float32 or float64
            NumPy, anything with DLPack in host memory (torch, JAX), or Arrow lists.
        labels : (n,) or (n, 1) integers, names, or one-hot (n, c)
        ids : (n,) integers or strings, optional
        epoch : int or str, optional
            A number, or the name of a checkpoint.
        split : str, optional
            Of all rows of the batch. Ids, epoch and split come with all batches or with none.

        Raises
        ------
        UsageError
            Where shapes or types do not fit, or are not those of the batches before; the batch is
            then not written, and the next one may be.
        """
        if self._closed:
            raise UsageError(f"{self.path} is closed: make another PredictionWriter")
        self._check_process()
        name = f"{self.path.name}, batch {self._writes}"
        rows = as_record_batch(predictions, labels, ids, name)
        if not rows.num_rows and not pa.types.is_fixed_size_list(rows.column(PREDICTIONS).type):
            return  # it does not even tell how many classes there are
        rows = self._columns(rows, self._epoch if epoch is None else epoch, split, name)
        if self._schema is None:
            self._open(rows)
        else:
            _check_types(rows.schema, self._schema, name)
        # Its own bytes: those of the caller may be written over as soon as this returns.
        schema = rows.schema
        own = pa.ipc.read_record_batch(rows.serialize(), schema)
        try:
            self._waiting.append(own)
            self._rows_waiting += rows.num_rows
            self._writes += 1
            self._write_groups(self._rows_at_once)
        except BaseException:  # what was interrupted may have been written or not
            self.abandon()
            raise

    def close(self) -> None:
        """Write what waits and give the file its name.

        Raises
        ------
        UsageError
            Where nothing was written, or a file of the name is there by now.
        """
        if self._closed:
            return
        self._check_process()
        try:
            if self._file is None:
                raise UsageError(f"{self.path}: nothing was written, so no file is made")
            self._write_groups(1)
            try:
                self._file.close()
                self._check_target()
                os.replace(self._partial, self.path)
            except OSError as error:
                raise _unwritable(self.path, error) from error
        finally:
            self.abandon()

    def abandon(self) -> None:
        """Leave no file, unless it was closed before."""
        self._closed = True
        self._waiting.clear()
        if self._file is not None and self._file.is_open and self._scratch.is_own:
            with suppress(OSError):  # the disk may be full, but the file is removed anyway
                self._file.close()
        self._scratch.remove()

    def __getstate__(self) -> None:
        raise UsageError(
            f"a PredictionWriter cannot be copied or sent to another process, as {self.path} is "
            "written by one: make one with another path in each process"
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *error: object) -> None:
        if kind is None:
            self.close()
        else:
            self.abandon()

    def __repr__(self) -> str:
        state = "closed" if self._closed else f"{self._writes:,} batches so far"
        return f"<fastdiv.PredictionWriter {self.path}: {state}>"

    # ----------------------------------------------------------------------------------------

    def _columns(
        self, rows: pa.RecordBatch, epoch: int | str | None, split: str | None, name: str
    ) -> pa.RecordBatch:
        """Return a batch with the columns of the file."""
        n = rows.num_rows
        columns = {}
        if IDS in rows.schema.names:
            kind_of_ids(rows.schema.field(IDS).type, name)
            columns["sample_id"] = _storable(rows.column(IDS))
        columns["label"] = _storable(rows.column(LABELS))
        lists = self._lists(plain(rows.column(PREDICTIONS)), name)
        columns[self._kind] = self._form.written(lists, name)
        if isinstance(epoch, str):
            columns["epoch"] = pa.array([epoch] * n, pa.string())
        elif epoch is not None:
            number = whole_number(epoch, f"{name}: epoch")
            columns["epoch"] = pa.array(np.full(n, number, np.int64))
        if split is not None:
            if not isinstance(split, str):
                raise UsageError(f"{name}: split must be a string, not {split!r}")
            columns["split"] = pa.array([split] * n, pa.string())
        return pa.record_batch(columns)

    def _lists(self, column: pa.Array, name: str) -> pa.Array:
        """Return predictions as lists of one size, of as many numbers as there are classes."""
        if not pa.types.is_fixed_size_list(column.type):
            classes = self._classes
            if classes is None:
                lengths = column.value_lengths().drop_null()
                if not len(lengths):
                    raise UsageError(
                        f"{name}: no row has predictions, so the number of classes is not known: "
                        "say it, with classes"
                    )
                classes = lengths[0].as_py()
            try:
                column = column.cast(pa.list_(column.type.value_type, classes))
            except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
                raise UsageError(
                    f"{name}: not all rows have {classes} predictions ({error})"
                ) from None
        classes = column.type.list_size
        if self._classes not in (None, classes):
            raise UsageError(f"{name}: {classes} classes, but {self._classes} are expected")
        self._found = column.type
        return column

    def _open(self, rows: pa.RecordBatch) -> None:
        """Begin the file, with the columns of the first batch."""
        assert self._found is not None
        self._classes = self._found.list_size
        dtype = self._form.dtype_of(self._found.value_type)
        self._schema = with_metadata(
            rows.schema,
            kind=self._kind,
            classes=self._classes,
            class_names=None if self._class_names is None else list(self._class_names),
            dtype=dtype_name(dtype),
        )
        width = self._classes * dtype.itemsize + OTHER_BYTES
        self._rows_at_once = max(1, self._row_group_bytes // width)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._form.open(self._partial, self._schema, self._kind)
        except OSError as error:
            self._schema = None
            raise _unwritable(self.path, error) from error

    def _write_groups(self, at_least: int) -> None:
        """Write row groups, as long as so many rows wait."""
        if self._rows_waiting < at_least:
            return
        table = pa.Table.from_batches(self._waiting).cast(self._schema)
        start = 0
        assert self._file is not None
        while table.num_rows - start >= at_least:
            group = table.slice(start, self._rows_at_once)
            try:
                self._file.write_table(group, row_group_size=self._rows_at_once)
            except OSError as error:
                raise _unwritable(self.path, error) from error
            start += group.num_rows
        self._waiting = table.slice(start).to_batches()
        self._rows_waiting -= start

    def _check_process(self) -> None:
        if not self._scratch.is_own:
            raise UsageError(
                f"{self.path} is being written by the process that this one was forked from: make "
                "another PredictionWriter, with another path, in each process"
            )

    def _check_target(self) -> None:
        if os.path.lexists(self.path) and (not self._overwrite or self.path.is_dir()):
            raise UsageError(
                f"{self.path} is there already: choose another, or give overwrite=True"
            )


def _storable(column: pa.Array) -> pa.Array:
    """Return a column as Parquet can hold it."""
    column = plain(column)
    if pa.types.is_string_view(column.type):
        return column.cast(pa.large_string())
    if pa.types.is_binary_view(column.type):
        return column.cast(pa.large_binary())
    return column


def _check_types(schema: pa.Schema, known: pa.Schema, name: str) -> None:
    """Check that a batch has the columns of the first, of the same types."""
    for column in dict.fromkeys([*known.names, *schema.names]):
        here, there = (s.field(column).type if column in s.names else None for s in (schema, known))
        if here is None or there is None:
            some = "this batch has none" if here is None else "batches before it have none"
            raise UsageError(f"{name}: {column} in some batches only: {some}; give it in all")
        if here != there:
            raise UsageError(
                f"{name}: {column} is {here}, but {there} before it: write one type over the file"
            )


def _unwritable(path: Path, error: OSError) -> UsageError:
    return UsageError(f"{path} cannot be written: {error.strerror or error}")

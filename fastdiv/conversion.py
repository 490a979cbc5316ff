"""`convert`: any dump as the Parquet that is read fastest, still Parquet to every other tool."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from fastdiv.batch import Batch, Chunk
from fastdiv.errors import DataError, UsageError
from fastdiv.pipeline import Pipeline
from fastdiv.plan import Plan, Progress, make_plan, selection
from fastdiv.run_directory import directory_beside, put_in_place
from fastdiv.scan import groups
from fastdiv.scoring import usable_threads
from fastdiv.sources import Asked, Source, open_source, parse_class_names
from fastdiv.sources.files.places import on_this_machine
from fastdiv.writer import SUFFIXES, PredictionWriter
from fastdiv_kernels.contract import Reason

IN_FLIGHT_BYTES = 64 << 20
OWN_FILE = re.compile(r"(epoch_-?\d{5,}|data)\.parquet")
FILES_AT_ONCE = 64  # of which each holds a row group in memory

Key = tuple[str | None, int | None]  # split and epoch of a file, None where it holds all


def convert(
    source: Any,
    output: str | os.PathLike[str],
    *,
    id: str | None = None,
    label: str | None = None,
    predictions: str | Iterable[str] | None = None,
    epoch: str | None = None,
    split: str | None = None,
    kind: str = "auto",
    class_names: str | Path | Iterable[str] | None = None,
    dtype: str | None = None,
    positive: str | None = None,
    skip_lines: int = 0,
    epoch_per_path: bool = False,
    epochs: str | int | Iterable[int | str] | slice | None = None,
    layout: str = "bytes",
    half: bool = False,
    compression: str = "none",
    threads: int | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
    filesystem: Any = None,
) -> Path:
    """Write a dump as Parquet that is read fastest: without levels, dictionaries or compression.

    Parameters
    ----------
    source, id, label, predictions, epoch, split, kind, class_names, dtype, positive, skip_lines,
    epoch_per_path, epochs, threads, filesystem
        What to read, as `analyze` takes it.
    output : path
        On this machine: a file, ``.parquet``, or a directory, in which each split has a directory
        and each epoch a file. It is there only once it is whole.
    layout : {"bytes", "lists"}
        How the predictions of a row are written: see `PredictionWriter`.
    half : bool
        Write predictions in half precision: half the bytes. A loss then is off by some 1e-3 of
        the largest logit, and a number beyond 65504 is an error.
    compression : {"none", "snappy", "lz4", "zstd", "gzip", "brotli"}
        Default: none, as floats hardly shrink; "zstd" where the disk is slow.
    overwrite : bool
        Replace what is there.
    progress : Progress, optional
        Is told what is read.

    Returns
    -------
    Path
        The output.

    Raises
    ------
    UsageError
        Where the call cannot be carried out.
    DataError
        Where rows cannot be read, or have another number of classes than others. Rows without
        predictions or a valid label stay, as nulls.
    """
    output = on_this_machine(output).absolute()
    threads = usable_threads(threads)
    if predictions is not None and not isinstance(predictions, str):
        predictions = ",".join(predictions)
    asked = Asked(
        id, label, predictions, epoch, split, kind, parse_class_names(class_names), dtype,
        None if positive is None else str(positive), skip_lines, epoch_per_path, filesystem,
    )  # fmt: skip
    data = open_source(source, asked)
    data.name_epochs()
    plan = make_plan(data, selection(epochs, data.epoch_names), threads, "slim")
    selected = selection(epochs, data.epoch_names)
    single = output.suffix.lower() in SUFFIXES
    _check_target(output, single, overwrite)
    where = output if single else directory_beside(output)
    files = Files(data, plan, where, single, layout, half, compression, overwrite)
    pipeline = Pipeline(data.read, lambda batch: max(1, batch.nbytes), IN_FLIGHT_BYTES)

    def take(batch: Batch) -> None:
        files.begin(batch.chunk)
        for of_split, number, rows in groups(batch):
            if selected is None or selected(number):
                files.write(batch, of_split, number, rows)
        if progress is not None:
            progress.advance(len(batch.labels), batch.nbytes)

    if progress is not None:
        progress.start(data, plan)
    try:
        pipeline.run(plan.chunks, threads, take)
        files.close()
        if not single:
            put_in_place(where, output)
    except BaseException:
        files.abandon()
        if not single:
            shutil.rmtree(where, ignore_errors=True)
        raise
    finally:
        if progress is not None:
            progress.finish()
    return output


def _check_target(output: Path, single: bool, overwrite: bool) -> None:
    """Refuse to write where something is that must not be lost."""
    if not os.path.lexists(output):
        return
    if not overwrite:
        raise UsageError(f"{output} is there already: choose another, or give --overwrite")
    if single:
        return
    inside = [path for path in output.rglob("*") if not path.is_dir()]
    other = next((path for path in inside if not OWN_FILE.fullmatch(path.name)), None)
    if not output.is_dir() or other is not None:
        raise UsageError(f"{output} is not overwritten: it is or holds more than a conversion")


class Files:
    """The files that are being written: one, or one for each epoch of each split."""

    def __init__(
        self, data: Source, plan: Plan, where: Path, single: bool, layout: str, half: bool,
        compression: str, overwrite: bool,
    ) -> None:  # fmt: skip
        self._data = data
        self._where = where
        self._single = single
        self._options: dict[str, Any] = {
            "layout": layout,
            "dtype": "float16" if half and data.layout.dtype != np.float16 else None,
            "compression": compression,
            "overwrite": overwrite,
        }
        self._writers: dict[Key, PredictionWriter] = {}
        self._order = {chunk: i for i, chunk in enumerate(plan.chunks)}
        self._last = self._last_chunks(plan)
        self._rows = 0

    def _last_chunks(self, plan: Plan) -> dict[int, int] | None:
        """Return the last chunk that may hold each epoch; None where only reading tells."""
        last: dict[int, int] = {}
        for i, chunk in enumerate(plan.chunks):
            bounds = self._data.epochs_in(chunk)
            if bounds is None or len(bounds) > FILES_AT_ONCE:
                return None
            last.update(dict.fromkeys(bounds, i))
        return last

    def begin(self, chunk: Chunk) -> None:
        """Close the files of epochs of which this chunk and later ones hold nothing."""
        if self._single or self._last is None:
            return
        now = self._order[chunk]
        for key in [k for k in self._writers if k[1] is not None and self._last[k[1]] < now]:
            self._writers.pop(key).close()

    def write(
        self, batch: Batch, split: str | None, epoch: int, rows: NDArray[np.int64] | None
    ) -> None:
        """Write rows of a batch, of one split and epoch."""
        names, told = self._data.epoch_names, self._data.tells_epochs
        key: Key = (None, None) if self._single else (split, epoch)
        if key not in self._writers:
            self._writers[key] = self._new(split, epoch)
        in_path = not self._single and epoch not in names
        name = names.get(epoch, epoch) if told and not in_path else None
        self._writers[key].write(
            *self._columns(batch, rows), epoch=name, split=split if self._single else None
        )
        self._rows += len(batch.labels) if rows is None else len(rows)

    def _new(self, split: str | None, epoch: int) -> PredictionWriter:
        if len(self._writers) >= FILES_AT_ONCE:
            raise UsageError(
                f"{len(self._writers)} epochs take turns in the rows of one file, and each would "
                "need memory for a file of its own: give the name of one file (.parquet) as output"
            )
        path = self._where
        if not self._single:
            name = f"epoch_{epoch:06d}.parquet" if self._data.tells_epochs else "data.parquet"
            path = path / ("" if split is None else f"split={split}") / name
        layout = self._data.layout
        return PredictionWriter(
            path, kind=layout.kind.name.lower(), classes=layout.classes,
            class_names=layout.class_names, **self._options,
        )  # fmt: skip

    def _columns(
        self, batch: Batch, rows: NDArray[np.int64] | None
    ) -> tuple[pa.Array, pa.Array, Any]:
        """Return predictions, labels and ids of rows of a batch."""
        every: Any = slice(None) if rows is None else rows
        x, labels, ids = batch.predictions[every], batch.labels[every], batch.ids
        if ids is not None and rows is not None:
            ids = ids.take(pa.array(rows)) if isinstance(ids, pa.Array) else ids[rows]
        missing = None
        if batch.problems is not None:
            problems = batch.problems[every]
            wrong = np.flatnonzero(problems == Reason.LENGTH)
            if len(wrong):
                row = int(wrong[0] if rows is None else rows[wrong[0]])
                raise DataError(
                    f"{self._data.place(batch.chunk, batch.start + row)}: has not "
                    f"{x.shape[1]} predictions, which rows of one width cannot hold: mend the row "
                    "or leave it out"
                )
            missing = pa.array(problems != 0)
        values = pa.array(np.ascontiguousarray(x).ravel())
        lists = pa.FixedSizeListArray.from_arrays(values, x.shape[1], mask=missing)
        return lists, pa.array(labels, mask=labels < 0), ids

    def close(self) -> None:
        """Finish all files."""
        if not self._rows:
            raise DataError("no rows: nothing to convert")
        for writer in self._taken():
            writer.close()

    def abandon(self) -> None:
        """Leave none of the files that are not finished."""
        for writer in self._taken():
            writer.abandon()

    def _taken(self) -> Iterator[PredictionWriter]:
        while self._writers:
            yield self._writers.popitem()[1]

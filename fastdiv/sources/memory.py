"""Arrow tables and arrays in memory as sources."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from fastdiv.batch import Batch, Chunk, IdValues
from fastdiv.errors import DataError, UsageError
from fastdiv.scoring import as_labels, as_predictions
from fastdiv.sources.columns import detect
from fastdiv.sources.decode import decode, integer_ids, label_names, sound_predictions
from fastdiv.sources.kinds import settle_kind
from fastdiv.sources.layout import SAMPLE_ROWS, Asked, Layout, agree
from fastdiv_kernels.contract import Array, Kind

CHUNK_ROWS = 1 << 18


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """One table, or one pair of arrays, with the split and epoch that its key gave."""

    data: Any
    split: str | None
    epoch: int | None

    @property
    def name(self) -> str:
        """Name the part to a person."""
        where = [f"split {self.split!r}"] if self.split is not None else []
        where += [f"epoch {self.epoch}"] if self.epoch is not None else []
        return " ".join(["data", *(("of " + ", ".join(where),) if where else ())])


class Runs:
    """What tables and arrays share: their chunks are runs of rows, `row_group` counts them."""

    def __init__(self, parts: Sequence[Part]) -> None:
        self.parts = parts

    def chunks(self, rows: Sequence[int], epoch_column: bool) -> list[Chunk]:
        """List the runs of rows of parts with so many rows each."""
        return [
            Chunk(
                part=i,
                row_group=g,
                rows=min(CHUNK_ROWS, n - g * CHUNK_ROWS),
                split=part.split,
                epoch=None if epoch_column else (part.epoch or 0),
            )
            for i, (part, n) in enumerate(zip(self.parts, rows, strict=True))
            for g in range(-(-n // CHUNK_ROWS))
        ]

    def first_row(self, chunk: Chunk) -> int:
        """Return where a run begins in its part."""
        return (chunk.row_group or 0) * CHUNK_ROWS

    def epochs_in(self, chunk: Chunk) -> range | None:
        """Return the bounds of a chunk's epochs as far as they are known."""
        return None if chunk.epoch is None else range(chunk.epoch, chunk.epoch + 1)

    def place(self, chunk: Chunk, row: int) -> str:
        """Name a row of a chunk to a person."""
        return f"{self.parts[chunk.part].name}, row {self.first_row(chunk) + row}"


class TableSource(Runs):
    """Rows of Arrow tables; a chunk is a run of rows."""

    def __init__(self, parts: Sequence[Part], asked: Asked) -> None:
        super().__init__(parts)
        full = [part for part in parts if part.data.num_rows]
        if not full:
            raise DataError("no rows in the table: nothing to analyze")
        first = full[0]
        schema = first.data.schema
        keys = {"epoch": first.epoch is not None, "split": first.split is not None}
        layout = detect(schema, first.data.slice(0, SAMPLE_ROWS // 2), asked, first.name, keys)
        for part in parts:
            layout = agree(layout, schema, part.data.schema, first.name, part.name)
        if first.epoch is not None:
            layout = replace(layout, epoch=None).with_evidence(epoch="keys of the mapping")
        elif layout.epoch is None:
            layout = layout.with_evidence(epoch="no column names one: all rows taken as epoch 0")
        if first.split is not None:
            layout = replace(layout, split=None).with_evidence(split="keys of the mapping")
        samples = []
        for part in dict.fromkeys((first, full[-1])):
            rows = part.data.slice(0, SAMPLE_ROWS // 2).combine_chunks().to_batches()[0]
            samples.append((sound_predictions(rows, layout), part.name))
        self.layout = settle_kind(layout, samples, asked.kind)

    def plan(self) -> list[Chunk]:
        """List runs of rows of the tables."""
        rows = [part.data.num_rows for part in self.parts]
        return self.chunks(rows, self.layout.epoch is not None)

    def nbytes(self, chunk: Chunk) -> int:
        """Return the size of the columns of a chunk that are read."""
        return int(self._slice(chunk).select(self.layout.columns).nbytes)

    def _slice(self, chunk: Chunk) -> Any:
        return self.parts[chunk.part].data.slice(self.first_row(chunk), chunk.rows)

    def read(self, chunk: Chunk) -> Iterator[Batch]:
        """Yield the rows of a chunk; nothing is copied where no nulls stand in the way."""
        start = 0
        for rows in self._slice(chunk).to_batches(max_chunksize=self.layout.batch_rows):
            yield decode(rows, self.layout, chunk, start, self.place)
            start += rows.num_rows


class ArraySource(Runs):
    """Arrays of predictions, labels and perhaps ids; a chunk is a run of rows."""

    def __init__(self, parts: Sequence[Part], asked: Asked) -> None:
        super().__init__(parts)
        arrays = [_arrays(part, asked.class_names) for part in parts]
        self._arrays = arrays
        full = [i for i, (x, _, _) in enumerate(arrays) if len(x)]
        if not full:
            raise DataError("no rows in the arrays: nothing to analyze")
        classes = arrays[full[0]][0].shape[1]
        for part, (x, _, ids) in zip(parts, arrays, strict=True):
            if x.shape[1] != classes:
                raise DataError(f"{part.name}: {x.shape[1]} classes, but {classes} before it")
            if (ids is None) != (arrays[0][2] is None):
                raise DataError(f"{part.name}: ids in some epochs only: give them in all, or none")
        if asked.class_names is not None and len(asked.class_names) != classes:
            raise UsageError(f"{len(asked.class_names)} class names for {classes} classes")
        dtype = np.result_type(*(x.dtype for x, _, _ in arrays))
        has_ids = arrays[0][2] is not None
        evidence = {
            "predictions": f"arrays of {dtype}",
            "label": "arrays",
            "id": "arrays" if has_ids else "position (no ids were given)",
            "epoch": "keys of the mapping",
        }
        layout = Layout(
            predictions=("predictions",),
            classes=classes,
            dtype=dtype,
            kind=Kind.LOGITS,
            label=None,
            id="ids" if has_ids else None,
            class_names=asked.class_names,
            string_ids=isinstance(arrays[0][2], pa.Array),
            evidence=evidence,
        )
        ends = dict.fromkeys((full[0], full[-1]))
        samples = [(arrays[i][0][: SAMPLE_ROWS // 2], parts[i].name) for i in ends]
        self.layout = settle_kind(layout, samples, asked.kind)

    def plan(self) -> list[Chunk]:
        """List runs of rows of the arrays."""
        return self.chunks([len(labels) for _, labels, _ in self._arrays], False)

    def nbytes(self, chunk: Chunk) -> int:
        """Return the size of a chunk's arrays."""
        x, labels, ids = self._arrays[chunk.part]
        per_row = x.itemsize * x.shape[1] + labels.itemsize + (8 if ids is not None else 0)
        return int(chunk.rows * per_row)

    def read(self, chunk: Chunk) -> Iterator[Batch]:
        """Yield views of the rows of a chunk."""
        x, labels, ids = self._arrays[chunk.part]
        first, step = self.first_row(chunk), self.layout.batch_rows
        assert chunk.epoch is not None
        for start in range(0, chunk.rows, step):
            rows = slice(first + start, first + min(start + step, chunk.rows))
            yield Batch(
                chunk=chunk,
                start=start,
                predictions=x[rows].astype(self.layout.dtype, copy=False),
                labels=labels[rows],
                ids=None if ids is None else ids[rows],
                epochs=chunk.epoch,
                splits=None,
                problems=None,
                nbytes=x[rows].nbytes + labels[rows].nbytes,
            )


def _arrays(
    part: Part, class_names: tuple[str, ...] | None
) -> tuple[Array, NDArray[np.int32], IdValues | None]:
    """Return predictions, labels and ids of a part, checked and converted."""
    data = part.data
    if isinstance(data, Mapping):
        unknown = set(data) - {"predictions", "labels", "ids"}
        if unknown or not {"predictions", "labels"} <= set(data):
            raise UsageError(
                f"{part.name}: keys must be predictions, labels and perhaps ids, not "
                f"{', '.join(map(str, data))}"
            )
        data = (data["predictions"], data["labels"], data.get("ids"))
    if len(data) not in (2, 3):
        raise UsageError(
            f"{part.name}: needed is (predictions, labels) or (predictions, labels, "
            f"ids), not {len(data)} things"
        )
    predictions, labels, ids = (*data, None)[:3]
    try:
        x = as_predictions(predictions)
        names = np.asarray(labels)
        if names.dtype.kind in "UOT":
            if class_names is None:
                raise UsageError(
                    "labels are strings: give class_names, in the order of the classes"
                )
            if names.shape not in ((len(x),), (len(x), 1)):
                raise UsageError(f"labels must have shape ({len(x)},), not {names.shape}")
            y = label_names(pa.array(names.ravel().tolist(), pa.large_string()), class_names)
        else:
            y = np.asarray(as_labels(labels, len(x)), np.int32)
    except UsageError as error:
        raise UsageError(f"{part.name}: {error}") from None
    return x, y, None if ids is None else _array_ids(ids, len(x), part)


def _array_ids(ids: Any, n: int, part: Part) -> IdValues:
    values = np.asarray(ids)
    if values.shape != (n,):
        raise UsageError(f"{part.name}: ids must have shape ({n},), not {values.shape}")
    if values.dtype.kind in "iu":
        return integer_ids(values)
    strings = values.tolist()
    if not all(isinstance(value, str) for value in strings):
        raise UsageError(f"{part.name}: ids must be integers or strings, not {values.dtype}")
    return pa.array(strings, pa.large_string())

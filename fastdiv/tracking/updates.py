"""An update of a tracker: columns to scores, in pieces on threads where it is large."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from fastdiv.arrays import on_device
from fastdiv.batch import Batch, Chunk, Scores
from fastdiv.scan import Options
from fastdiv.scoring import kernels_on_device, predictions_on, score_batch
from fastdiv.sources import Layout
from fastdiv.sources.arrays import PREDICTIONS, as_record_batch, columns_beside, named
from fastdiv.sources.decode import decode
from fastdiv_kernels.contract import Backend

UNDER_WAY = 0  # the number of the epoch under way, which has none yet


@dataclass(frozen=True, slots=True)
class Said:
    """What a tracker was told, checked."""

    kind: str
    class_names: tuple[str, ...] | None
    split: str | None
    options: Options
    backend: str
    kernels: Backend
    threads: int
    rank: int | None


@dataclass(frozen=True, slots=True)
class Update:
    """What was given, of which predictions may lie on a device."""

    rows: pa.RecordBatch
    kernels: Backend  # that score it
    predictions: Any = None  # (n, c), where they are no column of the rows

    @property
    def schema(self) -> pa.Schema:
        """Columns, predictions among them."""
        schema, x = self.rows.schema, self.predictions
        if x is None:
            return schema
        return schema.append(
            pa.field(PREDICTIONS, pa.list_(pa.from_numpy_dtype(x.dtype), x.shape[1]))
        )


def place(chunk: Chunk, row: int) -> str:
    """Name a row of an update to a person."""
    return f"update {chunk.row_group}, row {row}"


@contextmanager
def given(predictions: Any, labels: Any, ids: Any, name: str, said: Said) -> Iterator[Update]:
    """Return what was given to `update` in one form; on the device that predictions lie on."""
    if said.backend not in ("auto", "cuda") or not on_device(predictions):
        yield Update(as_record_batch(predictions, labels, ids, name), said.kernels)
        return
    with named(name):
        kernels: Any = kernels_on_device() if said.backend == "auto" else said.kernels
    labels, ids = (kernels.on_host(x) if on_device(x) else x for x in (labels, ids))
    with kernels.beside(predictions) as device:
        with named(name):
            x = predictions_on(device, predictions)
        yield Update(pa.record_batch(columns_beside(len(x), labels, ids, name)), kernels, x)


def score_update(update: Update, layout: Layout, said: Said, number: int) -> tuple[Batch, Scores]:
    """Return the rows of the update of a number, and their scores."""
    rows, there = update.rows, update.predictions
    chunk = Chunk(0, number, rows.num_rows, said.split, UNDER_WAY)

    def scored(batch: Batch) -> tuple[Batch, Scores]:
        options = said.options
        return batch, score_batch(
            update.kernels, batch, layout.kind, options.clip_nats, options.keeps_profiles
        )

    def work(start: int) -> tuple[Batch, Scores]:
        piece = rows.slice(start, layout.batch_rows)
        return scored(decode(piece, None, layout, chunk, start, place))

    if there is not None:  # a device takes all at once
        batch = decode(rows, (), layout, chunk, 0, place)
        batch.pieces, batch.nbytes = [there], batch.nbytes + there.nbytes
        return scored(batch)
    pieces = range(0, rows.num_rows, layout.batch_rows)
    if len(pieces) > 1 and said.threads > 1:
        with ThreadPoolExecutor(said.threads) as pool:
            return _joined(list(pool.map(work, pieces)))
    return _joined([work(start) for start in pieces])


def _joined(scored: list[tuple[Batch, Scores]]) -> tuple[Batch, Scores]:
    """Return the pieces of an update as one."""
    if len(scored) == 1:
        return scored[0]
    batches = [batch for batch, _ in scored]
    ids: Any = None
    if batches[0].ids is not None:
        every: list[Any] = [batch.ids for batch in batches]
        ids = pa.concat_arrays(every) if isinstance(every[0], pa.Array) else np.concatenate(every)
    joined = Batch(
        chunk=batches[0].chunk,
        start=0,
        pieces=[],  # they are scored
        labels=np.concatenate([batch.labels for batch in batches]),
        ids=ids,
        epochs=batches[0].epochs,
        splits=None,
        problems=None,
        nbytes=sum(batch.nbytes for batch in batches),
    )
    arrays = zip(*(scores.arrays() for _, scores in scored), strict=True)
    profiles = [scores.profile for _, scores in scored if scores.profile is not None]
    whole = Scores(*map(np.concatenate, arrays))
    if profiles:
        whole.profile = np.concatenate(profiles)
    return joined, whole

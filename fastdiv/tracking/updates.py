"""An update of a tracker: columns to scores, in pieces on threads where it is large."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from fastdiv.batch import Batch, Chunk, Scores
from fastdiv.scan import Options
from fastdiv.scoring import score_batch
from fastdiv.sources import Layout
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
    kernels: Backend
    threads: int
    rank: int | None


def place(chunk: Chunk, row: int) -> str:
    """Name a row of an update to a person."""
    return f"update {chunk.row_group}, row {row}"


def score_update(
    rows: pa.RecordBatch, layout: Layout, said: Said, number: int
) -> tuple[Batch, Scores]:
    """Return the rows of the update of a number, and their scores."""
    chunk = Chunk(0, number, rows.num_rows, said.split, UNDER_WAY)

    def work(start: int) -> tuple[Batch, Scores]:
        piece = rows.slice(start, layout.batch_rows)
        batch = decode(piece, None, layout, chunk, start, place)
        options = said.options
        return batch, score_batch(
            said.kernels, batch, layout.kind, options.clip_nats, options.keeps_profiles
        )

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

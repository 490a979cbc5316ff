"""Where predictions come from: one file a kind of source, and the one table that lists them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from fastdiv.batch import Batch, Chunk
from fastdiv.errors import UsageError
from fastdiv.sources.discover import discover
from fastdiv.sources.layout import Asked, Layout, parse_class_names
from fastdiv.sources.memory import ArraySource, Part, TableSource
from fastdiv.sources.parquet import ParquetSource

__all__ = ["Asked", "Layout", "Source", "open_source", "parse_class_names"]


class Source(Protocol):
    """What the engine asks of a source."""

    layout: Layout

    def plan(self) -> list[Chunk]:
        """List the chunks, in natural order, before anything is read."""
        ...

    def epochs_in(self, chunk: Chunk) -> range | None:
        """Return the bounds of a chunk's epochs as far as they are known without reading it."""
        ...

    def nbytes(self, chunk: Chunk) -> int:
        """Return how many bytes of a chunk are read."""
        ...

    def read(self, chunk: Chunk) -> Iterator[Batch]:
        """Yield the rows of a chunk, in order. May run on any thread."""
        ...

    def place(self, chunk: Chunk, row: int) -> str:
        """Name a row of a chunk to a person."""
        ...


def _paths(parts: Sequence[Part], asked: Asked) -> Source:
    files = [(os.fspath(part.data), part.split, part.epoch) for part in parts]
    return ParquetSource(discover(files, asked.epoch, asked.split), asked)


SOURCES: dict[str, tuple[Callable[[Any], bool], Callable[[Sequence[Part], Asked], Source]]] = {
    "paths": (lambda data: isinstance(data, str | os.PathLike), _paths),
    "tables": (lambda data: isinstance(data, pa.Table), TableSource),
    "arrays": (lambda data: isinstance(data, tuple | list | Mapping), ArraySource),
}


def open_source(data: Any, asked: Asked) -> Source:
    """Find the kind of source that `data` is and open it."""
    parts = list(_parts(data, None, None))
    if not parts:
        raise UsageError("nothing to analyze: no path, table or array was given")
    for fits, open_ in SOURCES.values():
        if all(fits(part.data) for part in parts):
            return open_(parts, asked)
    kinds = ", ".join(sorted({type(part.data).__name__ for part in parts}))
    raise UsageError(
        f"cannot read predictions from {kinds}: give paths, Arrow tables, or a "
        "mapping from epoch to (predictions, labels, ids), and one kind at a time"
    )


def _parts(data: Any, split: str | None, epoch: int | None) -> Iterator[Part]:
    """Take mappings from split names and epochs apart."""
    if isinstance(data, pa.RecordBatch):
        data = pa.Table.from_batches([data])
    if isinstance(data, list) and all(isinstance(x, str | os.PathLike) for x in data):
        for path in data:
            yield Part(path, split, epoch)
    elif isinstance(data, Mapping) and "predictions" not in data:
        for key, value in data.items():
            if isinstance(key, str) and split is None and epoch is None:
                yield from _parts(value, key, epoch)
            elif isinstance(key, int | np.integer) and epoch is None:
                yield from _parts(value, split, int(key))
            else:
                raise UsageError(
                    f"key {key!r}: keys are split names (strings), then epochs (integers)"
                )
    else:
        yield Part(data, split, epoch)

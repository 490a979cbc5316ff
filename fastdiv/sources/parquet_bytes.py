"""The bytes of a Parquet file: mapped, or the column chunks that are needed fetched."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from fastdiv.sources.files.fetch import Fetch, Sparse
from fastdiv.sources.files.file import LocalFile, RemoteFile
from fastdiv.sources.pages.chunk import Bytes, ChunkBytes
from fastdiv.sources.pages.group import chunk_of, mapped
from fastdiv.sources.parquet_footer import ColumnChunk


class Mapped:
    """Those of a file on this machine.

    Its size is compared with what it was when its footer was read.
    """

    def __init__(self, file: LocalFile, size: int) -> None:
        self._path = file.path
        self._file: Bytes = mapped(file.path, size)

    def arrow(self) -> Any:
        """Return what Arrow reads it by."""
        return self._path

    def chunk(self, chunk: ColumnChunk) -> ChunkBytes:
        """Return those of a column chunk; none where the file has not all of them."""
        return chunk_of(self._file, chunk)

    def check(self) -> None:
        """Do nothing: what is mapped stays."""

    def close(self) -> None:
        """Do nothing: the mapping ends with the last array of it."""


class Fetched:
    """Those of some column chunks of a remote file, fetched ahead.

    Parameters
    ----------
    file : RemoteFile
    chunks : sequence of ColumnChunk
        That will be read.
    most : int, optional
        Fetch no more than so many of the first bytes of each.
    """

    def __init__(
        self, file: RemoteFile, chunks: Sequence[ColumnChunk], most: int | None = None
    ) -> None:
        self._file = file
        spans = [span for chunk in chunks if (span := _span(chunk, file.size())) is not None]
        if most is not None:
            spans = [(start, min(stop, start + most)) for start, stop in spans]
        handle = file.handle()
        self._fetch = Fetch(handle, spans, file.transfers)
        self._fetch.ahead()

    def arrow(self) -> Any:
        """Return what Arrow reads it by."""
        return pa.PythonFile(Sparse(self._fetch, self._file.size()), "r")

    def chunk(self, chunk: ColumnChunk) -> ChunkBytes:
        """Return those of a column chunk; none where the file has not all of them."""
        span = _span(chunk, self._file.size())
        part = None if span is None else self._fetch.part(*span)
        return np.empty(0, np.uint8) if part is None else part

    def check(self) -> None:
        """Refuse a file that was written over meanwhile."""
        self._file.check()

    def close(self) -> None:
        """Let go of what was fetched."""
        self._fetch.close()


def _span(chunk: ColumnChunk, size: int) -> tuple[int, int] | None:
    """Return where a column chunk lies in a file; None where the file has not all of it."""
    stop = chunk.start + chunk.total_compressed_size
    return (chunk.start, stop) if 0 <= chunk.start < stop <= size else None

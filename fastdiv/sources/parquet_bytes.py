"""The bytes of a Parquet file: mapped, or the column chunks that are needed fetched."""

from __future__ import annotations

import mmap
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from fastdiv.sources.files.fetch import Fetch, Sparse
from fastdiv.sources.files.file import LocalFile, RemoteFile
from fastdiv.sources.pages.chunk import Bytes, ChunkBytes
from fastdiv.sources.parquet_footer import ColumnChunk

PAGE_BYTES = 1 << 20  # that pages mostly have at most
PAGE_VALUES = 20_000  # rows


class Mapped:
    """Those of a file on this machine.

    Its size is compared with what it was when its footer was read.
    """

    def __init__(self, file: LocalFile, size: int) -> None:
        self._path = file.path
        self._file = mapped(file.path, size)

    def arrow(self) -> Any:
        """Return what Arrow reads it by."""
        return self._path

    def chunk(self, chunk: ColumnChunk) -> ChunkBytes:
        """Return those of a column chunk; none where the file has not all of them."""
        span = _span(chunk, len(self._file))
        return self._file[:0] if span is None else self._file[slice(*span)]

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
    first : bool
        Fetch no more of each than what its first page with values takes.
    """

    def __init__(
        self, file: RemoteFile, chunks: Sequence[ColumnChunk], first: bool = False
    ) -> None:
        self._file = file
        found = [(chunk, _span(chunk, file.size())) for chunk in chunks]
        spans = [
            (span[0], min(span[1], _first_values_end(chunk))) if first else span
            for chunk, span in found
            if span is not None
        ]
        self._fetch = Fetch(file.handle(), spans, file.transfers, check=file.check)
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
        self._fetch.check()

    def close(self) -> None:
        """Let go of what was fetched."""
        self._fetch.close()


def mapped(path: str, size: int) -> Bytes:
    """Map a file, which must still be as long as it was; it goes with the last array of it."""
    with open(path, "rb") as file:
        if os.fstat(file.fileno()).st_size != size or not size:
            raise OSError(f"the file is no longer {size} bytes long: it was written over")
        return np.frombuffer(mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ), np.uint8)


def _span(chunk: ColumnChunk, size: int) -> tuple[int, int] | None:
    """Return where a column chunk lies in a file; None where the file has not all of it."""
    stop = chunk.start + chunk.total_compressed_size
    return (chunk.start, stop) if 0 <= chunk.start < stop <= size else None


def _first_values_end(chunk: ColumnChunk) -> int:
    """Return about where the first page with values ends, as files are mostly written."""
    size = PAGE_VALUES * chunk.total_compressed_size // max(1, chunk.num_values)
    if chunk.path[1:]:  # of a list a row
        size = PAGE_BYTES
    return chunk.data + min(PAGE_BYTES, size) + PAGE_BYTES // 16

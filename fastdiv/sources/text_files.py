"""What CSV and JSON lines share: text, compressed or not; a row costs at least some bytes."""

from __future__ import annotations

import io
import os
from typing import Any

import pyarrow as pa

from fastdiv.errors import DataError
from fastdiv.sources.container import one_line
from fastdiv.sources.files.file import File, LocalFile

COMPRESSED = (".gz", ".bz2", ".zst", ".lz4", ".br")


def suffix_of(path: str) -> str:
    """Return the suffix of a file's name in lower case, that of a compression left out."""
    stem, suffix = os.path.splitext(path.lower())
    return os.path.splitext(stem)[1] if suffix in COMPRESSED else suffix


def open_bytes(file: File) -> Any:
    """Open a file, decompressing it where its name says so."""
    compression: Any = "detect"
    try:
        if isinstance(file, LocalFile):
            return pa.input_stream(file.path, compression=compression)
        packed = file.path.lower().endswith(COMPRESSED)
        codec = pa.Codec.detect(file.path.lower()).name if packed else None
        return pa.input_stream(file.arrow(), compression=codec)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DataError(f"{file.name}: cannot be read: {one_line(error)}") from error


def open_text(file: File) -> io.TextIOWrapper:
    """Open a file as text in UTF-8."""
    return io.TextIOWrapper(io.BufferedReader(open_bytes(file)), encoding="utf-8-sig")


def most_rows(file: File, bytes_per_row: int) -> int | None:
    """Return at most how many rows a file has that costs so many bytes a row."""
    if file.path.lower().endswith(COMPRESSED):
        return None
    return file.size() // bytes_per_row + 1

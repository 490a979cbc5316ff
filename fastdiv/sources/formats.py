"""The formats of files, in one table: how each is recognised, and what opens it."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fastdiv.errors import DataError, UsageError
from fastdiv.sources.container import Container, Empty
from fastdiv.sources.delimited import DelimitedContainer
from fastdiv.sources.ipc import FileContainer, StreamContainer
from fastdiv.sources.json_lines import JsonLinesContainer
from fastdiv.sources.layout import Asked
from fastdiv.sources.numpy_files import NumPyContainer, is_named_array
from fastdiv.sources.parquet import ParquetContainer
from fastdiv.sources.text_files import suffix_of


@dataclass(frozen=True, slots=True)
class Format:
    """A format of files."""

    name: str
    suffixes: tuple[str, ...]
    magic: tuple[bytes, ...]  # what such a file begins with
    open: Callable[[str, Asked], Any]
    may_be_empty: bool = False  # to the last byte: then it has no rows


def _numpy(path: str, asked: Asked) -> NumPyContainer:
    beside = {"label": asked.label, "id": asked.id}
    return NumPyContainer(path, {k: v for k, v in beside.items() if v and is_named_array(v)})


# In a directory that holds several, the first of them is read.
FORMATS = (
    Format("Parquet", (".parquet", ".pq", ".parq"), (b"PAR1",), lambda p, _: ParquetContainer(p)),
    Format(
        "Arrow IPC", (".arrow", ".feather", ".ipc"), (b"ARROW1",), lambda p, _: FileContainer(p)
    ),
    Format(
        "Arrow stream", (".arrows",), (b"\xff\xff\xff\xff",), lambda p, _: StreamContainer(p)
    ),
    Format("NumPy", (".npz", ".npy"), (b"PK\x03\x04", b"\x93NUMPY"), _numpy),
    Format("JSON lines", (".jsonl", ".ndjson"), (), lambda p, _: JsonLinesContainer(p), True),
    Format(
        "CSV", (".csv", ".tsv"), (), lambda p, asked: DelimitedContainer(p, asked.skip_lines),
        True,
    ),
)  # fmt: skip
LIKE_JSON = (".json",)  # read where they are named, not where a directory is


def format_of_suffix(path: str) -> Format | None:
    """Return the format that a file's name tells."""
    suffix = suffix_of(path)
    return next((f for f in FORMATS if suffix in f.suffixes), None)


def format_of(path: str) -> Format:
    """Return the format of a file: by how it begins, else by its name."""
    by_name = format_of_suffix(path)
    try:
        with open(path, "rb") as file:
            begins = file.read(8)
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror or error}") from error
    by_content = next((f for f in FORMATS if any(begins.startswith(m) for m in f.magic)), None)
    if suffix_of(path) in LIKE_JSON:
        by_name = next(f for f in FORMATS if f.name == "JSON lines")
    found = by_content or by_name
    if found is None:
        known = ", ".join(suffix for f in FORMATS for suffix in f.suffixes)
        raise DataError(
            f"{path}: its name ends in none of {known}, and it does not begin like any of them"
        )
    return found


def open_file(path: str, asked: Asked) -> Container:
    """Open a file as a container."""
    format_ = format_of(path)
    if not os.path.getsize(path):
        if not format_.may_be_empty:
            raise DataError(f"{path}: cannot be read: the file is empty")
        return Empty(path)
    opened: Container = format_.open(path, asked)
    return opened

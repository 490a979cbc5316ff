"""The formats of files, in one table: how each is recognised, and what opens it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fastdiv.errors import DataError, UsageError
from fastdiv.sources.container import Container, Empty
from fastdiv.sources.delimited import DelimitedContainer
from fastdiv.sources.files.file import File, RemoteFile, as_file
from fastdiv.sources.files.places import Places
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
    open: Callable[[File, Asked], Any]
    may_be_empty: bool = False  # to the last byte: then it has no rows


def _numpy(file: File, asked: Asked) -> NumPyContainer:
    beside = {"label": asked.label, "id": asked.id}
    places = Places(asked.filesystem)
    named = {k: v for k, v in beside.items() if v and is_named_array(v, places)}
    return NumPyContainer(file, named, places)


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


def format_of(file: File) -> Format:
    """Return the format of a file: by how it begins, else by its name."""
    by_name = format_of_suffix(file.path)
    if by_name is not None and by_name.name == "Parquet" and isinstance(file, RemoteFile):
        return by_name  # its end will tell; to look at its beginning is to ask once more
    try:
        begins = file.begins(8)
    except OSError as error:
        raise UsageError(f"{file.name}: cannot be read: {error.strerror or error}") from error
    by_content = next((f for f in FORMATS if any(begins.startswith(m) for m in f.magic)), None)
    if suffix_of(file.path) in LIKE_JSON:
        by_name = next(f for f in FORMATS if f.name == "JSON lines")
    found = by_content or by_name
    if found is None:
        known = ", ".join(suffix for f in FORMATS for suffix in f.suffixes)
        raise DataError(
            f"{file.name}: its name ends in none of {known}, and it does not begin like any of them"
        )
    return found


def open_file(file: File | str, asked: Asked) -> Container:
    """Open a file as a container."""
    file = as_file(file)
    held = file.handle()  # open until all is found
    format_ = format_of(file)
    try:
        size = file.size()
    except OSError as error:
        raise UsageError(f"{file.name}: cannot be read: {error.strerror or error}") from error
    if not size:
        if not format_.may_be_empty:
            raise DataError(f"{file.name}: cannot be read: the file is empty")
        return Empty(file.name)
    opened: Container = format_.open(file, asked)
    del held
    return opened

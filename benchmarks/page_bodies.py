"""Where the compressed pages of a Parquet file lie: enough of Thrift to step from page to page."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

SIZE, COMPRESSED_SIZE = 2, 3  # fields of a page header: int32
VARINTS = (4, 5, 6)  # int16, int32, int64 of the compact protocol
TRUE_FALSE, BYTE, DOUBLE, BINARY, STRUCT = (1, 2), 3, 7, 8, 12


def bodies(file: Path) -> Iterator[tuple[str, tuple[Any, int]]]:
    """Yield codec and (bytes, size when decompressed) of each page of a file of version 1 pages."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    metadata = pq.read_metadata(file)
    data = pa.memory_map(str(file)).read_buffer()
    view = memoryview(data).cast("B")
    for row_group in range(metadata.num_row_groups):
        for column in range(metadata.num_columns):
            chunk = metadata.row_group(row_group).column(column)
            at = chunk.data_page_offset
            if chunk.has_dictionary_page:
                at = min(at, chunk.dictionary_page_offset)
            end = at + chunk.total_compressed_size
            while at < end:
                fields, at = _struct(view, at)
                length = fields[COMPRESSED_SIZE]
                yield chunk.compression.lower(), (data.slice(at, length), fields[SIZE])
                at += length


def _varint(view: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = view[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7


def _struct(view: memoryview, at: int) -> tuple[dict[int, int], int]:
    """Return the integers of a struct by field, and where it ends."""
    fields: dict[int, int] = {}
    number = 0
    while view[at]:
        delta, kind = view[at] >> 4, view[at] & 0x0F
        at += 1
        if delta:
            number += delta
        else:
            zigzag, at = _varint(view, at)
            number = (zigzag >> 1) ^ -(zigzag & 1)
        if kind in VARINTS:
            zigzag, at = _varint(view, at)
            fields[number] = (zigzag >> 1) ^ -(zigzag & 1)
        else:
            at = _past(view, at, kind)
    return fields, at + 1


def _past(view: memoryview, at: int, kind: int) -> int:
    """Return where a value ends that is no integer."""
    if kind in TRUE_FALSE:  # in a struct the type says which
        return at
    if kind in (BYTE, DOUBLE):
        return at + (1 if kind == BYTE else 8)
    if kind == BINARY:
        length, at = _varint(view, at)
        return at + length
    if kind == STRUCT:
        return _struct(view, at)[1]
    raise ValueError(f"a page header has no type {kind}")

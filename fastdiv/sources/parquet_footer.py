"""What a Parquet footer says of its column chunks, read without pyarrow's metadata objects.

`RowGroupMetaData.column(j)` of pyarrow ends the process (C++ terminate: the exception is not
declared to Cython) where a chunk's metadata is encrypted or its size statistics do not fit the
schema, as one flipped bit can make it.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

TRUE, FALSE, BYTE, I16, I32, I64, DOUBLE, BINARY, LIST, SET, MAP, STRUCT = range(1, 13)
DEPTH = 32


@dataclass(frozen=True, slots=True)
class ColumnChunk:
    """A column of a row group."""

    path: tuple[str, ...]
    type: int  # 1: int32, 2: int64
    num_values: int
    total_uncompressed_size: int
    total_compressed_size: int
    minimum: bytes | None
    maximum: bytes | None


@dataclass(frozen=True, slots=True)
class RowGroup:
    """A row group."""

    num_rows: int
    columns: list[ColumnChunk]


def read_footer(path: str) -> tuple[int, list[RowGroup]]:
    """Return the number of rows and the row groups; ValueError where the footer is damaged."""
    with open(path, "rb") as file:
        file.seek(-8, 2)
        end = file.tell()
        (size,) = struct.unpack("<I", file.read(4))
        if size > end:
            raise ValueError(f"the footer claims {size} bytes, but the file has {end + 8}")
        file.seek(end - size)
        data = file.read(size)
    try:
        footer, _ = _struct(data, 0, 0)
        groups = [
            RowGroup(group[3], [_chunk(column) for column in group[1]]) for group in footer[4]
        ]
        return footer[3], groups
    except (IndexError, KeyError, TypeError, struct.error, AttributeError) as error:
        raise ValueError("the footer is damaged") from error


def _chunk(column: dict[int, Any]) -> ColumnChunk:
    meta = column.get(3)
    if meta is None or 8 in column:
        raise ValueError("a column is encrypted")
    stats = meta.get(12, {})
    return ColumnChunk(
        tuple(part.decode() for part in meta[3]),
        meta[1],
        meta[5],
        meta[6],
        meta[7],
        stats.get(6),
        stats.get(5),
    )


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise ValueError("the footer is damaged")


def _struct(data: bytes, at: int, depth: int) -> tuple[dict[int, Any], int]:
    if depth > DEPTH:
        raise ValueError("the footer is damaged")
    fields: dict[int, Any] = {}
    number = 0
    while head := data[at]:
        at += 1
        if delta := head >> 4:
            number += delta
        else:
            zigzag, at = _varint(data, at)
            number = (zigzag >> 1) ^ -(zigzag & 1)
        kind = head & 15
        if kind <= FALSE:
            fields[number] = kind == TRUE
        else:
            fields[number], at = _value(kind, data, at, depth)
    return fields, at + 1


def _value(kind: int, data: bytes, at: int, depth: int) -> tuple[Any, int]:
    if kind in (I16, I32, I64):
        zigzag, at = _varint(data, at)
        return (zigzag >> 1) ^ -(zigzag & 1), at
    if kind == BINARY:
        size, at = _varint(data, at)
        if at + size > len(data):
            raise ValueError("the footer is damaged")
        return data[at : at + size], at + size
    if kind == STRUCT:
        return _struct(data, at, depth + 1)
    if kind in (LIST, SET):
        size, of = data[at] >> 4, data[at] & 15
        at += 1
        if size == 15:
            size, at = _varint(data, at)
        if size > len(data) - at:  # every element takes a byte
            raise ValueError("the footer is damaged")
        values = []
        for _ in range(size):
            value, at = _value(of, data, at, depth)
            values.append(value)
        return values, at
    if kind in (TRUE, FALSE, BYTE):  # of a list
        return data[at], at + 1
    if kind == DOUBLE:
        return data[at : at + 8], at + 8
    raise ValueError("the footer is damaged")

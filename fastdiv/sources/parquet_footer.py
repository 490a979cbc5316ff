"""What a Parquet footer says of its column chunks, read without pyarrow's metadata objects.

`RowGroupMetaData.column(j)` of pyarrow ends the process (C++ terminate: the exception is not
declared to Cython) where a chunk's metadata is encrypted or its size statistics do not fit the
schema, as one flipped bit can make it.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

TRUE, FALSE, BYTE, I16, I32, I64, DOUBLE, BINARY, LIST, SET, MAP, STRUCT = range(1, 13)
INTEGERS = (I32, I64)
DEPTH = 32
TRAILER = 8  # bytes after the footer: its size, and "PAR1"
TAIL_BYTES = 256 << 10  # of which most footers are less, and that take less than to ask again
REPEATED = 2


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
    codec: int
    start: int  # where its first page lies in the file
    data: int  # where the first one with values does


@dataclass(frozen=True, slots=True)
class Leaf:
    """A column as stored, by the schema."""

    path: tuple[str, ...]
    type: int  # physical: 1 int32, 2 int64, 4 float, 5 double, 7 bytes of one width ...
    width: int  # of those bytes, else 0
    repetitions: tuple[int, ...]  # from the root: 0 required, 1 optional, 2 repeated

    @property
    def max_definition(self) -> int:
        """The level of a value that is there."""
        return sum(r > 0 for r in self.repetitions)

    @property
    def max_repetition(self) -> int:
        """How deep lists are nested."""
        return sum(r == REPEATED for r in self.repetitions)


@dataclass(frozen=True, slots=True)
class RowGroup:
    """A row group."""

    num_rows: int
    columns: list[ColumnChunk]


@dataclass(frozen=True, slots=True)
class Footer:
    """What a file says it holds."""

    rows: int
    groups: list[RowGroup]
    leaves: list[Leaf]  # in the order of the columns of each row group


def read_tail(read: Callable[[int, int], bytes], size: int) -> bytes:
    """Return a footer and what ends the file after it.

    `read`: returns the bytes of the file from one place to another.
    """
    tail = read(max(0, size - TAIL_BYTES), size)
    if len(tail) < TRAILER:
        raise ValueError(f"the file has only {size} bytes")
    need = int.from_bytes(tail[-TRAILER : 4 - TRAILER], "little") + TRAILER
    if need > size:
        raise ValueError(f"the footer claims {need - TRAILER} bytes, but the file has {size}")
    if need > len(tail):
        tail = read(size - need, size - len(tail)) + tail
    return tail[-need:]


def read_footer(tail: bytes) -> Footer:
    """Read a footer, with what ends the file after it; ValueError where it is damaged."""
    data = tail[:-TRAILER]
    try:
        footer, _ = read_struct(data)
        groups = [
            RowGroup(group[3], [_chunk(column) for column in group[1]]) for group in footer[4]
        ]
        return Footer(footer[3], groups, list(_leaves(footer[2])))
    except (IndexError, KeyError, TypeError, struct.error, AttributeError) as error:
        raise ValueError("the footer is damaged") from error


def _leaves(schema: list[dict[int, Any]]) -> Iterator[Leaf]:
    """Yield the leaves of a schema, whose elements come depth first."""
    above: list[tuple[int, tuple[str, ...], tuple[int, ...]]] = []  # children to come, path, levels
    for i, element in enumerate(schema):
        while above and above[-1][0] == 0:
            above.pop()
        if i and not above:
            raise ValueError("the footer is damaged")
        path: tuple[str, ...] = ()
        levels: tuple[int, ...] = ()
        if i:
            left, path, levels = above.pop()
            above.append((left - 1, path, levels))
            path, levels = (*path, element[4].decode()), (*levels, element.get(3, 0))
        children = element.get(5) or 0
        if children or not i:
            above.append((children, path, levels))
        else:
            yield Leaf(path, element[1], element.get(2) or 0, levels)


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
        meta[4],
        min(meta[9], meta.get(11) or meta[9]),
        meta[9],
    )


def read_struct(data: bytes) -> tuple[dict[int, Any], int]:
    """Read a struct of Thrift's compact protocol: its fields by number, and where it ends."""
    return _struct(data, 0, 0)


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
        if kind in INTEGERS:  # as most are; without a call it takes half the time
            byte = data[at]
            at += 1
            zigzag, shift = byte & 0x7F, 7
            while byte >= 0x80:
                byte = data[at]
                at += 1
                zigzag |= (byte & 0x7F) << shift
                shift += 7
                if shift > 70:
                    raise ValueError("the footer is damaged")
            fields[number] = (zigzag >> 1) ^ -(zigzag & 1)
        elif kind <= FALSE:
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

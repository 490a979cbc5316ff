"""The headers of Parquet's data pages, in Thrift's compact protocol: what tells of their values.

Only what writers do write is read: numbers, booleans, texts and structs within structs. At
anything else `read_page_headers` stops, and nothing is trusted: it stays within the bytes that it
is given.
"""

from typing import Any

import numpy as np

from fastdiv_kernels.cpu.jit import inner, kernel
from fastdiv_kernels.page_table import (
    COMPRESSED,
    CRC,
    DATA,
    DATA_V2,
    DEFINITION,
    ENCODING,
    KIND,
    MADE,
    NONE,
    REPETITION,
    SIZE,
    START,
    VALUES,
)

ROOM = 16  # numbers of fields of a struct, from 0 on
STRUCTS = (5, 7, 8)  # fields of the header that are structs whose own fields are told
MISSING, OTHER = -(1 << 63), 1 - (1 << 63)
DEEPEST = 8  # structs within structs
MOST_SHIFT = 63  # of a varint
TRUE, FALSE, SHORT, WORD, LONG, TEXT, STRUCT = 1, 2, 4, 5, 6, 8, 12


@inner()
def varint(data: Any, at: Any) -> Any:
    """Read a varint; return it and where it ends, which is beyond the data where it has no end."""
    value = np.uint64(0)
    shift = np.uint64(0)
    while at < len(data) and shift < MOST_SHIFT:
        byte = np.uint64(data[at])
        at += 1
        value |= (byte & np.uint64(0x7F)) << shift
        if byte < 0x80:
            return value, at
        shift += np.uint64(7)
    return value, len(data) + 1


@inner()
def read_fields(data: Any, at: Any, fields: Any, numbers: Any) -> Any:
    """Read the header in data (bytes,) uint8 from `at` on; return where it ends.

    Parameters
    ----------
    fields : (4 * ROOM,) int64, written
        The fields of the header by their numbers, then those of each of STRUCTS; MISSING where
        there is none, OTHER where it is no number.
    numbers : (DEEPEST,) int64, written

    Returns
    -------
    int
        -1 where it cannot be told.
    """
    fields[:] = MISSING
    numbers[0] = 0  # of the last field of each struct that has begun
    row = 0  # of `fields` that the struct's own go to
    depth = 0
    while at < len(data):
        head = np.int64(data[at])
        at += 1
        if head == 0:
            if depth == 0:
                return at
            depth -= 1
            continue
        delta, kind = head >> 4, head & 15
        number = numbers[depth] + delta
        if delta == 0 or number >= ROOM:
            return -1
        numbers[depth] = number
        told = depth == 0 or (depth == 1 and row > 0)
        place = number if depth == 0 else row * ROOM + number
        if kind in (SHORT, WORD, LONG):
            zigzag, at = varint(data, at)
            if told:
                fields[place] = np.int64(zigzag >> np.uint64(1)) ^ -np.int64(zigzag & np.uint64(1))
        elif kind in (TRUE, FALSE):
            if told:
                fields[place] = np.int64(kind == TRUE)
        elif kind in (TEXT, STRUCT) and told:
            fields[place] = OTHER
        if kind == TEXT:
            size, at = varint(data, at)
            if size > np.uint64(len(data)):
                return -1
            at += np.int64(size)
        if kind == STRUCT:
            if depth + 1 == DEEPEST:
                return -1
            if depth == 0:
                row = 0
                for i in range(len(STRUCTS)):
                    if number == STRUCTS[i]:
                        row = i + 1
            depth += 1
            numbers[depth] = 0
        if kind not in (SHORT, WORD, LONG, TRUE, FALSE, TEXT, STRUCT):
            return -1
    return -1


@inner()
def is_size(x: Any) -> Any:
    """Say whether a field is a size, as 32 bits can tell it."""
    return 0 <= x < 1 << 31


@inner()
def tell(fields: Any, page: Any) -> Any:
    """Write what the fields of a header say to a row of the table; 0 if it is no data page's."""
    kind = fields[1]
    crc = fields[4]
    if kind == DATA:
        at = ROOM
        encoding, repetition, definition = fields[at + 2], fields[at + 4], fields[at + 3]
        compressed = np.int64(1)
    elif kind == DATA_V2:
        at = 3 * ROOM
        encoding, repetition, definition = fields[at + 4], fields[at + 6], fields[at + 5]
        compressed = fields[at + 7]
        compressed = np.int64(1) if compressed == MISSING else compressed
    else:
        return 0
    made, size, values = fields[2], fields[3], fields[at + 1]
    sizes = is_size(made) and is_size(size) and is_size(values) and is_size(encoding)
    if not sizes or not is_size(repetition) or not is_size(definition):
        return 0
    if crc == OTHER or compressed == OTHER:
        return 0
    page[KIND] = kind
    page[SIZE] = size
    page[MADE] = made
    page[CRC] = NONE if crc == MISSING else crc & 0xFFFFFFFF
    page[VALUES] = values
    page[ENCODING] = encoding
    page[REPETITION] = repetition
    page[DEFINITION] = definition
    page[COMPRESSED] = np.int64(compressed != 0)
    return 1


@kernel
def read_page_headers(
    data: Any, at: Any, end: Any, left: Any, wanted: Any, larger: Any, most: Any, table: Any
) -> Any:  # fmt: skip
    """Read the headers of the data pages that follow one another, up to some number of values.

    Parameters
    ----------
    data : (bytes,) uint8
        Of a column chunk: all, or as much as the first header needs.
    at, end : int
        Where the first header begins, and the column chunk ends.
    left : int
        Values that the chunk has from there on.
    wanted : int
        No page is read after so many values.
    larger, most : int
        How many times its size a page may be when it is uncompressed, 0 where nothing is; and how
        many bytes at most.
    table : (m, COLUMNS) int64, written
        See `page_table`.

    Returns
    -------
    tuple of int
        How many headers were read, and where the next one begins; how many values their pages
        have, bytes when they are uncompressed, and checksums. There are fewer headers than wanted
        where one cannot be told, is not that of a data page with values, or cannot be true.
    """
    fields = np.empty(4 * ROOM, np.int64)
    numbers = np.zeros(DEEPEST, np.int64)
    n, values, made, checksums = np.int64(0), np.int64(0), np.int64(0), np.int64(0)
    while n < len(table) and values < wanted and at < min(end, len(data)):
        start = read_fields(data, at, fields, numbers)
        page = table[n]
        if start < 0 or tell(fields, page) == 0:
            break
        size = page[SIZE]
        if size > end - start or page[VALUES] == 0 or page[VALUES] > left - values:
            break
        if larger > 0 and (page[MADE] > larger * size + 64 or page[MADE] > most):
            break
        if page[KIND] == DATA:
            if larger == 0 and page[MADE] != size:
                break
        elif page[REPETITION] + page[DEFINITION] > min(size, page[MADE]):
            break
        page[START] = start
        values += page[VALUES]
        made += page[MADE]
        checksums += np.int64(page[CRC] != NONE)
        at = start + size
        n += 1
    return n, at, values, made, checksums

"""The header of a Parquet page, in Thrift's compact protocol: the fields that tell of its values.

Only what writers do write is read: numbers, booleans, texts and structs within structs. Of
anything else `read_page_header` says that it cannot tell, and nothing is trusted: it stays within
the bytes that it is given.
"""

from typing import Any

import numpy as np

from fastdiv_kernels.cpu.jit import brief_kernel, inner

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


@brief_kernel
def read_page_header(data: Any, fields: Any) -> Any:
    """Read the header at the beginning of data (bytes,) uint8; return how long it is.

    Parameters
    ----------
    fields : (4 * ROOM,) int64, written
        The fields of the header by their numbers, then those of each of STRUCTS; MISSING where
        there is none, OTHER where it is no number.

    Returns
    -------
    int
        -1 where it cannot be told.
    """
    fields[:] = MISSING
    numbers = np.zeros(DEEPEST, np.int64)  # of the last field of each struct that has begun
    row = 0  # of `fields` that the struct's own go to
    depth = at = 0
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

"""The headers of pages, none of which is trusted."""

from __future__ import annotations

import struct
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastdiv.sources.parquet_footer import read_struct

DATA, INDEX, DICTIONARY, DATA_V2 = range(4)
PLAIN, PLAIN_DICTIONARY, RLE, RLE_DICTIONARY = 0, 2, 3, 8
MOST_HEADER_BYTES = 1 << 16
# Where fields lie among the numbers that the kernel tells: of the header, and of a page's kind.
FIELDS, OF_DATA, OF_DATA_V2 = 64, 16, 48
MISSING, OTHER = -(1 << 63), 1 - (1 << 63)


class Unexpected(Exception):  # noqa: N818  # no error: another reader takes over
    """A column chunk is not as this reader expects; the message says why, in a few words."""


class PageHeader(NamedTuple):  # of which some are made for every few thousand rows
    """What is said of a page, sizes in bytes."""

    kind: int  # DATA, INDEX, DICTIONARY or DATA_V2
    size: int  # stored, after the header
    uncompressed_size: int
    crc: int | None
    num_values: int
    encoding: int
    level_encodings: tuple[int, int] = (RLE, RLE)
    level_sizes: tuple[int, int] | None = None  # repetition, definition: of a DATA_V2 page
    is_compressed: bool = True


def quick_header(data: NDArray[np.uint8], room: NDArray[np.int64]) -> tuple[PageHeader, int] | None:
    """Read a header as `read_header` does, which is for those of which this returns None.

    `room` is an array of `FIELDS` numbers to be written over.
    """
    from fastdiv_kernels.cpu.page_headers import read_page_header

    end = read_page_header(data, room)
    if end < 0:
        return None
    _, kind, uncompressed, size, number = room[:5].tolist()
    crc = None if number == MISSING else number
    if kind == DATA:
        _, values, encoding, definition, repetition = room[OF_DATA : OF_DATA + 5].tolist()
        levels, sizes, compressed = (repetition, definition), None, True
    elif kind == DATA_V2:
        of = room[OF_DATA_V2 : OF_DATA_V2 + 8].tolist()
        _, values, _, _, encoding, definition, repetition, flag = of
        levels, sizes = (RLE, RLE), (repetition, definition)
        compressed = flag if flag == OTHER else flag != 0
    else:
        return None
    told = (uncompressed, size, values, encoding, definition, repetition)
    if min(told) < 0 or max(told) >= 1 << 31 or OTHER in (crc, compressed):
        return None
    return PageHeader(
        kind, size, uncompressed, crc, values, encoding, levels, sizes, compressed
    ), end


def read_header(data: bytes) -> tuple[PageHeader, int]:
    """Read the header at the beginning of some bytes; return it and how many bytes it takes."""
    try:
        fields, end = read_struct(data)
        kind, uncompressed, size = fields[1], fields[2], fields[3]
        crc = None if 4 not in fields else _number(fields[4])
        if kind == DATA:
            of = fields[5]
            header = PageHeader(
                kind, size, uncompressed, crc, of[1], of[2], level_encodings=(of[4], of[3])
            )
        elif kind == DATA_V2:
            of = fields[8]
            header = PageHeader(
                kind, size, uncompressed, crc, of[1], of[4], level_sizes=(of[6], of[5]),
                is_compressed=_number(of.get(7, True)) != 0,
            )  # fmt: skip
        elif kind == DICTIONARY:
            of = fields[7]
            header = PageHeader(kind, size, uncompressed, crc, of[1], of[2])
        else:
            header = PageHeader(INDEX, size, uncompressed, crc, 0, PLAIN)
    except (IndexError, KeyError, TypeError, ValueError, AttributeError, struct.error):
        raise Unexpected("a page header that cannot be read") from None
    numbers = (size, uncompressed, header.num_values, *(header.level_sizes or ()))
    if not all(isinstance(x, int) and 0 <= x < 1 << 31 for x in numbers):
        raise Unexpected("a page header that cannot be true")
    return header, end


def _number(x: object) -> int:
    if not isinstance(x, int):
        raise TypeError("no number")
    return x

"""The headers of pages, none of which is trusted."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from fastdiv.sources.parquet_footer import read_struct

DATA, INDEX, DICTIONARY, DATA_V2 = range(4)
PLAIN, PLAIN_DICTIONARY, RLE, RLE_DICTIONARY = 0, 2, 3, 8
MOST_HEADER_BYTES = 1 << 16


class Unexpected(Exception):  # noqa: N818  # no error: another reader takes over
    """A column chunk is not as this reader expects; the message says why, in a few words."""


@dataclass(frozen=True, slots=True)
class PageHeader:
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


def read_header(data: bytes) -> tuple[PageHeader, int]:
    """Read the header at the beginning of some bytes; return it and how many bytes it takes."""
    try:
        fields, end = read_struct(data)
        kind, uncompressed, size = fields[1], fields[2], fields[3]
        crc = fields.get(4)
        if kind == DATA:
            of = fields[5]
            header = PageHeader(
                kind, size, uncompressed, crc, of[1], of[2], level_encodings=(of[4], of[3])
            )
        elif kind == DATA_V2:
            of = fields[8]
            header = PageHeader(
                kind, size, uncompressed, crc, of[1], of[4], level_sizes=(of[6], of[5]),
                is_compressed=of.get(7, True),
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

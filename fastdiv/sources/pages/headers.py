"""The headers of pages, none of which is trusted."""

from __future__ import annotations

import struct
from typing import NamedTuple

from fastdiv.sources.parquet_footer import read_struct
from fastdiv_kernels.page_table import DATA, DATA_V2, DICTIONARY, INDEX, NONE, PLAIN, RLE

MOST_HEADER_BYTES = 1 << 16


class Unexpected(Exception):  # noqa: N818  # no error: another reader takes over
    """A column chunk is not as this reader expects; the message says why, in a few words."""


class PageHeader(NamedTuple):
    """What is said of a page, sizes in bytes; as a row of the page table begins."""

    kind: int  # DATA, INDEX, DICTIONARY or DATA_V2
    size: int  # stored, after the header
    made: int  # the same uncompressed
    crc: int  # unsigned; NONE where there is none
    num_values: int
    encoding: int
    repetition: int = RLE  # encoding of its levels; in a DATA_V2 page the bytes that they take
    definition: int = RLE
    is_compressed: bool = True


def read_header(data: bytes) -> tuple[PageHeader, int]:
    """Read the header at the beginning of some bytes; return it and how many bytes it takes.

    It knows all of Thrift's compact protocol; the kernel knows what most headers are made of.
    """
    try:
        fields, end = read_struct(data)
        kind, made, size = fields[1], fields[2], fields[3]
        crc = NONE if 4 not in fields else _number(fields[4]) & 0xFFFFFFFF
        if kind == DATA:
            of = fields[5]
            header = PageHeader(kind, size, made, crc, of[1], of[2], of[4], of[3])
        elif kind == DATA_V2:
            of = fields[8]
            compressed = _number(of.get(7, True)) != 0
            header = PageHeader(kind, size, made, crc, of[1], of[4], of[6], of[5], compressed)
        elif kind == DICTIONARY:
            of = fields[7]
            header = PageHeader(kind, size, made, crc, of[1], of[2])
        else:
            header = PageHeader(INDEX, size, made, crc, 0, PLAIN)
    except (IndexError, KeyError, TypeError, ValueError, AttributeError, struct.error):
        raise Unexpected("a page header that cannot be read") from None
    numbers = [x for name, x in header._asdict().items() if name not in ("kind", "crc")]
    if not all(isinstance(x, int) and 0 <= x < 1 << 31 for x in numbers):
        raise Unexpected("a page header that cannot be true")
    return header, end


def _number(x: object) -> int:
    if not isinstance(x, int):
        raise TypeError("no number")
    return x

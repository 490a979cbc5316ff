"""Compressed bytes into exactly as many as they are said to be.

`pyarrow.Codec.decompress` does not tell how much of its result it has written: the rest would be
whatever was in memory. So what tells the size beforehand is looked at: Snappy begins with it, a
frame of Zstandard holds it, and both decoders insist on it. Zlib tells afterwards.
"""

from __future__ import annotations

import zlib
from typing import Any

import pyarrow as pa

from fastdiv.sources.pages.headers import Unexpected

UNCOMPRESSED, SNAPPY, GZIP, LZO, BROTLI, LZ4, ZSTD, LZ4_RAW = range(8)
STREAMED = {BROTLI: "brotli", ZSTD: "zstd"}
DECODED = {UNCOMPRESSED, SNAPPY, GZIP, BROTLI, ZSTD}
ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"


def decompress(codec: int, data: memoryview, size: int) -> Any:
    """Return `data` decompressed, `size` bytes, as something that has a buffer."""
    if codec == SNAPPY and _snappy_size(data) == size:
        return pa.Codec("snappy").decompress(data, size)
    if codec == ZSTD and _zstd_size(data) == size:
        return pa.Codec("zstd").decompress(data, size)
    if codec == GZIP:
        stream = zlib.decompressobj(31)
        found: Any = stream.decompress(data, size + 1)
        ended = stream.eof and not stream.unused_data
    elif codec in STREAMED:
        with pa.input_stream(pa.py_buffer(data), compression=STREAMED[codec]) as stream:
            found = stream.read_buffer(size + 1)
        ended = True
    else:
        raise Unexpected("a page that cannot be decompressed")
    if len(found) != size or not ended:
        raise Unexpected("a page that cannot be decompressed")
    return found


def _snappy_size(data: memoryview) -> int:
    """Return the size that Snappy's first bytes tell."""
    size = 0
    for i, byte in enumerate(data[:5]):
        size |= (byte & 127) << (7 * i)
        if byte < 128:
            return size
    return -1


def _zstd_size(data: memoryview) -> int:
    """Return the size that the header of a frame tells; -1: it tells none."""
    if len(data) < 18 or data[:4] != ZSTD_MAGIC:
        return -1
    descriptor = data[4]
    single = descriptor >> 5 & 1
    kind = descriptor >> 6
    width = (1 if single else 0, 2, 4, 8)[kind]
    at = 5 + (not single) + (0, 1, 2, 4)[descriptor & 3]
    if not width:
        return -1
    return int.from_bytes(data[at : at + width], "little") + (256 if width == 2 else 0)

"""ColumnPages: the values of a column chunk, page by page, as they lie or decompressed."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from fastdiv.sources.pages.codec import BROTLI, GZIP, SNAPPY, ZSTD, decompress
from fastdiv.sources.pages.headers import (
    DATA,
    DATA_V2,
    DICTIONARY,
    FIELDS,
    INDEX,
    MOST_HEADER_BYTES,
    PLAIN,
    PLAIN_DICTIONARY,
    RLE,
    RLE_DICTIONARY,
    PageHeader,
    Unexpected,
    quick_header,
    read_header,
)
from fastdiv.sources.parquet_footer import ColumnChunk, Leaf

Bytes = NDArray[np.uint8]


class ChunkBytes(Protocol):
    """The stored bytes of a column chunk: an array, or what is fetched as it is sliced."""

    def __len__(self) -> int: ...

    def __getitem__(self, part: slice, /) -> Bytes: ...


# How much larger than it is stored a page can be, by codec.
MOST_LARGER = {SNAPPY: 25, GZIP: 1100, BROTLI: 100_000, ZSTD: 100_000}
NEAR = 128  # bytes that most headers are within
WORDS = {2: np.uint16, 4: np.uint32, 8: np.uint64}


@dataclass(slots=True)
class Piece:
    """Values of a page that follow one another."""

    start: int  # which value of the chunk the first one is
    values: Bytes  # (bytes,) of whole values, wherever they lie


class ColumnPages:
    """Yields the values of a column chunk, of one width, of which none is missing.

    Parameters
    ----------
    data : (bytes,) uint8
        Those of the chunk alone. They are taken in order.
    chunk, leaf
        What its footer says.
    width : int
        Bytes of a value.
    period : int
        Values of a list, all of which have so many; 0 where there are no lists.

    Raises
    ------
    Unexpected
        From any method, where the chunk is another.
    """

    def __init__(
        self, data: ChunkBytes, chunk: ColumnChunk, leaf: Leaf, width: int, period: int
    ) -> None:
        self._data = data
        self._chunk = chunk
        self._leaf = leaf
        self._width = width
        self._period = period
        self._at = 0
        self._end = chunk.total_compressed_size
        if len(data) != self._end:
            raise Unexpected("pages that are not in the file")
        if chunk.codec and chunk.codec not in MOST_LARGER:
            raise Unexpected("a codec that is rare")
        self._fields = np.empty(FIELDS, np.int64)
        self._done = 0  # values
        self._failed: Unexpected | None = None
        self._dictionary: Any = None

    @property
    def left(self) -> int:
        """Values still to come."""
        return self._chunk.num_values - self._done

    def next(self) -> Piece:
        """Return the values of the next page that has some; none after one that had to fail."""
        if self._failed is not None:
            raise self._failed
        try:
            return self._next()
        except Unexpected as why:
            self._failed = why
            raise

    def _next(self) -> Piece:
        while True:
            header = self._header()
            body = self._data[self._at : self._at + header.size]
            self._at += header.size
            if header.crc is not None and zlib.crc32(body.data) != header.crc & 0xFFFFFFFF:
                raise Unexpected("a page with a wrong checksum")
            if header.kind == DICTIONARY:
                self._keep_dictionary(header, body)
            elif header.kind != INDEX and header.num_values:
                if header.num_values > self.left:
                    raise Unexpected("more values than the footer says")
                values = self._values(header, body)
                piece = Piece(self._done, values)
                self._done += header.num_values
                return piece

    def check_end(self) -> None:
        """Refuse pages after the last value."""
        if self.left or self._at != self._end:
            raise Unexpected("pages that do not end with the chunk")

    def _header(self) -> PageHeader:
        if self._at >= self._end:
            raise Unexpected("fewer values than the footer says")
        near = self._data[self._at : min(self._at + NEAR, self._end)]
        found = quick_header(near, self._fields)
        if found is None:  # it may have long statistics, or be none
            near = self._data[self._at : min(self._at + MOST_HEADER_BYTES, self._end)]
            found = read_header(near.tobytes())
        header, size = found
        self._at += size
        if header.size > self._end - self._at:
            raise Unexpected("a page that is longer than its chunk")
        return header

    def _keep_dictionary(self, header: PageHeader, body: Bytes) -> None:
        if self._dictionary is not None or header.encoding not in (PLAIN, PLAIN_DICTIONARY):
            raise Unexpected("an unusual dictionary")
        values = self._decompressed(body, header.uncompressed_size)
        if len(values) != header.num_values * self._width:
            raise Unexpected("a dictionary of another size")
        if self._width not in WORDS:
            raise Unexpected("a dictionary of wide values")
        # Aligned, so that the kernel may be given it.
        self._dictionary = np.frombuffer(values.tobytes(), WORDS[self._width])

    def _decompressed(self, body: Bytes, size: int) -> Bytes:
        if not self._chunk.codec:
            if len(body) != size:
                raise Unexpected("a page of another size")
            return body
        most = MOST_LARGER[self._chunk.codec] * len(body) + 64
        if size > most or size > self._chunk.total_uncompressed_size:
            raise Unexpected("a page that cannot be so large")
        if not size:
            return np.empty(0, np.uint8)
        try:
            found = decompress(self._chunk.codec, body.data, size)
        except (OSError, pa.ArrowException, ValueError, MemoryError, zlib.error):
            raise Unexpected("a page that cannot be decompressed") from None
        return np.frombuffer(found, np.uint8)

    def _values(self, header: PageHeader, body: Bytes) -> Bytes:
        """Return the values of a data page, whose levels must be trivial."""
        if header.kind == DATA:
            body = self._decompressed(body, header.uncompressed_size)
            at = self._levels_v1(header, body)
        else:
            assert header.kind == DATA_V2
            assert header.level_sizes is not None
            at = sum(header.level_sizes)
            if at > len(body) or at > header.uncompressed_size:
                raise Unexpected("levels that are longer than their page")
            repetition, definition = header.level_sizes
            self._check_levels(header, body, (0, repetition), (repetition, repetition + definition))
            if header.is_compressed and self._chunk.codec:
                body = self._decompressed(body[at:], header.uncompressed_size - at)
                at = 0
        if header.encoding == PLAIN:
            values = body[at:]
            if len(values) != header.num_values * self._width:
                raise Unexpected("a page of another number of values")
            return values
        if header.encoding in (PLAIN_DICTIONARY, RLE_DICTIONARY):
            return self._looked_up(header, body, at)
        raise Unexpected("an encoding that is rare")

    def _levels_v1(self, header: PageHeader, body: Bytes) -> int:
        """Check the levels at the beginning of a page; return where they end."""
        at = 0
        places = []
        for highest in (self._leaf.max_repetition, self._leaf.max_definition):
            if not highest:
                places.append((at, at))
                continue
            if at + 4 > len(body):
                raise Unexpected("levels that are longer than their page")
            size = int.from_bytes(body[at : at + 4].tobytes(), "little")
            if at + 4 + size > len(body):
                raise Unexpected("levels that are longer than their page")
            places.append((at + 4, at + 4 + size))
            at += 4 + size
        if header.level_encodings != (RLE, RLE):
            raise Unexpected("levels in an encoding that is rare")
        self._check_levels(header, body, *places)
        return at

    def _check_levels(
        self, header: PageHeader, body: Bytes, repetition: tuple[int, int],
        definition: tuple[int, int],
    ) -> None:  # fmt: skip
        from fastdiv_kernels.cpu.pages import levels_are_trivial

        n, highest = header.num_values, self._leaf.max_definition
        if self._leaf.max_repetition and not levels_are_trivial(
            body, *repetition, 1, n, self._done, self._period
        ):
            raise Unexpected("lists of several lengths, or none")
        if highest and not levels_are_trivial(
            body, *definition, highest.bit_length(), n, 0, -1 if highest == 2 else 0
        ):
            raise Unexpected("nulls")

    def _looked_up(self, header: PageHeader, body: Bytes, at: int) -> Bytes:
        from fastdiv_kernels.cpu.pages import decode_indices

        if self._dictionary is None or at >= len(body):
            raise Unexpected("no dictionary")
        bits = int(body[at])
        values = np.empty(header.num_values, self._dictionary.dtype)
        known = bits <= 32 and decode_indices(
            body, at + 1, len(body), bits, header.num_values, self._dictionary, values
        )
        if not known:
            raise Unexpected("indices that are not in the dictionary")
        return values.view(np.uint8)

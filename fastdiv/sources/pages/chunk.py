"""ColumnPages: the values of a column chunk, page by page, as they lie or decompressed."""

from __future__ import annotations

import zlib
from typing import Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from fastdiv.arrays import address
from fastdiv.sources.pages.codec import BROTLI, GZIP, SNAPPY, UNCOMPRESSED, ZSTD, decompress
from fastdiv.sources.pages.headers import (
    MOST_HEADER_BYTES,
    PageHeader,
    Unexpected,
    read_header,
)
from fastdiv.sources.parquet_footer import ColumnChunk, Leaf
from fastdiv.sources.rooms import rooms
from fastdiv_kernels.page_table import (
    AT,
    BODY,
    BYTES,
    COLUMNS,
    COMPRESSED,
    CRC,
    DATA,
    DATA_V2,
    DEFINITION,
    DICTIONARY,
    ENCODING,
    GIVEN,
    HEADER,
    KIND,
    LENGTH,
    LEVELS,
    LOOKED_UP,
    MADE,
    NONE,
    OWNER,
    OWNERS,
    PLAIN,
    PLAIN_DICTIONARY,
    REASONS,
    REPETITION,
    SIZE,
    START,
    STORED,
    UNPACKED,
)

Bytes = NDArray[np.uint8]


class ChunkBytes(Protocol):
    """The stored bytes of a column chunk: an array, or what is fetched as it is sliced."""

    def __len__(self) -> int: ...

    def __getitem__(self, part: slice, /) -> Bytes: ...


# How much larger than it is stored a page can be, by codec.
MOST_LARGER = {SNAPPY: 25, GZIP: 1100, BROTLI: 100_000, ZSTD: 100_000}
NEAR = 128  # bytes that most headers are within
NOTHING = np.empty(0, np.uint8)
TOGETHER = 64  # pages read by one call, at most
WIDTHS = (2, 4, 8)  # of values that a dictionary may have


class ColumnPages:
    """Gives the values of a column chunk, of one width, of which none is missing.

    Pages are read several at once: each step lets Python's lock go once for all of them.

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
        self._width = width
        self._levels = leaf.max_repetition, leaf.max_definition, period
        self._at = 0
        self._end = chunk.total_compressed_size
        if len(data) != self._end:
            raise Unexpected("pages that are not in the file")
        if chunk.codec and chunk.codec not in MOST_LARGER:
            raise Unexpected("a codec that is rare")
        self._larger = MOST_LARGER[chunk.codec] if chunk.codec else 0
        self._table = np.empty((TOGETHER, COLUMNS), np.int64)
        self._done = 0  # values
        self._failed: Unexpected | None = None
        self._dictionary: Bytes | None = None

    @property
    def left(self) -> int:
        """Values still to come."""
        return self._chunk.num_values - self._done

    def next(self, values: int) -> list[Bytes]:
        """Return the values of the next pages, wherever they lie, each (bytes,) of a page.

        They are of one page or more, which have no more values than are asked for but for the
        last. There are none after a page that had to fail.
        """
        if self._failed is not None:
            raise self._failed
        try:
            while True:
                pages = self._headers(values)
                found = self._values(*pages) if pages[0] else self._other_page()
                if found:
                    self._done += sum(map(len, found)) // self._width
                    return found
        except Unexpected as why:
            self._failed = why
            raise

    def check_end(self) -> None:
        """Refuse pages after the last value."""
        if self.left or self._at != self._end:
            raise Unexpected("pages that do not end with the chunk")

    def _headers(self, values: int) -> tuple[int, int, int, int]:
        """Read headers into the table; return how many, and what `_values` needs to know of them.

        There is none where the next is not that of a data page with values, or is unusual.
        """
        from fastdiv_kernels.cpu.page_headers import read_page_headers

        if self._at >= self._end:
            raise Unexpected("fewer values than the footer says")
        data, at, table = self._data, self._at, self._table
        start = 0
        if not isinstance(data, np.ndarray):  # fetched as it is sliced: page by page
            start, at, table = at, 0, table[:1]
            data = data[start : min(start + NEAR, self._end)]
        pages, at, *totals = read_page_headers(
            data, at, self._end - start, self.left, values, self._larger,
            self._chunk.total_uncompressed_size, table,
        )  # fmt: skip
        if start:
            table[:pages, START] += start
        self._at = start + at
        return pages, *totals

    def _other_page(self) -> list[Bytes]:
        """Read a page whose header the kernel does not tell; return its values, if it has any."""
        near = self._data[self._at : min(self._at + MOST_HEADER_BYTES, self._end)]
        header, size = read_header(near.tobytes())
        start = self._at + size
        self._at = start + header.size
        if self._at > self._end:
            raise Unexpected("a page that is longer than its chunk")
        of_data = header.kind in (DATA, DATA_V2)
        if header.kind != DICTIONARY and not (of_data and header.num_values):
            self._stored(start, header.size, header.crc)
            return []
        if of_data and header.num_values > self.left:
            raise Unexpected("more values than the footer says")
        self._check_sizes(header)
        self._table[0, :HEADER] = header
        self._table[0, START] = start
        if of_data:
            return self._values(1, header.num_values, header.made, int(header.crc != NONE))
        self._keep_dictionary(header)
        return []

    def _stored(self, start: int, size: int, crc: int = NONE) -> Bytes:
        body = self._data[start : start + size]
        check_crc(body, crc)
        return body

    def _check_sizes(self, header: PageHeader) -> None:
        if header.kind == DATA_V2 and header.repetition + header.definition > min(
            header.size, header.made
        ):
            raise Unexpected("levels that are longer than their page")
        if not self._larger:
            if header.kind != DATA_V2 and header.made != header.size:
                raise Unexpected("a page of another size")
        elif header.made > min(
            self._larger * header.size + 64, self._chunk.total_uncompressed_size
        ):
            raise Unexpected("a page that cannot be so large")

    def _keep_dictionary(self, header: PageHeader) -> None:
        if self._dictionary is not None or header.encoding not in (PLAIN, PLAIN_DICTIONARY):
            raise Unexpected("an unusual dictionary")
        if self._width not in WIDTHS:
            raise Unexpected("a dictionary of wide values")
        self._table[0, ENCODING] = PLAIN
        (self._dictionary,) = self._values(
            1, 0, header.made, int(header.crc != NONE), levels=(0, 0, 0)
        )

    def _unpacked(self, body: Bytes, size: int) -> Bytes:
        if not self._chunk.codec or not size:
            return body[:size]
        try:
            found = decompress(self._chunk.codec, body.data, size)
        except (OSError, pa.ArrowException, ValueError, MemoryError, zlib.error):
            raise Unexpected("a page that cannot be decompressed") from None
        return np.frombuffer(found, np.uint8)

    def _values(
        self, pages: int, values: int, made: int, checksums: int,
        levels: tuple[int, int, int] | None = None,
    ) -> list[Bytes]:  # fmt: skip
        """Return what the pages in the table hold, up to the first that is not as expected.

        They have so many values, so many bytes when they are uncompressed, and checksums.
        """
        from fastdiv_kernels.cpu.page_values import read_pages

        table, codec = self._table, self._chunk.codec
        owners: list[Bytes] = [NOTHING] * len(OWNERS)
        if isinstance(self._data, np.ndarray):
            owners[STORED] = self._data
        else:  # one page
            owners[STORED] = self._stored(*table[0, [START, SIZE]].tolist())
            table[0, START] = 0
        why: Unexpected | None = None
        bodies: list[Bytes] = []
        given = codec not in (UNCOMPRESSED, SNAPPY)
        if given or checksums:
            bodies, why = self._bodies(owners[STORED], pages)
            pages = len(bodies)
        if codec == SNAPPY:
            owners[UNPACKED] = rooms.take(made)
        known, m = 0, -1
        if self._dictionary is not None:
            known, m = address(self._dictionary), len(self._dictionary) // self._width
            owners[LOOKED_UP] = rooms.take(values * self._width)
        read, reason = read_pages(
            table, pages, GIVEN if given else UNPACKED if codec else STORED,
            address(owners[STORED]), address(owners[UNPACKED]), self._done, self._width,
            *(levels or self._levels), known, m, address(owners[LOOKED_UP]),
        )  # fmt: skip
        if reason:
            why = Unexpected(REASONS[reason])
        found = []
        for i, row in enumerate(table[:read].tolist()):
            whole = bodies[i] if row[OWNER] == GIVEN else owners[row[OWNER]]
            found.append(whole[row[AT] : row[AT] + row[BYTES]])
        if why is not None:
            if not found:
                raise why
            self._failed = why
        return found

    def _bodies(self, stored: Bytes, pages: int) -> tuple[list[Bytes], Unexpected | None]:
        """Check the checksums of pages, and unpack what the kernel does not.

        Returns their bodies, without what V2 pages begin with, up to the first that is unsound;
        and why it is.
        """
        table = self._table
        bodies: list[Bytes] = []
        for i, row in enumerate(table[:pages].tolist()):
            whole = stored[row[START] : row[START] + row[SIZE]]
            before = row[REPETITION] + row[DEFINITION] if row[KIND] == DATA_V2 else 0
            body = whole[before:]
            try:
                check_crc(whole, row[CRC])
                if row[COMPRESSED] and self._chunk.codec != SNAPPY:
                    body = self._unpacked(body, row[MADE] - before)
            except Unexpected as why:
                return bodies, why
            bodies.append(body)
            levels = whole if before else body
            table[i, [LEVELS, BODY, LENGTH]] = address(levels), address(body), len(body)
        return bodies, None


def check_crc(stored: Bytes, crc: int) -> None:
    """Refuse a page that has another checksum than its header says, if that says one."""
    if crc != NONE and zlib.crc32(stored.data) != crc:
        raise Unexpected("a page with a wrong checksum")

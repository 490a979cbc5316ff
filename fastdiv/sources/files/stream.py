"""Stream: a remote file read from any place on, in blocks that grow as reading goes on."""

from __future__ import annotations

from fastdiv.sources.files.fetch import BLOCK_BYTES, Fetch, Seekable
from fastdiv.sources.files.transfers import Block, Readable, Transfers

FIRST_BYTES = 128 << 10  # more than headers and the directory of an archive take
GROWTH = 4


class Stream(Seekable):
    """A remote file. Only after a second block is needed are others read ahead."""

    def __init__(self, file: Readable, size: int, transfers: Transfers) -> None:
        super().__init__(size)
        self._file = file
        self._transfers = transfers
        self._first_stop = 0
        self._fetch: Fetch | None = None
        self._is_ahead = False

    def read(self, size: int | None = -1) -> bytes:
        """Return the next bytes, as many as are asked for unless the file ends."""
        start = self._at
        stop = self._size if size is None or size < 0 else min(self._size, start + size)
        if start >= stop:
            return b""
        if self._fetch is None or start < self._fetch.parts[0].kept_from:
            self._begin(start)
        assert self._fetch is not None
        if stop > self._first_stop and not self._is_ahead:
            self._fetch.ahead()
            self._is_ahead = True
        data = self._fetch.bytes(start, stop)
        self._at = stop
        return data.tobytes()

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Read the next bytes into a buffer."""
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def _begin(self, start: int) -> None:
        self.let_go()
        blocks = []
        at, size = start, FIRST_BYTES
        while at < self._size:
            blocks.append(Block(self._file, at, min(self._size, at + size)))
            at, size = blocks[-1].stop, min(BLOCK_BYTES, size * GROWTH)
        self._first_stop = blocks[0].stop
        self._fetch = Fetch(self._file, [(start, self._size)], self._transfers, blocks)
        self._is_ahead = False

    def let_go(self) -> None:
        """Let go of what was read ahead."""
        if self._fetch is not None:
            self._fetch.close()
            self._fetch = None

    def close(self) -> None:
        """Let go of all."""
        self.let_go()
        super().close()

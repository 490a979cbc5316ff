"""Ahead: row groups of remote files that will be read next are prepared while others are scored."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from fastdiv.batch import Chunk
from fastdiv.sources.container import Container
from fastdiv.sources.files.file import RemoteFile
from fastdiv.sources.files.transfers import Transfers


class Ahead:
    """Names what comes next to those who read it, as long as there is room for it."""

    def __init__(self, containers: Sequence[Container], files: Sequence[object]) -> None:
        remote = (file.transfers for file in files if isinstance(file, RemoteFile))
        self._transfers: Transfers | None = next(remote, None)
        self._containers = containers
        self._lock = threading.Lock()
        self._expected: Sequence[Chunk] = ()
        self._places: dict[Chunk, int] = {}
        self._next = 0

    @property
    def most_bytes(self) -> int:
        """At most how many bytes are held ahead."""
        return 0 if self._transfers is None else self._transfers.budget

    def expect(self, chunks: Sequence[Chunk]) -> None:
        """Say what will be read, in which order."""
        if self._transfers is not None:
            with self._lock:
                self._expected, self._next = chunks, 0
                self._places = {chunk: i for i, chunk in enumerate(chunks)}

    def begin(self, chunk: Chunk) -> None:
        """Say that a chunk is going to be read now: it need not be prepared any more."""
        if self._transfers is not None:
            with self._lock:
                self._next = max(self._next, self._places.get(chunk, -1) + 1)

    def go_on(self, columns: Sequence[str]) -> None:
        """Prepare what comes next."""
        if self._transfers is None or not self._transfers.hungry:
            return
        with self._lock:
            while self._next < len(self._expected) and self._transfers.hungry:
                coming = self._expected[self._next]
                self._containers[coming.part].prepare(coming.row_group, columns)
                self._next += 1

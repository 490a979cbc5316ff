"""Transfers: blocks of remote files, read by threads ahead of their use, in bounded memory."""

from __future__ import annotations

import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol

READERS = 16  # requests at once
AHEAD_BYTES = 96 << 20  # read and not used yet, or being read


class Readable(Protocol):
    """What blocks are read from."""

    def read(self, start: int, stop: int) -> bytes:
        """Return some bytes, all of them. May be called on any thread."""
        ...


class Block:
    """Some bytes of a file, which are read at once."""

    __slots__ = ("_file", "done", "found", "start", "stop", "users")

    def __init__(self, file: Readable, start: int, stop: int) -> None:
        self._file = file
        self.start = start
        self.stop = stop
        self.users = 0  # that have not done with it
        self.found: Future[bytes] | None = None  # None: nobody has begun to read it
        self.done = False

    @property
    def size(self) -> int:
        """How many bytes."""
        return self.stop - self.start

    def read(self) -> bytes:
        """Read them."""
        return self._file.read(self.start, self.stop)


class Transfers:
    """Reads blocks ahead, in the order in which they are named, as long as there is room for them.

    A block that is needed is read whatever room there is, by the thread that needs it if nobody
    has begun: so that there is always one that goes on.
    """

    def __init__(self, budget: int | None = None) -> None:
        self.budget = AHEAD_BYTES if budget is None else budget
        self._lock = threading.Lock()
        self._waiting: deque[Block] = deque()
        self._held = 0  # bytes
        self._pool: ThreadPoolExecutor | None = None

    @property
    def hungry(self) -> bool:
        """Whether more blocks should be named."""
        return not self._waiting and self._held < self.budget

    def ahead(self, blocks: Iterable[Block]) -> None:
        """Read some blocks when their turn comes."""
        with self._lock:
            self._waiting.extend(blocks)
            self._go_on()

    def begin(self, work: Callable[[], None]) -> Future[None]:
        """Do something that is mostly waiting."""
        with self._lock:
            return self._readers().submit(work)

    def take(self, block: Block) -> bytes:
        """Return the bytes of a block, waiting for them."""
        mine = False
        with self._lock:
            if block.found is None:
                mine = True
                found = block.found = Future()
                self._held += block.size
            else:
                found = block.found
        if mine:
            try:
                found.set_result(block.read())
            except BaseException as error:
                found.set_exception(error)
        return found.result()

    def release(self, blocks: Iterable[Block]) -> None:
        """Let go of blocks that nobody will take any more."""
        with self._lock:
            for block in blocks:
                if not block.done and block.found is not None:
                    block.found.cancel()
                    block.found = None
                    self._held -= block.size
                block.done = True
            self._go_on()

    def _go_on(self) -> None:
        """Begin with blocks that there is room for."""
        while self._waiting:
            block = self._waiting[0]
            idle = block.done or block.found is not None
            if not idle and self._held and self._held + block.size > self.budget:
                return
            self._waiting.popleft()
            if not idle:
                try:
                    block.found = self._readers().submit(block.read)
                except RuntimeError:  # Python ends
                    return
                self._held += block.size

    def _readers(self) -> ThreadPoolExecutor:
        if self._pool is None:
            self._pool = ThreadPoolExecutor(READERS, thread_name_prefix="fastdiv-reads")
            weakref.finalize(self, self._pool.shutdown, wait=False, cancel_futures=True)
        return self._pool

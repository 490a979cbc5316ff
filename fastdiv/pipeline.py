"""Chunks worked on by several threads, and their results taken in order, in bounded memory."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

Work = TypeVar("Work")
Item = TypeVar("Item")


class Pipeline(Generic[Work, Item]):
    """Runs `produce` on each chunk on a thread pool, and `take` on what it yields, chunk by chunk.

    No thread waits for items: the one that has made the item whose turn it is takes it, and what
    else is ready then, while others go on. So an item is taken where it still is in cache, and no
    thread has to be woken for it.

    Items that wait are bounded by `budget` bytes; only the chunk whose turn it is may exceed it,
    by one item, so there is always one that goes on.
    """

    def __init__(
        self, produce: Callable[[Work], Iterable[Item]], size: Callable[[Item], int], budget: int
    ) -> None:
        self._produce = produce
        self._size = size
        self._budget = budget

    def run(self, chunks: Sequence[Work], threads: int, take: Callable[[Item], None]) -> None:
        """Take the items of every chunk, in the order of the chunks, one at a time.

        `take` is called on any of the threads. What it raises, or what producing the chunk whose
        turn it is raises, ends the run and is raised here.
        """
        # Workers take chunks in order, so the one whose turn it is always runs.
        work = _Run(self._produce, self._size, self._budget, chunks, take)
        pool = ThreadPoolExecutor(threads, thread_name_prefix="fastdiv")
        try:
            for i in range(len(chunks)):
                pool.submit(work.chunk, i)
            work.wait()
        finally:
            work.stop()
            pool.shutdown(wait=True, cancel_futures=True)


class _Run(Generic[Work, Item]):
    """The state of a run; what begins with `_` and is not `_take_ready` needs the lock."""

    def __init__(
        self, produce: Callable[[Work], Iterable[Item]], size: Callable[[Item], int], budget: int,
        chunks: Sequence[Work], take: Callable[[Item], None],
    ) -> None:  # fmt: skip
        self._produce = produce
        self._size = size
        self._budget = budget
        self._chunks = chunks
        self._take = take
        lock = threading.Lock()
        self._lock = lock
        self._room = threading.Condition(lock)  # for items: waited for by workers
        self._over = threading.Condition(lock)  # waited for by the caller
        self._ready: list[deque[Item]] = [deque() for _ in chunks]
        self._ended: list[bool | BaseException] = [False] * len(chunks)
        self._turn = 0
        self._waiting = 0  # bytes
        self._taking = False  # a thread is
        self._stopped = False
        self._error: BaseException | None = None

    def chunk(self, i: int) -> None:
        """Work on a chunk."""
        outcome: bool | BaseException = True
        try:
            for item in self._produce(self._chunks[i]):
                with self._lock:
                    size = self._size(item)
                    while not (self._stopped or self._admits(i, size)):
                        self._room.wait()
                    if self._stopped:
                        return
                    self._ready[i].append(item)
                    self._waiting += size
                self._take_ready()
        except BaseException as error:  # raised again where the chunk's turn comes
            outcome = error
        with self._lock:
            self._ended[i] = outcome
        self._take_ready()

    def wait(self) -> None:
        """Wait until all has been taken; raise what ended the run before."""
        with self._lock:
            while not self._stopped and self._turn < len(self._chunks):
                self._over.wait()
            if self._error is not None:
                raise self._error

    def stop(self) -> None:
        """Let no item be taken any more."""
        with self._lock:
            self._end(None)

    def _admits(self, i: int, size: int) -> bool:
        return (self._turn == i and not self._ready[i]) or self._waiting + size <= self._budget

    def _end(self, error: BaseException | None) -> None:
        if not self._stopped:
            self._stopped, self._error = True, error
        self._room.notify_all()
        self._over.notify_all()

    def _take_ready(self) -> None:
        """Take what is ready, unless another thread does: that one will see what came meanwhile."""
        while True:
            with self._lock:
                if self._taking or self._stopped or not self._go_to_ready():
                    return
                item = self._ready[self._turn].popleft()
                self._waiting -= self._size(item)
                self._room.notify_all()
                self._taking = True
            error: BaseException | None = None
            try:
                self._take(item)
            except BaseException as raised:
                error = raised
            del item
            with self._lock:
                self._taking = False
                if error is not None:
                    self._end(error)

    def _go_to_ready(self) -> bool:
        """Go to the chunk whose turn it is; say whether an item of it is ready."""
        while self._turn < len(self._chunks) and not self._ready[self._turn]:
            ended = self._ended[self._turn]
            if ended is False:
                return False
            if isinstance(ended, BaseException):
                self._end(ended)
                return False
            self._turn += 1
            self._room.notify_all()
        if self._turn == len(self._chunks):
            self._over.notify_all()
            return False
        return True

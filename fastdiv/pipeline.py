"""Chunks worked on by several threads, and their results in order, in bounded memory."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

Work = TypeVar("Work")
Item = TypeVar("Item")


class Pipeline(Generic[Work, Item]):
    """Runs `produce` on each chunk on a thread pool and yields what it yields, chunk by chunk.

    Items that wait are bounded by `budget` bytes; only the chunk whose turn it is may exceed it,
    by the one item that is waited for, so there is always one that goes on.
    """

    def __init__(
        self, produce: Callable[[Work], Iterable[Item]], size: Callable[[Item], int], budget: int
    ) -> None:
        self._produce = produce
        self._size = size
        self._budget = budget
        self._change = threading.Condition()
        self._waiting = 0  # bytes
        self._turn = 0
        self._stopped = False

    def run(self, chunks: Sequence[Work], threads: int) -> Iterator[Item]:
        """Yield the items of every chunk, in the order of the chunks."""
        self._waiting, self._turn, self._stopped = 0, 0, False
        ready: list[deque[Item]] = [deque() for _ in chunks]
        ended: list[bool | BaseException] = [False] * len(chunks)

        def work(i: int) -> None:
            try:
                for item in self._produce(chunks[i]):
                    size = self._size(item)
                    with self._change:
                        self._change.wait_for(
                            lambda size=size: (
                                self._stopped  # type: ignore[misc]
                                or (self._turn == i and not ready[i])
                                or self._waiting + size <= self._budget
                            )
                        )
                        if self._stopped:
                            return
                        ready[i].append(item)
                        self._waiting += size
                        self._change.notify_all()
                outcome: bool | BaseException = True
            except BaseException as error:  # raised again where the chunk's turn comes
                outcome = error
            with self._change:
                ended[i] = outcome
                self._change.notify_all()

        # Workers take chunks in order, so the one whose turn it is always runs.
        pool = ThreadPoolExecutor(threads, thread_name_prefix="fastdiv")
        try:
            for i in range(len(chunks)):
                pool.submit(work, i)
            for i in range(len(chunks)):
                with self._change:
                    self._turn = i
                    self._change.notify_all()
                while True:
                    with self._change:
                        self._change.wait_for(lambda i=i: ready[i] or ended[i])  # type: ignore[misc]
                        if not ready[i]:
                            break
                        item = ready[i].popleft()
                        self._waiting -= self._size(item)
                        self._change.notify_all()
                    yield item
                outcome = ended[i]
                if isinstance(outcome, BaseException):
                    raise outcome
        finally:
            with self._change:
                self._stopped = True
                self._change.notify_all()
            pool.shutdown(wait=True, cancel_futures=True)

"""From Parquet dumps on the host through the GPU: what a run needs beside what bounds it.

What bounds a run that scores on the GPU is the lesser of two rates: that at which pinned memory is
copied to the device, and that at which threads of the host can lay the predictions of the dump
into memory. Both are measured in the same run, and so is the same analysis on the CPU.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.data import cache_directory, dump

DUMPS = (("plain", 1000, 2 << 30), ("plain", 10, 1 << 30), ("snappy", 10, 1 << 30))
PINNED_BYTES = 1 << 30


@dataclass(frozen=True)
class Timed:
    """One way of using a dump."""

    layout: str
    competitor: str
    rows: int
    classes: int
    moved: int  # bytes of predictions
    times: list[float]


def dumps(scale: float, turns: int) -> Iterator[Timed]:
    """Time each way of using each dump, in turns."""
    with tempfile.TemporaryDirectory() as temporary:
        place = cache_directory() if scale == 1 else Path(temporary)
        for layout, c, size in DUMPS:
            rows = max(64, int(size * scale) // (4 * c))
            path = dump(rows, c, 1, layout, place)
            moved = rows * c * 4
            ways = {
                "host: read alone": _read_alone(path),
                "fastdiv, GPU": _analyzed(path, "cuda"),
                "fastdiv, CPU": _analyzed(path, "cpu"),
            }
            times: dict[str, list[float]] = {name: [] for name in ways}
            for turn in range(1 + turns):
                for name, way in ways.items():
                    began = time.perf_counter()
                    way()
                    if turn:  # in the first one code is compiled
                        times[name].append(time.perf_counter() - began)
            for name in ways:
                yield Timed(layout, name, rows, c, moved, times[name])


def _analyzed(path: Path, backend: str) -> Callable[[], None]:
    import fastdiv

    def run() -> None:
        fastdiv.analyze(path, backend=backend, scores="slim")

    return run


def _read_alone(path: Path) -> Callable[[], None]:
    """Read the dump as `analyze` does, and copy predictions to memory that stays in cache."""
    from fastdiv.sources import Asked, open_source

    threads = len(os.sched_getaffinity(0))

    def run() -> None:
        data = open_source(path, Asked(kind="logits"))
        data.name_epochs()
        chunks = data.plan()
        data.expect(chunks)

        def work(chunk: Any) -> None:
            room = np.empty(4 << 20, np.uint8)
            for batch in data.read(chunk):
                for piece in batch.pieces:
                    flat = piece.reshape(-1).view(np.uint8)
                    for start in range(0, len(flat), len(room)):
                        part = flat[start : start + len(room)]
                        room[: len(part)] = part

        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(work, chunks))

    return run


def pinned_copies(cupy: Any, scale: float) -> tuple[int, Callable[[int], Any]]:
    """Return how many bytes a copy from pinned memory has, and what makes one."""
    size = max(1 << 10, int(PINNED_BYTES * scale))
    memory, room = cupy.cuda.alloc_pinned_memory(size), cupy.zeros(size, "uint8")
    stream = cupy.cuda.get_current_stream()
    runtime = cupy.cuda.runtime

    def copy(i: int) -> None:
        runtime.memcpyAsync(room.data.ptr, memory.ptr, size, runtime.memcpyHostToDevice, stream.ptr)

    return size, copy

"""What the machine can do at best: read memory, and take exponentials of what is in cache.

Nothing that has to read a row's logits and take an exponential of each can do more rows a second
than the lesser of the two allows. Both take turns with the competitors of every case, on as many
threads, so that what else the machine does hits them alike. Both are written as vectors, see
`benchmarks.vectors`.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numba
import numpy as np

from benchmarks.vectors import STEP, total, total_exp

if TYPE_CHECKING:
    from benchmarks.cases import Workload

PIECE = 1 << 20  # values a thread reads at once: 4 MB
CACHED = 1 << 12  # values whose exponentials are summed: 16 KB, half of a first cache

Run = Callable[[], None]

# Not `jit.kernel`, whose cache does not look at this file.
compiled: Callable[[Any], Any] = numba.njit(nogil=True, error_model="numpy")


@compiled
def read(values: Any, start: Any, stop: Any) -> Any:
    """Read values (n,) from start to stop, a multiple of STEP apart, and return their sum."""
    return total(values, np.int64(start), np.int64(stop - start))


@compiled
def exponentials(values: Any, times: Any) -> None:
    """Take e**x of values (n,) several times; each writes one, so that none can be left out."""
    for i in range(times):
        values[i % len(values)] = total_exp(values, 0, len(values)) * np.float32(1e-30)


def read_memory(workload: Workload) -> Run:
    """Read an array larger than all caches, in pieces."""
    values = np.ones(workload.rows // (4 * STEP) * STEP, np.float32)
    starts = range(0, len(values), PIECE)
    pool = ThreadPoolExecutor(workload.threads)

    def piece(start: int) -> None:
        read(values, start, min(start + PIECE, len(values)))

    def run() -> None:
        list(pool.map(piece, starts))

    return run


def exp_in_cache(workload: Workload) -> Run:
    """Take exponentials of a buffer that each thread has for itself."""
    buffers = [np.zeros(CACHED, np.float32) for _ in range(workload.threads)]
    times = workload.rows // (CACHED * workload.threads)
    pool = ThreadPoolExecutor(workload.threads)

    def run() -> None:
        list(pool.map(exponentials, buffers, [times] * len(buffers)))

    return run

"""`write_flags` on the device."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastdiv_kernels.cuda.device import Device, blocks_for

THREADS = 256
BLOCKS = 8  # of a multiprocessor


def write_flags(device: Device, correct: Any, rank: Any, status: Any, flags: Any) -> None:
    """Write what is stored of scores beside them; see the contract."""
    n = len(flags)
    if n == 0:
        return
    columns = [device.put(x) for x in (correct, rank, status)]
    room = device.room(flags)
    blocks = blocks_for(n, THREADS, BLOCKS * device.multiprocessors)
    device.launch("flags", (), "write_flags", blocks, THREADS, [*columns, np.int64(n), room])
    device.fetch(room, flags)

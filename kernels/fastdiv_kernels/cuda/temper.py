"""`temper` on the device."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastdiv_kernels.contract import GRID, VECTORS_UP_TO
from fastdiv_kernels.cuda.device import Device, address, blocks_for
from fastdiv_kernels.grid import weights

THREADS = 256
BLOCKS = 8  # of a multiprocessor


def temper(
    device: Device, margin: Any, profile: Any, classes: int, beta: float, tempered: Any
) -> None:
    """Tell each row's log-partition function at an inverse temperature; see the contract."""
    n = len(margin)
    if n == 0:
        return
    beta = min(max(float(beta), GRID[0]), GRID[-1])
    told = device.room(tempered)
    blocks = blocks_for(n, THREADS, BLOCKS * device.multiprocessors)
    if classes <= VECTORS_UP_TO:
        leads = device.put(margin)
        values = device.put(profile) if classes > 2 else leads  # of two the margin is all
        arguments = [leads, values, np.int64(n), np.int32(classes), np.float64(beta), told]
        device.launch("temper", (), "temper_rows", blocks, THREADS, arguments)
    else:
        values = device.put(profile)
        wide = np.int32(address(values) % 16 == 0)
        arguments = [values, device.put(weights(beta)), np.int64(n), wide, told]
        device.launch("temper", (), "temper_curves", blocks, THREADS, arguments)
    device.fetch(told, tempered)

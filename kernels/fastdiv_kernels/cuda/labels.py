"""Labels as kernels take them."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastdiv_kernels.cuda.device import Device, blocks_for

THREADS = 256
BLOCKS = 8  # of a multiprocessor


def as_int32(device: Device, labels: Any) -> Any:
    """Return labels (n,) or (n, 1) on the device as int32; None if they are no integers.

    Those that do not fit become -1 or the highest, which are no class either.
    """
    y = device.put(labels)
    if y.dtype.kind not in "iub":
        return None
    if y.ndim == 2 and y.shape[1] == 1:
        y = y.reshape(-1)
    if y.dtype == np.int32:
        return y
    made = device.empty(y.shape, np.int32)
    if y.size:
        builds = ("LABEL_BYTES", y.dtype.itemsize), ("SIGNED", int(y.dtype.kind == "i"))
        blocks = blocks_for(y.size, THREADS, BLOCKS * device.multiprocessors)
        device.launch("labels", builds, "as_int32", blocks, THREADS, [y, np.int64(y.size), made])
    return made

"""`tally_temperatures` on the device."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastdiv_kernels.contract import VECTORS_UP_TO
from fastdiv_kernels.cuda.device import Device, Totals, address, blocks_for, loss_type

THREADS = 256  # a row each
BLOCKS = 2  # of a multiprocessor
COLUMN_THREADS = 352  # of blocks that take curves, TILE rows at a time
TILE = 512
COLUMN_BLOCKS = 2


def tally_temperatures(
    device: Device, loss: Any, margin: Any, flags: Any, profile: Any, classes: int, counts: Any,
    sums: Any,
) -> None:  # fmt: skip
    """Add the losses of one epoch at each temperature of the grid; see the contract."""
    columns = [device.put(x) for x in (loss, margin, flags)]
    n = len(columns[0])
    values = device.put(profile) if classes > 2 else columns[1]  # of two the margin is all
    totals = Totals(device, (counts, sums))
    builds = (loss_type(columns[0]),)
    if classes <= VECTORS_UP_TO:
        by_words = np.int32(classes % 2 == 0 and address(values) % 4 == 0)
        blocks = blocks_for(n, THREADS, BLOCKS * device.multiprocessors)
        device.launch(
            "temperatures", builds, "tally_rows", blocks, THREADS,
            [*columns, values, np.int64(n), np.int32(classes), by_words, *totals.parts],
        )  # fmt: skip
    else:
        wide = np.int32(address(values) % 16 == 0)
        blocks = blocks_for(n, TILE, COLUMN_BLOCKS * device.multiprocessors)
        device.launch(
            "temperatures", builds, "tally_curves", blocks, COLUMN_THREADS,
            [*columns, values, np.int64(n), wide, *totals.parts],
        )  # fmt: skip
    totals.add()

"""`transitions` on the device."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastdiv_kernels.cuda.device import Device, Totals, blocks_for, loss_type, resident

THREADS = 128
BLOCKS = 8  # of a multiprocessor
SHARED = 21 << 10  # bytes of shared memory that a block declares, about
ROWS = 16  # of a thread, before there are more blocks


def transitions(
    device: Device, loss_from: Any, predicted_from: Any, labels_from: Any, flags_from: Any,
    loss_to: Any, predicted_to: Any, labels_to: Any, flags_to: Any, counts: Any, delta_sums: Any,
) -> None:  # fmt: skip
    """Add the same samples in two epochs to the cells of their table; see the contract."""
    columns = [
        device.put(x)
        for x in (
            loss_from, predicted_from, labels_from, flags_from, loss_to, predicted_to, labels_to,
            flags_to,
        )
    ]  # fmt: skip
    n = len(columns[0])
    totals = Totals(device, (counts, delta_sums))
    device.launch(
        "transitions", (loss_type(columns[0]),), "transitions",
        blocks_for(n, THREADS * ROWS, resident(device, BLOCKS, SHARED)), THREADS,
        [*columns, np.int64(n), *totals.parts],
    )  # fmt: skip
    totals.add()

"""`distributions` on the device."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastdiv_kernels.cuda.device import Device, Totals, blocks_for, loss_type, resident

THREADS = 256
BLOCKS = {4: 4, 8: 2}  # of a multiprocessor, by the size of losses
ROWS = 16  # of a thread, before there are more blocks
# Bytes of shared memory: 375 or 539 words of 32 lanes, 5 or 4 words of each thread.
SHARED = {4: 375 * 128 + 5 * 4 * THREADS, 8: 539 * 128 + 4 * 8 * THREADS}


def distributions(
    device: Device, loss: Any, confidence: Any, margin: Any, flags: Any, counts: Any,
    confidences: Any, losses: Any, margins: Any, bins: Any, loss_sums: Any, confidence_sums: Any,
) -> None:  # fmt: skip
    """Add the stored scores of one epoch to its distributions; see the contract."""
    columns = [device.put(x) for x in (loss, confidence, margin, flags)]
    n = len(columns[0])
    totals = Totals(
        device, (counts, confidences, losses, margins, bins, loss_sums, confidence_sums)
    )
    kind = loss_type(columns[0])
    device.launch(
        "distributions", (kind,), "distributions",
        blocks_for(n, THREADS * ROWS, resident(device, BLOCKS[kind[1]], SHARED[kind[1]])), THREADS,
        [*columns, np.int64(n), *totals.parts], shared=SHARED[kind[1]],
    )  # fmt: skip
    totals.add()

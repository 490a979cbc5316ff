"""`distributions` on the device."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastdiv_kernels.cuda.device import Device, Totals, blocks_for, loss_type

THREADS = 256
BLOCKS = 4  # of a multiprocessor
ROWS = 16  # of a thread, before there are more blocks
TABLE = {4: 342, 8: 506}  # words of a lane, by the size of losses


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
        blocks_for(n, THREADS * ROWS, BLOCKS * device.multiprocessors), THREADS,
        [*columns, np.int64(n), *totals.parts], shared=TABLE[kind[1]] * 32 * 4,
    )  # fmt: skip
    totals.add()

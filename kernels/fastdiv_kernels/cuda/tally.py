"""`tally` on the device."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastdiv_kernels.cuda.device import Device, Totals, blocks_for, loss_type

THREADS = 256
BLOCKS = {4: 3, 8: 2}  # of a multiprocessor, by the size of losses
ROWS = 16  # of a thread, before there are more blocks


def tally(
    device: Device, loss: Any, confidence: Any, margin: Any, brier: Any, flags: Any, counts: Any,
    bins: Any, loss_sums: Any, sums: Any,
) -> None:  # fmt: skip
    """Add the stored scores of one epoch to its totals; see the contract."""
    columns = [device.put(x) for x in (loss, confidence, margin, brier, flags)]
    n = len(columns[0])
    totals = Totals(device, (counts, bins, loss_sums, sums))
    kind = loss_type(columns[0])
    device.launch(
        "tally", (kind,), "tally",
        blocks_for(n, THREADS * ROWS, BLOCKS[kind[1]] * device.multiprocessors), THREADS,
        [*columns, np.int64(n), *totals.parts],
    )  # fmt: skip
    totals.add()

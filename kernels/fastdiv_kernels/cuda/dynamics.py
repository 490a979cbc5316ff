"""`dynamics` on the device."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastdiv_kernels.cuda.device import Device, blocks_for, loss_type

THREADS = 256
BLOCKS = 4  # of a multiprocessor


def dynamics(
    device: Device, epoch: int, loss: Any, margin: Any, predicted: Any, labels: Any, flags: Any,
    records: Any,
) -> None:  # fmt: skip
    """Carry each sample's history on by one epoch; see the contract.

    Records may be words of 64 bits as well: devices know no records.
    """
    columns = [device.put(x) for x in (loss, margin, predicted, labels, flags)]
    n = len(columns[0])
    words = records if records.dtype == np.int64 else records.view(np.int64)
    room = device.put(words)
    device.launch(
        "dynamics", (loss_type(columns[0]),), "dynamics",
        blocks_for(n, THREADS, BLOCKS * device.multiprocessors), THREADS,
        [np.int64(epoch), *columns, np.int64(n), room],
    )  # fmt: skip
    device.fetch(room, words)

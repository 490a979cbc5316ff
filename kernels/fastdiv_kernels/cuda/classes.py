"""`tally_classes` on the device."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastdiv_kernels.cuda.device import Device, Totals, blocks_for, loss_type, resident

THREADS = 512
BLOCKS = 2  # of a multiprocessor
ROWS = 16  # of a thread, before there are more blocks
WORDS = 7  # of a class in shared memory
ROOM = 96 << 10  # bytes of it that all devices have
COPIES = 32  # of a class, at most


def tally_classes(
    device: Device, loss: Any, predicted: Any, labels: Any, flags: Any, counts: Any, loss_sums: Any
) -> None:
    """Add the stored scores of one epoch to its totals by class; see the contract."""
    columns = [device.put(x) for x in (loss, predicted, labels, flags)]
    n, classes = len(columns[0]), len(counts)
    inside, copies = table_of(classes)
    definitions = (loss_type(columns[0]),)
    totals = Totals(device, (counts, loss_sums))
    counted, sums = totals.parts
    found = device.zeros(counts.shape, np.int64)
    shared = inside * copies * WORDS * 4
    device.launch(
        "classes", definitions, "tally_classes",
        blocks_for(n, THREADS * ROWS, resident(device, BLOCKS, shared)), THREADS,
        [
            *columns, np.int64(n), np.int32(classes), np.int32(inside), np.int32(copies), found,
            sums,
        ],
        shared=shared,
    )  # fmt: skip
    device.launch(
        "classes", definitions, "add_found",
        blocks_for(classes, 256, BLOCKS * device.multiprocessors), 256,
        [np.int32(classes), found, counted],
    )  # fmt: skip
    totals.add()


def table_of(classes: int) -> tuple[int, int]:
    """Return how many classes a table in shared memory has, from the first, and copies of each."""
    inside = min(classes, ROOM // (WORDS * 4))
    copies = COPIES
    while inside * copies * WORDS * 4 > ROOM:
        copies //= 2
    return inside, copies

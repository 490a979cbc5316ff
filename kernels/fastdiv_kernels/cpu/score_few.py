"""`score_two`, `score_three` and `score_few`: rows with few classes, LANES at once; see `score`.

Arrays are handed on by their addresses, so that predictions may lie anywhere, aligned or not, and
the rows left over can be scored in a tile of their own, whose rows have the same bits.
"""

from typing import Any

import numpy as np

from fastdiv_kernels.cpu.addresses import address_of, copy_bytes
from fastdiv_kernels.cpu.arithmetic import as_float, as_int
from fastdiv_kernels.cpu.few_tiles import (
    COLUMN_BYTES,
    NARROW,
    OUTPUTS,
    STORED_BYTES,
    score_tiles_few,
    score_tiles_three,
    score_tiles_two,
)
from fastdiv_kernels.cpu.jit import inner, kernel, overload
from fastdiv_kernels.cpu.vectors import HELD, LANES


@inner()
def score_by(
    score_tiles: Any, address: Any, stored: Any, n: Any, c: Any, labels: Any, kind: Any,
    tolerance: Any, outputs: Any,
) -> None:  # fmt: skip
    """Score whole tiles where they lie, and the rows left over in a tile of their own."""
    limit = np.float32(tolerance)  # the largest that is not above the tolerance
    limit = limit if limit <= tolerance else as_float(np.int32(as_int(limit) - np.int32(1)))
    row_bytes = c * stored_bytes(stored)
    # Room for constants, a tile's columns, and the numbers of the columns; in whole cache lines.
    columns = np.empty((HELD + c + 1) * LANES + c, np.float32)
    before = -address_of(columns) % COLUMN_BYTES
    scratch = address_of(columns) + before
    for j in range(c):
        columns[before // 4 + (HELD + c) * LANES + j] = j
    given = address_of(labels)
    tiles = n // LANES
    if tiles:
        score_tiles(stored, address, given, kind, limit, scratch, c, tiles, outputs)
    done = tiles * LANES
    left = n - done
    if left:
        # Labels, outputs and rows of the last tile; rows that are not there are zeros.
        room = np.zeros((1 + OUTPUTS) * COLUMN_BYTES + LANES * row_bytes, np.uint8)
        at = address_of(room)
        rows = at + (1 + OUTPUTS) * COLUMN_BYTES
        copy_bytes(at, given + 4 * done, 4 * left)
        copy_bytes(rows, address + done * row_bytes, left * row_bytes)
        first = at + COLUMN_BYTES
        places = (
            first, first + COLUMN_BYTES, first + 2 * COLUMN_BYTES, first + 3 * COLUMN_BYTES,
            first + 4 * COLUMN_BYTES, first + 5 * COLUMN_BYTES, first + 6 * COLUMN_BYTES,
            first + 7 * COLUMN_BYTES,
        )  # fmt: skip
        score_tiles(stored, rows, at, kind, limit, scratch, c, 1, places)
        for k in range(OUTPUTS):
            width = 1 if k in NARROW else 4
            copy_bytes(outputs[k] + width * done, places[k], width * left)
        room[0] = 0  # until here it must live
    columns[0] = 0


def stored_bytes(stored: Any) -> Any:
    """Return how many bytes a prediction takes that is stored as this number is."""
    raise NotImplementedError  # kernels get the overload below


@overload(stored_bytes)
def _stored_bytes(stored: Any) -> Any:
    size = STORED_BYTES[str(stored)]

    def implementation(stored: Any) -> Any:
        return size

    return implementation


@kernel
def score_two(
    address: Any, stored: Any, n: Any, c: Any, labels: Any, kind: Any, tolerance: Any, loss: Any,
    correct: Any, predicted: Any, confidence: Any, margin: Any, brier: Any, rank: Any, status: Any,
) -> None:  # fmt: skip
    """Score n rows of two classes that lie at an address; `stored` is any number stored alike."""
    outputs = (
        address_of(loss), address_of(correct), address_of(predicted), address_of(confidence),
        address_of(margin), address_of(brier), address_of(rank), address_of(status),
    )  # fmt: skip
    score_by(score_tiles_two, address, stored, n, c, labels, kind, tolerance, outputs)


@kernel
def score_three(
    address: Any, stored: Any, n: Any, c: Any, labels: Any, kind: Any, tolerance: Any, loss: Any,
    correct: Any, predicted: Any, confidence: Any, margin: Any, brier: Any, rank: Any, status: Any,
) -> None:  # fmt: skip
    """Score n rows of three classes that lie at an address; see `score_two`."""
    outputs = (
        address_of(loss), address_of(correct), address_of(predicted), address_of(confidence),
        address_of(margin), address_of(brier), address_of(rank), address_of(status),
    )  # fmt: skip
    score_by(score_tiles_three, address, stored, n, c, labels, kind, tolerance, outputs)


@kernel
def score_few(
    address: Any, stored: Any, n: Any, c: Any, labels: Any, kind: Any, tolerance: Any, loss: Any,
    correct: Any, predicted: Any, confidence: Any, margin: Any, brier: Any, rank: Any, status: Any,
) -> None:  # fmt: skip
    """Score n rows of four classes or more that lie at an address; see `score_two`."""
    outputs = (
        address_of(loss), address_of(correct), address_of(predicted), address_of(confidence),
        address_of(margin), address_of(brier), address_of(rank), address_of(status),
    )  # fmt: skip
    score_by(score_tiles_few, address, stored, n, c, labels, kind, tolerance, outputs)

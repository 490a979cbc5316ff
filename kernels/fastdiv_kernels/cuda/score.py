"""`score` on the device: how rows are taken depends on their length and dtype alone.

Few classes: a thread a row. More: a few lanes of a warp, or all; sums of a thread are relative to
the largest value that it has seen. Still more: blocks, each a part of a row, which are joined.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from fastdiv_kernels.contract import BFLOAT16, SUM_TOLERANCE, SUM_TOLERANCE_16_BIT, Dtype, Kind
from fastdiv_kernels.cuda.device import Definitions, Device, blocks_for

FEW: Final = 32  # classes, up to which a thread takes a row
WARP: Final = 4096  # and up to which a warp does
LENGTH: Final = 16384  # classes, of which a block finds a part
THREADS: Final = 256
THREADS_OF_LANES: Final = 128  # each of which finishes a row at most
THREADS_JOINING: Final = 128
AT_ONCE: Final = {2: 32, 4: 32, 8: 8}  # values that a thread reads together, by their bytes
READS: Final = 4  # of a lane
SHARED: Final = 20 << 10  # bytes of rows in shared memory, about
MOST_ROWS: Final = 1024  # of a block
TURNS: Final = 8  # rows that lanes take one after another, at most
DTYPES: Final = {np.dtype(np.float16): 0, BFLOAT16: 1, np.dtype(np.float32): 2}  # float64: 3


def score(
    device: Device, predictions: Any, labels: Any, kind: Kind, loss: Any, correct: Any,
    predicted: Any, confidence: Any, margin: Any, brier: Any, rank: Any, status: Any,
) -> None:  # fmt: skip
    """Score each row; see the contract."""
    rows = device.predictions(predictions)
    n, c = rows.shape
    if n == 0:
        return
    dtype = np.dtype(rows.dtype)
    given = [rows, device.put(labels), np.int64(n), np.int32(c)]
    outputs = (loss, correct, predicted, confidence, margin, brier, rank, status)
    rooms = [device.room(array) for array in outputs]
    tolerance = np.float64(SUM_TOLERANCE_16_BIT if dtype.itemsize == 2 else SUM_TOLERANCE)
    defined = definitions(dtype, kind)
    if c <= FEW:
        _few(device, defined, [*given, tolerance], rooms, dtype.itemsize)
    elif c <= WARP:
        _lanes(device, defined, [*given, tolerance], rooms, dtype.itemsize)
    else:
        _long(device, defined, given, tolerance, rooms)
    for room, array in zip(rooms, outputs, strict=True):
        device.fetch(room, array)


def definitions(dtype: Dtype, kind: Kind) -> Definitions:
    """Return what the sources are compiled with."""
    return (("DTYPE", DTYPES.get(dtype, 3)), ("KIND", int(kind)))


def _few(
    device: Device, defined: Definitions, given: list[Any], rooms: list[Any], itemsize: int
) -> None:
    """Launch `score_few`."""
    n, c = int(given[2]), int(given[3])
    width, pitch = layout(c, itemsize)
    row_bytes = pitch * itemsize
    rows = min(MOST_ROWS, max(1, SHARED // (row_bytes * THREADS)) * THREADS)
    fewest = -(-n // device.multiprocessors)  # where there are few rows, each block has fewer
    rows = max(32, min(rows, -(-fewest // 32) * 32))
    per_class = np.uint32(min((1 << 32) - 1, -(-(1 << 32) // c)))
    device.launch(
        "score_few", defined, "score_few", -(-n // rows), THREADS,
        [*given, np.int32(rows), np.int32(pitch), np.int32(width), per_class, *rooms],
        shared=rows * row_bytes + 16,
    )  # fmt: skip


def layout(c: int, itemsize: int) -> tuple[int, int]:
    """Return how many values a thread reads from shared memory at once, and from row to row.

    As many as divide a row, up to 16 bytes. Threads that read neighbouring rows have different
    banks where such reads are an odd number from row to row.
    """
    most = 16 // itemsize
    width = min(most, c & -c)
    return width, c + (width if c // width % 2 == 0 else 0)


def _lanes(
    device: Device, defined: Definitions, given: list[Any], rooms: list[Any], itemsize: int
) -> None:
    """Launch `score_rows`: 2**team lanes take a row."""
    n, c = int(given[2]), int(given[3])
    team = team_for(c, itemsize)
    teams = THREADS_OF_LANES >> team
    rows = min(THREADS_OF_LANES, teams * blocks_for(n, teams * device.multiprocessors, TURNS))
    device.launch(
        "score_rows", defined, "score_rows", -(-n // rows), THREADS_OF_LANES,
        [*given, np.int32(rows), np.int32(team), *rooms],
    )  # fmt: skip


def team_for(c: int, itemsize: int) -> int:
    """Return the logarithm of how many lanes take a row, up to a warp.

    As many as read it at once, up to 8, whose 16 bytes are a line of memory; then more, so that
    none reads more than READS times before there is a warp. A row costs each of its lanes as much
    as some ten values.
    """
    reads = -(-c // AT_ONCE[itemsize])
    return max(min(3, (reads - 1).bit_length()), min(5, (-(-reads // READS) - 1).bit_length()))


def _long(
    device: Device, defined: Definitions, given: list[Any], tolerance: Any, rooms: list[Any]
) -> None:
    """Launch `score_parts`, then `score_joined`."""
    n, c = int(given[2]), int(given[3])
    of_row = -(-c // LENGTH)
    parts = device.empty((n * of_row, PART_BYTES), np.uint8)
    device.launch(
        "score_long", defined, "score_parts", n * of_row, THREADS,
        [*given, np.int32(LENGTH), np.int32(of_row), parts],
    )  # fmt: skip
    device.launch(
        "score_long", defined, "score_joined", -(-n // THREADS_JOINING), THREADS_JOINING,
        [*given, tolerance, np.int32(of_row), parts, *rooms],
    )  # fmt: skip


PART_BYTES: Final = 56  # of float64, the larger

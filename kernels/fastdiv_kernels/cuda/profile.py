"""`profile` on the device."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastdiv_kernels.contract import BFLOAT16, VECTORS_UP_TO, Dtype, Kind
from fastdiv_kernels.cuda.device import Definitions, Device, address, blocks_for

THREADS = 256
BLOCKS = 3  # of a multiprocessor
TILE = 4096  # numbers of a block's tile of vectors, at most
VALUES = {np.dtype(np.float16): 0, BFLOAT16: 1, np.dtype(np.float32): 2, np.dtype(np.float64): 3}
CHUNKS = 6  # that a lane takes at least, where a row is too much for one
LONG_FROM = 8193  # classes, of which a block takes a row
VECTOR, WORD = 16, 4  # bytes
ONE_BY_ONE, BY_WORDS, BY_VECTORS = range(3)


def profile(device: Device, predictions: Any, kind: Kind, predicted: Any, profile: Any) -> None:
    """Keep of each row what its loss at other temperatures is made from; see the contract."""
    values = device.predictions(predictions)
    n, c = values.shape
    if n == 0:
        return
    firsts, kept = device.put(predicted), device.room(profile)
    builds = definitions(np.dtype(values.dtype), kind)
    rows = [values, firsts, np.int64(n), np.int32(c)]
    if c <= VECTORS_UP_TO:
        # Tiles are multiples of eight rows, so that all begin as the first.
        how = np.int32(how_read(address(values), 8 * c, values.dtype))
        wide_out = np.int32(address(kept) % VECTOR == 0)
        blocks = -(-n // (TILE // c & ~7))
        arguments = [*rows, how, wide_out, kept]
        device.launch("profile", builds, "profile_vectors", blocks, THREADS, arguments)
    elif c < LONG_FROM:
        how = np.int32(how_read(address(values), c, values.dtype))
        lanes = lanes_for(c, values.dtype)
        wide_out = np.int32(address(kept) % WORD == 0)
        blocks = blocks_for(n, THREADS // lanes, BLOCKS * device.multiprocessors)
        arguments = [*rows, np.int32(lanes), how, wide_out, kept]
        device.launch("profile", builds, "profile_curves", blocks, THREADS, arguments)
    else:
        how = np.int32(how_read(address(values), c, values.dtype))
        blocks = blocks_for(n, 1, BLOCKS * device.multiprocessors)
        device.launch("profile", builds, "profile_long", blocks, THREADS, [*rows, how, kept])
    device.fetch(kept, profile)


def definitions(dtype: Dtype, kind: Kind) -> Definitions:
    """Return what the source is compiled with for predictions."""
    return ("VALUE", VALUES[dtype]), ("PROBS", int(kind == Kind.PROBS))


def how_read(start: int, numbers: int, dtype: Dtype) -> int:
    """Return how numbers are read where parts of so many follow each other from an address on."""
    size = numbers * dtype.itemsize
    if start % VECTOR == size % VECTOR == 0:
        return BY_VECTORS
    return BY_WORDS if start % WORD == size % WORD == 0 else ONE_BY_ONE


def lanes_for(classes: int, dtype: Dtype) -> int:
    """Return how many lanes take a row, a power of two from 2 to 32."""
    chunks = -(-classes // (VECTOR // dtype.itemsize))
    most = max(2, chunks // CHUNKS)
    return int(min(32, 1 << (most.bit_length() - 1)))

"""Files of stored scores made longer, written to and copied; a full disk is named."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np

from fastdiv.arrays import address
from fastdiv.errors import UsageError
from fastdiv_kernels.contract import Array


def extend(path: Path, size: int) -> None:
    """Make a file longer; new bytes are 0. Room is taken now: a mapped page may not fail later."""
    with path.open("ab") as file:
        try:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, size)
            else:
                file.truncate(size)
        except OSError as error:
            raise _full(path, error) from error


def copy_file(path: Path, to: Path) -> None:
    """Copy a file."""
    try:
        shutil.copyfile(path, to)
    except OSError as error:
        raise _full(to, error) from error


def write_at(descriptor: int, data: Array, place: int) -> None:
    """Write all of the bytes of an array at a place of a file."""
    data = np.ascontiguousarray(data)
    written = os.pwrite(descriptor, data.data, place)
    if written < data.nbytes:  # a signal, or one call takes no more
        rest = data.reshape(-1).view(np.uint8)
        while written < len(rest):
            written += os.pwrite(descriptor, rest[written:].data, place + written)


def write_all(descriptor: int, parts: list[tuple[Array, int, int, int]]) -> None:
    """Write parts of arrays in C order: from which byte on, how many, to what place of a file."""
    from fastdiv_kernels.cpu.writing import write_parts

    found = [(address(data) + at, size, place) for data, at, size, place in parts]
    done = write_parts(descriptor, np.array(found, np.int64).reshape(-1, 3))
    for data, at, size, place in parts[done:]:  # a full disk, or a signal
        write_at(descriptor, data.reshape(-1).view(np.uint8)[at : at + size], place)


def _full(path: Path, error: OSError) -> UsageError:
    return UsageError(
        f"stored scores cannot be written to {path.parent}: {error.strerror}: make room, set "
        "TMPDIR to another disk, or give --scores rolling"
    )

"""A batch on a device: what functions are given lies there once, and so does what they made."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fastdiv_kernels.cuda.device import Definitions, Device


class Batch:
    """A device while the functions of a batch are called, one after the other.

    An array of the host is put once, and what was made for one is used by later functions
    instead. It must not be written by others meanwhile, but before it is given for the first time.

    Parameters
    ----------
    device : Device
    pieces : sequence of (int, int, int)
        Where predictions lie on the host, whatever functions are given: the first row, how many
        rows, and the address of each piece.
    """

    def __init__(self, device: Device, pieces: Sequence[tuple[int, int, int]]) -> None:
        self._device = device
        self._pieces = pieces
        self._there: dict[tuple[int, int], Any] = {}  # address and bytes of an array of the host
        self._made: list[tuple[Any, Any]] = []
        self._matrix: Any = None
        self.multiprocessors = device.multiprocessors

    def describe(self) -> str:
        """Name the device."""
        return self._device.describe()

    def predictions(self, array: Any) -> Any:
        """Return all pieces together as (n, c) on the device; of `array` c and the dtype count."""
        if self._matrix is None:
            rows = max(start + n for start, n, _ in self._pieces)
            self._matrix = self._device.empty((rows, array.shape[1]), array.dtype)
            for start, n, address in self._pieces:
                self._device.upload(self._matrix[start : start + n], address)
        return self._matrix

    def put(self, array: Any) -> Any:
        """Return an array on the device, the one that is there already if one is."""
        if not isinstance(array, np.ndarray) or not array.flags.c_contiguous:
            return self._device.put(array)
        key = _place(array)
        if key not in self._there:
            self._there[key] = self._device.put(array)
        return self._there[key].view(array.dtype).reshape(array.shape)

    def zeros(self, shape: int | tuple[int, ...], dtype: Any) -> Any:
        """Make an array on the device."""
        return self._device.zeros(shape, dtype)

    def empty(self, shape: int | tuple[int, ...], dtype: Any) -> Any:
        """Make an array on the device, whose numbers mean nothing."""
        return self._device.empty(shape, dtype)

    def room(self, array: Any) -> Any:
        """Return an array on the device to be written for `array`."""
        room = self._device.room(array)
        if isinstance(array, np.ndarray):
            self._there[_place(array)] = room
        return room

    def fetch(self, room: Any, array: Any) -> None:
        """Copy what was written to `room` to its array when `settle` is called."""
        self._made.append((room, array))

    def add(self, found: Any, array: Any) -> None:
        """Add what was found on the device to an array, wherever that is."""
        self._device.add(found, array)

    def upload(self, room: Any, address: int) -> None:
        """Fill an array on the device from an address of the host."""
        self._device.upload(room, address)

    def launch(
        self, source: str, definitions: Definitions, kernel: str, blocks: int | tuple[int, int],
        threads: int, arguments: Sequence[Any], shared: int = 0,
    ) -> None:  # fmt: skip
        """Run a kernel of a source."""
        self._device.launch(source, definitions, kernel, blocks, threads, arguments, shared)

    def settle(self) -> None:
        """Copy to the host what was made."""
        for room, array in self._made:
            self._device.fetch(room, array)
        self._made = []


def _place(array: Any) -> tuple[int, int]:
    return int(array.__array_interface__["data"][0]), int(array.nbytes)

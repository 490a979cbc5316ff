"""A batch on a device: what functions are given lies there once, and so does what they made."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fastdiv_kernels.cuda.device import Definitions, Device, Lane, Place, parts_of


class Batch:
    """A device while functions are called with arrays of the host, one after the other.

    An array is put once, and what was made for one is used by later functions instead; nothing
    is on the host before `settle`. Arrays must not be written by others meanwhile, but before
    they are given for the first time.

    Parameters
    ----------
    device : Device
    lane : Lane
        Of this device, on which all is queued.
    pieces : sequence of (int, int), optional
        Where predictions lie on the host, whatever functions are given: how many rows each piece
        has, and its address.
    """

    def __init__(self, device: Device, lane: Lane, pieces: Sequence[tuple[int, int]] = ()) -> None:
        self._device = device
        self._lane = lane
        self._pieces = pieces
        self._there: dict[Place, Any] = {}  # of arrays of the host
        self._made: list[tuple[Any, Any]] = []
        self._found: list[tuple[Any, Sequence[Any]]] = []
        self._matrix: Any = None
        self.multiprocessors = device.multiprocessors
        self.shared = device.shared

    def predictions(self, array: Any) -> Any:
        """Return all pieces together as (n, c) on the device; of `array` c and the dtype count."""
        if not self._pieces or self._device.holds(array):
            return self.put(array)
        if self._matrix is None:
            rows, c = sum(n for n, _ in self._pieces), array.shape[1]
            self._matrix = self._device.empty((rows, c), array.dtype)
            row_bytes = c * array.dtype.itemsize
            self._lane.upload(self._matrix, [(at, n * row_bytes) for n, at in self._pieces])
        return self._matrix

    def put(self, array: Any) -> Any:
        """Return an array on the device, the one that is there already if one is."""
        if not on_host(self._device, array):
            return self._device.put(array)
        if not array.flags.c_contiguous:
            return self._uploaded(np.ascontiguousarray(array))
        place = _place(array)
        if place not in self._there:
            self._there[place] = self._uploaded(array)
        return self._there[place].view(array.dtype).reshape(array.shape)

    def _uploaded(self, array: Any) -> Any:
        room = self._device.empty(array.shape, array.dtype)
        self._lane.upload(room, [_place(array)])
        return room

    def zeros(self, shape: int | tuple[int, ...], dtype: Any) -> Any:
        """Make an array on the device."""
        return self._device.zeros(shape, dtype)

    def empty(self, shape: int | tuple[int, ...], dtype: Any) -> Any:
        """Make an array on the device, whose numbers mean nothing."""
        return self._device.empty(shape, dtype)

    def room(self, array: Any) -> Any:
        """Return an array on the device to be written for `array`."""
        if not on_host(self._device, array):
            return self._device.room(array)
        room = self._device.empty(array.shape, array.dtype)
        if array.flags.c_contiguous:
            self._there[_place(array)] = room
        return room

    def fetch(self, room: Any, array: Any) -> None:
        """Copy what was written to `room` to the array that it was made for, by `settle`."""
        if on_host(self._device, array):
            self._made.append((room, array))
        else:
            self._device.fetch(room, array)

    def add(self, found: Any, arrays: Sequence[Any]) -> None:
        """Add what was found to arrays; to those of the host by `settle`."""
        here = [on_host(self._device, array) for array in arrays]
        if not any(here):
            self._device.add(found, arrays)
        elif all(here):
            self._found.append((found, arrays))
        else:
            for part, array in zip(parts_of(found, arrays), arrays, strict=True):
                self.add(part.reshape(-1), [array])

    def launch(
        self, source: str, definitions: Definitions, kernel: str, blocks: int | tuple[int, int],
        threads: int, arguments: Sequence[Any], shared: int = 0,
    ) -> None:  # fmt: skip
        """Run a kernel of a source."""
        self._device.launch(source, definitions, kernel, blocks, threads, arguments, shared)

    def settle(self) -> None:
        """Copy to the host what was made, add what was found, and wait for all of it."""
        copied = []
        for room, array in self._made:
            here = array if array.flags.c_contiguous else np.empty(array.shape, array.dtype)
            self._lane.download(room, here)
            copied.append((here, array))
        added = []
        for room, arrays in self._found:
            here = self._device.empty_on_host(room.shape, np.int64)
            self._lane.download(room, here)
            added.append((here, arrays))
        self._lane.wait()
        for here, array in copied:
            if here is not array:
                array[...] = here
        for here, arrays in added:
            for part, array in zip(parts_of(here, arrays), arrays, strict=True):
                array += part


def on_host(device: Device, array: Any) -> bool:
    """Say whether something is an array of the host."""
    return isinstance(array, np.ndarray) and not device.holds(array)


def _place(array: Any) -> Place:
    return int(array.__array_interface__["data"][0]), int(array.nbytes)

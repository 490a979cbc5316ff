"""What a device does for the functions of the backend: hold arrays and run kernels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

Definitions = tuple[tuple[str, int], ...]  # names and numbers that a source is compiled with


class Device(Protocol):
    """A device; arrays may be NumPy's, or the device's own, which are used where they lie."""

    multiprocessors: int

    def describe(self) -> str:
        """Name the device, as the summary shows it."""
        ...

    def put(self, array: Any) -> Any:
        """Return an array on the device, in C order: the same if it is that."""
        ...

    def predictions(self, array: Any) -> Any:
        """Return predictions on the device, in C order."""
        ...

    def zeros(self, shape: int | tuple[int, ...], dtype: Any) -> Any:
        """Make an array on the device."""
        ...

    def empty(self, shape: int | tuple[int, ...], dtype: Any) -> Any:
        """Make an array on the device, whose numbers mean nothing."""
        ...

    def room(self, array: Any) -> Any:
        """Return an array on the device to be written for `array`: the same if it is there."""
        ...

    def fetch(self, room: Any, array: Any) -> None:
        """Copy what was written to `room` to the array that it was made for, if it is another."""
        ...

    def add(self, found: Any, array: Any) -> None:
        """Add what was found on the device to an array, wherever that is."""
        ...

    def upload(self, room: Any, address: int) -> None:
        """Fill an array on the device, in C order, from an address of the host."""
        ...

    def launch(
        self, source: str, definitions: Definitions, kernel: str, blocks: int | tuple[int, int],
        threads: int, arguments: Sequence[Any], shared: int = 0,
    ) -> None:  # fmt: skip
        """Run a kernel of a source.

        Arguments are arrays on the device, which become addresses, and NumPy's numbers.
        """
        ...


class Totals:
    """Room on a device for what is added to arrays of int64, zeroed and copied as one."""

    def __init__(self, device: Device, arrays: Sequence[Any]) -> None:
        self._device = device
        self._arrays = arrays
        self._room = device.zeros(sum(x.size for x in arrays), np.int64)
        self.parts = self._parts_of(self._room)

    def _parts_of(self, room: Any) -> list[Any]:
        parts, start = [], 0
        for x in self._arrays:
            parts.append(room[start : start + x.size].reshape(x.shape))
            start += x.size
        return parts

    def add(self) -> None:
        """Add the parts to their arrays, wherever these are."""
        if all(type(x) is np.ndarray for x in self._arrays):
            there = np.zeros(self._room.shape, np.int64)
            self._device.add(self._room, there)
            for part, array in zip(self._parts_of(there), self._arrays, strict=True):
                array += part
        else:
            for part, array in zip(self.parts, self._arrays, strict=True):
                self._device.add(part, array)


def blocks_for(items: int, per_block: int, most: int) -> int:
    """Return how many blocks take so many items, at most `most`, and one at least."""
    return max(1, min(most, -(-items // per_block)))


def address(array: Any) -> int:
    """Return where an array on the device begins."""
    interface = getattr(array, "__cuda_array_interface__", None) or array.__array_interface__
    return int(interface["data"][0])


def loss_type(loss: Any) -> tuple[str, int]:
    """Return the definition of what losses are: 4 or 8 bytes."""
    return "LOSS_BYTES", int(np.dtype(loss.dtype).itemsize)

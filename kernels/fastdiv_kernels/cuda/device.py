"""What a device does for the functions of the backend: hold arrays and run kernels."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol, Self

import numpy as np

Definitions = tuple[tuple[str, int], ...]  # names and numbers that a source is compiled with
Place = tuple[int, int]  # in the memory of the host: address and bytes


class Lane(Protocol):
    """A queue of copies and kernels of one thread; those of other lanes run beside them."""

    def upload(self, room: Any, places: Sequence[Place]) -> None:
        """Fill an array on the device, in C order, from places of the host, one after another.

        What is there may change afterwards.
        """
        ...

    def download(self, room: Any, array: Any) -> None:
        """Copy an array on the device to one of the host, in C order: whole after `wait`."""
        ...

    def wait(self) -> None:
        """Wait until all that was queued is done."""
        ...


class Device(Protocol):
    """A device, whose arrays lie there: kernels are queued behind what its caller queued."""

    multiprocessors: int
    shared: int  # bytes of shared memory of a multiprocessor

    def describe(self) -> str:
        """Name the device, as the summary shows it."""
        ...

    def holds(self, array: Any) -> bool:
        """Say whether an array is one of a device's own."""
        ...

    def beside(self, array: Any) -> AbstractContextManager[Self]:
        """Go to the device that an array lies on, and its caller's queue there."""
        ...

    def leave(self, *arrays: Any) -> None:
        """Wait for what was queued, if an array's owner may use its memory again before."""
        ...

    def lane(self) -> AbstractContextManager[Lane]:
        """Queue what follows on a lane of this thread's own, behind what its caller queued."""
        ...

    def empty_on_host(self, shape: int | tuple[int, ...], dtype: Any) -> Any:
        """Make an array in memory of the host that copies reach without a detour."""
        ...

    def put(self, array: Any) -> Any:
        """Return an array on the device, in C order: the same if it is that."""
        ...

    def get(self, array: Any) -> Any:
        """Return a copy of an array on the host."""
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

    def add(self, found: Any, arrays: Sequence[Any]) -> None:
        """Add what was found, as `parts_of` lays it out, to arrays, wherever these are."""
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
        self.parts = parts_of(self._room, arrays)

    def add(self) -> None:
        """Add the parts to their arrays."""
        self._device.add(self._room, self._arrays)


def parts_of(room: Any, arrays: Sequence[Any]) -> list[Any]:
    """Cut an array into parts of the shapes of others."""
    parts, start = [], 0
    for x in arrays:
        parts.append(room[start : start + x.size].reshape(x.shape))
        start += x.size
    return parts


def blocks_for(items: int, per_block: int, most: int) -> int:
    """Return how many blocks take so many items, at most `most`, and one at least."""
    return max(1, min(most, -(-items // per_block)))


def resident(device: Device, blocks: int, shared: int) -> int:
    """Return how many blocks a device has at a time, if there is shared memory for them.

    At most so many of a multiprocessor, each with so many bytes; each has 1 KB more.
    """
    return max(1, min(blocks, device.shared // (shared + 1024))) * device.multiprocessors


def address(array: Any) -> int:
    """Return where an array on the device begins."""
    interface = getattr(array, "__cuda_array_interface__", None) or array.__array_interface__
    return int(interface["data"][0])


def loss_type(loss: Any) -> tuple[str, int]:
    """Return the definition of what losses are: 4 or 8 bytes."""
    return "LOSS_BYTES", int(np.dtype(loss.dtype).itemsize)

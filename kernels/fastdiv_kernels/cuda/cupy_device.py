"""A GPU, by CuPy: its arrays, and kernels that NVRTC compiles when they are first needed."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from fastdiv_kernels.cuda.device import Definitions
from fastdiv_kernels.cuda.sources import OPTIONS, text


class CupyDevice:
    """The current device of CuPy. Work is queued on the current stream."""

    def __init__(self) -> None:
        import cupy

        self._cupy = cupy
        self._device = cupy.cuda.Device()
        self.multiprocessors = int(self._device.attributes["MultiProcessorCount"])

    def describe(self) -> str:
        """Name the device and CuPy."""
        properties = self._cupy.cuda.runtime.getDeviceProperties(self._device.id)
        return f"CuPy {self._cupy.__version__}, {properties['name'].decode()}"

    def put(self, array: Any) -> Any:
        """Return an array on the device, in C order: the same if it is that."""
        return self._cupy.ascontiguousarray(self._cupy.asarray(array))

    def zeros(self, shape: int | tuple[int, ...], dtype: Any) -> Any:
        """Make an array on the device."""
        return self._cupy.zeros(shape, dtype)

    def empty(self, shape: int | tuple[int, ...], dtype: Any) -> Any:
        """Make an array on the device, whose numbers mean nothing."""
        return self._cupy.empty(shape, dtype)

    def room(self, array: Any) -> Any:
        """Return an array on the device to be written for `array`: the same if it is there."""
        if isinstance(array, self._cupy.ndarray) and array.flags.c_contiguous:
            return array
        return self._cupy.empty(array.shape, array.dtype)

    def fetch(self, room: Any, array: Any) -> None:
        """Copy what was written to `room` to the array that it was made for, if it is another."""
        if room is array:
            return
        if isinstance(array, np.ndarray):
            array[...] = room.get()
        else:
            array[...] = room

    def add(self, found: Any, array: Any) -> None:
        """Add what was found on the device to an array, wherever that is."""
        array += found.get() if isinstance(array, np.ndarray) else found

    def launch(
        self, source: str, definitions: Definitions, kernel: str, blocks: int | tuple[int, int],
        threads: int, arguments: Sequence[Any], shared: int = 0,
    ) -> None:  # fmt: skip
        """Run a kernel of a source."""
        function = self._function(source, definitions, kernel)
        if shared > 48 << 10:
            function.max_dynamic_shared_size_bytes = shared
        grid = (blocks,) if isinstance(blocks, int) else blocks
        function(grid, (threads,), tuple(arguments), shared_mem=shared)

    @functools.cache  # noqa: B019  # there is one device
    def _function(self, source: str, definitions: Definitions, kernel: str) -> Any:
        return self._module(source, definitions).get_function(kernel)

    @functools.cache  # noqa: B019
    def _module(self, source: str, definitions: Definitions) -> Any:
        defined = tuple(f"-D{name}={value}" for name, value in definitions)
        return self._cupy.RawModule(code=text(source), options=(*OPTIONS, *defined))

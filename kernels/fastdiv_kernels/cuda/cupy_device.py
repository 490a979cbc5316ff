"""A GPU, by CuPy: its arrays, and kernels that NVRTC compiles when they are first needed."""

from __future__ import annotations

import functools
import importlib.util
import sys
from collections.abc import Sequence
from typing import Any

from fastdiv_kernels.cuda.device import Definitions
from fastdiv_kernels.cuda.sources import OPTIONS, text

CUDA = 2  # of DLPack's devices
INSTALL = "pip install 'fastdiv[cuda13]', or [cuda12] where the driver is older"


def why_not() -> str | None:
    """Return why there is no device here and what to do, None where there is one."""
    if importlib.util.find_spec("cupy") is None:
        return f"CuPy is not installed: {INSTALL}"
    try:
        import cupy
    except ImportError as error:  # libraries of CUDA that are not there, or others
        return f"CuPy cannot be imported ({_first_line(error)}): {INSTALL}"
    try:
        devices = cupy.cuda.runtime.getDeviceCount()
    except cupy.cuda.runtime.CUDARuntimeError as error:
        return f"there is no GPU that CUDA can use ({_first_line(error)}): see nvidia-smi"
    return None if devices else "there is no GPU that CUDA can use: see nvidia-smi"


def devices() -> list[dict[str, Any]]:
    """Return what is known of each device: name, memory in bytes, compute capability."""
    import cupy

    runtime = cupy.cuda.runtime
    found = []
    for i in range(runtime.getDeviceCount()):
        known = runtime.getDeviceProperties(i)
        capability = f"{known['major']}.{known['minor']}"
        found.append(
            {
                "name": known["name"].decode(),
                "memory_bytes": int(known["totalGlobalMem"]),
                "compute_capability": capability,
                "multiprocessors": int(known["multiProcessorCount"]),
            }
        )
    return found


def versions() -> dict[str, str]:
    """Return the versions of CUDA: what the driver can do, and what CuPy runs on."""
    import cupy

    def words(number: int) -> str:
        return f"{number // 1000}.{number % 1000 // 10}"

    runtime = cupy.cuda.runtime
    return {"driver": words(runtime.driverGetVersion()), "cuda": words(runtime.runtimeGetVersion())}


def _first_line(error: BaseException) -> str:
    return str(error).strip().split("\n")[0]


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
        """Return an array on the device, in C order: the same if it is that.

        Arrays of other libraries come by DLPack, which makes this stream wait for theirs;
        bfloat16 as words.
        """
        if not isinstance(array, self._cupy.ndarray) and hasattr(array, "__dlpack_device__"):
            if hasattr(array, "detach"):  # a tensor of torch, perhaps of a graph
                array = array.detach()
            name = str(getattr(array, "dtype", "")).removeprefix("torch.")
            if name == "bfloat16":  # which CuPy does not know
                torch = sys.modules.get("torch")
                of_torch = torch is not None and isinstance(array, torch.Tensor)
                words = array.view(torch.int16 if torch and of_torch else "uint16")
                return self.put(words).view("uint16")
            if int(array.__dlpack_device__()[0]) == CUDA:
                array = self._cupy.from_dlpack(array)
        return self._cupy.ascontiguousarray(self._cupy.asarray(array))

    def predictions(self, array: Any) -> Any:
        """Return predictions on the device, in C order."""
        return self.put(array)

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
        array[...] = room if isinstance(array, self._cupy.ndarray) else room.get()

    def add(self, found: Any, array: Any) -> None:
        """Add what was found on the device to an array, wherever that is."""
        array += found if isinstance(array, self._cupy.ndarray) else found.get()

    def upload(self, room: Any, address: int) -> None:
        """Fill an array on the device, in C order, from an address of the host."""
        to_device = self._cupy.cuda.runtime.memcpyHostToDevice
        self._cupy.cuda.runtime.memcpy(room.data.ptr, address, room.nbytes, to_device)

    def launch(
        self, source: str, definitions: Definitions, kernel: str, blocks: int | tuple[int, int],
        threads: int, arguments: Sequence[Any], shared: int = 0,
    ) -> None:  # fmt: skip
        """Run a kernel of a source."""
        function = self._function(source, definitions, kernel)
        if shared:  # with what kernels declare it may be more than 48 KB
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

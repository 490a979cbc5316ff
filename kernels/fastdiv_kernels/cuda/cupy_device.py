"""A GPU, by CuPy: its arrays, and kernels that NVRTC compiles when they are first needed."""

from __future__ import annotations

import ctypes
import functools
import importlib.util
import sys
import threading
import types
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from fastdiv_kernels.cuda.compiled import code_of
from fastdiv_kernels.cuda.device import Definitions, Place, address, parts_of

PART_BYTES, PARTS = 4 << 20, 2  # of pinned memory on the way to a device
OLDEST = 80  # compute capability: warps add and compare at once, and shared memory is 99 KB
CUDA = 2  # of DLPack's devices
INSTALL = "pip install 'fastdiv[cuda13]', or [cuda12] where the driver is older"

sound: list[Any] = []  # CuPy, once it has been seen to work


def why_not() -> str | None:
    """Return why there is no device here and what to do, None where there is one."""
    if sys.modules.get("cupy") in sound:
        return None
    if importlib.util.find_spec("cupy") is None:
        return f"CuPy is not installed: {INSTALL}"
    try:
        import cupy
    except ImportError as error:  # libraries of CUDA that are not there, or others
        return f"CuPy cannot be imported ({_line(error, -1)}): {INSTALL}"
    try:
        devices = cupy.cuda.runtime.getDeviceCount()
    except cupy.cuda.runtime.CUDARuntimeError as error:
        return f"there is no GPU that CUDA can use ({_line(error, 0)}): see nvidia-smi"
    if not devices:
        return "there is no GPU that CUDA can use: see nvidia-smi"
    try:
        cupy.cuda.nvrtc.getVersion()
    except (ImportError, RuntimeError) as error:
        return f"CUDA's compiler, NVRTC, cannot be used ({_line(error, -1)}): {INSTALL}"
    capability = int(cupy.cuda.Device().compute_capability)
    if capability < OLDEST:
        return (
            f"the GPU has compute capability {capability / 10}, but {OLDEST / 10} is needed: "
            "choose another with CUDA_VISIBLE_DEVICES"
        )
    sound.append(cupy)
    return None


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


def _line(error: BaseException, which: int) -> str:
    """Return a line of what an error says, of those that are no rules."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip("= ")]
    return lines[which] if lines else type(error).__name__


def current_device() -> CupyDevice:
    """Return CuPy's current device."""
    import cupy

    return device_of_number(cupy, int(cupy.cuda.Device().id))


@functools.cache
def device_of_number(cupy: Any, number: int) -> CupyDevice:
    """Return a device, always the same: code that was loaded and memory are kept by it."""
    return CupyDevice(cupy, number)


class CupyDevice:
    """A device of CuPy. Work is queued on CuPy's current stream."""

    def __init__(self, cupy: Any, number: int) -> None:
        self._cupy = cupy
        self._device = cupy.cuda.Device(number)
        attributes = self._device.attributes
        self.multiprocessors = int(attributes["MultiProcessorCount"])
        self.shared = int(attributes["MaxSharedMemoryPerMultiprocessor"])
        self._functions: dict[tuple[str, Definitions, str], Any] = {}
        self._modules: dict[tuple[str, Definitions], Any] = {}
        self._compiling = threading.Lock()
        self._free: list[CupyLane] = []  # its methods are atomic

    def describe(self) -> str:
        """Name the device and CuPy."""
        properties = self._cupy.cuda.runtime.getDeviceProperties(self._device.id)
        return f"CuPy {self._cupy.__version__}, {properties['name'].decode()}"

    def holds(self, array: Any) -> bool:
        """Say whether an array is CuPy's."""
        return isinstance(array, self._cupy.ndarray)

    @contextmanager
    def beside(self, array: Any) -> Iterator[CupyDevice]:
        """Go to the device that an array lies on; of torch, to its current stream.

        CuPy's current stream then waits for what was queued there, so that results may be used
        on either.
        """
        device = self if array is None else self._device_of(array)
        with device._device:
            before = self._cupy.cuda.get_current_stream()
            stream = self._stream_of(array)
            if stream is None or stream.ptr == before.ptr:
                yield device
                return
            # What is queued on CuPy's stream may use memory that results are made in again.
            stream.wait_event(before.record())
            with self._on(stream):
                yield device
            before.wait_event(stream.record())

    def _device_of(self, array: Any) -> CupyDevice:
        if hasattr(array, "__dlpack_device__"):
            number = int(array.__dlpack_device__()[1])
        else:  # as Numba's
            number = int(self._cupy.cuda.runtime.pointerGetAttributes(address(array)).device)
        return device_of_number(self._cupy, number)

    @contextmanager
    def _on(self, stream: Any) -> Iterator[None]:
        """Make a stream the current one, and then the one that was."""
        before = self._cupy.cuda.get_current_stream()
        try:
            with stream:
                yield
        finally:  # `with` goes back to the last `with`, not to what was set by `use`
            if self._cupy.cuda.get_current_stream().ptr != before.ptr:
                before.use()

    def _stream_of(self, array: Any) -> Any:
        """Return torch's current stream where an array is torch's."""
        torch = sys.modules.get("torch")
        if torch is None or not isinstance(array, torch.Tensor):
            return None
        stream = torch.cuda.current_stream(array.device).cuda_stream
        cuda = self._cupy.cuda
        if hasattr(cuda.Stream, "from_external"):  # from CuPy 14 on; of torch from 2.10 on
            return cuda.Stream.from_external(
                types.SimpleNamespace(__cuda_stream__=lambda: (0, stream))
            )
        return cuda.ExternalStream(stream)

    def leave(self, *arrays: Any) -> None:
        """Wait for what was queued, if an array's owner may use its memory again before."""
        torch = sys.modules.get("torch")
        known = (self._cupy.ndarray, np.ndarray, *([] if torch is None else [torch.Tensor]))
        if not all(isinstance(array, known) for array in arrays):
            self._cupy.cuda.get_current_stream().synchronize()

    @contextmanager
    def lane(self) -> Iterator[CupyLane]:
        """Queue what follows on a stream of this thread's own, behind the current one."""
        with self._device:
            queued = self._cupy.cuda.Event(disable_timing=True)
            queued.record()
            try:
                lane = self._free.pop()
            except IndexError:
                lane = CupyLane(self._cupy)
            try:
                with self._on(lane.stream):
                    lane.stream.wait_event(queued)
                    yield lane
            except BaseException as error:
                try:
                    lane.wait()  # nothing may still use what is given up now
                except Exception as another:  # the lane is given up too
                    error.add_note(f"and then: {another}")
                else:
                    self._free.append(lane)
                raise
            lane.wait()
            self._free.append(lane)

    def empty_on_host(self, shape: int | tuple[int, ...], dtype: Any) -> Any:
        """Make an array in pinned memory of the host."""
        size = int(np.prod(shape))
        nbytes = size * np.dtype(dtype).itemsize
        if not nbytes:
            return np.empty(shape, dtype)
        with self._device:
            memory = self._cupy.cuda.alloc_pinned_memory(nbytes)
        return np.frombuffer(memory, dtype, size).reshape(shape)

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
        there = self._cupy.ascontiguousarray(self._cupy.asarray(array))
        return there if is_aligned(there) else there.copy()

    def get(self, array: Any) -> Any:
        """Return a copy of an array on the host."""
        return self.put(array).get()

    predictions = put

    def zeros(self, shape: int | tuple[int, ...], dtype: Any) -> Any:
        """Make an array on the device."""
        return self._cupy.zeros(shape, dtype)

    def empty(self, shape: int | tuple[int, ...], dtype: Any) -> Any:
        """Make an array on the device, whose numbers mean nothing."""
        return self._cupy.empty(shape, dtype)

    def room(self, array: Any) -> Any:
        """Return an array on the device to be written for one of its own: the same, in C order."""
        if array.flags.c_contiguous and is_aligned(array):
            return array
        return self._cupy.empty(array.shape, array.dtype)

    def fetch(self, room: Any, array: Any) -> None:
        """Copy what was written to `room` to the array that it was made for, if it is another."""
        if room is not array:
            array[...] = room

    def add(self, found: Any, arrays: Sequence[Any]) -> None:
        """Add what was found to arrays on the device."""
        for part, array in zip(parts_of(found, arrays), arrays, strict=True):
            array += part

    def launch(
        self, source: str, definitions: Definitions, kernel: str, blocks: int | tuple[int, int],
        threads: int, arguments: Sequence[Any], shared: int = 0,
    ) -> None:  # fmt: skip
        """Run a kernel of a source."""
        key = source, definitions, kernel
        function = self._functions.get(key) or self._made(key)
        grid = (blocks,) if isinstance(blocks, int) else blocks
        function(grid, (threads,), tuple(arguments), shared_mem=shared)

    def _made(self, key: tuple[str, Definitions, str]) -> Any:
        """Compile the source of a kernel, or find it compiled; once, whichever thread is first."""
        source, definitions, kernel = key
        with self._compiling:
            if key in self._functions:
                return self._functions[key]
            module = self._modules.get(key[:2])
            if module is None:
                capability = int(self._device.compute_capability)
                code = code_of(self._cupy.cuda.nvrtc, source, definitions, capability)
                module = self._cupy.cuda.function.Module()
                module.load(code)
                self._modules[key[:2]] = module
            function = module.get_function(kernel)
            # Shared memory may be above 48 KB: as much as there is beside what a kernel declares.
            driver = self._cupy.cuda.driver
            most = int(self._device.attributes["MaxSharedMemoryPerBlockOptin"])
            declared = driver.funcGetAttribute(
                driver.CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES, function.ptr
            )
            driver.funcSetAttribute(
                function.ptr, driver.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES,
                most - declared,
            )  # fmt: skip
            self._functions[key] = function
        return function


def is_aligned(array: Any) -> bool:
    """Say whether an array on the device begins where its numbers can be read one by one."""
    return bool(address(array) % array.dtype.itemsize == 0)


class CupyLane:
    """A stream, and pinned memory on the way to it.

    What is uploaded is copied to one of two parts of pinned memory while the other is on its way
    to the device: a copy of the device's from memory that is not pinned is made by the driver in
    such steps too, but one after the other.
    """

    def __init__(self, cupy: Any) -> None:
        self._runtime = cupy.cuda.runtime
        self.stream = cupy.cuda.Stream(non_blocking=True)
        self._size = PART_BYTES
        self._parts = [
            (cupy.cuda.alloc_pinned_memory(self._size), cupy.cuda.Event(disable_timing=True))
            for _ in range(PARTS)
        ]
        self._next = 0

    def upload(self, room: Any, places: Sequence[Place]) -> None:
        """Fill an array on the device, in C order, from places of the host."""
        to, filled = int(room.data.ptr), 0
        part = self._part()
        for at, left in places:
            while left:
                if filled == self._size:
                    to = self._send(to, filled)
                    part, filled = self._part(), 0
                n = min(left, self._size - filled)
                ctypes.memmove(part + filled, at, n)  # lets Python's lock go
                at, left, filled = at + n, left - n, filled + n
        if filled:
            self._send(to, filled)

    def _part(self) -> int:
        """Return where the part that is next begins, once what it held has been sent."""
        memory, sent = self._parts[self._next]
        sent.synchronize()
        return int(memory.ptr)

    def _send(self, to: int, filled: int) -> int:
        """Queue a copy of the part that is next, and return where on the device it ends."""
        memory, sent = self._parts[self._next]
        copy = self._runtime.memcpyHostToDevice
        self._runtime.memcpyAsync(to, memory.ptr, filled, copy, self.stream.ptr)
        sent.record(self.stream)
        self._next = (self._next + 1) % PARTS
        return to + filled

    def download(self, room: Any, array: Any) -> None:
        """Copy an array on the device to one of the host, best of all to pinned memory."""
        to, copy = array.__array_interface__["data"][0], self._runtime.memcpyDeviceToHost
        self._runtime.memcpyAsync(to, room.data.ptr, room.nbytes, copy, self.stream.ptr)

    def wait(self) -> None:
        """Wait until all that was queued is done."""
        self.stream.synchronize()

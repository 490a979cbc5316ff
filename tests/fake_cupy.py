"""As much of CuPy as the device uses, over NumPy: kernels run on this host (`cuda_host`).

What is queued on a stream is done when somebody waits for it, not before, and what is made on one
device cannot be used on another. So it tells whether the device asks CuPy for what it means, and
waits where it has to; that CuPy does it, only a GPU can tell.
"""

import ast
import ctypes
import functools
import threading
import time
import types
import typing
import weakref

import cuda_host
import numpy as np

queues = threading.RLock()  # held while a queue is written or worked off
here = threading.local()


class Stream:
    """A queue; like those of CuPy that do not wait for the default one."""

    def __init__(self, non_blocking=False):
        self.device = device_number()
        self.ptr = id(self)
        self.waiting = []
        self.done = 0

    def queue(self, work):
        assert self.device == device_number(), "a stream of another device"
        with queues:
            self.waiting.append(work)

    def run(self, until=None):
        """Do what was queued, up to a number of all that ever was."""
        with queues:
            while self.waiting and (until is None or self.done < until):
                work = self.waiting.pop(0)
                self.done += 1
                work()

    def synchronize(self):
        self.run()

    def record(self, event=None):
        event = event or Event()
        event.record(self)
        return event

    def wait_event(self, event):
        self.queue(event.synchronize)

    def __enter__(self):
        stack().append(self)
        return self.use()

    def __exit__(self, *error):  # as CuPy's, which forgets what was set by `use`
        assert stack().pop() is self
        before = [stream for stream in stack() if stream.device == self.device]
        current()[self.device] = before[-1] if before else default_stream(self.device)

    def use(self):
        current()[self.device] = self
        return self


class ExternalStream(Stream):
    """Another library's; what is queued here is queued there."""

    def __init__(self, ptr):
        self.ptr = ptr
        self.of = ctypes.cast(ptr, ctypes.py_object).value
        self.device = self.of.device

    def __getattr__(self, name):
        return getattr(self.of, name)

    def queue(self, work):
        self.of.queue(work)

    def run(self, until=None):
        self.of.run(until)


class Event:
    def __init__(self, disable_timing=False):
        self.of = None

    def record(self, stream=None):
        self.of = stream or get_current_stream()
        with queues:
            self.until = self.of.done + len(self.of.waiting)
        self.at = time.perf_counter()

    def synchronize(self):
        if self.of is not None:
            self.of.run(self.until)


def stack():
    if not hasattr(here, "streams"):
        here.streams = []
    return here.streams


def current():
    if not hasattr(here, "current"):
        here.current = {}
    return here.current


@functools.cache
def default_stream(device):
    with Device(device):
        return Stream()


def get_current_stream():
    return current().get(device_number()) or default_stream(device_number())


def device_number():
    return getattr(here, "device", 0)


class Device:
    attributes: typing.ClassVar = {
        "MultiProcessorCount": 3, "MaxSharedMemoryPerBlockOptin": 99 << 10,
        "MaxSharedMemoryPerMultiprocessor": 100 << 10,
    }  # fmt: skip
    compute_capability = "90"

    def __init__(self, number=None):
        self.id = device_number() if number is None else number
        self.before = []

    def __enter__(self):
        self.before.append(device_number())
        here.device = self.id
        return self

    def __exit__(self, *error):
        here.device = self.before.pop()


class Ndarray(np.ndarray):
    """An array "on the device": NumPy refuses to mix it with its own, as CuPy does."""

    def __array_finalize__(self, of):
        self.number = getattr(of, "number", device_number())

    def __dlpack_device__(self):
        return 2, self.number

    @property
    def __cuda_array_interface__(self):
        return {"data": self.__array_interface__["data"]}

    @property
    def data(self):
        return types.SimpleNamespace(ptr=self.__array_interface__["data"][0])

    @property
    def device(self):
        return Device(self.number)

    def get(self):
        with self.device:
            get_current_stream().run()
        return self.view(np.ndarray).copy()

    def astype(self, dtype):
        return asarray(self.get().astype(dtype))

    def __setitem__(self, key, value):
        get_current_stream().run()
        assert isinstance(value, Ndarray | int | float)
        super().__setitem__(key, value)

    def __array_ufunc__(self, ufunc, method, *inputs, **named):
        given = [*inputs, *named.get("out", ())]
        if not all(isinstance(x, Ndarray | int | float | np.generic) for x in given):
            raise TypeError("an array on the device and one on the host")
        get_current_stream().run()
        outs = tuple(x.view(np.ndarray) for x in named.pop("out", ()))
        bare = [x.view(np.ndarray) if isinstance(x, Ndarray) else x for x in inputs]
        found = getattr(ufunc, method)(*bare, **named, **({"out": outs} if outs else {}))
        return found.view(Ndarray)


def asarray(x):
    return x if isinstance(x, Ndarray) else np.array(x).view(Ndarray)


def ascontiguousarray(x):
    return x if x.flags.c_contiguous else asarray(np.ascontiguousarray(x.get()))


def zeros(shape, dtype):
    return np.zeros(shape, dtype).view(Ndarray)


def empty(shape, dtype):
    return np.full(shape, 7, dtype).view(Ndarray)


ON_DEVICE_1 = set()  # addresses of arrays that say so by nothing else


class Pinned(np.ndarray):
    """Memory of the host."""

    @property
    def ptr(self):
        return self.__array_interface__["data"][0]


def alloc_pinned_memory(size):
    return np.full(size, 7, np.uint8).view(Pinned)


def memcpy_async(to, source, size, kind, stream):
    assert kind in (1, 2)
    of = next(x for x in (*stack(), get_current_stream()) if x.ptr == stream)
    of.queue(lambda: ctypes.memmove(to, source, size))


class NVRTCError(RuntimeError):
    pass


class Nvrtc:
    """A compiler whose code says what it was made from."""

    NVRTCError = NVRTCError

    def __init__(self, archs=(80, 90)):
        self.archs = archs
        self.made = []  # (source, options)
        self.live = set()  # programs

    def getVersion(self):  # noqa: N802
        return 13, 0

    def getSupportedArchs(self):  # noqa: N802
        return self.archs

    def createProgram(self, code, name, headers, include_names):  # noqa: N802
        source = name.removesuffix(".cu")
        assert code == cuda_host.sources.text(source)
        self.made.append([source, None])
        self.live.add(len(self.made) - 1)
        return len(self.made) - 1

    def compileProgram(self, program, options):  # noqa: N802
        self.made[program][1] = options
        if any("FAIL" in option for option in options):
            raise NVRTCError("NVRTC_ERROR_COMPILATION (6)")

    def getCUBIN(self, program):  # noqa: N802
        source, options = self.made[program]
        assert any("sm_" in option for option in options)
        return repr((source, options)).encode()

    def getPTX(self, program):  # noqa: N802
        return repr(tuple(self.made[program])) + " "

    def getProgramLog(self, program):  # noqa: N802
        return "line 1: no"

    def destroyProgram(self, program):  # noqa: N802
        self.live.remove(program)


class Module:
    """What was loaded on a device."""

    def load(self, code):
        assert isinstance(code, bytes)
        source, options = ast.literal_eval(code.decode().strip())
        defined = [o[2:].split("=") for o in options if o.startswith("-D")]
        self.of = source, tuple((name, int(value)) for name, value in defined)
        self.device = device_number()

    def get_function(self, kernel):
        return Function(self, kernel)


class Function:
    def __init__(self, module, kernel):
        self.module, self.kernel = module, kernel
        self.most_shared = 48 << 10
        self.ptr = id(self)
        FUNCTIONS[self.ptr] = self

    def __call__(self, grid, block, arguments, shared_mem=0):
        source, defined = self.module.of
        assert self.module.device == device_number(), "code of another device"
        assert shared_mem <= self.most_shared
        assert len(block) == 1
        blocks = grid[0] if len(grid) == 1 else grid
        arrays = [x for x in arguments if isinstance(x, Ndarray)]
        assert all(x.number == device_number() for x in arrays), "of another device"
        given = [x.view(np.ndarray) if isinstance(x, Ndarray) else x for x in arguments]
        device = cuda_host.HostDevice()
        get_current_stream().queue(
            lambda: device.launch(source, defined, self.kernel, blocks, block[0], given, shared_mem)
        )


FUNCTIONS = weakref.WeakValueDictionary()


DECLARED = 5 << 10  # bytes of shared memory


def set_attribute(function, attribute, value):
    assert attribute == 8
    assert value <= (99 << 10) - DECLARED
    FUNCTIONS[function].most_shared = value


def get_attribute(attribute, function):
    assert attribute == 1
    assert function in FUNCTIONS
    return DECLARED


class RawModule:
    """Of the benchmarks, for a device alone."""

    def __init__(self, code, options):
        pass

    def get_function(self, kernel):
        return lambda grid, block, arguments: time.sleep(1e-6)


class RandomState:
    def __init__(self, seed):
        self._rng = np.random.default_rng(seed)

    def standard_normal(self, shape, dtype):
        return self._rng.standard_normal(shape, dtype).view(Ndarray)

    def standard_exponential(self, n, dtype):
        return self._rng.standard_exponential(n, dtype).view(Ndarray)

    def randint(self, low, high, n):
        return self._rng.integers(low, high, n).view(Ndarray)


class CUDARuntimeError(RuntimeError):
    pass


def module(devices=1):
    """Make a module to stand in for cupy, with so many devices; None: there is no driver."""

    def count():
        if devices is None:
            raise CUDARuntimeError("cudaErrorInsufficientDriver: the driver is too old\nmore")
        return devices

    def properties(i):
        return {
            "name": b"Fake 9000", "totalGlobalMem": 80 << 30, "major": 9, "minor": 0,
            "multiProcessorCount": 3,
        }  # fmt: skip

    def pointer_attributes(address):
        return types.SimpleNamespace(device=1 if address in ON_DEVICE_1 else 0)

    runtime = types.SimpleNamespace(
        pointerGetAttributes=pointer_attributes,
        CUDARuntimeError=CUDARuntimeError, getDeviceCount=count, getDeviceProperties=properties,
        driverGetVersion=lambda: 13010, runtimeGetVersion=lambda: 12090,
        memcpyAsync=memcpy_async, memcpyHostToDevice=1, memcpyDeviceToHost=2,
    )  # fmt: skip
    cupy = types.ModuleType("cupy")
    cupy.cuda = types.SimpleNamespace(
        Device=Device, runtime=runtime, Event=Event, Stream=Stream, ExternalStream=ExternalStream,
        nvrtc=Nvrtc(), function=types.SimpleNamespace(Module=Module),
        driver=types.SimpleNamespace(
            funcSetAttribute=set_attribute, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES=8,
            funcGetAttribute=get_attribute, CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES=1,
        ),
        get_current_stream=get_current_stream, alloc_pinned_memory=alloc_pinned_memory,
        get_elapsed_time=lambda start, stop: (stop.at - start.at) * 1e3,
    )  # fmt: skip
    cupy.random = types.SimpleNamespace(RandomState=RandomState)
    cupy.ones = lambda *given: np.ones(*given).view(Ndarray)
    cupy.arange = lambda n: np.arange(n).view(Ndarray)
    for name in ("exp", "log"):
        setattr(cupy, name, getattr(np, name))
    cupy.__version__ = "0.0"
    cupy.__spec__ = types.SimpleNamespace(name="cupy")
    for name, value in {
        "ndarray": Ndarray, "asarray": asarray, "ascontiguousarray": ascontiguousarray,
        "zeros": zeros, "empty": empty, "RawModule": RawModule,
        "from_dlpack": lambda x: x.__dlpack__(),
    }.items():  # fmt: skip
        setattr(cupy, name, value)
    return cupy

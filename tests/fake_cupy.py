"""As much of CuPy as the device uses, over NumPy: kernels run on this host (`cuda_host`).

It tells whether the device asks CuPy for what it means; that CuPy does it, only a GPU can tell.
"""

import time
import types
import typing

import cuda_host
import numpy as np


class Ndarray(np.ndarray):
    """An array "on the device": NumPy refuses to mix it with its own, as CuPy does."""

    def __dlpack_device__(self):
        return 2, 0

    def get(self):
        return self.view(np.ndarray).copy()

    def __array_ufunc__(self, ufunc, method, *inputs, **named):
        given = [*inputs, *named.get("out", ())]
        if not all(isinstance(x, Ndarray | int | float | np.generic) for x in given):
            raise TypeError("an array on the device and one on the host")
        outs = tuple(x.view(np.ndarray) for x in named.pop("out", ()))
        bare = [x.view(np.ndarray) if isinstance(x, Ndarray) else x for x in inputs]
        found = getattr(ufunc, method)(*bare, **named, **({"out": outs} if outs else {}))
        return found.view(Ndarray)


def asarray(x):
    return x if isinstance(x, Ndarray) else np.array(x).view(Ndarray)


def ascontiguousarray(x):
    return np.ascontiguousarray(x.view(np.ndarray)).view(Ndarray) if not x.flags.c_contiguous else x


def zeros(shape, dtype):
    return np.zeros(shape, dtype).view(Ndarray)


def empty(shape, dtype):
    return np.full(shape, 7, dtype).view(Ndarray)


class RawModule:
    made: typing.ClassVar = []  # options

    def __init__(self, code, options):
        RawModule.made.append(options)
        known = [n for n in cuda_host.sources.names() if cuda_host.sources.text(n) == code]
        source = known[0] if known else None
        defined = [o[2:].split("=") for o in options if o.startswith("-D")]
        self._of = source, tuple((name, int(value)) for name, value in defined)

    def get_function(self, kernel):
        source, defined = self._of
        if source is None:  # of the benchmarks, for the device alone
            return lambda grid, block, arguments: time.sleep(1e-6)
        device = cuda_host.HostDevice()

        def run(grid, block, arguments, shared_mem=0):
            assert len(block) == 1
            blocks = grid[0] if len(grid) == 1 else grid
            given = [x.view(np.ndarray) if isinstance(x, Ndarray) else x for x in arguments]
            device.launch(source, defined, kernel, blocks, block[0], given, shared_mem)

        function = types.SimpleNamespace(max_dynamic_shared_size_bytes=48 << 10)
        return _Function(run, function)


class _Function:
    def __init__(self, run, attributes):
        self.__dict__["_run"] = run
        self.__dict__["_attributes"] = attributes

    def __setattr__(self, name, value):
        setattr(self._attributes, name, value)

    def __call__(self, grid, block, arguments, shared_mem=0):
        assert shared_mem <= self._attributes.max_dynamic_shared_size_bytes
        self._run(grid, block, arguments, shared_mem)


class RandomState:
    def __init__(self, seed):
        self._rng = np.random.default_rng(seed)

    def standard_normal(self, shape, dtype):
        return self._rng.standard_normal(shape, dtype).view(Ndarray)

    def standard_exponential(self, n, dtype):
        return self._rng.standard_exponential(n, dtype).view(Ndarray)

    def randint(self, low, high, n):
        return self._rng.integers(low, high, n).view(Ndarray)


class Event:
    def record(self):
        self.at = time.perf_counter()

    def synchronize(self):
        pass


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

    runtime = types.SimpleNamespace(
        CUDARuntimeError=CUDARuntimeError, getDeviceCount=count, getDeviceProperties=properties,
        driverGetVersion=lambda: 13010, runtimeGetVersion=lambda: 12090,
    )  # fmt: skip
    cupy = types.ModuleType("cupy")
    device = types.SimpleNamespace(id=0, attributes={"MultiProcessorCount": 3})
    cupy.cuda = types.SimpleNamespace(
        Device=lambda: device, runtime=runtime, Event=Event,
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
    }.items():  # fmt: skip
        setattr(cupy, name, value)
    return cupy

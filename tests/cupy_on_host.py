"""A plugin for pytest: CuPy as it is, over a runtime of CUDA that is this host (`cuda_runtime.c`).

`pytest -p cupy_on_host` then finds two GPUs, and what CuPy does with streams, devices and its pool
of memory is done as on one; kernels are those of fastdiv, compiled by g++. Kernels of CuPy's own
cannot run. CuPy's modules call each other by capsules, which are exchanged before they are asked
for, where their C types are those that are expected here.
"""

import ctypes
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import cuda_host
import pytest

SOURCE = Path(__file__).parent / "cuda_runtime.c"
SKIP = "int __pyx_skip_dispatch"
NOTHING, HANDLE = "PyObject *", "intptr_t"
# CuPy's module -> name -> result, arguments, the C function if it is called otherwise.
EXCHANGED = {
    "runtime": {
        "getDevice": ("int", ""),
        "setDevice": (NOTHING, "int"),
        "getDeviceCount": ("int", ""),
        "driverGetVersion": ("int", ""),
        "runtimeGetVersion": ("int", ""),
        "deviceGetAttribute": ("int", "int, int"),
        "deviceSynchronize": (NOTHING, ""),
        "streamCreateWithPriority": (HANDLE, "unsigned int, int"),
        "streamCreateWithFlags": (HANDLE, "unsigned int"),
        "streamDestroy": (NOTHING, HANDLE),
        "streamSynchronize": (NOTHING, HANDLE),
        "streamIsCapturing": ("int", HANDLE),
        "eventCreateWithFlags": (HANDLE, "unsigned int"),
        "eventDestroy": (NOTHING, HANDLE),
        "eventRecord": (NOTHING, "intptr_t, intptr_t"),
        "eventSynchronize": (NOTHING, HANDLE),
        "eventQuery": (NOTHING, HANDLE),
        "malloc": (HANDLE, "size_t", "allocate"),
        "free": (NOTHING, HANDLE, "release"),
        "hostAlloc": (HANDLE, "size_t, unsigned int"),
        "freeHost": (NOTHING, HANDLE),
        "memsetAsync": (NOTHING, "intptr_t, int, size_t, intptr_t"),
        "memcpyAsync": (NOTHING, "intptr_t, intptr_t, size_t, int, intptr_t"),
        "memcpy": (NOTHING, "intptr_t, intptr_t, size_t, int", "copy_now"),
        "memcpyPeerAsync": (NOTHING, "intptr_t, int, intptr_t, int, size_t, intptr_t"),
        "pointerGetMemoryType": ("int", HANDLE),
        "_deviceEnsurePeerAccess": (NOTHING, "int", "ensure_peer_access"),
        "deviceCanAccessPeer": ("int", "int, int"),
        "deviceEnablePeerAccess": (NOTHING, "int"),
    },
    "driver": {
        "launchKernel": (
            NOTHING,
            f"intptr_t, {', '.join(['unsigned int'] * 7)}, intptr_t, intptr_t, intptr_t",
        ),
        "moduleGetFunction": (HANDLE, "intptr_t, PyObject *"),
        "funcSetAttribute": (NOTHING, "intptr_t, int, int"),
        "funcGetAttribute": ("int", "int, intptr_t"),
        "moduleLoadData": (HANDLE, NOTHING),
        "moduleUnload": (NOTHING, HANDLE),
        "ctxGetCurrent": (HANDLE, ""),
    },
}
OTHERS = {  # whose arguments are written otherwise
    "_ensure_context": ("PyObject *(void)", "ensure_context"),
    "streamWaitEvent": (
        "PyObject *(intptr_t, intptr_t, int __pyx_skip_dispatch, struct __pyx_opt_args_13cupy_"
        "backends_4cuda_3api_7runtime_streamWaitEvent *__pyx_optional_args)", "streamWaitEvent",
    ),
}  # fmt: skip
C_TYPES = {
    "int": ctypes.c_int, "unsigned int": ctypes.c_uint, "size_t": ctypes.c_size_t,
    HANDLE: ctypes.c_ssize_t, NOTHING: ctypes.py_object,
}  # fmt: skip
FIND = ctypes.PYFUNCTYPE(ctypes.c_ssize_t, ctypes.py_object, ctypes.py_object, ctypes.c_int)
kept = []  # what C knows the address of


def why_not():
    """Return why CuPy cannot run over this host, None where it can."""
    if cuda_host.COMPILER is None or shutil.which("gcc") is None:
        return "there is no compiler"
    try:
        from cupy_backends.cuda.api import driver, runtime
    except ImportError as error:
        return f"CuPy is not installed, or not whole: {str(error).strip().splitlines()[0]}"
    for name, signature, _ in exchanged():
        capsules = {**driver.__pyx_capi__, **runtime.__pyx_capi__}
        if name not in capsules or name_of(capsules[name]) != signature:
            import importlib.metadata

            version = importlib.metadata.version("cupy-cuda13x")
            return f"CuPy {version} has another {name} than this was written for"
    return None


def exchanged():
    """Yield names, what CuPy says of their C types, and the C function that takes their place."""
    for functions in EXCHANGED.values():
        for name, (result, arguments, *other) in functions.items():
            given = ", ".join(filter(None, (arguments, SKIP)))
            space = "" if result.endswith("*") else " "
            yield name, f"{result}{space}({given})", other[0] if other else name
    for name, (signature, other) in OTHERS.items():
        yield name, signature, other


def name_of(capsule):
    """Return the name of a capsule, by which it tells the C types of what it holds."""
    get = ctypes.pythonapi.PyCapsule_GetName
    get.restype, get.argtypes = ctypes.c_char_p, [ctypes.py_object]
    return get(capsule).decode()


def install():
    """Exchange CUDA for this host, in a process that has not imported CuPy yet."""
    assert "cupy" not in sys.modules
    from cupy_backends.cuda.api import driver, runtime

    directory = tempfile.mkdtemp(prefix="fastdiv-cuda-runtime-")
    path = Path(directory) / "runtime.so"
    command = ["gcc", "-O1", "-shared", "-fPIC", str(SOURCE), "-o", str(path)]
    subprocess.run(command, check=True)
    host = ctypes.PyDLL(str(path))
    shutil.rmtree(directory)
    new = ctypes.pythonapi.PyCapsule_New
    new.restype = ctypes.py_object
    new.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
    for name, signature, other in exchanged():
        module = driver if name in driver.__pyx_capi__ else runtime
        text, function = ctypes.create_string_buffer(signature.encode()), getattr(host, other)
        kept.extend((text, function))
        address = ctypes.cast(function, ctypes.c_void_p)
        module.__pyx_capi__[name] = new(address, ctypes.cast(text, ctypes.c_char_p), None)
    for module, functions in ((runtime, EXCHANGED["runtime"]), (driver, EXCHANGED["driver"])):
        for name, (result, arguments, *other) in functions.items():
            if hasattr(module, name):
                types = [C_TYPES[x] for x in arguments.split(", ") if x]
                setattr(module, name, in_python(host, other[0] if other else name, result, types))
    runtime.getDeviceProperties = lambda i: {
        "name": b"This host", "totalGlobalMem": 1 << 33, "major": 9, "minor": 0,
        "multiProcessorCount": 3,
    }  # fmt: skip
    host.device_of_pointer.argtypes = [ctypes.c_ssize_t]
    attributes = runtime.PointerAttributes
    runtime.pointerGetAttributes = lambda at: attributes(host.device_of_pointer(at), at, 0, 2)
    find = FIND(Finder(host))
    kept.append(find)
    host.set_find(find)
    return host


def in_python(host, name, result, types):
    """Return what Python calls instead."""
    of = ctypes.PYFUNCTYPE(C_TYPES[result], *types, ctypes.c_int)((name, host))
    return lambda *given: of(*given[: len(types)], 0)


class Finder:
    """Finds the kernels of a module: those that g++ makes of the same source."""

    def __init__(self, host):
        from fastdiv_kernels.cuda import compiled, cupy_device

        self.host = host
        self.known = {}  # code -> source, definitions
        self.modules = []
        made = compiled.code_of

        def code_of(nvrtc, source, definitions, capability):
            code = made(nvrtc, source, definitions, capability)
            self.known[code] = source, definitions
            return code

        cupy_device.code_of = code_of

    def __call__(self, code, name, module):
        """Return the number of a module, or of a function of one."""
        try:
            if name is None:
                assert code in self.known, "a kernel of CuPy's own"
                self.modules.append(cuda_host.library(*self.known[code]))
                return len(self.modules) - 1
            library = self.modules[module]
            kernel = ctypes.cast(getattr(library, f"launch_{name}"), ctypes.c_void_p)
            return self.host.make_function(kernel, getattr(library, f"parameters_{name}")())
        except Exception as error:  # C cannot pass it on
            print(f"cupy_on_host: {error!r}", file=sys.stderr, flush=True)
            os._exit(3)


WHY_NOT = why_not()
runtime_of_host = None if WHY_NOT else install()  # before any test imports CuPy


def pytest_configure(config):
    """End where CuPy cannot run so."""
    if WHY_NOT is not None:
        pytest.exit(WHY_NOT, returncode=77)

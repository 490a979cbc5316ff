"""A device for tests: kernels compiled by g++ for the CPU (`cuda_host.h`), arrays of NumPy."""

import ctypes
import functools
import hashlib
import os
import shutil
import subprocess
import tempfile
import threading
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from fastdiv_kernels.cuda import sources


def has_fused():
    """Say whether this processor has an instruction for both (of x86)."""
    try:
        return " fma " in Path("/proc/cpuinfo").read_text()
    except OSError:
        return False


HEADER = Path(__file__).parent / "cuda_host.h"
COMPILER = shutil.which("g++")
# The GPU's compiler makes one instruction of a product and a sum, where it is not told otherwise.
FUSED = ("-ffp-contract=fast", "-mfma") if has_fused() else ("-ffp-contract=off",)
# `.ci/sanitize` has what is read or written beside an array found, and what is not aligned.
SANITIZERS = {
    "address": ("-O1", "-g", "-fsanitize=address", "-fno-omit-frame-pointer"),
    "undefined": ("-O1", "-g", "-fsanitize=undefined", "-fno-sanitize=shift-base",
                  "-fno-sanitize-recover=all"),
}  # fmt: skip
SANITIZED = SANITIZERS.get(os.environ.get("CUDA_HOST_SANITIZER", ""), ("-O2", "-Werror"))
FLAGS = ("-std=c++17", *SANITIZED, "-fPIC", "-shared", *FUSED, "-fno-strict-aliasing",
         "-U_FORTIFY_SOURCE", "-Wall", "-Wextra", "-Wno-unknown-pragmas",
         "-Wno-unused-function", "-Wno-unused-variable", "-Wno-clobbered")  # fmt: skip
one_at_a_time = threading.Lock()  # a library has one set of fibers
built = Path(tempfile.gettempdir()) / f"fastdiv-cuda-on-host-{os.getuid()}"


@functools.cache
def library(source, definitions):
    """Compile a source; return the library, in which `launch_NAME` runs the kernel of a name."""
    text = sources.text(source)
    launchers = "\n".join(
        f'extern "C" const char* launch_{name}(unsigned x, unsigned y, unsigned threads, '
        f"size_t shared, void** given) {{\n"
        f"    return host::launch({name}, x, y, threads, shared, given);\n}}\n"
        f'extern "C" int parameters_{name}() {{ return host::parameters({name}); }}'
        for name in sources.kernels(source)
    )
    order = 'extern "C" void set_order(unsigned which) { host::order = which; }'
    count = 'extern "C" unsigned long long wide_atomics() { return host::wide_atomics; }'
    whole = f'{HEADER.read_text()}\n#line 1 "{source}.cu"\n{text}\n{launchers}\n{order}\n{count}\n'
    defined = [f"-D{name}={value}" for name, value in definitions]
    key = hashlib.sha256(repr((whole, defined, FLAGS)).encode()).hexdigest()[:24]
    built.mkdir(mode=0o700, exist_ok=True)
    assert built.stat().st_uid == os.getuid(), f"{built} is somebody else's"
    path = built / f"{source}-{key}.so"
    if not path.exists():
        with tempfile.TemporaryDirectory(dir=built) as directory:
            code, made = Path(directory) / "a.cpp", Path(directory) / "a.so"
            code.write_text(whole)
            done = subprocess.run(
                [COMPILER, *FLAGS, *defined, str(code), "-o", str(made)],
                capture_output=True, text=True, check=False,
            )  # fmt: skip
            assert done.returncode == 0, done.stderr[:6000]
            made.replace(path)
    return ctypes.CDLL(str(path))


class HostLane:
    """Copies what was made when it is waited for, not before."""

    def __init__(self):
        self.downloads = []

    def upload(self, room, places):
        to = room.__array_interface__["data"][0]
        for address, size in places:
            ctypes.memmove(to, address, size)
            to += size

    def download(self, room, array):
        assert array.flags.c_contiguous
        assert (array.shape, array.dtype) == (room.shape, room.dtype)
        self.downloads.append((room, array))

    def wait(self):
        for room, array in self.downloads:
            array[...] = room
        self.downloads = []


class HostDevice:
    """Runs kernels one thread after another; `order` is one of three in which threads go on."""

    multiprocessors = 2  # so that blocks take more than one part of the work
    shared = 227 << 10

    def __init__(self, order=0):
        self.order = order
        self.launched = []  # (source, definitions, kernel, blocks, threads, shared)
        self.wide_atomics = 0  # additions to 64 bits

    def describe(self):
        return "g++"

    def holds(self, array):
        return False  # a test's arrays are the host's

    @contextmanager
    def beside(self, array):
        yield self

    def leave(self, *arrays):
        pass

    @contextmanager
    def lane(self):
        yield HostLane()

    def empty_on_host(self, shape, dtype):
        return self.empty(shape, dtype)

    def put(self, array):
        return array

    def get(self, array):
        return array.copy()

    def predictions(self, array):
        return self.put(array)

    def zeros(self, shape, dtype):
        return np.zeros(shape, dtype)

    def empty(self, shape, dtype):
        room = np.empty(shape, dtype)
        room.view(np.uint8).fill(0xA5)  # what is not written is seen
        return room

    def launch(self, source, definitions, kernel, blocks, threads, arguments, shared=0):
        self.launched.append((source, definitions, kernel, blocks, threads, shared))
        code = library(source, tuple(definitions))
        x, y = (blocks, 1) if isinstance(blocks, int) else blocks
        kept = []
        for value in arguments:
            if isinstance(value, np.ndarray):
                assert value.flags.c_contiguous
                value = np.uint64(value.__array_interface__["data"][0])
            assert isinstance(value, np.generic), f"{value!r} is no number of NumPy's"
            kept.append(np.array([value]))
        given = (ctypes.c_void_p * len(kept))(*(x.__array_interface__["data"][0] for x in kept))
        function = getattr(code, f"launch_{kernel}")
        function.restype = ctypes.c_char_p
        code.wide_atomics.restype = ctypes.c_ulonglong
        with one_at_a_time:
            code.set_order(self.order)
            before = code.wide_atomics()
            why = function(x, y, threads, ctypes.c_size_t(shared), given)
            self.wide_atomics += code.wide_atomics() - before
        assert why is None, f"{source}.{kernel}: {why.decode()}"

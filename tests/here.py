"""Backends that run here: those of the package, and the GPU's kernels run by this host."""

import sys

import cuda_host
import pytest

from fastdiv.backends import BACKENDS, resolve, why_not
from fastdiv_kernels.cuda import CudaBackend

WHY_NO_GPU = why_not("cuda")
EVERY = [*(name for name in sorted(BACKENDS) if why_not(name) is None), "cuda-host"]
# CuPy may be there over a runtime that is this host: then what takes a GPU a moment takes long.
ONLY_THE_HOST = WHY_NO_GPU is not None or "cupy_on_host" in sys.modules


def backend_of(name):
    """Return the backend of a name."""
    if name != "cuda-host":
        return resolve(name)
    if cuda_host.COMPILER is None:
        pytest.skip("there is no g++ to compile the GPU's kernels for this host")
    return CudaBackend(cuda_host.HostDevice())

"""Fixtures: a dump, the command line as a function, a temporary directory that can be watched."""

import os
import sys
import tempfile
from dataclasses import dataclass

import cuda_host
import pytest
from dumps import make

from fastdiv.backends import BACKENDS, resolve
from fastdiv.cli import main
from fastdiv.errors import UsageError
from fastdiv_kernels.cuda import CudaBackend

# What kernels say of being compiled would stand in what commands print, where none are kept yet.
os.environ.setdefault("FASTDIV_QUIET", "1")


@dataclass
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str


@pytest.fixture(scope="module", params=[*sorted(set(BACKENDS) - {"reference"}), "cuda-host"])
def backend(request):
    """Return each backend that is compared with the reference, one after the other.

    Kernels of "cuda-host" are those of the GPU, run by the CPU.
    """
    if request.param == "cuda-host":
        if cuda_host.COMPILER is None:
            pytest.skip("there is no g++ to compile kernels for this host")
        return CudaBackend(cuda_host.HostDevice())
    try:
        return resolve(request.param)
    except (ImportError, UsageError) as error:
        if request.param == "cpu":
            raise
        pytest.skip(f"backend {request.param} does not run here: {error}")


@pytest.fixture
def dump():
    """Three epochs of 40 samples in 3 classes, as logits; 2 < 7 < 10 whatever sorts them."""
    return make(epochs=(2, 7, 10))


@pytest.fixture
def cli(monkeypatch, capsys):
    """Run a command as the console script does; return its exit code and what it printed."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["fastdiv", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        return Ended(ended.value.code, *capsys.readouterr())

    return run


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    """Return the directory, empty as yet, that temporary files go to."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder

"""Fixtures: a dump, the command line as a function, a temporary directory that can be watched."""

import os
import sys
import tempfile
from dataclasses import dataclass

import pytest
from dumps import make
from here import EVERY, backend_of

from fastdiv.cli import main

# What kernels say of being compiled would stand in what commands print, where none are kept yet.
os.environ.setdefault("FASTDIV_QUIET", "1")


@dataclass
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str


@pytest.fixture(scope="module", params=[name for name in EVERY if name != "reference"])
def backend(request):
    """Return each backend that is compared with the reference, one after the other."""
    return backend_of(request.param)


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

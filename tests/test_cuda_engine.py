"""The whole way with the GPU's kernels, which run on this host: the same tables as by the CPU."""

import sys
import types

import cuda_host
import numpy as np
import pytest
from dumps import make, write_files

import fastdiv
from fastdiv import backends, scoring
from fastdiv_kernels.cuda import CudaBackend

pytestmark = pytest.mark.skipif(cuda_host.COMPILER is None, reason="there is no g++")


@pytest.fixture
def device(monkeypatch):
    """Let the backend of a name be that of a device that is this host."""
    device = cuda_host.HostDevice()
    module = types.SimpleNamespace(load=lambda: CudaBackend(device), why_not=lambda: None)
    monkeypatch.setitem(sys.modules, "cuda_on_this_host", module)
    monkeypatch.setitem(backends.BACKENDS, "cuda", "cuda_on_this_host")
    return device


def check_same(got, wanted):
    """Whole numbers and names are the same, all else to 1e-6, and differences of such."""
    for name in ("epochs", "transitions", "samples", "classes"):
        one, other = getattr(got, name), getattr(wanted, name)
        assert one.column_names == other.column_names
        assert one.num_rows == other.num_rows > 0
        for column in one.column_names:
            a, b = one.column(column), other.column(column)
            if str(a.type) not in ("double", "float"):
                assert a.equals(b), (name, column)
                continue
            a, b = a.to_numpy(), b.to_numpy()
            rtol = 1e-5 if column == "temperature" else 1e-6  # where slopes of sums cross 0
            np.testing.assert_allclose(a, b, rtol, 1e-6, err_msg=f"{name} {column}")


@pytest.mark.parametrize("tiled", [False, True])
@pytest.mark.parametrize("c", [2, 10, 20, 40])
def test_tables_are_those_of_the_cpu_cuda(device, tmp_path, monkeypatch, c, tiled):
    monkeypatch.setattr(scoring, "TILE_BYTES", 1 << 10 if tiled else 1 << 30)
    monkeypatch.setattr(scoring, "TILE_ROWS", 7 if tiled else 1 << 20)
    write_files(tmp_path, make(range(3), n=150, c=c))
    wanted = fastdiv.analyze(tmp_path, backend="cpu")
    device.launched.clear()
    got = fastdiv.analyze(tmp_path, backend="cuda", threads=2)
    assert got.summary["backend"] == {"name": "cuda", "on": "g++"}
    check_same(got, wanted)
    launched = {source for source, *_ in device.launched}
    assert {"tally", "classes", "temperatures", "transitions", "dynamics"} <= launched
    assert any(source.startswith("score_") for source in launched)
    assert ("profile" in launched) == (c > 2)


@pytest.mark.parametrize("options", [{"clip": 1e-3}, {"scores": "rolling"}, {"scores": "slim"}])
def test_every_way_of_keeping_scores_cuda(device, tmp_path, options):
    write_files(tmp_path, make(range(3), n=60, c=5))
    wanted = fastdiv.analyze(tmp_path, backend="cpu", **options)
    check_same(fastdiv.analyze(tmp_path, backend="cuda", **options), wanted)


def test_what_explains_a_change_uses_the_same_backend_cuda(device, tmp_path):
    write_files(tmp_path, make(range(2), n=200, c=10))
    runs = [fastdiv.analyze(tmp_path, backend=name) for name in ("cpu", "cuda")]
    texts = [str(run.explain(0, 1)) for run in runs]
    assert texts[0].splitlines()[0] == texts[1].splitlines()[0]

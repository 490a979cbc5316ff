"""The device that CuPy is, with as much of CuPy as it uses; what is said where there is none."""

import json
import sys

import cuda_host
import fake_cupy
import numpy as np
import pytest
from here import EVERY, WHY_NO_GPU
from test_stored_kernels import RUNS, assert_as_reference, scores

import fastdiv
from fastdiv.backends import resolve, why_not
from fastdiv_kernels import exact, reference
from fastdiv_kernels.contract import DYNAMICS

needs_compiler = pytest.mark.skipif(cuda_host.COMPILER is None, reason="there is no g++")


@pytest.fixture
def cupy(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def install(**options):
        monkeypatch.setitem(sys.modules, "cupy", fake_cupy.module(**options))

    return install


def totals(how=np.asarray):
    return how(np.zeros(10, np.int64)), how(exact.zeros(5, np.dtype("f4")))


def columns(n=500):
    sides = (scores(n, 5, np.dtype("f4"), "usual", seed) for seed in (1, 2))
    return [x[name] for x in sides for name in ("loss", "predicted", "labels", "flags")]


@needs_compiler
@pytest.mark.parametrize("given", ["host", "device"])
@pytest.mark.parametrize("made", ["host", "device"])
def test_arrays_may_be_of_the_host_or_of_the_device_cuda(cupy, given, made):
    cupy()
    backend = resolve("cuda")
    put = {"host": np.asarray, "device": fake_cupy.asarray}
    found, wanted = totals(put[made]), totals()
    backend.transitions(*map(put[given], columns()), *found)
    backend.transitions(*map(put[given], columns()), *found)  # added to, not written over
    for _ in range(2):
        reference.transitions(*columns(), *wanted)
    assert isinstance(found[0], fake_cupy.Ndarray) == (made == "device")
    assert np.asarray(found[0]).tolist() == wanted[0].tolist()
    assert (exact.carry(np.array(found[1])) == exact.carry(wanted[1])).all()


class There:
    """A backend whose arrays are all put on the device, and totals fetched."""

    def __init__(self, backend):
        self._backend = backend

    def __getattr__(self, name):
        def call(*given):
            there = [fake_cupy.asarray(x) for x in given]
            getattr(self._backend, name)(*there)
            for here, x in zip(given, there, strict=True):
                if here.dtype == np.int64:
                    here[...] = x.get()

        return call


@needs_compiler
@pytest.mark.parametrize("run", RUNS.values(), ids=RUNS)
def test_all_totals_may_be_of_the_device_cuda(cupy, run):
    cupy()
    for backend in (resolve("cuda"), There(resolve("cuda"))):
        assert_as_reference(backend, run, scores(3000, 7, np.dtype("f4"), "usual", 0), 7)


@needs_compiler
def test_histories_may_be_words_of_the_device_cuda(cupy):
    cupy()
    s = scores(300, 2, np.dtype("f4"), "usual", 0)
    given = [s[name] for name in ("loss", "margin", "predicted", "labels", "flags")]
    here, there = np.zeros(300, DYNAMICS), fake_cupy.asarray(np.zeros(300 * 8, np.int64))
    for epoch in range(2):
        resolve("cuda").dynamics(epoch, *given, here)
        resolve("cuda").dynamics(epoch, *map(fake_cupy.asarray, given), there)
    assert here["n_epochs"].max() == 2
    assert here.tobytes() == there.get().tobytes()


@needs_compiler
@pytest.mark.parametrize("dtype", ["i4", "i8", "u8", "i1"])
def test_predictions_of_a_device_are_scored_there_cuda(cupy, dtype):
    cupy()
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(200, 7)).astype("f4"), rng.integers(0, 7, 200).astype(dtype)
    if dtype in ("i8", "u8"):
        y[3] = 2**40 + 1  # of no class
    for labels in (fake_cupy.asarray(y), fake_cupy.asarray(y[:, None]), y):
        found = fastdiv.score(fake_cupy.asarray(x), labels, kind="logits")
        assert all(isinstance(array, fake_cupy.Ndarray) for array in found.arrays())
        wanted, host = fastdiv.score(x, y, kind="logits"), found.on_host()
        assert type(host.loss) is np.ndarray
        assert host.on_host() is host
        for name in ("correct", "predicted", "rank", "status"):
            np.testing.assert_array_equal(getattr(host, name), getattr(wanted, name), name)
        np.testing.assert_allclose(host.loss, wanted.loss, rtol=1e-5)
    again = fastdiv.score(fake_cupy.asarray(-x), labels, kind="logits", out=found)
    assert again is found
    assert not np.array_equal(again.on_host().loss, host.loss)


@needs_compiler
def test_arrays_of_a_device_that_do_not_fit_are_refused_cuda(cupy):
    cupy()
    x, y = (fake_cupy.asarray(a) for a in (np.zeros((5, 3), "f4"), np.zeros(5, "i4")))
    for bad, labels, said in (
        (x[:, :1], y, "at least 2 classes"), (x[0], y, "of shape"), (x, y[:4], "of shape"),
        (x, x[:, 0], "must be integers"),
    ):  # fmt: skip
        with pytest.raises(fastdiv.UsageError, match=said):
            fastdiv.score(bad, labels, kind="logits")


@needs_compiler
def test_each_build_of_a_source_is_compiled_once_cuda(cupy):
    cupy()
    backend = resolve("cuda")
    for _ in range(3):
        backend.transitions(*columns(), *totals())
    wanted = ("--std=c++17", "-default-device", "--gpu-architecture=sm_90", "-DLOSS_BYTES=4")
    assert sys.modules["cupy"].cuda.nvrtc.made == [["transitions", wanted]]


@pytest.mark.skipif(WHY_NO_GPU is not None, reason=f"no test runs on a GPU: {WHY_NO_GPU}")
def test_tests_of_kernels_run_on_a_gpu_cuda():
    assert "cuda" in EVERY


def test_a_backend_that_is_not_there_says_what_to_do_cuda(cupy, monkeypatch, cli, tmp_path):
    monkeypatch.setitem(sys.modules, "cupy", None)
    for said in (why_not("cuda"), cli("analyze", tmp_path, "--backend", "cuda").err):
        assert "CuPy is not installed: pip install 'fastdiv[cuda13]'" in said
    cupy()
    broken = sys.modules["cupy"].cuda.nvrtc

    def missing():
        raise RuntimeError("CuPy failed to load libnvrtc.so.13: no such file")

    monkeypatch.setattr(broken, "getVersion", missing, raising=False)
    assert "NVRTC, cannot be used (CuPy failed to load libnvrtc.so.13: no such file)" in (
        why_not("cuda")
    )
    cupy(devices=None)
    assert why_not("cuda") == (
        "there is no GPU that CUDA can use (cudaErrorInsufficientDriver: the driver is too old): "
        "see nvidia-smi"
    )
    cupy(devices=0)
    assert why_not("cuda") == "there is no GPU that CUDA can use: see nvidia-smi"
    with pytest.raises(fastdiv.UsageError, match="backend 'cuda' cannot run here: there is no GPU"):
        fastdiv.score(np.zeros((3, 2)), [0, 0, 0], kind="logits", backend="cuda")


def test_the_doctor_tells_of_this_machine_and_of_gpus_cuda(cupy, cli, monkeypatch):
    cupy(devices=2)
    ended = cli("doctor")
    assert ended.code == 0
    lines = ended.out.splitlines()
    assert lines[0].startswith(f"fastdiv     {fastdiv.__version__}, CPython 3.")
    assert any(line.startswith("packages    numpy ") for line in lines)
    assert "cuda        CuPy 0.0, Fake 9000" in lines
    assert "            CUDA 12.9, of the driver 13.1" in lines
    of_device = next(line for line in lines if "device 1" in line)
    assert "Fake 9000" in of_device
    assert of_device.endswith("compute capability 9.0, 3 multiprocessors")
    assert lines[-1].startswith("auto        cpu: ")
    told = json.loads(cli("doctor", "--json").out)
    assert told["backends"]["cuda"]["devices"][1]["compute_capability"] == "9.0"
    assert told["backends"]["cpu"]["runs"] is True
    assert told["backends"]["cpu"]["cache"]["directory"]
    monkeypatch.setitem(sys.modules, "cupy", None)
    assert "cuda        does not run here: CuPy is not installed" in cli("doctor").out


def test_the_doctor_says_where_code_is_kept_and_that_it_cannot_be(cli, monkeypatch, tmp_path):
    from fastdiv_kernels.cpu import cache, jit

    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    jit.the_cache.cache_clear()
    place = {"directory": str(tmp_path / "fastdiv"), "writable": True, "kernels": 0, "bytes": 0}
    assert json.loads(cli("doctor", "--json").out)["backends"]["cpu"]["cache"] == place
    code = tmp_path / "fastdiv" / cache.stamp() / "score_few-abc"
    code.parent.mkdir(parents=True)
    code.write_bytes(b"12345")
    assert f"machine code in {tmp_path / 'fastdiv'}: 1 kernels, 5 B" in cli("doctor").out
    monkeypatch.setattr(cache.os, "access", lambda path, mode: False)
    assert "5 B; it cannot be written to (see NUMBA_CACHE_DIR)" in cli("doctor").out
    jit.the_cache.cache_clear()


def test_what_cupy_says_when_it_cannot_be_imported_is_told_cuda(monkeypatch, tmp_path):
    package = tmp_path / "cupy" / "__init__.py"
    package.parent.mkdir()
    rule = "=" * 64
    package.write_text(
        f"raise ImportError('''\n{rule}\nFailed to import CuPy.\n\nOriginal error:\n"
        f"  ImportError: libcublas.so.13: cannot open\n{rule}\n''')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "cupy", raising=False)
    assert "CuPy cannot be imported (ImportError: libcublas.so.13: cannot open)" in why_not("cuda")


@needs_compiler
def test_arrays_that_begin_where_no_number_can_be_read_are_copied_cuda(cupy):
    cupy()
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(50, 7)).astype("f4"), np.zeros(50, "i4")

    def apart(array):
        held = fake_cupy.asarray(np.frombuffer(b"." + array.tobytes(), np.uint8))
        return held[1:].view(array.dtype).reshape(array.shape)

    wanted = fastdiv.score(x, y, kind="logits")
    device = resolve("cuda").device
    assert apart(x).data.ptr % 4
    assert device.put(apart(x)).data.ptr % 4 == 0
    assert device.put(fake_cupy.asarray(x)) is not None
    made = [apart(np.empty_like(array)) for array in wanted.arrays()]
    resolve("cuda").score(apart(x), apart(y), 0, *made)
    np.testing.assert_allclose(made[0].get(), wanted.loss, 1e-5)
    np.testing.assert_array_equal(made[2].get(), wanted.predicted)


def test_no_more_blocks_are_launched_than_a_device_has_at_a_time():
    from fastdiv_kernels.cuda.device import resident

    device = cuda_host.HostDevice()  # 227 KB of shared memory each
    assert [resident(device, 4, kb << 10) for kb in (10, 53, 96, 300)] == [8, 8, 4, 2]

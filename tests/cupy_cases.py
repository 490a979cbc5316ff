"""What CuPy does for fastdiv, over a runtime that is this host; run by `test_cuda_cupy.py`."""

import sys
import types
from concurrent.futures import ThreadPoolExecutor

import cupy
import cupy_on_host
import numpy as np
import pytest
from dumps import make, write_files
from test_cuda_engine import check_same
from test_tracker import hard, tracked

import fastdiv
from fastdiv import scoring
from fastdiv.backends import resolve
from fastdiv_kernels.contract import Kind
from fastdiv_kernels.cuda import cupy_device

host = cupy_on_host.runtime_of_host
pool = cupy.get_default_memory_pool()


@pytest.fixture(autouse=True)
def as_before():
    """See that each test leaves device and stream as they were."""
    before = cupy.cuda.get_current_stream().ptr, cupy.cuda.Device().id
    yield
    assert (cupy.cuda.get_current_stream().ptr, cupy.cuda.Device().id) == before


def rows(n=300, c=5, dtype="f4", seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, c)).astype(dtype), rng.integers(0, c, n).astype(np.int32)


def check_scores(found, x, y, rtol=1e-5):
    wanted = fastdiv.score(x, y, kind="logits")
    for name in ("correct", "predicted", "rank", "status"):
        np.testing.assert_array_equal(getattr(found, name), getattr(wanted, name), name)
    np.testing.assert_allclose(found.loss, wanted.loss, rtol)


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
@pytest.mark.parametrize("c", [2, 10, 40, 5000])
def test_arrays_of_cupy_are_scored_where_they_lie(c, dtype):
    x, y = rows(40, c, dtype)
    there = cupy.asarray(x), cupy.asarray(y)
    for stream in (cupy.cuda.Stream.null, cupy.cuda.Stream(non_blocking=True)):
        cupy.cuda.get_current_stream().synchronize()
        with stream:
            waits = host.get_waits()
            found = fastdiv.score(*there, kind="logits")
            found = fastdiv.score(*there, kind="logits", out=found)
            assert host.get_waits() == waits
            assert all(isinstance(array, cupy.ndarray) for array in found.arrays())
            check_scores(found.on_host(), x, y)


@pytest.mark.parametrize("dtype", ["i1", "u1", "i2", "u2", "u4", "i8", "u8", "?"])
def test_labels_of_any_integers(dtype):
    y = np.array([0, 1, 4, 5, 127], np.int64).astype(dtype)
    if dtype[-1] in "48":
        y[3] = np.iinfo(dtype).max
    if dtype[0] == "i":
        y[4] = np.iinfo(dtype).min
    x, _ = rows(5)
    for labels in (y, y[:, None]):
        found = fastdiv.score(cupy.asarray(x), cupy.asarray(labels), kind="logits").on_host()
        check_scores(found, x, y)


def test_bfloat16_as_words():
    x, y = rows()
    words = (x.view(np.uint32) >> 16).astype(np.uint16)
    found = fastdiv.score(cupy.asarray(words), cupy.asarray(y), kind="logits").on_host()
    check_scores(found, (words.astype(np.uint32) << 16).view(np.float32), y)


def test_arrays_of_another_device_than_the_current():
    x, y = rows()
    with cupy.cuda.Device(1):
        there = cupy.asarray(x)
        labels = cupy.asarray(y)
    found = fastdiv.score(there, labels, kind="logits")
    assert {array.device.id for array in found.arrays()} == {1}
    check_scores(found.on_host(), x, y)
    made = [np.empty_like(array) for array in fastdiv.score(x, y, kind="logits").arrays()]
    resolve("cuda").score(there, y, Kind.LOGITS, *made)
    np.testing.assert_allclose(made[0], found.on_host().loss)
    with cupy.cuda.Device(1):
        check_scores(fastdiv.score(x, y, kind="logits", backend="cuda"), x, y)


def test_a_lane_follows_what_its_caller_queued():
    x, y = rows()
    given = cupy.cuda.alloc_pinned_memory(x.nbytes)
    np.frombuffer(given, np.float32, x.size)[:] = x.ravel()
    mine = cupy.cuda.Stream(non_blocking=True)
    with mine:
        there = cupy.empty(x.shape, np.float32)
        there.data.copy_from_host_async(given.ptr, x.nbytes, mine)
        made = [np.empty_like(array) for array in fastdiv.score(x, y, kind="logits").arrays()]
        resolve("cuda").score(there, y, Kind.LOGITS, *made)
    np.testing.assert_allclose(made[0], fastdiv.score(x, y, kind="logits").loss, 1e-5)


def test_streams_that_are_set_stay_set():
    x, y = rows()
    mine = cupy.cuda.Stream(non_blocking=True)
    before = cupy.cuda.get_current_stream()
    mine.use()
    check_scores(fastdiv.score(x, y, kind="logits", backend="cuda"), x, y)
    found = fastdiv.score(cupy.asarray(x), cupy.asarray(y), kind="logits")
    assert cupy.cuda.get_current_stream().ptr == mine.ptr
    check_scores(found.on_host(), x, y)
    before.use()


class Tensor:
    """A tensor of torch."""

    def __init__(self, x):
        self.x, self.dtype, self.device = x, f"torch.{x.dtype}", x.device

    def detach(self):
        return self

    def __dlpack_device__(self):
        return self.x.__dlpack_device__()

    def __dlpack__(self, *, stream=None, **more):
        return self.x.__dlpack__(stream=stream)


@pytest.mark.parametrize("number", [0, 1])
def test_tensors_are_scored_on_the_stream_of_torch(monkeypatch, number):
    x, y = rows()
    with cupy.cuda.Device(number):
        stream = cupy.cuda.Stream(non_blocking=True)
        with stream:
            there = cupy.asarray(x)
    torch = types.ModuleType("torch")
    torch.Tensor = Tensor
    current = types.SimpleNamespace(cuda_stream=stream.ptr)
    torch.cuda = types.SimpleNamespace(current_stream=lambda device: current)
    monkeypatch.setitem(sys.modules, "torch", torch)
    seen = []
    launch = cupy_device.CupyDevice.launch

    def watched(self, *given, **more):
        seen.append((cupy.cuda.get_current_stream().ptr, cupy.cuda.Device().id))
        launch(self, *given, **more)

    monkeypatch.setattr(cupy_device.CupyDevice, "launch", watched)
    found = fastdiv.score(Tensor(there), y, kind="logits")
    assert seen == [(stream.ptr, number)]
    check_scores(found.on_host(), x, y)


@pytest.mark.parametrize("c", [2, 10, 40])
def test_a_dump_on_several_threads(tmp_path, monkeypatch, c):
    monkeypatch.setattr(cupy_device, "PART_BYTES", 1 << 12)
    monkeypatch.setattr(scoring, "TILE_BYTES", 1 << 12)
    write_files(tmp_path, make(range(4), n=2000, c=c))
    wanted = fastdiv.analyze(tmp_path, backend="cpu")
    for _ in range(2):
        got = fastdiv.analyze(tmp_path, backend="cuda", threads=4)
        check_same(got, wanted)
        assert got.summary["backend"]["on"].endswith("This host")
        assert pool.used_bytes() == 0


def test_what_was_taken_is_used_again():
    x, y = rows(5000, 10)
    fastdiv.score(x, y, kind="logits", backend="cuda", threads=1)
    total, modules = pool.total_bytes(), host.get_live_modules()
    for _ in range(5):
        fastdiv.score(x, y, kind="logits", backend="cuda", threads=1)
    assert (pool.total_bytes(), host.get_live_modules()) == (total, modules)


@pytest.mark.parametrize("options", [{}, {"clip": 1e-3}, {"scores": "rolling"}])
def test_a_tracker_brings_scores_alone(options):
    dump = hard()
    tracker = fastdiv.Tracker(kind="logits", **options)
    for epoch, one in dump.items():
        before = host.get_downloaded()
        tracker.update(cupy.asarray(one.x), cupy.asarray(one.y.astype(np.int32)), one.ids)
        assert host.get_downloaded() - before == len(one) * (26 + 2 * 7 + 4)  # and the labels
        tracker.end_epoch(epoch)
    check_same(tracker.run(), tracked(dump, **options).run())


def test_threads_that_begin_at_once_have_the_shared_memory_they_ask_for():
    x, y = rows(4000, 16)
    with ThreadPoolExecutor(8) as threads:
        sizes = [40, 4000] * 20
        found = list(
            threads.map(lambda n: fastdiv.score(x[:n], y[:n], kind="logits", backend="cuda"), sizes)
        )
    for n, one in zip(sizes, found, strict=True):
        check_scores(one, x[:n], y[:n])


def test_the_doctor_tells_of_the_devices(cli):
    out = cli("doctor").out
    assert f"cuda        CuPy {cupy.__version__}, This host" in out
    assert "device 1: This host, 8.6 GB, compute capability 9.0, 3 multiprocessors" in out

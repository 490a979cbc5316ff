"""What goes to a device and back: pinned parts, streams, devices; by as much of CuPy as is used."""

import sys
import threading
import types
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cuda_host
import fake_cupy
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from dumps import as_list, make, write_files
from test_cuda_engine import check_same

import fastdiv
from fastdiv import backends, scoring
from fastdiv.backends import resolve
from fastdiv_kernels.contract import Kind
from fastdiv_kernels.cuda import CudaBackend, cupy_device

pytestmark = pytest.mark.skipif(cuda_host.COMPILER is None, reason="there is no g++")


@pytest.fixture(autouse=True)
def cupy(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    module = fake_cupy.module(devices=2)
    monkeypatch.setitem(sys.modules, "cupy", module)
    return module


@pytest.fixture
def device(monkeypatch, cupy):
    """Let all that asks for the backend have the same device, which it returns."""
    device = cupy_device.device_of_number(cupy, 0)
    module = types.SimpleNamespace(load=lambda: CudaBackend(device), why_not=lambda: None)
    monkeypatch.setitem(sys.modules, "cuda_of_this_test", module)
    monkeypatch.setitem(backends.BACKENDS, "cuda", "cuda_of_this_test")
    return device


@pytest.mark.parametrize("sizes", [[1], [100], [101], [99, 2], [0, 350, 0, 7], [100, 100, 1], []])
def test_uploads_go_by_parts_in_order(cupy, monkeypatch, sizes):
    monkeypatch.setattr(cupy_device, "PART_BYTES", 100)
    lane = cupy_device.CupyLane(cupy)
    rng = np.random.default_rng(0)
    given = [rng.integers(0, 256, size, np.uint8) for size in sizes]
    places = [(x.__array_interface__["data"][0], x.nbytes) for x in given]
    wanted = np.concatenate([*given, np.empty(0, np.uint8)])
    room, here = cupy.zeros(len(wanted), np.uint8), np.zeros(len(wanted), np.uint8)
    with lane.stream:
        lane.upload(room, places)
        for x in given:
            x[:] = 0  # it has been copied
        lane.download(room, here)
        assert not here.any(), "the fake is too quick: nothing would be noticed"
        lane.wait()
    np.testing.assert_array_equal(here, wanted)


def test_a_part_is_not_written_again_before_it_was_sent(cupy, monkeypatch):
    monkeypatch.setattr(cupy_device, "PART_BYTES", 8)
    monkeypatch.setattr(fake_cupy.Event, "synchronize", lambda event: None)
    lane = cupy_device.CupyLane(cupy)
    x, room = np.arange(40, dtype=np.uint8), cupy.zeros(40, np.uint8)
    with lane.stream:
        lane.upload(room, [(x.__array_interface__["data"][0], 40)])
        lane.wait()
    assert (room.get() != x).any(), "the test before this one would not notice"


def test_results_are_copied_to_pinned_memory(device, cupy):
    backend, pinned = resolve("cuda"), []
    cupy.cuda.alloc_pinned_memory = lambda n: pinned.append(fake_cupy.Pinned(n, "u1")) or pinned[-1]
    for dtype, shape in (("f4", 7), ("u1", (3, 0)), ("f2", (5, 22)), (np.bool_, 1)):
        made = backend.empty(shape, dtype)
        assert made.dtype == np.dtype(dtype)
        assert made.shape == (shape if isinstance(shape, tuple) else (shape,))
        assert made.flags.writeable
        assert made.size == 0 or made.__array_interface__["data"][0] == pinned[-1].ptr
    assert [len(x) for x in pinned] == [28, 220, 1]


def test_strided_arrays_of_the_host(device):
    x = np.random.default_rng(0).normal(size=(40, 6)).astype("f4")
    y = np.arange(80, dtype=np.int32)[::2] % 6
    room = fastdiv.score(x, y, kind="logits", backend="cpu")
    wanted = [array.copy() for array in room.arrays()]
    strided = [np.zeros(80, array.dtype)[::2] for array in room.arrays()]
    resolve("cuda").score(x, y, Kind.LOGITS, *strided)
    for found, want in zip(strided, wanted, strict=True):
        np.testing.assert_allclose(found, want, rtol=1e-5)


def test_the_whole_way_by_threads_with_lanes_of_their_own(device, tmp_path, monkeypatch):
    monkeypatch.setattr(cupy_device, "PART_BYTES", 1 << 10)
    monkeypatch.setattr(scoring, "TILE_BYTES", 1 << 10)
    write_files(tmp_path, make(range(4), n=400, c=10))
    wanted = fastdiv.analyze(tmp_path, backend="cpu")
    got = fastdiv.analyze(tmp_path, backend="cuda", threads=3)
    assert got.summary["backend"] == {"name": "cuda", "on": "CuPy 0.0, Fake 9000"}
    check_same(got, wanted)
    assert 1 <= len(device._free) <= 3
    assert len({lane.stream.ptr for lane in device._free}) == len(device._free)


def test_a_lane_comes_back_after_an_error(device):
    backend = resolve("cuda")

    def fail():
        raise ZeroDivisionError

    for _ in range(3):
        with pytest.raises(ZeroDivisionError):
            backend.in_tiles([fail], [(0, 0, 0, 0)])
    assert len(device._free) == 1
    assert backend.device is device
    assert not fake_cupy.stack()


def test_lanes_follow_what_their_caller_queued(device, cupy):
    backend, made = resolve("cuda"), []
    x = cupy.zeros((50, 3), np.float32)
    fake_cupy.get_current_stream().queue(lambda: x.view(np.ndarray).fill(np.nan))
    scores = fastdiv.score(np.zeros((50, 3), "f4"), np.zeros(50, "i4"), kind="logits")
    made = [np.empty_like(array) for array in scores.arrays()]
    backend.score(x, np.zeros(50, np.int32), Kind.LOGITS, *made)
    assert (made[-1] & 7 == 1).all()  # status: NaN


class Tensor:
    """A tensor of torch, which has its own way to say where it lies, and DLPack."""

    def __init__(self, x, of_a_graph=False, words=False):
        self.x, self.of_a_graph, self.words = x, of_a_graph, words
        self.dtype = "torch.bfloat16" if words else f"torch.{x.dtype}"
        self.device = x.device

    def detach(self):
        return Tensor(self.x, False, self.words)

    def view(self, dtype):
        assert dtype == "int16"
        return Tensor(self.x.view(dtype))

    @property
    def __cuda_array_interface__(self):
        if self.of_a_graph:
            raise RuntimeError("Can't get __cuda_array_interface__ on Variable that requires grad")
        return self.x.__cuda_array_interface__

    def __dlpack_device__(self):
        return self.x.__dlpack_device__()

    def __dlpack__(self):
        assert not self.of_a_graph
        return self.x


@pytest.fixture
def torch(monkeypatch):
    """A module with a current stream; the fake's DLPack makes no stream wait."""
    streams = [fake_cupy.Stream()]
    for stream in streams:
        stream.cuda_stream = id(stream)
    torch = types.ModuleType("torch")
    torch.Tensor, torch.int16 = Tensor, "int16"
    torch.cuda = types.SimpleNamespace(current_stream=lambda device: streams[0])
    monkeypatch.setitem(sys.modules, "torch", torch)
    return streams[0]


@pytest.mark.parametrize("newer", [False, True])
def test_tensors_of_torch_are_scored_on_its_stream(device, cupy, torch, newer, monkeypatch):
    if newer:  # from CuPy 14 on
        monkeypatch.setattr(
            fake_cupy.Stream, "from_external",
            staticmethod(lambda given: fake_cupy.ExternalStream(given.__cuda_stream__()[1])),
            raising=False,
        )  # fmt: skip
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(60, 5)).astype("f4"), rng.integers(0, 5, 60).astype("i4")
    late = cupy.zeros(x.shape, "f4")
    torch.queue(lambda: late.view(np.ndarray).__setitem__(..., x))  # as a model's last kernel does
    found = fastdiv.score(Tensor(late), y, kind="logits")
    assert torch.waiting, "all of it was done, so a stream that is not torch's would not be noticed"
    host = found.on_host()  # on CuPy's stream
    np.testing.assert_allclose(host.loss, fastdiv.score(x, y, kind="logits").loss, rtol=1e-5)


def test_predictions_are_scored_on_the_device_that_they_lie_on(device, cupy):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(60, 5)).astype("f4"), rng.integers(0, 5, 60).astype("i4")
    wanted = fastdiv.score(x, y, kind="logits")
    with cupy.cuda.Device(1):
        there = cupy.asarray(x)
        labels_there = cupy.asarray(y)
    for labels in (y, labels_there):
        found = fastdiv.score(there, labels, kind="logits")
        assert {array.number for array in found.arrays()} == {1}
        assert fake_cupy.device_number() == 0
        np.testing.assert_allclose(found.on_host().loss, wanted.loss, rtol=1e-5)
        again = fastdiv.score(there, labels, kind="logits", out=found)
        assert again is found
    made = [np.empty_like(array) for array in wanted.arrays()]
    resolve("cuda").score(there, y, Kind.LOGITS, *made)  # results to the host
    np.testing.assert_allclose(made[0], wanted.loss, rtol=1e-5)


def test_threads_work_on_the_device_of_the_backend(cupy, monkeypatch):
    device = cupy_device.device_of_number(cupy, 1)
    backend = CudaBackend(device)
    x = np.random.default_rng(0).normal(size=(2000, 5)).astype("f4")
    y = np.zeros(2000, np.int32)
    wanted = fastdiv.score(x, y, kind="logits")
    seen = set()

    def work(start):
        rows = slice(start, start + 500)
        seen.add(threading.get_ident())
        made = wanted.take(rows)
        made = [np.empty_like(array) for array in made.arrays()]
        backend.score(x[rows], y[rows], Kind.LOGITS, *made)
        return made[0]

    with ThreadPoolExecutor(2) as pool:
        found = np.concatenate(list(pool.map(work, range(0, 2000, 500))))
    np.testing.assert_allclose(found, wanted.loss, rtol=1e-5)
    assert all(lane.stream.device == 1 for lane in device._free)


def test_a_source_is_compiled_by_one_thread(device, cupy):
    started = threading.Barrier(4)

    def compiled(i):
        started.wait()
        return device._made(("flags", (), "write_flags"))

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(compiled, range(4)))
    assert len(cupy.cuda.nvrtc.made) == 1
    assert len(set(map(id, found))) == 1


@pytest.mark.skipif(sys.platform != "linux", reason="there is no /proc")
def test_plain_pages_go_to_the_device_from_where_they_lie(device, tmp_path, monkeypatch):
    rows = make(n=3000, c=16)[0]
    table = pa.table({"id": rows.ids, "label": rows.y, "logits": as_list(rows.x)})
    path = tmp_path / "preds.parquet"
    pq.write_table(table, path, compression="none", use_dictionary=False, data_page_size=20_000)
    seen = []

    def watched(lane, room, places):
        if room.ndim == 2:  # predictions
            maps = [line for line in Path("/proc/self/maps").read_text().splitlines()
                    if line.endswith(str(path))]  # fmt: skip
            ends = [tuple(int(x, 16) for x in line.split()[0].split("-")) for line in maps]
            seen.extend(
                (size, any(start <= at and at + size <= end for start, end in ends))
                for at, size in places
            )
        upload(lane, room, places)

    upload = cupy_device.CupyLane.upload
    monkeypatch.setattr(cupy_device.CupyLane, "upload", watched)
    got = fastdiv.analyze(path, kind="logits", backend="cuda")
    assert got.summary["read_by"]["arrow"] == []
    assert sum(size for size, _ in seen) == rows.x.nbytes
    assert len(seen) > 5
    assert all(of_the_file for _, of_the_file in seen)


class OnlyInterface:
    """An array as Numba's: it says where it lies, and has no DLPack."""

    def __init__(self, x):
        self.x = x
        self.__cuda_array_interface__ = x.__cuda_array_interface__


@pytest.fixture
def from_interface(cupy, monkeypatch):
    def asarray(x):
        return x.x if isinstance(x, OnlyInterface) else fake_cupy.asarray(x)

    cupy.asarray = asarray
    yield
    fake_cupy.ON_DEVICE_1.clear()  # others may lie there then


def test_arrays_of_other_libraries_are_found_on_their_device(device, cupy, from_interface):
    x, y = np.random.default_rng(0).normal(size=(60, 5)).astype("f4"), np.zeros(60, "i4")
    with cupy.cuda.Device(1):
        there = cupy.asarray(x)
    fake_cupy.ON_DEVICE_1.add(there.data.ptr)
    found = fastdiv.score(OnlyInterface(there), y, kind="logits")
    assert found.loss.number == 1
    np.testing.assert_allclose(found.on_host().loss, fastdiv.score(x, y, kind="logits").loss, 1e-5)


def test_memory_that_is_another_library_s_is_waited_for(device, cupy, from_interface):
    x, y = cupy.zeros((60, 5), "f4"), cupy.zeros(60, "i4")
    stream = fake_cupy.get_current_stream()
    stream.synchronize()
    fastdiv.score(x, y, kind="logits")
    assert stream.waiting  # of CuPy: its pool keeps the order
    fastdiv.score(OnlyInterface(x), y, kind="logits")
    assert not stream.waiting


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_tensors_that_belong_to_a_graph(device, cupy, torch, dtype):
    rows = make(n=60, c=5)[0]
    x = rows.x
    if dtype == "bfloat16":
        words = (x.view(np.uint32) >> 16).astype(np.uint16)
        given, x = words, (words.astype(np.uint32) << 16).view(np.float32)
    else:
        given = x
    given = Tensor(cupy.asarray(given), of_a_graph=True, words=dtype == "bfloat16")
    found = fastdiv.score(given, rows.y, kind="logits").on_host()
    wanted = fastdiv.score(x, rows.y, kind="logits")
    np.testing.assert_allclose(found.loss, wanted.loss, 1e-5)
    tracker = fastdiv.Tracker(kind="logits")
    tracker.update(given, rows.y, rows.ids)
    assert tracker.end_epoch().row["n"] == 60


def test_the_stream_that_was_set_is_the_current_one_afterwards(device, cupy):
    mine = fake_cupy.Stream()
    mine.use()
    x, y = np.zeros((60, 5), "f4"), np.zeros(60, "i4")
    fastdiv.score(x, y, kind="logits", backend="cuda")
    assert fake_cupy.get_current_stream() is mine
    fake_cupy.default_stream(0).use()


def test_a_backend_is_made_once_for_a_device(cupy):
    backend = resolve("cuda")
    assert resolve("cuda") is backend
    with cupy.cuda.Device(1):
        other = resolve("cuda")
        assert resolve("cuda") is other
    assert other is not backend
    assert resolve("cuda") is backend


@pytest.mark.parametrize("clip", [None, 1e-3])
def test_a_batch_is_waited_for_a_few_times_whatever_its_size(device, cupy, monkeypatch, clip):
    monkeypatch.setattr(scoring, "TILE_BYTES", 1 << 10)
    waits = []
    wait = cupy_device.CupyLane.wait
    monkeypatch.setattr(cupy_device.CupyLane, "wait", lambda lane: waits.append(1) or wait(lane))
    rows = make(n=3000, c=5)[0]
    tracker = fastdiv.Tracker(kind="logits", clip=clip, backend="cuda")
    tracker.update(*rows.arrays())
    assert len(waits) <= 4
    assert tracker.end_epoch().row["n"] == 3000


def test_shared_memory_is_allowed_once_and_as_much_as_there_is(device, monkeypatch):
    asked = []
    monkeypatch.setattr(
        sys.modules["cupy"].cuda.driver, "funcSetAttribute",
        lambda *given: asked.append(given[2]) or fake_cupy.set_attribute(*given),
    )  # fmt: skip
    for n in (3, 3000):
        fastdiv.score(np.zeros((n, 5), "f4"), np.zeros(n, "i4"), kind="logits", backend="cuda")
    assert asked == [(99 << 10) - fake_cupy.DECLARED]

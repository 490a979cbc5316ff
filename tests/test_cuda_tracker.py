"""A tracker whose predictions lie on a device: scored there, the same tables as from the host."""

import sys

import cuda_host
import fake_cupy
import numpy as np
import pytest
from dumps import make
from test_cuda_engine import check_same
from test_tracker import hard, tracked

import fastdiv
from fastdiv_kernels.contract import BFLOAT16

pytestmark = pytest.mark.skipif(cuda_host.COMPILER is None, reason="there is no g++")


@pytest.fixture(autouse=True)
def cupy(monkeypatch):
    module = fake_cupy.module(devices=2)
    monkeypatch.setitem(sys.modules, "cupy", module)
    return module


def fed(dump, put, whose=("x",), **options):
    tracker = fastdiv.Tracker(kind="logits", **options)
    for epoch, rows in dump.items():
        for start in range(0, len(rows), 37):
            batch = rows.take(slice(start, start + 37))
            given = {"x": batch.x, "y": batch.y, "ids": batch.ids}
            given |= {name: put(given[name]) for name in whose}
            tracker.update(*given.values())
        tracker.end_epoch(epoch)
    return tracker


@pytest.mark.parametrize("backend", ["auto", "cuda"])
@pytest.mark.parametrize("whose", [("x",), ("x", "y", "ids")])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_tables_are_those_of_the_host_cuda(dtype, whose, backend):
    dump = hard(dtype)
    wanted = tracked(dump).run()
    got = fed(dump, fake_cupy.asarray, whose, backend=backend).run()
    check_same(got, wanted)


@pytest.mark.parametrize("options", [{"clip": 1e-3}, {"scores": "slim"}, {"scores": "rolling"}])
def test_every_way_of_keeping_scores_cuda(options):
    dump = hard()
    check_same(fed(dump, fake_cupy.asarray, **options).run(), tracked(dump, **options).run())


def test_predictions_stay_on_their_device_cuda(cupy, monkeypatch):
    def put(x):
        with cupy.cuda.Device(1):
            return cupy.asarray(x)

    dump = make(range(2), n=90, c=20)
    down = []
    copied = cupy.cuda.runtime.memcpyAsync
    cupy.cuda.runtime.memcpyAsync = lambda *a: (down.append(a[2]) if a[3] == 2 else 0, copied(*a))
    got = fed(dump, put)
    assert sum(down) == 180 * (4 + 1 + 4 + 4 + 4 + 4 + 4 + 1 + 44)  # scores and profiles alone
    check_same(got.run(), tracked(dump).run())
    assert fake_cupy.device_number() == 0


def test_updates_may_lie_here_and_there_cuda(cupy):
    dump = make(range(2), n=90, c=5)
    turns = iter(range(100))
    got = fed(dump, lambda x: cupy.asarray(x) if next(turns) % 2 else x)
    check_same(got.run(), tracked(dump).run())


def test_words_of_bfloat16_cuda(cupy):
    rows = make(n=90, c=5)[0]
    words = (rows.x.view(np.uint32) >> 16).astype(np.uint16)
    results = []
    for x in (cupy.asarray(words), (words.astype(np.uint32) << 16).view(np.float32)):
        tracker = fastdiv.Tracker(kind="logits")
        tracker.update(x, rows.y, rows.ids)
        results.append(tracker.end_epoch())
    assert words.dtype == BFLOAT16
    assert results[0].row["loss"] == pytest.approx(results[1].row["loss"], rel=1e-6)


def test_what_does_not_fit_is_refused_cuda(cupy):
    rows = make(n=90, c=5)[0]
    x = cupy.asarray(rows.x)
    tracker = fastdiv.Tracker(kind="logits", classes=5)
    for given, said in (
        ((x[0], rows.y), r"update 0: predictions must be float16.* of shape \(5,\)"),
        ((x, rows.y[:4]), r"update 0: labels must have shape \(90,\), not \(4,\)"),
        ((x[:, :3], rows.y), "update 0: 3 classes, but 5 are expected"),
    ):
        with pytest.raises(fastdiv.UsageError, match=said):
            tracker.update(*given)


def test_without_cupy_it_says_what_to_do_cuda(cupy, monkeypatch):
    rows = make(n=90, c=5)[0]
    x = cupy.asarray(rows.x)
    monkeypatch.setitem(sys.modules, "cupy", None)
    said = r"lie on a device.*CuPy is not installed.*cpu"
    with pytest.raises(fastdiv.UsageError, match=f"update 0: .*{said}"):
        fastdiv.Tracker(kind="logits").update(x, rows.y)
    with pytest.raises(fastdiv.UsageError, match=said):
        fastdiv.score(x, rows.y, kind="logits")

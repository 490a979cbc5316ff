"""What a GPU does with much at once: the same bits again, and what the CPU finds.

With a GPU sizes are such that all its multiprocessors have several blocks to do at a time; the
host that runs kernels one thread after another takes as much as it can in a second.
"""

import sys

import numpy as np
import pytest
from dumps import make, write_files
from here import EVERY, ONLY_THE_HOST, backend_of
from test_cuda_engine import check_same
from test_stored_kernels import RUNS, canonical, scores

import fastdiv
from fastdiv import backends
from fastdiv.backends import resolve
from fastdiv.batch import Scores
from fastdiv_kernels.contract import BFLOAT16, DYNAMICS, GRID, Kind, profile_width
from fastdiv_kernels.exact import LIMBS_FIXED

ON_A_GPU = [name for name in EVERY if name.startswith("cuda")]
SMALL = {"VALUES": 1 << 13, "ROWS": 1_201}
LARGE = {"VALUES": 1 << 26, "ROWS": 3_000_001}
VALUES, ROWS = (
    {name: (SMALL if name == "cuda-host" or ONLY_THE_HOST else LARGE)[what] for name in ON_A_GPU}
    for what in ("VALUES", "ROWS")
)
SHAPES = (2, 3, 10, 32, 33, 127, 1000, 1001, 4097, 50_257)
OF_ONE_ROW = 1 << 22


@pytest.fixture(params=ON_A_GPU)
def name(request):
    return request.param


@pytest.fixture
def backend(name):
    return backend_of(name)


def predictions(n, c, dtype, seed=0):
    x = np.random.default_rng(seed).standard_normal((n, c), np.float32)
    return (x.view(np.uint32) >> 16).astype(BFLOAT16) if dtype == "bfloat16" else x.astype(dtype)


def scored(backend, x, y):
    found = Scores.empty(len(x), x.dtype)
    backend.score(x, y, Kind.LOGITS, *found.arrays())
    if profile_width(x.shape[1]):
        found.profile = np.empty((len(x), profile_width(x.shape[1])), np.float16)
        backend.profile(x, Kind.LOGITS, found.predicted, found.profile)
    return found


def bits(found):
    arrays = [*found.arrays(), *([] if found.profile is None else [found.profile])]
    return [x.tobytes() for x in arrays]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
@pytest.mark.parametrize(
    ("name", "c"),
    [(name, c) for name in ON_A_GPU for c in (*SHAPES, *[OF_ONE_ROW] * (not ONLY_THE_HOST))],
)
def test_scores_again_and_as_the_cpu_finds_them(backend, name, c, dtype):
    n = max(1, min(VALUES[name] // c, ROWS[name]))
    x, y = predictions(n, c, dtype), np.random.default_rng(1).integers(0, c, n).astype(np.int32)
    found, wanted = scored(backend, x, y), scored(resolve("cpu"), x, y)
    assert bits(scored(backend, x, y)) == bits(found)
    for field in ("correct", "predicted", "rank", "status"):
        np.testing.assert_array_equal(getattr(found, field), getattr(wanted, field), field)
    # Of float32 and less, a loss near 0 is as good as its sum of exponentials.
    for field, rtol in (("loss", 1e-5), ("confidence", 1e-5), ("margin", 1e-5), ("brier", 1e-4)):
        got, want = getattr(found, field), getattr(wanted, field)
        np.testing.assert_allclose(got, want, rtol, 1e-6, err_msg=field)
        assert got.mean(dtype="f8") == pytest.approx(want.mean(dtype="f8"), rel=1e-6, abs=1e-7)


@pytest.mark.parametrize("how", ["usual", "any"])
@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("run", RUNS.values(), ids=RUNS)
def test_totals_again_and_exactly_as_the_cpu_finds_them(backend, name, run, dtype, how):
    s = scores(ROWS[name], 7, np.dtype(dtype), how, 0)
    found, again, wanted = (run(kernels, s, 7) for kernels in (backend, backend, resolve("cpu")))
    assert [x.tobytes() for x in found] == [x.tobytes() for x in again]
    for one, other in zip(canonical(found), canonical(wanted), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("c", [2, 10, 100])
def test_temperatures_again_and_as_the_cpu_finds_them(backend, name, c):
    n = min(ROWS[name], VALUES[name] // c)
    x, y = predictions(n, c, "float32"), np.zeros(n, np.int32)
    s = scored(resolve("cpu"), x, y)
    flags = np.full(n, 0x80, np.uint8)
    profile = np.empty((n, 0), np.float16) if s.profile is None else s.profile

    def totals(kernels):
        counts, sums = np.zeros(1, np.int64), np.zeros((2 * len(GRID), LIMBS_FIXED), np.int64)
        kernels.tally_temperatures(s.loss, s.margin, flags, profile, c, counts, sums)
        return counts, sums

    (counts, sums), (wanted, of_cpu) = totals(backend), totals(resolve("cpu"))
    assert counts == wanted == n
    assert totals(backend)[1].tobytes() == sums.tobytes()
    weight = 2.0 ** (32 * np.arange(LIMBS_FIXED))
    np.testing.assert_allclose(sums @ weight, of_cpu @ weight, rtol=1e-6)


def test_histories_again_and_as_the_cpu_finds_them(backend, name):
    s = scores(ROWS[name], 7, np.dtype("f4"), "usual", 0)
    given = [s[column] for column in ("loss", "margin", "predicted", "labels", "flags")]
    records = [np.zeros(ROWS[name], DYNAMICS) for _ in range(3)]
    for kernels, found in zip((backend, backend, resolve("cpu")), records, strict=True):
        for epoch in range(3):
            kernels.dynamics(epoch, *given, found)
    assert records[0].tobytes() == records[1].tobytes()
    for field in DYNAMICS.names:
        np.testing.assert_allclose(records[0][field], records[2][field], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("c", [2, 10, 200])
def test_a_dump_gives_the_tables_of_the_cpu(name, backend, tmp_path, monkeypatch, c):
    monkeypatch.setitem(backends.BACKENDS, "cuda", "cuda_of_runs")
    module = type(sys)("cuda_of_runs")
    module.load = lambda: backend
    monkeypatch.setitem(sys.modules, "cuda_of_runs", module)
    write_files(tmp_path, make(range(3), n=min(ROWS[name], 200_000) // 10, c=c))
    check_same(fastdiv.analyze(tmp_path, backend="cuda"), fastdiv.analyze(tmp_path, backend="cpu"))

"""The benchmarks, tiny, so that they cannot rot; without torch they run all the same."""

import json
import platform
import re
import subprocess
import sys
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np
import pytest

from benchmarks import (
    data,
    explain,
    floor,
    jax_peers,
    kernel_peers,
    report,
    scan,
    torch_peers,
    turns,
)
from benchmarks.cases import (
    ARRAYS,
    CASES,
    EPOCHS,
    EXPLAIN,
    IDS,
    SCAN,
    SCORE,
    SCORE_FLOAT16,
    SNAPPY,
    START_UP,
    TEMPERATURES,
    TRANSITIONS,
    Workload,
    workloads,
)
from benchmarks.machine import this_machine
from benchmarks.measure import (
    FloorMeter,
    Measurement,
    Worker,
    WorkerError,
    disagreements,
    measure,
)
from benchmarks.workload import ROWS
from fastdiv.batch import Scores
from fastdiv_kernels import reference
from fastdiv_kernels.contract import BFLOAT16, GRID, Kind, as_float

ROOT = Path(__file__).resolve().parents[1]
# Each takes a process, and torch seconds to import; what ten classes show of a peer will do.
SLOW = (
    "*torch.compile*", "arrays/*/torch*", "arrays/2/*", "arrays/100/*", "arrays/*000/*",
    "score/[13456]*", "score/2/*", "score/2[!0]*", "temperatures/2/*", "temperatures/1[!0]*",
    "temperatures/100*", "plain/10/*", "binary/10/*", "scan/1000/*", "*/fastdiv, slim",
    "*/fastdiv, all", "start-up/*/[!p]*", "*/pyarrow + [!t]*",
)  # fmt: skip


def benchmarks(*arguments, cache):
    command = [sys.executable, "-m", "benchmarks", "--quick", "--cache", cache, *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_every_case_runs_and_agrees(tmp_path):
    readme = (ROOT / "README.md").read_bytes()
    out = tmp_path / "quick.json"
    skip = [word for pattern in SLOW for word in ("--skip", pattern)]
    done = benchmarks("--output", out, *skip, cache=tmp_path)
    assert done.returncode == 0, done.stderr
    assert report.AGREE in done.stdout
    result = json.loads(out.read_text(encoding="utf-8"))
    floors = {(f["case"], f["classes"]): f["rows_per_s"] for f in result["floors"]}
    assert len(floors) == len(result["floors"])
    seen = set()
    for m in result["measurements"]:
        seen.add((m["case"], m["classes"], m["competitor"]))
        if "skipped" in m:
            assert m["competitor"] != CASES[m["case"]].competitors[0].name
            assert m["skipped"].endswith("is not installed"), m
        else:
            assert m["rows_per_s"] > 0
            assert m["peak_bytes"] > 10e6
            floor = floors[m["case"], m["classes"]]
            expected = pytest.approx(m["rows_per_s"] / floor, abs=1e-5) if floor else None
            assert m["share_of_floor"] == expected
    expected = {
        (case.name, classes, competitor.name)
        for case in CASES.values()
        for classes in case.classes
        for competitor in case.competitors
        if not competitor.only or classes in competitor.only
        if not any(fnmatchcase(f"{case.name}/{classes}/{competitor.name}", p) for p in SLOW)
    }
    assert seen == expected
    assert {(case, classes) for case, classes, _ in seen} == floors.keys()
    assert (ROOT / "README.md").read_bytes() == readme


def test_kernel_benchmarks_run():
    command = [sys.executable, "-m", "pytest", "-q", "benchmarks", "-k", "not score or 10-float32"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_nothing_matches(tmp_path):
    done = benchmarks("--only", "snappy/*/nobody", cache=tmp_path)
    assert done.returncode == 2
    assert "No competitor matches" in done.stderr


@pytest.fixture(scope="module")
def arrays():
    y = data.labels(1000, 10)
    return data.Arrays(data.logits(y, 10), y, 2)


@pytest.fixture
def pieces_of_300_rows(monkeypatch):
    monkeypatch.setattr("benchmarks.torch_peers.PIECE_BYTES", 4 * 10 * 300)
    monkeypatch.setattr("fastdiv.sources.layout.BATCH_ROWS", 300)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_logits_of_16_bits_are_those_of_32(dtype):
    y = data.labels(1000, 10)
    z = data.logits(y, 10, dtype=dtype)
    assert z.dtype == (BFLOAT16 if dtype == "bfloat16" else np.float16)
    expected = data.logits(y, 10)
    np.testing.assert_allclose(as_float(z), expected, rtol=2.0**-7, atol=1e-6)


def losses_at(x, y, beta):
    x = beta * x.astype(np.float64)
    return np.logaddexp.reduce(x, axis=1) - x[np.arange(len(y)), y]


def test_kernel_alone_scores_every_row_once(arrays, pieces_of_300_rows):
    scores = scored(arrays)
    loss, accuracy = kernel_peers.fastdiv_score(arrays)()()
    assert loss == pytest.approx(scores.loss.mean(dtype=np.float64), rel=1e-6)
    assert accuracy == scores.correct.mean()


def scored(arrays):
    scores = Scores.empty(len(arrays.labels), np.dtype(np.float32))
    reference.score(arrays.logits, arrays.labels, Kind.LOGITS, *scores.arrays())
    return scores


def test_torch_computes_what_fastdiv_computes(arrays, pieces_of_300_rows):
    torch = pytest.importorskip("torch")
    threads = torch.get_num_threads()
    scores = scored(arrays)
    try:
        for prepare in (torch_peers.eager_two, torch_peers.eager_full):
            loss, correct = prepare(arrays)()
            np.testing.assert_allclose(loss, scores.loss, rtol=1e-5, atol=1e-6)
            np.testing.assert_array_equal(correct, scores.correct)
        x, y = torch.from_numpy(arrays.logits), torch.from_numpy(arrays.labels.astype(np.int64))
        _, _, confidence, margin, brier = torch_peers.full(x, y)
    finally:
        torch.set_num_threads(threads)
        torch.set_grad_enabled(True)
    np.testing.assert_allclose(confidence, scores.confidence, rtol=1e-5)
    np.testing.assert_allclose(margin, scores.margin, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(brier, scores.brier, rtol=1e-4, atol=1e-6)


def test_jax_computes_what_fastdiv_computes(arrays, monkeypatch):
    pytest.importorskip("jax")
    monkeypatch.setattr("benchmarks.jax_peers.PIECE_BYTES", 4 * 10 * 300)
    scores = scored(arrays)
    loss, correct = jax_peers.full(arrays)()()
    np.testing.assert_allclose(loss, scores.loss, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(correct, scores.correct)


@pytest.mark.parametrize("c", [2, 10, 100])
def test_kernels_temper_every_row_once(c, pieces_of_300_rows):
    y = data.labels(1000, c)
    x = data.logits(y, c)
    run = kernel_peers.fastdiv_temperatures(data.Arrays(x, y, 2))
    run()
    expected = [losses_at(x, y, beta).mean() for beta in (0.5, 2.0)]
    assert list(run()) == [0]
    np.testing.assert_allclose(run()[0], expected, rtol=TEMPERATURES.tolerances[0])


def test_torch_adds_losses_at_all_temperatures(arrays):
    torch = pytest.importorskip("torch")
    x, y = torch.from_numpy(arrays.logits), torch.from_numpy(arrays.labels.astype(np.int64))
    total = torch.zeros(len(GRID), dtype=torch.float64)
    for rows in (slice(0, 700), slice(700, None)):
        torch_peers.add_losses(x[rows], y[rows], [total])
    expected = [losses_at(arrays.logits, arrays.labels, beta).sum() for beta in GRID]
    np.testing.assert_allclose(total.numpy(), expected, rtol=1e-6)


def test_scans_and_explanations_find_the_same_change(arrays):
    before, after = (x.copy() for x, _ in scan.two_epochs(arrays).values())
    y = arrays.labels
    expected = {
        epoch: (losses_at(x, y, 1.0).mean(), (x.argmax(1) == y).mean())
        for epoch, x in enumerate((before, after))
    }
    found = scan.fastdiv_all(arrays)()
    assert found == scan.fastdiv_slim(arrays)()
    assert found.keys() == expected.keys()
    for epoch, values in found.items():
        np.testing.assert_allclose(values, expected[epoch], rtol=1e-6)
    (change,) = explain.explain_pair(arrays)().values()
    assert [change] == list(explain.split_view(arrays)().values())
    np.testing.assert_allclose(change, np.subtract(found[1], found[0]), rtol=1e-6)


def test_threads_share_all_pieces():
    seen = [[], []]
    turns.shared([own.append for own in seen], 1001, 10)()
    pieces = sorted((rows.start, rows.stop) for own in seen for rows in own)
    assert pieces == [(i, min(i + 10, 1001)) for i in range(0, 1001, 10)]


@pytest.mark.parametrize(
    ("case", "classes", "read", "exps", "expected"),
    [
        (ARRAYS, 10, 44e9, 10e9, (1e9, "memory")),  # 4C + 4 bytes
        (ARRAYS, 10, 44e9, 5e9, (5e8, "exp")),
        (SNAPPY, 10, 44e9, 20e9, (1e9, "memory")),
        (SCORE_FLOAT16, 1000, 2004e9, 1e15, (1e9, "memory")),  # 2C + 4
        (IDS, 1, 16e9, 1.0, (1e9, "memory")),
        (START_UP, 10, 1e9, 1e9, None),
        (TRANSITIONS, 10, 26e9, 1.0, (1e9, "memory")),  # no logits, so no exponentials
        (TEMPERATURES, 10, 44e9, 5e9, (5e8, "exp")),
        (TEMPERATURES, 2, 4e9, 5e9, (1e9, "memory")),  # a margin, and one exponential
        (TEMPERATURES, 2, 4e9, 5e8, (5e8, "exp")),
    ],
)
def test_floor_is_the_lesser_of_two_rates(case, classes, read, exps, expected):
    assert case.floor_rows_per_s(classes, read, exps) == expected


@pytest.mark.parametrize(
    ("case", "competitor", "classes", "expected"),
    [
        (SNAPPY, "fastdiv", 10, 40 + 12 + 21 + 20),
        (SNAPPY, "fastdiv, slim", 10, 40 + 12 + 21),
        (SNAPPY, "DuckDB", 10, 40 + 4),
        (SCORE_FLOAT16, "fastdiv", 1000, 2000 + 30),
        (IDS, "fastdiv", 1, 16),
        (SCAN, "fastdiv", 1000, 4000 + 4 + 21 + 44),
        (SCAN, "fastdiv, slim", 1000, 4000 + 4 + 21),
        (TEMPERATURES, "fastdiv", 10, 40 + 9 + 20),
        (TEMPERATURES, "fastdiv", 2, 9),  # of which no logits are read
        (TEMPERATURES, "torch.compile", 2, 8 + 8),
        (TRANSITIONS, "polars", 10, 26),
        (EXPLAIN, "explain_pair", 10, 4 + 2 * (13 + 20)),
    ],
)
def test_bytes_of_a_row(case, competitor, classes, expected):
    assert Workload(case.name, competitor, classes, 4, 1).row_bytes() == expected


@pytest.mark.parametrize(
    ("case", "classes", "expected"),
    [
        (SNAPPY, 10, ROWS // 2),
        (ARRAYS, 100, ROWS // 10),
        (SCORE_FLOAT16, 1000, ROWS // 50),  # as many bytes
        (SCORE, 200_000, ROWS // 20_000),
        (EPOCHS, 10, 1_000_000),
        (IDS, 1, 10_000_000),
    ],
)
def test_rows_of_an_epoch(case, classes, expected):
    assert case.rows_of_epoch(ROWS, classes) == expected
    assert case.rows_of_epoch(1, classes) == 16


def test_a_competitor_may_do_less(tmp_path):
    twenty, one = workloads(EPOCHS, 10, ROWS // 1_000_000, 1, tmp_path, lambda label: True)
    assert (twenty.rows, one.rows) == (20 * 16, 16)
    assert len(data.Dump(Path(one.dump), 10, 1).files) == 20
    assert [w.competitor for w in workloads(SCORE, 16, 1, 1, tmp_path, lambda label: True)] == [
        "fastdiv"
    ]


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="x86 assembly")
def test_what_measures_the_floor_is_vectorised():
    values = np.full(1 << 12, 2, np.float32)
    assert floor.read(values, 128, 128 + 1024) == 2048
    floor.exponentials(values, 1)
    assert values[0] == pytest.approx(4096 * np.exp(2) * 1e-30, rel=1e-5)
    widest = "zmm" if "512" in this_machine().vectors else "[xyz]mm"
    for function, register in ((floor.read, "[xyz]mm"), (floor.exponentials, widest)):
        (assembly,) = function.inspect_asm().values()
        assert len(re.findall(rf"\b(?:v?addps|vfn?madd\d+ps)\b.*{register}", assembly)) >= 8


@pytest.mark.parametrize("x", [-80.0, -20.3, -0.5, 0.0, 0.3466, 7.1, 80.0])
def test_what_measures_the_floor_takes_exponentials(x):
    values = np.full(1 << 12, x, np.float32)
    expected = 4096 * np.exp(np.float64(np.float32(x)))
    floor.exponentials(values, 1)
    if expected * 1e-30 > 1e-37:  # what it writes, as a normal number
        assert values[0] == pytest.approx(expected * 1e-30, rel=3e-5)
    else:
        assert values[0] < 1e-37


def measured(competitor, found):
    return Measurement(Workload("snappy", competitor, 10, 4, 1), found=found)


@pytest.mark.parametrize(
    ("found", "differences"),
    [
        ({"0": [1.0, 0.5]}, 0),
        ({"0": [1.000005, 0.5]}, 0),
        ({"0": [1.0001, 0.5]}, 1),
        ({"0": [1.0, 0.5001]}, 1),
        ({"0": [float("nan"), 0.5]}, 1),
        ({}, 1),
        ({"0": [1.0, 0.5], "1": [1.0, 0.5]}, 1),
        (None, 0),  # computes nothing
    ],
)
def test_disagreements_are_seen(found, differences):
    ours = measured("fastdiv", {"0": [1.0, 0.5]})
    assert len(disagreements([ours, measured("DuckDB", found)])) == differences


def test_a_case_has_its_own_tolerance():
    def beside(*found):
        ours, peer = (Workload("temperatures", c.name, 10, 4, 1) for c in TEMPERATURES.competitors)
        ours = Measurement(ours, found={"0": [1.0, 0.5]})
        return disagreements([ours, Measurement(peer, found={"0": [*found]})])

    assert not beside(1.0002, 0.4999)
    assert len(beside(1.0004, 0.5)) == 1
    (text,) = beside(1.0, 0.4998)
    assert "(loss_at_half, loss_at_double) [1.0, 0.4998] for 0, fastdiv [1.0, 0.5]" in text


def test_process_that_is_done_removes_its_files(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    worker = Worker(Workload("explain", "SplitView.explain", 10, 100, 1))
    try:
        worker.prepare()
        assert [*tmp_path.iterdir()]
        worker.end()
    finally:
        worker.close()
    assert not [*tmp_path.iterdir()]


def test_failing_process_is_reported(tmp_path):
    missing = Workload("snappy", "pyarrow", 10, 4, 1, str(tmp_path))
    with (
        FloorMeter(1, quick=True) as meter,
        pytest.raises(WorkerError, match=r"snappy/10/pyarrow ended with 1:[\s\S]*IndexError"),
    ):
        measure([missing], 1, meter, print)


def test_missing_peer_is_skipped_with_a_reason(tmp_path, monkeypatch):
    (tmp_path / "duckdb.py").write_text("raise ModuleNotFoundError(name='duckdb')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    worker = Worker(Workload("snappy", "DuckDB", 10, 4, 1, str(tmp_path)))
    try:
        worker.prepare()
    finally:
        worker.close()
    assert worker.measurement.skipped == "duckdb is not installed"


def test_peak_memory_counts_what_was_touched():
    code = """if True:
        import numpy as np
        from benchmarks.worker import peak_bytes
        before = peak_bytes()
        np.ones(200 << 20, np.uint8)
        print((peak_bytes() - before) >> 20)
    """
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert 150 < int(done.stdout) <= 220

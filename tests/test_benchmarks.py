"""The benchmarks, tiny, so that they cannot rot; without torch they run all the same."""

import json
import subprocess
import sys
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from benchmarks import data, report
from benchmarks.cases import CASES, DUMP, Workload
from benchmarks.machine import this_machine
from benchmarks.measure import Measurement, Worker, WorkerError, disagreements, measure

ROOT = Path(__file__).resolve().parents[1]
# Each takes a process: torch takes seconds to import, and what C = 1,000 shows of a peer will do.
SLOW = "*torch.compile*", "arrays/2/[!f]*", "arrays/100/[!f]*", "arrays/1000/torch*"


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
    seen = set()
    for m in result["measurements"]:
        seen.add((m["case"], m["classes"], m["competitor"]))
        if "skipped" in m:
            assert m["skipped"].endswith("is not installed"), m
        else:
            assert m["rows_per_s"] > 0
            assert m["peak_bytes"] > 10e6
    expected = {
        (case.name, classes, competitor.name)
        for case in CASES.values()
        for classes in case.classes
        for competitor in case.competitors
        if not any(fnmatchcase(f"{case.name}/{classes}/{competitor.name}", p) for p in SLOW)
    }
    assert seen == expected
    assert (ROOT / "README.md").read_bytes() == readme


def test_kernel_benchmarks_run():
    command = [sys.executable, "-m", "pytest", "-q", "benchmarks", "-k", "not score or 10-float32"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_nothing_matches(tmp_path):
    done = benchmarks("--only", "dump/*/nobody", cache=tmp_path)
    assert done.returncode == 2
    assert "No competitor matches" in done.stderr


def test_dump_is_what_pyarrow_writes(tmp_path):
    path = data.dump(1000, 10, 2, tmp_path)
    file = pq.ParquetFile(path)
    assert file.schema_arrow.names == ["sample_id", "label", "epoch", "logits"]
    assert str(file.schema_arrow.field("logits").type).startswith("list<")
    assert file.metadata.row_group(0).column(3).compression == "SNAPPY"
    assert file.metadata.num_rows == 2000
    assert data.dump(1000, 10, 2, tmp_path) == path
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_logits_are_the_same_each_time_and_plausible():
    y = data.labels(100_000, 10)
    z = data.logits(y, 10)
    assert z.dtype == np.float32
    np.testing.assert_array_equal(z, data.logits(data.labels(100_000, 10), 10))
    assert 0.7 < (z.argmax(1) == y).mean() < 0.97


def measured(competitor, epochs):
    return Measurement(Workload("dump", competitor, 10, 4, 1, None), epochs=epochs)


@pytest.mark.parametrize(
    ("epochs", "differences"),
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
def test_disagreements_are_seen(epochs, differences):
    ours = measured("fastdiv", {"0": [1.0, 0.5]})
    assert len(disagreements([ours, measured("DuckDB", epochs)])) == differences


def test_failing_process_is_reported(tmp_path):
    missing = Workload("dump", "pyarrow", 10, 4, 1, str(tmp_path / "missing.parquet"))
    with pytest.raises(WorkerError, match=r"dump/10/pyarrow ended with 1:[\s\S]*missing\.parquet"):
        measure([missing], 1, print)


def test_missing_peer_is_skipped_with_a_reason(tmp_path, monkeypatch):
    (tmp_path / "duckdb.py").write_text("raise ModuleNotFoundError(name='duckdb')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    worker = Worker(Workload("dump", "DuckDB", 10, 4, 1, str(tmp_path)))
    try:
        worker.prepare()
    finally:
        worker.close()
    assert worker.measurement.skipped == "duckdb is not installed"


def test_readme_keeps_all_but_the_tables():
    text = f"# Title\n\n{report.BEGIN}\nold\n{report.END}\n\nMore.\n"
    assert report.has_markers(text)
    new = report.with_tables(text, "new\n")
    assert new == text.replace("old", "new")
    assert report.with_tables(new, "new\n") == new
    assert not report.has_markers("# Title\n")
    assert not report.has_markers(f"{report.END}{report.BEGIN}")


def test_tables_show_every_entry_and_what_is_missing():
    done = measured("fastdiv", {"0": [1.0, 0.5]})
    done.wall_s, done.cpu_s, done.versions = [2e-6, 1e-6, 2e-6], [3e-6], {"fastdiv": "1.2"}
    missing = measured("DuckDB", None)
    missing.skipped = "duckdb is not installed"
    text = report.markdown([done, missing], this_machine(), agreed=True)
    assert DUMP.title in text
    assert "| **fastdiv 1.2** | all tables, all scores kept | 2.00 (4.00) |" in text
    assert "Not measured (duckdb is not installed): dump/10/DuckDB." in text
    assert report.AGREE in text
    assert report.AGREE not in report.markdown([done], this_machine(), agreed=False)


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

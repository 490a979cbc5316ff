"""What is made of measurements: tables, goals, records; and growth, measured tiny."""

import json

from benchmarks import goals, growth, record, report
from benchmarks.cases import CASES, Workload
from benchmarks.machine import this_machine
from benchmarks.measure import Floor, Measurement


def test_readme_keeps_all_but_the_tables():
    text = f"# Title\n\n{report.BEGIN}\nold\n{report.END}\n\nMore.\n"
    assert report.has_markers(text)
    new = report.with_tables(text, "new\n")
    assert new == text.replace("old", "new")
    assert report.with_tables(new, "new\n") == new
    assert not report.has_markers("# Title\n")
    assert not report.has_markers(f"{report.END}{report.BEGIN}")


def timed(case, competitor, classes, rows, seconds, versions):
    floor = Floor([1.0, 2.0, 1.0], [1.0], read_bytes=48_000_000, exponentials=5_000_000)
    return Measurement(
        Workload(case, competitor, classes, rows, 1), None, seconds, seconds, 300_000_000,
        400_000_000, versions, {"0": [1.0, 0.5]}, floor,
    )  # fmt: skip


def test_tables_show_every_entry_and_what_is_missing():
    fastdiv, torch = {"fastdiv": "1.2"}, {"torch": "3.4"}
    done = [
        timed("snappy", "fastdiv", 10, 4, [2e-5, 1e-5, 2e-5], fastdiv),
        timed("snappy", "polars", 10, 4, [8e-5], {"polars": "5.6"}),
        timed("score", "fastdiv", 2, 4, [4e-6], fastdiv),
        timed("score", "torch.compile", 2, 4, [8e-6], torch),
        timed("arrays", "fastdiv", 2, 4, [1e-5], fastdiv),
        timed("arrays", "torch, two", 2, 4, [2e-5], torch),
        timed("arrays", "fastdiv", 100, 4, [2e-3], fastdiv),
        timed("scan", "fastdiv", 10, 4, [1e-5], fastdiv),
        timed("scan", "fastdiv, slim", 10, 4, [8e-6], fastdiv),
        timed("temperatures", "fastdiv", 2, 4, [2e-6], fastdiv),
        timed("explain", "explain_pair", 10, 4, [1e-5, 2e-5, 2e-5], fastdiv),
        timed("ids", "fastdiv", 1, 4, [4e-6], fastdiv),
        timed("start-up", "import", 10, 16, [0.25], fastdiv),
    ]
    missing = Measurement(Workload("snappy", "DuckDB", 10, 4, 1))
    missing.skipped = "duckdb is not installed"
    text = report.markdown([*done, missing], this_machine(), agreed=True)
    # 500,000 by exponentials; 1,090,909 by memory
    for line in (
        "| **fastdiv 1.2** | all tables, scores of two epochs kept | 0.200 (0.400) |  | 40% "
        "| 5,000 | 0.0186 | 400 (300) |",
        "| polars 5.6 | loss and accuracy of each epoch | 0.0500 (0.0500) | 4.00× | 10% |",
        "| the floor | 44 bytes, 10 exponentials a row | 0.500 |",
        "| `score`, 4 × 2 | 1.00 (1.00) | 40% | 1,000 | 0.0380 | 400 (300) | torch.compile 3.4 "
        "| 0.500 | 20% | 2.00× |",
        "|  | computes | 4 × 2 | 4 × 100 | GB/s | peak MB |",
        "rank, predicted | 0.400 · 16% | 0.00200 · 4.0% | 0.000860–0.0152 | 400 |",
        "| torch 3.4 | loss, correct | 0.200 · 8.0% · 2.00× |  | 0.00420 | 400 |",
        "| the floor | 4C + 4 bytes, C exponentials a row | 2.50 | 0.0500 |",
        "| fastdiv 1.2 | all tables but temperatures, scores alone kept | 0.500 (0.500) | 0.800× |",
        "| `temperatures`, 4 × 2 | 2.00 (2.00) | 40% | 500 | 0.0180 | 400 (300) |  |  |  |  |",
        "**Why loss and accuracy moved between two epochs: 4 samples × 10 classes**",
        "the verdict, from scores in memory | 0.200 (0.400) |  |  | 5,000 | 0.0140 | 400 (300) |",
        "in the same order as before: 4 samples**",
        "| **fastdiv 1.2** | slots | 1.00 (1.00) |  | 33% | 1,000 | 0.0160 | 400 (300) |",
        "| fastdiv 1.2 | `import fastdiv` | 250 | 400 (300) |",
        "Not measured (duckdb is not installed): snappy/10/DuckDB.",
    ):
        assert line in text, line
    assert "4 × 1000" not in text
    assert "memory read (0.0480 GB/s)" in " ".join(text.split())
    assert report.AGREE in text
    assert report.AGREE not in report.markdown(done, this_machine(), agreed=False)


def recorded(case, classes, competitor, rows_per_s, share=None):
    return {"case": case, "classes": classes, "competitor": competitor, "rows_per_s": rows_per_s,
            "share_of_floor": share}  # fmt: skip


def test_goals_compare_what_was_recorded():
    floors = [
        {"case": "ids", "classes": 1, "read_gb_per_s": 16.0, "exps_per_s": 1e9,
         "read_bytes_per_row": 16, "exps_per_row": 0},
        {"case": "score-float16", "classes": 1000, "read_gb_per_s": 16.0, "exps_per_s": 1e9,
         "read_bytes_per_row": 2004, "exps_per_row": 1000},
    ]  # fmt: skip
    measurements = [
        recorded("score", 2, "fastdiv", 9.0, 0.39),
        recorded("arrays", 2, "fastdiv", 24.0),
        recorded("arrays", 2, "torch.compile", 2.0),
        recorded("ids", 1, "fastdiv", 0.95e9),
        recorded("score-float16", 1000, "fastdiv", 0.7e6),
        recorded("epochs", 10, "fastdiv", 10.0),
        recorded("epochs", 10, "fastdiv, one file", 12.0),
        *(recorded("score", c, "fastdiv", 9.0, c / 40) for c in (32, 16, 10, 5)),
    ]
    growth_record = {"off_linear": 0.01, "memory_ratio": 1.2}
    result = {"measurements": measurements, "floors": floors, "growth": growth_record}
    lines = goals.table(result).splitlines()
    assert len(lines) == len(goals.GOALS) + 2
    for line in (
        "| `score`, float32, C = 2: share of the floor | 0.40 | 0.60 | 0.39 | missed |",
        "| `score`, float32, C = 3 … 32: share of the floor | 0.45 | 0.70 |  | not measured |",
        "| `fastdiv.score(out=)`, C = 2: against torch.compile | 12× | 25× | 12× | must |",
        "| ids in the same order: share of the memory read | 0.50 | 0.90 | 0.95 | goal |",
        "| `score`, float16, C = 1000: share of the exponentials | 0.60 | 0.85 | 0.70 | must |",
        "| 20 epochs: time of one, beside a file alone | 1.3× | 1.1× | 1.2× | must |",
        "| growth to 1,000 million rows: time off a straight line | 0.05 | 0.05 | 0.01 | goal |",
        "| growth to 1,000 million rows: peak memory, beside that of 100 | 1.1× | 1.05× | 1.2× "
        "| missed |",
    ):
        assert line in lines
    measurements.append(recorded("score", 3, "fastdiv", 9.0, 0.5))
    assert "C = 3 … 32: share of the floor | 0.45 | 0.70 | 0.12 | missed |" in goals.table(result)


def test_goals_name_what_is_measured():
    """Measure all with the same speed: each goal finds what it compares."""
    measurements = [
        recorded(case.name, classes, competitor.name, 1.0, 1.0)
        for case in CASES.values()
        for classes in case.classes
        for competitor in case.competitors
    ]
    floors = [
        {"case": case.name, "classes": classes, "read_gb_per_s": 1.0, "exps_per_s": 1.0,
         "read_bytes_per_row": 1, "exps_per_row": 1}
        for case in CASES.values() for classes in case.classes
    ]  # fmt: skip
    growth_record = {"off_linear": 0.0, "memory_ratio": 1.0}
    result = {"measurements": measurements, "floors": floors, "growth": growth_record}
    assert "not measured" not in goals.table(result)


def test_latest_results_are_found(tmp_path):
    assert record.latest(tmp_path) is None
    for name, utc in (("2026-01-01-a", "2"), ("2026-01-02-b", "1"), ("growth-a", "1")):
        record.write_json(tmp_path / f"{name}.json", {"utc": utc, "name": name})
    found = record.latest(tmp_path)
    assert found["name"] == "2026-01-01-a"
    assert found["growth"]["name"] == "growth-a"


def test_growth_is_measured(tmp_path, capsys):
    out = tmp_path / "growth.json"
    sizes = ["--samples", "1000", "--epochs", "1", "2", "12", "--turns", "1"]
    assert growth.main([*sizes, "--cache", str(tmp_path), "--output", str(out)]) == 0
    found = json.loads(out.read_text(encoding="utf-8"))
    assert [size["epochs"] for size in found["sizes"]] == [1, 2, 12]
    assert all(size["seconds"] > 0 and size["peak_bytes"] > 10e6 for size in found["sizes"])
    assert found["memory_ratio"] == 1  # from 12 epochs, the only size beyond ten
    assert found["off_linear"] < 1
    assert "| 0.0 |" in capsys.readouterr().out


def test_straight_lines_are_straight():
    assert growth.straightness([10, 100, 1000], [2.1, 3, 12]) < 1e-12  # 2 + rows / 100
    assert growth.straightness([10, 100, 1000], [2.1, 4, 12]) > 0.05

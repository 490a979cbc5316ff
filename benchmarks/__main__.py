"""Measure fastdiv beside its peers: `python -m benchmarks`, or `make bench`.

A whole run writes `benchmarks/results/<utc-date>-<cpu>.json`, prints the tables as Markdown, and
puts them into README.md if it has the markers for them. A partial one (`--quick`, `--rows`,
`--only`, `--skip`, `--threads`) writes to `benchmarks/results/local/`, which git ignores, and
leaves README.md alone.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from fnmatch import fnmatchcase
from pathlib import Path

from benchmarks import data, goals, record, report
from benchmarks.cases import CASES, workloads
from benchmarks.machine import this_machine, usable_cores
from benchmarks.measure import (
    ROOT,
    FloorMeter,
    Measurement,
    WorkerError,
    disagreements,
    measure,
)
from benchmarks.workload import QUICK_ROWS, REPEATS, ROWS

BUSY = 0.5  # load average, by which times are no longer ours alone


def arguments(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure fastdiv beside its peers.",
        epilog="PATTERN matches CASE/CLASSES/COMPETITOR, as in 'dump/*', '*/10/*', '*torch*'.",
    )
    add = parser.add_argument
    add("--quick", action="store_true", help="tiny sizes, one repeat: does everything still run?")
    add("--rows", type=int, metavar="N", help=f"of ten classes ({ROWS:,}); others in step")
    add("--only", action="append", metavar="PATTERN", help="measure these; may be repeated")
    add("--skip", action="append", metavar="PATTERN", default=[], help="leave these out")
    add(
        "--repeats",
        type=int,
        metavar="K",
        help=f"timed runs of each competitor (most have {REPEATS})",
    )
    add("--threads", type=int, metavar="N", default=usable_cores(), help="default: all usable")
    add("--cache", type=Path, metavar="DIR", default=data.cache_directory(), help="for dumps")
    add("--goals", action="store_true", help="measure nothing: goals beside the latest results")
    add("-o", "--output", type=Path, metavar="FILE", help="where to write the JSON")
    add(
        "--update-readme",
        action=argparse.BooleanOptionalAction,
        help="put the tables into README.md (default: after a whole run, if it has the markers)",
    )
    asked = parser.parse_args(argv)
    for option in ("rows", "repeats", "threads"):
        value = getattr(asked, option)
        if value is not None and value < 1:
            parser.error(f"--{option} must be at least 1")
    return asked


def main(argv: list[str] | None = None) -> int:
    """Measure, print, write; return 1 where competitors disagree, 2 where one fails."""
    asked = arguments(argv)
    results = ROOT / "benchmarks" / "results"
    if asked.goals:
        latest = record.latest(results)
        if latest is None:
            _say(f"There are no results in {results}: run `make bench`.")
            return 2
        print(goals.table(latest), end="")
        return 0
    partial = bool(
        asked.quick or asked.rows or asked.only or asked.skip or asked.threads != usable_cores()
    )
    readme = ROOT / "README.md"
    if asked.update_readme and not report.has_markers(readme.read_text(encoding="utf-8")):
        _say(f"README.md has no {report.BEGIN} ... {report.END}")
        return 2
    machine, now = this_machine(), record.utc_now()
    _say(machine.line())
    if machine.load_average is not None and machine.load_average > BUSY:
        _say(f"The machine is busy (load average {machine.load_average:.1f}): times will be off.")
    try:
        measurements, differences = _measure_all(asked)
    except WorkerError as error:
        _say(str(error))
        return 2
    if not measurements:
        _say("No competitor matches.")
        return 2

    content = record.as_json(measurements, machine, now)
    tables = report.markdown(measurements, machine, agreed=not differences)
    if not partial:
        with_growth = {**content, "growth": record.latest_growth(results)}
        tables = f"{report.GOALS_TITLE}\n\n{goals.table(with_growth)}\n{tables}"
    print(tables, end="")
    path = asked.output or (results / "local" if partial else results) / record.file_name(
        machine, now
    )
    record.write_json(path, content)
    _say(f"Written to {path}")
    if differences:
        return 1
    text = readme.read_text(encoding="utf-8")
    unless_told = not partial and report.has_markers(text)
    if asked.update_readme or (asked.update_readme is None and unless_told):
        readme.write_text(report.with_tables(text, tables), encoding="utf-8")
        _say("README.md has the new tables.")
    return 0


def _measure_all(asked: argparse.Namespace) -> tuple[list[Measurement], list[str]]:
    """Measure what was asked for, one case and number of classes after the other."""
    rows = asked.rows or (QUICK_ROWS if asked.quick else ROWS)
    repeats = asked.repeats or (1 if asked.quick else None)
    measurements, differences = [], []
    groups = [(case, classes) for case in CASES.values() for classes in case.classes]
    with FloorMeter(asked.threads, asked.quick) as meter:
        for case, classes in groups:
            entries = workloads(case, classes, rows, asked.threads, asked.cache, _wanted(asked))
            found = measure(entries, repeats or case.repeats, meter, _say)
            for text in disagreements(found):
                _say(f"DISAGREEMENT: {text}")
                differences.append(text)
            measurements += found
    return measurements, differences


def _wanted(asked: argparse.Namespace) -> Callable[[str], bool]:
    def wanted(label: str) -> bool:
        chosen = asked.only is None or any(fnmatchcase(label, p) for p in asked.only)
        return chosen and not any(fnmatchcase(label, p) for p in asked.skip)

    return wanted


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())

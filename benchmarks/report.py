"""Measurements as a Markdown table for people, and as JSON for the record."""

from __future__ import annotations

import importlib.metadata
import json
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.cases import CASES, DUMP, EPOCHS
from benchmarks.machine import Machine
from benchmarks.measure import Measurement

SCHEMA_VERSION = 1
BEGIN, END = "<!-- benchmarks -->", "<!-- /benchmarks -->"
PACKAGES = ("fastdiv", "numba", "numpy", "pyarrow")  # what fastdiv stands on

HEAD = (
    "| | computes | million rows/s | fastdiv is faster by | CPU ns/row | GB/s | peak MB |",
    "|---|---|--:|--:|--:|--:|--:|",
)
NOTES = """\
Medians, the best call in brackets. Competitors take turns, each in a process of its own. CPU time
is that of all threads. GB/s counts what the work itself has to move once: logits, labels, epochs
and (fastdiv) ids in, as they are in memory, and the outputs it makes; not what an implementation
moves besides. Peak memory is that of the whole process, libraries and data in memory included,
over all calls, in brackets after the first."""
AGREE = "All agree on the mean loss to 1e-5 and on the accuracy exactly."


def markdown(measurements: list[Measurement], machine: Machine, agreed: bool) -> str:
    """Return one table a case, what the columns mean, and the machine."""
    lines = []
    for case in CASES.values():
        for classes in case.classes:
            mine = [
                m
                for m in measurements
                if (m.workload.case, m.workload.classes) == (case.name, classes)
                and m.skipped is None
            ]
            if mine:
                lines += [f"**{case.title}: {_size(mine[0])}**", "", *_table(mine), ""]
    lines += _skipped(measurements)
    threads = {m.workload.threads for m in measurements}
    versions = {name: importlib.metadata.version(name) for name in PACKAGES}
    for m in measurements:
        versions.update(m.versions)
    lines += [
        NOTES,
        AGREE if agreed else "**They do not all agree on loss and accuracy.**",
        "",
        f"{', '.join(str(t) for t in sorted(threads))} threads each. {machine.line()}; "
        + ", ".join(f"{name} {version}" for name, version in versions.items())
        + ".",
    ]
    return "\n".join(lines) + "\n"


def _size(m: Measurement) -> str:
    if m.workload.case == DUMP.name:
        rows = f"{m.workload.rows // EPOCHS:,}"
        return f"{rows} samples × {m.workload.classes} classes × {EPOCHS} epochs"
    return f"{m.workload.rows:,} rows × {m.workload.classes} classes"


def _table(measurements: list[Measurement]) -> list[str]:
    first = CASES[measurements[0].workload.case].competitors[0].name
    ours = next((m for m in measurements if m.workload.competitor == first), None)
    return [*HEAD, *(_row(m, ours) for m in measurements)]


def _row(m: Measurement, ours: Measurement | None) -> str:
    cells = (
        f"**{_name(m)}**" if m is ours else _name(m),
        m.workload.entry().computes,
        f"{_number(m.rows_per_s / 1e6)} ({_number(m.best_rows_per_s / 1e6)})",
        f"{_number(ours.rows_per_s / m.rows_per_s)}×" if ours and m is not ours else "",
        _number(m.cpu_ns_per_row),
        _number(m.gb_per_s),
        f"{m.peak_bytes / 1e6:,.0f} ({m.first_peak_bytes / 1e6:,.0f})",
    )
    return f"| {' | '.join(cells)} |"


def _name(m: Measurement) -> str:
    """Name libraries with their versions; what tells two entries of one apart is what it computes.

    "torch.compile, two" becomes "torch.compile 2.13.0".
    """
    if len(m.versions) == 1:
        (version,) = m.versions.values()
        return f"{m.workload.competitor.partition(',')[0]} {version}"
    return " + ".join(f"{package} {version}" for package, version in m.versions.items())


def _number(x: float) -> str:
    """Write three significant digits, and all of those before the point."""
    return f"{x:,.0f}" if x >= 100 else f"{x:#.3g}".rstrip(".")


def _skipped(measurements: list[Measurement]) -> list[str]:
    reasons: dict[str, list[str]] = {}
    for m in measurements:
        if m.skipped is not None:
            reasons.setdefault(m.skipped, []).append(m.workload.label())
    lines = [f"Not measured ({why}): {', '.join(labels)}." for why, labels in reasons.items()]
    return [*lines, ""] if lines else []


def as_json(measurements: list[Measurement], machine: Machine, now: datetime) -> dict[str, Any]:
    """Return everything that was measured, plain and complete."""
    return {
        "schema_version": SCHEMA_VERSION,
        "utc": now.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "machine": asdict(machine),
        "packages": {name: importlib.metadata.version(name) for name in PACKAGES},
        "measurements": [_entry(m) for m in measurements],
    }


def _entry(m: Measurement) -> dict[str, Any]:
    w = m.workload
    entry = {
        "case": w.case,
        "competitor": w.competitor,
        "computes": w.entry().computes,
        "classes": w.classes,
        "rows": w.rows,
        "threads": w.threads,
    }
    if m.skipped is not None:
        return {**entry, "skipped": m.skipped}
    return {
        **entry,
        "versions": m.versions,
        "rows_per_s": round(m.rows_per_s, 1),
        "gb_per_s": round(m.gb_per_s, 4),
        "cpu_ns_per_row": round(m.cpu_ns_per_row, 3),
        "median_s": round(m.median_s, 6),
        "min_s": round(min(m.wall_s), 6),
        "wall_s": [round(s, 6) for s in m.wall_s],
        "cpu_s": [round(s, 6) for s in m.cpu_s],
        "first_peak_bytes": m.first_peak_bytes,
        "peak_bytes": m.peak_bytes,
        "epochs": m.epochs and {e: {"loss": v[0], "accuracy": v[1]} for e, v in m.epochs.items()},
    }


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a result file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def file_name(machine: Machine, now: datetime) -> str:
    """Return `<utc-date>-<cpu>.json`."""
    return f"{now:%Y-%m-%d}-{machine.slug()}.json"


def utc_now() -> datetime:
    """Return the time, as result files give it."""
    return datetime.now(UTC)


def has_markers(readme: str) -> bool:
    """Say whether a text has a place for the tables."""
    return 0 <= readme.find(BEGIN) < readme.find(END)


def with_tables(readme: str, tables: str) -> str:
    """Return the text with what stands between its markers replaced."""
    before, _, rest = readme.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{tables}{END}{after}"

"""Everything that was measured, plain and complete, as a JSON file."""

from __future__ import annotations

import importlib.metadata
import json
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.machine import Machine
from benchmarks.measure import Measurement

SCHEMA_VERSION = 3
PACKAGES = ("fastdiv", "numba", "numpy", "pyarrow")  # what fastdiv stands on


def versions(measurements: list[Measurement]) -> dict[str, str]:
    """Return the versions of what fastdiv stands on and of its peers."""
    found = {name: importlib.metadata.version(name) for name in PACKAGES}
    for m in measurements:
        found.update(m.versions)
    return found


def as_json(measurements: list[Measurement], machine: Machine, now: datetime) -> dict[str, Any]:
    """Return everything that was measured."""
    return {
        "schema_version": SCHEMA_VERSION,
        "utc": now.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "machine": asdict(machine),
        "packages": versions([]),
        "floors": _floors(measurements),
        "measurements": [_entry(m) for m in measurements],
    }


def _floors(measurements: list[Measurement]) -> list[dict[str, Any]]:
    """Return the floor of each case and number of classes, once."""
    of_case = {(m.workload.case, m.workload.classes): m for m in measurements if m.floor}
    return [_floor(m) for m in of_case.values()]


def _floor(m: Measurement) -> dict[str, Any]:
    w, floor = m.workload, m.floor
    assert floor is not None
    allowed = floor.rows_per_s(w)
    rows_per_s, limit = allowed or (None, None)
    return {
        "case": w.case,
        "classes": w.classes,
        "threads": w.threads,
        "read_gb_per_s": round(floor.read_bytes_per_s / 1e9, 3),
        "exps_per_s": round(floor.exps_per_s),
        "read_bytes_per_row": w.of_case.logit_bytes(w.classes) + w.of_case.reads_bytes,
        "exps_per_row": w.of_case.exponentials(w.classes),
        "rows_per_s": rows_per_s and round(rows_per_s, 1),
        "limit": limit,
        "read_bytes": floor.read_bytes,
        "read_s": [round(s, 6) for s in floor.read_s],
        "exponentials": floor.exponentials,
        "exp_s": [round(s, 6) for s in floor.exp_s],
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
        "best_rows_per_s": round(m.best_rows_per_s, 1),
        "gb_per_s": round(m.gb_per_s, 4),
        "share_of_floor": m.share_of_floor and round(m.share_of_floor, 5),
        "cpu_ns_per_row": round(m.cpu_ns_per_row, 3),
        "median_s": round(m.median_s, 6),
        "min_s": round(min(m.wall_s), 6),
        "wall_s": [round(s, 6) for s in m.wall_s],
        "cpu_s": [round(s, 6) for s in m.cpu_s],
        "first_peak_bytes": m.first_peak_bytes,
        "peak_bytes": m.peak_bytes,
        "found": m.found
        and {key: dict(zip(w.of_case.finds, v, strict=True)) for key, v in m.found.items()},
    }


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a result file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def latest(results: Path) -> dict[str, Any] | None:
    """Return the newest result file of a whole run, and with it what growth came to."""
    found = [json.loads(path.read_text(encoding="utf-8")) for path in results.glob("[0-9]*.json")]
    if not found:
        return None
    return {**max(found, key=lambda content: content["utc"]), "growth": latest_growth(results)}


def latest_growth(results: Path) -> dict[str, Any]:
    """Return the newest result of `benchmarks.growth`, empty where there is none."""
    files = (path.read_text(encoding="utf-8") for path in results.glob("growth-*.json"))
    return max(map(json.loads, files), key=lambda content: str(content["utc"]), default={})


def file_name(machine: Machine, now: datetime) -> str:
    """Return `<utc-date>-<cpu>.json`."""
    return f"{now:%Y-%m-%d}-{machine.slug()}.json"


def utc_now() -> datetime:
    """Return the time, as result files give it."""
    return datetime.now(UTC)

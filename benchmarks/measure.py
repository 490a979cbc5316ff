"""Runs the competitors of a case in turns, so that what else the machine does hits all alike."""

from __future__ import annotations

import contextlib
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from benchmarks.cases import Workload, floor_workloads

ROOT = Path(__file__).resolve().parents[1]
STARTED_AT_ONCE = 2
ENDS_WITHIN_S = 10.0  # a process that has been told to
ENOUGH_S = 3.0  # a competitor that has been timed for so long, three times at least, is done
LEAST_RUNS = 3
THREAD_SETTINGS = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "POLARS_MAX_THREADS",
    "NPROC",  # XLA's, which JAX runs on
)


@dataclass
class Measurement:
    """What one competitor took, or why there is nothing."""

    workload: Workload
    skipped: str | None = None
    wall_s: list[float] = field(default_factory=list)
    cpu_s: list[float] = field(default_factory=list)  # of all threads
    first_peak_bytes: int = 0  # after one call
    peak_bytes: int = 0  # after all
    versions: dict[str, str] = field(default_factory=dict)
    found: dict[str, tuple[float, float]] | None = None  # by epoch or cell, see `Case.finds`
    floor: Floor | None = None  # at the same time

    @property
    def median_s(self) -> float:
        """Seconds a call takes."""
        return statistics.median(self.wall_s)

    @property
    def rows_per_s(self) -> float:
        """Rows a second, by the median."""
        return self.workload.rows / self.median_s

    @property
    def best_rows_per_s(self) -> float:
        """Rows a second, by the shortest call."""
        return self.workload.rows / min(self.wall_s)

    @property
    def cpu_ns_per_row(self) -> float:
        """Processor time a row takes, all threads together."""
        return statistics.median(self.cpu_s) / self.workload.rows * 1e9

    @property
    def gb_per_s(self) -> float:
        """Bytes the work has to move once, a second."""
        return self.rows_per_s * self.workload.row_bytes() / 1e9

    @property
    def floor_rows_per_s(self) -> float | None:
        """Rows a second that the machine would have allowed, by the median."""
        allowed = self.floor and self.floor.rows_per_s(self.workload)
        return allowed[0] if allowed else None

    @property
    def share_of_floor(self) -> float | None:
        """Rows a second, of those that the machine would have allowed."""
        floor = self.floor_rows_per_s
        return self.rows_per_s / floor if floor else None


@dataclass(frozen=True)
class Floor:
    """What the machine could do while a case was measured."""

    read_s: list[float]  # of each call
    exp_s: list[float]
    read_bytes: int  # in a call
    exponentials: int

    @property
    def read_bytes_per_s(self) -> float:
        """Bytes read of memory in a second, by the median."""
        return self.read_bytes / statistics.median(self.read_s)

    @property
    def exps_per_s(self) -> float:
        """Exponentials taken of what is in cache in a second, by the median."""
        return self.exponentials / statistics.median(self.exp_s)

    def rows_per_s(self, workload: Workload) -> tuple[float, str] | None:
        """Return the most rows a second of a workload and what limits them, where there is one."""
        return workload.of_case.floor_rows_per_s(
            workload.classes, self.read_bytes_per_s, self.exps_per_s
        )


class WorkerError(Exception):
    """A competitor's process has failed; the text ends with what it said last."""


class Worker:
    """The process of one competitor, seen from outside."""

    def __init__(self, workload: Workload) -> None:
        threads = str(workload.threads)
        self.measurement = Measurement(workload)
        self._told_to_end = False
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed in `close`
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.worker"],
            cwd=ROOT,
            env={**os.environ, **dict.fromkeys(THREAD_SETTINGS, threads)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )

    def prepare(self) -> None:
        """Load the data and warm up."""
        answer = self._ask(json.dumps(self.measurement.workload.as_json()))
        self.measurement.skipped = answer.get("skip")
        self.measurement.first_peak_bytes = answer.get("first_peak_bytes", 0)

    @property
    def has_enough(self) -> bool:
        """Whether it has been timed for long: the others need not wait for it again."""
        wall_s = self.measurement.wall_s
        return len(wall_s) >= LEAST_RUNS and sum(wall_s) >= ENOUGH_S

    def run(self) -> None:
        """Time one more run."""
        answer = self._ask("run")
        self.measurement.wall_s += answer["wall_s"]
        self.measurement.cpu_s += answer["cpu_s"]

    def end(self) -> None:
        """Learn what the process found and took."""
        answer = self._ask("end")
        self.measurement.peak_bytes = answer["peak_bytes"]
        self.measurement.versions = answer["versions"]
        self.measurement.found = answer["found"]
        self._told_to_end = True

    def close(self) -> None:
        """End the process, whatever it is doing; one that is done removes its files first."""
        if self._told_to_end:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(ENDS_WITHIN_S)
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._errors):
            with contextlib.suppress(BrokenPipeError):  # what a dead process was not told
                if stream is not None:
                    stream.close()

    def _ask(self, command: str) -> dict[str, Any]:
        requests, answers = self._process.stdin, self._process.stdout
        if requests is None or answers is None:
            raise WorkerError("the process has no pipes")
        try:
            print(command, file=requests, flush=True)
            line = answers.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            self._process.wait()
            self._errors.seek(0)
            said = "\n".join(self._errors.read().splitlines()[-15:])
            label = self.measurement.workload.label()
            raise WorkerError(f"{label} ended with {self._process.returncode}:\n{said}")
        answer: dict[str, Any] = json.loads(line)
        return answer


class FloorMeter:
    """The processes that measure the floor, which live as long as a whole run."""

    def __init__(self, threads: int, quick: bool) -> None:
        self._workers = [Worker(workload) for workload in floor_workloads(threads, quick)]
        self._prepared = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._workers:
            worker.close()

    def run(self) -> None:
        """Time one more run of each."""
        for worker in self._workers:
            if not self._prepared:
                worker.prepare()
            worker.run()
        self._prepared = True

    def take(self) -> Floor:
        """Return what was measured since this was asked last."""
        read, exp = (worker.measurement for worker in self._workers)
        floor = Floor(read.wall_s, exp.wall_s, read.workload.rows, exp.workload.rows)
        read.wall_s, exp.wall_s = [], []
        return floor


def measure(
    workloads: list[Workload], repeats: int, meter: FloorMeter, say: Callable[[str], None]
) -> list[Measurement]:
    """Measure competitors: each warms up, then they and the floor take turns, one at a time."""
    workers = [Worker(workload) for workload in workloads]
    try:
        with ThreadPoolExecutor(STARTED_AT_ONCE) as pool:
            list(pool.map(Worker.prepare, workers))
        running = [worker for worker in workers if worker.measurement.skipped is None]
        for _ in range(repeats if running else 0):
            meter.run()
            for worker in running:
                if not worker.has_enough:
                    worker.run()
        for worker in running:
            worker.end()
    finally:
        for worker in workers:
            worker.close()
    if running:
        floor = meter.take()
        for worker in running:
            worker.measurement.floor = floor
    for worker in workers:
        m = worker.measurement
        share = f"{m.share_of_floor:.1%} of the floor" if m.share_of_floor else ""
        speed = m.skipped or f"{m.rows_per_s / 1e6:.2f} million rows/s, {share}"
        say(f"{m.workload.label()}: {speed}")
    return [worker.measurement for worker in workers]


def disagreements(measurements: list[Measurement]) -> list[str]:
    """Say where competitors of one case found different losses or shares."""
    found = [m for m in measurements if m.found is not None]
    texts = []
    for m in found[1:]:
        expected, values = found[0].found or {}, m.found or {}
        case = m.workload.of_case
        names = "(" + ", ".join(case.finds) + ")"
        for key in sorted(expected.keys() | values.keys()):
            one, other = expected.get(key), values.get(key)
            if one is None or other is None or not _same(one, other, case.tolerances):
                texts.append(
                    f"{m.workload.label()} found {names} {other} for {key}, "
                    f"{found[0].workload.competitor} {one}"
                )
    return texts


def _same(
    one: tuple[float, float], other: tuple[float, float], tolerances: tuple[float, float]
) -> bool:
    return all(
        math.isclose(x, y, rel_tol=tolerance)
        for x, y, tolerance in zip(one, other, tolerances, strict=True)
    )

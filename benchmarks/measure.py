"""Runs the competitors of a case in turns, so that what else the machine does hits all alike."""

from __future__ import annotations

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
from typing import Any

from benchmarks.cases import Workload

ROOT = Path(__file__).resolve().parents[1]
STARTED_AT_ONCE = 2
LOSS_TOLERANCE = 1e-5  # relative; peers average float32
THREAD_SETTINGS = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "POLARS_MAX_THREADS",
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
    epochs: dict[str, tuple[float, float]] | None = None  # loss, accuracy

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
        row_bytes = 4 * self.workload.classes + self.workload.entry().moves_bytes
        return self.rows_per_s * row_bytes / 1e9


class WorkerError(Exception):
    """A competitor's process has failed; the text ends with what it said last."""


class Worker:
    """The process of one competitor, seen from outside."""

    def __init__(self, workload: Workload) -> None:
        threads = str(workload.threads)
        self.measurement = Measurement(workload)
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
        self.measurement.epochs = answer["epochs"]

    def close(self) -> None:
        """End the process, whatever it is doing."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._errors):
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


def measure(
    workloads: list[Workload], repeats: int, say: Callable[[str], None]
) -> list[Measurement]:
    """Measure competitors: each warms up, then they take turns, one at a time."""
    workers = [Worker(workload) for workload in workloads]
    try:
        with ThreadPoolExecutor(STARTED_AT_ONCE) as pool:
            list(pool.map(Worker.prepare, workers))
        running = [worker for worker in workers if worker.measurement.skipped is None]
        for _ in range(repeats):
            for worker in running:
                worker.run()
        for worker in running:
            worker.end()
    finally:
        for worker in workers:
            worker.close()
    for worker in workers:
        m = worker.measurement
        speed = m.skipped or f"{m.rows_per_s / 1e6:.2f} million rows/s"
        say(f"{m.workload.label()}: {speed}")
    return [worker.measurement for worker in workers]


def disagreements(measurements: list[Measurement]) -> list[str]:
    """Say where competitors of one case found different losses or accuracies."""
    found = [m for m in measurements if m.epochs is not None]
    texts = []
    for m in found[1:]:
        expected, epochs = found[0].epochs or {}, m.epochs or {}
        for epoch in sorted(expected.keys() | epochs.keys()):
            one, other = expected.get(epoch), epochs.get(epoch)
            if one is None or other is None or not _same(one, other):
                texts.append(
                    f"{m.workload.label()} found (loss, accuracy) {other} in epoch {epoch}, "
                    f"{found[0].workload.competitor} {one}"
                )
    return texts


def _same(one: tuple[float, float], other: tuple[float, float]) -> bool:
    return math.isclose(one[0], other[0], rel_tol=LOSS_TOLERANCE) and one[1] == other[1]

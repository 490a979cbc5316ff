"""One competitor in a process of its own, so that its peak memory and its threads are its own.

Commands come in as lines, answers go out as one JSON object a line. ``{...workload...}`` first:
it is prepared and run once to warm up; the answer is the memory that took, or why it cannot be.
Then any number of ``run``, each answered with the times of one or more calls, and ``end``,
answered with what was computed and the memory it took: that is the end of the process, which then
removes what it has written.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import resource
import sys
import time
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from benchmarks.cases import Workload
from benchmarks.torch_peers import UnavailableError

CALLS_S = 0.1  # a run repeats short calls until they took as long as this


def main() -> None:
    """Answer commands until there are no more."""
    answers = _own_stdout()
    workload = Workload(**json.loads(sys.stdin.readline()))
    try:
        call = workload.prepare()
        result = call()
    except ModuleNotFoundError as error:
        return _answer(answers, skip=f"{error.name} is not installed")
    except UnavailableError as error:
        return _answer(answers, skip=str(error))
    _answer(answers, first_peak_bytes=peak_bytes())
    for command in sys.stdin:
        if command.strip() == "run":
            wall_s: list[float] = []
            cpu_s: list[float] = []
            while sum(wall_s) < CALLS_S:
                cpu, wall = time.process_time(), time.perf_counter()
                result = call()
                wall_s.append(time.perf_counter() - wall)
                cpu_s.append(time.process_time() - cpu)
            _answer(answers, wall_s=wall_s, cpu_s=cpu_s)
        else:
            peak = peak_bytes()  # before the checks below take memory of their own
            versions = {p: importlib.metadata.version(p) for p in workload.entry().packages}
            return _answer(answers, peak_bytes=peak, found=found(result), versions=versions)
    return None


def found(result: Any) -> dict[int, tuple[float, float]] | None:
    """Return what is compared: by epoch (loss, accuracy), by cell (change in loss, share).

    A competitor returns that, or losses and correctness or their means, or a call that does.
    """
    if callable(result):
        result = result()
    if isinstance(result, tuple):
        loss, correct = (np.mean(np.asarray(part), dtype=np.float64) for part in result)
        return {0: (float(loss), float(correct))}
    return result if isinstance(result, dict) else None


def peak_bytes() -> int:
    """Return the most memory that this process, or one that it started, has had resident.

    `ru_maxrss` on Linux counts what the parent had when it forked; the kernel's own high-water
    mark starts afresh with the program.
    """
    unit = 1 if sys.platform == "darwin" else 1024
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * unit
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return max(int(line.split()[1]) * 1024, children)
    return max(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit, children)


def _own_stdout() -> TextIO:
    """Keep stdout for answers; whatever libraries print goes to stderr."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    return answers


def _answer(answers: TextIO, **values: Any) -> None:
    print(json.dumps(values), file=answers)


if __name__ == "__main__":
    main()

"""Trial: how fast each backend is with data of the host on this machine; kept once measured.

Whether a GPU is faster hangs on how wide the way to it is, on its memory and on how many threads
the processor has: nothing tells but trying.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from fastdiv.errors import UsageError
from fastdiv_kernels.places import cache_of_the_user, write_whole


@dataclass(frozen=True, slots=True)
class Case:
    """One number of classes."""

    classes: int
    rows_per_s: dict[str, float]  # backend -> rows that it scores and totals

    @property
    def gain(self) -> float:
        """How many times as fast as the CPU the GPU was."""
        return self.rows_per_s["cuda"] / self.rows_per_s["cpu"]


@dataclass(frozen=True, slots=True)
class Trial:
    """What was measured, with what."""

    version: str  # of fastdiv
    on: dict[str, str]  # backend -> what it ran on
    threads: int
    cases: Sequence[Case]

    def verdict(self) -> tuple[str, str]:
        """Return the backend that is faster in every case, else the CPU, and why."""
        gains = [case.gain for case in self.cases]
        told = ", ".join(f"{case.gain:.2g} with {case.classes} classes" for case in self.cases)
        name = "cuda" if min(gains) > 1 else "cpu"
        return name, f"with data of the host the GPU was as fast as the CPU times {told}"


def path_of_trial() -> Path | None:
    """Return where a trial is kept; None where there is no place for it."""
    directory = cache_of_the_user()
    return None if directory is None else directory / "trial.json"


def kept_trial() -> Trial | None:
    """Return the trial of this machine that was kept, None where there is none that can be read."""
    path = path_of_trial()
    try:
        found = json.loads(path.read_text()) if path is not None else None
        if found is None:
            return None
        cases = [
            Case(int(c["classes"]), {b: float(c["rows_per_s"][b]) for b in ("cpu", "cuda")})
            for c in found["cases"]
        ]
        on = {b: str(found["on"][b]) for b in ("cpu", "cuda")}
        trial = Trial(str(found["version"]), on, int(found["threads"]), cases)
        usable = cases and all(min(c.rows_per_s.values()) > 0 for c in cases)
        return trial if usable else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None  # as if it had not been measured, which is said


def keep_trial(trial: Trial) -> Path:
    """Write a trial down for later processes; return where."""
    path = path_of_trial()
    if path is None:
        raise UsageError("there is no home directory to keep the trial in: set XDG_CACHE_HOME")
    try:
        write_whole(path, json.dumps(asdict(trial), indent=1).encode() + b"\n")
    except OSError as error:
        raise UsageError(f"the trial cannot be kept in {path}: {error}") from None
    return path

"""The machine that was measured on, as a result file and a reader need it."""

from __future__ import annotations

import os
import platform
import re
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Machine:
    """Hardware, system and how busy it was when the run began."""

    cpu: str
    vectors: str
    cores: int
    memory_gb: float
    system: str
    python: str
    load_average: float | None

    def line(self) -> str:
        """Describe it in one line."""
        return (
            f"{self.cpu} ({self.vectors}), {self.cores} cores, {self.memory_gb:.0f} GB, "
            f"{self.system}, Python {self.python}"
        )

    def slug(self) -> str:
        """Name the processor in a form fit for file names."""
        return re.sub(r"[^a-z0-9]+", "-", self.cpu.lower()).strip("-")


def usable_cores() -> int:
    """Return how many processors this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def this_machine() -> Machine:
    """Look at the machine."""
    info = _cpuinfo()
    flags = info.get("flags", "").split()
    cpu = info.get("model name") or platform.processor() or platform.machine()
    if "cpu family" in info:
        cpu += f" family {info['cpu family']} model {info['model']}"
    return Machine(
        cpu=cpu,
        vectors=next((v for f, v in (("avx512f", "AVX-512"), ("avx2", "AVX2")) if f in flags), "-"),
        cores=usable_cores(),
        memory_gb=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9,
        system=_system(),
        python=platform.python_version(),
        load_average=os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
    )


def _cpuinfo() -> dict[str, str]:
    path = Path("/proc/cpuinfo")
    if not path.exists():
        return {}
    first, _, _ = path.read_text().partition("\n\n")
    pairs = (line.partition(":") for line in first.splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}


def _system() -> str:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except OSError:
        return f"{platform.system()} {platform.release()}"

"""The CUDA C++ sources beside this file, and what a compiler is given."""

from __future__ import annotations

import functools
import re
from pathlib import Path

HERE = Path(__file__).parent
OPTIONS = ("--std=c++17", "-default-device")
INCLUDED = re.compile(r'^#include "(\w+\.cuh)"$', re.MULTILINE)
KERNEL = re.compile(
    r'^extern "C" __global__ void\s+(?:__launch_bounds__\([^)]*\)\s*)?(\w+)\(', re.M
)


@functools.cache
def text(name: str) -> str:
    """Return a source as one text: each header stands where it is included first."""
    done: set[str] = set()

    def whole(file: str) -> str:
        def header(found: re.Match[str]) -> str:
            if found[1] in done:
                return ""
            done.add(found[1])
            return whole(found[1])

        return INCLUDED.sub(header, (HERE / file).read_text())

    return whole(f"{name}.cu")


def names() -> list[str]:
    """Return the names of all sources."""
    return sorted(path.stem for path in HERE.glob("*.cu"))


def kernels(name: str) -> list[str]:
    """Return the names of the kernels in a source."""
    return KERNEL.findall(text(name))

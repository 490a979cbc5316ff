"""Doctor: what fastdiv runs on here, as a dict that JSON can hold."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from contextlib import suppress
from typing import Any

import fastdiv
from fastdiv.backends import BACKENDS, chosen, examination_of
from fastdiv.scoring import usable_threads

PACKAGES = (
    "numpy", "numba", "llvmlite", "pyarrow", "cupy-cuda13x", "cupy-cuda12x", "cupy", "torch",
    "polars", "pandas",
)  # fmt: skip


def examination() -> dict[str, Any]:
    """Return versions, processors, backends with all that they know of this machine, and `auto`."""
    name, reason = chosen()
    return {
        "fastdiv": fastdiv.__version__,
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "platform": platform.platform(),
        "packages": _packages(),
        "threads": {"usable": usable_threads(None), "processors": os.cpu_count()},
        "backends": {backend: examination_of(backend) for backend in BACKENDS},
        "auto": {"backend": name, "because": reason},
    }


def _packages() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        with suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found

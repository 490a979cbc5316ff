"""What `fastdiv doctor` shows, as lines of text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from fastdiv.markup import printable
from fastdiv.plan import human_bytes

WIDTH = 12
MOST = 2_000  # characters of a line, which are there to be copied


def lines(found: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines of an examination; see `fastdiv.doctor`."""
    packages = ", ".join(f"{name} {version}" for name, version in found["packages"].items())
    threads = found["threads"]
    yield _line("fastdiv", f"{found['fastdiv']}, {found['python']}, {found['platform']}")
    yield _line("packages", packages)
    yield _line(
        "threads", f"{threads['usable']} usable of {threads['processors']} processors of the system"
    )
    for name, backend in found["backends"].items():
        if not backend["runs"]:
            yield _line(name, f"does not run here: {backend['because']}")
            continue
        yield _line(name, backend["on"])
        if "cache" in backend:
            yield _line("", _cache(backend["cache"]))
        if "devices" in backend:
            yield _line("", f"CUDA {backend['cuda']}, of the driver {backend['driver']}")
        for i, device in enumerate(backend.get("devices", ())):
            yield _line(
                "",
                f"device {i}: {device['name']}, {human_bytes(device['memory_bytes'])}, compute "
                f"capability {device['compute_capability']}, {device['multiprocessors']} "
                "multiprocessors",
            )
    yield _line("auto", f"{found['auto']['backend']}: {found['auto']['because']}")


def _cache(cache: Mapping[str, Any]) -> str:
    kept = f"{cache['kernels']} kernels, {human_bytes(cache['bytes'])}"
    closed = "" if cache["writable"] else "; it cannot be written to (see NUMBA_CACHE_DIR)"
    return f"machine code in {cache['directory']}: {kept}{closed}"


def _line(what: str, told: str) -> str:
    return f"{what:<{WIDTH}}{printable(told, MOST)}"

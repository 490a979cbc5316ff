"""Names of backends and the modules behind them: the one place that knows which there are."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, cast

from fastdiv.errors import UsageError

if TYPE_CHECKING:
    from fastdiv_kernels.contract import Backend

BACKENDS = {
    "cpu": "fastdiv_kernels.cpu",
    "cuda": "fastdiv_kernels.cuda",
    "reference": "fastdiv_kernels.reference",
}
CHOICES = ("auto", *BACKENDS)


def resolve(name: str = "auto") -> Backend:
    """Load the backend of a name; `auto` takes the CPU. Nothing falls back silently."""
    if name == "auto":
        name, _ = chosen()
    if name not in BACKENDS:
        raise UsageError(f"no backend is called {name!r}: choose one of {', '.join(CHOICES)}")
    why = why_not(name)
    if why is not None:
        raise UsageError(f"backend {name!r} cannot run here: {why}")
    module = _module(name)
    return cast("Backend", module.load() if hasattr(module, "load") else module)


def why_not(name: str) -> str | None:
    """Return why a backend cannot run here and what to do, None where it can."""
    module = _module(name)
    return cast("str | None", module.why_not()) if hasattr(module, "why_not") else None


def examination_of(name: str) -> dict[str, Any]:
    """Return whether a backend runs here, on what, and what it knows of this machine."""
    why = why_not(name)
    if why is not None:
        return {"runs": False, "because": why}
    module = _module(name)
    known = module.examination() if hasattr(module, "examination") else {}
    return {"runs": True, "on": resolve(name).describe(), **known}


def chosen() -> tuple[str, str]:
    """Return which backend `auto` takes, and why."""
    return "cpu", "data in the memory of the host is scored there, unless --backend says otherwise"


def _module(name: str) -> Any:
    return importlib.import_module(BACKENDS[name])

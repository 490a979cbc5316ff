"""Names of backends and the modules behind them: the one place that knows which there are."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, cast

import fastdiv
from fastdiv.errors import UsageError
from fastdiv.trial import kept_trial

if TYPE_CHECKING:
    from fastdiv_kernels.contract import Backend

BACKENDS = {
    "cpu": "fastdiv_kernels.cpu",
    "cuda": "fastdiv_kernels.cuda",
    "reference": "fastdiv_kernels.reference",
}
CHOICES = ("auto", *BACKENDS)
TRY = "`fastdiv doctor --measure` does"
UNTRIED = "nobody has tried whether this GPU is faster with data of the host"


def resolve(name: str = "auto") -> Backend:
    """Load the backend of a name; `auto` takes the CPU. Nothing falls back silently."""
    if name == "auto":
        name = "cpu"
    if name not in BACKENDS:
        raise UsageError(f"no backend is called {name!r}: choose one of {', '.join(CHOICES)}")
    why = why_not(name)
    if why is not None:
        raise UsageError(f"backend {name!r} cannot run here: {why}")
    return load(name)


def load(name: str) -> Backend:
    """Load a backend of which it is known that it runs here."""
    module = _module(name)
    return cast("Backend", module.load() if hasattr(module, "load") else module)


def resolve_for_dumps(name: str = "auto") -> Backend:
    """Load the backend of a name; `auto` takes the one that a trial here found to be faster."""
    return resolve(chosen()[0] if name == "auto" else name)


def resolve_for_run(name: str) -> Backend:
    """Load the backend that a run was made with, the CPU where that cannot run here.

    What is stored was scored by it; totals of that are the same, but for what temperatures
    change, which is to 1e-6.
    """
    return resolve("cpu" if name in BACKENDS and why_not(name) is not None else name)


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
    """Return which backend `auto` takes for dumps and data of the host, and why.

    Data that lies on a GPU is scored there. CuPy is not imported unless a trial speaks for it.
    """
    trial = kept_trial()
    if trial is None:
        return "cpu", f"{UNTRIED}: {TRY}"
    if trial.version != fastdiv.__version__:
        return "cpu", f"{UNTRIED} since fastdiv {trial.version}: {TRY}"
    name, why = trial.verdict()
    if name == "cpu":
        return name, why
    missing = why_not(name)
    if missing is not None:
        return "cpu", f"{why}, but it cannot run any more: {missing}"
    if resolve(name).describe() != trial.on[name]:
        return "cpu", f"{UNTRIED}, but another: {TRY}"
    return name, why


def _module(name: str) -> Any:
    return importlib.import_module(BACKENDS[name])

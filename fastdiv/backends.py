"""Names of backends and the modules behind them: the one place that knows which there are."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, cast

from fastdiv.errors import UsageError

if TYPE_CHECKING:
    from fastdiv_kernels.contract import Backend

BACKENDS = {
    "cpu": "fastdiv_kernels.cpu",
    "reference": "fastdiv_kernels.reference",
}
CHOICES = ("auto", "cpu", "cuda", "reference")


def resolve(name: str = "auto") -> Backend:
    """Load the backend of a name; `auto` takes the CPU. Nothing falls back silently."""
    if name == "auto":
        name = "cpu"
    if name == "cuda":
        raise UsageError("backend 'cuda' is not built yet: use --backend cpu")
    if name not in BACKENDS:
        raise UsageError(f"no backend is called {name!r}: choose one of {', '.join(CHOICES)}")
    return cast("Backend", importlib.import_module(BACKENDS[name]))

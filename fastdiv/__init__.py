"""fastdiv: why validation loss and accuracy disagree, measured sample by sample."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from fastdiv.batch import Scores
    from fastdiv.conversion import convert
    from fastdiv.engine import analyze
    from fastdiv.errors import DataError, FastdivError, UsageError
    from fastdiv.explain.explanation import Explanation
    from fastdiv.rereading.reread import Reread, reread
    from fastdiv.run import Run, load
    from fastdiv.scoring import score
    from fastdiv.tracking.tracker import EpochResult, Tracker
    from fastdiv.writer import PredictionWriter

__all__ = [
    "DataError",
    "EpochResult",
    "Explanation",
    "FastdivError",
    "PredictionWriter",
    "Reread",
    "Run",
    "Scores",
    "Tracker",
    "UsageError",
    "__version__",
    "analyze",
    "convert",
    "load",
    "reread",
    "score",
]

_HOME = {
    "DataError": "errors",
    "EpochResult": "tracking.tracker",
    "Explanation": "explain.explanation",
    "FastdivError": "errors",
    "PredictionWriter": "writer",
    "Reread": "rereading.reread",
    "Run": "run",
    "Scores": "batch",
    "Tracker": "tracking.tracker",
    "UsageError": "errors",
    "analyze": "engine",
    "convert": "conversion",
    "load": "run",
    "reread": "rereading.reread",
    "score": "scoring",
}


def __getattr__(name: str) -> Any:
    """Load a public name when it is first used, so that importing fastdiv stays cheap."""
    if name not in _HOME:
        raise AttributeError(f"module 'fastdiv' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"fastdiv.{_HOME[name]}"), name)
    globals()[name] = value
    return value

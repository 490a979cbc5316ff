"""Why loss and accuracy moved between two epochs: the verdict alone, and all that a user gets.

Each function takes the `Arrays` of the first epoch, from which the second is made, and returns
what is timed: a call that returns ``{1: (change in loss, change in accuracy)}``.
"""

from __future__ import annotations

import atexit
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.scan import two_epochs

if TYPE_CHECKING:
    import fastdiv
    from benchmarks.data import Arrays
    from fastdiv.explain.explanation import Explanation

Changes = dict[int, tuple[float | None, float | None]]


def explain_pair(arrays: Arrays) -> Callable[[], Changes]:
    """Explain what is in memory, in the order of ids."""
    from fastdiv.explain.verdict import explain as verdict

    pair = _analyze(arrays).split().pair(0, 1)
    return lambda: _changes(verdict.explain_pair(pair))


def split_view(arrays: Arrays) -> Callable[[], Changes]:
    """Explain a saved run, of which nothing has been read."""
    import fastdiv

    directory = tempfile.mkdtemp()
    atexit.register(shutil.rmtree, directory)
    saved = Path(directory) / "run"
    _analyze(arrays).save(saved)
    return lambda: _changes(fastdiv.load(saved).split().explain(0, 1))


def _analyze(arrays: Arrays) -> fastdiv.Run:
    import fastdiv

    return fastdiv.analyze(two_epochs(arrays), kind="logits", threads=arrays.threads)


def _changes(explanation: Explanation) -> Changes:
    return {1: (explanation.delta_loss, explanation.delta_accuracy)}

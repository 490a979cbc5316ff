"""Doctor: what fastdiv runs on here, as a dict that JSON can hold; and a trial of its backends."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import numpy as np

import fastdiv
from fastdiv.backends import BACKENDS, chosen, examination_of, resolve, why_not
from fastdiv.batch import Batch, Chunk
from fastdiv.errors import UsageError
from fastdiv.scorer import Scorer
from fastdiv.scoring import usable_threads
from fastdiv.trial import Case, Trial
from fastdiv_kernels.contract import Kind

PACKAGES = (
    "numpy", "numba", "llvmlite", "pyarrow", "cupy-cuda13x", "cupy-cuda12x", "cupy", "torch",
    "polars", "pandas",
)  # fmt: skip
TRIED = (10, 1000)  # classes
TRIAL_BYTES = 256 << 20  # of predictions
BATCH_BYTES = 16 << 20
DIFFERENT = 8  # batches, more than caches hold
TURNS = 3


def examination() -> dict[str, Any]:
    """Return versions, processors, backends with all that they know of this machine, and `auto`."""
    backends = {backend: examination_of(backend) for backend in BACKENDS}
    name, reason = chosen() if backends["cuda"]["runs"] else ("cpu", "no GPU can be used here")
    return {
        "fastdiv": fastdiv.__version__,
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "platform": platform.platform(),
        "packages": _packages(),
        "threads": {"usable": usable_threads(None), "processors": os.cpu_count()},
        "backends": backends,
        "auto": {"backend": name, "because": reason},
    }


def _packages() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        with suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found


def try_backends() -> Trial:
    """Measure how fast CPU and GPU score and total predictions in the memory of the host.

    Each takes batches as `analyze` does, on all threads; the best of some turns counts.

    Raises
    ------
    UsageError
        Where there is no GPU to be tried.
    """
    why = why_not("cuda")
    if why is not None:
        raise UsageError(f"there is nothing to try: backend 'cuda' cannot run here: {why}")
    threads = usable_threads(None)
    kernels = {name: resolve(name) for name in ("cpu", "cuda")}
    cases = []
    for classes in TRIED:
        works = {name: _work(of, classes, threads) for name, of in kernels.items()}
        best = dict.fromkeys(works, 0.0)
        for turn in range(1 + TURNS):
            for name, work in works.items():
                began = time.perf_counter()
                rows = work()
                if turn:  # in the first one code is compiled
                    best[name] = max(best[name], rows / (time.perf_counter() - began))
        cases.append(Case(classes, best))
    on = {name: of.describe() for name, of in kernels.items()}
    return Trial(fastdiv.__version__, on, threads, cases)


def _work(kernels: Any, classes: int, threads: int) -> Callable[[], int]:
    """Return what scores some batches and says how many rows they have."""
    rows = BATCH_BYTES // (4 * classes)
    x = np.random.default_rng(0).standard_normal((rows, classes), np.float32)
    batches = [x.copy() for _ in range(DIFFERENT)]
    labels = np.zeros(rows, np.int32)
    scorer = Scorer(kernels, Kind.LOGITS, x.dtype, classes, rows, None, True)

    def score(i: int) -> int:
        chunk = Chunk(0, i, rows, None, 0)
        pieces = [batches[i % DIFFERENT]]
        scored = scorer.score(Batch(chunk, 0, pieces, labels, None, 0, None, None, x.nbytes))
        scorer.give_back(scored)
        return rows

    def work() -> int:
        with ThreadPoolExecutor(threads) as pool:
            return sum(pool.map(score, range(max(1, TRIAL_BYTES // BATCH_BYTES))))

    return work

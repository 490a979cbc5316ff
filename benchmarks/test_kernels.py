"""The kernels one by one: `pytest benchmarks --benchmark-enable`.

Shapes stand for regimes of the CPU kernels: a tile of rows that moves more outputs than logits
(C = 2), one bound by arithmetic (10), rows worked along (100), and rows that stream from memory
(1,000). One thread, arrays larger than the caches.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np
import pytest

from benchmarks import data
from fastdiv.backends import resolve
from fastdiv.batch import Scores
from fastdiv.states import Distributions
from fastdiv.stored import flags_of
from fastdiv_kernels import exact
from fastdiv_kernels.contract import (
    BFLOAT16,
    BINS,
    DYNAMICS,
    GRID,
    Cell,
    Count,
    Kind,
    LossSum,
    PairCount,
    TallySum,
    profile_width,
)

VALUES = 1 << 23  # logits in an array, 32 MB in float32
SAMPLES = 1 << 20  # of which two epochs are stored
CLASSES = 10

kernels = resolve("cpu")


def scored(x: Any, y: Any, kind: Kind = Kind.LOGITS) -> Scores:
    scores = Scores.empty(len(x), x.dtype)
    kernels.score(x, y, kind, *scores.arrays())
    return scores


@pytest.fixture(scope="module")
def stored():
    """Return labels, and (scores, flags) of two epochs."""
    y = data.labels(SAMPLES, CLASSES)
    z = data.logits(y, CLASSES)
    epochs = []
    for epoch in range(2):
        if epoch:
            data.next_epoch(z, seed=2)
        scores = scored(z, y)
        epochs.append((scores, flags_of(scores)))
    return y, epochs


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
@pytest.mark.parametrize("c", [2, 10, 100, 1000])
@pytest.mark.parametrize("kind", ["logits", "probs"])
def test_score(benchmark, kind, c, dtype):
    n = VALUES // c
    y = data.labels(n, c)
    x = data.logits(y, c)
    if kind == "probs":
        x -= x.max(1, keepdims=True)
        np.exp(x, out=x)
        x /= x.sum(1, keepdims=True)
    bfloat16 = dtype == "bfloat16"
    x = (x.view(np.uint32) >> 16).astype(BFLOAT16) if bfloat16 else x.astype(dtype)
    which = Kind[kind.upper()]
    scores = scored(x, y, which)
    benchmark(kernels.score, x, y, which, *scores.arrays())
    assert not scores.status.any() or kind == "probs" or x.itemsize == 2
    assert scores.correct.mean() > 0.5


@pytest.mark.parametrize("c", [10, 100, 1000])
def test_profile(benchmark, c):
    y = data.labels(VALUES // c, c)
    x = data.logits(y, c)
    profile = np.empty((len(y), profile_width(c)), np.float16)
    benchmark(kernels.profile, x, Kind.LOGITS, scored(x, y).predicted, profile)
    assert profile.any(axis=1).all()


@pytest.mark.parametrize("c", [2, 10, 100])
def test_tally_temperatures(benchmark, c):
    y = data.labels(VALUES // c, c)
    x = data.logits(y, c)
    scores = scored(x, y)
    profile = np.empty((len(y), profile_width(c)), np.float16)
    if c > 2:
        kernels.profile(x, Kind.LOGITS, scores.predicted, profile)
    columns = (scores.loss, scores.margin, flags_of(scores), profile)
    counts, sums = np.zeros(1, np.int64), np.zeros((2 * len(GRID), exact.LIMBS_FIXED), np.int64)
    benchmark(kernels.tally_temperatures, *columns, c, counts, sums)
    assert counts[0] > 0
    assert counts[0] % len(y) == 0


def test_tally(benchmark, stored):
    _, ((scores, flags), _) = stored
    totals = (
        np.zeros(len(Count), np.int64),
        np.zeros((BINS, 2), np.int64),
        exact.zeros(len(LossSum), scores.loss.dtype),
        exact.zeros(TallySum.BIN_CONFIDENCE + BINS, np.dtype(np.float32)),
    )
    columns = (scores.loss, scores.confidence, scores.margin, scores.brier, flags)
    benchmark(kernels.tally, *columns, *totals)
    assert totals[0][Count.VALID] % SAMPLES == 0


def test_tally_classes(benchmark, stored):
    y, ((scores, flags), _) = stored
    counts = np.zeros((CLASSES, 4), np.int64)
    sums = exact.zeros(CLASSES, scores.loss.dtype)
    benchmark(kernels.tally_classes, scores.loss, scores.predicted, y, flags, counts, sums)
    assert counts[:, 0].sum() % SAMPLES == 0


def test_distributions(benchmark, stored):
    _, ((scores, flags), _) = stored
    found = Distributions.zero(scores.loss.dtype)
    totals = [getattr(found, field.name) for field in fields(found)]
    columns = (scores.loss, scores.confidence, scores.margin, flags)
    benchmark(kernels.distributions, *columns, *totals)
    assert found.counts[0] % SAMPLES == 0


def test_transitions(benchmark, stored):
    y, epochs = stored
    counts = np.zeros(len(PairCount), np.int64)
    sums = exact.zeros(len(Cell), epochs[0][0].loss.dtype)
    columns = [a for scores, flags in epochs for a in (scores.loss, scores.predicted, y, flags)]
    benchmark(kernels.transitions, *columns, counts, sums)
    assert counts.sum() % SAMPLES == 0


def test_dynamics(benchmark, stored):
    y, ((scores, flags), _) = stored
    records = np.zeros(SAMPLES, DYNAMICS)
    benchmark(kernels.dynamics, 0, scores.loss, scores.margin, scores.predicted, y, flags, records)
    assert (records["n_epochs"] > 0).all()

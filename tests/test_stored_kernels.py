"""Kernels over stored scores equal the reference to the last bit, at any size and any number."""

import numpy as np
import pytest

from fastdiv_kernels import exact, reference
from fastdiv_kernels.contract import (
    BINS,
    CONFIDENCE_EDGES,
    CORRECT,
    DYNAMICS,
    LOSS_EDGES,
    MARGIN_EDGES,
    PRESENT,
    Cell,
    Count,
    LossSum,
    PairCount,
    TallySum,
)

F4 = np.dtype(np.float32)
SIZES = [0, 1, 3, 63, 64, 65, 511, 512, 513, 1030]  # about a group and a tile of rows
CLASSES = [2, 10, 64, 65, 300]


def numbers(rng, n, dtype, how):
    """Draw n numbers >= 0: as in training, of every size the dtype has, or all one of these."""
    info = np.finfo(dtype)
    if how == "usual":
        x = rng.exponential(size=n) * 10.0 ** rng.integers(-9, 2, n)
    elif how == "any":
        x = np.ldexp(1 + rng.random(n), rng.integers(info.minexp - info.nmant, info.maxexp - 1, n))
    else:
        edges = [0.0, info.max, info.tiny, info.smallest_subnormal, np.inf, 1.0, 2.0**-61]
        edges += [2.0**-47, 2.0**-32, 2.0**-53, 2.0**-14, 64.0, 255.99998, 256.0, 2.0**19]
        x = np.nextafter(np.array(edges, dtype), np.array(1, dtype))
        x = rng.choice(np.concatenate([x, np.array(edges, dtype)]), n)
    return x.astype(dtype)


def scores(n, c, dtype, how, seed, all_valid=False):
    """Draw stored scores of n samples: a dict of arrays (n,)."""
    rng = np.random.default_rng(seed)
    labels, predicted = (rng.integers(0, c, n).astype(np.int32) for _ in range(2))
    predicted = np.where(rng.random(n) < 0.5, labels, predicted)
    flags = PRESENT | np.where(labels == predicted, CORRECT, 0) | (rng.integers(0, 16, n) << 3) & 88
    margin = numbers(rng, n, F4, how) * rng.choice([-1, 1], n).astype(np.float32)
    confidence = np.minimum(numbers(rng, n, F4, how), np.float32(1.005))
    on_edge = (rng.integers(0, 31, n) / 30).astype(np.float32)
    scores = {
        "loss": numbers(rng, n, dtype, how) * rng.choice([1, 1, 1, -1], n).astype(dtype),
        "confidence": np.where(rng.random(n) < 0.3, on_edge, confidence),
        "margin": np.where(rng.random(n) < 0.2, rng.integers(-50, 50, n) / np.float32(2), margin),
        "brier": np.minimum(numbers(rng, n, F4, how), np.float32(4)),
        "predicted": predicted,
        "labels": labels,
        "flags": flags,
    }
    # The loss is below 0 by little, and -inf never.
    scores["loss"] = np.maximum(scores["loss"], np.array(-0.01, dtype))
    if not all_valid:
        bad = rng.random(n) < 0.1
        scores["flags"] = np.where(bad, PRESENT | rng.integers(1, 8, n), scores["flags"])
        scores["flags"] = np.where(rng.random(n) < 0.1, 0, scores["flags"])
        for name in ("loss", "confidence", "margin", "brier"):
            scores[name] = np.where(bad, np.nan, scores[name]).astype(scores[name].dtype)
        scores["predicted"] = np.where(bad, -1, predicted)
        scores["labels"] = np.where(bad & (rng.random(n) < 0.5), -(2**31), labels)
    scores["margin"] = scores["margin"].astype(np.float32)
    for name in ("predicted", "labels"):
        scores[name] = scores[name].astype(np.int32)
    scores["flags"] = scores["flags"].astype(np.uint8)
    return scores


def zeros(*shape):
    return np.zeros(shape, np.int64)


def run_tally(kernels, s, c):
    dtype = s["loss"].dtype
    totals = (
        zeros(len(Count)), zeros(BINS, 2), exact.zeros(len(LossSum), dtype),
        exact.zeros(TallySum.BIN_CONFIDENCE + BINS, F4),
    )  # fmt: skip
    names = ("loss", "confidence", "margin", "brier", "flags")
    kernels.tally(*(s[name] for name in names), *totals)
    return totals


def run_tally_classes(kernels, s, c):
    totals = zeros(c, 4), exact.zeros(c, s["loss"].dtype)
    kernels.tally_classes(s["loss"], s["predicted"], s["labels"], s["flags"], *totals)
    return totals


def run_distributions(kernels, s, c):
    losses, margins = len(LOSS_EDGES) - 1, len(MARGIN_EDGES) - 1
    totals = (
        zeros(2), zeros(2, len(CONFIDENCE_EDGES) - 1), zeros(2, losses), zeros(2, margins),
        zeros(BINS, 2), exact.zeros(losses, s["loss"].dtype), exact.zeros(BINS, F4),
    )  # fmt: skip
    kernels.distributions(s["loss"], s["confidence"], s["margin"], s["flags"], *totals)
    return totals


def second_epoch(s, seed):
    """Return what the same samples became: some the same, some relabelled, some gone."""
    n = len(s["flags"])
    how = "any" if seed % 2 else "usual"
    after = scores(n, 300, s["loss"].dtype, how, seed + 100)
    rng = np.random.default_rng(seed)
    kept = rng.random(n) < 0.8
    return {
        "loss": after["loss"],
        "predicted": np.where(rng.random(n) < 0.5, s["predicted"], after["predicted"]),
        "labels": np.where(kept, s["labels"], after["labels"]),
        "flags": after["flags"],
    }


def run_transitions(kernels, s, c):
    totals = zeros(len(PairCount)), exact.zeros(len(Cell), s["loss"].dtype)
    names = ("loss", "predicted", "labels", "flags")
    after = second_epoch(s, len(s["flags"]))
    kernels.transitions(*(s[name] for name in names), *(after[name] for name in names), *totals)
    return totals


RUNS = {
    "tally": run_tally,
    "tally_classes": run_tally_classes,
    "distributions": run_distributions,
    "transitions": run_transitions,
}


def canonical(totals):
    limbs = (exact.LIMBS_32, exact.LIMBS_64)
    return [exact.carry(a.copy()) if a.shape[-1] in limbs else a for a in totals]


def assert_as_reference(backend, run, s, c):
    got, wanted = (canonical(run(kernels, s, c)) for kernels in (backend, reference))
    for a, b in zip(got, wanted, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("how", ["usual", "any", "edges"])
@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("run", RUNS.values(), ids=RUNS)
def test_totals_equal_the_reference_for_numbers_of_any_size(backend, run, dtype, how):
    for seed, c in enumerate(CLASSES):
        for all_valid in (True, False):
            assert_as_reference(
                backend, run, scores(1500, c, np.dtype(dtype), how, seed, all_valid), c
            )


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("run", RUNS.values(), ids=RUNS)
def test_totals_equal_the_reference_for_any_number_of_rows(backend, run, dtype):
    for n in SIZES:
        assert_as_reference(backend, run, scores(n, 10, np.dtype(dtype), "usual", n), 10)


@pytest.mark.parametrize("n", [0, 1, 31, 5000])
def test_flags_equal_the_reference(backend, n):
    rng = np.random.default_rng(n)
    ranks = np.array([-(2**31), -1, 0, 4, 5, 6, 2**31 - 1], np.int32)
    given = rng.random(n) < 0.5, rng.choice(ranks, n), rng.integers(0, 32, n).astype(np.uint8)
    found, wanted = np.empty((2, n), np.uint8)
    backend.write_flags(*given, found)
    reference.write_flags(*given, wanted)
    np.testing.assert_array_equal(found, wanted)
    assert n < 100 or len(np.unique(wanted)) == 32 * 4


@pytest.mark.parametrize("run", RUNS.values(), ids=RUNS)
def test_columns_may_be_any_part_of_an_array_and_read_only(backend, run):
    s = scores(300, 10, F4, "usual", 0)
    apart = {name: np.repeat(x, 2)[::2] for name, x in s.items()}
    for x in apart.values():
        x.flags.writeable = False
    assert_as_reference(backend, run, apart, 10)


def test_more_rows_than_a_table_holds_are_added_in_parts(backend):
    s = scores(1 << 18, 3, F4, "usual", 0, all_valid=True)
    s["loss"][:] = 4095.9  # as much as a table takes of one row
    for run in (run_tally_classes, run_transitions, run_distributions):
        assert_as_reference(backend, run, s, 3)


@pytest.mark.parametrize("value", [2.0**-61, 1.0 - 2.0**-24, 255.99998, 2.0**19 - 0.03125, 3e38])
@pytest.mark.parametrize("run", RUNS.values(), ids=RUNS)
def test_no_total_overflows_where_all_rows_have_one_key(backend, run, value):
    s = scores(2048, 2, F4, "usual", 0, all_valid=True)
    s["flags"][:] = PRESENT | CORRECT
    s["labels"][:] = s["predicted"][:] = 1
    s["loss"][:] = s["margin"][:] = s["brier"][:] = value
    s["confidence"][:] = min(value, 1.01)
    assert_as_reference(backend, run, s, 2)
    s["loss"] = s["loss"].astype(np.float64) * (1 - 2.0**-53)  # all bits of the mantissa set
    assert_as_reference(backend, run, s, 2)


@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_histories_equal_the_reference_after_any_number_of_rows(backend, dtype):
    for n in SIZES:
        records = [np.zeros(n, DYNAMICS) for _ in range(2)]
        for epoch in range(4):
            s = scores(n, 2, np.dtype(dtype), "usual", epoch)
            columns = [s[name] for name in ("loss", "margin", "predicted", "labels", "flags")]
            for kernels, r in zip((backend, reference), records, strict=True):
                kernels.dynamics(epoch, *columns, r)
        for name in DYNAMICS.names:
            got, wanted = (r[name] for r in records)
            tolerance = 1e-12 if DYNAMICS[name].kind == "f" else 0
            np.testing.assert_allclose(got, wanted, rtol=tolerance, atol=tolerance / 1000)


def test_histories_take_columns_that_are_any_part_of_an_array(backend):
    s = scores(100, 3, F4, "usual", 0)
    columns = [s[name] for name in ("loss", "margin", "predicted", "labels", "flags")]
    usual, apart = (np.zeros(100, DYNAMICS) for _ in range(2))
    backend.dynamics(0, *columns, usual)
    backend.dynamics(0, *(np.repeat(x, 2)[::2] for x in columns), apart)
    assert usual.tobytes() == apart.tobytes()


def test_a_history_has_the_same_bits_wherever_its_row_stands(backend):
    n = 1100
    whole, pieces = (np.zeros(n, DYNAMICS) for _ in range(2))
    for epoch in range(3):
        s = scores(n, 3, F4, "usual", epoch)
        columns = [s[name] for name in ("loss", "margin", "predicted", "labels", "flags")]
        backend.dynamics(epoch, *columns, whole)
        for a, b in ((0, 1), (1, 8), (8, 519), (519, n)):
            backend.dynamics(epoch, *(x[a:b] for x in columns), pieces[a:b])
    assert whole.tobytes() == pieces.tobytes()
    assert whole["n_epochs"].max() == 3

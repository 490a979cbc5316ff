"""States are commutative monoids, and METRICS make the columns of the contract from them."""

import inspect
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from here import EVERY

from fastdiv import states
from fastdiv.backends import resolve
from fastdiv.metrics import EPOCH_METRICS, TRANSITION_METRICS, EpochRow, PairRow, table
from fastdiv.states import EpochTotals, Mergeable, PairTotals, total
from fastdiv.stored import Stored
from fastdiv_kernels import exact
from fastdiv_kernels.contract import (
    CORRECT,
    PRESENT,
    TIE,
    TOP5,
    UNNORMALIZED,
    Count,
    PairCount,
    Reason,
)

CLASSES = 5
N = 1000
# A dataclass with slots is made twice; the first one is not what its module calls it.
STATES = [c for c in Mergeable.__subclasses__() if vars(sys.modules[c.__module__])[c.__name__] is c]
every_state = pytest.mark.parametrize("cls", STATES)
every_backend = pytest.mark.parametrize("backend", EVERY, indirect=True, scope="module")
every_loss = pytest.mark.parametrize("loss_dtype", [np.dtype("f4"), np.dtype("f8")], ids=str)


def zero(cls, loss_dtype):
    """Make an empty state, whatever it asks to be told."""
    known = {"loss_dtype": loss_dtype, "classes": CLASSES}
    return cls.zero(*(known[name] for name in inspect.signature(cls.zero).parameters))


def sides_of(cls):
    """Return how many epochs' scores a state absorbs at once."""
    return len(inspect.signature(cls.absorb).parameters) - 2  # self and kernels


def stored(loss_dtype, seed):
    """Make the scores of an epoch, some missing, invalid or infinite, of sizes far apart."""
    rng = np.random.default_rng(seed)
    loss = rng.exponential(size=N) * rng.choice([1e-12, 1.0, 1e12], N)
    loss[rng.random(N) < 0.05] = np.inf
    edges = rng.choice([0.0, 1 / 15, 0.2, 1 / 3, 1.0, 1.005], N)  # of bins, as near as may be
    confidence = np.where(rng.random(N) < 0.5, rng.random(N), edges)
    margin = rng.normal(size=N) * rng.choice([1e-6, 1e6], N)
    margin[rng.random(N) < 0.05] = -np.inf
    margin[rng.random(N) < 0.05] = np.inf
    brier = 2 * rng.random(N)
    predicted = rng.integers(0, CLASSES, N)
    # Labels are those of any other seed, but for a tenth.
    labels = np.random.default_rng(0).integers(0, CLASSES, N)
    labels = np.where(rng.random(N) < 0.1, rng.integers(0, CLASSES, N), labels)
    right = (predicted == labels) & np.isfinite(loss)
    flags = np.where(right, CORRECT | TOP5, 0) | rng.choice([0, TIE, TOP5, UNNORMALIZED], N)
    flags |= PRESENT
    invalid = rng.random(N) < 0.1
    flags[invalid] = PRESENT | rng.integers(1, len(Reason), invalid.sum())
    predicted[invalid] = -1
    labels[invalid & (rng.random(N) < 0.5)] = -1
    for values in (loss, confidence, margin, brier):
        values[invalid] = np.nan
    flags[rng.random(N) < 0.1] = 0  # not in this epoch; what else is stored means nothing
    profile = -rng.exponential(size=(N, CLASSES)) * rng.choice([1e-6, 1.0, 100.0], (N, 1))
    profile[rng.random((N, CLASSES)) < 0.05] = -np.inf
    profile[:, 0] = 0
    return Stored(
        loss=loss.astype(loss_dtype),
        confidence=confidence.astype("f4"),
        margin=margin.astype("f4"),
        brier=brier.astype("f4"),
        predicted=predicted.astype("i4"),
        flags=flags.astype("u1"),
        labels=labels.astype("i4"),
        profile=profile.astype(np.float16),
        classes=CLASSES,
    )


def rows(x, start, stop):
    return x.take(np.arange(start, stop))


def absorbed(cls, kernels, epochs, start=0, stop=N):
    """Make the state of some rows of epochs, in canonical form."""
    state = zero(cls, epochs[0].loss.dtype)
    state.absorb(kernels, *(rows(x, start, stop) for x in epochs))
    return state.merge(zero(cls, epochs[0].loss.dtype))


def assert_equal(a, b, but=()):
    for f in fields(a):
        if f.name in but:
            continue
        np.testing.assert_array_equal(getattr(a, f.name), getattr(b, f.name), err_msg=f.name)
        assert getattr(a, f.name).dtype == np.int64


def three(cls, loss_dtype):
    """Make three states of different data."""
    kernels = resolve("cpu")
    epochs = [[stored(loss_dtype, 10 * i + j) for j in range(sides_of(cls))] for i in range(3)]
    made = [absorbed(cls, kernels, x) for x in epochs]
    assert all(getattr(s, f.name).any() for s in made for f in fields(s))
    return made


def test_the_data_holds_every_case():
    pair = absorbed(PairTotals, resolve("reference"), [stored(np.dtype("f4"), i) for i in (1, 2)])
    assert all(pair.count(which) > 0 for which in PairCount)
    epoch = absorbed(EpochTotals, resolve("reference"), [stored(np.dtype("f4"), 1)])
    never = {Count.RIGHT_INFINITE} if "RIGHT_INFINITE" in Count.__members__ else set()
    assert all(epoch.count(which) > 0 for which in set(Count) - never)


def test_every_state_is_found():
    found = {c for _, c in inspect.getmembers(states, inspect.isclass) if issubclass(c, Mergeable)}
    assert found - {Mergeable} == set(STATES) >= {EpochTotals, PairTotals}


@every_state
@every_loss
def test_nothing_is_the_identity_of_merge(cls, loss_dtype):
    a = three(cls, loss_dtype)[0]
    assert_equal(a.merge(zero(cls, loss_dtype)), a)
    assert_equal(zero(cls, loss_dtype).merge(a), a)


@every_state
@every_loss
def test_merge_is_associative_and_commutative(cls, loss_dtype):
    a, b, c = three(cls, loss_dtype)
    assert_equal(a.merge(b), b.merge(a))
    assert_equal(a.merge(b).merge(c), a.merge(b.merge(c)))
    assert_equal(a.merge(b).merge(c), c.merge(a).merge(b))


@every_state
def test_merge_leaves_its_parts_as_they_were(cls):
    a, b, _ = three(cls, np.dtype("f4"))
    before = [[getattr(s, f.name).copy() for f in fields(s)] for s in (a, b)]
    a.merge(b)
    for s, arrays in zip((a, b), before, strict=True):
        for f, array in zip(fields(s), arrays, strict=True):
            np.testing.assert_array_equal(getattr(s, f.name), array)


@every_state
@every_loss
@every_backend
@pytest.mark.parametrize("seed", range(3))
def test_any_blocking_gives_the_same_arrays(cls, loss_dtype, backend, seed):
    epochs = [stored(loss_dtype, j) for j in range(sides_of(cls))]
    whole = absorbed(cls, backend, epochs)
    rng = np.random.default_rng(seed)
    cuts = [0, *sorted(rng.integers(0, N, 12)), N]  # empty blocks among them
    parts = [absorbed(cls, backend, epochs, a, b) for a, b in pairwise(cuts)]
    merged = zero(cls, loss_dtype)
    for i in rng.permutation(len(parts)):
        merged = merged.merge(parts[i])
    assert_equal(merged, whole)


@every_state
@every_loss
def test_backends_equal_the_reference_exactly(cls, loss_dtype, backend):
    epochs = [stored(loss_dtype, 30 + j) for j in range(sides_of(cls))]
    wanted = absorbed(cls, resolve("reference"), epochs)
    found = absorbed(cls, backend, epochs)
    assert_equal(found, wanted, but=["tempered_sums"])  # computed, not read: may be rounded
    if cls is EpochTotals:
        mean, truth = (
            np.array([exact.mean(row, int(x.tempered_counts[0])) for row in x.tempered_sums])
            for x in (found, wanted)
        )
        np.testing.assert_allclose(mean, truth, rtol=1e-5, atol=1e-6)


@every_state
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("tasks", [1, 4, 20])
def test_any_number_of_tasks_and_threads_gives_the_same_arrays(cls, threads, tasks):
    kernels = resolve("cpu")
    loss_dtype = np.dtype("f4")
    epochs = [stored(loss_dtype, j) for j in range(sides_of(cls))]
    block = 50

    def absorb(state, b):
        state.absorb(kernels, *(rows(x, b * block, (b + 1) * block) for x in epochs))

    size = -(-20 // tasks)
    runs = [range(b, min(b + size, 20)) for b in range(0, 20, size)]
    with ThreadPoolExecutor(threads) as pool:
        got = total(lambda: zero(cls, loss_dtype), absorb, runs, pool)
    assert_equal(got, absorbed(cls, kernels, epochs))


# -- METRICS ----------------------------------------------------------------------------------

EPOCHS = """
split epoch epoch_name n n_invalid n_infinite n_unnormalized n_ties loss loss_finite accuracy
confidence brier margin loss_right loss_wrong top5_accuracy ece ece_overconfident mce temperature
temperature_bound refinement calibration balanced_accuracy f1_macro f1_weighted mcc
accuracy_majority prior_entropy d2_log_loss
"""
TRANSITIONS = """
split epoch_from epoch_to n n_infinite n_invalid n_relabelled n_only_from n_only_to rr rw wr ww_same
ww_changed delta_accuracy delta_loss delta_loss_rr delta_loss_rw delta_loss_wr delta_loss_ww_same
delta_loss_ww_changed delta_loss_membership churn negative_flip_rate
"""
COUNTS = {"n", "rr", "rw", "wr", "ww_same", "ww_changed"}


@pytest.mark.parametrize(
    ("metrics", "columns"), [(EPOCH_METRICS, EPOCHS), (TRANSITION_METRICS, TRANSITIONS)]
)
def test_metrics_are_the_columns_of_the_contract_in_its_order(metrics, columns):
    assert [metric.name for metric in metrics] == columns.split()
    for metric in metrics:
        name = metric.name
        whole = name.startswith(("epoch", "n_")) or name in COUNTS
        text = name in ("split", "epoch_name", "temperature_bound")
        wanted = pa.string() if text else pa.int64() if whole else pa.float64()
        assert metric.type == wanted, name


def epoch_row(totals, classes=CLASSES + 1):
    return EpochRow(None, 0, totals, classes)


@pytest.mark.parametrize("classes", [5, 6])
def test_a_mean_over_nothing_is_null(classes):
    row = epoch_row(EpochTotals.zero(np.dtype("f4")), classes=classes)
    (made,) = table(EPOCH_METRICS, [row]).to_pylist()
    counts, means = EPOCHS.split()[3:8], EPOCHS.split()[8:]
    assert {name: made[name] for name in counts} == dict.fromkeys(counts, 0)
    assert {name: made[name] for name in means} == dict.fromkeys(means)
    pair = PairRow(None, row, row, PairTotals.zero(np.dtype("f4")))
    (made,) = table(TRANSITION_METRICS, [pair]).to_pylist()
    assert made["delta_loss"] is made["churn"] is made["negative_flip_rate"] is None
    assert made["delta_loss_membership"] is made["delta_accuracy"] is None


def test_top5_accuracy_is_null_up_to_five_classes():
    totals = absorbed(EpochTotals, resolve("cpu"), [stored(np.dtype("f4"), 0)])
    found = [
        table(EPOCH_METRICS, [epoch_row(totals, classes=c)])["top5_accuracy"][0].as_py()
        for c in (2, 5, 6)
    ]
    assert found[:2] == [None, None]
    assert 0 < found[2] < 1


@pytest.mark.parametrize("seed", range(5))
@every_loss
def test_parts_of_a_change_in_loss_add_up(loss_dtype, seed):
    before, after = stored(loss_dtype, 2 * seed), stored(loss_dtype, 2 * seed + 1)
    kernels = resolve("cpu")
    ends = [epoch_row(absorbed(EpochTotals, kernels, [x])) for x in (before, after)]
    pair = PairRow(None, *ends, absorbed(PairTotals, kernels, [before, after]))
    (row,) = table(TRANSITION_METRICS, [pair]).to_pylist()
    epochs = table(EPOCH_METRICS, ends)["loss_finite"].to_pylist()
    parts = [row[f"delta_loss_{cell}"] for cell in ("rr", "rw", "wr", "ww_same", "ww_changed")]
    largest = max(map(abs, parts))
    assert abs(sum(parts) - row["delta_loss"]) <= 4 * np.spacing(largest)
    left = epochs[1] - epochs[0] - row["delta_loss"]
    scale = max(map(abs, [*epochs, row["delta_loss"]]))
    assert abs(left - row["delta_loss_membership"]) <= 4 * np.spacing(scale)


def test_membership_is_exactly_zero_where_no_sample_came_or_went():
    before, after = stored(np.dtype("f4"), 0), stored(np.dtype("f4"), 1)
    for x in (before, after):
        x.loss[~np.isfinite(x.loss)] = 0.1
        x.confidence[:] = x.margin[:] = x.brier[:] = 0.5
        x.labels[:] = np.abs(before.labels)
        x.flags[:] = np.where(x.predicted == x.labels, CORRECT | PRESENT, PRESENT)
    kernels = resolve("cpu")
    ends = [epoch_row(absorbed(EpochTotals, kernels, [x])) for x in (before, after)]
    pair = PairRow(None, *ends, absorbed(PairTotals, kernels, [before, after]))
    (row,) = table(TRANSITION_METRICS, [pair]).to_pylist()
    assert row["n"] == N
    assert row["delta_loss_membership"] == 0
    assert not np.signbit(row["delta_loss_membership"])


def test_exact_sums_are_carried_by_merge_so_that_equal_sums_have_equal_limbs():
    a = three(EpochTotals, np.dtype("f4"))[0]
    merged = a.merge(a)
    assert (merged.sums[:, :-1] >= 0).all()
    assert (merged.sums[:, :-1] < 2**32).all()
    assert exact.value(merged.sums[0]) == 2 * exact.value(a.sums[0])

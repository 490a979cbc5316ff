"""Every backend against the reference, and what must hold of any of them."""

import importlib
import os
import platform
import re
import subprocess
import sys
import warnings
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from cuda_host import HostDevice
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fastdiv.batch import Scores
from fastdiv_kernels import reference
from fastdiv_kernels.contract import (
    BFLOAT16,
    CORRECT,
    DYNAMICS,
    PRESENT,
    TIE,
    UNNORMALIZED,
    Kind,
    Reason,
    as_float,
)

CLASSES = [
    2,  # the fewest: one other class, no sum to speak of; written out for itself on the CPU
    3,  # odd, and less than any vector; written out for itself
    4,  # the fewest that the CPU turns into columns, in groups of four
    5,  # the most for which a top-5 accuracy says nothing
    10,  # the usual, and not a multiple of a vector
    63,  # a tail of every vector width, one below where the CPU changes shape for float64
    64,  # the last of which the CPU works across rows for float64
    65,  # the first of which it works along the row, with a tail of one
    128,  # the last of which the CPU works across rows for all others
    129,  # the first of which it works along the row
    200,  # some rounds of an unrolled loop and a tail
    1000,  # many rounds: the sums have partial sums
]
DTYPES = ["f2", "bf16", "f4", "f8"]
KINDS = list(Kind)
EXACT = ("correct", "predicted", "rank", "status")
FLOATS = ("loss", "confidence", "margin", "brier")
INT32 = np.iinfo(np.int32)
every_dtype = pytest.mark.parametrize("dtype", DTYPES)
every_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name.lower())


def score(kernels, predictions, labels, kind):
    scores = Scores.empty(len(predictions), predictions.dtype)
    kernels.score(predictions, np.asarray(labels, np.int32), kind, *scores.arrays())
    return scores


def truth(predictions, labels, kind):
    """Return the reference's Scores with all floats in float64."""
    n = len(predictions)
    scores = Scores.empty(n, predictions.dtype)
    for name in FLOATS:
        setattr(scores, name, np.empty(n, np.float64))
    reference.score(predictions, np.asarray(labels, np.int32), kind, *scores.arrays())
    return scores


def bits(scores):
    """Return scores as bytes by field: equal where every bit is."""
    return {
        f.name: getattr(scores, f.name).tobytes() for f in fields(scores) if f.name != "profile"
    }


def assert_same_bits(got, wanted, message=""):
    for name, value in bits(wanted).items():
        assert bits(got)[name] == value, f"{name} differs {message}"


def assert_equal_integers(got, wanted):
    for name in EXACT:
        np.testing.assert_array_equal(getattr(got, name), getattr(wanted, name), err_msg=name)


def cast(x, dtype):
    """Return numbers as predictions of a dtype; for bfloat16 the upper halves of float32."""
    if dtype != "bf16":
        return np.asarray(x, dtype)
    return (np.asarray(x, np.float32).view(np.uint32) >> 16).astype(BFLOAT16)


def eps_of(dtype):
    return 2.0**-7 if dtype == "bf16" else float(np.finfo(dtype).eps)


def of_kind(logits, kind, dtype):
    """Turn logits (float64) into predictions of a kind and dtype."""
    if kind == Kind.LOGITS:
        return cast(logits, dtype)
    shifted = logits - logits.max(axis=1, keepdims=True)
    logprobs = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return cast(np.exp(logprobs) if kind == Kind.PROBS else logprobs, dtype)


def emulated(backend):
    """Tell whether kernels of a GPU are run by this host, which takes its time."""
    return isinstance(getattr(backend, "device", None), HostDevice)


def samples(kind, dtype, n, c, seed=0):
    """Make n ordinary rows: unsure ones, confident ones, ties, masked classes, hits and misses."""
    rng = np.random.default_rng([seed, c])
    logits = rng.normal(size=(n, c)) * rng.choice([0.1, 1.0, 5.0, 20.0], size=(n, 1))
    tied = rng.random(n) < 0.2
    logits[tied] = np.round(logits[tied])
    masked = (rng.random((n, c)) < 0.3) & (rng.random((n, 1)) < 0.2)
    masked[np.arange(n), rng.integers(0, c, n)] = False
    logits[masked] = -np.inf
    labels = np.where(rng.random(n) < 0.5, logits.argmax(axis=1), rng.integers(0, c, n))
    return of_kind(logits, kind, dtype), labels.astype(np.int32)


def rows_of_every_sort(kind, dtype, n, c, seed=0):
    """Make n rows, ordinary and invalid in every way."""
    x, labels = samples(kind, "f8", n, c, seed)
    rng = np.random.default_rng([seed, c, 1])
    for value in (np.nan, np.inf, 1.5, -2.0):
        x[rng.random(n) < 0.05, rng.integers(0, c)] = value
    x[rng.random(n) < 0.05] = 0.0
    x[rng.random(n) < 0.05] = -np.inf
    labels[rng.random(n) < 0.05] = -1
    labels[rng.random(n) < 0.05] = c
    return cast(x, dtype), labels


# -- against the reference -------------------------------------------------------------------


@pytest.mark.parametrize("c", CLASSES)
@every_kind
@every_dtype
def test_integers_equal_the_reference_and_floats_are_as_good_as_numpy(backend, dtype, kind, c):
    n = 300 if c <= 129 else 40  # more than two of the CPU's tiles, and a tail
    x, labels = samples(kind, dtype, n, c)
    got, wanted = score(backend, x, labels, kind), truth(x, labels, kind)
    assert_equal_integers(got, wanted)
    assert_no_worse_than_numpy(got, wanted, x, labels, kind)


@every_kind
def test_vocabulary_of_200_000_classes(backend, kind):
    x, labels = samples(kind, "f4", 3, 200_000)
    got, wanted = score(backend, x, labels, kind), truth(x, labels, kind)
    assert_equal_integers(got, wanted)
    assert_no_worse_than_numpy(got, wanted, x, labels, kind)


@pytest.mark.parametrize("c", [4, 70, 150])
@every_kind
@every_dtype
def test_invalid_rows_among_valid_ones_equal_the_reference(backend, dtype, kind, c):
    x, labels = rows_of_every_sort(kind, dtype, 500, c)
    got, wanted = score(backend, x, labels, kind), truth(x, labels, kind)
    assert len(np.unique(wanted.status)) >= 5  # the data is as varied as it should be
    assert_equal_integers(got, wanted)
    valid = wanted.status & 7 == Reason.VALID
    for name in FLOATS:
        np.testing.assert_array_equal(np.isnan(getattr(got, name)), ~valid)
    got, wanted = (Scores(*(a[valid] for a in s.arrays())) for s in (got, wanted))
    assert_no_worse_than_numpy(got, wanted, x[valid], labels[valid], kind)


def plain_numpy(x, labels, kind):
    """Score as people do, in the precision of x (float32 for 16 bits): the yardstick."""
    v = x.astype(np.float32) if x.dtype == np.float16 else as_float(x)
    rows = np.arange(len(v))
    with np.errstate(divide="ignore", over="ignore"):
        if kind == Kind.LOGITS:
            shifted = v - v.max(axis=1, keepdims=True)
            logp = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
        else:
            logp = np.log(v) if kind == Kind.PROBS else v
        p = v if kind == Kind.PROBS else np.exp(logp)
        other = logp.copy()
        other[rows, labels] = -np.inf
        onehot = np.zeros_like(p)
        onehot[rows, labels] = 1
        return {
            "loss": -logp[rows, labels],
            "confidence": p.max(axis=1),
            "margin": logp[rows, labels] - other.max(axis=1),
            "brier": ((p - onehot) ** 2).sum(axis=1),
        }


def assert_no_worse_than_numpy(got, wanted, x, labels, kind):
    naive = plain_numpy(x, labels, kind)
    for name in FLOATS:
        true, value = getattr(wanted, name), getattr(got, name)
        finite = np.isfinite(true)
        np.testing.assert_array_equal(value[~finite], true[~finite], err_msg=name)
        scale = np.maximum(np.abs(true[finite]), 1.0)
        error = np.abs(value[finite] - true[finite]) / scale
        of_naive = np.abs(naive[name].astype(value.dtype)[finite] - true[finite]) / scale
        allowed = 2 * of_naive.max(initial=0.0) + 2 * np.finfo(value.dtype).eps
        assert error.max(initial=0.0) <= allowed, name


# -- precision --------------------------------------------------------------------------------


@pytest.mark.parametrize("c", [2, 3, 10, 64, 65, 127, 128, 129, 1000])
@pytest.mark.parametrize(
    ("dtype", "allowed"), [("f2", 1e-6), ("bf16", 1e-6), ("f4", 1e-6), ("f8", 1e-14)]
)
def test_loss_of_a_confident_right_answer_keeps_its_precision_down_to_1e_30(
    backend, dtype, allowed, c
):
    lead = np.arange(5.0, 69.0, 0.5)  # exact in 16 bits; losses from about 1e-2 to 1e-30
    x = np.zeros((len(lead), c))
    labels = np.arange(len(lead)) % c
    x[np.arange(len(lead)), labels] = lead
    true = np.log1p((c - 1) * np.exp(-lead))
    assert true.min() < c * 2e-30
    loss = score(backend, cast(x, dtype), labels, Kind.LOGITS).loss
    np.testing.assert_allclose(loss, true, rtol=allowed, atol=0)


@pytest.mark.parametrize("c", [4, 70, 150])
@pytest.mark.parametrize("kind", [Kind.PROBS, Kind.LOGPROBS])
def test_loss_of_a_confident_right_answer_is_as_precise_as_what_was_given(backend, kind, c):
    gap = 2.0 ** -np.arange(2, 24)  # 1 - p, exact in float32
    p = np.zeros((len(gap), c))
    p[:, 0], p[:, 1] = 1 - gap, gap
    with np.errstate(divide="ignore"):
        x = (p if kind == Kind.PROBS else np.log(p)).astype(np.float32)
    given = x[:, 0].astype(np.float64)
    true = -np.log(given) if kind == Kind.PROBS else -given
    loss = score(backend, x, np.zeros(len(gap)), kind).loss
    np.testing.assert_allclose(loss, true, rtol=2e-7, atol=0)


@pytest.mark.parametrize("c", [2, 3, 70, 150])
@every_kind
@every_dtype
def test_margin_near_a_tie_does_not_cancel(backend, dtype, kind, c):
    a, b = {Kind.LOGITS: (8.0, 8.0), Kind.PROBS: (0.5, 0.5), Kind.LOGPROBS: (-0.5, -0.5)}[kind]
    rest = {Kind.LOGITS: -100.0, Kind.PROBS: 0.0, Kind.LOGPROBS: -np.inf}[kind]
    x = np.full((6, c), rest)
    x[:, 0] = a
    x[:, 1] = b - np.array([1, 2, 3, 8, 64, 100]) * eps_of(dtype) * 8
    x = cast(x, dtype)
    wanted = truth(x, np.zeros(6), kind).margin
    got = score(backend, x, np.zeros(6), kind).margin
    np.testing.assert_allclose(got, wanted, rtol=1e-6, atol=0)


@pytest.mark.parametrize("c", [3, 70, 150])
@every_kind
def test_sure_and_right_is_no_loss_at_all(backend, kind, c):
    x = of_kind(np.where(np.arange(c) == 1, 0.0, -np.inf)[None, :], kind, "f4")
    scores = score(backend, x, [1], kind)
    assert scores.loss[0] == 0
    assert not np.signbit(scores.loss[0]), "−0.0"
    assert (scores.confidence[0], scores.brier[0], scores.margin[0]) == (1, 0, np.inf)


# -- masked classes ---------------------------------------------------------------------------


@pytest.mark.parametrize("c", [2, 9, 62, 64, 69, 124])
@pytest.mark.parametrize("kind", [Kind.LOGITS, Kind.LOGPROBS])
@every_dtype
def test_a_masked_class_costs_nothing(backend, dtype, kind, c):
    x, labels = samples(kind, dtype, 150, c)
    left = c // 2
    masked = np.insert(x, [0, left, left, c], cast(-np.inf, dtype), axis=1)
    moved = labels + 1 + 2 * (labels >= left)
    wanted = score(backend, x, labels, kind)
    got = score(backend, masked, moved, kind)
    there = wanted.predicted + 1 + 2 * (wanted.predicted >= left)
    np.testing.assert_array_equal(got.predicted, there)
    np.testing.assert_array_equal(got.correct, wanted.correct)
    np.testing.assert_array_equal(got.status, wanted.status)
    # A label that is masked itself stands behind what is masked before it; others keep their rank.
    possible = np.isfinite(wanted.loss)
    np.testing.assert_array_equal(got.rank[possible], wanted.rank[possible])
    for name in FLOATS:  # the order of a sum may differ with its length: by rounding only
        value, other = getattr(got, name), getattr(wanted, name)
        np.testing.assert_allclose(value, other, rtol=4 * np.finfo(value.dtype).eps, err_msg=name)


@pytest.mark.parametrize("c", [5, 70, 150])
@every_kind
def test_a_label_without_mass_has_an_infinite_loss_and_is_valid(backend, kind, c):
    x = of_kind(np.where(np.arange(c) == 2, -np.inf, 0.0)[None, :], kind, "f4")
    scores = score(backend, x, [2], kind)
    assert scores.loss[0] == np.inf
    assert scores.margin[0] == -np.inf
    assert scores.rank[0] == c - 1
    assert scores.status[0] & 7 == Reason.VALID
    assert not scores.correct[0]


@pytest.mark.parametrize("given", [0.0, -0.0, -1e-7])
def test_no_probability_is_an_infinite_loss_however_zero_is_written(backend, given):
    x = np.array([[given, 0.25, 0.75]], np.float32)
    scores = score(backend, x, [0], Kind.PROBS)
    assert (scores.loss[0], scores.margin[0], scores.rank[0]) == (np.inf, -np.inf, 2)
    np.testing.assert_allclose(scores.brier, 1 + 0.25**2 + 0.75**2, rtol=1e-6)


# -- invalid rows -----------------------------------------------------------------------------

ORDINARY = {Kind.LOGITS: -0.5, Kind.PROBS: 0.0, Kind.LOGPROBS: -30.0}
INVALID = [
    *((kind, np.nan, Reason.NAN) for kind in KINDS),
    *((kind, np.inf, Reason.POSITIVE_INFINITY) for kind in KINDS),
    (Kind.PROBS, -0.01, Reason.CONTRADICTS_KIND),
    (Kind.PROBS, 1.02, Reason.CONTRADICTS_KIND),
    (Kind.PROBS, -np.inf, Reason.CONTRADICTS_KIND),
    (Kind.LOGPROBS, 0.011, Reason.CONTRADICTS_KIND),
    (Kind.LOGITS, None, Reason.NO_MASS),  # None: the whole row
    (Kind.LOGPROBS, None, Reason.NO_MASS),
    (Kind.PROBS, None, Reason.NO_MASS),
]


@pytest.mark.parametrize("place", [0, 1, -1])
@pytest.mark.parametrize("c", [2, 4, 70, 150])
@every_dtype
@pytest.mark.parametrize(("kind", "bad", "reason"), INVALID)
def test_an_invalid_row_is_marked_and_says_nothing_else(
    backend, kind, bad, reason, dtype, c, place
):
    x = np.full((3, c), ORDINARY[kind])
    x[:, c // 2] = 0.9 if kind == Kind.PROBS else 0.0
    if bad is None:
        x[1] = 0.0 if kind == Kind.PROBS else -np.inf
    else:
        x[1, place] = bad
    scores = score(backend, cast(x, dtype), [0, 0, 0], kind)
    assert scores.status[1] == reason
    assert [getattr(scores, name)[1] for name in ("correct", "predicted", "rank")] == [0, -1, -1]
    assert all(np.isnan(getattr(scores, name)[1]) for name in FLOATS)
    assert (scores.status[[0, 2]] & 7 == Reason.VALID).all()


@pytest.mark.parametrize("c", [2, 3, 4, 7, 17, 70])
@every_kind
@pytest.mark.parametrize("dtype", ["f2", "f4"])
def test_what_makes_a_row_invalid_is_found_at_every_class_of_every_row(backend, dtype, kind, c):
    sorts = [(bad, reason) for of, bad, reason in INVALID if of == kind and bad is not None]
    for bad, reason in sorts:
        for rest in (ORDINARY[kind], 0.0 if kind == Kind.PROBS else -np.inf):
            x = np.full((37 * c, c), rest)
            where = np.arange(len(x)) % c
            x[np.arange(len(x)), where] = bad
            x[::5, c // 2] = np.where(where[::5] == c // 2, bad, 0.9 if kind == Kind.PROBS else 0.0)
            labels = np.arange(len(x)) // c % c
            got = score(backend, cast(x, dtype), labels, kind)
            assert (got.status == reason).all(), (bad, rest)
            assert np.isnan(got.loss).all()


@pytest.mark.parametrize("c", [4, 70, 150])
@every_kind
@every_dtype
def test_an_invalid_row_hides_no_invalid_row_after_it(backend, dtype, kind, c):
    sorts = [(bad, reason) for of, bad, reason in INVALID if of == kind]
    half = 20 if emulated(backend) else 200
    for before, _ in sorts:
        for after, reason in sorts:
            x = np.full((2 * half, c), ORDINARY[kind])
            x[:, 1] = 0.9 if kind == Kind.PROBS else 0.0
            for rows, bad in ((slice(0, half), before), (slice(half, None), after)):
                if bad is None:
                    x[rows] = 0.0 if kind == Kind.PROBS else -np.inf
                else:
                    x[rows, 0] = bad
            status = score(backend, cast(x, dtype), np.zeros(2 * half), kind).status
            assert (status[half:] == reason).all(), f"rows with {after} after rows with {before}"


@pytest.mark.parametrize("c", [4, 70, 150])
@every_kind
@every_dtype
def test_a_label_out_of_range_makes_the_row_invalid(backend, dtype, kind, c):
    labels = [0, -1, c, c + 1, INT32.min, INT32.max, c - 1]
    x = np.full((len(labels), c), 1 / c if kind == Kind.PROBS else -1.0)
    scores = score(backend, cast(x, dtype), labels, kind)
    assert (scores.status & 7).tolist() == [Reason.VALID, *[Reason.LABEL] * 5, Reason.VALID]
    assert scores.predicted.tolist() == [0, *[-1] * 5, 0]
    assert scores.rank.tolist() == [0, *[-1] * 5, c - 1]


@pytest.mark.parametrize("c", [3, 70, 150])
@pytest.mark.parametrize(
    ("kind", "row", "reason"),
    [
        (Kind.LOGITS, [np.nan, np.inf, 0], Reason.NAN),
        (Kind.PROBS, [np.nan, 2, 0], Reason.NAN),
        (Kind.PROBS, [np.inf, -1, 0], Reason.POSITIVE_INFINITY),
        (Kind.PROBS, [-1, 0, 0], Reason.CONTRADICTS_KIND),
        (Kind.LOGPROBS, [np.inf, -np.inf, 0], Reason.POSITIVE_INFINITY),
        (Kind.LOGITS, [-np.inf, -np.inf, -np.inf], Reason.NO_MASS),
    ],
)
def test_of_several_reasons_the_first_is_given_and_the_label_comes_last(
    backend, kind, row, reason, c
):
    x = np.full((1, c), row[2], np.float32)
    x[0, [0, c // 2]] = row[:2]
    assert score(backend, x, [-1], kind).status[0] == reason
    assert score(reference, x, [-1], kind).status[0] == reason


@every_dtype
@pytest.mark.parametrize(
    ("kind", "limit"), [(Kind.PROBS, -1e-6), (Kind.PROBS, 1.01), (Kind.LOGPROBS, np.log(1.01))]
)
def test_what_contradicts_a_kind_begins_where_the_reference_says(backend, dtype, kind, limit):
    at = cast(limit, dtype)
    if dtype == "bf16":
        around = np.array([at - 1, at, at + 1], BFLOAT16)
    else:
        around = [np.nextafter(at, np.array(-9, dtype)), at, np.nextafter(at, np.array(9, dtype))]
    for c in (3, 70, 150):
        x = cast(np.full((3, c), 0.5 / c if kind == Kind.PROBS else -9.0), dtype)
        x[:, 1] = around
        got, wanted = score(backend, x, [1, 1, 1], kind), score(reference, x, [1, 1, 1], kind)
        assert len(np.unique(wanted.status & 7)) == 2  # the limit lies among them
        assert_equal_integers(got, wanted)


@pytest.mark.parametrize("c", [4, 70, 150])
@pytest.mark.parametrize(
    ("dtype", "off", "flagged"),
    [
        ("f4", 0.0009, False),
        ("f4", 0.0011, True),
        ("f4", -0.0011, True),
        ("f8", 0.0009999999, False),
        ("f8", 0.00100000002, True),  # less than float32(1e-3)
        ("f8", -0.00100000002, True),
        ("f2", 0.0089, False),
        ("f2", 0.0111, True),
        ("bf16", 0.0078125, False),
        ("bf16", 0.01171875, True),
    ],
)
@pytest.mark.parametrize("kind", [Kind.PROBS, Kind.LOGPROBS])
def test_a_sum_off_by_more_than_the_tolerance_is_flagged_and_not_mended(
    backend, kind, dtype, off, flagged, c
):
    x = np.zeros((1, c), np.float64)
    x[0, 0], x[0, 1] = 0.5 + off, 0.5
    if kind == Kind.LOGPROBS:
        with np.errstate(divide="ignore"):
            x = np.log(x)
    x = cast(x, dtype)
    scores = score(backend, x, [0], kind)
    assert bool(scores.status[0] & UNNORMALIZED) == flagged
    given = float(as_float(x)[0, 0])
    loss = -np.log(given) if kind == Kind.PROBS else -given
    np.testing.assert_allclose(scores.loss, loss, rtol=1e-6)


# -- ties and ranks ---------------------------------------------------------------------------


@every_dtype
@every_kind
@pytest.mark.parametrize("c", [2, 3, 5, 64, 65, 130])
def test_ties_go_to_the_lowest_index(backend, c, kind, dtype):
    for tied in ([0, 1], [0, c - 1], [c // 2, c - 1], range(c)):
        x = np.full((c, c), 0.0 if kind == Kind.PROBS else -3.0)
        x[:, list(tied)] = 0.5 if kind == Kind.PROBS else -0.25
        scores = score(backend, cast(x, dtype), np.arange(c), kind)
        n = len(set(tied))
        order = [*sorted(set(tied)), *(j for j in range(c) if j not in set(tied))]
        assert (scores.predicted == order[0]).all()
        assert scores.rank.tolist() == [order.index(j) for j in range(c)]
        assert (scores.status & TIE != 0).all() == (n > 1)
        on_top = [j for j in range(c) if j in set(tied) and n > 1]
        assert (scores.margin[on_top] == 0).all()


def test_zeros_of_either_sign_are_equal(backend):
    for c in (2, 3, 70, 150):
        for signs in ([-0.0, 0.0], [0.0, -0.0]):
            x = np.full((2, c), -1.0, np.float32)
            x[:, :2] = signs
            scores = score(backend, x, [0, 1], Kind.LOGITS)
            assert scores.predicted.tolist() == [0, 0]
            assert scores.rank.tolist() == [0, 1]
            assert (scores.status == TIE).all()


@every_kind
@pytest.mark.parametrize("c", CLASSES)
def test_rank_is_the_place_in_a_stable_sort_and_zero_where_correct(backend, c, kind):
    x, labels = samples(kind, "f4", 60, c, seed=7)
    scores = score(backend, x, labels, kind)
    order = np.argsort(-x.astype(np.float64), axis=1, kind="stable")
    wanted = (order == labels[:, None]).argmax(axis=1)
    np.testing.assert_array_equal(scores.rank, wanted)
    np.testing.assert_array_equal(scores.predicted, order[:, 0])
    np.testing.assert_array_equal(scores.correct, scores.rank == 0)


# -- a row's result is its own ----------------------------------------------------------------


@pytest.mark.parametrize("c", [2, 3, 5, 70, 150])
@every_kind
@every_dtype
def test_a_row_has_the_same_bits_at_any_start_and_in_any_number(backend, dtype, kind, c):
    x, labels = rows_of_every_sort(kind, dtype, 700, c)
    whole = score(backend, x, labels, kind)
    rng = np.random.default_rng(c)
    step = 69 if emulated(backend) else 7
    for n in (*range(1, 20), *range(20, 301, step), 127, 128, 129, 255, 256, 257, 300):
        start = int(rng.integers(0, len(x) - n + 1))
        part = score(backend, x[start : start + n], labels[start : start + n], kind)
        assert_same_bits(part, whole.rows(start, start + n), f"in rows {start} to {start + n}")


@pytest.mark.parametrize("c", [2, 3, 4, 5, 10, 64, 65, 128, 129, 200])
@every_dtype
def test_a_row_has_the_same_bits_among_any_neighbours(backend, dtype, c):
    x, labels = rows_of_every_sort(Kind.LOGITS, dtype, 300, c)
    whole = score(backend, x, labels, Kind.LOGITS)
    order = np.random.default_rng(c).permutation(300)
    shuffled = score(backend, x[order], labels[order], Kind.LOGITS)
    assert_same_bits(shuffled, Scores(*(a[order] for a in whole.arrays())))
    for row in range(0, 300, 37):
        crowd, crowd_labels = np.repeat(x[row : row + 1], 130, axis=0), np.full(130, labels[row])
        alone = score(backend, crowd, crowd_labels, Kind.LOGITS)
        assert_same_bits(alone, Scores(*(np.repeat(a[row], 130) for a in whole.arrays())))


def read_only(a):
    a = a.copy()
    a.flags.writeable = False
    return a


def unaligned(a):
    room = np.empty(a.nbytes + 1, np.uint8)
    shifted = room[1:].view(a.dtype).reshape(a.shape)
    shifted[...] = a
    assert not shifted.flags.aligned
    return shifted


def from_bytes(a):
    return np.frombuffer(b"x" + a.tobytes(), a.dtype, offset=1).reshape(a.shape)


def inside_a_larger_array(a):
    return np.concatenate([a[:3], a, a[:5]])[3 : 3 + len(a)]


def with_gaps(a):
    return np.repeat(a, 2, axis=0)[::2]


def in_fortran_order(a):
    return np.asfortranarray(a)


FORMS = [read_only, unaligned, from_bytes, inside_a_larger_array, with_gaps, in_fortran_order]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("c", [2, 3, 5, 70, 150])
@every_dtype
def test_a_row_has_the_same_bits_however_the_memory_lies(backend, dtype, c, form):
    x, labels = rows_of_every_sort(Kind.LOGITS, dtype, 150, c)
    wanted = score(backend, x, labels, Kind.LOGITS)
    predictions, given = form(x), form(labels)
    scores = Scores.empty(150, x.dtype)
    backend.score(predictions, given, Kind.LOGITS, *scores.arrays())
    assert_same_bits(scores, wanted)
    assert predictions.tobytes() == x.tobytes(), "the input was written to"


@pytest.mark.parametrize("c", [5, 70, 150])
@pytest.mark.parametrize("n", [1, 127, 130])
def test_nothing_is_written_beside_the_rows_asked_for(backend, n, c):
    x, labels = samples(Kind.LOGITS, "f4", n, c)
    room = Scores.empty(n + 20, x.dtype)
    for a in room.arrays():
        a.view(np.uint8)[...] = 0xA5
    backend.score(x, labels, Kind.LOGITS, *room.rows(10, 10 + n).arrays())
    assert_same_bits(room.rows(10, 10 + n), score(backend, x, labels, Kind.LOGITS))
    for a in room.arrays():
        outside = np.concatenate([a[:10], a[10 + n :]])
        assert (outside.view(np.uint8) == 0xA5).all()


@every_dtype
def test_no_rows_are_no_work(backend, dtype):
    for c in (2, 3, 70, 150):
        scores = score(backend, cast(np.empty((0, c)), dtype), np.empty(0), Kind.LOGITS)
        assert len(scores) == 0


# -- metamorphic ------------------------------------------------------------------------------


@pytest.mark.parametrize("shift", [-32.0, 64.0])
@pytest.mark.parametrize("c", [2, 10, 70, 150])
@every_dtype
def test_a_constant_added_to_logits_changes_no_bit_where_none_is_lost(backend, dtype, c, shift):
    rng = np.random.default_rng(c)
    # Multiples of 1/8 below 256 are exact in float16, of 1/2 below 128 in bfloat16.
    steps = 2 if dtype == "bf16" else 8
    x = rng.integers(-8 * steps, 8 * steps + 1, (200, c)) / steps
    labels = rng.integers(0, c, 200)
    there = score(backend, cast(x, dtype), labels, Kind.LOGITS)
    moved = score(backend, cast(x + shift, dtype), labels, Kind.LOGITS)
    assert_same_bits(moved, there)


@pytest.mark.parametrize("c", [2, 10, 70])
@every_kind
@every_dtype
def test_permuted_classes_permute_the_prediction_and_nothing_else(backend, dtype, kind, c):
    rng = np.random.default_rng(c)
    logits = np.stack([rng.permutation(c) for _ in range(100)]) * 0.125  # no ties
    labels = rng.integers(0, c, 100)
    order = rng.permutation(c)  # class j becomes class of[j]
    of = np.argsort(order)
    x = of_kind(logits, kind, dtype)
    x[np.apply_along_axis(lambda row: len(set(row)) < c, 1, x)] = cast(np.nan, dtype)  # a tie
    a, b = score(backend, x, labels, kind), score(backend, x[:, order], of[labels], kind)
    valid = a.status & 7 == 0
    assert valid.sum() > 50
    np.testing.assert_array_equal(b.predicted[valid], of[a.predicted[valid]])
    for name in ("correct", "rank", "status"):
        np.testing.assert_array_equal(getattr(b, name), getattr(a, name))
    for name in FLOATS:
        value, other = getattr(b, name), getattr(a, name)
        eps = np.finfo(value.dtype).eps
        np.testing.assert_allclose(value, other, rtol=8 * eps, atol=eps, err_msg=name)


@pytest.mark.parametrize("c", [2, 10, 70, 150])
def test_the_three_kinds_of_one_prediction_agree(backend, c):
    rng = np.random.default_rng(c)
    logits, labels = rng.normal(size=(200, c)) * 3, rng.integers(0, c, 200)
    a, b, d = (score(backend, of_kind(logits, kind, "f8"), labels, kind) for kind in KINDS)
    for other in (b, d):
        for name in EXACT:
            np.testing.assert_array_equal(getattr(other, name), getattr(a, name))
        np.testing.assert_allclose(other.loss, a.loss, rtol=1e-12, atol=1e-15)
        for name in ("confidence", "margin", "brier"):
            value = getattr(other, name)
            np.testing.assert_allclose(value, getattr(a, name), rtol=1e-6, atol=1e-7)
    rows = np.arange(200)
    others = logits.copy()
    others[rows, labels] = -np.inf
    np.testing.assert_allclose(b.margin, logits[rows, labels] - others.max(axis=1), rtol=1e-6)


# -- extreme values ---------------------------------------------------------------------------


def extreme_values(dtype, kind):
    """Return a strategy of values at the edges of a dtype and of the kernel's polynomials."""
    if dtype == "bf16":
        most, tiny, subnormal = as_float(np.array([0x7F7F, 0x0080, 0x0001], BFLOAT16)).tolist()
    else:
        info = np.finfo(dtype)
        most, tiny, subnormal = info.max, info.tiny, info.smallest_subnormal
    eps = eps_of(dtype)
    edges = [0.0, -0.0, 1.0, -1.0, 0.5, most, -most, tiny, subnormal]
    edges += [-subnormal, eps, 1 + eps, np.inf, -np.inf, np.nan]
    if kind == Kind.PROBS:
        edges += [1 - eps / 2, 1.005, -5e-7, 1e-3, 1e-7]
    else:
        edges += [87.5, 88.5, 89.0, -87.4, -103.9, -104.0, -105.0, -708.5, -745.5, -1e4, 1e4]
    width = 32 if dtype == "bf16" else np.dtype(dtype).itemsize * 8
    low, high = {Kind.LOGITS: (-100, 100), Kind.PROBS: (0, 1), Kind.LOGPROBS: (-100, 0)}[kind]
    with np.errstate(over="ignore"):
        fixed = [float(as_float(cast(x, dtype))) for x in edges]
    return st.sampled_from(fixed) | st.floats(low, high, width=width)


@st.composite
def extreme_rows(draw):
    dtype = draw(st.sampled_from(DTYPES))
    kind = draw(st.sampled_from(KINDS))
    c = draw(st.sampled_from([2, 3, 4, 5, 66, 130]))
    n = draw(st.integers(1, 3))
    values = extreme_values(dtype, kind)
    rows = draw(hnp.arrays(np.float64, (n, min(c, 5)), elements=values))
    x = np.full((n, c), -3.0 if kind != Kind.PROBS else 0.0)
    places = draw(st.lists(st.integers(0, c - 1), min_size=5, max_size=5))
    for j, place in zip(range(rows.shape[1]), places, strict=False):
        x[:, place] = rows[:, j]
    labels = draw(hnp.arrays(np.int32, n, elements=st.integers(-1, c)))
    with np.errstate(over="ignore"):
        return cast(x, dtype), labels, kind


@settings(max_examples=400, deadline=None)
@given(data=extreme_rows())
def test_extreme_values_are_scored_as_the_reference_scores_them(backend, data):
    x, labels, kind = data
    with np.errstate(over="ignore", invalid="ignore"):
        wanted = score(reference, x, labels, kind)
        if kind != Kind.LOGITS:  # a sum within rounding of its tolerance may fall on either side
            v = as_float(x).astype(np.float64)
            off = np.abs((v if kind == Kind.PROBS else np.exp(v)).sum(axis=1) - 1)
            assume(not (np.abs(off - (1e-2 if x.itemsize == 2 else 1e-3)) < 1e-6).any())
    got = score(backend, x, labels, kind)
    assert_equal_integers(got, wanted)
    single = x.dtype != np.float64
    for name in FLOATS:
        # In float32 the difference of logits is rounded before its exponential is taken, and
        # e**x of each class is flushed to zero below the smallest normal number.
        np.testing.assert_allclose(
            getattr(got, name),
            getattr(wanted, name),
            rtol=2e-5 if single else 1e-6 if name != "loss" else 1e-13,
            atol=2e-5 if single and name == "margin" else max(1e-37, x.shape[1] * 2.0**-126),
            err_msg=name,
        )


# -- words of bfloat16 ------------------------------------------------------------------------


def assert_scored_as_float32(backend, words, labels, kind):
    got, wanted = (score(backend, x, labels, kind) for x in (words, as_float(words)))
    for scores in (got, wanted):  # whose tolerances differ
        scores.status &= np.uint8(~UNNORMALIZED & 0xFF)
    assert_same_bits(got, wanted)


@pytest.mark.parametrize("c", [2, 10, 64, 65, 200, 1000])
@every_kind
def test_words_have_the_same_bits_as_the_float32_numbers_that_they_stand_for(backend, kind, c):
    words, labels = rows_of_every_sort(kind, "bf16", 300, c)
    assert_scored_as_float32(backend, words, labels, kind)


@pytest.mark.parametrize("c", [2, 65])
@every_kind
def test_every_word_is_understood(backend, kind, c):
    every = np.arange(0, 1 << 16, 15 if emulated(backend) and c > 2 else 1)
    words = cast(np.zeros((len(every), c)), "bf16")
    words[:, 1] = every
    assert_scored_as_float32(backend, words, np.ones(len(every)), kind)
    reason = score(backend, words, np.ones(len(every)), kind).status & 7
    np.testing.assert_array_equal(reason == Reason.NAN, every & 0x7FFF > 0x7F80)
    np.testing.assert_array_equal(reason == Reason.POSITIVE_INFINITY, every == 0x7F80)


# -- histories --------------------------------------------------------------------------------
# (That the other totals equal the reference's is seen in test_states.py.)


def epoch_of_scores(n, loss_dtype, seed):
    """Make the arrays that `dynamics` takes, missing and invalid samples among them."""
    rng = np.random.default_rng(seed)
    loss = rng.exponential(size=n) * rng.choice([1e-9, 1.0, 30.0], n)
    loss[rng.random(n) < 0.05] = np.inf
    margin = rng.normal(size=n).astype(np.float32)
    margin[rng.random(n) < 0.1] = -np.inf
    predicted, labels = (rng.integers(0, 3, n).astype(np.int32) for _ in range(2))
    flags = np.where((predicted == labels) & np.isfinite(loss), PRESENT | CORRECT, PRESENT)
    flags = np.where(rng.random(n) < 0.1, PRESENT | rng.integers(1, 8, n), flags)
    flags = np.where(rng.random(n) < 0.1, 0, flags)
    loss[(flags & 7) != 0] = np.nan
    return loss.astype(loss_dtype), margin, predicted, labels, flags.astype(np.uint8)


@pytest.mark.parametrize("loss_dtype", ["f4", "f8"])
def test_dynamics_equal_the_reference(backend, loss_dtype):
    n = 500
    records = [np.zeros(n, DYNAMICS) for _ in range(2)]
    for epoch in range(-1, 5):
        columns = epoch_of_scores(n, loss_dtype, 10 + epoch)
        for kernels, r in zip((backend, reference), records, strict=True):
            kernels.dynamics(epoch, *columns, r)
    assert records[1]["forgetting"].max() > 1
    for name in DYNAMICS.names:
        got, wanted = records[0][name], records[1][name]
        if DYNAMICS[name].kind == "f":
            np.testing.assert_allclose(got, wanted, rtol=1e-12, atol=1e-15, err_msg=name)
        else:
            np.testing.assert_array_equal(got, wanted, err_msg=name)


# -- what is compiled -------------------------------------------------------------------------

VECTOR_ARITHMETIC = {
    "x86_64": r"\bvf?n?m?(?:mul|add|sub|madd|msub)\w*p[sd]\s.*%[yz]mm",
    "aarch64": r"\bf(?:mul|mla|add)\s+v\d+\.(?:4s|2d)",
}
CALL = r"(?:\bcallq?\s|\bbl\s|\$)[\w.$]*?\b_?(exp|expf|exp2f?|log|logf|log1pf?|pow|powf|fmaf?)\b"


SHAPED = [
    ("score_tile", "score_tile", "float64"),
    ("score_few", "score_two", "float32"),
    ("score_few", "score_three", "float32"),
    ("score_few", "score_few", "float32"),
    ("score_few", "score_few", "uint16"),  # float16, with a conversion
    ("score_few", "score_few", "int16"),  # bfloat16, with a shift
    ("score_rows", "score_rows", "float32"),
    ("score_rows", "score_rows", "uint16"),
    ("score_rows", "score_rows", "int16"),
]


@pytest.mark.parametrize(("module", "name", "values"), SHAPED)
def test_the_cpu_scores_with_vectors_and_without_calls_to_exp_or_log(module, name, values):
    numba = pytest.importorskip("numba")
    import llvmlite.binding as llvm

    kernel = getattr(importlib.import_module(f"fastdiv_kernels.cpu.{module}"), name)
    machine = platform.machine().lower().replace("amd64", "x86_64").replace("arm64", "aarch64")
    if machine not in VECTOR_ARITHMETIC:
        pytest.skip(f"nothing is known of the vector registers of {machine}")
    features = llvm.get_host_cpu_features()
    if machine == "x86_64" and not features.get("avx2"):
        pytest.skip("this processor has no AVX2")
    # Compiled afresh: numba shows no machine code of what it loaded from its cache.
    fresh = numba.njit(nogil=True, error_model="numpy")(kernel.py_func)
    real = "float64" if values == "float64" else "float32"
    floats = ("float32[::1]",) * 3  # confidence, margin, brier
    few = module == "score_few"
    given = ["int64", values, "int64", "int64"] if few else [f"{values}[:,::1]"]
    types = [*given, "int32[::1]", "int64", "float64", f"{real}[::1]", "bool_[::1]"]
    types += ["int32[::1]", *floats, "int32[::1]", "uint8[::1]"]
    fresh.compile(f"void({', '.join(types)})")
    (assembly,) = fresh.inspect_asm().values()
    assert len(re.findall(VECTOR_ARITHMETIC[machine], assembly)) > 20
    assert not re.findall(CALL, assembly)
    if few and features.get("avx512f"):  # whole vectors, whatever the processor prefers
        assert len(re.findall(r"\bvfn?m(?:add|sub)\w*ps\s.*%zmm", assembly)) > 20
        assert not re.findall(r"\bvfn?m(?:add|sub)\w*ps\s.*%ymm", assembly)


OTHER_MACHINES = {
    "haswell": "",  # AVX2: a vector is two registers
    "nehalem": "",  # no AVX, no fused arithmetic, no half precision
}
SCORE_ELSEWHERE = """
import sys
import numpy as np
sys.path.insert(0, sys.argv[1])
from test_kernels import CLASSES_ELSEWHERE, DTYPES, KINDS, rows_of_every_sort, score
from fastdiv_kernels import cpu
scored = {}
for c in CLASSES_ELSEWHERE:
    for dtype in DTYPES[:3]:
        for kind in KINDS:
            x, labels = rows_of_every_sort(kind, dtype, 200, c)
            for k, values in enumerate(score(cpu, x, labels, kind).arrays()):
                scored[f"{c} {dtype} {int(kind)} {k}"] = values
np.savez(sys.argv[2], **scored)
"""
CLASSES_ELSEWHERE = [2, 3, 4, 10, 65]


@pytest.mark.parametrize("cpu_name", OTHER_MACHINES)
def test_processors_with_narrower_vectors_score_alike(cpu_name, tmp_path):
    """Compiles for an older processor, which this one can stand in for."""
    if platform.machine().lower() not in ("x86_64", "amd64"):
        pytest.skip("names of another architecture's processors")
    pytest.importorskip("numba")
    environment = {
        **os.environ,
        "NUMBA_CPU_NAME": cpu_name,
        "NUMBA_CPU_FEATURES": OTHER_MACHINES[cpu_name],
        "NUMBA_CACHE_DIR": str(tmp_path),
    }
    scored = tmp_path / "scored.npz"
    command = [sys.executable, "-c", SCORE_ELSEWHERE, str(Path(__file__).parent), str(scored)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    with np.load(scored) as arrays:
        for c in CLASSES_ELSEWHERE:
            for dtype in DTYPES[:3]:
                for kind in KINDS:
                    x, labels = rows_of_every_sort(kind, dtype, 200, c)
                    got = Scores(*(arrays[f"{c} {dtype} {int(kind)} {k}"] for k in range(8)))
                    wanted = truth(x, labels, kind)
                    assert_equal_integers(got, wanted)
                    valid = wanted.status & 7 == Reason.VALID
                    got, wanted = (Scores(*(a[valid] for a in s.arrays())) for s in (got, wanted))
                    assert_no_worse_than_numpy(got, wanted, x[valid], labels[valid], kind)


def test_nothing_warns_when_extreme_rows_are_scored(backend):
    x = np.array([[3e38, -3e38], [np.nan, 1], [np.inf, 1], [-np.inf, -np.inf]], np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for kind in KINDS:
            score(backend, x, [1, 0, 0, 0], kind)

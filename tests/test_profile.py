"""Every backend's profiles, and what `temper` and `tally_temperatures` make of them."""

import importlib
import platform
import re
from itertools import pairwise

import numpy as np
import pytest
from scipy.special import log_softmax
from test_kernels import (
    CALL,
    KINDS,
    VECTOR_ARITHMETIC,
    cast,
    every_dtype,
    every_kind,
    from_bytes,
    inside_a_larger_array,
    of_kind,
    read_only,
    rows_of_every_sort,
    samples,
    score,
    unaligned,
)

from fastdiv_kernels import exact, reference
from fastdiv_kernels.contract import (
    GRID,
    HIGHEST_SUMMED,
    LOWEST_KEPT,
    PRESENT,
    TIE,
    Kind,
    as_float,
    profile_width,
)

CLASSES = [
    3,  # the fewest that have a profile
    5,
    10,
    16,  # the most whose profile is a vector
    17,  # the fewest whose profile is a curve
    33,
    64,  # where the CPU's `score` changes its shape
    96,  # the last that the CPU sums across rows
    97,  # the first that it sums along the row
    100,
    1000,
]
WITH_PAIRS = [2, *CLASSES]
BETAS = [0.05, 0.125, 0.3, 1.0, 1.7, 4.0, 9.0]
HALF_ULP_AT_0 = 2.0**-24


def profile_of(kernels, x, kind, predicted):
    n, c = x.shape
    kept = np.full((n, profile_width(c)), 7.0, np.float16)
    if c > 2:
        kernels.profile(x, kind, predicted, kept)
    return kept


def predicted_of(x, labels, kind):
    return score(reference, x, labels, kind).predicted


def steps_apart(a, b):
    """Return by how many neighbours two arrays of float16 differ; 0 and -0 are the same."""
    a, b = (x.view(np.int16).astype(np.int64) for x in (a, b))
    a, b = (np.where(x < 0, -(x & 0x7FFF), x) for x in (a, b))
    return np.abs(a - b)


def tallied(kernels, loss, margin, flags, profile, classes):
    counts = np.zeros(1, np.int64)
    sums = np.zeros((2 * len(GRID), exact.LIMBS_FIXED), np.int64)
    kernels.tally_temperatures(loss, margin, flags, profile, classes, counts, sums)
    return counts, exact.carry(sums)


def sums_of(limbs):
    return np.array([float(exact.value(row)) for row in limbs])


def tempered(kernels, margin, profile, classes, beta):
    result = np.full((len(margin), 3), 7.0)
    kernels.temper(margin, profile, classes, beta, result)
    return result


def epoch(kind, dtype, n, c, seed=0):
    """Make what is stored of n rows of every sort: loss, margin, flags, profile."""
    x, labels = rows_of_every_sort(kind, dtype, n, c, seed)
    scores = score(reference, x, labels, kind)
    flags = np.where(np.random.default_rng(c).random(n) < 0.1, 0, scores.status | PRESENT)
    kept = profile_of(reference, x, kind, scores.predicted)
    return scores.loss, scores.margin, flags.astype(np.uint8), kept


# -- against the reference --------------------------------------------------------------------


@pytest.mark.parametrize("c", CLASSES)
@every_kind
@every_dtype
def test_profiles_equal_the_reference_to_one_step_of_16_bits(backend, dtype, kind, c):
    n = 200 if c <= 100 else 40  # some tiles of the CPU, and a tail
    x, labels = rows_of_every_sort(kind, dtype, n, c)
    predicted = predicted_of(x, labels, kind)
    assert (predicted < 0).any()
    assert (predicted >= 0).any()
    got, wanted = (profile_of(k, x, kind, predicted) for k in (backend, reference))
    np.testing.assert_array_equal(np.isinf(got), np.isinf(wanted))
    assert steps_apart(got, wanted).max() <= 1
    assert (steps_apart(got, wanted) > 0).mean() < 0.02
    assert not got[predicted < 0].any()


@pytest.mark.parametrize("c", [2, 3, 5, 10, 16, 17, 100])
@pytest.mark.parametrize("loss_dtype", ["f4", "f8"])
def test_totals_by_temperature_equal_the_reference(backend, loss_dtype, c):
    columns = epoch(Kind.LOGITS, loss_dtype, 1000, c)
    assert columns[0].dtype == loss_dtype
    (n, got), (n_wanted, wanted) = (tallied(k, *columns, c) for k in (backend, reference))
    assert n == n_wanted
    assert 300 < n < 1000
    np.testing.assert_allclose(sums_of(got) / n, sums_of(wanted) / n, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("beta", BETAS)
@pytest.mark.parametrize("c", [2, 3, 5, 10, 16, 17, 100])
def test_tempered_rows_equal_the_reference(backend, c, beta):
    _, margin, _, kept = epoch(Kind.LOGITS, "f4", 300, c)
    assert np.isnan(margin).any()
    assert np.isinf(margin).any()
    got, wanted = (tempered(k, margin, kept, c, beta) for k in (backend, reference))
    np.testing.assert_allclose(got, wanted, rtol=1e-12, atol=1e-12)
    assert (np.isnan(got).any(axis=1) == (np.isnan(margin) if c == 2 else False)).all()


# -- what they mean ---------------------------------------------------------------------------


@pytest.mark.parametrize("beta", GRID)
@pytest.mark.parametrize("c", [2, 3, 10, 16, 17, 100, 1000])
@every_kind
def test_losses_at_a_temperature_are_those_of_the_tempered_softmax(backend, kind, c, beta):
    rng = np.random.default_rng(c)
    logits, labels = rng.normal(size=(100, c)) * 3, rng.integers(0, c, 100).astype(np.int32)
    x = of_kind(logits, kind, "f4")
    scores = score(backend, x, labels, kind)
    kept = profile_of(backend, x, kind, scores.predicted)
    gap = np.maximum(0.0, -scores.margin.astype(np.float64))
    rows = np.arange(100)
    true = -log_softmax(beta * logits, axis=1)[rows, labels]
    p = np.exp(log_softmax(beta * logits, axis=1))
    slope = beta * ((p * logits).sum(axis=1) - logits[rows, labels])
    s = tempered(backend, scores.margin, kept, c, beta)
    # 16 bits hold the differences to 2**-11 of themselves, and s to as much of itself.
    allowed = 2.0**-11 * (1 + beta * np.abs(logits).max() if c <= 16 else np.log(c)) + 1e-5
    np.testing.assert_allclose(s[:, 0] + beta * gap, true, rtol=0, atol=allowed)
    np.testing.assert_allclose(s[:, 1] + beta * gap, slope, rtol=0, atol=4 * allowed)
    flags = (scores.status | PRESENT).astype(np.uint8)
    n, sums = tallied(backend, scores.loss, scores.margin, flags, kept, c)
    means = sums_of(sums) / n
    k = GRID.index(beta)
    np.testing.assert_allclose(means[k], true.mean(), rtol=0, atol=allowed)
    np.testing.assert_allclose(means[len(GRID) + k], slope.mean(), rtol=0, atol=4 * allowed)


@pytest.mark.parametrize("c", [2, 3, 16])
def test_derivatives_are_those_of_the_function(backend, c):
    rng = np.random.default_rng(c)
    kept = -rng.exponential(size=(50, c)).astype(np.float16) * 4
    kept[:, 0] = 0
    margin, kept = rng.normal(size=50).astype(np.float32), kept if c > 2 else kept[:, :0]
    h = 1e-4
    for beta in (0.2, 1.0, 3.0):
        below, at, above = (
            tempered(backend, margin, kept, c, beta * np.exp(step)) for step in (-h, 0, h)
        )
        np.testing.assert_allclose((above - below)[:, :2] / (2 * h), at[:, 1:], atol=1e-6)


@pytest.mark.parametrize("c", [3, 17, 96, 97])
@every_kind
def test_sure_predictions_keep_their_small_losses(backend, kind, c):
    lead = np.arange(3.0, 9.0, 0.25)  # losses from 1e-4 to 1e-1 and more: from tiny halves on
    logits = np.zeros((len(lead), c))
    logits[:, c // 2] = lead
    x = of_kind(logits, kind, "f8")
    kept = profile_of(backend, x, kind, np.full(len(lead), c // 2, np.int32))
    true = np.log1p((c - 1) * np.exp(-lead))
    s = tempered(backend, np.ones(len(lead), np.float32), kept, c, 1.0)[:, 0]
    x_error = 2.0**-11 * lead if c <= 16 else 2.0**-11
    assert (np.abs(s - true) <= true * x_error * 1.1 + HALF_ULP_AT_0).all()


@pytest.mark.parametrize("c", [2, 3, 16])
def test_totals_of_small_losses_are_precise(backend, c):
    flags = np.full(1, PRESENT, np.uint8)
    for lead in (0.25, 1.0, 5.0, 14.0):
        kept = np.full((1, profile_width(c)), -lead, np.float16)
        kept[:, :1] = 0
        for k, beta in enumerate(GRID):
            margin = np.float32([lead])
            _, sums = tallied(backend, np.float32([0.1]), margin, flags, kept, c)
            true = np.log1p((c - 1) * np.exp(-beta * lead))
            np.testing.assert_allclose(sums_of(sums)[k], true, rtol=1e-5, atol=2.0**-32)


# -- extreme values ---------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["f4", "f8", "bf16"])
@pytest.mark.parametrize("c", [3, 16, 17, 96, 97, 1000])
@pytest.mark.parametrize("scale", [1e4, 3e38])
def test_huge_logits_are_clipped_and_stay_numbers(backend, scale, c, dtype):
    x = np.full((70, c), -scale)
    x[:, 1] = scale
    x[:, 2] = -np.inf
    kept = profile_of(backend, cast(x, dtype), Kind.LOGITS, np.ones(70, np.int32))
    if c <= 16:
        wanted = np.full(c, LOWEST_KEPT if scale > 4e4 else -2e4)
        wanted[1:3] = 0, -np.inf
        np.testing.assert_allclose(kept[0].astype(np.float64), wanted, rtol=5e-3)
    else:
        assert not kept.any()
    for beta in BETAS:
        margin = np.full(70, np.inf, np.float32)
        np.testing.assert_array_equal(tempered(backend, margin, kept, c, beta), 0)


@pytest.mark.parametrize("shift", [-1e4, -400.0, 400.0, 1e4])
@pytest.mark.parametrize("c", [3, 16, 17, 96, 97])
@every_dtype
def test_a_constant_added_to_logits_changes_no_bit_where_none_is_lost(backend, dtype, c, shift):
    if dtype in ("f2", "bf16"):
        shift = np.sign(shift) * 64  # beyond, eighths are lost
    steps = 1 if dtype == "bf16" else 8
    x = np.random.default_rng(c).integers(-40 * steps // 8, 4 * steps, (100, c)) / steps
    predicted = x.argmax(axis=1).astype(np.int32)
    there, moved = (cast(a, dtype) for a in (x, x + shift))
    np.testing.assert_array_equal(as_float(moved).astype("f8") - shift, as_float(there))
    there, moved = (profile_of(backend, a, Kind.LOGITS, predicted) for a in (there, moved))
    assert there.tobytes() == moved.tobytes()


@pytest.mark.parametrize("c", [3, 16, 17, 96, 97])
@every_dtype
def test_zeros_among_probabilities_add_nothing_however_they_are_written(backend, dtype, c):
    rng = np.random.default_rng(c)
    x = rng.dirichlet(np.ones(c), 100)
    zero = rng.random((100, c)) < 0.5
    zero[:, 1] = False
    x[zero] = 0.0
    signs = np.where(zero & (rng.random((100, c)) < 0.5), -0.0, x)
    below = np.where(zero, -1e-7, x)
    predicted = cast(x, "f8").argmax(axis=1).astype(np.int32)
    kept = [profile_of(backend, cast(a, dtype), Kind.PROBS, predicted) for a in (x, signs, below)]
    assert kept[0].tobytes() == kept[1].tobytes() == kept[2].tobytes()
    if c <= 16:
        np.testing.assert_array_equal(np.isneginf(kept[0]), cast(x, dtype) == 0)


@pytest.mark.parametrize(("dtype", "least"), [("f2", 6e-8), ("f4", 2e-45), ("f8", 5e-324)])
def test_the_smallest_probabilities_stay_finite(backend, dtype, least):
    x = cast([[least, 0.0, 1.0]], dtype)
    kept = profile_of(backend, x, Kind.PROBS, np.int32([2]))
    np.testing.assert_allclose(kept[0, 0], np.log(x[0, 0].astype(np.float64)), rtol=1e-3)
    assert kept[0, 1:].tolist() == [-np.inf, 0]
    many = np.full((1, 200), least)
    many[0, 0] = 1.0
    got, wanted = (
        profile_of(k, cast(many, dtype), Kind.PROBS, np.int32([0])) for k in (backend, reference)
    )
    assert steps_apart(got, wanted).max() <= 1


@pytest.mark.parametrize("c", [3, 16, 17, 96, 97])
@every_kind
def test_of_equals_everything_is_log_c(backend, kind, c):
    x = of_kind(np.zeros((70, c)), kind, "f4")
    kept = profile_of(backend, x, kind, np.zeros(70, np.int32))
    margin, flags = np.zeros(70, np.float32), np.full(70, PRESENT | TIE, np.uint8)
    got = tempered(backend, margin, kept, c, 1.0)
    np.testing.assert_allclose(got, [[np.log(c), 0, 0]] * 70, rtol=5e-4, atol=1e-6)
    n, sums = tallied(backend, margin, margin, flags, kept, c)
    wanted = [np.log(c)] * len(GRID) + [0] * len(GRID)
    np.testing.assert_allclose(sums_of(sums) / n, wanted, rtol=5e-4, atol=1e-6)


@pytest.mark.parametrize("c", [2, 3, 17])
def test_what_is_not_tallied(backend, c):
    """Absent and invalid rows, infinite losses, labels without mass; not so an infinite lead."""
    x = of_kind(np.arange(7.0 * c).reshape(7, c) % 5, Kind.LOGITS, "f4")
    kept = profile_of(backend, x, Kind.LOGITS, x.argmax(axis=1).astype(np.int32))
    loss = np.float32([1, np.nan, np.inf, 1, 1, 1, 1])
    margin = np.float32([-1, np.nan, -1, -np.inf, np.inf, -1, -1])
    flags = np.uint8([PRESENT, PRESENT | 1, PRESENT, PRESENT, PRESENT, 0, PRESENT | TIE])
    n, got = tallied(backend, loss, margin, flags, kept, c)
    assert n == 3
    gap = np.array([1.0, 0.0, 1.0])
    for k, beta in enumerate(GRID):
        s = tempered(backend, margin, kept, c, beta)[[0, 4, 6]]
        wanted = (s[:, :2] + beta * gap[:, None]).sum(axis=0)
        np.testing.assert_allclose(sums_of(got)[[k, len(GRID) + k]], wanted, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("c", [2, 3, 17])
def test_no_row_adds_more_than_the_most(backend, c):
    margin = np.float32([-3e38] * 300 + [-(2.0**28)] * 300)
    flags, kept = np.full(600, PRESENT, np.uint8), np.zeros((600, profile_width(c)), np.float16)
    _, got = tallied(backend, np.zeros(600, np.float32), margin, flags, kept, c)
    ordinary = [min(beta * 2.0**28, HIGHEST_SUMMED) for beta in GRID] * 2
    wanted = [300 * (HIGHEST_SUMMED + x) for x in ordinary]
    np.testing.assert_allclose(sums_of(got), wanted, rtol=1e-7)


@pytest.mark.parametrize("lacking", [0.0, 511.999, 512.0])
@pytest.mark.parametrize("c", [2, 3, 16, 17])
def test_rows_that_are_alike_add_a_multiple_of_what_one_adds(backend, c, lacking):
    n = 40_000  # more than the CPU adds before it carries
    one = np.full((1, profile_width(c)), 22.0 if c > 16 else -2.5, np.float16)
    if c > 16:
        one[:, len(GRID) :] = -22.0  # more than s or a slope of a billion classes
    else:
        one[:, :1] = 0.0
    row = np.float32([1]), np.float32([-lacking]), np.uint8([PRESENT]), one
    _, single = tallied(backend, *row, c)
    count, many = tallied(backend, *(np.repeat(a, n, axis=0) for a in row), c)
    assert count == n
    for got, alone in zip(many, single, strict=True):
        assert exact.value(got) == n * exact.value(alone)


# -- a row's result is its own ----------------------------------------------------------------


def everything(kernels, x, kind, columns, kept, c):
    """Return all results as bytes, one string by row."""
    loss, margin, flags, predicted = columns
    rows = [profile_of(kernels, x, kind, predicted)]
    rows += [tempered(kernels, margin, kept, c, beta) for beta in (0.3, 1.0)]
    joined = [b"".join(a[i].tobytes() for a in rows) for i in range(len(x))]
    counts, sums = tallied(kernels, loss, margin, flags, kept, c)
    return joined, counts, sums


@pytest.mark.parametrize("c", [2, 3, 10, 16, 17, 65, 97])
@every_dtype
@pytest.mark.parametrize("kind", KINDS[:2], ids=["logits", "probs"])
def test_a_row_has_the_same_bits_at_any_start_in_any_number_among_any_neighbours(
    backend, kind, dtype, c
):
    n = 300
    x, labels = rows_of_every_sort(kind, dtype, n, c)
    scores = score(reference, x, labels, kind)
    flags = (scores.status | PRESENT).astype(np.uint8)
    columns = scores.loss, scores.margin, flags, scores.predicted
    kept = profile_of(reference, x, kind, scores.predicted)
    rows, counts, sums = everything(backend, x, kind, columns, kept, c)
    rng = np.random.default_rng(c)
    cuts = np.unique([0, n, 1, 2, 10, 73, 74, 138, *rng.integers(0, n, 3)])
    parts = [
        everything(backend, x[a:b], kind, [column[a:b] for column in columns], kept[a:b], c)
        for a, b in pairwise(cuts)
    ]
    assert [row for part in parts for row in part[0]] == rows
    assert sum(part[1] for part in parts) == counts
    np.testing.assert_array_equal(exact.carry(sum(part[2] for part in parts)), sums)
    order = rng.permutation(n)
    shuffled = everything(backend, x[order], kind, [a[order] for a in columns], kept[order], c)
    assert shuffled[0] == [rows[i] for i in order]
    np.testing.assert_array_equal(shuffled[2], sums)


@pytest.mark.parametrize("form", [read_only, unaligned, from_bytes, inside_a_larger_array])
@pytest.mark.parametrize("c", [2, 5, 17, 97])
@every_dtype
def test_results_have_the_same_bits_however_the_memory_lies(backend, dtype, c, form):
    x, labels = samples(Kind.LOGITS, dtype, 100, c)
    scores = score(reference, x, labels, Kind.LOGITS)
    flags = (scores.status | PRESENT).astype(np.uint8)
    columns = scores.loss, scores.margin, flags, scores.predicted
    kept = profile_of(reference, x, Kind.LOGITS, scores.predicted)
    wanted = everything(backend, x, Kind.LOGITS, columns, kept, c)
    shaped = [form(a) for a in columns if a.itemsize > 1 or form is not unaligned]
    shaped = shaped if len(shaped) == 4 else [*shaped[:2], flags, shaped[2]]
    given = form(kept) if kept.size else kept
    got = everything(backend, form(x), Kind.LOGITS, shaped, given, c)
    assert got[0] == wanted[0]
    np.testing.assert_array_equal(got[2], wanted[2])


@pytest.mark.parametrize("c", [3, 16, 17, 97])
@pytest.mark.parametrize("n", [0, 1, 63, 64, 65])
def test_nothing_is_written_beside_the_rows_asked_for(backend, n, c):
    x, labels = samples(Kind.LOGITS, "f4", n, c)
    predicted = predicted_of(x, labels, Kind.LOGITS)
    room = np.full((n + 20, profile_width(c)), 7.0, np.float16)
    backend.profile(x, Kind.LOGITS, predicted, room[10 : 10 + n])
    wanted = profile_of(backend, x, Kind.LOGITS, predicted)
    assert room[10 : 10 + n].tobytes() == wanted.tobytes()
    assert (np.concatenate([room[:10], room[10 + n :]]) == 7).all()
    out = np.full((n + 20, 3), 7.0)
    backend.temper(np.zeros(n, np.float32), wanted, c, 1.0, out[10 : 10 + n])
    assert (np.concatenate([out[:10], out[10 + n :]]) == 7).all()


# -- what is compiled -------------------------------------------------------------------------


def test_halves_are_converted_by_arithmetic_as_numpy_does():
    numba = pytest.importorskip("numba")
    arithmetic = importlib.import_module("fastdiv_kernels.cpu.arithmetic")
    up, down = arithmetic.half_to_float_by_arithmetic, arithmetic.float_to_half_by_arithmetic

    @numba.njit
    def convert(words, x, floats, halves):
        for i in range(len(words)):
            floats[i] = up(words[i])
        for i in range(len(x)):
            halves[i] = down(x[i])

    words = np.arange(1 << 16).astype(np.uint16)
    halves = words.view(np.float16)
    finite = halves[:0x7C00].astype(np.float32)
    middle = ((finite[1:].astype(np.float64) + finite[:-1]) / 2).astype(np.float32)
    around = [np.nextafter(middle, np.float32(to)) for to in (0, 1e9)]
    x = np.concatenate([finite, middle, *around, [np.inf, 1e-45, 1e-10]]).astype(np.float32)
    x = np.concatenate([x, -x])
    floats, rounded = np.zeros(len(words), np.float32), np.zeros(len(x), np.uint16)
    convert(words, x, floats, rounded)
    np.testing.assert_array_equal(floats, halves.astype(np.float32))
    np.testing.assert_array_equal(rounded, x.astype(np.float16).view(np.uint16))


PROFILE = "void({}[:,::1], int64, int32[::1], uint16[:,::1])"
TALLY = "void(float32[::1], float32[::1], uint8[::1], {}int64[::1], int64[:,::1])"


@pytest.mark.parametrize(
    ("module", "name", "signature"),
    [
        ("profile", "profile_vectors", PROFILE.format("float32")),
        ("profile", "profile_tile", PROFILE.format("float32")),
        ("profile", "profile_rows", PROFILE.format("float32")),
        ("profile", "profile_rows", PROFILE.format("uint16")),  # a conversion in every loop
        ("temperatures", "tally_pairs", TALLY.format("")),
        ("temperatures", "tally_vectors", TALLY.format("uint16[:,::1], ")),
        ("temper", "temper_pairs", "void(float32[::1], float64, float64[:,::1])"),
        ("temper", "temper_vectors", "void(uint16[:,::1], float64, float64[:,::1])"),
    ],
)
def test_the_cpu_works_with_vectors_and_without_calls_to_exp_or_log(module, name, signature):
    numba = pytest.importorskip("numba")
    import llvmlite.binding as llvm

    machine = platform.machine().lower().replace("amd64", "x86_64").replace("arm64", "aarch64")
    if machine not in VECTOR_ARITHMETIC:
        pytest.skip(f"nothing is known of the vector registers of {machine}")
    if machine == "x86_64" and not llvm.get_host_cpu_features().get("avx2"):
        pytest.skip("this processor has no AVX2")
    # Compiled afresh: numba shows no machine code of what it loaded from its cache.
    function = getattr(importlib.import_module(f"fastdiv_kernels.cpu.{module}"), name).py_func
    fresh = numba.njit(nogil=True, error_model="numpy")(function)
    fresh.compile(signature)
    (assembly,) = fresh.inspect_asm().values()
    assert (
        len(re.findall(VECTOR_ARITHMETIC[machine], assembly)) > 10
    )  # that of `profile_vectors` is short
    assert not re.findall(CALL, assembly)
    assert "hfsf2" not in assembly, "a call to convert half precision"
    assert "sfhf2" not in assembly

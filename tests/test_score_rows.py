"""Rows of many classes on the CPU: every boundary of its blocks, and every place that matters."""

import re

import numba
import numpy as np
import pytest

from fastdiv.batch import Scores
from fastdiv_kernels import cpu
from fastdiv_kernels.contract import TIE, Kind, Reason
from fastdiv_kernels.cpu.row_lanes import BITS
from fastdiv_kernels.cpu.row_passes import GROUP
from fastdiv_kernels.cpu.score_rows import AT_ONCE, BLOCK, TURN, score_rows
from tests.test_kernels import (
    DTYPES,
    FLOATS,
    assert_equal_integers,
    assert_no_worse_than_numpy,
    assert_same_bits,
    cast,
    every_dtype,
    every_kind,
    rows_of_every_sort,
    samples,
    truth,
)

VECTOR = BITS // 32
EDGES = (0, 1, VECTOR - 1, VECTOR, VECTOR + 1, GROUP - 1)
CLASSES = sorted(
    {GROUP + more for more in EDGES}
    | {2 * GROUP + more for more in (-1, 0, 1)}
    | {TURN // AT_ONCE + more for more in (-1, 0, 1) if TURN // AT_ONCE + more >= GROUP}
    | {BLOCK + more for more in (-1, *EDGES, GROUP)}
    | {3 * BLOCK - 1, 3 * BLOCK, 3 * BLOCK + 1}
)
LONG = 2 * BLOCK + GROUP + VECTOR + 1
PLACES = sorted(
    {0, 1, VECTOR - 1, VECTOR, GROUP - 1, GROUP, GROUP + 1}
    | {BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK - 1, 2 * BLOCK}
    | {
        2 * BLOCK + GROUP - 1,
        2 * BLOCK + GROUP,
        LONG - VECTOR - 1,
        LONG - VECTOR,
        LONG - 2,
        LONG - 1,
    }
)
ORDINARY = {Kind.LOGITS: -3.0, Kind.PROBS: 0.5 / LONG, Kind.LOGPROBS: -12.0}
HIGH = {Kind.LOGITS: 2.0, Kind.PROBS: 0.25, Kind.LOGPROBS: -1.0}


def score(x, labels, kind):
    """Score by the kernel itself, whatever the number of classes."""
    scores = Scores.empty(len(x), x.dtype)
    tolerance = 1e-2 if x.dtype.itemsize == 2 else 1e-3
    labels = np.asarray(labels, np.int32)
    score_rows(cpu._values(x), labels, int(kind), tolerance, *scores.arrays())
    return scores


def agrees(x, labels, kind):
    got, wanted = score(x, labels, kind), truth(x, labels, kind)
    assert_equal_integers(got, wanted)
    valid = wanted.status & 7 == Reason.VALID
    for name in FLOATS:
        np.testing.assert_array_equal(np.isnan(getattr(got, name)), ~valid, err_msg=name)
    if valid.any():
        got, wanted = (Scores(*(a[valid] for a in s.arrays())) for s in (got, wanted))
        assert_no_worse_than_numpy(got, wanted, x[valid], np.asarray(labels)[valid], kind)


@pytest.mark.parametrize("c", CLASSES)
@every_kind
@every_dtype
def test_rows_of_every_length_equal_the_reference(dtype, kind, c):
    agrees(*samples(kind, dtype, AT_ONCE + 3 if c < 2 * GROUP else 20, c), kind)


@pytest.mark.parametrize("c", [GROUP, GROUP + 5, BLOCK + 5])
@every_kind
@every_dtype
def test_invalid_rows_among_valid_ones_equal_the_reference(dtype, kind, c):
    x, labels = rows_of_every_sort(kind, dtype, 300, c)
    assert len(np.unique(truth(x, labels, kind).status)) >= 5
    agrees(x, labels, kind)


@every_kind
@every_dtype
def test_the_maximum_and_its_label_may_stand_anywhere(dtype, kind):
    x = np.full((len(PLACES), LONG), ORDINARY[kind])
    x[np.arange(len(PLACES)), PLACES] = HIGH[kind]
    x = cast(x, dtype)
    agrees(x, PLACES, kind)
    agrees(x, PLACES[::-1], kind)


@every_kind
@every_dtype
def test_a_tie_is_won_by_the_lowest_index_wherever_the_two_stand(dtype, kind):
    pairs = [(a, b) for a in PLACES for b in PLACES if a < b]
    x = np.full((len(pairs), LONG), ORDINARY[kind], np.float32)
    for row, pair in zip(x, pairs, strict=True):
        row[list(pair)] = HIGH[kind]
    x = cast(x, dtype)
    for labels in ([a for a, _ in pairs], [b for _, b in pairs]):
        scores = score(x, labels, kind)
        assert scores.predicted.tolist() == [a for a, _ in pairs]
        np.testing.assert_array_equal(scores.rank, (scores.predicted != labels).astype(int))
        assert (scores.status & TIE).all()
        wanted = truth(x, labels, kind)
        np.testing.assert_allclose(scores.loss, wanted.loss, rtol=1e-6)
        np.testing.assert_array_equal(scores.margin, np.zeros(len(pairs)))


@pytest.mark.parametrize("tied", [0.0, -0.0, 5e-324, 1e-45, -1e-45, -2.0])
@pytest.mark.parametrize("c", [GROUP, GROUP + 3, 5 * GROUP + 7, BLOCK + GROUP + 3])
def test_the_rank_of_a_label_that_ties_counts_those_before_it(c, tied):
    for dtype in ("f4", "f8"):
        x = np.full((c, c), -1.0, dtype)
        x[:, ::3] = tied
        x[:, 1] = 0.0
        x[:, 5 % c] = np.nextafter(np.asarray(tied, dtype), np.asarray(np.inf, dtype))
        labels = np.arange(c)
        assert_equal_integers(score(x, labels, Kind.LOGITS), truth(x, labels, Kind.LOGITS))


@pytest.mark.parametrize("bad", [np.nan, -np.nan, np.inf])
@every_kind
@every_dtype
def test_what_makes_a_row_invalid_is_found_wherever_it_stands(dtype, kind, bad):
    reason = Reason.POSITIVE_INFINITY if bad == np.inf else Reason.NAN
    rows = len(PLACES)
    x = np.full((2 * rows + 1, LONG), ORDINARY[kind], np.float32)
    x[:, 7] = HIGH[kind]
    x[np.arange(1, 2 * rows, 2), PLACES] = bad
    status = score(cast(x, dtype), np.zeros(len(x)), kind).status & 7
    assert (status[1::2] == reason).all()
    assert (status[::2] == Reason.VALID).all()


@pytest.mark.parametrize("c", [GROUP + 5, BLOCK + 5])
@pytest.mark.parametrize(("dtype", "quiet"), [("f4", 0x7FC00000), ("f8", 0x7FF8000000000000)])
def test_a_nan_is_found_whatever_its_bits_say(dtype, quiet, c):
    said = np.r_[0:600, 2 ** np.arange(10, 22)]
    x = np.zeros((2 * len(said), c), dtype)
    x[:, 7] = 1.0
    bits = (said | quiet).astype(f"u{x.itemsize}").view(dtype)
    x[:, c // 2] = np.r_[bits, -bits]
    for kind in Kind:
        assert (score(x, np.zeros(len(x)), kind).status == Reason.NAN).all()


@pytest.mark.parametrize("rest", [-np.inf, np.nan])
@pytest.mark.parametrize("kind", [Kind.LOGITS, Kind.LOGPROBS])
@every_dtype
def test_blocks_without_any_mass_are_passed_over_but_not_their_nan(dtype, kind, rest):
    x = np.full((len(PLACES), LONG), -np.inf)
    x[:, : BLOCK // 2] = rest
    for row, place in zip(x, PLACES, strict=True):
        row[max(place, BLOCK // 2)] = -1.0
    agrees(cast(x, dtype), PLACES, kind)
    nan = score(cast(np.full((2, LONG), rest), dtype), [0, LONG - 1], kind).status
    assert (nan == (Reason.NO_MASS if rest == -np.inf else Reason.NAN)).all()


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("bad", [-0.01, 1.02])
def test_a_probability_out_of_range_is_found_wherever_it_stands(place, bad):
    x = np.full((3, LONG), ORDINARY[Kind.PROBS], np.float32)
    x[1, place] = bad
    status = score(x, [0, 0, 0], Kind.PROBS).status & 7
    assert status.tolist() == [Reason.VALID, Reason.CONTRADICTS_KIND, Reason.VALID]


@every_kind
@every_dtype
def test_rising_and_falling_blocks(dtype, kind):
    """The sums are rescaled whenever a block has a larger maximum than those before."""
    rng = np.random.default_rng(5)
    c = 7 * BLOCK + 9
    x = rng.normal(size=(6, c)) - 20
    slope = np.linspace(0, 12, c)
    x += np.array([slope, -slope, np.floor(slope), 100 * slope, 0 * slope, np.sin(slope)])
    if kind != Kind.LOGITS:
        x -= np.log(np.exp(x - x.max(1)[:, None]).sum(1))[:, None] + x.max(1)[:, None]
    x = np.exp(x) if kind == Kind.PROBS else x
    agrees(cast(x, dtype), rng.integers(0, c, 6), kind)


@pytest.mark.parametrize("c", [GROUP, GROUP + 5, BLOCK // 2 + 1, BLOCK + 21])
@every_kind
@every_dtype
def test_a_row_has_the_same_bits_anywhere_and_at_any_address(dtype, kind, c):
    x, labels = samples(kind, dtype, 150, c)
    wanted = score(x, labels, kind)
    order = np.random.default_rng(1).permutation(len(x))
    moved = Scores(*(a[order] for a in wanted.arrays()))
    assert_same_bits(score(x[order], labels[order], kind), moved, "in another order")
    for row in (0, 7, 149):
        alone = score(x[row : row + 1], labels[row : row + 1], kind)
        assert_same_bits(alone, Scores(*(a[row : row + 1] for a in wanted.arrays())), "alone")
    room = np.empty(x.nbytes + 64, np.uint8)
    for offset in range(x.itemsize, 64, 3 * x.itemsize):
        there = room[offset : offset + x.nbytes].view(x.dtype).reshape(x.shape)
        there[:] = x
        assert_same_bits(score(there, labels, kind), wanted, f"at {offset}")


@pytest.mark.parametrize("c", [1000, 200_000])
def test_loss_is_no_worse_than_a_sum_in_double_precision_rounded_once(c):
    x, labels = samples(Kind.LOGITS, "f4", 40 if c < 2000 else 6, c, seed=3)
    got, wanted = score(x, labels, Kind.LOGITS), truth(x, labels, Kind.LOGITS)
    finite = np.isfinite(wanted.loss)
    error = np.abs(got.loss[finite] - wanted.loss[finite])
    # An ulp of the loss, and the 1.1e-7 that the exponential may be off by.
    assert (error <= 2.0**-23 * np.abs(wanted.loss[finite]) + 1.5e-7).all()


def test_rows_that_are_too_short_are_refused():
    with pytest.raises(ValueError, match="64 values or more"):
        score(np.zeros((2, GROUP - 1), np.float32), [0, 0], Kind.LOGITS)


@pytest.mark.parametrize("dtype", DTYPES)
def test_loops_are_vectors_and_call_nothing_that_is_scalar(dtype):
    """Registers of the machine's width, no function of mathematics, no reference counted a row."""
    features = cpu.describe()
    register = {"AVX-512": "zmm", "AVX2": "ymm", "NEON": r"v\d+\.4s"}.get(features.split(", ")[-1])
    if register is None:
        pytest.skip(features)
    x = np.zeros((2, GROUP), np.float32)
    compiled = numba.njit(nogil=True, error_model="numpy")(score_rows.py_func)
    scores = Scores.empty(2, cast(x, dtype).dtype)
    compiled(cpu._values(cast(x, dtype)), np.zeros(2, np.int32), 0, 1e-3, *scores.arrays())
    code = compiled.inspect_asm(compiled.signatures[0])
    assert len(re.findall(register, code)) > 200
    names = re.findall(r"\b(?:expf?|logf?|log1pf?|fmaf?|roundf?|__\w*hf\w*)\b", code)
    assert not names

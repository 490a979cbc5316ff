"""`score` of the GPU, run by the CPU: where its shapes meet, and what only it could get wrong."""

import functools

import cuda_host
import numpy as np
import pytest

from fastdiv.batch import Scores
from fastdiv_kernels.contract import TIE, Kind, Reason
from fastdiv_kernels.cuda import CudaBackend
from fastdiv_kernels.cuda.score import AT_ONCE, FEW, LENGTH, READS, WARP
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
    score,
    truth,
)
from tests.test_snappy import Side

pytestmark = pytest.mark.skipif(cuda_host.COMPILER is None, reason="there is no g++")

BORDERS = sorted(
    {FEW, WARP, LENGTH, 2 * LENGTH}
    | {AT_ONCE[itemsize] << team for itemsize in (4, 8) for team in range(1, 6)}
    | {READS * AT_ONCE[itemsize] << team for itemsize in (4, 8) for team in (3, 4)}
)
CLASSES = sorted({c + more for c in BORDERS for more in (-1, 0, 1, 5)} | set(range(2, 41)))
# Of each shape few: odd and even, whole vectors or not.
OF_EACH = [2, 3, 7, 8, 10, 16, 32, 33, 100, 129, 1000, 1003, 4097, 16389, 50257]
SPLIT = 3 * LENGTH + 21


@functools.cache
def backend_in(order):
    return CudaBackend(cuda_host.HostDevice(order))


@pytest.fixture(scope="module")
def backend():
    return backend_in(0)


def rows_for(c):
    return 70 if c <= 40 else 20 if c < 5000 else 3


def agrees(backend, x, labels, kind):
    got, wanted = score(backend, x, labels, kind), truth(x, labels, kind)
    assert_equal_integers(got, wanted)
    valid = wanted.status & 7 == Reason.VALID
    for name in FLOATS:
        np.testing.assert_array_equal(np.isnan(getattr(got, name)), ~valid, err_msg=name)
    if valid.any():
        got, wanted = (Scores(*(a[valid] for a in s.arrays())) for s in (got, wanted))
        assert_no_worse_than_numpy(got, wanted, x[valid], np.asarray(labels)[valid], kind)


# -- shapes -----------------------------------------------------------------------------------


@pytest.mark.parametrize("c", CLASSES)
def test_rows_of_every_length_equal_the_reference(backend, c):
    kinds, dtypes = list(Kind), DTYPES
    for k in range(2):  # each length with two of each, so that all are had
        kind, dtype = kinds[(c + k) % 3], dtypes[(c // 3 + 2 * k) % 4]
        agrees(backend, *samples(kind, dtype, rows_for(c), c), kind)


@pytest.mark.parametrize("c", [31, 33, 1025, 4100])
@every_kind
@every_dtype
def test_invalid_rows_among_valid_ones_equal_the_reference(backend, dtype, kind, c):
    x, labels = rows_of_every_sort(kind, dtype, 60, c)
    assert len(np.unique(truth(x, labels, kind).status)) >= 5
    agrees(backend, x, labels, kind)


@every_kind
def test_the_shape_is_told_by_the_number_of_classes_and_the_dtype(kind):
    device = cuda_host.HostDevice()
    for c, kernels in (
        (FEW, ["score_few"]),
        (FEW + 1, ["score_rows"]),
        (WARP, ["score_rows"]),
        (WARP + 1, ["score_parts", "score_joined"]),
    ):
        for n in (1, 9, 300):
            device.launched.clear()
            score(CudaBackend(device), np.full((n, c), -9, np.float32), np.zeros(n), kind)
            assert [launched[2] for launched in device.launched] == kernels


def test_a_row_is_split_by_its_length_alone():
    device = cuda_host.HostDevice()
    for n in (1, 5):
        device.launched.clear()
        score(CudaBackend(device), np.zeros((n, SPLIT), np.float32), np.zeros(n), Kind.LOGITS)
        assert device.launched[0][3] == 4 * n


# -- a row's result is its own ----------------------------------------------------------------


@pytest.mark.parametrize("c", OF_EACH)
@every_dtype
def test_a_row_has_the_same_bits_at_any_address_in_any_number_and_order(dtype, c):
    kind = list(Kind)[c % 3]
    n = rows_for(c)
    x, labels = rows_of_every_sort(kind, dtype, n, c)
    wanted = score(backend_in(0), x, labels, kind)
    room = np.empty(x.nbytes + 80, np.uint8)
    skew = -room.ctypes.data % 16
    for k, offset in enumerate(range(0, 16, x.itemsize)):
        there = room[skew + offset : skew + offset + x.nbytes].view(x.dtype).reshape(x.shape)
        there[:] = x
        assert_same_bits(score(backend_in(k % 3), there, labels, kind), wanted, f"at {offset}")
    for order in range(3):
        assert_same_bits(score(backend_in(order), x, labels, kind), wanted, f"in order {order}")
    for rows in (slice(n - 1, n), slice(0, 1), slice(1, n), slice(n // 2, None, -1)):
        part = Scores(*(a[rows] for a in wanted.arrays()))
        assert_same_bits(score(backend_in(0), x[rows], labels[rows], kind), part, f"{rows}")


@pytest.mark.parametrize("c", OF_EACH)
@every_dtype
def test_nothing_is_read_beside_the_arrays(backend, dtype, c):
    x, labels = samples(Kind.LOGITS, dtype, 3 if c < 50_000 else 2, c)
    wanted = score(backend, x, labels, Kind.LOGITS)
    side, given = Side(), Side()
    for at_end in (False, True):
        a, b = side.place(x.nbytes, at_end), given.place(labels.nbytes, at_end)
        there = side.bytes[a : a + x.nbytes].view(x.dtype).reshape(x.shape)
        there[:] = x
        place = given.bytes[b : b + labels.nbytes].view(np.int32)
        place[:] = labels
        assert_same_bits(score(backend, there, place, Kind.LOGITS), wanted)


@pytest.mark.parametrize("multiprocessors", [1, 132])
@pytest.mark.parametrize("c", [3, 32, 40, 300])
def test_a_larger_or_smaller_gpu_gives_the_same_bits(backend, multiprocessors, c):
    x, labels = rows_of_every_sort(Kind.LOGITS, "f4", 900, c)
    device = cuda_host.HostDevice()
    device.multiprocessors = multiprocessors
    got = score(CudaBackend(device), x, labels, Kind.LOGITS)
    assert_same_bits(got, score(backend, x, labels, Kind.LOGITS))


@pytest.mark.parametrize("c", [5, 8, 40, 1003, 5000])
@every_dtype
def test_the_sign_of_zeros_changes_no_bit(backend, dtype, c):
    rng = np.random.default_rng(c)
    x = np.where(rng.random((24, c)) < 0.5, 0.0, np.where(rng.random((24, c)) < 0.5, -0.0, -2.0))
    labels = rng.integers(0, c, 24)
    got = score(backend, cast(x, dtype), labels, Kind.LOGITS)
    assert_same_bits(got, score(backend, cast(x + 0.0, dtype), labels, Kind.LOGITS))


# -- places -----------------------------------------------------------------------------------

HIGH = {Kind.LOGITS: 2.0, Kind.PROBS: 0.25, Kind.LOGPROBS: -1.0}
LOW = {Kind.LOGITS: -3.0, Kind.PROBS: 0.5 / SPLIT, Kind.LOGPROBS: -12.0}
EDGES = (0, 1, 3, 4, 7, 8, 9, 255, 2047, 2048, 8191, 8192)


def places_in(c, turn=0):
    """Return places in a row; of one that is split every third, others each turn."""
    starts = {0, LENGTH, 3 * LENGTH}
    found = {start + edge for start in starts for edge in EDGES} | {c - 9, c - 8, c - 2, c - 1}
    places = sorted(place for place in found if 0 <= place < c)
    return places[turn % 3 :: 3] if c == SPLIT else places


@pytest.mark.parametrize("c", [29, 61, 1003, SPLIT])
@every_kind
@every_dtype
def test_the_maximum_and_the_label_may_stand_anywhere(backend, dtype, kind, c):
    places = places_in(c, DTYPES.index(dtype) + kind)
    x = np.full((len(places), c), LOW[kind])
    x[np.arange(len(places)), places] = HIGH[kind]
    x = cast(x, dtype)
    for labels in (places, places[::-1]):
        got = score(backend, x, labels, kind)
        assert got.predicted.tolist() == places
        if c == SPLIT:
            ahead = np.where(np.equal(places, labels), 0, labels + np.less(labels, places))
            np.testing.assert_array_equal(got.rank, ahead)
        else:
            agrees(backend, x, labels, kind)


@pytest.mark.parametrize("c", [29, 61, 1003])
@every_kind
@every_dtype
def test_a_tie_is_won_by_the_lowest_index_wherever_the_two_stand(backend, dtype, kind, c):
    places = places_in(c)
    pairs = [(a, b) for a in places for b in places if a < b]
    x = np.full((len(pairs), c), LOW[kind])
    for row, pair in zip(x, pairs, strict=True):
        row[list(pair)] = HIGH[kind]
    first, second = np.array(pairs).T
    for labels in (first, second):
        got = score(backend, cast(x, dtype), labels, kind)
        np.testing.assert_array_equal(got.predicted, first)
        np.testing.assert_array_equal(got.rank, labels != first)
        assert (got.status & TIE).all()
        assert (got.margin == 0).all()


@pytest.mark.parametrize("bad", [np.nan, -np.nan, np.inf])
@every_kind
@every_dtype
def test_what_makes_a_row_invalid_is_found_wherever_it_stands(backend, dtype, kind, bad):
    reason = Reason.POSITIVE_INFINITY if bad == np.inf else Reason.NAN
    for c in (37, 1003, SPLIT):
        places = places_in(c, DTYPES.index(dtype) + kind + int(np.isinf(bad)) + np.signbit(bad))
        x = np.full((len(places) + 1, c), LOW[kind], np.float32)
        x[:, 5] = HIGH[kind]
        x[np.arange(len(places)), places] = bad
        status = score(backend, cast(x, dtype), np.zeros(len(x)), kind).status & 7
        assert (status[:-1] == reason).all()
        assert status[-1] == Reason.VALID


@pytest.mark.parametrize("tied", [0.0, -0.0, 5e-324, 1e-45, -1e-45, -2.0, -1e-7])
@pytest.mark.parametrize("kind", [Kind.LOGITS, Kind.PROBS])
@pytest.mark.parametrize("c", [13, 37, 203])
def test_the_rank_of_a_label_that_ties_counts_those_before_it(backend, kind, tied, c):
    if kind == Kind.PROBS and tied < -1e-6:
        return
    for dtype in ("f4", "f8"):
        x = np.full((c, c), -1.0 if kind == Kind.LOGITS else 0.0, dtype)
        x[:, ::3] = tied
        x[:, 1] = 0.0 if kind == Kind.LOGITS else 0.5
        x[:, 5] = np.nextafter(np.asarray(tied, dtype), np.asarray(np.inf, dtype))
        labels = np.arange(c)
        assert_equal_integers(score(backend, x, labels, kind), truth(x, labels, kind))


@every_kind
@every_dtype
def test_rising_and_falling_rows(backend, dtype, kind):
    """What was summed is brought to a higher maximum whenever one comes."""
    rng = np.random.default_rng(5)
    c = 2 * LENGTH + 9
    for width in (1003, WARP, c):
        x = rng.normal(size=(6, width)) - 20
        slope = np.linspace(0, 12, width)
        x += np.array([slope, -slope, np.floor(slope), 100 * slope, 0 * slope, np.sin(slope)])
        if kind != Kind.LOGITS:
            x -= np.log(np.exp(x - x.max(1)[:, None]).sum(1))[:, None] + x.max(1)[:, None]
        x = np.exp(x) if kind == Kind.PROBS else x
        agrees(backend, cast(x, dtype), rng.integers(0, width, 6), kind)


@pytest.mark.parametrize("c", [1000, 200_000])
def test_loss_is_no_worse_than_a_sum_in_double_precision_rounded_once(backend, c):
    x, labels = samples(Kind.LOGITS, "f4", 40 if c < 2000 else 6, c, seed=3)
    got, wanted = score(backend, x, labels, Kind.LOGITS), truth(x, labels, Kind.LOGITS)
    finite = np.isfinite(wanted.loss)
    error = np.abs(got.loss[finite] - wanted.loss[finite])
    assert (error <= 2.0**-23 * np.abs(wanted.loss[finite]) + 1.5e-7).all()

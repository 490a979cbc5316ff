"""Profiles and totals on the GPU: orders of threads, alignment, and where shapes of work change."""

from itertools import pairwise

import cuda_host
import numpy as np
import pytest
from test_kernels import cast, every_dtype, every_kind, rows_of_every_sort, samples
from test_profile import (
    epoch,
    everything,
    predicted_of,
    profile_of,
    steps_apart,
    sums_of,
    tallied,
    tempered,
)

from fastdiv_kernels import exact, reference
from fastdiv_kernels.contract import LOWEST_KEPT, Kind
from fastdiv_kernels.cuda import CudaBackend
from fastdiv_kernels.cuda.profile import LONG_FROM, TILE, how_read, lanes_for

pytestmark = pytest.mark.skipif(cuda_host.COMPILER is None, reason="no g++ to compile kernels")
ORDERS = (0, 1, 2)
# One of each shape: vectors, 2 to 32 lanes, blocks.
SHAPES = [3, 16, 17, 100, 192, 400, 1000, LONG_FROM]


def backend(order=0, device=cuda_host.HostDevice):
    return CudaBackend(device(order))


def at_offset(array, offset, alignment=64):
    """Return a copy that begins `offset` elements behind a multiple of `alignment` bytes."""
    room = np.zeros(array.nbytes + alignment + offset * array.itemsize, np.uint8)
    start = -room.__array_interface__["data"][0] % alignment + offset * array.itemsize
    copy = room[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


class Shifted(cuda_host.HostDevice):
    """Makes room for what is written one number behind a multiple of 64 bytes."""

    def room(self, array):
        return at_offset(self.empty(array.shape, array.dtype), 1)


class Wider(cuda_host.HostDevice):
    """Has more multiprocessors, and so more blocks with less to do."""

    multiprocessors = 7


# -- orders of threads ------------------------------------------------------------------------


@pytest.mark.parametrize("c", [2, *SHAPES])
def test_the_order_of_threads_and_the_number_of_blocks_change_no_bit(c):
    n = 1100 if c < 100 else 60 if c < 1000 else 8  # more than all blocks take at once of few
    x, labels = rows_of_every_sort(Kind.PROBS, "f4", n, c)
    columns = *epoch(Kind.PROBS, "f4", n, c)[:3], predicted_of(x, labels, Kind.PROBS)
    kept = profile_of(reference, x, Kind.PROBS, columns[3])
    backends = [*(backend(k) for k in ORDERS), backend(0, Wider)]
    first, *others = (everything(k, x, Kind.PROBS, columns, kept, c) for k in backends)
    for other in others:
        assert other[0] == first[0]
        assert other[1] == first[1]
        np.testing.assert_array_equal(other[2], first[2])


# -- alignment --------------------------------------------------------------------------------


@pytest.mark.parametrize("c", [3, 8, 16, 17, 18, 20, 24, 100, 1000, LONG_FROM, LONG_FROM + 7])
@every_dtype
def test_where_predictions_begin_changes_no_bit(dtype, c):
    n = 300 if c <= 24 else 20 if c <= 1000 else 2
    x, labels = samples(Kind.LOGITS, dtype, n, c)
    predicted = predicted_of(x, labels, Kind.LOGITS)
    wanted = profile_of(backend(), at_offset(x, 0), Kind.LOGITS, predicted)
    for offset in range(1, 16 // x.itemsize):
        got = profile_of(backend(), at_offset(x, offset), Kind.LOGITS, predicted)
        assert got.tobytes() == wanted.tobytes(), offset
    got = profile_of(backend(0, Shifted), x, Kind.LOGITS, predicted)
    assert got.tobytes() == wanted.tobytes()


@pytest.mark.parametrize("c", [2, 3, 4, 10, 16, 17])
def test_where_profiles_begin_changes_no_bit(c):
    loss, margin, flags, kept = epoch(Kind.LOGITS, "f4", 600, c)
    n, sums = tallied(backend(), loss, margin, flags, at_offset(kept, 0), c)
    told = tempered(backend(), margin, at_offset(kept, 0), c, 0.7)
    for offset in range(1, 8):
        there = at_offset(kept, offset)
        n_there, sums_there = tallied(backend(), loss, margin, flags, there, c)
        assert n_there == n
        np.testing.assert_array_equal(sums_there, sums)
        assert tempered(backend(), margin, there, c, 0.7).tobytes() == told.tobytes()


def test_how_numbers_are_read():
    half, single = np.dtype(np.float16), np.dtype(np.float32)
    for start, numbers, dtype, how in [
        (1 << 20, 1000, half, 2), (16, 1000, single, 2), (16, 100, half, 1), (8, 1000, half, 1),
        (16, 101, half, 0), (2, 1000, half, 0), (16, 101, single, 1), (4, 1000, single, 1),
    ]:  # fmt: skip
        assert how_read(start, numbers, dtype) == how
    for dtype, how in ((half, 1), (single, 2)):
        device = cuda_host.HostDevice()
        x, labels = samples(Kind.LOGITS, dtype, 4, 100)
        told = []
        device.launch = lambda *given, told=told: told.append(given)
        profile_of(CudaBackend(device), at_offset(x, 0), Kind.LOGITS, predicted_of(x, labels, 0))
        assert told[0][5][5] == how


# -- where shapes of work change --------------------------------------------------------------


def borders(dtype):
    """Return numbers of classes between which rows get more lanes, and those beside them."""
    lanes = [lanes_for(c, np.dtype(dtype)) for c in range(17, LONG_FROM)]
    changes = [c for c, (a, b) in enumerate(pairwise(lanes), 18) if a != b]
    return [c + by for c in [*changes, LONG_FROM] for by in (-1, 0, 1)]


def test_all_numbers_of_lanes_are_taken():
    for dtype in (np.float16, np.float32, np.float64):
        lanes = [lanes_for(c, np.dtype(dtype)) for c in borders(dtype)]
        assert sorted(set(lanes)) == [2, 4, 8, 16, 32]
        assert lanes == sorted(lanes)
        for c in range(17, 2000):  # each lane has a chunk, which it reads at once
            assert -(-c * np.dtype(dtype).itemsize // 16) >= lanes_for(c, np.dtype(dtype))


@every_kind
@every_dtype
def test_rows_of_either_side_of_a_border_equal_the_reference(dtype, kind):
    steps = []
    for c in borders("f2" if dtype == "bf16" else dtype):
        x, labels = rows_of_every_sort(kind, dtype, 40 if c < 4000 else 6, c)
        predicted = predicted_of(x, labels, kind)
        got, wanted = (profile_of(k, x, kind, predicted) for k in (backend(), reference))
        steps.append(steps_apart(got, wanted).ravel())
        assert steps[-1].max() <= 1, c
        assert not got[predicted < 0].any()
    assert (np.concatenate(steps) > 0).mean() < 0.02


@pytest.mark.parametrize("c", range(3, 17))
def test_tiles_of_vectors_meet_without_a_gap(c):
    rows = TILE // c // 8 * 8
    for n in (rows - 1, rows, rows + 1, 2 * rows + 3):
        x, labels = rows_of_every_sort(Kind.LOGITS, "f4", n, c)
        predicted = predicted_of(x, labels, Kind.LOGITS)
        got, wanted = (profile_of(k, x, Kind.LOGITS, predicted) for k in (backend(), reference))
        assert steps_apart(got, wanted).max() <= 1


@pytest.mark.parametrize("c", [17, 100, 1000])
def test_warps_take_row_after_row(c):
    n = {17: 1600, 100: 1600, 1000: 200}[c]  # more than twice what all warps take at once
    x, labels = rows_of_every_sort(Kind.LOGITS, "f2", n, c)
    predicted = predicted_of(x, labels, Kind.LOGITS)
    kernels = backend()
    got, wanted = (profile_of(k, x, Kind.LOGITS, predicted) for k in (kernels, reference))
    ((_, _, _, blocks, threads, _),) = kernels.device.launched
    assert n > 2 * blocks * threads // lanes_for(c, x.dtype)
    assert steps_apart(got, wanted).max() <= 1


@pytest.mark.parametrize("c", [2, 3, 17])
def test_threads_take_row_after_row(c):
    n = 9000
    loss, margin, flags, kept = (
        np.concatenate([a] * 9) for a in epoch(Kind.LOGITS, "f4", n // 9, c)
    )
    one = tallied(backend(), loss[: n // 9], margin[: n // 9], flags[: n // 9], kept[: n // 9], c)
    count, sums = tallied(backend(), loss, margin, flags, kept, c)
    assert count == 9 * one[0]
    for got, alone in zip(sums, one[1], strict=True):
        assert exact.value(got) == 9 * exact.value(alone)
    told = tempered(backend(), margin, kept, c, 0.3)
    once = tempered(backend(), margin[: n // 9], kept[: n // 9], c, 0.3)
    assert told.tobytes() == 9 * once.tobytes()


# -- halves -----------------------------------------------------------------------------------


def test_halves_are_read_and_written_as_numpy_does():
    every = np.arange(0x8000, 0xFC00, dtype=np.uint16).view(np.float16)  # 0 and below, finite
    x = np.zeros((len(every), 3), np.float16)
    x[:, 1], x[:, 2] = every, -np.inf
    first = np.zeros(len(every), np.int32)
    np.testing.assert_array_equal(profile_of(backend(), x, Kind.LOGITS, first), x)
    finite = every.astype(np.float64)
    middle = (finite[1:] + finite[:-1]) / 2
    near = [np.nextafter(np.float32(middle), np.float32(to)) for to in (0, -1e9)]
    x = np.zeros((3 * len(middle), 3), np.float32)
    x[:, 1] = np.concatenate([middle, *near])
    x[:, 2] = 2 * x[:, 1]
    kept = profile_of(backend(), x, Kind.LOGITS, np.zeros(len(x), np.int32))
    np.testing.assert_array_equal(kept, np.maximum(x, LOWEST_KEPT).astype(np.float16))


@pytest.mark.parametrize("dtype", ["f2", "bf16", "f4", "f8"])
def test_a_largest_probability_of_any_size_is_0_beside_the_others(dtype):
    """Ratios of numbers that are subnormal, and of what no inverse can be had of."""
    rng = np.random.default_rng(1)
    lowest = {"f2": -24, "bf16": -133, "f4": -149, "f8": -1000}[dtype]
    p = cast(np.exp2(rng.uniform(lowest, 0, (2000, 5))), dtype)
    p[rng.random(p.shape) < 0.1] = 0
    p[:, 3] = np.where(rng.random(2000) < 0.5, p[:, 0], p[:, 3])
    p[:, 4] = cast([2.0**lowest], dtype)[0]  # so that none has no mass
    largest = predicted_of(p, np.zeros(2000), Kind.PROBS)
    assert (largest >= 0).all()
    got, wanted = (profile_of(k, p, Kind.PROBS, largest) for k in (backend(), reference))
    np.testing.assert_array_equal(got == 0, wanted == 0)
    np.testing.assert_array_equal(np.isinf(got), np.isinf(wanted))
    assert steps_apart(got, wanted).max() <= 1


def test_rows_that_lack_a_lot_are_added_as_others_are():
    """On either side of where rows are added one by one, with what they have besides the gap."""
    for c in (2, 3, 17):
        for gap in (2.0**27 - 8, 2.0**27, 2.0**28 - 16, 2.0**28):
            _, _, _, kept = epoch(Kind.LOGITS, "f4", 50, c)
            n = len(kept)
            given = np.ones(n, np.float32), np.full(n, -gap, np.float32), np.full(n, 0x80, np.uint8)
            (count, got), (_, wanted) = (
                tallied(k, *given, kept, c) for k in (backend(), reference)
            )
            assert count == n
            np.testing.assert_allclose(sums_of(got), sums_of(wanted), rtol=1e-15, atol=1e-4)


def test_words_of_bfloat16_are_no_float16():
    x = cast([[1.0, 0.0, -2.0] + [-3.0] * 14], "bf16")
    kept = [profile_of(k, x, Kind.LOGITS, np.int32([0])) for k in (backend(), reference)]
    assert steps_apart(*kept).max() <= 1

"""Totals on the GPU, as far as a host can show: orders of threads, alignment, and what is slow."""

import cuda_host
import numpy as np
import pytest
from test_stored_kernels import RUNS, assert_as_reference, run_tally_classes, scores

from fastdiv_kernels import reference
from fastdiv_kernels.contract import CORRECT, DYNAMICS, LOSS_EDGES, MARGIN_EDGES, PRESENT
from fastdiv_kernels.cuda import CudaBackend
from fastdiv_kernels.cuda.classes import table_of

pytestmark = pytest.mark.skipif(cuda_host.COMPILER is None, reason="there is no g++")

F4, F8 = np.dtype("f4"), np.dtype("f8")
SIZES = [0, 1, 2, 31, 32, 33, 255, 256, 257, 5000]
NAMES = ("loss", "margin", "predicted", "labels", "flags")
every_run = pytest.mark.parametrize("run", RUNS.values(), ids=RUNS)
every_loss = pytest.mark.parametrize("dtype", [F4, F8], ids=str)


def moved(x, by):
    """Return the same numbers in an array whose first element is `by` elements into memory."""
    room = np.empty(len(x) + by + 16 // x.itemsize, x.dtype)
    start = -room.__array_interface__["data"][0] // x.itemsize % (16 // x.itemsize) + by
    room[start : start + len(x)] = x
    return room[start : start + len(x)]


@pytest.mark.parametrize("order", range(3))
@every_loss
@every_run
def test_threads_may_go_on_in_any_order(run, dtype, order):
    kernels = CudaBackend(cuda_host.HostDevice(order))
    for n in SIZES:
        how = ("usual", "any", "edges")[n % 3]
        assert_as_reference(kernels, run, scores(n, 7, dtype, how, n, n % 2 == 0), 7)


@every_loss
@every_run
def test_columns_may_begin_at_any_element(run, dtype):
    kernels = CudaBackend(cuda_host.HostDevice())
    for n, by in ((1, 1), (4, 2), (7, 3), (1025, 1), (3000, 2), (9000, 3), (5000, 4)):
        s = scores(n, 30, dtype, "usual", n)
        assert_as_reference(kernels, run, {k: moved(x, by) for k, x in s.items()}, 30)
        apart = {k: moved(x, (by + i) % 5) for i, (k, x) in enumerate(s.items())}
        assert_as_reference(kernels, run, apart, 30)


def extreme(n, dtype, kind):
    """Make n rows of one bin, each as much as the words of a thread or a lane take of one row."""
    s = scores(n, 2, dtype, "usual", 0, all_valid=True)
    s["flags"][:] = PRESENT | CORRECT
    s["labels"][:] = s["predicted"][:] = 1
    last = 1 - np.finfo(dtype).eps  # all bits of a mantissa set
    s["loss"][:] = {"large": 2048, "half": 2.0**-12 + 2.0**-35, "quarter": 63.99999}[kind] * last
    s["margin"][:] = s["brier"][:] = {"large": 2048, "half": 2.0**-12}.get(kind, 2047.9999)
    s["confidence"][:] = {"large": 2.9, "half": 1 - 2.0**-22}.get(kind, 1.4999999)
    return s


@pytest.mark.parametrize("kind", ["large", "half", "quarter"])
@every_loss
@every_run
def test_no_word_overflows_before_it_is_settled(run, dtype, kind):
    kernels = CudaBackend(cuda_host.HostDevice())
    # More than all blocks take before they settle: 128 rows of each thread.
    assert_as_reference(kernels, run, extreme(280_000, dtype, kind), 2)


def test_what_threads_hold_of_a_class_is_let_go_in_time():
    kernels = CudaBackend(cuda_host.HostDevice())
    s = {k: np.tile(x, 4) for k, x in extreme(280_000, F4, "large").items()}
    assert_as_reference(kernels, run_tally_classes, s, 2)


@every_loss
def test_tables_of_classes_hold_what_a_block_adds(dtype):
    kernels = CudaBackend(cuda_host.HostDevice())
    s = extreme(9000, dtype, "large")
    s["loss"][:] = np.nextafter(np.array(2048, dtype), dtype.type(0))
    s["labels"] = np.where(np.arange(9000) % 2, s["labels"], 0)  # no warp has one class
    s["flags"] = np.where(s["labels"] == s["predicted"], PRESENT | CORRECT, PRESENT)
    s["flags"] = s["flags"].astype(np.uint8)
    assert_as_reference(kernels, run_tally_classes, s, 2)


@every_loss
def test_words_of_classes_are_carried_as_far_as_need_be(dtype):
    kernels = CudaBackend(cuda_host.HostDevice())
    s = scores(256, 2, F4, "usual", 0, all_valid=True)
    s["flags"][:] = PRESENT | CORRECT
    loss, labels = np.zeros(256, dtype), np.ones(256, np.int32)
    # One lane's words of class 0 have all bits set, and then the next warp's adds a low one.
    loss[:4] = [(2.0**24 - 1) * 2.0**exponent for exponent in (-96, -72, -48, -24)]
    loss[128] = 2.0**-73
    labels[[0, 1, 2, 3, 128]] = 0
    s |= {"loss": loss, "labels": labels, "predicted": labels}
    assert_as_reference(kernels, run_tally_classes, s, 2)


@pytest.mark.parametrize("c", [2, 33, 110, 400, 3510, 3511, 20_000])
@every_loss
def test_classes_are_added_wherever_they_are_kept(c, dtype):
    kernels = CudaBackend(cuda_host.HostDevice())
    for how in ("usual", "any"):
        s = scores(3000, c, dtype, how, c)
        s["labels"][:500] = np.where(s["labels"][:500] >= 0, c - 1, s["labels"][:500])
        s["flags"] = np.where(s["flags"] & 7, s["flags"], s["flags"] & ~np.uint8(CORRECT))
        right = (s["flags"] & 7 == 0) & (s["flags"] != 0) & (s["labels"] == s["predicted"])
        s["flags"] |= np.where(right, CORRECT, 0).astype(np.uint8)
        assert_as_reference(kernels, run_tally_classes, s, c)


def test_tables_of_classes_have_room():
    for c in (2, 10, 109, 110, 1000, 3510, 3511, 200_000):
        inside, copies = table_of(c)
        assert inside * copies * 28 <= 96 << 10
        assert inside == min(c, 3510)
        assert copies in (1, 2, 4, 8, 16, 32)


@every_loss
def test_rows_sorted_by_class_are_summed_by_threads(dtype):
    s = scores(40_000, 5, dtype, "usual", 0)
    order = np.argsort(s["labels"], kind="stable")
    s = {k: x[order] for k, x in s.items()}
    s["loss"] = np.where(np.arange(40_000) % 50, s["loss"], dtype.type(3000)).astype(dtype)
    device = cuda_host.HostDevice()
    assert_as_reference(CudaBackend(device), run_tally_classes, s, 5)


@pytest.mark.parametrize("sorted_by_class", [False, True])
@every_loss
@pytest.mark.parametrize("name", RUNS)
def test_confident_predictions_stay_off_slow_additions(name, dtype, sorted_by_class):
    n = 60_000
    slow = []
    for exponent in (0, -20, -39):
        s = scores(n, 6, dtype, "usual", 1, all_valid=True)
        rng = np.random.default_rng(0)
        s["labels"] = (np.sort if sorted_by_class else np.asarray)(s["labels"])
        s["predicted"] = s["labels"]
        s["flags"][:] = PRESENT | CORRECT
        small = (1 + rng.random(n)) * 2.0**exponent
        s["loss"] = small.astype(dtype)
        s["brier"] = np.minimum(small * small, 2).astype(np.float32)
        s["confidence"] = np.maximum(1 - small, 0.2).astype(np.float32)
        s["margin"] = (3 - np.log(small)).astype(np.float32)
        device = cuda_host.HostDevice()
        RUNS[name](CudaBackend(device), s, 6)
        slow.append(device.wide_atomics)
    assert max(slow) < n // 10


def histories(kernels, n, dtype, by):
    """Return records after four epochs, which begin `by` words of 64 bits off 16 bytes."""
    records = np.zeros(n * 64 + 32, np.uint8)
    start = -records.__array_interface__["data"][0] % 16 + 8 * by
    records = records[start : start + n * 64].view(DYNAMICS)
    for epoch in range(4):
        s = scores(n, 2, dtype, ("usual", "any")[epoch % 2], epoch)
        kernels.dynamics(epoch, *(moved(s[k], by) for k in NAMES), records)
    return records


@pytest.mark.parametrize("order", range(3))
@every_loss
def test_histories_are_carried_on_in_any_order_of_threads_and_alignment(dtype, order):
    kernels = CudaBackend(cuda_host.HostDevice(order))
    for n in SIZES:
        got, wanted = (histories(k, n, dtype, by=n % 2) for k in (kernels, reference))
        for name in got.dtype.names:
            tolerance = 1e-12 if got.dtype[name].kind == "f" else 0
            np.testing.assert_allclose(
                got[name], wanted[name], rtol=tolerance, atol=tolerance / 1000
            )


def test_records_that_are_in_no_epoch_keep_their_bits():
    kernels = CudaBackend(cuda_host.HostDevice())
    s = scores(300, 2, F4, "usual", 0)
    records = histories(kernels, 300, F4, by=0)
    before = records.copy()
    kernels.dynamics(9, *(s[k] for k in NAMES[:-1]), np.zeros(300, np.uint8), records)
    assert records.tobytes() == before.tobytes()
    one = np.zeros(300, np.uint8)
    one[41] = PRESENT
    kernels.dynamics(9, *(s[k] for k in NAMES[:-1]), one, records)
    assert [i for i in range(300) if records[i] != before[i]] == [41]


@pytest.mark.parametrize("name", ["tally", "distributions"])
def test_confidences_fall_into_the_bins_of_the_reference_at_all_edges(name):
    kernels = CudaBackend(cuda_host.HostDevice())
    edges = np.concatenate([np.arange(51) / 50, np.arange(16) / 15, 2.0 ** -np.arange(1, 60)])
    near = edges.astype(np.float32)
    few = [np.inf, np.nan, -0.125, -0.2, 1.01, 1.0100001, 1.5, 2.0, 1e30, 1e-45, 0.125, 1 / 3]
    p = np.concatenate([near, np.nextafter(near, F4.type(2)), np.nextafter(near, F4.type(-1))])
    if name == "distributions":  # which takes what no row that is valid has
        p = np.concatenate([p, np.array(few, np.float32), -np.array(few, np.float32)])
    s = scores(len(p), 3, F4, "usual", 0, all_valid=True)
    s["confidence"] = p.astype(np.float32)
    with np.errstate(invalid="ignore"):
        assert_as_reference(kernels, RUNS[name], s, 3)


@pytest.mark.parametrize("dtype", [F4, F8], ids=str)
def test_losses_and_margins_fall_into_the_bins_of_the_reference_at_all_edges(dtype):
    kernels = CudaBackend(cuda_host.HostDevice())
    losses = np.array([*LOSS_EDGES[:-1], 2.0**-13.5, 1e-12, 5e-324], dtype)
    losses = np.concatenate([np.nextafter(losses, dtype.type(x)) for x in (-1, 1e9)] + [losses])
    margins = np.array([*MARGIN_EDGES, 0.25, -0.1, 1e30, np.nan], np.float32)
    margins = np.concatenate([np.nextafter(margins, F4.type(x)) for x in (-1e9, 1e9)] + [margins])
    s = scores(len(losses) * 3, 3, dtype, "usual", 0, all_valid=True)
    s["loss"] = np.tile(losses, 3)
    s["margin"] = np.resize(margins, len(s["loss"]))
    assert_as_reference(kernels, RUNS["distributions"], s, 3)

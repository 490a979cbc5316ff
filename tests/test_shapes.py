"""How confidence, loss and margin are distributed: the kernel, its state, and the shapes of a run.

(That merging, blocks, threads and backends make no difference is seen in test_states.py.)
"""

import os
from dataclasses import fields
from fractions import Fraction

import numpy as np
import pytest
from dumps import arrays, column, make, spoil
from here import EVERY, backend_of

import fastdiv
from fastdiv import store
from fastdiv.errors import UsageError
from fastdiv.explain.evidence import Evidence
from fastdiv.explain.shapes import CONFIDENCE_EDGES, LOSS_EDGES, MARGIN_EDGES
from fastdiv.states import Distributions
from fastdiv_kernels import exact
from fastdiv_kernels.contract import CORRECT, PRESENT, UNNORMALIZED, Reason

every_backend = pytest.mark.parametrize("backend", EVERY)
every_loss = pytest.mark.parametrize("loss_dtype", ["f4", "f8"])


def distributed(backend, loss, confidence, margin, flags=PRESENT, loss_dtype="f4"):
    """Count rows, given as numbers or lists of numbers that are broadcast."""
    given = np.broadcast_arrays(loss, confidence, margin, flags)
    columns = [np.array(x, t) for x, t in zip(given, (loss_dtype, "f4", "f4", "u1"), strict=True)]
    found = Distributions.zero(np.dtype(loss_dtype))
    totals = [getattr(found, field.name) for field in fields(found)]
    backend_of(backend).distributions(*columns, *totals)
    return found


def places(counts):
    """Return the bins that the wrong rows of (2, k) counts are in, one a row."""
    return np.repeat(np.arange(counts.shape[1]), counts[0]).tolist()


def around(edges, dtype):
    """Return numbers of a dtype on each edge, or next to it, and next to these."""
    at = np.asarray(edges, dtype)
    return np.unique([np.nextafter(at, dtype(-np.inf)), at, np.nextafter(at, dtype(np.inf))])


def by_hand(edges, x):
    """Return which bin a number is in, by comparing it with every edge as a rational."""
    known = [e if np.isinf(e) else Fraction(float(e)) for e in edges]
    value = x if np.isinf(x) else Fraction(float(x))
    below = sum(e <= value for e in known)
    return min(max(below - 1, 0), len(known) - 2)


# -- bins ---------------------------------------------------------------------------------------


@every_backend
def test_a_confidence_is_in_the_bin_whose_edges_it_lies_between(backend):
    x = around(CONFIDENCE_EDGES, np.float32)
    x = np.concatenate([x, np.float32([0.0, 1e-45, 1.005, 1.01, 0.3, 0.7])])
    for value in x:
        found = distributed(backend, 1.0, [value], 0.0)
        assert places(found.confidences) == [by_hand(CONFIDENCE_EDGES, value)], value


@every_backend
@every_loss
def test_a_loss_is_in_the_bin_whose_edges_it_lies_between(backend, loss_dtype):
    dtype = np.dtype(loss_dtype).type
    info = np.finfo(dtype)
    x = around(LOSS_EDGES[:-1], dtype)
    more = [0.0, -0.0, info.smallest_subnormal, info.tiny, info.max, -0.00995, 1e-9, 0.1, 2.3]
    for value in [*x, *np.array(more, dtype)]:
        found = distributed(backend, [value], 0.5, 0.0, loss_dtype=loss_dtype)
        at = by_hand(LOSS_EDGES, value)
        assert places(found.losses) == [at], value
        assert exact.value(found.loss_sums[at]) == Fraction(float(value))
        assert not np.delete(found.loss_sums, at, axis=0).any()


@every_backend
def test_a_margin_is_in_the_bin_whose_edges_it_lies_between(backend):
    x = around(MARGIN_EDGES, np.float32)
    x = np.concatenate([x, np.float32([-1e-45, 1e-45, -1e-9, -0.3, -0.0, 3e38, -3e38])])
    assert np.isinf(x).sum() == 2
    for value in x:
        found = distributed(backend, 1.0, 0.5, [value])
        assert places(found.margins) == [by_hand(MARGIN_EDGES, value)], value


def test_edges_are_what_pictures_say():
    steps = np.unique(np.diff(MARGIN_EDGES[1:-1]))
    assert steps.tolist() == [0.5]
    assert (MARGIN_EDGES[1], MARGIN_EDGES[-2]) == (-20, 20)
    np.testing.assert_allclose(CONFIDENCE_EDGES, np.arange(51) / 50, rtol=1e-15)
    assert (LOSS_EDGES[1], LOSS_EDGES[-2], len(LOSS_EDGES)) == (2.0**-14, 64, 83)
    np.testing.assert_allclose(LOSS_EDGES[5:-1] / LOSS_EDGES[1:-5], 2.0)


@every_backend
def test_bins_of_reliability_are_those_of_the_calibration_error(backend):
    x = np.concatenate([around(np.arange(16) / 15, np.float32), np.float32([1.005, 1.01, 1e-30])])
    x = x[x >= 0]
    totals = [np.zeros(14, np.int64), np.zeros((15, 2), np.int64)]
    totals += [exact.zeros(2, np.dtype("f4")), exact.zeros(18, np.dtype("f4"))]
    flags = np.where(np.arange(len(x)) % 3 == 0, PRESENT | CORRECT, PRESENT).astype("u1")
    same = np.ones(len(x), np.float32)
    backend_of(backend).tally(same, x, same, same, flags, *totals)
    found = distributed(backend, 1.0, x, 0.0, flags)
    np.testing.assert_array_equal(found.bins, totals[1])
    np.testing.assert_array_equal(exact.carry(found.confidence_sums), exact.carry(totals[3][3:]))


# -- what is counted ----------------------------------------------------------------------------


@every_backend
def test_only_valid_rows_count_the_wrong_and_the_right_apart(backend):
    flags = [PRESENT, PRESENT | CORRECT, PRESENT | CORRECT | UNNORMALIZED, 0, CORRECT]
    flags += [PRESENT | reason for reason in Reason if reason != Reason.VALID]
    found = distributed(backend, 1.0, 0.25, -3.0, flags)
    assert found.counts.tolist() == [3, 0]
    for counts in (found.confidences, found.losses, found.margins):
        assert counts.sum(axis=1).tolist() == [1, 2]
    assert found.bins.sum(axis=0).tolist() == [3, 2]
    assert sum(exact.value(s) for s in found.loss_sums) == 3
    assert sum(exact.value(s) for s in found.confidence_sums) == Fraction(3, 4)


@every_backend
@every_loss
def test_a_loss_that_is_not_finite_is_in_no_bin(backend, loss_dtype):
    loss = [np.inf, -np.inf, np.nan, 2.0]
    found = distributed(backend, loss, 0.5, 0.0, loss_dtype=loss_dtype)
    assert found.counts.tolist() == [4, 3]
    assert places(found.losses) == [by_hand(LOSS_EDGES, 2.0)]
    assert sum(exact.value(s) for s in found.loss_sums) == 2
    assert found.margins.sum() == found.confidences.sum() == 4


@every_backend
def test_infinities_are_in_the_outer_bins_and_nan_in_the_last(backend):
    odd = [np.nan, np.inf, -np.inf]
    found = distributed(backend, 1.0, odd, odd)
    assert places(found.margins) == [0, 81, 81]
    assert places(found.confidences) == [0, 49, 49]
    assert found.bins[:, 0].tolist() == [1, *[0] * 13, 2]
    assert not exact.carry(found.confidence_sums).any()


@every_loss
def test_backends_equal_the_reference_to_the_bit(loss_dtype):
    rng = np.random.default_rng(3)
    n = 20_000
    loss = 10.0 ** rng.uniform(-7, 4, n)
    confidence, margin = rng.random(n) * 1.01, rng.normal(size=n) * rng.choice([1e-3, 1, 30], n)
    flags = rng.integers(0, 256, n)
    columns = (loss, confidence, margin, flags)
    wanted = distributed("reference", *columns, loss_dtype=loss_dtype)
    assert wanted.losses.sum(axis=0).all()
    for name in set(EVERY) - {"reference"}:
        found = distributed(name, *columns, loss_dtype=loss_dtype)
        for field in fields(found):
            a, b = (getattr(x, field.name) for x in (found, wanted))
            if field.name.endswith("sums"):
                a, b = exact.carry(a), exact.carry(b)
            np.testing.assert_array_equal(a, b, field.name)


# -- the shapes of a run ------------------------------------------------------------------------


def assert_same_shapes(a, b):
    for field in fields(a):
        np.testing.assert_array_equal(getattr(a, field.name), getattr(b, field.name), field.name)


@pytest.mark.parametrize("classes", [2, 7])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_shapes_are_numpys_histograms_of_the_valid_samples(classes, dtype):
    dump = make((0, 3, 4), n=900, c=classes, dtype=dtype)
    if classes == 7:
        spoil(dump)
    view = fastdiv.analyze(arrays(dump)).split()
    for epoch in dump:
        side, found = view.side(epoch), view.shapes(epoch)
        assert (found.epoch, found.n) == (epoch, len(side))
        assert found.n_infinite == (~np.isfinite(side.loss)).sum()
        for k, rows in enumerate((~side.correct, side.correct)):
            loss = side.loss[rows & np.isfinite(side.loss)]
            margin = np.clip(side.margin[rows].astype("f8"), -1e300, 1e300)
            wanted = np.histogram(np.minimum(side.confidence[rows], 1.0), CONFIDENCE_EDGES)[0]
            np.testing.assert_array_equal(found.confidence[k], wanted)
            np.testing.assert_array_equal(found.loss[k], np.histogram(loss, LOSS_EDGES)[0])
            np.testing.assert_array_equal(found.margin[k], np.histogram(margin, MARGIN_EDGES)[0])
        finite = side.loss[np.isfinite(side.loss)]
        sums = np.histogram(finite, LOSS_EDGES, weights=finite)[0]
        np.testing.assert_allclose(found.loss_sums, sums, rtol=1e-12)


def test_reliability_gives_the_calibration_error_of_the_epoch():
    run = fastdiv.analyze(arrays(make((0, 1), n=500, c=5)))
    view = run.split()
    for epoch, ece in zip(column(run, "epoch"), column(run, "ece"), strict=True):
        n, right, confidence = view.shapes(epoch).reliability.T
        assert n.sum() == 500
        np.testing.assert_allclose(np.abs(confidence - right).sum() / 500, ece, rtol=1e-14)
        side = view.side(epoch)
        assert right.sum() == side.correct.sum()
        np.testing.assert_allclose(confidence.sum(), side.confidence.sum(), rtol=1e-14)


def test_probabilities_that_sum_to_more_than_one_have_losses_below_zero():
    x = np.array([[1.005, 0.0], [0.5, 0.5]], np.float32)
    view = fastdiv.analyze({0: (x, np.array([0, 1]))}, kind="probs").split()
    assert view.side(0).loss[0] < 0
    found = view.shapes(0)
    assert found.loss[1, 0] == 1
    assert found.loss.sum() == 2
    assert found.loss_sums[0] == view.side(0).loss[0]
    assert found.confidence[1, -1] == found.reliability[-1, 0] == 1


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("block", [1, 8])
def test_no_block_and_no_number_of_threads_changes_a_bit(monkeypatch, threads, block):
    dump = make(n=150, c=7)
    spoil(dump)
    wanted = fastdiv.analyze(arrays(dump)).split().shapes(1)
    monkeypatch.setattr(store, "LARGEST_BLOCK", block)
    monkeypatch.setattr(store, "SMALLEST_BLOCK", 1)
    run = fastdiv.analyze(arrays({e: rows.shuffled() for e, rows in dump.items()}))
    evidence = Evidence(run._samples[0], None, backend_of("cpu"), threads)
    assert evidence.samples.store.block == block
    view = run.split()
    view.evidence = evidence
    assert_same_shapes(view.shapes(1), wanted)


def test_shapes_are_kept_and_a_loaded_run_has_the_same(tmp_path):
    dump = make((0, 1), n=60)
    made = fastdiv.analyze(arrays(dump), output=tmp_path / "run", scores="slim").split()
    loaded = fastdiv.load(tmp_path / "run").split()
    assert_same_shapes(loaded.shapes(1), made.shapes(1))
    assert loaded.shapes(1) is loaded.shapes(1)
    assert loaded.shapes(0) is not loaded.shapes(1)


def test_epochs_are_given_by_name_too(tmp_path):
    for name, rows in zip(("first", "second"), make((0, 1)).values(), strict=True):
        np.savez(tmp_path / f"{name}.npz", logits=rows.x, labels=rows.y, sample_id=rows.ids)
    paths = [tmp_path / "first.npz", tmp_path / "second.npz"]
    view = fastdiv.analyze(paths, epoch_per_path=True).split()
    assert view.shapes("second") is view.shapes(1)


def test_an_epoch_without_stored_scores_is_named():
    run = fastdiv.analyze(arrays(make((0, 1, 2), n=20)), scores="rolling")
    with pytest.raises(UsageError, match="no scores of epoch 0 are stored: there are 1, 2"):
        run.split().shapes(0)


def test_no_valid_sample_is_an_empty_shape():
    x = np.full((4, 3), np.nan, np.float32)
    good = np.zeros((4, 3), np.float32)
    y = np.zeros(4, int)
    found = fastdiv.analyze({0: (x, y), 1: (good, y)}, kind="logits").split()
    assert found.shapes(1).n == 4
    empty = found.shapes(0)
    assert (empty.n, empty.n_infinite) == (0, 0)
    for name in ("confidence", "loss", "margin", "loss_sums", "reliability"):
        assert not getattr(empty, name).any()


# -- reading ahead ------------------------------------------------------------------------------


def test_only_the_fields_that_are_asked_for_are_read_ahead(tmp_path, monkeypatch):
    fastdiv.analyze(arrays(make((0,), n=300)), output=tmp_path / "run")
    file = fastdiv.load(tmp_path / "run")._samples[0].store.epoch(0)
    advised = []
    monkeypatch.setattr(os, "posix_fadvise", lambda _, *where: advised.append(where), raising=False)
    monkeypatch.setattr(os, "POSIX_FADV_WILLNEED", 3, raising=False)
    file.read_ahead(("margin", "flags"))
    raw = file.path.read_bytes()
    parts = [np.frombuffer(raw[start : start + size], np.uint8) for start, size, _ in advised]
    views = file.map()
    wanted = [views[name][b] for b in range(file.blocks) for name in ("margin", "flags")]
    assert len(parts) == len(wanted) == 2 * file.blocks > 0
    for part, field in zip(parts, wanted, strict=True):
        np.testing.assert_array_equal(part, np.ascontiguousarray(field).view(np.uint8))


def test_shapes_need_no_system_that_takes_advice(monkeypatch):
    run = fastdiv.analyze(arrays(make((0,), n=50)))
    monkeypatch.delattr(os, "posix_fadvise", raising=False)
    assert run.split().shapes(0).n == 50

"""Kernels called tile by tile without Python between them do what they do one by one."""

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from types import SimpleNamespace

import numpy as np
import pytest
from here import EVERY, backend_of

from fastdiv import scoring
from fastdiv.batch import Batch, Chunk
from fastdiv.scorer import Scorer
from fastdiv_kernels import cpu
from fastdiv_kernels.contract import BFLOAT16, Kind, Reason, profile_width
from fastdiv_kernels.cpu import jit
from fastdiv_kernels.cpu.flags import write_flags
from fastdiv_kernels.cpu.tiles import in_tiles


@pytest.fixture
def small_tiles(monkeypatch):
    monkeypatch.setattr(scoring, "TILE_BYTES", 1 << 10)
    monkeypatch.setattr(scoring, "TILE_ROWS", 64)


def predictions(n, c, dtype="f4", seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, c)).astype(np.float32)
    return (
        (x.view("u4") >> 16).astype("u2").view(BFLOAT16) if dtype == BFLOAT16 else x.astype(dtype)
    )


def batch_of(pieces, problems=None, seed=0):
    n, c = sum(map(len, pieces)), pieces[0].shape[1]
    labels = np.random.default_rng(seed).integers(-1, c + 1, n).astype(np.int32)
    return Batch(Chunk(0, 0, n), 0, list(pieces), labels, None, 0, None, problems, 0)


def scorer_of(x, profiles=True, backend=cpu, clip=None, kind=Kind.LOGITS):
    return Scorer(backend, kind, x.dtype, x.shape[1], len(x), clip, profiles)


def all_bits(scored):
    arrays = [*scored.scores.arrays(), scored.flags]
    arrays += [] if scored.scores.profile is None else [scored.scores.profile]
    for totals in (scored.totals.epoch, scored.totals.classes):
        arrays += [getattr(totals, f.name) for f in fields(totals)]
    return [x.tobytes() for x in arrays]


def backend_that(run):
    """Return the CPU's kernels with another way to call them by tiles."""
    return SimpleNamespace(
        **{**{name: getattr(cpu, name) for name in cpu.__all__}, "in_tiles": run}
    )


def one_by_one():
    return backend_that(lambda groups, steps: False)


def unaligned(x):
    """Return the same numbers, read-only, at an odd address."""
    held = np.frombuffer(b"." + x.tobytes(), np.uint8)[1:]
    return held.view(x.dtype).reshape(x.shape)


CUTS = {
    "one": [],
    "several": [20, 20, 21, 300, 1111],
    "of one row": list(range(1, 12)),
}


@pytest.mark.parametrize("cuts", CUTS.values(), ids=CUTS)
@pytest.mark.parametrize(
    ("dtype", "c"), [("f4", 2), ("f4", 10), ("f2", 20), (BFLOAT16, 3), ("f8", 10), ("f4", 130)]
)
def test_a_batch_has_the_same_bits_either_way(small_tiles, dtype, c, cuts):
    x = predictions(1237, c, dtype)
    pieces = [unaligned(x[:0]), *map(unaligned, np.split(x, cuts))]
    for profiles in (False, True):
        answers = []
        whole = backend_that(lambda *asked: answers.append(cpu.in_tiles(*asked)) or answers[-1])  # noqa: B023
        scorer = scorer_of(x, profiles, whole)
        scorer.give_back(scorer.score(batch_of([predictions(1300, c, dtype, 1)])))  # used arrays
        found = scorer.score(batch_of(pieces))
        assert answers == [True, True]
        assert all_bits(found) == all_bits(
            scorer_of(x, profiles, one_by_one()).score(batch_of(pieces))
        )
        assert (found.scores.profile is None) == (not profiles or not profile_width(c))


def test_a_batch_is_one_call(small_tiles, monkeypatch):
    x = predictions(1000, 10)
    scorer = scorer_of(x)
    scorer.score(batch_of([x]))
    calls, call = [], jit.Kernel.__call__

    def watched(self, *arguments):
        if jit.recorded.calls is None:
            calls.append(self.__name__)
        return call(self, *arguments)

    monkeypatch.setattr(jit.Kernel, "__call__", watched)
    scorer.score(batch_of([x]))
    assert calls == ["run_steps"]


@pytest.mark.parametrize("backend", EVERY)
def test_every_backend_scores_what_lies_in_pieces(small_tiles, backend):
    x = predictions(500, 5)
    found = scorer_of(x, backend=backend_of(backend)).score(batch_of(np.split(x, [33, 400])))
    wanted = scorer_of(x, backend=one_by_one()).score(batch_of([x]))
    assert (found.scores.predicted == wanted.scores.predicted).all()
    assert (found.totals.epoch.counts == wanted.totals.epoch.counts).all()
    np.testing.assert_allclose(found.scores.loss, wanted.scores.loss, rtol=1e-5)


def test_where_numpy_works_between_kernels_they_are_called_one_by_one(small_tiles):
    def refuse(groups, steps):
        raise AssertionError("not asked")

    x = predictions(500, 5)
    problems = np.zeros(500, np.uint8)
    problems[77] = Reason.NULL
    found = scorer_of(x, backend=backend_that(refuse)).score(batch_of([x], problems))
    assert found.scores.status[77] == Reason.NULL
    assert not found.scores.profile[77].any()
    clipped = scorer_of(x, backend=backend_that(refuse), clip=0.5).score(batch_of([x]))
    assert np.nanmax(clipped.scores.loss) == 0.5


def test_pieces_in_another_order_are_scored_one_by_one(small_tiles):
    x = predictions(500, 5)
    found = scorer_of(x).score(batch_of([x[:200], np.asfortranarray(x[200:])]))
    wanted = scorer_of(x, backend=one_by_one()).score(batch_of([x[:200], x[200:]]))
    assert all_bits(found) == all_bits(wanted)


def test_threads_write_down_their_calls_at_the_same_time(small_tiles):
    x = predictions(700, 10)
    batches = [[x], np.split(x, [100, 350]), [x[::-1].copy()], [x[:401]]]
    wanted = [all_bits(scorer_of(x, backend=one_by_one()).score(batch_of(b))) for b in batches]
    scorer, together = scorer_of(x), threading.Barrier(4)

    def score_often(i):
        together.wait()
        return {tuple(all_bits(scorer.score(batch_of(batches[i])))) for _ in range(50)}

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(score_often, range(4)))
    assert found == [{tuple(bits)} for bits in wanted]


def test_other_threads_and_later_calls_are_not_written_down():
    flags = np.zeros((3, 8), np.uint8)
    given = np.zeros(8, np.bool_), np.zeros(8, np.int32), np.zeros(8, np.uint8)
    seen = []

    def group():
        with ThreadPoolExecutor(1) as pool:
            pool.submit(write_flags, *given, flags[0]).result()
        write_flags(*given, flags[1])
        seen.append(flags.any(axis=1).tolist())

    assert in_tiles([group], [])
    write_flags(*given, flags[2])
    assert seen == [[True, False, False]]
    assert flags.any(axis=1).tolist() == [True, False, True]
    with pytest.raises(ZeroDivisionError):
        in_tiles([lambda: 1 // 0], [])
    write_flags(*given, flags[1])
    assert flags.all()


@jit.kernel
def note(loss, kind, counts):
    for i in range(len(loss)):
        if loss[i] == 7.0:
            raise ValueError("seven")
        loss[i] += kind
    counts[0] += 1
    counts[counts[0]] = 100 * kind + len(loss)


@jit.kernel
def tell_numbers(address, stored, n, c, kind, tolerance, loss, profile):
    for i in range(n):
        loss[i] = stored * 1000.0 + tolerance
        profile[i, 0], profile[i, 1] = address + i, c


@jit.kernel
def take_room(kind, loss):
    loss[0] = len(np.zeros(kind))


@jit.kernel
def sum_up(loss):
    total = 0.0
    for x in loss:
        total += x
    return total


@jit.kernel
def of_pair(profile, kind):
    profile[0][0] = kind


@jit.kernel
def unheard_of(nothing_like_it, loss):
    loss[0] = nothing_like_it


def test_calls_are_made_in_the_order_of_the_steps():
    loss, counts = np.zeros(10), np.zeros(10, np.int64)
    steps = [(0, 0, 4, 0), (1, 2, 3, 0), (0, 4, 6, 0)]
    groups = [lambda: (note(loss, 1, counts), note(loss, 2, counts)), lambda: note(loss, 5, counts)]
    assert in_tiles(groups, steps)
    assert counts.tolist() == [5, 104, 204, 503, 106, 206, 0, 0, 0, 0]
    assert loss.tolist() == [3, 3, 8, 8, 8, 3, 3, 3, 3, 3]


@pytest.mark.parametrize("stored", [np.dtype(x).type(97) for x in "bBhHiIlLfd"], ids=repr)
def test_numbers_of_every_type_pass(stored):
    loss, profile = np.zeros(7), np.zeros((7, 2), np.int64)
    given = (1, stored, 7, -5, 3, 0.25, loss, profile)
    assert in_tiles([lambda: tell_numbers(*given)], [(0, 1, 4, 1 << 40), (0, 5, 1, 8)])
    assert loss.tolist() == [0, *[97000.25] * 5, 0]
    assert profile[1:6, 0].tolist() == [*range(1 << 40, (1 << 40) + 4), 8]
    assert profile[:, 1].tolist() == [0, *[-5] * 5, 0]


def test_what_a_kernel_raises_in_a_tile_is_raised_and_ends_the_steps():
    loss, counts = np.zeros(10), np.zeros(10, np.int64)
    loss[5] = 7
    with pytest.raises(ValueError, match="seven"):
        in_tiles([lambda: note(loss, 1, counts)], [(0, i, 2, 0) for i in range(0, 10, 2)])
    assert counts.tolist() == [2, 102, 102, *[0] * 7]
    assert loss.tolist() == [1, 1, 1, 1, 1, 7, 0, 0, 0, 0]
    with pytest.raises(MemoryError):
        in_tiles([lambda: take_room(1 << 57, loss)], [(0, 0, 1, 0)])
    with pytest.raises(OverflowError):
        in_tiles([lambda: take_room(1 << 64, loss)], [(0, 0, 1, 0)])
    assert in_tiles([lambda: take_room(3, loss)], [(0, 2, 1, 0)])
    assert loss[2] == 3


def test_where_a_call_cannot_be_made_so_none_is():
    loss, counts = np.zeros(10), np.zeros(10, np.int64)
    frozen = np.zeros(10)
    frozen.flags.writeable = False
    for other in (
        lambda: sum_up(loss),  # it has a result
        lambda: of_pair((loss, loss), 1),
        lambda: note(loss, True, counts),  # only Numba's dispatcher takes it
        lambda: unheard_of(3.0, loss),  # who knows what becomes of it from tile to tile
        lambda: of_pair(np.zeros((2, 2, 2)), 1.0),
    ):
        group = [lambda other=other: (note(loss, 1, counts), other())]
        assert not in_tiles(group, [(0, 0, 10, 0)])
        assert not loss.any()
        assert not counts.any()

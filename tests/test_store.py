"""The store against a dict of rows: written in any order, grown, merged, opened again."""

import errno
import os
import resource

import numpy as np
import pytest

import fastdiv
from fastdiv.batch import Scores
from fastdiv.disk import write_all
from fastdiv.epoch_file import Contradiction
from fastdiv.store import OPEN_FILES, Store
from fastdiv.stored import COLUMNS, FIELDS, flags_of
from fastdiv_kernels.contract import CORRECT, PRESENT, TIE, TOP5, Reason

LOSSES = [np.dtype("f4"), np.dtype("f8")]
CLASSES = 9
every_loss = pytest.mark.parametrize("loss_dtype", LOSSES, ids=str)


def make(n, loss_dtype, seed=0):
    """Make n rows of Scores, some of them invalid, some with infinities."""
    rng = np.random.default_rng(seed)
    s = Scores.empty(n, loss_dtype)
    s.loss[:] = rng.exponential(size=n)
    s.loss[rng.random(n) < 0.1] = np.inf
    s.confidence[:], s.brier[:] = rng.random(n), rng.random(n)
    s.margin[:] = rng.normal(size=n)
    s.margin[rng.random(n) < 0.1] = -np.inf
    s.predicted[:] = rng.integers(0, 9, n)
    s.rank[:] = rng.integers(0, 9, n)
    s.correct[:] = s.rank == 0
    s.status[:] = rng.choice([0, TIE], n)
    bad = rng.random(n) < 0.1
    s.status[bad] = Reason.NAN
    s.correct[bad] = False
    s.predicted[bad] = s.rank[bad] = -1
    for values in (s.loss, s.confidence, s.margin, s.brier):
        values[bad] = np.nan
    s.profile = -rng.exponential(size=(n, CLASSES)).astype(np.float16)
    s.profile[rng.random((n, CLASSES)) < 0.1] = -np.inf
    return s


def take(scores, rows):
    part = scores.take(rows)
    return Scores(*(a.copy() for a in part.arrays()), part.profile.copy())


def joined(a, b):
    both = map(np.concatenate, zip(a.arrays(), b.arrays(), strict=True))
    return Scores(*both, np.concatenate([a.profile, b.profile]))


def put(file, slots, scores, labels=None, known=None, first_wins=False):
    """Store scores; labels are 0 and known as such, unless given."""
    top = slots.stop if isinstance(slots, slice) else int(max(slots)) + 1
    known = np.zeros(top, np.int32) if known is None else known
    labels = known[slots] if labels is None else np.array(labels, np.int32)
    return file.put(slots, scores, flags_of(scores), labels, known, first_wins)


def read(file, n, labels=None):
    """Return what is stored of the first n slots, by field."""
    labels = np.zeros(n, np.int32) if labels is None else labels
    parts = []
    for b in range(-(-n // file.block)):
        first = b * file.block
        size = min(file.block, n - first)
        parts.append(file.read(b, size, labels[first : first + size]))
    return {
        name: np.concatenate([getattr(p, name) for p in parts]) for name in (*COLUMNS, "labels")
    }


class Rows:
    """What a store must do, as a dict of rows does it."""

    def __init__(self):
        self.of = {}

    def put(self, slots, scores):
        where = range(slots.start, slots.stop) if isinstance(slots, slice) else slots.tolist()
        columns = [*(getattr(scores, n) for n in FIELDS[:-1]), flags_of(scores), scores.profile]
        for i, slot in enumerate(where):
            self.of[slot] = [a[i] for a in columns]

    def assert_equal(self, found):
        n = len(found["flags"])
        there = sorted(self.of)
        assert np.flatnonzero(found["flags"]).tolist() == there
        for i, name in enumerate(COLUMNS):
            wanted = np.array([self.of[slot][i] for slot in there], found[name].dtype)
            wanted = wanted.reshape(-1, *found[name].shape[1:])
            np.testing.assert_array_equal(found[name][there], wanted, err_msg=name)
        assert n > max(there, default=-1)


def create(tmp_path, loss_dtype=LOSSES[0], expected=1000):
    return Store.create(tmp_path / "store", np.dtype(loss_dtype), CLASSES, True, expected)


@pytest.mark.parametrize("correct", [True, False])
@pytest.mark.parametrize("rank", [-1, 0, 4, 5, 2**31 - 1])
def test_flags_hold_status_correct_top5_and_present(correct, rank):
    scores = make(1, "f4")
    scores.correct[:], scores.rank[:], scores.status[:] = correct, rank, TIE
    wanted = PRESENT | TIE | (CORRECT if correct else 0) | (TOP5 if 0 <= rank < 5 else 0)
    assert flags_of(scores).tolist() == [wanted]


@every_loss
@pytest.mark.parametrize("expected", [1, 64, 65, 100_000])
def test_slices_and_scattered_slots_in_any_order(tmp_path, loss_dtype, expected):
    rng = np.random.default_rng(expected)
    store = create(tmp_path, loss_dtype, expected)
    slots = rng.permutation(900)
    models = {epoch: Rows() for epoch in (3, 0, 12)}
    for epoch, model in models.items():
        for i, start in enumerate(range(0, 900, 75)):
            here = slots[start : start + 75] if i % 2 else np.sort(slots[start : start + 75])
            scores = make(75, loss_dtype, start + epoch)
            assert put(store.epoch(epoch), here, scores) == 0
            model.put(here, scores)
    for epoch, model in models.items():
        model.assert_equal(read(store.epoch(epoch), 1000))


@every_loss
def test_slices_across_blocks_with_gaps_and_backwards(tmp_path, loss_dtype):
    store, model = create(tmp_path, loss_dtype, 64), Rows()
    file = store.epoch(0)
    assert file.block == 64
    for start, stop in [(300, 500), (0, 1), (63, 65), (128, 256), (1, 63), (700, 701)]:
        scores = make(stop - start, loss_dtype, start)
        assert put(file, slice(start, stop), scores) == 0
        model.put(slice(start, stop), scores)
    model.assert_equal(read(file, 800))


@every_loss
@pytest.mark.parametrize("as_slice", [True, False])
def test_what_was_there_stays_while_the_file_grows(tmp_path, loss_dtype, as_slice):
    store, model = create(tmp_path, loss_dtype, 10), Rows()
    file = store.epoch(1)
    for start in range(0, 5000, 500):
        slots = slice(start, start + 500)
        slots = slots if as_slice else np.arange(start + 499, start - 1, -1)
        scores = make(500, loss_dtype, start)
        put(file, slots, scores)
        model.put(slots, scores)
        model.assert_equal(read(file, start + 1000))  # beyond the end, too


def test_a_missing_sample_has_no_flags(tmp_path):
    file = create(tmp_path).epoch(0)
    put(file, np.array([5]), make(1, "f4"))
    flags = read(file, 2000)["flags"]
    assert np.flatnonzero(flags).tolist() == [5]


@pytest.fixture
def few_open_files():
    """Let this process open only some more files than it has."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    if not os.path.isdir("/proc/self/fd"):
        pytest.skip("it cannot be told how many files are open")
    resource.setrlimit(
        resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + OPEN_FILES + 8, before[1])
    )
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_more_epochs_than_files_may_be_open(tmp_path, few_open_files):
    store = create(tmp_path, expected=64)
    epochs = range(2 * OPEN_FILES)
    models = {epoch: Rows() for epoch in epochs}
    for start in (0, 40):
        for epoch in epochs:
            for slots in (slice(start, start + 20), np.array([start + 25, start + 22])):
                n = 20 if isinstance(slots, slice) else 2
                scores = make(n, "f4", epoch)
                put(store.epoch(epoch), slots, scores)
                models[epoch].put(slots, scores)
    for epoch in reversed(epochs):
        models[epoch].assert_equal(read(store.epoch(epoch), 80))
        before = store.epoch((epoch + 1) % len(epochs))  # any two at once, as pairs are read
        models[(epoch + 1) % len(epochs)].assert_equal(read(before, 80))


# -- duplicates -------------------------------------------------------------------------------


def agreeing(n, loss_dtype):
    """Make two lots of rows that agree, as two computations of one thing do."""
    a = make(n, loss_dtype)
    b = take(a, np.arange(n))
    rng = np.random.default_rng(1)
    b.loss += rng.uniform(-5e-7, 5e-7, n).astype(loss_dtype) * np.isfinite(b.loss)
    b.confidence[::2] *= np.float32(1.0000001)
    b.margin[::3] -= np.float32(1e-6)
    b.rank[5:9] = np.where(b.rank[5:9] > 0, 6, b.rank[5:9])  # a flag differs: TOP5
    finite = np.isfinite(a.loss)
    assert (np.abs(a.loss[finite] - b.loss[finite]) <= 1e-6).all()
    return a, b


def content(store, epoch, n):
    return {name: a.tobytes() for name, a in read(store.epoch(epoch), n).items()}


@every_loss
@pytest.mark.parametrize("second", ["slice", "scattered", "same batch"])
def test_rows_that_agree_count_once_and_leave_the_same_bytes_in_either_order(
    tmp_path, loss_dtype, second
):
    n = 100
    store = create(tmp_path, loss_dtype, n)
    for epoch, (first, other) in enumerate([(0, 1), (1, 0)]):
        lots = agreeing(n, loss_dtype)
        a, b = lots[first], lots[other]
        file = store.epoch(epoch)
        if second == "same batch":
            both = joined(a, b)
            assert put(file, np.tile(np.arange(n), 2), both) == n
        else:
            assert put(file, slice(0, n), a) == 0
            again = slice(0, n) if second == "slice" else np.arange(n)[::-1]
            rows = np.arange(n) if second == "slice" else np.arange(n)[::-1]
            assert put(file, again, take(b, rows)) == n
    assert content(store, 0, n) == content(store, 1, n)


@pytest.mark.parametrize("values", [(0.0, -0.0), (-0.0, 0.0)])
def test_zeros_of_either_sign_leave_the_same_bytes_in_either_order(tmp_path, values):
    store = create(tmp_path)
    for epoch, order in enumerate([values, values[::-1]]):
        for value in order:
            scores = make(1, "f4")
            scores.loss[:] = scores.margin[:] = value
            scores.status[:], scores.predicted[:] = 0, 3
            put(store.epoch(epoch), np.array([0]), scores)
    assert content(store, 0, 1) == content(store, 1, 1)


def change_loss(s):
    s.loss += s.loss.dtype.type(2e-6)


def change_prediction(s):
    s.predicted += 1


def make_invalid(s):
    s.status[:] = Reason.NAN
    s.loss[:] = np.nan
    s.predicted[:] = s.rank[:] = -1


def make_infinite(s):
    s.loss[:] = np.inf


def plain(n, loss_dtype):
    """Make n valid rows with losses that differ in less than a millionth when they should."""
    s = make(n, loss_dtype)
    s.loss[:] = np.linspace(0.1, 0.9, n)
    s.status[:], s.predicted[:], s.rank[:], s.correct[:] = 0, 2, 1, False
    s.confidence[:] = s.margin[:] = s.brier[:] = 0.5
    return s


@every_loss
@pytest.mark.parametrize("change", [change_loss, change_prediction, make_invalid, make_infinite])
@pytest.mark.parametrize("as_slice", [True, False])
@pytest.mark.parametrize("swap", [False, True])
def test_rows_that_contradict_are_an_error_that_names_the_second(
    tmp_path, loss_dtype, change, as_slice, swap
):
    file = create(tmp_path, loss_dtype).epoch(0)
    a, b = plain(80, loss_dtype), plain(80, loss_dtype)
    row = take(b, [70])
    change(row)
    for ours, theirs in zip(b.arrays(), row.arrays(), strict=True):
        ours[70] = theirs[0]
    a, b = (b, a) if swap else (a, b)
    put(file, slice(0, 80), a)
    with pytest.raises(Contradiction) as found:
        put(file, slice(0, 80) if as_slice else np.arange(80), b)
    assert found.value.row == 70


@every_loss
@pytest.mark.parametrize("order", ["forwards", "backwards", "shuffled"])
def test_rows_of_which_one_contradicts_leave_the_file_as_it_was(tmp_path, loss_dtype, order):
    """Some rows are new, some agree to the bit or nearly, some come twice in one batch."""
    store = create(tmp_path, loss_dtype)
    file = store.epoch(0)
    a, b = agreeing(100, loss_dtype)
    put(file, slice(20, 60), take(a, np.arange(20, 60)))
    put(file, slice(20, 30), take(b, np.arange(20, 30)))
    before, highest = content(store, 0, 300), dict(file.highest)
    assert highest
    slots = np.concatenate([np.arange(100), np.arange(10, 90)])
    both = joined(b, take(a, slots[100:]))
    rows = np.arange(180)
    if order != "forwards":
        rows = rows[::-1] if order == "backwards" else np.random.default_rng(0).permutation(180)
    for wrong in ([25], [30, 120], [110, 95, 40]):
        bad = take(both, np.arange(180))
        bad.predicted[wrong] += 1
        with pytest.raises(Contradiction) as found:
            put(file, slots[rows], take(bad, rows))
        row = found.value.row
        same = np.flatnonzero(slots[rows] == slots[rows][row])
        assert set(rows[same]) & set(wrong), "another row was found"
        assert content(store, 0, 300) == before
        assert file.highest == highest
    assert put(file, slots[rows], take(both, rows)) == 180 - 60
    assert content(store, 0, 300) != before


def test_another_label_contradicts_and_a_missing_one_does_not(tmp_path):
    file = create(tmp_path).epoch(0)
    a = plain(3, "f4")
    known = np.array([4, 5, 6], np.int32)
    put(file, slice(0, 3), a, [4, 5, 6], known)
    assert put(file, slice(0, 3), a, [4, -1, 6], known) == 3
    with pytest.raises(Contradiction) as found:
        put(file, slice(0, 3), a, [4, 5, 5], known)
    assert found.value.row == 2


@pytest.mark.parametrize("same_batch", [True, False])
@pytest.mark.parametrize("as_slice", [True, False])
def test_the_first_row_counts_where_that_is_asked_for(tmp_path, same_batch, as_slice):
    file, model = create(tmp_path).epoch(0), Rows()
    a, b = make(90, "f4", 1), make(90, "f4", 2)
    slots = slice(0, 90) if as_slice else np.random.default_rng(0).permutation(90)
    model.put(slots, a)
    if same_batch:
        both = joined(a, b)
        order = np.arange(90) if as_slice else slots
        assert put(file, np.tile(order, 2), both, first_wins=True) == 90
    else:
        assert put(file, slots, a, first_wins=True) == 0
        assert put(file, slots, b, first_wins=True) == 90
    model.assert_equal(read(file, 90))


# Two rows of sample 7 at once, equal but for their label; p is such that the loss is, too.
TWO_LABELS = (
    np.array([[0.5, 0.5], [0.5, 0.5], [0.9, 0.1]]),
    np.array([0, 1, 0]),
    np.array([7, 7, 8]),
)


def test_two_rows_at_once_that_differ_only_in_their_label_contradict():
    with pytest.raises(fastdiv.DataError, match="twice in epoch 4"):
        fastdiv.analyze({4: TWO_LABELS}, kind="probs")


def test_of_two_rows_at_once_the_first_keeps_its_label():
    run = fastdiv.analyze({4: TWO_LABELS}, kind="probs", duplicates="first")
    assert run.samples["label"].to_pylist() == [0, 0]
    assert run.classes["support"].to_pylist() == [2, 0]


# -- labels of an epoch -----------------------------------------------------------------------


def test_a_label_of_one_epoch_does_not_change_another(tmp_path):
    store = create(tmp_path, expected=64)
    known = np.arange(200, dtype=np.int32)
    for epoch in (0, 1):
        file = store.epoch(epoch)
        if epoch:
            file.relabel(np.array([3, 70, 199]), np.array([-3 + 10, 1, 2], np.int32))
        put(file, slice(0, 200), plain(200, "f4"), known, known)
    wanted = known.copy()
    wanted[[3, 70, 199]] = 7, 1, 2
    np.testing.assert_array_equal(read(store.epoch(0), 200, known)["labels"], known)
    np.testing.assert_array_equal(read(store.epoch(1), 200, known)["labels"], wanted)
    assert known[3] == 3, "the ledger's labels were written to"


# -- closed and opened again ------------------------------------------------------------------


@every_loss
def test_an_opened_store_holds_what_was_stored(tmp_path, loss_dtype):
    store, models = create(tmp_path, loss_dtype, 300), {}
    known = np.zeros(400, np.int32)
    for epoch in (-1, 0, 7, 1234567):
        models[epoch] = Rows()
        for slots in (slice(0, 150), np.arange(399, 250, -2)):
            scores = make(150 if isinstance(slots, slice) else len(slots), loss_dtype, epoch + 9)
            put(store.epoch(epoch), slots, scores)
            models[epoch].put(slots, scores)
    store.epoch(7).relabel(np.array([200]), np.array([5], np.int32))
    store.trim(400)
    store.describe(store.directory)
    moved = tmp_path / "elsewhere"
    store.directory.rename(moved)
    opened = Store.open(moved, CLASSES)
    assert sorted(opened.files) == [-1, 0, 7, 1234567]
    assert opened.loss_dtype == loss_dtype
    for epoch, model in models.items():
        model.assert_equal(read(opened.epoch(epoch), 400))
    assert np.flatnonzero(read(opened.epoch(7), 400, known)["labels"]).tolist() == [200]
    # And it can be written to.
    more = make(50, loss_dtype, 99)
    assert put(opened.epoch(0), slice(150, 200), more) == 0
    models[0].put(slice(150, 200), more)
    models[0].assert_equal(read(opened.epoch(0), 400))


def test_a_store_that_was_moved_goes_on(tmp_path):
    store, model = create(tmp_path), Rows()
    scores = make(100, "f4")
    put(store.epoch(0), slice(0, 100), scores)
    model.put(slice(0, 100), scores)
    store.directory.rename(tmp_path / "moved")
    store.move(tmp_path / "moved")
    model.assert_equal(read(store.epoch(0), 100))


@every_loss
def test_a_trimmed_file_takes_what_a_sample_is_said_to_take(tmp_path, loss_dtype):
    n = 10_000
    store = create(tmp_path, loss_dtype, n // 3)  # fewer were expected: room for growth is made
    for start in range(0, n, 500):
        put(store.epoch(0), slice(start, start + 500), make(500, loss_dtype, start))
    store.trim(n)
    size = sum(path.stat().st_size for path in store.directory.iterdir())
    row = 17 + loss_dtype.itemsize + 2 * CLASSES
    assert n * row <= size <= (n + store.block) * row
    assert (read(store.epoch(0), n)["flags"] != 0).all()


def test_a_dropped_epoch_leaves_nothing_behind(tmp_path):
    store = create(tmp_path)
    for epoch in (0, 1):
        put(store.epoch(epoch), slice(0, 9), make(9, "f4"))
    store.drop(0)
    assert sorted(store.files) == [1]
    assert len(list(store.directory.iterdir())) == 1
    put(store.epoch(0), slice(3, 4), make(1, "f4"))  # and may come again, empty
    assert np.flatnonzero(read(store.epoch(0), 9)["flags"]).tolist() == [3]


def test_the_largest_label_there_is(tmp_path):
    """Rows whose label is no class, relabelled and twice, are the same rows."""
    ids = np.arange(3)
    x = np.zeros((3, 2), np.float32)
    most = np.array([0, 2**31 - 1, 1], np.int32)
    twice = [(np.concatenate([x, x]), np.concatenate([most, most]), np.concatenate([ids, ids]))]
    run = fastdiv.analyze({0: (x, np.array([0, 1, 1]), ids), 1: twice[0]})
    assert run.epochs["n_invalid"].to_pylist() == [0, 1]
    assert run.summary["splits"][0]["n_duplicates"] == 3


def test_parts_are_written_to_their_places(tmp_path):
    a, b = np.arange(40, dtype="f4"), np.arange(60, dtype="f2").reshape(20, 3)
    with (tmp_path / "file").open("w+b") as file:
        write_all(file.fileno(), [(a, 8, 80, 100), (b, 0, 0, 7), (b, 6, 30, 50), (a, 0, 8, 2)])
        found = file.read()
    wanted = bytearray(180)
    wanted[100:], wanted[50:80], wanted[2:10] = (
        a.tobytes()[8:88],
        b.tobytes()[6:36],
        a.tobytes()[:8],
    )
    assert found == wanted


def test_where_writing_ends_early_the_system_says_why(tmp_path):
    x = np.random.default_rng(0).integers(0, 256, 2000).astype(np.uint8)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with (tmp_path / "file").open("w+b") as file:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
        try:
            with pytest.raises(OSError) as caught:
                write_all(file.fileno(), [(x, 0, 600, 0), (x, 600, 800, 600), (x, 0, 9, 0)])
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert caught.value.errno == errno.EFBIG
        assert file.read() == x[:1000].tobytes()
    with pytest.raises(OSError, match="descriptor"):
        write_all(10**6, [(x, 0, 600, 0)])

"""The ledger against a dict, for ids of every type, in any order, with any guess."""

import copy

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastdiv.errors import DataError
from fastdiv.ledger import Ledger

MOST_BYTES = 12  # a sample, besides the id values


class Slots:
    """What the ledger must do, as a dict does it."""

    def __init__(self):
        self.of = {}

    def slots(self, ids):
        return [self.of.setdefault(i, len(self.of)) for i in ids]


def as_list(slots):
    return list(range(slots.start, slots.stop)) if isinstance(slots, slice) else slots.tolist()


def int64s(values):
    return np.array(values, np.int64)


def uint64s(values):
    return np.array(values, np.uint64)


def strings(values):
    return pa.array(values, pa.large_string())


def sliced(values):
    """Make an array that begins and ends within a larger one."""
    return strings(["before", "", *values, "after"])[2 : 2 + len(values)]


def joined(values):
    """Make an array as reading in two pieces makes it."""
    half = len(values) // 2
    return pa.concat_arrays([strings(values[:half]), strings(values[half:])])


def name(i):
    """Return a string for a number: empty, unicode and long ones among them, all different."""
    if i == 0:
        return ""
    return f"{i % 7}·ü{i}😀" + "long" * (i % 5) * 40 if i % 3 else str(i)


KINDS = {
    "int64": (lambda i: 3 * i - 500, int64s),
    "uint64 beyond int64": (lambda i: 2**63 - 20 + i, uint64s),
    "scattered int64": (lambda i: (i * 2654435761) % 2**61 - 2**60, int64s),
    "the ends of int64": (lambda i: 2**63 - 1 - i if i % 2 else i - 2**63, int64s),
    "strings": (name, strings),
    "sliced strings": (name, sliced),
    "strings of two chunks": (name, joined),
}
every_kind = pytest.mark.parametrize("kind", KINDS)


def check(ledger, model, kind, numbers, guess):
    """Give both the ids of some numbers and compare their slots."""
    value, array = KINDS[kind]
    values = [value(i) for i in numbers]
    got = as_list(ledger.slots(array(values), len(values), guess))
    assert got == model.slots(values)
    assert ledger.n == len(model.of)
    assert len(ledger.labels) >= ledger.n


def assert_ids(ledger, model):
    assert ledger.ids().to_pylist() == list(model.of)


@every_kind
def test_increasing_ids_and_then_the_same_again(kind):
    ledger, model = Ledger(), Slots()
    for start in range(0, 2000, 250):
        check(ledger, model, kind, range(start, start + 250), start)
    for start in range(0, 2000, 125):
        check(ledger, model, kind, range(start, start + 125), start)
    assert_ids(ledger, model)


@every_kind
@pytest.mark.parametrize("guess", ["right", "wrong", "beyond the end"])
def test_shuffled_ids_of_later_epochs(kind, guess):
    rng = np.random.default_rng(0)
    ledger, model = Ledger(1500), Slots()
    for epoch in range(3):
        order = rng.permutation(1500) if epoch else np.arange(1500)
        for start in range(0, 1500, 400):
            at = {"right": start, "wrong": (start + 700) % 1500, "beyond the end": 10**6}[guess]
            check(ledger, model, kind, order[start : start + 400].tolist(), at)
    assert_ids(ledger, model)


@every_kind
def test_new_and_missing_and_duplicate_ids(kind):
    rng = np.random.default_rng(1)
    ledger, model = Ledger(), Slots()
    seen = 0
    for _ in range(60):
        known = rng.integers(0, max(seen, 1), rng.integers(0, 30)).tolist()  # some of them twice
        new = list(range(seen, seen + int(rng.integers(0, 30))))
        seen += len(new)
        numbers = rng.permutation(known + new + new[:3]).tolist()
        if numbers:
            check(ledger, model, kind, numbers, int(rng.integers(0, seen + 5)))
    assert_ids(ledger, model)


@every_kind
def test_ids_that_go_down(kind):
    ledger, model = Ledger(), Slots()
    check(ledger, model, kind, range(999, -1, -1), 0)
    check(ledger, model, kind, range(1000), 0)
    assert_ids(ledger, model)


@every_kind
@settings(max_examples=60, deadline=None)
@given(
    batches=st.lists(
        st.tuples(st.lists(st.integers(0, 40), min_size=1, max_size=25), st.integers(0, 60)),
        max_size=12,
    )
)
def test_any_ids_with_any_guess(kind, batches):
    ledger, model = Ledger(), Slots()
    for numbers, guess in batches:
        check(ledger, model, kind, numbers, guess)
    assert model.of == {} or ledger.ids().to_pylist() == list(model.of)


@every_kind
def test_a_batch_without_rows_changes_nothing(kind):
    ledger, model = Ledger(), Slots()
    check(ledger, model, kind, [], 0)
    check(ledger, model, kind, [3, 1, 2], 0)
    for guess in (0, 1, 3):
        check(ledger, model, kind, [], guess)
    assert_ids(ledger, model)


NUMBERS = {
    "int64": (np.int64, [-(2**63), -(2**63) + 5, -300, 0, 400, 10**15, 2**63 - 200]),
    "uint64": (np.uint64, [0, 300, 2**63 - 50, 2**63 + 100, 2**64 - 200]),
}


@pytest.mark.parametrize("kind", NUMBERS)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_runs_shuffles_and_jumps_of_dense_and_scattered_ids(kind, data):
    """Runs make a table of places, jumps beyond it a hash table, and more runs one of places."""
    dtype, starts = NUMBERS[kind]
    ledger, model, before = Ledger(), Slots(), []
    for _ in range(data.draw(st.integers(1, 6))):
        start, n = data.draw(st.sampled_from(starts)), data.draw(st.integers(1, 180))
        known = data.draw(st.integers(0, len(before)))
        values = before[known:] + [start + i for i in range(n)]
        how = data.draw(st.sampled_from(["as they come", "shuffled", "twice"]))
        if how == "shuffled":
            np.random.default_rng(n).shuffle(values)
        elif how == "twice":
            values += values
        guess = data.draw(st.integers(0, 400))
        samples = ledger.n
        if data.draw(st.booleans()):  # a batch that is taken back
            other = Slots()
            other.of = dict(model.of)
            got = ledger.slots(np.array(values, dtype), len(values), guess)
            assert as_list(got) == other.slots(values)
            ledger.undo(samples)
        got = ledger.slots(np.array(values, dtype), len(values), guess)
        assert as_list(got) == model.slots(values)
        before = values
    assert_ids(ledger, model)


@settings(max_examples=80, deadline=None)
@given(
    batches=st.lists(
        st.tuples(
            st.lists(
                st.builds(
                    lambda stem, times, end: stem * times + end,
                    st.sampled_from(["", "\0", "a", "a\0b", "12345678", "ü"]),
                    st.sampled_from([0, 1, 2, 7, 8, 9, 63, 64, 65, 600]),
                    st.sampled_from(["", "\0", "x", "7654321", "123456789"]),
                ),
                min_size=1,
                max_size=12,
            ),
            st.integers(0, 20),
            st.booleans(),
        ),
        max_size=8,
    )
)
def test_strings_of_any_length(batches):
    ledger, model = Ledger(), Slots()
    for values, guess, taken_back in batches:
        samples = ledger.n
        if taken_back:
            ledger.slots(strings(values), len(values), guess)
            ledger.undo(samples)
        assert as_list(ledger.slots(strings(values), len(values), guess)) == model.slots(values)
    assert model.of == {} or ledger.ids().to_pylist() == list(model.of)


@pytest.mark.parametrize("n", [63, 64, 65, 129, 1000])
def test_one_id_that_differs_anywhere_is_seen(n):
    """The same order is compared in steps; so is whether ids increase."""
    ids = np.arange(10, 10 + n)
    for at in {0, 1, 62, n - 1} | set(range(60, n, 61)):
        ledger, model = Ledger(), Slots()
        ledger.slots(ids, n, 0)
        model.slots(ids.tolist())
        other = ids.copy()
        other[at] = 5000
        assert as_list(ledger.slots(other, n, 0)) == model.slots(other.tolist())
        fresh, model = Ledger(), Slots()
        other[at] = other[at - 1]  # falls at 0, stays at any other place
        assert as_list(fresh.slots(other, n, 0)) == model.slots(other.tolist())


@pytest.mark.parametrize("kind", ["read only", "unaligned", "every second"])
def test_ids_as_an_array_may_hold_them(kind):
    n = 300
    wide = np.zeros(8 * n + 8, np.uint8)
    ids = {"unaligned": wide[4:-4].view(np.int64), "every second": np.zeros(2 * n, np.int64)[::2]}
    ids = ids.get(kind, np.zeros(n, np.int64))
    ids[:] = np.random.default_rng(0).permutation(n) * 10**12
    ids.flags.writeable = kind != "read only"
    ledger, model = Ledger(), Slots()
    for x in (ids, ids, ids[::-1]):
        assert as_list(ledger.slots(x, n, 0)) == model.slots(x.tolist())


@every_kind
def test_a_copy_goes_on_by_itself(kind):
    ledger, model = Ledger(), Slots()
    check(ledger, model, kind, range(200, 0, -1), 0)
    other, others = copy.deepcopy(ledger), Slots()
    others.of = dict(model.of)
    for one, of_it, numbers in ((ledger, model, range(300)), (other, others, range(400, 100, -1))):
        check(one, of_it, kind, numbers, 0)
        check(one, of_it, kind, numbers, 0)
        assert_ids(one, of_it)


def test_dense_ids_have_a_table_of_places_until_one_comes_from_afar():
    rng = np.random.default_rng(0)
    ledger, model = Ledger(), Slots()
    ids = np.arange(1000) - 500
    for order, places in ((ids, True), (np.append(ids, 10**17), False)):
        ledger.slots(order, len(order), 0)
        model.slots(order.tolist())
        mixed = rng.permutation(order)
        assert as_list(ledger.slots(mixed, len(mixed), 0)) == model.slots(mixed.tolist())
        assert (ledger._ids.table.base is not None) == places


def test_ids_that_hash_alike_are_told_apart():
    # Multiples of 2**40 and runs of neighbours fill neighbouring places of any poor hash.
    ids = np.concatenate([np.arange(3000) << 40, np.arange(1, 3000), -np.arange(1, 3000)])
    rng = np.random.default_rng(0)
    ledger, model = Ledger(), Slots()
    for _ in range(3):
        rng.shuffle(ids)
        assert as_list(ledger.slots(ids, len(ids), 0)) == model.slots(ids.tolist())


def test_strings_that_are_parts_of_one_another_are_told_apart():
    values = ["a" * n + end for n in range(200) for end in ("", "b")] + ["a\0", "\0a", "\0"]
    ledger, model = Ledger(), Slots()
    for order in (values, values[::-1], values[::3]):
        assert as_list(ledger.slots(strings(order), len(order), 0)) == model.slots(order)


def test_an_equal_run_of_bytes_cut_elsewhere_is_not_the_same_strings():
    ledger, model = Ledger(), Slots()
    for values in (["ab", "c"], ["a", "bc"], ["", "abc"], ["abc", ""]):
        assert as_list(ledger.slots(strings(values), 2, 0)) == model.slots(values)


def test_without_ids_a_sample_is_its_position():
    ledger = Ledger()
    assert ledger.slots(None, 10, 0) == slice(0, 10)
    assert ledger.slots(None, 5, 10) == slice(10, 15)
    assert ledger.slots(None, 10, 0) == slice(0, 10)
    assert ledger.n == 15
    assert ledger.positional
    assert ledger.ids().to_pylist() == list(range(15))


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (np.array([1, 2]), strings(["1"])),
        (strings(["1"]), np.array([1])),
        (np.array([1, 2]), np.array([3], np.uint64)),
    ],
)
def test_ids_of_another_type_are_refused(first, second):
    ledger = Ledger()
    ledger.slots(first, len(first), 0)
    with pytest.raises(DataError, match="ids"):
        ledger.slots(second, len(second), 0)


# -- memory -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["int64", "scattered int64", "strings"])
def test_the_index_takes_at_most_12_bytes_a_sample_however_it_grew(kind):
    value, array = KINDS[kind]
    rng = np.random.default_rng(0)
    order = rng.permutation(60_000)
    ledger, worst = Ledger(), 0.0
    for start in range(0, len(order), 997):
        part = order[start : start + 997].tolist()
        ledger.slots(array([value(i) for i in part]), len(part), 0)
        if ledger.n > 5000:  # below, what is kept ready at the least would count
            index = ledger.labels.nbytes + ledger._ids.table.nbytes
            worst = max(worst, index / ledger.n)
    assert 8 < worst <= MOST_BYTES  # it does have both: 4 for the label, more than 4 for the table


def test_ids_that_keep_their_order_need_no_table():
    ledger = Ledger(20_000)
    for _ in range(3):
        for start in range(0, 20_000, 1000):
            ids = np.arange(start, start + 1000)
            assert ledger.slots(ids, 1000, start) == slice(start, start + 1000)
    assert ledger._ids.table.nbytes == 0
    assert ledger.labels.nbytes == 4 * 20_000


# -- labels -----------------------------------------------------------------------------------


def relabel(ledger, slots, labels):
    found = ledger.relabel(slots, np.array(labels, np.int32))
    return None if found is None else dict(zip(*(x.tolist() for x in found), strict=True))


@pytest.mark.parametrize("slots", [slice(0, 4), np.array([0, 1, 2, 3])])
def test_labels_are_kept_and_another_one_is_reported(slots):
    ledger = Ledger()
    ledger.slots(np.array([10, 20, 30, 40]), 4, 0)
    assert relabel(ledger, slots, [1, 2, -1, 0]) is None
    assert relabel(ledger, slots, [1, 2, -1, 0]) is None
    # A label that was missing is learned; one that is missing now says nothing.
    assert relabel(ledger, slots, [-1, 2, 5, 0]) is None
    assert relabel(ledger, slots, [1, 3, 6, 0]) == {1: 3, 2: 6}
    assert ledger.labels[:4].tolist() == [1, 2, 5, 0]


def test_the_first_of_two_labels_in_a_batch_is_kept():
    ledger = Ledger()
    slots = ledger.slots(np.array([7, 8, 7]), 3, 0)
    assert relabel(ledger, slots, [1, 0, 2]) is None
    assert ledger.labels[:2].tolist() == [1, 0]
    assert relabel(ledger, slots, [3, 0, 1]) == {0: 3}
    assert relabel(ledger, slots, [1, 0, 3]) is None
    assert ledger.labels[:2].tolist() == [1, 0]


def test_labels_survive_growth():
    ledger = Ledger()
    for start in range(0, 5000, 100):
        slots = ledger.slots(np.arange(start, start + 100), 100, start)
        assert relabel(ledger, slots, list(range(start, start + 100))) is None
    assert ledger.labels[:5000].tolist() == list(range(5000))
    assert (ledger.labels[5000:] == -1).all()


# -- room -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("expected", [0, 3_000, 10**15])
def test_room_is_taken_for_samples_that_come_whatever_is_expected(kind, expected):
    """A damaged file may claim any number of rows."""
    value, array = KINDS[kind]
    ledger = Ledger(expected)
    for start in range(0, 3000, 500):
        ids = array([value(i) for i in range(start, start + 500)])
        assert ledger.slots(ids, 500, start) == slice(start, start + 500)
        room = len(ledger.labels)
        assert room <= max(16 * ledger.n, expected if expected < 10**15 else 0)
    assert ledger.nbytes < 16 * 3000 * 40
    if expected == 3000:
        assert room == 3000

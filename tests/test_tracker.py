"""Tracker: the lifecycle of a metric, over the same functions as files and to the same bits."""

import copy
import gc
import os
import pickle
import re
from dataclasses import replace
from itertools import permutations

import numpy as np
import pyarrow as pa
import pytest
from dumps import Rows, arrays, as_kind, as_list, assert_same, column, make, whole, write

import fastdiv
from fastdiv import tracker as tracker_module
from fastdiv.sources import layout

EPOCHS = (0, 3, 4)


def hard(dtype=np.float32):
    """Return {epoch: Rows} with all that may go wrong, in an order that changes."""
    dump = make(EPOCHS, n=150, c=7, dtype=dtype)
    first, second, third = dump.values()
    first.x[10], first.x[11, 3], first.x[12] = np.nan, np.inf, -np.inf  # invalid
    first.x[13, first.y[13]] = -np.inf  # infinite loss
    second.x[14], third.x[15] = 0.5, np.nan  # a tie
    third.y = third.y.copy()
    third.y[20:25] = (third.y[20:25] + 1) % 7  # relabelled
    third.y[26], third.y[27] = -1, 7  # out of range
    dump[EPOCHS[0]] = first.take(slice(0, -6))  # six are new in the second epoch
    dump[EPOCHS[1]] = second.take(slice(0, -3)).shuffled()
    dump[EPOCHS[2]] = third.take(slice(4, None))  # four are gone
    return dump


def batches(rows, seed):
    """Cut rows into batches of uneven sizes."""
    rng = np.random.default_rng(seed)
    start = 0
    while start < len(rows):
        n = int(rng.integers(1, 40))
        yield rows.take(slice(start, start + n))
        start += n


def feed(tracker, dump, seed=0, ids=True):
    """Give a tracker every epoch; return what it said."""
    said = []
    for epoch, rows in dump.items():
        for b in batches(rows, seed + epoch):
            tracker.update(b.x, b.y, b.ids if ids else None)
        said.append(tracker.end_epoch(epoch))
    return said


def tracked(dump, seed=0, ids=True, **options):
    tracker = fastdiv.Tracker(kind="logits", **options)
    feed(tracker, dump, seed, ids)
    return tracker


# The same as files ----------------------------------------------------------------------------


@pytest.mark.parametrize("scores", ["all", "rolling"])
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_the_same_batches_give_the_same_bits_as_a_file(tmp_path, dtype, seed, scores):
    dump = hard(dtype)
    path = write(whole(dump), tmp_path / "a.parquet", row_group_size=50)
    wanted = fastdiv.analyze(path, kind="logits")
    for name in ("n_infinite", "n_invalid", "n_relabelled", "n_only_from", "n_only_to"):
        assert any(column(wanted, name, "transitions")), f"no {name}: not a hard case"
    run = tracked(dump, seed, scores=scores).run()
    assert_same(run, wanted)
    for entry in (run.summary["splits"], wanted.summary["splits"]):
        assert entry[0].pop("ids") == "column"
        assert entry == [entry[0]]
    assert run.summary["splits"] == wanted.summary["splits"]
    counts = [{r["reason"]: r["n"] for r in x.summary["invalid"]["reasons"]} for x in (run, wanted)]
    assert counts[0] == counts[1]
    assert run.summary["rows"] == wanted.summary["rows"] == sum(map(len, dump.values()))


@pytest.mark.parametrize("kind", ["probs", "logprobs"])
@pytest.mark.parametrize("ids", ["position", "strings", "uint64", "bytes"])
def test_kinds_and_ids(tmp_path, kind, ids):
    dump = {e: as_kind(rows, kind) for e, rows in make(n=90).items()}
    for rows in dump.values():
        if ids == "strings":
            rows.ids = np.array([f"image {i}" for i in rows.ids])
        elif ids == "uint64":
            rows.ids = rows.ids.astype(np.uint64) + np.uint64(2**63)
        elif ids == "bytes":
            rows.ids = np.array([b"image %d" % i for i in rows.ids])
    tracker = fastdiv.Tracker(kind=kind, classes=3, split="val", clip=1e-3)
    feed(tracker, dump, ids=ids != "position")
    path = tmp_path / "a.parquet"
    with fastdiv.PredictionWriter(path, kind=kind) as writer:
        for epoch, rows in dump.items():
            given = None if ids == "position" else rows.ids
            writer.write(rows.x, rows.y, given, epoch=epoch, split="val")
    wanted = fastdiv.analyze(path, clip=1e-3)
    assert wanted.summary["splits"][0]["ids"] == ("position" if ids == "position" else "column")
    assert_same(tracker.run(), wanted)


@pytest.mark.parametrize("labels", ["names", "one-hot", "column", "list"])
def test_labels(labels):
    dump = make(n=60)
    wanted = fastdiv.analyze(arrays(dump), class_names=["a", "b", "c"])
    tracker = fastdiv.Tracker(kind="logits", class_names=["a", "b", "c"])
    make_labels = {
        "names": lambda y: np.array(list("abc"))[y],
        "one-hot": lambda y: np.eye(3, dtype=np.int64)[y],
        "column": lambda y: y[:, None],
        "list": lambda y: y.tolist(),
    }[labels]
    for rows in dump.values():
        tracker.update(rows.x, make_labels(rows.y), rows.ids)
        tracker.end_epoch()
    assert_same(tracker.run(), wanted)
    assert tracker.run().classes["class"].to_pylist()[:3] == ["a", "b", "c"]


def test_a_large_update_is_cut_into_pieces_for_threads(monkeypatch):
    dump = hard()
    wanted = tracked(dump).run()
    monkeypatch.setattr(layout, "BATCH_ROWS", 7)
    for threads in (1, 4):
        tracker = fastdiv.Tracker(kind="logits", threads=threads)
        for epoch, rows in dump.items():
            tracker.update(rows.x, rows.y, rows.ids)
            tracker.end_epoch(epoch)
        assert_same(tracker.run(), wanted)
        places = [r["first"][0] for r in tracker.run().summary["invalid"]["reasons"]]
        assert "epoch 0, update 0, row 10" in places


# What is taken --------------------------------------------------------------------------------


class OnlyDLPack:
    """An array of another library, which has DLPack and nothing else."""

    def __init__(self, array, device=1):
        self.array = array
        self.device = device

    def __dlpack__(self, **options):
        assert self.device == 1, "read from a device that cannot be read"
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self):
        return (self.device, 0)


class OnlyArrow:
    """A column of another library, which exports Arrow and nothing else."""

    def __init__(self, array):
        self.array = array

    def __arrow_c_array__(self, requested_schema=None):
        return self.array.__arrow_c_array__(requested_schema)


def read_only(x):
    x = x.copy()
    x.flags.writeable = False
    return x


def every_other(x):
    wide = np.zeros((2 * len(x), *(2 * n for n in x.shape[1:])), x.dtype)
    wide[tuple([slice(None, None, 2)] * x.ndim)] = x
    return wide[tuple([slice(None, None, 2)] * x.ndim)]


def arrow(x):
    return as_list(x, "fixed_size_list") if x.ndim == 2 else pa.array(x)


WAYS = {
    "DLPack": OnlyDLPack,
    "Arrow": arrow,
    "Arrow lists": lambda x: as_list(x) if x.ndim == 2 else pa.array(x),
    "Arrow chunks": lambda x: pa.chunked_array([arrow(x[:5]), arrow(x[5:])]),
    "Arrow interface": lambda x: OnlyArrow(arrow(x)),
    "Arrow slice": lambda x: arrow(np.concatenate([x[:3], x]))[3:],
    "read-only": read_only,
    "not contiguous": every_other,
    "Fortran order": np.asfortranarray,
    "big-endian": lambda x: x.astype(x.dtype.newbyteorder(">")),
    "lists": lambda x: x if x.ndim == 2 else x.tolist(),
}


@pytest.mark.parametrize("way", WAYS)
def test_what_predictions_labels_and_ids_may_be(way):
    dump = make(n=40)
    wanted = fastdiv.analyze(arrays(dump), kind="logits")
    tracker = fastdiv.Tracker(kind="logits")
    for rows in dump.values():
        tracker.update(*map(WAYS[way], rows.arrays()))
        tracker.end_epoch()
    assert_same(tracker.run(), wanted)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "float64"])
def test_tensors_of_torch(dtype):
    torch = pytest.importorskip("torch")
    tracker, same = (fastdiv.Tracker(kind="logits") for _ in range(2))
    for rows in make(n=40).values():
        x = torch.from_numpy(rows.x).to(getattr(torch, dtype)).requires_grad_()
        y, ids = torch.from_numpy(rows.y), torch.from_numpy(rows.ids)
        tracker.update(x * 1, y, ids)  # of a graph, as outside of inference mode
        exact = x.detach().to(torch.float64 if dtype == "float64" else torch.float32)
        same.update(exact.numpy(), rows.y, rows.ids)
        assert tracker.end_epoch().row == same.end_epoch().row
    assert tracker.run().summary["dtype"] == dtype


@pytest.mark.parametrize(
    "way", ["numpy", "DLPack", "Arrow", "read-only", "torch", "torch bfloat16"]
)
def test_predictions_are_not_copied(monkeypatch, way):
    x = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)
    given = x
    if "torch" in way:
        torch = pytest.importorskip("torch")
        given = torch.from_numpy(x)
        if way == "torch bfloat16":
            given = given.to(torch.bfloat16)
            x = given.view(torch.int16).numpy()
    elif way in WAYS:
        given = WAYS[way](x)
        x = given if way == "read-only" else x
    seen = []
    score = tracker_module.score_batch

    def watched(kernels, batch, *arguments):
        seen.append(batch.predictions)
        return score(kernels, batch, *arguments)

    monkeypatch.setattr(tracker_module, "score_batch", watched)
    fastdiv.Tracker(kind="logits").update(given, np.zeros(50, np.int32))
    assert [np.shares_memory(s, x) for s in seen] == [True]


@pytest.mark.parametrize("what", range(3))
def test_what_lies_on_a_device_is_refused(what):
    given = list(make(n=40)[0].arrays())
    given[what] = OnlyDLPack(given[what], device=2)
    with pytest.raises(fastdiv.UsageError, match=r"update 0: .*device.*cpu"):
        fastdiv.Tracker(kind="logits").update(*given)


# Lifecycle ------------------------------------------------------------------------------------


@pytest.mark.parametrize("scores", ["all", "rolling"])
def test_what_an_epoch_was(scores):
    dump = hard()
    tracker = fastdiv.Tracker(kind="logits", scores=scores)
    said = feed(tracker, dump)
    run = tracker.run()
    rows, transitions = run.epochs.to_pylist(), run.transitions.to_pylist()
    assert [result.row for result in said] == rows
    assert [result.before for result in said] == [None, *rows[:-1]]
    assert [result.transition for result in said] == [None, *transitions]
    assert [result.epoch for result in said] == list(EPOCHS)
    assert [result.loss for result in said] == column(run, "loss")
    assert [result.accuracy for result in said] == column(run, "accuracy")


def test_an_epoch_in_one_line():
    dump = make((2, 3), n=1200)
    first, second = tracked(dump, split="val")._tracked, feed(fastdiv.Tracker(kind="logits"), dump)
    assert first.ended is not None
    line = r"epoch 2: loss \d\.\d{4}, accuracy 0\.\d{4}; 1,200 samples"
    assert re.fullmatch(line, repr(second[0]))
    row, before, pair = second[1].row, second[1].before, second[1].transition
    change = [row[name] - before[name] for name in ("loss", "accuracy")]
    assert repr(second[1]) == (
        f"epoch 3: loss {row['loss']:.4f} ({change[0]:+.4f}), accuracy {row['accuracy']:.4f} "
        f"({change[1]:+.4f}); {pair['rw']} right→wrong, {pair['wr']} wrong→right of 1,200"
    )
    said = feed(fastdiv.Tracker(kind="logits", split="val"), hard())
    assert repr(said[0]).startswith("val, epoch 0: loss inf, accuracy")
    assert repr(said[0]).endswith("; 3 invalid")
    assert "(" in repr(said[2])


def test_nothing_but_invalid_rows():
    tracker = fastdiv.Tracker(kind="logits")
    tracker.update(np.full((4, 2), np.nan), np.zeros(4, int))
    result = tracker.end_epoch()
    assert np.isnan([result.loss, result.accuracy]).all()
    assert repr(result) == "epoch 0: loss nan, accuracy nan; 4 samples; 4 invalid"


def test_epochs_are_numbered_from_0_unless_they_are_named():
    rows = make(n=10)[0]
    tracker = fastdiv.Tracker(kind="logits")
    numbers = []
    for epoch in (None, None, 7, None, np.int64(12)):
        tracker.update(*rows.arrays())
        numbers.append(tracker.end_epoch(epoch).epoch)
    assert numbers == [0, 1, 7, 8, 12]
    assert [type(number) for number in numbers] == [int] * 5
    tracker.update(*rows.arrays())
    for epoch in (12, 3):
        with pytest.raises(fastdiv.UsageError, match=f"epoch {epoch} comes after epoch 12"):
            tracker.end_epoch(epoch)
    with pytest.raises(fastdiv.UsageError, match="whole number"):
        tracker.end_epoch(13.5)
    assert tracker.end_epoch().epoch == 13  # nothing was lost


def test_an_epoch_without_rows():
    tracker = fastdiv.Tracker(kind="logits")
    with pytest.raises(fastdiv.UsageError, match="epoch 0 cannot end: no row"):
        tracker.end_epoch()
    with pytest.raises(fastdiv.UsageError, match="no epoch has ended"):
        tracker.run()
    rows = make(n=10)[0]
    tracker.update(rows.x[:0], rows.y[:0], rows.ids[:0])
    with pytest.raises(fastdiv.UsageError, match="epoch 0 cannot end"):
        tracker.end_epoch()
    tracker.update(*rows.arrays())
    tracker.update(rows.x[:0], rows.y[:0], rows.ids[:0])
    tracker.end_epoch()
    with pytest.raises(fastdiv.UsageError, match="epoch 1 cannot end"):
        tracker.end_epoch()


def test_a_run_is_a_copy_and_the_tracker_goes_on(tmp_path):
    dump = hard()
    tracker = fastdiv.Tracker(kind="logits")
    runs = []
    for epoch, rows in dump.items():
        tracker.update(*rows.arrays())
        tracker.end_epoch(epoch)
        tracker.update(-rows.x[:20], rows.y[:20], rows.ids[:20] + 10**6)  # of an epoch under way
        runs.append(tracker.run())
        tracker._tracked.forget_under_way()
    tracker.close()
    for i, run in enumerate(runs):
        wanted = fastdiv.analyze(arrays({e: dump[e] for e in EPOCHS[: i + 1]}), kind="logits")
        assert_same(run, wanted)
        run.save(tmp_path / str(i))
        assert_same(fastdiv.load(tmp_path / str(i)), wanted)
    assert fastdiv.load(tmp_path / "2").compare(0, 4).equals(wanted.compare(0, 4))


def test_reset_forgets_everything(temporary):
    tracker = tracked(hard())
    assert len(list(temporary.iterdir())) == 1
    tracker.update(*make(n=5, c=7)[0].arrays())
    tracker.reset()
    assert list(temporary.iterdir()) == []
    assert repr(tracker) == "<fastdiv.Tracker logits: 0 epochs, 0 rows of the next>"
    dump = make(n=30, c=4, dtype=np.float64)  # of other classes, dtype and epochs
    feed(tracker, dump, ids=False)
    assert repr(tracker) == "<fastdiv.Tracker logits, 4 classes: 3 epochs, 0 rows of the next>"
    wanted = fastdiv.analyze({e: (r.x, r.y) for e, r in dump.items()}, kind="logits")
    assert_same(tracker.run(), wanted)


@pytest.mark.parametrize("how", ["close", "with", "an error", "garbage"])
def test_temporary_files_go(temporary, how):
    tracker = tracked(hard())
    copy.deepcopy(tracker)
    tracker.merge_state(tracked(make((9,), n=5, c=7)))
    gc.collect()
    assert len(list(temporary.iterdir())) == 1
    if how == "close":
        tracker.close()
    elif how == "with":
        with tracker:
            assert tracker.run() is not None
    elif how == "an error":
        with pytest.raises(KeyError), tracker:
            raise KeyError
    else:
        del tracker
    gc.collect()
    assert list(temporary.iterdir()) == []


def test_a_fork_leaves_the_files_of_its_parent(temporary):
    tracker = tracked(hard())
    pid = os.fork()
    if pid == 0:
        del tracker
        gc.collect()
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    assert_same(tracker.run(), tracked(hard()).run())


# Errors ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "pattern"),
    [
        ({"kind": "auto"}, "kind must be"),
        ({"kind": "logits", "scores": "some"}, "scores must be"),
        ({"kind": "logits", "duplicates": "last"}, "duplicates must be"),
        ({"kind": "logits", "clip": 2}, "clip must be"),
        ({"kind": "logits", "backend": "gpu"}, "backend"),
        ({"kind": "logits", "threads": 0}, "threads"),
        ({"kind": "logits", "classes": 3, "class_names": "a,b"}, "2 class names for 3 classes"),
    ],
)
def test_arguments_that_are_refused(options, pattern):
    with pytest.raises(fastdiv.UsageError, match=pattern):
        fastdiv.Tracker(**options)


x, y, ids = make(n=10)[0].arrays()


@pytest.mark.parametrize(
    ("given", "pattern"),
    [
        ((x[:, :2], y, ids), "update 1: 2 classes, but 3 are expected"),
        ((x, y[:5], ids), r"update 1: labels must have shape \(10,\)"),
        ((x, y, ids[:5]), r"update 1: ids must have shape \(10,\)"),
        ((x[0], y[:1], ids[:1]), "update 1: predictions must have shape"),
        ((x.astype(int), y, ids), "update 1: predictions must be float"),
        ((x.astype("f8"), y, ids), "update 1: predictions are float64, but float32 before"),
        ((x, y, None), "update 1: its ids are none, but integers before"),
        ((x, y, ids.astype(str)), "update 1: its ids are strings, but integers before"),
        ((x, y, ids.astype("u8")), "update 1: its ids are unsigned 64-bit integers, but integers"),
        ((x, y, ids + 0.5), "update 1: ids must be integers or strings"),
        ((x, y + 0.5, ids), "update 1"),
        ((x, y, pa.array([None, *ids.tolist()[1:]])), "update 1, row 0: the id"),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else "",
)
def test_updates_that_are_refused_change_nothing(given, pattern):
    tracker = fastdiv.Tracker(kind="logits")
    tracker.update(x[:3], y[:3], ids[:3])
    with pytest.raises(fastdiv.FastdivError, match=pattern) as raised:
        tracker.update(*given)
    assert "\n" not in str(raised.value)
    tracker.update(x[3:], y[3:], ids[3:])
    tracker.end_epoch()
    assert_same(tracker.run(), fastdiv.analyze({0: (x, y, ids)}, kind="logits"))


def test_the_class_count_that_was_told():
    tracker = fastdiv.Tracker(kind="logits", classes=4)
    with pytest.raises(fastdiv.UsageError, match="update 0: 3 classes, but 4 are expected"):
        tracker.update(x, y, ids)


def test_a_contradiction_names_its_place():
    tracker = fastdiv.Tracker(kind="logits")
    tracker.update(x, y, ids)
    tracker.end_epoch(3)
    tracker.update(x, y, ids)
    tracker.update(x[:2], y[:2], ids[:2])  # agrees
    with pytest.raises(fastdiv.DataError, match=rf"update 2, row 1: sample {ids[5]} is twice"):
        tracker.update(np.stack([x[4], -x[5]]), y[4:6], ids[4:6])
    first = fastdiv.Tracker(kind="logits", duplicates="first")
    first.update(x, y, ids)
    first.update(-x, y, ids)
    first.end_epoch()
    assert_same(first.run(), fastdiv.analyze({0: (x, y, ids)}, kind="logits"))
    assert first.run().summary["splits"][0]["n_duplicates"] == 10


def test_invalid_rows_are_counted_or_with_strict_refused():
    bad = x.copy()
    bad[4] = np.nan
    tracker = fastdiv.Tracker(kind="logits")
    tracker.update(x[:0], y[:0], ids[:0])
    for start in (0, 3, 6):
        tracker.update(bad[start : start + 3], y[start : start + 3], ids[start : start + 3])
    result = tracker.end_epoch(5)
    assert (result.row["n"], result.row["n_invalid"]) == (9, 1)
    (reason,) = tracker.run().summary["invalid"]["reasons"]
    assert (reason["n"], reason["first"]) == (1, ["epoch 5, update 1, row 1"])
    strict = fastdiv.Tracker(kind="logits", strict=True)
    strict.update(x[:3], y[:3], ids[:3])
    with pytest.raises(fastdiv.DataError, match="update 1, row 1: NaN in the predictions"):
        strict.update(bad[3:6], y[3:6], ids[3:6])
    strict.update(x[3:], y[3:], ids[3:])
    strict.end_epoch()
    assert_same(strict.run(), fastdiv.analyze({0: (x, y, ids)}, kind="logits"))


def test_an_epoch_of_another_kind_is_an_error_and_forgotten():
    tracker = fastdiv.Tracker(kind="probs")
    tracker.update(x, y, ids)
    with pytest.raises(fastdiv.DataError, match="contradict the kind"):
        tracker.end_epoch()
    probs = as_kind(make(n=10)[0], "probs")
    tracker.update(*probs.arrays())
    tracker.end_epoch()
    assert_same(tracker.run(), fastdiv.analyze(arrays({0: probs}), kind="probs"))


# Ranks ----------------------------------------------------------------------------------------

WORLD = 5


def shares(rows, seed):
    """Deal rows to ranks as a distributed sampler does, the first ones again as padding."""
    order = np.random.default_rng(seed).permutation(len(rows))
    order = np.append(order, order[: -len(order) % WORLD])
    assert len(order) % WORLD == 0
    return [rows.take(order[rank::WORLD]) for rank in range(WORLD)]


def ranks(**options):
    return [fastdiv.Tracker(kind="logits", **options) for _ in range(WORLD)]


def gather(trackers, **options):
    """Return the states of all ranks, as they arrive."""
    return [pickle.loads(pickle.dumps(t.state_dict(**options))) for t in trackers]


@pytest.mark.parametrize("scores", ["all", "rolling"])
@pytest.mark.parametrize("ended", [True, False])
def test_ranks_that_gather_before_each_epoch_ends(scores, ended):
    """Every rank merges the states of all, its own among them, and counts padding once."""
    dump = hard()
    wanted = fastdiv.analyze(arrays(dump), kind="logits")
    trackers = ranks(scores=scores)
    for epoch, rows in dump.items():
        dealt = shares(rows, epoch)
        assert sum(map(len, dealt)) > len(rows)
        for tracker, share in zip(trackers, dealt, strict=True):
            for b in batches(share, epoch):
                tracker.update(*b.arrays())
        states = gather(trackers, ended=ended)
        for tracker in trackers:
            tracker.merge_state(states)
        said = [tracker.end_epoch(epoch) for tracker in trackers]
        assert [repr(s) for s in said] == [repr(said[0])] * WORLD
    for tracker in trackers:
        assert_same(tracker.run(), wanted)


def test_one_rank_that_gathers_while_the_others_reset():
    dump = hard()
    first, *others = ranks()
    for epoch, rows in dump.items():
        for tracker, share in zip((first, *others), shares(rows, epoch), strict=True):
            tracker.update(*share.arrays())
        first.merge_state(others)
        for tracker in others:
            tracker.reset()
        first.end_epoch(epoch)
    assert_same(first.run(), fastdiv.analyze(arrays(dump), kind="logits"))


@pytest.mark.parametrize("at_once", [True, False])
@pytest.mark.parametrize("order", list(permutations(range(WORLD)))[::25])
def test_the_order_of_merging_does_not_matter(order, at_once):
    """Neither for epochs that have ended nor for one under way; one rank lacks the first."""
    dump = hard()
    trackers = ranks()
    for epoch, rows in dump.items():
        dealt = shares(rows, epoch)
        if epoch == EPOCHS[0]:
            dealt[0] = Rows(
                *map(np.concatenate, zip(*(share.arrays() for share in dealt[:2]), strict=True))
            )
            dealt[1] = None
        for tracker, share in zip(trackers, dealt, strict=True):
            if share is not None:
                tracker.update(*share.arrays())
                if epoch != EPOCHS[-1]:
                    tracker.end_epoch(epoch)
    states = [gather(trackers)[i] for i in order]
    merged = fastdiv.Tracker(kind="logits")
    for part in [states] if at_once else states:
        merged.merge_state(part)
    merged.end_epoch(EPOCHS[-1])
    assert_same(merged.run(), fastdiv.analyze(arrays(dump), kind="logits"))


def test_epochs_that_have_ended_are_merged_and_totalled_again():
    dump = hard()
    trackers = ranks()
    for epoch, rows in dump.items():
        for tracker, share in zip(trackers, shares(rows, epoch), strict=True):
            tracker.update(*share.arrays())
            tracker.end_epoch(epoch)
    before = trackers[0].run()
    trackers[0].merge_state(trackers[1:])
    wanted = fastdiv.analyze(arrays(dump), kind="logits")
    assert_same(trackers[0].run(), wanted)
    assert before.epochs["n"].to_pylist() != wanted.epochs["n"].to_pylist()
    more = make((9,), n=20, c=7)[9]
    trackers[0].update(*more.arrays())
    result = trackers[0].end_epoch(9)
    assert_same(trackers[0].run(), fastdiv.analyze(arrays(dump | {9: more}), kind="logits"))
    assert result.transition == trackers[0].run().transitions.to_pylist()[-1]


def test_without_ids_samples_of_others_come_after():
    dump = make(n=90)
    trackers = ranks()
    for epoch, rows in dump.items():
        for part, tracker in zip(np.array_split(np.arange(90), WORLD), trackers, strict=True):
            tracker.update(rows.x[part], rows.y[part])
        states = gather(trackers)
        for _ in range(2):  # once more changes nothing
            trackers[0].merge_state(states)
        trackers[0].end_epoch(epoch)
        for tracker in trackers[1:]:
            tracker.reset()
    wanted = fastdiv.analyze({e: (r.x, r.y) for e, r in dump.items()}, kind="logits")
    assert_same(trackers[0].run(), wanted)
    assert trackers[0].run().summary["rows"] == 270


def test_without_ids_it_must_be_told_what_is_new():
    rows = make(n=40)[0]
    a, b = ranks()[:2]
    b.update(rows.x[:10], rows.y[:10])
    early = b.state_dict()
    a.merge_state(early)
    b.update(rows.x[10:20], rows.y[10:20])
    with pytest.raises(fastdiv.UsageError, match="only ids would tell"):
        a.merge_state(b)
    a.update(rows.x[20:], rows.y[20:])
    assert a.end_epoch().row["n"] == 30
    a.merge_state(early)  # is part of an epoch that has ended
    with pytest.raises(fastdiv.UsageError, match="of an epoch that has ended here"):
        a.merge_state(b)
    with pytest.raises(fastdiv.UsageError, match="epoch 1 cannot end"):
        a.end_epoch()


def test_ranks_loaded_from_one_checkpoint_are_told_apart():
    """Tokens of a state go with it; what is seen after loading is new on each rank."""
    rows = make(n=40)[0]
    one = fastdiv.Tracker(kind="logits")
    one.update(rows.x[:5], rows.y[:5])
    one.end_epoch()
    state = one.state_dict()
    both = ranks()[:2]
    for i, tracker in enumerate(both):
        tracker.load_state_dict(state)
        tracker.update(rows.x[10 * i : 10 * i + 10], rows.y[10 * i : 10 * i + 10])
    both[0].merge_state(gather(both))
    assert both[0].end_epoch().row["n"] == 20
    assert column(both[0].run(), "n") == [5, 20]


def test_ranks_that_contradict_each_other():
    a, b = ranks()[:2]
    a.update(x, y, ids)
    b.update(np.concatenate([x[:4], -x[4:]]), y, ids)
    kept = pickle.dumps(a._tracked.under_way.pack())
    for other in (b, b.state_dict(), [a, b]):
        with pytest.raises(fastdiv.DataError, match=rf"merged state \d: sample {ids[4]} is twice"):
            a.merge_state(other)
    assert pickle.dumps(a._tracked.under_way.pack()) == kept
    first = fastdiv.Tracker(kind="logits", duplicates="first")
    first.update(x, y, ids)
    other = fastdiv.Tracker(kind="logits", duplicates="first")
    other.update(-x, y, ids)
    first.merge_state(other)
    first.end_epoch()
    a.end_epoch()
    assert_same(first.run(), a.run())


@pytest.mark.parametrize("grouping", ["one by one", "pairs", "ended"])
def test_ranks_that_agree_by_pairs_only(grouping):
    """Whether three ranks agree may not depend on which of them are merged first."""
    rows = make(n=1, dtype=np.float64)[0]
    step = 0.8e-6 / (1 - np.exp(-fastdiv.score(rows.x, rows.y, kind="logits").loss[0]))
    outcomes = set()
    for order in permutations(range(3)):
        trackers = ranks()[:3]
        for i, tracker in zip(order, trackers, strict=True):
            near = rows.x.copy()
            near[0, rows.y[0]] += i * step
            tracker.update(near, rows.y, rows.ids)
            if grouping == "ended":
                tracker.end_epoch()
        try:
            if grouping == "pairs":
                trackers[1].merge_state(trackers[2])
                trackers[0].merge_state(trackers[1].state_dict())
            else:
                trackers[0].merge_state(trackers[1:])
            outcomes.add("agree")
        except fastdiv.DataError:
            outcomes.add("contradict")
    assert outcomes == {"contradict"}


def test_invalid_rows_of_other_ranks():
    bad = x.copy()
    bad[4] = np.nan
    a, b = ranks()[:2]
    a.update(x[:3], y[:3], ids[:3])
    b.update(bad[3:], y[3:], ids[3:])
    a.merge_state([a.state_dict(), b.state_dict()])
    assert a.end_epoch(2).row["n_invalid"] == 1
    (reason,) = a.run().summary["invalid"]["reasons"]
    assert reason["first"] == ["epoch 2, merged state 1, update 0, row 1"]
    a, b = (fastdiv.Tracker(kind="probs") for _ in range(2))
    probs = as_kind(make(n=10)[0], "probs")
    a.update(probs.x[:2], y[:2], ids[:2])
    b.update(x[2:], y[2:], ids[2:])
    a.merge_state(b)
    with pytest.raises(fastdiv.DataError, match=r"merged state 0, update 0, row 0: .* 8 of 10 "):
        a.end_epoch()


@pytest.mark.parametrize(
    ("options", "rows", "pattern"),
    [
        ({"kind": "probs"}, (x, y, ids), "its kind is 'probs', but 'logits' here"),
        ({"kind": "logits"}, (x[:, :2], y, ids), "its classes is 2, but 3 here"),
        ({"kind": "logits"}, (x.astype("f8"), y, ids), "its dtype is 'float64'"),
        ({"kind": "logits"}, (x, y, None), "its ids is 'none', but 'integers' here"),
        ({"kind": "logits", "split": "val"}, (x, y, ids), "its split is 'val'"),
        ({"kind": "logits", "clip": 0.1}, (x, y, ids), "its clip is 0.1, but None here"),
        ({"kind": "logits", "class_names": "a,b,c"}, (x, y, ids), "its class names is"),
        ({"kind": "logits", "scores": "rolling"}, (x, y, ids), "its scores is 'rolling'"),
    ],
    ids=lambda value: value[:30] if isinstance(value, str) else "",
)
def test_trackers_that_cannot_be_merged(options, rows, pattern):
    ours, theirs = fastdiv.Tracker(kind="logits"), fastdiv.Tracker(**options)
    ours.update(x, y, ids)
    theirs.update(*rows)
    for other in (theirs, theirs.state_dict(), [theirs]):
        with pytest.raises(fastdiv.UsageError, match=f"merged state 0: {pattern}"):
            ours.merge_state(other)
    if options != {"kind": "logits"}:  # else it is loaded: only what was told must be the same
        with pytest.raises(fastdiv.UsageError, match=f"state: {pattern}"):
            ours.load_state_dict(theirs.state_dict())
    assert ours.end_epoch().row["n"] == 10


def test_rolling_scores_take_in_no_epoch_that_has_ended():
    a, b = ranks(scores="rolling")[:2]
    for tracker, half in ((a, slice(0, 5)), (b, slice(5, 10))):
        tracker.update(x[half], y[half], ids[half])
        tracker.end_epoch()
    with pytest.raises(fastdiv.UsageError, match=r"epoch 0 has ended there.*ended=False"):
        a.merge_state(b)
    a.merge_state(b.state_dict(ended=False))
    assert column(a.run(), "n") == [5]


# States ---------------------------------------------------------------------------------------


def through_torch(state):
    torch = pytest.importorskip("torch")
    import io

    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@pytest.mark.parametrize("way", [copy.deepcopy, lambda s: pickle.loads(pickle.dumps(s)),
                                 through_torch], ids=["copy", "pickle", "torch"])  # fmt: skip
@pytest.mark.parametrize("scores", ["all", "rolling"])
@pytest.mark.parametrize("ids", [np.int64, np.uint64, np.str_, np.bytes_])
def test_a_state_goes_on_as_if_nothing_had_been(way, scores, ids):
    dump = hard() | make((5, 6, 9), n=90, c=7)
    dump = {e: replace(r, ids=r.ids.astype(ids)) for e, r in dump.items()}
    wanted = tracked(dump, scores=scores)
    tracker = fastdiv.Tracker(kind="logits", scores=scores)
    for epoch, rows in dump.items():
        for b in batches(rows, epoch):
            tracker.update(*b.arrays())
            state = way(tracker.state_dict())
            tracker.close()
            tracker = fastdiv.Tracker(kind="logits", scores=scores)
            tracker.load_state_dict(state)
        assert tracker.end_epoch(epoch).epoch == epoch
    assert_same(tracker.run(), wanted.run())
    summaries = [t.run().summary for t in (tracker, wanted)]
    for name in ("splits", "invalid", "rows", "bytes", "parts", "columns"):
        assert summaries[0][name] == summaries[1][name], name


def leaves(state):
    if isinstance(state, dict):
        for value in (*state, *state.values()):
            yield from leaves(value)
    elif isinstance(state, list):
        for value in state:
            yield from leaves(value)
    else:
        yield state


def test_a_state_is_made_of_plain_things_and_is_as_large_as_what_it_holds():
    dump = hard()
    tracker = tracked(dump)
    first = dump[0]
    tracker.update(*first.arrays())
    state = tracker.state_dict()
    assert {type(leaf) for leaf in leaves(state)} <= {str, int, float, bytes, bool, type(None)}
    rows = sum(map(len, dump.values())) + len(first)
    assert len(pickle.dumps(state)) < 40 * rows + 40_000
    assert len(pickle.dumps(tracker.state_dict(ended=False))) < 40 * len(first) + 10_000


@pytest.mark.parametrize("way", [copy.copy, copy.deepcopy, lambda t: pickle.loads(pickle.dumps(t))],
                         ids=["copy", "deepcopy", "pickle"])  # fmt: skip
def test_a_tracker_is_copied_and_both_go_on(way):
    dump = hard()
    tracker = fastdiv.Tracker(kind="logits", class_names=list("abcdefg"), split="val")
    rows = list(dump.values())
    tracker.update(*rows[0].arrays())
    tracker.end_epoch(0)
    tracker.update(*rows[1].take(slice(0, 50)).arrays())
    other = way(tracker)
    for one in (tracker, other):
        one.update(*rows[1].take(slice(50, None)).arrays())
        one.end_epoch(3)
    other.update(*rows[2].arrays())
    other.end_epoch(4)
    said = {"kind": "logits", "class_names": list("abcdefg")}
    assert_same(
        tracker.run(), fastdiv.analyze({"val": arrays({e: dump[e] for e in (0, 3)})}, **said)
    )
    assert_same(other.run(), fastdiv.analyze({"val": arrays(dump)}, **said))


@pytest.mark.parametrize("state", [{}, {"fastdiv_tracker": 1}, {"fastdiv_tracker": 99}, 3, "cut"])
def test_states_that_are_refused_leave_the_tracker_as_it_was(temporary, state):
    tracker = tracked(hard())
    if state == "cut":
        state = tracker.state_dict()
        state["ended"]["epochs"][1]["scores"] = state["ended"]["epochs"][1]["scores"][:200]
    with pytest.raises(fastdiv.UsageError, match=r"state is (not|of a later)"):
        tracker.load_state_dict(state)
    if state != 3:
        with pytest.raises(fastdiv.UsageError, match=r"merged state 0 is (not|of a later)"):
            tracker.merge_state(state)
    gc.collect()
    assert len(list(temporary.iterdir())) == 1
    assert_same(tracker.run(), tracked(hard()).run())

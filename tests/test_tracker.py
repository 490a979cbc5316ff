"""Tracker: the lifecycle of a metric, over the same functions as files and to the same bits."""

import copy
import gc
import multiprocessing
import os
import pickle
import re
import shutil
import tempfile
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import permutations

import numpy as np
import pyarrow as pa
import pytest
from dumps import Rows, arrays, as_kind, as_list, assert_same, column, make, spoil, whole, write

import fastdiv
from fastdiv import scan as scan_module
from fastdiv.epoch_file import EpochFile
from fastdiv.scan import Scan
from fastdiv.sources import layout
from fastdiv.split import SplitScan
from fastdiv.tables import History
from fastdiv.tracking import updates as updates_module

EPOCHS = (0, 3, 4)


def hard(dtype=np.float32):
    """Return {epoch: Rows} with all that may go wrong, in an order that changes."""
    dump = make(EPOCHS, n=150, c=7, dtype=dtype)
    spoil(dump)
    dump[EPOCHS[1]] = dump[EPOCHS[1]].shuffled()
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
    score = updates_module.score_batch

    def watched(kernels, batch, *arguments):
        seen.append(batch.predictions)
        return score(kernels, batch, *arguments)

    monkeypatch.setattr(updates_module, "score_batch", watched)
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
        tracker.drop_epoch()
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
        ({"kind": "logits", "classes": "3"}, "classes must be a whole number, not '3'"),
        ({"kind": "logits", "classes": 0}, "classes must be at least 2, not 0"),
        ({"kind": "logits", "split": 3}, "split must be a string, not 3"),
        ({"kind": "logits", "rank": -1}, "rank must be at least 0"),
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
        ((x, y, ids > 50), "update 1: ids must be integers or strings, not bool"),
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
    pattern = rf'update 2, row 1: sample {ids[5]} is twice.* duplicates="first".* give no ids$'
    with pytest.raises(fastdiv.DataError, match=pattern):
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
    with pytest.raises(fastdiv.DataError, match=r"update 1, row 1: NaN in the pred.*out strict to"):
        strict.update(bad[3:6], y[3:6], ids[3:6])
    strict.update(x[3:], y[3:], ids[3:])
    strict.end_epoch()
    assert_same(strict.run(), fastdiv.analyze({0: (x, y, ids)}, kind="logits"))


def test_an_epoch_of_another_kind_is_an_error_and_forgotten():
    tracker = fastdiv.Tracker(kind="probs")
    tracker.update(x, y, ids)
    with pytest.raises(fastdiv.DataError, match=r"contradict the kind .*give the right kind$"):
        tracker.end_epoch()
    probs = as_kind(make(n=10)[0], "probs")
    tracker.update(*probs.arrays())
    tracker.end_epoch()
    assert_same(tracker.run(), fastdiv.analyze(arrays({0: probs}), kind="probs"))


# Whole or not at all --------------------------------------------------------------------------


def state_of(tracker):
    """Return all that a tracker holds, but for what time it took."""
    state = tracker.state_dict()
    return pickle.dumps({name: value for name, value in state.items() if name != "seconds"})


@pytest.mark.parametrize("ids", [np.int64, np.str_])
@pytest.mark.parametrize("pieces", [1, 3])
@pytest.mark.parametrize("why", ["contradiction", "label", "strict", "missing id"])
def test_an_update_is_taken_whole_or_not_at_all(monkeypatch, why, pieces, ids):
    dump = make((0, 1), n=30)
    dump = {e: replace(r, ids=r.ids.astype(ids)) for e, r in dump.items()}
    rows, before = dump[1], dump[0].take(slice(0, 25))
    tracker, same = (fastdiv.Tracker(kind="logits", strict=why == "strict") for _ in range(2))
    for one in (tracker, same):
        one.update(before.x, np.where(np.arange(25) == 12, -1 if why != "strict" else 0, before.y),
                   before.ids)  # fmt: skip
        one.end_epoch()
        one.update(*rows.take(slice(0, 10)).arrays())
        one.update(rows.x[20:22], (rows.y[20:22] + 1) % 3, rows.ids[20:22])  # relabelled
    bad = rows.take(np.r_[8:20, 22:30, 5])  # known ones, new ones, and at last one that is wrong
    bad = Rows(bad.x.copy(), bad.y.copy(), bad.ids)
    if why == "contradiction":
        bad.x[-1] *= -3
    elif why == "label":
        bad.y[-1] = (bad.y[-1] + 1) % 3
    elif why == "strict":
        bad.x[-1] = np.nan
    given = bad.ids
    if why == "missing id":
        given = pa.array([*bad.ids.tolist()[:-1], None])
    if pieces > 1:
        monkeypatch.setattr(layout, "BATCH_ROWS", 7)
    wanted = state_of(same)
    with pytest.raises(fastdiv.DataError, match="update 2, row 20"):
        tracker.update(bad.x, bad.y, given)
    for one in (tracker, same):
        one.update(*rows.take(slice(22, 30)).arrays())
        one.update(*rows.take(slice(10, 20)).arrays())
    assert state_of(tracker) != wanted
    tracker.end_epoch()
    same.end_epoch()
    assert_same(tracker.run(), same.run())
    summaries = [one.run().summary for one in (tracker, same)]
    for name in ("splits", "invalid", "infinite", "rows", "bytes"):
        assert summaries[0][name] == summaries[1][name], name


def test_a_first_update_that_is_refused_settles_nothing(temporary):
    tracker = fastdiv.Tracker(kind="logits")
    with pytest.raises(fastdiv.DataError, match="update 0, row 0"):
        tracker.update(x[:, :2].astype("f8"), y, pa.array([None, *map(str, ids[1:])]))
    assert repr(tracker) == "<fastdiv.Tracker logits: 0 epochs, 0 rows of the next>"
    tracker.update(x, y, ids)
    tracker.end_epoch()
    assert_same(tracker.run(), fastdiv.analyze({0: (x, y, ids)}, kind="logits"))


@pytest.mark.parametrize("scores", ["all", "rolling"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError, MemoryError])
@pytest.mark.parametrize("at", ["absorb", "step_totals", "class_table", "last block"])
def test_an_epoch_whose_end_is_interrupted_may_end_again(monkeypatch, at, error, scores):
    dump = hard()
    wanted = tracked(dump, scores=scores).run()
    tracker = fastdiv.Tracker(kind="logits", scores=scores)
    for epoch, rows in dump.items():
        tracker.update(*rows.arrays())
        if epoch == EPOCHS[0]:
            tracker.end_epoch(epoch)
            continue

        def fail(*arguments, **options):
            raise error

        with monkeypatch.context() as patched:
            if at == "absorb":
                patched.setattr(Scan, "absorb", fail)
            elif at == "last block":  # rows are there in part
                held = SplitScan.held

                def some(part, of, held=held):
                    yield next(held(part, of))
                    raise error

                patched.setattr(SplitScan, "held", some)
            else:
                patched.setattr(scan_module, at, fail)
            for _ in range(2):
                with pytest.raises(error):
                    tracker.end_epoch(epoch)
        assert column(tracker.run(), "epoch") == list(EPOCHS[: EPOCHS.index(epoch)])
        assert tracker.end_epoch(epoch).epoch == epoch
    assert_same(tracker.run(), wanted)
    assert tracker.run().summary["rows"] == wanted.summary["rows"]
    assert tracker.run().summary["splits"] == wanted.summary["splits"]


def test_rolling_records_that_were_interrupted_are_not_carried_on(monkeypatch):
    tracker = tracked(hard(), scores="rolling")
    tracker.update(*make(n=20, c=7)[0].arrays())
    dynamics = tracker._said.kernels.dynamics
    monkeypatch.setattr(History, "_keep", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        tracker.end_epoch()
    monkeypatch.undo()
    assert dynamics is tracker._said.kernels.dynamics
    with pytest.raises(fastdiv.UsageError, match="records of the samples"):
        tracker.end_epoch()


def test_an_update_that_is_interrupted_must_be_dropped_with_its_epoch(monkeypatch):
    tracker = fastdiv.Tracker(kind="logits")
    tracker.update(x[:4], y[:4], ids[:4])

    def interrupt(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(EpochFile, "put", interrupt)
        with pytest.raises(KeyboardInterrupt):
            tracker.update(x[4:], y[4:], ids[4:])
    calls = [tracker.end_epoch, tracker.state_dict, lambda: tracker.update(x[4:], y[4:], ids[4:]),
             lambda: tracker.merge_state([])]  # fmt: skip
    for call in calls:
        with pytest.raises(fastdiv.UsageError, match=r"update 1 was interrupted.*drop_epoch"):
            call()
    tracker.drop_epoch()
    tracker.update(x, y, ids)
    tracker.end_epoch()
    assert_same(tracker.run(), fastdiv.analyze({0: (x, y, ids)}, kind="logits"))


def test_a_disk_that_is_full_in_an_update(monkeypatch):
    tracker = fastdiv.Tracker(kind="logits")
    tracker.update(x[:4], y[:4], ids[:4])

    def full(*arguments):
        raise OSError(28, "No space left on device")

    more = make(n=9000)[0]
    with monkeypatch.context() as patched:
        patched.setattr(os, "posix_fallocate", full)
        with pytest.raises(fastdiv.UsageError, match=r"No space left.*scores=\"rolling\""):
            tracker.update(*more.arrays())
    with pytest.raises(fastdiv.UsageError, match="update 1 was interrupted"):
        tracker.end_epoch()
    tracker.drop_epoch()
    tracker.update(*more.arrays())
    assert tracker.end_epoch().row["n"] == 9000


def test_an_epoch_that_is_dropped():
    dump = hard()
    tracker = fastdiv.Tracker(kind="logits")
    tracker.drop_epoch()
    for epoch, rows in dump.items():
        tracker.update(-rows.x[:50], rows.y[:50], rows.ids[:50] + 10**6)  # a sanity check
        tracker.drop_epoch()
        tracker.update(*rows.arrays())
        tracker.end_epoch(epoch)
    assert_same(tracker.run(), fastdiv.analyze(arrays(dump), kind="logits"))
    with pytest.raises(fastdiv.UsageError, match=r"epoch 4 comes after epoch 4.*drop_epoch\(\)"):
        tracker.end_epoch(4)


def test_a_first_epoch_that_is_dropped_settles_nothing():
    tracker = fastdiv.Tracker(kind="logits")
    tracker.update(x[:, :2].astype("f8"), np.zeros(10, int))
    tracker.drop_epoch()
    tracker.update(x, y, ids)
    tracker.end_epoch()
    assert_same(tracker.run(), fastdiv.analyze({0: (x, y, ids)}, kind="logits"))


def test_a_tracker_that_is_closed():
    tracker = tracked(hard())
    tracker.close()
    tracker.close()
    assert repr(tracker) == "<fastdiv.Tracker logits: closed>"
    calls = [lambda: tracker.update(x, y, ids), tracker.end_epoch, tracker.run, tracker.reset,
             tracker.drop_epoch, tracker.state_dict, lambda: tracker.merge_state([]),
             lambda: tracker.load_state_dict({}), lambda: pickle.dumps(tracker)]  # fmt: skip
    for call in calls:
        with pytest.raises(fastdiv.UsageError, match="the tracker is closed"):
            call()
    with pytest.raises(fastdiv.UsageError, match="the tracker is closed"):
        fastdiv.Tracker(kind="logits").merge_state(tracker)


# Threads and processes ------------------------------------------------------------------------


def test_threads_take_turns():
    dump = make((0, 1), n=400)
    tracker = fastdiv.Tracker(kind="logits")
    for epoch, rows in dump.items():
        with ThreadPoolExecutor(4) as pool:
            done = [
                pool.submit(tracker.update, *rows.take(slice(i, i + 5)).arrays())
                for i in range(0, 400, 5)
            ]
            seen = [pool.submit(tracker.state_dict) for _ in range(3)]
            for future in done + seen:
                future.result()
        tracker.end_epoch(epoch)
    assert_same(tracker.run(), fastdiv.analyze(arrays(dump), kind="logits"))
    assert tracker.run().summary["rows"] == 800


def test_trackers_that_merge_each_other_at_once():
    rows = make(n=40)[0]
    a, b = ranks()[:2]
    a.update(*rows.take(slice(0, 20)).arrays())
    b.update(*rows.take(slice(20, 40)).arrays())
    with ThreadPoolExecutor(2) as pool:
        for _ in range(5):
            both = [pool.submit(a.merge_state, b), pool.submit(b.merge_state, a)]
            for future in both:
                future.result(timeout=60)
    assert [t.end_epoch().row["n"] for t in (a, b)] == [40, 40]


def in_forks(work, n=3):
    """Return what `work(i)` returns in forked processes, which end as those of DataLoaders do."""
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    processes = [context.Process(target=lambda i=i: queue.put(work(i))) for i in range(n)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forking with threads
        for process in processes:
            process.start()
    results = [queue.get(timeout=60) for _ in range(n)]
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * n
    return results


@pytest.mark.parametrize("with_ids", [True, False])
@pytest.mark.parametrize("ended", [True, False])
def test_forked_processes_that_update(temporary, ended, with_ids):
    """Rows of each count, whether or not there were files before the fork; and nothing is left."""
    dump = make((0, 1), n=90)
    tracker = fastdiv.Tracker(kind="logits", rank=0)
    if ended:
        tracker.update(*(dump[0].arrays()[: 2 + with_ids]))
        tracker.end_epoch(0)

    def work(i):
        mine = tracker
        if not with_ids:  # each needs a rank
            mine = fastdiv.Tracker(kind="logits", rank=i)
            mine.load_state_dict(tracker.state_dict())
        for start in (0, 15):
            part = dump[1].take(slice(30 * i + start, 30 * i + start + 15))
            mine.update(*part.arrays()[: 2 + with_ids])
        if i == 2:
            mine.drop_epoch()
            mine.update(*dump[1].take(slice(60, 90)).arrays()[: 2 + with_ids])
        return mine.state_dict(ended=False)

    tracker.merge_state(in_forks(work))
    tracker.end_epoch(1)
    wanted = {e: rows.arrays()[: 2 + with_ids] for e, rows in dump.items() if ended or e}
    assert_same(tracker.run(), fastdiv.analyze(wanted, kind="logits"))
    gc.collect()
    assert len(list(temporary.iterdir())) == 1


def test_a_fork_with_an_epoch_under_way(temporary):
    dump = make((0, 1), n=60)
    tracker = fastdiv.Tracker(kind="logits")
    tracker.update(*dump[0].arrays())
    tracker.end_epoch()
    tracker.update(*dump[1].take(slice(0, 30)).arrays())

    def work(_):
        try:
            tracker.update(*dump[1].arrays())
        except fastdiv.UsageError as error:
            said = str(error)
        tracker.drop_epoch()
        tracker.update(*dump[1].arrays())
        tracker.end_epoch()
        runs = column(tracker.run(), "n")
        tracker.reset()
        return said, runs

    for said, runs in in_forks(work):
        assert "forked while an epoch was under way" in said
        assert runs == [60, 60]
    tracker.update(*dump[1].take(slice(30, 60)).arrays())
    tracker.end_epoch()
    assert_same(tracker.run(), fastdiv.analyze(arrays(dump), kind="logits"))


# Ranks ----------------------------------------------------------------------------------------

WORLD = 5


def shares(rows, seed):
    """Deal rows to ranks as a distributed sampler does, the first ones again as padding."""
    order = np.random.default_rng(seed).permutation(len(rows))
    order = np.append(order, order[: -len(order) % WORLD])
    assert len(order) % WORLD == 0
    return [rows.take(order[rank::WORLD]) for rank in range(WORLD)]


def ranks(**options):
    return [fastdiv.Tracker(kind="logits", rank=rank, **options) for rank in range(WORLD)]


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
        # They arrive in any order, other ones each time, and each rank has its own first.
        states = [
            gather(trackers, ended=False)[i] for i in np.random.default_rng(epoch).permutation(5)
        ]
        for tracker in (trackers[0], trackers[3]):
            for _ in range(2):  # once more changes nothing
                tracker.merge_state(states)
            tracker.end_epoch(epoch)
        for rank in (1, 2, 4):
            trackers[rank].reset()
    wanted = fastdiv.analyze({e: (r.x, r.y) for e, r in dump.items()}, kind="logits")
    for tracker in (trackers[0], trackers[3]):
        assert_same(tracker.run(), wanted)
        assert tracker.run().summary["rows"] == 270


def test_without_ids_and_ranks_states_are_not_merged():
    rows = make(n=40)[0]
    halves = [(rows.x[:20], rows.y[:20]), (rows.x[20:], rows.y[20:])]
    for numbers, pattern in [
        ((None, None), r"merged state 0: .*give ids to update, or each.*rank=0"),
        ((0, None), r"merged state 0: .*give ids to update"),
        ((2, 2), "merged state 0: rows of rank 2 and rank 2 have no order"),
    ]:
        a, b = (fastdiv.Tracker(kind="logits", rank=rank) for rank in numbers)
        for tracker, half in zip((a, b), halves, strict=True):
            tracker.update(*half)
        for other in (b, b.state_dict()):
            with pytest.raises(fastdiv.UsageError, match=pattern):
                a.merge_state(other)
        assert a.end_epoch().row["n"] == 20
    a, b, c = ranks()[:3]
    for tracker, half in zip((a, b, c), [*halves, halves[0]], strict=True):
        tracker.update(*half)
    a.merge_state(c)
    with pytest.raises(fastdiv.UsageError, match="in one call"):
        a.merge_state(b)


def test_ended_epochs_of_ranks_without_ids():
    dump = make(n=90)
    trackers = ranks()
    for epoch, rows in dump.items():
        for part, tracker in zip(np.array_split(np.arange(90), WORLD), trackers, strict=True):
            tracker.update(rows.x[part], rows.y[part])
            tracker.end_epoch(epoch)
    trackers[2].merge_state(gather(trackers)[::-1])
    wanted = fastdiv.analyze({e: (r.x, r.y) for e, r in dump.items()}, kind="logits")
    assert_same(trackers[2].run(), wanted)


def test_without_ids_it_must_be_told_what_is_new():
    rows = make(n=40)[0]
    a, b = ranks()[:2]
    b.update(rows.x[:10], rows.y[:10])
    early = b.state_dict()
    a.update(rows.x[20:], rows.y[20:])
    a.merge_state(early)
    b.update(rows.x[10:20], rows.y[10:20])
    with pytest.raises(fastdiv.UsageError, match="only ids would tell"):
        a.merge_state(b)
    with pytest.raises(fastdiv.UsageError, match="update first, merge then"):
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


def rows_of(state):
    return pickle.dumps([state["under_way"], state["ended"], state["updates"], state["facts"]])


def test_ranks_that_contradict_each_other():
    a, b = ranks()[:2]
    a.update(x, y, ids)
    b.update(np.concatenate([x[:4], -x[4:]]), y, ids)
    kept = rows_of(a.state_dict())
    for other in (b, b.state_dict(), [a, b]):
        with pytest.raises(fastdiv.DataError, match=rf"merged state \d: sample {ids[4]} is twice"):
            a.merge_state(other)
    assert rows_of(a.state_dict()) == kept
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


@pytest.mark.parametrize("with_ids", [True, False])
def test_a_state_that_has_grown_is_counted_once(with_ids):
    """Whether it comes as a state or as a tracker, each row and each invalid one counts once."""
    bad = x.copy()
    bad[[0, 7]] = np.nan
    bad[8, y[8]] = -np.inf
    for as_state in (True, False):
        a, b = ranks()[:2]
        if not with_ids:
            b.update(bad[:5], y[:5])
            b.merge_state([b.state_dict(), b])
            a.merge_state([b, b.state_dict()])
            assert a.end_epoch().row["n"] == 5
            continue
        b.update(bad[:5], y[:5], ids[:5])
        a.merge_state(b.state_dict() if as_state else b)
        b.update(bad[3:], y[3:], ids[3:])
        for _ in range(2):
            a.merge_state(b.state_dict() if as_state else b)
        a.end_epoch()
        b.end_epoch()
        assert_same(a.run(), b.run())
        summary = a.run().summary
        assert summary["rows"] == 12
        assert summary["splits"][0]["n_duplicates"] == 2
        assert (summary["invalid"]["n"], summary["infinite"]["n"]) == (2, 1)
        assert summary["bytes"] == b.run().summary["bytes"]


@pytest.mark.parametrize("how", ["same", "near", "both"])
def test_padding_counts_once_however_large(how):
    """Of agreeing rows the same one is kept whatever comes first, to the bit."""
    rows = make(n=3000)[0]
    near = Rows(rows.x + np.float32(1e-7) * (how != "same"), rows.y, rows.ids)
    outcomes = []
    for order in permutations((rows, near)):
        a, b = ranks()[:2]
        first, second = order
        if how == "both":
            first = Rows(
                *(np.concatenate(c) for c in zip(first.arrays(), rows.arrays(), strict=True))
            )
        a.update(*first.arrays())
        b.update(*second.shuffled().arrays())
        a.merge_state(b.state_dict())
        a.end_epoch()
        outcomes.append(a.run())
        n = len(first) + len(second) - 3000
        assert a.run().summary["splits"][0]["n_duplicates"] == n
    assert_same(*outcomes)


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
    with pytest.raises(fastdiv.UsageError, match=r"state is (not|of a later|of an earlier)"):
        tracker.load_state_dict(state)
    if state != 3:
        with pytest.raises(
            fastdiv.UsageError, match=r"merged state 0 is (not|of a later|of an earlier)"
        ):
            tracker.merge_state(state)
    gc.collect()
    assert len(list(temporary.iterdir())) == 1
    assert_same(tracker.run(), tracked(hard()).run())


@pytest.mark.parametrize("way", [copy.deepcopy, lambda t: pickle.loads(pickle.dumps(t)), "load"],
                         ids=["deepcopy", "pickle", "load"])  # fmt: skip
def test_a_state_of_bfloat16(way):
    torch = pytest.importorskip("torch")
    dump = make(n=40)
    tracker, same, third = (fastdiv.Tracker(kind="logits") for _ in range(3))
    for rows in dump.values():
        given = [
            (torch.from_numpy(part.x).bfloat16(), part.y, part.ids)
            for part in (rows.take(slice(0, 30)), rows.take(slice(30, 40)))
        ]
        for i, part in enumerate(given):
            same.update(*part)
            (third if i else tracker).update(*part)
            if way == "load":
                other = fastdiv.Tracker(kind="logits")
                other.load_state_dict(tracker.state_dict())
                tracker = other
            else:
                tracker = way(tracker)
        tracker.merge_state(third.state_dict(ended=False))
        third.reset()
        assert tracker.end_epoch().row == same.end_epoch().row
    assert_same(tracker.run(), same.run())
    assert tracker.run().summary["dtype"] == "bfloat16"


@pytest.mark.parametrize("step", [1, 7, 60])
def test_class_names_that_are_numbers(step):
    """They are what labels are, whatever the first rows hold, and after loading a state."""
    dump = make((0, 1), n=60)
    tracker = fastdiv.Tracker(kind="logits", class_names="1,2,3")
    wanted = fastdiv.analyze(arrays(dump), kind="logits")
    for rows in dump.values():
        for start in range(0, 60, step):
            part = rows.take(slice(start, start + step))
            tracker.update(part.x, part.y.astype(np.int64) + 1, part.ids)
            other = fastdiv.Tracker(kind="logits", class_names="1,2,3")
            if start % 2:
                other.load_state_dict(tracker.state_dict())
            else:
                other.merge_state(tracker)
            tracker = other
        tracker.end_epoch()
    run = tracker.run()
    assert run.epochs.equals(wanted.epochs)
    assert run.transitions.equals(wanted.transitions)
    assert run.summary["rows"] == 120


@pytest.mark.parametrize("step", [1, 3, 10])
@pytest.mark.parametrize(
    ("labels", "pattern"),
    [
        (y + 1, "labels go from 1 to 3, but 3 classes are counted from 0"),
        (np.ones((10, 3), np.int64), "lists of several classes"),
        (pa.array([[0.5, 0.5, 0.0]] * 10), "lists of several classes"),
    ],
    ids=["from 1", "several", "shares"],
)
def test_labels_that_are_taken_for_something_else(labels, pattern, step):
    tracker = fastdiv.Tracker(kind="logits")
    for start in range(0, 10, step):
        tracker.update(*(a[start : start + step] for a in (x, labels, ids)))
    with pytest.raises(fastdiv.DataError, match=pattern):
        tracker.end_epoch()
    with pytest.raises(fastdiv.UsageError, match="no row came"):
        tracker.end_epoch()


def test_labels_that_are_missing_or_of_no_class_are_no_error():
    tracker = fastdiv.Tracker(kind="logits", class_names="a,b,c")
    tracker.update(x, pa.array([None, *"bcbcbcbc", "?"]), ids)
    assert tracker.end_epoch().row["n_invalid"] == 2
    with pytest.raises(fastdiv.UsageError, match=r"update 0: labels are strings.*class_names"):
        fastdiv.Tracker(kind="logits").update(x, np.array(list("abcabcabca")), ids)


def test_lists_of_which_the_first_are_null():
    nulls = pa.array([None] * 10, pa.list_(pa.float32()))
    lists = pa.array(x.tolist(), pa.list_(pa.float32()))
    with pytest.raises(fastdiv.UsageError, match=r"update 0: no row has predictions.*classes"):
        fastdiv.Tracker(kind="logits").update(nulls, y, ids)
    with pytest.raises(fastdiv.UsageError, match="update 0: predictions of 1 class"):
        fastdiv.Tracker(kind="logits").update(pa.array([[1.0]]), [0])
    tracker = fastdiv.Tracker(kind="logits", classes=3)
    tracker.update(nulls, y, ids + 1000)
    tracker.update(lists, y, ids)
    tracker.update(lists, y, ids + 2000)
    assert tracker.end_epoch().row["n_invalid"] == 10
    uneven = pa.array([[1.0], *x.tolist()], pa.list_(pa.float32()))
    tracker = fastdiv.Tracker(kind="logits")
    tracker.update(uneven, [0, *y], [-1, *ids])
    assert repr(tracker).startswith("<fastdiv.Tracker logits, 3 classes")
    assert tracker.end_epoch().row["n_invalid"] == 1


def without(state, *names):
    return {name: value for name, value in state.items() if name not in names}


def test_states_that_lack_something_leave_the_tracker_as_it_was():
    tracker = tracked(hard())
    state = tracker.state_dict()
    damaged = [without(state, name) for name in state if name != "fastdiv_tracker"]
    for slots in ([10**6], [-1]):
        entry = dict(state["ended"]["epochs"][0])
        scores = pa.ipc.open_stream(entry["scores"]).read_all()
        at = scores.column_names.index("slot")
        values = scores.column("slot").to_pylist()
        values[-len(slots) :] = slots
        scores = scores.set_column(at, "slot", pa.array(values, pa.int32()))
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, scores.schema) as writer:
            writer.write_table(scores)
        entry["scores"] = bytes(sink.getvalue())
        epochs = [entry, *state["ended"]["epochs"][1:]]
        damaged.append({**state, "ended": {**state["ended"], "epochs": epochs}})
    damaged.append({**state, "facts": {**state["facts"], "classes": "7"}})
    for one in damaged:
        fresh = fastdiv.Tracker(kind="logits")
        with pytest.raises(fastdiv.UsageError, match="state is not of a"):
            fresh.load_state_dict(one)
    assert_same(tracker.run(), tracked(hard()).run())


@pytest.mark.parametrize("number", [2**63, -(2**63) - 1, 10**30])
def test_numbers_of_epochs_that_64_bits_do_not_hold(number):
    tracker = fastdiv.Tracker(kind="logits")
    tracker.update(x, y, ids)
    with pytest.raises(fastdiv.UsageError, match="epoch must be"):
        tracker.end_epoch(number)
    assert tracker.end_epoch().epoch == 0


@pytest.mark.parametrize("other", [None, 3])
def test_what_is_no_state_is_not_merged(other):
    with pytest.raises(fastdiv.UsageError, match="merge_state takes trackers"):
        fastdiv.Tracker(kind="logits").merge_state(other)


def test_no_room_for_temporary_files(monkeypatch, tmp_path):
    tracker = tracked(hard())
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    for call in (tracker.run, lambda: fastdiv.Tracker(kind="logits").update(x, y, ids)):
        with pytest.raises(fastdiv.UsageError, match=r"no temporary directory.*TMPDIR"):
            call()
    monkeypatch.undo()

    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copyfile", full)
    with pytest.raises(fastdiv.UsageError, match=r"cannot be written.*No space left"):
        tracker.run()
    monkeypatch.undo()
    assert_same(tracker.run(), tracked(hard()).run())

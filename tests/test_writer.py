"""PredictionWriter: batches become a dump that is read with no options, whole or not at all."""

import copy
import gc
import json
import os
import pickle
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from dumps import arrays, as_kind, as_list, assert_same, column, make

import fastdiv


def write(path, dump, step=17, with_ids=True, **options):
    """Write epochs in batches of `step` rows."""
    with fastdiv.PredictionWriter(path, kind="logits", **options) as writer:
        for epoch, rows in dump.items():
            for start in range(0, len(rows), step):
                part = rows.take(slice(start, start + step))
                writer.write(part.x, part.y, part.ids if with_ids else None, epoch=epoch)
    return path


def said(path):
    return json.loads(pq.read_schema(path).metadata[b"fastdiv"])


# What is read back ----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["logits", "probs", "logprobs"])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_one_file_of_all_epochs_is_read_with_no_options(tmp_path, kind, dtype):
    dump = {e: as_kind(rows, kind) for e, rows in make(n=90, dtype=dtype).items()}
    path = tmp_path / "deep" / "down" / "val.parquet"
    with fastdiv.PredictionWriter(path, kind=kind) as writer:
        for epoch, rows in dump.items():
            for start in range(0, 90, 20):
                writer.write(*rows.take(slice(start, start + 20)).arrays(), epoch=epoch)
    run = fastdiv.analyze(path)
    assert_same(run, fastdiv.analyze(arrays(dump), kind=kind))
    assert run.summary["columns"]["kind"] == f"{kind}: as the metadata says"
    assert run.summary["dtype"] == np.dtype(dtype).name
    assert os.listdir(path.parent) == ["val.parquet"]


@pytest.mark.parametrize("kind", ["logits", "logprobs"])
def test_kinds_that_the_numbers_alone_would_not_tell(tmp_path, kind):
    """Log-probabilities, written as logits, look like log-probabilities; and the other way."""
    x = as_kind(make(n=50)[0], "logprobs").x - np.float32(0.5 * (kind == "logprobs"))
    with fastdiv.PredictionWriter(tmp_path / "a.parquet", kind=kind) as writer:
        writer.write(x, np.zeros(50, int))
    assert fastdiv.analyze(tmp_path / "a.parquet").summary["kind"] == kind


@pytest.mark.parametrize("with_ids", [True, False])
def test_a_file_for_each_epoch_is_read_with_no_options(tmp_path, with_ids):
    dump = make((2, 7, 10), n=90)
    for epoch, rows in dump.items():
        name = tmp_path / f"preds_epoch_{epoch:03}.parquet"
        with fastdiv.PredictionWriter(name, kind="logits") as writer:
            writer.write(rows.x, rows.y, rows.ids if with_ids else None)
    wanted = {e: (r.x, r.y, r.ids if with_ids else None) for e, r in dump.items()}
    assert_same(fastdiv.analyze(tmp_path), fastdiv.analyze(wanted, kind="logits"))


def test_an_epoch_of_all_batches_and_splits(tmp_path):
    dump = make((2, 7), n=60)
    for epoch, rows in dump.items():
        path = tmp_path / f"{epoch}.parquet"
        with fastdiv.PredictionWriter(path, kind="logits", epoch=epoch) as writer:
            writer.write(*rows.take(slice(0, 40)).arrays(), split="train")
            writer.write(*rows.take(slice(40, 60)).arrays(), split="val")
    wanted = {
        name: arrays({e: rows.take(part) for e, rows in dump.items()})
        for name, part in (("train", slice(0, 40)), ("val", slice(40, 60)))
    }
    assert_same(fastdiv.analyze(tmp_path), fastdiv.analyze(wanted, kind="logits"))


@pytest.mark.parametrize("labels", ["integers", "names", "one-hot", "dictionary"])
def test_class_names(tmp_path, labels):
    dump = make(n=60)
    make_labels = {
        "integers": lambda y: y,
        "names": lambda y: np.array(["cat", "dog", "eel"])[y],
        "one-hot": lambda y: np.eye(3, dtype=np.int8)[y],
        "dictionary": lambda y: pa.array(np.array(["cat", "dog", "eel"])[y]).dictionary_encode(),
    }[labels]
    path = tmp_path / "a.parquet"
    with fastdiv.PredictionWriter(path, kind="logits", class_names="cat,dog,eel") as writer:
        for epoch, rows in dump.items():
            for start in range(0, 60, 7):
                part = rows.take(slice(start, start + 7))
                writer.write(part.x, make_labels(part.y), part.ids, epoch=epoch)
    names = ["cat", "dog", "eel"]
    assert said(path) == {"kind": "logits", "classes": 3, "class_names": names, "dtype": "float32"}
    wanted = fastdiv.analyze(arrays(dump), kind="logits", class_names=names)
    assert_same(fastdiv.analyze(path), wanted)


@pytest.mark.parametrize("kind", ["strings", "bytes", "uint64", "string view"])
def test_ids(tmp_path, kind):
    given = {
        "strings": lambda i: np.array([f"image {k}" for k in i]),
        "bytes": lambda i: np.array([b"image %d" % k for k in i]),
        "uint64": lambda i: i.astype(np.uint64) + np.uint64(2**63),
        "string view": lambda i: pa.array([f"image {k}" for k in i], pa.string_view()),
    }[kind]
    dump = {e: replace(rows, ids=given(rows.ids)) for e, rows in make(n=30).items()}
    path = tmp_path / "a.parquet"
    with fastdiv.PredictionWriter(path, kind="logits") as writer:
        for epoch, rows in dump.items():
            writer.write(*rows.arrays(), epoch=epoch)
    assert_same(fastdiv.analyze(path), fastdiv.analyze(arrays(dump), kind="logits"))


def test_bfloat16_of_torch(tmp_path):
    torch = pytest.importorskip("torch")
    dump = make(n=60)
    path = tmp_path / "a.parquet"
    exact = {}
    with fastdiv.PredictionWriter(path, kind="logits") as writer:
        for epoch, rows in dump.items():
            x = torch.from_numpy(rows.x).bfloat16()
            writer.write(x, torch.from_numpy(rows.y), torch.from_numpy(rows.ids), epoch=epoch)
            exact[epoch] = replace(rows, x=x.float().numpy())
    assert said(path)["dtype"] == "bfloat16"
    assert pq.read_schema(path).field("logits").type.value_type == pa.uint16()
    run = fastdiv.analyze(path)
    assert run.summary["dtype"] == "bfloat16"
    assert_same(run, fastdiv.analyze(arrays(exact), kind="logits"))


@pytest.mark.parametrize("layout", ["list", "large_list", "fixed_size_list"])
def test_arrow_lists_and_nulls_in_them(tmp_path, layout):
    rows = make(n=40)[0]
    path = tmp_path / "a.parquet"
    lists = as_list(rows.x, layout)
    if layout == "list":
        lists = pa.array([None, *lists.to_pylist()[1:]], lists.type)
    with fastdiv.PredictionWriter(path, kind="logits") as writer:
        writer.write(lists.slice(0, 30), pa.array(rows.y[:30]), pa.array(rows.ids[:30]))
        writer.write(lists.slice(30), pa.array(rows.y[30:]), pa.array(rows.ids[30:]))
    assert pa.types.is_fixed_size_list(pq.read_schema(path).field("logits").type)
    run = fastdiv.analyze(path)
    assert column(run, "n_invalid") == [int(layout == "list")]
    if layout != "list":
        assert_same(run, fastdiv.analyze({0: rows.arrays()}, kind="logits"))


# How it is written ----------------------------------------------------------------------------


def test_row_groups_do_not_depend_on_the_batches(tmp_path):
    """40 rows of 3 float32 and 16 bytes of other columns make 1120 bytes."""
    dump = make(n=90)
    files = {
        step: pq.ParquetFile(write(tmp_path / f"{step}.parquet", dump, step, row_group_bytes=1120))
        for step in (1, 17, 40, 1000)
    }
    for file in files.values():
        rows = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
        assert rows == [40] * 6 + [30]
        assert file.read().equals(files[1].read())


def test_what_a_row_group_is_made_of(tmp_path):
    file = pq.ParquetFile(write(tmp_path / "a.parquet", make(n=90)))
    assert file.num_row_groups == 1
    columns = [file.metadata.row_group(0).column(i) for i in range(4)]
    assert [c.path_in_schema for c in columns] == [
        "sample_id", "label", "logits.list.element", "epoch"
    ]  # fmt: skip
    assert [c.has_dictionary_page for c in columns] == [False, True, False, True]
    assert [c.statistics is not None for c in columns] == [True, True, False, True]
    assert (columns[3].statistics.min, columns[3].statistics.max) == (0, 2)
    assert {c.compression for c in columns} == {"SNAPPY"}
    other = pq.ParquetFile(write(tmp_path / "b.parquet", make(n=9), compression="zstd"))
    assert other.metadata.row_group(0).column(2).compression == "ZSTD"
    assert len(write(tmp_path / "c.parquet", make(n=9), compression="none").read_bytes()) > 0


def test_batches_may_be_reused_once_they_are_written(tmp_path):
    dump = make(n=40)
    x, y, ids = (a.copy() for a in dump[0].arrays())
    path = tmp_path / "a.parquet"
    with fastdiv.PredictionWriter(path, kind="logits") as writer:
        for epoch, rows in dump.items():
            x[:], y[:], ids[:] = rows.arrays()
            writer.write(x, y, ids, epoch=epoch)
            x[:], y[:], ids[:] = 0, 0, 0
    assert_same(fastdiv.analyze(path), fastdiv.analyze(arrays(dump), kind="logits"))


def test_at_most_a_row_group_waits(tmp_path):
    rows = make(n=90)[0]
    writer = fastdiv.PredictionWriter(tmp_path / "a.parquet", kind="logits", row_group_bytes=280)
    for start in range(0, 90, 3):  # groups of 10
        writer.write(*rows.take(slice(start, start + 3)).arrays())
        assert sum(batch.num_rows for batch in writer._waiting) < 10
    writer.close()
    assert pq.ParquetFile(tmp_path / "a.parquet").num_row_groups == 9


def test_no_rows(tmp_path):
    rows = make(n=5)[0]
    with fastdiv.PredictionWriter(tmp_path / "a.parquet", kind="logits") as writer:
        writer.write(*rows.take(slice(0, 0)).arrays())
    assert pq.read_table(tmp_path / "a.parquet").num_rows == 0
    assert said(tmp_path / "a.parquet")["classes"] == 3
    with (
        pytest.raises(fastdiv.UsageError, match=r"b\.parquet: nothing was written"),
        fastdiv.PredictionWriter(tmp_path / "b.parquet", kind="logits"),
    ):
        pass
    assert os.listdir(tmp_path) == ["a.parquet"]


# Whole or not at all --------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["exception", "abandon", "garbage"])
@pytest.mark.parametrize("there", [False, True])
def test_an_unfinished_file_leaves_nothing(tmp_path, how, there):
    path = tmp_path / "a.parquet"
    if there:
        write(path, make(n=5))
    before = path.read_bytes() if there else None
    rows = make(n=90)[0]
    writer = fastdiv.PredictionWriter(path, kind="logits", row_group_bytes=400, overwrite=True)
    writer.write(*rows.arrays())
    assert len(os.listdir(tmp_path)) == 1 + there
    assert path.exists() == there
    if how == "exception":
        with pytest.raises(KeyError), writer:
            raise KeyError
    elif how == "abandon":
        writer.abandon()
        writer.close()
    else:
        del writer
        gc.collect()
    assert os.listdir(tmp_path) == ["a.parquet"] * there
    assert (path.read_bytes() if there else None) == before


KILLED = """
import sys, time
import numpy as np
import fastdiv
writer = fastdiv.PredictionWriter(sys.argv[1], kind="logits", row_group_bytes=400)
x = np.random.default_rng(0).normal(size=(1000, 3)).astype("f4")
writer.write(x, np.zeros(1000, int))
print("written", flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_process_that_is_killed_leaves_no_file_of_the_name(tmp_path, how):
    path = tmp_path / "dump" / "a.parquet"
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(path)],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    assert process.stdout.readline() == "written\n"
    process.send_signal(how)
    assert process.wait(timeout=30) != 0
    process.stdout.close()
    assert not path.exists()
    with pytest.raises(fastdiv.UsageError, match="no file"):
        fastdiv.analyze(path.parent)  # what is left, if anything, is not taken for a dump
    if how == signal.SIGINT:
        assert os.listdir(path.parent) == []


def test_a_fork_leaves_the_file_of_its_parent(tmp_path):
    rows = make(n=9)[0]
    writer = fastdiv.PredictionWriter(tmp_path / "a.parquet", kind="logits")
    writer.write(*rows.arrays())
    pid = os.fork()
    if pid == 0:
        refused = 0
        for call in (lambda: writer.write(*rows.arrays()), writer.close):
            try:
                call()
            except fastdiv.UsageError as error:
                refused += "was forked from" in str(error)
        writer.abandon()
        os._exit(refused)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 2
    writer.close()
    assert_same(fastdiv.analyze(tmp_path), fastdiv.analyze({0: rows.arrays()}, kind="logits"))


def test_what_is_there_is_not_overwritten_unasked(tmp_path):
    path = write(tmp_path / "a.parquet", make(n=5))
    before = path.read_bytes()
    with pytest.raises(fastdiv.UsageError, match="is there already"):
        fastdiv.PredictionWriter(path, kind="logits")
    late = fastdiv.PredictionWriter(tmp_path / "b.parquet", kind="logits")
    late.write(*make(n=5)[0].arrays())
    (tmp_path / "b.parquet").write_bytes(b"precious")
    with pytest.raises(fastdiv.UsageError, match="is there already"):
        late.close()
    assert (tmp_path / "b.parquet").read_bytes() == b"precious"
    assert path.read_bytes() == before
    dump = make(n=30)
    write(path, dump, overwrite=True)
    assert_same(fastdiv.analyze(path), fastdiv.analyze(arrays(dump), kind="logits"))
    (tmp_path / "c.parquet").mkdir()
    with pytest.raises(fastdiv.UsageError, match="is there already"):
        fastdiv.PredictionWriter(tmp_path / "c.parquet", kind="logits", overwrite=True)
    assert sorted(os.listdir(tmp_path)) == ["a.parquet", "b.parquet", "c.parquet"]


def test_a_disk_that_cannot_be_written(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    writer = fastdiv.PredictionWriter(tmp_path / "file" / "a.parquet", kind="logits")
    with pytest.raises(fastdiv.UsageError, match=r"a\.parquet cannot be written"):
        writer.write(*make(n=5)[0].arrays())
    writer = fastdiv.PredictionWriter(tmp_path / "a.parquet", kind="logits")
    writer.write(*make(n=5)[0].arrays())

    def full(*arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pq.ParquetWriter, "write_table", full)
    with pytest.raises(fastdiv.UsageError, match="cannot be written: No space left"):
        writer.close()
    assert os.listdir(tmp_path) == ["file"]


# Errors ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "pattern"),
    [
        ({"kind": "auto"}, "kind must be"),
        ({"kind": "logits", "classes": 3, "class_names": "a,b"}, "2 class names for 3 classes"),
        ({"kind": "logits", "row_group_bytes": 0}, "row_group_bytes"),
        ({"kind": "logits", "row_group_bytes": 1e6}, "row_group_bytes must be a whole number"),
        ({"kind": "logits", "classes": "3"}, "classes must be a whole number, not '3'"),
        ({"kind": "logits", "classes": 0}, "classes must be at least 2, not 0"),
        ({"kind": "logits", "compression": "rar"}, "compression must be .*, not 'rar'"),
        ({"kind": "logits", "path": "a.csv"}, r"must end in \.parquet"),
    ],
)
def test_arguments_that_are_refused(tmp_path, options, pattern):
    path = tmp_path / options.pop("path", "a.parquet")
    with pytest.raises(fastdiv.UsageError, match=pattern):
        fastdiv.PredictionWriter(path, **options)
    assert os.listdir(tmp_path) == []


x, y, ids = make(n=10)[0].arrays()


@pytest.mark.parametrize(
    ("given", "named", "pattern"),
    [
        ((x[:, :2], y, ids), {}, "2 classes, but 3 are expected"),
        ((x.astype("f8"), y, ids), {}, "logits is .*double.*, but .*float.* before it"),
        ((x, y.astype("i2"), ids), {}, "label is int16, but int64 before it"),
        ((x, y, ids.astype("i4")), {}, "sample_id is int32, but int64 before it"),
        ((x, y, ids.astype(str)), {}, "sample_id is .*string.*, but int64 before it"),
        ((x, y, None), {}, "sample_id in some batches only: this batch has none"),
        ((x, y, ids), {"epoch": None}, "epoch in some batches only: this batch has none"),
        ((x, y, ids), {"split": "val"}, "split in some batches only: batches before it"),
        ((x, y, ids), {"split": 3}, "split must be a string"),
        ((x, y, ids), {"epoch": 2**63}, r"epoch must be below 2\*\*63"),
        ((x, y, ids > 50), {}, "ids must be integers or strings, not bool"),
        ((x, y, ids), {"epoch": 1.5}, "epoch must be a whole number"),
        ((x, y[:4], ids), {}, r"labels must have shape \(10,\)"),
        ((as_list(x).to_pylist(), y, ids), {}, "logits is .*double"),
        ((pa.array([[1.0, 2.0, 3.0], [1.0]], pa.list_(pa.float32())), y[:2], ids[:2]), {},
         "not all rows have 3 predictions"),
    ],
    ids=lambda value: value[:30] if isinstance(value, str) else "",
)  # fmt: skip
def test_batches_that_are_refused_are_not_written(tmp_path, given, named, pattern):
    path = tmp_path / "a.parquet"
    with fastdiv.PredictionWriter(path, kind="logits") as writer:
        writer.write(x, y, ids, epoch=0)
        with pytest.raises(fastdiv.UsageError, match=rf"a\.parquet, batch 1: {pattern}") as raised:
            writer.write(*given, **{"epoch": 1, **named})
        assert "\n" not in str(raised.value)
        writer.write(x, y, ids, epoch=1)
    wanted = fastdiv.analyze({0: (x, y, ids), 1: (x, y, ids)}, kind="logits")
    assert_same(fastdiv.analyze(path), wanted)


def test_the_class_count_that_was_told(tmp_path):
    with fastdiv.PredictionWriter(tmp_path / "a.parquet", kind="logits", classes=4) as writer:
        with pytest.raises(fastdiv.UsageError, match="batch 0: 3 classes, but 4 are expected"):
            writer.write(x, y, ids)
        writer.abandon()


def test_a_writer_that_is_closed(tmp_path):
    writer = fastdiv.PredictionWriter(tmp_path / "a.parquet", kind="logits")
    writer.write(x, y, ids)
    assert repr(writer) == f"<fastdiv.PredictionWriter {tmp_path / 'a.parquet'}: 1 batches so far>"
    writer.close()
    writer.close()
    assert repr(writer).endswith(": closed>")
    with pytest.raises(fastdiv.UsageError, match="is closed"):
        writer.write(x, y, ids)


def test_relative_paths_outlive_a_change_of_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    writer = fastdiv.PredictionWriter("a.parquet", kind="logits")
    writer.write(x, y, ids)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    writer.close()
    assert (tmp_path / "a.parquet").is_file()
    assert list(Path.cwd().iterdir()) == []


def test_first_batches_that_do_not_tell_the_classes(tmp_path):
    empty = pa.array([], pa.list_(pa.float32()))
    lists = pa.array(x.tolist(), pa.list_(pa.float32()))
    nulls = pa.array([None] * 10, pa.list_(pa.float32()))
    with fastdiv.PredictionWriter(tmp_path / "a.parquet", kind="logits") as writer:
        writer.write(empty, y[:0], ids[:0])
        with pytest.raises(fastdiv.UsageError, match=r"batch 0: no row has predictions.*classes"):
            writer.write(nulls, y, ids)
        writer.write(lists, y, ids)
        writer.write(nulls, y, ids + 1000)
    with fastdiv.PredictionWriter(tmp_path / "b.parquet", kind="logits", classes=3) as writer:
        writer.write(nulls, y, ids + 1000)
        writer.write(lists, y, ids)
    for name in "ab":
        run = fastdiv.analyze(tmp_path / f"{name}.parquet")
        assert column(run, "n_invalid") == [10]
        assert column(run, "n") == [20]


@pytest.mark.parametrize("written", [True, False])
def test_an_interrupt_that_is_swallowed_leaves_no_file(tmp_path, monkeypatch, written):
    """Whether the row group that was written then is in the file cannot be told."""
    writer = fastdiv.PredictionWriter(tmp_path / "a.parquet", kind="logits", row_group_bytes=280)
    writer.write(x, y, ids)
    write_table = pq.ParquetWriter.write_table

    def interrupted(*arguments, **options):
        if written:
            write_table(*arguments, **options)
        raise KeyboardInterrupt

    monkeypatch.setattr(pq.ParquetWriter, "write_table", interrupted)
    with pytest.raises(KeyboardInterrupt):
        writer.write(x, y, ids)
    monkeypatch.undo()
    with pytest.raises(fastdiv.UsageError, match="is closed"):
        writer.write(x, y, ids)
    writer.close()
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("way", [copy.copy, copy.deepcopy, pickle.dumps])
def test_a_writer_is_not_copied(tmp_path, way):
    with fastdiv.PredictionWriter(tmp_path / "a.parquet", kind="logits") as writer:
        writer.write(x, y, ids)
        with pytest.raises(fastdiv.UsageError, match=r"cannot be copied .*a\.parquet"):
            way(writer)
    assert_same(fastdiv.analyze(tmp_path), fastdiv.analyze({0: (x, y, ids)}, kind="logits"))

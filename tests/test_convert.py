"""`convert`: the same numbers from what was written as from what was read."""

import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import fastdiv

N, C = 300, 7


def arrays(seed, n=N, c=C, dtype="f4"):
    rng = np.random.default_rng(seed)
    return rng.normal(0, 3, (n, c)).astype(dtype), rng.integers(0, c, n), np.arange(n) * 3 - 50


def table(seed, epoch=None, split=None, text_ids=False, dtype="f4"):
    x, y, ids = arrays(seed, dtype=dtype)
    columns = {
        "sample_id": pa.array([f"s{i}" for i in ids]) if text_ids else ids,
        "label": y,
        "logits": pa.FixedSizeListArray.from_arrays(pa.array(x.ravel()), C),
    }
    if epoch is not None:
        columns["epoch"] = pa.array([epoch] * N)
    if split is not None:
        columns["split"] = [split] * N
    return pa.table(columns)


def tables(run):
    return {name: getattr(run, name) for name in ("epochs", "transitions", "samples", "classes")}


def assert_same(run, wanted):
    for name, expected in tables(wanted).items():
        assert tables(run)[name].equals(expected), name


@pytest.mark.parametrize("output", ["all.parquet", "all"])
@pytest.mark.parametrize("compression", ["none", "zstd"])
@pytest.mark.parametrize("layout", ["bytes", "lists"])
@pytest.mark.parametrize("text_ids", [False, True], ids=["numbers", "texts"])
def test_what_is_written_says_the_same(tmp_path, output, compression, layout, text_ids):
    source = {e: table(e, text_ids=text_ids) for e in (2, 5, 11)}
    written = fastdiv.convert(
        source, tmp_path / output, kind="logits", layout=layout, compression=compression
    )
    assert written == tmp_path / output
    assert_same(fastdiv.analyze(written), fastdiv.analyze(source, kind="logits"))
    files = sorted(p.name for p in tmp_path.rglob("*.parquet"))
    named = [f"epoch_{e:06d}.parquet" for e in (2, 5, 11)]
    assert files == (["all.parquet"] if output == "all.parquet" else named)


@pytest.mark.parametrize("output", ["all.parquet", "all"])
def test_splits_and_named_epochs(tmp_path, output):
    source = {
        s: {e: table(i, text_ids=True) for i, e in enumerate(("first", "best"))}
        for s in ("train", "val")
    }
    written = fastdiv.convert(source, tmp_path / output)
    run, wanted = fastdiv.analyze(written), fastdiv.analyze(source)
    assert run.summary["epoch_names"] == wanted.summary["epoch_names"]
    assert_same(run, wanted)


@pytest.mark.parametrize("output", ["all.parquet", "all"])
def test_epochs_and_splits_in_columns(tmp_path, output):
    parts = [table(10 * e + len(s), e, s) for e in (1, 2, 3) for s in ("train", "val")]
    path = tmp_path / "dump.parquet"
    mixed = pa.concat_tables(parts)
    order = np.random.default_rng(0).permutation(len(mixed))  # epochs and splits take turns
    pq.write_table(mixed.take(pa.array(order)), path, row_group_size=500)
    written = fastdiv.convert(path, tmp_path / output)
    assert_same(fastdiv.analyze(written), fastdiv.analyze(path))


def test_a_dump_that_tells_nothing_of_epochs_says_nothing_after(tmp_path):
    x, y, _ = arrays(0)
    written = fastdiv.convert((x, y), tmp_path / "a.parquet", kind="logits")
    assert pq.read_schema(written).names == ["label", "logits"]
    assert_same(fastdiv.analyze(written), fastdiv.analyze((x, y), kind="logits"))
    written = fastdiv.convert((x, y), tmp_path / "a", kind="logits")
    assert [p.name for p in written.iterdir()] == ["data.parquet"]


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", "bf16"])
@pytest.mark.parametrize("layout", ["bytes", "lists"])
def test_every_dtype_stays_to_the_bit(tmp_path, dtype, layout):
    x, y, ids = arrays(1)
    if dtype == "bf16":
        words = (x.view(np.uint32) >> 16).astype(np.uint16)
        values = pa.FixedSizeListArray.from_arrays(pa.array(words.ravel()), C)
        source, options = pa.table({"id": ids, "label": y, "logits": values}), {"dtype": "bfloat16"}
    else:
        source, options = (x.astype(dtype), y, ids), {}
    written = fastdiv.convert(
        source, tmp_path / "a.parquet", kind="logits", layout=layout, **options
    )
    again = fastdiv.analyze(written)
    assert_same(again, fastdiv.analyze(source, kind="logits", **options))
    assert again.summary["dtype"] == ("bfloat16" if dtype == "bf16" else np.dtype(dtype).name)


@pytest.mark.parametrize("layout", ["bytes", "lists"])
def test_half_precision(tmp_path, layout):
    x, y, ids = arrays(2)
    written = fastdiv.convert(
        (x, y, ids), tmp_path / "a.parquet", kind="logits", half=True, layout=layout
    )
    wanted = fastdiv.analyze((x.astype("f2"), y, ids), kind="logits")
    assert_same(fastdiv.analyze(written), wanted)
    x[17, 3] = 1e5
    with pytest.raises(fastdiv.UsageError, match=r"row 17: 100000 is beyond float16"):
        fastdiv.convert((x, y, ids), tmp_path / "b.parquet", kind="logits", half=True)
    assert [p.name for p in tmp_path.iterdir()] == ["a.parquet"]


def test_rows_without_predictions_or_labels_stay(tmp_path):
    x, y, ids = arrays(3)
    lists = [None if i % 50 == 7 else row.tolist() for i, row in enumerate(x)]
    lists[9][2] = None
    labels = [None if i == 4 else 99 if i == 5 else int(k) for i, k in enumerate(y)]
    source = pa.table(
        {"id": ids, "label": labels, "logits": pa.array(lists, pa.list_(pa.float32()))}
    )
    path = tmp_path / "a.parquet"
    pq.write_table(source, path)
    written = fastdiv.convert(path, tmp_path / "b.parquet", kind="logits")
    run, wanted = fastdiv.analyze(written), fastdiv.analyze(path, kind="logits")
    assert run.epochs.equals(wanted.epochs)
    assert [r["n"] for r in run.summary["invalid"]["reasons"]] == [
        r["n"] for r in wanted.summary["invalid"]["reasons"]
    ]


def test_ragged_rows_are_refused_and_leave_nothing(tmp_path):
    lists = [[0.0, 1.0, 2.0]] * 20 + [[0.0, 1.0]]
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"label": [0] * 21, "logits": lists}), path)
    for output in ("b.parquet", "b"):
        with pytest.raises(fastdiv.DataError, match="row 20: has not 3 predictions"):
            fastdiv.convert(path, tmp_path / output, kind="logits")
    assert [p.name for p in tmp_path.iterdir()] == ["a.parquet"]


def test_how_the_file_is_laid_out(tmp_path):
    written = fastdiv.convert({3: table(0)}, tmp_path / "a.parquet")
    file = pq.ParquetFile(written)
    assert file.schema_arrow.field("logits").type == pa.binary(4 * C)
    said = file.schema_arrow.metadata[b"fastdiv"].decode()
    assert all(
        part in said for part in ('"kind": "logits"', f'"classes": {C}', '"dtype": "float32"')
    )
    group = file.metadata.row_group(0)
    chunks = [group.column(j) for j in range(group.num_columns)]
    columns = {chunk.path_in_schema: chunk for chunk in chunks}
    logits = columns["logits"]
    assert logits.compression == "UNCOMPRESSED"
    assert not {"PLAIN_DICTIONARY", "RLE_DICTIONARY"} & set(logits.encodings)
    assert logits.statistics is None
    assert columns["epoch"].statistics.max == 3
    # Plain bytes to any other tool.
    raw = b"".join(pq.read_table(written)["logits"].to_pylist())
    np.testing.assert_array_equal(np.frombuffer(raw, "f4").reshape(N, C), arrays(0)[0])


def test_what_is_there_is_not_lost(tmp_path):
    source = {1: table(0)}
    for name in ("a.parquet", "a"):
        fastdiv.convert(source, tmp_path / name)
        with pytest.raises(fastdiv.UsageError, match="there already"):
            fastdiv.convert(source, tmp_path / name)
        fastdiv.convert({1: table(1)}, tmp_path / name, overwrite=True)
        assert_same(fastdiv.analyze(tmp_path / name), fastdiv.analyze({1: table(1)}))
    (tmp_path / "a" / "notes.txt").write_text("mine")
    with pytest.raises(fastdiv.UsageError, match="not overwritten"):
        fastdiv.convert(source, tmp_path / "a", overwrite=True)
    assert (tmp_path / "a" / "notes.txt").read_text() == "mine"


def test_only_some_epochs(tmp_path):
    source = {e: table(e) for e in range(6)}
    written = fastdiv.convert(source, tmp_path / "a", epochs="1:6:2")
    assert sorted(p.name for p in written.iterdir()) == [
        f"epoch_{e:06d}.parquet" for e in (1, 3, 5)
    ]


def test_files_are_closed_as_their_epochs_end(tmp_path, monkeypatch):
    monkeypatch.setattr("fastdiv.conversion.FILES_AT_ONCE", 2)
    source = {e: table(e) for e in range(5)}
    assert_same(fastdiv.analyze(fastdiv.convert(source, tmp_path / "a")), fastdiv.analyze(source))
    mixed = pa.concat_tables([table(e, e) for e in range(5)])
    with pytest.raises(fastdiv.UsageError, match="take turns"):
        fastdiv.convert(mixed, tmp_path / "b")
    assert_same(
        fastdiv.analyze(fastdiv.convert(mixed, tmp_path / "b.parquet")), fastdiv.analyze(mixed)
    )


def test_the_command(tmp_path):
    pq.write_table(table(0), tmp_path / "epoch_1.parquet")
    command = [sys.executable, "-m", "fastdiv.cli", "convert", "epoch_1.parquet", "-o", "fast"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "fastdiv analyze fast" in done.stdout
    assert_same(fastdiv.analyze(tmp_path / "fast"), fastdiv.analyze(tmp_path / "epoch_1.parquet"))
    again = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert again.returncode == 2
    assert again.stderr.count("\n") == 1
    assert "there already" in again.stderr

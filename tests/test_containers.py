"""Files of any format, streams, and frames of other libraries: the same tables as from Parquet."""

import bz2
import gzip
import json
import os

import numpy as np
import pyarrow as pa
import pytest
from dumps import TABLES, Rows, arrays, assert_same, column, make, table, whole, write, write_files

import fastdiv

EPOCHS = (2, 7, 10)
DATA = {"id": "sample_id", "label": "label"}


@pytest.fixture(scope="module")
def three():
    return make(EPOCHS, n=50, c=3, dtype=np.float64)


@pytest.fixture(scope="module")
def wanted(three):
    return fastdiv.analyze(arrays(three))


class Exporter:
    """Anything with the Arrow PyCapsule interface, and nothing else."""

    def __init__(self, data):
        self.data = data

    def __arrow_c_stream__(self, requested_schema=None):
        return self.data.__arrow_c_stream__(requested_schema)


# One file in each format ----------------------------------------------------------------------


def to_ipc_file(data, path, compression=None):
    options = pa.ipc.IpcWriteOptions(compression=compression)
    with (
        pa.OSFile(str(path), "wb") as sink,
        pa.ipc.new_file(sink, data.schema, options=options) as w,
    ):
        w.write_table(data, max_chunksize=17)
    return path


def to_stream(data, path):
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, data.schema) as writer:
        writer.write_table(data, max_chunksize=17)
    return path


def csv_text(data, delimiter=","):
    """Return a table with a column a class as text; `repr` gives floats that read back the same."""
    lines = [delimiter.join(data.column_names)]
    lines += [
        delimiter.join("" if v is None else str(v) for v in row.values())
        for row in data.to_pylist()
    ]
    return "\n".join(lines) + "\n"


def json_text(data):
    return "".join(json.dumps(row) + "\n" for row in data.to_pylist())


def to_text(text, path):
    raw = text.encode()
    compress = {".gz": gzip.compress, ".bz2": bz2.compress}.get(path.suffix, lambda data: data)
    if path.suffix == ".zst":
        with pa.CompressedOutputStream(str(path), "zstd") as sink:
            sink.write(raw)
    else:
        path.write_bytes(compress(raw))
    return path


FILES = {
    "a.arrow": lambda d, p: to_ipc_file(whole(d), p),
    "b.feather": lambda d, p: to_ipc_file(whole(d), p, "zstd"),
    "c.ipc": lambda d, p: to_ipc_file(whole(d, "wide0"), p, "lz4"),
    "d.arrows": lambda d, p: to_stream(whole(d), p),
    "e.arrow": lambda d, p: to_stream(whole(d), p),  # as Hugging Face names streams
    "f": lambda d, p: to_ipc_file(whole(d), p),
    "g.bin": lambda d, p: write(whole(d), p),
    "h.csv": lambda d, p: to_text(csv_text(whole(d, "wide0")), p),
    "i.csv.gz": lambda d, p: to_text(csv_text(whole(d, "wide1")), p),
    "j.tsv": lambda d, p: to_text(csv_text(whole(d, "wide0"), "\t"), p),
    "k.csv.bz2": lambda d, p: to_text(csv_text(whole(d, "wide0"), ";"), p),
    "l.jsonl": lambda d, p: to_text(json_text(whole(d)), p),
    "m.jsonl.gz": lambda d, p: to_text(json_text(whole(d)), p),
    "n.ndjson.zst": lambda d, p: to_text(json_text(whole(d, "wide0")), p),
    "o.json": lambda d, p: to_text(json.dumps(whole(d).to_pylist()), p),
}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("size", [7, None])
def test_formats(tmp_path, monkeypatch, three, wanted, name, size):
    if size is not None:
        monkeypatch.setattr(fastdiv.sources.layout, "BATCH_ROWS", size)
    path = FILES[name](three, tmp_path / name)
    assert_same(fastdiv.analyze(path), wanted)
    assert_same(fastdiv.analyze(path, threads=1, scores="rolling"), wanted)


def test_numpy_files(tmp_path, three, wanted):
    saves = (np.savez, np.savez_compressed, np.savez)
    for (epoch, rows), save in zip(three.items(), saves, strict=True):
        x = np.asfortranarray(rows.x) if epoch == 7 else rows.x.astype(">f8")
        y = rows.y[:, None] if epoch == 2 else rows.y
        save(tmp_path / f"val_epoch_{epoch}.npz", y_true=y, logits=x, ids=rows.ids, note="a note")
    assert_same(fastdiv.analyze(tmp_path), wanted)
    assert_same(fastdiv.analyze(str(tmp_path / "*.npz")), wanted)
    name = str(tmp_path / "val_epoch_7.npz")
    single = fastdiv.analyze(name)
    np.save(tmp_path / "x.npy", three[7].x)
    np.save(tmp_path / "y.npy", three[7].y)
    path = tmp_path / "x.npy"
    for id_ in (f"{name}:ids",):
        run = fastdiv.analyze({7: path}, label=str(tmp_path / "y.npy"), id=id_)
        assert_same(run, single)
    by_position = fastdiv.analyze({7: path}, label=f"{name}:y_true")
    assert by_position.summary["splits"][0]["ids"] == "position"
    assert_same(by_position, single, tables=("epochs", "classes"))


def test_numpy_files_with_strings(tmp_path, three):
    names = np.array(["a", "b", "c"])
    want = fastdiv.analyze(
        {2: (three[2].x, three[2].y, three[2].ids.astype(str))}, class_names=list(names)
    )
    path = tmp_path / "epoch_2.npz"
    for more in ({"class_names": names}, {}):
        y = three[2].y if more else names[three[2].y]
        np.savez(path, probs=three[2].x, targets=y, ids=three[2].ids.astype(str), **more)
        options = {} if more else {"class_names": "a,b,c"}
        assert_same(fastdiv.analyze(path, kind="logits", **options), want)


def test_numpy_arrays_that_cannot_be_columns_are_named(tmp_path, three):
    rows = three[2]
    np.savez(tmp_path / "a.npz", logits=rows.x, label=rows.y[:-1], mean=1.5)
    with pytest.raises(fastdiv.UsageError, match=r"no columns of 50 rows: label int64 \(49,\)"):
        fastdiv.analyze(tmp_path / "a.npz")
    np.save(tmp_path / "x.npy", rows.x)
    np.save(tmp_path / "b.npy", rows.y[:-1])
    with pytest.raises(fastdiv.DataError, match=r"b\.npy: shape \(49,\) for 50 rows of .*x\.npy"):
        fastdiv.analyze(tmp_path / "x.npy", label=str(tmp_path / "b.npy"))
    with pytest.raises(fastdiv.UsageError, match=r"a\.npz holds logits, label, mean: name one as"):
        fastdiv.analyze(tmp_path / "x.npy", label=str(tmp_path / "a.npz"))
    with pytest.raises(fastdiv.UsageError, match=r"a\.npz: no array 'gone': there are"):
        fastdiv.analyze(tmp_path / "x.npy", label=f"{tmp_path / 'a.npz'}:gone")


class Bomb:
    def __reduce__(self):
        return (os.mkdir, ("exploded",))


@pytest.mark.parametrize("suffix", ["npy", "npz"])
def test_nothing_is_ever_unpickled(tmp_path, monkeypatch, three, suffix):
    monkeypatch.chdir(tmp_path)
    objects = np.array([Bomb()] * 50, dtype=object)
    if suffix == "npz":
        np.savez("a.npz", logits=three[2].x, label=objects)
    else:
        np.save("a.npy", objects)
    with pytest.raises(fastdiv.FastdivError, match="label"):
        fastdiv.analyze(f"a.{suffix}")
    assert not os.path.exists("exploded")


def test_bfloat16_as_numpy_saves_it(tmp_path):
    """`np.save` of the bfloat16 of ml_dtypes writes two bytes without a meaning."""
    words = (make()[0].x.view(np.uint32) >> 16).astype(np.uint16)
    y = make()[0].y
    np.savez(tmp_path / "a.npz", logits=words.view("V2"), y=y)
    want = fastdiv.analyze({0: ((words.astype(np.uint32) << 16).view(np.float32), y)})
    assert_same(fastdiv.analyze(tmp_path / "a.npz", dtype="bfloat16"), want)


# CSV ------------------------------------------------------------------------------------------


def test_lines_before_a_table_are_skipped_on_request(tmp_path, three, wanted, cli):
    text = csv_text(whole(three, "wide0"))
    path = to_text("model,resnet,7\n{'a': 1}\n" + text, tmp_path / "a.csv")
    with pytest.raises(fastdiv.DataError, match=r"a\.csv.*--skip-lines"):
        fastdiv.analyze(path)
    assert_same(fastdiv.analyze(path, skip_lines=2), wanted)
    assert cli("analyze", path, "--skip-lines", 99).err.count("\n") == 1
    with pytest.raises(fastdiv.UsageError, match="no more than the 999 lines"):
        fastdiv.analyze(path, skip_lines=999)


def test_a_table_without_names_gets_some(tmp_path, three, wanted):
    text = csv_text(whole(three, "wide0"))
    names, _, rest = text.partition("\n")
    path = to_text(rest, tmp_path / "a.csv")
    number = {name: f"column_{i}" for i, name in enumerate(names.split(","))}
    with pytest.raises(fastdiv.UsageError, match=r"column_0 \(int64\)"):
        fastdiv.analyze(path)
    run = fastdiv.analyze(
        path, id=number["sample_id"], label=number["label"], epoch=number["epoch"],
        predictions=[number[f"logits_{k}"] for k in range(3)],
    )  # fmt: skip
    assert_same(run, wanted)


def test_nan_and_nothing_in_csv(tmp_path):
    text = "label,p_0,p_1\n0,0.5,0.5\n1,nan,0.5\n1,,0.5\n,0.25,0.75\n1,-0.0,1.0\n1,inf,0\n"
    run = fastdiv.analyze(to_text(text, tmp_path / "a.csv"), kind="probs")
    reasons = {r["reason"]: r["first"] for r in run.summary["invalid"]["reasons"]}
    place = f"{tmp_path / 'a.csv'}, row "
    assert reasons == {
        "nan": [place + "1"], "null": [place + "2"], "label": [place + "3"],
        "positive_infinity": [place + "5"],
    }  # fmt: skip
    assert column(run, "n") == [6]


@pytest.mark.parametrize(
    ("bad", "pattern"),
    [
        ("7,1", r"a\.csv.*Expected 4 columns, got 2"),
        ("x7,1,0.5,0.5", r"a\.csv.*'x7'"),
        ('7,1,0.5,"0.5', r"a\.csv"),
    ],
)
def test_broken_csv_is_one_clear_line(tmp_path, cli, bad, pattern):
    good = "".join(f"{i},1,0.5,0.5\n" for i in range(80_000))  # more than tells the types
    path = to_text(f"id,label,p_0,p_1\n{good}{bad}\n", tmp_path / "a.csv")
    with pytest.raises(fastdiv.DataError, match=pattern):
        fastdiv.analyze(path)
    ended = cli("analyze", path, "--quiet")
    assert (ended.code, ended.out, ended.err.count("\n")) == (2, "", 1)


def test_a_class_that_begins_with_whole_numbers(tmp_path):
    rows = [f"{i},{i % 2},{i % 2},{1 - i % 2}\n" for i in range(200_000)] + ["-1,1,0.25,0.75\n"]
    path = to_text("id,label,p_0,p_1\n" + "".join(rows), tmp_path / "a.csv")
    with pytest.raises(fastdiv.FastdivError):  # nothing tells that p_0 are no integers
        fastdiv.analyze(path)
    with_one = "id,label,p_0,p_1\n-2,0,1,0.0\n" + "".join(rows)
    run = fastdiv.analyze(to_text(with_one, path), kind="probs")
    assert column(run, "n") == [200_002]


# JSON lines -----------------------------------------------------------------------------------


def test_numbers_that_are_no_json_are_read(tmp_path):
    lines = [
        '{"label": 0, "logits": [1, 2]}', '{"label": 1, "logits": [NaN, 0.5]}', "",
        '{"label": 1, "logits": [-Infinity, 0.5]}', '{"label": null, "logits": [0.1, 0.2]}',
        '{"label": 1}',
    ]  # fmt: skip
    run = fastdiv.analyze(to_text("\n".join(lines), tmp_path / "a.jsonl"))
    reasons = {r["reason"]: r["n"] for r in run.summary["invalid"]["reasons"]}
    assert reasons == {"nan": 1, "label": 1, "null": 1}
    assert column(run, "n") == [5]


@pytest.mark.parametrize(
    ("line", "pattern"),
    [
        ('{"label": 0, "logits": [1, 2', r"a\.jsonl, row 300: is no JSON"),
        ("[1, 2]", r"a\.jsonl, row 300: is no JSON object"),
        ('{"label": "x", "logits": [1, 2]}', r"row 300: column 'label' holds 'x', but int64"),
        ('{"label": 0, "logits": [1, "y"]}', r"row 300: column 'logits'"),
        ('{"label": 99999999999999999999, "logits": [1, 2]}', r"row 300: column 'label'"),
    ],
)
def test_broken_json_is_one_clear_line(tmp_path, line, pattern):
    good = '{"label": 0, "logits": [1.5, 2]}\n' * 300
    with pytest.raises(fastdiv.DataError, match=pattern) as raised:
        fastdiv.analyze(to_text(good + line + "\n", tmp_path / "a.jsonl"))
    assert "\n" not in str(raised.value)


def test_the_epoch_in_a_key(tmp_path):
    """As dataset cartography names its logits."""
    dump = make((0, 1), n=20, c=3, dtype=np.float64)
    for epoch, rows in dump.items():
        text = "".join(
            json.dumps({"guid": int(i), f"logits_epoch_{epoch}": x.tolist(), "gold": int(y)}) + "\n"
            for i, x, y in zip(rows.ids, rows.x, rows.y, strict=True)
        )
        to_text(text, tmp_path / f"part-{epoch}.jsonl")
    assert_same(fastdiv.analyze(tmp_path), fastdiv.analyze(arrays(dump)))


def harness_lines(rows, choices, strings):
    """Return logged samples of lm-evaluation-harness, in its newer or older form."""
    for i, (x, y, n) in enumerate(zip(rows.x, rows.y, choices, strict=True)):
        pairs = [[float(v), False] for v in x[:n]]
        record = {"doc_id": i, "doc": {"q": "?", "n": int(n)}, "target": int(y), "acc": 1.0}
        if strings:
            record["target"] = f"choice {y}" if i % 2 else str(y)
            record["arguments"] = {
                f"gen_args_{k}": {"arg_0": "Q:", "arg_1": f" choice {k}"} for k in range(n)
            }
            record["resps"] = [[[str(v), str(g)]] for v, g in pairs]
            record["filtered_resps"] = [[str(v), str(g)] for v, g in pairs]
        else:
            record["arguments"] = [["Q:", f" choice {k}"] for k in range(n)]
            record["filtered_resps"] = pairs
        yield json.dumps(record) + "\n"


@pytest.mark.parametrize("strings", [False, True])
def test_log_likelihoods_of_lm_evaluation_harness(tmp_path, strings):
    dump = make((0, 1), n=30, c=5, dtype=np.float64)
    choices = np.random.default_rng(0).integers(2, 6, 30)
    want = {}
    for epoch, rows in dump.items():
        rows = Rows(rows.x, np.minimum(rows.y, choices - 1), np.arange(30))
        folder = tmp_path / f"checkpoint-{epoch}"
        folder.mkdir()
        to_text("".join(harness_lines(rows, choices, strings)), folder / "samples_arc.jsonl")
        x = np.where(np.arange(5) < choices[:, None], rows.x, -np.inf)
        want[epoch] = (x, rows.y, rows.ids)
    run = fastdiv.analyze(tmp_path)
    assert_same(run, fastdiv.analyze(want, kind="logits"))
    said = run.summary["columns"]
    assert (
        "log-likelihoods of choices; 2 to 5 choices a row, padded with -inf" in said["predictions"]
    )
    assert column(run, "n_invalid") == [0, 0]


def test_targets_beyond_the_choices_and_generated_answers_are_invalid(tmp_path):
    rows = make((0,), n=4, c=3)[0]
    lines = list(harness_lines(rows, [3, 3, 2, 3], False))
    records = [json.loads(line) for line in lines]
    records[0]["target"] = "none of these"
    records[2]["target"] = 2  # there are choices 0 and 1
    records[3]["filtered_resps"] = ["The answer is 7"]
    text = "".join(json.dumps(r) + "\n" for r in records)
    run = fastdiv.analyze(to_text(text, tmp_path / "a.jsonl"))
    assert {r["reason"]: r["n"] for r in run.summary["invalid"]["reasons"]} == {
        "label": 2, "null": 1,
    }  # fmt: skip


# In memory ------------------------------------------------------------------------------------


def test_readers_are_streamed(three, wanted):
    data = whole(three)
    for source in (
        pa.RecordBatchReader.from_batches(data.schema, data.to_batches(max_chunksize=7)),
        Exporter(data),
        [Exporter(data.slice(0, 60)), Exporter(data.slice(60))],
        {e: Exporter(table(rows)) for e, rows in three.items()},
    ):
        assert_same(fastdiv.analyze(source), wanted)


def test_a_reader_is_never_held_whole(three):
    """Each batch can be given back before the next is made."""
    data = whole(three)
    live, most = set(), 0

    def batches():
        nonlocal most
        for i in range(200):
            batch = pa.record_batch(
                [c.combine_chunks() if isinstance(c, pa.ChunkedArray) else c for c in data.columns],
                schema=data.schema,
            )
            batch = batch.set_column(3, "epoch", pa.array([i] * len(batch)))
            live.add(i)
            most = max(most, pa.total_allocated_bytes())
            yield batch

    reader = pa.RecordBatchReader.from_batches(data.schema, batches())
    before = pa.total_allocated_bytes()
    run = fastdiv.analyze(reader, duplicates="first")
    assert column(run, "n") == [50] * 200
    assert most - before < 100 * data.nbytes


def test_a_reader_is_read_once(three):
    data = whole(three)
    reader = pa.RecordBatchReader.from_batches(data.schema, data.to_batches())
    fastdiv.analyze(reader)
    with pytest.raises(fastdiv.FastdivError, match="no rows"):
        fastdiv.analyze(reader)


def test_a_contradiction_in_a_stream_names_the_second_place(three):
    twice = pa.concat_tables([table(three[2]), table(three[7])])
    with pytest.raises(fastdiv.DataError, match=r"^data, row 50: sample \d+ is twice in epoch 0"):
        fastdiv.analyze(Exporter(twice))


def test_what_gives_no_columns_is_refused():
    class Broken:
        def __arrow_c_stream__(self, requested_schema=None):
            return None

    for source in (Broken(), 7, [object()], {0: {1: 2}}):
        with pytest.raises(fastdiv.UsageError):
            fastdiv.analyze(source)


def test_frames_of_other_libraries(three, wanted):
    polars = pytest.importorskip("polars")
    duckdb = pytest.importorskip("duckdb")
    data = whole(three)
    assert_same(fastdiv.analyze(polars.from_arrow(data)), wanted)
    assert_same(fastdiv.analyze(duckdb.from_arrow(data)), wanted)
    names = polars.from_arrow(data).with_columns(polars.col("sample_id").cast(polars.String))
    assert_same(fastdiv.analyze(names), wanted, tables=("epochs", "transitions", "classes"))


def test_a_list_of_anything(tmp_path, three, wanted):
    t = {e: table(rows, epoch=e) for e, rows in three.items()}
    to_ipc_file(t[2].slice(0, 20), tmp_path / "a.arrow")
    to_text(csv_text(table(three[10], "wide0", epoch=10)), tmp_path / "c.csv")
    lists = [str(tmp_path / "a.arrow"), t[2].slice(20), Exporter(t[7]), [t[10].slice(0, 9)]]
    assert_same(fastdiv.analyze([*lists, t[10].slice(9).to_batches()[0]]), wanted)
    write_files(tmp_path / "p", {2: three[2]})
    source = {2: [tmp_path / "p"], 7: three[7].arrays(), 10: [table(three[10])]}
    run = fastdiv.analyze({e: source[e] for e in (2, 10)}, id="sample_id")
    assert column(run, "n") == [50, 50]
    with pytest.raises(fastdiv.DataError, match="no column 'logits', which"):
        fastdiv.analyze(source)


# Directories ----------------------------------------------------------------------------------


def test_of_several_formats_in_a_directory_one_is_read_and_it_says_so(tmp_path, three, wanted, cli):
    write_files(tmp_path, three)
    to_text("epoch,loss\n1,2\n", tmp_path / "metrics.csv")
    (tmp_path / "notes.txt").write_text("no data")
    run = fastdiv.analyze(tmp_path)
    assert_same(run, wanted)
    assert run.summary["columns"]["files"] == (
        f"3 files; 1 of other formats beside them not read ({tmp_path / 'metrics.csv'})"
    )
    assert "of other formats beside them not read" in cli("inspect", tmp_path).out


def test_a_file_of_no_known_format(tmp_path):
    for name, content in (("a.txt", b"hello"), ("b.bin", b"\x00" * 100), ("c.parquet", b"")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(fastdiv.DataError, match=name):
            fastdiv.analyze(tmp_path / name)


def test_memory_cannot_be_promised_for_a_stream(three):
    with pytest.raises(fastdiv.UsageError, match="nothing tells the number of rows"):
        fastdiv.analyze(Exporter(whole(three)), memory="4GB")


def test_inspect_says_what_only_reading_tells(tmp_path, three, cli):
    path = to_text(json_text(whole(three)), tmp_path / "a.jsonl.gz")
    out = cli("inspect", path).out
    assert "only reading tells in 1 part" in out
    found = json.loads(cli("inspect", path, "--json").out)
    assert (found["rows"], found["samples_at_most"], found["memory_bytes"]) == (None, None, None)
    assert TABLES


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_shards_without_rows_say_nothing_of_types(tmp_path, three, wanted, suffix):
    data = whole(three, "wide0")
    text = csv_text(data) if suffix == "csv" else json_text(data)
    to_text(text, tmp_path / f"rank_1.{suffix}")
    (tmp_path / f"rank_0.{suffix}").write_bytes(b"")
    header = text.partition("\n")[0] + "\n" if suffix == "csv" else "\n"
    to_text(header, tmp_path / f"rank_2.{suffix}")
    assert_same(fastdiv.analyze(tmp_path), wanted)
    (tmp_path / f"rank_1.{suffix}").unlink()
    with pytest.raises(fastdiv.DataError, match=r"no rows in .*rank_0"):
        fastdiv.analyze(tmp_path)


# Epochs with names ----------------------------------------------------------------------------


def named(run):
    return dict(zip(column(run, "epoch"), column(run, "epoch_name"), strict=True))


def test_checkpoints_are_numbered_in_the_order_given(tmp_path, three):
    paths = {}
    for name, rows in zip(("tuned", "base", "a"), three.values(), strict=True):
        paths[name] = write(table(rows), tmp_path / f"{name}.parquet")
    want = fastdiv.analyze({i: rows.arrays() for i, rows in enumerate(three.values())})
    wanted_names = {0: "tuned", 1: "base", 2: "a"}
    for source in ([str(p) for p in paths.values()], paths):
        run = fastdiv.analyze(source, epoch_per_path=True)
        assert named(run) == wanted_names
        assert_same(run, want, tables=("transitions", "samples", "classes"))
    run = fastdiv.analyze(
        {"val": {name: table(three[e]) for name, e in zip(paths, three, strict=True)}}
    )
    assert named(run) == wanted_names
    assert column(run, "split") == ["val"] * 3
    only = fastdiv.analyze({None: paths}, epochs="a,tuned")
    assert named(only) == {0: "tuned", 2: "a"}
    inside = fastdiv.analyze(tmp_path, epoch_per_path=True)  # of one directory what lies in it
    assert named(inside) == {0: "a", 1: "base", 2: "tuned"}
    assert run.compare("tuned", "a").to_pylist() == run.compare(0, 2).to_pylist()
    with pytest.raises(fastdiv.UsageError, match="no epoch is named 'gone': there are tuned"):
        run.compare("tuned", "gone")


def test_checkpoints_with_a_number_each_are_numbered_by_it(tmp_path, three):
    for number, rows in zip((1000, 500, 20), three.values(), strict=True):
        write(table(rows), tmp_path / f"ckpt={number}k" / "preds.parquet")
        write(table(rows), tmp_path / "x" / f"model-{number}.parquet")
    run = fastdiv.analyze(tmp_path / "*k")
    assert named(run) == {20: "20k", 500: "500k", 1000: "1000k"}
    run = fastdiv.analyze(tmp_path / "x", epoch_per_path=True)
    assert named(run) == {20: "model-20", 500: "model-500", 1000: "model-1000"}


def test_files_of_one_name_are_told_apart_by_their_directories(tmp_path, three):
    for name, rows in zip(("v-a", "v-b", "v-c"), three.values(), strict=True):
        write(table(rows), tmp_path / name / "preds.parquet")
    run = fastdiv.analyze(str(tmp_path / "*" / "preds.parquet"), epoch_per_path=True)
    assert named(run) == {i: f"v-{k}/preds" for i, k in enumerate("abc")}
    run = fastdiv.analyze(str(tmp_path / "*"), epoch_per_path=True)
    assert named(run) == {i: f"v-{k}" for i, k in enumerate("abc")}


@pytest.mark.parametrize(
    ("names", "numbers"), [(["b", "a", "c"], [1, 0, 2]), (["s9", "s10", "s2"], [9, 10, 2])]
)
def test_a_column_of_names(tmp_path, three, names, numbers):
    """Their order must not depend on which row group is read first."""
    rows = list(three.values())
    want = fastdiv.analyze({k: r.arrays() for k, r in zip(numbers, rows, strict=True)})
    tables = [table(r, checkpoint=name) for r, name in zip(rows, names, strict=True)]
    data = pa.concat_tables(tables)
    if names[0] == "b":  # without numbers: in the order in which they come
        want = fastdiv.analyze(dict(enumerate(r.arrays() for r in rows)))
    encoded = data.set_column(3, "checkpoint", data["checkpoint"].dictionary_encode())
    path = write(encoded, tmp_path / "a.parquet", row_group_size=13)
    for source in (data, encoded, path):
        run = fastdiv.analyze(source)
        assert_same(run, want, tables=("transitions", "samples", "classes"))
        assert set(column(run, "epoch_name")) == set(names)
    streamed = fastdiv.analyze(Exporter(data))
    assert column(streamed, "epoch_name") == names
    with pytest.raises(fastdiv.UsageError, match="epochs in column 'checkpoint' are names"):
        fastdiv.analyze([Exporter(data), Exporter(data)])


def test_ranks_whose_sampler_repeats_samples(tmp_path, three):
    """Padding makes all ranks as long as the longest; it counts once, in every container."""
    want = fastdiv.analyze(arrays(three))
    for epoch, rows in three.items():
        order = np.random.default_rng(epoch).permutation(50)
        order = np.append(order, order[:2])  # 52 = 4 x 13
        for rank in range(4):
            mine = rows.take(order[rank::4])
            to_ipc_file(table(mine), tmp_path / f"epoch_{epoch}_rank_{rank}.arrow")
    run = fastdiv.analyze(tmp_path)
    assert_same(run, want)
    assert run.summary["splits"][0]["n_duplicates"] == 6


# What people's files look like ----------------------------------------------------------------


def test_a_class_called_none_is_a_class(tmp_path):
    """What stands for a missing number is a name like any other in a column of names."""
    names = ["none", "NA", "null"]
    rows = make((0,), n=30, c=3, dtype=np.float64)[0]
    data = table(rows, "wide0", label=np.array(names)[rows.y])
    run = fastdiv.analyze(to_text(csv_text(data), tmp_path / "a.csv"), class_names=names)
    assert_same(run, fastdiv.analyze({0: rows.arrays()}, class_names=names))
    text = csv_text(data).replace("none", "")
    run = fastdiv.analyze(to_text(text, tmp_path / "b.csv"), class_names=names)
    assert column(run, "n_invalid") == [int((rows.y == 0).sum())]


def test_decimal_commas(tmp_path, three, wanted):
    text = csv_text(whole(three, "wide0"), ";").replace(".", ",")
    assert_same(fastdiv.analyze(to_text(text, tmp_path / "a.csv")), wanted)


def test_csv_as_spreadsheets_write_it(tmp_path, three, wanted):
    text = csv_text(whole(three, "wide0")).replace("\n", "\r\n")
    first, rest = text.split("\r\n", 1)
    quoted = ",".join(f'"{name}"' for name in first.split(","))
    (tmp_path / "a.csv").write_bytes(b"\xef\xbb\xbf" + f"{quoted}\r\n{rest}".encode())
    assert_same(fastdiv.analyze(tmp_path / "a.csv"), wanted)
    (tmp_path / "b.csv").write_bytes(text.encode("utf-16"))
    with pytest.raises(fastdiv.DataError, match=r"b\.csv.*save it as UTF-8"):
        fastdiv.analyze(tmp_path / "b.csv")


def test_answers_without_the_question_are_left_out(tmp_path):
    """Tasks that measure mutual information log every choice a second time, unconditionally."""
    rows = make((0,), n=10, c=3, dtype=np.float64)[0]
    lines = []
    for line in harness_lines(rows, [3] * 10, False):
        record = json.loads(line)
        record["arguments"] += [["", choice] for _, choice in record["arguments"]]
        record["filtered_resps"] += [[-9.0, False]] * 3
        lines.append(json.dumps(record) + "\n")
    run = fastdiv.analyze(to_text("".join(lines), tmp_path / "a.jsonl"))
    want = fastdiv.analyze({0: (rows.x, rows.y, np.arange(10))}, kind="logits")
    assert_same(run, want)


def test_a_key_that_the_first_object_lacks(tmp_path, three):
    rows = three[2]
    records = table(rows).to_pylist()
    records[0].pop("sample_id")
    with pytest.raises(fastdiv.DataError, match=r"row 0: the id in column 'sample_id' is null"):
        fastdiv.analyze(
            to_text("".join(json.dumps(r) + "\n" for r in records), tmp_path / "a.jsonl")
        )


def test_a_zip_file_without_arrays_is_said_to_be_one(tmp_path):
    import zipfile

    with zipfile.ZipFile(tmp_path / "model.pt", "w") as archive:
        archive.writestr("model/data.pkl", b"x")
    with pytest.raises(fastdiv.DataError, match=r"model\.pt: is a zip file without NumPy arrays"):
        fastdiv.analyze(tmp_path / "model.pt")


def test_a_reader_given_twice_is_refused(three):
    reader = Exporter(whole(three))
    with pytest.raises(fastdiv.UsageError, match="given twice"):
        fastdiv.analyze([reader, reader])


def test_tiny_batches_of_a_reader_are_taken_together(three, wanted):
    data = whole(three)
    reader = pa.RecordBatchReader.from_batches(data.schema, data.to_batches(max_chunksize=1))
    assert_same(fastdiv.analyze(reader), wanted)


def test_fortran_order_in_an_archive_is_bounded(tmp_path, monkeypatch, three):
    from fastdiv.sources import numpy_files

    rows = three[2]
    np.savez(tmp_path / "a.npz", logits=np.asfortranarray(rows.x), label=rows.y)
    monkeypatch.setattr(numpy_files, "MOST_SCATTERED", 100)
    with pytest.raises(fastdiv.DataError, match=r"in Fortran order.*ascontiguousarray"):
        fastdiv.analyze(tmp_path / "a.npz")


@pytest.mark.parametrize("member", ["p_1", "p_2"])
def test_one_cell_that_is_no_number_does_not_change_what_is_read(tmp_path, member):
    cells = {"p_0": "0.5", "p_1": "0.25", "p_2": "0.25"}
    bad = ",".join(cells[name] + ("x" if name == member else "") for name in cells)
    good = ",".join(cells.values())
    text = "label," + ",".join(cells) + f"\n0,{good}\n1,{bad}\n2,{good}\n"
    with pytest.raises(fastdiv.UsageError, match=rf"p_0|{member}"):
        fastdiv.analyze(to_text(text, tmp_path / "a.csv"))

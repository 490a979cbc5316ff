"""Dumps that are not on this machine: the same results, and no more read than is needed."""

import json
import os
import shutil
import threading
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.fs as pafs
import pyarrow.parquet as pq
import pytest
from dumps import assert_same, make, table, to_bytes, write, write_files
from remote import recorded
from s3_server import s3_server

import fastdiv
from fastdiv.errors import DataError, UsageError
from fastdiv.rereading.links import links
from fastdiv.sources import Asked, open_source
from fastdiv.sources.files import fetch, transfers
from fastdiv.sources.files.fetch import Fetch, blocks_of
from fastdiv.sources.files.places import Places
from fastdiv.sources.files.stream import Stream
from fastdiv.sources.files.transfers import Block, Transfers
from fastdiv.sources.parquet import ParquetContainer

# -- the same as of files on this machine ------------------------------------------------------


def write_ipc(data, path):
    with pa.ipc.new_file(str(path), data.schema) as writer:
        writer.write_table(data, max_chunksize=150)


def write_stream(data, path):
    with pa.ipc.new_stream(str(path), data.schema) as writer:
        writer.write_table(data, max_chunksize=150)


def flat(data):
    x = np.array(data["logits"].to_pylist())
    columns = {f"logit_{i}": x[:, i] for i in range(x.shape[1])}
    return pa.table({"id": data["sample_id"], "label": data["label"], **columns})


def write_csv(data, path):
    pa.csv.write_csv(flat(data), str(path))


def write_packed_csv(data, path):
    with pa.CompressedOutputStream(str(path), "gzip") as file:
        pa.csv.write_csv(flat(data), file)


def write_json(data, path):
    rows = data.select(["sample_id", "label", "logits"]).to_pylist()
    Path(path).write_text("".join(f"{json.dumps(row)}\n" for row in rows))


def arrays_of(data):
    x = np.array(data["logits"].to_pylist(), np.float32)
    return {
        "predictions": x,
        "labels": data["label"].to_numpy(),
        "ids": data["sample_id"].to_numpy(),
    }


def write_npz(data, path):
    np.savez(path, **arrays_of(data))


def write_packed_npz(data, path):
    arrays = arrays_of(data)
    np.savez_compressed(path, **arrays | {"predictions": np.asfortranarray(arrays["predictions"])})


def write_npy(data, path):
    np.save(path, arrays_of(data)["predictions"])


def write_parquet(data, path):
    pq.write_table(data, path, row_group_size=170)


FORMATS = {
    "parquet": write_parquet, "arrow": write_ipc, "arrows": write_stream, "csv": write_csv,
    "csv.gz": write_packed_csv, "jsonl": write_json, "npz": write_npz, "NPZ": write_packed_npz,
}  # fmt: skip


@pytest.fixture(scope="module")
def dumps(tmp_path_factory):
    """Dumps of every format, with a run of each."""
    folder = tmp_path_factory.mktemp("dumps")
    for suffix, write_as in FORMATS.items():
        (folder / suffix.lower() / suffix).mkdir(parents=True)
        for epoch, rows in make(n=500, c=4).items():
            data = table(rows, extra=np.zeros(500))
            write_as(data, folder / suffix.lower() / suffix / f"epoch_{epoch}.{suffix.lower()}")
    return folder


@pytest.mark.parametrize("suffix", FORMATS)
def test_every_format_is_read_to_the_same_bits(dumps, suffix):
    where = f"{suffix.lower()}/{suffix}"
    wanted = fastdiv.analyze(dumps / where)
    filesystem, reads = recorded(dumps)
    run = fastdiv.analyze(where, filesystem=filesystem)
    assert_same(run, wanted)
    assert run.summary["read_by"] == wanted.summary["read_by"]
    parts = run.summary["dump"]["parts"]
    assert [p["bytes"] for p in parts] == [p["bytes"] for p in wanted.summary["dump"]["parts"]]
    name = f"recorded://{where}/epoch_0.{suffix.lower()}"
    assert parts[0]["path"] == name
    assert reads.ranges


def test_arrays_that_are_named_lie_in_the_file_system_too(tmp_path):
    (rows,) = make(epochs=(3,)).values()
    np.save(tmp_path / "epoch_3.npy", rows.x)
    np.savez(tmp_path / "said.npz", y=rows.y)
    wanted = fastdiv.analyze(tmp_path / "epoch_3.npy", label=f"{tmp_path / 'said.npz'}:y")
    filesystem, _ = recorded(tmp_path)
    run = fastdiv.analyze("epoch_3.npy", label="said.npz:y", filesystem=filesystem)
    assert_same(run, wanted)
    np.save(tmp_path / "epoch_3.npy", np.asfortranarray(rows.x))
    run = fastdiv.analyze("epoch_3.npy", label="said.npz:y", filesystem=recorded(tmp_path)[0])
    assert_same(run, wanted)


def test_a_large_array_in_fortran_order_is_not_read_whole(tmp_path, monkeypatch):
    from fastdiv.sources import numpy_files

    (rows,) = make(epochs=(3,)).values()
    np.savez(tmp_path / "y.npz", y=rows.y)
    np.save(tmp_path / "x.npy", np.asfortranarray(rows.x))
    monkeypatch.setattr(numpy_files, "MOST_SCATTERED", 100)
    with pytest.raises(DataError, match=r"recorded://x\.npy: 0 MiB in Fortran order, .* C order"):
        fastdiv.analyze("x.npy", label="y.npz:y", filesystem=recorded(tmp_path)[0])
    assert fastdiv.analyze(str(tmp_path / "x.npy"), label=str(tmp_path / "y.npz:y"))


# -- where dumps are found ---------------------------------------------------------------------


@pytest.fixture
def tree(tmp_path, dump):
    """A dump with splits and epochs as directories, and what is not to be read beside it."""
    for split in ("train", "val"):
        for epoch, rows in dump.items():
            folder = tmp_path / "dump" / f"split={split}" / f"epoch={epoch}"
            write(table(rows), folder / "part-0.parquet")
    (tmp_path / "dump" / "_logs").mkdir()
    (tmp_path / "dump" / "_logs" / "a.parquet").write_bytes(b"no")
    (tmp_path / "dump" / ".hidden.parquet").write_bytes(b"no")
    (tmp_path / "dump" / "beside.csv").write_text("no")
    (tmp_path / "dump" / "run" / "scores").mkdir(parents=True)
    (tmp_path / "dump" / "run" / "scores" / "0").write_bytes(b"no")
    (tmp_path / "dump" / "run" / "summary.json").write_text("{}")
    (tmp_path / "dump" / "run" / "samples.parquet").write_bytes(b"no")
    return tmp_path


@pytest.mark.parametrize(
    "path",
    [
        "dump", "dump/", "dump/split=*", "dump/*/epoch=?/*.parquet", "dump/**/part-*.parquet",
        "dump/s*/epoch=[27]/*", "**/split=val/**/*.parquet", "dump/*/epoch=10/part-0.parquet",
    ],
)  # fmt: skip
def test_directories_and_patterns_find_the_same(tree, path):
    def found(source):
        data = open_source(source, Asked())
        names = [os.path.relpath(f.path.removeprefix("recorded://"), tree) for f in data.files]
        return names, [(i.split, i.epoch, i.split_from, i.epoch_from) for i in data._items]

    wanted = found(f"{tree}/{path}")
    filesystem, _ = recorded(tree)
    data = open_source(path, Asked(filesystem=filesystem))
    assert [f.path for f in data.files] == wanted[0]
    assert [(i.split, i.epoch, i.split_from, i.epoch_from) for i in data._items] == wanted[1]


def test_a_directory_is_listed_once(tree):
    filesystem, reads = recorded(tree)
    open_source("dump", Asked(filesystem=filesystem))
    assert reads.listed == [("dump", True)]


def test_each_path_is_an_epoch(tmp_path, dump):
    for name, rows in zip("abc", dump.values(), strict=True):
        write(table(rows), tmp_path / "x" / f"{name}.parquet")
    wanted = fastdiv.analyze(tmp_path / "x", epoch_per_path=True)
    for path in ("x", "x/*"):
        filesystem, _ = recorded(tmp_path)
        run = fastdiv.analyze(path, epoch_per_path=True, filesystem=filesystem)
        assert_same(run, wanted)
        assert list(run.summary["epoch_names"].values()) == ["a", "b", "c"]


@pytest.mark.parametrize("absolute", [True, False])
def test_paths_may_begin_with_a_slash(tmp_path, dump, absolute):
    write_files(tmp_path, dump)
    filesystem, _ = recorded("/" if absolute else tmp_path)
    path = str(tmp_path) if absolute else "/"
    places = Places(filesystem)
    assert places.name(path) == ("recorded://" + path if absolute else "recorded:///")
    run = fastdiv.analyze(f"{path}/*.parquet", filesystem=filesystem)
    assert_same(run, fastdiv.analyze(tmp_path))


def test_local_file_systems_are_this_machine(tmp_path, dump):
    write_files(tmp_path, dump)
    wanted = fastdiv.analyze(tmp_path)
    local = pafs.LocalFileSystem()
    for path, filesystem in (
        (str(tmp_path), local),
        (tmp_path.name, pafs.SubTreeFileSystem(str(tmp_path.parent), local)),
        (tmp_path.as_uri(), None),
        (f"{tmp_path.as_uri()}/*.parquet", None),
    ):
        run = fastdiv.analyze(path, filesystem=filesystem)
        assert_same(run, wanted)
        assert run.summary["dump"]["parts"] == wanted.summary["dump"]["parts"]


def test_file_uris_on_the_command_line(tmp_path, dump, cli):
    write_files(tmp_path / "a b", dump)
    wanted = cli("analyze", tmp_path / "a b", "--json", "--quiet")
    for uri in ((tmp_path / "a b").as_uri(), f"val={(tmp_path / 'a b').as_uri()}"):
        done = cli("analyze", uri, "--json", "--quiet")
        assert done.code == 0, done.err
        parts = [json.loads(out)["dump"]["parts"] for out in (wanted.out, done.out)]
        assert [p["path"] for p in parts[0]] == [p["path"] for p in parts[1]]


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("nothing", r"recorded://nothing: no such file or directory"),
        ("dump/*.nothing", r"recorded://dump/\*\.nothing: nothing matches this pattern"),
        ("dump/run/scores", r"recorded://dump/run/scores: no file ending in"),
        ("s3://bucket/key", r"s3://bucket/key: with filesystem, give paths in it and no URI"),
    ],
)
def test_what_is_not_there_is_said_with_its_name(tree, path, says):
    with pytest.raises(UsageError, match=says):
        fastdiv.analyze(path, filesystem=recorded(tree)[0])


def test_what_is_no_file_system_is_refused():
    with pytest.raises(UsageError, match=r"filesystem must be one of pyarrow\.fs or fsspec, not 3"):
        fastdiv.analyze("x", filesystem=3)
    with pytest.raises(UsageError, match="no file system is known for nonsense://"):
        fastdiv.analyze("nonsense://a/b")
    with pytest.raises(UsageError, match="a file of another machine cannot be read"):
        fastdiv.analyze("file://elsewhere/x")


def test_file_systems_of_fsspec(tmp_path, dump, cli):
    fsspec = pytest.importorskip("fsspec")
    write_files(tmp_path, dump)
    memory = fsspec.filesystem("memory")
    memory.put(str(tmp_path), "/remote/dump", recursive=True)
    try:
        wanted = fastdiv.analyze(tmp_path)
        for path in ("remote/dump", "/remote/dump/*.parquet", "memory://remote/dump"):
            run = fastdiv.analyze(path, filesystem=memory)
            assert_same(run, wanted)
            name = run.summary["dump"]["parts"][0]["path"]
            assert name == "memory:///remote/dump/preds_epoch_002.parquet"
        run = fastdiv.analyze(path, filesystem=pafs.PyFileSystem(pafs.FSSpecHandler(memory)))
        assert_same(run, wanted)
        assert_same(fastdiv.analyze("memory://remote/dump"), wanted)  # found where Arrow has none
        local = fsspec.filesystem("file")
        assert_same(fastdiv.analyze(str(tmp_path), filesystem=local), wanted)
        assert cli("analyze", "memory://remote/dump", "--quiet").code == 0
    finally:
        memory.rm("/remote", recursive=True)


# -- what is read of Parquet -------------------------------------------------------------------


def wide(path, n=4000, group=1000, **options):
    """Write columns of which some are needed: ids and labels side by side, logits far from them."""
    rng = np.random.default_rng(0)
    x = rng.normal(0, 2, (n, 4)).astype(np.float32)
    data = pa.table(
        {
            "id": np.arange(n),
            "label": rng.integers(0, 4, n),
            "left": pa.array([rng.bytes(200) for _ in range(n)]),
            "logits": pa.FixedSizeListArray.from_arrays(x.ravel(), 4),
            "right": pa.array([rng.bytes(200) for _ in range(n)]),
        }
    )
    pq.write_table(data, path, row_group_size=group, use_dictionary=False, **options)
    return data


def spans_of(path, columns):
    metadata = pq.read_metadata(path)
    for g in range(metadata.num_row_groups):
        for j in range(metadata.num_columns):
            chunk = metadata.row_group(g).column(j)
            if chunk.path_in_schema.split(".")[0] in columns:
                start = chunk.data_page_offset
                yield g, start, start + chunk.total_compressed_size


def overlap(spans, reads):
    return sum(max(0, min(b, d) - max(a, c)) for a, b in spans for c, d in reads)


def test_only_the_needed_column_chunks_are_read_each_once(tmp_path, monkeypatch):
    wide(tmp_path / "a.parquet")
    monkeypatch.setattr(fetch, "HOLE_BYTES", 1000)
    filesystem, reads = recorded(tmp_path)
    data = open_source("a.parquet", Asked(filesystem=filesystem))
    chunks = data.plan()
    data.expect(chunks)
    reads.ranges.clear()
    for chunk in chunks:
        assert sum(len(batch.labels) for batch in data.read(chunk)) == 1000
    path = tmp_path / "a.parquet"
    needed = [(a, b) for _, a, b in spans_of(path, {"id", "label", "logits"})]
    ranges = reads.of("a.parquet")
    assert overlap(needed, ranges) == sum(b - a for a, b in needed)
    assert sum(b - a for a, b in ranges) <= sum(b - a for a, b in needed) + 4 * 1000
    assert len(ranges) == 2 * len(chunks)  # ids and labels at once


def test_what_is_close_together_is_read_at_once(tmp_path):
    wide(tmp_path / "a.parquet")
    filesystem, reads = recorded(tmp_path)
    data = open_source("a.parquet", Asked(filesystem=filesystem))
    reads.ranges.clear()
    for chunk in data.plan():
        list(data.read(chunk))
    assert len(reads.ranges) == 4


def test_opening_takes_few_reads_whatever_the_rows(tmp_path):
    for i in range(5):
        wide(tmp_path / f"epoch_{i}.parquet", n=20_000, group=1000)
    filesystem, reads = recorded(tmp_path)
    open_source("", Asked(filesystem=filesystem))
    tails = [r for r in reads.ranges if r[2] == (tmp_path / r[0]).stat().st_size]
    assert len(tails) == 5  # one each
    assert len(reads.ranges) <= 5 + 2 * 3  # and the first rows of two
    assert len(reads.listed) == 1


def test_a_long_footer_takes_one_read_more(tmp_path, monkeypatch):
    from fastdiv.sources import parquet_footer

    wide(tmp_path / "a.parquet", n=2000, group=10)
    monkeypatch.setattr(parquet_footer, "TAIL_BYTES", 1000)
    filesystem, reads = recorded(tmp_path)
    container = ParquetContainer(Places(filesystem).at("recorded://a.parquet"))
    assert len(container.rows) == 200
    assert len(reads.ranges) == 2
    first = min(start for _, start, _ in reads.ranges)
    assert sum(b - a for _, a, b in reads.ranges) == container.size - first


def test_long_chunks_are_read_in_blocks_ahead_in_bounded_memory(tmp_path, monkeypatch):
    wide(tmp_path / "a.parquet", n=60_000, group=60_000, data_page_size=20_000, compression="none")
    monkeypatch.setattr(fetch, "BLOCK_BYTES", 50_000)
    monkeypatch.setattr(transfers, "AHEAD_BYTES", 200_000)
    filesystem, reads = recorded(tmp_path)
    data = open_source("a.parquet", Asked(filesystem=filesystem))
    assert data.ahead_bytes == 200_000
    while reads.running:
        time.sleep(0.001)
    reads.ranges.clear()
    (group,) = data.plan()
    used = 0
    container = data.containers[0]
    for batch in container.read(0, data.layout.columns, 500):
        used += batch.num_rows * (8 + 8 + 16)
        time.sleep(0.001)
        got = sum(b - a for _, a, b in reads.ranges)
        # Besides what is read ahead, a block and a page of each column may be in use.
        assert got <= used + 200_000 + 3 * (2 * 50_000 + 20_000)
    lengths = [b - a for _, a, b in reads.ranges]
    assert max(lengths) <= 50_000
    assert used == group.rows * 32
    assert container.read_by.summary() == {"pages": 3, "arrow": []}


def test_what_comes_next_is_read_ahead(tmp_path):
    wide(tmp_path / "a.parquet")
    filesystem, reads = recorded(tmp_path)
    data = open_source("a.parquet", Asked(filesystem=filesystem))
    chunks = data.plan()
    data.expect(chunks)
    reads.ranges.clear()
    first = data.read(chunks[0])
    next(first)
    for _ in range(200):
        if len(reads.ranges) == len(chunks):
            break
        time.sleep(0.01)
    assert len(reads.ranges) == len(chunks)  # while nobody has asked for the others
    rest = [batch for chunk in chunks[1:] for batch in data.read(chunk)]
    assert sum(len(batch.labels) for batch in rest) == 3000
    assert len(reads.ranges) == len(chunks)


def test_parts_of_lists_and_strings_are_read_by_arrow_from_what_was_fetched(tmp_path):
    n = 3000
    rng = np.random.default_rng(0)
    x = rng.normal(0, 2, (n, 3)).astype(np.float32)
    ends = np.arange(0, 3 * n + 1, 3, dtype=np.int32)
    valid = np.ones(n, bool)
    valid[2500] = False  # pages end here
    lists = pa.ListArray.from_arrays(pa.array(ends), pa.array(x.ravel()), mask=pa.array(~valid))
    data = pa.table(
        {"id": [f"sample {i}" for i in range(n)], "label": rng.integers(0, 3, n), "logits": lists}
    )
    pq.write_table(data, tmp_path / "a.parquet", data_page_size=2000, write_batch_size=100)
    wanted = fastdiv.analyze(tmp_path / "a.parquet")
    filesystem, reads = recorded(tmp_path)
    run = fastdiv.analyze("a.parquet", filesystem=filesystem)
    assert_same(run, wanted)
    assert run.summary["read_by"] == wanted.summary["read_by"]
    assert {e["column"] for e in run.summary["read_by"]["arrow"]} == {"id", "logits"}
    assert len(reads.ranges) < 8


# -- what goes wrong ---------------------------------------------------------------------------


def test_a_read_that_fails_is_said_with_its_place(tmp_path):
    wide(tmp_path / "a.parquet", n=2000, group=1000)
    filesystem, reads = recorded(tmp_path)
    data = open_source("a.parquet", Asked(filesystem=filesystem))

    def fail(path, start, stop):
        raise OSError("the line is dead")

    reads.before = fail
    says = (
        r"recorded://a\.parquet, row group 1, row 0: cannot be read: bytes \d+ to \d+ cannot be "
        "had: the line is dead"
    )
    with pytest.raises(DataError, match=says):
        list(data.read(data.plan()[1]))


def read_all(source, filesystem):
    data = open_source(source, Asked(filesystem=filesystem))
    for chunk in data.plan():
        list(data.read(chunk))


@pytest.mark.parametrize("suffix", FORMATS)
def test_no_read_may_fail_unnoticed(dumps, suffix):
    """Let one read after the other fail: an error that names the file."""
    where = f"{suffix.lower()}/{suffix}/epoch_0.{suffix.lower()}"
    filesystem, reads = recorded(dumps)
    read_all(where, filesystem)
    assert len(reads.ranges) > 2
    for fails in range(len(reads.ranges)):
        filesystem, reads = recorded(dumps)

        left = iter([False] * fails + [True])

        def fail(path, start, stop, left=left):
            if next(left, False):
                raise OSError("the line is dead")

        reads.before = fail
        with pytest.raises((DataError, UsageError)) as caught:
            read_all(where, filesystem)
        said = str(caught.value)
        assert f"recorded://{where}" in said
        assert "the line is dead" in said
        assert "\n" not in said


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_file_that_is_written_over_meanwhile_is_an_error(tmp_path, dumps, suffix):
    where = f"{suffix.lower()}/{suffix}/epoch_0.{suffix.lower()}"
    path = tmp_path / Path(where).name
    shutil.copy(dumps / where, path)
    filesystem, _ = recorded(tmp_path)
    data = open_source(path.name, Asked(filesystem=filesystem))
    os.utime(path, ns=(0, 0))
    (chunk, *_) = data.plan()
    with pytest.raises(DataError, match=rf"recorded://{path.name}.*it was written over"):
        list(data.read(chunk))


def test_a_file_that_is_written_over_while_a_row_group_is_read(tmp_path):
    path = tmp_path / "a.parquet"
    wide(path)
    filesystem, reads = recorded(tmp_path)
    data = open_source("a.parquet", Asked(filesystem=filesystem))
    reads.before = lambda *_: os.utime(path, ns=(0, 0))
    with pytest.raises(DataError, match=r"row group 0, row 1000: .* it was written over while"):
        list(data.read(data.plan()[0]))


def test_what_looks_damaged_may_have_been_written_over(tmp_path):
    path = tmp_path / "a.parquet"
    wide(path)
    filesystem, reads = recorded(tmp_path)
    data = open_source("a.parquet", Asked(filesystem=filesystem))
    reads.before = lambda *_: path.write_bytes(bytes(path.stat().st_size))
    with pytest.raises(DataError, match=r"row group 0, row 0: .* it was written over while"):
        list(data.read(data.plan()[0]))


def test_a_file_that_is_cut_is_an_error(tmp_path):
    path = tmp_path / "a.parquet"
    wide(path)
    filesystem, reads = recorded(tmp_path)
    data = open_source("a.parquet", Asked(filesystem=filesystem))

    def cut(name, start, stop):
        os.truncate(path, start + 10)

    reads.before = cut
    with pytest.raises(DataError, match=r"row group 0, row 0: cannot be read: it ends at byte"):
        list(data.read(data.plan()[0]))


@pytest.mark.parametrize("size", [0, 3, 8, 11, 40, 5000])
def test_what_is_no_parquet_is_refused_as_on_this_machine(tmp_path, size):
    wide(tmp_path / "whole.parquet", n=100)
    data = (tmp_path / "whole.parquet").read_bytes()
    (tmp_path / "a.parquet").write_bytes(data[:size])
    with pytest.raises(DataError, match=r"recorded://a\.parquet: cannot be read"):
        fastdiv.analyze("a.parquet", filesystem=recorded(tmp_path)[0])
    trailer = (2**31).to_bytes(4, "little") + b"PAR1"
    (tmp_path / "a.parquet").write_bytes(b"PAR1" + b"x" * size + trailer)
    with pytest.raises(DataError, match=r"recorded://a\.parquet: cannot be read"):
        fastdiv.analyze("a.parquet", filesystem=recorded(tmp_path)[0])


def test_damaged_files_are_refused_or_read_as_on_this_machine(tmp_path):
    path = tmp_path / "a.parquet"
    wide(path, n=300, group=100, compression="snappy")
    whole = path.read_bytes()
    rng = np.random.default_rng(1)

    def outcome(source, filesystem=None):
        try:
            run = fastdiv.analyze(source, filesystem=filesystem, id="id", kind="logits")
        except (DataError, UsageError) as error:
            return str(error).replace(str(path), "FILE").replace("recorded://a.parquet", "FILE")
        return [to_bytes(run.epochs), to_bytes(run.classes)]

    for _ in range(60):
        data = bytearray(whole)
        for _ in range(3):
            data[rng.integers(len(data))] = rng.integers(256)
        path.write_bytes(data)
        local, remote = outcome(str(path)), outcome("a.parquet", recorded(tmp_path)[0])
        if isinstance(local, list) or isinstance(remote, list):
            assert local == remote


# -- later -------------------------------------------------------------------------------------


def test_an_epoch_is_read_again(tmp_path, dump):
    write_files(tmp_path, dump)
    filesystem, reads = recorded(tmp_path)
    run = fastdiv.analyze("*.parquet", filesystem=filesystem)
    wanted = fastdiv.reread(tmp_path, fastdiv.analyze(tmp_path), 7, curves="all")
    reads.ranges.clear()
    found = fastdiv.reread("*.parquet", run, 7, curves="all", filesystem=filesystem)
    assert found.classwise.equals(wanted.classwise)
    assert found.ranking.equals(wanted.ranking)
    assert reads.ranges


def test_links_are_read_from_afar_only_where_they_are_asked_for(tmp_path):
    dump = make(epochs=(0, 1), n=30)
    for epoch, rows in dump.items():
        urls = [f"https://example.org/{i}.png" for i in rows.ids.tolist()]
        write(table(rows, url=urls), tmp_path / f"epoch={epoch}.parquet")
    filesystem, reads = recorded(tmp_path)
    run = fastdiv.analyze("*.parquet", filesystem=filesystem, output=tmp_path / "run")
    some = dump[0].ids[:4].tolist()
    reads.ranges.clear()
    assert links(run, run.split(), some) == {}
    assert not reads.ranges
    wanted = {str(i): f"https://example.org/{i}.png" for i in some}
    assert links(run, run.split(), some, "url") == wanted
    saved = fastdiv.load(tmp_path / "run")  # which does not know where to look
    with pytest.raises(UsageError, match=r"recorded://epoch=0\.parquet is not there any more"):
        links(saved, saved.split(), some, "url")
    saved.filesystem = filesystem
    assert links(saved, saved.split(), some, "url") == wanted
    os.utime(tmp_path / "epoch=0.parquet", ns=(0, 0))


def test_convert_reads_from_afar(tmp_path, dump):
    write_files(tmp_path / "in", dump)
    fastdiv.convert(tmp_path / "in", tmp_path / "wanted")
    fastdiv.convert("in", tmp_path / "out", filesystem=recorded(tmp_path)[0])
    for path in (tmp_path / "wanted").iterdir():
        assert (tmp_path / "out" / path.name).read_bytes() == path.read_bytes()


def test_nothing_is_written_where_a_uri_points(tmp_path, dump, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_files(tmp_path / "in", dump)
    for call in (fastdiv.convert, fastdiv.analyze):
        with pytest.raises(UsageError, match="s3://bucket/x: results are written to this machine"):
            call("in", output="s3://bucket/x")
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


# -- the parts ---------------------------------------------------------------------------------


class Bytes:
    """Bytes that are read as a file is."""

    def __init__(self, data):
        self.data = data
        self.reads = []

    def read(self, start, stop):
        self.reads.append((start, stop))
        return self.data[start:stop]


@pytest.mark.parametrize(
    ("spans", "wanted"),
    [
        ([(0, 10)], [(0, 10)]),
        ([(0, 10), (14, 20)], [(0, 20)]),
        ([(14, 20), (0, 10)], [(0, 20)]),
        ([(0, 10), (16, 20)], [(0, 10), (16, 20)]),
        ([(0, 300)], [(0, 100), (100, 200), (200, 300)]),
        ([(0, 101)], [(0, 50), (50, 101)]),
        ([(0, 60), (60, 120), (300, 301)], [(0, 60), (60, 120), (300, 301)]),
        ([(0, 20), (5, 10)], [(0, 20)]),
    ],
)
def test_parts_make_blocks(spans, wanted, monkeypatch):
    monkeypatch.setattr(fetch, "HOLE_BYTES", 5)
    monkeypatch.setattr(fetch, "BLOCK_BYTES", 100)
    assert [(b.start, b.stop) for b in blocks_of(Bytes(b""), spans)] == wanted


def test_whatever_is_asked_for_is_given(monkeypatch):
    monkeypatch.setattr(fetch, "HOLE_BYTES", 30)
    monkeypatch.setattr(fetch, "BLOCK_BYTES", 100)
    rng = np.random.default_rng(0)
    data = rng.bytes(3000)
    for _ in range(50):
        ends = np.sort(rng.choice(3000, 6, replace=False)).tolist()
        spans = list(zip(ends[::2], ends[1::2], strict=True))
        some = Fetch(Bytes(data), spans, Transfers(300))
        some.ahead()
        for i in rng.permutation(len(some.parts)):
            part = some.parts[i]
            at = 0
            while at < len(part):
                n = int(rng.integers(1, 150))
                assert part[at : at + n].tobytes() == data[part.start + at : part.stop][:n]
                at += n
        for _ in range(20):  # again, and what is in no part
            start, stop = np.sort(rng.integers(0, 3001, 2)).tolist()
            assert some.bytes(start, stop).tobytes() == data[start:stop]
        some.close()


def test_a_stream_is_a_file(monkeypatch):
    from fastdiv.sources.files import stream

    monkeypatch.setattr(stream, "FIRST_BYTES", 10)
    monkeypatch.setattr(stream, "BLOCK_BYTES", 100)
    rng = np.random.default_rng(0)
    data = rng.bytes(3000)
    for _ in range(30):
        file = Stream(Bytes(data), len(data), Transfers(300))
        at = 0
        for _ in range(60):
            if rng.random() < 0.2:
                at = int(rng.integers(0, 3000))
                assert file.seek(at) == at
            n = int(rng.integers(0, 300))
            assert file.read(n) == data[at : at + n]
            at = min(3000, at + n)
            assert file.tell() == at
        assert file.read() == data[at:]
        assert file.read(5) == b""
        file.close()


def test_no_more_is_held_than_there_is_room_for():
    class Slow(Bytes):
        def read(self, start, stop):
            started.append((start, stop))
            gate.wait(10)
            return super().read(start, stop)

    gate, started = threading.Event(), []
    some = Transfers(budget=30)
    file = Slow(bytes(100))
    blocks = [Block(file, i, i + 10) for i in range(0, 100, 10)]
    some.ahead(blocks)
    assert not some.hungry
    for _ in range(100):
        if len(started) == 3:
            break
        time.sleep(0.01)
    time.sleep(0.02)
    assert sorted(started) == [(0, 10), (10, 20), (20, 30)]
    gate.set()
    assert some.take(blocks[7]) == bytes(10)  # by whoever needs it
    for block in blocks:
        some.take(block)
        some.release([block])
    assert some.hungry
    assert sorted(started) == [(i, i + 10) for i in range(0, 100, 10)]  # each once


@pytest.mark.parametrize(
    ("uri", "shown", "path"),
    [
        ("s3://bucket/a//b/?region=x", "s3://bucket/a/b?region=x", "bucket/a/b"),
        ("S3://key:secret@b/a b%20?region=x&scheme=http",
         "s3://b/a b%20?region=x&scheme=http", "b/a b%20"),
        ("gs://bucket/x.csv.gz", "gs://bucket/x.csv.gz", "bucket/x.csv.gz"),
        ("gcs://bucket/é.parquet", "gcs://bucket/é.parquet", "bucket/é.parquet"),
        ("abfs://c:pass@a.dfs.core.windows.net/x", "abfs://c@a.dfs.core.windows.net/x", "c/x"),
    ],
)  # fmt: skip
def test_names_of_uris_tell_no_secrets(uri, shown, path):
    places = Places()
    assert places.name(uri) == shown
    assert places.name(shown) == shown
    assert places.at(shown).path == path
    assert "secret" not in shown


# -- S3 itself ---------------------------------------------------------------------------------


@pytest.fixture
def keys(monkeypatch):
    """Credentials that the server takes, and none of whoever runs this."""
    for name in [n for n in os.environ if n.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


def objects_of(folder, bucket):
    return {
        f"{bucket}/{path.relative_to(folder)}": path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_s3_from_end_to_end(tree, cli, keys):
    pytest.importorskip("pyarrow._s3fs")
    wanted = fastdiv.analyze(tree / "dump")
    with s3_server(objects_of(tree, "bucket")) as (server, query):
        for path in ("dump", "dump/split=*/*/*.parquet", "**/part-*.parquet"):
            run = fastdiv.analyze(f"s3://bucket/{path}{query}")
            assert_same(run, wanted)
        parts = run.summary["dump"]["parts"]
        name = f"s3://bucket/dump/split=train/epoch=2/part-0.parquet{query}"
        assert parts[0]["path"] == name
        server.asked.clear()
        done = cli("analyze", f"s3://bucket/dump/split=val{query}", "-o", tree / "run", "--json")
        assert done.code == 0, done.err
        assert json.loads(done.out)["dump"]["parts"][0]["path"].startswith("s3://bucket/dump/")
        gets = [what for method, what, _ in server.asked if method == "GET"]
        assert len(gets) <= 3 * 2 + 2 * 3  # footers and row groups, and first rows of two
        assert len([1 for method, _, _ in server.asked if method == "LIST"]) <= 2
        done = cli("inspect", f"s3://bucket/dump/split=val{query}")
        assert done.code == 0, done.err
        key = "bucket/dump/split=val/epoch=7/part-0.parquet"
        server.objects[key] = server.objects[key][:-1]
        done = cli("analyze", f"s3://bucket/dump/split=val{query}")
        assert done.code == 2
        assert done.err.startswith(f"error: s3://{key}{query}: cannot be read as Parquet: ")
        del server.objects[key]
        done = cli("analyze", f"s3://{key}{query}")
        assert done.err == f"error: s3://{key}{query}: no such file or directory\n"


def test_an_object_of_the_same_size_that_was_replaced_is_seen(tree, keys):
    pytest.importorskip("pyarrow._s3fs")
    key = "bucket/dump/split=val/epoch=7/part-0.parquet"
    with s3_server(objects_of(tree, "bucket")) as (server, query):
        data = open_source(f"s3://{key}{query}", Asked())
        other = bytearray(server.objects[key])
        other[50] ^= 1
        server.objects[key] = bytes(other)
        with pytest.raises(DataError, match=r"part-0\.parquet\?.* it was written over"):
            list(data.read(data.plan()[0]))


def test_whoever_has_no_credentials_is_told_so(tree, keys, monkeypatch, cli):
    pytest.importorskip("pyarrow._s3fs")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "another")
    with s3_server(objects_of(tree, "bucket")) as (_, query):
        done = cli("analyze", f"s3://bucket/dump{query}")
        assert done.code == 2
        assert done.err.startswith(f"error: s3://bucket/dump{query}: cannot be reached: ")
        assert "give credentials in the environment (AWS_ACCESS_KEY_ID and " in done.err
        assert done.err.count("\n") == 1

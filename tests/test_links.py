"""Links to samples: which texts are addresses, and which sample has which."""

import json
import shutil
import uuid
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from dumps import arrays, make, table, whole, write

import fastdiv
from fastdiv.errors import UsageError
from fastdiv.rereading.addresses import address, address_of_id
from fastdiv.rereading.links import link_column, links
from fastdiv.scan import Scan
from fastdiv.sources.parquet import ParquetContainer


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("https://example.org/a.png", "https://example.org/a.png"),
        ("HTTP://example.org", "HTTP://example.org"),
        ("ftp://example.org/x", "ftp://example.org/x"),
        (" https://example.org/a b.png ", "https://example.org/a%20b.png"),
        ("https://a.org/?q=1&r=%20#x", "https://a.org/?q=1&r=%20#x"),
        ("https://a.org/<b>\"'`", "https://a.org/%3Cb%3E%22%27%60"),
        ("file:///data/a.png", "file:///data/a.png"),
        ("file:/data/a.png", "file:/data/a.png"),
        ("file://localhost/a.png", "file://localhost/a.png"),
        ("/data/a b#1?.png", "file:///data/a%20b%231%3F.png"),
        ("/100%/é.png", "file:///100%25/%C3%A9.png"),
        ("C:\\images\\1.png", "file:///C:/images/1.png"),
        ("images/1.png", "images/1.png"),
        ("images\\1.png", "images/1.png"),
        ("./1.png", "./1.png"),
        ("a b/<script>.png", "a%20b/%3Cscript%3E.png"),
        ("a/javascript:alert(1)", "a/javascript%3Aalert%281%29"),
        ("&#106;avascript", "%26%23106%3Bavascript"),
    ],
)
def test_what_is_an_address(text, wanted):
    assert address(text) == wanted


@pytest.mark.parametrize(
    "text",
    [
        "javascript:alert(1)", "JavaScript:alert(1)", " javascript:alert(1)",
        "java\tscript:alert(1)", "java\nscript:alert(1)", "\x01javascript:alert(1)",
        "\tjavascript:alert(1)", "\njavascript:alert(1)", "\u00a0javascript:alert(1)",
        "\u2028javascript:alert(1)", "\ufeffjavascript:alert(1)", "javascript\x00:alert(1)",
        "data:text/html,<script>alert(1)</script>", "vbscript:x", "blob:https://a.org/1",
        "view-source:https://a.org", "mailto:a@b.org", "about:blank", "x:y", "feed:javascript:1",
        "https://a.org/\x07", "https://a.org/\u202ex", "https:", "https:///x", "http:a.org",
        "http:\\\\a.org", "https://a.org\\@b.org", "https://[::1", "file://server/share", "file:////server/share",
        "file://localhost//server/share",
        "file:x.png", "//server/share", "\\\\server\\share", "/\\server/x", "\\/server/x",
        "", "   ", "https://a.org/" + "x" * 3000,
    ],
)  # fmt: skip
def test_what_is_no_address(text):
    assert address(text) is None
    assert address_of_id(text) is None


def test_relative_paths_are_those_of_files_that_are_there(tmp_path):
    write(pa.table({"x": [1]}), tmp_path / "there" / "a b.parquet")
    folders = [str(tmp_path / "not"), str(tmp_path)]
    wanted = (tmp_path / "there" / "a b.parquet").as_uri()
    assert address("there/a b.parquet", folders) == wanted
    assert address("there/b.parquet", folders) == "there/b.parquet"
    assert address_of_id("a b.parquet", [str(tmp_path / "there")]) == wanted


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("https://a.org/1", "https://a.org/1"),
        ("val/n0144/ILSVRC_1.JPEG", "val/n0144/ILSVRC_1.JPEG"),
        ("/data/1.wav", "file:///data/1.wav"),
        ("1.png", None),  # where it lies is unknown
        ("question/12", None),
        ("12", None),
        ("3/4 of all.", None),
        ("a sentence. Another", None),
    ],
)
def test_which_ids_are_addresses(text, wanted):
    assert address_of_id(text) == wanted


# -- by the dump -------------------------------------------------------------------------------


def url_of(i):
    return f"https://example.org/{i}.png"


def wanted_of(ids):
    return {str(i): url_of(i) for i in ids}


def write_epochs(folder, dump, name="url", **more):
    """Write a file for each epoch with a column of addresses."""
    for epoch, rows in dump.items():
        urls = [url_of(i) for i in rows.ids.tolist()]
        write(table(rows, **{name: urls}, **more), Path(folder) / f"epoch={epoch}.parquet")
    return folder


def test_addresses_are_found_by_id_in_one_epoch(tmp_path, monkeypatch):
    dump = make(n=50)
    dump[1], dump[2] = dump[1].shuffled(1), dump[2].shuffled(2)
    run = fastdiv.analyze(write_epochs(tmp_path / "dump", dump))
    read = []
    original = ParquetContainer.read

    def spied(self, group, columns, rows):
        read.append((Path(self.path).name, list(columns)))
        return original(self, group, columns, rows)

    monkeypatch.setattr(ParquetContainer, "read", spied)
    some = dump[0].ids[[3, 7, 20]].tolist()
    assert links(run, run.split(), [*some, "no such", 10**19, 10**30, -5]) == wanted_of(some)
    assert len({name for name, _ in read}) == 3, "one does not exist: all are looked through"
    read.clear()
    assert links(run, run.split(), some) == wanted_of(some)
    assert read == [("epoch=0.parquet", ["url", "sample_id"])]
    run.save(tmp_path / "run")
    again = fastdiv.load(tmp_path / "run")
    assert links(again, again.split(), some) == wanted_of(some)
    assert link_column(again) == "url"


def test_samples_of_other_epochs_are_found_too(tmp_path):
    dump = make(n=50)
    dump[0], dump[1] = dump[0].take(np.arange(40)), dump[1].take(np.arange(45))
    run = fastdiv.analyze(write_epochs(tmp_path / "dump", dump))
    ids = dump[2].ids.tolist()
    assert links(run, run.split(), ids) == wanted_of(ids)
    (tmp_path / "dump" / "epoch=2.parquet").unlink()
    assert links(run, run.split(), ids) == wanted_of(dump[1].ids.tolist())


@pytest.mark.parametrize("layout", ["files", "column", "names"])
def test_addresses_are_found_by_position(tmp_path, layout):
    dump = make(n=30)
    dump[0] = dump[0].take(np.arange(25))
    for rows in dump.values():
        rows.ids = np.arange(len(rows))
    if layout == "files":  # two files an epoch
        for epoch, rows in dump.items():
            for part in (0, 1):
                some = rows.take(np.arange(len(rows))[part * 12 : 12 + part * 100])
                urls = [url_of(i) for i in some.ids.tolist()]
                data = table(some, url=urls, sample_id=None)
                write(data, tmp_path / "dump" / f"epoch={epoch}" / f"part-{part}.parquet")
    else:
        tables = [
            table(rows, url=[url_of(i) for i in rows.ids.tolist()], sample_id=None,
                  epoch=epoch if layout == "column" else f"checkpoint {'abc'[epoch]}")
            for epoch, rows in dump.items()
        ]  # fmt: skip
        order = np.random.default_rng(0).permutation(85)
        order = np.concatenate([np.sort(order[:40]), np.sort(order[40:])])
        data = pa.concat_tables(tables)
        if layout == "column":  # rows of the epochs alternate
            data = data.take(pa.array(np.argsort(np.arange(85) % 3, kind="stable")))
        write(data, tmp_path / "dump" / "all.parquet", row_group_size=10)
    run = fastdiv.analyze(tmp_path / "dump")
    view = run.split()
    assert run.summary["splits"][0]["ids"] == "position"
    found = links(run, view, range(0, 30, 4))
    if layout == "column":
        # A sample is the k-th row of each epoch, whatever the rows hold: those of the largest.
        data = pq.read_table(tmp_path / "dump" / "all.parquet")
        rows = data.filter(pa.compute.equal(data["epoch"], 1))["url"].to_pylist()
        assert found == {str(i): rows[i] for i in range(0, 30, 4)}
    else:
        assert found == wanted_of(range(0, 30, 4))


def test_by_position_a_missing_file_leaves_no_address(tmp_path):
    dump = make((0,), n=30)
    for part, some in enumerate((slice(0, 12), slice(12, 30))):
        rows = dump[0].take(some)
        write(table(rows, url=[url_of(i) for i in rows.ids.tolist()], sample_id=None),
              tmp_path / "dump" / f"part-{part}.parquet")  # fmt: skip
    run = fastdiv.analyze(tmp_path / "dump")
    assert len(links(run, run.split(), [13])) == 1
    (tmp_path / "dump" / "part-0.parquet").unlink()
    assert links(run, run.split(), [13]) == {}
    with pytest.raises(UsageError, match=r"part-0\.parquet is not there any more"):
        links(run, run.split(), [13], "url")


def test_splits_have_their_own_samples(tmp_path):
    parts = []
    for name, seed in (("train", 0), ("val", 1)):
        for epoch, rows in make((0, 1), seed=seed).items():
            rows.ids = np.arange(len(rows))
            urls = [f"https://{name}.org/{i}" for i in rows.ids.tolist()]
            parts.append(table(rows, url=urls, split=name, epoch=epoch))
            write(table(rows, url=urls), tmp_path / name / f"epoch={epoch}.parquet")
    write(pa.concat_tables(parts), tmp_path / "all" / "all.parquet")
    by_path = fastdiv.analyze({name: tmp_path / name for name in ("train", "val")})
    for run in (fastdiv.analyze(tmp_path / "all"), by_path):
        for name in ("train", "val"):
            found = links(run, run.split(name), [5])
            assert found == {"5": f"https://{name}.org/5"}


def test_ids_of_every_type(tmp_path):
    dump = make((0,), n=8)
    uuids = [uuid.UUID(int=i) for i in range(8)]
    kinds = {
        "text": ([f"id {i}" for i in range(8)], [f"id {i}" for i in range(8)]),
        "bytes": ([bytes([i, 255]) for i in range(8)], [bytes([i, 255]).hex() for i in range(8)]),
        "large": (
            np.arange(2**63, 2**63 + 8, dtype=np.uint64), [str(2**63 + i) for i in range(8)]
        ),
        "negative": (np.arange(-8, 0), list(range(-8, 0))),
        "uuid": (
            pa.array([u.bytes for u in uuids], pa.uuid()) if hasattr(pa, "uuid") else None,
            [str(u) for u in uuids],
        ),
    }  # fmt: skip
    for name, (ids, shown) in kinds.items():
        if ids is None:
            continue
        urls = [url_of(i) for i in range(8)]
        path = write(table(dump[0], sample_id=ids, url=urls), tmp_path / name / "epoch=0.parquet")
        run = fastdiv.analyze(path)
        assert links(run, run.split(), shown) == {
            str(i): url for i, url in zip(shown, urls, strict=True)
        }, name


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "arrow", "npz"])
def test_dumps_of_every_format(tmp_path, suffix):
    dump = make((0,), n=12)
    urls = [url_of(i) for i in dump[0].ids.tolist()]
    path = tmp_path / f"epoch_0.{suffix}"
    if suffix == "csv":
        data = table(dump[0], "wide0", url=urls)
        pyarrow.csv.write_csv(data, tmp_path / "x")
        path.write_bytes(b"a line above\n" + (tmp_path / "x").read_bytes())
        run = fastdiv.analyze(path, skip_lines=1)
    elif suffix == "jsonl":
        path.write_text(
            "".join(json.dumps(row) + "\n" for row in table(dump[0], url=urls).to_pylist())
        )
        run = fastdiv.analyze(path)
    elif suffix == "arrow":
        data = table(dump[0], url=urls)
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, data.schema) as writer:
            writer.write_table(data)
        run = fastdiv.analyze(path)
    else:
        x, y, ids = dump[0].arrays()
        np.savez(path, logits=x, label=y, sample_id=ids, url=np.array(urls))
        run = fastdiv.analyze(path)
    some = dump[0].ids[[1, 5]].tolist()
    assert links(run, run.split(), some) == wanted_of(some)


def test_which_column_is_taken(tmp_path):
    dump = make((0,), n=6)
    more = {
        "path": [f"/data/{i}.png" for i in range(6)],
        "Image URL": [f"https://a.org/{i}" for i in range(6)],
        "file": np.arange(6),  # no text
        "page": [f"https://b.org/{i}" for i in range(6)],
    }
    run = fastdiv.analyze(write(table(dump[0], **more), tmp_path / "a" / "epoch=0.parquet"))
    one = dump[0].ids[2]
    assert link_column(run) == "Image URL"
    assert links(run, run.split(), [one]) == {str(one): "https://a.org/2"}
    assert links(run, run.split(), [one], "page") == {str(one): "https://b.org/2"}
    assert links(run, run.split(), [one], "path") == {str(one): "file:///data/2.png"}
    for column in ("file", "none"):
        with pytest.raises(UsageError, match=f"no column '{column}' of text for links; there are"):
            links(run, run.split(), [one], column)
    nested = [{"url": f"https://c.org/{i}"} for i in range(6)]
    run = fastdiv.analyze(write(table(dump[0], meta=nested), tmp_path / "b" / "epoch=0.parquet"))
    assert links(run, run.split(), [one]) == {str(one): "https://c.org/2"}


def test_what_is_no_address_and_what_is_null_stays_text(tmp_path):
    dump = make((0, 1), n=4)
    urls = ["javascript:alert(1)", None, "data:text/html,x", "https://a.org/3"]
    for epoch, rows in dump.items():
        write(table(rows, url=urls), tmp_path / "dump" / f"epoch={epoch}.parquet")
    run = fastdiv.analyze(tmp_path / "dump")
    ids = dump[0].ids.tolist()
    assert links(run, run.split(), ids) == {str(ids[3]): "https://a.org/3"}


def test_ids_that_are_addresses_need_no_dump():
    dump = make((0, 1), n=3)
    ids = ["https://a.org/1", "img/2.png", "javascript:alert(1)//.png"]
    run = fastdiv.analyze(whole(dump, sample_id=ids))
    found = links(run, run.split(), ids)
    assert found == {"https://a.org/1": "https://a.org/1", "img/2.png": "img/2.png"}
    with pytest.raises(UsageError, match="the run was not made from files"):
        links(run, run.split(), ids, "url")


# -- where there is nothing --------------------------------------------------------------------


def test_runs_of_arrays_and_of_earlier_versions_have_no_dump():
    run = fastdiv.analyze(arrays(make()))
    assert link_column(run) is None
    assert links(run, run.split(), [1, 2]) == {}
    del run.summary["dump"]
    assert links(run, run.split(), [1, 2]) == {}
    with pytest.raises(UsageError, match="does not say which files"):
        link_column(run, "url")


def test_a_dump_that_is_gone_or_another_is_no_error_unless_asked_for(tmp_path):
    dump = make((0, 1))
    folder = write_epochs(tmp_path / "dump", dump)
    run = fastdiv.analyze(folder)
    some = dump[0].ids[:2].tolist()
    for epoch in (0, 1):
        (folder / f"epoch={epoch}.parquet").write_bytes(b"PAR1 something else")
    assert links(run, run.split(), some) == {}
    with pytest.raises(UsageError, match="not there any more, or not as it was"):
        links(run, run.split(), some, "url")
    shutil.rmtree(folder)
    assert links(run, run.split(), some) == {}
    with pytest.raises(UsageError, match=r"epoch=0\.parquet is not there any more"):
        links(run, run.split(), some, "url")


def test_a_damaged_dump_of_the_same_size_is_no_error_unless_asked_for(tmp_path):
    dump = make((0,))
    folder = write_epochs(tmp_path / "dump", dump)
    run = fastdiv.analyze(folder)
    path = folder / "epoch=0.parquet"
    path.write_bytes(b"x" * path.stat().st_size)
    assert links(run, run.split(), dump[0].ids[:2].tolist()) == {}
    with pytest.raises(fastdiv.DataError, match=r"epoch=0\.parquet"):
        links(run, run.split(), dump[0].ids[:2].tolist(), "url")


def test_the_summary_says_which_files_were_read(tmp_path):
    folder = write_epochs(tmp_path / "dump", make((0, 1, 2)))
    run = fastdiv.analyze(folder, epochs=[0, 2])
    dump = run.summary["dump"]
    assert [(Path(p["path"]).name, p["epoch"], p["split"]) for p in dump["parts"]] == [
        ("epoch=0.parquet", 0, None), ("epoch=2.parquet", 2, None),
    ]  # fmt: skip
    assert all(Path(p["path"]).stat().st_size == p["bytes"] for p in dump["parts"])
    assert dump["columns"] == {"id": "sample_id", "epoch": None, "split": None}


def test_a_file_that_is_taken_away_while_it_is_read_is_recorded_all_the_same(tmp_path, monkeypatch):
    path = tmp_path / "dump.parquet"
    write(table(make((0,), n=12)[0]), path)
    original = Scan.summary

    def summary(self):
        path.unlink()  # all is read by now
        return original(self)

    monkeypatch.setattr(Scan, "summary", summary)
    (part,) = fastdiv.analyze(path).summary["dump"]["parts"]
    assert part["path"] == str(path)
    assert part["bytes"] is None


def test_a_run_without_a_record_of_its_dump_has_no_links(tmp_path):
    dump = make((0,), n=12)
    run = fastdiv.analyze(write_epochs(tmp_path / "dump", dump))
    one = int(dump[0].ids[0])
    assert links(run, run.split(), [one]) == wanted_of([one])
    del run.summary["dump"]  # as versions before this record saved it
    assert links(run, run.split(), [one]) == {}
    with pytest.raises(UsageError, match="does not say which files"):
        links(run, run.split(), [one], "url")

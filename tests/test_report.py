"""What the report holds: its numbers, its texts, what it may load, and how it is written."""

import base64
import gzip
import hashlib
import json
import os
import re
import sys
from html import unescape

import numpy as np
import pyarrow as pa
import pytest
from dumps import Rows, arrays, make, table, whole

import fastdiv
from fastdiv.errors import UsageError
from fastdiv.render.report import build, contents, embed

pytest.importorskip("plotly")
pytest.importorskip("jinja2")

HOSTILE = [
    "<script>alert(1)</script>", "\"quo'ted\" & <b>", "x" * 10_000, "\u202emirror\u202c",
    "line\nbreak\r\ttab", "</script><img src=x onerror=alert(2)>", "{{ 7*7 }}", "=cmd|calc",
]  # fmt: skip


def parting(n=1500, c=4, epochs=(0, 1, 2, 3, 4), seed=1):
    """Return epochs of logits that learn and grow too sure, with some labels wrong."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, c, n)
    y = np.where(rng.random(n) < 0.06, rng.integers(0, c, n), truth)
    ids = rng.permutation(10 * n)[:n]
    z = rng.normal(0, 1, (n, c))
    made = {}
    for i, epoch in enumerate(epochs):
        x = z + rng.normal(0, 0.2, (n, c))
        x[np.arange(n), truth] += 1.0 + 0.7 * i
        made[epoch] = Rows((x * (1 + i)).astype("f4"), y, ids)
    return made


def report_of(run, tmp_path, **options):
    """Write a report; return its text."""
    path = tmp_path / "report.html"
    run.report(path, **options)
    return path.read_text("utf-8")


def data_of(page):
    """Return what the page's script shows."""
    found = re.search(r'<script type="application/octet-stream" id="data">([^<]*)</script>', page)
    return json.loads(gzip.decompress(base64.b64decode(found[1])))


def parts_of(split):
    """Return the pictures and tables of a split by name."""
    return {p["name"]: p for s in split["sections"] for p in s["parts"] if "name" in p}


@pytest.fixture(scope="module")
def run():
    return fastdiv.analyze(arrays(parting()))


@pytest.fixture(scope="module")
def page(run, tmp_path_factory):
    return report_of(run, tmp_path_factory.mktemp("report"))


@pytest.fixture(scope="module")
def data(page):
    return data_of(page)


def test_every_pair_has_its_explanation_and_the_numbers_are_those_of_the_run(run, data):
    (split,) = data["splits"]
    view = run.split()
    stretches = [(s.epoch_from, s.epoch_to) for s in view.stretches()]
    pairs = [(p["from"], p["to"]) for p in split["pairs"]]
    assert pairs[: len(stretches)] == stretches
    assert set(pairs) == {*stretches, (0, 1), (1, 2), (2, 3), (3, 4)}
    assert [p["why"] for p in split["pairs"]][: len(stretches)] == [s.why for s in view.stretches()]
    assert split["pair"] == "{}→{}".format(*stretches[0])
    assert split["epoch"] == stretches[0][1]
    assert [e["epoch"] for e in split["epochs"]] == [0, 1, 2, 3, 4]
    assert split["accounts"] == {}
    logits = {e: rows.x.astype("f8") for e, rows in parting().items()}
    y = parting()[0].y
    losses = {
        e: np.log(np.exp(x - x.max(1, keepdims=True)).sum(1)) + x.max(1) - x[np.arange(len(y)), y]
        for e, x in logits.items()
    }
    for a, b in pairs:
        said = split["verdicts"][f"{a}→{b}"]
        assert said["delta_loss"] == pytest.approx(losses[b].mean() - losses[a].mean(), abs=1e-5)
        right = [(logits[e].argmax(1) == y).mean() for e in (a, b)]
        assert said["delta_accuracy"] == pytest.approx(right[1] - right[0], abs=1e-9)
        assert sum(row["nats"] for row in said["rows"]) == pytest.approx(said["delta_loss"])
        assert f"{a}→{b}" in split["causes"]["frames"]


def test_all_sections_are_there_in_their_order(data):
    (split,) = data["splits"]
    assert [s["id"] for s in split["sections"]] == [
        "cells", "flow", "classes", "reliability", "distributions", "refinement", "concentration",
        "confusions", "suspects", "moved", "dynamics", "epochs", "provenance",
    ]  # fmt: skip
    for part in parts_of(split).values():
        assert part["how"]
        frames = part["frames"].values()
        assert part["text"] or all(frame["text"] for frame in frames)
        if part["by"] is not None:
            assert frames


def test_two_classes_have_curves(tmp_path):
    run = fastdiv.analyze(arrays(parting(c=2)))
    (split,) = data_of(report_of(run, tmp_path))["splits"]
    (ranking,) = (s for s in split["sections"] if s["id"] == "ranking")
    assert len(ranking["parts"]) == 3
    assert ranking["beside"]


def test_a_comparison_that_is_asked_for_comes_first(run, tmp_path):
    data = data_of(report_of(run, tmp_path, compare=(3, 1)))
    (split,) = data["splits"]
    assert data["title"] == "Epoch 3 against epoch 1"
    assert (split["pair"], split["epoch"]) == ("3→1", 1)
    assert (split["pairs"][0]["from"], split["pairs"][0]["to"]) == (3, 1)
    assert [s["id"] for s in split["sections"]][:3] == ["moved", "classes", "cells"]
    assert next(iter(parts_of(split)["moved"]["frames"])) == "3→1"
    made = run.explain(3, 1)
    assert split["verdicts"]["3→1"]["delta_loss"] == made.delta_loss
    shaded = [s for s in data["picture"]["layout"]["shapes"] if s["type"] == "rect"]
    assert {(s["x0"], s["x1"]) for s in shaded} == {(3, 1)}


def test_many_samples_leave_the_marked_pairs_explained_and_say_so(run, tmp_path, monkeypatch):
    monkeypatch.setattr(contents, "EXPLAINED_ROWS", 0)
    (split,) = data_of(report_of(run, tmp_path))["splits"]
    marked = {p["key"] for p in split["pairs"] if p["why"]}
    others = {p["key"] for p in split["pairs"]} - marked
    assert split["verdicts"].keys() == marked == split["causes"]["frames"].keys()
    assert split["accounts"].keys() == others
    row = run.transition(None, 0, 1)
    account = split["accounts"]["0→1"]
    assert f"{abs(row['delta_loss']):.4f} nats" in account["headline"]
    assert account["command"] == "fastdiv explain RUN 0 1"
    assert "1,500 samples" in account["why"]


def test_many_epochs_are_thinned_and_those_that_matter_are_kept(run, tmp_path, monkeypatch):
    monkeypatch.setattr(contents, "MOST_EPOCHS", 2)
    data = data_of(report_of(run, tmp_path, compare=(1, 2)))
    (split,) = data["splits"]
    ends = {e for p in split["pairs"] for e in (p["from"], p["to"])}
    assert {0, 1, 2, 4} <= {e["epoch"] for e in split["epochs"]} == ends


def test_one_epoch_is_told_by_itself(tmp_path):
    rows = parting(epochs=(7,))
    run = fastdiv.analyze(arrays(rows))
    data = data_of(report_of(run, tmp_path))
    (split,) = data["splits"]
    assert (split["pair"], split["pairs"], split["epoch"], split["causes"]) == (None, [], 7, None)
    assert not {"cells", "flow", "classes", "moved"} & {s["id"] for s in split["sections"]}
    assert "one epoch" in data["title"]
    said = "\n".join(split["alone"])
    x, y = rows[7].x.astype("f8"), rows[7].y
    p = np.exp(x - x.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    loss = -np.log(p[np.arange(len(y)), y])
    share = np.bincount(y) / len(y)
    worst = np.sort(loss)[::-1][:15]
    assert f"Loss {loss.mean():.4f} nats" in said
    assert f"accuracy {(p.argmax(1) == y).mean():.2%} of 1,500" in said
    assert f"{-(share * np.log(share)).sum():.4f} nats" in said
    assert f"The worst 15 samples carry {worst.sum() / loss.sum():.0%}" in said
    assert "temperature" in said
    assert "calibration error" in said


def test_infinite_losses_and_invalid_rows_leave_strict_json(tmp_path):
    dump = parting(epochs=(0, 1))
    for rows in dump.values():
        rows.x[3] = np.nan
        rows.x[5, rows.y[5]] = -np.inf
    run = fastdiv.analyze(arrays(dump))
    page = report_of(run, tmp_path)
    found = re.search(r'id="data">([^<]*)<', page)[1]
    text = gzip.decompress(base64.b64decode(found)).decode()

    def refuse(name):
        raise AssertionError(f"{name} is no JSON")

    data = json.loads(text, parse_constant=refuse)
    assert "2 rows left out as invalid" in data["read"]
    assert parts_of(data["splits"][0])["worst"]["frames"]["1"]["values"]["loss"][0] == "inf"


def test_an_infinite_loss_of_one_epoch_is_said(tmp_path):
    dump = parting(epochs=(0,))
    dump[0].x[5, dump[0].y[5]] = -np.inf
    (split,) = data_of(report_of(fastdiv.analyze(arrays(dump)), tmp_path))["splits"]
    assert ", without 1 sample whose loss is infinite;" in split["alone"][0]


def nothing_valid():
    dump = parting(n=30, epochs=(0, 1))
    for rows in dump.values():
        rows.x[:] = np.nan
    return arrays(dump)


@pytest.mark.parametrize("epochs", [1, 2])
def test_nothing_valid_is_said(tmp_path, epochs):
    some = dict(list(nothing_valid().items())[:epochs])
    data = data_of(report_of(fastdiv.analyze(some, kind="logits"), tmp_path))
    (split,) = data["splits"]
    said = json.dumps(split["alone"]) + json.dumps(split["verdicts"])
    assert re.search("No sample is valid|nothing to compare", said)
    assert data["picture"] is None


@pytest.mark.parametrize("scores", ["slim", "rolling"])
def test_scores_that_are_kept_in_part_are_enough(tmp_path, scores):
    run = fastdiv.analyze(arrays(parting()), scores=scores)
    (split,) = data_of(report_of(run, tmp_path))["splits"]
    kept = [3, 4] if scores == "rolling" else [0, 1, 2, 3, 4]
    assert [e["epoch"] for e in split["epochs"]] == kept
    assert len(parts_of(split)["epochs"]["values"]["epoch"]) == 5
    for part in parts_of(split).values():
        if part["by"] == "epoch":
            assert {int(key) for key in part["frames"]} <= set(kept)


def test_one_class_a_thousand_classes_and_negative_epochs(tmp_path):
    x = np.random.default_rng(0).normal(size=(20, 2)).astype("f4")
    one = fastdiv.analyze({e: (x * e, np.ones(20, int)) for e in (-2, -1)})
    (split,) = data_of(report_of(one, tmp_path))["splits"]
    assert [p["key"] for p in split["pairs"]] == ["-2→-1"]
    many = fastdiv.analyze(arrays(parting(n=1200, c=1000, epochs=(0, 1))))
    page = report_of(many, tmp_path)
    assert len(page) < 8_000_000
    values = parts_of(data_of(page)["splits"][0])["classes"]["frames"]["0→1"]["values"]
    assert len(values["class"]) > 600


def test_names_of_epochs_are_what_people_read(tmp_path):
    dump = parting(epochs=(0, 1))
    for epoch, name in ((0, "base"), (1, "fine tuned")):
        pa.parquet.write_table(table(dump[epoch]), tmp_path / f"{name}.parquet")
    paths = [tmp_path / "base.parquet", tmp_path / "fine tuned.parquet"]
    run = fastdiv.analyze(paths, epoch_per_path=True)
    data = data_of(report_of(run, tmp_path, compare=("base", "fine tuned")))
    assert data["title"] == "Epoch base against epoch fine tuned"
    assert data["splits"][0]["pairs"][0]["label"] == "base → fine tuned"


def test_very_long_names_are_cut_where_they_are_read(tmp_path, monkeypatch):
    monkeypatch.setattr(contents, "EXPLAINED_ROWS", 0)
    run = fastdiv.analyze({"y" * 10_000: whole(parting(n=200, epochs=(0, 1, 2)))})
    run.summary["epoch_names"] = {"1": "z" * 10_000, "2": "two\n\u202elines"}
    data = data_of(report_of(run, tmp_path, compare=(1, 2)))
    (split,) = data["splits"]
    cut = "z" * 59 + "…"
    assert data["title"] == f"Epoch {cut} against epoch two  lines"
    assert [e["label"] for e in split["epochs"]] == ["0", cut, "two  lines"]
    assert data["read"].startswith("y" * 59 + "…: 200 samples")
    assert split["name"] == "y" * 10_000
    command = split["accounts"]["0→1"]["command"]
    assert command == f"fastdiv explain RUN 0 {'z' * 10_000} --split {'y' * 10_000}"


def test_splits_come_as_asked(tmp_path):
    run = fastdiv.analyze({
        name: whole(parting(n=200, seed=seed))
        for seed, name in enumerate(("train", "val", "te & st"))
    })  # fmt: skip
    data = data_of(report_of(run, tmp_path))
    assert [s["name"] for s in data["splits"]] == ["te & st", "val"]
    assert data["splits"][data["split"]]["name"] == run.split().split == "val"
    asked = data_of(report_of(run, tmp_path, splits=["te & st", "train", "te & st"]))
    assert [s["name"] for s in asked["splits"]] == ["te & st", "train"]
    assert asked["split"] == 0
    with pytest.raises(UsageError, match="no split 'test'"):
        report_of(run, tmp_path, splits=["test"])
    with pytest.raises(UsageError, match="no split is named"):
        report_of(run, tmp_path, splits=[])


def test_a_comparison_is_of_the_splits_that_have_both_epochs(tmp_path):
    run = fastdiv.analyze({
        "test": whole(parting(n=200, epochs=(3, 4))),
        "val": whole(parting(n=200, seed=2)),
    })  # fmt: skip
    test, val = data_of(report_of(run, tmp_path, compare=(0, 3)))["splits"]
    assert (test["pair"], val["pair"]) == ("3→4", "0→3")
    assert test["sections"][0]["id"] == "cells"
    assert val["sections"][0]["id"] == "moved"


def test_a_command_that_is_advised_can_be_pasted(tmp_path, monkeypatch):
    monkeypatch.setattr(contents, "EXPLAINED_ROWS", 0)
    run = fastdiv.analyze({"a; b": whole(parting(n=200))})
    (split,) = data_of(report_of(run, tmp_path))["splits"]
    assert split["accounts"]["0→1"]["command"] == "fastdiv explain RUN 0 1 --split 'a; b'"


def test_hostile_names_are_text_wherever_they_stand(tmp_path):
    dump = parting(n=80, c=8, epochs=(0, 1))
    ids = [f"{HOSTILE[i % 8]}-{i}" for i in range(80)]
    run = fastdiv.analyze(whole(dump, sample_id=ids), class_names=HOSTILE)
    page = report_of(run, tmp_path)
    for name in (HOSTILE[0], HOSTILE[5], "<b>"):
        assert name not in page
    assert page.count("<script") == page.count("</script>") == 3
    assert "{{" not in re.sub(r"<script.*?</script>|<style.*?</style>", "", page, flags=re.S)
    ids_shown = parts_of(data_of(page)["splits"][0])["worst"]["frames"]["1"]["values"]["id"]
    assert set(ids_shown) <= set(ids)


def test_the_explanation_is_there_where_no_script_runs(run, page):
    plain = re.search(r"<noscript>(.*?)</noscript>", page, re.S)[1]
    found = [unescape(text) for text in re.findall(r"<pre>(.*?)</pre>", plain, re.S)]
    wanted = run.split().stretches()
    assert len(found) == len(wanted) > 0
    for text, stretch in zip(found, wanted, strict=True):
        made = run.explain(stretch.epoch_from, stretch.epoch_to)
        assert text == f"{made}\n({stretch.why})"


def scripts_of(page):
    """Return (attributes, text) of the scripts."""
    return re.findall(r"<script([^>]*)>(.*?)</script>", page, re.S)


def hash_of(text):
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def policy_of(page):
    """Return what the page may do, by directive."""
    said = unescape(re.search(r'Content-Security-Policy" content="([^"]*)"', page)[1])
    return {part.split()[0]: part.split()[1:] for part in said.split("; ")}


def test_only_the_scripts_of_the_page_may_run_and_nothing_is_loaded(page):
    policy = policy_of(page)
    assert policy["default-src"] == ["'none'"]
    assert policy["base-uri"] == policy["form-action"] == ["'none'"]
    held = {attributes.strip(): text for attributes, text in scripts_of(page)}
    plotly = held['type="application/octet-stream" id="plotly"']
    drawn = gzip.decompress(base64.b64decode(plotly)).decode()
    assert policy["script-src"] == [hash_of(held[""]), hash_of(drawn)]
    assert not any("unsafe" in source for source in policy["script-src"])
    (style,) = re.findall(r"<style>(.*?)</style>", page, re.S)
    assert policy["style-src-elem"] == [hash_of(style), hash_of("")]
    assert not re.search(r'(?:src|href)="(?:https?:)?//', page)
    assert len(page) < 8_000_000


def test_plotly_from_its_makers_is_checked_by_its_hash(run, tmp_path):
    from plotly.offline import get_plotlyjs, get_plotlyjs_version

    page = report_of(run, tmp_path, plotly="cdn")
    address = f"https://cdn.plot.ly/plotly-{get_plotlyjs_version()}.min.js"
    digest = hash_of(get_plotlyjs()).strip("'")
    wanted = f'src="{address}" integrity="{digest}" crossorigin="anonymous"'
    assert unescape(page).count(wanted) == 1
    assert policy_of(page)["script-src"][1] == address
    assert len(page) < 1_000_000
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_plotly_may_lie_beside_the_report(run, tmp_path):
    from plotly.offline import get_plotlyjs

    page = report_of(run, tmp_path, plotly="directory")
    assert '<script defer src="plotly.min.js"></script>' in page
    assert policy_of(page)["script-src"][1] == "'self'"
    assert (tmp_path / "plotly.min.js").read_text("utf-8") == get_plotlyjs()
    with pytest.raises(UsageError, match="cannot be 'web'"):
        report_of(run, tmp_path, plotly="web")


def test_the_same_run_makes_the_same_report(run, page, tmp_path):
    assert report_of(run, tmp_path) == page
    saved = tmp_path / "saved"
    run.save(saved)
    data, loaded = data_of(page), data_of(report_of(fastdiv.load(saved), tmp_path))
    assert loaded.pop("read") == f"{tmp_path.name}/saved · {data.pop('read')}"
    assert loaded == data


def test_what_is_interrupted_leaves_what_was_there(run, tmp_path, monkeypatch):
    path = tmp_path / "report.html"
    path.write_text("old")

    def fail(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(build.Path, "replace", fail)
    with pytest.raises(KeyboardInterrupt):
        run.report(path)
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]
    assert path.read_text() == "old"


def test_what_cannot_be_written_is_said_in_a_line(run, tmp_path):
    with pytest.raises(UsageError, match="is a directory: name a file"):
        run.report(tmp_path)
    with pytest.raises(UsageError, match="cannot be written: No such file"):
        run.report(tmp_path / "missing" / "report.html")


def test_a_name_may_be_as_long_as_names_can_be_and_a_link_stays_one(run, tmp_path):
    path = tmp_path / f"{'q' * 250}.html"
    run.report(path)
    link = tmp_path / "link.html"
    link.symlink_to(path.name)
    path.write_text("old")
    run.report(link)
    assert link.is_symlink()
    assert path.read_text("utf-8").startswith("<!doctype html>")


@pytest.mark.skipif(sys.platform == "win32", reason="no pipes with names there")
def test_what_is_no_file_is_left_alone(run, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UsageError, match="pipe is not a file: name one"):
        run.report(tmp_path / "pipe")
    assert (tmp_path / "pipe").is_fifo()


@pytest.mark.parametrize(
    ("ends", "said"),
    [
        ((0, 9), "no scores of epoch 9 are stored: there are 0, 1, 2, 3, 4"),
        ((2, 2), "two epochs to compare are one"),
        ((0, "best"), "no epoch is named 'best'"),
    ],
)
def test_epochs_that_are_not_there_are_named(run, tmp_path, ends, said):
    with pytest.raises(UsageError, match=said):
        run.report(tmp_path / "report.html", compare=ends)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("module", ["plotly.graph_objects", "jinja2"])
def test_what_is_not_installed_is_named(run, tmp_path, monkeypatch, module):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UsageError, match=r"pip install 'fastdiv\[report\]'"):
        run.report(tmp_path / "report.html")


def test_integers_that_a_page_would_round_are_text():
    made = embed.plain({"ids": [2**53, 2**53 + 1, -(2**60)], "x": (np.inf, -np.inf, np.nan, True)})
    assert made == {"ids": [2**53, str(2**53 + 1), str(-(2**60))], "x": ["inf", "-inf", None, True]}
    with pytest.raises(TypeError, match="no ndarray"):
        embed.plain({"x": np.zeros(1)})


def test_damaged_names_can_be_written(run, tmp_path):
    text = embed.packed({"name": "half of a pair: \ud800"})
    assert json.loads(gzip.decompress(base64.b64decode(text))) == {"name": "half of a pair: ?"}


def test_ids_lead_to_the_addresses_that_the_dump_has(tmp_path):
    dump = parting(n=60, epochs=(0, 1))
    urls = [f"https://example.org/{i}.png" for i in dump[0].ids]
    (tmp_path / "dump").mkdir()
    for epoch, rows in dump.items():
        pa.parquet.write_table(
            table(rows, url=urls), tmp_path / "dump" / f"preds_epoch_{epoch}.parquet"
        )
    run = fastdiv.analyze(tmp_path / "dump")
    (split,) = data_of(report_of(run, tmp_path))["splits"]
    shown = parts_of(split)["worst"]["frames"]["1"]["values"]["id"]
    assert split["links"].keys() >= {str(i) for i in shown}
    assert all(url == f"https://example.org/{i}.png" for i, url in split["links"].items())
    with pytest.raises(UsageError, match="'picture'"):
        report_of(run, tmp_path, links="picture")


def test_the_command_writes_the_report(run, tmp_path, cli):
    run.save(tmp_path / "run")
    path = tmp_path / "out.html"
    ended = cli("report", tmp_path / "run", "-o", path, "--compare", "1", "3")
    assert (ended.code, ended.err) == (0, "")
    assert re.fullmatch(rf"saved to {re.escape(str(path))} \(\d\.\d+ MB\)\n", ended.out)
    assert data_of(path.read_text("utf-8"))["splits"][0]["pair"] == "1→3"
    ended = cli("report", tmp_path / "run", "-o", path, "--plotly", "directory")
    assert ended.out.splitlines()[1] == f"keep {tmp_path / 'plotly.min.js'} beside it"
    assert cli("report", tmp_path / "run", "-o", path, "--quiet").out == ""


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--compare", "1", "77"), "no scores of epoch 77 are stored"),
        (("--split", "test"), "there is no split 'test'"),
        (("--plotly", "web"), "'web' is not one of"),
    ],
)
def test_the_command_fails_in_one_line(run, tmp_path, cli, options, said):
    run.save(tmp_path / "run")
    ended = cli("report", tmp_path / "run", "-o", tmp_path / "out.html", *options)
    assert (ended.code, ended.out) == (2, "")
    assert said in ended.err
    assert ended.err.count("\n") == 1
    assert not (tmp_path / "out.html").exists()


def test_the_page_is_plain_readable_script():
    for name in embed.SCRIPTS:
        text = embed.page_file(name)
        assert len(text.splitlines()) <= 400
        assert "innerHTML" not in text
        assert not re.search(r"\beval\(|new Function|document\.write|insertAdjacentHTML", text)
        assert "fetch(" not in text
        assert "XMLHttpRequest" not in text
    assert "{{" not in embed.script()


def test_a_small_dump_makes_a_report(tmp_path):
    run = fastdiv.analyze(arrays(make(epochs=(2, 7, 10))))
    assert data_of(report_of(run, tmp_path))["splits"][0]["pairs"]

"""The command line: what it prints, for people and for programs, and what it leaves alone."""

import io
import json
import re
import sys
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from dumps import arrays, as_kind, assert_same, make, table, whole, write, write_files

import fastdiv
from fastdiv.plan import human_bytes


@pytest.fixture
def folder(tmp_path):
    """Return a dump of 16 epochs whose lowest loss and highest accuracy are known."""
    dump = make(range(16), n=200)
    y = np.arange(200) % 3
    for epoch, rows in dump.items():
        rows.y, rows.x = y, np.zeros((200, 3), np.float32)
        wrong = np.arange(200) < (0 if epoch == 11 else 60)
        rows.x[np.arange(200), np.where(wrong, (y + 1) % 3, y)] = 2 + epoch / 100
        if epoch == 5:
            rows.x[wrong] /= 4  # wrong, and less sure of it: the lowest loss
        elif epoch == 11:
            rows.x[0, y[0]] = -500  # one wrong, and sure of it: the highest accuracy
    return write_files(tmp_path / "dump", dump)


# analyze --------------------------------------------------------------------------------------


def test_analyze_prints_what_people_look_for(folder, cli):
    run = fastdiv.analyze(folder)
    split = run.summary["splits"][0]
    assert (split["epoch_lowest_loss"], split["epoch_highest_accuracy"]) == (5, 11)
    ended = cli("analyze", folder)
    assert ended.code == 0
    lines = ended.out.splitlines()
    assert re.match(r"3,200 rows × 3 classes of logits in [\d.]+ s", lines[0])
    for role, words in {
        "predictions": "'logits'", "label": "'label'", "id": "'sample_id'", "kind": "logits:",
        "epoch": "file names",
    }.items():  # fmt: skip
        assert re.search(rf"^  {role} +.*{words}", ended.out, re.M), role
    header = next(line for line in lines if line.startswith("epoch "))
    assert header.split()[:3] == ["epoch", "loss", "accuracy"]
    rows = {row["epoch"]: row for row in run.epochs.to_pylist()}
    marks = {5: "▼", 11: "▲"}
    for epoch, mark in marks.items():
        (line,) = [line for line in lines if re.match(rf" *{epoch} .*{mark}", line)]
        for name in ("loss", "accuracy"):
            assert f"{rows[epoch][name]:.4f}" in line
    assert f"lowest loss {rows[5]['loss']:.4f} at epoch 5" in ended.out
    assert f"highest accuracy {rows[11]['accuracy']:.4f} at epoch 11" in ended.out
    pair = run.compare(5, 11).to_pylist()[0]
    sentence = " ".join(line.strip() for line in lines[lines.index(header) :])
    assert f"from epoch 5 to 11 the loss rose by {pair['delta_loss']:.4f} nats" in sentence
    assert f"accuracy rose by {100 * pair['delta_accuracy']:.2f} points" in sentence
    for cell, words in {"rr": "right → right", "wr": "wrong → right"}.items():
        (line,) = [line for line in lines if line.startswith(words)]
        assert f"{pair[cell]:,}" in line.split()
        assert f"{pair[f'delta_loss_{cell}']:+.5f}" in line
    assert re.search(r"^reading 3,200 rows", ended.err)


def test_the_same_epochs_agree(tmp_path, cli):
    dump = make((0, 1, 2))
    dump[2].x[np.arange(40), dump[2].y] += 50
    ended = cli("analyze", write_files(tmp_path, dump))
    assert re.search(
        r"^lowest loss \S+ and highest accuracy 1\.0000, both at epoch 2$", ended.out, re.M
    )


def test_long_runs_are_shortened_to_the_epochs_that_matter(folder, cli):
    def shown(out):
        table = out[out.index("\nepoch ") :].split("\n\n")[0].splitlines()[2:]
        return [int(word) for line in table if (word := line.split()[0]) != "⋮"], table

    epochs, lines = shown(cli("analyze", folder).out)
    assert {0, 5, 11, 15} <= set(epochs)
    assert epochs == sorted(epochs)
    assert len(epochs) < 16
    gaps = sum(b > a + 1 for a, b in pairwise(epochs))
    assert sum("⋮" in line for line in lines) == gaps > 0
    epochs, lines = shown(cli("analyze", folder, "--epochs", "3:12").out)
    assert epochs == list(range(3, 12))
    assert not any("⋮" in line for line in lines)


def test_json_on_stdout_is_nothing_but_json(folder, tmp_path, cli):
    out = tmp_path / "run"
    ended = cli("analyze", folder, "--json", "-o", out)
    assert ended.code == 0
    summary = json.loads(ended.out, parse_constant=pytest.fail)
    assert summary == json.loads((out / "summary.json").read_text())
    assert summary["schema_version"] == 1
    assert (summary["rows"], summary["classes"], summary["kind"]) == (3200, 3, "logits")
    assert summary["backend"]["name"] == "cpu"
    quiet = cli("analyze", folder, "--json", "--quiet")
    assert quiet.err == ""
    assert json.loads(quiet.out)["splits"] == summary["splits"]


def test_quiet_is_quiet(folder, tmp_path, cli):
    ended = cli("analyze", folder, "--quiet", "-o", tmp_path / "run")
    assert (ended.code, ended.out, ended.err) == (0, "", "")
    assert_same(fastdiv.load(tmp_path / "run"), fastdiv.analyze(folder))


def test_options_mean_what_they_mean_in_python(tmp_path, cli):
    probs = {e: as_kind(r, "probs") for e, r in make((0, 1, 2, 3)).items()}
    odd = whole(probs, name="logits").rename_columns(["key", "said", "out", "round"])
    odd = odd.append_column("fold", [["a", "b"] * 80])
    path = write(odd, tmp_path / "a.parquet")
    names = tmp_path / "names.txt"
    names.write_text("cat\ndog\nowl\n")
    options = {"id": "key", "label": "said", "predictions": "out", "epoch": "round",
               "split": "fold", "kind": "probs", "epochs": "0:4:2", "duplicates": "first",
               "threads": 3, "memory": "4GB", "scores": "rolling", "backend": "reference",
               "clip": 0.01}  # fmt: skip
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    for as_text in ("cat,dog,owl", names):
        arguments = [*words, "--class-names", as_text, "--strict", "-o", tmp_path / "run"]
        assert cli("analyze", path, *arguments, "--overwrite", "--quiet").code == 0
        wanted = fastdiv.analyze(path, class_names=["cat", "dog", "owl"], strict=True, **options)
        loaded = fastdiv.load(tmp_path / "run")
        assert_same(loaded, wanted)
        assert loaded.summary["options"] == wanted.summary["options"]
        assert loaded.summary["threads"] == 3
        assert loaded.summary["backend"]["name"] == "reference"
    again = cli("analyze", path, *words, "-o", tmp_path / "run")
    assert again.code == 2
    assert re.fullmatch(r"error: .*run is there already: [^\n]*--overwrite\n", again.err)


def test_splits_side_by_side(tmp_path, folder, cli):
    val = write_files(tmp_path / "b=c", make((0, 5), seed=3))
    ended = cli("analyze", f"train={folder}", f"val={val}")
    (header,) = [line for line in ended.out.splitlines() if line.startswith("epoch ")]
    words = ["train loss", "train accuracy", "val loss", "val accuracy"]
    assert all(word in header for word in words)
    assert "train: lowest loss" in ended.out
    assert "val: lowest loss" in ended.out
    assert cli("analyze", val, "--quiet").code == 0  # a path with a sign in it, not a split
    mixed = cli("analyze", f"train={folder}", val)
    assert mixed.code == 2
    assert "name all splits or none" in mixed.err


def test_nothing_is_cut_off_where_there_is_no_terminal(tmp_path, cli, monkeypatch):
    """Five splits with long names, a long path, names with brackets: all is there to be read."""
    monkeypatch.setenv("COLUMNS", "40")
    names = [f"evaluation_on_hospital_{k}" for k in range(5)]
    long = tmp_path / ("a" * 90) / ("b" * 90)
    dump = make((0, 1))
    dump[1].y[3] = 99
    sources = [f"{name}={write_files(long / name, dump)}" for name in names]
    ended = cli("analyze", *sources)
    assert "…" not in ended.out.replace("places …", "")
    row = next(line for line in ended.out.splitlines() if re.match(r" +0 ", line))
    assert len(re.findall(r"\d\.\d{4}", row)) == 15
    for name in names:
        assert f"{name} loss" in ended.out
    place = str(long / names[0] / "preds_epoch_001.parquet")
    assert f"{place}, row group 0, row 3" in ended.out  # on one line, to be copied and searched


def test_what_was_left_out_is_shown(tmp_path, cli):
    dump = {e: as_kind(r, "probs") for e, r in make((0, 1, 2)).items()}
    wrong = (dump[0].y[5] + 1) % 3
    dump[0].x[5] = np.eye(3)[wrong]  # infinite
    dump[0].x[6] *= 0.5  # not normalised
    dump[1].y = dump[1].y.copy()
    dump[1].x[7:9], dump[1].y[9] = np.nan, -1  # invalid
    dump[1] = dump[1].take(np.r_[1:40, 20, 21, 22])  # gone, and twice
    dump[2].y = (dump[2].y + (np.arange(40) == 30)) % 3  # relabelled
    dump[1] = dump[1].take(np.flatnonzero(dump[1].ids != dump[2].ids[39]))  # and new again
    out = cli("analyze", write_files(tmp_path, dump)).out
    for words in (
        r"3 invalid rows", r"2 × NaN.*row 6.*row 7", r"1 × label missing or out of range.*row 8",
        r"1 rows? with an infinite loss", r"1 rows? whose probabilities do not sum",
        r"3 duplicate rows", r"2 times a sample was missing", r"2 times a sample was new",
        r"1 times? a sample was relabelled",
    ):  # fmt: skip
        assert re.search(words, re.sub(r"\s+", " ", out)), words


def test_a_run_without_a_valid_row_can_be_shown(tmp_path, cli):
    dump = make((0, 1))
    for rows in dump.values():
        rows.y[:] = -1  # missing
    ended = cli("analyze", write_files(tmp_path, dump), "-o", tmp_path / "run")
    assert ended.code == 0
    assert "80 invalid rows" in ended.out
    ended = cli("compare", tmp_path / "run", 0, 1)
    assert ended.code == 0
    assert "nothing can be compared" in ended.out


def test_a_terminal_gets_a_bar_and_everything_else_gets_lines(folder, cli, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    assert "\x1b" not in "".join([cli("analyze", folder).out, cli("analyze", folder).err])
    terminal = Terminal()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(sys, "argv", ["fastdiv", "analyze", str(folder)])
    with pytest.raises(SystemExit):
        fastdiv.cli.main()
    assert re.search(r"of 3,200 rows.*GB/s", terminal.getvalue(), re.S)


# compare --------------------------------------------------------------------------------------


def test_compare(folder, tmp_path, cli):
    run = fastdiv.analyze(folder, output=tmp_path / "run")
    for path in folder.iterdir():
        path.unlink()  # predictions are not read again
    ended = cli("compare", tmp_path / "run", 5, 11)
    assert (ended.code, ended.err) == (0, "")
    assert "from epoch 5 to 11 the loss rose" in ended.out
    assert re.search(r"^wrong → right +59 ", ended.out, re.M)
    as_json = cli("compare", tmp_path / "run", 11, 5, "--json")
    rows = json.loads(as_json.out, parse_constant=pytest.fail)
    assert rows == run.compare(11, 5).to_pylist()
    for arguments, words in {
        (tmp_path / "run", 5, 99): "99", (tmp_path / "gone", 0, 1): "gone.*not a saved run",
        (tmp_path / "run", "x", 1): "'x'", (tmp_path / "run", 5): "B",
    }.items():  # fmt: skip
        ended = cli("compare", *arguments)
        assert (ended.code, ended.out) == (2, "")
        assert re.fullmatch(rf"error: [^\n]*{words}[^\n]*\n", ended.err), ended.err


# inspect --------------------------------------------------------------------------------------


def test_inspect(folder, tmp_path, cli):
    found = json.loads(cli("inspect", folder, "--json").out, parse_constant=pytest.fail)
    assert found["columns"] == fastdiv.analyze(folder).summary["columns"]
    assert (found["kind"], found["classes"], found["rows"]) == ("logits", 3, 3200)
    assert (found["epochs"], found["splits"]) == (list(range(16)), [None])
    groups = [pq.read_metadata(path).row_group(0) for path in folder.iterdir()]
    sizes = [g.column(i).total_compressed_size for g in groups for i in range(g.num_columns)]
    assert found["bytes"] == sum(sizes)
    ended = cli("inspect", folder)
    assert (ended.code, ended.err) == (0, "")
    for role, words in {
        "predictions": "'logits'", "label": "'label'", "id": "'sample_id'", "kind": "logits:",
        "epoch": "file names", "classes": "3", "epochs": "16, from 0 to 15", "splits": "none",
        "rows": "3,200", "bytes": human_bytes(found["bytes"]),
        "memory": human_bytes(found["memory_bytes"]), "disk": human_bytes(found["disk_bytes"]),
    }.items():  # fmt: skip
        assert re.search(rf"^  {role} +.*{words}", ended.out, re.M), role
    fastdiv.analyze(folder, memory=found["memory_bytes"], threads=None)
    with pytest.raises(fastdiv.UsageError, match=human_bytes(found["memory_bytes"])):
        fastdiv.analyze(folder, memory=found["memory_bytes"] - 1)
    run = fastdiv.analyze(folder, output=tmp_path / "run")
    kept = sum(path.stat().st_size for path in (tmp_path / "run" / "scores").rglob("*.scores"))
    assert found["disk_bytes"] <= kept < 2 * found["disk_bytes"]
    assert found["rows"] == run.summary["rows"]


def test_inspect_splits_and_selected_epochs(folder, cli):
    found = cli("inspect", f"train={folder}", f"val={folder}", "--epochs", "3,4,99", "--json")
    found = json.loads(found.out)
    assert (found["splits"], found["epochs"], found["rows"]) == (["train", "val"], [3, 4], 800)


@pytest.mark.parametrize("layout", ["files", "one file", "small row groups", "wide rows"])
def test_inspect_reads_no_more_than_a_thousand_rows(tmp_path, cli, monkeypatch, layout):
    dump = make((0, 1), n=5000)
    if layout == "files":
        source = write_files(tmp_path, dump)
    else:
        rows = 100 if layout == "small row groups" else 5000
        more = {"note": "x" * 500} if layout == "wide rows" else {}
        source = write(whole(dump, **more), tmp_path / "a.parquet", row_group_size=rows)
    read = []

    class Counting(pq.ParquetFile):
        def iter_batches(self, *arguments, **options):
            for batch in super().iter_batches(*arguments, **options):
                read.append(batch.num_rows)
                yield batch

        def read(self, *arguments, **options):
            raise AssertionError("everything is read")

        read_row_group = read_row_groups = read

    monkeypatch.setattr(pq, "ParquetFile", Counting)
    assert cli("inspect", source).code == 0
    assert 0 < sum(read) <= 1000
    assert json.loads(cli("inspect", source, "--json").out)["rows"] == 10000


# the rest -------------------------------------------------------------------------------------


def test_version_and_help(cli):
    assert cli("--version").out.strip().endswith(fastdiv.__version__)
    for arguments in ("-h", "analyze -h", "compare --help", "inspect -h", "demo -h"):
        ended = cli(*arguments.split())
        assert (ended.code, ended.err) == (0, "")
        assert ended.out.split("\n")[0].startswith("Usage: ")
    options = ["id", "label", "predictions", "epoch", "split", "kind", "class-names", "epochs",
               "duplicates", "threads", "memory", "scores", "backend", "clip", "strict", "output",
               "overwrite", "json", "quiet", "debug"]  # fmt: skip
    text = cli("analyze", "-h").out
    assert [name for name in options if not re.search(rf"--{name}\b", text)] == []


@pytest.mark.parametrize("arguments", [["analyze"], ["compare"], ["nonsense"], ["inspect", "--x"]])
def test_usage_errors_take_one_line(cli, arguments):
    ended = cli(*arguments)
    assert (ended.code, ended.out) == (2, "")
    assert re.fullmatch(r"error: [^\n]+\n", ended.err), ended.err


def test_output_where_nothing_can_be_written(tmp_path, folder, cli):
    (tmp_path / "file").write_text("x")
    ended = cli("analyze", folder, "-o", tmp_path / "file" / "run", "--quiet")
    assert ended.code == 2
    assert re.fullmatch(r"error: [^\n]*file[^\n]*\n", ended.err)


def test_rolling_scores_are_said_to_be_gone(folder, cli, tmp_path):
    ended = cli("analyze", folder, "--scores", "rolling", "-o", tmp_path / "run")
    assert ended.code == 0
    assert "scores of these epochs were not kept" in ended.out
    ended = cli("compare", tmp_path / "run", 0, 15)
    assert ended.code == 2
    assert "epochs 0 and 15" in ended.err
    assert cli("compare", tmp_path / "run", 14, 15).code == 0


def test_ids_by_position_are_said_to_be_so(tmp_path, cli):
    bare = {e: table(r, sample_id=None) for e, r in make((0, 1)).items()}
    for epoch, t in bare.items():
        write(t, tmp_path / f"epoch_{epoch}.parquet")
    for command in ("inspect", "analyze"):
        assert re.search(r"^  id +position", cli(command, tmp_path).out, re.M)
    assert fastdiv.analyze(arrays(make((0, 1)))).summary["splits"][0]["ids"] == "column"


def test_parts_that_nothing_tells_apart_are_said_to_be_one_epoch(tmp_path, cli):
    rows = make((0,))[0]
    for name in ("a", "b"):
        write(table(rows, sample_id=None), tmp_path / f"{name}.parquet")
    out = cli("analyze", tmp_path).out
    assert "2 parts without ids or epochs were taken as one epoch" in out
    assert "--epoch-per-path" in out
    assert "without ids" not in cli("analyze", tmp_path, "--epoch-per-path").out


def test_a_class_without_samples_is_said_to_have_none(tmp_path, cli):
    rows = make((0,), c=2)[0]
    data = table(rows).drop_columns("logits").append_column("prob", pa.array(np.full(40, 0.3)))
    path = write(data, tmp_path / "a.parquet")
    assert "no sample is of class 1" in cli("analyze", path, "--positive", "7").out
    assert "no sample is of class" not in cli("analyze", path).out

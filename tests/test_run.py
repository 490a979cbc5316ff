"""What `analyze` returns: tables, comparison of any two epochs, saving and loading; and `score`."""

import gc
import json
import multiprocessing
import os
import warnings
from dataclasses import fields
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from dumps import (
    TABLES,
    arrays,
    as_kind,
    assert_same,
    column,
    make,
    table,
    to_bytes,
    write,
    write_files,
)  # fmt: skip

import fastdiv
from fastdiv import scoring


@pytest.fixture
def hard():
    """Return two splits, with what a saved run must not forget: relabelled, invalid, missing."""
    both = {"train": make((2, 7, 10), n=70), "val": make((2, 7), seed=1)}
    for dump in both.values():
        dump[7].y = dump[7].y.copy()
        dump[7].y[3:6] = (dump[7].y[3:6] + 1) % 3
        dump[2].x[4] = np.nan
        dump[2] = dump[2].take(slice(2, None))
        dump[7] = dump[7].shuffled()
    return {name: {e: r.arrays() for e, r in dump.items()} for name, dump in both.items()}


def files(folder):
    """Return {path: content} of a directory."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


COLUMNS = {
    "epochs": """split epoch epoch_name n n_invalid n_infinite n_unnormalized n_ties loss
        loss_finite accuracy confidence brier margin loss_right loss_wrong top5_accuracy ece
        ece_overconfident mce temperature temperature_bound refinement calibration
        balanced_accuracy f1_macro f1_weighted mcc accuracy_majority prior_entropy d2_log_loss""",
    "transitions": """split epoch_from epoch_to n n_infinite n_invalid n_relabelled n_only_from
        n_only_to rr rw wr ww_same ww_changed delta_accuracy delta_loss delta_loss_rr delta_loss_rw
        delta_loss_wr delta_loss_ww_same delta_loss_ww_changed delta_loss_membership churn
        negative_flip_rate""",
    "samples": """split sample_id label n_epochs n_correct learned first_learned forgetting_events
        confidence variability aum last_loss last_predicted last_correct""",
    "classes": "split epoch class support predicted true_positive loss precision recall f1",
}


@pytest.mark.parametrize("name", TABLES)
def test_columns(hard, name):
    assert getattr(fastdiv.analyze(hard), name).column_names == COLUMNS[name].split()


# Comparing ------------------------------------------------------------------------------------


def test_compare_is_what_transitions_say(hard):
    run = fastdiv.analyze(hard)
    pairs = {(row["epoch_from"], row["epoch_to"]) for row in run.transitions.to_pylist()}
    assert pairs == {(2, 7), (7, 10)}
    for a, b in pairs:
        chosen = np.array(column(run, "epoch_from", "transitions")) == a
        assert to_bytes(run.compare(a, b)) == to_bytes(run.transitions.filter(chosen))


def test_compare_any_pair(hard):
    run = fastdiv.analyze(hard)
    there, back = run.compare(2, 10).to_pylist(), run.compare(10, 2).to_pylist()
    assert [row["split"] for row in there] == [row["split"] for row in back] == ["train"]
    for row, other in zip(there, back, strict=True):
        assert (row["rw"], row["n_only_from"]) == (other["wr"], other["n_only_to"])
        assert row["delta_loss"] == -other["delta_loss"]
        assert row["delta_loss_rw"] == -other["delta_loss_wr"]
    only_two = fastdiv.analyze({"train": {e: hard["train"][e] for e in (2, 10)}})
    assert to_bytes(only_two.transitions) == to_bytes(run.compare(2, 10))
    same = run.compare(7, 7).to_pylist()[0]
    assert (same["delta_loss"], same["churn"], same["n"]) == (0, 0, 70)
    with pytest.raises(fastdiv.UsageError, match="epochs 2 and 3: there are 2, 7, 10"):
        run.compare(2, 3)


def test_compare_by_name(tmp_path, dump):
    names = ["a", "base", "tuned"]
    for name, rows in zip(names, dump.values(), strict=True):
        write(table(rows), tmp_path / f"{name}.parquet")
    run = fastdiv.analyze([tmp_path / f"{n}.parquet" for n in names], epoch_per_path=True)
    assert run.summary["epoch_names"] == {"0": "a", "1": "base", "2": "tuned"}
    run.save(tmp_path / "run")
    for one in (run, fastdiv.load(tmp_path / "run")):
        assert one.epochs["epoch_name"].to_pylist() == names
        assert one.compare("tuned", "base").equals(run.compare(2, 1))
        assert one.compare("a", 2).equals(run.compare(0, 2))
        with pytest.raises(fastdiv.UsageError, match="named 'b': there are a, base, tuned"):
            one.compare("b", 0)
    numbers = fastdiv.analyze(arrays(dump))
    assert numbers.summary["epoch_names"] == {}
    assert numbers.epochs["epoch_name"].null_count == 3
    with pytest.raises(fastdiv.UsageError, match="epochs are numbers here"):
        numbers.compare("tuned", 2)


# Saving and loading ---------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["save", "output", "save again"])
def test_save_and_load(tmp_path, hard, how):
    run = fastdiv.analyze(hard, output=tmp_path / "x" / "run" if how == "output" else None)
    if how != "output":
        run.save(tmp_path / "x" / "run")
    if how == "save again":
        fastdiv.load(tmp_path / "x" / "run").save(tmp_path / "x" / "other")
        run_dir = tmp_path / "x" / "other"
    else:
        run_dir = tmp_path / "x" / "run"
    loaded = fastdiv.load(run_dir)
    assert_same(loaded, run)
    assert loaded.summary == run.summary
    for a, b in [(2, 7), (7, 10), (2, 10), (10, 2)]:
        assert to_bytes(loaded.compare(a, b)) == to_bytes(run.compare(a, b))
    expected = {"summary.json", "scores", *(f"{name}.parquet" for name in TABLES)}
    assert {path.name for path in run_dir.iterdir()} == expected
    for name in TABLES:
        assert_same_table(pq.read_table(run_dir / f"{name}.parquet"), getattr(run, name))
    summary = json.loads((run_dir / "summary.json").read_text())
    assert summary["schema_version"] == 1
    assert summary["backend"]["name"] == "cpu"
    assert summary["backend"]["on"]
    left = {path.name for path in (tmp_path / "x").iterdir()}
    assert left == ({"run", "other"} if how == "save again" else {"run"})


def assert_same_table(found, wanted):
    assert found.equals(wanted)
    assert found.schema == wanted.schema


def test_a_summary_with_duplicates_is_the_same_after_loading(tmp_path, dump):
    dump[7] = dump[7].take(np.r_[0:40, 3, 4])
    run = fastdiv.analyze(arrays(dump), output=tmp_path / "run")
    assert run.summary["splits"][0]["n_duplicates"] == 2
    assert fastdiv.load(tmp_path / "run").summary == run.summary


def test_a_saved_run_needs_neither_the_dump_nor_the_first_run(tmp_path, temporary, dump):
    folder = write_files(tmp_path / "dump", dump)
    run = fastdiv.analyze(folder)
    wanted = to_bytes(run.compare(2, 10)), to_bytes(run.samples)
    run.save(tmp_path / "run")
    del run
    gc.collect()
    assert list(temporary.iterdir()) == []
    for path in folder.iterdir():
        path.unlink()
    (tmp_path / "run").rename(tmp_path / "moved")
    loaded = fastdiv.load(tmp_path / "moved")
    assert (to_bytes(loaded.compare(2, 10)), to_bytes(loaded.samples)) == wanted


def test_relative_paths_outlive_a_change_of_directory(tmp_path, monkeypatch, dump):
    monkeypatch.chdir(tmp_path)
    run = fastdiv.analyze(arrays(dump), output="run")
    loaded = fastdiv.load("run")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    for one in (run, loaded):
        assert len(one.samples) == 40
        assert one.compare(2, 10)["n"].to_pylist() == [40]
    assert list(Path.cwd().iterdir()) == []


def test_overwriting(tmp_path, dump):
    first, second = fastdiv.analyze(arrays(dump)), fastdiv.analyze(arrays(make((0, 1))))
    target = tmp_path / "run"
    target.mkdir()
    first.save(target, overwrite=True)  # an empty directory holds nothing to lose
    with pytest.raises(fastdiv.UsageError, match=r"is there already.*--overwrite"):
        second.save(target)
    with pytest.raises(fastdiv.UsageError, match="is there already"):
        fastdiv.analyze(arrays(dump), output=target)
    assert_same(fastdiv.load(target), first)
    second.save(target, overwrite=True)
    assert_same(fastdiv.load(target), second)
    itself = fastdiv.load(target)
    itself.save(target, overwrite=True)
    assert_same(itself, second)
    assert_same(fastdiv.load(target), second)
    fastdiv.analyze(arrays(dump), output=target, overwrite=True)
    assert_same(fastdiv.load(target), first)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


@pytest.mark.parametrize("holds", ["thesis.tex", "summary.json"])
def test_what_is_no_run_is_not_overwritten(tmp_path, dump, holds):
    """A file called summary.json does not make somebody's directory a run."""
    target = tmp_path / "work"
    target.mkdir()
    (target / holds).write_text('{"years": 4}')
    (target / "data.csv").write_text("precious")
    run = fastdiv.analyze(arrays(dump))
    for overwrite in (False, True):
        with pytest.raises(fastdiv.UsageError, match="work"):
            run.save(target, overwrite=overwrite)
        with pytest.raises(fastdiv.UsageError, match="work"):
            fastdiv.analyze(arrays(dump), output=target, overwrite=overwrite)
    assert {path.name for path in target.iterdir()} == {holds, "data.csv"}
    (tmp_path / "file").write_text("precious")
    for place in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(fastdiv.UsageError, match="file"):
            run.save(place, overwrite=True)
        with pytest.raises(fastdiv.UsageError, match="file"):
            fastdiv.analyze(arrays(dump), output=place, overwrite=True)


class DiskFullError(OSError):
    pass


@pytest.mark.parametrize("call", ["save", "output"])
@pytest.mark.parametrize("at", [0, 1, 3, "rename"])
def test_whole_or_not_at_all(tmp_path, temporary, monkeypatch, dump, call, at):
    """A failure in the middle leaves the run that was there, and nothing else."""
    target = tmp_path / "out" / "run"
    old = fastdiv.analyze(arrays(make((0, 1))), output=target)
    before, run = files(target), fastdiv.analyze(arrays(dump))
    calls = []
    write_table, rename = pq.write_table, Path.rename

    def write(to, overwrite):
        if call == "save":
            run.save(to, overwrite=overwrite)
        else:
            fastdiv.analyze(arrays(dump), output=to, overwrite=overwrite)

    def fail_at_table(*arguments, **options):
        calls.append(arguments)
        if len(calls) > at:
            raise DiskFullError("no space left")
        write_table(*arguments, **options)

    def fail_at_rename(path, to):
        if Path(to) == target and "scores" in os.listdir(path) and not calls:
            calls.append(path)
            raise DiskFullError("no space left")
        return rename(path, to)

    if at == "rename":
        monkeypatch.setattr(Path, "rename", fail_at_rename)
    else:
        monkeypatch.setattr(pq, "write_table", fail_at_table)
    with pytest.raises((DiskFullError, fastdiv.FastdivError), match="no space left"):
        write(target, overwrite=True)
    monkeypatch.undo()
    assert calls
    assert os.listdir(tmp_path / "out") == ["run"]
    assert files(target) == before
    assert_same(fastdiv.load(target), old)


def test_what_cannot_be_loaded(tmp_path, cli, dump):
    with pytest.raises(fastdiv.UsageError, match="not a saved run"):
        fastdiv.load(tmp_path)
    target = tmp_path / "run"

    def damaged(name, content):
        fastdiv.analyze(arrays(dump), output=target, overwrite=True)
        (path,) = target.rglob(name)
        if content is None:
            path.unlink()
        else:
            path.write_bytes(content)
        ended = cli("compare", target, 2, 10)
        assert (ended.code, ended.out) == (2, ""), name
        assert ended.err.startswith("error: "), name
        assert ended.err.count("\n") == 1, name
        assert str(target) in ended.err, name
        return ended.err

    assert "later" in damaged("summary.json", b'{"schema_version": 999}')
    assert "damaged" in damaged("summary.json", b'{"schema_version": 1, "spl')
    assert "damaged" in damaged("summary.json", b"{}")
    for name in ("epochs.parquet", "slots.parquet", "store.json", "epoch_000010.scores"):
        assert "damaged" in damaged(name, None)
        assert "damaged" in damaged(name, b"PAR1")


# Temporary files ------------------------------------------------------------------------------


def test_temporary_files_go_when_the_run_goes(temporary, dump):
    run = fastdiv.analyze(arrays(dump))
    samples = run.samples
    assert len(list(temporary.iterdir())) == 1
    del run
    gc.collect()
    assert list(temporary.iterdir()) == []
    assert len(samples.to_pylist()) == 40  # a table lives as long as it is held


@pytest.mark.parametrize("how", ["os", "multiprocessing"])
def test_a_fork_leaves_the_files_of_its_parent(temporary, dump, how):
    """And takes its own with it, though a process of multiprocessing ends at once."""
    run = fastdiv.analyze(arrays(dump))
    wanted = fastdiv.analyze(arrays(dump)).samples

    def work():
        fastdiv.analyze(arrays(dump), threads=1)
        kept = fastdiv.analyze(arrays(dump), threads=1)
        run._scratch.remove()
        run._scratch.remove(run._directory)
        assert kept.epochs.num_rows == 3

    gc.collect()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of forking with threads: Python's, and that of JAX
        if how == "multiprocessing":
            process = multiprocessing.get_context("fork").Process(target=work)
            process.start()
            process.join()
            assert process.exitcode == 0
        elif (pid := os.fork()) == 0:
            run._scratch.remove()
            os._exit(0)
        else:
            assert os.waitpid(pid, 0)[1] == 0
    assert len(list(temporary.iterdir())) == 1
    assert run.samples.equals(wanted)


def test_nothing_temporary_is_left_of_a_saved_run(tmp_path, temporary, dump):
    run = fastdiv.analyze(arrays(dump), output=tmp_path / "run")
    assert list(temporary.iterdir()) == []
    del run
    gc.collect()
    fastdiv.load(tmp_path / "run")


def test_a_run_says_what_it_is(hard):
    text = repr(fastdiv.analyze(hard))
    assert "train: 3 epochs, 70 samples" in text
    assert "3 classes" in text


# score ----------------------------------------------------------------------------------------


def values(scores):
    return {f.name: getattr(scores, f.name) for f in fields(scores) if f.name != "profile"}


@pytest.mark.parametrize("kind", ["logits", "probs", "logprobs"])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_score(monkeypatch, kind, dtype):
    rows = as_kind(make(n=500, c=6, dtype=dtype)[0], kind)
    scores = fastdiv.score(rows.x, rows.y, kind=kind, threads=1)
    types = {name: x.dtype.name for name, x in values(scores).items()}
    assert types.pop("loss") == ("float64" if dtype == np.float64 else "float32")
    assert list(types.values()) == ["bool", "int32", *["float32"] * 3, "int32", "uint8"]
    assert {x.shape for x in values(scores).values()} == {(500,)}
    assert ((scores.rank == 0) == scores.correct).all()
    assert (scores.correct == (scores.predicted == rows.y)).all()
    monkeypatch.setattr(scoring, "PIECE_BYTES", 64)
    wide = np.zeros((1000, 12), dtype)
    wide[::2, ::2] = rows.x
    for x in (
        np.asfortranarray(rows.x),
        wide[::2, ::2],
        rows.x.astype(rows.x.dtype.newbyteorder(">")),
    ):
        for labels in (rows.y, rows.y[:, None].astype(np.uint8), rows.y.tolist()):
            found = fastdiv.score(x, labels, kind=kind, threads=3)
            for name, want in values(scores).items():
                assert values(found)[name].tobytes() == want.tobytes(), name


def test_score_into_arrays_of_a_previous_result():
    first, second = make(n=90)[0], make(n=90, seed=1)[0]
    out = fastdiv.score(first.x, first.y, kind="logits")
    places = {name: x.ctypes.data for name, x in values(out).items()}
    again = fastdiv.score(second.x, second.y, kind="logits", out=out)
    assert again is out
    assert {name: x.ctypes.data for name, x in values(again).items()} == places
    wanted = fastdiv.score(second.x, second.y, kind="logits")
    for name, want in values(wanted).items():
        assert values(again)[name].tobytes() == want.tobytes()
    for x in (second.x[:50], second.x.astype(np.float64)):
        with pytest.raises(fastdiv.UsageError, match="out holds"):
            fastdiv.score(x, second.y[: len(x)], kind="logits", out=out)


def test_score_refuses_arrays_it_cannot_write_to():
    rows = make()[0]
    out = fastdiv.score(rows.x, rows.y, kind="logits")
    out.loss.flags.writeable = False
    with pytest.raises(fastdiv.UsageError, match="out"):
        fastdiv.score(rows.x, rows.y, kind="logits", out=out)


def test_scores_of_bad_rows_are_marked():
    x = np.array([[0.5, np.nan], [0.5, 0.5], [0, 0], [0.5, 0.5], [0.5, 1.5]], np.float32)
    scores = fastdiv.score(x, np.array([0, 2, 0, 1, 0], np.int64), kind="probs")
    assert (scores.status & 7).tolist() == [1, 5, 4, 0, 3]
    bad = (scores.status & 7) > 0
    for name in ("loss", "confidence", "margin", "brier"):
        assert np.isnan(values(scores)[name]).tolist() == bad.tolist()
    assert (scores.predicted[bad] == -1).all()
    assert (scores.rank[bad] == -1).all()
    assert not scores.correct[bad].any()


@pytest.mark.parametrize("n", [0, 3])
@pytest.mark.parametrize(
    "wrong",
    [{"kind": "auto"}, {"kind": "odds"}, {"kind": "logits", "threads": 0},
     {"kind": "logits", "backend": "gpu"}],
    ids=str,
)  # fmt: skip
def test_score_refuses_words_it_does_not_know(n, wrong):
    with pytest.raises(fastdiv.UsageError, match=r"kind|threads|backend"):
        fastdiv.score(np.zeros((n, 2), np.float32), np.zeros(n, int), **wrong)


@pytest.mark.parametrize(
    ("x", "y", "pattern"),
    [
        (np.zeros(3), np.zeros(3, int), "shape"),
        (np.zeros((3, 2), int), np.zeros(3, int), "float"),
        (np.zeros((3, 1)), np.zeros(3, int), "at least 2"),
        (np.zeros((3, 2)), np.zeros(2, int), "labels must have shape"),
        (np.zeros((3, 2)), np.zeros((3, 2), int), "labels must have shape"),
        (np.zeros((3, 2)), np.zeros(3), "integers"),
        (np.zeros((3, 2)), ["a", "b", "c"], "integers"),
        (np.zeros((3, 2), np.longdouble), np.zeros(3, int), "float64"),
    ],
)
def test_score_refuses_arrays_that_do_not_fit(x, y, pattern):
    with pytest.raises(fastdiv.UsageError, match=pattern):
        fastdiv.score(x, y, kind="logits")


def test_score_of_nothing():
    assert len(fastdiv.score(np.zeros((0, 3)), np.zeros(0, int), kind="probs")) == 0

"""What is wrong with the data is said in one line: where, what, and what to do about it."""

import re
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from dumps import (
    Rows,
    arrays,
    as_kind,
    assert_same,
    column,
    make,
    table,
    whole,
    write,
    write_files,
)  # fmt: skip

import fastdiv

PLACE = r"a\.parquet, row group 2, row 3\b"  # of row 13 where row groups hold five


def of_probs(n=20, c=3):
    """Return rows of probabilities, well-formed."""
    return as_kind(make(n=n, c=c)[0], "probs")


def refuse(source, pattern, error=fastdiv.DataError, **options):
    """Check that a source is refused with one line that matches."""
    with pytest.raises(error) as raised:
        fastdiv.analyze(source, **options)
    message = str(raised.value)
    assert "\n" not in message
    assert re.search(pattern, message), message
    return message


def predictions(rows, row, value, layout):
    """Return rows as a table in which one row's predictions are set to something."""
    lists = rows.x.tolist()
    lists[row] = value
    if layout == "wide":
        return table(rows, probs=None, name="probs", **{
            f"prob_{k}": pa.array([x[k] for x in lists], pa.float32()) for k in range(3)
        })  # fmt: skip
    type_ = pa.list_(pa.float32(), 3) if layout == "fixed_size_list" else pa.list_(pa.float32())
    return table(rows, name="probs", probs=pa.array(lists, type_))


NAN, INF = float("nan"), float("inf")
BAD_PREDICTIONS = {
    "NaN": ([NAN, 0.5, 0.5], "nan", "probs"),
    "+inf": ([INF, 0.5, 0.5], "positive_infinity", "probs"),
    "all zero": ([0, 0, 0], "no_mass", "probs"),
    "negative": ([-0.1, 0.6, 0.5], "contradicts_kind", "probs"),
    "above one": ([1.2, 0.0, 0.0], "contradicts_kind", "probs"),
    "all -inf": ([-INF, -INF, -INF], "no_mass", "logits"),
    "null element": ([None, 0.5, 0.5], "null", "probs"),
    "null list": (None, "null", "probs"),
    "short": ([0.5, 0.5], "length", "probs"),
    "long": ([0.25] * 4, "length", "probs"),
    "empty": ([], "length", "probs"),
}


@pytest.mark.parametrize("what", BAD_PREDICTIONS)
@pytest.mark.parametrize("layout", ["list", "fixed_size_list", "wide"])
def test_bad_predictions(tmp_path, cli, what, layout):
    value, reason, kind = BAD_PREDICTIONS[what]
    if layout != "list" and (reason == "length" or (layout == "wide" and value is None)):
        pytest.skip(f"{layout} cannot hold this")
    rows = of_probs()
    path = write(predictions(rows, 13, value, layout), tmp_path / "a.parquet", row_group_size=5)
    run = fastdiv.analyze(path, kind=kind)
    (entry,) = run.summary["invalid"]["reasons"]
    assert (entry["reason"], entry["n"]) == (reason, 1)
    assert [re.search(PLACE, place) is not None for place in entry["first"]] == [True]
    assert (column(run, "n"), column(run, "n_invalid")) == ([20], [1])
    assert sum(column(run, "support", "classes")) == 19
    others = rows.take(np.delete(np.arange(20), 13))
    without = fastdiv.analyze({0: others.arrays()}, kind=kind)
    for name in ("loss", "accuracy", "confidence", "brier", "margin", "ece"):
        assert column(run, name) == column(without, name), name
    sample = [row for row in run.samples.to_pylist() if row["sample_id"] == rows.ids[13]]
    assert (sample[0]["n_epochs"], sample[0]["confidence"]) == (0, None)
    message = refuse(path, rf"{PLACE}.*column.* 'prob.*--strict", strict=True, kind=kind)
    ended = cli("analyze", path, "--strict", "--kind", kind, "--quiet")
    assert (ended.code, ended.out, ended.err) == (2, "", f"error: {message}\n")


@pytest.mark.parametrize(
    "labels",
    [
        pa.array([0] * 13 + [3] + [1] * 6),
        pa.array([0] * 13 + [-1] + [1] * 6, pa.int8()),
        pa.array([0] * 13 + [2**32] + [1] * 6),
        pa.array([0] * 13 + [2**64 - 1] + [1] * 6, pa.uint64()),
        pa.array([0] * 13 + [None] + [1] * 6, pa.uint8()),
        pa.array([0] * 13 + [NAN] + [1] * 6),
        pa.array([0] * 13 + [None] + [1] * 6, pa.float32()),
        pa.array([False] * 13 + [None] + [True] * 6),
        pa.array(["cat"] * 13 + ["Cat"] + ["dog"] * 6),
        pa.array(["cat"] * 13 + [None] + ["dog"] * 6).dictionary_encode(),
    ],
    ids=lambda labels: f"{labels[13]}-{labels.type}"[:24],
)
def test_bad_labels(tmp_path, labels):
    path = write(table(of_probs(), label=labels), tmp_path / "a.parquet", row_group_size=5)
    run = fastdiv.analyze(path, class_names=["cat", "dog", "owl"])
    (entry,) = run.summary["invalid"]["reasons"]
    assert (entry["reason"], entry["n"]) == ("label", 1)
    assert re.search(PLACE, entry["first"][0])
    assert column(run, "n_invalid") == [1]
    assert column(run, "support", "classes") == [13, 6, 0]
    refuse(path, rf"{PLACE}.*'label'.*0 to 2", strict=True, class_names=["cat", "dog", "owl"])


def test_labels_that_are_no_whole_numbers(tmp_path):
    rows = of_probs()
    t = table(rows, label=rows.y + np.where(np.arange(20) == 13, 0.5, 0))
    path = write(t, tmp_path / "a.parquet", row_group_size=5)
    refuse(path, rf"{PLACE}.*'label'.*whole number")


def test_only_the_first_places_are_named_but_all_are_counted():
    rows = of_probs(400)
    rows.x[::3] = np.nan
    run = fastdiv.analyze(table(rows), kind="probs")
    assert column(run, "n_invalid") == [run.summary["invalid"]["n"]] == [134]
    reasons = run.summary["invalid"]["reasons"]
    assert [(entry["reason"], entry["n"]) for entry in reasons] == [("nan", 134)]
    places = [place.rsplit(" ", 1)[1] for place in reasons[0]["first"]]
    assert places[:3] == ["0", "3", "6"]
    assert len(places) < 10


def test_ids_that_are_null(tmp_path):
    ids = pa.array([*range(13), None, *range(14, 20)])
    for values in (ids, ids.cast(pa.string()), ids.cast(pa.string()).dictionary_encode()):
        t = table(of_probs(), sample_id=values)
        path = write(t, tmp_path / "a.parquet", row_group_size=5)
        refuse(path, rf"{PLACE}.*'sample_id'.*null.*--id none")
        assert column(fastdiv.analyze(path, id="none"), "n") == [20]


@pytest.mark.parametrize("value", [None, 2.5], ids=str)
def test_epochs_that_are_no_numbers(tmp_path, value):
    t = table(of_probs(), epoch=pa.array([1.0] * 13 + [value] + [1.0] * 6))
    refuse(write(t, tmp_path / "a.parquet", row_group_size=5), r"row group 2.*'epoch'")


# Columns and options --------------------------------------------------------------------------


@pytest.mark.parametrize("role", ["id", "label", "predictions", "epoch", "split"])
@pytest.mark.parametrize("place", ["one file", "files", "table"])
def test_missing_columns_with_near_names(tmp_path, dump, role, place):
    columns = {"id": "sample_id", "predictions": "logits"}
    right = columns.get(role, role)
    wrong = right[:-1] + "_" + right[-1]
    if place == "files":
        if role == "epoch":
            right = ""  # files tell theirs by their names: still, this column is nowhere
        for epoch, rows in dump.items():
            write(table(rows, split="val"), tmp_path / f"a_epoch_{epoch}.parquet")
        source = tmp_path
    else:
        source = whole(dump, split="val")
        if place == "one file":
            source = write(source, tmp_path / "a.parquet")
    where = "" if place == "table" else r"parquet.*"
    refuse(source, rf"{where}'{wrong}'.*{right}", fastdiv.UsageError, **{role: wrong})


@pytest.mark.parametrize("drop", ["label", "logits"])
def test_columns_that_cannot_be_found(tmp_path, dump, drop):
    path = write(whole(dump).drop_columns(drop), tmp_path / "a.parquet")
    refuse(path, r"a\.parquet.*looks like.*sample_id.*name it with --", fastdiv.UsageError)


@pytest.mark.parametrize("names", ["label,sample_id", "l*", "logits_0", "label"])
def test_predictions_that_cannot_be(dump, names):
    refuse(whole(dump), "predictions|logits_0|label", fastdiv.UsageError, predictions=names)


NONSENSE = {
    "kind": "odds", "duplicates": "last", "scores": "some", "backend": "gpu", "threads": 0,
    "clip": 2.0, "memory": "many", "epochs": "a-b", "class_names": ["one", "two"],
}  # fmt: skip


@pytest.mark.parametrize("option", NONSENSE)
def test_options_that_cannot_be(tmp_path, cli, option):
    path = write(table(of_probs()), tmp_path / "a.parquet")
    value = NONSENSE[option]
    words = option.replace("_", "[ _]")
    refuse(path, rf"{words}.*", fastdiv.UsageError, **{option: value})
    text = ",".join(value) if isinstance(value, list) else value
    ended = cli("analyze", path, f"--{option.replace('_', '-')}", text)
    assert ended.code == 2
    assert re.fullmatch(rf"error: [^\n]*{words.replace('_', '_-')}[^\n]*\n", ended.err), ended.err


@pytest.mark.parametrize(
    "source", [3, [], {}, {"a": {}}, {1.5: "x"}, [1, 2], None, (1, 2, 3, 4)], ids=str
)
def test_sources_that_cannot_be(source):
    refuse(source, ".", fastdiv.UsageError)


def test_arrays_that_cannot_be():
    x, y, ids = of_probs().arrays()
    for bad, pattern in {
        "labels": (x, y[:-1]), "ids must": (x, y, ids[:-1]), "predictions must": (x[0], y),
        "float": (x.astype(int), y), "at least 2": (x[:, :1], y),
        "ids": (x, y, ids + 0.5), "labels|class_names": (x, np.array(["a"] * 20)),
    }.items():  # fmt: skip
        refuse({4: pattern}, rf"epoch 4.*{bad}", fastdiv.UsageError)
    strings = np.array(["a", "b", "c"])[y]
    refuse({4: (x, strings[:-1])}, "epoch 4.*labels", fastdiv.UsageError, class_names=[*"abc"])
    refuse({4: (x, y, ids), 5: (x, y)}, "epoch 5.*ids")
    refuse({4: (x, y + 0.5)}, r"epoch 4, row 0: label \d\.5 .*no whole number")


# A data set whose files disagree --------------------------------------------------------------


def test_class_count_changes_between_files(tmp_path):
    for layout in ("list", "fixed_size_list", "wide0"):
        for epoch, c in enumerate((3, 4)):
            write_files(tmp_path / layout, {epoch: make(c=c, n=9)[0]}, layout)
    refuse(tmp_path / "list", r"preds_epoch_001\.parquet.*'logits'.*class")
    refuse(tmp_path / "fixed_size_list", r"preds_epoch_001\.parquet.*4 classes.*3 in")
    refuse(tmp_path / "wide0", r"preds_epoch_001\.parquet.*(4 classes|logits_3)")
    sources = [{e: make(c=3 + e)[0].arrays() for e in (0, 1)}]
    sources += [
        {e: table(make(c=3 + e)[0], layout) for e in (0, 1)} for layout in ("list", "wide0")
    ]
    for source in sources:
        refuse(source, "epoch 1.*class|epoch 1.*logits_3")


def test_the_file_that_is_wrong_is_named(tmp_path, dump):
    """One ragged row elsewhere is no reason to blame the wrong file."""
    lists = dump[2].x.tolist()
    lists[0] = [1.0]
    write(
        table(dump[2], logits=pa.array(lists, pa.list_(pa.float32()))), tmp_path / "epoch_1.parquet"
    )
    write_files(tmp_path, {2: dump[2], 3: make(c=4)[0], 4: dump[2]}, pattern="epoch_{}.parquet")
    refuse(tmp_path, r"epoch_3\.parquet.*class")


CHANGES = {
    "label": {"label": pa.array(["a"] * 40)},
    "sample_id": {"sample_id": pa.array([f"{i}" for i in range(40)])},
    "logits": {"logits": np.zeros(40)},
}


@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.parametrize("in_memory", [False, True])
def test_schema_changes_between_epochs(tmp_path, dump, name, in_memory):
    tables = {2: table(dump[2]), 7: table(dump[7], **CHANGES[name]), 10: table(dump[10])}
    dropped = tables | {7: table(dump[7], **{name: None})}
    for source in (tables, dropped):
        if not in_memory:
            for epoch, t in source.items():
                write(t, tmp_path / f"epoch_{epoch}.parquet")
        where = "epoch 7" if in_memory else r"epoch_7\.parquet"
        refuse(source if in_memory else tmp_path, rf"{where}.*'{name}'")


def test_ids_of_two_kinds_of_integers(dump):
    dump[7].ids = dump[7].ids.astype(np.uint64)
    refuse(arrays(dump), "uint64")


# Kinds ----------------------------------------------------------------------------------------


def test_kind_contradicts_the_data(tmp_path, dump):
    path = write_files(tmp_path / "logits", dump)
    for kind in ("probs", "logprobs"):
        refuse(path, r"epoch_002\.parquet.*'logits'.*(--kind|contradict)", kind=kind)
    probs = {e: as_kind(r, "probs") for e, r in dump.items()}
    refuse(write_files(tmp_path / "probs", probs), r"epoch_002\.parquet.*--kind", kind="logprobs")


def test_kind_changes_between_files(tmp_path, dump):
    kinds = dict(zip(dump, ("probs", "probs", "logits"), strict=True))
    for epoch, kind in kinds.items():
        write_files(tmp_path, {epoch: as_kind(dump[epoch], kind)})
    refuse(tmp_path, r"epoch_002\.parquet.*probs.*epoch_010\.parquet.*logits.*--kind")
    in_the_middle = {2: dump[2], 7: dump[10], 10: dump[7]}  # neither first nor last
    write_files(
        tmp_path, {e: as_kind(r, "logits" if e == 7 else "probs") for e, r in in_the_middle.items()}
    )
    refuse(tmp_path, r"epoch_007\.parquet, row group 0, row \d+.*contradict.*'logits'.*--kind")


def test_values_that_may_be_probabilities_or_not(tmp_path):
    x = np.random.default_rng(0).uniform(0.2, 0.8, (20, 3))
    path = write(
        table(Rows(x, np.zeros(20, int), np.arange(20)), name="out"), tmp_path / "a.parquet"
    )
    refuse(path, r"a\.parquet.*'out'.*sum to 1.*--kind")
    assert column(fastdiv.analyze(path, kind="probs"), "n_unnormalized") == [20]
    assert fastdiv.analyze(path, kind="logits").summary["kind"] == "logits"


def test_slight_violations_of_a_distribution_are_counted_only():
    x = np.array([[0.5, 0.5, 0], [-5e-7, 0.5, 0.5], [1.005, 0, 0], [0.3, 0.3, 0.3]] * 5, np.float32)
    run = fastdiv.analyze({0: (x, np.zeros(20, int))}, kind="probs")
    assert (column(run, "n_invalid"), column(run, "n_unnormalized")) == ([0], [10])


# Few rows, few classes, no files --------------------------------------------------------------


def test_no_rows(tmp_path, dump):
    empty = whole(dump).slice(0, 0)
    path = write(empty, tmp_path / "one" / "a.parquet")
    for source in (path, empty, {0: empty}, {0: (dump[2].x[:0], dump[2].y[:0])}):
        refuse(source, "no rows")
    folder = write_files(tmp_path / "some", dump)
    write(table(dump[2].take(slice(0, 0))), folder / "preds_epoch_001.parquet")
    write(table(dump[2].take(slice(0, 0))), folder / "preds_epoch_011.parquet")
    assert_same(fastdiv.analyze(folder), fastdiv.analyze(arrays(dump)))


def test_one_row():
    run = fastdiv.analyze({0: (np.array([[0.25, 0.75]]), [1]), 1: (np.array([[0.5, 0.5]]), [1])})
    assert column(run, "accuracy") == [1, 0]
    assert column(run, "loss") == [-np.log(0.75), -np.log(0.5)]
    assert column(run, "rw", "transitions") == [1]


@pytest.mark.parametrize("layout", ["list", "fixed_size_list"])
def test_one_class(tmp_path, layout):
    rows = Rows(np.ones((5, 1), np.float32), np.zeros(5, int), np.arange(5))
    path = write(table(rows, layout, name="prob"), tmp_path / "a.parquet")
    refuse(path, "at least 2|for each class", fastdiv.FastdivError)


def test_nothing_to_read(tmp_path, cli):
    (tmp_path / "empty" / "sub").mkdir(parents=True)
    (tmp_path / "empty" / "sub" / "notes.txt").write_text("no data")
    for path, pattern in {
        tmp_path / "empty": r"empty.*\.parquet", tmp_path / "gone": "gone: no such",
        tmp_path / "*.parquet": r"\*\.parquet.*nothing matches", "": "no such",
    }.items():  # fmt: skip
        message = refuse(path, pattern, fastdiv.UsageError)
        ended = cli("analyze", path)
        assert (ended.code, ended.err) == (2, f"error: {message}\n")


# Damage ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("keep", [0, 1, 4, 8, 0.5, -1, -9])
def test_truncated_files(tmp_path, dump, cli, keep):
    folder = write_files(tmp_path, dump)
    path = folder / "preds_epoch_007.parquet"
    whole_file = path.read_bytes()
    path.write_bytes(whole_file[: int(keep * len(whole_file)) if keep == 0.5 else keep])
    message = refuse(folder, r"preds_epoch_007\.parquet.*cannot be read")
    assert cli("analyze", folder).err.endswith(f"error: {message}\n")
    assert cli("inspect", folder).err == f"error: {message}\n"


def test_damage_between_magic_numbers(tmp_path, dump):
    path = write(whole(dump), tmp_path / "a.parquet", row_group_size=40, compression="zstd")
    good = bytearray(path.read_bytes())
    path.write_bytes(good[: len(good) // 2] + bytes(200) + good[len(good) // 2 + 200 :])
    refuse(path, r"a\.parquet, row group \d.*cannot be read")
    path.write_bytes(b"PAR1" + bytes(1000) + b"PAR1")
    refuse(path, r"a\.parquet.*cannot be read")


# The same epoch twice -------------------------------------------------------------------------


def test_an_epoch_twice(tmp_path, dump):
    wanted = fastdiv.analyze(arrays(dump))
    folder = write_files(tmp_path, dump, pattern="epoch={}/a.parquet", row_group_size=15)
    write_files(tmp_path, {7: dump[7].shuffled()}, pattern="epoch={}/b.parquet")
    run = fastdiv.analyze(folder)
    assert_same(run, wanted)
    assert run.summary["splits"][0]["n_duplicates"] == 40
    other = replace(dump[7], x=dump[7].x.copy())
    other.x[33] = -other.x[33]
    write_files(tmp_path, {7: other}, pattern="epoch={}/b.parquet")
    places = r"a\.parquet, row group 2, row 3 and \S*b\.parquet, row group 0, row 33"
    refuse(folder, rf"{places}.*{dump[7].ids[33]}.*epoch 7.*--duplicates first")
    assert_same(fastdiv.analyze(folder, duplicates="first"), wanted)


# Afterwards -----------------------------------------------------------------------------------


@pytest.mark.parametrize("output", [None, "run"])
def test_a_failure_leaves_nothing_behind(tmp_path, temporary, dump, output):
    dump[10].y[5] = 99
    folder = write_files(tmp_path / "dump", dump)
    out = tmp_path / "out"
    out.mkdir()
    options = {"strict": True, "output": None if output is None else out / output}
    refuse(folder, "label", **options)
    assert list(temporary.iterdir()) == []
    assert list(out.iterdir()) == []
    (folder / "preds_epoch_007.parquet").write_bytes(b"PAR1")
    refuse(folder, "cannot be read", **options)
    assert list(temporary.iterdir()) + list(out.iterdir()) == []


def test_debug_shows_the_traceback(tmp_path, cli):
    rows = of_probs()
    rows.y[3] = 7
    path = write(table(rows), tmp_path / "a.parquet")
    plain = cli("analyze", path, "--strict", "--quiet")
    assert plain.err.count("\n") == 1
    debug = cli("analyze", path, "--strict", "--quiet", "--debug")
    assert (plain.code, debug.code) == (2, 2)
    assert debug.err.startswith("Traceback")
    assert debug.err.endswith(plain.err)
    usage = cli("analyze", "--no-such-option")
    assert usage.code == 2
    assert re.fullmatch(r"error: [^\n]*--no-such-option[^\n]*\n", usage.err), usage.err

"""The same samples in any layout and type are the same tables, and it is said what was read."""

import tracemalloc
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from dumps import (
    arrays,
    as_kind,
    as_list,
    assert_same,
    column,
    make,
    table,
    whole,
    write,
    write_files,
)  # fmt: skip

import fastdiv
from fastdiv.plan import make_plan, selection
from fastdiv.sources import Asked, open_source

EPOCHS = (2, 7, 10)
NAMES = [f"c-{k:02}" for k in range(12)]
VALUES = ("logits", "probs", "logprobs")
STRINGS = [pa.string(), pa.large_string(), pa.dictionary(pa.int16(), pa.string())]


@pytest.fixture(scope="module")
def twelve():
    """Twelve classes, so that class 10 comes after class 2 only where numbers are compared."""
    return make(EPOCHS, n=50, c=12)


@pytest.fixture(scope="module")
def wanted(twelve):
    return fastdiv.analyze(arrays(twelve))


# Predictions, in files and in memory ----------------------------------------------------------

LAYOUTS = ("list", "large_list", "fixed_size_list", "wide0", "wide1")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_in_files(tmp_path, twelve, wanted, layout):
    assert_same(fastdiv.analyze(write_files(tmp_path, twelve, layout)), wanted)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_in_memory(twelve, wanted, layout):
    assert_same(fastdiv.analyze(whole(twelve, layout)), wanted)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_sliced_and_chunked_tables(twelve, wanted, layout):
    t = whole(twelve, layout)
    padded = pa.concat_tables([t.slice(3, 4), t, t.slice(0, 5)]).combine_chunks()
    assert_same(fastdiv.analyze(padded.slice(4, len(t))), wanted)
    pieces = [t.slice(start, 13) for start in range(0, len(t), 13)]
    assert_same(fastdiv.analyze(pa.concat_tables(pieces)), wanted)


def test_wide_columns_out_of_the_way_are_asked_for(twelve, wanted):
    t = whole(twelve, "wide0").rename_columns({f"logits_{k}": f"out/head_{k}" for k in range(12)})
    t = t.append_column("other_0", t["out/head_1"]).append_column("other_1", t["out/head_0"])
    with pytest.raises(
        fastdiv.UsageError, match=r"several groups.*out/head_.*other_.*--predictions"
    ):
        fastdiv.analyze(t)
    assert_same(fastdiv.analyze(t, predictions="out/head*"), wanted)
    in_order = ",".join(f"out/head_{k}" for k in range(12))
    assert_same(fastdiv.analyze(t, predictions=in_order), wanted)


def test_files_of_one_data_set_may_differ_in_layout(tmp_path, twelve, wanted):
    for (epoch, rows), layout in zip(twelve.items(), LAYOUTS, strict=False):
        t = table(rows, layout, note="x") if epoch == 7 else table(rows, layout)
        write(t.select(t.column_names[::-1]), tmp_path / f"epoch_{epoch}.parquet")
    assert_same(fastdiv.analyze(tmp_path), wanted)


# Where the epoch is told ----------------------------------------------------------------------


def in_one_file(folder, dump):
    return write(whole(dump), folder / "all.parquet", row_group_size=33)  # straddles 50 a time


def in_names(folder, dump):
    return write_files(folder, dump, pattern="preds_epoch_{}.parquet")


def in_lightning_names(folder, dump):
    return write_files(folder, dump, pattern="epoch={}-val.parquet")


def in_padded_names(folder, dump):
    return write_files(folder, dump, pattern="run3-step{:05}.parquet")


def in_hive(folder, dump):
    return write_files(folder, dump, pattern="epoch={}/part-0.parquet")


def in_parts(folder, dump):
    for epoch, rows in dump.items():
        for part in (0, 1, 2):
            some = rows.take(slice(part * 20, part * 20 + 20))
            write(table(some), folder / f"epoch={epoch}" / f"part-{part}.parquet")
    return folder


def in_a_glob(folder, dump):
    return str(in_hive(folder, dump) / "epoch=*" / "*.parquet")


def in_a_list(folder, dump):
    return sorted(in_names(folder, dump).glob("*.parquet"))


def in_a_mapping_to_files(folder, dump):
    write_files(folder, dump, pattern="{}.parquet")
    return {epoch: folder / f"{epoch}.parquet" for epoch in dump}


def in_a_mapping_to_tables(folder, dump):
    return {epoch: table(rows, LAYOUTS[i]) for i, (epoch, rows) in enumerate(dump.items())}


def in_a_mapping_to_mappings(folder, dump):
    return {e: {"ids": r.ids, "predictions": r.x, "labels": r.y} for e, r in dump.items()}


def in_float_numbers(folder, dump):
    t = whole(dump)
    return t.set_column(t.schema.get_field_index("epoch"), "epoch", t["epoch"].cast(pa.float64()))


PLACES = [
    in_one_file, in_names, in_lightning_names, in_padded_names, in_hive, in_parts, in_a_glob,
    in_a_list, in_a_mapping_to_files, in_a_mapping_to_tables, in_a_mapping_to_mappings,
    in_float_numbers,
]  # fmt: skip


@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.__name__[3:])
def test_where_the_epoch_is_told(tmp_path, twelve, wanted, place):
    assert_same(fastdiv.analyze(place(tmp_path, twelve)), wanted)


def test_keys_of_a_mapping_win_over_a_column(tmp_path, twelve, wanted):
    tables = {e: table(rows, epoch=5) for e, rows in twelve.items()}
    assert_same(fastdiv.analyze(tables), wanted)
    files = {e: write(t, tmp_path / f"{e}.parquet") for e, t in tables.items()}
    assert_same(fastdiv.analyze(files), wanted)


def test_epochs_far_apart_cost_nothing(tmp_path):
    path = write(whole(make((0, 1_500_000, 3_000_000))), tmp_path / "a.parquet")
    source = open_source(str(path), Asked())
    tracemalloc.start()
    make_plan(source, selection("0,3000000"), 1, False)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10 << 20  # the numbers between are no epochs
    assert column(fastdiv.analyze(path, epochs="0,3000000"), "epoch") == [0, 3_000_000]


# Kinds and dtypes -----------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_kinds_agree(dtype):
    runs = []
    for kind in VALUES:
        rows = {e: as_kind(r, kind) for e, r in make(dtype=dtype).items()}
        runs.append(fastdiv.analyze({e: r.arrays() for e, r in rows.items()}))
        assert runs[-1].summary["kind"] == kind
        assert runs[-1].summary["dtype"] == np.dtype(dtype).name
    size = 60 * float(np.finfo(dtype).eps)  # of the rounding of the predictions themselves
    for name in ("loss", "accuracy", "confidence", "brier", "margin", "loss_wrong"):
        for run in runs[1:]:
            assert column(run, name) == pytest.approx(column(runs[0], name), rel=size), name


@pytest.mark.parametrize("kind", VALUES)
def test_dtypes_agree(kind):
    half = {e: as_kind(r, kind) for e, r in make(dtype=np.float16).items()}
    runs = []
    for dtype in (np.float16, np.float32, np.float64):
        source = {e: table(replace(r, x=r.x.astype(dtype))) for e, r in half.items()}
        runs.append(fastdiv.analyze(source, kind=kind))
    for name in ("loss", "accuracy", "confidence", "brier", "margin", "ece"):
        for run in runs[1:]:
            assert column(run, name) == pytest.approx(column(runs[0], name), rel=2e-6), name
    counts = ("n", "rr", "rw", "wr", "ww_same", "ww_changed")
    for name in counts:
        assert len({tuple(column(run, name, "transitions")) for run in runs}) == 1


@pytest.mark.parametrize("in_memory", [False, True])
def test_dtypes_that_change_between_epochs_widen(tmp_path, in_memory):
    dump = make((0, 1), dtype=np.float64)
    dump[0].x = dump[0].x.astype(np.float32)
    wanted = fastdiv.analyze({e: (r.x.astype(np.float64), r.y, r.ids) for e, r in dump.items()})
    source = {e: table(r) for e, r in dump.items()} if in_memory else write_files(tmp_path, dump)
    assert_same(fastdiv.analyze(source), wanted)


def test_the_loss_may_be_clipped(dump):
    probs = {e: as_kind(r, "probs") for e, r in dump.items()}
    probs[2].x[0] = np.eye(3)[(probs[2].y[0] + 1) % 3]  # infinitely wrong
    losses = [fastdiv.score(r.x, r.y, kind="probs").loss for r in probs.values()]
    run = fastdiv.analyze(arrays(probs), clip=1e-2)
    highest = -np.log(1e-2)
    assert sum(np.isinf(losses[0])) == 1
    assert all((loss > highest).any() for loss in losses[:2])  # there is something to clip
    clipped = [np.minimum(loss, highest).mean(dtype=float) for loss in losses]
    assert column(run, "loss") == pytest.approx(clipped, rel=1e-6)
    assert column(run, "n_infinite") == [0, 0, 0]
    assert column(run, "n_infinite", "transitions") == [0, 0]
    assert max(column(run, "last_loss", "samples")) <= np.float32(highest)


# Labels and class names -----------------------------------------------------------------------

TYPES = [pa.int8(), pa.uint8(), pa.int16(), pa.uint16(), pa.int32(), pa.uint32(), pa.int64(),
         pa.uint64(), pa.float16(), pa.float32(), pa.float64()]  # fmt: skip


@pytest.mark.parametrize("type_", TYPES, ids=str)
@pytest.mark.parametrize("dictionary", [False, True])
def test_label_types(tmp_path, twelve, wanted, type_, dictionary):
    t = whole(twelve)
    labels = t["label"].cast(type_)
    if dictionary:
        if pa.types.is_floating(type_):
            pytest.skip("nobody encodes floats")
        labels = labels.dictionary_encode()
    t = t.set_column(t.schema.get_field_index("label"), "label", labels)
    assert_same(fastdiv.analyze(t), wanted)
    if type_ != pa.float16():
        assert_same(fastdiv.analyze(write(t, tmp_path / "a.parquet")), wanted)


def test_bool_labels():
    dump = make(c=2)
    wanted = fastdiv.analyze(arrays(dump))
    assert_same(fastdiv.analyze({e: table(r, label=r.y == 1) for e, r in dump.items()}), wanted)
    assert_same(fastdiv.analyze({e: (r.x, r.y == 1, r.ids) for e, r in dump.items()}), wanted)


@pytest.mark.parametrize("type_", STRINGS)
def test_string_labels_with_class_names(tmp_path, twelve, type_):
    t = whole(twelve)
    named = fastdiv.analyze(t, class_names=NAMES)
    assert set(column(named, "class", "classes")) == set(NAMES)
    assert set(column(named, "label", "samples")) <= set(NAMES)
    strings = pc.take(pa.array(NAMES), t["label"].combine_chunks()).cast(type_)
    t = t.set_column(t.schema.get_field_index("label"), "label", strings)
    assert_same(fastdiv.analyze(t, class_names=NAMES), named)
    path = write(t, tmp_path / "a.parquet", row_group_size=33)
    assert_same(fastdiv.analyze(path, class_names=NAMES), named)
    assert_same(fastdiv.analyze(path, class_names=",".join(NAMES)), named)
    with pytest.raises(fastdiv.UsageError, match=r"'label' are strings.*--class-names"):
        fastdiv.analyze(path)


def test_dictionaries_that_change_between_chunks(twelve):
    named = fastdiv.analyze(whole(twelve), class_names=NAMES)
    tables = []
    for i, (epoch, rows) in enumerate(twelve.items()):
        order = np.random.default_rng(i).permutation(12)
        codes = pa.array(np.argsort(order)[rows.y].astype(np.int8))
        labels = pa.DictionaryArray.from_arrays(codes, pa.array([NAMES[k] for k in order]))
        tables.append(table(rows, label=labels, epoch=epoch))
    assert_same(fastdiv.analyze(pa.concat_tables(tables), class_names=NAMES), named)


@pytest.mark.parametrize("prefix", ["", "prob_"])
def test_wide_columns_named_by_class(tmp_path, twelve, prefix):
    tables = []
    for epoch, rows in twelve.items():
        columns = {prefix + name: rows.x[:, k] for k, name in enumerate(NAMES)}
        labels = [NAMES[k] for k in rows.y]
        tables.append(table(rows, label=labels, logits=None, epoch=epoch, **columns))
    path = write(pa.concat_tables(tables), tmp_path / "a.parquet")
    run = fastdiv.analyze(path)
    assert_same(run, fastdiv.analyze(whole(twelve), class_names=NAMES))
    assert run.summary["class_names"] == NAMES
    assert "named by class" in run.summary["columns"]["predictions"]


def test_string_labels_of_arrays(twelve):
    named = fastdiv.analyze(arrays(twelve), class_names=NAMES)
    source = {e: (r.x, np.array(NAMES)[r.y], r.ids) for e, r in twelve.items()}
    assert_same(fastdiv.analyze(source, class_names=NAMES), named)


# Splits ---------------------------------------------------------------------------------------


def test_splits(tmp_path, dump):
    """The same ids in both splits are other samples, however the split is told."""
    other = make(EPOCHS, seed=1)
    both = {"train": dump, "val": {e: replace(r, ids=dump[e].ids) for e, r in other.items()}}
    wanted = fastdiv.analyze({name: arrays(rows) for name, rows in both.items()})
    assert column(wanted, "split") == ["train"] * 3 + ["val"] * 3
    assert column(wanted, "n") == [40] * 6
    assert len(wanted.samples) == 80
    t = pa.concat_tables([whole(rows, split=name) for name, rows in both.items()])
    assert_same(fastdiv.analyze(t), wanted)
    mixed = t.take(np.random.default_rng(0).permutation(len(t)))
    encoded = mixed.set_column(4, "split", mixed["split"].dictionary_encode())
    assert_same(fastdiv.analyze(encoded), wanted)
    assert_same(fastdiv.analyze(write(mixed, tmp_path / "a.parquet", row_group_size=33)), wanted)
    renamed = t.rename_columns({"split": "part of"})
    assert_same(fastdiv.analyze(renamed, split="part of"), wanted)
    for name, rows in both.items():
        write_files(tmp_path / "hive" / f"split={name}", rows, pattern="epoch={}/a.parquet")
        write_files(tmp_path / "named" / name, rows)
    assert_same(fastdiv.analyze(tmp_path / "hive"), wanted)
    named = {name: str(tmp_path / "named" / name) for name in both}
    assert_same(fastdiv.analyze(named), wanted)
    for name, rows in wanted.compare(2, 10).to_pydict().items():
        assert len(rows) == 2, name


def test_without_a_split_the_key_is_null(dump):
    run = fastdiv.analyze(arrays(dump))
    for name in ("epochs", "transitions", "samples", "classes"):
        assert set(column(run, "split", name)) == {None}


# Ids ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("type_", [pa.int8(), pa.int32(), pa.uint16(), pa.int64()], ids=str)
def test_types_of_integer_ids(dump, type_):
    few = {e: replace(r, ids=np.argsort(r.ids)) for e, r in dump.items()}
    t = whole(few)
    t = t.set_column(0, "sample_id", t["sample_id"].cast(type_))
    assert_same(fastdiv.analyze(t), fastdiv.analyze(arrays(few)))


@pytest.mark.parametrize("type_", STRINGS)
def test_string_ids(dump, type_):
    named = {e: replace(r, ids=np.char.add("é-", r.ids.astype(str))) for e, r in dump.items()}
    wanted = fastdiv.analyze(arrays(named))
    ids = column(wanted, "sample_id", "samples")
    assert ids == sorted(named[2].ids.tolist())
    t = whole(named)
    assert_same(fastdiv.analyze(t.set_column(0, "sample_id", t["sample_id"].cast(type_))), wanted)
    plain = fastdiv.analyze(arrays(dump))
    assert_same(wanted, plain, ("epochs", "transitions", "classes"))


def test_largest_integer_ids():
    dump = make((0, 1))
    top = {e: replace(r, ids=r.ids.astype(np.uint64) + (2**64 - 500)) for e, r in dump.items()}
    run = fastdiv.analyze({e: r.shuffled(e).arrays() for e, r in top.items()})
    assert column(run, "sample_id", "samples") == sorted(top[0].ids.tolist())


def test_without_ids_position_counts_and_it_says_so(tmp_path, dump):
    wanted = fastdiv.analyze({e: (r.x, r.y, np.arange(40)) for e, r in dump.items()})
    bare = {e: table(r, sample_id=None) for e, r in dump.items()}
    for epoch, t in bare.items():
        for part in (1, 2, 10):  # part-10 comes last
            rows = {1: (0, 3), 2: (3, 20), 10: (23, 17)}[part]
            write(t.slice(*rows), tmp_path / "files" / f"epoch={epoch}" / f"part-{part}.parquet")
    sources = [bare, tmp_path / "files", {e: (r.x, r.y) for e, r in dump.items()}]
    for source in sources:
        run = fastdiv.analyze(source)
        assert_same(run, wanted)
        assert "position" in run.summary["columns"]["id"]
        assert run.summary["splits"][0]["ids"] == "position"
    run = fastdiv.analyze(whole(dump), id="none")
    assert_same(run, wanted)
    assert "as asked" in run.summary["columns"]["id"]


# What was found, and what was asked for -------------------------------------------------------


def test_evidence(tmp_path, dump):
    found = fastdiv.analyze(write_files(tmp_path, dump, "fixed_size_list")).summary["columns"]
    assert "'logits' (fixed_size_list<element: float>[3])" in found["predictions"]
    assert "'label' (int64)" in found["label"]
    assert "'sample_id' (int64)" in found["id"]
    assert "preds_epoch_" in found["epoch"]
    assert found["kind"].startswith("logits: 40 sampled rows hold values from -")
    probs = {e: as_kind(r, "probs") for e, r in dump.items()}
    found = fastdiv.analyze(whole(probs, name="preds")).summary["columns"]
    assert found["kind"].startswith("probs:")
    assert "sum to 1" in found["kind"]


def test_options_override_detection(dump):
    """Every column has a decoy with a name that would be taken first."""
    rows = dump[2]
    wanted = fastdiv.analyze({("b"): {5: rows.arrays()}})
    decoys = {
        "sample_id": rows.ids % 7, "label": rows.y[::-1].copy(), "logits": as_list(-rows.x),
        "epoch": 1, "split": "a", "key2": rows.ids, "said": rows.y, "out": as_list(rows.x),
        "round": 5, "fold": "b",
    }  # fmt: skip
    asked = {"id": "key2", "label": "said", "predictions": "out", "epoch": "round", "split": "fold"}
    run = fastdiv.analyze(table(rows, **decoys), **asked)
    assert_same(run, wanted)
    assert all("as asked" in run.summary["columns"][role] for role in asked)


def test_a_few_bad_rows_do_not_change_the_kind(dump):
    rows = as_kind(make(n=200)[0], "probs")
    rows.x[17] = [1.5, -0.3, -0.2]
    run = fastdiv.analyze(table(rows))
    assert run.summary["kind"] == "probs"
    assert column(run, "n_invalid") == [1]


@pytest.mark.parametrize(
    ("asked", "epochs"),
    [
        ("7", [7]),
        ("2,10", [2, 10]),
        ("0:10", [2, 7]),
        ("2:11:4", [2, 10]),
        (":", [2, 7, 10]),
        ("7:", [7, 10]),
        ([10, 2], [2, 10]),
        (slice(None, 8), [2, 7]),
        (range(7, 11), [7, 10]),
    ],
    ids=str,
)
def test_selected_epochs(tmp_path, dump, asked, epochs):
    wanted = fastdiv.analyze(arrays({e: dump[e] for e in epochs}))
    straddling = write(whole(dump), tmp_path / "one" / "all.parquet", row_group_size=33)
    for source in (whole(dump), straddling, write_files(tmp_path / "files", dump)):
        assert_same(fastdiv.analyze(source, epochs=asked), wanted)


def test_epochs_not_selected_are_not_read(tmp_path, dump):
    folder = write_files(tmp_path, dump)
    dump[7].y[:] = 99
    write_files(tmp_path, {7: dump[7]})
    run = fastdiv.analyze(folder, epochs="2,10", strict=True)
    assert run.summary["rows"] == 80


@pytest.mark.parametrize("asked", ["3", "5,6", "11:", "x", "1,,2", "1:2:0", "1:2:3:4", "", []])
def test_selections_of_nothing_and_nonsense(dump, asked):
    with pytest.raises(fastdiv.FastdivError, match="epoch"):
        fastdiv.analyze(arrays(dump), epochs=asked)


def test_too_little_memory_is_refused_with_the_estimate(tmp_path, dump):
    folder = write_files(tmp_path, dump)
    for too_little in ("1MB", "0.001 GiB", 10**6):
        with pytest.raises(fastdiv.UsageError, match=r"estimated \d+ MB .*--memory"):
            fastdiv.analyze(folder, memory=too_little)
    assert_same(fastdiv.analyze(folder, memory="4GB"), fastdiv.analyze(folder))
    for nonsense in ("much", "1.2.3GB", "-4GB", "4XB", "."):
        with pytest.raises(fastdiv.UsageError, match="memory"):
            fastdiv.analyze(folder, memory=nonsense)


def test_an_untrained_network_gives_logits_of_zero():
    x = np.zeros((8, 3), np.float32)
    later = x + np.array([3, 0, -1], np.float32)
    run = fastdiv.analyze({0: (x, np.zeros(8, int)), 1: (later, np.zeros(8, int))})
    assert run.summary["kind"] == "logits"
    assert column(run, "loss")[0] == pytest.approx(np.log(3))

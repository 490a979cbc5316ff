"""Columns as eval jobs write them: packed, nested, one-hot, a single score, ids of any width."""

import json
import re
import uuid
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from dumps import Rows, arrays, as_kind, as_list, assert_same, column, make, table, whole, write

import fastdiv

EPOCHS = (2, 7, 10)
C = 4
NAMES = ["cat", "dog", "eel", "fox"]
NO_IDS = ("epochs", "transitions", "classes")


@pytest.fixture(scope="module")
def four():
    return make(EPOCHS, n=50, c=C)


@pytest.fixture(scope="module")
def wanted(four):
    return fastdiv.analyze(arrays(four))


def with_predictions(dump, pack, name="logits"):
    """Return one table of all epochs whose predictions are packed in some way."""
    tables = [
        table(rows, epoch=epoch).set_column(2, name, pack(rows.x)) for epoch, rows in dump.items()
    ]
    return pa.concat_tables(tables)


def both_ways(tmp_path, data, wanted, tables=None, **options):
    """Analyze a table in memory, sliced and chunked, and in a Parquet file."""
    padded = pa.concat_tables([data.slice(3, 4), data, data.slice(0, 5)])
    sources = [data, padded.slice(4, len(data)), write(data, tmp_path / "a.parquet")]
    more = {} if tables is None else {"tables": tables}
    for source in sources:
        assert_same(fastdiv.analyze(source, **options), wanted, **more)


# Predictions ----------------------------------------------------------------------------------


def as_tensor(x):
    return pa.FixedShapeTensorArray.from_numpy_ndarray(np.ascontiguousarray(x))


def as_column_tensor(x):
    return pa.ExtensionArray.from_storage(
        pa.fixed_shape_tensor(pa.float32(), (1, C)), as_list(x, "fixed_size_list")
    )


def as_bytes(x):
    return pa.array([row.tobytes() for row in x], pa.binary(x.shape[1] * x.itemsize))


def as_loose_bytes(x):
    return pa.array([row.tobytes() for row in x], pa.binary())


def as_list_view(x):
    n = len(x)
    offsets, sizes = pa.array(np.arange(n, dtype=np.int32) * C), pa.array([C] * n, pa.int32())
    return pa.ListViewArray.from_arrays(offsets, sizes, pa.array(x.ravel()))


def as_scattered_list_view(x):
    order = np.random.default_rng(0).permutation(len(x))
    offsets = pa.array(np.argsort(order).astype(np.int64) * C)
    sizes = pa.array([C] * len(x), pa.int64())
    return pa.LargeListViewArray.from_arrays(offsets, sizes, pa.array(x[order].ravel()))


def as_dictionary_of_lists(x):
    """Each row's list stands in a dictionary in another order."""
    order = np.random.default_rng(0).permutation(len(x))
    codes = pa.array(np.argsort(order).astype(np.int16))
    return pa.DictionaryArray.from_arrays(codes, as_list(x[order]))


PACKED = [as_tensor, as_column_tensor, as_bytes, as_loose_bytes]
IN_MEMORY = [as_list_view, as_scattered_list_view, as_dictionary_of_lists]


@pytest.mark.parametrize("pack", PACKED)
def test_packed_predictions(tmp_path, four, wanted, pack):
    data = with_predictions(four, pack)
    both_ways(tmp_path, data, wanted, **({"dtype": "float32"} if "bytes" in pack.__name__ else {}))


@pytest.mark.parametrize("pack", IN_MEMORY)
def test_lists_that_only_memory_holds(four, wanted, pack):
    assert_same(fastdiv.analyze(with_predictions(four, pack)), wanted)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("pack", [as_bytes, as_loose_bytes])
def test_bytes_of_any_dtype(tmp_path, dtype, pack):
    dump = make(EPOCHS, n=50, c=C, dtype=np.dtype(dtype))
    both_ways(tmp_path, with_predictions(dump, pack), fastdiv.analyze(arrays(dump)), dtype=dtype)


def test_the_dtype_of_bytes_is_told_by_the_metadata(tmp_path, four, wanted):
    data = with_predictions(four, as_bytes)
    said = {b"fastdiv": json.dumps({"dtype": "float32"}).encode()}
    assert_same(
        fastdiv.analyze(write(data.replace_schema_metadata(said), tmp_path / "a.parquet")), wanted
    )


def test_bytes_of_unknown_dtype_ask_for_it(four):
    data = with_predictions(four, as_bytes)
    for options in ({}, {"predictions": "logits"}):
        with pytest.raises(fastdiv.UsageError, match=r"logits.*fixed_size_binary\[16\].*--dtype"):
            fastdiv.analyze(data, **options)
    with pytest.raises(fastdiv.UsageError, match="dtype must be one of float16"):
        fastdiv.analyze(data, dtype="int8")
    odd = data.set_column(2, "logits", pa.array([b"xyz"] * len(data), pa.binary(3)))
    with pytest.raises(fastdiv.DataError, match=r"'logits' holds 3 bytes.*right --dtype"):
        fastdiv.analyze(odd, dtype="float32")


def test_missing_and_cut_bytes_are_invalid_rows(four):
    rows = [row.tobytes() for row in four[2].x]
    rows[3], rows[5] = None, rows[5][:-4]
    data = table(four[2]).set_column(2, "logits", pa.array(rows, pa.binary()))
    run = fastdiv.analyze(data, dtype="float32")
    reasons = {r["reason"]: r["first"] for r in run.summary["invalid"]["reasons"]}
    assert reasons == {"null": ["data, row 3"], "length": ["data, row 5"]}


def test_a_tensor_of_more_than_one_axis_is_refused(four):
    x = np.zeros((50, 2, 2), np.float32)
    data = table(four[2]).set_column(2, "logits", pa.FixedShapeTensorArray.from_numpy_ndarray(x))
    with pytest.raises(fastdiv.UsageError, match=r"tensors of shape \(2, 2\)"):
        fastdiv.analyze(data)


def bfloat16_words(x):
    return (x.view(np.uint32) >> 16).astype(np.uint16)


def widened(words):
    return (words.astype(np.uint32) << 16).view(np.float32)


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("pack", [as_list, as_bytes, as_tensor])
def test_bfloat16_as_words(tmp_path, four, pack, signed):
    words = {e: bfloat16_words(rows.x) for e, rows in four.items()}
    want = fastdiv.analyze({e: (widened(w), four[e].y, four[e].ids) for e, w in words.items()})
    dtype = np.int16 if signed else np.uint16
    data = with_predictions(four, lambda x: pack(bfloat16_words(x).view(dtype)))
    both_ways(tmp_path, data, want, dtype="bfloat16")


def test_bfloat16_of_arrays_and_its_mixture_with_others(four):
    words = {e: bfloat16_words(rows.x) for e, rows in four.items()}
    want = fastdiv.analyze({e: (widened(w), four[e].y, four[e].ids) for e, w in words.items()})
    run = fastdiv.analyze(
        {e: (w, four[e].y, four[e].ids) for e, w in words.items()}, dtype="bfloat16"
    )
    assert_same(run, want)
    assert run.summary["dtype"] == "bfloat16"
    some = {e: table(four[e]).set_column(2, "logits", as_list(w)) for e, w in words.items()}
    some[7] = table(Rows(widened(words[7]), four[7].y, four[7].ids))
    run = fastdiv.analyze(some, dtype="bfloat16")
    assert_same(run, want)
    assert run.summary["dtype"] == "float32"


def nested(data):
    """Return a table with the predictions and the label inside of structs."""
    outputs = pa.StructArray.from_arrays(
        [data["logits"].combine_chunks(), data["epoch"].combine_chunks()], ["logits", "epoch"]
    )
    meta = pa.StructArray.from_arrays([data["label"].combine_chunks()], ["label"])
    batch = pa.StructArray.from_arrays([meta, data["sample_id"].combine_chunks()], ["meta", "id"])
    return pa.table({"batch": batch, "outputs": outputs, "a.b": [0] * len(data)})


def test_nested_columns(tmp_path, four, wanted):
    data = nested(whole(four))
    both_ways(tmp_path, data, wanted)
    both_ways(
        tmp_path, data, wanted, predictions="outputs.logits", label="batch.meta.label",
        id="batch.id", epoch="outputs.epoch",
    )  # fmt: skip
    evidence = fastdiv.analyze(data).summary["columns"]
    assert "'outputs.logits'" in evidence["predictions"]
    assert "'batch.meta.label'" in evidence["label"]


def test_nulls_above_a_nested_column_are_nulls(tmp_path, four):
    data = nested(table(four[2], epoch=2))
    mask = pa.array([i == 3 for i in range(len(data))])
    fields = [data["outputs"].combine_chunks().field(i) for i in range(2)]
    fields[1] = pa.array([2] * len(data))
    broken = pa.StructArray.from_arrays(fields[:1], ["logits"], mask=mask)
    data = data.set_column(1, "outputs", broken)
    for source in (data, write(data, tmp_path / "a.parquet")):
        invalid = fastdiv.analyze(source).summary["invalid"]
        assert [(r["reason"], r["n"]) for r in invalid["reasons"]] == [("null", 1)]
        assert invalid["reasons"][0]["first"][0].endswith("row 3")


def test_columns_named_by_class_in_any_order(tmp_path, four):
    labels = {e: np.array(NAMES)[rows.y] for e, rows in four.items()}
    want = fastdiv.analyze(arrays(four), class_names=NAMES)
    for order in ([0, 1, 2, 3], [3, 1, 0, 2]):
        tables = []
        for epoch, rows in four.items():
            t = table(rows, label=labels[epoch], epoch=epoch).drop_columns("logits")
            for k in order:
                t = t.append_column(NAMES[k], pa.array(rows.x[:, k]))
            tables.append(t.append_column("seconds", pa.array(np.full(len(rows), 0.5))))
        data = pa.concat_tables(tables)
        both_ways(tmp_path, data, want, class_names=NAMES, kind="logits")


def test_numbers_of_other_types_in_columns_a_class(tmp_path, four):
    """Decimals, as SQL writes them, and integers, where they are asked for."""
    x = np.round(four[2].x).astype(int)
    wide = {f"z_{k}": [Decimal(int(v)) for v in x[:, k]] for k in range(C - 1)} | {"z_3": x[:, 3]}
    want = fastdiv.analyze({2: (x.astype(float), four[2].y, four[2].ids)})
    data = table(four[2], epoch=2).drop_columns("logits")
    for name, values in wide.items():
        data = data.append_column(name, pa.array(values))
    both_ways(tmp_path, data, want, predictions="z_*")


def test_the_kind_that_the_metadata_says_counts_but_is_checked(four):
    said = {b"fastdiv": json.dumps({"kind": "probs"}).encode()}
    uniform = np.full((50, C), 0.25, np.float32)
    data = table(Rows(uniform * 2, four[2].y, four[2].ids), name="x")
    with pytest.raises(fastdiv.DataError, match="give --kind"):
        fastdiv.analyze(data)
    run = fastdiv.analyze(data.replace_schema_metadata(said))
    assert run.summary["kind"] == "probs"
    assert "metadata" in run.summary["columns"]["kind"]
    assert fastdiv.analyze(data.replace_schema_metadata(said), kind="logits").summary["kind"] == (
        "logits"
    )
    with pytest.raises(fastdiv.DataError, match="said to be probs"):
        fastdiv.analyze(whole(four).replace_schema_metadata(said))


# One score of one class -----------------------------------------------------------------------


def binary(kind, n=60):
    rows = make((0,), n=n, c=2)[0]
    if kind == "logits":
        return Rows(np.stack([np.zeros(n, np.float32), rows.x[:, 1]], 1), rows.y, rows.ids)
    p = as_kind(rows, "probs").x[:, 1]
    if kind == "probs":
        return Rows(np.stack([1 - p, p], 1), rows.y, rows.ids)
    return Rows(np.stack([np.log1p(-p), np.log1p(-(1 - p))], 1), rows.y, rows.ids)


@pytest.mark.parametrize("kind", ["logits", "probs"])
@pytest.mark.parametrize("labels", ["integers", "bool", "float"])
def test_the_score_of_class_1(tmp_path, kind, labels):
    rows = binary(kind)
    want = fastdiv.analyze({0: rows.arrays()})
    y = {"integers": rows.y, "bool": rows.y.astype(bool), "float": rows.y.astype(float)}[labels]
    data = (
        table(rows, label=y).drop_columns("logits").append_column("score", pa.array(rows.x[:, 1]))
    )
    both_ways(tmp_path, data, want)
    run = fastdiv.analyze(data)
    assert "score of class '1'" in run.summary["columns"]["predictions"]
    assert run.summary["kind"] == kind


def test_logprobs_of_class_1():
    rows = binary("probs")
    logs = np.log(rows.x)
    data = table(rows).drop_columns("logits").append_column("logp", pa.array(logs[:, 1]))
    run = fastdiv.analyze(data, kind="logprobs")
    want = fastdiv.analyze({0: (logs, rows.y, rows.ids)}, kind="logprobs")
    for name in ("loss", "brier", "accuracy", "confidence"):
        assert column(run, name)[0] == pytest.approx(column(want, name)[0], rel=1e-6)


@pytest.mark.parametrize("positive", [0, 1])
def test_the_score_of_either_class(positive):
    rows = binary("probs")
    want = fastdiv.analyze({0: rows.arrays()})
    data = table(rows).drop_columns("logits")
    data = data.append_column("prob", pa.array(rows.x[:, positive]))
    run = fastdiv.analyze(data, positive=str(positive))
    if positive:
        assert_same(run, want)
    else:  # 1 - (1 - p) is not p
        assert column(run, "accuracy") == column(want, "accuracy")
        assert column(run, "loss")[0] == pytest.approx(column(want, "loss")[0], rel=1e-6)


def test_the_score_of_a_named_class(cli, tmp_path):
    rows = binary("probs")
    names = np.array(["ham", "spam"])
    want = fastdiv.analyze({0: rows.arrays()}, class_names=["ham", "spam"])
    data = table(rows, label=names[rows.y]).drop_columns("logits")
    data = data.append_column("p", pa.array(rows.x[:, 1]))
    both_ways(tmp_path, data, want, positive="spam")
    both_ways(tmp_path, data, want, positive="spam", class_names="ham,spam")
    with pytest.raises(fastdiv.UsageError, match=r"'p'.*--positive LABEL"):
        fastdiv.analyze(data)
    with pytest.raises(fastdiv.UsageError, match=r"'p' holds one score.*labels seen: ham, spam"):
        fastdiv.analyze(data, predictions="p")
    path = write(data, tmp_path / "b.parquet")
    ended = cli("analyze", path, "--positive", "spam", "--json")
    assert json.loads(ended.out)["class_names"] == ["ham", "spam"]


def test_one_class_against_the_rest():
    rows = make((0,), c=4)[0]
    p = as_kind(rows, "probs").x[:, 2]
    want = fastdiv.analyze({0: (np.stack([1 - p, p], 1), (rows.y == 2).astype(int), rows.ids)})
    data = table(rows).drop_columns("logits").append_column("prob", pa.array(p))
    assert_same(fastdiv.analyze(data, positive="2"), want)
    named = data.set_column(1, "label", pa.array(np.array(NAMES)[rows.y]))
    run = fastdiv.analyze(named, positive="eel")
    assert run.summary["class_names"] == ["not eel", "eel"]
    assert_same(run, want, tables=("epochs",))


def test_bad_single_scores_are_counted():
    rows = binary("probs")
    p = rows.x[:, 1].astype(float).tolist()
    p[1], p[2], p[3] = None, np.nan, 1.5
    data = table(rows).drop_columns("logits").append_column("prob", pa.array(p, pa.float32()))
    invalid = fastdiv.analyze(data).summary["invalid"]
    assert {r["reason"]: r["first"] for r in invalid["reasons"]} == {
        "nan": ["data, row 2"], "contradicts_kind": ["data, row 3"], "null": ["data, row 1"],
    }  # fmt: skip


def test_positive_with_a_score_for_each_class_is_refused(four):
    with pytest.raises(fastdiv.UsageError, match="--positive is for a single score"):
        fastdiv.analyze(whole(four), positive="1")


# Labels ---------------------------------------------------------------------------------------


def one_hot(y):
    return np.eye(C, dtype=np.int8)[y]


@pytest.mark.parametrize(
    "encode",
    [
        lambda y: pa.array(one_hot(y).tolist()),
        lambda y: pa.array(one_hot(y).astype(bool).tolist()),
        lambda y: as_list(one_hot(y).astype(np.float32), "fixed_size_list"),
        lambda y: pa.array([[int(v)] for v in y]),
        lambda y: pa.DictionaryArray.from_arrays(
            pa.array((C - 1 - y).astype(np.int8)), pa.array(range(C - 1, -1, -1))
        ),
    ],
    ids=["integers", "bools", "floats", "one of length 1", "dictionary"],
)
def test_encoded_labels(tmp_path, four, wanted, encode):
    tables = [
        table(rows, epoch=epoch).set_column(1, "label", encode(rows.y))
        for epoch, rows in four.items()
    ]
    both_ways(tmp_path, pa.concat_tables(tables), wanted)


@pytest.mark.parametrize("encode", [one_hot, lambda y: y[:, None], lambda y: y.astype(np.float64)])
def test_encoded_labels_of_arrays(four, wanted, encode):
    source = {e: (rows.x, encode(rows.y), rows.ids) for e, rows in four.items()}
    assert_same(fastdiv.analyze(source), wanted)


def test_rows_that_are_not_one_hot_have_no_label(four):
    labels = one_hot(four[2].y).tolist()
    labels[3], labels[4], labels[5], labels[6] = None, [0] * C, [1, 1, 0, 0], [1, 0, 0]
    labels[7][labels[7].index(0)] = None
    data = table(four[2]).set_column(1, "label", pa.array(labels))
    (found,) = fastdiv.analyze(data).summary["invalid"]["reasons"]
    assert (found["reason"], found["n"]) == ("label", 5)
    assert found["first"] == [f"data, row {i}" for i in (3, 4, 5, 6, 7)]


def test_soft_labels_are_refused(four):
    soft = as_list(np.full((50, C), 0.25))
    with pytest.raises(fastdiv.UsageError, match="several labels a row, or shares of them"):
        fastdiv.analyze(table(four[2]).set_column(1, "label", soft))


def test_class_names_of_hugging_face_metadata(tmp_path, four):
    features = {"label": {"names": NAMES, "_type": "ClassLabel"}}
    said = {b"huggingface": json.dumps({"info": {"features": features}}).encode()}
    path = write(whole(four).replace_schema_metadata(said), tmp_path / "a.parquet")
    assert_same(fastdiv.analyze(path), fastdiv.analyze(arrays(four), class_names=NAMES))


def test_lists_with_names_as_labels(tmp_path, four):
    want = fastdiv.analyze(arrays(four), class_names=NAMES)
    tables = [table(r, label=np.array(NAMES)[r.y], epoch=e) for e, r in four.items()]
    both_ways(tmp_path, pa.concat_tables(tables), want, class_names=NAMES)


def test_files_that_differ_are_widened_without_loss(tmp_path, four, wanted):
    types = (pa.int8(), pa.float64(), pa.uint16())
    for (epoch, rows), label, id_ in zip(
        four.items(), types, (pa.int16(), pa.uint32(), pa.int64()), strict=True
    ):
        t = table(rows, label=pa.array(rows.y, label), sample_id=pa.array(rows.ids, id_))
        write(t, tmp_path / f"epoch_{epoch}.parquet")
    assert_same(fastdiv.analyze(tmp_path), wanted)


def test_a_file_whose_labels_are_all_null_says_nothing_of_their_type(tmp_path, four):
    for epoch, rows in four.items():
        labels = pa.nulls(len(rows)) if epoch == 7 else rows.y
        write(table(rows, label=labels), tmp_path / f"epoch_{epoch}.parquet")
    run = fastdiv.analyze(tmp_path)
    assert column(run, "n_invalid") == [0, 50, 0]


# Ids ------------------------------------------------------------------------------------------


def uuids(ids):
    return pa.array([uuid.UUID(int=int(i) ** 9).bytes for i in ids], pa.uuid())


IDS = {
    "uuid": (uuids, lambda i: str(uuid.UUID(int=int(i) ** 9))),
    "binary": (lambda ids: pa.array([b"\xff%d" % i for i in ids]), lambda i: b"\xff%d" % i),
    "fixed": (
        lambda ids: pa.array([b"%06d" % i for i in ids], pa.binary(6)),
        lambda i: b"%06d" % i,
    ),
    "view": (lambda ids: pa.array([f"s{i}" for i in ids], pa.string_view()), lambda i: f"s{i}"),
    "decimal": (
        lambda ids: pa.array([Decimal(int(i)) for i in ids], pa.decimal128(30, 0)),
        lambda i: str(i),
    ),
}


@pytest.mark.parametrize("kind", IDS)
def test_ids_of_any_width(tmp_path, four, wanted, kind):
    encode, plain = IDS[kind]
    shuffled = {e: rows.shuffled(e) for e, rows in four.items()}
    tables = [
        table(rows, epoch=e).set_column(0, "sample_id", encode(rows.ids))
        for e, rows in shuffled.items()
    ]
    data = pa.concat_tables(tables)
    sources = [data] if kind == "view" else [data, write(data, tmp_path / "a.parquet")]
    for source in sources:
        run = fastdiv.analyze(source)
        assert_same(run, wanted, tables=NO_IDS)
        found = run.samples["sample_id"].to_pylist()
        assert sorted(found) == sorted(plain(i) for i in four[2].ids)
    run.save(tmp_path / "run")
    assert fastdiv.load(tmp_path / "run").samples["sample_id"].to_pylist() == found


def test_ids_of_different_kinds_are_refused_by_name(tmp_path, four):
    write(table(four[2]), tmp_path / "epoch_2.parquet")
    for values in (uuids(four[7].ids), pa.array([b"%d" % i for i in four[7].ids])):
        write(table(four[7]).set_column(0, "sample_id", values), tmp_path / "epoch_7.parquet")
        with pytest.raises(fastdiv.DataError, match=r"epoch_7\.parquet: column 'sample_id' holds"):
            fastdiv.analyze(tmp_path)


def test_pandas_metadata_and_object_columns(tmp_path, four, wanted):
    """What `DataFrame.to_parquet` writes: an unnamed index beside, object columns of lists."""
    rows = whole(four)
    said = {b"pandas": json.dumps({"index_columns": ["__index_level_0__"], "columns": []}).encode()}
    index = pa.array(np.arange(len(rows))[::-1].copy())
    lists = rows["logits"].cast(pa.list_(pa.float64()))
    data = rows.set_column(2, "logits", lists).append_column("__index_level_0__", index)
    path = write(data.replace_schema_metadata(said), tmp_path / "a.parquet")
    run = fastdiv.analyze(path)
    assert re.search("'sample_id'", run.summary["columns"]["id"])
    assert column(run, "accuracy") == column(wanted, "accuracy")
    assert column(run, "loss") == pytest.approx(column(wanted, "loss"), rel=1e-6)


def test_parquet_metadata_is_not_needed_to_read_a_file_of_another_writer(tmp_path, four, wanted):
    path = tmp_path / "a.parquet"
    pq.write_table(whole(four), path, store_schema=False)
    assert_same(fastdiv.analyze(path), wanted)


# What must not be read as something else ------------------------------------------------------


def probs_of(rows):
    return as_kind(rows, "probs").x


def test_labels_that_count_from_1_are_refused_or_named(four):
    data = whole(four).set_column(
        1, "label", pa.array(np.concatenate([r.y + 1 for r in four.values()]))
    )
    with pytest.raises(
        fastdiv.UsageError, match=r"go from 1 to 4, but 4 classes.*--class-names 1,2"
    ):
        fastdiv.analyze(data)
    run = fastdiv.analyze(data, class_names="1,2,3,4")
    assert column(run, "loss") == column(fastdiv.analyze(arrays(four)), "loss")


def test_numbers_that_name_classes(four):
    names = np.array([30, 7, -1, 12])
    want = fastdiv.analyze(arrays(four))
    given = ["30", "7", "-1", "12"]
    for encode in (
        lambda y: names[y],
        lambda y: names[y].astype(np.int32),
        lambda y: names[y].astype(float),
    ):
        source = {e: (r.x, encode(r.y), r.ids) for e, r in four.items()}
        run = fastdiv.analyze(source, class_names=given)
        assert column(run, "loss") == column(want, "loss")
        assert column(run, "class", "classes")[:4] == given
    source[7][1][3] = 8.0  # which names nothing
    assert column(fastdiv.analyze(source, class_names=["30", "7", "-1", "12"]), "n_invalid") == [
        0,
        1,
        0,
    ]


@pytest.mark.parametrize("labels", [100, "none of them"])
def test_a_file_whose_labels_are_all_out_of_range_is_refused(four, labels):
    data = table(four[2], label=labels)
    options = {} if labels == 100 else {"class_names": NAMES}
    with pytest.raises(fastdiv.DataError, match=r"row 0: label missing or out of range.*50 of 50"):
        fastdiv.analyze(data, **options)


def test_a_usual_name_counts_before_a_shape(four):
    rows = four[2]
    p = probs_of(rows)
    want = column(fastdiv.analyze({2: (p, rows.y, rows.ids)}), "loss")
    data = table(rows).drop_columns("logits")
    embedding = as_list(np.random.default_rng(0).normal(size=(50, 8)))
    for k in range(C):
        data = data.append_column(f"prob_{k}", pa.array(p[:, k]))
    assert column(fastdiv.analyze(data.append_column("embedding", embedding)), "loss") == want
    features = {f"x{k}": np.random.default_rng(k).normal(size=50) for k in range(1, 4)}
    binary = pa.table({"label": rows.y % 2, **features, "y_pred": (rows.y % 2).astype(float),
                       "y_prob": np.linspace(0.01, 0.99, 50)})  # fmt: skip
    assert "'y_prob'" in fastdiv.analyze(binary).summary["columns"]["predictions"]


def test_columns_beside_those_named_by_class_are_something_else(four):
    p = probs_of(four[2])
    data = table(four[2], label=np.array(NAMES)[four[2].y]).drop_columns("logits")
    for k, name in enumerate(NAMES):
        data = data.append_column(name, pa.array(p[:, k]))
    data = data.append_column("seconds", pa.array(np.full(50, 1e-3)))
    assert fastdiv.analyze(data).summary["class_names"] == NAMES


def test_prefixes_that_name_something_else_too_are_refused(four):
    data = table(four[2], "wide0", name="prob")
    with_max = data.append_column("prob_max", pa.array(np.ones(50)))
    gap = data.drop_columns("prob_2")
    for broken in (with_max, gap):
        with pytest.raises(fastdiv.UsageError, match="not numbered from 0 or 1 without a gap"):
            fastdiv.analyze(broken, predictions="prob_*", kind="logits")
    with pytest.raises(fastdiv.UsageError, match="names a column twice"):
        fastdiv.analyze(data, predictions="prob_0,prob_0")
    named = data.rename_columns(
        ["prob_" + "zyxw"[int(n[-1])] if n.startswith("prob") else n for n in data.column_names]
    )
    in_file = [n for n in named.column_names if n.startswith("prob_")]
    run = fastdiv.analyze(named, predictions="prob_*", kind="logits")
    want = fastdiv.analyze(named, predictions=in_file, kind="logits")
    assert_same(run, want)


def test_confidences_of_the_predicted_class_are_not_taken_for_those_of_class_1():
    rows = binary("probs")
    score = rows.x.max(axis=1)
    data = table(rows).drop_columns("logits").append_column("score", pa.array(score))
    with pytest.raises(fastdiv.UsageError, match=r"no score in column 'score' is below 0\.5"):
        fastdiv.analyze(data)
    assert fastdiv.analyze(data, positive=1).summary["classes"] == 2


def test_lists_of_one_score_need_the_class_named():
    rows = binary("probs")
    data = table(rows).set_column(2, "prob", pa.array([[float(v)] for v in rows.x[:, 1]]))
    with pytest.raises(fastdiv.DataError, match="at least 2"):
        fastdiv.analyze(data)


def test_an_epoch_of_the_path_counts_before_a_counter_of_steps(tmp_path, four, wanted):
    for epoch, rows in four.items():
        steps = np.arange(len(rows)) // 7
        write(table(rows, step=steps, version="1.0"), tmp_path / f"epoch_{epoch}.parquet")
    assert_same(fastdiv.analyze(tmp_path), wanted)
    run = fastdiv.analyze(tmp_path, epoch="step", duplicates="first")
    assert column(run, "epoch") == list(range(8))


@pytest.mark.parametrize(
    "pattern",
    [
        "epoch_{}/val/preds.parquet",
        "epoch={}-step=900/p.parquet",
        "epoch={}-step=900.parquet",
        "{}/epoch_{}.parquet",
    ],
)
def test_epochs_in_paths(tmp_path, four, wanted, pattern):
    paths = [
        write(table(rows), tmp_path / "out" / pattern.format(epoch, epoch))
        for epoch, rows in four.items()
    ]
    for source in (tmp_path / "out", [str(p) for p in paths]):
        assert_same(fastdiv.analyze(source), wanted)
    depth = pattern.count("/")
    glob = "/".join(["*"] * (depth + 1))
    assert_same(fastdiv.analyze(str(tmp_path / "out" / glob)), wanted)


def test_nulls_inside_of_encodings_are_nulls(four):
    rows = four[2]
    ids = pa.DictionaryArray.from_arrays(
        pa.array(np.arange(50, dtype=np.int32)), pa.array([*map(str, range(49)), None])
    )
    for column_ in (ids, pa.array([1, None] * 25)):
        with pytest.raises(fastdiv.DataError, match="the id in column 'sample_id' is null"):
            fastdiv.analyze(table(rows).set_column(0, "sample_id", column_))


def test_masked_arrays_are_missing_where_they_are_masked(four):
    rows = four[2]
    x = np.ma.masked_array(rows.x, mask=np.zeros_like(rows.x, bool))
    y = np.ma.masked_array(rows.y, mask=np.zeros(50, bool))
    x[3, 1] = y[5] = np.ma.masked
    reasons = fastdiv.analyze((x, y, rows.ids)).summary["invalid"]["reasons"]
    assert {r["reason"]: r["first"] for r in reasons} == {
        "nan": ["data, row 3"], "label": ["data, row 5"],
    }  # fmt: skip


def test_one_null_does_not_make_reading_slow_where_the_table_is_large():
    """Nulls, and numbers of another dtype, are looked for in the rows at hand alone."""
    import time

    n = 400_000
    x = np.random.default_rng(0).normal(size=(n, 4)).astype(np.float32)
    y = np.zeros(n, int)
    mask = np.zeros(4 * n, bool)
    mask[7] = True
    items = pa.array(x.ravel(), mask=mask)
    lists = pa.ListArray.from_arrays(pa.array(np.arange(0, 4 * n + 1, 4, dtype=np.int32)), items)

    def seconds(data):
        started = time.perf_counter()
        fastdiv.analyze(data, kind="logits", threads=1)
        return time.perf_counter() - started

    clean = pa.table({"label": y, "logits": as_list(x)})
    with_null = pa.table({"label": y, "logits": lists})
    seconds(clean)
    assert seconds(with_null) < 5 * seconds(clean) + 0.2


def test_columns_with_dots_beside_what_they_look_like_parts_of(tmp_path, four, wanted):
    data = whole(four).append_column("logits.max", pa.array(np.ones(150)))
    data = data.append_column("logits.list.element", pa.array(np.ones(150)))
    assert_same(fastdiv.analyze(write(data, tmp_path / "a.parquet")), wanted)


def test_numbers_as_names_where_labels_are_indices_are_refused(four):
    with pytest.raises(fastdiv.UsageError, match=r"labels in column 'labels' go from 0 to 3, and"):
        fastdiv.analyze(arrays(four), class_names=[1, 2, 3, 4])
    missing = {e: (r.x, np.where(np.arange(50) % 9 == 0, -1, r.y + 1)) for e, r in four.items()}
    with pytest.raises(fastdiv.UsageError, match="go from 1 to 4, but 4 classes"):
        fastdiv.analyze(missing)


@pytest.mark.parametrize("names", [["True", "False"], [True, False], ["1", "0"], ["+1", "0.0"]])
def test_bools_named_the_other_way_round(names):
    rows = make((0,), c=2)[0]
    want = fastdiv.analyze({0: (rows.x[:, ::-1].copy(), 1 - rows.y, rows.ids)})
    data = table(Rows(rows.x[:, ::-1].copy(), rows.y.astype(bool), rows.ids))
    assert column(fastdiv.analyze(data, class_names=names), "loss") == column(want, "loss")


def test_a_score_whose_class_is_named_by_number():
    rows = binary("probs")
    want = fastdiv.analyze({0: rows.arrays()})
    data = table(rows).drop_columns("logits").append_column("score", pa.array(rows.x[:, 1]))
    run = fastdiv.analyze(data, class_names="1,0", positive="1")
    assert column(run, "accuracy") == column(want, "accuracy")
    signed = data.set_column(1, "label", pa.array(2 * rows.y - 1))
    run = fastdiv.analyze(signed, class_names="-1,1", positive="1")
    assert column(run, "loss") == column(want, "loss")


def test_lists_of_something_else_do_not_count_before_a_score(four):
    rows = binary("probs")
    embedding = as_list(np.random.default_rng(0).normal(size=(60, 8)))
    data = table(rows).drop_columns("logits").append_column("embedding", embedding)
    with_score = data.append_column("y_prob", pa.array(rows.x[:, 1]))
    assert "'y_prob'" in fastdiv.analyze(with_score).summary["columns"]["predictions"]
    features = data.append_column("x0", pa.array(rows.x[:, 0])).append_column(
        "x1", pa.array(rows.x[:, 1])
    )
    with pytest.raises(fastdiv.UsageError, match="several columns may hold the predictions"):
        fastdiv.analyze(features)


def test_labels_too_large_for_a_class_are_out_of_range_and_not_missing(four):
    source = {e: (r.x, r.y + 2**40, r.ids) for e, r in four.items()}
    with pytest.raises(fastdiv.DataError, match=r"out of range.*50 of 50"):
        fastdiv.analyze(source)


def test_unsigned_epochs_are_selected_by_their_statistics(tmp_path, four):
    t = pa.concat_tables(
        [table(four[2], epoch=pa.array([n] * 50, pa.uint32())) for n in (1, 3_000_000_000)]
    )
    path = write(t, tmp_path / "a.parquet", row_group_size=50)
    assert column(fastdiv.analyze(path, epochs=3_000_000_000), "epoch") == [3_000_000_000]


def test_directories_inside_of_those_of_epochs(tmp_path, four, wanted):
    for epoch, rows in four.items():
        write(table(rows), tmp_path / f"checkpoint-{epoch}" / "eval" / "p.parquet")
    assert_same(fastdiv.analyze(str(tmp_path / "*" / "eval")), wanted)
    (tmp_path / "link_epoch_99").symlink_to(tmp_path / "checkpoint-2" / "eval")
    run = fastdiv.analyze([str(tmp_path / "link_epoch_99"), str(tmp_path / "checkpoint-2")])
    assert column(run, "epoch") == [2, 99]

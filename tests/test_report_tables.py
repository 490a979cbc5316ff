"""Tables of the report, against NumPy and the run's own tables."""

import json
import time
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from dumps import arrays, as_kind, make, spoil, whole

import fastdiv
from fastdiv.explain.verdict.advice import ADVICE
from fastdiv.render.pictures.picture import pair_key
from fastdiv.render.tables import table as table_module
from fastdiv.render.tables.classes import classes
from fastdiv.render.tables.confusions import confusions
from fastdiv.render.tables.epochs import COLUMNS, epochs
from fastdiv.render.tables.glossary import CAUSES, GLOSSARY
from fastdiv.render.tables.moved import moved
from fastdiv.render.tables.provenance import provenance
from fastdiv.render.tables.suspects import suspects
from fastdiv.render.tables.table import (
    Column,
    Table,
    TableFrame,
    number,
    numbers,
    plain_ids,
    shown_ids,
    some_of,
    with_links,
)
from fastdiv.render.tables.worst import largest, worst

HOSTILE = ["<script>alert(1)</script>", "\u202eright\nto\tleft", "x" * 10_000]


def losses_of(rows):
    """Return the log-loss (n,) and the prediction (n,) of logits."""
    x = rows.x.astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        top = x.max(axis=1)
        logs = np.log(np.exp(x - top[:, None]).sum(axis=1)) + top
        return logs - x[np.arange(len(x)), rows.y], x.argmax(axis=1)


def some_run(**more):
    """Return a run of five epochs, 300 samples and four classes, and its dump."""
    dump = make(epochs=(0, 1, 2, 3, 4), n=300, c=4, seed=3, **more)
    return fastdiv.analyze(arrays(dump)), dump


def by_id(values, key, id_="id"):
    return dict(zip(values[id_], values[key], strict=True))


def everything(view):
    """Return every table of a split that is there, in any choice of epochs."""
    numbers_ = view.epochs["epoch"].to_pylist()
    pairs = [*pairwise(numbers_), (numbers_[0], numbers_[-1])]
    pairs = [pair for pair in dict.fromkeys(pairs) if pair[0] != pair[1]]
    made = [
        classes(view, pairs), classes(view, []), confusions(view, numbers_), suspects(view),
        worst(view, numbers_), moved(view, pairs), epochs(view),
    ]  # fmt: skip
    return [table for table in made if table is not None]


def check(table):
    """Check that a table is whole, and that JSON can hold it."""
    plain = json.loads(json.dumps(table.to_dict(), allow_nan=False))
    assert plain["columns"][0]["title"]
    names = [column.name for column in table.columns]
    assert len(set(names)) == len(names)
    assert table.how.endswith(".")
    for key in table.frames or [None]:
        values = table.chosen(key)
        assert set(values) == set(names)
        assert len({len(column) for column in values.values()}) == 1
        text = table.frames[key].text if table.frames else table.text
        assert text.strip().endswith(".")
        for column in table.columns:
            for value in values[column.name]:
                if column.kind in ("share", "points", "nats", "loss", "number"):
                    assert value is None or value in ("inf", "-inf") or isinstance(value, float)
                elif column.kind == "count":
                    assert isinstance(value, int)
    return plain


# -- tables as such ----------------------------------------------------------------------------


def test_numbers_have_few_digits_and_are_what_json_holds():
    assert numbers([1.23456789, -0.0, 1e-300, 123456789.0, np.nan, np.inf, -np.inf]) == [
        1.2346, 0.0, 1e-300, 123460000.0, None, "inf", "-inf",
    ]  # fmt: skip
    assert str(number(-0.0)) == "0.0"
    assert number(None) is None


def test_ids_that_a_page_would_round_are_text():
    assert plain_ids(pa.array([1, 2**53, 2**53 + 1, -(2**60)])) == [
        1, 2**53, str(2**53 + 1), str(-(2**60)),
    ]  # fmt: skip
    assert plain_ids(pa.array([b"\x00\xff"])) == ["00ff"]
    assert plain_ids(pa.array(["a", "<b>"])) == ["a", "<b>"]


def test_links_are_those_of_the_ids_that_are_shown():
    columns = (Column("id", "Sample", "id"), Column("other", "Other", "text"))
    frames = {"0": TableFrame("", {"id": [1, 2], "other": ["9", "9"]})}
    shown = Table("t", "T", "How.", columns, {"id": [3], "other": ["8"]}, frames=frames)
    assert shown_ids(shown) == ["3", "1", "2"]
    linked = with_links(shown, {"1": "https://a.org", "3": "c.png", "9": "https://b.org"})
    assert linked.links == {"3": "c.png", "1": "https://a.org"}
    assert shown.links == {}


def test_of_many_epochs_some_are_read(monkeypatch):
    monkeypatch.setattr(table_module, "MOST_ROWS_READ", 1000)
    every = list(range(-5, 95))
    assert some_of(every, 10, [3]) == every
    taken = some_of(every, 100, [3, 40, 1000])
    assert len(taken) == 10
    assert {-5, 94, 3, 40} <= set(taken)
    assert taken == sorted(taken)
    assert len(some_of(every, 10**9, [3])) == 2


# -- classes -----------------------------------------------------------------------------------


@pytest.mark.parametrize("named", [False, True])
def test_what_classes_add_sums_to_the_change(named):
    dump = make(epochs=(0, 1, 2, 3, 4), n=300, c=4, seed=3)
    dump[4] = dump[4].take(np.arange(250))  # samples that went count too
    names = ["ant", "bee", "cat", "dog"] if named else None
    run = fastdiv.analyze(arrays(dump), class_names=names)
    pairs = [(0, 1), (1, 2), (3, 4), (4, 0)]
    made = classes(run.split(), pairs)
    check(made)
    assert list(made.frames) == [pair_key(*pair) for pair in pairs]
    rows = {row["epoch"]: row for row in run.epochs.to_pylist()}
    for a, b in pairs:
        values = made.chosen(pair_key(a, b))
        nats, points = values["nats"], values["points"]
        assert sum(nats) == pytest.approx(rows[b]["loss"] - rows[a]["loss"], abs=1e-4)
        assert sum(points) == pytest.approx(rows[b]["accuracy"] - rows[a]["accuracy"], abs=1e-4)
        assert np.all(np.diff(np.abs(nats)) <= 0), "what adds most comes first"
        mean = {}
        for epoch in (a, b):
            loss, predicted = losses_of(dump[epoch])
            y = dump[epoch].y
            mean[epoch] = [
                (loss[y == k].sum() / len(y), loss[y == k].mean(), (predicted[y == k] == k).mean(),
                 (y[predicted == k] == k).mean(), (y == k).sum())
                for k in range(4)
            ]  # fmt: skip
        for i, name in enumerate(values["class"]):
            k = names.index(name) if named else name
            before, after = mean[a][k], mean[b][k]
            assert nats[i] == pytest.approx(after[0] - before[0], rel=1e-3, abs=1e-6)
            assert values["loss_before"][i] == pytest.approx(before[1], rel=1e-4)
            assert values["recall_after"][i] == pytest.approx(after[2], rel=1e-4)
            assert values["precision_after"][i] == pytest.approx(after[3], rel=1e-4)
            assert values["support"][i] == after[4]


def test_a_class_with_an_infinite_loss_adds_nothing_that_is_told():
    dump = make(epochs=(0, 1), n=60, c=3)
    row = int(np.flatnonzero(dump[1].y == 1)[0])
    dump[1].x[row, 1] = -np.inf
    view = fastdiv.analyze(arrays(dump)).split()
    made = classes(view, [(0, 1)])
    check(made)
    values = made.chosen()
    assert values["class"][0] == 1, "it comes first"
    assert values["nats"][0] is None
    assert values["loss_after"][0] == "inf"
    assert None not in values["nats"][1:]
    assert values["points"][0] is not None
    assert "probability 0" in made.note
    assert "in all" not in made.frames["0→1"].text


def test_of_one_epoch_classes_are_reported_as_scikit_learn_does():
    metrics = pytest.importorskip("sklearn.metrics")
    dump = make(epochs=(7,), n=200, c=5, seed=1)
    made = classes(fastdiv.analyze(arrays(dump)).split(), [])
    check(made)
    assert made.by is None
    _, predicted = losses_of(dump[7])
    wanted = metrics.precision_recall_fscore_support(dump[7].y, predicted, zero_division=0)
    for name, column in zip(("precision", "recall", "f1", "support"), wanted, strict=True):
        found = by_id(made.values, name, "class")
        assert [found[k] for k in range(5)] == pytest.approx(column, rel=1e-4)
    assert made.values["recall"] == sorted(made.values["recall"])
    assert f"{100 * min(made.values['recall']):.1f} %" in made.text


def test_classes_that_never_occur_add_nothing():
    dump = make(epochs=(0, 1), n=40, c=3)
    for rows in dump.values():
        rows.y[:] = 0
        rows.x[:, 2] = -50
    made = classes(fastdiv.analyze(arrays(dump)).split(), [(0, 1)])
    check(made)
    assert by_id(made.chosen(), "nats", "class")[2] == 0.0
    assert by_id(made.chosen(), "recall_before", "class")[2] is None
    assert by_id(made.chosen(), "precision_before", "class")[2] is None


def test_a_thousand_classes_and_99_pairs_are_quick_and_small():
    c, n_epochs = 1000, 100
    rng = np.random.default_rng(0)
    n = 20_000
    y = rng.integers(0, c, n).astype(np.int32)

    class Summary:
        summary = {"classes": c, "epoch_names": {}}  # noqa: RUF012

    parts = []
    for epoch in range(n_epochs):
        right = rng.random(n) < 0.5 + epoch / 400
        predicted = np.where(right, y, rng.integers(0, c, n))
        support, found = np.bincount(y, minlength=c), np.bincount(predicted, minlength=c)
        hits = np.bincount(y[predicted == y], minlength=c)
        parts.append(
            pa.table(
                {
                    "split": pa.array([None] * c, pa.string()), "epoch": np.full(c, epoch),
                    "class": [f"class number {k}" for k in range(c)], "support": support,
                    "predicted": found, "true_positive": hits, "loss": rng.gamma(2.0, 0.5, c),
                }
            )
        )  # fmt: skip
    run = Summary()
    run.classes = pa.concat_tables(parts)

    class View:
        split, _run, classes = None, run, run.classes

    pairs = [(e, e + 1) for e in range(n_epochs - 1)]
    began = time.process_time()
    made = classes(View(), pairs)
    assert time.process_time() - began < 2.0  # 0.4 s on a quiet machine
    assert len(json.dumps(made.to_dict())) < 6e6
    assert len(made.frames) == 99
    shown = len(made.chosen()["class"])
    assert 300 < shown < c
    assert f"{shown:,}" in made.note
    few = classes(View(), pairs[:5])
    assert len(few.chosen()["class"]) == c
    assert few.note == ""


def test_classes_need_no_stored_scores():
    dump = make(epochs=(0, 1, 2, 3, 4), n=50)
    view = fastdiv.analyze(arrays(dump), scores="rolling").split()
    assert view.evidence.epochs == [3, 4]
    assert list(classes(view, [(0, 1), (3, 4)]).frames) == ["0→1", "3→4"]
    assert list(confusions(view, [0, 1, 2, 3, 4]).frames) == ["3", "4"]
    assert list(worst(view, [0, 1, 2, 3, 4]).frames) == ["3", "4"]
    assert list(moved(view, [(0, 1), (3, 4)]).frames) == ["3→4"]
    assert moved(view, [(0, 1)]) is None
    assert len(epochs(view).values["epoch"]) == 5


# -- confusions --------------------------------------------------------------------------------


def test_confusions_are_counted_as_numpy_counts_them():
    run, dump = some_run()
    made = confusions(run.split(), [0, 3], most=3)
    check(made)
    for epoch in (0, 3):
        loss, predicted = losses_of(dump[epoch])
        y = dump[epoch].y
        counts = np.zeros((4, 4), int)
        np.add.at(counts, (y, predicted), 1)
        np.fill_diagonal(counts, 0)
        values = made.chosen(str(epoch))
        assert values["n"] == sorted(counts.ravel().tolist(), reverse=True)[:3]
        for label, other, n, share, mean in zip(*values.values(), strict=True):
            assert n == counts[label, other]
            assert share == pytest.approx(n / (y == label).sum(), rel=1e-4)
            assert mean == pytest.approx(loss[(y == label) & (predicted == other)].mean(), rel=1e-4)
        told = 100 * sum(values["n"]) / counts.sum()
        assert f"are {told:.0f} % of the errors" in made.frames[str(epoch)].text


def test_too_many_epochs_for_confusions_are_thinned_out_and_that_is_said(monkeypatch):
    run, _ = some_run()
    monkeypatch.setattr(table_module, "MOST_ROWS_READ", 3 * 300)
    for table in (confusions(run.split(), range(5)), worst(run.split(), range(5))):
        best = run.summary["splits"][0]["epoch_lowest_loss"]
        assert len(table.frames) == 3
        assert {"0", "4", str(best)} <= set(table.frames)
        assert "3 of 5 epochs" in table.note


def test_where_all_is_right_there_is_no_confusion():
    dump = make(epochs=(0, 1), n=20, c=3)
    for rows in dump.values():
        rows.x[np.arange(20), rows.y] = 30
    view = fastdiv.analyze(arrays(dump)).split()
    made = confusions(view, [1])
    check(made)
    assert made.chosen()["n"] == []
    assert "no sample of 20 is wrong" in made.frames["1"].text
    check(suspects(view))
    assert suspects(view).values["id"] == []


# -- samples -----------------------------------------------------------------------------------


def test_the_worst_have_the_highest_losses_and_their_history():
    run, dump = some_run()
    made = worst(run.split(), [1, 4], most=7)
    check(made)
    history = {row["sample_id"]: row for row in run.samples.to_pylist()}
    right = dict.fromkeys(dump[0].ids.tolist(), 0)
    for rows in dump.values():
        for i, ok in zip(rows.ids.tolist(), losses_of(rows)[1] == rows.y, strict=True):
            right[i] += int(ok)
    for epoch in (1, 4):
        loss, predicted = losses_of(dump[epoch])
        order = np.argsort(-loss)[:7]
        values = made.chosen(str(epoch))
        assert values["id"] == dump[epoch].ids[order].tolist()
        assert values["loss"] == pytest.approx(loss[order], rel=1e-4)
        assert values["share"] == pytest.approx(loss[order] / loss.sum(), rel=1e-4)
        assert values["predicted"] == predicted[order].tolist()
        assert values["label"] == dump[epoch].y[order].tolist()
        assert values["n_correct"] == [right[i] for i in values["id"]]
        assert values["first_learned"] == [history[i]["first_learned"] for i in values["id"]]
        assert values["aum"] == pytest.approx([history[i]["aum"] for i in values["id"]], rel=1e-4)
        assert f"carry {100 * loss[order].sum() / loss.sum():.1f} %" in made.frames[str(epoch)].text


def test_infinite_losses_come_first():
    dump = make(epochs=(0, 1), n=40, c=3, seed=5)
    ids = dump[1].ids[[4, 9]].tolist()
    for row in (4, 9):
        dump[1].x[row, dump[1].y[row]] = -np.inf
    view = fastdiv.analyze(arrays(dump)).split()
    made = worst(view, [1], most=5)
    check(made)
    values = made.chosen()
    assert values["id"][:2] == sorted(ids)
    assert values["loss"][:2] == ["inf", "inf"]
    assert values["share"][:2] == [None, None]
    assert isinstance(values["loss"][2], float)
    assert "2 samples have an infinite loss" in made.frames["1"].text
    made = moved(view, [(0, 1), (1, 0)], most=4)
    check(made)
    assert made.chosen("0→1")["delta"][:2] == ["inf", "inf"]
    assert made.chosen("1→0")["delta"][:2] == ["-inf", "-inf"]
    assert "2 of them became infinite" in made.frames["0→1"].text


def test_losses_that_are_infinite_in_both_epochs_do_not_count_as_unmoved():
    dump = make(epochs=(0, 1), n=40, c=3, seed=5)
    for rows in dump.values():
        rows.x[[4, 9], rows.y[[4, 9]]] = -np.inf
    view = fastdiv.analyze(arrays(dump)).split()
    made = moved(view, [(0, 1)])
    check(made)
    before, after = (losses_of(rows)[0] for rows in dump.values())
    delta = after[np.isfinite(before)] - before[np.isfinite(before)]
    assert made.chosen()["delta"][-2:] == [None, None]
    text = made.frames["0→1"].text
    assert "that of 2 is infinite in both" in text
    assert f"of {delta.mean():+.4f} nats to the mean".replace("-", "−") in text


def test_where_no_loss_is_finite_the_accuracy_is_told():
    dump = make(epochs=(0, 1), n=20, c=3)
    for rows in dump.values():
        rows.x[:] = 0
        rows.x[np.arange(20), rows.y] = -np.inf
    run = fastdiv.analyze(arrays(dump))
    said = "2 epochs: no loss is finite, the highest accuracy 0.00 % in epoch 0."
    assert epochs(run.split()).text == said


def test_names_of_epochs_are_on_one_line_and_cut_in_sentences():
    dump = make(epochs=(0, 1), n=40, c=3)
    name = "a\nb" + 500 * "x"
    run = fastdiv.analyze(arrays(dump))
    run.summary["epoch_names"] = {"0": name, "1": "end"}
    view = run.split()
    tables = [
        epochs(view), moved(view, [(0, 1)]), classes(view, [(0, 1)]), worst(view, [0]),
        confusions(view, [0]), suspects(view),
    ]  # fmt: skip
    for made in tables:
        texts = [made.text, *(frame.text for frame in made.frames.values())]
        assert all("\n" not in text and len(text) < 400 for text in texts), made.name
    assert "a bxxx" in worst(view, [0]).frames["0"].text


@pytest.mark.parametrize("k", [0, 1, 3, 10, 11])
def test_the_largest_are_found_and_of_equals_the_first(k):
    size = np.array([1.0, 5.0, np.inf, 2.0, 5.0, 0.0, 5.0, np.inf, 2.0, 1.0])
    wanted = sorted(range(10), key=lambda i: (-size[i], i))[:k]
    assert largest(size, k).tolist() == wanted


def test_who_moved_most_by_numpy():
    run, dump = some_run()
    made = moved(run.split(), [(0, 4), (2, 3)], most=10)
    check(made)
    words = {
        (True, True, False): "right → right", (True, False, True): "right → wrong",
        (False, True, True): "wrong → right",
        (False, False, False): "wrong → wrong, same prediction",
        (False, False, True): "wrong → wrong, other prediction",
    }  # fmt: skip
    for a, b in ((0, 4), (2, 3)):
        (before, was), (after, now) = losses_of(dump[a]), losses_of(dump[b])
        order = np.argsort(-np.abs(after - before))[:10]
        values = made.chosen(pair_key(a, b))
        assert values["id"] == dump[a].ids[order].tolist()
        assert values["delta"] == pytest.approx((after - before)[order], rel=1e-3)
        y = dump[a].y
        assert values["cell"] == [
            words[bool(was[i] == y[i]), bool(now[i] == y[i]), bool(was[i] != now[i])] for i in order
        ]
        text = made.frames[pair_key(a, b)].text
        assert f"{(after > before).sum():,} samples rose" in text
        assert f"of {(after - before).mean():+.4f} nats".replace("-", "−") in text
        assert f"add {(after - before)[order].sum() / 300:+.4f}".replace("-", "−") in text


def test_suspects_are_those_of_the_split_and_counted_in_all():
    dump = make(epochs=(0, 1, 2), n=200, c=3, seed=2)
    for rows in dump.values():  # three labels that are certainly wrong
        for row in (5, 6, 7):
            rows.x[row] = 0
            rows.x[row, (rows.y[row] + 1) % 3] = 20 + row
    run = fastdiv.analyze(arrays(dump))
    view = run.split()
    made = suspects(view, most=4)
    check(made)
    best = view.best_epochs()
    a, b = best["epoch_lowest_loss"], best["epoch_highest_accuracy"]
    wrong = np.ones(200, bool)
    for epoch in (a, b):
        wrong &= losses_of(dump[epoch])[1] != dump[epoch].y
    assert made.values["id"][:3] == dump[0].ids[[7, 6, 5]].tolist()
    assert made.values["predicted"][:3] == ((dump[0].y[[7, 6, 5]] + 1) % 3).tolist()
    assert made.values["n_correct"][:3] == [0, 0, 0]
    assert made.values["first_learned"][:3] == [None, None, None]
    assert made.values["n_epochs"] == [3] * 4
    assert f"{wrong.sum():,} of 200 samples" in made.text
    assert "the 4 most suspect" in made.text
    assert made.values["score"][:3] == pytest.approx([27, 26, 25], rel=0.01)


def test_suspects_of_one_epoch_are_the_wrong_ones():
    dump = make(epochs=(5,), n=80, c=3)
    made = suspects(fastdiv.analyze(arrays(dump)).split())
    check(made)
    wrong = losses_of(dump[5])[1] != dump[5].y
    assert sorted(made.values["id"]) == sorted(dump[5].ids[wrong].tolist())
    assert "in epoch 5" in made.text
    assert "one epoch" in made.note
    assert "loss_before" not in made.values


# -- epochs ------------------------------------------------------------------------------------


def test_the_table_of_epochs_has_what_the_run_has():
    run, _ = some_run()
    made = epochs(run.split())
    check(made)
    rows = run.epochs.to_pylist()
    for name, values in made.values.items():
        if name in ("churn", "negative_flip_rate"):
            wanted = [None, *run.transitions[name].to_pylist()]
        else:
            wanted = [row[name] for row in rows]
        for x, y in zip(values, wanted, strict=True):
            assert x == (pytest.approx(y, rel=1e-4) if isinstance(y, float) else y)
    assert "top5_accuracy" not in made.values, "of four classes there is none"
    assert "loss_finite" not in made.values, "it is the loss"
    assert set(COLUMNS) <= set(rows[0]) | {"churn", "negative_flip_rate"}
    best = min(rows, key=lambda row: row["loss"])
    assert f"{best['loss']:.4f} nats in epoch {best['epoch']}" in made.text


def test_epochs_with_names_and_infinite_losses():
    dump = make(epochs=(0, 1), n=40, c=3)
    dump[0].x[3, dump[0].y[3]] = -np.inf
    named = {"base": dump[0].arrays(), "<b>tuned</b>": dump[1].arrays()}
    run = fastdiv.analyze({None: named})
    made = epochs(run.split())
    check(made)
    assert made.values["name"] == ["base", "<b>tuned</b>"]
    assert made.values["loss"][0] == "inf"
    assert isinstance(made.values["loss_finite"][0], float)
    assert made.values["n_infinite"] == [1, 0]
    assert "epoch <b>tuned</b>" in made.text
    assert "From epoch base to <b>tuned</b>" in moved(run.split(), [(0, 1)]).frames["0→1"].text


# -- whatever comes ----------------------------------------------------------------------------


def spoiled():
    dump = make(epochs=(2, 7, 10), n=60, c=7)
    spoil(dump)
    return arrays(dump)


def all_invalid():
    dump = make(epochs=(0, 1), n=10)
    for rows in dump.values():
        rows.x[:] = np.nan
    return arrays(dump)


def half_invalid():
    dump = make(epochs=(-3, 1), n=10)
    dump[1].x[:] = np.nan
    return arrays(dump)


CASES = {
    "plain": lambda: fastdiv.analyze(arrays(make())),
    "spoiled": lambda: fastdiv.analyze(spoiled()),
    "nothing valid": lambda: fastdiv.analyze(all_invalid(), kind="logits"),
    "one epoch valid": lambda: fastdiv.analyze(half_invalid(), kind="logits"),
    "one epoch": lambda: fastdiv.analyze(arrays(make((3,)))),
    "negative epochs": lambda: fastdiv.analyze(arrays(make((-7, -2, 0)))),
    "slim": lambda: fastdiv.analyze(arrays(make(c=5)), scores="slim"),
    "rolling": lambda: fastdiv.analyze(arrays(make(range(5))), scores="rolling"),
    "two classes": lambda: fastdiv.analyze(arrays(make(c=2))),
    "float64": lambda: fastdiv.analyze(arrays(make(dtype=np.float64))),
    "probabilities": lambda: fastdiv.analyze(
        {e: as_kind(rows, "probs").arrays() for e, rows in make().items()}
    ),
    "hostile": lambda: fastdiv.analyze(
        whole(make(n=60), sample_id=[f"{HOSTILE[i % 3][:50]}{i}" for i in range(60)]),
        class_names=HOSTILE,
    ),
    "splits": lambda: fastdiv.analyze({"train": arrays(make()), "val": arrays(make(seed=1))}),
    "disjoint": lambda: fastdiv.analyze({0: make((0,))[0].arrays(), 1: make((1,), seed=9)[1]
                                         .arrays()}),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_every_table_of_every_run_is_whole(case):
    run = CASES[case]()
    for name in [entry["split"] for entry in run.summary["splits"]]:
        for table in everything(run.split(name)):
            plain = check(table)
            if case == "hostile":
                assert all(len(text) < 500 for text in _texts(plain)), "names are cut"
    rows = provenance(run)
    assert all(isinstance(text, str) and text for row in rows for text in row)


def _texts(plain):
    yield plain["text"]
    for frame in plain["frames"].values():
        yield frame["text"]
        for column in frame["values"].values():
            yield from (value for value in column if isinstance(value, str))


def test_nothing_valid_leaves_no_table_of_samples():
    view = CASES["nothing valid"]().split()
    assert classes(view, [(0, 1)]) is None
    assert classes(view, []) is None
    assert confusions(view, [0, 1]) is None
    assert worst(view, [0, 1]) is None
    assert moved(view, [(0, 1)]) is None
    assert suspects(view) is None
    assert "without a valid sample" in epochs(view).text


def test_tables_of_a_saved_run_are_the_same(tmp_path):
    run, _ = some_run()
    run.save(tmp_path / "run")
    again = fastdiv.load(tmp_path / "run")
    assert everything(run.split()) == everything(again.split())


# -- provenance and glossary -------------------------------------------------------------------


def test_provenance_tells_what_was_read_and_left_out():
    run = fastdiv.analyze(spoiled())
    said = dict(provenance(run))
    n = run.summary["invalid"]["n"]
    assert n > 0
    assert said["Invalid rows"] == f"{n:,}"
    for entry in run.summary["invalid"]["reasons"]:
        assert said[entry["in_words"]].startswith(f"{entry['n']}: {entry['first'][0]}")
    assert said["Infinite losses"].startswith("1: ")
    assert said["Data"] == f"{run.summary['splits'][0]['n_samples']} samples, 3 epochs, matched " \
        "by id; all stored"  # fmt: skip
    assert said["Read"].startswith(f"{run.summary['rows']:,} rows in 3 parts")
    assert said["Made by"] == f"fastdiv {fastdiv.__version__}"
    assert said["Kind of predictions"] == run.summary["columns"]["kind"]


def test_provenance_tells_what_was_asked_and_what_is_stored():
    run = fastdiv.analyze(
        arrays(make(range(6))), scores="rolling", clip=1e-7, duplicates="first", strict=True,
        epochs=[0, 1, 2, 9],
    )  # fmt: skip
    said = dict(provenance(run))
    assert "scores of 2 stored" in said["Data"]
    assert "rolling" in said["Stored scores"]
    assert "1e-07" in said["Clipping"]
    assert said["Duplicate rows"] == "the first counts"
    assert "Strict" in said
    assert said["Epochs asked for, not there"] == "9"


def test_the_glossary_has_every_cause_and_all_terms_are_sentences():
    assert set(CAUSES) == set(ADVICE)
    for name in ADVICE:
        assert name.replace("_", " ") in GLOSSARY
    assert all(text.endswith(".") and len(text) < 260 for text in GLOSSARY.values())


def test_every_column_with_a_term_of_the_field_has_a_hint():
    run, _ = some_run()
    plain = {"id", "class", "label", "epoch", "name", "predicted_before", "predicted_after"}
    for table in everything(run.split()):
        bare = [c.name for c in table.columns if not c.hint]
        assert set(bare) <= plain | {"predicted"}

"""Pictures over epochs and of pairs, against what NumPy and SciPy say of the same predictions."""

import json
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from dumps import Rows, arrays, make
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp

import fastdiv
from fastdiv.errors import UsageError
from fastdiv.explain import wording
from fastdiv.render.pictures.causes import causes
from fastdiv.render.pictures.cells import cells
from fastdiv.render.pictures.class_changes import class_changes
from fastdiv.render.pictures.epoch_axis import EpochAxis
from fastdiv.render.pictures.flow import flow
from fastdiv.render.pictures.loss_accuracy import loss_accuracy
from fastdiv.render.pictures.picture import escaped, pair_key, plain, signed
from fastdiv.render.pictures.refinement import refinement

HOSTILE = ["<b>a</b>", "$x$ %{y} &amp;", "z" * 10_000, "\u202eright\nto\tleft"]
DIGITS = 1e-6  # of a coordinate, and of a loss in single precision


def losses(x, y):
    """Return the log-loss (n,) of logits."""
    x = x.astype(np.float64)
    return logsumexp(x, axis=1) - x[np.arange(len(y)), y]


def trace(picture, name, of=None):
    """Return the trace of a name, as its picture or frame shows it."""
    data, _ = picture.chosen(of)
    (found,) = (t for t in data if t["name"] == name)
    return found


def check(picture):
    """Check that a picture is whole: JSON can hold it, and plotly draws it."""
    json.dumps(picture.to_dict(), allow_nan=False)
    assert picture.title
    assert picture.how.endswith(".")
    texts = [frame.text for frame in picture.frames.values()] or [picture.text]
    assert all(text.strip().endswith(".") for text in texts)
    for key in picture.frames or [None]:
        figure = picture.figure(key)
        assert figure.layout.height > 100
        assert figure.layout.width is None
        assert len(figure.data) >= 1
    return picture


def spread(epochs=(0, 1, 2, 3, 4), n=200, c=4, seed=5):
    """Return a dump of logits that spread, so that the later epochs are over-confident."""
    dump = make(epochs=epochs, n=n, c=c, seed=seed)
    return {e: replace(rows, x=rows.x * (1 + i)) for i, (e, rows) in enumerate(dump.items())}


def with_infinite():
    """Return probabilities of four epochs; in the last, labels 0 and 1 got probability 0 once."""
    dump = make(epochs=(0, 1, 2, 3), n=120, c=3)
    found = {}
    for epoch, rows in dump.items():
        p = np.exp(rows.x - logsumexp(rows.x, axis=1, keepdims=True)).astype(np.float64)
        if epoch == 3:
            for label in (0, 1):
                row = np.flatnonzero(rows.y == label)[0]
                p[row] = np.eye(3)[2]
        found[epoch] = (p, rows.y, rows.ids)
    return found


def coming_and_going():
    """Return three epochs in which the first and the last samples are not always there."""
    dump = make(epochs=(0, 1, 2), n=100, c=3)
    return {
        0: dump[0].take(np.arange(0, 80)),
        1: dump[1].take(np.arange(10, 100)),
        2: dump[2].take(np.arange(10, 100)),
    }


def long():
    """Return 200 epochs of 12 samples that hardly learn."""
    dump = make(epochs=range(200), n=12)
    return {e: replace(rows, x=rows.x * 0.01) for e, rows in dump.items()}


def named():
    """Return a run of two checkpoints, which have names."""
    first, last = make(epochs=(0, 2)).values()
    source = {"<b>base</b>": first.arrays(), "tuned": last.arrays()}
    return fastdiv.analyze(source, epoch_per_path=True)


# Kind of run: how it is made, how many epochs it has.
RUNS = {
    "splits": lambda: fastdiv.analyze(
        {s: arrays(make(seed=k)) for k, s in enumerate(("train", "val", "ood"))}
    ),
    "names": named,
    "one epoch": lambda: fastdiv.analyze(arrays(make(epochs=(7,)))),
    "one epoch, splits": lambda: fastdiv.analyze(
        {"train": arrays(make(epochs=(0,))), "val": arrays(make(epochs=(0,), seed=1))}
    ),
    "negative": lambda: fastdiv.analyze(arrays(make(epochs=(-9, -4, 3)))),
    "slim": lambda: fastdiv.analyze(arrays(make()), scores="slim"),
    "rolling": lambda: fastdiv.analyze(arrays(make(epochs=(0, 1, 2, 3))), scores="rolling"),
    "infinite": lambda: fastdiv.analyze(with_infinite()),
    "all invalid": lambda: fastdiv.analyze(
        {e: (np.full((8, 3), np.nan, np.float32), np.zeros(8, int)) for e in (0, 1)}, kind="logits"
    ),
    "one label": lambda: fastdiv.analyze(
        {e: (rows.x, np.zeros(40, int)) for e, rows in make(c=2).items()}
    ),
    "1000 classes": lambda: fastdiv.analyze(arrays(make(epochs=(0, 1), n=300, c=1000))),
    "hostile": lambda: fastdiv.analyze(arrays(make(c=4)), class_names=HOSTILE),
    "coming and going": lambda: fastdiv.analyze(arrays(coming_and_going())),
    "200 epochs": lambda: fastdiv.analyze(arrays(long())),
}


@pytest.fixture(scope="module")
def runs():
    """Return a function that makes each kind of run once."""
    made = {}

    def of(kind):
        if kind not in made:
            made[kind] = RUNS[kind]()
        return made[kind]

    return of


# -- names and axes ------------------------------------------------------------------------------


def test_nothing_in_a_name_is_markup():
    assert escaped("<a href='x'>&amp;</a>") == "&lt;a href='x'&gt;&amp;amp;&lt;/a&gt;"
    assert escaped("$x^2$") == "&#36;x^2&#36;"
    assert plain("a\r\n\tb\u202ec") == "a   b c"
    assert len(plain("x" * 100)) == 60
    assert plain("x" * 100, 5) == "xxxx…"


def test_the_axis_has_a_tick_for_each_of_a_few_epochs():
    few = EpochAxis.of([{"epoch": e} for e in (-3, -2, -1)])
    assert few.layout()["tickvals"] == [-3, -2, -1]
    many = EpochAxis.of([{"epoch": e} for e in range(100)]).layout()
    assert "tickvals" not in many
    assert many["range"][0] < 0 < 99 < many["range"][1]
    uneven = EpochAxis.of([{"epoch": e} for e in (0, 1, 5)]).layout()
    assert uneven["dtick"] == 1  # whole numbers only
    one = EpochAxis.of([{"epoch": 7}])
    low, high = one.layout(bars=True)["range"]
    assert low < 6.5 < 7.5 < high


def test_the_axis_shows_names_some_of_them_where_there_are_many():
    rows = [{"epoch": e, "epoch_name": f"<{e}>"} for e in range(20)]
    axis = EpochAxis.of(rows)
    layout = axis.layout()
    assert layout["tickvals"] == list(range(0, 20, 3))
    assert layout["ticktext"][1] == "&lt;3&gt;"
    assert (axis.say(3), axis.shown(3)) == ("<3>", "&lt;3&gt;")


def test_long_names_are_told_apart_by_what_they_do_not_share():
    rows = [{"epoch": e, "epoch_name": f"a-run-with-a-very-long-name/{e:03}"} for e in range(3)]
    assert EpochAxis.of(rows).layout()["ticktext"] == ["…000", "…001", "…002"]
    one = EpochAxis.of(rows[:1])
    assert one.short(0) == "a-run-with-a-very-long-…"
    assert EpochAxis.of([{"epoch": 4}]).short(4) == "4"


# -- loss and accuracy ---------------------------------------------------------------------------


def test_loss_and_accuracy_are_those_of_the_predictions():
    dump = spread()
    picture = check(loss_accuracy(fastdiv.analyze(arrays(dump))))
    loss = [losses(r.x, r.y).mean() for r in dump.values()]
    accuracy = [(r.x.argmax(1) == r.y).mean() for r in dump.values()]
    assert trace(picture, "loss")["x"] == [0, 1, 2, 3, 4]
    np.testing.assert_allclose(trace(picture, "loss")["y"], loss, rtol=DIGITS)
    np.testing.assert_allclose(trace(picture, "accuracy")["y"], accuracy, rtol=DIGITS)
    low, high = int(np.argmin(loss)), int(np.argmax(accuracy))
    assert trace(picture, f"lowest loss: {low}")["y"] == pytest.approx([loss[low]], rel=DIGITS)
    assert trace(picture, f"highest accuracy: {high}")["x"] == [high]
    assert f"{loss[low]:.4f} nats" in picture.text
    assert f"{100 * accuracy[high]:.2f} %" in picture.text


def test_the_pair_that_matters_most_is_shaded_or_the_one_that_is_given():
    run = fastdiv.analyze(arrays(spread()))
    stretch = run.split().stretches()[0]
    for marked, ends in (
        (None, (stretch.epoch_from, stretch.epoch_to)),
        ((1, 4), (1, 4)),
    ):
        rects = [s for s in loss_accuracy(run, marked).layout["shapes"] if s["type"] == "rect"]
        assert [(r["x0"], r["x1"]) for r in rects] == [ends, ends]


def test_where_loss_and_accuracy_part_is_said():
    rng = np.random.default_rng(0)
    n, dump = 600, {}
    y = rng.integers(0, 3, n)
    noise = rng.normal(size=(n, 3))
    for epoch in range(12):
        x = noise.copy()
        x[np.arange(n), y] += 0.5 + 0.2 * epoch
        dump[epoch] = ((x * (1 + 2 * epoch)).astype(np.float32), y)
    picture = check(loss_accuracy(fastdiv.analyze(dump)))
    (stretch,) = (s for s in fastdiv.analyze(dump).split().stretches() if "rose" in s.why)
    (note,) = picture.layout["annotations"]
    ends = (stretch.epoch_from, stretch.epoch_to)
    assert note["text"] == f"both rose, {ends[0]} → {ends[1]}"
    before, after = (dump[e] for e in ends)
    change = losses(*after).mean() - losses(*before).mean()
    assert f"loss by {change:+.4f} nats" in picture.text
    assert change > 0


def test_every_split_has_a_curve_and_training_is_thin(runs):
    picture = check(loss_accuracy(runs("splits")))
    named = [t for t in picture.data if t["name"] in ("train", "val", "ood")]
    assert [t["name"] for t in named if t["showlegend"]] == ["val", "ood", "train"]
    dashes = {t["name"]: (t["line"]["dash"], t["line"]["width"]) for t in named}
    assert dashes["train"] == ("dot", 1.5)
    assert len(set(dashes.values())) == 3
    assert "Thin and dotted: training" in picture.how


def test_infinite_losses_are_left_out_marked_and_said(runs):
    picture = check(loss_accuracy(runs("infinite")))
    p, y, _ = with_infinite()[3]
    with np.errstate(divide="ignore"):
        loss = -np.log(p[np.arange(len(y)), y])
    finite = loss[np.isfinite(loss)].mean()
    assert trace(picture, "loss")["y"][-1] == pytest.approx(finite, rel=DIGITS)
    mark = trace(picture, "some losses are infinite")
    assert (mark["x"], mark["text"]) == ([3], ["2 of 120 losses are infinite"])
    assert "up to 2 samples in 1 epoch" in picture.note
    # The highest accuracy may be there; the lowest loss is not, infinite as it is.
    assert trace(picture, "lowest loss: 2")["x"] == [2]


def test_a_single_epoch_stands_beside_what_the_class_shares_reach(runs):
    picture = check(loss_accuracy(runs("one epoch")))
    rows = make(epochs=(7,))[7]
    share = np.bincount(rows.y) / len(rows.y)
    parts = sum(trace(picture, name)["x"][0] for name in ("refinement", "calibration"))
    assert parts == pytest.approx(losses(rows.x, rows.y).mean(), rel=1e-4)
    marks = [t["x"][0] for t in picture.data if t["name"] == "class shares alone"]
    assert marks == pytest.approx([-(share * np.log(share)).sum(), share.max()], rel=DIGITS)
    assert "epoch 7, the only one" in picture.text


def test_a_loss_that_explodes_does_not_flatten_all_others():
    dump = make(epochs=range(8), n=50)
    dump[1] = replace(dump[1], x=dump[1].x * 1000)
    picture = loss_accuracy(fastdiv.analyze(arrays(dump)))
    assert picture.layout["yaxis"]["type"] == "log"
    assert "logarithmic" in picture.how
    assert loss_accuracy(fastdiv.analyze(arrays(make()))).layout["yaxis"]["type"] == "linear"


# -- cells ---------------------------------------------------------------------------------------


def test_cells_are_those_of_the_predictions_and_add_up():
    dump = spread()
    picture = check(cells(fastdiv.analyze(arrays(dump)).split()))
    for k, (before, after) in enumerate(zip(dump.values(), list(dump.values())[1:], strict=False)):
        moved = losses(after.x, after.y) - losses(before.x, before.y)
        a, b = before.x.argmax(1), after.x.argmax(1)
        was, is_ = a == before.y, b == after.y
        masks = {
            "right, still right": was & is_,
            "right → wrong": was & ~is_,
            "wrong → right": ~was & is_,
            "wrong, same prediction": ~was & ~is_ & (a == b),
            "wrong, another prediction": ~was & ~is_ & (a != b),
        }
        for name, mask in masks.items():
            bar = trace(picture, name)
            assert bar["y"][k] == pytest.approx(moved[mask].sum() / 200, rel=DIGITS, abs=1e-9)
            assert bar["text"][k] == f" ({mask.sum():,} samples)"
        assert trace(picture, "change in loss")["y"][k] == pytest.approx(moved.mean(), rel=DIGITS)
    assert all(t["name"] != "samples that came and went" for t in picture.data)


def test_samples_that_come_and_go_have_a_bar(runs):
    picture = check(cells(runs("coming and going").split()))
    dump = coming_and_going()
    means = [losses(r.x, r.y).mean() for r in dump.values()]
    line = trace(picture, "change in loss")["y"]
    assert line == pytest.approx(np.diff(means).tolist(), rel=1e-4)
    bar = trace(picture, "samples that came and went")
    assert bar["text"] == [" (20 came, 10 went)", " (0 came, 0 went)"]
    assert bar["y"][1] == pytest.approx(0.0, abs=1e-12)


def test_bars_of_many_epochs_have_no_gaps_and_the_largest_are_cut_off():
    dump = make(epochs=range(60), n=40)
    dump[0] = replace(dump[0], x=dump[0].x * 1000)
    picture = check(cells(fastdiv.analyze(arrays(dump)).split()))
    assert picture.layout["bargap"] == 0
    assert "cut off" in picture.note
    largest = min(min(t["y"]) for t in picture.data)
    assert picture.layout["yaxis"]["range"][0] > largest / 2


# -- refinement ----------------------------------------------------------------------------------


def test_refinement_is_the_loss_at_the_best_temperature():
    dump = spread(n=400)
    picture = check(refinement(fastdiv.analyze(arrays(dump)).split()))
    for k, rows in enumerate(dump.values()):
        best = minimize_scalar(
            lambda t, r=rows: losses(r.x / t, r.y).mean(), bounds=(0.25, 8), method="bounded"
        )
        whole = losses(rows.x, rows.y).mean()
        left, off = (trace(picture, name)["y"][k] for name in ("refinement", "calibration"))
        assert left == pytest.approx(best.fun, rel=1e-3)
        assert left + off == pytest.approx(whole, rel=1e-4)
        assert trace(picture, "best temperature")["y"][k] == pytest.approx(best.x, rel=1e-2)
    assert {t["type"] for t in picture.data} == {"bar", "scatter"}
    long = check(refinement(fastdiv.analyze(arrays(spread(range(20), n=30))).split()))
    assert {t.get("stackgroup") for t in long.data} == {"loss", None}


def test_a_temperature_at_its_bound_is_marked():
    rows = make(epochs=(0,), n=200)[0]
    sure = (np.eye(3)[rows.y] * 0.01).astype(np.float32)  # right, but hardly sure: colder is better
    picture = refinement(fastdiv.analyze({0: (sure, rows.y)}, kind="logits").split())
    marks = trace(picture, "best temperature")
    assert marks["y"] == [0.25]
    assert marks["text"] == [" (the lowest that is tried)"]


# -- causes --------------------------------------------------------------------------------------


def test_causes_add_up_to_the_change():
    view = fastdiv.analyze(arrays(spread(n=400))).split()
    made = {pair: view.explain(*pair) for pair in ((0, 4), (1, 2))}
    picture = check(causes(made))
    assert list(picture.frames) == ["0→4", "1→2"]
    for pair, explanation in made.items():
        frame = picture.frame(pair_key(*pair))
        bars = frame.data[0]
        assert bars["measure"][-1] == "total"
        assert set(bars["measure"][:-1]) <= {"relative"}
        assert sum(bars["x"][:-1]) == pytest.approx(explanation.delta_loss, abs=1e-9)
        assert bars["x"][-1] == explanation.delta_loss
        assert bars["text"][-1] == signed(explanation.delta_loss)
        low, high = frame.layout["xaxis.range"]
        ends = np.cumsum([0.0, *bars["x"][:-1]])
        assert low < ends.min() < ends.max() < high
        assert frame.layout["yaxis.ticktext"][0] == wording.words(explanation.causes[0].name)
    assert causes({}) is None


def test_a_pair_with_nothing_in_common_has_an_empty_frame():
    one, two = make(epochs=(0, 1), n=20).values()
    dump = {0: one.arrays(), 1: Rows(two.x, two.y, two.ids + 1000).arrays()}
    view = fastdiv.analyze(dump).split()
    picture = check(causes({(0, 1): view.explain(0, 1)}))
    frame = picture.frame("0→1")
    assert frame.data[0]["x"] == []
    assert "nothing to compare" in frame.text


# -- flow ----------------------------------------------------------------------------------------


def test_flow_counts_samples_between_any_two_epochs():
    dump = spread()
    picture = check(flow(fastdiv.analyze(arrays(dump)).split(), [(0, 1), (0, 4)]))
    for a, b in ((0, 1), (0, 4)):
        was, is_ = (dump[e].x.argmax(1) == dump[e].y for e in (a, b))
        same = dump[a].x.argmax(1) == dump[b].x.argmax(1)
        (data,), _ = picture.chosen(pair_key(a, b))
        labels, link = data["node"]["label"], data["link"]
        ends = [
            (labels[s].split(":")[0], labels[t].split(":")[0])
            for s, t in zip(link["source"], link["target"], strict=True)
        ]
        counted = dict(zip(ends, link["value"], strict=True))
        wanted = {
            ("right", "right"): was & is_,
            ("right", "wrong, another prediction"): was & ~is_,
            ("wrong", "right"): ~was & is_,
            ("wrong", "wrong, same prediction"): ~was & ~is_ & same,
            ("wrong", "wrong, another prediction"): ~was & ~is_ & ~same,
        }
        assert counted == {k: int(m.sum()) for k, m in wanted.items() if m.any()}
        assert f"right: {was.sum():,} ({100 * was.mean():.1f} %)" in labels
        moved = losses(dump[b].x, dump[b].y) - losses(dump[a].x, dump[a].y)
        hover = link["customdata"][ends.index(("wrong", "right"))]
        assert f"{signed(moved[~was & is_].sum() / 200)} nats" in hover


def test_flow_tells_who_came_and_who_went(runs):
    picture = flow(runs("coming and going").split(), [(0, 1)])
    (data,), _ = picture.chosen()
    assert {"gone: 10 (10.0 %)", "new: 20 (20.0 %)"} <= set(data["node"]["label"])
    assert "10 were only in the first, 20 only in the second" in picture.frame().text


def test_flow_of_scores_that_are_gone_is_that_of_consecutive_epochs(runs):
    view = runs("rolling").split()
    picture = check(flow(view, [(0, 3), (0, 1), (2, 3)]))
    assert list(picture.frames) == ["0→1", "2→3"]
    assert flow(view, [(0, 3)]) is None


# -- classes -------------------------------------------------------------------------------------


def by_class(dump, a, b, classes):
    """Return what each class adds to the change in loss and in accuracy, in nats and points."""
    sums = []
    for rows in (dump[a], dump[b]):
        loss, right = losses(rows.x, rows.y), rows.x.argmax(1) == rows.y
        sums.append(
            [
                np.bincount(rows.y, weights, classes) / len(rows.y)
                for weights in (loss, right.astype(float))
            ]
        )
    return sums[1][0] - sums[0][0], 100 * (sums[1][1] - sums[0][1])


def test_classes_add_up_to_the_change_also_where_samples_come_and_go(runs):
    dump = coming_and_going()
    picture = check(class_changes(runs("coming and going").split(), [(0, 1), (1, 2)]))
    for a, b in ((0, 1), (1, 2)):
        loss, points = by_class(dump, a, b, 3)
        frame = picture.frame(pair_key(a, b))
        order = [int(t.removeprefix("class ")) for t in frame.layout["yaxis.ticktext"]]
        assert order == np.argsort(-loss).tolist()
        # A class whose losses went up and down alike: float32's digits of these are what is left.
        np.testing.assert_allclose(frame.data[0]["x"], loss[order], rtol=DIGITS, atol=1e-8)
        np.testing.assert_allclose(frame.data[1]["x"], points[order], rtol=DIGITS, atol=1e-9)


def test_all_but_the_largest_classes_are_one_bar():
    dump = make(epochs=(0, 3), n=500, c=30)
    picture = check(class_changes(fastdiv.analyze(arrays(dump)).split(), [(0, 3)], most=5))
    loss, points = by_class(dump, 0, 3, 30)
    frame = picture.frame()
    assert len(frame.data[0]["x"]) == 6
    assert frame.layout["yaxis.ticktext"][-1] == "25 other classes"
    shown = [int(t.removeprefix("class ")) for t in frame.layout["yaxis.ticktext"][:-1]]
    rest = np.setdiff1d(np.arange(30), shown)
    # Told in numbers: drawn, its bar would be many times those of the classes.
    told = {note["xref"]: note["text"] for note in frame.layout["annotations"]}
    for axis, values, digits in (("x", loss, 4), ("x2", points, 2)):
        drawn = frame.data[axis == "x2"]["x"][-1]
        large = abs(values[rest].sum()) > 4 * abs(values[shown]).max()
        assert (drawn is None) == large
        if large:
            assert told[axis] == signed(values[rest].sum(), digits)
    size = np.maximum(abs(loss) / abs(loss).max(), abs(points) / abs(points).max())
    assert size[shown].min() >= size[rest].max()


def test_a_class_with_an_infinite_loss_has_no_bar_and_is_named(runs):
    picture = check(class_changes(runs("infinite").split(), [(2, 3), (0, 1)]))
    frame = picture.frame("2→3")
    assert frame.layout["yaxis.ticktext"][:2] == ["class 0", "class 1"]
    assert frame.data[0]["x"][:2] == [None, None]
    assert frame.data[0]["x"][2] is not None
    assert [note["text"] for note in frame.layout["annotations"]] == ["∞", "∞"]
    assert "2 classes have an infinite loss" in frame.text
    assert "infinite" not in picture.frame("0→1").text


def test_names_of_classes_are_shown_as_they_are(runs):
    picture = check(class_changes(runs("hostile").split(), [(0, 2)]))
    ticks = picture.frame().layout["yaxis.ticktext"]
    assert "&lt;b&gt;a&lt;/b&gt;" in ticks
    assert "&#36;x&#36; %{y} &amp;amp;" in ticks
    assert max(map(len, ticks)) < 40


# -- as figures ----------------------------------------------------------------------------------

OVER_EPOCHS = ("loss_accuracy", "cells", "refinement", "cartography", "forgetting")
OF_PAIRS = ("causes", "flow", "class_changes")
OF_EPOCHS = (
    "reliability", "confidence", "margin", "loss", "concentration", "roc", "precision_recall",
    "thresholds", "confusion_matrix",
)  # fmt: skip
TWO = {"roc", "precision_recall", "thresholds"}
SINGLE = {"cells", "cartography", "forgetting", "causes", "flow", "class_changes"}
# By the kind of run, which pictures there are not; those of two classes are only where said.
LACK = {
    "one epoch": SINGLE,
    "one epoch, splits": SINGLE,
    "slim": {"refinement"},
    "rolling": {"flow"},
    "all invalid": {"refinement", "cells", "cartography", "forgetting", *OF_EPOCHS,
                    "class_changes", "flow", "causes"},
    "1000 classes": {"confusion_matrix"},
}  # fmt: skip


@pytest.mark.parametrize("kind", RUNS)
@pytest.mark.parametrize("name", [*OVER_EPOCHS, *OF_PAIRS, *OF_EPOCHS])
def test_every_picture_is_a_figure_or_an_error_that_says_why(runs, kind, name):
    run = runs(kind)
    epochs = run.epochs["epoch"].to_pylist()
    pair = (min(epochs), max(epochs)) if name in ("flow", "class_changes") else ()
    lacks = LACK.get(kind, set()) | (TWO if kind != "one label" else {"roc", "precision_recall"})
    method = getattr(run.plot, name)
    if name in lacks:
        with pytest.raises(UsageError, match=r"\w+ \w+"):
            method(*pair)
        return
    figure = method(*pair)
    assert len(figure.data) >= 1
    assert figure.layout.title.text
    said = str(figure.to_dict())
    assert not any(name in said for name in ("<b>base</b>", *HOSTILE))


def test_figures_of_epochs_by_number_name_and_split(runs):
    names = runs("names").plot
    both = [names.reliability(epoch) for epoch in ("tuned", 1)]
    assert both[0] == both[1] == names.reliability()
    assert both[0] != names.reliability("<b>base</b>")
    assert names.flow("<b>base</b>", "tuned") == names.flow(0, 1)
    splits = runs("splits").plot
    assert splits.cells("train") != splits.cells("val")
    assert splits.cells() == splits.cells("val")
    rects = [s for s in splits.loss_accuracy(1, 2).layout.shapes if s.type == "rect"]
    assert (rects[0].x0, rects[0].x1) == (1, 2)


def test_two_classes_have_curves():
    plot = fastdiv.analyze(arrays(make(c=2))).plot
    for name in sorted(TWO):
        assert len(getattr(plot, name)(1).data) >= 1


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda p: p.reliability(9), "there is no epoch 9: there are 0, 1, 2, 3"),
        (lambda p: p.reliability(0), "the scores of epoch 0 are not stored: there are those of"),
        (lambda p: p.flow(0, 3), "epochs 0 and 3 cannot be compared"),
        (lambda p: p.flow(1, 1), "epoch 1 is given twice"),
        (lambda p: p.causes(2), "give both epochs, or none"),
        (lambda p: p.loss_accuracy(2), "give both epochs, or none"),
        (lambda p: p.cells("val"), "there is no split 'val'"),
        (lambda p: p.reliability("last"), "no epoch is named 'last'"),
    ],
)
def test_what_cannot_be_drawn_is_said(runs, ask, message):
    with pytest.raises(UsageError, match=message):
        ask(runs("rolling").plot)


def test_plots_say_what_they_can_draw(runs):
    said = repr(runs("splits").plot)
    for name in (*OVER_EPOCHS, *OF_PAIRS, *OF_EPOCHS):
        assert name in said


def test_numbers_have_a_sign_that_is_one_of_minus():
    assert [signed(x) for x in (0.5, -0.5, 0.0, -0.0, -1e-9)] == [
        "+0.5000", "−0.5000", "0.0000", "0.0000", "0.0000",
    ]  # fmt: skip
    assert signed(-1.234, 2) == "−1.23"


def test_where_no_loss_is_finite_the_accuracy_is_told():
    n = 30
    y = np.arange(n) % 3
    x = np.zeros((n, 3))
    x[np.arange(n), y] = -np.inf
    x[np.arange(n), (y + 1) % 3] = 1.0
    picture = check(loss_accuracy(fastdiv.analyze({0: (x, y), 1: (x, y)})))
    assert picture.text == "The accuracy is highest in epoch 0 (0.00 %); no loss is finite."


def test_a_class_that_lowered_the_loss_is_told_though_none_raised_it():
    y = np.arange(40) % 2
    x = np.where(y[:, None] == np.arange(2), 0.5, 0.0)
    picture = class_changes(
        fastdiv.analyze({0: (x, y), 1: (4 * x, y)}, kind="logits").split(), [(0, 1)]
    )
    assert "class 0 lowered the mean loss most" in picture.frame().text
    x[:4] = -x[:4]
    worse = class_changes(fastdiv.analyze({0: (-x, y), 1: (x, y)}, kind="logits").split(), [(0, 1)])
    assert "gained most accuracy" in worse.frame().text


def test_flow_without_a_sample_in_common_says_so():
    def rows(first):
        ids = np.arange(first, first + 10)
        return {"logits": np.eye(3)[ids % 3].tolist(), "label": ids % 3, "sample_id": ids}

    run = fastdiv.analyze(
        [pa.table({**rows(10 * e), "epoch": np.full(10, e)}) for e in range(2)], kind="logits"
    )
    text = flow(run.split(), [(0, 1)]).frame().text
    assert text == (
        "From epoch 0 to 1 no sample can be compared. Left out: 10 were only in the first, 10 only "
        "in the second."
    )

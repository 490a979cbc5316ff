"""Pictures of single epochs and of samples, against numbers made by others."""

import json
import re

import numpy as np
import pyarrow as pa
import pytest
from dumps import arrays, as_list, make, spoil
from scipy.stats import binomtest
from sklearn import metrics as sk

import fastdiv
from fastdiv.errors import UsageError
from fastdiv.explain.ranking.curve import bins_of
from fastdiv.explain.shapes import CONFIDENCE_EDGES, LOSS_EDGES, MARGIN_EDGES
from fastdiv.render.pictures import epoch_curves, single_epochs
from fastdiv.render.pictures.cartography import cartography
from fastdiv.render.pictures.concentration import concentration
from fastdiv.render.pictures.confusion_matrix import confusion_matrix
from fastdiv.render.pictures.curves import precision_recall, roc, thresholds
from fastdiv.render.pictures.distributions import OCTAVES, distribution
from fastdiv.render.pictures.forgetting import forgetting
from fastdiv.render.pictures.polyline import simplified
from fastdiv.render.pictures.reliability import reliability, wilson

CLOSE = {"rtol": 6e-5, "atol": 1e-9}  # coordinates have five digits


def every(view, epochs=None):
    """Return all pictures of a split by name, None for those that it does not know."""
    epochs = view.evidence.epochs if epochs is None else epochs
    return {
        "reliability": reliability(view, epochs),
        **{of: distribution(view, epochs, of) for of in ("confidence", "margin", "loss")},
        "concentration": concentration(view, epochs),
        "roc": roc(view, epochs),
        "precision_recall": precision_recall(view, epochs),
        "thresholds": thresholds(view, epochs),
        "confusion_matrix": confusion_matrix(view, epochs),
        "cartography": cartography(view),
        "forgetting": forgetting(view),
    }


def known(view):
    return {name for name, picture in every(view).items() if picture is not None}


def checked(view):
    """Return the pictures of a split that are known, after what must be so of any."""
    found = {name: picture for name, picture in every(view).items() if picture is not None}
    for picture in found.values():
        json.dumps(picture.to_dict(), allow_nan=False)
        for frame in picture.frames.values() or [picture]:
            assert frame.text.endswith("."), picture.name
            assert "nan" not in frame.text.lower().split(), frame.text
        for key in picture.frames or [None]:
            figure = picture.figure(key)  # plotly refuses what it does not know
            assert len(figure.data) == len(picture.data)
            for trace in figure.data:
                assert trace.y is not None or trace.type == "heatmap", picture.name
    return found


def scored(rows, kind="logits"):
    return fastdiv.score(rows.x, rows.y, kind=kind)


@pytest.fixture(scope="module")
def many():
    """Three epochs of 3,000 samples in 5 classes."""
    dump = make(epochs=(-1, 3, 8), n=3000, c=5, seed=1)
    return dump, fastdiv.analyze(arrays(dump)).split()


@pytest.fixture(scope="module")
def two():
    """Three epochs of 3,000 samples in 2 classes."""
    dump = make(epochs=(0, 1, 2), n=3000, c=2, seed=2)
    return dump, fastdiv.analyze(arrays(dump)).split()


def column(values):
    return np.array([0.0 if v is None else v for v in values])


# -- reliability -----------------------------------------------------------------------------------


def test_reliability_shows_the_calibration_error_of_the_table(many):
    dump, view = many
    picture = checked(view)["reliability"]
    assert list(picture.frames) == ["-1", "3", "8"]
    for row in view.epochs.to_pylist():
        frame = picture.frames[str(row["epoch"])]
        _, over, under, points, histogram = frame.data
        n = np.array(points["customdata"])
        gap = np.array(points["x"]) - np.array(points["y"])
        assert n.sum() == column(histogram["y"]).sum() == row["n"]
        assert np.isclose((n * abs(gap)).sum() / n.sum(), row["ece"], rtol=1e-3)
        share = (n * np.maximum(gap, 0)).sum() / n.sum()
        assert np.isclose(share, row["ece_overconfident"], rtol=1e-3)
        assert np.allclose(over["y"], gap[gap > 0], atol=2e-5)
        assert np.allclose(under["y"], -gap[gap < 0], atol=2e-5)
        assert f"(ECE) is {row['ece']:.4f}" in frame.text
        scores = scored(dump[row["epoch"]])
        counts, _ = np.histogram(scores.confidence, bins=np.linspace(0, 1, 16))
        assert column(histogram["y"]).tolist() == counts.tolist()


def test_the_intervals_of_reliability_are_wilson_s():
    right, n = np.array([0.0, 1, 3, 17, 1000]), np.array([4.0, 1, 9, 40, 1000])
    low, high = wilson(right, n)
    for i in range(len(n)):
        wanted = binomtest(int(right[i]), int(n[i])).proportion_ci(method="wilson")
        assert np.allclose((low[i], high[i]), wanted, atol=1e-5)
    assert (low <= right / n).all()
    assert (high >= right / n).all()


# -- distributions ---------------------------------------------------------------------------------


@pytest.mark.parametrize("of", ["confidence", "margin", "loss"])
def test_distributions_are_histograms_of_the_right_and_the_wrong(many, of):
    dump, view = many
    picture = distribution(view, view.evidence.epochs, of)
    edges = {"confidence": CONFIDENCE_EDGES, "margin": MARGIN_EDGES, "loss": OCTAVES}[of]
    x, width = (np.array(picture.data[0][name]) for name in ("x", "width"))
    # Where a bar ends, whatever its bin: both ends are edges, or stand for one that is infinite.
    first = int(np.searchsorted(edges, x[0])) - 1
    assert np.allclose((x - width / 2)[1:], edges[first + 1 : first + len(x)], rtol=1e-4)
    for epoch, rows in dump.items():
        scores = scored(rows)
        values = getattr(scores, of).astype(np.float64)
        right, wrong, *carried = picture.frames[str(epoch)].data
        for trace, some in ((right, scores.correct), (wrong, ~scores.correct)):
            counts, _ = np.histogram(values[some], edges)
            drawn = counts[first : first + len(x)]
            assert column(trace["y"]).tolist() == drawn.tolist()
            if of != "margin":
                assert drawn.sum() == some.sum()
        if of == "loss":
            sums, _ = np.histogram(values, edges, weights=values)
            wanted = sums[first : first + len(x)] / values.sum()
            assert np.allclose(column(carried[0]["y"]), wanted, rtol=1e-4, atol=1e-9)


def test_the_bins_of_the_loss_are_octaves():
    assert OCTAVES.tolist() == [0, *(2.0**k for k in range(-14, 7)), np.inf]


def test_the_axes_of_distributions_are_the_same_for_all_epochs(many):
    _, view = many
    for of in ("confidence", "margin", "loss"):
        picture = distribution(view, view.evidence.epochs, of)
        assert not any(frame.layout for frame in picture.frames.values())
        most = max(
            y for frame in picture.frames.values() for t in frame.data[:2] for y in t["y"] if y
        )
        assert 10 ** picture.layout["yaxis"]["range"][1] > most


def test_what_distributions_say_is_so(many):
    dump, view = many
    scores = scored(dump[8])
    wrong, loss = ~scores.correct, scores.loss
    texts = {of: distribution(view, [8], of).frames["8"].text for of in ("confidence", "loss")}
    sure = int((scores.confidence[wrong] >= 0.9).sum())
    assert f"of {wrong.sum():,} wrong samples {sure:,} (" in texts["confidence"]
    assert f"Epoch 8: {(loss >= 2).sum():,} samples (" in texts["loss"]
    share = loss[loss >= 2].sum() / loss.sum()
    assert f"carry {100 * share:.1f} % of the loss" in texts["loss"]


def test_infinite_losses_and_margins_beyond_the_axis_are_told():
    x = np.array([[0, 0], [0, -np.inf], [0, -30], [30, 0], [0, 1]], np.float32)
    view = fastdiv.analyze({0: (x, np.array([0, 1, 1, 0, 1]))}).split()
    found = checked(view)
    text = found["loss"].frames["0"].text
    assert text.endswith(" Not drawn: 1 sample with an infinite loss.")
    assert column(found["loss"].frames["0"].data[1]["y"]).sum() == 1  # the wrong, finite
    assert "2 are below −20 nats and 1 is above 20 nats" in found["margin"].frames["0"].text
    text = found["concentration"].frames["0"].text
    assert text.endswith("Left out: 1 sample with an infinite loss.")
    assert "Infinite losses are left out" in found["concentration"].note


# -- concentration ---------------------------------------------------------------------------------


def test_concentration_lies_on_the_curve_of_the_sorted_losses(many):
    dump, view = many
    picture = concentration(view, view.evidence.epochs)
    for epoch, rows in dump.items():
        loss = np.sort(scored(rows).loss.astype(np.float64))[::-1]
        whole_y = np.append(0, np.cumsum(loss)) / loss.sum()
        whole_x = np.arange(len(whole_y)) / len(loss)
        _, line = picture.frames[str(epoch)].data
        x, y = np.array(line["x"]), np.array(line["y"])
        true = np.interp(x, whole_x, whole_y)
        assert (y <= true + 2e-5).all()
        assert (true - y).max() < 0.02
        counts, _ = np.histogram(loss, LOSS_EDGES)
        ends = np.cumsum(counts[counts > 0][::-1]) / len(loss)
        at_ends = np.isclose(x[:, None], ends, rtol=1e-5).any(axis=1)
        assert at_ends.sum() > 5
        assert np.allclose(y[at_ends], true[at_ends], atol=2e-4)
        said = picture.frames[str(epoch)].text
        first, second = (int(s) for s in re.findall(r"about (\d+) %", said))
        for share, told in ((0.01, first), (0.1, second)):
            assert abs(told - 100 * np.interp(share, whole_x, whole_y)) < 2.5
        half = float(re.search(r"worst ([\d.]+) % carry half", said)[1]) / 100
        assert abs(np.interp(half, whole_x, whole_y) - 0.5) < 0.02


def test_concentration_of_no_loss_is_not_drawn():
    x = np.array([[800, 0], [0, 800]], np.float32)
    view = fastdiv.analyze({0: (x, np.array([0, 1]))}).split()
    assert concentration(view, [0]) is None
    y = np.array([1, 0])
    mixed = fastdiv.analyze({0: (x, np.array([0, 1])), 1: (np.zeros_like(x), np.array([0, 1]))})
    picture = concentration(mixed.split(), [0, 1])
    assert picture.frames["0"].text == "Epoch 0: no sample has a finite loss above 0."
    assert picture.frames["0"].data[1] == {"x": [], "y": []}
    assert np.allclose(picture.frames["1"].data[1]["x"], picture.frames["1"].data[1]["y"])
    infinite = fastdiv.analyze({0: (np.where(x > 0, 0, -np.inf).astype("f4"), y)}).split()
    assert concentration(infinite, [0]) is None


# -- curves ----------------------------------------------------------------------------------------


def distance(x, y, line_x, line_y):
    """Return how far points are at most from a line through others, by all its segments."""
    a = np.stack([line_x[:-1], line_y[:-1]], 1)
    d = np.stack([np.diff(line_x), np.diff(line_y)], 1)
    p = np.stack([x, y], 1)[:, None]
    length = np.maximum((d * d).sum(1), 1e-300)
    t = np.clip(((p - a) * d).sum(2) / length, 0, 1)
    return np.linalg.norm(p - (a + t[..., None] * d), axis=2).min(1).max()


def test_curves_are_those_of_scikit_learn(two):
    dump, view = two
    found = checked(view)
    off = {}
    for epoch, rows in dump.items():
        score = (rows.x[:, 1] - rows.x[:, 0]).astype(np.float64)
        line = found["roc"].frames[str(epoch)].data[1]
        assert (
            len(line["x"]) == len(line["y"]) == len(line["customdata"]) <= epoch_curves.MOST_POINTS
        )
        fpr, tpr, _ = sk.roc_curve(rows.y, bins_of(score))
        off["roc"] = distance(fpr, tpr, np.array(line["x"]), np.array(line["y"]))
        line = found["precision_recall"].frames[str(epoch)].data[1]
        precision, recall, _ = sk.precision_recall_curve(rows.y, bins_of(score))
        off["precision_recall"] = distance(
            recall[:-1], precision[:-1], np.array(line["x"]), np.array(line["y"])
        )
        for name, far in off.items():
            told = float(re.search(r"within ([\d.]+) of", found[name].note)[1])
            assert far <= told + 1 / 4096 + 1e-4, (name, epoch)
        row = view.ranking(epoch).to_pylist()[1]
        assert f"curve is {row['roc_auc']:.4f}" in found["roc"].frames[str(epoch)].text
        text = found["precision_recall"].frames[str(epoch)].text
        assert f"precision is {row['average_precision']:.4f}" in text
        assert f"F1 is best, {row['best_f1']:.4f}" in text
        assert abs(sk.roc_auc_score(rows.y, score) - row["roc_auc"]) < 1e-4


def test_an_epoch_whose_scores_are_all_but_equal_is_sorted():
    rng = np.random.default_rng(0)
    x = (rng.standard_normal((400, 2)) * 1e-5).astype(np.float32)
    y = rng.integers(0, 2, 400)
    view = fastdiv.analyze({0: (x, y)}).split()
    picture = roc(view, [0])
    area = sk.roc_auc_score(y, (x[:, 1] - x[:, 0]).astype(np.float64))
    assert f"curve is {area:.4f}:" in picture.frames["0"].text
    assert len(picture.frames["0"].data[1]["x"]) > 30


def test_thresholds_are_those_of_the_table(two):
    _, view = two
    picture = thresholds(view, view.evidence.epochs)
    _, x = epoch_curves.cuts()
    assert np.abs(x - epoch_curves.THRESHOLDS).max() < 2e-4
    assert x[49] == 0.5
    for epoch in view.evidence.epochs:
        wanted = view.accuracy_by_threshold(epoch, x)
        drawn = picture.frames[str(epoch)].data
        for trace, name in zip(drawn, ("accuracy", "precision", "recall", "f1"), strict=False):
            values = [np.nan if v is None else v for v in trace["y"]]
            assert np.allclose(values, wanted[name].to_numpy(), equal_nan=True, **CLOSE), name
        row = view.ranking(epoch).to_pylist()[1]
        assert np.allclose(
            [*drawn[4]["x"], *drawn[4]["y"]],
            [row["threshold_accuracy"], row["best_accuracy"]],
            **CLOSE,
        )
        accuracy = view.epochs["accuracy"].to_pylist()[epoch]
        assert f"the accuracy is {100 * accuracy:.2f} %" in picture.frames[str(epoch)].text


@pytest.mark.parametrize("label", [0, 1])
def test_labels_of_one_class_have_no_roc_curve(label):
    x = np.random.default_rng(3).normal(size=(50, 2)).astype(np.float32)
    view = fastdiv.analyze({0: (x, np.full(50, label))}).split()
    found = checked(view)
    assert "roc" not in found
    assert ("precision_recall" in found) == (label == 1)
    assert "thresholds" in found
    matrix = found["confusion_matrix"].frames["0"].data[0]
    assert sum(map(sum, matrix["customdata"])) == 50
    assert matrix["z"][1 - label] == [None, None]


def test_a_simplified_line_is_as_near_as_it_says():
    x = np.linspace(0, 1, 5000)
    y = x * x * (1 - 0.2 * np.sin(40 * x))
    at, off = simplified(x, y, 200, 1e-3)
    assert off <= 1e-3
    assert 10 < len(at) < 200
    assert distance(x, y, x[at], y[at]) <= off + 1 / 4096
    few, far = simplified(x, y, 5, 1e-3)
    assert len(few) == 5
    assert far > 1e-3
    assert distance(x, y, x[few], y[few]) <= far + 1 / 4096
    assert {0, 4999} <= set(few.tolist())
    for n in (0, 1, 2):
        assert simplified(x[:n], y[:n], 9, 0)[0].tolist() == list(range(n))
    assert simplified(np.zeros(9), np.zeros(9), 9, 0)[0].tolist() == [0, 8]


# -- confusions ------------------------------------------------------------------------------------


def test_the_confusion_matrix_is_that_of_scikit_learn(many):
    dump, view = many
    picture = confusion_matrix(view, view.evidence.epochs)
    for epoch, rows in dump.items():
        predicted = rows.x.argmax(axis=1)
        wanted = sk.confusion_matrix(rows.y, predicted)
        cells = picture.frames[str(epoch)].data[0]
        assert cells["customdata"] == wanted.tolist()
        shares = sk.confusion_matrix(rows.y, predicted, normalize="true")
        assert np.allclose([column(row) for row in cells["z"]], shares, atol=1e-4)
        off = wanted - np.diag(np.diag(wanted))
        a, b = np.unravel_index(off.argmax(), off.shape)
        text = picture.frames[str(epoch)].text
        assert f"class {a} is taken for class {b}: {off.max():,} samples" in text
        worst = (np.diag(wanted) / wanted.sum(axis=1)).argmin()
        assert f"fares worst is class {worst}:" in text


@pytest.mark.parametrize(("c", "numbers"), [(12, True), (20, False), (21, None)])
def test_large_confusion_matrices_have_no_numbers_or_are_not_drawn(c, numbers):
    view = fastdiv.analyze(arrays(make(epochs=(0,), n=200, c=c))).split()
    picture = confusion_matrix(view, [0])
    assert (picture is None) == (numbers is None)
    if picture is not None:
        assert ("texttemplate" in picture.data[0]) == numbers


def test_all_right_is_said():
    x = np.eye(3, dtype=np.float32) * 9
    view = fastdiv.analyze({0: (x, np.arange(3))}).split()
    assert confusion_matrix(view, [0]).frames["0"].text == "Epoch 0: all 3 samples are right."


# -- samples ---------------------------------------------------------------------------------------


def test_the_data_map_holds_every_sample_where_there_are_few(many):
    _, view = many
    picture = cartography(view)
    rows = {str(row["sample_id"]): row for row in view.samples.to_pylist()}
    drawn = {}
    for trace in picture.data[1:]:
        for x, y, custom in zip(trace["x"], trace["y"], trace["customdata"], strict=True):
            drawn[custom[0]] = (trace["name"], x, y, custom[1:])
    assert drawn.keys() == rows.keys()
    for i, row in rows.items():
        name, x, y, custom = drawn[i]
        assert np.allclose((x, y), (row["variability"], row["confidence"]), **CLOSE)
        assert custom == [
            str(row["label"]), row["n_correct"], row["n_epochs"], row["forgetting_events"],
        ]  # fmt: skip
        share = row["n_correct"] / row["n_epochs"]
        wanted = "never right" if not share else "always right" if share == 1 else None
        assert name == (wanted or ("up to half" if share <= 0.5 else "more than half"))
    shades = np.array([[0 if z is None else z for z in row] for row in picture.data[0]["z"]])
    assert abs(np.expm1(shades).sum() - len(rows)) < 0.02 * len(rows)
    for row in view.regions().to_pylist()[:3]:
        assert f"{row['n']:,} are {row['region']}" in picture.text
    assert picture.note == ""


def test_of_many_samples_some_are_drawn_evenly_and_that_is_said(monkeypatch, many):
    _, view = many
    monkeypatch.setattr("fastdiv.render.pictures.cartography.MOST_DRAWN", 100)
    picture = cartography(view)
    assert picture.note.startswith("100 of 3,000 samples are drawn, evenly by id")
    drawn = sorted(int(c[0]) for trace in picture.data[1:] for c in trace["customdata"])
    assert len(drawn) == 100
    ids = view.samples["sample_id"].to_numpy()
    places = np.searchsorted(ids, drawn)
    assert set(np.diff(places).tolist()) == {30, 31}
    assert cartography(view) == picture


def test_forgetting_counts_who_was_learned_when(many):
    dump, view = many
    right = np.stack([rows.x.argmax(1) == rows.y for rows in dump.values()])
    forgotten = (right[:-1] & ~right[1:]).sum(axis=0)
    learned = right.any(axis=0)
    picture = checked(view)["forgetting"]
    events, never, first = picture.data
    wanted = np.bincount(forgotten[learned])
    assert column(events["y"]).tolist() == wanted.tolist()
    assert column(never["y"]).tolist() == [(~learned).sum()]
    assert first["x"] == [-1, 3, 8]
    assert np.allclose(first["y"], np.logical_or.accumulate(right).mean(axis=1), **CLOSE)
    assert f"{wanted[0]:,} (" in picture.text
    assert f"{(~learned).sum():,} (" in picture.text


def test_samples_that_are_forgotten_often_share_a_bar():
    """Thirty epochs, in which one sample is right in every second."""
    right = np.zeros((30, 3), bool)
    right[::2, 0], right[5:, 1] = True, True
    dump = {
        e: (np.where(right[e][:, None], [[1.0, 0.0]], [[0.0, 1.0]]).astype("f4"), np.zeros(3, int))
        for e in range(30)
    }
    picture = forgetting(fastdiv.analyze(dump).split())
    events, never, first = picture.data
    assert column(events["y"]).tolist() == [1, *[0] * 7, 1]
    assert events["customdata"][-1] == "8 and more"
    assert picture.layout["xaxis"]["ticktext"][-2:] == ["8+", "never"]
    assert never["y"] == [1]
    assert first["y"][4:6] == [0.33333, 0.66667]


# -- what runs lack --------------------------------------------------------------------------------

BY_EPOCH = {"reliability", "confidence", "margin", "loss", "concentration", "confusion_matrix"}
OF_SAMPLES = {"cartography", "forgetting"}
OF_TWO = {"roc", "precision_recall", "thresholds"}


@pytest.mark.parametrize(("c", "more"), [(2, OF_TWO), (3, set())])
def test_one_epoch_has_no_history(c, more):
    view = fastdiv.analyze(arrays(make(epochs=(4,), c=c))).split()
    assert checked(view).keys() == BY_EPOCH | more


@pytest.mark.parametrize(
    ("scores", "kept"), [("slim", ["0", "1", "2"]), ("rolling", ["1", "2"]), ("all", None)]
)
def test_what_is_stored_is_drawn(scores, kept):
    view = fastdiv.analyze(arrays(make()), scores=scores).split()
    found = checked(view)
    assert found.keys() == BY_EPOCH | OF_SAMPLES
    assert list(found["loss"].frames) == (kept or ["0", "1", "2"])


def test_invalid_samples_are_left_out_and_epochs_of_them_say_so():
    dump = make(n=40, c=7)
    spoil(dump)
    view = fastdiv.analyze(arrays(dump)).split()
    found = checked(view)
    for row in view.epochs.to_pylist():
        n = row["n"] - row["n_invalid"]
        matrix = found["confusion_matrix"].frames[str(row["epoch"])].data[0]
        assert sum(map(sum, matrix["customdata"])) == n
        assert sum(found["reliability"].frames[str(row["epoch"])].data[3]["customdata"]) == n


@pytest.mark.parametrize("c", [2, 3])
def test_an_epoch_without_valid_samples_says_so_and_a_run_without_has_no_pictures(c):
    dump = make(epochs=(0, 1), c=c)
    dump[1].x[:] = np.nan
    view = fastdiv.analyze(arrays(dump), kind="logits").split()
    found = checked(view)
    assert found.keys() >= BY_EPOCH
    for name in BY_EPOCH | (OF_TWO if c == 2 else set()):
        text = found[name].frames["1"].text
        assert re.match("Epoch 1: no sample is valid", text), name
    dump[0].x[:] = np.nan
    assert known(fastdiv.analyze(arrays(dump), kind="logits").split()) == set()


def test_no_epochs_no_pictures(many, two):
    for _, view in (many, two):
        found = every(view, [])
        assert {name for name, picture in found.items() if picture} == OF_SAMPLES


def test_a_thousand_classes():
    view = fastdiv.analyze(arrays(make(epochs=(0, 1), n=300, c=1000))).split()
    assert checked(view).keys() == (BY_EPOCH | OF_SAMPLES) - {"confusion_matrix"}


HOSTILE = [
    "<script>alert(1)</script>", "<b>&\"quo'ted", "x" * 10_000, "a\nb\r\tc", "$\\frac{1}{2}$",
]  # fmt: skip
MARKUP = {"<extra></extra>", "<br>"}  # ours


def strings(x):
    """Yield all texts of plain data."""
    if isinstance(x, str):
        yield x
    elif isinstance(x, dict):
        yield from (s for value in x.values() for s in strings(value))
    elif isinstance(x, list | tuple):
        yield from (s for value in x for s in strings(value))


def test_nothing_in_a_name_is_markup():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 5, 60)
    tables = [
        pa.table(
            {
                "sample_id": [f"{HOSTILE[i % 5]}-{i}" for i in range(60)],
                "label": y,
                "logits": as_list(rng.normal(size=(60, 5)).astype(np.float32)),
                "epoch": [epoch] * 60,
            }
        )
        for epoch in range(3)
    ]
    view = fastdiv.analyze(pa.concat_tables(tables), class_names=HOSTILE).split()
    found = checked(view)
    assert found.keys() == BY_EPOCH | OF_SAMPLES
    for picture in found.values():
        frames = picture.to_dict()["frames"]
        parts = [picture.data, picture.layout, [frame["data"] for frame in frames.values()]]
        for text in strings(parts):
            for ours in MARKUP:
                text = text.replace(ours, "")
            assert "<" not in text, picture.name
            assert "\n" not in text
            assert "$" not in text
            assert len(text) < 200
        for frame in frames.values():
            assert len(frame["text"]) < 600
            assert "\n" not in frame["text"]


def test_epochs_are_called_by_their_names(tmp_path):
    dump = make(epochs=(0, 1), c=2)
    paths = []
    for rows, name in zip(dump.values(), ("base", "tuned"), strict=True):
        paths.append(tmp_path / f"{name}.npz")
        np.savez(paths[-1], logits=rows.x, labels=rows.y)
    view = fastdiv.analyze(paths, epoch_per_path=True).split()
    assert view.epochs["epoch_name"].to_pylist() == ["base", "tuned"]
    for name, picture in checked(view).items():
        if picture.by == "epoch":
            assert picture.frames["1"].text.startswith("tuned: "), name
    assert forgetting(view).data[2]["customdata"][1][0] == "tuned"


def test_an_epoch_that_is_not_stored_is_refused(many):
    _, view = many
    with pytest.raises(UsageError, match="no scores of epoch 5"):
        distribution(view, [5], "loss")


def test_epochs_are_thinned_out_where_they_would_take_long(two):
    _, view = two
    found = single_epochs.SingleEpochs.of(view)
    assert single_epochs.thinned(view, [0, 1, 2], found) == ([0, 1, 2], "")
    dump = make(epochs=range(40), n=30, c=2)
    view = fastdiv.analyze(arrays(dump)).split()
    found = single_epochs.SingleEpochs.of(view)
    for rows, most in ((1, 5), (30 * 9, 9), (30 * 39, 39)):
        kept, note = single_epochs.thinned(view, range(40), found, rows)
        assert len(kept) <= most
        assert len(kept) >= most - 3  # where a best epoch has taken the place of an even one
        assert {0, 39, *view.best_epochs().values()} <= set(kept)
        assert kept == sorted(set(kept))
        assert note.startswith(f"{len(kept)} of 40 epochs are drawn")


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (0.5, "50.0 %"),
        (0.0, "0.0 %"),
        (1.0, "100.0 %"),
        (0.99991, "99.99 %"),
        (1e-12, "1e-10 %"),
        (0.99996, "99.996 %"),
        (1 - 1e-9, "nearly 100 %"),
        (4e-4, "0.04 %"),
    ],
)
def test_a_share_that_is_not_all_is_not_written_as_all(share, text):
    assert single_epochs.percent(share) == text

"""What notebooks show: small HTML that is well-formed, without scripts, whatever names hold."""

import json
import math
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from dumps import arrays, learned, make

import fastdiv
from fastdiv import markup
from fastdiv.explain.pair import CELLS
from fastdiv.explain.view import SplitView
from fastdiv.render import notebook
from fastdiv.render.pictures.picture import COLOURS

NAMES = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=y>',
    "a&b",
    "\u202eturned",
    "q" * 10_000,
)
VOID = {"img", "br", "hr"}
TAGS = {
    "div", "p", "b", "table", "thead", "tbody", "tr", "th", "td", "bdi", "small", "details",
    "summary", "ul", "li", "svg", "title", "polyline", "circle", "line", "rect",
}  # fmt: skip


class Reader(HTMLParser):
    """Reads HTML, and fails where it is not closed or may do something."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.text, self.attributes = [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        assert tag in TAGS, tag
        assert not [k for k, _ in attrs if k.startswith("on") or k in ("src", "href")]
        self.open.append(tag)
        self.tags.append(tag)
        self.attributes += attrs

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        self.handle_endtag(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def read(thing):
    """Return what a thing shows, read."""
    text = thing if isinstance(thing, str) else thing._repr_html_()
    assert len(text) < 50_000
    assert "url(" not in text
    assert "://" not in text
    assert "q" * 70 not in text
    assert not [c for c in text if not c.isprintable()]
    return Reader(text)


def said(thing):
    return " ".join(read(thing).text)


@pytest.fixture(scope="module")
def dump():
    return learned(12, n=200, c=5)


@pytest.fixture(scope="module")
def run(dump):
    return fastdiv.analyze({"train": arrays(make((0, 1), c=5)), "val": arrays(dump)})


def test_a_run(run, dump):
    text = said(run)
    x = {e: r.x.astype("f8") for e, r in dump.items()}
    loss = {
        e: float((np.log(np.exp(v).sum(1)) - v[np.arange(200), dump[e].y]).mean())
        for e, v in x.items()
    }
    right = {e: float((v.argmax(1) == dump[e].y).mean()) for e, v in x.items()}
    lowest, highest = min(loss, key=loss.get), max(right, key=right.get)
    assert f"{loss[lowest]:.4f}" in text
    assert f"{right[highest]:.4f}" in text
    a, b = sorted((lowest, highest))
    assert f"val: from epoch {a} to {b}" in text
    assert "run.report(" in text
    assert "run.explain(" in text
    assert read(run).tags.count("polyline") == 4  # loss and accuracy of two splits


def test_an_explanation_and_a_change(run):
    made = run.explain(0, 11)
    text = said(made)
    assert "val: from epoch 0 to 11" in text
    for cause in made.causes:
        assert f"{cause.nats:+.4f}" in text
        assert cause.evidence in text
    change = run.split("val").change(0, 11)
    text = said(change)
    assert f"{change.loss.mean:+.4f}" in text
    assert f"{change.loss.low:+.4f} to {change.loss.high:+.4f}" in text
    assert f"{100 * change.delta_accuracy:+.2f}" in text
    assert "95 % interval" in text
    (row,) = (r for r in run.compare(0, 11).to_pylist() if r["split"] == "val")
    for cell in change.cells:
        assert cell.n == row[cell.name]
        assert cell.value == pytest.approx(row[f"delta_loss_{cell.name}"], abs=1e-9)
        added = f"{cell.value:+.4f}" if cell.value else "0.0000"
        assert f"{CELLS[cell.name]} {cell.n:,} {cell.n / change.n:.1%} {added}" in text
    assert f"all {change.n:,} {change.loss.mean:+.4f}" in text
    shown = re.sub(r"\s+", " ", str(change))
    for words in text.split(" samples that went")[0].split("  "):
        assert words in shown
    assert run.change(0, 11) == run.change(0, 11, split="val") == change
    assert run.change(0, 1, split="train").split == "train"


def test_a_change_of_epochs_with_names_and_infinite_losses():
    rows = make((0, 1))
    rows[1].x[np.arange(15), rows[1].y[:15]] = -np.inf
    run = fastdiv.analyze(arrays(rows))
    run.summary["epoch_names"] = {"0": "base", "1": "tuned"}
    change = run.change("base", "tuned")
    assert change.labels == ("base", "tuned")
    (row,) = run.compare("base", "tuned").to_pylist()
    assert [cell.n for cell in change.cells] == [row[cell.name] for cell in change.cells]
    finite = 40 - 15
    assert change.loss.n == finite == row["n"] - row["n_infinite"]
    assert sum(c.value for c in change.cells) == pytest.approx(change.loss.mean)
    left = "15 with an infinite loss have no part in the change in loss: of 15 it became infinite"
    for text in (said(change), str(change)):
        assert "from epoch base to tuned: " in text
        assert left in text
    plain = json.loads(json.dumps(change.to_dict(), allow_nan=False))
    assert [cell["name"] for cell in plain["cells"]] == list(CELLS)
    assert plain["name_to"] == "tuned"
    assert [c.labels for c in run.split().changes()] == [("base", "tuned")]


def test_bars_of_cells_are_as_long_as_what_they_add(run):
    change = run.change(0, 11)
    reader = read(change)
    assert reader.tags.count("rect") == len(CELLS)
    widths = [float(v) for k, v in reader.attributes if k == "width" and float(v) != 160]
    nats = np.abs([cell.value for cell in change.cells])
    scale = 156 / (
        max(0.0, *(c.value for c in change.cells)) - min(0.0, *(c.value for c in change.cells))
    )
    np.testing.assert_allclose(widths, np.maximum(nats * scale, 0.5), atol=0.11)


@pytest.mark.parametrize("thing", ["run", "explanation", "change"])
def test_tables_scroll_where_there_is_no_room(run, thing):
    shown = {"run": run, "explanation": run.explain(), "change": run.change(0, 11)}[thing]
    text = shown._repr_html_()
    assert text.count("<table") == text.count('<div style="overflow-x:auto"><table') > 0


def test_bars_of_causes_add_up_to_the_change(run):
    made = run.explain(0, 11)
    bars = re.findall(r'<rect x="([\d.]+)" y="2" width="([\d.]+)"[^>]*fill="(#\w+)"',
                      made._repr_html_())  # fmt: skip
    spans = [(float(x), float(x) + float(w)) for x, w, _ in bars]
    assert len(spans) >= 3
    *terms, (left, right) = spans
    assert bars[-1][2] == COLOURS["total"]
    falls = made.delta_loss < 0
    zero, end = (right, left) if falls else (left, right)
    at = zero
    for (low, high), (_, _, colour) in zip(terms, bars, strict=False):
        start, stop = (low, high) if colour == COLOURS["worse"] else (high, low)
        assert start == pytest.approx(at, abs=0.7)  # each begins where the one before ends
        at = stop
    assert at == pytest.approx(end, abs=0.7 * len(terms))
    assert sum(c.nats for c in made.causes) + sum(made.unnamed.values()) == pytest.approx(
        made.delta_loss
    )


def test_colours_are_those_of_the_pictures():
    ours = (markup.LOSS, markup.ACCURACY, markup.BETTER, markup.WORSE, markup.TOTAL)
    names = ("loss", "accuracy", "better", "worse", "total")
    assert ours == tuple(COLOURS[name] for name in names)


def test_no_colour_but_ours_and_the_notebooks_own(run):
    for thing in (run, run.explain(0, 11)):
        colours = set(re.findall(r"#[0-9a-fA-F]{6}", thing._repr_html_()))
        assert colours <= set(COLOURS.values())
        assert "color:inherit" in thing._repr_html_()


def test_scores():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(50, 3)).astype(np.float32)
    y = rng.integers(0, 3, 50)
    x[4] = np.nan
    x[7, y[7]] = -np.inf
    scores = fastdiv.score(x, y, kind="logits")
    text = said(scores)
    finite = np.isfinite(scores.loss)
    assert f"{scores.loss[finite].mean(dtype='f8'):.4f}" in text
    assert f"{np.delete(x.argmax(1) == y, 4).mean():.4f}" in text
    assert "50 rows scored; 1 invalid, in no mean; 1 with an infinite loss" in text
    assert read(scores).tags.count("tr") == 2 + 6
    assert "0 rows scored" in said(fastdiv.score(x[:0], y[:0], kind="logits"))
    assert "–" in said(fastdiv.score(x[4:5], y[4:5], kind="logits"))


def test_hostile_names(dump):
    few = {e: dump[e] for e in (0, 1, 2)}
    for rows in few.values():
        rows.ids = [f"{NAMES[i % 5]}{i}" for i in range(200)]
    run = fastdiv.analyze({NAMES[0]: arrays(few), "x" * 5000: arrays(few)}, class_names=NAMES)
    run.summary["epoch_names"] = {str(i): NAMES[i] for i in range(3)}
    made = run.explain(0, 2)
    assert "<script>alert(1)</script>" in said(run)  # as text
    for thing in (run, made, run.split().change(0, 2)):
        read(thing)
    named = replace(made.causes[0], evidence=f"the class {NAMES[4]} {NAMES[0]} {NAMES[3]} grew")
    made = replace(made, causes=(named,))
    read(made)
    assert f"the class {'q' * 59}… <script>" in said(made)
    assert f"the class {'q' * 59}… <script>" in re.sub(r"\s+", " ", str(made))


@pytest.mark.parametrize(("epochs", "splits", "classes"), [(300, 2, 3), (2, 40, 3), (2, 1, 1000)])
def test_it_stays_small(epochs, splits, classes):
    dump = arrays(make(range(epochs), n=30, c=classes))
    run = fastdiv.analyze({f"split_{i}": dump for i in range(splits)})
    reader = read(run)
    read(run.explain(0, 1))
    assert ("28 more splits" in " ".join(reader.text)) == (splits == 40)
    points = [v for k, v in reader.attributes if k == "points"]
    assert points
    assert max(p.count(",") for p in points) <= markup.POINTS + 2


def test_poor_runs():
    rows = make((0, 1))
    for one in rows.values():
        one.y[:] = -1
    nothing = fastdiv.analyze(arrays(rows))
    assert "80 invalid rows are in no mean" in said(nothing)
    assert "nothing to compare" in said(nothing.split().explain(0, 1))
    assert "no sample is in both" in said(nothing.split().change(0, 1))
    one = fastdiv.analyze(arrays(make((5,))))
    assert "at 5" in re.sub(r"\s+", " ", said(one))
    assert read(one).tags.count("circle") == 0  # of one epoch, no line is drawn
    assert "lowest" not in said(one)
    assert "run.explain()" not in said(one)  # it would find nothing to explain
    rows = make((0, 1, 2))
    rows[0].x[np.arange(40), rows[0].y] = -np.inf
    infinite = fastdiv.analyze(arrays(rows))
    assert infinite.summary["splits"][0]["epoch_lowest_loss"] == 2
    assert "at 2" in re.sub(r"\s+", " ", said(infinite))
    assert "40 have an infinite loss, and no part in its mean" in said(infinite)
    assert "cannot be divided" in said(infinite.split().explain(0, 1))
    said(infinite.split().change(0, 1))
    for scores in ("slim", "rolling"):
        said(fastdiv.analyze(arrays(make(range(5))), scores=scores))


def test_no_large_split_is_explained_to_be_shown(run, monkeypatch):
    monkeypatch.setattr(notebook, "QUICK", 100)

    def never(*_):
        raise AssertionError("it is explained")

    monkeypatch.setattr(SplitView, "explain", never)
    assert "with 200 samples, it takes a moment" in said(run)


def test_an_error_shows(run, monkeypatch):
    def fails(*_):
        raise fastdiv.DataError("damaged")

    monkeypatch.setattr(SplitView, "explain", fails)
    with pytest.raises(fastdiv.DataError, match="damaged"):
        run._repr_html_()


def test_a_line_is_thinned_to_its_lowest_and_highest():
    values = np.random.default_rng(0).normal(size=5000).tolist()
    kept = markup.thinned(values)
    assert len(kept) <= markup.POINTS + 2
    assert {0, 4999, int(np.argmin(values)), int(np.argmax(values))} <= set(kept)
    assert markup.thinned([None] * 1000)
    assert markup.line([None, math.inf], "loss", markup.LOSS) == ""
    gapped = markup.line([1.0, 2.0, None, 3.0, math.inf, 4.0, 5.0], "loss", markup.LOSS)
    assert (gapped.count("<polyline"), gapped.count("<circle")) == (2, 1)
    Reader(gapped)

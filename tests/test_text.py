"""What a terminal shows of a saved run: the numbers, the charts, and no tricks of names."""

import io
import json
import math
import re
from itertools import pairwise, takewhile

import numpy as np
import pytest
from dumps import arrays, learned, make

import fastdiv
from fastdiv.explain.pair import epochs_in_words
from fastdiv.markup import code, printable, printable_id
from fastdiv.render import charts, found, sections
from fastdiv.render.blocks import as_data
from fastdiv.render.text import _Console, show

HOSTILE = (
    "\x1b[31mred\x1b[0m", "\x07bell", "\u202eturned\u202c", "line\nbreak\r\ttab\u2028end",
    "x" * 10_000, "\x9b2J", "[bold]rich[/bold]", "\u200binvisible\ufeff",
)  # fmt: skip


@pytest.fixture(scope="module")
def dump():
    """Twenty epochs of 200 samples in four classes: the loss falls and rises, accuracy rises."""
    return learned(20, n=200, c=4)


@pytest.fixture(scope="module")
def run(dump):
    return fastdiv.analyze(arrays(dump))


@pytest.fixture(scope="module")
def hostile():
    made = make(range(3), n=80, c=len(HOSTILE))
    for rows in made.values():
        rows.ids = [f"{HOSTILE[i % len(HOSTILE)]}{i}" for i in range(80)]
    run = fastdiv.analyze(arrays(made), class_names=HOSTILE)
    run.summary["epoch_names"] = {str(i): HOSTILE[i] for i in range(3)}
    return run


def losses(rows):
    """Return the log-losses of rows, by NumPy."""
    x = rows.x.astype(np.float64)
    top = x.max(1, keepdims=True)
    logs = x - top - np.log(np.exp(x - top).sum(1, keepdims=True))
    return -logs[np.arange(len(rows)), rows.y]


def printed(blocks, **options):
    """Return blocks as they are printed."""
    out = io.StringIO()
    settings = {"width": 10_000, "highlight": False, "markup": False, "emoji": False, **options}
    show(blocks, _Console(file=out, **settings))
    return out.getvalue()


def section(data, title):
    """Return what is under a title."""
    (one,) = [b for b in data if b.get("heading", "").startswith(title)]
    return one["blocks"]


def table_of(blocks):
    (one,) = [b for b in blocks if "rows" in b]
    return [dict(zip(one["columns"], row, strict=True)) for row in one["rows"]]


# what it says -----------------------------------------------------------------------------------


def test_numbers_are_those_of_numpy(run, dump):
    data = as_data(sections.whole(run))
    json.dumps(data, allow_nan=False)
    mean = {e: losses(rows).mean() for e, rows in dump.items()}
    right = {e: (rows.x.argmax(1) == rows.y).mean() for e, rows in dump.items()}
    a, b = sorted((min(mean, key=mean.get), max(right, key=right.get)))
    assert a != b
    loss, accuracy = next(d["series"] for d in data if "series" in d)
    np.testing.assert_allclose(loss["values"], list(mean.values()), rtol=1e-6)
    np.testing.assert_allclose(accuracy["values"], list(right.values()))
    assert f"first {mean[0]:.4f}, lowest ▼ {min(mean.values()):.4f} at epoch " in loss["words"]
    assert loss["words"].endswith(f"last {mean[19]:.4f}")
    rows = dump[b]
    y, p = rows.y, rows.x.argmax(1)
    worst = table_of(section(data, f"Samples with the highest loss in epoch {b}"))
    order = np.argsort(-losses(rows))[:10]
    assert [row["sample"] for row in worst] == rows.ids[order].tolist()
    np.testing.assert_allclose([row["loss"] for row in worst], losses(rows)[order], rtol=1e-5)
    confused = table_of(section(data, f"Confusions in epoch {b}"))
    assert len(confused) == 10
    for row in confused:
        taken = (y == row["label"]) & (p == row["predicted"])
        assert row["samples"] == taken.sum()
        assert row["of the label"] == pytest.approx(taken.sum() / (y == row["label"]).sum())
    cells = table_of(section(data, "Which samples moved the loss"))
    was, now = dump[a].x.argmax(1) == dump[a].y, p == y
    counts = [(was & now).sum(), (was & ~now).sum(), (~was & now).sum()]
    assert [row["samples"] for row in cells[:3]] == counts
    delta = losses(rows) - losses(dump[a])
    assert cells[0]["change in loss"] == pytest.approx(delta[was & now].sum() / 200, rel=1e-5)
    assert cells[-1]["change in loss"] == pytest.approx(delta.mean(), rel=1e-5)
    moved = table_of(section(data, "Classes that moved most"))
    wanted = {k: delta[y == k].sum() / 200 for k in range(4)}
    assert [row["class"] for row in moved] == sorted(wanted, key=lambda k: -abs(wanted[k]))
    for row in moved:
        assert row["adds"] == pytest.approx(wanted[row["class"]], rel=1e-5)
    bins = table_of(section(data, f"Reliability in epoch {b}"))
    assert sum(row["samples"] for row in bins) == 200
    assert sum(row["samples"] * row["right"] for row in bins) == pytest.approx(now.sum())
    text = printed(sections.whole(run))
    for number in (f"{delta.mean():+.5f}", f"{losses(rows)[order[0]]:.4f}"):
        assert number in text


def test_suspects_are_wrong_in_both_best_epochs(run, dump):
    best = run.summary["splits"][0]
    wrong = np.ones(200, bool)
    for key in ("epoch_lowest_loss", "epoch_highest_accuracy"):
        wrong &= dump[best[key]].x.argmax(1) != dump[best[key]].y
    rows = table_of(section(as_data(sections.whole(run)), "Suspect labels"))
    assert len(rows) == min(10, wrong.sum())
    assert {row["sample"] for row in rows} <= set(dump[0].ids[wrong].tolist())


def test_show_in_all_forms(run, dump, tmp_path, cli):
    run.save(tmp_path / "run")
    text = cli("show", tmp_path / "run")
    assert (text.code, text.err) == (0, "")
    assert text.out.rstrip() == printed(sections.whole(run)).rstrip()
    data = json.loads(cli("show", tmp_path / "run", "--format", "json").out)
    assert data == json.loads(json.dumps(as_data(sections.whole(run))))
    gone = cli("show", tmp_path / "run", "--split", "gone")
    assert (gone.code, gone.out) == (2, "")
    assert re.fullmatch(r"error: there is no split 'gone'[^\n]*\n", gone.err)


def test_one_split_of_several(dump, tmp_path, cli):
    few = make((0, 1), n=50, c=4)
    run = fastdiv.analyze({"train": arrays(few), "val": arrays(dump)})
    run.save(tmp_path / "run")
    whole = cli("show", tmp_path / "run").out
    assert "train loss" in whole
    assert "Split val" in whole
    assert "Split train" not in whole
    train = cli("show", tmp_path / "run", "--split", "train").out
    assert "Split train" in train
    assert "val" not in train[: train.index("Provenance")]


def poor_runs():
    """Yield runs of which little is known, by name."""
    yield "one epoch", fastdiv.analyze(arrays(make((7,))))
    rows = make((0, 1))
    for one in rows.values():
        one.y[:] = -1
    yield "nothing valid", fastdiv.analyze(arrays(rows))
    rows = make((0, 1, 2))
    rows[1].x[np.arange(20), rows[1].y[:20]] = -np.inf
    yield "infinite losses", fastdiv.analyze(arrays(rows))
    rows = make((0, 1))
    rows[0].x[np.arange(40), rows[0].y] = -np.inf
    yield "infinite everywhere", fastdiv.analyze(arrays(rows))
    yield "slim", fastdiv.analyze(arrays(make(range(4))), scores="slim")
    yield "rolling", fastdiv.analyze(arrays(make(range(6))), scores="rolling")
    yield "negative", fastdiv.analyze(arrays(make((-3, -1, 4))))
    yield "two classes", fastdiv.analyze(arrays(make((0, 1), c=2)))
    yield "many classes", fastdiv.analyze(arrays(make((0, 1), n=60, c=1000)))
    rows = make((0, 1))
    rows[1].x[np.arange(40), rows[1].y] += 99
    rows[0].x[np.arange(40), rows[0].y] += 99
    yield "all right", fastdiv.analyze(arrays(rows))
    rows = make((0, 1))
    rows[1].ids = rows[1].ids + 10_000
    yield "no sample in both", fastdiv.analyze(arrays(rows))
    named = fastdiv.analyze(arrays(make((0, 1))))
    named.summary["epoch_names"] = {"0": "base", "1": "tuned"}
    yield "named", named


POOR = dict.fromkeys(
    ("one epoch", "nothing valid", "infinite losses", "infinite everywhere", "slim", "rolling",
     "negative", "two classes", "many classes", "all right", "no sample in both", "named")
)  # fmt: skip


@pytest.fixture(scope="module")
def poor():
    made = dict(poor_runs())
    assert made.keys() == POOR.keys()
    return made


@pytest.mark.parametrize("name", POOR)
def test_what_is_missing_is_said(poor, name):
    run = poor[name]
    text = printed(sections.whole(run))
    json.dumps(as_data(sections.whole(run)), allow_nan=False)
    words = {
        "one epoch": "no two epochs", "nothing valid": "No sample is valid",
        "infinite losses": "with an infinite loss",
        "infinite everywhere": "stored scores and finite losses",
        "slim": "vectors were not kept", "all right": "No sample is wrong",
        "no sample in both": "nothing to compare", "named": "from epoch base to tuned",
        "negative": "-3 → -1",
    }.get(name, "Provenance")  # fmt: skip
    assert words in text
    assert "None" not in text
    assert not re.search(r"\bnan\b", text.lower())


# names ------------------------------------------------------------------------------------------


def controls(text):
    return [c for c in text if not c.isprintable() and c != "\n"]


def test_nothing_hostile_reaches_the_terminal(hostile, tmp_path, cli):
    hostile.save(tmp_path / "run")
    a, b = 0, 2
    for arguments in (("show",), ("explain",), ("compare", a, b), ("explain", "--all")):
        command, *rest = arguments
        ended = cli(command, tmp_path / "run", *rest)
        assert (ended.code, ended.err) == (0, "")
        assert controls(ended.out) == []
        assert "x" * 70 not in ended.out
        assert max(map(len, ended.out.splitlines())) < 700
    shown = cli("show", tmp_path / "run").out
    assert "[bold]rich[/bold]" in shown  # not markup
    assert re.search(r"x{25,}…", shown)
    assert "\nbreak" not in shown
    for said in (str(hostile.explain(0, 2)), str(hostile.change(0, 2))):
        assert controls(said) == []
        assert "x" * 70 not in said
    with pytest.raises(fastdiv.UsageError):
        hostile.explain("gone", "gone too")


def test_styles_are_the_only_escape_sequences(hostile):
    text = printed(sections.whole(hostile), force_terminal=True, color_system="standard")
    assert "\x1b[1m" in text  # styles are there
    assert controls(re.sub(r"\x1b\[[\d;]*m", "", text)) == []
    assert "\x1b[31mred" not in text


def test_printable():
    assert printable("a\x1b[31m\x07b\u202ec\nd") == "a [31m b c d"
    assert printable("x" * 60) == "x" * 60
    assert printable("x" * 61) == "x" * 59 + "…"
    assert printable("мама 猫") == "мама 猫"
    assert printable_id("a" * 100 + "/7.png") == "a" * 30 + "…" + "a" * 23 + "/7.png"
    assert len(printable_id("a\n" * 5000)) == 60
    assert printable_id("short\x00") == "short "


# charts -----------------------------------------------------------------------------------------


def test_sparkline():
    assert charts.sparkline([]) == ""
    assert charts.sparkline([0, 1, 2, 3, 4, 5, 6, 7]) == "▁▂▃▄▅▆▇█"
    assert charts.sparkline([7, None, math.inf, math.nan, 0]) == "█ ∞ ▁"
    assert charts.sparkline([2, 2, 2]) == "▄▄▄"
    assert charts.sparkline([None, None]) == "  "
    assert charts.sparkline([math.inf]) == "∞"
    assert charts.sparkline([-1e308, 1e308]) == "▁█"


@pytest.mark.parametrize("n", [61, 100, 119, 120, 1000])
def test_a_long_sparkline_is_of_means(n):
    values = np.random.default_rng(n).normal(size=n)
    drawn = charts.sparkline(values.tolist())
    assert len(drawn) == 60
    edges = [k * n // 60 for k in range(61)]
    means = np.array([values[a:b].mean() for a, b in pairwise(edges)])
    level = (means - means.min()) / np.ptp(means) * 8
    assert drawn == "".join("▁▂▃▄▅▆▇█"[min(int(x), 7)] for x in level)
    for position in (0, n // 3, n - 1):
        line = charts.pointers(n, [(position, "▼")])
        k = line.index("▼")
        assert edges[k] <= position < edges[k + 1]


def test_marks_that_meet():
    assert charts.pointers(5, [(1, "▼"), (1, "▲")]) == " ◆"
    assert charts.pointers(5, [(0, "▼"), (4, "▲")]) == "▼   ▲"


def test_bars():
    assert charts.bar(1.0, 2.0, 10) == "█████"
    assert [charts.bar(x, 2.0) for x in (None, math.inf, math.nan, -1.0, 0.0)] == [""] * 5
    assert charts.bar(1.0, 0.0) == ""
    assert charts.balance(-2.0, 2.0, 8) == "████│    "
    assert charts.balance(1.0, 2.0, 8) == "    │██  "
    assert charts.balance(None, 2.0, 8) == charts.balance(math.inf, 2.0, 8) == "    │    "


def test_what_an_encoding_lacks_is_drawn_in_ascii(run):
    assert charts.encodable("▁█│→ …é", "utf-8") == "▁█│→ …é"
    assert charts.encodable("▁█│→ …é", "latin-1") == "_#|> ~é"
    assert charts.encodable("▁猫", "ascii") == "_?"
    assert charts.encodable(code(charts.balance(1.0, 1.0, 4)), "ascii") == "`  |##`"  # Markdown
    raw = io.BytesIO()
    out = io.TextIOWrapper(raw, encoding="ascii")
    show(sections.whole(run), _Console(file=out, width=200))
    out.flush()
    text = raw.getvalue().decode("ascii")
    assert re.search(r"^loss: first [^\n]*\n[_.:=+*#-]{20}$", text, re.M)


def test_a_narrow_terminal_goes_without_bars_but_not_without_numbers(run):
    wide = printed(sections.whole(run))
    narrow = printed(sections.whole(run), width=80, force_terminal=True, color_system=None)
    (cells,) = [line for line in wide.splitlines() if line.startswith("right → right ")]
    (same,) = [line for line in narrow.splitlines() if line.startswith("right → right ")]
    assert "│" in cells
    assert same.split() == cells.split("│")[0].replace("█", "").split()
    assert max(map(len, narrow.splitlines())) <= 80


def test_a_narrow_terminal_breaks_sentences_once(run):
    narrow = printed(sections.whole(run), width=50, force_terminal=True, color_system=None)
    lines = narrow.splitlines()
    first = next(k for k, line in enumerate(lines) if line.startswith("   Try: "))
    advice = list(takewhile(lambda line: line.startswith("   "), lines[first:]))
    (said,) = {c.advice for c in run.explain().causes if c.advice.startswith(advice[0][8:])}
    sentence = " ".join(line.strip() for line in advice).split(" Samples: ")[0]
    assert sentence == f"Try: {said}"
    for line, following in pairwise(advice):  # none is broken where more would have found room
        assert len(line) <= 50
        assert len(f"{line} {following.split()[0]}") > 50 or "Samples:" in following


def test_a_narrow_terminal_keeps_the_names_of_epochs(poor):
    run = poor["named"]
    run.summary["epoch_names"] = {"0": "resnet-50-baseline-seed-1", "1": "resnet-50-tuned-seed-1"}
    wide = printed(sections.whole(run))
    narrow = printed(sections.whole(run), width=80, force_terminal=True, color_system=None)
    run.summary["epoch_names"] = {"0": "base", "1": "tuned"}
    for text, last in ((wide, "wrong"), (narrow, "ece")):
        (heading,) = [line for line in text.splitlines() if line.startswith("epoch  name")]
        assert heading.split()[-1] == last
        assert re.search(r"^ +0  resnet-50-baseline-seed-1 ", text, re.M)


def test_epochs_with_infinite_losses_show_the_mean_of_the_others(poor):
    run = poor["infinite losses"]
    rows = table_of(section(as_data(sections.whole(run)), "Epochs"))
    assert [row["infinite"] for row in rows] == run.epochs["n_infinite"].to_pylist() == [0, 20, 0]
    assert [row["finite loss"] for row in rows] == run.epochs["loss_finite"].to_pylist()
    assert all(math.isfinite(row["finite loss"]) for row in rows)
    assert "; infinite losses left out\n" in printed(sections.whole(run))
    lowest = run.summary["splits"][0]["epoch_lowest_loss"]
    (marked,) = [line for line in printed(sections.whole(run)).splitlines() if "▼ " in line[:20]]
    assert marked.split()[0] == str(lowest)


def test_the_best_epoch_is_said_once(poor):
    one, both = poor["one epoch"], poor["many classes"]
    row = one.epochs.to_pylist()[0]
    loss, accuracy = f"{row['loss']:.4f}", f"{row['accuracy']:.4f}"
    only = f"loss {loss}, accuracy {accuracy} in epoch 7, the only one"
    assert found.best_words(one, one.summary["splits"][0]) == only
    entry = {**both.summary["splits"][0], "epoch_lowest_loss": 1, "epoch_highest_accuracy": 1}
    row = both.epochs.to_pylist()[1]
    words = f"lowest loss {row['loss']:.4f} and highest accuracy {row['accuracy']:.4f}, both at"
    assert found.best_words(both, entry) == f"{words} epoch 1"


def test_what_matters_comes_first(run):
    said = printed(sections.whole(run))
    order = ("loss: ", "cause ", "Which samples", "Suspect labels", "Epochs", "Provenance")
    places = [said.index(f"\n{words}") for words in order]
    assert places == sorted(places)


@pytest.mark.parametrize(
    ("rows", "seconds", "speed"),
    [(1795, 1.0, "1,795 rows/s"), (10**6, 4.0, "0.25 million rows/s"), (5, 0.0, "rows/s")],
)
def test_speed(run, rows, seconds, speed):
    assert speed in found.volume({**run.summary, "rows": rows, "elapsed_s": seconds}).text


def test_messages_list_few_epochs(run, tmp_path, cli):
    assert epochs_in_words([3, 1]) == "1, 3"
    assert epochs_in_words(range(-5, 1000)) == "1,005 from -5 to 999"
    assert epochs_in_words([]) == "none"
    long = fastdiv.analyze({e: (np.eye(3, dtype=np.float32), np.arange(3)) for e in range(30)})
    long.save(tmp_path / "run")
    for arguments in (("compare", 0, 99), ("explain", 0, 99)):
        command, *rest = arguments
        ended = cli(command, tmp_path / "run", *rest)
        assert (ended.code, ended.out) == (2, "")
        assert ended.err.endswith("there are 30 from 0 to 29\n")

"""Markdown: the same numbers as on a terminal, tables that are tables, names that are only text."""

import html
import io
import json
import re
from collections import Counter

import pytest
from dumps import arrays, learned, make
from markdown_it import MarkdownIt

import fastdiv
from fastdiv.markup import in_markdown, unlinked
from fastdiv.render import sections, why
from fastdiv.render.blocks import Details, Field, Heading, Listing, Sentence, Series, Sparklines
from fastdiv.render.found import pair
from fastdiv.render.markdown import LEFT_OUT, MOST, markdown
from fastdiv.render.text import _Console, show

NAMES = (
    "a|b|c", "`code` ``more``", "*bold* **very**", "_under_ __score__", "<script>alert(1)</script>",
    "@octocat and x@y.zz", "#" + "12 GH-7 org/repo#3", "[a](https://evil.example) ![i](x.png)",
    "https://evil.example/www.evil.example", "line\n\n# heading\n- item", "</details><b>",
    "~~gone~~ :smile: $x$", "\\|\\`back", "\u202eturned", "&lt;img src=x&gt; &amp;", "z" * 10_000,
)  # fmt: skip
PARSER = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
OURS = re.compile(
    r"<details><summary><b>[^<>]*</b>[^<>]*</summary>\s*|</details>\s*"
)  # all HTML that there may be
NUMBER = re.compile(r"[+-]?\d[\d,]*(?:\.\d+)?(?:e[+-]?\d+)?%?")


@pytest.fixture(scope="module")
def run():
    dump = learned(14, n=300, c=5)
    return fastdiv.analyze({"train": arrays(make((0, 1), c=5)), "val": arrays(dump)})


@pytest.fixture(scope="module")
def hostile():
    dump = make(range(3), n=160, c=len(NAMES))
    for rows in dump.values():
        rows.ids = [f"{NAMES[i % len(NAMES)]}{i}" for i in range(160)]
    run = fastdiv.analyze(arrays(dump), class_names=NAMES)
    run.summary["epoch_names"] = {"0": NAMES[4], "1": NAMES[7], "2": NAMES[5]}
    return run


def in_text(blocks):
    out = io.StringIO()
    show(blocks, _Console(file=out, width=10_000, highlight=False, markup=False, emoji=False))
    return out.getvalue()


def words_of(text):
    """Return what a reader of Markdown sees."""
    seen = []
    for token in PARSER.parse(text):
        if token.type in ("inline", "fence"):
            parts = token.children or [token]
            seen += [t.content for t in parts if t.type in ("text", "code_inline", "fence")]
        elif token.type == "html_block":
            seen.append(html.unescape(re.sub(r"<[^>]*>", " ", token.content)))
    return "\n".join(seen)


def assert_only_text(text):
    """No HTML but ours, no link, image or emphasis but the bold of headlines and sums."""
    for token in PARSER.parse(text):
        if token.type == "html_block":
            assert OURS.fullmatch(token.content), token.content
        for child in token.children or ():
            kinds = {"text", "softbreak", "code_inline", "strong_open", "strong_close"}
            if token.content == LEFT_OUT:
                kinds |= {"em_open", "em_close"}
            assert child.type in kinds, (child.type, token.content)
            if child.type == "code_inline":
                assert re.fullmatch("[█│\xa0]+", child.content)
    seen = words_of(re.sub(r"```text.*?```", "", text, flags=re.S))
    for pattern in (r"@\w", r"#\d", r"GH-\d", r"\w://", r"www\.", r":\w+:"):
        assert not re.search(pattern, seen), re.search(pattern, seen)
    assert not [c for c in text if not c.isprintable() and c not in "\n\xa0"]


def forms(run):
    """Yield the blocks of all commands."""
    views = run.views()
    yield "show", list(sections.whole(run))
    yield "explain", list(why.in_blocks(views[-1].explain(0, 2), "as asked"))
    names = run.summary.get("epoch_names", {})
    yield (
        "compare",
        [b for row in run.compare(0, 2).to_pylist() for b in pair(row, names, bars=True)],
    )


@pytest.mark.parametrize("which", ["show", "explain", "compare"])
def test_text_and_markdown_hold_the_same_numbers(run, which):
    blocks = dict(forms(run))[which]
    text = re.sub(r"\s+", " ", in_text(blocks))
    said = words_of(markdown(blocks))
    found, wanted = (Counter(NUMBER.findall(x)) for x in (said, text))
    assert found == wanted
    assert len(found) > (100 if which == "show" else 15)


def tables_in(text):
    """Return the cells of all tables, row by row."""
    tables, row = [], None
    for token in PARSER.parse(text):
        if token.type == "table_open":
            tables.append([])
        elif token.type == "tr_open":
            row = []
            tables[-1].append(row)
        elif token.type == "inline" and row is not None and token.level >= 4:
            row.append("".join(t.content for t in token.children))
        elif token.type == "table_close":
            row = None
    return tables


def listings(blocks):
    for block in blocks:
        if isinstance(block, Listing):
            yield block
        elif isinstance(block, Details):
            yield from listings(block.blocks)


@pytest.mark.parametrize("name", ["run", "hostile"])
def test_tables_are_tables(name, request):
    run = request.getfixturevalue(name)
    for _, blocks in forms(run):
        wanted = list(listings(blocks))
        found = tables_in(markdown(blocks))
        assert len(found) == len(wanted) > 0
        for cells, listing in zip(found, wanted, strict=True):
            assert len(cells) == len(listing.rows) + 1
            assert {len(row) for row in cells} == {len(listing.fields)}
            assert len(listing.fields) <= 9


@pytest.mark.parametrize("which", ["show", "explain", "compare"])
def test_hostile_names_are_only_text(hostile, which):
    blocks = dict(forms(hostile))[which]
    text = markdown(blocks)
    assert_only_text(text)
    assert "z" * 70 not in text
    assert len(text) < MOST
    if which == "show":
        seen = words_of(text)
        for name in ("a|b|c", "<script>alert(1)</script>", "*bold* **very**", "&lt;img src=x&gt;"):
            assert name in seen


@pytest.mark.parametrize("name", NAMES)
def test_a_name_alone_is_only_text(name):
    shown = Listing((Field("name", "name"), Field("n", "count")), ((name, 1),))
    for blocks in (
        [Sentence(name)], [Sentence(lead=name, tone="strong")], [Sentence(name, indent=True)],
        [Heading(name)], [Details(name, (Sentence(name),), name)], [shown],
    ):  # fmt: skip
        assert_only_text(markdown(blocks))
    (table,) = tables_in(markdown([shown]))
    plain = " ".join("".join(c if c.isprintable() else " " for c in name).split())
    seen = table[1][0].replace("\u200b", "")
    assert seen == plain or (seen.endswith("…") and plain.startswith(seen[:-1]))


@pytest.mark.parametrize(
    "text",
    ["# x", "- x", "+ x", "1. x", "2) x", "= x", "---", "===", "> x", "    x", "***", "```x",
     "~~~", "| a | b |", "\tx", "####### x", "-", "#", "1."],
)  # fmt: skip
def test_a_sentence_begins_no_block(text):
    for token in PARSER.parse(f"before\n\n{in_markdown(text)}\n\nafter"):
        assert token.type in ("paragraph_open", "paragraph_close", "inline")
    (middle,) = [
        t.content for k, t in enumerate(PARSER.parse(f"a\n\n{in_markdown(text)}\n\nb")) if k == 4
    ]
    assert middle
    after = PARSER.parse(f"before\n{in_markdown(text)}")
    assert [t.type for t in after] == ["paragraph_open", "inline", "paragraph_close"]


def test_numbers_and_plain_words_are_left_alone():
    for text in ("-0.1126", "+5.01", "1.5 nats (alone)", "right → wrong", "a-b.c, d: e; 3 %"):
        assert in_markdown(text) == text
    assert unlinked("a@b") == "a@&#8203;b"


def test_a_fence_in_a_title_does_not_end_the_chart():
    series = Series("```\n<script>", (1.0, 2.0), ((0, "▼"),), "first `1`")
    tokens = PARSER.parse(markdown([Sparklines((series,))]))
    assert [t.type for t in tokens] == ["fence"]


def test_what_does_not_fit_is_left_out_and_that_is_said():
    rows = tuple((f"<{i}>" * 15, i) for i in range(100))
    one = Listing((Field("name", "name"), Field("n", "count")), rows)
    blocks = [Sentence("first"), *(Details(f"part {i}", (one,)) for i in range(40))]
    text = markdown(blocks)
    assert MOST / 2 < len(text) <= MOST
    assert text.rstrip().endswith(LEFT_OUT)
    assert text.count("<details>") == text.count("</details>") > 1
    assert text.startswith("first")
    assert_only_text(text)
    assert LEFT_OUT not in markdown(blocks[:3])
    for most in (200, 5_000, 20_000):
        assert len(markdown(blocks, most)) <= most


def test_many_splits_stay_below_the_limit():
    dump = arrays(make((0, 1), n=30, c=len(NAMES)))
    run = fastdiv.analyze({f"split_{i}": dump for i in range(40)}, class_names=NAMES)
    text = markdown(sections.whole(run))
    assert len(text) <= MOST
    assert LEFT_OUT in text
    assert_only_text(text)


def test_commands_print_markdown_and_json(run, tmp_path, cli):
    run.save(tmp_path / "run")
    blocks = dict(forms(run))
    ended = cli("show", tmp_path / "run", "--format", "markdown")
    assert (ended.code, ended.err) == (0, "")
    assert ended.out == markdown(blocks["show"])
    explained = cli("explain", tmp_path / "run", 0, 2, "--format", "markdown").out
    assert explained.startswith("**val: from epoch 0 to 2 loss ")
    assert explained.count("<details>") >= 1
    compared = cli("compare", tmp_path / "run", 0, 2, "--format", "markdown").out
    cells, intervals = tables_in(compared)
    assert len(cells) == 7
    change = run.change(0, 2)
    assert intervals[1][2] == f"{change.loss.low:+.4f} to {change.loss.high:+.4f}"
    for command in (("explain",), ("explain", 0, 2, "--all"), ("compare", 0, 2)):
        name, *rest = command
        old = cli(name, tmp_path / "run", *rest, "--json")
        new = cli(name, tmp_path / "run", *rest, "--format", "json")
        assert old.out == new.out
        assert json.loads(old.out)
    wrong = cli("show", tmp_path / "run", "--format", "pdf")
    assert wrong.code == 2
    assert "pdf" in wrong.err

"""Markup: text from the data made safe for terminals, HTML and Markdown, and small HTML pieces.

Class names, ids, and names of epochs, splits and files come from the data: nothing in them may be
taken for markup, for a control sequence, or turn the direction of what is beside them.
"""

from __future__ import annotations

import html
import math
import re
from collections.abc import Iterable, Sequence
from itertools import groupby

NAME = 60  # characters of a name that are shown
SENTENCE = 1000  # of a sentence, which may hold names
POINTS = 160  # of a drawn line: more values are thinned out

# Okabe and Ito's colours (colour-blind readers tell them apart), those of them that have a
# contrast of at least 3:1 both with white paper and with a dark page.
BLUE, VERMILION, GREEN, PURPLE, GREY = "#0072B2", "#D55E00", "#009E73", "#B8679B", "#7F7F7F"
LOSS = WORSE = VERMILION
ACCURACY = BLUE
BETTER = GREEN
TOTAL = GREY

LONG = re.compile(rf"\S{{{NAME + 1},}}")
MARKDOWN = re.compile(r"([\\`*_\[\]|~$])")
# What GitHub would link, mention or replace though no Markdown says so: an invisible space within
# keeps it from that.
LINKING = re.compile(
    r"(@)(?=\w)|(#)(?=\d)|(\bGH)(?=-\d)|(:)(?=//)|(\bwww)(?=\.)|(:)(?=[\w+-]+:)", re.IGNORECASE
)
BROKEN = "&#8203;"
# What would begin a heading, a list or a rule.
STARTS_BLOCK = re.compile(r"#{1,6}(?=\s|$)|[-+=](?=[\s=-]|$)|\d{1,9}(?=[.)](?:\s|$))")


def printable(text: str, most: int | None = NAME) -> str:
    """Return text in one line, without control characters, cut to a length.

    Line breaks, control characters, and what is invisible or turns the direction of writing
    become spaces.
    """
    if most is not None:
        text = text[: most + 1]  # of long text, no more is looked at than is shown
    plain = "".join(c if c.isprintable() else " " for c in text)
    return plain if most is None or len(plain) <= most else plain[: most - 1] + "…"


def printable_id(text: str, most: int = NAME) -> str:
    """Return an id in one line, of a long one its beginning and end."""
    if len(text) <= most:
        return printable(text, most)
    half = (most - 1) // 2
    return f"{printable(text[: most - 1 - half], None)}…{printable(text[-half:], None)}"


def printable_sentence(text: str, most: int = SENTENCE) -> str:
    """Return a sentence in one line, long words in it cut, for they are names."""
    return printable(LONG.sub(lambda found: printable(found[0]), text), most)


def escaped(text: str, most: int | None = NAME) -> str:
    """Return text as HTML shows it."""
    return html.escape(printable(text, most), quote=True)


def unlinked(text: str, most: int | None = NAME) -> str:
    """Return text as HTML within Markdown shows it, where names of people are links too."""
    return LINKING.sub(rf"\g<0>{BROKEN}", escaped(text, most))


def in_markdown(text: str, most: int | None = NAME) -> str:
    """Return text as Markdown shows it, in a paragraph, an item or a cell."""
    plain = html.escape(" ".join(printable(text, most).split()), quote=False)
    plain = LINKING.sub(rf"\g<0>{BROKEN}", MARKDOWN.sub(r"\\\1", plain))
    begins = STARTS_BLOCK.match(plain)
    if begins is None:
        return plain
    at = begins.end() if begins[0].isdigit() else 0
    return f"{plain[:at]}\\{plain[at:]}"


def code(text: str) -> str:
    """Return text drawn of characters as Markdown shows it, spaces kept; it has no backticks."""
    return f"`{text.replace(' ', chr(0xA0))}`"


# -- HTML for notebooks: no script, nothing from elsewhere, the notebook's own colours ------------


def panel(*pieces: str) -> str:
    """Return pieces of HTML as what a notebook shows of one object."""
    style = "color:inherit;background:transparent;line-height:1.45;max-width:60em"
    return f'<div class="fastdiv" style="{style}">{"".join(pieces)}</div>'


def paragraph(text: str, *, strong: bool = False, faint: bool = False) -> str:
    """Return a sentence."""
    style = f"margin:.35em 0;{'opacity:.75;font-size:90%' * faint}"
    shown = escaped(text, SENTENCE)
    return f'<p style="{style}">{f"<b>{shown}</b>" if strong else shown}</p>'


def fold(summary: str, sentences: Iterable[str]) -> str:
    """Return sentences that show where the reader opens them."""
    items = "".join(f"<li>{escaped(s, SENTENCE)}</li>" for s in sentences)
    return (
        f'<details style="margin:.2em 0"><summary>{escaped(summary, SENTENCE)}</summary>'
        f'<ul style="margin:.2em 0 .4em">{items}</ul></details>'
    )


def grid(headings: Sequence[str], rows: Iterable[Sequence[str]], *, total: bool = False) -> str:
    """Return a table, which scrolls by itself where the page is too narrow for it.

    Parameters
    ----------
    headings : sequence of str
        Text.
    rows : iterable of sequence of str
        HTML: whoever makes a cell escapes it. The first column is aligned left.
    total : bool
        Whether the last row is the sum of those above it.
    """
    edge = (
        "border:none;border-bottom:1px solid rgba(127,127,127,.4);padding:.15em .7em;"
        "white-space:nowrap"
    )

    def cell(tag: str, i: int, text: str, more: str = "") -> str:
        align = "left" if i == 0 else "right"
        style = f"{edge};text-align:{align};background:transparent;color:inherit{more}"
        return f'<{tag} style="{style}">{text}</{tag}>'

    heads = "".join(cell("th", i, escaped(h)) for i, h in enumerate(headings))
    made = [list(row) for row in rows]
    body = []
    for k, row in enumerate(made):
        bold = ";font-weight:bold" if total and k == len(made) - 1 else ""
        body.append(f"<tr>{''.join(cell('td', i, c, bold) for i, c in enumerate(row))}</tr>")
    return (
        '<div style="overflow-x:auto"><table style="border-collapse:collapse;margin:.4em 0;'
        f'color:inherit;font-size:inherit;background:transparent"><thead><tr>{heads}</tr></thead>'
        f"<tbody>{''.join(body)}</tbody></table></div>"
    )


def bar(start: float, end: float, low: float, high: float, colour: str | None = None) -> str:
    """Draw a bar from `start` to `end` on a scale from `low` to `high`, and where 0 is on it.

    Without a colour, that of what raises or lowers a loss.
    """
    width, height = 160.0, 14.0
    scale = (width - 4) / ((high - low) or 1.0)

    def x(value: float) -> float:
        return round(2 + (value - low) * scale, 1)

    left, right = x(min(start, end)), x(max(start, end))
    colour = colour or (WORSE if end > start else BETTER)
    return (
        f'<svg width="{width:g}" height="{height:g}" aria-hidden="true">'
        f'<line x1="{x(0)}" x2="{x(0)}" y1="0" y2="{height:g}" stroke="currentColor" '
        f'stroke-opacity=".5"/><rect x="{left}" y="2" width="{max(right - left, 0.5):.1f}" '
        f'height="{height - 4:g}" fill="{colour}"/></svg>'
    )


def account(rows: Sequence[tuple[str, float, str, str]], total: tuple[str, float, str, str]) -> str:
    """Return terms as a table whose bars begin where the one above ends, so that they add up.

    Each row is a name, nats, and two texts: its share of the total and its points of accuracy.
    """
    at = 0.0
    ends = [0.0, total[1]]
    spans = []
    for _, nats, _, _ in rows:
        spans.append((at, at + nats))
        at += nats
        ends.append(at)
    low, high = min(ends), max(ends)
    drawn = [bar(a, b, low, high) for a, b in spans]
    drawn.append(bar(0.0, total[1], low, high, TOTAL))
    cells = [
        (escaped(name), signed(nats), escaped(share), escaped(points), svg)
        for (name, nats, share, points), svg in zip([*rows, total], drawn, strict=True)
    ]
    return grid(("cause", "nats", "share", "points", ""), cells, total=True)


def line(
    values: Sequence[float | None], name: str, colour: str, *, dashed: bool = False,
    mark: int | None = None,
) -> str:  # fmt: skip
    """Draw values over epochs as a small line; None and what is not finite are gaps.

    `mark` is the position of the value to put a dot on.
    """
    width, height, pad = 150.0, 34.0, 4.0
    known = [v for v in values if v is not None and math.isfinite(v)]
    if not known:
        return ""
    low, high = min(known), max(known)

    def point(i: int) -> str:
        value = values[i]
        assert value is not None
        x = pad + (width - 2 * pad) * (i / (len(values) - 1) if len(values) > 1 else 0.5)
        up = (value - low) / (high - low) if high > low else 0.5
        return f"{x:.1f},{height - pad - (height - 2 * pad) * up:.1f}"

    kept = [(i, is_number(values[i])) for i in thinned(values)]
    parts = []
    for finite, run in groupby(kept, key=lambda pair: pair[1]):
        places = [i for i, _ in run]
        if finite and len(places) > 1:
            points = " ".join(map(point, places))
            dash = ' stroke-dasharray="5 3"' if dashed else ""
            parts.append(
                f'<polyline points="{points}" fill="none" stroke="{colour}" '
                f'stroke-width="1.8"{dash}/>'
            )
        elif finite:
            parts.append(dot(point(places[0]), colour, 2))
    if mark is not None and is_number(values[mark]):
        parts.append(dot(point(mark), colour, 3.5))
    label = escaped(f"{name}: from {low:.4g} to {high:.4g} over {len(values)} epochs")
    return (
        f'<svg width="{width:g}" height="{height:g}" role="img" aria-label="{label}">'
        f"<title>{label}</title>{''.join(parts)}</svg>"
    )


def dot(point: str, colour: str, radius: float) -> str:
    """Draw a dot."""
    x, y = point.split(",")
    return f'<circle cx="{x}" cy="{y}" r="{radius}" fill="{colour}"/>'


def is_number(value: float | None) -> bool:
    """Whether a value can be drawn."""
    return value is not None and math.isfinite(value)


def thinned(values: Sequence[float | None]) -> list[int]:
    """Choose the positions to draw: of many, the lowest and the highest of each stretch."""
    n = len(values)
    if n <= POINTS:
        return list(range(n))
    chosen = {0, n - 1}
    for k in range(POINTS // 2):
        stretch = range(k * n // (POINTS // 2), (k + 1) * n // (POINTS // 2))
        known = [(v, i) for i in stretch if (v := values[i]) is not None and math.isfinite(v)]
        chosen |= {min(known)[1], max(known)[1]} if known else {stretch[0]}
    return sorted(chosen)


def signed(x: float) -> str:
    """Write nats with a sign; what rounds to nothing has none."""
    text = f"{x:+.4f}"
    return "0.0000" if float(text) == 0 else text

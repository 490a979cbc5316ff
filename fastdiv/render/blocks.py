"""Blocks: what a text says, as plain data that terminals, Markdown and machines get alike."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from fastdiv.explain import wording
from fastdiv.markup import NAME, SENTENCE, printable, printable_id, signed
from fastdiv.render import charts

# How a value is written. nats: a signed change with four digits, delta: with five; share: of
# samples; part: of a change; points: of accuracy; bar and balance are drawn, the second signed.
Kind = Literal[
    "text", "name", "id", "epoch", "count", "share", "part", "points", "nats", "delta", "loss",
    "bar", "balance",
]  # fmt: skip
TEXTS = ("text", "name", "id")
DRAWN = ("bar", "balance")
TITLE = 160  # characters of a title, which may hold names
ROWS_LEFT_OUT = "⋮"


class Absent:
    """Stands in a table where nothing could be: it is left empty."""


@dataclass(frozen=True, slots=True)
class Heading:
    """What the blocks below are about."""

    text: str


@dataclass(frozen=True, slots=True)
class Sentence:
    """A sentence, with what it begins with in bold.

    `most` is how many characters of it are shown at most.
    """

    text: str = ""
    lead: str = ""
    tone: Literal["plain", "strong", "warning"] = "plain"
    indent: bool = False
    most: int = SENTENCE


@dataclass(frozen=True, slots=True)
class Gap:
    """An empty line on a terminal."""


@dataclass(frozen=True, slots=True)
class Field:
    """A column of a listing."""

    title: str
    kind: Kind


@dataclass(frozen=True, slots=True)
class Listing:
    """A table.

    Attributes
    ----------
    fields : tuple of Field
    rows : tuple of tuple
        Raw values; a row of one value, `ROWS_LEFT_OUT`, stands for rows that are not shown.
    marks : dict of (int, int) to str
        A sign to put before the value in a row and column, which stands out.
    strong : tuple of int
        Rows that are sums.
    optional : int
        How many columns, the last before what is drawn, may be left out of a narrow terminal.
    """

    fields: tuple[Field, ...]
    rows: tuple[tuple[Any, ...], ...]
    marks: dict[tuple[int, int], str] = field(default_factory=dict)
    strong: tuple[int, ...] = ()
    optional: int = 0

    def written(self) -> list[list[str]]:
        """Return the cells as text."""
        largest = [self._largest(i) for i in range(len(self.fields))]
        return [
            [
                drawn(value, kind.kind, largest[i])
                if kind.kind in DRAWN
                else f"{mark} {written(value, kind.kind)}"
                if (mark := self.marks.get((k, i)))
                else written(value, kind.kind)
                for i, (value, kind) in enumerate(zip(row, self.fields, strict=False))
            ]
            for k, row in enumerate(self.rows)
        ]

    def _largest(self, i: int) -> float:
        if self.fields[i].kind not in DRAWN:
            return 0.0
        values = [row[i] for row in self.rows if len(row) > i]
        return max((abs(v) for v in values if v is not None and math.isfinite(v)), default=0.0)


@dataclass(frozen=True, slots=True)
class Series:
    """Values over epochs, those that are marked, and what they are in words."""

    title: str
    values: tuple[float | None, ...]
    marks: tuple[tuple[int, str], ...]
    words: str


@dataclass(frozen=True, slots=True)
class Sparklines:
    """Series below one another, over the same epochs."""

    series: tuple[Series, ...]

    def lines(self) -> list[str]:
        """Draw them, each below its words."""
        made = []
        for s in self.series:
            made.append(f"{printable(s.title, TITLE)}: {printable(s.words, SENTENCE)}")
            made.append(charts.sparkline(s.values))
            below = charts.pointers(len(s.values), s.marks)
            made += [below] if below else []
        return made


@dataclass(frozen=True, slots=True)
class Details:
    """Blocks that a reader may open, where that can be had, under a title."""

    title: str
    blocks: tuple[Block, ...]
    rest: str = ""


Block: TypeAlias = Heading | Sentence | Gap | Listing | Sparklines | Details


def drawn(value: float | None, kind: str, largest: float) -> str:
    """Draw a bar."""
    return (charts.bar if kind == "bar" else charts.balance)(value, largest)


def number(value: float | None) -> str:
    """Write a loss or a share in few characters; nothing of nothing."""
    if value is None:
        return "–"
    if math.isinf(value):
        return "inf" if value > 0 else "-inf"
    if value and (abs(value) < 1e-3 or abs(value) >= 1e5):
        return f"{value:.3g}"
    return f"{value:.4f}"


def written(value: Any, kind: Kind) -> str:
    """Write a value of a table."""
    if value is Absent or value is ROWS_LEFT_OUT:
        return "" if value is Absent else ROWS_LEFT_OUT
    if kind == "id":
        return "" if value is None else printable_id(str(wording.plain_id(value)))
    if kind in TEXTS:
        return "" if value is None else printable(str(value), NAME)
    if kind == "loss":
        return number(value)
    if value is None:
        return "" if kind in ("part", "points", "share") else "–"
    if kind == "part":
        return wording.share(value)
    if kind == "nats":
        return signed(value)
    formats = {"epoch": "", "count": ",", "share": ".1%", "delta": "+.5f"}
    return f"{100 * value:+.2f}" if kind == "points" else format(value, formats[kind])


def as_data(blocks: Iterable[Block]) -> list[dict[str, Any]]:
    """Return blocks as JSON holds them, with values as they are; what is infinite is a word."""
    return [made for block in blocks if (made := _data(block)) is not None]


def _data(block: Block) -> dict[str, Any] | None:
    match block:
        case Heading(text):
            return {"heading": text}
        case Sentence(text, lead):
            return {"sentence": f"{lead} {text}".strip()}
        case Listing():
            kept = [i for i, f in enumerate(block.fields) if f.kind not in DRAWN]
            rows = [row for row in block.rows if len(row) == len(block.fields)]
            return {
                "columns": [block.fields[i].title for i in kept],
                "kinds": [block.fields[i].kind for i in kept],
                "rows": [[_value(row[i]) for i in kept] for row in rows],
            }
        case Sparklines(series):
            return {
                "series": [
                    {"title": s.title, "values": _values(s.values), "words": s.words}
                    for s in series
                ]
            }
        case Details(title, inner, rest):
            return {"heading": f"{title} {rest}".strip(), "blocks": as_data(inner)}
        case Gap():
            return None


def _values(values: Sequence[Any]) -> list[Any]:
    return [_value(value) for value in values]


def _value(value: Any) -> Any:
    if value is Absent:
        return None
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    return value if value is None or isinstance(value, int) else wording.plain_id(value)

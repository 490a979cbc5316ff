"""Table: rows that people sort, search and copy, with a frame for each choice of the reader."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

# How a value is written. share: 0.123 as 12.3 %; points: 0.0123 as +1.23; nats: with a sign;
# id and link: copyable, a link where the value is a pair of text and address; class: a name.
Kind = Literal[
    "text", "id", "class", "epoch", "count", "share", "points", "nats", "loss", "number", "bool"
]


@dataclass(frozen=True, slots=True)
class Column:
    """A column: its name in `Table.values`, its heading, and what the heading means."""

    name: str
    title: str
    kind: Kind
    hint: str = ""


@dataclass(frozen=True, slots=True)
class TableFrame:
    """What a table shows for one choice of the reader: the columns that replace its own."""

    text: str
    values: dict[str, list[Any]]


@dataclass(frozen=True, slots=True)
class Table:
    """Columns of plain values, all of one length in each frame.

    Attributes
    ----------
    name, title, how, by, note
        As of a Picture; `by` "pair" or "epoch".
    columns : tuple of Column
    values : dict of str to list
        By the name of a column; what JSON can hold, None where nothing is known.
    text : str
        A sentence about what it holds.
    frames : dict of str to TableFrame
    links : dict of str to str
        The addresses that ids lead to, where there are any.
    """

    name: str
    title: str
    how: str
    columns: tuple[Column, ...]
    values: dict[str, list[Any]]
    text: str = ""
    by: Literal["epoch", "pair"] | None = None
    frames: dict[str, TableFrame] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    note: str = ""

    def chosen(self, key: str | None = None) -> dict[str, list[Any]]:
        """Return the columns for a choice; by default, the last frame."""
        if self.by is None or not self.frames:
            return self.values
        key = next(reversed(self.frames)) if key is None else key
        return {**self.values, **self.frames[key].values}

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain data that JSON can hold."""
        return asdict(self)

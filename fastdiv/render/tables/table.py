"""Table: rows that people sort, search and copy, with a frame for each choice of the reader.

All values are what JSON holds. Numbers have few digits; an infinite one is the text ``"inf"`` or
``"-inf"``, which sorts beyond all others; what is not known is None.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa

from fastdiv.explain.pair import epoch_label
from fastdiv.explain.wording import plain_id
from fastdiv.render.pictures.picture import plain

if TYPE_CHECKING:
    from fastdiv.explain.view import SplitView

DIGITS = 5  # significant ones of a number
MOST_ROWS_READ = 30_000_000  # of stored scores, for one table
LONGEST_NAME = 200  # characters of a class
LARGEST_EXACT = 2**53  # above, a page's numbers are no longer exact

# How a value is written. share: 0.123 as 12.3 %; points: 0.0123 as +1.23; nats: with a sign;
# id: copyable, a link where `Table.links` has an address for it; class: a name, or a number.
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


def with_links(table: Table, links: Mapping[str, str]) -> Table:
    """Return a table whose ids lead to addresses: those of `links` whose ids it shows.

    Parameters
    ----------
    table : Table
    links : mapping of str to str
        By the text of an id.
    """
    return replace(table, links={i: links[i] for i in shown_ids(table) if i in links})


def shown_ids(table: Table) -> list[str]:
    """Return the texts of all ids that a table shows in any frame, each once."""
    names = [column.name for column in table.columns if column.kind == "id"]
    shown = [table.values, *(frame.values for frame in table.frames.values())]
    return list(
        dict.fromkeys(
            str(i)
            for values in shown
            for name in names
            for i in values.get(name, ())
            if i is not None
        )
    )


def numbers(values: Any, digits: int = DIGITS) -> list[float | str | None]:
    """Return numbers (n,) as a table holds them: few digits, None for NaN, text for infinity."""
    return [number(x, digits) for x in np.asarray(values, np.float64).tolist()]


def number(x: float | None, digits: int = DIGITS) -> float | str | None:
    """Return a number as a table holds it; see `numbers`."""
    if x is None or math.isnan(x):
        return None
    if math.isinf(x):
        return "inf" if x > 0 else "-inf"
    return float(f"{x:.{digits}g}") + 0.0  # no -0.0


def plain_ids(ids: pa.Array | pa.ChunkedArray) -> list[int | str]:
    """Return ids as a table holds them: numbers that a page would round become text."""
    plain = (plain_id(i) for i in ids.to_pylist())
    return [i if isinstance(i, str) or abs(i) <= LARGEST_EXACT else str(i) for i in plain]


def class_values(classes: pa.Array | pa.ChunkedArray) -> list[int | str]:
    """Return classes as a table holds them: numbers, or names, which are cut where very long."""
    return [
        x if isinstance(x, int) or len(x) <= LONGEST_NAME else f"{x[: LONGEST_NAME - 1]}…"
        for x in classes.to_pylist()
    ]


def epoch_words(view: SplitView, epoch: int) -> str:
    """Return the name of an epoch that has one, else its number, as sentences show it."""
    return plain(epoch_label(epoch, view._run.summary.get("epoch_names", {})))


def stored_of(view: SplitView, epochs: Sequence[int]) -> tuple[list[int], str]:
    """Choose the epochs that a table of single epochs shows.

    Returns
    -------
    epochs : list of int
        Those whose scores are stored; see `some_of`, where these are many.
    note : str
        How many, where not all; else empty.
    """
    kept = set(view.evidence.epochs)
    epochs = [epoch for epoch in epochs if epoch in kept]
    best = [epoch for epoch in view.best_epochs().values() if epoch is not None]
    taken = some_of(epochs, len(view.evidence.ids), best)
    if len(taken) == len(epochs):
        return taken, ""
    return taken, f"{len(taken):,} of {len(epochs):,} epochs: reading all would take long."


def some_of(epochs: Sequence[int], n: int, first: Iterable[int]) -> list[int]:
    """Choose epochs so that no more than `MOST_ROWS_READ` rows of n each are read.

    Parameters
    ----------
    epochs : sequence of int
        In order.
    n : int
        Samples.
    first : iterable of int
        Epochs to take before others, of those in `epochs`; the first and the last come next, then
        others at even distances.
    """
    room = max(2, MOST_ROWS_READ // max(1, n))
    if len(epochs) <= room:
        return list(epochs)
    taken = [epoch for epoch in dict.fromkeys(first) if epoch in set(epochs)]
    taken = list(dict.fromkeys([*taken, epochs[0], epochs[-1]]))[:room]
    others = [epoch for epoch in epochs if epoch not in set(taken)]
    at = np.linspace(0, len(others) - 1, room - len(taken)).round().astype(int)
    return sorted({*taken, *(others[i] for i in at)})

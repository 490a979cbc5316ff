"""Wording of a Change: the same tables as plain text and for notebooks."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from fastdiv.explain.pair import CELLS
from fastdiv.markup import printable, signed

if TYPE_CHECKING:
    from fastdiv.explain.chance.change import Change

WAYS = {"up": "rose", "down": "fell", "flat": "within noise"}


def where(made: Change) -> str:
    """Say which split and epochs are compared."""
    of = "" if made.split is None else f"{printable(made.split)}: "
    before, after = map(printable, made.labels)
    return f"{of}from epoch {before} to {after}"


def headline(made: Change) -> str:
    """Say in a line which way loss and accuracy went."""
    if made.delta_accuracy is None:
        return f"{where(made)} no sample is in both"
    loss, accuracy = WAYS[made.direction_loss], WAYS[made.direction_accuracy]
    return f"{where(made)}: loss {loss}, accuracy {accuracy}; {made.n:,} samples"


def interval_table(made: Change) -> list[list[str]]:
    """Return headings, and rows of the change in loss and in accuracy with their intervals.

    Empty, as `cell_table` is, where no sample is in both epochs.
    """
    if made.delta_accuracy is None:
        return []
    test = made.loss
    ends = 100 * made.accuracy_low, 100 * made.accuracy_high
    return [
        ["change in", "estimate", f"{100 * made.level:g} % interval", "p", ""],
        ["loss, nats", signed(test.mean) if test.n else "–", interval(test.low, test.high, "+.4f"),
         p_value(made.p_loss), WAYS[made.direction_loss]],
        ["accuracy, points", f"{100 * made.delta_accuracy:+.2f}", interval(*ends, "+.2f"),
         p_value(made.p_accuracy), WAYS[made.direction_accuracy]],
    ]  # fmt: skip


def cell_table(made: Change) -> list[list[str]]:
    """Return headings, rows of what the samples of each cell add to the loss, and their sum."""
    if made.delta_accuracy is None:
        return []
    rows = [["samples that went", "samples", "share", "nats"]]
    for cell in made.cells:
        added = "–" if cell.value is None else signed(cell.value)
        rows.append([CELLS[cell.name], f"{cell.n:,}", f"{cell.n / made.n:.1%}", added])
    return [*rows, ["all", f"{made.n:,}", "", signed(made.loss.mean) if made.loss.n else "–"]]


def notes(made: Change) -> list[str]:
    """Return what the tables leave out: samples whose loss is infinite."""
    became, ceased = made.n_became_infinite, made.n_ceased_infinite
    if made.delta_accuracy is None or made.n == made.loss.n:
        return []
    said = f"{made.n - made.loss.n:,} with an infinite loss have no part in the change in loss"
    return [f"{said}: of {became:,} it became infinite, of {ceased:,} finite."]


def as_text(made: Change) -> str:
    """Return a change as plain text."""
    blocks = [[headline(made), *notes(made)]]
    blocks += [aligned(rows) for rows in (interval_table(made), cell_table(made)) if rows]
    return "\n\n".join("\n".join(lines) for lines in blocks)


def aligned(rows: list[list[str]]) -> list[str]:
    """Return rows as lines: the first column aligned left, the others right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.rjust(width) if i else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def interval(low: float, high: float, form: str) -> str:
    """Write an interval; of one that is unbounded, that nothing can be said."""
    if not (math.isfinite(low) and math.isfinite(high)):
        return "not known"
    return f"{low:{form}} to {high:{form}}"


def p_value(p: float | None) -> str:
    """Write a p-value; too small for a number, that it is below that."""
    return "–" if p is None else f"{p:.2g}" if p else "< 1e-300"

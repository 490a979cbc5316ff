"""An Explanation on a terminal: what happened, the causes as bars, what else is known."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from fastdiv.check import Outcome
from fastdiv.explain import wording
from fastdiv.explain.explanation import Explanation

BAR = 24  # characters of the longest bar, half of them to either side


def show_explanation(made: Explanation, out: Console, why: str | None = None) -> None:
    """Print an explanation, and why these epochs are explained."""
    out.print(Text(wording.headline(made), style="bold"))
    if why is not None:
        out.print(f"({why})")
    if made.delta_accuracy is None:
        return
    if made.delta_loss is None:
        out.print("No sample has a finite loss in both: the change in loss cannot be divided.")
    for note in wording.notes(made):
        out.print(note)
    out.print()
    _show_causes(made, out)
    for i, cause in enumerate(made.causes, 1):
        out.print()
        title = Text(f"{i}. {wording.words(cause.name)}", style="bold")
        out.print(title + Text(f"  {wording.numbers(cause)}"))
        for sentence in wording.details(cause):
            out.print(wording.indented(sentence))
    if made.findings:
        out.print()
        out.print(Text("Also", style="bold"))
        for finding in made.findings:
            out.print(wording.indented(finding.sentence))


def _show_causes(made: Explanation, out: Console) -> None:
    """Print the account: named causes, uncertain ones and all else, which add up to the change."""
    rows = wording.rows(made)
    largest = max((abs(nats) for _, nats, _, _ in rows), default=0.0)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("cause", "nats", "share", "points"):
        table.add_column(column, justify="left" if column == "cause" else "right")
    table.add_column("")
    for name, nats, share, points in rows:
        moved = "" if points is None else f"{100 * points:+.2f}"
        drawn = bar(nats, largest)
        table.add_row(name, wording.signed(nats), wording.share(share), moved, drawn)
    total, accuracy = made.delta_loss or 0.0, made.delta_accuracy or 0.0
    change = ("change", wording.signed(total), "", f"{100 * accuracy:+.2f}", "")
    table.add_row(*change, style="bold")
    out.print(table)


def bar(value: float, largest: float) -> str:
    """Draw a signed number: to the right of the middle where it is positive."""
    half = BAR // 2
    size = round(half * abs(value) / largest) if largest else 0
    left = ("█" * size if value < 0 else "").rjust(half)
    return f"{left}│{('█' * size if value > 0 else '').ljust(half)}"


def show_outcomes(outcomes: list[Outcome], out: Console) -> None:
    """Print what became of each rule of a check."""
    for outcome in outcomes:
        mark = Text("FAILED", style="bold red") if outcome.failed else Text("ok    ", style="green")
        out.print(mark + Text(f"  {outcome.text}"))

"""An Explanation as blocks: what happened, the causes as bars, what else is known."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Console
from rich.text import Text

from fastdiv.check import Outcome
from fastdiv.explain import wording
from fastdiv.explain.explanation import Explanation
from fastdiv.explain.in_notebook import short_names
from fastdiv.render.blocks import Block, Details, Field, Gap, Listing, Sentence
from fastdiv.render.text import show

CAUSES = (
    Field("cause", "text"), Field("nats", "nats"), Field("share", "part"),
    Field("points", "points"), Field("", "balance"),
)  # fmt: skip


def in_blocks(made: Explanation, why: str | None = None) -> Iterator[Block]:
    """Yield what an explanation says, and why these epochs are explained."""
    made = short_names(made)
    yield Sentence(lead=wording.headline(made), tone="strong")
    if why is not None:
        yield Sentence(f"({why})")
    if made.delta_accuracy is None:
        return
    if made.delta_loss is None:
        yield Sentence("No sample has a finite loss in both: the change in loss cannot be divided.")
    for note in wording.notes(made):
        yield Sentence(note)
    yield Gap()
    account = [(name, nats, part, points, nats) for name, nats, part, points in wording.rows(made)]
    total = ("change", made.delta_loss or 0.0, None, made.delta_accuracy, None)
    yield Listing(CAUSES, (*account, total), strong=(len(account),))
    for i, cause in enumerate(made.causes, 1):
        sentences = tuple(Sentence(s, indent=True) for s in wording.details(cause))
        yield Details(f"{i}. {wording.words(cause.name)}", sentences, wording.numbers(cause))
    if made.findings:
        yield Details("Also", tuple(Sentence(f.sentence, indent=True) for f in made.findings))


def show_explanation(made: Explanation, out: Console, why: str | None = None) -> None:
    """Print an explanation, and why these epochs are explained."""
    show(in_blocks(made, why), out)


def show_outcomes(outcomes: list[Outcome], out: Console) -> None:
    """Print what became of each rule of a check."""
    for outcome in outcomes:
        mark = Text("FAILED", style="bold red") if outcome.failed else Text("ok    ", style="green")
        out.print(mark + Text(f"  {outcome.text}"))

"""A terminal: blocks by rich, and a console that names from the data cannot play tricks on."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.measure import Measurement
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from fastdiv.explain import wording
from fastdiv.markup import printable
from fastdiv.plan import Plan, human_bytes
from fastdiv.render import found
from fastdiv.render.blocks import (
    DRAWN,
    TEXTS,
    TITLE,
    Block,
    Details,
    Gap,
    Heading,
    Listing,
    Sentence,
    Sparklines,
)
from fastdiv.render.charts import encodable
from fastdiv.render.found import MOST_EPOCHS
from fastdiv.sources import Source
from fastdiv_kernels.contract import dtype_name

if TYPE_CHECKING:
    from fastdiv.run import Run

SIDE_BY_SIDE = 3  # splits, on a terminal
UNTOLD = "only reading tells"
PLAIN_WIDTH = 10_000  # columns where there is no terminal: nothing is cut or broken
STYLES = {"plain": "", "strong": "bold", "warning": "bold yellow"}


def console() -> Console:
    """Return a console on stdout, wide enough for the tables where it is no terminal."""
    width = None if sys.stdout.isatty() else PLAIN_WIDTH
    # Names come from the data: nothing in them may be taken for markup.
    return _Console(width=width, highlight=False, markup=False, emoji=False)


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Leave a reader that went away to the caller; rich would end the program with code 1."""
        raise BrokenPipeError

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """Write what stdout can carry, and no control character of the text itself.

        Styles become escape sequences after this, so that none is lost.
        """
        for text, style, control in super().render(renderable, options):
            if control is None and not (text.isascii() and text.isprintable()) and text != "\n":
                lines = (printable(line, None) for line in text.split("\n"))
                text = encodable("\n".join(lines), self.encoding)
            yield Segment(text, style, control)


def show(blocks: Iterable[Block], out: Console) -> None:
    """Print blocks."""
    for block in blocks:
        match block:
            case Heading(text):
                out.print()
                out.print(Text(printable(text, TITLE), style="bold underline"))
            case Sentence():
                _show_sentence(block, out)
            case Gap():
                out.print()
            case Listing():
                out.print(_fitting(block, out))
            case Sparklines():
                for line in block.lines():
                    out.print(Text(line), soft_wrap=True)
            case Details(title, inner, rest):
                out.print()
                about = Text(f"  {printable(rest, None)}" if rest else "")
                out.print(Text(printable(title, TITLE), style="bold") + about)
                show(inner, out)


def _show_sentence(block: Sentence, out: Console) -> None:
    text = printable(block.text, block.most)
    if block.indent:
        width = max(min(wording.WRAP, out.width - len(wording.INDENT)), 1)
        out.print(wording.indented(text, width))
        return
    lead = Text(printable(block.lead, block.most), style=STYLES[block.tone])
    out.print(lead + Text(f" {text}" if text and block.lead else text))


def _fitting(block: Listing, out: Console) -> Table:
    """Make rich's table of a listing, without its last columns where there is no room for them."""
    n = len(block.fields)
    least = n - block.optional - (block.fields[-1].kind in DRAWN)
    table = _table(block, n)
    unlimited = out.options.update(max_width=PLAIN_WIDTH)
    while n > least and Measurement.get(out, unlimited, table).maximum > out.width:
        n -= 1
        table = _table(block, n)
    return table


def _table(block: Listing, n: int) -> Table:
    """Make rich's table of the first n columns of a listing."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for field in block.fields[:n]:
        left = field.kind in (*TEXTS, *DRAWN)
        table.add_column(Text(field.title), justify="left" if left else "right")
    for k, row in enumerate(block.written()):
        cells = [
            Text(cell, style="bold green" if (k, i) in block.marks else "")
            for i, cell in enumerate(row[:n])
        ]
        table.add_row(*cells, style="bold" if k in block.strong else None)
    return table


def show_run(run: Run, out: Console) -> None:
    """Print what a run found."""
    show(found.source(run.summary), out)
    show(found.warnings(run), out)
    splits = len(run.summary["splits"])
    out.print()
    show(found.epochs(run, SIDE_BY_SIDE if out.is_terminal else splits), out)
    for entry in run.summary["splits"]:
        show(found.best(run, entry), out)


def show_plan(source: Source, plan: Plan, out: Console) -> None:
    """Print what would be read, and what it needs."""
    layout = source.layout
    show(found.columns(layout.evidence), out)
    for name, text in (
        ("classes", f"{layout.classes}{_names(layout.class_names)}"),
        ("dtype", dtype_name(layout.dtype)),
        ("epochs", _epochs(plan, source.epoch_names)),
        ("splits", _splits(plan)),
        ("rows", f"{_told(plan.rows, '{:,}')} in {plan.parts:,} "
                 f"{'part' if plan.parts == 1 else 'parts'}, {len(plan.chunks):,} chunks"),
        ("samples", _told(plan.samples, "at most {:,}")),
        ("bytes", f"{human_bytes(plan.nbytes)} to read" if plan.nbytes else UNTOLD),
        ("memory", _told(plan.memory_bytes, "about {}, at most", human_bytes)),
        ("disk", _told(plan.disk_bytes, "{} for stored scores", human_bytes)),
    ):  # fmt: skip
        out.print(f"  {name:<12}{text}")


def plan_as_dict(source: Source, plan: Plan) -> dict[str, Any]:
    """Return what `show_plan` prints, for machines."""
    layout = source.layout
    return {
        "columns": layout.evidence,
        "kind": layout.kind.name.lower(),
        "classes": layout.classes,
        "class_names": None if layout.class_names is None else list(layout.class_names),
        "dtype": dtype_name(layout.dtype),
        "epochs": plan.epochs,
        "epoch_names": {str(e): name for e, name in source.epoch_names.items()},
        "splits": plan.splits,
        "parts": plan.parts,
        "chunks": len(plan.chunks),
        "rows": plan.rows,
        "samples_at_most": plan.samples,
        "bytes": plan.nbytes,
        "memory_bytes": plan.memory_bytes,
        "disk_bytes": plan.disk_bytes,
    }


def _told(value: int | None, words: str, write: Callable[[int], str] | None = None) -> str:
    """Put a number into words, where it is known."""
    return UNTOLD if value is None else words.format(write(value) if write else value)


def _names(names: tuple[str, ...] | None) -> str:
    if names is None:
        return ""
    shown = ", ".join(map(printable, names[:6]))
    return f" ({shown}{', …' if len(names) > 6 else ''})"


def _epochs(plan: Plan, named: Mapping[int, str]) -> str:
    if plan.epochs is not None and named:
        names = [named[epoch] for epoch in plan.epochs]
        return _names(tuple(names)).strip(" ()")
    if plan.epochs is None:
        return "as the column says (its statistics do not tell them all)"
    if len(plan.epochs) <= MOST_EPOCHS:
        return ", ".join(map(str, plan.epochs))
    return f"{len(plan.epochs)}, from {plan.epochs[0]} to {plan.epochs[-1]}"


def _splits(plan: Plan) -> str:
    if plan.splits is None:
        return "as the column says"
    return ", ".join("none" if s is None else printable(s) for s in plan.splits)

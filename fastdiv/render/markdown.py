"""Markdown: blocks as a comment on a pull request, whatever the names of the data hold."""

from __future__ import annotations

import re
from collections.abc import Iterable

from fastdiv.markup import code, in_markdown, unlinked
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

MOST = 65_000  # characters of a comment: GitHub takes 65,536
LEFT_OUT = "*More is left out: a comment holds no more.*"


def markdown(blocks: Iterable[Block], most: int = MOST) -> str:
    """Return blocks as GitHub-flavoured Markdown of at most `most` characters.

    What does not fit is left out whole, block by block, and that is said.
    """
    parts: list[str] = []
    room = most - len(LEFT_OUT) - 2
    for block in blocks:
        text = _text(block)
        if not text:
            continue
        if len(text) + 2 > room:
            parts.append(LEFT_OUT)
            break
        parts.append(text)
        room -= len(text) + 2
    return _joined(parts) + "\n"


def _joined(parts: list[str]) -> str:
    """Join texts by empty lines, items of one list by none."""
    made = ""
    for before, part in zip(["", *parts], parts, strict=False):
        both_items = before.startswith("- ") and part.startswith("- ")
        made += f"{'' if not made else chr(10) if both_items else chr(10) * 2}{part}"
    return made


def _text(block: Block) -> str:
    match block:
        case Heading(text):
            return f"### {in_markdown(text, TITLE)}"
        case Sentence():
            return _sentence(block)
        case Listing():
            return _table(block)
        case Sparklines():
            return _fenced([line.rstrip() for line in block.lines()])
        case Details(title, inner, rest):
            summary = f"<b>{unlinked(title, TITLE)}</b>"
            if rest:
                summary += f" {unlinked(rest, None)}"
            parts = [text for one in inner if (text := _text(one))]
            return f"<details><summary>{summary}</summary>\n\n{_joined(parts)}\n\n</details>"
        case Gap():
            return ""


def _fenced(lines: list[str]) -> str:
    """Return lines as they are, between fences that are longer than any in them."""
    ticks = max((len(run) for line in lines for run in re.findall("`+", line)), default=0)
    fence = "`" * max(3, ticks + 1)
    return "\n".join([f"{fence}text", *lines, fence])


def _sentence(block: Sentence) -> str:
    text = in_markdown(block.text, block.most)
    lead = in_markdown(block.lead, block.most)
    if not block.lead:
        return f"- {text}" if block.indent or block.text.startswith("  ") else text
    return f"**{lead}** {text}".rstrip()


def _table(block: Listing) -> str:
    """Write a table; a cell for each column of every row."""
    heads = [in_markdown(f.title, TITLE) or " " for f in block.fields]
    rules = [" --- " if f.kind in (*TEXTS, *DRAWN) else " ---: " for f in block.fields]
    lines = [f"| {' | '.join(heads)} |", f"|{'|'.join(rules)}|"]
    for k, row in enumerate(block.written()):
        cells = []
        for i, (cell, field) in enumerate(zip(row, block.fields, strict=False)):
            if field.kind in DRAWN:
                cells.append(code(cell) if cell.strip() else "")
            else:
                text = in_markdown(cell) if field.kind in TEXTS else cell
                stands_out = text and (k in block.strong or (k, i) in block.marks)
                cells.append(f"**{text}**" if stands_out else text)
        cells += [""] * (len(block.fields) - len(cells))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)

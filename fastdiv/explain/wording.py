"""Wording: an Explanation as plain text."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from fastdiv.markup import signed

if TYPE_CHECKING:
    from fastdiv.explain.explanation import Cause, Explanation

WRAP = 96  # columns of a sentence
INDENT = "   "
WORTH_A_LINE = 0.05  # of the largest term: what is smaller, and no cause, is not told apart
WAYS = {"up": "rose", "down": "fell", "flat": "did not move beyond noise"}
ENTANGLED = 5.0  # times less, after all others, than what is credited
HIDES = 2.0  # times the change: terms this large cancel, and that is said


def headline(made: Explanation) -> str:
    """Say in a line what happened to loss and accuracy."""
    before, after = made.labels
    where = f"{made.split}: " if made.split is not None else ""
    if made.delta_accuracy is None:
        return (
            f"{where}from epoch {before} to {after} there is nothing to compare: {_why_not(made)}"
        )
    loss, accuracy = made.quadrant.removeprefix("loss_").split("_accuracy_")
    said = f"loss {WAYS[loss]}"
    if made.delta_loss is not None:
        said += f" ({signed(made.delta_loss)} nats)"
    lost, gained = made.n_infinite_before, made.n_infinite_after
    if lost or gained:
        said = f"{said} over the {made.n:,} samples whose label never got probability 0 (as it did "
        said += f"{lost:,} times before, {gained:,} after)"
    joined = "while" if (loss == accuracy) != ("flat" in (loss, accuracy)) else "and"
    points = f"{100 * made.delta_accuracy:+.2f} points"
    counted = "" if lost or gained else f"; {made.n:,} samples"
    return (
        f"{where}from epoch {before} to {after} {said} {joined} accuracy {WAYS[accuracy]} "
        f"({points}{counted})"
    )


def _why_not(made: Explanation) -> str:
    """Say why no sample is valid in both epochs with one label."""
    counts = {
        "are in the first alone": made.n_only_before,
        "in the second alone": made.n_only_after,
        "are invalid in one of them": made.n_invalid,
        "have another label": made.n_relabelled,
    }
    said = [f"{n:,} {words}" for words, n in counts.items() if n]
    return f"of the samples, {', '.join(said)}." if said else "there are no samples."


def notes(made: Explanation) -> list[str]:
    """Return what should be known before causes are read."""
    said = []
    if made.delta_refinement is not None and made.delta_calibration is not None:
        said.append(
            f"By temperature alone: refinement {signed(made.delta_refinement)}, calibration "
            f"{signed(made.delta_calibration)} nats."
        )
    if made.approximate:
        said.append("Losses at other temperatures are estimates: vectors were not kept.")
    terms = [cause.nats for cause in made.causes]
    total = abs(made.delta_loss or 0.0)
    if len(terms) > 1 and min(terms) < 0 < max(terms) and max(map(abs, terms)) > HIDES * total:
        said.append("Causes pull against each other: the change is what they leave of one another.")
    entangled = [words(c.name) for c in made.causes if _depends(c)]
    if entangled:
        said.append(
            f"What {' and '.join(entangled)} carries depends on what is credited first: read its "
            "nats together with those of the others."
        )
    return said


def _depends(cause: Cause) -> bool:
    """Tell whether a cause carries something else by itself than after all others."""
    alone, last = cause.nats_alone, cause.nats_last
    return cause.nats * last < 0 or abs(last) * ENTANGLED < min(abs(cause.nats), abs(alone))


def rows(made: Explanation) -> list[tuple[str, float, float | None, float | None]]:
    """Return the account as (name, nats, share, points): causes, uncertain terms, all else."""
    total = made.delta_loss or 0.0
    named = [(words(c.name), c.nats, c.share, c.points) for c in made.causes]
    table: list[tuple[str, float, float | None, float | None]] = list(named)
    if all(cause.name == "noise" for cause in made.causes):
        return table
    most = max(abs(x) for x in [*made.unnamed.values(), *(c.nats for c in made.causes)])
    large = {k: x for k, x in made.unnamed.items() if abs(x) >= max(WORTH_A_LINE * most, 1e-12)}
    for name, nats in sorted(large.items(), key=lambda item: -abs(item[1])):
        table.append((f"{words(name)} (uncertain)", nats, nats / total if total else None, None))
    rest = sum(x for name, x in made.unnamed.items() if name not in large)
    points = (made.delta_accuracy or 0.0) - sum(cause.points for cause in made.causes)
    if made.unnamed:
        table.append(("all else", rest, rest / total if total else None, points))
    return table


def details(cause: Cause) -> Iterator[str]:
    """Yield the sentences of a cause."""
    yield f"{cause.evidence}."
    yield f"Try: {cause.advice}"
    if cause.sample_ids:
        yield f"Samples: {', '.join(str(plain_id(i)) for i in cause.sample_ids)}"


def numbers(cause: Cause) -> str:
    """Return the nats of a cause, and what it would be alone and last."""
    alone, last = signed(cause.nats_alone), signed(cause.nats_last)
    p = "" if cause.p is None else f", p {cause.p:.2g}" if cause.p else ", p < 1e-300"
    return f"{signed(cause.nats)} nats (alone {alone}, last {last}{p})"


def plain_id(sample_id: Any) -> int | str:
    """Return an id as JSON can hold it: bytes in hex, anything but numbers and text as text."""
    if isinstance(sample_id, bytes):
        return sample_id.hex()
    return sample_id if isinstance(sample_id, int | str) else str(sample_id)


def words(name: str) -> str:
    """Return the name of a cause as people write it."""
    return name.replace("_", " ")


def share(x: float | None) -> str:
    """Write a share of the change; one of nearly no change means nothing."""
    if x is None or abs(x) > 10:
        return ""
    text = f"{x:.0%}"
    return "0%" if text == "-0%" else text


def indented(text: str, width: int = WRAP) -> str:
    """Break a sentence into lines of at most `width` characters, and indent them."""
    return textwrap.indent(textwrap.fill(text, width), INDENT)


def as_text(made: Explanation) -> str:
    """Return an explanation as plain text."""
    lines: list[Any] = [headline(made), *notes(made), ""]
    for name, nats, part, points in rows(made):
        moved = "" if points is None else f"{100 * points:+.2f} points"
        lines.append(f"{name:<28} {signed(nats):>9} nats {share(part):>6}  {moved}".rstrip())
    for i, cause in enumerate(made.causes, 1):
        lines += ["", f"{i}. {words(cause.name)}  {numbers(cause)}"]
        lines += [indented(text) for text in details(cause)]
    if made.findings:
        lines += ["", "Also"]
        lines += [indented(finding.sentence) for finding in made.findings]
    return "\n".join(lines)

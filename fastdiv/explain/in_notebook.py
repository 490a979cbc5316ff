"""What notebooks show of an Explanation and of a Change."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from fastdiv import markup
from fastdiv.explain import wording

if TYPE_CHECKING:
    from fastdiv.explain.chance.change import Change
    from fastdiv.explain.explanation import Explanation

FINDINGS = 12  # sentences of findings that are shown
WAYS = {"up": "rose", "down": "fell", "flat": "within noise"}


def explanation_html(made: Explanation) -> str:
    """Return headline, account and causes as HTML."""
    return markup.panel(*explanation_pieces(made))


def explanation_pieces(made: Explanation, *, brief: bool = False) -> list[str]:
    """Return pieces of HTML: the headline and the account, and where it is not brief, the rest."""
    made = short_names(made)
    pieces = [markup.paragraph(wording.headline(made), strong=True)]
    if made.delta_accuracy is None:
        return pieces
    if made.delta_loss is None:
        words = "No sample has a finite loss in both: the change in loss cannot be divided."
        pieces.append(markup.paragraph(words))
    elif made.causes:
        rows = [
            (name, nats, wording.share(part), "" if points is None else f"{100 * points:+.2f}")
            for name, nats, part, points in wording.rows(made)
        ]
        total = ("change", made.delta_loss, "", f"{100 * made.delta_accuracy:+.2f}")
        pieces.append(markup.account(rows, total))
    if brief:
        return pieces
    pieces += [markup.paragraph(note, faint=True) for note in wording.notes(made)]
    for i, cause in enumerate(made.causes, 1):
        title = f"{i}. {wording.words(cause.name)}: {wording.numbers(cause)}"
        pieces.append(markup.fold(title, wording.details(cause)))
    if made.findings:
        pieces.append(markup.fold("Also", (f.sentence for f in made.findings[:FINDINGS])))
    return pieces


def short_names(made: Explanation) -> Explanation:
    """Return an explanation with names of split, epochs, classes and samples as they are shown."""
    split, before, after = (
        None if name is None else markup.printable(name)
        for name in (made.split, made.name_from, made.name_to)
    )
    causes = tuple(
        replace(
            cause,
            sample_ids=tuple(short_id(i) for i in cause.sample_ids),
            evidence=markup.printable_sentence(cause.evidence),
        )
        for cause in made.causes
    )
    findings = tuple(
        replace(finding, sentence=markup.printable_sentence(finding.sentence))
        for finding in made.findings
    )
    return replace(
        made, split=split, name_from=before, name_to=after, causes=causes, findings=findings
    )


def short_id(sample_id: Any) -> int | str:
    """Return an id as it is shown."""
    plain = wording.plain_id(sample_id)
    return markup.printable_id(plain) if isinstance(plain, str) else plain


def change_html(made: Change) -> str:
    """Return the change in loss and accuracy with their intervals and p-values as HTML."""
    of = "" if made.split is None else f"{markup.printable(made.split)}: "
    where = f"{of}from epoch {made.epoch_from} to {made.epoch_to}"
    if made.delta_accuracy is None:
        return markup.panel(markup.paragraph(f"{where} no sample is in both", strong=True))
    loss, accuracy = WAYS[made.direction_loss], WAYS[made.direction_accuracy]
    headline = f"{where}: loss {loss}, accuracy {accuracy}; {made.n:,} samples"
    test = made.loss
    rows = [
        ("loss, nats", f"{test.mean:+.4f}" if test.n else "–",
         interval(test.low, test.high, "+.4f"), p_value(made.p_loss), loss),
        ("accuracy, points", f"{100 * made.delta_accuracy:+.2f}",
         interval(100 * made.accuracy_low, 100 * made.accuracy_high, "+.2f"),
         p_value(made.p_accuracy), accuracy),
    ]  # fmt: skip
    flips = f"{made.n_right_to_wrong:,} went right → wrong, {made.n_wrong_to_right:,} wrong → right"
    infinite = made.n_became_infinite, made.n_ceased_infinite
    if any(infinite):
        flips += f"; of {infinite[0]:,} the loss became infinite, of {infinite[1]:,} finite"
    headings = ("change in", "estimate", "interval", "p", "")
    escaped = [[markup.escaped(cell) for cell in row] for row in rows]
    return markup.panel(
        markup.paragraph(headline, strong=True),
        markup.grid(headings, escaped),
        markup.paragraph(f"{flips}.", faint=True),
    )


def interval(low: float, high: float, form: str) -> str:
    """Write an interval; of one that is unbounded, that nothing can be said."""
    if not (math.isfinite(low) and math.isfinite(high)):
        return "not known"
    return f"{low:{form}} to {high:{form}}"


def p_value(p: float | None) -> str:
    """Write a p-value; too small for a number, that it is below that."""
    return "–" if p is None else f"{p:.2g}" if p else "< 1e-300"

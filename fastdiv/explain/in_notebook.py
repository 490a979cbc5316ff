"""What notebooks show of an Explanation and of a Change."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from fastdiv import markup
from fastdiv.explain import wording
from fastdiv.explain.chance import wording as chance

if TYPE_CHECKING:
    from fastdiv.explain.chance.change import Change
    from fastdiv.explain.explanation import Explanation

FINDINGS = 12  # sentences of findings that are shown


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
    """Return the change in loss and accuracy, and what each cell adds to the loss, as HTML."""
    pieces = [markup.paragraph(chance.headline(made), strong=True)]
    if made.delta_accuracy is not None:
        headings, *rows = chance.interval_table(made)
        pieces.append(markup.grid(headings, [list(map(markup.escaped, row)) for row in rows]))
        headings, *rows = chance.cell_table(made)
        nats = [cell.value or 0.0 for cell in made.cells]
        ends = min(0.0, *nats), max(0.0, *nats)
        bars = [*(markup.bar(0.0, x, *ends) for x in nats), ""]
        cells = [[*map(markup.escaped, row), drawn] for row, drawn in zip(rows, bars, strict=True)]
        pieces.append(markup.grid([*headings, ""], cells, total=True))
    pieces += [markup.paragraph(note, faint=True) for note in chance.notes(made)]
    return markup.panel(*pieces)

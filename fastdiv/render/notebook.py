"""What notebooks show of a Run: splits, best epochs, small lines, and why, where that is quick."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastdiv import markup
from fastdiv.explain.in_notebook import explanation_pieces
from fastdiv.render.blocks import number
from fastdiv.render.found import label

if TYPE_CHECKING:
    from fastdiv.run import Run

SPLITS = 12  # that are shown
NAME = 32  # characters of a name in the table
QUICK = 200_000  # samples up to which an explanation is made to be shown
HINT = "run.report('report.html') shows all, run.split() takes it apart."


def run_html(run: Run) -> str:
    """Return a run as HTML; no prediction is read, and of large splits no score."""
    summary = run.summary
    words = (
        f"{summary['rows']:,} rows × {summary['classes']:,} classes of {summary['kind']}"
        f"{invalid_words(run)}"
    )
    pieces = [markup.paragraph(words, strong=True), _splits(run)]
    if len(summary["splits"]) > SPLITS:
        more = len(summary["splits"]) - SPLITS
        pieces.append(markup.paragraph(f"{more:,} more splits are not shown.", faint=True))
    why = _why(run)
    hint = f"run.explain() says more, {HINT}" if why else HINT
    pieces += [*why, markup.paragraph(hint, faint=True)]
    return markup.panel(*pieces)


def invalid_words(run: Run) -> str:
    """Say how many rows are invalid, and how many have an infinite loss, where any has."""
    n = run.summary["invalid"]["n"]
    infinite = sum(run.epochs["n_infinite"].to_pylist())
    words = f"; {n:,} invalid rows are in no mean" if n else ""
    return words + (
        f"; {infinite:,} have an infinite loss, and no part in its mean" * bool(infinite)
    )


def _splits(run: Run) -> str:
    """Return the table of splits, with loss and accuracy drawn over epochs."""
    names = run.summary.get("epoch_names", {})
    named = any(entry["split"] is not None for entry in run.summary["splits"])
    by_split: dict[str | None, list[dict[str, Any]]] = {}
    columns = ("split", "epoch", "loss_finite", "accuracy", "n_infinite")
    for row in run.epochs.select(columns).to_pylist():
        by_split.setdefault(row["split"], []).append(row)
    rows = []
    for entry in run.summary["splits"][:SPLITS]:
        found = sorted(by_split.get(entry["split"], []), key=lambda r: r["epoch"])
        at = {r["epoch"]: i for i, r in enumerate(found)}
        cells = [f"{len(found):,}", f"{entry['n_samples']:,}"]
        if named:
            split = "" if entry["split"] is None else entry["split"]
            cells.insert(0, f"<bdi>{markup.escaped(split, NAME)}</bdi>")
        for key, column, colour, name in (
            ("epoch_lowest_loss", "loss_finite", markup.LOSS, "loss"),
            ("epoch_highest_accuracy", "accuracy", markup.ACCURACY, "accuracy"),
        ):
            best = at.get(entry[key])
            values = [r[column] for r in found]
            told = "–"
            if best is not None:
                epoch = markup.escaped(label(entry[key], names), NAME)
                told = f"{number(values[best])} <small>at <bdi>{epoch}</bdi></small>"
            dashed = column == "accuracy"
            line = markup.line(values, name, colour, dashed=dashed, mark=best)
            cells.append(f"<div>{told}</div>{line if len(values) > 1 else ''}")
        rows.append(cells)
    several = run.epochs.num_rows > len(run.summary["splits"])
    ends = ("lowest loss", "highest accuracy") if several else ("loss", "accuracy")
    headings = ("epochs", "samples", *ends)
    return markup.grid(("split", *headings) if named else headings, rows)


def _why(run: Run) -> list[str]:
    """Return what moved the loss of the split that matters, where it is quick to find."""
    if not run.summary["splits"]:
        return []
    view = run.split()
    (entry,) = (e for e in run.summary["splits"] if e["split"] == view.split)
    stretches = view.stretches()
    if not stretches:
        return []
    chosen = stretches[0]
    if entry["n_samples"] > QUICK:
        words = f"run.explain() says why; with {entry['n_samples']:,} samples, it takes a moment."
        return [markup.paragraph(words)]
    made = view.explain(chosen.epoch_from, chosen.epoch_to)
    return [*explanation_pieces(made, brief=True), markup.paragraph(f"({chosen.why})", faint=True)]

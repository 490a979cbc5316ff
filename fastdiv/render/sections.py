"""What `fastdiv show` says of a saved run: all that the report holds, in words and small tables."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from fastdiv.errors import UsageError
from fastdiv.explain.accounts.concentration import Concentration
from fastdiv.explain.pair import CELLS
from fastdiv.explain.training.stretches import Stretch
from fastdiv.explain.view import SplitView
from fastdiv.plan import human_bytes
from fastdiv.render import found, why
from fastdiv.render.blocks import (
    Block,
    Details,
    Field,
    Gap,
    Heading,
    Listing,
    Sentence,
    Series,
    Sparklines,
    number,
)

if TYPE_CHECKING:
    from fastdiv.run import Run

MOST = 10  # samples, confusions and classes that are listed
SIDE_BY_SIDE = 2  # splits in the table of epochs
LOWEST, HIGHEST = "▼", "▲"  # below the lines, and in their words
LINES = (
    ("loss", "loss_finite", "lowest", min, LOWEST),
    ("accuracy", "accuracy", "highest", max, HIGHEST),
)


def whole(run: Run, split: str | None = None) -> Iterator[Block]:
    """Yield everything, of one split or of all that are not for training.

    Raises
    ------
    UsageError
        Where there is no such split.
    """
    views = run.views() if split is None else [run.split(split)]
    yield found.volume(run.summary)
    yield from found.warnings(run)
    for entry in run.summary["splits"]:
        if split is None or entry["split"] == split:
            yield from sparklines(run, entry)
    for view in views:
        yield from of_split(run, view)
    yield Heading("The run")
    yield Details("Epochs", tuple(found.epochs(run, SIDE_BY_SIDE, split)))
    yield from provenance(run)


def sparklines(run: Run, entry: dict[str, Any]) -> Iterator[Block]:
    """Yield loss and accuracy of a split over epochs, the best epochs marked."""
    rows = [r for r in run.epochs.to_pylist() if r["split"] == entry["split"]]
    if len(rows) < 2:
        return
    rows.sort(key=lambda r: r["epoch"])
    names = run.summary.get("epoch_names", {})
    order = [r["epoch"] for r in rows]
    of = f"{found.shown_split(entry['split'])} " if entry["split"] is not None else ""
    best = (("epoch_lowest_loss", LOWEST), ("epoch_highest_accuracy", HIGHEST))
    marks = tuple((order.index(e), sign) for key, sign in best if (e := entry[key]) in order)
    infinite = any(r["n_infinite"] for r in rows)
    series = []
    for title, column, extreme, choose, sign in LINES:
        values = tuple(r[column] for r in rows)
        known = [v for v in values if v is not None and math.isfinite(v)]
        words = "no value is known"
        if known:
            end = choose(known)
            at = found.label(order[values.index(end)], names)
            words = (
                f"first {number(values[0])}, {extreme} {sign} {number(end)} at epoch {at}, "
                f"last {number(values[-1])}"
            )
        if column == "loss_finite" and infinite:
            words += "; infinite losses left out"
        series.append(Series(f"{of}{title}", values, marks, words))
    yield Gap()
    yield Sparklines(tuple(series))


def of_split(run: Run, view: SplitView) -> Iterator[Block]:
    """Yield what is known of one split: why, which samples, calibration, labels, classes."""
    entry = next(e for e in run.summary["splits"] if e["split"] == view.split)
    names = run.summary.get("epoch_names", {})
    yield Heading(f"Split {view.split}" if view.split is not None else "Loss and accuracy")
    words = found.best_words(run, entry)
    if words is None:
        yield Sentence("No sample is valid in any epoch: there is nothing to tell.")
        return
    yield Sentence(words)
    stretches = view.stretches()
    chosen = stretches[0] if stretches else None
    if chosen is None:
        yield Sentence(
            "There are no two epochs with stored scores and finite losses to be explained."
        )
    else:
        yield Gap()
        yield from why.in_blocks(view.explain(chosen.epoch_from, chosen.epoch_to), chosen.why)
        yield from _cells(run, view, chosen)
    yield from transitions(run, view)
    epoch = _epoch(view, entry, chosen)
    if epoch is None:
        yield Sentence("No scores of an epoch with valid samples are stored: no sample is known.")
        return
    at = found.label(epoch, names)
    yield Details(f"Reliability in epoch {at}", tuple(reliability(view, epoch)))
    most = view.concentration(epoch, MOST)
    yield Details(f"Samples with the highest loss in epoch {at}", tuple(worst(most)))
    yield from _asked("Suspect labels", lambda: suspects(view, names))
    yield Details(f"Confusions in epoch {at}", tuple(confusions(view, epoch)))
    if chosen is not None:
        yield Details("Classes that moved most", tuple(classes(view, chosen)))


def _epoch(view: SplitView, entry: dict[str, Any], chosen: Stretch | None) -> int | None:
    """Choose the epoch whose samples are shown: where the explanation ends, else the best."""
    wanted = [chosen.epoch_to] if chosen is not None else []
    wanted += [entry["epoch_lowest_loss"], *reversed(view.evidence.epochs)]
    stored = set(view.evidence.epochs)
    return next((e for e in wanted if e in stored and len(view.side(e))), None)


def _asked(title: str, make: Callable[[], Iterator[Block]]) -> Iterator[Block]:
    """Yield blocks under a title, or why there are none."""
    try:
        yield Details(title, tuple(make()))
    except UsageError as error:
        yield Details(title, (Sentence(f"Not known: {error}."),))


def _cells(run: Run, view: SplitView, chosen: Stretch) -> Iterator[Block]:
    row = run.transition(view.split, chosen.epoch_from, chosen.epoch_to)
    if row is not None:
        names = run.summary.get("epoch_names", {})
        yield Details("Which samples moved the loss", tuple(found.pair(row, names, bars=True)))


def transitions(run: Run, view: SplitView) -> Iterator[Block]:
    """Yield what became of the samples from each epoch to the next."""
    rows = [r for r in run.transitions.to_pylist() if r["split"] == view.split]
    if not rows:
        return
    names = run.summary.get("epoch_names", {})
    fields = (
        Field("epochs", "text"), *(Field(c, "share") for c in ("rr", "rw", "wr", "ww")),
        Field("churn", "share"), Field("change in loss", "nats"), Field("", "balance"),
    )  # fmt: skip
    shown = found.epochs_that_matter(list(range(len(rows))), [])
    made: list[tuple[Any, ...]] = []
    for k, row in enumerate(rows):
        if k not in shown:
            continue
        ends = " → ".join(found.label(row[key], names) for key in ("epoch_from", "epoch_to"))
        ww = row["ww_same"] + row["ww_changed"]
        shares = [n / row["n"] if row["n"] else None for n in (row["rr"], row["rw"], row["wr"], ww)]
        made.append((ends, *shares, row["churn"], row["delta_loss"], row["delta_loss"]))
    legend = "; ".join(f"{cell} {words}" for cell, words in CELLS.items() if len(cell) == 2)
    some = "" if len(made) == len(rows) else f" {len(made)} of {len(rows):,} steps, evenly spaced."
    blocks = (Listing(fields, tuple(made)), Sentence(f"{legend}; ww wrong → wrong.{some}"))
    yield Details("From each epoch to the next", blocks)


def reliability(view: SplitView, epoch: int) -> Iterator[Block]:
    """Yield the reliability diagram as rows: of each bin of confidence, how many are right."""
    rows = [r for r in view.reliability(epoch).to_pylist() if r["n"]]
    errors = view.calibration(epoch)
    yield Sentence(f"Expected calibration error {number(errors.ece)} in 15 bins.")
    fields = (
        Field("confidence", "text"), Field("samples", "count"), Field("mean", "share"),
        Field("right", "share"), Field("gap", "points"), Field("how many are right", "bar"),
    )  # fmt: skip
    yield Listing(
        fields,
        tuple(
            (f"{r['lower']:.2f} to {r['upper']:.2f}", r["n"], r["confidence"], r["accuracy"],
             r["accuracy"] - r["confidence"], r["accuracy"])
            for r in rows
        ),
    )  # fmt: skip


def worst(found_: Concentration) -> Iterator[Block]:
    """Yield how few samples carry the loss, and those with the highest."""
    said = []
    if found_.n_half is not None:
        part = found_.n_half / found_.n
        said.append(f"{found_.n_half:,} of {found_.n:,} samples ({part:.2%}) carry half the loss")
    said += [
        f"the worst {c.share:.1%} ({c.k:,}) carry {c.of_total:.1%}"
        for c in found_.carried
        if c.of_total is not None and c.share in (0.01, 0.1)
    ]
    if found_.median is not None:
        said.append(f"mean {number(found_.mean)}, median {number(found_.median)} nats")
    if found_.n_infinite:
        said.append(f"{found_.n_infinite:,} more have an infinite loss")
    yield Sentence(f"{'; '.join(said)}." if said else "No sample has a finite loss.")
    yield _rows(found_.worst.slice(0, MOST), {
        "sample_id": ("sample", "id"), "label": ("label", "name"),
        "predicted": ("predicted", "name"), "loss": ("loss", "loss"),
        "confidence": ("confidence", "share"),
    })  # fmt: skip


def suspects(view: SplitView, names: Mapping[str, str]) -> Iterator[Block]:
    """Yield the samples whose labels are suspect: wrong, and surely so, where models are best."""
    a, b = view.suspect_epochs()
    where = " and ".join(dict.fromkeys(found.label(epoch, names) for epoch in (a, b)))
    which = f"epoch {where}" if a == b else f"both epochs {where}"
    rows = view.suspects(a, b, limit=MOST)
    if not rows.num_rows:
        yield Sentence(f"No sample is wrong in {which}.")
        return
    yield Sentence(f"Wrong in {which}, the most suspect first.")
    yield _rows(rows, {
        "sample_id": ("sample", "id"), "label": ("label", "name"),
        "predicted_after": ("predicted", "name"), "p_label_after": ("p of label", "loss"),
        "p_predicted_after": ("p of predicted", "loss"), "score": ("score", "loss"),
    })  # fmt: skip


def confusions(view: SplitView, epoch: int) -> Iterator[Block]:
    """Yield which classes are taken for which."""
    rows = view.confusions(epoch, MOST)
    if not rows.num_rows:
        yield Sentence("No sample is wrong.")
        return
    yield _rows(rows, {
        "label": ("label", "name"), "predicted": ("predicted", "name"), "n": ("samples", "count"),
        "share_of_label": ("of the label", "share"), "loss": ("mean loss", "loss"),
    })  # fmt: skip


def classes(view: SplitView, chosen: Stretch) -> Iterator[Block]:
    """Yield the classes that add most to the change in loss, of either sign."""
    rows = view.change_by_class(chosen.epoch_from, chosen.epoch_to)
    order = pc.sort_indices(
        pa.table({"moved": pc.abs(rows["delta_loss"])}), [("moved", "descending")]
    )
    names = {
        "class": ("class", "name"), "n": ("samples", "count"), "delta_loss": ("adds", "nats"),
        "recall_before": ("recall before", "share"), "recall_after": ("recall after", "share"),
    }  # fmt: skip
    listing = _rows(rows.take(order.slice(0, MOST)), names, drawn="delta_loss")
    yield listing
    if rows.num_rows > MOST:
        yield Sentence(f"{rows.num_rows - MOST:,} more classes moved less.")


def _rows(
    table: pa.Table, columns: dict[str, tuple[str, Any]], drawn: str | None = None
) -> Listing:
    """Make a listing of some columns of a table."""
    kept = {name: told for name, told in columns.items() if name in table.column_names}
    values: list[Sequence[Any]] = [table[name].to_pylist() for name in kept]
    fields = [Field(title, kind) for title, kind in kept.values()]
    if drawn is not None:
        values.append(table[drawn].to_pylist())
        fields.append(Field("", "balance"))
    return Listing(tuple(fields), tuple(zip(*values, strict=True)))


def provenance(run: Run) -> Iterator[Block]:
    """Yield what it takes to find out where the numbers come from."""
    s = run.summary
    options = ", ".join(f"{k} {json.dumps(v)}" for k, v in s.get("options", {}).items() if v)
    parts = f"{s['parts']:,} {'part' if s['parts'] == 1 else 'parts'}"
    lines = [
        f"fastdiv {s.get('fastdiv', 'unknown')}; {s['backend']['name']} ({s['backend']['on']}), "
        f"{s['threads']} threads",
        f"{s['rows']:,} rows of {s['dtype']} in {parts}, {human_bytes(s['bytes'])}",
        *([f"options: {options}"] if options else []),
    ]
    told = (Sentence(f"  {line}") for line in lines)
    yield Details("Provenance", (*told, *found.columns(s["columns"])))

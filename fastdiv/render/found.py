"""What a run found, as blocks: where it came from, what was left out, epochs, the best of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from fastdiv.explain.chance.wording import interval_table
from fastdiv.explain.pair import CELLS, TRAINING, epoch_label, sentence
from fastdiv.markup import printable
from fastdiv.render.blocks import (
    ROWS_LEFT_OUT,
    Absent,
    Block,
    Field,
    Gap,
    Listing,
    Sentence,
    number,
)

if TYPE_CHECKING:
    from fastdiv.explain.chance.change import Change
    from fastdiv.run import Run

MOST_EPOCHS = 12  # shown in a table
MILLIONS = 1e5  # rows a second, from which they are told in millions
INVALID_SHOWN = 3  # places of each reason
PATHS = 20_000  # characters of a line that names files: these are there to be copied
OF_ONE_SPLIT = ("confidence", "brier", "ece", "loss_right", "loss_wrong")  # where there is room
TITLES = {"loss_finite": "finite loss", "n_infinite": "infinite"}
ROLES = ("files", "id", "label", "predictions", "kind", "epoch", "split")


def label(epoch: int, names: Mapping[str, str]) -> str:
    """Return the name of an epoch, else its number, as it is shown."""
    return printable(epoch_label(epoch, names))


def shown_split(split: str | None) -> str | None:
    """Return the name of a split as it is shown."""
    return None if split is None else printable(split)


def source(summary: Mapping[str, Any]) -> Iterator[Block]:
    """Yield where the tables come from."""
    yield volume(summary)
    yield from columns(summary["columns"])


def volume(summary: Mapping[str, Any]) -> Sentence:
    """Say how much was read, and how fast."""
    rows, seconds = summary["rows"], summary["elapsed_s"]
    rate = rows / max(seconds, 1e-9)
    speed = f"{rate / 1e6:.2f} million" if rate >= MILLIONS else f"{rate:,.0f}"
    return Sentence(
        f"{rows:,} rows × {summary['classes']} classes of {summary['kind']} in {seconds:.2f} s "
        f"({speed} rows/s; {summary['backend']['on']}, "
        f"{summary['threads']} threads)"
    )


def columns(evidence: Mapping[str, str]) -> Iterator[Block]:
    """Yield which columns were taken for what, and by what evidence."""
    for role in ROLES:
        if role in evidence:
            yield Sentence(f"  {role:<12}{evidence[role]}")


def warnings(run: Run) -> Iterator[Block]:
    """Yield what was left out of the means, and what came, went or was there twice."""

    def warn(strong: str, rest: str) -> Sentence:
        return Sentence(rest, strong, "warning", most=PATHS)

    if missing := run.summary["epochs_missing"]:
        yield warn("not there:", f"epochs {', '.join(map(str, missing))}")
    invalid = run.summary["invalid"]
    if invalid["n"]:
        yield warn(f"{invalid['n']:,} invalid rows", "were left out of every mean:")
        for entry in invalid["reasons"]:
            first = "; ".join(entry["first"][:INVALID_SHOWN])
            more = " and more" if entry["n"] > INVALID_SHOWN else ""
            words = f"  {entry['n']:,} × {entry['in_words']}: {first}{more}"
            yield Sentence(words, most=PATHS)
    for name, words in (
        ("n_infinite", "with an infinite loss (the label got probability 0)"),
        ("n_unnormalized", "whose probabilities do not sum to 1"),
    ):
        n = sum(run.epochs[name].to_pylist())
        if n and name == "n_infinite":
            infinite = run.summary.get("infinite", {"first": []})
            words += f": {'; '.join(infinite['first'][:INVALID_SHOWN])}" * bool(infinite["first"])
            words += " and more" * (n > INVALID_SHOWN)
        if n:
            yield warn(f"{n:,} rows", words)
    by_position = all(entry["ids"] == "position" for entry in run.summary["splits"])
    one_each = run.epochs.num_rows == len(run.summary["splits"])
    if by_position and one_each and run.summary["parts"] > run.epochs.num_rows:
        words = "were taken as one epoch; if each is an epoch or a checkpoint of the same samples, "
        words += "give --epoch-per-path"
        yield warn(f"{run.summary['parts']:,} parts without ids or epochs", words)
    if run.summary["classes"] == 2 and run.classes.num_rows:
        support = run.classes.group_by("class").aggregate([("support", "sum")]).to_pylist()
        for row in support if any(row["support_sum"] for row in support) else ():
            if not row["support_sum"]:
                name = printable(str(row["class"]))
                yield warn(f"no sample is of class {name}:", "one of the two has none")
    for entry in run.summary["splits"]:
        of = f" in {shown_split(entry['split'])}" if entry["split"] is not None else ""
        if entry["n_duplicates"]:
            yield warn(f"{entry['n_duplicates']:,} duplicate rows", f"{of} counted once".strip())
    pairs = run.transitions.to_pylist()
    apart = [row for row in pairs if not row["n"] + row["n_invalid"] + row["n_relabelled"]]
    if pairs and len(apart) == len(pairs):
        words = "their ids differ; if they are the same samples, match them with --id none"
        yield warn("no sample of an epoch is in the next:", words)
    for name, words in (
        ("n_only_from", "missing from the next epoch"),
        ("n_only_to", "new in an epoch"),
        ("n_relabelled", "relabelled between epochs"),
    ):
        n = sum(row[name] for row in pairs)
        if n:
            yield warn(f"{n:,} times", f"a sample was {words}")


def epochs(run: Run, side_by_side: int, split: str | None = None) -> Iterator[Block]:
    """Yield the epoch table that training logs have, a few splits side by side, or of one."""
    rows = [r for r in run.epochs.to_pylist() if split is None or r["split"] == split]
    splits = list(dict.fromkeys(row["split"] for row in rows))
    for first in range(0, len(splits), max(side_by_side, 1)):
        some = splits[first : first + side_by_side]
        if first:
            yield Gap()
        yield _some_splits(run, [row for row in rows if row["split"] in some], some)


def _some_splits(run: Run, rows: list[Any], splits: list[Any]) -> Listing:
    by_epoch: dict[int, dict[Any, dict[str, Any]]] = {}
    for row in rows:
        by_epoch.setdefault(row["epoch"], {})[row["split"]] = row
    best = {e["split"]: e for e in run.summary["splits"] if e["split"] in splits}
    names = run.summary.get("epoch_names", {})
    # An infinite mean says nothing: then the mean of the others does, and how many these are.
    infinite = any(row["n_infinite"] for row in rows)
    loss = ["loss_finite", "n_infinite"] if infinite else ["loss"]
    metrics = [*loss, "accuracy", "ece"]
    if len(splits) == 1:
        metrics = [*loss, "accuracy", *OF_ONE_SPLIT]
    fields = [Field("epoch", "epoch"), *([Field("name", "name")] if names else [])]
    for split in splits:
        for name in metrics:
            words = TITLES.get(name, name.replace("_", " "))
            title = words if split is None else f"{shown_split(split)} {words}"
            fields.append(Field(title, "count" if name == "n_infinite" else "loss"))
    order = sorted(by_epoch)
    shown = epochs_that_matter(order, [e for entry in best.values() for e in best_of(entry)])
    made: list[tuple[Any, ...]] = []
    marks: dict[tuple[int, int], str] = {}
    skipped = False
    for epoch in order:
        if epoch not in shown:
            skipped = True
            continue
        if skipped:
            made.append((ROWS_LEFT_OUT,))
            skipped = False
        cells: list[Any] = [epoch, *([names.get(str(epoch), "")] if names else [])]
        for split in splits:
            found = by_epoch[epoch].get(split)
            for name in metrics:
                if name == loss[0] and epoch == best[split]["epoch_lowest_loss"]:
                    marks[len(made), len(cells)] = "▼"
                if name == "accuracy" and epoch == best[split]["epoch_highest_accuracy"]:
                    marks[len(made), len(cells)] = "▲"
                cells.append(Absent if found is None else found[name])
        made.append(tuple(cells))
    optional = len(OF_ONE_SPLIT) if len(splits) == 1 else 0
    return Listing(tuple(fields), tuple(made), marks, optional=optional)


def best_of(entry: Mapping[str, Any]) -> list[int]:
    """Return the best epochs of a split, those that there are."""
    best = (entry["epoch_lowest_loss"], entry["epoch_highest_accuracy"])
    return [epoch for epoch in best if epoch is not None]


def epochs_that_matter(epochs: list[int], best: list[int]) -> set[int]:
    """Choose the first and last epoch, the best ones, and some between them."""
    if len(epochs) <= MOST_EPOCHS:
        return set(epochs)
    shown = {epochs[0], epochs[-1], *best}
    room = max(0, MOST_EPOCHS - len(shown))
    step = (len(epochs) - 1) / (room + 1)
    return shown | {epochs[round(i * step)] for i in range(1, room + 1)}


def best_words(run: Run, entry: Mapping[str, Any]) -> str | None:
    """Say which epochs of a split are best; None where there are none."""
    if len(best_of(entry)) < 2:
        return None
    lowest, highest = best_of(entry)
    rows = {r["epoch"]: r for r in run.epochs.to_pylist() if r["split"] == entry["split"]}
    name = f"{shown_split(entry['split'])}: " if entry["split"] is not None else ""
    names = run.summary.get("epoch_names", {})
    if lowest == highest:
        loss, accuracy = (number(rows[lowest][key]) for key in ("loss_finite", "accuracy"))
        at = label(lowest, names)
        if entry["n_epochs"] == 1:
            return f"{name}loss {loss}, accuracy {accuracy} in epoch {at}, the only one"
        return f"{name}lowest loss {loss} and highest accuracy {accuracy}, both at epoch {at}"
    return (
        f"{name}lowest loss {number(rows[lowest]['loss_finite'])} at epoch {label(lowest, names)} "
        f"(accuracy {number(rows[lowest]['accuracy'])}); highest accuracy "
        f"{number(rows[highest]['accuracy'])} at epoch {label(highest, names)} (loss "
        f"{number(rows[highest]['loss_finite'])})"
    )


def best(run: Run, entry: Mapping[str, Any]) -> Iterator[Block]:
    """Yield the best epochs of a split, and what moved the loss from one to the other."""
    words = best_words(run, entry)
    if words is None:
        return
    yield Gap()
    yield Sentence(lead=words, tone="strong")
    split, (lowest, highest) = entry["split"], best_of(entry)
    names = run.summary.get("epoch_names", {})
    if lowest == highest:
        return
    if split in TRAINING and len(run.summary["splits"]) > 1:
        return
    row = run.transition(split, *sorted((lowest, highest)))
    if row is not None:
        yield from pair(row, names)
    else:
        yield Sentence(
            "The scores of these epochs were not kept (--scores rolling): what lies between them "
            "cannot be told."
        )


def pair(row: Mapping[str, Any], names: Mapping[str, str], bars: bool = False) -> Iterator[Block]:
    """Yield one sentence and one table that say which samples moved the loss."""
    shown = {str(e): label(e, names) for e in (row["epoch_from"], row["epoch_to"])}
    yield Sentence(sentence({**row, "split": shown_split(row["split"])}, shown))
    if row["delta_loss"] is None:
        return
    fields = [Field("samples that went", "text"), Field("samples", "count"),
              Field("share", "share"), Field("change in loss", "delta")]  # fmt: skip
    rows: list[tuple[Any, ...]] = [
        (words, row[cell], row[cell] / row["n"], row[f"delta_loss_{cell}"])
        for cell, words in CELLS.items()
    ]
    rows.append(("all", row["n"], None, row["delta_loss"]))
    if row["delta_loss_membership"]:
        rows.append(("samples that came or went", Absent, None, row["delta_loss_membership"]))
    if bars:
        fields.append(Field("", "balance"))
        rows = [(*r, r[3] if k < len(CELLS) else None) for k, r in enumerate(rows)]
    yield Listing(tuple(fields), tuple(rows), strong=(len(CELLS),))
    left_out = [
        f"{row[name]:,} {words}"
        for name, words in (
            ("n_infinite", "with an infinite loss"),
            ("n_invalid", "invalid"),
            ("n_relabelled", "relabelled"),
        )
        if row[name]
    ]
    if left_out:
        yield Sentence(f"Not in the change in loss: {', '.join(left_out)}.")


def beyond_chance(made: Change) -> Iterator[Block]:
    """Yield the intervals of a change in loss and accuracy, and their p-values."""
    rows = interval_table(made)
    if rows:
        fields = tuple(Field(title, "text") for title in rows[0])
        yield Gap()
        yield Listing(fields, tuple(map(tuple, rows[1:])))

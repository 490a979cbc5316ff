"""A Run on a terminal: the epoch table, the best epochs, and what moved the loss between them."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from fastdiv.explain.pair import CELLS, epoch_label, sentence
from fastdiv.explain.view import TRAINING
from fastdiv.plan import Plan, human_bytes
from fastdiv.sources import Source
from fastdiv_kernels.contract import dtype_name

if TYPE_CHECKING:
    from fastdiv.run import Run

MOST_EPOCHS = 12  # shown in a table
SIDE_BY_SIDE = 3  # splits, on a terminal
UNTOLD = "only reading tells"
PLAIN_WIDTH = 10_000  # columns where there is no terminal: nothing is cut or broken
INVALID_SHOWN = 3  # places of each reason


def console() -> Console:
    """Return a console on stdout, wide enough for the tables where it is no terminal."""
    width = None if sys.stdout.isatty() else PLAIN_WIDTH
    # Names come from the data: nothing in them may be taken for markup.
    return _Console(width=width, highlight=False, markup=False, emoji=False)


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Leave a reader that went away to the caller; rich would end the program with code 1."""
        raise BrokenPipeError


def _warn(out: Console, strong: str, rest: str) -> None:
    out.print(Text(strong, style="bold yellow") + Text(f" {rest}"))


def show_run(run: Run, out: Console) -> None:
    """Print what a run found."""
    show_source(run.summary, out)
    show_warnings(run, out)
    show_epochs(run, out)
    for entry in run.summary["splits"]:
        show_best(run, entry, out)


def show_source(summary: dict[str, Any], out: Console) -> None:
    """Print where the tables come from."""
    rows, seconds = summary["rows"], summary["elapsed_s"]
    out.print(
        f"{rows:,} rows × {summary['classes']} classes of {summary['kind']} in {seconds:.2f} s "
        f"({rows / max(seconds, 1e-9) / 1e6:.2f} million rows/s; {summary['backend']['on']}, "
        f"{summary['threads']} threads)",
    )
    show_columns(summary["columns"], out)


def show_columns(evidence: dict[str, str], out: Console) -> None:
    """Print which columns were taken for what, and by what evidence."""
    for role in ("files", "id", "label", "predictions", "kind", "epoch", "split"):
        if role in evidence:
            out.print(f"  {role:<12}{evidence[role]}")


def show_warnings(run: Run, out: Console) -> None:
    """Print what was left out of the means, and what came, went or was there twice."""
    if missing := run.summary["epochs_missing"]:
        _warn(out, "not there:", f"epochs {', '.join(map(str, missing))}")
    invalid = run.summary["invalid"]
    if invalid["n"]:
        _warn(out, f"{invalid['n']:,} invalid rows", "were left out of every mean:")
        for entry in invalid["reasons"]:
            first = "; ".join(entry["first"][:INVALID_SHOWN])
            more = " and more" if entry["n"] > INVALID_SHOWN else ""
            out.print(f"  {entry['n']:,} × {entry['in_words']}: {first}{more}")
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
            _warn(out, f"{n:,} rows", words)
    by_position = all(entry["ids"] == "position" for entry in run.summary["splits"])
    one_each = run.epochs.num_rows == len(run.summary["splits"])
    if by_position and one_each and run.summary["parts"] > run.epochs.num_rows:
        words = "were taken as one epoch; if each is an epoch or a checkpoint of the same samples, "
        words += "give --epoch-per-path"
        _warn(out, f"{run.summary['parts']:,} parts without ids or epochs", words)
    if run.summary["classes"] == 2 and run.classes.num_rows:
        support = run.classes.group_by("class").aggregate([("support", "sum")]).to_pylist()
        for row in support if any(row["support_sum"] for row in support) else ():
            if not row["support_sum"]:
                _warn(out, f"no sample is of class {row['class']}:", "one of the two has none")
    for entry in run.summary["splits"]:
        of = f" in {entry['split']}" if entry["split"] is not None else ""
        if entry["n_duplicates"]:
            _warn(out, f"{entry['n_duplicates']:,} duplicate rows", f"{of} counted once".strip())
    pairs = run.transitions.to_pylist()
    apart = [row for row in pairs if not row["n"] + row["n_invalid"] + row["n_relabelled"]]
    if pairs and len(apart) == len(pairs):
        words = "their ids differ; if they are the same samples, match them with --id none"
        _warn(out, "no sample of an epoch is in the next:", words)
    for name, words in (
        ("n_only_from", "missing from the next epoch"),
        ("n_only_to", "new in an epoch"),
        ("n_relabelled", "relabelled between epochs"),
    ):
        n = sum(row[name] for row in pairs)
        if n:
            _warn(out, f"{n:,} times", f"a sample was {words}")


def show_epochs(run: Run, out: Console) -> None:
    """Print the epoch table that training logs have, a few splits side by side."""
    rows = run.epochs.to_pylist()
    splits = list(dict.fromkeys(row["split"] for row in rows))
    width = SIDE_BY_SIDE if out.is_terminal else len(splits)
    for first in range(0, len(splits), width):
        some = splits[first : first + width]
        _show_some_splits(run, [row for row in rows if row["split"] in some], some, out)


def _show_some_splits(run: Run, rows: list[Any], splits: list[Any], out: Console) -> None:
    by_epoch: dict[int, dict[Any, dict[str, Any]]] = {}
    for row in rows:
        by_epoch.setdefault(row["epoch"], {})[row["split"]] = row
    best = {e["split"]: e for e in run.summary["splits"] if e["split"] in splits}
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("epoch", justify="right")
    epoch_names = run.summary.get("epoch_names", {})
    if epoch_names:
        table.add_column("name")
    columns = ["loss", "accuracy", "ece"]
    if len(splits) == 1:
        columns = ["loss", "accuracy", "confidence", "brier", "ece", "loss_right", "loss_wrong"]
    for split in splits:
        for name in columns:
            label = name.replace("_", " ")
            header = Text(f"{split} {label}" if split is not None else label)
            table.add_column(header, justify="right")
    epochs = sorted(by_epoch)
    shown = epochs_that_matter(epochs, [e for entry in best.values() for e in best_of(entry)])
    last = None
    for epoch in epochs:
        if epoch not in shown:
            continue
        if last is not None and epochs.index(epoch) > epochs.index(last) + 1:
            table.add_row("⋮")
        last = epoch
        cells = []
        for split in splits:
            row = by_epoch[epoch].get(split)
            for name in columns:
                text = Text("" if row is None else number(row[name]))
                if name == "loss" and epoch == best[split]["epoch_lowest_loss"]:
                    text = Text(f"▼ {text}", style="bold green")
                if name == "accuracy" and epoch == best[split]["epoch_highest_accuracy"]:
                    text = Text(f"▲ {text}", style="bold green")
                cells.append(text)
        name_cell = [Text(epoch_names.get(str(epoch), ""))] if epoch_names else []
        table.add_row(str(epoch), *name_cell, *cells)
    out.print()
    out.print(table)


def best_of(entry: dict[str, Any]) -> list[int]:
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


def show_best(run: Run, entry: dict[str, Any], out: Console) -> None:
    """Print the best epochs of a split, and what moved the loss from one to the other."""
    if len(best_of(entry)) < 2:
        return
    lowest, highest = best_of(entry)
    split = entry["split"]
    rows = {r["epoch"]: r for r in run.epochs.to_pylist() if r["split"] == split}
    name = f"{split}: " if split is not None else ""
    out.print()
    names = run.summary.get("epoch_names", {})
    by_loss, by_accuracy = epoch_label(lowest, names), epoch_label(highest, names)
    out.print(
        f"{name}lowest loss {number(rows[lowest]['loss_finite'])} at epoch {by_loss} (accuracy "
        f"{number(rows[lowest]['accuracy'])}); highest accuracy "
        f"{number(rows[highest]['accuracy'])} at epoch {by_accuracy} (loss "
        f"{number(rows[highest]['loss_finite'])})",
        style="bold",
    )
    if len(rows) == 1:
        return
    if lowest == highest:
        out.print(f"Loss and accuracy agree: epoch {by_loss} is the best by both.")
        return
    if split in TRAINING and len(run.summary["splits"]) > 1:
        return
    row = run.transition(split, *sorted((lowest, highest)))
    if row is not None:
        show_pair(run, row, out)
    else:
        out.print(
            "The scores of these epochs were not kept (--scores rolling): what lies between them "
            "cannot be told."
        )


def show_pair(run: Run, row: dict[str, Any], out: Console) -> None:
    """Print one sentence and one table that say which samples moved the loss."""
    out.print(sentence(row, run.summary.get("epoch_names", {})))
    if row["delta_loss"] is None:
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("samples that went", "samples", "share", "change in loss"):
        table.add_column(name, justify="left" if name == "samples that went" else "right")
    for cell, words in CELLS.items():
        table.add_row(
            words, f"{row[cell]:,}", f"{row[cell] / row['n']:.1%}",
            f"{row[f'delta_loss_{cell}']:+.5f}",
        )  # fmt: skip
    table.add_row("all", f"{row['n']:,}", "", f"{row['delta_loss']:+.5f}", style="bold")
    if row["delta_loss_membership"]:
        table.add_row("samples that came or went", "", "", f"{row['delta_loss_membership']:+.5f}")
    out.print(table)
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
        out.print(f"Not in the change in loss: {', '.join(left_out)}.")


def show_plan(source: Source, plan: Plan, out: Console) -> None:
    """Print what would be read, and what it needs."""
    layout = source.layout
    show_columns(layout.evidence, out)
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


def number(value: float | None) -> str:
    """Write a loss or a share in few characters; nothing of nothing."""
    if value is None:
        return "–"
    if math.isinf(value):
        return "inf"
    if value and (abs(value) < 1e-3 or abs(value) >= 1e5):
        return f"{value:.3g}"
    return f"{value:.4f}"


def _names(names: tuple[str, ...] | None) -> str:
    if names is None:
        return ""
    shown = ", ".join(names[:6])
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
    return ", ".join("none" if s is None else s for s in plan.splits)

"""Commands that read dumps: analyze, inspect, demo."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

import fastdiv
from fastdiv.backends import CHOICES, resolve
from fastdiv.cli.options import DEBUG, QUIET, Command
from fastdiv.errors import UsageError

SPLIT_NAME = re.compile(r"[\w.-]+")


def _options(*options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    def decorate(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


WHAT = _options(
    click.argument("paths", nargs=-1, required=True, metavar="[SPLIT=]PATH..."),
    click.option("--id", metavar="COLUMN", help="Sample ids; 'none' matches by position."),
    click.option("--label", metavar="COLUMN", help="Labels."),
    click.option(
        "--predictions", metavar="COLUMN|A,B,C|PREFIX*",
        help="Predictions: one list column, or a column for each class.",
    ),
    click.option("--epoch", metavar="COLUMN", help="Epochs: a column or a directory key."),
    click.option("--split", metavar="COLUMN", help="Splits: a column or a directory key."),
    click.option(
        "--kind", type=click.Choice(["auto", "logits", "probs", "logprobs"]), default="auto",
        help="What the predictions are.", show_default=True,
    ),
    click.option("--class-names", metavar="A,B,C|FILE", help="In the order of the predictions."),
    click.option(
        "--dtype", type=click.Choice(["float16", "bfloat16", "float32", "float64"]),
        help="What the bytes of a binary column, or 16-bit words, are.",
    ),
    click.option(
        "--positive", metavar="LABEL", help="The class that a single score a row is the score of."
    ),
    click.option(
        "--skip-lines", type=click.IntRange(0), default=0, metavar="N",
        help="Leave out the first lines of a CSV file.",
    ),
    click.option(
        "--epoch-per-path", is_flag=True,
        help="Each PATH is an epoch (a checkpoint) of its own; NAME=PATH names it.",
    ),
    click.option("--epochs", metavar="12,99|0:100:10", help="Read only these epochs."),
    click.option("--threads", type=click.IntRange(1), metavar="N", help="Default: all processors."),
)  # fmt: skip
HOW = _options(
    click.option(
        "--scores", type=click.Choice(["all", "slim", "rolling"]), default="all", show_default=True,
        help="Keep all that verdicts need, no more than 21 bytes a sample (slim), or the last two "
        "epochs only (rolling).",
    ),
    click.option("--memory", metavar="4GB", help="Refuse to start where more may be needed."),
    click.option("--backend", type=click.Choice(CHOICES), default="auto", show_default=True),
    click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON."),
)  # fmt: skip


@click.command()
@WHAT
@HOW
@click.option(
    "--duplicates", type=click.Choice(["error", "first"]), default="error", show_default=True,
    help="What to do with contradicting rows of one sample in one epoch.",
)  # fmt: skip
@click.option("--clip", type=float, metavar="EPS", help="Clip the loss at -ln EPS nats.")
@click.option("--strict", is_flag=True, help="Make an invalid row an error.")
@click.option("-o", "--output", metavar="DIR", help="Save the run here.")
@click.option("--overwrite", is_flag=True, help="Replace a run that is there.")
@QUIET
@DEBUG
def analyze(
    paths: tuple[str, ...], as_json: bool, quiet: bool, class_names: str | None, **options: Any
) -> None:  # fmt: skip
    """Analyze prediction dumps: files, directories or globs.

    Parquet, Arrow IPC, .npz and .npy, CSV, JSON lines.

    Name splits to see them side by side: fastdiv analyze train=DIR val=DIR
    """
    options.pop("debug")
    run = fastdiv.analyze(
        _source(paths),
        class_names=class_names,
        progress=None if quiet else _progress(),
        **options,
    )
    _show(run, as_json, quiet)
    if options["output"] is not None and not quiet and not as_json:
        several = any(entry["n_epochs"] > 1 for entry in run.summary["splits"])
        where = options["output"]
        ask = f"ask why with fastdiv explain {where}, " if several else ""
        click.echo(f"\nsaved to {where}: {ask}see all with fastdiv show {where}")


@click.command()
@WHAT
@click.option("-o", "--output", required=True, metavar="FILE.parquet|DIR", help="Write this.")
@click.option(
    "--layout",
    type=click.Choice(["bytes", "lists"]),
    default="bytes",
    show_default=True,
    help="Predictions as bytes of one width, read fastest, or as lists.",
)
@click.option("--half", is_flag=True, help="Write predictions in half precision.")
@click.option(
    "--compression",
    type=click.Choice(["none", "snappy", "lz4", "zstd", "gzip", "brotli"]),
    default="none",
    show_default=True,
)
@click.option("--overwrite", is_flag=True, help="Replace what is there.")
@QUIET
@DEBUG
def convert(paths: tuple[str, ...], quiet: bool, debug: bool, **options: Any) -> None:
    """Write dumps of any format as the Parquet that is read fastest.

    To one file, or to a directory with a file for each epoch.
    """
    written = fastdiv.convert(_source(paths), progress=None if quiet else _progress(), **options)
    if not quiet:
        click.echo(f"written to {written}: read it with fastdiv analyze {options['output']}")


@click.command()
@WHAT
@HOW
@DEBUG
def inspect(paths: tuple[str, ...], as_json: bool, debug: bool, **options: Any) -> None:
    """Say what would be read, and what it needs, from metadata and at most 1,000 rows."""
    from fastdiv.plan import make_plan, selection
    from fastdiv.render.text import console, plan_as_dict, show_plan
    from fastdiv.scoring import usable_threads
    from fastdiv.sources import Asked, open_source, parse_class_names

    resolve(options["backend"])
    asked = Asked(
        **{
            name: options[name]
            for name in (
                "id",
                "label",
                "predictions",
                "epoch",
                "split",
                "kind",
                "dtype",
                "positive",
                "skip_lines",
                "epoch_per_path",
            )
        },
        class_names=parse_class_names(options["class_names"]),
    )
    source = open_source(_source(paths), asked)
    threads = usable_threads(options["threads"])
    if options["epochs"] is not None:  # which may be names, that a column holds
        source.name_epochs()
    selected = selection(options["epochs"], source.epoch_names)
    plan = make_plan(source, selected, threads, options["scores"])
    plan.check_memory(options["memory"])
    if as_json:
        click.echo(json.dumps(plan_as_dict(source, plan), indent=2))
    else:
        show_plan(source, plan, console())


@click.command()
@click.option(
    "-o",
    "--output",
    default="demo-run",
    show_default=True,
    metavar="DIR",
    help="Where dumps and run go.",
)
@QUIET
@DEBUG
def demo(output: str, quiet: bool, debug: bool) -> None:
    """Train a small classifier on noisy labels, dump its predictions, analyze them, and report."""
    from fastdiv.demo import write_dumps

    where = Path(output)
    dumps = where / "dumps"
    if where.exists() and any(where.iterdir()) and not (dumps / "val").is_dir():
        raise UsageError(f"{where} is there already and is no demo: choose another with -o")
    if not quiet:
        click.echo(f"training on digits with some labels flipped; dumps go to {dumps}", err=True)
    write_dumps(dumps)
    run = fastdiv.analyze(
        {"train": str(dumps / "train"), "val": str(dumps / "val")},
        output=where / "run",
        overwrite=True,
        progress=None if quiet else _progress(),
    )
    _show(run, False, quiet)
    if not quiet:
        from fastdiv.render.text import console
        from fastdiv.render.why import show_explanation

        stretch = run.split("val").stretches()[0]
        click.echo()
        made = run.explain(stretch.epoch_from, stretch.epoch_to, split="val")
        show_explanation(made, console())
        click.echo(f"\nsaved to {where / 'run'}: try fastdiv explain {where / 'run'} --all")
    run.report(where / "report.html")
    if not quiet:
        click.echo(f"all of it, with pictures: open {where / 'report.html'}")


def _show(run: fastdiv.Run, as_json: bool, quiet: bool) -> None:
    if as_json:
        click.echo(json.dumps(run.summary, indent=2))
    elif not quiet:
        from fastdiv.render.text import console, show_run

        show_run(run, console())


def _progress() -> Any:
    from fastdiv.render.progress import Bar, Lines

    return Bar() if sys.stderr.isatty() else Lines()


def _source(paths: tuple[str, ...]) -> Any:
    """Return the paths, by split where they are given as NAME=PATH."""
    named: dict[str, list[str]] = {}
    plain = []
    for path in paths:
        name, sign, rest = path.partition("=")
        if sign and SPLIT_NAME.fullmatch(name) and not os.path.exists(path) and not _matches(path):
            named.setdefault(name, []).append(rest)
        else:
            plain.append(path)
    if named and plain:
        raise UsageError(f"{plain[0]} has no split name, but others have: name all splits or none")
    return named or plain


def _matches(pattern: str) -> bool:
    import glob

    return glob.has_magic(pattern) and any(glob.iglob(pattern, recursive=True))

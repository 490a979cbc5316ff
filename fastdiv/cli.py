"""The command line: arguments in, calls out."""

from __future__ import annotations

import json
import math
import os
import re
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

import fastdiv
from fastdiv.backends import CHOICES, resolve
from fastdiv.errors import FastdivError, UsageError

Command = TypeVar("Command", bound=Callable[..., None])
FAILED = 2  # exit code of usage and data errors
BROKEN = 1  # ... of a check whose rules were broken
SPLIT_NAME = re.compile(r"[\w.-]+")


def _options(*options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    def decorate(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


READING = _options(
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
    click.option(
        "--scores", type=click.Choice(["all", "slim", "rolling"]), default="all", show_default=True,
        help="Keep all that verdicts need, 21 bytes a sample, or only the last two epochs.",
    ),
    click.option("--memory", metavar="4GB", help="Refuse to start where more may be needed."),
    click.option("--backend", type=click.Choice(CHOICES), default="auto", show_default=True),
    click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON."),
)  # fmt: skip
DEBUG = click.option("--debug", is_flag=True, help="Show the traceback of an error.")
QUIET = click.option("--quiet", is_flag=True, help="Print nothing but errors.")


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(fastdiv.__version__, prog_name="fastdiv")
def cli() -> None:
    """Tell why validation loss and accuracy disagree, from prediction dumps."""


@cli.command()
@READING
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
        ask = f": ask why with fastdiv explain {options['output']}" if several else ""
        click.echo(f"\nsaved to {options['output']}{ask}")


@cli.command()
@READING
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


@cli.command(context_settings={"ignore_unknown_options": True})  # epochs may be negative
@click.argument("run")
@click.argument("a")
@click.argument("b")
@click.option("--json", "as_json", is_flag=True, help="Print the rows of the table as JSON.")
@DEBUG
def compare(run: str, a: str, b: str, as_json: bool, debug: bool) -> None:
    """Say which samples moved the loss from epoch A to epoch B of a saved RUN."""
    from fastdiv.render.text import console, show_pair

    loaded = fastdiv.load(run)
    rows = loaded.compare(_epoch(loaded, a), _epoch(loaded, b)).to_pylist()
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return
    out = console()
    for row in rows:
        show_pair(loaded, row, out)


@cli.command(context_settings={"ignore_unknown_options": True})
@click.argument("run")
@click.argument("a", required=False)
@click.argument("b", required=False)
@click.option("--split", metavar="NAME", help="Default: all that are not for training.")
@click.option("--all", "every", is_flag=True, help="All stretches that matter, not only the first.")
@click.option("--json", "as_json", is_flag=True, help="Print the explanations as JSON.")
@DEBUG
def explain(
    run: str, a: str | None, b: str | None, split: str | None, every: bool, as_json: bool,
    debug: bool,
) -> None:  # fmt: skip
    """Name the causes of the change in loss and accuracy from epoch A to epoch B of a saved RUN.

    Without A and B, of the stretch that matters most: from the lowest loss to the highest
    accuracy, or where loss and accuracy part.
    """
    from fastdiv.render.text import console
    from fastdiv.render.why import show_explanation

    if a is not None and b is None:
        raise UsageError(f"from epoch {a} to which? Give both epochs, or none")
    loaded = fastdiv.load(run)
    made: list[tuple[Any, str | None]] = []
    for view in [loaded.split(split)] if split is not None else loaded.views():
        if a is not None and b is not None:
            made.append((view.explain(_epoch(loaded, a), _epoch(loaded, b)), None))
            continue
        found = view.stretches()
        made += [
            (view.explain(stretch.epoch_from, stretch.epoch_to), stretch.why)
            for stretch in (found if every else found[:1])
        ]
    if not made:
        raise UsageError(f"{run} has no two epochs with stored scores: nothing to explain")
    if as_json:
        click.echo(json.dumps([explanation.to_dict() for explanation, _ in made], indent=2))
        return
    out = console()
    for i, (explanation, why) in enumerate(made):
        if i:
            out.print("\n")
        show_explanation(explanation, out, why)


@cli.command()
@click.argument("run")
@click.option(
    "--fail-if",
    "rules",
    multiple=True,
    required=True,
    metavar="RULE",
    help="Such as 'loss > +5%', 'accuracy < -0.5 points', 'negative_flip_rate > 1%'; repeatable.",
)
@click.option("--from", "a", metavar="EPOCH", help="Compare with this; default: the one before.")
@click.option("--to", "b", metavar="EPOCH", help="Check this; default: the last.")
@click.option("--split", metavar="NAME", help="Default: the last that is not for training.")
@click.option("--json", "as_json", is_flag=True, help="Print the outcomes as JSON.")
@QUIET
@DEBUG
def check(
    run: str, rules: tuple[str, ...], a: str | None, b: str | None, split: str | None,
    as_json: bool, quiet: bool, debug: bool,
) -> None:  # fmt: skip
    """Fail with exit code 1 where an epoch of a saved RUN breaks a rule."""
    from fastdiv.check import check as check_rules
    from fastdiv.check import parse_rule
    from fastdiv.render.text import console
    from fastdiv.render.why import show_outcomes

    read = [parse_rule(rule) for rule in rules]
    loaded = fastdiv.load(run)
    view = loaded.split(split)
    ends = [None if epoch is None else _epoch(loaded, epoch) for epoch in (a, b)]
    outcomes = check_rules(read, *view.rows_to_check(*ends))
    if as_json:
        click.echo(json.dumps([_plain(outcome) for outcome in outcomes], indent=2))
    elif not quiet:
        show_outcomes(outcomes, console())
    if any(outcome.failed for outcome in outcomes):
        sys.stdout.flush()
        raise click.exceptions.Exit(BROKEN)


def _plain(outcome: Any) -> dict[str, Any]:
    """Return an outcome as plain data; what is infinite is a word, which JSON has no number for."""
    value = outcome.value
    if value is not None and not math.isfinite(value):
        value = str(value)
    return {
        "rule": outcome.rule.text.strip(), "value": value, "failed": outcome.failed,
        "text": outcome.text,
    }  # fmt: skip


@cli.command()
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
    """Train a small classifier on noisy labels, dump its predictions, and analyze them."""
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


def _epoch(run: fastdiv.Run, text: str) -> int | str:
    """Return an epoch given by name or number."""
    if text in run.summary.get("epoch_names", {}).values():
        return text
    return int(text) if re.fullmatch(r"-?\d+", text) else text


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


def main() -> None:
    """Run the command line; errors become one line and exit code 2."""
    debug = "--debug" in sys.argv
    # A batch system's end is taken like Ctrl-C: what was begun is cleared away.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        with cli.make_context("fastdiv", sys.argv[1:]) as context:
            cli.invoke(context)
        sys.stdout.flush()
    except click.exceptions.Exit as done:  # of --help and --version
        sys.exit(done.exit_code)
    except (click.exceptions.Abort, KeyboardInterrupt):
        sys.exit(130)
    except BrokenPipeError:
        # The reader went away (as `head` does): nothing is wrong, and nothing can be said.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except click.ClickException as error:
        if len(sys.argv) == 1:  # nothing was asked for: click's error is the whole help
            click.echo(error.format_message(), err=True)
            sys.exit(FAILED)
        _fail(error.format_message(), debug)
    except (FastdivError, OSError, MemoryError, UnicodeError) as error:
        _fail(str(error) or "out of memory", debug)
    sys.exit(0)


def _fail(message: str, debug: bool) -> None:
    """End with one line, or with a traceback before it where that is asked for."""
    if debug:
        traceback.print_exc()
    click.echo(f"error: {' '.join(message.split())}", err=True)
    try:
        sys.stdout.flush()
    except OSError:  # it is what failed
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(FAILED)


if __name__ == "__main__":
    main()

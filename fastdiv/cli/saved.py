"""Commands that take a saved run: compare, explain, check, show."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import click

import fastdiv
from fastdiv.cli.options import DEBUG, QUIET, epoch_of
from fastdiv.errors import UsageError

if TYPE_CHECKING:
    from fastdiv.render.blocks import Block

FORMAT = click.option(
    "--format", "shape", type=click.Choice(["text", "markdown", "json"]), default="text",
    show_default=True, help="Markdown is made for comments on pull requests.",
)  # fmt: skip
BROKEN = 1  # exit code of a check whose rules were broken


@click.command(context_settings={"ignore_unknown_options": True})  # epochs may be negative
@click.argument("run")
@click.argument("a")
@click.argument("b")
@FORMAT
@click.option("--json", "as_json", is_flag=True, help="Print the rows of the table as JSON.")
@DEBUG
def compare(run: str, a: str, b: str, shape: str, as_json: bool, debug: bool) -> None:
    """Say which samples moved the loss from epoch A to epoch B of a saved RUN.

    And whether loss and accuracy changed beyond chance.
    """
    from fastdiv.render.blocks import Gap
    from fastdiv.render.found import beyond_chance, pair

    loaded = fastdiv.load(run)
    rows = loaded.compare(epoch_of(loaded, a), epoch_of(loaded, b)).to_pylist()
    if as_json or shape == "json":
        click.echo(json.dumps(rows, indent=2))
        return
    names = loaded.summary.get("epoch_names", {})
    blocks: list[Block] = []
    for row in rows:
        change = loaded.change(row["epoch_from"], row["epoch_to"], split=row["split"])
        between = [Gap()] if blocks else []
        blocks += [*between, *pair(row, names, bars=True), *beyond_chance(change)]
    _print(blocks, shape)


@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("run")
@click.argument("a", required=False)
@click.argument("b", required=False)
@click.option("--split", metavar="NAME", help="Default: all that are not for training.")
@click.option("--all", "every", is_flag=True, help="All stretches that matter, not only the first.")
@FORMAT
@click.option("--json", "as_json", is_flag=True, help="Print the explanations as JSON.")
@DEBUG
def explain(
    run: str, a: str | None, b: str | None, split: str | None, every: bool, shape: str,
    as_json: bool, debug: bool,
) -> None:  # fmt: skip
    """Name the causes of the change in loss and accuracy from epoch A to epoch B of a saved RUN.

    Without A and B, of the stretch that matters most: from the lowest loss to the highest
    accuracy, or where loss and accuracy part.
    """
    from fastdiv.render.blocks import Gap
    from fastdiv.render.why import in_blocks

    if a is not None and b is None:
        raise UsageError(f"from epoch {a} to which? Give both epochs, or none")
    loaded = fastdiv.load(run)
    made: list[tuple[Any, str | None]] = []
    for view in [loaded.split(split)] if split is not None else loaded.views():
        if a is not None and b is not None:
            made.append((view.explain(epoch_of(loaded, a), epoch_of(loaded, b)), None))
            continue
        found = view.stretches()
        made += [
            (view.explain(stretch.epoch_from, stretch.epoch_to), stretch.why)
            for stretch in (found if every else found[:1])
        ]
    if not made:
        raise UsageError(f"{run} has no two epochs with stored scores: nothing to explain")
    if as_json or shape == "json":
        click.echo(json.dumps([explanation.to_dict() for explanation, _ in made], indent=2))
        return
    between = [Gap(), Gap()]
    _print(
        (
            block
            for i, (explanation, why) in enumerate(made)
            for block in [*(between if i else ()), *in_blocks(explanation, why)]
        ),
        shape,
    )


@click.command()
@click.argument("run")
@click.option("--split", metavar="NAME", help="Default: all that are not for training.")
@FORMAT
@DEBUG
def show(run: str, split: str | None, shape: str, debug: bool) -> None:
    """Show all that a saved RUN tells: what the report holds, in text.

    Why loss and accuracy moved, calibration, samples, labels, classes, epochs.
    """
    from fastdiv.render.sections import whole

    _print(whole(fastdiv.load(run), split), shape)


def _print(blocks: Iterable[Block], shape: str) -> None:
    """Print blocks in the form that was asked for, none before all are made."""
    made = list(blocks)
    if shape == "json":
        from fastdiv.render.blocks import as_data

        click.echo(json.dumps(as_data(made), indent=2, allow_nan=False))
    elif shape == "markdown":
        from fastdiv.render.charts import encodable
        from fastdiv.render.markdown import markdown

        click.echo(encodable(markdown(made), sys.stdout.encoding or "utf-8"), nl=False)
    else:
        from fastdiv.render.text import console
        from fastdiv.render.text import show as show_on

        show_on(made, console())


@click.command()
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
    ends = [None if epoch is None else epoch_of(loaded, epoch) for epoch in (a, b)]
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

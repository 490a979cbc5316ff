"""The command that writes the report."""

from __future__ import annotations

from pathlib import Path

import click

import fastdiv
from fastdiv.cli.options import DEBUG, QUIET, epoch_of


@click.command()
@click.argument("run")
@click.option(
    "-o", "--output", required=True, metavar="FILE", help="Such as report.html; replaced if there."
)
@click.option(
    "--compare",
    nargs=2,
    metavar="A B",
    help="Put these two epochs in front: what changed for whom.",
)
@click.option(
    "--split",
    "splits",
    multiple=True,
    metavar="NAME",
    help="Default: all that are not for training; repeatable.",
)
@click.option(
    "--plotly",
    type=click.Choice(["inline", "cdn", "directory"]),
    default="inline",
    show_default=True,
    help="Where the drawing script lies: in the file, on its makers' server, or beside it.",
)
@click.option(
    "--links",
    metavar="COLUMN",
    help="The column of the dumps with an address or a path for each sample.",
)
@QUIET
@DEBUG
def report(
    run: str, output: str, compare: tuple[str, str] | None, splits: tuple[str, ...], plotly: str,
    links: str | None, quiet: bool, debug: bool,
) -> None:  # fmt: skip
    """Write a page about a saved RUN: one HTML file that opens offline."""
    from fastdiv.plan import human_bytes

    loaded = fastdiv.load(run)
    ends = None if compare is None else tuple(epoch_of(loaded, epoch) for epoch in compare)
    path = Path(output)
    loaded.report(
        path,
        compare=None if ends is None else (ends[0], ends[1]),
        splits=splits or None,
        plotly=plotly,
        links=links,
    )
    if not quiet:
        click.echo(f"saved to {path} ({human_bytes(path.stat().st_size)})")
        if plotly == "directory":
            click.echo(f"keep {path.absolute().parent / 'plotly.min.js'} beside it")

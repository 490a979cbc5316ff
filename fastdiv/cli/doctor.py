"""`fastdiv doctor`."""

from __future__ import annotations

import json

import click

from fastdiv.cli.options import DEBUG


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
@click.option(
    "--measure",
    is_flag=True,
    help="Try first whether the GPU is faster than the CPU with dumps and data of the host, and "
    "keep what was found: --backend auto then takes the faster one.",
)
@DEBUG
def doctor(as_json: bool, measure: bool, debug: bool) -> None:
    """Say what fastdiv runs on here: versions, processors, GPUs, and which backend is taken."""
    from fastdiv.doctor import examination, try_backends
    from fastdiv.render.examination import lines
    from fastdiv.trial import keep_trial

    if measure:
        keep_trial(try_backends())
    found = examination()
    for line in [json.dumps(found, indent=2)] if as_json else lines(found):
        click.echo(line)

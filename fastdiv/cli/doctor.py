"""`fastdiv doctor`."""

from __future__ import annotations

import json

import click

from fastdiv.cli.options import DEBUG


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
@DEBUG
def doctor(as_json: bool, debug: bool) -> None:
    """Say what fastdiv runs on here: versions, processors, GPUs, and which backend is taken."""
    from fastdiv.doctor import examination
    from fastdiv.render.examination import lines

    found = examination()
    for line in [json.dumps(found, indent=2)] if as_json else lines(found):
        click.echo(line)

"""What commands have in common: options, and how an epoch is named."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from typing import TypeVar

import click

import fastdiv

Command = TypeVar("Command", bound=Callable[..., None])
DEBUG = click.option("--debug", is_flag=True, help="Show the traceback of an error.")


def _silence(context: click.Context, option: click.Parameter, quiet: bool) -> bool:
    """Keep also kernels from saying that they are compiled."""
    if quiet:
        os.environ["FASTDIV_QUIET"] = "1"
    return quiet


QUIET = click.option(
    "--quiet", is_flag=True, callback=_silence, help="Print nothing but errors."
)  # fmt: skip


def epoch_of(run: fastdiv.Run, text: str) -> int | str:
    """Return an epoch given by name or number."""
    if text in run.summary.get("epoch_names", {}).values():
        return text
    return int(text) if re.fullmatch(r"-?\d+", text) else text

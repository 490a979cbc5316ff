"""The group of commands; what goes wrong in one becomes a line and an exit code."""

from __future__ import annotations

import os
import signal
import sys
import traceback

import click

import fastdiv
from fastdiv.cli.doctor import doctor
from fastdiv.cli.reading import analyze, convert, demo, inspect
from fastdiv.cli.report import report
from fastdiv.cli.saved import check, compare, explain, show
from fastdiv.errors import FastdivError

FAILED = 2  # exit code of usage and data errors


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(fastdiv.__version__, prog_name="fastdiv")
def cli() -> None:
    """Tell why validation loss and accuracy disagree, from prediction dumps."""


for command in (analyze, inspect, convert, compare, explain, show, report, check, demo, doctor):
    cli.add_command(command)


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

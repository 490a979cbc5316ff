"""The command line: arguments in, calls out."""

from fastdiv.cli.command import main

__all__ = ["main"]

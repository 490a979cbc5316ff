"""Scratch: a temporary directory or file that goes with the process that made it."""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import suppress
from multiprocessing.util import Finalize
from pathlib import Path
from typing import Any

from fastdiv.errors import UsageError


class Scratch:
    """A path that is removed with its owner, at exit, or when asked; never by a forked copy.

    Parameters
    ----------
    owner
        With which it goes.
    path : Path, optional
        Default: a new temporary directory.
    """

    def __init__(self, owner: Any, path: Path | None = None) -> None:
        self.path = temporary_directory() if path is None else path
        self._process = os.getpid()
        # Besides when the owner is collected, this is called where a process of multiprocessing
        # ends, which runs nothing else; and in the process that made it alone.
        self._remove = Finalize(owner, remove, (self.path,), exitpriority=0)

    @property
    def is_own(self) -> bool:
        """Whether this is the process that made it, and not a forked copy."""
        return os.getpid() == self._process

    def remove(self, path: Path | None = None) -> None:
        """Remove all, or a part of it; a forked copy removes nothing."""
        if not self.is_own:
            return
        if path is None:
            self._remove()
        else:
            remove(path)

    def keep(self) -> None:
        """Leave it where it is from now on."""
        self._remove.cancel()


def temporary_directory() -> Path:
    """Make a temporary directory."""
    try:
        return Path(tempfile.mkdtemp(prefix="fastdiv-"))
    except OSError as error:
        raise UsageError(
            f"no temporary directory can be made: {error.strerror or error}: set TMPDIR to a "
            "directory that can be written"
        ) from error


def remove(path: Path) -> None:
    """Remove a file or a directory, if it is there."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):  # there may be none, nor a directory that it could be in
            path.unlink()

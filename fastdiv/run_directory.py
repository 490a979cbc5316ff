"""The directory of a saved run: what lies where in it, and how it is put in place, whole."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from fastdiv.errors import UsageError

TABLES = ("epochs", "transitions", "samples", "classes")
RUN_FILES = {"summary.json", "scores", *(f"{name}.parquet" for name in TABLES)}


def scores_directory(directory: Path, i: int) -> Path:
    """Return where the scores of the i-th split lie."""
    return directory / "scores" / str(i)


def check_target(target: Path, overwrite: bool) -> None:
    """Refuse to write where something is that must not be lost."""
    if not os.path.lexists(target):
        return
    if not overwrite:
        raise UsageError(f"{target} is there already: choose another, or give --overwrite")
    names = {path.name for path in target.iterdir()} if target.is_dir() else {"a file"}
    if names and not {"summary.json", "scores"} <= names <= RUN_FILES:
        other = min(names - RUN_FILES, default="no run")
        raise UsageError(f"{target} is not overwritten: it holds {other}, which is not of a run")


def directory_beside(target: Path) -> Path:
    """Make a directory on the file system of `target`, from where it can be renamed."""
    near = target.absolute().parent
    while not near.exists():
        near = near.parent
    try:
        return Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=near))
    except OSError as error:
        raise UsageError(f"{target} cannot be written: {error.strerror or error}") from error


def put_in_place(partial: Path, target: Path) -> None:
    """Rename a directory that is complete to its name, replacing what is there."""
    try:
        os.chmod(partial, 0o755)  # mkdtemp keeps others out
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.exists():
            partial.rename(target)
            return
        old = Path(tempfile.mkdtemp(prefix=f".{target.name}-old-", dir=target.absolute().parent))
        target.rename(old / "run")
        try:
            partial.rename(target)
        except BaseException:
            (old / "run").rename(target)
            raise
        finally:
            shutil.rmtree(old)
    except OSError as error:
        raise UsageError(f"{target} cannot be written: {error.strerror or error}") from error

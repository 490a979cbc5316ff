"""Where files of a user's own are kept from one process to the next."""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path


def cache_of_the_user() -> Path | None:
    """Return the user's directory for what can be made again; None where nobody knows it."""
    if sys.platform == "darwin":
        named, usual = None, ("Library", "Caches")
    elif sys.platform == "win32":
        named, usual = os.environ.get("LOCALAPPDATA"), ("AppData", "Local")
    else:
        named, usual = os.environ.get("XDG_CACHE_HOME"), (".cache",)
    try:
        place = Path(named) if named else Path.home().joinpath(*usual)
    except RuntimeError:  # nobody knows the home directory
        return None
    return place / "fastdiv" if place.is_absolute() else None


def write_whole(path: Path, data: bytes) -> None:
    """Write a file, and its directory, whole or not at all, whatever other processes do.

    Raises
    ------
    OSError
        Where it cannot be written.
    """
    beside = path.with_name(f"{path.name}.{os.getpid()}.{threading.get_ident()}")
    path.parent.mkdir(parents=True, exist_ok=True)
    beside.write_bytes(data)
    beside.replace(path)

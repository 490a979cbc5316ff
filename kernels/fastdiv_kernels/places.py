"""Where files of a user's own are kept from one process to the next."""

from __future__ import annotations

import os
import sys
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

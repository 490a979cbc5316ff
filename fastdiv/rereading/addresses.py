"""Addresses: which texts a page may link to, and which it must not."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote, urlsplit

SCHEMES = ("http", "https", "ftp", "file")
SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]*):")
DRIVE = re.compile(r"[A-Za-z]:[\\/]")
SUFFIX = re.compile(r".*[^\\/.]\.[A-Za-z0-9]{1,8}")
KEPT = "%:/?#[]@!$&()*+,;=~"  # what has a meaning in an address
LONGEST = 2_000  # characters of an address


def address(text: str, folders: Sequence[str] = ()) -> str | None:
    """Return a text as an address that a page may link to, None where it is none.

    Addresses are those of http, https and ftp, and of files: paths, and file addresses without a
    host. All else, such as ``javascript:`` and ``data:``, and whatever holds a control character,
    is none.

    Parameters
    ----------
    text : str
    folders : sequence of str
        Where a relative path may begin: it becomes that of a file that is there; otherwise it
        stays relative.
    """
    text = text.strip(" ")
    if not text or len(text) > LONGEST or not text.isprintable():
        return None
    if DRIVE.match(text):
        return "file:///" + quote(text.replace("\\", "/"), safe="/:")
    if scheme := SCHEME.match(text):
        return _with_scheme(text, scheme[1].lower())
    path = text.replace("\\", "/")
    if path.startswith("//"):  # another machine's
        return None
    if path.startswith("/"):
        return "file://" + quote(path)
    return _found(path, folders) or quote(path)


def _with_scheme(text: str, scheme: str) -> str | None:
    """Return an address that begins with a scheme, None where pages should not link to it."""
    if scheme not in SCHEMES or "\\" in text:
        return None
    try:
        parts = urlsplit(text)
        host = parts.hostname
    except ValueError:
        return None
    # A path that begins with two slashes is that of another machine to browsers on Windows.
    local = host in (None, "localhost") and re.match(r"/(?!/)", parts.path) and text[5:6] == "/"
    if not (bool(local) if scheme == "file" else bool(host)):
        return None
    return quote(text, safe=KEPT)


def _found(path: str, folders: Sequence[str]) -> str | None:
    """Return the address of a file that is there."""
    for folder in folders:
        whole = os.path.join(folder, path)
        if os.path.exists(whole):
            return Path(os.path.abspath(whole)).as_uri()
    return None


def address_of_id(text: str, folders: Sequence[str] = ()) -> str | None:
    """Return the address that an id is by itself, None where it does not look like one."""
    scheme = SCHEME.match(text.strip(" "))
    if scheme and scheme[1].lower() in SCHEMES:
        return address(text, folders)
    if not SUFFIX.fullmatch(text):
        return None
    if "/" in text or "\\" in text:
        return address(text, folders)
    return _found(text, folders) if text.isprintable() else None

"""Names of columns, directories and files: usual ones, their order, and which may be meant."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from functools import lru_cache

import pyarrow as pa

INTEGER = re.compile(r"[+-]?\d{1,18}")
EPOCH_WORDS = "epoch|step|checkpoint|ckpt|iteration|iter"
EPOCH_KEYS = frozenset(EPOCH_WORDS.split("|")) | {"global_step", "version"}
SPLIT_KEYS = frozenset({"split", "subset", "partition", "phase"})


def numbers_of(names: Iterable[str] | None, bools: bool = False) -> tuple[int, ...] | None:
    """Return the numbers that class names are, if all are whole numbers: labels are then these.

    With `bools`, true and false are 1 and 0.
    """
    texts = [name.removesuffix(".0") for name in names or ()]
    if bools:
        texts = [{"true": "1", "false": "0"}.get(text.lower(), text) for text in texts]
    return tuple(map(int, texts)) if texts and all(map(INTEGER.fullmatch, texts)) else None


@lru_cache(1 << 16)
def bare(name: str) -> str:
    """Return a name in lower case, without what is no letter or digit."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


def missing(schema: pa.Schema, asked: str | None, role: str, where: str) -> str:
    """Say that a column is missing, which there are, and which of them may be meant."""
    have = ", ".join(f"{f.name} ({f.type})" for f in schema)
    if asked is None:
        return f"{where}: no column looks like the {role}; looked at {have}: name it with --{role}"
    near = difflib.get_close_matches(asked, schema.names, n=3, cutoff=0.5)
    meant = f"; did you mean {' or '.join(map(repr, near))}?" if near else "."
    return f"{where}: no column {asked!r} for --{role}{meant} There are: {have}"


def natural(text: str) -> list[tuple[int, int, str]]:
    """Return a sort key by which part-2 comes before part-10."""
    return [(0, int(s), s) if s.isdecimal() else (1, 0, s) for s in re.split(r"(\d+)", text) if s]

"""From paths and globs to files, each with its split and epoch, in natural path order."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from fastdiv.errors import DataError, UsageError

SUFFIXES = (".parquet", ".pq", ".parq")
EPOCH_WORDS = r"epoch|step|checkpoint|ckpt|iteration|iter|version"
EPOCH_IN_NAME = re.compile(rf"(?:^|[^a-z])(?:{EPOCH_WORDS})[-_.=]?(\d+)", re.IGNORECASE)
HIVE_KEY = re.compile(r"([^=/\\]+)=([^/\\]*)")
EPOCH_KEYS = frozenset(EPOCH_WORDS.split("|")) | {"global_step"}
SPLIT_KEYS = frozenset({"split", "subset", "partition", "phase"})


@dataclass(frozen=True, slots=True)
class File:
    """A file to read, with what its path says of it."""

    path: str
    split: str | None
    split_from: str | None  # what says so, in words
    epoch: int | None
    epoch_from: str
    epoch_given: bool  # by the caller, not by the path


def natural(text: str) -> list[tuple[int, int, str]]:
    """Return a sort key by which part-2 comes before part-10."""
    return [(0, int(s), s) if s.isdigit() else (1, 0, s) for s in re.split(r"(\d+)", text) if s]


def discover(
    paths: Iterable[tuple[str, str | None, int | None]],
    epoch_key: str | None = None,
    split_key: str | None = None,
) -> list[File]:
    """List the Parquet files under paths and globs, in natural order within a split.

    Each path comes with the split and the epoch that its caller names, or None; `epoch_key` and
    `split_key` are the user's names for hive keys, beside the usual ones.
    """
    found: dict[tuple[str, str | None], int | None] = {}
    for path, split, epoch in paths:
        found.update(dict.fromkeys(((file, split) for file in _files(path)), epoch))
    order = {split: i for i, (_, split) in reversed(list(enumerate(found)))}
    epoch_keys = EPOCH_KEYS | {epoch_key.lower()} if epoch_key else EPOCH_KEYS
    split_keys = SPLIT_KEYS | {split_key.lower()} if split_key else SPLIT_KEYS
    files = []
    for path, split in sorted(found, key=lambda key: (order[key[1]], natural(key[0]))):
        keys = {key.lower(): (key, value) for key, value in _hive_keys(path)}
        name, split_from = split, None if split is None else "the name given with the path"
        if split is None and (of_split := sorted(split_keys & keys.keys())):
            key, name = keys[of_split[0]]
            split_from = f"directories {key}=NAME"
        epoch, epoch_from = found[path, split], "keys of the mapping"
        given = epoch is not None
        if epoch is None:
            epoch, epoch_from = _epoch(path, keys, epoch_keys)
        files.append(File(path, name, split_from, epoch, epoch_from, given))
    return files


def _hive_keys(path: str) -> list[tuple[str, str]]:
    """Return the KEY=VALUE directories of a path; a file's own name is no such key."""
    found = (HIVE_KEY.fullmatch(part) for part in Path(path).parts[:-1])
    return [(match[1], match[2]) for match in found if match]


def has_key(path: str, name: str | None) -> bool:
    """Whether a directory of a path is NAME=VALUE."""
    return name is not None and any(key.lower() == name.lower() for key, _ in _hive_keys(path))


def _epoch(
    path: str, keys: dict[str, tuple[str, str]], epoch_keys: frozenset[str]
) -> tuple[int | None, str]:
    for key in sorted(epoch_keys & keys.keys()):
        name, value = keys[key]
        if not re.fullmatch(r"-?\d+", value):
            raise DataError(f"{path}: {name}={value} is no epoch number: rename it to a number")
        return int(value), f"directories {name}=N"
    for part in reversed(Path(path).parts):
        if numbers := EPOCH_IN_NAME.findall(part):
            where = "file names" if part == Path(path).name else "directory names"
            return int(numbers[-1]), f"{where} like {part}"
    return None, ""


def _files(path: str) -> list[str]:
    if os.path.isdir(path):
        found = [
            os.path.join(folder, name)
            for folder, _, names in os.walk(path)
            if not _hidden(os.path.relpath(folder, path))
            for name in names
            if name.lower().endswith(SUFFIXES) and not _hidden(name)
        ]
        if not found:
            raise UsageError(f"{path}: no file ending in {', '.join(SUFFIXES)} in this directory")
        return found
    if os.path.exists(path):
        return [path]
    if glob.has_magic(path):
        found = [f for f in glob.glob(path, recursive=True) if not _hidden(os.path.basename(f))]
        found = [f for match in found for f in (_files(match) if os.path.isdir(match) else [match])]
        if found:
            return found
        raise UsageError(f"{path}: nothing matches this pattern")
    raise UsageError(f"{path}: no such file or directory")


def _hidden(name: str) -> bool:
    return any(part.startswith(("_", ".")) and part not in (".", "..") for part in Path(name).parts)

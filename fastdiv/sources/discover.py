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
EPOCH_WORDS = "epoch|step|checkpoint|ckpt|iteration|iter"
EPOCH_IN_NAME = re.compile(rf"(?:^|[^a-z])(?:{EPOCH_WORDS})[-_.=]?(\d+)", re.IGNORECASE)
HIVE_KEY = re.compile(r"([^=/\\]+)=([^/\\]*)")
EPOCH_KEYS = frozenset(EPOCH_WORDS.split("|")) | {"global_step", "version"}
SPLIT_KEYS = frozenset({"split", "subset", "partition", "phase"})


@dataclass(frozen=True, slots=True)
class File:
    """A file to read, with what its path or the caller says of it."""

    path: str
    split: str | None
    split_from: str  # what says so, in words
    epoch: int | None
    epoch_from: str
    epoch_given: bool  # by the caller: it then counts for all rows of the file
    split_given: bool


def natural(text: str) -> list[tuple[int, int, str]]:
    """Return a sort key by which part-2 comes before part-10."""
    return [(0, int(s), s) if s.isdecimal() else (1, 0, s) for s in re.split(r"(\d+)", text) if s]


def discover(
    paths: Iterable[tuple[str, str | None, int | None]],
    epoch_key: str | None = None,
    split_key: str | None = None,
) -> list[File]:
    """List the Parquet files under paths and globs, in natural order within a split.

    Each path comes with the split and the epoch that its caller names, or None; `epoch_key` and
    `split_key` are the user's names for hive keys, beside the usual ones.
    """
    found: dict[tuple[str, str | None, int | None], str] = {}  # -> the part that names an epoch
    real = set()
    for path, split, epoch in paths:
        for file, naming in _files(path):
            if (once := (os.path.realpath(file), split, epoch)) not in real:
                real.add(once)
                found[file, split, epoch] = naming
    order = {split: i for i, (_, split, _) in reversed(list(enumerate(found)))}
    epoch_keys = EPOCH_KEYS | {epoch_key.lower()} if epoch_key else EPOCH_KEYS
    split_keys = SPLIT_KEYS | {split_key.lower()} if split_key else SPLIT_KEYS
    files = []
    for key in sorted(found, key=lambda key: (order[key[1]], natural(key[0]))):
        path, split, epoch = key
        hive = {name.lower(): (name, value) for name, value in _hive_keys(path)}
        name, split_from = split, "the name given with the path"
        if split is None:
            of_split = next((k for k in sorted(split_keys) if k in hive), None)
            name = hive[of_split][1] if of_split else None
            split_from = f"directories {hive[of_split][0]}=NAME" if of_split else ""
        number, epoch_from = epoch, "keys of the mapping"
        if epoch is None:
            number, epoch_from = _epoch(path, found[key], hive, epoch_keys)
        given = (epoch is not None, split is not None)
        files.append(File(path, name, split_from, number, epoch_from, *given))
    return files


def _hive_keys(path: str) -> list[tuple[str, str]]:
    """Return the KEY=VALUE directories of a path; a file's own name is no such key."""
    found = (HIVE_KEY.fullmatch(part) for part in Path(path).parts[:-1])
    return [(match[1], match[2]) for match in found if match]


def has_key(path: str, name: str | None) -> bool:
    """Whether a directory of a path is NAME=VALUE."""
    return name is not None and any(key.lower() == name.lower() for key, _ in _hive_keys(path))


def _epoch(
    path: str, naming: str, keys: dict[str, tuple[str, str]], epoch_keys: frozenset[str]
) -> tuple[int | None, str]:
    for key in sorted(epoch_keys & keys.keys()):
        name, value = keys[key]
        if not re.fullmatch(r"-?\d+", value):
            raise DataError(f"{path}: {name}={value} is no epoch number: rename it to a number")
        return int(value), f"directories {name}=N"
    for part in reversed(Path(naming).parts):
        if numbers := EPOCH_IN_NAME.findall(part):
            where = "file names" if part == Path(path).name else "directory names"
            return int(numbers[-1]), f"{where} like {part}"
    return None, ""


def _files(path: str) -> list[tuple[str, str]]:
    """Return the files under a path, each with the part of its path that may name its epoch.

    Of a directory that is its own name and what lies in it, of a file its name and its
    directory's: not what lies above, as `runs/version_3/` may.
    """
    if os.path.isdir(path):
        above = os.path.dirname(os.path.abspath(path))
        inside = []
        for folder, folders, names in os.walk(path):
            if "summary.json" in names and "scores" in folders:  # a saved run: results, no dump
                folders.clear()
                continue
            folders[:] = [name for name in folders if not _hidden(name)]
            files = [os.path.join(folder, name) for name in names if not _hidden(name)]
            inside += [file for file in files if file.lower().endswith(SUFFIXES)]
        if not inside:
            raise UsageError(f"{path}: no file ending in {', '.join(SUFFIXES)} in this directory")
        return [(file, os.path.relpath(os.path.abspath(file), above)) for file in inside]
    if os.path.exists(path):
        return [(path, os.path.join(*Path(os.path.abspath(path)).parts[-2:]))]
    if glob.has_magic(path):
        names = sorted(glob.glob(path, recursive=True))
        found = [name for name in names if not _hidden(os.path.basename(name))]
        if found:
            return [file for match in found for file in _files(match)]
        raise UsageError(f"{path}: nothing matches this pattern")
    raise UsageError(f"{path}: no such file or directory")


def _hidden(name: str) -> bool:
    return name.startswith(("_", "."))

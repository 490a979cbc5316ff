"""From paths and globs to files, each with its split and epoch, in natural path order."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastdiv.errors import UsageError
from fastdiv.sources.files.file import File
from fastdiv.sources.files.places import Places
from fastdiv.sources.formats import FORMATS, format_of_suffix
from fastdiv.sources.naming import EPOCH_KEYS, EPOCH_WORDS, SPLIT_KEYS, natural
from fastdiv.sources.text_files import suffix_of

EPOCH_IN_NAME = re.compile(
    rf"(?:^|[^a-z])({EPOCH_WORDS})[-_.=]?(\d{{1,18}})(?!\d|\.\d)", re.IGNORECASE
)
HIVE_KEY = re.compile(r"([^=/\\]+)=([^/\\]*)")


@dataclass(frozen=True, slots=True, eq=False)
class Item:
    """A file, table or reader to read, with what its path or the caller says of it."""

    data: Any
    split: str | None
    split_from: str  # what says so, in words
    epoch: int | str | None
    epoch_from: str
    epoch_given: bool  # by the caller: it then counts for all rows
    split_given: bool

    @property
    def name(self) -> str:
        """Name the item to a person."""
        if isinstance(self.data, File):
            return self.data.name
        where = [f"split {self.split!r}"] if self.split is not None else []
        where += [f"epoch {self.epoch}"] if self.epoch is not None else []
        return " ".join(["data", *(("of " + ", ".join(where),) if where else ())])

    @property
    def path(self) -> str:
        """The path of a file; of other data none."""
        return self.data.path if isinstance(self.data, File) else ""


Given = tuple[Any, str | None, int | str | None]  # data, and the split and epoch of its keys


def discover(
    paths: Iterable[Given],
    places: Places,
    epoch_key: str | None = None,
    split_key: str | None = None,
) -> tuple[list[Item], list[str]]:
    """List the files under paths and globs, in natural order within a split.

    Each path comes with the split and the epoch that its caller names, or None; `epoch_key` and
    `split_key` are the user's names for hive keys, beside the usual ones. Also returns the files
    in the same directories that are of other formats, and are not read.
    """
    found: dict[Given, str] = {}  # -> the part that names an epoch
    real, left_out = set(), []
    paths = list(paths)
    above = _above([path for path, _, _ in paths], places)
    for path, split, epoch in paths:
        files, others = _files(path, above, places)
        left_out += others
        for file, naming in files:
            names = tuple(EPOCH_IN_NAME.findall(naming))  # links may name other epochs
            if (once := (places.real(file), split, epoch, names)) not in real:
                real.add(once)
                found[file, split, epoch] = naming
    order = {split: i for i, (_, split, _) in reversed(list(enumerate(found)))}
    epoch_keys = EPOCH_KEYS | {epoch_key.lower()} if epoch_key else EPOCH_KEYS
    split_keys = SPLIT_KEYS | {split_key.lower()} if split_key else SPLIT_KEYS
    items = []
    for name, split, epoch in sorted(found, key=lambda key: (order[key[1]], natural(key[0]))):
        path = places.path(name)
        hive = {key.lower(): (key, value) for key, value in _hive_keys(path)}
        named, split_from = split, "the name given with the path"
        if split is None:
            of_split = next((k for k in sorted(split_keys) if k in hive), None)
            named = hive[of_split][1] if of_split else None
            split_from = f"directories {hive[of_split][0]}=NAME" if of_split else ""
        number, epoch_from = epoch, "keys of the mapping"
        if epoch is None:
            number, epoch_from = _epoch(path, found[name, split, epoch], hive, epoch_keys)
        given = (epoch is not None, split is not None)
        items.append(Item(places.at(name), named, split_from, number, epoch_from, *given))
    return items, left_out


def _hive_keys(path: str) -> list[tuple[str, str]]:
    """Return the KEY=VALUE directories of a path; a file's own name is no such key."""
    found = (HIVE_KEY.fullmatch(part) for part in Path(path).parts[:-1])
    return [(match[1], match[2]) for match in found if match]


def has_key(path: str, name: str | None) -> bool:
    """Whether a directory of a path is NAME=VALUE."""
    return name is not None and any(key.lower() == name.lower() for key, _ in _hive_keys(path))


def _epoch(
    path: str, naming: str, keys: dict[str, tuple[str, str]], epoch_keys: frozenset[str]
) -> tuple[int | str | None, str]:
    for key in sorted(epoch_keys & keys.keys()):
        name, value = keys[key]
        if re.fullmatch(r"-?\d{1,18}", value):
            return int(value), f"directories {name}=N"
        if several := re.fullmatch(r"(\d{1,18})-[^=]+=.*", value):  # epoch=3-step=1000
            return int(several[1]), f"directories {name}=N"
        return value, f"directories {name}=NAME"
    for part in reversed(Path(naming).parts):
        if numbers := EPOCH_IN_NAME.findall(part):
            where = "file names" if part == Path(path).name else "directory names"
            epochs = [number for word, number in numbers if word.lower() == "epoch"]
            return int((epochs or [number for _, number in numbers])[-1]), f"{where} like {part}"
    return None, ""


def _above(paths: list[str], places: Places) -> str | None:
    """Return the directory below which the paths of files differ, if there are several."""
    files = []
    for path in paths:
        plain = not places.has_magic(path) or places.exists(path)
        files += [path] if plain else places.matches(path)
    if len(files) < 2:
        return None
    return os.path.commonpath([os.path.dirname(places.whole(file)) for file in files])


def _files(
    path: str, common: str | None, places: Places
) -> tuple[list[tuple[str, str]], list[str]]:
    """Return the files under a path, each with the part of its path that may name its epoch.

    Of a directory that is its own name and what lies in it; of a file its name and its
    directory's, and what lies below the directory `common` to all that are given: not what lies
    above, as `runs/version_3/` may. Of the formats in a directory the first in the table of
    formats is read; the files of the others are returned besides.
    """
    if places.is_dir(path):
        above = common or os.path.dirname(places.whole(path))
        inside: dict[str, list[str]] = {}
        for folder, folders, names in places.walk(path):
            if "summary.json" in names and "scores" in folders:  # a saved run: results, no dump
                folders.clear()
                continue
            folders[:] = [name for name in folders if not _hidden(name)]
            for name in names:
                if not _hidden(name) and (format_ := format_of_suffix(name)) is not None:
                    inside.setdefault(format_.name, []).append(places.below(folder, name))
        if not inside:
            known = ", ".join(suffix for f in FORMATS for suffix in f.suffixes)
            raise UsageError(f"{path}: no file ending in {known} in this directory")
        read, *others = [inside[f.name] for f in FORMATS if f.name in inside]
        return [(file, os.path.relpath(places.whole(file), above)) for file in read], [
            file for files in others for file in files
        ]
    if places.exists(path):
        whole = Path(places.whole(path))
        below = whole.relative_to(common).parts if common is not None else ()
        return [(path, os.path.join(*whole.parts[-max(2, len(below)) :]))], []
    if places.has_magic(path):
        matches = [_files(match, common, places) for match in matching(path, places)]
        return [f for files, _ in matches for f in files], [f for _, left in matches for f in left]
    raise UsageError(f"{path}: no such file or directory")


def matching(pattern: str, places: Places) -> list[str]:
    """Return what a pattern matches, hidden files left out."""
    names = sorted(places.matches(pattern), key=natural)
    found = [name for name in names if not _hidden(os.path.basename(places.path(name)))]
    if not found:
        raise UsageError(f"{pattern}: nothing matches this pattern")
    return found


def names_of_paths(paths: list[str], places: Places) -> list[str]:
    """Return a name for each path: its file's own where that tells them apart."""

    def stem(path: str) -> str:
        name = os.path.basename(os.path.normpath(places.path(path)))
        if places.is_dir(path) or format_of_suffix(name) is None:
            return name
        return name[: name.lower().rindex(suffix_of(name))]

    def with_directory(path: str) -> str:
        return os.path.join(os.path.basename(os.path.dirname(places.whole(path))), stem(path))

    for naming in (stem, with_directory):
        names = [naming(path) for path in paths]
        if len(set(names)) == len(names):
            return names
    return paths


def _hidden(name: str) -> bool:
    return name.startswith(("_", "."))

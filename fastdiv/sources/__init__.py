"""Where predictions come from: whatever holds rows is a container, and all of them are one Source.

`formats` is the table of the formats of files; `source` opens what lies in memory.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import groupby
from typing import Any

import numpy as np

from fastdiv.errors import UsageError
from fastdiv.sources.discover import Given, Item, discover, matching, names_of_paths
from fastdiv.sources.files.places import Places
from fastdiv.sources.formats import format_of_suffix
from fastdiv.sources.layout import Asked, Layout, parse_class_names
from fastdiv.sources.source import Source, is_arrow

__all__ = ["Asked", "Layout", "Source", "open_source", "parse_class_names"]


def open_source(data: Any, asked: Asked) -> Source:
    """Open files, tables, readers, arrays, or a list or mapping of any of these."""
    places = Places(asked.filesystem)
    parts = [
        (places.name(part) if isinstance(part, str) else part, split, epoch)
        for part, split, epoch in _parts(data, None, None, asked.epoch_per_path)
    ]
    if not parts:
        raise UsageError("nothing to analyze: no path, table or array was given")
    if asked.epoch_per_path:
        parts = _each_an_epoch(parts, places)
    items: list[Item] = []
    left_out: list[str] = []
    for are_paths, some in groupby(parts, key=lambda part: isinstance(part[0], str)):
        if are_paths:
            found, others = discover(some, places, asked.epoch, asked.split)
            items += found
            left_out += others
        else:
            items += [_item(*part) for part in some]
    if asked.epoch_per_path:
        items = [replace(item, epoch_from="each path given is one, as asked") for item in items]
    order = {split: i for i, (_, split, _) in reversed(list(enumerate(parts)))}
    items.sort(key=lambda item: order.get(item.split, len(order)))
    return Source(items, asked, left_out, [e for _, _, e in parts if e is not None])


def _item(data: Any, split: str | None, epoch: int | str | None) -> Item:
    keys = "keys of the mapping"
    return Item(data, split, keys, epoch, keys, epoch is not None, split is not None)


def _parts(
    data: Any, split: str | None, epoch: int | str | None, names_are_epochs: bool
) -> Iterator[Given]:
    """Take lists, and mappings from split names and epochs, apart."""
    if isinstance(data, str | os.PathLike):
        yield os.fspath(data), split, epoch
    elif isinstance(data, list) and all(_is_part(x) for x in data):
        for part in data:
            yield from _parts(part, split, epoch, names_are_epochs)
    elif isinstance(data, np.lib.npyio.NpzFile):
        raise UsageError("give the path of an .npz file, not the opened file")
    elif isinstance(data, Mapping) and "predictions" not in data:
        for key, value in data.items():
            is_name = isinstance(key, str)
            if key is None and split is None and epoch is None:
                yield from _parts(value, None, None, True)
            elif is_name and split is None and epoch is None and not names_are_epochs:
                yield from _parts(value, key, None, names_are_epochs)
            elif not is_name and isinstance(key, int | np.integer) and abs(int(key)) >= 2**62:
                raise UsageError(f"key {key!r}: is no number of an epoch")
            elif (is_name or isinstance(key, int | np.integer)) and epoch is None:
                yield from _parts(value, split, key if is_name else int(key), names_are_epochs)
            else:
                raise UsageError(
                    f"key {key!r}: keys are split names (strings), then epochs (integers or names)"
                )
    elif is_arrow(data) or isinstance(data, tuple | list | Mapping):
        yield data, split, epoch
    else:
        raise UsageError(
            f"cannot read predictions from {type(data).__name__}: give paths, Arrow tables or "
            "readers, (predictions, labels, ids), or a mapping from epochs to any of these"
        )


def _is_part(data: Any) -> bool:
    if isinstance(data, list):  # of numbers it is an array
        return bool(data) and all(map(_is_part, data))
    return isinstance(data, str | os.PathLike | tuple | Mapping) or is_arrow(data)


def _each_an_epoch(parts: list[Given], places: Places) -> list[Given]:
    """Make each path an epoch of its own, named by it."""
    apart: list[Given] = []
    if len(parts) == 1 and isinstance(parts[0][0], str) and places.is_dir(parts[0][0]):
        ((folder, split, epoch),) = parts  # what lies in it is meant
        inside = matching(places.below(places.escape(folder), "*"), places)
        known = [p for p in inside if places.is_dir(p) or format_of_suffix(places.path(p))]
        parts = [(path, split, epoch) for path in known]
    for data, split, epoch in parts:
        if isinstance(data, str) and places.has_magic(data) and not places.exists(data):
            apart += [(path, split, epoch) for path in matching(data, places)]
        else:
            apart.append((data, split, epoch))
    unnamed = [part for part in apart if part[2] is None]
    others = [data for data, _, _ in unnamed if not isinstance(data, str)]
    if others:
        raise UsageError("with epoch_per_path, tables and arrays need a name each: give a mapping")
    names = iter(names_of_paths([data for data, _, _ in unnamed], places))
    return [(d, s, next(names) if e is None else e) for d, s, e in apart]

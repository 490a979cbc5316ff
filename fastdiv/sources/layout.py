"""Layout: which columns hold what, and what the predictions are.

`columns` finds the columns, `kinds` what the predictions are; both once for a whole data set.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from fastdiv.errors import DataError, UsageError
from fastdiv_kernels.contract import Kind

NUMBERED = re.compile(r"(.*?)(\d+)")  # a column of the class that its number tells


SAMPLE_ROWS = 1000  # of a data set that detection looks at
BATCH_BYTES = 4 << 20  # of predictions taken at once: they should still be in cache when scored
BATCH_ROWS = 1 << 15


@dataclass(frozen=True, slots=True)
class Asked:
    """What the user said of the columns; None where nothing was said."""

    id: str | None = None
    label: str | None = None
    predictions: str | None = None
    epoch: str | None = None
    split: str | None = None
    kind: str = "auto"
    class_names: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class Layout:
    """Where in a table the ids, labels, predictions, epochs and splits are."""

    predictions: tuple[str, ...]  # one list column, or one float column a class
    classes: int
    dtype: np.dtype[Any]
    kind: Kind
    label: str | None  # None only for arrays in memory
    id: str | None = None
    epoch: str | None = None
    split: str | None = None
    class_names: tuple[str, ...] | None = None
    string_ids: bool = False
    evidence: dict[str, str] = field(default_factory=dict)  # what was found -> by what

    @property
    def wide(self) -> bool:
        """Whether each class has a column of its own."""
        return len(self.predictions) > 1

    @property
    def columns(self) -> list[str]:
        """Names of the columns that must be read."""
        others = (self.id, self.label, self.epoch, self.split)
        return [*self.predictions, *(name for name in others if name is not None)]

    @property
    def batch_rows(self) -> int:
        """Most rows of a batch."""
        return max(1, min(BATCH_ROWS, BATCH_BYTES // (self.classes * self.dtype.itemsize)))

    def with_evidence(self, **more: str) -> Layout:
        """Return the layout with more evidence."""
        return replace(self, evidence={**self.evidence, **more})


def parse_class_names(names: str | Path | Iterable[str] | None) -> tuple[str, ...] | None:
    """Read class names from a list, a comma list, or a file with one a line."""
    if names is None:
        return None
    if isinstance(names, Path):
        names = str(names)
    if isinstance(names, str):
        try:
            is_file = Path(names).is_file()
        except OSError:  # a list so long that it cannot be a name
            is_file = False
        try:
            names = Path(names).read_text("utf-8").splitlines() if is_file else names.split(",")
        except (OSError, UnicodeError) as error:
            raise UsageError(f"class names cannot be read from {names}: {error}") from None
    found = tuple(name.strip() for name in names)
    found = found[:-1] if found and not found[-1] else found  # a trailing comma or line
    if len(set(found)) < len(found):
        twice = next(name for name in found if found.count(name) > 1)
        raise UsageError(f"class name {twice!r} is given twice: give one a class, in order")
    return found


def is_float_list(type_: pa.DataType) -> bool:
    """Whether a column holds a list of floats a row."""
    lists = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    found: bool = any(is_(type_) for is_ in lists) and pa.types.is_floating(type_.value_type)
    return found


def is_string(type_: pa.DataType) -> bool:
    """Whether a column holds strings, dictionary-encoded or not."""
    if pa.types.is_dictionary(type_):
        type_ = type_.value_type
    return bool(pa.types.is_string(type_) or pa.types.is_large_string(type_))


def is_integer(type_: pa.DataType) -> bool:
    """Whether a column holds integers, dictionary-encoded or not."""
    if pa.types.is_dictionary(type_):
        type_ = type_.value_type
    return bool(pa.types.is_integer(type_))


def agree(layout: Layout, first: pa.Schema, schema: pa.Schema, first_at: str, at: str) -> Layout:
    """Check that a table has the columns of the first, of like type; widen the dtype if need be."""
    for name in layout.columns:
        if name not in schema.names:
            raise DataError(
                f"{at}: no column {name!r}, which {first_at} has: the parts of a data set must "
                f"agree; it has {', '.join(schema.names)}"
            )
        here, there = schema.field(name).type, first.field(name).type
        if _category(here) != _category(there):
            raise DataError(
                f"{at}: column {name!r} holds {here}, but {there} in {first_at}: "
                "write it as one type"
            )
        if name in layout.predictions:
            value = here.value_type if is_float_list(here) else here
            wider = np.promote_types(layout.dtype, value.to_pandas_dtype())
            layout = replace(layout, dtype=wider)
            if pa.types.is_fixed_size_list(here) and here.list_size != layout.classes:
                raise DataError(
                    f"{at}: {here.list_size} classes in column {name!r}, but "
                    f"{layout.classes} in {first_at}"
                )
    if layout.wide:
        more = set(schema.names) - set(first.names)
        numbered = [n for n in more if (m := NUMBERED.fullmatch(n)) and _same_group(m, layout)]
        if numbered:
            raise DataError(
                f"{at}: column {min(numbered)!r} is one class more than the {layout.classes} of "
                f"{first_at}: the class count must not change within a data set"
            )
    return layout


def _same_group(match: re.Match[str], layout: Layout) -> bool:
    """Whether a numbered column has the prefix of the numbered columns of a layout."""
    first = NUMBERED.fullmatch(layout.predictions[0])
    return first is not None and first[1] == match[1]


def _category(type_: pa.DataType) -> str:
    if is_float_list(type_):
        return "list of floats"
    if pa.types.is_dictionary(type_):
        type_ = type_.value_type
    if is_string(type_):
        return "string"
    if pa.types.is_integer(type_):
        return "unsigned 64" if type_ == pa.uint64() else "integer"
    return "float" if pa.types.is_floating(type_) else str(type_)

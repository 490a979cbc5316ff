"""Layout: which columns hold what, and what the predictions are.

`columns` and `predictions` find the columns, `kinds` what the numbers are; all once for a whole
data set.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from fastdiv.errors import DataError, UsageError
from fastdiv.sources.epochs import EpochNames
from fastdiv.sources.fields import (
    is_binary,
    is_float,
    is_float_list,
    is_integer,
    is_list,
    is_number,
    is_string,
    is_uuid,
    is_word_list,
    plain_type,
)
from fastdiv_kernels.contract import BFLOAT16, Kind, widest

NUMBERED = re.compile(r"(.*?)(\d+)")  # a column of the class that its number tells
DTYPES = {name: np.dtype(name) for name in ("float16", "float32", "float64")} | {
    "bfloat16": BFLOAT16
}
SAMPLE_ROWS = 1000  # of a data set that detection looks at
BATCH_BYTES = 16 << 20  # of predictions taken at once
GATHERED_BYTES = 4 << 20  # ... of columns, as rows, which should still be in cache when scored
BATCH_ROWS = 1 << 17  # a batch costs some tenths of a millisecond of its own


@dataclass(frozen=True, slots=True)
class Asked:
    """What the user said of the data; None where nothing was said."""

    id: str | None = None
    label: str | None = None
    predictions: str | None = None
    epoch: str | None = None
    split: str | None = None
    kind: str = "auto"
    class_names: tuple[str, ...] | None = None
    dtype: str | None = None  # of words and bytes
    positive: str | None = None  # label of the class that a single score is of
    skip_lines: int = 0  # of text files
    epoch_per_path: bool = False
    filesystem: Any = None  # in which paths lie, of Arrow or fsspec

    def __post_init__(self) -> None:
        for name in ("id", "label", "predictions", "epoch", "split", "dtype", "positive"):
            value = getattr(self, name)
            if value is not None and not isinstance(value, str):
                raise UsageError(f"{name} must be a name, not {value!r}")
        if not isinstance(self.skip_lines, int):
            raise UsageError(f"skip_lines must be a whole number, not {self.skip_lines!r}")
        if self.dtype is not None and self.dtype not in DTYPES:
            raise UsageError(f"dtype must be one of {', '.join(DTYPES)}, not {self.dtype!r}")
        if self.skip_lines < 0:
            raise UsageError(f"skip_lines must be at least 0, not {self.skip_lines}")


@dataclass(frozen=True, slots=True)
class Layout:
    """Where in a table the ids, labels, predictions, epochs and splits are."""

    predictions: tuple[str, ...]  # one column of lists or scores, or one column a class
    classes: int
    dtype: np.dtype[Any]  # of predictions as kernels take them; BFLOAT16 stands for bfloat16
    kind: Kind
    label: str
    id: str | None = None
    epoch: str | None = None
    split: str | None = None
    class_names: tuple[str, ...] | None = None
    string_ids: bool = False  # ids of no fixed width
    epoch_asked: bool = False  # the user named the column
    words: np.dtype[Any] | None = None  # what 16-bit words and bytes hold
    label_values: tuple[int, ...] | None = None  # where labels are numbers that name classes
    positive: int | None = None  # the class that a single score is of, 0 or 1
    against_rest: str | None = None  # the label that is class 1, all others being class 0
    padded: bool = False  # short lists are rows with fewer choices
    epoch_names: EpochNames | None = field(default=None, compare=False)  # of a column of strings
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
        most = GATHERED_BYTES if self.wide else BATCH_BYTES
        return max(1, min(BATCH_ROWS, most // (self.classes * self.dtype.itemsize)))

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
    if not isinstance(names, Iterable):
        raise UsageError(f"class names must be a list, not {names!r}")
    found = tuple(str(name).strip() for name in names)
    found = found[:-1] if found and not found[-1] else found  # a trailing comma or line
    if len(set(found)) < len(found):
        twice = next(name for name in found if found.count(name) > 1)
        raise UsageError(f"class name {twice!r} is given twice: give one a class, in order")
    return found


def numbered(names: Sequence[str]) -> dict[str, list[str]]:
    """Group columns PREFIX0 … PREFIXk (or from 1), in numeric order, by prefix."""
    groups: dict[str, dict[int, str]] = {}
    for name in names:
        if match := NUMBERED.fullmatch(name):
            groups.setdefault(match[1], {})[int(match[2])] = name
    complete = {}
    for prefix, members in groups.items():
        first = min(members)
        if len(members) > 1 and first in (0, 1) and max(members) == first + len(members) - 1:
            complete[prefix] = [members[i] for i in sorted(members)]
    return complete


def dtype_of(type_: pa.DataType, words: np.dtype[Any] | None) -> np.dtype[Any]:
    """Return the dtype of the numbers of a predictions column."""
    type_ = plain_type(type_)
    if is_word_list(type_) or is_binary(type_):
        assert words is not None
        return words
    if is_list(type_):
        type_ = plain_type(type_.value_type)
    return np.dtype(type_.to_pandas_dtype() if pa.types.is_floating(type_) else np.float64)


def agree(layout: Layout, first: pa.Schema, schema: pa.Schema, first_at: str, at: str) -> Layout:
    """Check that a table has the columns of the first, of like type; widen the dtype if need be.

    Both schemas are flat, see `fields`.
    """
    for name in layout.columns if len(schema) else ():  # an empty file may tell of no column
        if schema.get_field_index(name) < 0:
            raise DataError(
                f"{at}: no column {name!r}, which {first_at} has: the parts of a data set must "
                f"agree; it has {', '.join(schema.names)}"
            )
        here, there = schema.field(name).type, first.field(name).type
        if pa.types.is_null(
            plain_type(here)
        ):  # a part without a single value says nothing of its type
            continue
        if _category(name, here, layout) != _category(name, there, layout):
            raise DataError(
                f"{at}: column {name!r} holds {here}, but {there} in {first_at}: "
                "write it as one type"
            )
        if name in layout.predictions:
            words = layout.words
            if (is_binary(here) and words is None) or (
                is_word_list(here) and (words is None or words.itemsize != 2)
            ):
                raise DataError(f"{at}: column {name!r} holds {here}: say of what, with --dtype")
            layout = replace(layout, dtype=widest(layout.dtype, dtype_of(here, words)))
            if pa.types.is_fixed_size_list(plain_type(here)):
                classes = plain_type(here).list_size
                if classes != layout.classes:
                    raise DataError(
                        f"{at}: {classes} classes in column {name!r}, but "
                        f"{layout.classes} in {first_at}"
                    )
    if layout.wide:
        more = set(schema.names) - set(first.names)
        extra = [n for n in more if (m := NUMBERED.fullmatch(n)) and _same_group(m, layout)]
        if extra:
            raise DataError(
                f"{at}: column {min(extra)!r} is one class more than the {layout.classes} of "
                f"{first_at}: the class count must not change within a data set"
            )
    return layout


def _same_group(match: re.Match[str], layout: Layout) -> bool:
    """Whether a numbered column has the prefix of the numbered columns of a layout."""
    first = NUMBERED.fullmatch(layout.predictions[0])
    return first is not None and first[1] == match[1]


def _category(name: str, type_: pa.DataType, layout: Layout) -> str:
    """Return what types have in common that are read alike in the place of a column."""
    if name in layout.predictions:
        if is_float_list(type_) or is_word_list(type_) or is_binary(type_):
            return "list of floats"
        return "number" if is_number(type_) else str(type_)
    if name == layout.label and (
        is_integer(type_) or is_float(type_) or pa.types.is_boolean(plain_type(type_))
    ):
        return "number"
    if name == layout.id and is_integer(type_):
        return "unsigned 64" if plain_type(type_) == pa.uint64() else "integer"
    if is_string(type_) or is_uuid(type_):
        return "string"
    if is_binary(type_):
        return "binary"
    if is_list(plain_type(type_)):
        return "list"
    return "number" if is_number(type_) else str(type_)

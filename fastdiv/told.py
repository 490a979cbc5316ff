"""What a Tracker and a PredictionWriter are told, checked."""

from __future__ import annotations

import operator
import re
from typing import Any

import pyarrow as pa

from fastdiv.errors import UsageError
from fastdiv.sources.fields import is_binary, is_integer, is_string, is_uuid, plain_type


def whole_number(value: Any, what: str, least: int = -(2**63)) -> int:
    """Return a whole number that 64 bits hold."""
    try:
        number = operator.index(value)
    except TypeError:
        raise UsageError(f"{what} must be a whole number, not {value!r}") from None
    if number < least:
        raise UsageError(f"{what} must be at least {least}, not {number}")
    if number >= 2**63:
        raise UsageError(f"{what} must be below 2**63, not {number}")
    return number


def class_count(classes: int | None, names: tuple[str, ...] | None) -> int | None:
    """Return how many classes there are; None where nothing was said."""
    if classes is not None:
        classes = whole_number(classes, "classes", 2)
    if names is None:
        return classes
    if classes not in (None, len(names)):
        raise UsageError(f"{len(names)} class names for {classes} classes")
    return len(names)


def kind_of_ids(type_: pa.DataType | None, where: str) -> str:
    """Say what ids are."""
    if type_ is None:
        return "none"
    if is_integer(type_):
        return "unsigned 64-bit integers" if plain_type(type_) == pa.uint64() else "integers"
    if is_string(type_) or is_uuid(type_):
        return "strings"
    if is_binary(type_):
        return "bytes"
    raise UsageError(f"{where}: ids must be integers or strings, not {type_}")


def in_python(message: str) -> str:
    """Return a message with the options of the command line as the arguments that they are."""
    message = message.replace("--id none", "no ids")
    message = re.sub(r"--(duplicates|scores) (\w+)", r'\1="\2"', message)
    return re.sub(r"--([a-z]+(?:-[a-z]+)*)", lambda found: found[1].replace("-", "_"), message)

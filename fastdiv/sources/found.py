"""Found: the columns of the predictions, and their shape."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

SINGLE = np.dtype(np.float32)


@dataclass(frozen=True, slots=True)
class Found:
    """The columns of the predictions, and their shape."""

    names: tuple[str, ...]
    evidence: str
    classes: int = 0
    dtype: np.dtype[Any] = SINGLE
    positive: int | None = None  # see Layout
    against_rest: str | None = None
    class_names: tuple[str, ...] | None = None  # where one score tells them

    def in_order_of(self, class_names: tuple[str, ...]) -> Found:
        """Put columns that are named by class in the order of the names."""
        prefix = prefix_of(self.names[0])
        for start in ("", prefix):
            ordered = tuple(start + name for name in class_names)
            if len(ordered) == len(self.names) > 1 and set(ordered) == set(self.names):
                return replace(self, names=ordered)
        return self


def prefix_of(name: str) -> str:
    """Return what stands before and with the first separator of a name."""
    match = re.match(r".*?[_.\-]", name)
    return match[0] if match else ""

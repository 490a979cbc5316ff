"""Epochs that have names, as checkpoints do, and the numbers that stand for them."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterable

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

INTEGER = re.compile(r"\d+")


def numbered_names(names: Iterable[str]) -> dict[str, int]:
    """Return a number for each name: the one that it holds (`checkpoint-500`), or its place.

    Their places, where one of them holds no number or several, or two hold the same.
    """
    names = list(dict.fromkeys(names))
    found = [INTEGER.findall(name) for name in names]
    if all(len(numbers) == 1 for numbers in found):
        numbers = [int(numbers[0]) for numbers in found]
        if len(set(numbers)) == len(names) and max(numbers, default=0) < 2**62:
            return dict(zip(names, numbers, strict=True))
    return {name: i for i, name in enumerate(names)}


class EpochNames:
    """The names in a column of epochs; those not known beforehand are numbered as they come."""

    def __init__(self, names: Iterable[str] = ()) -> None:
        self._numbers = numbered_names(names)
        self.names = {number: name for name, number in self._numbers.items()}
        self._lock = threading.Lock()

    def numbers(self, names: pa.Array) -> NDArray[np.int64]:
        """Return the number (n,) of each name (n,)."""
        encoded = names.dictionary_encode()
        with self._lock:
            for name in encoded.dictionary.to_pylist():
                number = self._numbers.setdefault(name, len(self._numbers))
                self.names[number] = name
            of_code = [self._numbers[name] for name in encoded.dictionary.to_pylist()]
        found: NDArray[np.int64] = np.asarray(of_code, np.int64)[encoded.indices.to_numpy()]
        return found

"""Memory that is used again: pages that are fresh cost more than what is written to them.

Arrow's allocator gives memory back to the system ten milliseconds after it was last used; reading
a dump, a fifth of the time went into getting it again.
"""

from __future__ import annotations

import sys
import threading

import numpy as np
from numpy.typing import NDArray

KEPT_BYTES = 64 << 20  # by a thread, at most
LARGER = 4  # times what is needed, at most
UNIT = 4096


class Rooms(threading.local):
    """Arrays of bytes, of each thread its own, that are given out again once no view of one is."""

    def __init__(self) -> None:
        self._kept: list[NDArray[np.uint8]] = [np.empty(0, np.uint8)]
        self._unused = self._references(0)

    def _references(self, i: int) -> int:
        return sys.getrefcount(self._kept[i])

    def take(self, size: int) -> NDArray[np.uint8]:
        """Return an array of a size in bytes, to be written over."""
        for i, length in enumerate(map(len, self._kept)):
            if size <= length <= LARGER * size and self._references(i) == self._unused:
                return self._kept[i][:size]
        new = np.empty(-(-size // UNIT) * UNIT, np.uint8)
        if self._bytes() + len(new) > KEPT_BYTES:
            used = [self._references(i) > self._unused for i in range(len(self._kept))]
            self._kept = [x for x, is_used in zip(self._kept, used, strict=True) if is_used]
        if self._bytes() + len(new) <= KEPT_BYTES:
            self._kept.append(new)
        return new[:size]

    def _bytes(self) -> int:
        return sum(map(len, self._kept))


rooms = Rooms()

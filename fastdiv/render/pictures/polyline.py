"""Lines through many points, drawn through a few of them."""

from __future__ import annotations

import heapq

import numpy as np

from fastdiv.explain.evidence import Floats, Ints

PIXELS = 4096  # across: points within the same one are one


def simplified(x: Floats, y: Floats, most: int, tolerance: float) -> tuple[Ints, float]:
    """Choose the points of a line to draw it through: those that matter most, one after the other.

    That is the method of Douglas and Peucker (1973), the largest deviation first.

    Parameters
    ----------
    x, y : (n,) float64
        Between 0 and 1.
    most : int
        How many points to choose, 2 at least.
    tolerance : float
        How far the line may be from those left out.

    Returns
    -------
    chosen : (m,) int64
        Ascending; the first and the last are among them.
    deviation : float
        How far, at most, what is left out is from the line through those chosen, in the same
        units, to within a pixel of `PIXELS`.
    """
    n = len(x)
    if n <= 2:
        return np.arange(n), 0.0
    cells = np.round(np.stack([x, y]) * PIXELS)
    apart = np.append(True, (np.diff(cells, axis=1) != 0).any(axis=0))
    apart[-1] = True
    kept = np.flatnonzero(apart)
    x, y = x[kept], y[kept]
    chosen = {0, len(kept) - 1}
    waiting: list[tuple[float, int, int, int]] = []

    def wait(first: int, last: int) -> None:
        """Note where between two points of the line it is farthest from the straight one."""
        if last - first > 1:
            far, at = _farthest(x[first : last + 1], y[first : last + 1])
            heapq.heappush(waiting, (-far, first, first + at, last))

    wait(0, len(kept) - 1)
    while waiting and len(chosen) < most and -waiting[0][0] > tolerance:
        _, first, at, last = heapq.heappop(waiting)
        chosen.add(at)
        wait(first, at)
        wait(at, last)
    return kept[sorted(chosen)], -waiting[0][0] if waiting else 0.0


def _farthest(x: Floats, y: Floats) -> tuple[float, int]:
    """Return how far points (n,) are at most from the segment between the outer two, and which."""
    across, up = x[-1] - x[0], y[-1] - y[0]
    length = across * across + up * up
    from_x, from_y = x - x[0], y - y[0]
    along = np.clip((from_x * across + from_y * up) / length, 0.0, 1.0) if length else 0.0
    distance = np.hypot(from_x - along * across, from_y - along * up)
    at = int(distance[1:-1].argmax()) + 1
    return float(distance[at]), at

"""Charts drawn of characters: sparklines and bars, for terminals and Markdown."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

LEVELS = "▁▂▃▄▅▆▇█"
INFINITE = "∞"
WIDTH = 60  # characters of a sparkline
BAR = 24  # characters of the longest bar; of a signed one, half of them to either side
# One character for one, so that columns stay where they are.
ASCII = str.maketrans(f"{LEVELS}│∞→…–▼▲◆⋮×·\xa0", "_.-:=+*#|!>~-v^o:x. ")


def encodable(text: str, encoding: str) -> str:
    """Return text in characters that an encoding has, one for one."""
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        text = text.translate(ASCII).encode(encoding, "replace").decode(encoding)
    return text


def sparkline(values: Sequence[float | None], width: int = WIDTH) -> str:
    """Draw values as a line of blocks: the lowest is the lowest block, the highest the highest.

    Parameters
    ----------
    values : sequence of float or None
    width : int
        The most characters: where there are more values, each character is the mean of a few.

    Returns
    -------
    str
        None and NaN are spaces; a stretch with an infinite value and no finite one is ∞. All
        equal: blocks of middle height.
    """
    places = min(len(values), width)
    means: list[float | None] = []
    for k in range(places):
        some = values[k * len(values) // places : (k + 1) * len(values) // places]
        known = [v for v in some if v is not None and not math.isnan(v)]
        finite = [v for v in known if math.isfinite(v)]
        means.append(math.fsum(finite) / len(finite) if finite else math.inf if known else None)
    finite = [m for m in means if m is not None and math.isfinite(m)]
    low, high = (min(finite), max(finite)) if finite else (0.0, 0.0)

    def block(mean: float | None) -> str:
        if mean is None:
            return " "
        if math.isinf(mean):
            return INFINITE
        if high == low:
            return LEVELS[3]
        # Halves, for the difference of two numbers may be more than there is.
        part = (mean / 2 - low / 2) / (high / 2 - low / 2)
        return LEVELS[min(int(part * len(LEVELS)), len(LEVELS) - 1)]

    return "".join(map(block, means))


def pointers(n: int, marks: Iterable[tuple[int, str]], width: int = WIDTH) -> str:
    """Return the line below a sparkline of n values with a sign at each marked position."""
    places = min(n, width)
    line = [" "] * places
    for position, sign in marks:
        # The character that holds the value, by the same bounds as those of `sparkline`.
        at = next(k for k in range(places) if position < (k + 1) * n // places)
        line[at] = sign if line[at] == " " else "◆"
    return "".join(line).rstrip()


def bar(value: float | None, largest: float, width: int = BAR) -> str:
    """Draw a share of the largest value; what is not finite and positive is nothing."""
    if value is None or not math.isfinite(value) or not largest > 0:
        return ""
    size = round(width * max(value, 0.0) / largest)
    return "█" * min(size, width)


def balance(value: float | None, largest: float, width: int = BAR) -> str:
    """Draw a signed number: to the right of the middle where it is positive."""
    half = width // 2
    drawn = bar(abs(value), largest, half) if value is not None else ""
    negative = value is not None and value < 0
    left, right = (drawn, "") if negative else ("", drawn)
    return f"{left.rjust(half)}│{right.ljust(half)}"

"""Rows to look at, counted, the first of each kind named: invalid ones, and infinite losses."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastdiv.errors import DataError
from fastdiv.sources import Layout
from fastdiv_kernels.contract import REASON, Array, Reason

PLACES_NAMED = 5  # of invalid rows, for each reason
WORDS = {
    Reason.NAN: "NaN in the predictions",
    Reason.POSITIVE_INFINITY: "+inf in the predictions",
    Reason.CONTRADICTS_KIND: "values that contradict the kind",
    Reason.NO_MASS: "no mass: every class is 0 or -inf",
    Reason.LABEL: "label missing or out of range",
    Reason.NULL: "null predictions",
    Reason.LENGTH: "wrong number of classes",
}
REMEDY = {
    Reason.CONTRADICTS_KIND: "give the right --kind",
    Reason.LENGTH: "the class count must not change within a data set",
    Reason.LABEL: "give the right --label, or the names of the classes with --class-names",
}


class InvalidRows:
    """What was invalid in the parts of a data set, and which losses were infinite."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.counts: Counter[Reason] = Counter()
        self.places: dict[Reason, list[str]] = {}
        self.structural: dict[int, dict[Reason, tuple[int, str]]] = {}  # by part
        self.part_rows: Counter[int] = Counter()
        self.infinite = 0
        self.infinite_places: list[str] = []

    def note_infinite(self, loss: Array, place: Callable[[int], str]) -> None:
        """Count the rows whose loss (n,) is infinite."""
        if not len(loss) or loss.max() < np.inf:  # which is not so of NaN
            return
        where = np.flatnonzero(np.isposinf(loss))
        self.infinite += len(where)
        room = PLACES_NAMED - len(self.infinite_places)
        self.infinite_places += [place(i) for i in where[:room]]

    def note(
        self, part: int, status: NDArray[np.uint8], labels: NDArray[np.int32],
        place: Callable[[int], str],
    ) -> None:  # fmt: skip
        """Count the invalid among rows of a part, all of whose rows are counted elsewhere."""
        reasons = status & REASON
        if not reasons.any():
            return
        for reason in (Reason(int(r)) for r in np.unique(reasons) if r):
            where = np.flatnonzero(reasons == reason)
            self.counts[reason] += len(where)
            places = self.places.setdefault(reason, [])
            places += [place(i) for i in where[: PLACES_NAMED - len(places)]]
            if reason == Reason.LABEL:  # one that is missing says nothing of the others
                where = where[labels[where] >= 0]
            if reason in REMEDY and len(where):
                counts = self.structural.setdefault(part, {})
                n, first = counts.get(reason) or (0, place(where[0]))
                counts[reason] = (n + len(where), first)

    def refuse(self, status: NDArray[np.uint8], place: Callable[[int], str]) -> None:
        """Refuse rows of which one is invalid."""
        reasons = status & REASON
        if reasons.any():
            reason = Reason(int(np.unique(reasons[reasons != 0])[0]))
            first = int(np.flatnonzero(reasons == reason)[0])
            raise DataError(
                f"{place(first)}: {WORDS[reason]}{self._column(reason)}: mend the row, or leave "
                "out --strict to count it and go on"
            )

    def _column(self, reason: Reason) -> str:
        layout = self.layout
        if reason == Reason.LABEL:
            return f" (column {layout.label!r}, classes 0 to {layout.classes - 1})"
        names = layout.predictions
        return f" (column {names[0]!r})" if len(names) == 1 else f" (columns {names[0]!r} …)"

    def check_structure(self) -> None:
        """Refuse parts most of whose rows are of another kind or class count."""
        for part, counts in self.structural.items():
            for reason, (bad, where) in counts.items():
                if 2 * bad > self.part_rows[part]:
                    raise DataError(
                        f"{where}: {WORDS[reason]}{self._column(reason)}, as in {bad:,} of "
                        f"{self.part_rows[part]:,} rows there: {REMEDY[reason]}"
                    )

    def merge(self, other: InvalidRows, where: str = "") -> None:
        """Add what was invalid elsewhere; `where` goes before its places."""
        self.counts += other.counts
        self.part_rows += other.part_rows
        self.infinite += other.infinite
        room = PLACES_NAMED - len(self.infinite_places)
        self.infinite_places += [where + place for place in other.infinite_places[:room]]
        for reason, places in other.places.items():
            mine = self.places.setdefault(reason, [])
            mine += [where + place for place in places[: PLACES_NAMED - len(mine)]]
        for part, counts in other.structural.items():
            known = self.structural.setdefault(part, {})
            for reason, (n, first) in counts.items():
                before, place = known.get(reason, (0, where + first))
                known[reason] = (before + n, place)

    def pack(self) -> dict[str, Any]:
        """Return what is known as plain containers."""
        return {
            "counts": {int(reason): n for reason, n in self.counts.items()},
            "places": {int(reason): list(places) for reason, places in self.places.items()},
            "structural": {
                part: {int(reason): list(found) for reason, found in counts.items()}
                for part, counts in self.structural.items()
            },
            "part_rows": dict(self.part_rows),
            "infinite": self.infinite,
            "infinite_places": list(self.infinite_places),
        }

    @classmethod
    def unpack(cls, layout: Layout, packed: Mapping[str, Any]) -> InvalidRows:
        """Make it again of plain containers."""
        invalid = cls(layout)
        invalid.counts.update({Reason(r): n for r, n in packed["counts"].items()})
        invalid.places = {Reason(r): list(places) for r, places in packed["places"].items()}
        invalid.structural = {
            part: {Reason(r): (n, first) for r, (n, first) in counts.items()}
            for part, counts in packed["structural"].items()
        }
        invalid.part_rows.update(packed["part_rows"])
        invalid.infinite = packed["infinite"]
        invalid.infinite_places = list(packed["infinite_places"])
        return invalid

    def summary(self) -> dict[str, Any]:
        """Say what was invalid; JSON can hold it."""
        return {
            "n": sum(self.counts.values()),
            "reasons": [
                {
                    "reason": reason.name.lower(),
                    "in_words": WORDS[reason],
                    "n": n,
                    "first": self.places[reason],
                }
                for reason, n in sorted(self.counts.items())
            ],
        }


@dataclass(slots=True)
class Tally:
    """How many rows came, how many bytes they had, and what was invalid."""

    invalid: InvalidRows
    rows: int = 0
    nbytes: int = 0

    def add(self, other: Tally, where: str = "") -> None:
        """Add what came elsewhere; `where` goes before the places it names."""
        self.invalid.merge(other.invalid, where)
        self.rows += other.rows
        self.nbytes += other.nbytes

    def copy(self, where: str = "") -> Tally:
        """Return the same, to go on by itself."""
        tally = Tally(InvalidRows(self.invalid.layout))
        tally.add(self, where)
        return tally

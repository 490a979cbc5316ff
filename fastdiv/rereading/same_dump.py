"""Whether a source is the dump that a run was made from: by all that its stored scores tell."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from fastdiv.errors import DataError, UsageError
from fastdiv.rereading.epoch_rows import ScoredRows, taken
from fastdiv.sources import Source
from fastdiv_kernels.contract import REASON

if TYPE_CHECKING:
    from fastdiv.explain.evidence import Ints, Side
    from fastdiv.run import Run

LOSS_AGREES = 1e-5  # nats a sample: what backends may differ by, and rows that count as the same


def listed(names: Iterable[Any], most: int = 10) -> str:
    """Write some of several names for a person."""
    words = list(map(str, names))
    return ", ".join(words[:most]) + (f" … ({len(words)})" if len(words) > most else "")


@dataclass(slots=True)
class Seen:
    """What was seen of the epoch, to be compared with the run, and where the issues are."""

    counts: Ints  # (3, c): samples by label, by prediction, and right ones by label
    n: int = 0
    n_invalid: int = 0
    n_infinite: int = 0
    loss: float = 0.0  # nats, the sum of the finite ones
    rows: int = 0
    positions: list[Ints] = field(default_factory=list)  # of issues, in the order of the rows
    ids: list[pa.Array] = field(default_factory=list)  # of issues

    def add(self, rows: ScoredRows) -> None:
        """Add rows, which must come in order."""
        scores = rows.scores
        valid = np.flatnonzero((scores.status & REASON) == 0)
        loss = scores.loss[valid].astype(np.float64)
        self.counts += _counts(rows.labels[valid], scores.predicted[valid], self.counts.shape[1])
        self.n += len(valid)
        self.n_invalid += len(rows) - len(valid)
        self.n_infinite += int(np.isinf(loss).sum())
        self.loss += float(loss[np.isfinite(loss)].sum())
        self.positions.append(self.rows + rows.found)
        if rows.ids is not None:
            self.ids.append(pa.array(taken(rows.ids, rows.found)))
        self.rows += len(rows)


def _counts(labels: Any, predicted: Any, classes: int) -> Ints:
    """Return (3, c): samples by label, by prediction, and right ones by label."""
    each = (labels, predicted, labels[labels == predicted])
    return np.stack([np.bincount(some, minlength=classes) for some in each])


def check_layout(data: Source, run: Run, by_position: bool) -> None:
    """Refuse what is not read as it was for the run."""
    layout, summary = data.layout, run.summary
    if layout.classes != summary["classes"]:
        raise DataError(
            f"{layout.classes} classes here, {summary['classes']} in the run: give the dump it was "
            "made from"
        )
    kind = layout.kind.name.lower()
    if kind != summary["kind"]:
        raise UsageError(f"the kind is {kind} here, {summary['kind']} in the run: leave kind out")
    if (layout.id is None) != by_position:
        told = ("by position", "by ids")
        raise UsageError(
            f"samples are told apart {told[layout.id is not None]} here, {told[not by_position]} "
            "in the run: give the same id as for analyze"
        )
    names = summary["class_names"]
    if None not in (names, layout.class_names) and list(layout.class_names or ()) != names:
        raise DataError(
            f"classes are named {listed(layout.class_names or (), 3)} here, {listed(names, 3)} in "
            "the run: give the dump it was made from, and the same class_names"
        )


def check_same(seen: Seen, side: Side, epoch: str) -> None:
    """Refuse a dump that the run was not made from."""

    def refuse(here: str, there: str) -> None:
        raise DataError(
            f"this is not the dump the run was made from: {epoch} has {here} here, {there} in the "
            "run: give the same source and options"
        )

    if seen.n != len(side):
        refuse(f"{seen.n} valid samples", f"{len(side)}")
    wanted = _counts(side.labels, side.predicted, side.classes)
    words = "with label", "predicted as", "rightly predicted as"
    if (seen.counts != wanted).any():
        of, k = np.argwhere(seen.counts != wanted)[0]
        refuse(f"{seen.counts[of, k]} samples {words[of]} class {k}", f"{wanted[of, k]}")
    n_infinite = int(np.isinf(side.loss).sum())
    if seen.n_infinite != n_infinite:
        refuse(f"{seen.n_infinite} infinite losses", f"{n_infinite}")
    loss = float(side.loss[np.isfinite(side.loss)].sum())
    if abs(seen.loss - loss) > LOSS_AGREES * (seen.n + abs(loss)):
        n = seen.n - n_infinite
        refuse(f"a mean loss of {seen.loss / n:.6g} nats", f"{loss / n:.6g}")

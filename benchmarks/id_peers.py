"""From sample ids to their slots, in batches as the engine takes them.

Each function takes ids (n,) int64 and returns what is timed: a call that finds the slot of every
sample, and returns ``{0: (a sum over the slots that knows their order, how many there are)}``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.turns import pieces_of

if TYPE_CHECKING:
    from fastdiv.ledger import Ledger

Found = dict[int, tuple[float, float]]
Check = Callable[[], Found]
Run = Callable[[], Check]


def same_order(ids: Any) -> Run:
    """Match the ids of an epoch with those of the one before, which came alike."""
    ledger = _filled(ids)
    return lambda: _matched(ledger, ids)


def shuffled(ids: Any) -> Run:
    """Match them in another order, as in all epochs but the first of a shuffled dump."""
    ledger, others = _filled(ids), _in_other_order(ids)
    return lambda: _matched(ledger, others)


def shuffled_anew(ids: Any) -> Run:
    """Match them in the second epoch: the ledger is filled and its table built each time."""
    others = _in_other_order(ids)
    return lambda: _matched(_filled(ids), others)


def polars_join(ids: Any) -> Run:
    """Join what comes to what is known; a left join keeps the order of what comes."""
    import polars as pl

    known = pl.DataFrame({"id": ids, "slot": np.arange(len(ids), dtype=np.int32)})
    coming = pl.DataFrame({"id": _in_other_order(ids)})

    def run() -> Check:
        slots = coming.join(known, on="id", how="left", maintain_order="left")["slot"]
        return lambda: _found([slots.to_numpy()])

    return run


def _in_other_order(ids: Any) -> Any:
    return np.random.default_rng(4).permutation(ids)


def _batches(n: int) -> list[slice]:
    from fastdiv.sources import layout

    return pieces_of(n, layout.BATCH_ROWS)


def _filled(ids: Any) -> Ledger:
    from fastdiv.ledger import Ledger

    ledger = Ledger(len(ids))
    for rows in _batches(len(ids)):
        ledger.slots(ids[rows], rows.stop - rows.start, rows.start)
    return ledger


def _matched(ledger: Ledger, ids: Any) -> Check:
    """Find the slots, and let go of each batch's: the engine uses them at once."""

    def slots() -> Iterator[Any]:
        for rows in _batches(len(ids)):
            yield ledger.slots(ids[rows], rows.stop - rows.start, rows.start)

    def check() -> Found:
        return _found(
            [np.arange(of.start, of.stop) if isinstance(of, slice) else of for of in slots()]
        )

    for _ in slots():
        pass
    return check


def _found(slots: list[Any]) -> Found:
    """Weigh each slot by where it came, so that a wrong order shows."""
    of_all = np.concatenate(slots).astype(np.int64)
    weights = np.arange(len(of_all), dtype=np.int64) % 1009
    return {0: (float(np.dot(of_all, weights)), float(len(of_all)))}

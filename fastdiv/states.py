"""Mergeable totals of stored scores: arrays of int64 that are added.

Every state is a commutative monoid: `zero` is its identity and `merge` adds, without rounding,
so no batch size, number of threads or order of merging changes a bit of what is made from it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass, fields
from typing import Any, Protocol, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from fastdiv.stored import Stored
from fastdiv_kernels import exact
from fastdiv_kernels.contract import (
    BINS,
    CONFIDENCE_EDGES,
    GRID,
    LOSS_EDGES,
    MARGIN_EDGES,
    Backend,
    Cell,
    Count,
    LossSum,
    PairCount,
    Reason,
    TallySum,
)

Int64s = NDArray[np.int64]
CLASS_COUNTS = ("support", "predicted", "true_positive", "infinite")


class Mergeable:
    """Adds the arrays of two states; those whose name ends in `sums` are exact sums."""

    def add(self, other: Self) -> None:
        """Add another state in place: fewer than 2**30 rows until the next `merge`."""
        for f in fields(self):  # type: ignore[arg-type]
            mine = getattr(self, f.name)
            mine += getattr(other, f.name)

    def carried(self) -> Self:
        """Return the same with all sums in canonical form."""
        return self._made_of({f.name: getattr(self, f.name).copy() for f in fields(self)})  # type: ignore[arg-type]

    def merge(self, other: Self) -> Self:
        """Return the state of both parts of the data."""
        return self._made_of(
            {f.name: getattr(self, f.name) + getattr(other, f.name) for f in fields(self)}  # type: ignore[arg-type]
        )

    def _made_of(self, arrays: Mapping[str, Int64s]) -> Self:
        """Return a state of arrays that are nobody else's, with sums in canonical form."""
        return type(self)(
            **{name: exact.carry(x) if name.endswith("sums") else x for name, x in arrays.items()}
        )

    def pack(self) -> dict[str, bytes]:
        """Return the arrays as bytes."""
        return {f.name: getattr(self, f.name).tobytes() for f in fields(self)}  # type: ignore[arg-type]

    def unpack(self, packed: Mapping[str, bytes]) -> Self:
        """Return a state of the shape of this one from bytes."""
        arrays = {}
        for f in fields(self):  # type: ignore[arg-type]
            shape = getattr(self, f.name).shape
            arrays[f.name] = np.frombuffer(packed[f.name], np.int64).reshape(shape).copy()
        return type(self)(**arrays)


@dataclass(slots=True)
class EpochTotals(Mergeable):
    """Totals of one epoch."""

    counts: Int64s  # (len(Count),)
    bins: Int64s  # (BINS, 2): rows, right rows
    loss_sums: Int64s  # (len(LossSum), k)
    sums: Int64s  # (BIN_CONFIDENCE + BINS, k32)
    tempered_counts: Int64s  # (1,): rows whose loss at other temperatures is known
    tempered_sums: Int64s  # (2 * len(GRID), LIMBS_FIXED): losses on the grid, then derivatives

    @classmethod
    def zero(cls, loss_dtype: np.dtype[Any]) -> Self:
        """Return the totals of nothing."""
        return cls(
            np.zeros(len(Count), np.int64),
            np.zeros((BINS, 2), np.int64),
            exact.zeros(len(LossSum), loss_dtype),
            exact.zeros(TallySum.BIN_CONFIDENCE + BINS, np.dtype(np.float32)),
            np.zeros(1, np.int64),
            np.zeros((2 * len(GRID), exact.LIMBS_FIXED), np.int64),
        )

    def absorb(self, kernels: Backend, x: Stored) -> None:
        """Add stored scores."""
        kernels.tally(
            x.loss, x.confidence, x.margin, x.brier, x.flags,
            self.counts, self.bins, self.loss_sums, self.sums,
        )  # fmt: skip
        if x.has_profile:
            kernels.tally_temperatures(
                x.loss, x.margin, x.flags, x.profile, x.classes,
                self.tempered_counts, self.tempered_sums,
            )  # fmt: skip

    @property
    def n(self) -> int:
        """Samples, valid or not."""
        return int(self.counts[: len(Reason)].sum())

    @property
    def invalid(self) -> int:
        """Samples that are in no mean."""
        return int(self.counts[1 : len(Reason)].sum())

    def count(self, which: Count) -> int:
        """Return one of the counts."""
        return int(self.counts[which])

    @property
    def finite_loss_sum(self) -> Int64s:
        """The exact sum (k,) of the finite losses."""
        return np.asarray(self.loss_sums[LossSum.RIGHT] + self.loss_sums[LossSum.WRONG])


@dataclass(slots=True)
class PairTotals(Mergeable):
    """Totals of the same samples in two epochs."""

    counts: Int64s  # (len(PairCount),)
    delta_sums: Int64s  # (len(Cell), k): loss after - loss before

    @classmethod
    def zero(cls, loss_dtype: np.dtype[Any]) -> Self:
        """Return the totals of nothing."""
        return cls(np.zeros(len(PairCount), np.int64), exact.zeros(len(Cell), loss_dtype))

    def absorb(self, kernels: Backend, before: Stored, after: Stored) -> None:
        """Add the stored scores of the same slots in two epochs."""
        kernels.transitions(
            before.loss, before.predicted, before.labels, before.flags,
            after.loss, after.predicted, after.labels, after.flags,
            self.counts, self.delta_sums,
        )  # fmt: skip

    def count(self, which: PairCount | Cell) -> int:
        """Return one of the counts."""
        return int(self.counts[which])

    @property
    def n(self) -> int:
        """Samples in a cell."""
        return int(self.counts[: len(Cell)].sum())


@dataclass(slots=True)
class ClassTotals(Mergeable):
    """Totals of one epoch by class."""

    counts: Int64s  # (c, len(CLASS_COUNTS))
    loss_sums: Int64s  # (c, k): finite losses of the class

    @classmethod
    def zero(cls, classes: int, loss_dtype: np.dtype[Any]) -> Self:
        """Return the totals of nothing."""
        return cls(
            np.zeros((classes, len(CLASS_COUNTS)), np.int64), exact.zeros(classes, loss_dtype)
        )

    def absorb(self, kernels: Backend, x: Stored) -> None:
        """Add stored scores."""
        kernels.tally_classes(x.loss, x.predicted, x.labels, x.flags, self.counts, self.loss_sums)


@dataclass(slots=True)
class RowTotals:
    """Totals of rows of one epoch, and of each class."""

    epoch: EpochTotals
    classes: ClassTotals

    @classmethod
    def zero(cls, loss_dtype: np.dtype[Any], classes: int) -> Self:
        """Return the totals of nothing."""
        return cls(EpochTotals.zero(loss_dtype), ClassTotals.zero(classes, loss_dtype))

    def absorb(self, kernels: Backend, x: Stored) -> None:
        """Add stored scores."""
        self.epoch.absorb(kernels, x)
        self.classes.absorb(kernels, x)

    def add(self, other: Self) -> None:
        """Add others in place: fewer than 2**30 rows until the next `merge`."""
        self.epoch.add(other.epoch)
        self.classes.add(other.classes)

    def carried(self) -> Self:
        """Return the same with all sums in canonical form."""
        return type(self)(self.epoch.carried(), self.classes.carried())

    def merge(self, other: Self) -> Self:
        """Return the totals of both parts of the rows."""
        return type(self)(self.epoch.merge(other.epoch), self.classes.merge(other.classes))


@dataclass(slots=True)
class Distributions(Mergeable):
    """How confidence, loss and margin of one epoch are distributed: the wrong, then the right."""

    counts: Int64s  # (2,): rows, rows whose loss is not finite
    confidences: Int64s  # (2, bins of CONFIDENCE_EDGES)
    losses: Int64s  # (2, bins of LOSS_EDGES)
    margins: Int64s  # (2, bins of MARGIN_EDGES)
    bins: Int64s  # (BINS, 2): rows, right rows
    loss_sums: Int64s  # (bins of LOSS_EDGES, k): finite losses
    confidence_sums: Int64s  # (BINS, k32)

    @classmethod
    def zero(cls, loss_dtype: np.dtype[Any]) -> Self:
        """Return the distributions of nothing."""
        return cls(
            np.zeros(2, np.int64),
            np.zeros((2, len(CONFIDENCE_EDGES) - 1), np.int64),
            np.zeros((2, len(LOSS_EDGES) - 1), np.int64),
            np.zeros((2, len(MARGIN_EDGES) - 1), np.int64),
            np.zeros((BINS, 2), np.int64),
            exact.zeros(len(LOSS_EDGES) - 1, loss_dtype),
            exact.zeros(BINS, np.dtype(np.float32)),
        )

    def absorb(self, kernels: Backend, x: Stored) -> None:
        """Add stored scores."""
        kernels.distributions(
            x.loss, x.confidence, x.margin, x.flags,
            self.counts, self.confidences, self.losses, self.margins, self.bins,
            self.loss_sums, self.confidence_sums,
        )  # fmt: skip


class Merges(Protocol):
    """What can be totalled in parts."""

    def merge(self, other: Self) -> Self:
        """Return the state of both parts of the data."""
        ...


State = TypeVar("State", bound=Merges)


def total(
    zero: Callable[[], State],
    absorb: Callable[[State, int], None],
    blocks: Iterable[range],
    pool: Executor,
) -> State:
    """Absorb blocks on a pool, a run of blocks a task, and merge what the tasks found."""

    def task(run: range) -> State:
        state = zero()
        for block in run:
            absorb(state, block)
        return state

    result = zero()
    for state in pool.map(task, blocks):
        result = result.merge(state)
    return result

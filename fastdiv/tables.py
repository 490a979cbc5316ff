"""From the store to epochs, transitions, samples and classes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from fastdiv.disk import extend, write_at
from fastdiv.epoch_file import EpochFile
from fastdiv.errors import UsageError
from fastdiv.ledger import Ledger
from fastdiv.metrics import EpochRow, PairRow
from fastdiv.states import Distributions, EpochTotals, PairTotals, RowTotals, total
from fastdiv.store import OPEN_FILES, Store
from fastdiv.stored import Stored
from fastdiv_kernels.contract import DYNAMICS, Array, Backend

MOST_BLOCKS = 1 << 14  # of a task: 2**30 samples, as many as exact sums take without a carry
ROWS_AT_ONCE = 1 << 16  # of `samples`
EPOCHS_AT_ONCE = OPEN_FILES // 2


@dataclass(slots=True)
class Samples:
    """One split: its samples and what is stored of them."""

    split: str | None
    ids: pa.Array  # (n,) in slot order
    labels: NDArray[np.int32]  # (n,) the ledger's
    store: Store

    @classmethod
    def of(cls, split: str | None, ledger: Ledger, store: Store) -> Samples:
        """Take what has been read so far; nothing is copied."""
        return cls(split, ledger.ids(), ledger.labels[: ledger.n], store)

    def __len__(self) -> int:
        return len(self.labels)

    def runs(self, tasks: int) -> list[range]:
        """Divide the blocks among tasks."""
        blocks = -(-len(self) // self.store.block)
        size = min(MOST_BLOCKS, max(1, -(-blocks // tasks)))
        return [range(b, min(b + size, blocks)) for b in range(0, blocks, size)]

    def read(self, file: EpochFile, block: int) -> Stored:
        """Return the stored scores of a block of an epoch."""
        first = block * file.block
        n = min(file.block, len(self) - first)
        return file.read(block, n, self.labels[first : first + n])


@dataclass(slots=True)
class StepTotals:
    """Totals of an epoch and of the step that led to it, from one pass over what is stored."""

    rows: RowTotals
    pair: PairTotals  # of nothing where no epoch is before

    @classmethod
    def zero(cls, loss_dtype: np.dtype[Any], classes: int) -> StepTotals:
        """Return the totals of nothing."""
        return cls(RowTotals.zero(loss_dtype, classes), PairTotals.zero(loss_dtype))

    def absorb(self, kernels: Backend, after: Stored, before: Stored | None = None) -> None:
        """Add the stored scores of a block of slots."""
        self.rows.absorb(kernels, after)
        if before is not None:
            self.pair.absorb(kernels, before, after)

    def merge(self, other: StepTotals) -> StepTotals:
        """Return the totals of both parts of the data."""
        return StepTotals(self.rows.merge(other.rows), self.pair.merge(other.pair))


Totals = TypeVar("Totals", EpochTotals, StepTotals, Distributions, PairTotals)


def step_totals(
    kernels: Backend, samples: Samples, before: int | None, epoch: int, classes: int,
    rows: RowTotals | None, pool: Executor, tasks: int,
) -> StepTotals:  # fmt: skip
    """Total an epoch and, where one is before, the transitions from it.

    `rows` are totals of the epoch, if they are known.
    """
    loss_dtype = samples.store.loss_dtype
    if rows is None:
        zero = partial(StepTotals.zero, loss_dtype, classes)
        epochs = [epoch] if before is None else [epoch, before]
        return _total(zero, kernels, samples, epochs, pool, tasks)
    rows = rows.carried()
    if before is None:
        return StepTotals(rows, PairTotals.zero(loss_dtype))
    return StepTotals(rows, _pair_totals(kernels, samples, before, epoch, pool, tasks))


def epoch_row(
    kernels: Backend, samples: Samples, epoch: int, classes: int, pool: Executor, tasks: int
) -> EpochRow:
    """Total an epoch."""
    zero = partial(EpochTotals.zero, samples.store.loss_dtype)
    totals = _total(zero, kernels, samples, [epoch], pool, tasks)
    return EpochRow(samples.split, epoch, totals, classes)


def distributions(
    kernels: Backend, samples: Samples, epoch: int, pool: Executor, tasks: int
) -> Distributions:
    """Count how confidence, loss and margin of an epoch are distributed."""
    zero = partial(Distributions.zero, samples.store.loss_dtype)
    samples.store.epoch(epoch).read_ahead(("loss", "confidence", "margin", "flags"))
    return _total(zero, kernels, samples, [epoch], pool, tasks)


def pair_row(
    kernels: Backend, samples: Samples, before: EpochRow, after: EpochRow, pool: Executor,
    tasks: int,
) -> PairRow:  # fmt: skip
    """Total the transitions between two epochs."""
    totals = _pair_totals(kernels, samples, before.epoch, after.epoch, pool, tasks)
    return PairRow(samples.split, before, after, totals)


def _pair_totals(
    kernels: Backend, samples: Samples, before: int, after: int, pool: Executor, tasks: int
) -> PairTotals:
    zero = partial(PairTotals.zero, samples.store.loss_dtype)
    return _total(zero, kernels, samples, [before, after], pool, tasks)


def _total(
    zero: Callable[[], Totals], kernels: Backend, samples: Samples, epochs: list[int],
    pool: Executor, tasks: int,
) -> Totals:  # fmt: skip
    """Total what is stored of some epochs, which a state absorbs together, block by block."""
    files = [samples.store.epoch(epoch) for epoch in epochs]
    for file in files:
        file.map()  # before the threads: they would each do it

    def absorb(totals: Totals, block: int) -> None:
        totals.absorb(kernels, *(samples.read(file, block) for file in files))

    return total(zero, absorb, samples.runs(tasks), pool)


class History:
    """The record of each sample over the epochs.

    In memory where it is carried on as epochs are forgotten, for which a file takes twice as long
    as all else (`--scores rolling`); in a file, written once, where all epochs are at hand. Epochs
    that are still stored are waited with until somebody asks.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.n = 0
        self.last: int | None = None  # epoch that it goes to; None: it has none yet
        self._memory: Array = np.zeros(0, DYNAMICS)
        self._torn = False  # records in memory are of some epoch in part

    @classmethod
    def of(cls, records: Array, last: int | None) -> History:
        """Go on from the records (n,) of all samples, after an epoch."""
        history = cls(None)
        history._memory, history.n, history.last = records.copy(), len(records), last
        return history

    def waiting(self, epochs: Iterable[int]) -> list[int]:
        """Return those of some epochs that it does not hold yet, in order."""
        return sorted(epoch for epoch in epochs if self.last is None or epoch > self.last)

    def records(self) -> Array:
        """Return the records (n,) of all samples."""
        if self.path is None:
            return self._memory[: self.n]
        return np.memmap(self.path, DYNAMICS, "r", shape=(self.n,))

    def carry_on(
        self, kernels: Backend, samples: Samples, epochs: Sequence[int], pool: Executor, tasks: int
    ) -> None:
        """Add epochs, which must come in order, to the history of each sample."""
        n = len(samples)
        if self._torn:
            raise UsageError(
                "an epoch was interrupted while the records of the samples were carried on: load "
                "a state from before it, or begin anew"
            )
        if self.path is None and n > len(self._memory):
            before, self._memory = self._memory, np.zeros(n, DYNAMICS)
            self._memory[: len(before)] = before
        elif self.path is not None and n:
            extend(self.path, n * DYNAMICS.itemsize)
        self.n = n
        for first in range(0, len(epochs), EPOCHS_AT_ONCE):  # so many files are mapped
            group = epochs[first : first + EPOCHS_AT_ONCE]
            files = [samples.store.epoch(epoch) for epoch in group]

            def task(run: range, group: Sequence[int] = group, files: Any = files) -> None:
                for block in run:
                    rows = slice(
                        block * samples.store.block, min((block + 1) * samples.store.block, n)
                    )
                    records = self._load(rows)
                    for epoch, file in zip(group, files, strict=True):
                        x = samples.read(file, block)
                        kernels.dynamics(
                            epoch, x.loss, x.margin, x.predicted, x.labels, x.flags, records
                        )
                    self._keep(rows, records)

            self._torn = self.path is None
            list(pool.map(task, samples.runs(tasks)))
            self._torn = False
            self.last = group[-1]

    def _load(self, rows: slice) -> Array:
        if self.path is None:
            return self._memory[rows]
        place = rows.start * DYNAMICS.itemsize
        return np.fromfile(self.path, DYNAMICS, rows.stop - rows.start, offset=place)

    def _keep(self, rows: slice, records: Array) -> None:
        if self.path is not None:
            with self.path.open("r+b", buffering=0) as file:
                write_at(file.fileno(), records.view(np.uint8), rows.start * DYNAMICS.itemsize)


def sample_schema(id_type: pa.DataType, named: bool) -> pa.Schema:
    """Return the schema of `samples`."""
    class_type = pa.string() if named else pa.int32()
    return pa.schema(
        [
            ("split", pa.string()),
            ("sample_id", id_type),
            ("label", class_type),
            ("n_epochs", pa.int64()),
            ("n_correct", pa.int64()),
            ("learned", pa.bool_()),
            ("first_learned", pa.int64()),
            ("forgetting_events", pa.int64()),
            ("confidence", pa.float64()),
            ("variability", pa.float64()),
            ("aum", pa.float64()),
            ("last_loss", pa.float64()),
            ("last_predicted", class_type),
            ("last_correct", pa.bool_()),
        ]
    )


def sample_batches(
    samples: Samples, history: History, names: tuple[str, ...] | None, schema: pa.Schema
) -> Iterator[pa.RecordBatch]:
    """Make the rows of `samples` of a split, sorted by id."""
    n = len(samples)
    if not n:
        return
    records = history.records()
    order = pc.sort_indices(samples.ids).to_numpy()
    ids = samples.ids.cast(schema.field("sample_id").type)
    for start in range(0, n, ROWS_AT_ONCE):
        rows = order[start : start + ROWS_AT_ONCE]
        yield _sample_rows(samples.split, ids.take(pa.array(rows)), records[rows], names, schema)


def _sample_rows(
    split: str | None, ids: pa.Array, r: Array, names: tuple[str, ...] | None, schema: pa.Schema
) -> pa.RecordBatch:
    never = r["n_epochs"] == 0
    with np.errstate(invalid="ignore", divide="ignore"):
        variability = np.sqrt(r["m2_p"] / r["n_epochs"])
        aum = r["margin_sum"] / r["n_margin"]

    def nullable(values: Any, missing: Any) -> pa.Array:
        return pa.array(values, mask=missing)

    def class_(values: Any) -> pa.Array:
        index = pa.array(values, pa.int32(), mask=never)
        return index if names is None else pa.array(names, pa.string()).take(index)

    return pa.record_batch(
        [
            pa.array([split] * len(r), pa.string()),
            ids,
            class_(r["label"]),
            pa.array(r["n_epochs"].astype(np.int64)),
            pa.array(r["n_right"].astype(np.int64)),
            pa.array(r["n_right"] > 0),
            nullable(r["first_right"], r["n_right"] == 0),
            pa.array(r["forgetting"].astype(np.int64)),
            nullable(r["mean_p"], never),
            nullable(variability, never),
            nullable(aum, r["n_margin"] == 0),
            nullable(r["last_loss"], never),
            class_(r["last_predicted"]),
            nullable(r["last_predicted"] == r["label"], never),
        ],
        schema=schema,
    )

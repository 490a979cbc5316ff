"""Chunk, Batch, Scores: what flows from a source through a kernel into the store."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from fastdiv.markup import grid, panel, paragraph
from fastdiv_kernels.contract import Array

IdValues: TypeAlias = (
    NDArray[np.int64] | NDArray[np.uint64] | pa.Array
)  # strings as Arrow large_string, bytes as large_binary

REASON = 7  # the bits of a status that say why a row is invalid
FIRST = 5  # rows that notebooks show


@dataclass(frozen=True, slots=True)
class Chunk:
    """Where one piece of work lies; known before anything is read, small, picklable."""

    part: int  # which file, table or array of the source
    row_group: int
    rows: int | None  # None: only reading tells
    split: str | None = None  # None: there is none, or a column holds it
    epoch: int | None = None  # None: a column holds it


@dataclass(slots=True)
class Batch:
    """Rows of a chunk in memory, checked and converted, in the form kernels take."""

    chunk: Chunk
    start: int  # of these rows within the chunk
    pieces: list[Array]  # predictions, (m, c) each: float16, BFLOAT16, float32 or float64, C order
    labels: NDArray[np.int32]  # (n,), negative where there is no valid label
    ids: IdValues | None  # (n,), None where position identifies a sample
    epochs: NDArray[np.int64] | int  # (n,) or one for all
    splits: pa.Array | None  # (n,) strings, or None: the chunk's split
    problems: NDArray[np.uint8] | None  # (n,) a Reason that only the source could see, else 0
    nbytes: int  # of predictions, labels and ids, as they came

    @property
    def predictions(self) -> Array:
        """Return the predictions (n, c) as one array, a copy where they lie in several."""
        return self.pieces[0] if len(self.pieces) == 1 else np.concatenate(self.pieces)


@dataclass(slots=True)
class Scores:
    """What a kernel found for each of n samples.

    Attributes
    ----------
    loss : (n,) float32, float64 for float64 predictions
        Log-loss (natural-log cross-entropy) in nats, unclipped, possibly infinite.
    correct : (n,) bool
        Whether `predicted` is the label.
    predicted : (n,) int32
        The lowest index that attains the maximum; -1 where the row is invalid.
    confidence : (n,) float32
        Probability of `predicted`.
    margin : (n,) float32
        Log-probability of the label minus the largest other one; for logits the difference of
        the logits (the margin of AUM, Pleiss et al. 2020, arXiv:2001.10528).
    brier : (n,) float32
        Sum over classes of (p - onehot)**2, in [0, 2] (Brier 1950).
    rank : (n,) int32
        Number of classes ahead of the label, ties ahead when their index is lower; -1 where
        the row is invalid.
    status : (n,) uint8
        0 for an ordinary row. ``status & 7`` is the `fastdiv_kernels.contract.Reason` for which
        a row is invalid; its loss, confidence, margin and Brier score are then NaN. Bit 3 marks
        probabilities whose sum is off, bit 4 a tie for the maximum.
    profile : (n, k) float16 or None
        What a loss at any other temperature is made from (see `fastdiv_kernels.contract`), for
        the store; None where nothing is to be kept, as in the results of `score`.
    """

    loss: Array
    correct: NDArray[np.bool_]
    predicted: NDArray[np.int32]
    confidence: NDArray[np.float32]
    margin: NDArray[np.float32]
    brier: NDArray[np.float32]
    rank: NDArray[np.int32]
    status: NDArray[np.uint8]
    profile: NDArray[np.float16] | None = None

    def __len__(self) -> int:
        return len(self.status)

    def _repr_html_(self) -> str:
        valid = (self.status & REASON) == 0
        finite = valid & np.isfinite(self.loss)
        means = {
            "mean loss, nats": self.loss[finite],
            "accuracy": self.correct[valid],
            "mean confidence": self.confidence[valid],
            "mean Brier score": self.brier[valid],
        }
        told = [f"{len(self):,} rows scored"]
        for n, words in (
            (np.count_nonzero(~valid), "invalid, in no mean"),
            (np.count_nonzero(valid & ~finite), "with an infinite loss, not in that of the loss"),
        ):
            told += [f"{n:,} {words}"] * bool(n)
        values = [f"{x.mean(dtype=np.float64):.4f}" if len(x) else "–" for x in means.values()]
        names = [name for name in self.__dataclass_fields__ if name != "profile"]
        first = [
            [str(i), *(f"{x[i]:.4g}" if x.dtype.kind == "f" else str(x[i]) for x in self.arrays())]
            for i in range(min(len(self), FIRST))
        ]
        return panel(
            paragraph("; ".join(told), strong=True),
            grid(list(means), [values]),
            grid(["row", *names], first) if first else "",
        )

    @classmethod
    def empty(
        cls, n: int, predictions_dtype: np.dtype[np.generic],
        empty: Callable[[int, Any], Any] = np.empty,
    ) -> Scores:  # fmt: skip
        """Make room for the scores of n predictions of a dtype, in arrays that `empty` makes."""
        return cls(
            loss=empty(n, np.float64 if predictions_dtype == np.float64 else np.float32),
            correct=empty(n, np.bool_),
            predicted=empty(n, np.int32),
            confidence=empty(n, np.float32),
            margin=empty(n, np.float32),
            brier=empty(n, np.float32),
            rank=empty(n, np.int32),
            status=empty(n, np.uint8),
        )

    def on_host(self) -> Scores:
        """Return the same in the memory of the host; these, where they lie there already."""
        if not hasattr(self.loss, "get"):  # as arrays of CuPy have
            return self
        arrays: list[Any] = [*self.arrays(), self.profile]
        found: list[Any] = [None if x is None else x.get() for x in arrays]
        return Scores(*found)

    def rows(self, start: int, stop: int) -> Scores:
        """Return views of the scores of some rows."""
        return self.take(slice(start, stop))

    def take(self, rows: slice | NDArray[np.int64]) -> Scores:
        """Return the scores of some rows."""
        taken = Scores(*(x[rows] for x in self.arrays()))
        if self.profile is not None:
            taken.profile = self.profile[rows]
        return taken

    def arrays(self) -> tuple[Array, ...]:
        """Return the arrays that `score` writes, in the order in which kernels take them."""
        return (
            self.loss, self.correct, self.predicted, self.confidence, self.margin, self.brier,
            self.rank, self.status,
        )  # fmt: skip

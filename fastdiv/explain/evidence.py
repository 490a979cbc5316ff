"""Evidence: the stored scores of a split, as the arrays that explanations are computed from.

Samples come in the order of their ids, so that no order of rows, chunks or threads can change
what is computed from them, down to the last bit.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, fields, replace
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from fastdiv.errors import UsageError
from fastdiv.explain.pair import epochs_in_words
from fastdiv.stored import Stored
from fastdiv.tables import Samples
from fastdiv_kernels.contract import CORRECT, PRESENT, REASON, VECTORS_UP_TO, Backend

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
MOST_READ = 4  # epochs held in memory


@dataclass(frozen=True, slots=True)
class Side:
    """Scores of samples in one epoch; all of them are valid.

    Attributes
    ----------
    epoch : int
    classes : int
    labels, predicted : (n,) int32
    loss : (n,) float64
        Nats, unclipped unless the run was; infinite where the label got probability 0.
    correct : (n,) bool
    confidence, brier : (n,) float64
    margin : (n,) float32
        Log-probability of the label minus the largest other one; infinite where one of them is.
    profile : (n, k) float16
        What is kept of the vectors, see `fastdiv_kernels.contract`; k is 0 for two classes.
    has_profile : bool
        False where nothing was kept of the vectors of more than two classes
        (``scores="slim"``, and runs saved by versions that kept nothing).
    kernels : Backend
    """

    epoch: int
    classes: int
    labels: NDArray[np.int32]
    loss: Floats
    correct: Bools
    predicted: NDArray[np.int32]
    confidence: Floats
    margin: NDArray[np.float32]
    brier: Floats
    profile: NDArray[np.float16]
    has_profile: bool
    kernels: Backend

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows: Ints | Bools) -> Side:
        """Return some samples, by index or mask."""
        if rows.dtype == np.bool_ and rows.all():
            return self
        arrays = {
            f.name: getattr(self, f.name)[rows]
            for f in fields(self)
            if isinstance(getattr(self, f.name), np.ndarray)
        }
        return replace(self, **arrays)

    @property
    def has_vectors(self) -> bool:
        """Whether the probability of every class is known: of 2 classes, and of up to 16."""
        return self.classes == 2 or (self.has_profile and self.classes <= VECTORS_UP_TO)

    @property
    def finite(self) -> Bools:
        """Which samples (n,) have a finite loss, at every temperature."""
        return np.isfinite(self.loss) & (self.margin > -np.inf)

    @property
    def gap(self) -> Floats:
        """How far (n,) the label's logit is below the highest one; 0 where it is that."""
        return np.maximum(0.0, -self.margin.astype(np.float64))

    def temper(self, beta: float) -> Floats:
        """Return (n, 3): log-partition function at an inverse temperature, and two derivatives.

        ``s = log(sum(exp(beta * (z - max(z)))))`` and its first and second derivative by
        ``log(beta)``; the loss of ``softmax(beta * z)`` is ``s + beta * gap``. Inverse
        temperatures below 1/8 are taken as 1/8, above 4 as 4.

        Raises
        ------
        UsageError
            Where the vectors were not kept.
        """
        if not self.has_profile:
            raise UsageError(
                "what a loss at other temperatures is made from was not kept (--scores slim): "
                "analyze again with --scores all"
            )
        tempered = np.empty((len(self), 3))
        profile = np.ascontiguousarray(self.profile)
        margin = np.ascontiguousarray(self.margin)
        self.kernels.temper(margin, profile, self.classes, beta, tempered)
        return tempered

    def log_probabilities(self) -> Floats | None:
        """Return (n, c) log-probabilities, renormalised; None where the vectors were not kept.

        They are there for two classes, and for up to 16 unless scores are slim; from 16-bit
        differences of logits, so relative to the largest they are good to 5e-4 of themselves.
        """
        n, c = len(self), self.classes
        if not self.has_vectors:
            return None
        if c == 2:
            x = np.zeros((n, 2))
            lower = np.where(self.correct, 1 - self.labels, self.labels)
            x[np.arange(n), lower] = -np.abs(self.margin.astype(np.float64))
        else:
            x = self.profile.astype(np.float64)
        return np.asarray(x - np.log(np.exp(x).sum(axis=1, keepdims=True)))


@dataclass(frozen=True, slots=True)
class Pair:
    """The same samples in two epochs: valid in both, with the same label.

    Attributes
    ----------
    split : str or None
    before, after : Side
        n samples each, in the same order.
    ids : pa.Array
        (n,) the samples' ids, ascending.
    class_names : tuple of str, or None
    n_only_before, n_only_after : int
        Samples of one of the epochs alone.
    n_invalid, n_relabelled : int
        Samples of both that are left out.
    """

    split: str | None
    before: Side
    after: Side
    ids: pa.Array
    class_names: tuple[str, ...] | None
    n_only_before: int = 0
    n_only_after: int = 0
    n_invalid: int = 0
    n_relabelled: int = 0

    def __len__(self) -> int:
        return len(self.before)

    @property
    def labels(self) -> NDArray[np.int32]:
        """The labels (n,)."""
        return self.before.labels

    @property
    def finite(self) -> Bools:
        """Which samples (n,) have a finite loss in both epochs."""
        return self.before.finite & self.after.finite

    @property
    def delta(self) -> Floats:
        """The change (n,) in loss, in nats; NaN where it is not finite."""
        with np.errstate(invalid="ignore"):
            delta = self.after.loss - self.before.loss
        return np.where(np.isfinite(delta), delta, np.nan)

    def take(self, rows: Ints | Bools) -> Pair:
        """Return some samples, by index or mask."""
        which = pa.array(rows)
        if rows.dtype == np.bool_ and rows.all():
            return self
        ids = self.ids.filter(which) if rows.dtype == np.bool_ else self.ids.take(which)
        return replace(self, before=self.before.take(rows), after=self.after.take(rows), ids=ids)


class Evidence:
    """The stored scores of one split.

    Parameters
    ----------
    samples : Samples
    class_names : tuple of str, or None
    kernels : Backend
    threads : int
        How many may work at once on what is totalled block by block.
    """

    def __init__(
        self, samples: Samples, class_names: tuple[str, ...] | None, kernels: Backend,
        threads: int = 1,
    ) -> None:  # fmt: skip
        self.samples = samples
        self.class_names = class_names
        self.kernels = kernels
        self.threads = threads
        self._read: OrderedDict[int, Stored] = OrderedDict()

    @property
    def epochs(self) -> list[int]:
        """The epochs whose scores are stored."""
        return sorted(self.samples.store.files)

    @cached_property
    def _order(self) -> Ints:
        """The slots (n,) in the order of their ids."""
        return np.asarray(pc.sort_indices(self.samples.ids).to_numpy().astype(np.int64))

    @cached_property
    def ids(self) -> pa.Array:
        """The ids (n,) of all samples, ascending."""
        return self.samples.ids.take(pa.array(self._order))

    def check(self, epoch: int) -> None:
        """Raise UsageError where no scores of an epoch are stored."""
        if epoch not in self.samples.store.files:
            kept = epochs_in_words(self.epochs)
            raise UsageError(f"no scores of epoch {epoch} are stored: there are {kept}")

    def _stored(self, epoch: int) -> Stored:
        """Return what is stored of an epoch, (n,) in the order of ids."""
        if epoch not in self._read:
            self.check(epoch)
            file = self.samples.store.epoch(epoch)
            blocks = -(-len(self.samples) // file.block)
            parts = [self.samples.read(file, block) for block in range(blocks)]
            whole = Stored.joined(parts) if parts else file.read(0, 0, self.samples.labels)
            ordered = bool((np.diff(self._order) == 1).all())
            self._read[epoch] = whole if ordered else whole.take(self._order)
            if len(self._read) > MOST_READ:
                self._read.popitem(last=False)
        self._read.move_to_end(epoch)
        return self._read[epoch]

    def valid(self, epoch: int) -> Bools:
        """Which of all samples (n,) are there and valid in an epoch."""
        return np.asarray((self._stored(epoch).flags & (PRESENT | REASON)) == PRESENT)

    def side(self, epoch: int, rows: Bools | None = None) -> Side:
        """Return the scores of an epoch: of its valid samples, or of some of these."""
        taken = self.valid(epoch) if rows is None else rows
        x = self._stored(epoch)
        x = x if taken.all() else x.take(np.flatnonzero(taken))
        return Side(
            epoch, x.classes, x.labels, x.loss.astype(np.float64), (x.flags & CORRECT) != 0,
            x.predicted, x.confidence.astype(np.float64), x.margin, x.brier.astype(np.float64),
            x.profile, x.has_profile, self.kernels,
        )  # fmt: skip

    def pair(self, a: int, b: int) -> Pair:
        """Return the samples that are valid in two epochs, with the same label."""
        before, after = self._stored(a), self._stored(b)
        here, there = ((x.flags & PRESENT) != 0 for x in (before, after))
        both = here & there
        valid = self.valid(a) & self.valid(b)
        rows = valid & (before.labels == after.labels)
        return Pair(
            self.samples.split, self.side(a, rows), self.side(b, rows),
            self.ids.filter(pa.array(rows)), self.class_names,
            n_only_before=int((here & ~there).sum()), n_only_after=int((there & ~here).sum()),
            n_invalid=int((both & ~valid).sum()), n_relabelled=int((valid & ~rows).sum()),
        )  # fmt: skip


def across(before: Evidence, a: int, after: Evidence, b: int) -> Pair:
    """Return the samples of two splits that have the same id, valid in an epoch of each.

    Labels must be the same, as between epochs.

    Raises
    ------
    UsageError
        Where the ids of the splits are of different types.
    """
    if before.ids.type != after.ids.type:
        raise UsageError(
            f"ids of {before.samples.split} are {before.ids.type}, of {after.samples.split} "
            f"{after.ids.type}: no sample is in both"
        )
    place = pc.index_in(after.ids, value_set=before.ids)
    there = np.asarray(place.is_valid().to_numpy(zero_copy_only=False))
    here = place.drop_null().to_numpy().astype(np.int64)  # ascends, as both are in order
    x, y = before._stored(a), after._stored(b)
    rows = np.flatnonzero(there)
    valid = before.valid(a)[here] & after.valid(b)[rows]
    same = valid & (x.labels[here] == y.labels[rows])
    first, second = np.zeros(len(before.ids), np.bool_), np.zeros(len(after.ids), np.bool_)
    first[here[same]] = second[rows[same]] = True
    return Pair(
        after.samples.split, before.side(a, first), after.side(b, second),
        after.ids.filter(pa.array(second)), after.class_names,
        n_only_before=len(before.ids) - len(here), n_only_after=len(after.ids) - len(rows),
        n_invalid=int((~valid).sum()), n_relabelled=int((valid & ~same).sum()),
    )  # fmt: skip

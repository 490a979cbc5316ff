"""Dynamics: what the history of each sample over training says of a split.

What reads the run's `samples` takes the rows of one split: loss and accuracy are those of each
sample's last valid epoch (``last_loss``, ``last_correct``), and samples without a valid epoch are
left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from fastdiv.errors import UsageError
from fastdiv.explain.evidence import Bools, Floats, Ints

TOP_SHARE = 0.33  # that Swayamdipta et al. take of each region


class Region(IntEnum):
    """A region of a data map."""

    EASY = 0  # easy to learn: the highest confidence
    AMBIGUOUS = 1  # the highest variability
    HARD = 2  # hard to learn: the lowest confidence
    BETWEEN = 3  # in none of these
    UNSEEN = 4  # without a valid epoch


@dataclass(frozen=True, slots=True)
class Forgetting:
    """Learning and forgetting (Toneva et al., arXiv:1812.05159) of the samples of a split.

    A forgetting event is a valid epoch in which a sample is wrong that was right in the one
    before.

    Attributes
    ----------
    n : int
        Samples with a valid epoch.
    n_never_learned : int
        Right in no epoch. Toneva et al. count these as forgotten infinitely often.
    n_unforgettable : int
        Learned, and never forgotten since.
    n_forgotten : int
        Learned, and forgotten once at least: n is the sum of these three.
    mean_events : float or None
        Forgetting events a sample that was learned; None if none was.
    events : pyarrow.Table
        Of the learned, by number of events: ``forgetting_events``, ``n``, ``share`` (of all n),
        ``loss`` (mean, nats, infinite if any is), ``loss_finite``, ``accuracy``. Ascending.
    first_learned : pyarrow.Table
        ``epoch`` in which samples were right for the first time, ``n``, ``share``,
        ``cumulative_share``. Ascending; of epochs that occur.
    """

    n: int
    n_never_learned: int
    n_unforgettable: int
    n_forgotten: int
    mean_events: float | None
    events: pa.Table
    first_learned: pa.Table


def region_of(
    samples: pa.Table, share: float = TOP_SHARE, *, ambiguous_first: bool = True
) -> NDArray[np.int8]:
    """Return the `Region` (n,) of each sample: dataset cartography.

    Swayamdipta et al., arXiv:2009.10795, take the third of the samples with the highest mean
    probability of the label as easy to learn, the third with the lowest as hard to learn, and the
    third with the highest standard deviation of it as ambiguous. These overlap; here each sample
    is in one region. Of equals at a cut, lower ids are hard and not ambiguous, higher ones are not
    hard but easy or ambiguous.

    Parameters
    ----------
    samples : pyarrow.Table
    share : float
        Of the samples with a valid epoch that each region takes, rounded down; at most 1/2.
    ambiguous_first : bool
        Whether a sample of two regions is ambiguous, else easy or hard.
    """
    seen, chosen = _selections(samples, share)
    return _resolved(len(samples), seen, chosen, ambiguous_first)


def regions(
    samples: pa.Table, share: float = TOP_SHARE, *, ambiguous_first: bool = True
) -> pa.Table:
    """Describe the regions of a data map; see `region_of`.

    Returns
    -------
    pyarrow.Table
        Rows easy, ambiguous, hard, between: ``region``, ``n``, ``n_selected`` (before overlaps
        were resolved; null for between), ``share``, ``loss`` (mean, nats, infinite if any is),
        ``loss_finite``, ``accuracy``, and the means of ``confidence``, ``variability`` and
        ``forgetting_events``; null of no samples.
    """
    seen, chosen = _selections(samples, share)
    region = _resolved(len(samples), seen, chosen, ambiguous_first)
    kept = [Region.EASY, Region.AMBIGUOUS, Region.HARD, Region.BETWEEN]
    inside = [np.flatnonzero(region == r) for r in kept]
    means = {
        name: _means(_column(samples, name), inside)
        for name in ("confidence", "variability", "forgetting_events")
    }
    return pa.table(
        {
            "region": pa.array([r.name.lower() for r in kept]),
            "n": pa.array([len(rows) for rows in inside], pa.int64()),
            "n_selected": pa.array([len(chosen[r]) if r in chosen else None for r in kept]),
            "share": _shares([len(rows) for rows in inside], len(seen)),
            **_outcome(samples, inside),
            **means,
        }
    )


def forgetting(samples: pa.Table) -> Forgetting:
    """Count who was learned when, and who was forgotten how often."""
    seen = _seen(samples)
    learned = _flags(samples, "learned") & seen
    events = _column(samples, "forgetting_events").astype(np.int64)
    n, n_learned = int(seen.sum()), int(learned.sum())
    rows = np.flatnonzero(learned)
    numbers, groups = _grouped(events[rows], rows)
    first = _column(samples, "first_learned")[rows].astype(np.int64)
    epochs, counts = np.unique(first, return_counts=True)
    forgotten = int((learned & (events > 0)).sum())
    return Forgetting(
        n=n,
        n_never_learned=n - n_learned,
        n_unforgettable=n_learned - forgotten,
        n_forgotten=forgotten,
        mean_events=float(events[rows].mean()) if n_learned else None,
        events=pa.table(
            {
                "forgetting_events": pa.array(numbers),
                "n": pa.array([len(g) for g in groups], pa.int64()),
                "share": _shares([len(g) for g in groups], n),
                **_outcome(samples, groups),
            }
        ),
        first_learned=pa.table(
            {
                "epoch": pa.array(epochs),
                "n": pa.array(counts),
                "share": _shares(counts.tolist(), n),
                "cumulative_share": _shares(np.cumsum(counts).tolist(), n),
            }
        ),
    )


def oscillation(samples: pa.Table, epochs: Sequence[int]) -> pa.Table:
    """Count how often each sample's correctness changed from one epoch to the next.

    From the record alone: who is right at first and at last has been learned again as often as
    forgotten, so that the changes are ``2 * forgetting_events + last_correct - first_correct``.
    That takes samples that are valid in all epochs; others are left out.

    Parameters
    ----------
    samples : pyarrow.Table
    epochs : sequence of int
        All epochs of the split.

    Returns
    -------
    pyarrow.Table
        ``changes``, ``n``, ``share`` (of the samples in all epochs), ``loss``, ``loss_finite``,
        ``accuracy``; ascending.
    """
    if not epochs:
        raise UsageError("no epochs: give all epochs of the split")
    everywhere = _seen(samples) & (_column(samples, "n_epochs") == len(set(epochs)))
    first_right = _flags(samples, "learned") & (_column(samples, "first_learned") == min(epochs))
    last_right = _flags(samples, "last_correct")
    changes = (
        2 * _column(samples, "forgetting_events").astype(np.int64)
        + last_right.astype(np.int64)
        - first_right.astype(np.int64)
    )
    rows = np.flatnonzero(everywhere)
    numbers, groups = _grouped(changes[rows], rows)
    sizes = [len(g) for g in groups]
    return pa.table(
        {
            "changes": pa.array(numbers),
            "n": pa.array(sizes, pa.int64()),
            "share": _shares(sizes, len(rows)),
            **_outcome(samples, groups),
        }
    )


def flips(transitions: pa.Table) -> pa.Table:
    """Tell how much correctness and predictions changed from epoch to epoch.

    Parameters
    ----------
    transitions : pyarrow.Table
        The run's `transitions`, of any splits.

    Returns
    -------
    pyarrow.Table
        ``split``, ``epoch_from``, ``epoch_to``, ``n``; ``positive_flips`` (wrong to right) and
        ``negative_flips`` (right to wrong); ``positive_flip_rate``, ``negative_flip_rate``,
        ``oscillation`` (the share whose correctness changed), ``churn`` (the share whose
        prediction changed), and ``net_share``, the change in accuracy divided by the oscillation:
        of the flips, how much is not undone by opposite ones, from -1 to 1. Null of nothing.
    """
    up, down, n = (transitions[name].to_numpy() for name in ("wr", "rw", "n"))
    changed = up + down
    return pa.table(
        {
            **{name: transitions[name] for name in ("split", "epoch_from", "epoch_to", "n")},
            "positive_flips": transitions["wr"],
            "negative_flips": transitions["rw"],
            "positive_flip_rate": _ratio(up, n),
            "negative_flip_rate": _ratio(down, n),
            "oscillation": _ratio(changed, n),
            "churn": transitions["churn"],
            "net_share": _ratio(up - down, changed),
        }
    )


def _selections(samples: pa.Table, share: float) -> tuple[Ints, dict[Region, Ints]]:
    """Return the rows with a valid epoch, and those that each region takes, overlapping."""
    if not 0 < share <= 0.5:
        raise UsageError(f"the share of a region is above 0 and at most 0.5, not {share}")
    seen = np.flatnonzero(_seen(samples))
    k = int(share * len(seen))
    by_confidence, by_variability = (
        seen[np.argsort(_column(samples, name)[seen], kind="stable")]
        for name in ("confidence", "variability")
    )
    return seen, {
        Region.EASY: by_confidence[len(seen) - k :],
        Region.AMBIGUOUS: by_variability[len(seen) - k :],
        Region.HARD: by_confidence[:k],
    }


def _resolved(
    n: int, seen: Ints, chosen: dict[Region, Ints], ambiguous_first: bool
) -> NDArray[np.int8]:
    """Put each of n samples into one region."""
    region = np.full(n, Region.UNSEEN, np.int8)
    region[seen] = Region.BETWEEN
    ranked = [Region.AMBIGUOUS, Region.EASY, Region.HARD]
    for r in reversed(ranked) if ambiguous_first else ranked:  # the last one stays
        region[chosen[r]] = r
    return region


def _column(samples: pa.Table, name: str) -> Floats:
    """Return a column (n,) of numbers, 0 for null."""
    if name not in samples.column_names:
        raise UsageError(f"there is no column {name!r}: give the run's samples")
    column = samples[name]
    return np.asarray(pc.fill_null(column, pa.scalar(0, column.type)).to_numpy())


def _flags(samples: pa.Table, name: str) -> Bools:
    """Return a column (n,) of truth values, False for null."""
    return np.asarray(pc.fill_null(samples[name], False).to_numpy())


def _seen(samples: pa.Table) -> Bools:
    """Return which samples (n,) have a valid epoch."""
    if "split" in samples.column_names and pc.count_distinct(samples["split"], "all").as_py() > 1:
        raise UsageError("the samples are of several splits: give the rows of one")
    return _column(samples, "n_epochs") > 0


def _grouped(keys: Ints, rows: Ints) -> tuple[Ints, list[Ints]]:
    """Return the keys that occur, ascending, and the rows of each."""
    order = np.argsort(keys, kind="stable")
    found, starts = np.unique(keys[order], return_index=True)
    return found, np.split(rows[order], starts[1:])[: len(found)]


def _shares(counts: list[int], n: int) -> pa.Array:
    return pa.array([k / n if n else None for k in counts], pa.float64())


def _ratio(part: Ints, whole: Ints) -> pa.Array:
    """Return quotients, null where the divisor is 0."""
    nothing = whole == 0
    return pa.array(part / np.where(nothing, 1, whole), mask=nothing)


def _means(x: Any, groups: list[Ints]) -> pa.Array:
    # Divided first: a sum of finite losses may be above all of float64.
    return pa.array([mean(x[g]) for g in groups], pa.float64())


def mean(x: Any) -> float | None:
    """Return the mean, infinite if any number is; None of nothing."""
    if x.dtype == np.bool_:
        return int(x.sum()) / len(x) if len(x) else None
    return float(np.sum(x / len(x))) if len(x) else None


def _outcome(samples: pa.Table, groups: list[Ints]) -> dict[str, pa.Array]:
    """Return the mean loss, that of the finite losses, and the accuracy, of groups of rows."""
    loss, right = _column(samples, "last_loss"), _flags(samples, "last_correct")
    finite = [g[np.isfinite(loss[g])] for g in groups]
    return {
        "loss": _means(loss, groups),
        "loss_finite": _means(loss, finite),
        "accuracy": _means(right, groups),
    }

"""Concentration: how few samples carry a loss, or a change in it, and which they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from fractions import Fraction
from math import ceil, isinf
from typing import Any

import numpy as np
import pyarrow as pa

from fastdiv.errors import UsageError
from fastdiv.explain.classes.confusions import class_column
from fastdiv.explain.evidence import Bools, Floats, Ints, Pair, Side
from fastdiv.explain.wording import plain_id

SHARES = (0.001, 0.01, 0.05, 0.1)
MOST = 20
TRIMMED = 20  # one in so many is left out at each end: 5 %


@dataclass(frozen=True, slots=True)
class Carried:
    """What the samples that are worst carry.

    Attributes
    ----------
    share : float
        Of the samples.
    k : int
        How many these are: the share of n, rounded up.
    of_total : float or None
        Their share of the total: of the losses, or of the absolute changes. None where the
        total is not positive.
    adds : float or None
        What they add to the mean, in nats. None of no samples.
    of_net : float or None
        ``adds`` over the mean: for changes of both signs it may be above 1 or below 0. None
        where the mean is 0.
    mean_without : float or None
        The mean of all other samples, in nats; None where there are none.
    """

    share: float
    k: int
    of_total: float | None
    adds: float | None
    of_net: float | None
    mean_without: float | None


@dataclass(frozen=True, slots=True)
class Concentration:
    """How few samples carry the total.

    Losses and changes that are not finite are in no number but the counts of them, and come
    first among the worst. Nats, and None of no samples.

    Attributes
    ----------
    n : int
        Samples that all numbers are over: those that are finite.
    n_infinite : int
        Samples with an infinite loss; of a change, in either epoch.
    mean, median : float or None
    trimmed_mean : float or None
        The mean without the ``n // 20`` lowest and as many highest (5 % at each end).
    gini : float or None
        Gini coefficient of the losses, or of the absolute changes: 0 where all are equal, near 1
        where one sample carries all. None where the total is not positive.
    n_half : int or None
        The fewest samples that carry half of the total. None where that is not positive.
    carried : tuple of Carried
    worst : pa.Table
        The samples that carry most, worst first, equals in the samples' order: row (int64, the
        index into the side or pair), id (where known), label and predicted (int32, or string
        where classes have names), loss, confidence. Of a change: row, sample_id, label, delta, and
        loss, predicted and confidence, each with _before and _after.
    """

    n: int
    n_infinite: int
    mean: float | None
    median: float | None
    trimmed_mean: float | None
    gini: float | None
    n_half: int | None
    carried: tuple[Carried, ...]
    worst: pa.Table

    def to_dict(self) -> dict[str, Any]:
        """Return plain Python, for JSON: what is infinite is None, ids that are bytes are hex."""
        found = {field.name: getattr(self, field.name) for field in fields(self)}
        found["carried"] = [
            {field.name: _plain(getattr(c, field.name)) for field in fields(c)}
            for c in self.carried
        ]
        found["worst"] = [
            {name: _plain(value) for name, value in row.items()} for row in self.worst.to_pylist()
        ]
        return found


def concentration(
    side: Side, ids: pa.Array | None = None, shares: Sequence[float] = SHARES, most: int = MOST,
    class_names: tuple[str, ...] | None = None,
) -> Concentration:  # fmt: skip
    """Return how few samples carry the loss of an epoch.

    Parameters
    ----------
    side : Side
    ids : pa.Array, optional
        (n,) the samples' ids.
    shares : sequence of float
        Shares of the samples, above 0 and at most 1.
    most : int
        How many of the worst samples to list.
    class_names : tuple of str, optional

    Returns
    -------
    Concentration
    """
    finite = np.isfinite(side.loss)
    rows = _worst_rows(side.loss, most)
    worst = {"row": pa.array(rows)}
    if ids is not None:
        worst["sample_id"] = _ids(ids, len(side)).take(pa.array(rows))
    worst |= {
        "label": class_column(side.labels[rows], class_names, side.classes),
        "predicted": class_column(side.predicted[rows], class_names, side.classes),
        "loss": pa.array(side.loss[rows]),
        "confidence": pa.array(side.confidence[rows]),
    }
    loss = side.loss if finite.all() else side.loss[finite]
    return _concentration(loss, loss, finite, shares, pa.table(worst))


def concentration_of_change(
    pair: Pair, shares: Sequence[float] = SHARES, most: int = MOST
) -> Concentration:
    """Return how few samples carry the change in loss between two epochs.

    Samples are the worse the larger their change is, up or down. ``mean``, ``median`` and
    ``trimmed_mean`` are of the changes; the total that is shared out is that of the absolute
    changes, and what the same samples add to the net change stands beside it.

    Parameters
    ----------
    pair : Pair
    shares : sequence of float
        Shares of the samples, above 0 and at most 1.
    most : int
        How many of the samples that changed most to list; those whose loss became infinite, or
        ceased to be, come first, and those that did not change are not listed.

    Returns
    -------
    Concentration
    """
    before, after = pair.before, pair.after
    finite = np.isfinite(before.loss) & np.isfinite(after.loss)
    known = np.isfinite(before.loss) | np.isfinite(after.loss)  # inf - inf is no change
    delta = np.subtract(after.loss, before.loss, out=np.zeros(len(pair)), where=known)
    rows = _worst_rows(np.abs(delta), most)
    rows = rows[delta[rows] != 0]
    worst = {
        "row": pa.array(rows),
        "sample_id": pair.ids.take(pa.array(rows)),
        "label": class_column(pair.labels[rows], pair.class_names, pair.before.classes),
        "delta": pa.array(delta[rows]),
    }
    for side, name in ((before, "before"), (after, "after")):
        worst[f"loss_{name}"] = pa.array(side.loss[rows])
        worst[f"predicted_{name}"] = class_column(
            side.predicted[rows], pair.class_names, pair.before.classes
        )
        worst[f"confidence_{name}"] = pa.array(side.confidence[rows])
    delta = delta if finite.all() else delta[finite]
    return _concentration(delta, np.abs(delta), finite, shares, pa.table(worst))


def _concentration(
    values: Floats, sizes: Floats, finite: Bools, shares: Sequence[float], worst: pa.Table
) -> Concentration:
    """Measure values (n,), of which those of the largest sizes (n,) are worst."""
    wrong = [share for share in shares if not 0 < share <= 1]
    if wrong:
        raise UsageError(f"a share of the samples is above 0 and at most 1, not {wrong[0]}")
    n, n_infinite = len(values), len(finite) - len(values)
    if not n:
        none = tuple(Carried(float(share), 0, None, None, None, None) for share in shares)
        return Concentration(0, n_infinite, None, None, None, None, None, none, worst)
    # One sort, 50 ms a million, for what partitions would take 20 ms each.
    ordered = np.sort(sizes)
    middle = (n - 1) // 2, n // 2
    cut = n // TRIMMED
    placed = ordered if values is sizes else np.partition(values, (cut, *middle, n - 1 - cut))
    kept = placed[cut : n - cut]
    mean = float(np.sum(values / n))
    summed = np.cumsum(ordered[::-1] / n)  # divided first: no finite losses add to infinity
    total = float(summed[-1])
    carried = []
    for share in shares:
        k = ceil(Fraction(str(share)) * n)  # 0.07 * 100 > 7
        among = _largest(sizes, k, ordered[n - k])
        adds = float(np.sum(values[among] / n))
        carried.append(
            Carried(
                float(share),
                k,
                of_total=float(summed[k - 1]) / total if total > 0 else None,
                adds=adds,
                of_net=adds / mean if mean else None,
                mean_without=float(np.sum(values[~among] / (n - k))) if k < n else None,
            )
        )
    return Concentration(
        n,
        n_infinite,
        mean,
        median=float(placed[middle[0]] / 2 + placed[middle[1]] / 2),
        trimmed_mean=float(np.sum(kept / len(kept))),
        gini=_gini(ordered) if total > 0 else None,
        # Not a search: the losses of probabilities above 1 are negative, so that sums may fall.
        n_half=int(np.argmax(summed >= total / 2)) + 1 if total > 0 else None,
        carried=tuple(carried),
        worst=worst,
    )


def _gini(ordered: Floats) -> float:
    """Return the Gini coefficient of ascending values (n,) with a positive sum.

    Half the relative mean absolute difference, ``sum(|x[i] - x[j]|) / (2 * n * sum(x))``.
    """
    n = len(ordered)
    parts = ordered / n
    weighted = np.sum(np.arange(1, n + 1) / n * parts)
    return max(0.0, float(2 * weighted / np.sum(parts)) - (n + 1) / n)


def _largest(sizes: Floats, k: int, smallest: float) -> Bools:
    """Tell (n,) which the k largest are, the k-th of them known; equals in order."""
    among: Bools = sizes > smallest
    equals = np.flatnonzero(sizes == smallest)
    among[equals[: k - np.count_nonzero(among)]] = True
    return among


def _worst_rows(sizes: Floats, most: int) -> Ints:
    """Return where the largest (n,) are, the largest first, equals in order."""
    if most < 0:
        raise UsageError(f"the number of samples to list is 0 or more, not {most}")
    k, n = min(most, len(sizes)), len(sizes)
    if not k:
        return np.empty(0, np.int64)
    # 8 ms a million; a stable sort of indices takes 120.
    rows = np.flatnonzero(_largest(sizes, k, np.partition(sizes, n - k)[n - k]))
    return rows[np.argsort(-sizes[rows], kind="stable")]


def _ids(ids: pa.Array, n: int) -> pa.Array:
    if len(ids) != n:
        raise UsageError(f"{len(ids):,} ids do not name {n:,} samples: give one each")
    return ids


def _plain(value: Any) -> Any:
    """Return what JSON can hold of a value."""
    if isinstance(value, float):
        return None if isinf(value) else value
    return None if value is None else plain_id(value)

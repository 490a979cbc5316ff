"""What the numbers of predictions are: logits, probabilities or log-probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from fastdiv.errors import DataError
from fastdiv.scoring import kind_of
from fastdiv.sources.layout import Layout
from fastdiv_kernels.contract import (
    HIGHEST_PROB,
    LOWEST_PROB,
    SUM_TOLERANCE,
    SUM_TOLERANCE_16_BIT,
    Array,
    Kind,
    as_float,
)

MOST = 0.5  # share of sampled rows that decides
FEW = 0.05  # share of sampled rows that may be broken
SUM_OF_A_DISTRIBUTION = 0.05  # a row whose sum is no further from 1 may be probabilities


def settle_kind(
    layout: Layout, samples: Sequence[tuple[Array, str]], asked: str, said: str | None = None
) -> Layout:
    """Find the kind of the predictions from samples (n, c) and the parts that they are of.

    Samples of a single score have shape (n, 1). `said` is the kind that the data's own metadata
    names; what is `asked` for counts before it.
    """
    by_whom = "as asked"
    if asked == "auto" and said is not None:
        asked, by_whom = said, "as the metadata says"
    found = []
    readable = [(sample, where) for sample, where in samples if len(sample)]
    for sample, where in readable or samples:
        try:
            kind, by = _detect_kind(sample, layout, asked)
            found.append((kind, by_whom if by is None else by, where))
        except DataError as error:
            raise DataError(f"{where}: {error}") from None
    kinds = {kind for kind, _, _ in found}
    if len(kinds) > 1:
        said = " but ".join(
            f"{where} holds {kind.name.lower()} ({by})" for kind, by, where in found
        )
        raise DataError(f"predictions change their kind: {said}: give one --kind")
    kind, by, _ = found[0]
    return replace(layout, kind=kind).with_evidence(kind=f"{kind.name.lower()}: {by}")


def _detect_kind(sample: Array, layout: Layout, asked: str) -> tuple[Kind, str | None]:
    """Tell what the numbers of a sample (n, c) are, and by what; None: by what was asked."""
    name = layout.predictions[0]
    tolerance = SUM_TOLERANCE_16_BIT if sample.dtype.itemsize == 2 else SUM_TOLERANCE
    with np.errstate(invalid="ignore"):  # of signalling NaNs
        x = as_float(sample).astype(np.float64)
    x = x[~np.isnan(x).any(axis=1) & (x < np.inf).all(axis=1)]
    if asked != "auto":
        kind = kind_of(asked)
        against = contradicts(x, kind)
        if len(x) and against.mean() > MOST:
            raise DataError(
                f"predictions in {name!r} are said to be {asked}, but hold values from "
                f"{x[against].min():.4g} to {x[against].max():.4g}: give the right --kind"
            )
        return kind, None
    if not len(x):
        raise DataError(f"no sampled row of {name!r} has numbers only: give --kind")
    if layout.positive is not None:
        return _kind_of_score(x, name)
    against = contradicts(x, Kind.PROBS) | (x.max(axis=1) <= 0)  # no mass: zeros are logits
    if against.mean() <= FEW:
        sums = x[~against].sum(axis=1)
        normal = int((abs(sums - 1) <= tolerance).sum())
        near = (abs(sums - 1) <= SUM_OF_A_DISTRIBUTION).mean() > MOST
        if near and (normal > MOST * len(x) or "logit" not in name.lower()):
            how = f"{normal} of {len(x)} sampled rows sum to 1 within {tolerance:g}"
            return Kind.PROBS, f"values lie in [0, 1]; {how}"
        if "prob" in name.lower() and "log" not in name.lower():
            return Kind.PROBS, "values lie in [0, 1]; by the name, for rows do not sum to 1"
        if "logit" in name.lower():
            return Kind.LOGITS, "by the name; values lie in [0, 1], but rows do not sum to 1"
        raise DataError(
            f"predictions in {name!r} lie in [0, 1] but their rows do not sum to 1 "
            f"(the first: {sums[0]:.4g}): give --kind probs or --kind logits"
        )
    against = contradicts(x, Kind.LOGPROBS)
    if against.mean() <= FEW:
        sums = np.exp(x[~against]).sum(axis=1)
        if (abs(sums - 1) <= SUM_OF_A_DISTRIBUTION).mean() > MOST:
            normal = int((abs(sums - 1) <= tolerance).sum())
            how = f"{normal} of {len(x)} sampled rows have exponentials that sum to 1"
            return Kind.LOGPROBS, f"no value above 0; {how} within {tolerance:g}"
    finite = x[np.isfinite(x)]
    return Kind.LOGITS, (
        f"{len(x)} sampled rows hold values from {finite.min():.4g} to {finite.max():.4g}"
    )


def _kind_of_score(x: NDArray[np.float64], name: str) -> tuple[Kind, str]:
    """Tell what single scores (n, 1) of one of two classes are."""
    outside = contradicts(x, Kind.PROBS).mean()
    if outside <= FEW and "logit" not in name.lower():
        return Kind.PROBS, "values lie in [0, 1]"
    by_name = " by the name;" if outside <= FEW else ""
    return Kind.LOGITS, f"{by_name} values from {x.min():.4g} to {x.max():.4g}".strip()


def contradicts(x: NDArray[np.float64], kind: Kind) -> NDArray[np.bool_]:
    """Say which rows (n, c), free of NaN, cannot be of a kind."""
    if kind == Kind.PROBS:
        return np.asarray((x.min(axis=1) < LOWEST_PROB) | (x.max(axis=1) > HIGHEST_PROB))
    if kind == Kind.LOGPROBS:
        return np.asarray(x.max(axis=1) > np.log(HIGHEST_PROB))
    return np.zeros(len(x), np.bool_)

"""Label noise: samples that are wrong where a model is at its best, ranked by how suspect they are.

The experiment: take the epoch with the lowest loss and the one with the highest accuracy. Who is
wrong in both either is hard or has a wrong label, and the history of a sample tells more.

Self-confidence and normalized margin are those of confident learning (Northcutt, Jiang and
Chuang, arXiv:1911.00068, as cleanlab computes them); the area under the margin is that of Pleiss
et al., arXiv:2001.10528, here of log-probabilities; forgetting events that of Toneva et al.,
arXiv:1812.05159.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from fastdiv.errors import UsageError
from fastdiv.explain.classes.confusions import class_column
from fastdiv.explain.evidence import Bools, Floats, Pair, Side
from fastdiv.explain.labels.joint import FUZZ, class_thresholds

RANKINGS = ("score", "self_confidence", "normalized_margin", "aum")
HISTORY = ("n_epochs", "n_correct", "forgetting_events", "aum", "variability")  # of `samples`
HIGHEST_GAP = 745.0  # nats: exp(-745) is the last above 0 in float64, and no gap counts as more


def self_confidence(side: Side) -> Floats:
    """Return the probability (n,) of the label."""
    # 16-bit probabilities may be above 1: exp of at most 0.01.
    return np.asarray(np.exp(-side.loss))


def highest_other(side: Side) -> Floats:
    """Return the highest probability (n,) of a class that is not the label."""
    right = self_confidence(side) * np.exp(-np.maximum(side.margin.astype(np.float64), 0.0))
    return np.where(side.correct, right, side.confidence)


def normalized_margin(side: Side) -> Floats:
    """Return ``(p[label] - max(p[j] for j != label) + 1) / 2`` (n,), from 0 to 1."""
    return (self_confidence(side) - highest_other(side) + 1.0) / 2.0


def suspicion(side: Side) -> Floats:
    """Return the probability of the prediction times how far the label is behind it, in nats.

    ``p[predicted] * (log p[predicted] - log p[label])`` (n,), 0 where the label is ahead: what the
    prediction's likelihood is above the label's, as far as the prediction is believed. It takes a
    model that is sure, like the normalized margin, and a label that it rules out, like
    self-confidence. On people's verdicts on CIFAR-10 (label-errors, 54 wrong labels) it finds 26
    among the first 100, where self-confidence and normalized margin find 24. Of wrong labels
    planted in CIFAR-10, MNIST, 20 Newsgroups and IMDB it finds at least 97 % of what the better
    of these two does, which is the one on CIFAR-10 and the other on 20 Newsgroups. It was chosen
    of ten candidates on these very data, and 26 against 24 is within chance: no worse, not better.
    """
    return side.confidence * np.minimum(side.gap, HIGHEST_GAP)


def wrong_in_both(pair: Pair) -> Bools:
    """Return which samples (n,) are wrong in both epochs: the suspects, and the hard ones."""
    return ~(pair.before.correct | pair.after.correct)


def confident_elsewhere(side: Side) -> Bools:
    """Return which samples (n,) confident learning counts to the class that is predicted.

    They are wrong, and the predicted class has at least the mean probability that its own samples
    give it. These are the `issues` of `fastdiv.explain.labels.joint` but for samples that are below
    that mean while a third class is above its own, to know which takes the vectors.
    """
    p_label = self_confidence(side)
    thresholds = class_thresholds(side.labels, p_label, side.classes)
    behind = side.confidence > p_label + FUZZ
    return ~side.correct & behind & (side.confidence >= thresholds[side.predicted] - FUZZ)


def suspects(
    evidence: Pair | Side, history: pa.Table | None = None, *, ids: pa.Array | None = None,
    rank_by: str = "score", limit: int | None = None,
) -> pa.Table:  # fmt: skip
    """Rank the samples that are wrong in both epochs, the most suspect label first.

    Parameters
    ----------
    evidence : Pair or Side
        The epoch with the lowest loss and the one with the highest accuracy; one Side where it is
        the same one.
    history : pyarrow.Table, optional
        The run's `samples`, in any order. Of several splits, the pair's is taken.
    ids : pyarrow.Array, optional
        The samples' ids (n,) where `evidence` is one Side; their positions if left out.
    rank_by : str
        ``"score"`` (see `suspicion`), ``"self_confidence"``, ``"normalized_margin"`` (each the
        mean of both epochs), or ``"aum"``, which needs a history; of equals, the lower id first.
    limit : int, optional
        How many rows are returned; all where it is left out.

    Returns
    -------
    pyarrow.Table
        ``rank`` (from 1), ``sample_id``, ``label``, ``predicted_before``, ``predicted_after``,
        ``same_prediction``; before and after: ``p_label`` (self-confidence), ``p_predicted``,
        ``normalized_margin``, ``loss`` in nats (infinite where the label got probability 0);
        ``confident``, whether `confident_elsewhere` holds in both; ``n_epochs``, ``n_correct``,
        ``forgetting_events``, ``aum`` and ``variability`` from the history, null without; and
        ``score``, the mean of both epochs, in nats, high where suspect.

    Raises
    ------
    UsageError
        On another ranking, ids of another length, or a history that does not fit.
    """
    if rank_by not in RANKINGS:
        raise UsageError(f"suspects are ranked by one of {', '.join(RANKINGS)}, not {rank_by!r}")
    if rank_by == "aum" and history is None:
        raise UsageError("to rank by aum takes a history: give the run's samples")
    pair = evidence if isinstance(evidence, Pair) else _twice(evidence, ids)
    confident = confident_elsewhere(pair.before) & confident_elsewhere(pair.after)
    wrong = np.flatnonzero(wrong_in_both(pair))
    rows = wrong[np.argsort(_key(rank_by, pair, history)[wrong], kind="stable")[:limit]]
    chosen = pair.take(rows)
    columns = {
        "rank": pa.array(np.arange(1, len(rows) + 1)),
        **_columns(chosen),
        "confident": pa.array(confident[rows]),
        **_history_of(chosen, history),
        "score": pa.array(_mean_of(suspicion, chosen)),
    }
    return pa.table(columns)


def _twice(side: Side, ids: pa.Array | None) -> Pair:
    """Make a pair of one epoch."""
    ids = pa.array(np.arange(len(side))) if ids is None else ids
    if len(ids) != len(side):
        raise UsageError(f"{len(ids)} ids for {len(side)} samples: give one id a sample")
    return Pair(None, side, side, ids, None)


def _mean_of(measure: Callable[[Side], Floats], pair: Pair) -> Floats:
    """Return the mean (n,) of a measure over both epochs."""
    return np.asarray((measure(pair.before) + measure(pair.after)) / 2)


def _key(rank_by: str, pair: Pair, history: pa.Table | None) -> Floats:
    """Return what samples (n,) are sorted by, the most suspect first; NaN comes last."""
    if rank_by == "score":
        return -_mean_of(suspicion, pair)
    if rank_by == "aum":
        aum = _history_of(pair, history)["aum"]
        return np.asarray(aum.to_numpy(zero_copy_only=False), np.float64)
    return _mean_of(self_confidence if rank_by == "self_confidence" else normalized_margin, pair)


def _columns(pair: Pair) -> dict[str, Any]:
    """Return the columns that come from the scores of both epochs."""
    sides = {"before": pair.before, "after": pair.after}
    measures: dict[str, Callable[[Side], Floats]] = {
        "p_label": self_confidence,
        "p_predicted": lambda side: side.confidence,
        "normalized_margin": normalized_margin,
        "loss": lambda side: side.loss,
    }

    def class_(index: NDArray[np.int32]) -> pa.Array:
        return class_column(index, pair.class_names, pair.before.classes)

    return {
        "sample_id": pair.ids,
        "label": class_(pair.labels),
        "predicted_before": class_(pair.before.predicted),
        "predicted_after": class_(pair.after.predicted),
        "same_prediction": pa.array(pair.before.predicted == pair.after.predicted),
        **{
            f"{name}_{when}": pa.array(measure(side))
            for name, measure in measures.items()
            for when, side in sides.items()
        },
    }


def _history_of(pair: Pair, history: pa.Table | None) -> dict[str, pa.Array]:
    """Return what the history tells of the pair's samples, null of those that it lacks."""
    types = {"aum": pa.float64(), "variability": pa.float64()}
    if history is None:
        return {name: pa.nulls(len(pair), types.get(name, pa.int64())) for name in HISTORY}
    missing = sorted({"sample_id", *HISTORY} - set(history.column_names))
    if missing:
        raise UsageError(f"the history has no column {missing[0]!r}: give the run's samples")
    try:
        ids = pair.ids.cast(history["sample_id"].type)
    except pa.ArrowException as error:
        raise UsageError(
            f"the history's ids are {history['sample_id'].type}, those of the samples "
            f"{pair.ids.type}: give the samples of the same run"
        ) from error
    wanted = pc.is_in(history["sample_id"], value_set=ids)
    if pair.split is not None and "split" in history.column_names:
        wanted = pc.and_kleene(wanted, pc.equal(history["split"], pair.split))
    history = history.select(["sample_id", *HISTORY]).filter(wanted)
    known = history["sample_id"].combine_chunks()
    if pc.count_distinct(known).as_py() != len(known):
        raise UsageError("the history has ids more than once: give the samples of one split")
    at = pc.index_in(ids, value_set=known)
    return {
        name: history[name].combine_chunks().take(at).cast(types.get(name, pa.int64()))
        for name in HISTORY
    }

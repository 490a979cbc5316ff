"""Findings: what moves no loss by itself but should be known, each with its statistic."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from fastdiv.explain.accounts.concentration import concentration
from fastdiv.explain.evidence import Bools, Pair, Side
from fastdiv.explain.explanation import Explanation, Finding
from fastdiv.explain.labels.suspects import wrong_in_both
from fastdiv.explain.ranking.change import ranking_change
from fastdiv.explain.training.gap import Fit, gap, no_skill_loss, overfitting
from fastdiv.explain.verdict.outliers import suspected

CONCENTRATED = 0.5  # share of the loss that the worst 1 % must carry to be worth telling
LEAST_SUSPECTS = 3
BIASES = ("imbalance", "threshold", "class_bias")
REPAIRS = {"T": "temperature", "B": "class bias", "N": "label noise"}
THRESHOLD_GIVES_BACK = 0.5  # of the change in accuracy


def findings(pair: Pair, explanation: Explanation) -> list[Finding]:
    """Return what else is worth knowing of two epochs."""
    found = [
        _ranking(pair, explanation),
        _suspects(pair, explanation),
        _concentration(pair),
        _bound(explanation),
    ]
    return [finding for finding in found if finding is not None]


def _ranking(pair: Pair, explanation: Explanation) -> Finding | None:
    """Recognise that accuracy moved and the ranking did not."""
    moved = not explanation.quadrant.endswith("flat")
    # Of more classes only a bias moves accuracy without moving the ranking.
    biased = any(cause.name in BIASES for cause in explanation.causes)
    asked = moved and len(pair) and (biased or pair.before.classes == 2)
    change = ranking_change(pair) if asked else None
    if change is None or not change.unchanged or change.delta_auc is None:
        return None
    assert change.delta_accuracy is not None
    assert change.roc_auc_before is not None
    words = (
        f"accuracy moved by {100 * change.delta_accuracy:+.2f} points but the ranking did not: "
        f"ROC AUC {change.roc_auc_before:.4f} → {change.roc_auc_after:.4f}"
    )
    share = change.threshold_share
    if share is not None and share >= THRESHOLD_GIVES_BACK and change.threshold_after is not None:
        words += (
            f"; a threshold of {change.threshold_after:.3g} instead of .5 gives back "
            f"{min(share, 1):.0%} of it"
        )
    return Finding("ranking_unchanged", asdict(change), f"{words}.")


def _suspects(pair: Pair, explanation: Explanation) -> Finding | None:
    """Count the samples whose label is more likely random than not, in both epochs.

    Only where a floor of random labels explains losses that no temperature does: a calibrated
    model has confident errors too, as many as it says.
    """
    fits = [explanation.repairs[when] for when in ("before", "after") if explanation.repairs]
    if not fits or not all(fit["eta"] for fit in fits):
        return None
    finite = pair.finite
    rows = wrong_in_both(pair) & finite
    for side, fit in zip((pair.before, pair.after), fits, strict=True):
        rows[finite] &= _random(side.take(finite), fit)
    n = int(rows.sum())
    if n < LEAST_SUSPECTS:
        return None
    loss = pair.after.loss
    carried = float(loss[rows].sum()) / float(loss[finite].sum())
    words = (
        f"{n:,} samples ({n / len(pair):.1%}) are so sure of another class in both epochs that "
        f"their label is more likely random than not; they carry {carried:.0%} of the loss: check "
        "them first."
    )
    statistic = {"n": n, "share": n / len(pair), "share_of_loss": carried}
    return Finding("suspects", statistic, words)


def _random(side: Side, fit: Mapping[str, Any]) -> Bools:
    """Tell whose label is more likely random than not, by an epoch's fit."""
    if side.has_profile:
        loss = side.temper(fit["beta"])[:, 0] + fit["beta"] * side.gap
    else:
        loss = side.loss
    return suspected(loss, fit["eta"], side.classes)


def _concentration(pair: Pair) -> Finding | None:
    """Say that a small part of the samples carries most of the loss."""
    if not len(pair):
        return None
    found = concentration(pair.after, shares=(0.01,), most=0)
    worst = found.carried[0]
    if worst.of_total is None or worst.of_total < CONCENTRATED or worst.mean_without is None:
        return None
    assert found.mean is not None
    words = (
        f"{'the worst sample carries' if worst.k == 1 else f'the worst {worst.k:,} samples carry'} "
        f"{worst.of_total:.0%} of the loss: without {'it' if worst.k == 1 else 'them'} the mean is "
        f"{worst.mean_without:.4g} instead of {found.mean:.4g} nats, and the median is "
        f"{found.median:.4g}."
    )
    statistic = {
        "k": worst.k, "share_of_loss": worst.of_total, "mean": found.mean,
        "mean_without": worst.mean_without, "median": found.median, "gini": found.gini,
    }  # fmt: skip
    return Finding("concentrated", statistic, words)


def _bound(explanation: Explanation) -> Finding | None:
    """Say that a repair ended where its search does."""
    at = {when: repair["at_bound"] for when, repair in explanation.repairs.items()}
    if not any(at.values()):
        return None
    parts = [
        f"{', '.join(REPAIRS[name] for name in names)} {when}"
        for when, names in at.items()
        if names
    ]
    words = (
        f"the fit ended at the bound of its range ({'; '.join(parts)}): read its nats as at least"
    )
    return Finding("bound_reached", at, f"{words} that much.")


def beside_training(
    train: Sequence[Mapping[str, Any]],
    val: Sequence[Mapping[str, Any]],
    named: tuple[str | None, str | None],
) -> Finding | None:
    """Call over-fitting by its name, from the epochs of two splits.

    Parameters
    ----------
    train, val : sequence of dict
        Rows of `Run.epochs`.
    named : pair of str
        What the splits are called.
    """
    found = overfitting(train, val, no_skill_loss=no_skill_loss(train))
    if found.epoch is None or found.name in (Fit.FLAT, Fit.UNKNOWN):
        return None
    last = gap(train, val).to_pylist()[-1]
    words = {
        Fit.OVERFITTING: "over-fitting: since epoch {epoch} the loss of {train} moved by "
        "{t:+.4f} nats, that of {val} by {v:+.4f}",
        Fit.DIVERGING: "since epoch {epoch} the loss of {val} rose by {v:.4f} nats, and that of "
        "{train} did not fall ({t:+.4f})",
        Fit.BOTH_FALLING: "over the whole run, the losses of {train} and {val} are both still "
        "falling: it ended before they part",
        Fit.UNDERFITTING: "under-fitting: little of {train} has been learned, and neither loss "
        "moves any more",
    }[found.name].format(
        epoch=found.epoch, train=named[0], val=named[1],
        t=found.train_loss_change or 0.0, v=found.val_loss_change or 0.0,
    )  # fmt: skip
    if last["loss_gap"] is not None and last["accuracy_gap"] is not None:
        words += (
            f" (at the end {named[1]} is {last['loss_gap']:+.4f} nats and "
            f"{100 * last['accuracy_gap']:+.2f} points from {named[0]})"
        )
    return Finding(found.name.value, {**asdict(found), "gap": last}, f"{words}.")

"""What one epoch tells without another to compare it with, in sentences."""

from __future__ import annotations

import math
from typing import Any

from fastdiv.explain.view import SplitView

WORST = "without_worst_1%"


def alone(view: SplitView) -> list[str]:
    """Say what the last epoch with stored scores tells by itself.

    Returns
    -------
    list of str
        Loss and accuracy, beside what the class shares alone would reach; calibration; how few
        samples carry the loss; what suspected labels cost. What is not known is left out.
    """
    kept = view.evidence.epochs
    if not kept:
        return ["No scores are stored: there is nothing but the tables of this report."]
    epoch = kept[-1]
    side = view.side(epoch)
    if not len(side):
        return ["No sample is valid: nothing can be said of loss and accuracy."]
    otherwise = {row["name"]: row for row in view.counterfactuals(epoch).to_pylist()}
    made = [
        _standing(view, epoch, otherwise["as_is"]),
        _confidence(view, epoch),
        _temperature(otherwise),
        _concentration(view, epoch),
        _suspects(otherwise),
        _classes(otherwise),
        _threshold(otherwise),
    ]
    return [said for said in made if said is not None]


def _standing(view: SplitView, epoch: int, as_is: dict[str, Any]) -> str:
    """Say loss and accuracy, beside those of no skill."""
    found = view.imbalance(epoch)
    said = "No finite loss" if as_is["loss"] is None else f"Loss {as_is['loss']:.4f} nats"
    if found.n_infinite:
        samples = "sample" if found.n_infinite == 1 else "samples"
        said += f", without {found.n_infinite:,} {samples} whose loss is infinite"
    said += f"; accuracy {as_is['accuracy']:.2%} of {as_is['n']:,} samples."
    if found.prior_entropy is not None and found.majority_accuracy is not None:
        said += (
            f" Without any skill: always predicting the class shares reaches "
            f"{found.prior_entropy:.4f} nats, always naming the most frequent class "
            f"{found.majority_accuracy:.2%}."
        )
    return said


def _confidence(view: SplitView, epoch: int) -> str | None:
    """Say how far confidence is from accuracy."""
    found = view.calibration(epoch)
    if found.ece is None or found.overconfidence is None or found.underconfidence is None:
        return None
    more = found.overconfidence >= found.underconfidence
    return (
        f"Confidence is {100 * found.ece:.2f} points from accuracy on average (expected "
        f"calibration error, {found.bins} bins), mostly "
        f"{'above' if more else 'below'} it: {'over' if more else 'under'}-confident."
    )


def _temperature(otherwise: dict[str, dict[str, Any]]) -> str | None:
    """Say what the best temperature would save."""
    best, as_is = otherwise.get("best_temperature"), otherwise["as_is"]
    if best is None or best["loss"] is None or as_is["loss"] is None:
        return None
    saved = as_is["loss"] - best["loss"]
    return (
        f"With {best['detail']} the loss would be {best['loss']:.4f} nats (refinement); "
        f"calibration adds {max(saved, 0.0):.4f}."
    )


def _concentration(view: SplitView, epoch: int) -> str | None:
    """Say what the worst samples carry."""
    found = view.concentration(epoch)
    one = next((c for c in found.carried if math.isclose(c.share, 0.01)), None)
    if one is None or one.of_total is None or one.mean_without is None or found.median is None:
        return None
    samples = "sample carries" if one.k == 1 else "samples carry"
    return (
        f"The worst {one.k:,} {samples} {one.of_total:.0%} of the loss: without them the mean is "
        f"{one.mean_without:.4f} nats, and the median is {found.median:.4g}."
    )


def _suspects(otherwise: dict[str, dict[str, Any]]) -> str | None:
    """Say what suspected labels cost."""
    found, as_is = otherwise.get("without_suspects"), otherwise["as_is"]
    if found is None:
        return None
    n = as_is["n"] - found["n"]
    loss = "" if found["loss"] is None else f"loss {found['loss']:.4f} nats, "
    return (
        f"{n:,} {'sample is' if n == 1 else 'samples are'} wrong and surer of another class than "
        f"that class's own samples are on average: check the labels. Without them: {loss}accuracy "
        f"{found['accuracy']:.2%}."
    )


def _classes(otherwise: dict[str, dict[str, Any]]) -> str | None:
    """Say what loss and accuracy are where classes weigh the same."""
    found = otherwise.get("equal_classes")
    if found is None or found["loss"] is None or found["accuracy"] is None:
        return None
    return (
        f"If all classes were equally frequent: loss {found['loss']:.4f} nats, accuracy "
        f"{found['accuracy']:.2%}."
    )


def _threshold(otherwise: dict[str, dict[str, Any]]) -> str | None:
    """Say what another threshold would bring."""
    found, as_is = otherwise.get("best_threshold"), otherwise["as_is"]
    if found is None:
        return None
    return (
        f"With the best threshold on these samples ({found['detail']}): accuracy "
        f"{found['accuracy']:.2%} instead of {as_is['accuracy']:.2%}."
    )

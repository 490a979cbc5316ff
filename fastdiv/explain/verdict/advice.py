"""Advice: what the evidence for a cause is, in a sentence, and one thing to try."""

from __future__ import annotations

from dataclasses import dataclass

from fastdiv.explain.verdict.repairs import Fit

ADVICE = {
    "overconfidence": (
        "Predictions became too sure: scale them with a temperature fitted on held-out data, or "
        "stop earlier, smooth labels or weaken the optimiser's push (weight decay, smaller rate).",
        "Predictions are less over-sure than before: keep what changed; a fitted temperature "
        "takes the rest.",
    ),
    "underconfidence": (
        "Predictions are less sure than they may be: scale them with a fitted temperature, or "
        "train longer, with less label smoothing, mixup or weight decay.",
        "Predictions are less under-sure than before: keep what changed; a fitted temperature "
        "takes the rest.",
    ),
    "borderline_flips": (
        "These samples lie at the boundary and decide little: compare epochs by loss or by a "
        "margin, average the weights of neighbouring epochs, or use more validation samples.",
        "These samples lie at the boundary: do not read much into the accuracy that they gain; "
        "compare epochs by loss, or on more validation samples.",
    ),
    "confident_flips": (
        "Samples once right are now wrong with confidence: look at the ids first; rehearse or "
        "augment what they have in common, or go back to before it was forgotten.",
        "Samples once wrong with confidence are now right: look at the ids; on a training split "
        "check that they are not wrong labels, learnt by heart.",
    ),
    "certainty": (
        "Samples that kept their answer lose certainty: look at which classes they are of, and at "
        "what changed in the data or its augmentation.",
        "Samples that kept their answer gain certainty: nothing to repair.",
    ),
    "separation": (
        "The classes are told apart less well: the model forgets or over-fits; stop earlier, "
        "regularise, or lower the learning rate.",
        "The classes are told apart better: the model learns; go on.",
    ),
    "outliers": (
        "A few samples carry this: look at the ids (corrupt inputs, wrong labels, numbers that "
        "overflow), and watch a median or a trimmed loss beside the mean.",
        "A few samples that cost much no longer do: look at the ids, and watch a median or a "
        "trimmed loss beside the mean.",
    ),
    "label_noise": (
        "Some labels contradict sure predictions, and cost more the surer these are: check the "
        "suspects' labels; train with a noise-robust loss or label smoothing; judge by accuracy.",
        "Labels that contradicted predictions cost less: on a training split that is noise "
        "learnt by heart; check the suspects' labels, and compare with the validation loss.",
    ),
    "imbalance": (
        "The logit of the most frequent class is off, for all samples alike: add the bias that is "
        "told above, adjust by the class priors, or reweight; judge by balanced accuracy.",
        "The logit of the most frequent class is less off than before: keep what changed; judge by "
        "balanced accuracy.",
    ),
    "threshold": (
        "One class is favoured throughout: move the decision threshold, or fit a bias on "
        "held-out data.",
        "The bias towards one class shrank: a threshold fitted on held-out data takes the rest.",
    ),
    "class_bias": (
        "The logit of one class is off, for all samples alike: add the bias that is told above, or "
        "one for each class, fitted on held-out data (vector scaling).",
        "The logit of one class is less off than before: keep what changed; a bias for each class, "
        "fitted on held-out data, takes the rest.",
    ),
    "unnormalized": (
        "Losses are not those of normalised predictions: store logits, or probabilities that sum "
        "to 1, and do not clip them.",
        "Losses are not those of normalised predictions: store logits, or probabilities that sum "
        "to 1, and do not clip them.",
    ),
    "infinite": (
        "Labels got probability 0: look at the ids, store logits or log-probabilities in place "
        "of rounded probabilities, or smooth the predictions.",
        "Fewer labels get probability 0: store logits or log-probabilities in place of rounded "
        "probabilities to tell by how much.",
    ),
    "clipped": (
        "Labels got probability 0, and their losses are those of the clipping: look at the ids, or "
        "store logits or log-probabilities in place of rounded probabilities.",
        "Fewer labels get probability 0: store logits or log-probabilities in place of rounded "
        "probabilities to tell by how much.",
    ),
    "noise": (
        "Do not act on this difference: compare on more samples, or over several epochs or seeds.",
        "Do not act on this difference: compare on more samples, or over several epochs or seeds.",
    ),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Facts:
    """What evidence is told from.

    Attributes
    ----------
    n : int
        Samples with finite losses.
    turns : dict of str to (Fit, Fit)
        The fits in which each kind of repair was credited, by epoch.
    flips : dict of str to (int, int)
        By group: samples that became wrong, and right.
    n_outliers, n_suspects : int
    majority : str
        The name of the most frequent class.
    majority_share : float
    infinite : (int, int)
        Samples with an infinite loss, by epoch.
    worst : (float, float)
        The highest loss of either epoch, in nats.
    p : float or None
        Of the change in loss.
    p_accuracy : float
    """

    n: int
    turns: dict[str, tuple[Fit, Fit]]
    flips: dict[str, tuple[int, int]]
    n_outliers: int
    n_suspects: int
    majority: str
    majority_share: float
    infinite: tuple[int, int]
    worst: tuple[float, float]
    p: float | None
    p_accuracy: float


def advice(name: str, nats: float) -> str:
    """Return one thing to try about a cause that added nats to the loss, or took them from it."""
    return ADVICE[name][0 if nats >= 0 else 1]


def evidence(name: str, nats: float, facts: Facts) -> str:
    """Say in one sentence, with numbers, what a cause rests on."""
    if name in ("overconfidence", "underconfidence"):
        return _temperature(facts.turns["T"])
    if name in ("imbalance", "threshold", "class_bias"):
        before, after = (-fit.repair.gamma for fit in facts.turns["B"])
        return (
            f"the logit of {facts.majority} ({_percent(facts.majority_share)} of the labels) is "
            f"{_too_high(after)}; before, it was {_too_high(before)}"
        )
    if name == "label_noise":
        before, after = (fit.repair.eta for fit in facts.turns["N"])
        return (
            f"the labels of {_samples(facts.n_suspects)} ({_percent(facts.n_suspects / facts.n)}) "
            f"are more likely random than not; best fit: {_percent(before)} → {_percent(after)} of "
            "all labels random"
        )
    if name in ("borderline_flips", "confident_flips"):
        wrong, right = facts.flips.get(name, (0, 0))
        where = "within" if name == "borderline_flips" else "beyond"
        return (
            f"{wrong:,} samples became wrong and {right:,} became right, {where} odds of 3 to 1 "
            "at the decision boundary"
        )
    if name == "certainty":
        way = "costs more" if nats > 0 else "costs less"
        return (
            f"what stayed right and what stayed wrong {way}, and neither temperature, bias nor "
            "label noise explains it"
        )
    if name == "separation":
        wrong, right = facts.flips.get(name, (0, 0))
        net = f"{abs(wrong - right):,} {'more' if wrong >= right else 'fewer'} errors"
        way = "rose" if nats > 0 else "fell"
        return f"the loss {way} alike in samples that flipped and in those that did not, with {net}"
    if name == "outliers":
        return (
            f"{_samples(facts.n_outliers)}, which no calibrated model would have, moved the mean "
            f"by {nats:+.4g} nats; the highest loss went from {facts.worst[0]:.1f} to "
            f"{facts.worst[1]:.1f} nats"
        )
    if name == "unnormalized":
        return f"stored losses differ from those of normalised predictions by {nats:+.4g} nats"
    if name in ("infinite", "clipped"):
        before, after = facts.infinite
        return f"samples with probability 0 for their label: {before:,} → {after:,}"
    if not nats and facts.p_accuracy == 1.0 and facts.worst[0] == facts.worst[1]:
        return "nothing changed"
    if facts.p is None:
        return (
            "too few samples carry the change in loss to tell it from chance; accuracy changes as "
            f"much by chance with p = {facts.p_accuracy:.2g}"
        )
    return (
        f"chance alone changes as much with p = {facts.p:.2g} (loss) and {facts.p_accuracy:.2g} "
        "(accuracy)"
    )


def _temperature(fits: tuple[Fit, Fit]) -> str:
    before, after = (1.0 / fit.repair.beta for fit in fits)
    said = f"best temperature {before:.3g} → {after:.3g} (above 1: over-confident)"
    if any("T" in fit.at_bound for fit in fits):
        said += ", at the bound of what is searched: more may be of this cause"
    return said


def _too_high(nats: float) -> str:
    if abs(nats) < 0.005:
        return "right"
    return f"{abs(nats):.2f} nats too {'high' if nats > 0 else 'low'}"


def _samples(n: int) -> str:
    return "1 sample" if n == 1 else f"{n:,} samples"


def _percent(x: float) -> str:
    return f"{100 * x:.3g} %"

"""How unequal the classes are, what is left of accuracy and loss beyond that, class by class.

All of it is made from the margins of the confusion matrix and its diagonal, in O(n + C); numbers
that scikit-learn has as well are the same where nothing is said to the contrary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, isfinite, log, sqrt

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from fastdiv.errors import UsageError
from fastdiv.explain.classes.confusions import class_column
from fastdiv.explain.evidence import Floats, Ints, Pair, Side

MEANS = ("micro", "macro", "weighted")


@dataclass(frozen=True, slots=True)
class Imbalance:
    """What the class shares alone achieve, and what the predictions achieve beyond them.

    None stands where nothing can be said: of no samples, or of a single class.

    Attributes
    ----------
    n, n_infinite : int
        Samples, and those among them with an infinite loss.
    classes, classes_present : int
        Classes, and those among them with samples.
    prior_entropy : float or None
        Entropy of the class shares in nats: the mean loss of always predicting the shares, which
        no constant prediction beats.
    prior_deficit : float or None
        ln C less that, in nats; 0 where the classes are equal.
    effective_classes : float or None
        exp(prior_entropy): how many equal classes would be as uncertain (Hill number of order 1).
    majority_class : int or None
        The most frequent class, the lowest index of equals.
    majority_accuracy : float or None
        Its share: the accuracy of always predicting it.
    accuracy : float or None
    accuracy_skill : float or None
        (accuracy - majority_accuracy) / (1 - majority_accuracy).
    loss : float or None
        Mean loss in nats; infinite if any is.
    d2 : float or None
        1 - loss / prior_entropy, `sklearn.metrics.d2_log_loss_score`; that clips probabilities
        by the epsilon of their dtype at both ends, and this does not: minus infinity where a loss
        is infinite. None where there is one class only; of that, scikit-learn divides by what
        clipping leaves of an entropy of 0.
    d2_finite : float or None
        The same of the samples with a finite loss, with the class shares of these.
    balanced_accuracy : float or None
        Mean recall of the classes that have samples.
    adjusted_balanced_accuracy : float or None
        The same, scaled so that chance is 0 and perfection 1.
    mcc : float or None
        Matthews correlation of any number of classes (Gorodkin 2004); 0 where all labels or all
        predictions are one class, as scikit-learn has it.
    kappa : float or None
        Cohen's kappa; scikit-learn gives NaN where this is None.
    """

    n: int
    n_infinite: int
    classes: int
    classes_present: int
    prior_entropy: float | None
    prior_deficit: float | None
    effective_classes: float | None
    majority_class: int | None
    majority_accuracy: float | None
    accuracy: float | None
    accuracy_skill: float | None
    loss: float | None
    d2: float | None
    d2_finite: float | None
    balanced_accuracy: float | None
    adjusted_balanced_accuracy: float | None
    mcc: float | None
    kappa: float | None


def _margins(side: Side) -> tuple[Ints, Ints, Ints]:
    """Return by class (C,): samples, predictions, right predictions."""
    return (
        np.bincount(side.labels, minlength=side.classes),
        np.bincount(side.predicted, minlength=side.classes),
        np.bincount(side.labels[side.correct], minlength=side.classes),
    )


def _ratio(part: float, whole: float) -> float | None:
    return part / whole if whole else None


def _entropy(counts: Ints) -> float:
    """Return the entropy in nats of the shares of counts, which are not all 0."""
    present = counts[counts > 0]
    n = present.sum()
    return abs(float(np.dot(present, np.log(n / present)) / n))


def _d2(loss: Floats, support: Ints) -> float | None:
    """Return 1 - loss / entropy of the shares; None where these are of less than two classes."""
    if np.count_nonzero(support) < 2:
        return None
    mean = float(loss.mean())
    return 1 - mean / _entropy(support) if isfinite(mean) else -np.inf


def imbalance(side: Side) -> Imbalance:
    """Measure the imbalance of the classes, and the skill beyond it."""
    n, c = len(side), side.classes
    finite = np.isfinite(side.loss)
    support, predicted, right = _margins(side)
    present = support > 0
    m = int(present.sum())
    if n == 0:
        return Imbalance(0, 0, c, 0, *[None] * 14)
    entropy = _entropy(support)
    majority = int(support.argmax())
    correct = int(right.sum())
    balanced = float((right[present] / support[present]).mean())
    # Python's integers: products of counts outgrow 64 bits.
    chance = int(np.dot(support, predicted))
    of_labels = n * n - int(np.dot(support, support))
    of_predictions = n * n - int(np.dot(predicted, predicted))
    varies = of_labels and of_predictions
    return Imbalance(
        n=n,
        n_infinite=n - int(finite.sum()),
        classes=c,
        classes_present=m,
        prior_entropy=entropy,
        prior_deficit=max(0.0, log(c) - entropy),
        effective_classes=exp(entropy),
        majority_class=majority,
        majority_accuracy=int(support[majority]) / n,
        accuracy=correct / n,
        accuracy_skill=_ratio(correct - int(support[majority]), n - int(support[majority])),
        loss=float(side.loss.mean()),
        d2=_d2(side.loss, support),
        d2_finite=_d2(side.loss[finite], np.bincount(side.labels[finite], minlength=c)),
        balanced_accuracy=balanced,
        adjusted_balanced_accuracy=(balanced - 1 / m) / (1 - 1 / m) if m > 1 else None,
        mcc=(n * correct - chance) / sqrt(of_labels * of_predictions) if varies else 0.0,
        kappa=(n * correct - chance) / (n * n - chance) if n * n != chance else None,
    )


def _divide(part: NDArray[np.number], whole: NDArray[np.number], otherwise: float) -> Floats:
    """Divide; `otherwise` where the divisor is 0."""
    result = np.full(len(whole), otherwise)
    np.divide(part, whole, out=result, where=whole != 0)
    return result


def _mean(values: Floats, weights: Ints | None, otherwise: float) -> float:
    """Return the mean of what is not NaN; `otherwise` where no weight is left."""
    said = ~np.isnan(values)
    kept = np.ones(said.sum()) if weights is None else weights[said]
    total = kept.sum()
    return float(np.dot(values[said], kept) / total) if total else otherwise


def class_report(
    side: Side,
    beta: float = 1.0,
    class_names: Sequence[str] | None = None,
    zero_division: float | None = None,
) -> pa.Table:
    """Return precision, recall and F of each class, and their means.

    `sklearn.metrics.precision_recall_fscore_support` with ``labels=range(C)``; without it,
    scikit-learn leaves out of its macro mean the classes that are neither labels nor predictions.

    Parameters
    ----------
    side : Side
    beta : float
        How many times recall outweighs precision in `fbeta`; finite, not negative.
    class_names : sequence of str, optional
    zero_division : float, optional
        What 0 / 0 is. None, scikit-learn's NaN: null, and left out of the means.

    Returns
    -------
    pa.Table
        A row for each class in order, then the means:

        class : int32, or string where classes have names; null for a mean
        average : string
            micro, macro (all classes alike) or weighted (by support); null for a class
        support, predicted, true_positive : int64
        precision, recall, f1, fbeta : double
            Of one label a sample, the micro means are all the accuracy.
    """
    if not (isfinite(beta) and beta >= 0):
        raise UsageError(f"beta is {beta}: give a finite number, 0 or more")
    nothing = np.nan if zero_division is None else float(zero_division)
    margins = _margins(side)
    support = margins[0]
    columns = {}
    # The micro mean is the ratio of sums, hence one more row to divide.
    s, p, t = (np.append(x, x.sum()) for x in margins)
    for name, part, whole in (
        ("precision", t, p),
        ("recall", t, s),
        ("f1", 2 * t, s + p),
        ("fbeta", (1 + beta**2) * t, beta**2 * s + p),
    ):
        each = _divide(part, whole, nothing)
        means = [_mean(each[:-1], weights, nothing) for weights in (None, support)]
        values = np.append(each, means)
        columns[name] = pa.array(values, mask=np.isnan(values))
    c, n_means = side.classes, len(MEANS)
    index = pa.array([*range(c), *[None] * n_means], pa.int32())
    counts = (np.append(x, [x.sum()] * n_means) for x in margins)
    return pa.table(
        {
            "class": class_column(index, class_names, c),
            "average": pa.array([*[None] * c, *MEANS], pa.string()),
            **dict(
                zip(("support", "predicted", "true_positive"), map(pa.array, counts), strict=True)
            ),
            **columns,
        }
    )


def change_by_class(pair: Pair, class_names: Sequence[str] | None = None) -> pa.Table:
    """Return what each class adds to the change in loss and in accuracy.

    Parameters
    ----------
    pair : Pair
    class_names : sequence of str, optional
        The pair's own if None.

    Returns
    -------
    pa.Table
        A row for each class, in order:

        class : int32, or string where classes have names
        n, n_infinite : int64
            Samples, and those with an infinite loss in one epoch at least, which no loss below
            includes.
        loss_before, loss_after : double
            Mean loss of the class in nats; null of nothing.
        delta_loss : double
            What the class adds to the change in mean loss, in nats: the sum of its samples'
            changes over the number of all samples; over the classes these add up to that change.
        share_of_delta_loss : double
            The same over the change; null where that is 0. Shares add up to 1 and may be negative.
        n_rw, n_wr : int64
            Samples that went from right to wrong, and from wrong to right.
        recall_before, recall_after : double
            Accuracy within the class; null of nothing.
        delta_accuracy : double
            (n_wr - n_rw) over the number of all samples; adds up to the change in accuracy.
    """
    c, y = pair.before.classes, pair.labels
    names = pair.class_names if class_names is None else class_names
    n = np.bincount(y, minlength=c)
    delta = pair.delta
    kept = ~np.isnan(delta)
    finite = np.bincount(y[kept], minlength=c)
    before, after = (np.bincount(y[kept], side.loss[kept], c) for side in (pair.before, pair.after))
    changes = np.bincount(y[kept], delta[kept], c)
    total = changes.sum() / max(1, kept.sum())
    terms = changes / max(1, kept.sum())
    was, now = pair.before.correct, pair.after.correct
    n_rw = np.bincount(y[was & ~now], minlength=c)
    n_wr = np.bincount(y[~was & now], minlength=c)
    right = np.bincount(y[was], minlength=c)

    def over(part: NDArray[np.number], whole: Ints) -> pa.Array:
        return pa.array(_divide(part, whole, 0.0), mask=whole == 0)

    return pa.table(
        {
            "class": class_column(np.arange(c), names, c),
            "n": pa.array(n),
            "n_infinite": pa.array(n - finite),
            "loss_before": over(before, finite),
            "loss_after": over(after, finite),
            "delta_loss": pa.array(terms),
            "share_of_delta_loss": pa.array(terms / (total or 1.0), mask=np.full(c, total == 0.0)),
            "n_rw": pa.array(n_rw),
            "n_wr": pa.array(n_wr),
            "recall_before": over(right, n),
            "recall_after": over(right + n_wr - n_rw, n),
            "delta_accuracy": pa.array((n_wr - n_rw) / max(1, len(y))),
        }
    )

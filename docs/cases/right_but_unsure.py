"""Right, but unsure.

Accuracy goes up a lot and the loss hardly moves: why?

Predictions of three classes such as [.25 .35 .40] are right, but only just: [.25 .40 .35] was
wrong, and the difference is .13 nats. Right answers that are unsure cost nearly as much as wrong
answers that are unsure.
"""

import numpy as np

import fastdiv

SHARES = [0.25, 0.35, 0.40]


def one_sample():
    """Return the predictions of a sample of class 2 in two epochs: wrong, then right."""
    return np.array([[0.25, 0.40, 0.35]]), np.array([[0.25, 0.35, 0.40]]), np.array([2])


def thousand_samples(turned: int = 100):
    """Return two epochs that give .25, .35 and .40 to everything: 100 labels from .35 to .40."""
    rng = np.random.default_rng(6)
    before = rng.permuted(np.tile(SHARES, (1000, 1)), axis=1)
    labels = (np.log(before) + rng.gumbel(size=before.shape)).argmax(axis=1)
    rows = np.flatnonzero(before[np.arange(1000), labels] == 0.35)[:turned]
    after = before.copy()
    after[rows, before[rows].argmax(axis=1)] = 0.35
    after[rows, labels[rows]] = 0.40
    return before, after, labels


def main() -> None:
    """Print the account of one sample, and the explanation of a thousand."""
    before, after, label = one_sample()
    run = fastdiv.analyze({1: (before, label), 2: (after, label)}, kind="probs")
    print("one sample:")
    for row in run.epochs.to_pylist():
        print(f"  epoch {row['epoch']}: loss {row['loss']:.4f}, accuracy {row['accuracy']:.0%}")
    for term in run.split().accounts(1, 2)["loss"]["wrongness_unsureness"]["terms"]:
        print(f"  {term['name']:<10} {term['value']:+.4f} nats")

    print("\na thousand samples:\n")
    before, after, labels = thousand_samples()
    larger = fastdiv.analyze({1: (before, labels), 2: (after, labels)}, kind="probs")
    print(larger.explain(1, 2))


if __name__ == "__main__":
    main()

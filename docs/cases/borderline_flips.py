"""Loss and accuracy both rise.

How can validation loss and validation accuracy both rise?

Borderline pictures cross over: a cat called a horse with .6 is now a cat with .6. That raises
accuracy and hardly moves the loss. Meanwhile those that were wrong already get ever worse: a cat
called a horse with .8 is now one with .95. That moves no accuracy and raises the loss.
"""

import numpy as np

import fastdiv


def four_cats():
    """Return the probability of "cat" of four cats, in two epochs; all else is "horse"."""
    return np.array([0.80, 0.40, 0.40, 0.20]), np.array([0.80, 0.60, 0.60, 0.05])


def many_animals(n: int = 3000):
    """Return two epochs of logits: the later is twice as sure, and put right 120 close calls."""
    rng = np.random.default_rng(5)
    before = rng.normal(0, 2, (n, 3))
    labels = (before + rng.gumbel(size=before.shape)).argmax(axis=1)
    first, second = before.argsort(axis=1)[:, ::-1][:, :2].T
    i = np.arange(n)
    close = before[i, first] - before[i, second] < 0.5
    rows = np.flatnonzero((second == labels) & close)[:120]
    after = 2 * before
    after[rows, first[rows]], after[rows, second[rows]] = (
        2 * before[rows, second[rows]],
        2 * before[rows, first[rows]],
    )
    return before, after, labels


def main() -> None:
    """Print the account of four cats, and the explanation of 3,000 animals."""
    epochs = {
        epoch: (np.stack([p, 1 - p], axis=1), np.zeros(4, int))
        for epoch, p in enumerate(four_cats(), 1)
    }
    run = fastdiv.analyze(epochs, kind="probs", class_names=["cat", "horse"])
    print("four cats:")
    for row in run.epochs.to_pylist():
        print(f"  epoch {row['epoch']}: loss {row['loss']:.4f}, accuracy {row['accuracy']:.0%}")
    for term in run.split().accounts(1, 2)["loss"]["by_margin"]["terms"]:
        if term["n"]:
            print(f"  {term['name']:<16} {term['n']} sample(s) {term['value']:+.4f} nats")

    print("\n3,000 animals:\n")
    before, after, labels = many_animals()
    names = ["cat", "horse", "dog"]
    zoo = fastdiv.analyze(
        {1: (before, labels), 2: (after, labels)}, kind="logits", class_names=names
    )
    print(zoo.explain(1, 2))


if __name__ == "__main__":
    main()

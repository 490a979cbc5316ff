"""One mistake, made with confidence.

Accuracy improved a little, yet the loss jumped: can one prediction do that?

Yes. What a wrong answer costs has no limit, what a right one saves has. One answer that is wrong
with full confidence outweighs many that became right.
"""

import numpy as np

import fastdiv

MISTAKE = 7  # the id of the sample that goes wrong, in the sample of 1,000


def ten_samples():
    """Return the probability of the label of ten samples of two classes, in two epochs."""
    before = np.array([0.6] * 6 + [0.4] * 4)  # 6 right
    after = np.array([0.6] * 7 + [0.4] * 2 + [0.0001])  # 7 right, and one very wrong
    return before, after


def thousand_samples():
    """Return two epochs of calibrated logits: 20 answers put right by a hair, one blunder."""
    rng = np.random.default_rng(3)
    before = rng.normal(0, 2, (1000, 3))
    labels = (before + rng.gumbel(size=before.shape)).argmax(axis=1)
    first, second = before.argsort(axis=1)[:, ::-1][:, :2].T
    lead = np.take_along_axis(before, np.stack([first, second], 1), 1) @ [1, -1]
    rows = np.flatnonzero((second == labels) & (lead < 1))[:20]
    after = before.copy()
    after[rows, first[rows]], after[rows, second[rows]] = (
        before[rows, second[rows]],
        before[rows, first[rows]],
    )
    after[MISTAKE] = 0
    after[MISTAKE, (labels[MISTAKE] + 1) % 3] = 60  # nats
    return before, after, labels


def main() -> None:
    """Print the account of ten samples, and the explanation of a thousand."""
    epochs = {
        epoch: (np.stack([p, 1 - p], axis=1), np.zeros(10, int))
        for epoch, p in enumerate(ten_samples(), 1)
    }
    run = fastdiv.analyze(epochs, kind="probs")
    print("ten samples:")
    for row in run.epochs.to_pylist():
        print(f"  epoch {row['epoch']}: loss {row['loss']:.4f}, accuracy {row['accuracy']:.0%}")
    for term in run.split().accounts(1, 2)["loss"]["by_cell"]["terms"]:
        if term["n"]:
            print(f"  {term['name']:<8} {term['n']:>2} samples {term['value']:+.4f} nats")
    worst = run.split().concentration(2, most=1).worst.to_pylist()[0]
    print(f"  the worst is sample {worst['sample_id']}: {worst['loss']:.4f} nats by itself")

    print("\na thousand samples:\n")
    before, after, labels = thousand_samples()
    larger = fastdiv.analyze({1: (before, labels), 2: (after, labels)}, kind="logits")
    print(larger.explain(1, 2))


if __name__ == "__main__":
    main()

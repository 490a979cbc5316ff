"""A loss that a few samples carry.

My validation loss is 154, at an accuracy of 61 %. What is going on?

Guessing among two classes costs ln 2 = .69 nats, so a mean of 154 cannot come from all samples: a
few have enormous losses, the rest is ordinary. Which ones they are is the answer. Where the model
gives its label a probability of exactly 0, the mean is infinite: those are counted and listed.
"""

import numpy as np

import fastdiv

N, BROKEN = 2000, 12


def two_epochs():
    """Return logits (2000, 2) of two epochs, labels, ids, and which 12 rows are broken."""
    rng = np.random.default_rng(0)
    before = rng.normal(0, 0.45, (N, 2))
    labels = (before + rng.gumbel(size=before.shape)).argmax(axis=1)
    after = before + rng.normal(0, 0.1, before.shape)
    broken = np.sort(rng.choice(N, BROKEN, replace=False))
    after[broken] = 0
    size = rng.uniform(0.5, 1.5, BROKEN)
    after[broken, 1 - labels[broken]] = size / size.sum() * 153.4 * N
    return before, after, labels, [f"img_{i:04}" for i in range(N)], broken


def as_probabilities(logits):
    """Return probabilities, in which the broken rows have an exact 0."""
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    return p / p.sum(axis=1, keepdims=True)


def main() -> None:
    """Print who carries the loss; then the same predictions, dumped as probabilities."""
    before, after, labels, ids, _ = two_epochs()
    run = fastdiv.analyze({1: (before, labels, ids), 2: (after, labels, ids)}, kind="logits")
    split = run.split()
    c = split.concentration(2, most=BROKEN + 2)
    accuracy = run.epochs["accuracy"][1].as_py()
    print(f"epoch 2: loss {c.mean:.1f}, accuracy {accuracy:.1%}")
    print(f"median {c.median:.4f}, mean without 5 % at each end {c.trimmed_mean:.4f}")
    for worst in c.carried:
        print(
            f"the worst {worst.share:.1%} ({worst.k} samples) carry {worst.of_total:.2%} of the "
            f"loss; without them it is {worst.mean_without:.4f}"
        )
    for row in c.worst.to_pylist():
        words = f"label {row['label']}, predicted {row['predicted']}, loss {row['loss']:.1f}"
        print(f"  {row['sample_id']}: {words}")
    print()
    print(run.explain(1, 2))

    print("\nThe same, dumped as probabilities:\n")
    epochs = {e: (as_probabilities(z), labels, ids) for e, z in ((1, before), (2, after))}
    rounded = fastdiv.analyze(epochs, kind="probs")
    row = rounded.epochs.to_pylist()[1]
    print(f"epoch 2: loss {row['loss']}, of the others {row['loss_finite']:.4f}")
    print(rounded.explain(1, 2))


if __name__ == "__main__":
    main()

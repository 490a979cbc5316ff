"""Confidence grows and accuracy stays.

Why does validation loss fall, then rise, while accuracy stays the same?

The answers stay, their confidence grows. While it is less than it should be (underconfidence),
growing lowers the loss; once it is more than it should be (overconfidence), it raises it. Both
are undone by one temperature, which changes no answer. Where confidence grows because the model
knows more of samples that it got right anyway, no temperature undoes it: that is certainty.
"""

import numpy as np

import fastdiv


def calibrated(seed: int, n: int, classes: int = 3):
    """Return a generator, logits (n, classes), and labels drawn from their softmax."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2, (n, classes))
    return rng, logits, (logits + rng.gumbel(size=logits.shape)).argmax(axis=1)


def three_epochs():
    """Return the same answers given timidly, as they should be, and too boldly."""
    _, logits, labels = calibrated(seed=2, n=2000)
    return {1: (0.4 * logits, labels), 2: (logits, labels), 3: (2.5 * logits, labels)}


def knowing_more():
    """Return two epochs, of which the later one knows more, but of no answer that it changes."""
    rng, logits, labels = calibrated(seed=12, n=3000)
    rows = np.arange(len(labels))
    more = logits + rng.normal(0, 0.8, logits.shape)  # a hint at the label, as strong as noisy:
    more[rows, labels] += 0.8**2  # so the prediction stays calibrated
    kept = (logits.argmax(axis=1) == labels) == (more.argmax(axis=1) == labels)
    return {1: (logits, labels), 2: (np.where(kept[:, None], more, logits), labels)}


def main() -> None:
    """Print why the loss fell, then rose; then, why it fell for a better reason."""
    run = fastdiv.analyze(three_epochs(), kind="logits")
    for row in run.epochs.to_pylist():
        print(
            f"epoch {row['epoch']}: loss {row['loss']:.4f}, accuracy {row['accuracy']:.2%}, "
            f"confidence {row['confidence']:.2%}, best temperature {row['temperature']:.2f}"
        )
    for pair in ((1, 2), (2, 3)):
        print()
        print(run.explain(*pair))

    print("\nAnother run, where the model came to know more:\n")
    other = fastdiv.analyze(knowing_more(), kind="logits")
    print(other.explain(1, 2))


if __name__ == "__main__":
    main()

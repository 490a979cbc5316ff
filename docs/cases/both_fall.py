"""Loss and accuracy both fall.

Validation loss and validation accuracy fall together: is that good or bad?

Two things at once. Here the model became less over-confident, which lowers the loss and changes no
answer; and samples at the boundary crossed to the wrong side, which lowers accuracy and costs
little. Taken apart, each has its own remedy.
"""

import numpy as np

import fastdiv


def two_epochs(n: int = 3000):
    """Return logits of two epochs: twice too sure; then as sure as it may be, less often right."""
    rng = np.random.default_rng(11)
    logits = rng.normal(0, 2, (n, 3))
    labels = (logits + rng.gumbel(size=logits.shape)).argmax(axis=1)
    first, second = logits.argsort(axis=1)[:, ::-1][:, :2].T
    i = np.arange(n)
    close = logits[i, first] - logits[i, second] < 0.5
    rows = np.flatnonzero((first == labels) & close)[:150]
    after = logits.copy()
    after[rows, first[rows]], after[rows, second[rows]] = (
        logits[rows, second[rows]],
        logits[rows, first[rows]],
    )
    return {1: (2 * logits, labels), 2: (after, labels)}


def main() -> None:
    """Print what moved either, and what epoch 1 would be with its confidence put right."""
    run = fastdiv.analyze(two_epochs(), kind="logits")
    print(run.explain(1, 2))

    print("\nhad one thing been otherwise:")
    for epoch in (1, 2):
        for row in run.split().counterfactuals(epoch).to_pylist():
            if row["name"] in ("as_is", "best_temperature"):
                print(
                    f"  epoch {epoch}, {row['name'].replace('_', ' '):<16}  "
                    f"loss {row['loss']:.4f}, accuracy {row['accuracy']:.2%}"
                )


if __name__ == "__main__":
    main()

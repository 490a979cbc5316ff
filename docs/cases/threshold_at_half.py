"""A threshold at .5 for unbalanced classes.

After I reweighted my unbalanced classes, accuracy fell. Did the model get worse?

Look at the ranking. Reweighting adds the same amount to the log-odds of every sample: the order
of samples, and with it ROC AUC, stays; only .5 is no longer the right threshold. Accuracy "fell"
because it is counted at .5, and another threshold gives all of it back.
"""

import numpy as np

import fastdiv

POSITIVE = 0.15


def two_epochs(n: int = 4000):
    """Return logits (n, 2) as they should be, and as trained with classes of equal weight."""
    rng = np.random.default_rng(9)
    labels = (rng.random(n) < POSITIVE).astype(int)
    x = rng.normal(2 * labels, 1)
    prior = np.log(POSITIVE / (1 - POSITIVE))
    odds = {1: 2 * x - 2 + prior, 2: 2 * x - 2}
    return {epoch: (np.stack([0 * z, z], axis=1), labels) for epoch, z in odds.items()}


def main() -> None:
    """Print ranking and thresholds of both, and what moved loss and accuracy."""
    run = fastdiv.analyze(two_epochs(), kind="logits")
    split = run.split()
    moved = split.ranking_change(1, 2)
    print(f"ROC AUC {moved.roc_auc_before:.4f} → {moved.roc_auc_after:.4f}")
    print(f"accuracy at .5 {moved.accuracy_before:.2%} → {moved.accuracy_after:.2%}")
    print(
        f"accuracy at the best threshold {moved.best_accuracy_before:.2%} (at "
        f"{moved.threshold_before:.3f}) → {moved.best_accuracy_after:.2%} (at "
        f"{moved.threshold_after:.3f})"
    )
    print("\nepoch 2, by threshold:")
    for row in split.accuracy_by_threshold(2, [0.25, 0.5, 0.75, 0.85, 0.95]).to_pylist():
        print(
            f"  {row['threshold']:.2f}: accuracy {row['accuracy']:.2%}, precision "
            f"{row['precision']:.2%}, recall {row['recall']:.2%}"
        )
    print()
    print(run.explain(1, 2))


if __name__ == "__main__":
    main()

"""Mean squared error in place of cross-entropy.

Cross-entropy says my later epoch is worse, mean squared error says it is better. Who is right?

Both: they charge differently for the same mistakes. The squared error of a prediction (the Brier
score) is at most 2, cross-entropy has no limit. A model that learns and grows over-confident gains
by the first and may lose by the second. The accounts of both say over which samples they part.
"""

import numpy as np

import fastdiv

CELLS = {
    "rr": "right twice",
    "rw": "right, then wrong",
    "wr": "wrong, then right",
    "ww_same": "wrong twice, same answer",
    "ww_changed": "wrong twice, other answer",
}


def two_epochs(n: int = 2000):
    """Return logits of two epochs: the later one knows more, and is three times too sure."""
    rng = np.random.default_rng(10)
    before = rng.normal(0, 2, (n, 3))
    labels = (before + rng.gumbel(size=before.shape)).argmax(axis=1)
    hint = rng.normal(0, 1, before.shape)
    hint[np.arange(n), labels] += 1
    return {1: (before, labels), 2: (3 * (before + hint), labels)}


def main() -> None:
    """Print what one mistake costs by both, and where they part over 2,000 samples."""
    print("a wrong answer of two classes, by the probability of its label:")
    p = np.array([0.4, 0.1, 0.01, 0.0001])
    scores = fastdiv.score(np.stack([p, 1 - p], axis=1), np.zeros(4, int), kind="probs")
    for x, loss, brier in zip(p, scores.loss, scores.brier, strict=True):
        print(f"  {x:<6} cross-entropy {loss:.4f}, squared error {brier:.4f}")

    run = fastdiv.analyze(two_epochs(), kind="logits")
    accounts = run.split().accounts(1, 2)
    loss, brier = (accounts[quantity]["by_cell"] for quantity in ("loss", "brier"))
    print("\nfrom epoch 1 to 2                     cross-entropy  squared error")
    for a, b in zip(loss["terms"], brier["terms"], strict=True):
        print(f"  {CELLS[a['name']]:<26} {a['n']:>5}  {a['value']:>+12.4f}  {b['value']:>+13.4f}")
    print(f"  {'all':<26} {loss['n']:>5}  {loss['total']:>+12.4f}  {brier['total']:>+13.4f}\n")
    print(run.explain(1, 2))


if __name__ == "__main__":
    main()

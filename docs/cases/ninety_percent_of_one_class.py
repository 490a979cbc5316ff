"""Nine samples of ten are of one class.

My accuracy is stuck at 90 % whatever the loss does. 90 % of my samples are of one class.

Then 90 % is what "always the frequent class" gets, and accuracy cannot see what is learned. Three
epochs: one that knows the class shares and nothing else; one that learned something, which the
loss sees; one that is drawn to the frequent class and answers nothing else, at the same accuracy.
"""

import numpy as np

import fastdiv

RARE = 0.1


def three_epochs(n: int = 4000):
    """Return logits (n, 2) of three epochs, and labels of which a tenth is 1."""
    rng = np.random.default_rng(4)
    labels = (rng.random(n) < RARE).astype(int)
    prior = np.log(RARE / (1 - RARE))
    x = rng.normal(1.2 * labels, 1)
    learned = 1.2 * x - 1.2**2 / 2 + prior  # log-odds of class 1, by Bayes' rule
    odds = {1: np.full(n, prior), 2: learned, 3: learned - 2}
    return {epoch: (np.stack([0 * z, z], axis=1), labels) for epoch, z in odds.items()}


def main() -> None:
    """Print what the class shares alone reach, and what moved the loss."""
    run = fastdiv.analyze(three_epochs(), kind="logits")
    split = run.split()
    shares = split.imbalance(1)
    print(
        f"always the frequent class: accuracy {shares.majority_accuracy:.1%}; "
        f"always the class shares: loss {shares.prior_entropy:.4f}"
    )
    print("epoch    loss  accuracy  balanced accuracy  skill (accuracy)  skill (loss)  recall of 1")
    for epoch in (1, 2, 3):
        x = split.imbalance(epoch)
        recall = split.class_report(epoch)["recall"][1].as_py()
        print(
            f"{epoch:>5}  {x.loss:.4f}  {x.accuracy:>8.1%}  {x.balanced_accuracy:>17.1%}"
            f"  {x.accuracy_skill:>16.3f}  {x.d2:>12.3f}  {recall:>11.1%}"
        )
    for pair in ((1, 2), (2, 3)):
        print()
        print(run.explain(*pair))


if __name__ == "__main__":
    main()

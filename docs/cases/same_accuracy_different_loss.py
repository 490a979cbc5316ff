"""The same accuracy at another loss.

Two models get the same samples right, one says {.9 .1}, the other {.6 .4}. Which is better?

Accuracy cannot tell. The loss can, and its answer depends on how often they are right: a model
should say .9 if nine of ten such answers are right. At 80 % right, .9 is nearer to the truth; at
70 %, .6 is.
"""

import numpy as np

import fastdiv


def models(right: float, n: int = 1000):
    """Return a timid (.6) and a bold (.9) model of the same answers, a share of them right."""
    rng = np.random.default_rng(7)
    labels = rng.integers(0, 2, n)
    answers = np.where(np.arange(n) < round(right * n), labels, 1 - labels)
    said = np.eye(2)[answers]
    timid, bold = (said * p + (1 - said) * (1 - p) for p in (0.6, 0.9))
    return {1: (timid, labels), 2: (bold, labels)}


def main() -> None:
    """Print what either costs where 80 and 70 % are right, and why."""
    for right in (0.80, 0.70):
        run = fastdiv.analyze(models(right), kind="probs")
        split = run.split()
        print(f"{right:.0%} right:")
        for epoch, name in ((1, "{.6 .4}"), (2, "{.9 .1}")):
            row = run.epochs.to_pylist()[epoch - 1]
            error = split.calibration(epoch).ece
            print(f"  {name}: loss {row['loss']:.4f}, calibration error {error:.3f}")
        for term in split.accounts(1, 2)["loss"]["accuracy_and_confidence"]["terms"]:
            print(f"  {term['name']:<20} {term['value'] + 0.0:+.4f} nats")
        print()
    print("why, where 70 % are right:\n")
    print(run.explain(1, 2))


if __name__ == "__main__":
    main()

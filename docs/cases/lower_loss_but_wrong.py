"""A lower loss, and wrong.

Can a wrong prediction have a lower loss than a right one?

Yes. Accuracy asks whether the label got the largest share, the loss how large its share is. Of C
classes the largest share is at least 1/C, so a right answer may cost up to ln C nats; a wrong one
leaves its label at most one half, so it costs at least ln 2. Between ln 2 and ln C, a loss does not
tell right from wrong.
"""

import numpy as np

import fastdiv

LABEL = 0
SINGLE = {
    "right": [0.40, 0.30, 0.30],
    "right, at the limit": [0.50, 0.25, 0.25],
    "wrong": [0.49, 0.51, 0.00],
}


def three_samples():
    """Return predictions (3, 3) of two epochs, and labels: all right, then one of them wrong."""
    unsure = np.array([SINGLE["right, at the limit"]] * 3)
    surer = np.array([[0.90, 0.05, 0.05], [0.90, 0.05, 0.05], SINGLE["wrong"]])
    return unsure, surer, np.full(3, LABEL)


def main() -> None:
    """Print the losses of single predictions, and an account of three samples."""
    scores = fastdiv.score(np.array(list(SINGLE.values())), np.full(3, LABEL), kind="probs")
    print("one sample of class 0:")
    for (name, p), loss, right in zip(SINGLE.items(), scores.loss, scores.correct, strict=True):
        print(f"  {p}  loss {loss:.4f}  {'right' if right else 'wrong'}  ({name})")

    unsure, surer, labels = three_samples()
    run = fastdiv.analyze({1: (unsure, labels), 2: (surer, labels)}, kind="probs")
    print("\nthree samples of class 0:")
    for row in run.epochs.to_pylist():
        print(f"  epoch {row['epoch']}: loss {row['loss']:.4f}, accuracy {row['accuracy']:.1%}")

    account = run.split().accounts(1, 2)["loss"]["by_cell"]
    names = {"rr": "right twice", "rw": "right, then wrong"}
    print(f"\nchange in loss {account['total']:+.4f} nats, of which")
    for term in account["terms"]:
        if term["n"]:
            print(f"  {term['value']:+.4f}  {term['n']} sample(s) {names[term['name']]}")


if __name__ == "__main__":
    main()

"""Networks that scikit-learn trains on its digits and irises, each with one thing done on purpose.

Every function of `CASES` trains for at most a second or two and returns the logits of one split at
two checkpoints, the labels on record, and what an explanation of the change should name first. A
seed draws the split, the network and what is spoiled.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from sklearn.datasets import load_digits, load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier

from tests.calibrated import Floats, Logits, losses

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Trained:
    """Logits (n, c) float32 at two checkpoints, labels (n,) int32, and what made the change."""

    before: Logits
    after: Logits
    labels: NDArray[np.int32]
    expected: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Data:
    """Inputs and labels to train on, and others to validate with."""

    x: Floats
    y: Ints
    x_val: Floats
    y_val: Ints
    rng: np.random.Generator

    @property
    def classes(self) -> int:
        return int(max(self.y.max(), self.y_val.max())) + 1


def digits(seed: int, n: int = 600) -> Data:
    """Return 1,797 images of 8 x 8 pixels in [0, 1], n of them to train on."""
    x, y = load_digits(return_X_y=True)
    return _divided(x / 16, y, seed, n)


def iris(seed: int) -> Data:
    """Return 150 flowers, standardised, 30 of them to train on."""
    x, y = load_iris(return_X_y=True)
    return _divided((x - x.mean(axis=0)) / x.std(axis=0), y, seed, 30)


def _divided(x: Floats, y: Ints, seed: int, n: int) -> Data:
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(y))
    train, val = order[:n], order[n:]
    return Data(x[train], y[train], x[val], y[val], rng)


class Network:
    """One hidden layer, trained by Adam an epoch at a time."""

    def __init__(self, data: Data, hidden: int = 32, rate: float = 3e-3, decay: float = 1e-4):
        self.classes = np.arange(data.classes)
        self.model = MLPClassifier(
            (hidden,), alpha=decay, batch_size=32, learning_rate_init=rate,
            random_state=int(data.rng.integers(1 << 31)),
        )  # fmt: skip

    def train(self, x: Floats, y: Ints, epochs: int) -> Network:
        """Pass over the samples so many times."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of batches larger than the data
            for _ in range(epochs):
                self.model.partial_fit(x, y, classes=self.classes)
        return self

    def logits(self, x: Floats) -> Logits:
        """Return (n, c)."""
        (w1, w2), (b1, b2) = self.model.coefs_, self.model.intercepts_
        return np.asarray(np.maximum(x @ w1 + b1, 0) @ w2 + b2, np.float32)


def calibrated(z: Floats | Logits, y: Ints) -> Logits:
    """Return logits at their best temperature, as practitioners leave a network."""
    z = np.asarray(z, np.float32)
    found = minimize_scalar(
        lambda s: losses(z * np.float32(np.exp(s)), y.astype(np.int32)).mean(), bounds=(-3, 3)
    )
    return z * np.float32(np.exp(found.x))


def _mislabelled(y: Ints, share: float, classes: int, rng: np.random.Generator) -> Ints:
    y = y.copy()
    rows = rng.choice(len(y), round(share * len(y)), replace=False)
    y[rows] = (y[rows] + rng.integers(1, classes, len(rows))) % classes
    return y


def _trained(before: Floats | Logits, after: Floats | Logits, y: Ints, *names: str) -> Trained:
    return Trained(before.astype(np.float32), after.astype(np.float32), y.astype(np.int32), names)


# What is done on purpose ---------------------------------------------------------------------


def scaled_up(seed: int) -> Trained:
    """Multiply the output layer's weights by 3."""
    data = digits(seed)
    net = Network(data).train(data.x, data.y, 12)
    before = calibrated(net.logits(data.x_val), data.y_val)
    return _trained(before, 3 * before, data.y_val, "overconfidence")


def scaled_down(seed: int) -> Trained:
    """Multiply the output layer's weights by .4."""
    data = digits(seed)
    net = Network(data).train(data.x, data.y, 12)
    before = calibrated(net.logits(data.x_val), data.y_val)
    return _trained(before, before * 0.4, data.y_val, "underconfidence")


def overfitted(seed: int) -> Trained:
    """Fit a linear model with a penalty, at its best temperature, and then with next to none."""
    data = digits(seed)
    penalised, free = (
        LogisticRegression(C=c, max_iter=2000).fit(data.x, data.y).decision_function(data.x_val)
        for c in (0.3, 1e4)
    )
    return _trained(calibrated(penalised, data.y_val), free, data.y_val, "overconfidence")


def decayed(seed: int) -> Trained:
    """Go on with a weight decay ten thousand times as large."""
    data = digits(seed)
    net = Network(data).train(data.x, data.y, 40)
    before = net.logits(data.x_val)
    net.model.set_params(alpha=1.0)
    net.train(data.x, data.y, 10)
    return _trained(before, net.logits(data.x_val), data.y_val, "underconfidence")


def learnt_by_heart(seed: int) -> Trained:
    """Go on with labels of which 15 % are wrong, until most are predicted; training split."""
    data = digits(seed)
    y = _mislabelled(data.y, 0.15, 10, data.rng)
    net = Network(data, hidden=100).train(data.x, data.y, 25)
    before = net.logits(data.x)
    net.model.set_params(learning_rate_init=0.01)
    net.train(data.x, y, 60)
    return _trained(before, net.logits(data.x), y, "label_noise")


def learnt_from_scratch(seed: int) -> Trained:
    """Train on such labels alone; a network that has seen them from the start was unsure of all.

    So it was calibrated, wrong labels included, and two epochs show no more than that it learnt.
    """
    data = digits(seed)
    y = _mislabelled(data.y, 0.15, 10, data.rng)
    net = Network(data, hidden=100, decay=0.3).train(data.x, y, 25)
    before = net.logits(data.x)
    net.model.set_params(alpha=0.0, learning_rate_init=0.01)
    net.train(data.x, y, 60)
    return _trained(before, net.logits(data.x), y, "label_noise", "separation")


def wrong_validation_labels(seed: int) -> Trained:
    """Train well, and validate with labels of which 15 % are wrong."""
    data = digits(seed)
    y = _mislabelled(data.y_val, 0.15, 10, data.rng)
    net = Network(data).train(data.x, data.y, 12)
    before = net.logits(data.x_val)
    net.train(data.x, data.y, 60)
    return _trained(before, net.logits(data.x_val), y, "label_noise")


def weighted_rare_class(seed: int) -> Trained:
    """Tell whether a digit is an 8, as one in ten is; then with 8s weighing 30 times as much."""
    data = digits(seed)
    data = replace(data, y=(data.y == 8).astype(int), y_val=(data.y_val == 8).astype(int))
    return _reweighted(data, 30.0, "imbalance")


def weighted_class(seed: int) -> Trained:
    """Tell whether a digit is even; then with even ones weighing six times as much."""
    data = digits(seed)
    data = replace(data, y=1 - data.y % 2, y_val=1 - data.y_val % 2)
    return _reweighted(data, 6.0, "threshold")


def _reweighted(data: Data, weight: float, name: str) -> Trained:
    found = []
    for class_weight in (None, {1: weight}):
        model = LogisticRegression(C=3.0, class_weight=class_weight, max_iter=500)
        f = model.fit(data.x, data.y).decision_function(data.x_val)
        found.append(np.stack([np.zeros(len(f)), f], axis=1).astype(np.float32))
    before, after = found
    return _trained(before, after, data.y_val, name)


def broken_inputs(seed: int) -> Trained:
    """Make .8 % of the inputs a hundred times too large and mix up their pixels."""
    data = digits(seed)
    net = Network(data).train(data.x, data.y, 30)
    x = data.x_val.copy()
    rows = data.rng.choice(len(x), len(x) * 8 // 1000, replace=False)
    x[rows] = data.rng.permutation(x[rows].T).T * 100.0
    before, after = net.logits(data.x_val), net.logits(x)
    right_by_chance = (np.arange(len(x)) == rows[:, None]).any(axis=0)
    right_by_chance &= after.argmax(axis=1) == data.y_val
    keep = ~right_by_chance
    return _trained(before[keep], after[keep], data.y_val[keep], "outliers")


def mixed_up_inputs(seed: int) -> Trained:
    """Exchange 4 % of the inputs with one another, so that they come with each other's labels."""
    data = digits(seed)
    net = Network(data).train(data.x, data.y, 30)
    x = data.x_val.copy()
    rows = data.rng.choice(len(x), len(x) * 4 // 100, replace=False)
    x[rows] = x[np.roll(rows, 1)]
    return _trained(net.logits(data.x_val), net.logits(x), data.y_val, "confident_flips")


def nudged_inputs(seed: int) -> Trained:
    """Move inputs that are near the boundary across it, by what changes a linear model least."""
    data = digits(seed)
    model = LogisticRegression(C=20.0, max_iter=500).fit(data.x, data.y)
    z = data.x_val @ model.coef_.T + model.intercept_
    scale = np.mean(calibrated(z, data.y_val)[:, 0] / z[:, 0])
    w, b = scale * model.coef_, scale * model.intercept_
    z = data.x_val @ w.T + b
    rows = np.arange(len(z))
    other = z.copy()
    other[rows, data.y_val] = -np.inf
    runner_up = other.argmax(axis=1)
    m = z[rows, data.y_val] - z[rows, runner_up]
    direction = w[data.y_val] - w[runner_up]
    step = np.where((m > 0) & (m < 1), 2 * m / (direction**2).sum(axis=1), 0.0)
    after = (data.x_val - step[:, None] * direction) @ w.T + b
    return _trained(z, after, data.y_val, "borderline_flips")


def learns(seed: int) -> Trained:
    """Compare an early epoch with a later one, each at its best temperature."""
    data = digits(seed)
    net = Network(data).train(data.x, data.y, 4)
    before = calibrated(net.logits(data.x_val), data.y_val)
    net.train(data.x, data.y, 10)
    return _trained(
        before, calibrated(net.logits(data.x_val), data.y_val), data.y_val, "separation"
    )


def forgets(seed: int) -> Trained:
    """Lose 40 of the 64 pixels: another network is trained without, as long, and calibrated."""
    data = digits(seed)
    before = Network(data).train(data.x, data.y, 12).logits(data.x_val)
    left = np.ones(64)
    left[data.rng.choice(64, 40, replace=False)] = 0.0
    after = Network(data).train(data.x * left, data.y, 12).logits(data.x_val * left)
    before, after = (calibrated(z, data.y_val) for z in (before, after))
    return _trained(before, after, data.y_val, "separation")


def looks_twice(seed: int) -> Trained:
    """Let the same network look twice, each time through noise of its own: nothing but chance."""
    data = digits(seed)
    net = Network(data).train(data.x, data.y, 30)
    noise = data.rng.normal(size=(2, *data.x_val.shape)) * 0.1
    before, after = (net.logits(data.x_val + more) for more in noise)
    return _trained(before, after, data.y_val, "noise")


def iris_scaled_down(seed: int) -> Trained:
    """Multiply the weights of a linear model that goes by sepals by .2.

    With petals as well nearly all are right, and what is wrong outweighs it: too few for a test.
    """
    z, y = _iris_logits(iris(seed), slice(2))
    return _trained(z, z * 0.2, y, "underconfidence")


def iris_loses_petals(seed: int) -> Trained:
    """Go by sepals alone, after petals as well."""
    data = iris(seed)
    (both, y), (sepals, _) = _iris_logits(data, slice(None)), _iris_logits(data, slice(2))
    return _trained(both, sepals, y, "separation")


def _iris_logits(data: Data, columns: slice) -> tuple[Logits, Ints]:
    model = LogisticRegression(C=1.0, max_iter=1000).fit(data.x[:, columns], data.y)
    return calibrated(model.decision_function(data.x_val[:, columns]), data.y_val), data.y_val


CASES: dict[str, Callable[[int], Trained]] = {
    function.__name__: function
    for function in (
        scaled_up, scaled_down, overfitted, decayed, learnt_by_heart, learnt_from_scratch,
        wrong_validation_labels, weighted_rare_class, weighted_class, broken_inputs,
        mixed_up_inputs, nudged_inputs, learns, forgets, looks_twice, iris_scaled_down,
        iris_loses_petals,
    )
}  # fmt: skip

"""A small real training run whose validation loss rises while its accuracy does not fall.

A network with one hidden layer learns scikit-learn's digits, some of whose labels are flipped. It
soon fits what is true of them, then the flipped ones, ever more confidently: the validation loss
turns and rises while ever more validation samples are right.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from fastdiv.errors import UsageError

HIDDEN = 512
DROPOUT = 0.4
BATCH = 16
LEARNING_RATE = 0.015  # at the start; a cosine takes it to 0
FLIPPED = 0.03  # share of labels, in training and validation
VALIDATION = 0.3  # share of samples

Floats = NDArray[np.float32]
Labels = NDArray[np.int64]


def write_dumps(directory: Path, *, epochs: int = 60, seed: int = 3) -> None:
    """Train, and write the predictions of each epoch as Parquet.

    Parameters
    ----------
    directory : Path
        Gets ``train/epoch_000.parquet`` and so on, and ``val/`` likewise, with columns
        ``sample_id`` (int64), ``label`` (int64) and ``logits`` (list of float32, 10 classes).
        Training rows are in the order in which the epoch saw them.
    epochs : int
        Number of passes over the training samples.
    seed : int
        Of everything random: the same seed gives the same files on the same machine.

    Raises
    ------
    UsageError
        Where scikit-learn, which brings the digits, is not installed.
    """
    rng = np.random.default_rng(seed)
    x, y = _digits()
    y = _flipped(y, FLIPPED, rng)
    order = rng.permutation(len(y))
    held_out = round(VALIDATION * len(y))
    val, train = np.sort(order[:held_out]), order[held_out:]
    network = _Network(rng, x.shape[1], int(y.max()) + 1, steps=epochs * -(-len(train) // BATCH))
    for name in ("train", "val"):
        (directory / name).mkdir(parents=True, exist_ok=True)
    for epoch in range(epochs):
        rng.shuffle(train)
        for start in range(0, len(train), BATCH):
            rows = train[start : start + BATCH]
            network.step(x[rows], y[rows])
        for name, rows in (("train", train), ("val", val)):
            path = directory / name / f"epoch_{epoch:03d}.parquet"
            _write(path, rows, y[rows], network.logits(x[rows]))


class _Network:
    """One hidden layer with dropout, trained by Adam (Kingma and Ba 2015, arXiv:1412.6980)."""

    def __init__(self, rng: np.random.Generator, inputs: int, classes: int, steps: int) -> None:
        self.rng = rng
        self.steps = steps
        self.taken = 0
        self.weights: list[Floats] = []
        for n, m in ((inputs, HIDDEN), (HIDDEN, classes)):
            self.weights.append((rng.normal(size=(n, m)) * np.sqrt(2 / n)).astype(np.float32))
            self.weights.append(np.zeros(m, np.float32))
        self.means: list[Floats] = [np.zeros_like(w) for w in self.weights]
        self.squares: list[Floats] = [np.zeros_like(w) for w in self.weights]

    def logits(self, x: Floats) -> Floats:  # (n, inputs) -> (n, classes)
        w1, b1, w2, b2 = self.weights
        return np.asarray(np.maximum(x @ w1 + b1, 0) @ w2 + b2, np.float32)

    def step(self, x: Floats, y: Labels) -> None:
        """Take one step down the gradient of the mean cross-entropy of a batch."""
        w1, b1, w2, b2 = self.weights
        kept = self.rng.random((len(x), HIDDEN), dtype=np.float32) >= DROPOUT
        hidden = np.maximum(x @ w1 + b1, 0) * kept / np.float32(1 - DROPOUT)
        logits = hidden @ w2 + b2
        slope = np.exp(logits - logits.max(axis=1, keepdims=True))
        slope /= slope.sum(axis=1, keepdims=True)
        slope[np.arange(len(y)), y] -= 1
        slope /= len(y)
        back = (slope @ w2.T) * (hidden > 0) / np.float32(1 - DROPOUT)
        self._descend([x.T @ back, back.sum(axis=0), hidden.T @ slope, slope.sum(axis=0)])

    def _descend(self, gradients: list[Floats]) -> None:
        rate = LEARNING_RATE * (1 + np.cos(np.pi * self.taken / self.steps)) / 2
        self.taken += 1
        correct_mean, correct_square = 1 - 0.9**self.taken, 1 - 0.999**self.taken
        for w, g, m, v in zip(self.weights, gradients, self.means, self.squares, strict=True):
            m += 0.1 * (g - m)
            v += 0.001 * (g * g - v)
            w -= (rate / correct_mean) * m / (np.sqrt(v / correct_square) + 1e-8)


def _digits() -> tuple[Floats, Labels]:
    """Return the images (1797, 64), scaled to [0, 2], and their labels."""
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise UsageError(
            "the demo needs scikit-learn for its digits: pip install 'fastdiv[demo]'"
        ) from None
    digits = load_digits()
    return (digits.data / 8).astype(np.float32), digits.target.astype(np.int64)


def _flipped(y: Labels, share: float, rng: np.random.Generator) -> Labels:
    """Return labels of which a share is another class."""
    classes = int(y.max()) + 1
    other = (y + rng.integers(1, classes, len(y))) % classes
    return np.asarray(np.where(rng.random(len(y)) < share, other, y))


def _write(path: Path, ids: Labels, labels: Labels, logits: Floats) -> None:
    n, c = logits.shape
    offsets = np.arange(0, (n + 1) * c, c, dtype=np.int32)
    table = pa.table(
        {
            "sample_id": ids,
            "label": labels,
            "logits": pa.ListArray.from_arrays(offsets, logits.ravel()),
        }
    )
    pq.write_table(table, path)

"""Two calibrated epochs of the same samples, between which nothing but chance lies.

Both are views of one latent state, made alike, and each is calibrated in the strictest sense: the
label, given an epoch's logits, follows their softmax.

1. Beliefs ``b = log(prior) + h * g`` with ``g`` (n, c) normal and a scale ``h`` (n,) a sample that
   makes them heavy-tailed: lognormal, or that of a Student t of 3 to 5 degrees of freedom, about a
   median of ``sqrt(2 log c)`` times a number of the draw's own, and at most 10 medians.
2. The label is drawn from ``softmax(b)``.
3. Each epoch sees the label through noise of its own, ``x = s * onehot(label) + noise`` with unit
   normal noise (n, c), and takes account of it as it should: by Bayes' rule its logits are
   ``b + s * x``. The strength s of what it sees differs from sample to sample, with h.

So the two epochs are exchangeable: the expected changes of loss and accuracy are 0, by construction
and with no fit, while single losses move by up to several nats and labels flip both ways. (Noise
added to one epoch's logits alone would make that one over-confident and worse, and to plant flips
where one epoch is right would meet regression to the mean.)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Logits = NDArray[np.float32]  # (n, c)
Labels = NDArray[np.int32]  # (n,)
Floats = NDArray[np.float64]
Rows = NDArray[np.int64]

IMBALANCED = 0.08  # nats that the entropy of skewed labels lacks of log(c), at least


@dataclass(slots=True)
class World:
    """Epochs while something is planted in the later one; arrays are replaced, not written to."""

    rng: np.random.Generator
    before: Logits
    after: Logits
    labels: Labels  # as they are on record
    truth: Labels  # as they were drawn

    def margin(self, z: Logits) -> Floats:
        """Return (n,) how far the label's logit is above the largest other one."""
        return np.asarray(column(z, self.labels) - column(z, runner_up(z, self.labels)), np.float64)

    def some(self, candidates: NDArray[np.bool_], share: float) -> Rows:
        """Draw a share of the candidates, at least one if there is any."""
        rows = np.flatnonzero(candidates)
        k = min(len(rows), max(1, round(share * len(rows))))
        return np.sort(self.rng.choice(rows, k, replace=False)) if k else rows

    def exchange(self, rows: Rows, other: Callable[[Logits, Labels], Rows]) -> None:
        """Exchange the logits of the label and of another class in rows of the later epoch."""
        z, y = self.after.copy(), self.labels[rows]
        j = other(z[rows], y)
        z[rows, y], z[rows, j] = z[rows, j], z[rows, y]
        self.after = z

    def mislabel(self, share: float) -> None:
        """Replace a share of the labels on record by another class, all others alike."""
        n, c = self.after.shape
        rows = self.some(np.ones(n, bool), share)
        self.labels = self.labels.copy()
        self.labels[rows] = (self.labels[rows] + self.rng.integers(1, c, len(rows))) % c

    def delta(self) -> Floats:
        """Return the change (n,) in loss, in nats."""
        return losses(self.after, self.labels) - losses(self.before, self.labels)

    def highest_loss(self) -> float:
        """Return what no loss of a calibrated epoch exceeds but in one case of 20."""
        n, c = self.after.shape
        return float(np.log((c - 1) * n / 0.05))


def draw_world(
    rng: np.random.Generator,
    c: int,
    n: int,
    skewed: bool | None = None,
    sharp: bool = False,
    mislabelled: tuple[float, float] | None = None,
) -> World:
    """Draw two calibrated epochs, see above.

    Parameters
    ----------
    rng : np.random.Generator
    c, n : int
        Classes and samples.
    skewed : bool, optional
        Whether class priors are skewed; by default in one of three draws.
    sharp : bool
        Both epochs see the label rather clearly besides, the same way, and then the later one sees
        more of it, with strengths of 1.5 to 2.5 each (in units of ``sqrt(log2(c))``): margins
        grow while hardly any loss is left to lose.
    mislabelled : (float, float), optional
        Between which shares of the labels on record are wrong in both epochs.
    """
    if skewed is None:
        skewed = bool(rng.random() < 1 / 3)
    median = np.sqrt(2 * np.log(c)) * rng.uniform(0.8, 2.0)
    if rng.random() < 0.5:
        h = rng.lognormal(0, rng.uniform(0.2, 0.6), n)
    else:
        freedom = rng.integers(3, 6)
        h = np.sqrt(freedom / rng.chisquare(freedom, n))
    h = np.minimum(median * h, 10 * median)
    g = rng.standard_normal((n, c), np.float32) * h.astype(np.float32)[:, None]
    b, truth = _believed(rng, g, skewed)
    unit = np.sqrt(np.log2(c))
    if sharp:
        b = seen(rng, b, truth, np.full(n, rng.uniform(1.5, 2.5) * unit))
    s = rng.uniform(0.05, 0.3) * np.minimum(h, 3 * median)
    before, after = seen(rng, b, truth, s), seen(rng, b, truth, s)
    if sharp:
        after = seen(rng, after, truth, np.full(n, rng.uniform(1.5, 2.5) * unit))
    world = World(rng, before, after, truth, truth)
    if mislabelled is not None:
        world.mislabel(rng.uniform(*mislabelled))
    return world


def _believed(rng: np.random.Generator, g: Logits, skewed: bool) -> tuple[Logits, Labels]:
    """Return beliefs (n, c), priors included, and labels drawn from their softmax.

    Priors are equal; or one class has 60 to 90 %; or they fall with a power of the rank. Skewed
    ones are made more so until the labels are, whose entropy beliefs raise.
    """
    n, c = g.shape
    noise = rng.gumbel(size=(n, c)).astype(np.float32)
    log_prior = np.zeros(c)
    if skewed and (c == 2 or rng.random() < 0.5):
        share = rng.uniform(0.6, 0.9)
        log_prior[0] = np.log(share / (1 - share) * (c - 1))
    elif skewed:
        log_prior = -rng.uniform(0.7, 1.5) * np.log(np.arange(1, c + 1))
    rng.shuffle(log_prior)
    for more in range(1, 9):
        b = g + (log_prior * more).astype(np.float32)
        labels = (b + noise).argmax(axis=1).astype(np.int32)
        shares = np.bincount(labels, minlength=c) / n
        shares = shares[shares > 0]
        # The entropy of counts is too low by (c - 1) / 2n nats (Miller 1955).
        lacks = np.log(c) + (shares * np.log(shares)).sum() - (len(shares) - 1) / (2 * n)
        if not skewed or lacks >= IMBALANCED:
            break
    return b, labels


def seen(rng: np.random.Generator, z: Logits, labels: Labels, s: Floats) -> Logits:
    """Return logits (n, c) after the label was seen with strength s (n,), by Bayes' rule."""
    n, c = z.shape
    s = s.astype(np.float32)
    noise = rng.standard_normal((n, c), np.float32)
    noise *= s[:, None]
    noise += z
    noise[np.arange(n), labels] += s * s
    return noise


def column(z: Logits, columns: Labels | Rows) -> Logits:
    """Return (n,) the logit of one class a sample."""
    return np.take_along_axis(z, columns[:, None].astype(np.int64), axis=1)[:, 0]


def highest(z: Logits, labels: Labels | Rows) -> Rows:
    """Return (n,) the highest class."""
    return np.asarray(z.argmax(axis=1), np.int64)


def runner_up(z: Logits, labels: Labels | Rows) -> Rows:
    """Return (n,) the highest class but for the label."""
    z = z.copy()
    z[np.arange(len(z)), labels] = -np.inf
    return highest(z, labels)


def losses(z: Logits, labels: Labels) -> Floats:
    """Return (n,) cross-entropies in nats."""
    top = z.max(axis=1)
    total = np.exp(z - top[:, None]).sum(axis=1, dtype=np.float64)
    return np.asarray(np.log(total) + (top.astype(np.float64) - column(z, labels)))

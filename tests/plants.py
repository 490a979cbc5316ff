"""What is planted in the later epoch of a world that is calibrated without it.

Each function changes that epoch, with a strength of its own meaning.
"""

from __future__ import annotations

import numpy as np

from tests.calibrated import World, column, highest, runner_up, seen

NEAR = 1.0  # nats of margin within which a sample is borderline; log 3 is a boundary of the field
FAR = 2.0  # ... beyond which it is confident


def nothing(world: World, strength: float) -> None:
    """Leave everything as it is."""


def scale(world: World, strength: float) -> None:
    """Multiply all logits: the inverse temperature that would undo it is 1 / strength."""
    world.after = world.after * np.float32(strength)


def lean(world: World, strength: float) -> None:
    """Add to the logit of the class most frequent among the labels, or take from it."""
    world.after = world.after.copy()
    sign = world.rng.choice([-1, 1])
    top = np.bincount(world.labels, minlength=world.after.shape[1]).argmax()
    world.after[:, top] += np.float32(sign * strength)


def learn(world: World, strength: float) -> None:
    """See every label once more: logits rise as evidence of this strength has them rise.

    In units of ``sqrt(log2(c))``, what it takes to tell one class from all others.
    """
    n, c = world.after.shape
    s = strength * np.sqrt(np.log2(c)) * world.rng.uniform(0.75, 1.25, n)
    world.after = seen(world.rng, world.after, world.truth, s)


def break_borderline(world: World, strength: float) -> None:
    """Move a share across the boundary, of samples right in both epochs by at most 1 nat in one.

    The logits of the label and of the runner-up are exchanged, so that the margin turns its sign.
    """
    m, was = world.margin(world.after), world.margin(world.before)
    world.exchange(world.some((m > 0) & (m <= NEAR) & (was > 0), strength), runner_up)


def mend_borderline(world: World, strength: float) -> None:
    """Do the reverse: a share of samples wrong in both epochs by at most 1 nat become right."""
    m, was = world.margin(world.after), world.margin(world.before)
    world.exchange(world.some((m < 0) & (m >= -NEAR) & (was < 0), strength), highest)


def break_confident(world: World, strength: float) -> None:
    """Make a share wrong of the samples right by more than 2 nats in both epochs.

    By exchange, as above. Those so sure that one of them, wrong, would be out of place in a
    calibrated epoch are not among them: they would be outliers.
    """
    m, was = world.margin(world.after), world.margin(world.before)
    sure = (np.minimum(m, was) > FAR) & (m < world.highest_loss() - 1)
    world.exchange(world.some(sure, strength), runner_up)


def mend_confident(world: World, strength: float) -> None:
    """Do the reverse: a share of the samples wrong by more than 2 nats in both become right.

    ... and right by as much: no third class is nearer to the one predicted.
    """
    m, was = world.margin(world.after), world.margin(world.before)
    top = highest(world.after, world.labels)
    lead = column(world.after, top) - column(world.after, runner_up(world.after, top))
    world.exchange(world.some((np.maximum(m, was) < -FAR) & (lead > FAR), strength), highest)


def spoil(world: World, strength: float) -> None:
    """Give a share of all samples a terrible prediction: tens to thousands of nats.

    One wrong class, drawn at random, is raised above the label's logit by what no calibrated loss
    exceeds, plus 15 to 3,000 nats (a number of the draw's own, times a lognormal one of each
    sample, sigma .3).
    """
    world.after = world.after.copy()
    n, c = world.after.shape
    rows = world.some(np.ones(n, bool), strength)
    size = np.exp(world.rng.uniform(np.log(15), np.log(3000)))
    x = world.highest_loss() + size * world.rng.lognormal(0, 0.3, len(rows))
    y = world.labels[rows]
    wrong = (y + world.rng.integers(1, c, len(rows))) % c
    world.after[rows, wrong] = world.after[rows, y] + x


def mislabel(world: World, strength: float) -> None:
    """Replace a share of the labels on record by another class, all others alike.

    Both epochs go by the true ones; the later one is sharper (see `draw_world`), so it pays more
    for what is not true, and gains far less where labels are right.
    """
    world.mislabel(strength)


def memorise(world: World, strength: float) -> None:
    """Learn wrong labels by heart, as on a training split: 3 to 30 % of those on record are wrong.

    The later epoch predicts this share of these: the logits of the class that it would predict
    and of the label on record are exchanged.
    """
    world.exchange(world.some(world.labels != world.truth, strength), highest)

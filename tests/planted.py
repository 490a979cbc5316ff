"""Two epochs of logits between which one thing changed, or two, and it is known which.

Without the plant they are calibrated and exchangeable, see `calibrated`.

A plant changes the later epoch, or, in a draw that is reversed, the earlier one: whether something
comes or goes is part of the draw. `plants` says what each does and how its strength is measured,
`CAUSES` what an explanation should name first. Several names are expected where two
epochs cannot tell them apart.

Even seeds are for tuning, odd ones for the proof: no threshold may be chosen by looking at those.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise, product
from typing import Literal

import numpy as np

from tests.calibrated import Floats, Labels, Logits, World, draw_world
from tests.plants import (
    break_borderline,
    break_confident,
    lean,
    learn,
    memorise,
    mend_borderline,
    mend_confident,
    mislabel,
    nothing,
    scale,
    spoil,
)

STRONG = 4.0  # standard errors of a plant, from which it should be found
CLASSES = (2, 3, 4, 5, 8, 10, 20, 30, 50, 100, 200, 500, 1000)
ROWS = (1_000, 50_000)
MOST_VALUES = 5_000_000  # n * c of a case; `draw` itself takes any


@dataclass(frozen=True, slots=True)
class Planted:
    """Two epochs, and what was done to one of them.

    Attributes
    ----------
    before, after : (n, c) float32
        Logits.
    labels : (n,) int32
    cause : str
        A key of `CAUSES`; two of them, joined by `` + ``, in a pair.
    strengths : tuple of float
    expected : tuple of str
        What may be named first.
    reversed : bool
        Whether the plant is in the earlier epoch.
    planted_delta : (n,) float64
        Nats: what the plants change of the change in loss, a sample; the loss of the planted epoch
        with and without the plant, negative where that is the earlier epoch. Where labels were
        changed, the losses of both epochs differ.
    unplanted_delta : (n,) float64
        The change in loss without the plants.
    z : float
        The planted effect in standard errors of itself, ``|mean| / se``; of a pair the lesser.
    z_change : float
        The same in standard errors of the whole change, which chance between the epochs adds to.
    direction : int
        The sign of the mean of `planted_delta`; 0 for `noise`.
    seed : int
    """

    before: Logits
    after: Logits
    labels: Labels
    cause: str
    strengths: tuple[float, ...]
    expected: tuple[str, ...]
    reversed: bool
    planted_delta: Floats
    unplanted_delta: Floats
    z: float
    z_change: float
    direction: int
    seed: int

    @property
    def strong(self) -> bool:
        """Whether the plant should be found: it stands out, and from what chance does as well."""
        return min(self.z, self.z_change) >= STRONG


# What there is to plant ----------------------------------------------------------------------

Plant = Callable[[World, float], None]


@dataclass(frozen=True, slots=True)
class Variant:
    """A plant, its strengths, and whether it is in the earlier epoch (where it goes, then)."""

    plant: Plant
    strengths: tuple[float, ...]
    reversed: bool = False


@dataclass(frozen=True, slots=True)
class Cause:
    """The ways to plant something, what should be named for it, and what it needs.

    `stage` tells in which order two are planted; `skewed` how the class priors are (None: as the
    seed has it); `mislabelled` whether labels are wrong in both worlds, with the plant and without.
    """

    variants: tuple[Variant, ...]
    expected: tuple[str, ...]
    stage: int = 0
    classes: tuple[int, ...] = CLASSES
    skewed: bool | None = None
    sharp: bool = False
    mislabelled: tuple[float, float] | None = None
    least_rows: int = ROWS[0]


def _both(plant: Plant, *strengths: float) -> tuple[Variant, ...]:
    return tuple(Variant(plant, strengths, reversed) for reversed in (False, True))


CAUSES: dict[str, Cause] = {
    "noise": Cause((Variant(nothing, (0.0,)),), ("noise",)),
    "overconfidence": Cause(_both(scale, 1.2, 1.5, 2.0, 3.0, 4.0), ("overconfidence",), stage=4),
    "underconfidence": Cause(_both(scale, 0.3, 0.5, 0.7, 0.85), ("underconfidence",), stage=4),
    # Half of them: then as many of the borderline samples are wrong as are right.
    "borderline_flips": Cause(
        _both(break_borderline, 0.15, 0.3, 0.5) + _both(mend_borderline, 0.3, 0.5, 0.7),
        ("borderline_flips",),
        stage=2,
    ),
    # New errors: they come, or the earlier epoch lacked those that a calibrated one makes.
    "confident_flips": Cause(
        (
            Variant(break_confident, (0.02, 0.05, 0.1, 0.2)),
            Variant(mend_confident, (0.5, 0.75, 1.0), reversed=True),
        ),
        ("confident_flips",),
        stage=2,
    ),
    # ... and errors that go. From two epochs, wrong labels learnt by heart look the same.
    "corrected_errors": Cause(
        (
            Variant(break_confident, (0.02, 0.05, 0.1, 0.2), reversed=True),
            Variant(mend_confident, (0.5, 0.75, 1.0)),
        ),
        ("confident_flips", "label_noise"),
        stage=2,
    ),
    # At most 1 % of samples; of fewer than 16 of one size the standard error is above a quarter.
    "outliers": Cause(_both(spoil, 0.001, 0.002, 0.003, 0.005), ("outliers",), stage=5,
                      least_rows=4_000),
    "label_noise_memorised": Cause(
        (Variant(memorise, (0.5, 0.75, 1.0)),),
        ("label_noise",),
        stage=1,
        mislabelled=(0.03, 0.3),
    ),
    "label_noise_validation": Cause(
        _both(mislabel, 0.03, 0.05, 0.1, 0.2, 0.3), ("label_noise",), stage=1, sharp=True
    ),
    "imbalance": Cause(_both(lean, 0.5, 1.0, 2.0, 3.0), ("imbalance",), stage=3, skewed=True),
    "threshold": Cause(
        _both(lean, 0.4, 0.8, 1.5, 2.5), ("threshold",), stage=3, classes=(2,), skewed=False
    ),
    "learning": Cause((Variant(learn, (0.3, 0.5, 0.8, 1.2, 2.0)),), ("separation",)),
    "forgetting": Cause((Variant(learn, (0.3, 0.5, 0.8, 1.2, 2.0), True),), ("separation",)),
}  # fmt: skip

# Two that undo each other are no pair, nor two that want other priors or other wrong labels, nor
# borderline samples where hardly any is borderline.
OPPOSED = (
    {"overconfidence", "underconfidence"}, {"confident_flips", "corrected_errors"},
    {"learning", "forgetting"}, {"imbalance", "threshold"},
    {"label_noise_memorised", "label_noise_validation"},
    {"label_noise_memorised", "confident_flips"},
    {"borderline_flips", "label_noise_validation"},
)  # fmt: skip


def _fits(names: Sequence[str]) -> list[tuple[Variant, ...]]:
    """Return the combinations of variants in which all are in the same epoch."""
    return [
        chosen
        for chosen in product(*(CAUSES[name].variants for name in names))
        if len({v.reversed for v in chosen}) == 1
    ]


PAIRS: tuple[tuple[str, str], ...] = tuple(
    pair
    for pair in combinations([name for name in CAUSES if name != "noise"], 2)
    if set(pair) not in OPPOSED and _fits(pair)
)


# Drawing -------------------------------------------------------------------------------------


def draw(cause: str, strength: float, classes: int, n: int, seed: int, variant: int = 0) -> Planted:
    """Plant one cause.

    Parameters
    ----------
    cause : str
        A key of `CAUSES`.
    strength : float
        See the plant of the variant; one of its strengths, or any other.
    classes, n : int
    seed : int
        Even for tuning, odd for the proof.
    variant : int
        Which of the cause's variants.
    """
    return _draw([cause], [strength], [CAUSES[cause].variants[variant]], classes, n, seed)


def draw_two(
    causes: tuple[str, str], strengths: tuple[float, float], classes: int, n: int, seed: int,
    variant: int = 0,
) -> Planted:  # fmt: skip
    """Plant two causes in the same epoch, in the order of their stages; see `draw`.

    `variant` counts the combinations of the causes' variants that are in the same epoch.
    """
    return _draw(causes, strengths, _fits(causes)[variant], classes, n, seed)


def _draw(
    names: Sequence[str], strengths: Sequence[float], variants: Sequence[Variant], classes: int,
    n: int, seed: int,
) -> Planted:  # fmt: skip
    causes = [CAUSES[name] for name in names]
    rng = np.random.default_rng([seed, classes, n, zlib.crc32("+".join(names).encode())])
    wanted = [cause.skewed for cause in causes if cause.skewed is not None]
    shares = [cause.mislabelled for cause in causes if cause.mislabelled is not None]
    world = draw_world(
        rng, classes, n, wanted[0] if wanted else None, any(cause.sharp for cause in causes),
        shares[0] if shares else None,
    )  # fmt: skip
    deltas = [world.delta()]
    for k in sorted(range(len(names)), key=lambda k: causes[k].stage):
        variants[k].plant(world, strengths[k])
        deltas.append(world.delta())
    sign = -1 if variants[0].reversed else 1
    steps = [sign * (b - a) for a, b in pairwise(deltas)]
    planted, unplanted = sign * (deltas[-1] - deltas[0]), sign * deltas[0]
    before, after = (world.before, world.after)[::sign]
    whole = planted + unplanted
    return Planted(
        before, after, world.labels, " + ".join(names), tuple(strengths),
        tuple(dict.fromkeys(name for cause in causes for name in cause.expected)),
        variants[0].reversed, planted, unplanted, min(_z(step, step) for step in steps),
        min(_z(step, whole) for step in steps), int(np.sign(planted.mean())), seed,
    )  # fmt: skip


def _z(delta: Floats, spread_of: Floats) -> float:
    """Return a mean in standard errors of one's mean; of what never varies, 0 or inf."""
    mean, spread = abs(delta.mean()), spread_of.std() / np.sqrt(len(delta))
    if spread == 0:
        return float(np.inf) if mean else 0.0
    return float(mean / spread)


# Many of them --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Case:
    """What a draw is made from: its causes, their strengths, classes, rows, seed and variant."""

    causes: tuple[str, ...]
    strengths: tuple[float, ...]
    classes: int
    n: int
    seed: int
    variant: int

    def draw(self) -> Planted:
        """Draw it; the same again whenever it is drawn."""
        if len(self.causes) == 1:
            (cause,), (strength,) = self.causes, self.strengths
            return draw(cause, strength, self.classes, self.n, self.seed, self.variant)
        first, second = self.causes
        return draw_two(
            (first, second), (self.strengths[0], self.strengths[1]), self.classes, self.n,
            self.seed, self.variant,
        )  # fmt: skip


def cases(
    split: Literal["tuning", "proof"],
    draws: int,
    causes: Sequence[str | tuple[str, str]] = tuple(CAUSES),
    start: int = 0,
) -> Iterator[Case]:
    """Yield draws of each cause or pair, one cause after the other; always the same ones.

    Variants, strengths, classes (2 to 1000) and rows (1,000 to 50,000, evenly on a log scale, at
    most 5 million values) are drawn from the seed.

    Parameters
    ----------
    split : str
        Even seeds for "tuning", odd ones for the "proof".
    draws : int
        Of each.
    causes : sequence
        Names, or pairs of them, such as `PAIRS`.
    start : int
        How many draws of each to pass over first.
    """
    if split not in ("tuning", "proof"):
        raise ValueError(f"no split {split!r}: tuning or proof")
    for entry in causes:
        names = (entry,) if isinstance(entry, str) else entry
        for k in range(start, start + draws):
            yield _case(names, 2 * k + (split == "proof"))


def _case(names: tuple[str, ...], seed: int) -> Case:
    rng = np.random.default_rng([seed, zlib.crc32("+".join(names).encode())])
    causes, choices = [CAUSES[name] for name in names], _fits(names)
    variant = int(rng.integers(len(choices)))
    strengths = tuple(float(rng.choice(v.strengths)) for v in choices[variant])
    allowed = [c for c in CLASSES if all(c in cause.classes for cause in causes)]
    c = int(rng.choice(allowed))
    least = max(cause.least_rows for cause in causes)
    most = min(ROWS[1], MOST_VALUES // c)
    n = round(float(np.exp(rng.uniform(np.log(min(least, most)), np.log(most)))))
    return Case(names, strengths, c, n, seed, variant)

"""Totals of a tile's losses at the temperatures of the grid, in fixed point.

A number is rounded to a whole multiple of a unit, so small that no more than 31 bits are taken. The
multiples are added modulo 2**32, and once more as floats: these tell how often the sum went round,
and nothing else. Of logarithms the exponents are added apart. Gaps are split in multiples of 2**-11
and a rest, by adding a number so large that the last bit of the sum is the unit. All is whole
numbers, in any order.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fastdiv_kernels.contract import GRID
from fastdiv_kernels.cpu.jit import cgutils, inner, intrinsic, types
from fastdiv_kernels.cpu.lanes import (
    ALIGNED,
    FLOAT,
    I32,
    I64,
    LN_OF_ONE_MORE,
    LOG1P_TO_ONE,
    MANTISSA,
    Lanes,
    aligned,
    alloca,
    on_floats,
)
from fastdiv_kernels.cpu.powers import CURVE, DIVIDED, POWERS, SCRATCH, SLOPES, TILE, WIDTH, i64

SIXTEENTHS = np.array([round(16 * beta) for beta in GRID], np.int64)
assert tuple(SIXTEENTHS / 16) == GRID

PAIRS, VECTORS, CURVES = range(3)  # what rows are of
LOW = np.int64(0xFFFFFFFF)
TURN = 2.0**-32
REST = 8  # numbers that a vector takes of a curve's last six
LN2 = np.int64(round(math.log(2) * 2**32))
FAR = np.float32(31.984375)  # nats: curves' numbers are nearer to 0, of 7e13 classes just so
# Bits after the point: of ln(1 + x) of the mantissa, half of ln 2 at most, and of a pair, ln 2 at
# most; of what is stored in 16 bits. Means of x are up to 1.4 / beta, of 16 classes: groups of
# inverse temperatures have units of their own, of which 31 bits hold eight.
LOG_BITS, PAIR_BITS, STORED_BITS = 32, 31, 24
MEAN_BITS = [24 + 2 * (k // 4) for k in range(POWERS)]
TOGETHER = 4  # tiles that are added at once: eight vectors of eight rows at most
PAIR_UNIT, LOG_UNIT, STORED_UNIT = np.int64(2), np.int64(1), np.int64(256)  # times 2**-32
MEAN_UNITS = np.array([round(GRID[k] * 2 ** (32 - MEAN_BITS[k])) for k in range(POWERS)])
HIGH_BITS = 11
GAP_BITS = 28
TILES = 256  # whose multiples floats count well enough, and whose parts of gaps 32 bits hold
# Totals, flat, 32 bits, each with TILE lanes: multiples by position in a curve and their sums in
# floating point, exponents, high and low parts of the gap, rows.
ABOUT = CURVE * TILE
EXPONENTS = 2 * CURVE * TILE
GAP_HIGH = EXPONENTS + POWERS * TILE
GAP_LOW = GAP_HIGH + TILE
ROWS = GAP_LOW + TILE
TOTALS = ROWS + TILE


def rounding(bits: int) -> float:
    """Return what is added to round to multiples of 2**-bits."""
    return float(1.5 * 2.0 ** (23 - bits))


def add_gaps(lanes: Lanes, gap: Any, there: Any, place: Callable[[int], Any]) -> None:
    """Add gaps of rows that are `there` to totals."""
    builder = lanes.builder
    gap = builder.select(there, gap, lanes.every(0.0))
    coarse = lanes.every(rounding(HIGH_BITS))
    shifted = builder.fadd(gap, coarse)
    rest = builder.fsub(gap, builder.fsub(shifted, coarse))
    fine = builder.fadd(rest, lanes.every(rounding(GAP_BITS)))
    for at, part in ((GAP_HIGH, shifted), (GAP_LOW, fine)):
        total = builder.add(lanes.load(place(at), 4), lanes.as_ints(part))
        lanes.store(total, place(at), 4)


class Multiples:
    """Totals at a position, in registers while vectors of numbers of units are added.

    All those numbers together stay below 2**31 if `few`.
    """

    def __init__(
        self, lanes: Lanes, total: Callable[[int], Any], at: int, few: bool = False
    ) -> None:
        self.lanes, self.few = lanes, few
        self.places = (total(at), lanes.builder.bitcast(total(ABOUT + at), FLOAT.as_pointer()))
        zeros = (lanes.every(0, I32), lanes.every(0.0))
        self.held = [alloca(lanes.builder, zero) for zero in zeros]

    def add(self, x: Any) -> None:
        """Add numbers, cut to whole ones."""
        builder = self.lanes.builder
        whole, about = self.held
        multiple = builder.fptosi(x, self.lanes.ints)
        builder.store(builder.add(builder.load(whole), multiple), whole)
        if not self.few:
            builder.store(builder.fadd(builder.load(about), x), about)

    def keep(self) -> None:
        """Write the totals."""
        builder = self.lanes.builder
        whole, about = (builder.load(held) for held in self.held)
        about = builder.sitofp(whole, self.lanes.floats) if self.few else about
        before, about_before = (self.lanes.load(place, 4) for place in self.places)
        self.lanes.store(builder.add(before, whole), self.places[0], 4)
        self.lanes.store(builder.fadd(about_before, about), self.places[1], 4)


def adds_sums(pairs: bool) -> Callable[..., Any]:
    """Make the intrinsic that adds what sums of powers tell.

    If `pairs`, sums are of one number, and x is where the first sum of powers times x would be.
    """

    def add(typing_context: Any, w: Any, tiles: Any, totals: Any) -> Any:
        def body(builder: Any, place: Callable[..., Any], args: Any) -> None:
            lanes = Lanes(builder, WIDTH)
            half = lanes.every(0.5)

            def total(at: int) -> Any:
                return place(2, at)

            def each(add_vector: Callable[[Callable[[int], Any]], None]) -> None:
                with cgutils.for_range(builder, args[1], intp=I64) as loop:
                    first = builder.mul(loop.index, i64(SCRATCH))
                    for part in range(0, TILE, WIDTH):

                        def load(at: int, part: int = part, first: Any = first) -> Any:
                            return lanes.load(place(0, at + part, first), 4)

                        add_vector(load)

            for first in range(0, POWERS, DIVIDED):
                group = range(first, min(first + DIVIDED, POWERS))
                means = [Multiples(lanes, total, (POWERS + k) * TILE, few=True) for k in group]

                def add_means(
                    load: Callable[[int], Any], group: Any = group, means: Any = means,
                    scale: float = 2.0 ** MEAN_BITS[first],
                ) -> None:  # fmt: skip
                    sums = [load(k * TILE) for k in group]
                    whole = [builder.fadd(x, lanes.every(1.0)) for x in sums]
                    unit = lanes.every(scale)
                    unit = builder.fmul(load(SLOPES), unit) if pairs else unit
                    inverses = lanes.inverses(whole, unit)
                    for k, power, inverse, mean in zip(group, sums, inverses, means, strict=True):
                        slope = power if pairs else load(SLOPES + k * TILE)
                        mean.add(lanes.multiply_add(slope, inverse, builder.fneg(half)))

                each(add_means)
                for mean in means:
                    mean.keep()
            for k in range(POWERS):
                logs = Multiples(lanes, total, k * TILE)
                exponents = alloca(builder, lanes.every(0, I32))

                def add_logs(
                    load: Callable[[int], Any], k: int = k, logs: Any = logs,
                    exponents: Any = exponents,
                ) -> None:  # fmt: skip
                    x = load(k * TILE)
                    if pairs:
                        p = lanes.polynomial(x, scaled(LOG1P_TO_ONE, PAIR_BITS))
                    else:
                        x, exponent = lanes.mantissa_less_one(x)
                        builder.store(builder.add(builder.load(exponents), exponent), exponents)
                        p = lanes.polynomial(x, scaled(LN_OF_ONE_MORE, LOG_BITS))
                    logs.add(lanes.multiply_add(p, x, half))

                each(add_logs)
                logs.keep()
                if not pairs:
                    exponent = builder.ashr(builder.load(exponents), lanes.every(MANTISSA, I32))
                    place_of = total(EXPONENTS + k * TILE)
                    lanes.store(builder.add(lanes.load(place_of, 4), exponent), place_of, 4)

        return types.void(w, tiles, totals), on_floats(body)

    return intrinsic(add)


add_sums = adds_sums(False)
add_pairs = adds_sums(True)


def scaled(coefficients: Sequence[float], bits: int) -> list[float]:
    """Return a polynomial in units of 2**-bits."""
    return [2.0**bits * coefficient for coefficient in coefficients]


@intrinsic
def add_curves(
    typing_context: Any, curves: Any, at: Any, rows: Any, scales: Any, totals: Any
) -> Any:
    """Add rows of curves, as they are stored from curves[at] on, each times its scale.

    A scale is 0 or 2**STORED_BITS. The last eight numbers of a row make a vector of their own,
    whose first two are not looked at afterwards.
    """

    def body(builder: Any, place: Callable[..., Any], args: Any) -> None:
        def total(at: int) -> Any:
            return place(4, at)

        widths = [Lanes(builder, width) for width in (TILE, REST)]
        sums = [Multiples(lanes, total, at) for lanes, at in zip(widths, (0, TILE), strict=True)]
        with cgutils.for_range(builder, args[2], intp=I64) as loop:
            row = builder.add(args[1], builder.mul(loop.index, i64(CURVE)))
            scale = builder.load(place(3, loop.index))
            for lanes, first, numbers in zip(widths, (0, CURVE - REST), sums, strict=True):
                x = lanes.from_halves(lanes.load(place(0, first, row), 1))
                x = lanes.at_least(x, lanes.every(-FAR))
                x = lanes.at_most(x, lanes.every(FAR))
                numbers.add(builder.fmul(x, lanes.spread(scale)))
        for numbers in sums:
            numbers.keep()

    return types.void(curves, at, rows, scales, totals), on_floats(body)


@inner()
def new_totals() -> Any:
    """Make totals of nothing."""
    return aligned(np.zeros(TOTALS + ALIGNED, np.int32))


@inner()
def add_integer(sums: Any, k: Any, fixed: Any) -> None:
    """Add multiples of 2**-32 to row k of sums."""
    sums[k, 0] += fixed & LOW
    sums[k, 1] += fixed >> 32


@inner()
def settle(totals: Any, tiles: Any, kind: Any, counts: Any, sums: Any) -> None:
    """Add the totals of so many tiles to those of the caller, and begin anew."""
    gap = joined_gaps(totals, tiles)
    floats = totals.view(np.float32)
    for k in range(POWERS):
        beta_gap = SIXTEENTHS[k] * gap
        if kind == CURVES:
            s = STORED_UNIT * joined(totals, floats, k, 1)
            at = POWERS + k
            at = at if at < TILE else at + TILE + REST - CURVE
            mean = STORED_UNIT * joined(totals, floats, at, 1)
        else:
            s = joined(totals, floats, k * TILE, TILE)
            s = s * PAIR_UNIT if kind == PAIRS else s * LOG_UNIT
            for lane in range(TILE):
                s += LN2 * np.int64(totals[EXPONENTS + k * TILE + lane])
            mean = MEAN_UNITS[k] * joined(totals, floats, (POWERS + k) * TILE, TILE)
        add_integer(sums, k, s + beta_gap)
        add_integer(sums, POWERS + k, mean + beta_gap)
    for lane in range(TILE):
        counts[0] += totals[ROWS + lane]
    totals[:] = 0


@inner()
def joined(totals: Any, floats: Any, at: Any, lanes: Any) -> Any:
    """Return a sum over lanes from what it is modulo 2**32 and what it is about."""
    fixed = np.int64(0)
    for i in range(at, at + lanes):
        whole = np.int64(totals[i])
        turns = np.rint((np.float64(floats[ABOUT + i]) - np.float64(whole)) * TURN)
        fixed += whole + (np.int64(turns) << 32)
    return fixed


@inner()
def joined_gaps(totals: Any, tiles: Any) -> Any:
    """Return the sum of gaps as a multiple of 2**-GAP_BITS, from its two parts."""
    too_high, too_low = tiles * bits_of_rounding(HIGH_BITS), tiles * bits_of_rounding(GAP_BITS)
    fixed = np.int64(0)
    for lane in range(TILE):
        high = np.int64(np.int32(totals[GAP_HIGH + lane] - too_high))
        fixed += high << (GAP_BITS - HIGH_BITS)
        fixed += np.int64(np.int32(totals[GAP_LOW + lane] - too_low))
    return fixed


@inner()
def bits_of_rounding(bits: Any) -> Any:
    """Return the bits of what `rounding` returns."""
    return np.int64(127 + 23 - bits) << 23 | np.int64(1 << 22)

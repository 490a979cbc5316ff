"""Sums and counts by a small key in one table of packed words: one addition a row, not three.

A word is, from its lowest bit, a number in fixed point, a 1, and a 1 if the row is right; a tile's
words of one key add up without one field running into the next. Rows are added by turns to one of
several tables, because an addition must wait for the one before it where both have the same key.
"""

from typing import Any

import numpy as np

from fastdiv_kernels.contract import BINS, CORRECT, PRESENT
from fastdiv_kernels.cpu.eights import (
    DOUBLE,
    I32,
    I64,
    MAGNITUDE,
    VALID,
    Rows,
    bits_32,
    data_of,
)
from fastdiv_kernels.cpu.jit import inner, intrinsic, kernel, types
from fastdiv_kernels.cpu.sums import add
from fastdiv_kernels.cpu.windows import TILE, add_fixed

COPIES = 4
FRACTION = 33  # bits of a confidence: all float32 from 2**-10
HIGHEST = 1.5  # no confidence is above HIGHEST_PROB
LEAST = 2.0 ** (23 - FRACTION)
LEVELS = 24  # BINS times a confidence, rounded up; that below the first bin is added to it
COUNT_AT = 43
RIGHT_AT = 53
COUNT = (1 << (RIGHT_AT - COUNT_AT)) - 1
assert 2**FRACTION * HIGHEST * TILE < 2**COUNT_AT, "numbers reach the counts"
assert TILE <= COUNT, "counts reach the counts of right rows"
NUMBER = (1 << COUNT_AT) - 1
ROUND = 1.5 * 2.0 ** (52 - FRACTION)
ROUND_BITS = int(np.float64(ROUND).view(np.int64))
RIGHT_BIT = CORRECT.bit_length() - 1


@inner()
def reliability_bin(confidence: Any) -> Any:
    """Return which of the BINS a confidence is in; NaN, which no valid row has, is in the last.

    In float64, so that the product is exact and an edge belongs to the bin below it.
    """
    p = np.float64(confidence)
    above = np.ceil(BINS * p) - 1.0
    above = above if above > 0.0 else 0.0
    return np.int32(above if p < 1.0 else BINS - 1.0)


@inner()
def fits(confidence: Any) -> Any:
    """Say whether a confidence is a whole number of units of 2**-FRACTION, below HIGHEST."""
    return (confidence == 0) | ((confidence >= LEAST) & (confidence < HIGHEST))


@intrinsic
def pack_confidences(
    typing_context: Any, confidence: Any, flags: Any, at: Any, rows: Any, keys: Any, words: Any
) -> Any:  # fmt: skip
    """Write the level and word of rows from `at`, whole eights; returns 0 if `fits` holds them all.

    Others are counted in the lowest level, and their number is 0. Rows that are not valid have the
    word 0.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        confidence, flags, at, rows, keys, words = data_of(context, builder, signature, args)
        lanes = Rows(builder)
        odd = lanes.places(1, I32)[0]
        wide = lanes.vector(I64)
        rounding = lanes.every(DOUBLE, ROUND)
        with lanes.each(at, rows) as (before, i):
            own = lanes.flags(flags, i)
            valid = lanes.valid(own)
            p = lanes.load(confidence, i)
            bits = builder.and_(lanes.ints(p), lanes.every(I32, MAGNITUDE))
            within = lanes.between(lanes.ints(p), bits_32(LEAST), bits_32(HIGHEST))
            left = builder.and_(builder.and_(bits, valid), builder.not_(within))
            lanes.join(odd, left)
            d = lanes.double(lanes.kept(p, within))
            number = builder.sub(
                lanes.ints(builder.fadd(d, rounding)), lanes.every(I64, ROUND_BITS)
            )
            # BINS times it, rounded up: whole numbers do that exactly.
            level = builder.sub(builder.shl(number, lanes.every(I64, 4)), number)
            level = builder.add(level, lanes.every(I64, (1 << FRACTION) - 1))
            level = builder.lshr(level, lanes.every(I64, FRACTION))
            right = builder.zext(builder.and_(own, lanes.every(I32, CORRECT)), wide)
            right = builder.shl(right, lanes.every(I64, RIGHT_AT - RIGHT_BIT))
            word = builder.add(builder.add(number, lanes.every(I64, 1 << COUNT_AT)), right)
            lanes.store(level, keys, before)
            lanes.store(builder.and_(word, lanes.wide(valid)), words, before)
        return lanes.any(builder.load(odd))

    integers = (types.uint64, types.uint64)
    return types.int32(confidence, flags, *integers, keys, words), generate


@inner()
def add_words(keys: Any, words: Any, rows: Any, table: Any, size: Any) -> None:
    """Add each row's word to its key's in one of the tables (COPIES * size,), whole eights."""
    one, two, three = np.uint64(1), np.uint64(2), np.uint64(3)
    for i in range(np.uint64(0), rows, np.uint64(COPIES)):
        table[keys[i]] += words[i]
        table[np.uint64(size) + keys[i + one]] += words[i + one]
        table[np.uint64(2 * size) + keys[i + two]] += words[i + two]
        table[np.uint64(3 * size) + keys[i + three]] += words[i + three]


@inner()
def tally_bins(
    confidence: Any, flags: Any, at: Any, rows: Any, keys: Any, words: Any, table: Any, found: Any,
    bins: Any, sums: Any, first: Any, total: Any,
) -> None:  # fmt: skip
    """Add a tile's confidences, whole eights, to what `settle_bins` adds to the BINS.

    `keys` and `words` (TILE,), `table` (COPIES * LEVELS,) are scratch, the last all 0.
    """
    odd = pack_confidences(confidence, flags, at, rows, keys, words)
    add_words(keys, words, rows, table, LEVELS)
    for level in range(LEVELS):
        word = np.int64(0)
        for copy in range(COPIES):
            word += table[copy * LEVELS + level]
            table[copy * LEVELS + level] = 0
        found[0, level] += word & NUMBER
        found[1, level] += (word >> COUNT_AT) & COUNT
        found[2, level] += word >> RIGHT_AT
    if odd != 0:
        add_odd(confidence, flags, at, rows, bins, sums, first, total)


@kernel  # seldom called
def add_odd(
    confidence: Any, flags: Any, at: Any, rows: Any, bins: Any, sums: Any, first: Any, total: Any
) -> None:  # fmt: skip
    """Add the numbers that are no whole units, which were counted in the first bin."""
    for i in range(at, at + rows):
        p = confidence[i]
        if flags[i] & VALID == PRESENT and not fits(p):
            b = reliability_bin(p)
            right = (flags[i] >> RIGHT_BIT) & 1
            bins[0, 0] -= 1
            bins[0, 1] -= right
            bins[b, 0] += 1
            bins[b, 1] += right
            if abs(p) < np.inf:
                add(sums, first + b, p, 1)
                if total >= 0:
                    add(sums, total, p, 1)


@inner()
def settle_bins(found: Any, bins: Any, sums: Any, first: Any, total: Any) -> None:
    """Add found (3, LEVELS) to BINS, from row `first` of sums, and to row `total` if >= 0."""
    for level in range(LEVELS):
        b = min(max(level - 1, 0), BINS - 1)
        bins[b, 0] += found[1, level]
        bins[b, 1] += found[2, level]
        add_fixed(sums, first + b, found[0, level], FRACTION)
        if total >= 0:
            add_fixed(sums, total, found[0, level], FRACTION)
    found[:] = 0

"""Exact sums of losses by a key, with counts: one addition of four words a row.

A row adds its loss in three parts, multiples of 2**-COARSE, 2**-MIDDLE and 2**-FINE, and a word of
counts. So a key's words are a vector of their own in a table, and its sums stay in 64 bits for many
rows. Rows are added by turns to COPIES of a key's words: an addition must wait for the one before
it in the same place. Rows that are not to be added have a key of their own, the last.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from llvmlite import ir

from fastdiv_kernels.contract import CORRECT
from fastdiv_kernels.cpu.eights import (
    COARSE,
    DOUBLE,
    FLOAT,
    I32,
    I64,
    MAGNITUDE,
    ROWS,
    Rows,
    bits_32,
    bits_64,
)
from fastdiv_kernels.cpu.jit import inner
from fastdiv_kernels.cpu.windows import add_fixed

MIDDLE = COARSE + 45
FINE = MIDDLE + 45
LIMIT = 2.0**12  # nats; float32 from LEAST to here are the sum of their parts, and 0
LEAST = 2.0 ** (23 - FINE)
ROUNDS = tuple(1.5 * 2.0 ** (52 - bits) for bits in (COARSE, MIDDLE, FINE))
MOST = 1 << 17  # rows whose sums stay in 64 bits: of twice LIMIT, in units of 2**-COARSE
assert 2 * LIMIT * 2**COARSE * MOST < 2**63
assert 2 * 2**44 * MOST < 2**63
COPIES = 2
WORDS = 4  # of a key: parts of losses, counts
RIGHT_BIT = CORRECT.bit_length() - 1
RIGHT_AT = 32  # in a word of counts, above that of rows


def parts(lanes: Rows, x: Any) -> list[Any]:
    """Return doubles in three parts, as bits of what rounded them."""
    builder, found = lanes.builder, []
    for rounding in ROUNDS:
        shifted = builder.fadd(x, lanes.every(DOUBLE, rounding))
        x = builder.fsub(x, builder.fsub(shifted, lanes.every(DOUBLE, rounding)))
        found.append(lanes.ints(shifted))
    return found


def without_rounding(lanes: Rows, found: Sequence[Any]) -> list[Any]:
    """Return the parts themselves."""
    return [
        lanes.builder.sub(part, lanes.every(I64, bits_64(rounding)))
        for part, rounding in zip(found, ROUNDS, strict=True)
    ]


def is_whole(lanes: Rows, x: Any) -> Any:
    """Return which floats or doubles are the sum of their parts: a mask of 32 bits."""
    builder = lanes.builder
    if x.type.element == FLOAT:
        bits = builder.and_(lanes.ints(x), lanes.every(I32, MAGNITUDE))
        zero = lanes.below(bits, 1)
        return builder.or_(zero, lanes.between(bits, bits_32(LEAST), bits_32(LIMIT)))
    rest = x
    for rounding in ROUNDS:
        shifted = builder.fadd(rest, lanes.every(DOUBLE, rounding))
        rest = builder.fsub(rest, builder.fsub(shifted, lanes.every(DOUBLE, rounding)))
    exact = builder.fcmp_ordered("==", rest, lanes.every(DOUBLE, 0.0))
    near = builder.fcmp_ordered("<", lanes.size(x), lanes.every(DOUBLE, LIMIT))
    return lanes.mask(builder.and_(exact, near))


def one_each(lanes: Rows, flags: Any) -> Any:
    """Return words of counts for rows with flags in lanes of 32 bits: a row, right or not."""
    builder = lanes.builder
    right = builder.and_(flags, lanes.every(I32, CORRECT))
    right = builder.zext(right, lanes.vector(I64))
    right = builder.shl(right, lanes.every(I64, RIGHT_AT - RIGHT_BIT))
    return builder.or_(right, lanes.every(I64, 1))


def add_rows(lanes: Rows, words: Sequence[Any], keys: Any, at: Any, table: Any) -> None:
    """Add four vectors of words to those of rows' keys (int32, from `at`) in a table."""
    builder = lanes.builder
    four = ir.VectorType(I64, WORDS)
    places = builder.bitcast(table, four.as_pointer())
    for row in range(ROWS):
        key = builder.load(builder.gep(keys, [builder.add(at, ir.Constant(I64, row))]), align=1)
        key = builder.mul(builder.zext(key, I64), ir.Constant(I64, COPIES))
        place = builder.gep(places, [builder.add(key, ir.Constant(I64, row % COPIES))])
        pairs = [builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(I32, 2), [row, ROWS + row]))
                 for a, b in (words[:2], words[2:])]  # fmt: skip
        own = builder.shuffle_vector(*pairs, ir.Constant(ir.VectorType(I32, 4), [0, 1, 2, 3]))
        builder.store(builder.add(builder.load(place, align=8), own), place, align=8)


def add_loss_rows(
    lanes: Rows, loss: Any, flags: Any, i: Any, keys: Any, at: Any, table: Any
) -> None:  # fmt: skip
    """Add losses of eight rows from i, with counts, to the words of keys from `at`."""
    found = parts(lanes, lanes.double(lanes.load(loss, i)))
    counted = one_each(lanes, lanes.flags(flags, i))
    add_rows(lanes, [*without_rounding(lanes, found), counted], keys, at, table)


@inner()
def new_table(keys: Any) -> Any:
    """Make a table of nothing for so many keys and the last."""
    return np.zeros((keys + 1) * COPIES * WORDS, np.int64)


@inner()
def word(table: Any, key: Any, which: Any) -> Any:
    """Return one of the words of a key."""
    at = np.uint64(key * COPIES * WORDS + which)
    total = np.int64(0)
    for copy in range(COPIES):
        total += table[at + np.uint64(copy * WORDS)]
    return total


@inner()
def rows_of(table: Any, key: Any) -> Any:
    """Return how many rows of a key were added, and how many of them are right."""
    counts = word(table, key, 3)
    return counts & ((1 << RIGHT_AT) - 1), counts >> RIGHT_AT


@inner()
def add_losses(table: Any, key: Any, limbs: Any, which: Any) -> None:
    """Add a key's losses to row `which` of limbs."""
    add_fixed(limbs, which, word(table, key, 0), COARSE)
    add_fixed(limbs, which, word(table, key, 1), MIDDLE)
    add_fixed(limbs, which, word(table, key, 2), FINE)

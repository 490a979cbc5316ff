"""Sums and counts by a small key in one table of packed words: one addition a row, not three.

A word is, from its lowest bit, a number in fixed point, a 1, and a 1 if the row is right; a tile's
words of one key add up without one field running into the next. Rows are added by turns to one of
several tables, because an addition must wait for the one before it where both have the same key.
"""

from typing import Any

import numpy as np

from fastdiv_kernels.contract import BINS, CORRECT, PRESENT
from fastdiv_kernels.cpu.arithmetic import as_int
from fastdiv_kernels.cpu.jit import inner, kernel
from fastdiv_kernels.cpu.sums import add
from fastdiv_kernels.cpu.windows import TILE, VALID, add_fixed

COPIES = 4
FRACTION = 33  # bits of a confidence: all float32 from 2**-10, and many below
HIGHEST = 1.5  # no confidence is above HIGHEST_PROB
COUNT_AT = 43
RIGHT_AT = 53
COUNT = (1 << (RIGHT_AT - COUNT_AT)) - 1
assert 2**FRACTION * HIGHEST * TILE < 2**COUNT_AT, "numbers reach the counts"
assert TILE <= COUNT, "counts reach the counts of right rows"
LOSS_COARSE = 24  # losses below 256 nats: all float32 from 2**-53
LOSS_FINE = LOSS_COARSE + 52
LOSS_LIMIT = 256.0
LOSS_ROUND_COARSE = 1.5 * 2.0 ** (52 - LOSS_COARSE)
LOSS_ROUND_FINE = 1.5 * 2.0 ** (52 - LOSS_FINE)
LOSS_BITS_COARSE = int(np.float64(LOSS_ROUND_COARSE).view(np.int64))
LOSS_BITS_FINE = int(np.float64(LOSS_ROUND_FINE).view(np.int64))
assert 2**LOSS_COARSE * LOSS_LIMIT * TILE < 2 ** (COUNT_AT - 1), "losses reach the counts"
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
    """Return a confidence in units of 2**-FRACTION, and whether that is all of it."""
    p = np.float64(confidence)
    shifted = p + ROUND
    return as_int(shifted) - ROUND_BITS, (shifted - ROUND == p) & (p >= 0.0) & (p < HIGHEST)


@inner()
def pack_confidences(
    confidence: Any, flags: Any, at: Any, rows: Any, keys: Any, words: Any
) -> Any:  # fmt: skip
    """Write each row's bin and word (TILE,); returns how many valid rows `fits` does not hold.

    These are counted, but their number is 0. Rows that are not valid have the word 0.
    """
    odd = np.int64(0)
    for i in range(rows):
        flag = np.int64(flags[at + i])
        valid = flag & VALID == PRESENT
        number, whole = fits(confidence[at + i])
        word = (number if whole else 0) + (1 << COUNT_AT)
        word += ((flag >> RIGHT_BIT) & 1) << RIGHT_AT
        words[i] = word if valid else 0
        odd += 1 if valid & (not whole) else 0
    for i in range(rows):
        keys[i] = reliability_bin(confidence[at + i])
    return odd


@inner()
def add_words(keys: Any, words: Any, rows: Any, table: Any, size: Any) -> None:
    """Add each row's word to its key's in one of the tables (COPIES * size,), then all to one.

    Beyond `rows` both have room for COPIES - 1 more, which are made to add nothing.
    """
    for i in range(rows, rows + np.uint64(COPIES - 1)):
        keys[i] = 0  # what is left of another table's keys may be beyond this one
        words[i] = 0
    for k in range(np.uint64(COPIES * size)):
        table[k] = 0
    one, two, three = np.uint64(1), np.uint64(2), np.uint64(3)
    for i in range(np.uint64(0), rows, np.uint64(COPIES)):
        table[np.uint64(keys[i])] += words[i]
        table[np.uint64(size) + np.uint64(keys[i + one])] += words[i + one]
        table[np.uint64(2 * size) + np.uint64(keys[i + two])] += words[i + two]
        table[np.uint64(3 * size) + np.uint64(keys[i + three])] += words[i + three]
    for k in range(np.uint64(size)):
        table[k] += (
            table[np.uint64(size) + k] + table[np.uint64(2 * size) + k]
            + table[np.uint64(3 * size) + k]
        )  # fmt: skip


@kernel
def tally_bins(
    confidence: Any, flags: Any, at: Any, rows: Any, keys: Any, words: Any, table: Any,
    bins: Any, sums: Any, first: Any, total: Any,
) -> None:  # fmt: skip
    """Add a tile's confidences to the BINS from row `first` of sums, and to row `total` if >= 0."""
    odd = pack_confidences(confidence, flags, at, rows, keys, words)
    add_words(keys, words, rows, table, BINS)
    whole = np.int64(0)
    for b in range(BINS):
        word = table[b]
        bins[b, 0] += (word >> COUNT_AT) & COUNT
        bins[b, 1] += word >> RIGHT_AT
        add_fixed(sums, first + b, word & NUMBER, FRACTION)
        whole += word & NUMBER
    if total >= 0:
        add_fixed(sums, total, whole, FRACTION)
    if odd > 0:
        for i in range(rows):
            p = confidence[at + i]
            if flags[at + i] & VALID == PRESENT and not fits(p)[1] and abs(p) < np.inf:
                add(sums, first + reliability_bin(p), p, 1)
                if total >= 0:
                    add(sums, total, p, 1)


@inner()
def add_loss(loss: Any, label: Any, counts: Any, loss_sums: Any) -> None:
    """Add one loss to those of its class."""
    if loss < np.inf:
        add(loss_sums, label, loss, 1)
    else:
        counts[label, 3] += 1


@inner()
def split_loss(x: Any) -> Any:
    """Return x, a float64, in units of 2**-LOSS_COARSE and 2**-LOSS_FINE, and whether that is all.

    As `windows.split`, but the first number leaves room for counts: less than 2**33 in size.
    """
    shifted = x + LOSS_ROUND_COARSE
    rest = x - (shifted - LOSS_ROUND_COARSE)
    shifted_rest = rest + LOSS_ROUND_FINE
    whole = (shifted_rest - LOSS_ROUND_FINE == rest) & (abs(x) < LOSS_LIMIT)
    return as_int(shifted) - LOSS_BITS_COARSE, as_int(shifted_rest) - LOSS_BITS_FINE, whole


@inner()
def pack_losses(
    loss: Any, labels: Any, predicted: Any, flags: Any, at: Any, rows: Any, keys: Any, words: Any
) -> Any:  # fmt: skip
    """Write each row's label and prediction to keys (2, TILE), and words (3, TILE) for them.

    Words: coarse loss with counts, fine loss, both by label; 1, by prediction. Returns how many
    valid rows `split_loss` does not hold.
    """
    odd = np.int64(0)
    zero, one, two = np.uint64(0), np.uint64(1), np.uint64(2)
    for i in range(rows):
        flag = np.int64(flags[at + i])
        valid = flag & VALID == PRESENT
        coarse, fine, whole = split_loss(np.float64(loss[at + i]))
        word = (coarse if whole else 0) + (1 << COUNT_AT)
        word += ((flag >> RIGHT_BIT) & 1) << RIGHT_AT
        words[zero, i] = word if valid else 0
        words[one, i] = fine if whole & valid else 0
        odd += 1 if valid & (not whole) else 0
    for i in range(rows):
        valid = flags[at + i] & VALID == PRESENT
        words[two, i] = 1 if valid else 0
    for i in range(rows):
        keys[zero, i] = labels[at + i] if flags[at + i] & VALID == PRESENT else 0
    for i in range(rows):
        keys[one, i] = predicted[at + i] if flags[at + i] & VALID == PRESENT else 0
    return odd


@kernel
def tally_few_classes(
    loss: Any, predicted: Any, labels: Any, flags: Any, at: Any, rows: Any, keys: Any, words: Any,
    table: Any, counts: Any, loss_sums: Any,
) -> None:  # fmt: skip
    """Add a tile to the totals of classes; table (COPIES * classes,) is scratch."""
    odd = pack_losses(loss, labels, predicted, flags, at, rows, keys, words)
    c = len(counts)
    add_words(keys[0], words[0], rows, table, c)
    for k in range(c):
        word = table[k]
        coarse = (word << (64 - COUNT_AT)) >> (64 - COUNT_AT)  # may be negative, with its sign
        word -= coarse
        counts[k, 0] += (word >> COUNT_AT) & COUNT
        counts[k, 2] += word >> RIGHT_AT
        add_fixed(loss_sums, k, coarse, LOSS_COARSE)
    add_words(keys[0], words[1], rows, table, c)
    for k in range(c):
        add_fixed(loss_sums, k, table[k], LOSS_FINE)
    add_words(keys[1], words[2], rows, table, c)
    for k in range(c):
        counts[k, 1] += table[k]
    if odd > 0:
        for i in range(rows):
            x = loss[at + i]
            if flags[at + i] & VALID == PRESENT and not split_loss(np.float64(x))[2]:
                add_loss(x, labels[at + i], counts, loss_sums)

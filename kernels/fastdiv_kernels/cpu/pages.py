"""Levels that must be trivial, and indices into a dictionary, of Parquet's pages.

Both are in Parquet's hybrid of runs and bit-packed groups of eight: each run begins
with a varint, whose lowest bit tells which
(https://parquet.apache.org/docs/file-format/data-pages/encodings/).
Nothing here is trusted: every function stays within `stop`, and says where it cannot go on.
"""

from typing import Any

import numpy as np
from llvmlite import ir

from fastdiv_kernels.cpu.jit import inner, intrinsic, types

MOST_BITS = 35  # of a varint
BLOCK = 128  # bytes compared at once


@intrinsic
def load_word(typing_context: Any, data: Any, at: Any) -> Any:
    """Return the eight bytes of data (bytes,) uint8 from `at` on, little-endian, as an int64."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        start = context.make_array(signature.args[0])(context, builder, args[0]).data
        place = builder.bitcast(builder.gep(start, [args[1]]), ir.IntType(64).as_pointer())
        return builder.load(place, align=1)

    return types.int64(data, types.uint64), generate


@inner()
def bits_at(data: Any, at: Any, bit: Any, mask: Any) -> Any:
    """Return some bits, at most 32, from a bit after a byte on, where eight bytes follow."""
    return (load_word(data, np.uint64(at + (bit >> 3))) >> (bit & 7)) & mask


@inner()
def bits_near_end(data: Any, at: Any, bit: Any, mask: Any) -> Any:
    """Return the same where fewer bytes follow."""
    word = np.int64(0)
    place = at + (bit >> 3)
    for i in range(min(len(data) - place, 8)):
        word |= np.int64(data[place + i]) << (8 * i)
    return (word >> (bit & 7)) & mask


@inner()
def run_header(data: Any, at: Any, stop: Any) -> Any:
    """Read a varint; return it and where it ends, or -1 where it is none."""
    value = np.int64(0)
    shift = np.int64(0)
    while at < stop and shift < MOST_BITS:
        byte = np.int64(data[at])
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    return np.int64(-1), at


@inner()
def run_value(data: Any, at: Any, size: Any) -> Any:
    """Read the value of a run, little-endian, of `size` bytes."""
    value = np.int64(0)
    for i in range(size):
        value |= np.int64(data[at + i]) << (8 * i)
    return value


@inner()
def differs_from_before(data: Any, start: Any, stop: Any, back: Any) -> Any:
    """Say whether a byte differs from the one `back` bytes before it; vectorises."""
    differences = np.uint8(0)
    for i in range(np.uint64(start), np.uint64(stop)):
        differences |= data[i] ^ data[i - np.uint64(back)]
    return differences != 0


@inner()
def repeats(data: Any, at: Any, stop: Any, size: Any) -> Any:
    """Return how often the `size` bytes before `at` come again, one after another."""
    start = at
    while at + BLOCK <= stop and not differs_from_before(data, at, at + BLOCK, size):
        at += BLOCK
    while at < stop and data[at] == data[at - size]:
        at += 1
    return (at - start) // size


@inner()
def run_is_trivial(value: Any, count: Any, phase: Any, period: Any, highest: Any) -> Any:
    """Say whether a run of one level is as it must be; `phase` values are since a list began."""
    if period <= 0:
        return value == highest
    if value == 1:
        return (phase > 0 and phase + count <= period) or count == 0
    return value == 0 and phase == 0 and (count == 1 or period == 1)


@inner()
def group_is_trivial(
    data: Any, at: Any, values: Any, bits: Any, phase: Any, period: Any, highest: Any
) -> Any:
    """Say whether bit-packed levels are as they must be."""
    for k in range(values):
        bit = k * bits
        level = (np.int64(data[at + (bit >> 3)]) >> (bit & 7)) & ((1 << bits) - 1)
        if level != (0 if period > 0 and phase == 0 else highest):
            return False
        if period > 0:
            phase = phase + 1 if phase + 1 < period else 0
    return True


@inner()
def levels_are_trivial(
    data: Any, start: Any, stop: Any, bits: Any, n: Any, first: Any, period: Any
) -> Any:
    """Return 1 where n levels are those of lists of one length, none of which is missing, else 0.

    Runs that were seen to be so need not be looked into when their bytes come again, as they do
    every few lists.

    Parameters
    ----------
    data : (bytes,) uint8
        Levels lie in data[start:stop].
    bits : int
        Of a level, 1 or 2.
    n : int
        Levels, which are at the positions from `first` on.
    period : int
        Of repetition levels: 0 where a list begins, at multiples of it, and 1 elsewhere. 0 for
        definition levels, all of which must be 2**bits - 1, or 2 of two bits (`period` -1).
    """
    highest = 2 if period == -1 else (1 << bits) - 1
    at = start
    done = np.int64(0)
    phase = first % period if period > 0 else np.int64(0)
    known_at, known_done, known_phase = at, done, phase  # between runs, where `phase` was the same
    while done < n:
        header, at = run_header(data, at, stop)
        count = header >> 1
        if header < 0 or count == 0:
            return 0
        if header & 1 == 0:
            if at + 1 > stop:
                return 0
            count = min(count, n - done)
            if not run_is_trivial(np.int64(data[at]), count, phase, period, highest):
                return 0
            at += 1
        else:
            size = count * bits
            if count > n or at + size > stop:
                return 0
            count = min(8 * count, n - done)
            if not group_is_trivial(data, at, count, bits, phase, period, highest):
                return 0
            at += size
        done += count
        if period > 0:
            phase += count
            phase = phase if phase < period else phase % period
        if phase == known_phase:
            values = done - known_done
            again = min(repeats(data, at, stop, at - known_at), (n - done) // values)
            done += again * values
            at += again * (at - known_at)
            known_at, known_done = at, done
    return 1


@inner()
def decode_indices(
    data: Any, start: Any, stop: Any, bits: Any, n: Any, dictionary: Any, values: Any
) -> Any:
    """Write the n values that indices in data[start:stop] stand for; return 1, else 0.

    Parameters
    ----------
    data : (bytes,) uint8
    bits : int
        Of an index, 0 to 32.
    dictionary : (m,) uint16, uint32 or uint64
    values : (n,) of the same dtype, written
    """
    m = np.int64(len(dictionary))
    width = (bits + 7) // 8
    mask = (np.int64(1) << bits) - 1
    at = start
    done = np.int64(0)
    if m == 0:
        return 1 if n == 0 else 0
    while done < n:
        header, at = run_header(data, at, stop)
        count = header >> 1
        if header < 0 or count == 0:
            return 0
        if header & 1 == 0:
            if at + width > stop:
                return 0
            index = run_value(data, at, width)
            at += width
            if index >= m:
                return 0
            count = min(count, n - done)
            for i in range(count):
                values[done + i] = dictionary[index]
            done += count
            continue
        size = count * bits
        if count > n or at + size > stop:
            return 0
        count = min(8 * count, n - done)
        # So many have a whole word from where they begin.
        safe = min(count, max(np.int64(0), (8 * (len(data) - at - 8)) // bits)) if bits else count
        highest = np.int64(0)
        for i in range(safe):
            index = bits_at(data, at, i * bits, mask) if bits else np.int64(0)
            highest = max(highest, index)
            values[done + i] = dictionary[index if index < m else 0]
        for i in range(safe, count):
            index = bits_near_end(data, at, i * bits, mask)
            highest = max(highest, index)
            values[done + i] = dictionary[index if index < m else 0]
        if highest >= m:
            return 0
        at += size
        done += count
    return 1

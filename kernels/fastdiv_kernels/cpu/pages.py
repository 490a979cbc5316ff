"""What Parquet pages hold: levels that must be trivial, then values or indices of a dictionary.

Levels and indices are in Parquet's hybrid of runs and bit-packed groups of eight: each run begins
with a varint, whose lowest bit tells which
(https://parquet.apache.org/docs/file-format/data-pages/encodings/).
Nothing here is trusted: every function stays within `stop`, and says where it cannot go on.
"""

from typing import Any

import numpy as np
from llvmlite import ir

from fastdiv_kernels.cpu.jit import carray, inner, intrinsic, kernel, types
from fastdiv_kernels.page_table import (
    AT,
    BODY,
    BYTES,
    DATA,
    DEFINITION,
    ENCODING,
    KIND,
    LENGTH,
    LEVELS,
    LONG_LEVELS,
    MADE_HERE,
    NO_DICTIONARY,
    NO_INDICES,
    NULLS,
    OTHER_NUMBER,
    PLAIN,
    PLAIN_DICTIONARY,
    RARE,
    RARE_LEVELS,
    REPETITION,
    RLE,
    RLE_DICTIONARY,
    UNEQUAL,
    VALUES,
)

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


def _pointer(bits: int) -> Any:
    """Return what makes an address a pointer to unsigned integers."""

    def at(typing_context: Any, address: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return builder.inttoptr(args[0], ir.IntType(bits).as_pointer())

        return types.CPointer(getattr(types, f"uint{bits}"))(address), generate

    return intrinsic(at)


bytes_at, shorts_at, halves_at, words_at = map(_pointer, (8, 16, 32, 64))


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


@inner()
def look_up(
    data: Any, at: Any, n: Any, width: Any, dictionary_at: Any, m: Any, room_at: Any
) -> Any:  # fmt: skip
    """Write the n values of a page of indices to an address; return 1, else 0."""
    bits = np.int64(data[at])
    stop = len(data)
    if bits > 32:
        return 0
    if width == 4:
        known, found = carray(halves_at(dictionary_at), (m,)), carray(halves_at(room_at), (n,))
        return decode_indices(data, at + 1, stop, bits, n, known, found)
    if width == 8:
        wide, made = carray(words_at(dictionary_at), (m,)), carray(words_at(room_at), (n,))
        return decode_indices(data, at + 1, stop, bits, n, wide, made)
    short, shorts = carray(shorts_at(dictionary_at), (m,)), carray(shorts_at(room_at), (n,))
    return decode_indices(data, at + 1, stop, bits, n, short, shorts)


@inner()
def read_page(
    page: Any, first: Any, width: Any, repetition: Any, definition: Any, period: Any,
    dictionary_at: Any, m: Any, room_at: Any, used: Any,
) -> Any:  # fmt: skip
    """Find the values of a page; return 0, or the number of a reason. See `read_pages`."""
    n, at = page[VALUES], np.int64(0)
    data = carray(bytes_at(page[BODY]), (page[LENGTH],))
    levels = carray(bytes_at(page[LEVELS]), (page[LENGTH],))
    if page[KIND] != DATA:
        levels = carray(bytes_at(page[LEVELS]), (page[REPETITION] + page[DEFINITION],))
    for which in range(2):  # repetition, definition
        highest = definition if which else repetition
        if page[KIND] != DATA:
            size = page[DEFINITION] if which else page[REPETITION]
        elif highest == 0:
            continue
        else:
            if at + 4 > len(levels):
                return LONG_LEVELS
            size = run_value(levels, at, 4)
            at += 4
            if size > len(levels) - at:
                return LONG_LEVELS
            if page[REPETITION] != RLE or page[DEFINITION] != RLE:
                return RARE_LEVELS
        bits = 1 if highest == 1 else 2
        lists = -1 if highest == 2 else 0
        since = first if which == 0 else np.int64(0)
        if highest > 0 and not levels_are_trivial(
            levels, at, at + size, bits, n, since, lists if which else period
        ):
            return NULLS if which else UNEQUAL
        at += size
    at = at if page[KIND] == DATA else np.int64(0)
    page[MADE_HERE] = 0
    page[AT], page[BYTES] = at, n * width
    encoding = page[ENCODING]
    if encoding == PLAIN:
        return 0 if len(data) - at == n * width else OTHER_NUMBER
    if encoding not in (PLAIN_DICTIONARY, RLE_DICTIONARY):
        return RARE
    if m < 0 or at >= len(data):
        return NO_DICTIONARY
    page[MADE_HERE], page[AT] = 1, used
    good = look_up(data, at, n, width, dictionary_at, m, room_at + used)
    return 0 if good else NO_INDICES


@kernel
def read_pages(
    table: Any, pages: Any, first: Any, width: Any, repetition: Any, definition: Any, period: Any,
    dictionary_at: Any, m: Any, room_at: Any,
) -> Any:  # fmt: skip
    """Find the values of data pages that follow one another, whose levels must be trivial.

    Parameters
    ----------
    table : (n, COLUMNS) int64
        The rows of the pages, of which AT, BYTES and MADE_HERE are written.
    pages : int
        How many of them.
    first : int
        Which value of the column chunk the first one is.
    width : int
        Bytes of a value.
    repetition, definition : int
        The highest level of each.
    period : int
        Values of a list, all of which have so many; 0 where there are no lists.
    dictionary_at, m : int
        Address and number of the values of the dictionary, of 2, 4 or 8 bytes; -1 without one.
    room_at : int
        Address of room for the values that the dictionary has: for those of all pages.

    Returns
    -------
    tuple of int
        How many pages were read; and 0, or the number of the reason why the next one was not.
    """
    used = np.int64(0)
    for i in range(pages):
        page = table[i]
        reason = read_page(
            page, first, width, repetition, definition, period, dictionary_at, m, room_at, used
        )
        if reason != 0:
            return np.int64(i), np.int64(reason)
        first += page[VALUES]
        used += page[BYTES] if page[MADE_HERE] else np.int64(0)
    return np.int64(pages), np.int64(0)

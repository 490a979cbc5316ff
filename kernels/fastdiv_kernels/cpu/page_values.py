"""The values of Parquet's data pages: where they lie, or made of what is stored."""

from typing import Any

import numpy as np
from llvmlite import ir

from fastdiv_kernels.cpu.jit import carray, inner, intrinsic, kernel, types
from fastdiv_kernels.cpu.pages import decode_indices, levels_are_trivial, run_value
from fastdiv_kernels.cpu.snappy import unpack_block
from fastdiv_kernels.page_table import (
    AT,
    BODY,
    BYTES,
    COMPRESSED,
    DATA_V2,
    DEFINITION,
    ENCODING,
    GIVEN,
    KIND,
    LENGTH,
    LEVELS,
    LONG_LEVELS,
    LOOKED_UP,
    MADE,
    NO_DICTIONARY,
    NO_INDICES,
    NULLS,
    OTHER_NUMBER,
    OWNER,
    PLAIN,
    PLAIN_DICTIONARY,
    RARE,
    RARE_LEVELS,
    REPETITION,
    RLE,
    RLE_DICTIONARY,
    SIZE,
    START,
    STORED,
    UNEQUAL,
    UNPACKED,
    UNSOUND,
    VALUES,
)


def _pointer(bits: int) -> Any:
    """Return what makes an address a pointer to unsigned integers."""

    def at(typing_context: Any, address: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return builder.inttoptr(args[0], ir.IntType(bits).as_pointer())

        return types.CPointer(getattr(types, f"uint{bits}"))(address), generate

    return intrinsic(at)


bytes_at, shorts_at, halves_at, words_at = map(_pointer, (8, 16, 32, 64))


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
def find_body(page: Any, how: Any, stored_at: Any, made_at: Any, made: Any) -> Any:
    """Tell where the body of a page lies, unpacked to made_at + made if it has to be.

    Returns how many bytes were made, -1 if they cannot be.
    """
    stored = stored_at + page[START]
    before = np.int64(0)
    if page[KIND] == DATA_V2:
        before = page[REPETITION] + page[DEFINITION]
    page[LEVELS] = stored
    page[OWNER] = STORED
    page[AT] = page[START] + before
    page[BODY], page[LENGTH] = stored + before, page[SIZE] - before
    if how == STORED or page[COMPRESSED] == 0:
        return 0
    size = page[MADE] - before
    page[OWNER], page[AT] = UNPACKED, made
    if not unpack_block(page[BODY], page[LENGTH], made_at + made, size):
        return -1
    page[BODY], page[LENGTH] = made_at + made, size
    if page[KIND] != DATA_V2:
        page[LEVELS] = page[BODY]
    return size


@inner()
def check_levels(page: Any, first: Any, repetition: Any, definition: Any, period: Any) -> Any:
    """Return where the levels of a page end in its body; below 0, the number of a reason."""
    n, at = page[VALUES], np.int64(0)
    size = page[LENGTH]
    if page[KIND] == DATA_V2:
        size = page[REPETITION] + page[DEFINITION]
    levels = carray(bytes_at(page[LEVELS]), (size,))
    for which in range(2):  # repetition, definition
        highest = definition if which else repetition
        if page[KIND] == DATA_V2:
            size = page[DEFINITION] if which else page[REPETITION]
        elif highest == 0:
            continue
        else:
            if at + 4 > len(levels):
                return -LONG_LEVELS
            size = run_value(levels, at, 4)
            at += 4
            if size > len(levels) - at:
                return -LONG_LEVELS
            if page[REPETITION] != RLE or page[DEFINITION] != RLE:
                return -RARE_LEVELS
        bits = 1 if highest == 1 else 2
        must = -1 if highest == 2 else 0
        since = np.int64(0) if which else first
        if highest > 0 and not levels_are_trivial(
            levels, at, at + size, bits, n, since, must if which else period
        ):
            return -NULLS if which else -UNEQUAL
        at += size
    return np.int64(0) if page[KIND] == DATA_V2 else at


@kernel
def read_pages(
    table: Any, pages: Any, how: Any, stored_at: Any, made_at: Any, first: Any, width: Any,
    repetition: Any, definition: Any, period: Any, dictionary_at: Any, m: Any, room_at: Any,
) -> Any:  # fmt: skip
    """Find the values of data pages that follow one another, whose levels must be trivial.

    Or those of a page of a dictionary, which has no levels.

    Parameters
    ----------
    table : (n, COLUMNS) int64
        The rows of the pages; what is found is written there.
    pages : int
        How many of them.
    how : int
        STORED: what is stored is not compressed. UNPACKED: by Snappy. GIVEN: LEVELS, BODY and
        LENGTH are in the table.
    stored_at : int
        Address of the bytes that START counts from.
    made_at : int
        Address of room for all that is unpacked.
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
    made, used = np.int64(0), np.int64(0)
    for i in range(pages):
        page = table[i]
        if how == GIVEN:
            page[OWNER], page[AT] = GIVEN, 0
        else:
            size = find_body(page, how, stored_at, made_at, made)
            if size < 0:
                return np.int64(i), np.int64(UNSOUND)
            made += size
        at = check_levels(page, first, repetition, definition, period)
        if at < 0:
            return np.int64(i), -at
        n, encoding = page[VALUES], page[ENCODING]
        page[AT] += at
        page[BYTES] = n * width
        if encoding == PLAIN:
            if page[LENGTH] - at != n * width:
                return np.int64(i), np.int64(OTHER_NUMBER)
        elif encoding in (PLAIN_DICTIONARY, RLE_DICTIONARY):
            if m < 0 or at >= page[LENGTH]:
                return np.int64(i), np.int64(NO_DICTIONARY)
            page[OWNER], page[AT] = LOOKED_UP, used
            data = carray(bytes_at(page[BODY]), (page[LENGTH],))
            if not look_up(data, at, n, width, dictionary_at, m, room_at + used):
                return np.int64(i), np.int64(NO_INDICES)
            used += n * width
        else:
            return np.int64(i), np.int64(RARE)
        first += n
    return np.int64(pages), np.int64(0)

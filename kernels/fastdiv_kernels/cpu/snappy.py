"""Snappy: blocks of literals and of copies of what was written before, decompressed at addresses.

A block is a varint, how many bytes it gives, and elements: a tag, whose two lowest bits are 0 for
a literal, 1 to 3 for a copy whose offset has 11, 16 or 32 bits; then the literal or the offset
(https://github.com/google/snappy/blob/main/format_description.txt). Nothing is trusted.

What takes time is elements, not bytes: to know where the next begins takes 12 cycles, unless a
jump is guessed, a wrong guess takes 20, and so does a load of what two stores have just written.
So a literal of at most four bytes, or none, and the copy behind it are one unit. Whether there is
a literal is guessed; how wide the offset is is not. A unit of eight bytes, as those of int64 are,
is loaded and written as one word, in which the literal has replaced the first bytes: stores and
loads meet. Consecutive int64 are a byte and seven from offset 8: such words are written by eights.

Units are taken where both sides have room; near an end, and for whatever is rare, `step` writes
exactly what one element says.
"""

from typing import Any

import numpy as np
from llvmlite import ir

from fastdiv_kernels.cpu.addresses import copy_bytes
from fastdiv_kernels.cpu.jit import inner, intrinsic, kernel, types
from fastdiv_kernels.cpu.lines import byte_at, load, splat, word_at

MOST_SHIFT = 28  # of the varint, which has at most five bytes
RUN = 8  # units written together
UNIT, UNIT_MASK = 0x080D0000, 0xFFFF00FF  # a literal of one byte, any, and seven from offset 8
MOST_READ = 4 * RUN  # by a unit, a run of them or a short literal
MOST_WRITTEN = 80  # by any of them

I8, I32, I64 = (ir.IntType(bits) for bits in (8, 32, 64))
ZERO, ONE, TWO, THREE, EIGHT = (np.uint64(x) for x in (0, 1, 2, 3, 8))
BYTE, BITS = np.uint64(0xFF), np.uint64(63)
LONG = np.uint64(0xF0)  # in the tag of a literal of more than four bytes
ABOVE_16 = np.uint64(64)  # the tag of a literal of 17 bytes
# Of a period of 0 to 7 bytes: what it is multiplied by to fill a word, and how often it fits.
REPEATS = np.array([0, *(sum(1 << i for i in range(0, 64, 8 * n)) for n in range(1, 8))], np.uint64)
STRIDES = np.array([8, *(8 - 8 % n for n in range(1, 8))], np.int64)


def copies() -> np.ndarray[Any, np.dtype[np.uint64]]:
    """Return what the tags of copies say: length, highest bits of the offset << 16, mask << 32.

    The mask is for those bits of the offset that follow. Of other tags, 0.
    """
    entries = np.zeros(256, np.uint64)
    for tag in range(1, 256, 4):
        entries[tag] = 4 + (tag >> 2 & 7) | (tag >> 5 << 8) << 16 | 0xFF << 32
        entries[tag + 1] = 1 + (tag >> 2) | 0xFFFF << 32
    return entries


COPIES = copies()


@intrinsic
def put_word(typing_context: Any, address: Any, word: Any) -> Any:
    """Write eight bytes at an address."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        builder.store(args[1], builder.inttoptr(args[0], I64.as_pointer()), align=1)
        return context.get_dummy_value()

    return types.void(types.int64, types.uint64), generate


@intrinsic
def put_byte(typing_context: Any, address: Any, word: Any) -> Any:
    """Write the lowest byte of a word at an address."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        builder.store(builder.trunc(args[1], I8), builder.inttoptr(args[0], I8.as_pointer()))
        return context.get_dummy_value()

    return types.void(types.int64, types.uint64), generate


@intrinsic
def copy_sixteen(typing_context: Any, to: Any, source: Any) -> Any:
    """Copy sixteen bytes from one address to another, all loaded before any is written."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        vector = load(builder, args[1], I8, 16)
        builder.store(vector, builder.inttoptr(args[0], vector.type.as_pointer()), align=1)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), generate


@intrinsic
def is_run(typing_context: Any, address: Any) -> Any:
    """Say whether RUN units at an address are a byte and seven from offset 8 each."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        units = load(builder, args[0], I32, RUN)
        masked = builder.and_(units, ir.Constant(units.type, [UNIT_MASK] * RUN))
        others = builder.icmp_signed("!=", masked, ir.Constant(units.type, [UNIT] * RUN))
        flags = ir.IntType(RUN)
        return builder.icmp_signed("==", builder.bitcast(others, flags), ir.Constant(flags, 0))

    return types.boolean(types.int64), generate


@intrinsic
def write_run(typing_context: Any, to: Any, at: Any, word: Any) -> Any:
    """Write the words of RUN units: the word before them, its lowest byte from each."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        units = load(builder, args[1], I32, RUN)
        literals = builder.lshr(units, ir.Constant(units.type, [8] * RUN))
        literals = builder.and_(literals, ir.Constant(units.type, [0xFF] * RUN))
        words = builder.zext(literals, ir.VectorType(I64, RUN))
        rest = splat(builder, builder.and_(args[2], ir.Constant(I64, ~0xFF)), RUN)
        place = builder.inttoptr(args[0], words.type.as_pointer())
        builder.store(builder.or_(words, rest), place, align=1)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.uint64), generate


@inner()
def read_size(at: Any, stop: Any) -> Any:
    """Read the varint a block begins with; return it, -1 where it is none, and where it ends."""
    value, shift = np.int64(0), np.int64(0)
    while at < stop and shift <= MOST_SHIFT:
        byte = np.int64(byte_at(at))
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7
    return np.int64(-1), at


@inner()
def units(at: Any, last: Any, to: Any, most: Any, start: Any) -> Any:
    """Do what is usual up to `last` and `most`, inclusive; return where both sides are after it.

    Eight bytes from `start` on must have been written.
    """
    while at <= last and to <= most:
        code = word_at(at)
        if np.uint32(code) & UNIT_MASK == UNIT and is_run(at):
            word = word_at(to - 8)
            while at <= last and to <= most and is_run(at):
                write_run(to, at, word)
                at += 4 * RUN
                to += 8 * RUN
            continue
        own, bits, copy = ZERO, ZERO, code  # a literal, its bits, and what follows it
        literal = np.int64(0)  # its bytes, with the tag
        if code & THREE == 0:
            if code & LONG != 0:
                tag = code & BYTE
                if tag >= ABOVE_16:
                    break
                copy_sixteen(to, at + 1)
                at += np.int64(tag >> TWO) + 2
                to += np.int64(tag >> TWO) + 1
                continue
            own = code >> EIGHT
            bits = (code + code + EIGHT) & BITS
            copy = own >> bits
            literal = np.int64(1 + (bits >> THREE))
        entry = COPIES[copy & BYTE]
        low, high = (copy >> EIGHT) & (entry >> np.uint64(32)), entry >> np.uint64(16)
        offset = np.int64(low + (high & np.uint64(0xFFFF)))
        length, n = np.int64(entry & BYTE), np.int64(bits >> THREE)
        source = to - offset
        if source < start or offset == 0:
            break
        mask = (ONE << bits) - ONE
        own &= mask
        whole = n + length
        if offset >= 8:
            word = (word_at(source) & ~mask) | own
            put_word(to, word)
            put_word(to + 8, word_at(source + 8))
            if whole > 16:
                if offset < 16:
                    if n > 0:
                        break
                    source -= offset  # another period before
                if offset == 8:
                    for i in range(16, 64, 8):
                        put_word(to + i, word)
                else:
                    copy_sixteen(to + 16, source + 16)
                    if whole > 32:
                        copy_sixteen(to + 32, source + 32)
                        copy_sixteen(to + 48, source + 48)
                        copy_sixteen(to + 64, source + 64)
        else:
            before = (word_at(to - 8) >> bits) | ((own << ONE) << (BITS - bits))
            pattern = (before >> (np.uint64(64) - EIGHT * np.uint64(offset))) * REPEATS[offset]
            put_word(to, own)
            done = np.int64(0)
            while done < length:
                put_word(to + n + done, pattern)
                done += STRIDES[offset]
        at += literal + 3 - np.int64(copy & ONE)
        to += whole
    return at, to


@inner()
def step(at: Any, stop: Any, to: Any, end: Any, start: Any) -> Any:
    """Do one element, and no more than it says; return where both sides are after it, or 0, 0."""
    tag = np.int64(byte_at(at))
    at += 1
    kind, length = tag & 3, (tag >> 2) + 1
    more = kind if kind < 3 else np.int64(4)  # bytes of a number behind the tag
    if kind == 0:
        more = max(length - 60, np.int64(0))
    if stop - at < more:
        return np.int64(0), np.int64(0)
    number = np.int64(0)
    for i in range(more):
        number |= np.int64(byte_at(at + i)) << (8 * i)
    at += more
    if kind == 0:
        if more > 0:
            length = number + 1
        if length > stop - at or length > end - to:
            return np.int64(0), np.int64(0)
        copy_bytes(to, at, length)
        return at + length, to + length
    if kind == 1:
        length = ((tag >> 2) & 7) + 4
        number |= tag >> 5 << 8
    if number == 0 or number > to - start or length > end - to:
        return np.int64(0), np.int64(0)
    stop_copy = to + length
    if number >= 8:
        while to + 8 <= stop_copy:
            put_word(to, word_at(to - number))
            to += 8
    while to < stop_copy:
        put_byte(to, byte_at(to - number))
        to += 1
    return at, to


@inner()
def unpack_block(at: Any, size: Any, to: Any, target_size: Any) -> Any:
    """Decompress one block; say whether it gave exactly as much as it must."""
    stop, start, end = at + size, to, to + target_size
    says, at = read_size(at, stop)
    if says != target_size:
        return False
    while True:
        if to - start >= 8:
            at, to = units(at, stop - MOST_READ, to, end - MOST_WRITTEN, start)
        if at >= stop:
            return to == end
        at, to = step(at, stop, to, end, start)
        if at == 0:
            return False


@kernel
def unpack(sources: Any, source_sizes: Any, targets: Any, target_sizes: Any) -> Any:
    """Decompress raw Snappy blocks, one after another, until one is damaged.

    Parameters
    ----------
    sources, source_sizes : (k,) int64
        Addresses of the blocks and their bytes. Nothing else is read.
    targets, target_sizes : (k,) int64
        Where they go, and how many bytes each must give. Nothing else is written.

    Returns
    -------
    int
        k, or which block is damaged: anything may then have been written to its target.
    """
    k = len(sources)
    for i in range(k):
        if not unpack_block(sources[i], source_sizes[i], targets[i], target_sizes[i]):
            return i
    return k

"""Snappy: blocks of literals and of copies of what was written before, decompressed at addresses.

A block is a varint, how many bytes it gives, and elements: a tag, whose two lowest bits are 0 for
a literal, 1 to 3 for a copy whose offset has 11, 16 or 32 bits; its length; the literal's bytes or
the offset (https://github.com/google/snappy/blob/main/format_description.txt). Nothing is trusted.

What takes time is not bytes but elements: a jump that was guessed wrong costs 20 cycles, and so
does a load of bytes that two stores have just written. So a literal of at most four bytes, which
may be none, and the copy that follows it are one unit, decoded without a jump: up to eight bytes
are one word, loaded from one offset before the unit, the literal put into it. Consecutive int64
are units of one byte and seven from offset 8: such words are written eight at a time.

Units are taken where both sides have room; near an end, and for whatever is rare, `step` writes
exactly what an element says.
"""

from typing import Any

import numpy as np
from llvmlite import ir

from fastdiv_kernels.cpu.addresses import copy_bytes
from fastdiv_kernels.cpu.jit import inner, intrinsic, kernel, types
from fastdiv_kernels.cpu.lines import byte_at, load, splat, word_at

MOST_SHIFT = 28  # of the varint: it has at most 32 bits
SHORT = 4  # bytes of a literal that is one unit with its copy
LONGEST = 64  # bytes of a copy
ROOM = 96  # bytes that a unit may write: SHORT + LONGEST, and what follows them in its last store
AHEAD = 32  # bytes that a unit may read
RUN = 8  # units written together
UNIT = 0x080D0000  # a byte's literal, the byte left out, and a copy of seven from offset 8
UNIT_MASK = 0xFFFF00FF

I8, I32, I64 = (ir.IntType(bits) for bits in (8, 32, 64))
ONE, EIGHT, BYTE = np.uint64(1), np.uint64(8), np.uint64(255)
THREE, LONG = np.uint64(3), np.uint64(0xF0)
COPIES = np.zeros(256, np.uint64)
for tag in range(256):
    if tag & 3 == 1:
        COPIES[tag] = 4 + (tag >> 2 & 7) | (tag >> 5) << 24 | 0xFF << 32
    if tag & 3 == 2:
        COPIES[tag] = 1 + (tag >> 2) | 0xFFFF << 32
REPEATS = np.array([0, *(sum(1 << 8 * i for i in range(0, 8, n)) for n in range(1, 9))], np.uint64)
TWO_UNITS = np.uint64(UNIT << 32 | UNIT)
TWO_MASKS = np.uint64(UNIT_MASK << 32 | UNIT_MASK)


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
def word_of_halves(typing_context: Any, address: Any) -> Any:
    """Load the eight bytes at an address as two halves, each of which a store of its own may have."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        # An empty piece of assembly keeps LLVM from making one load of two.
        barrier = ir.InlineAsm(ir.FunctionType(I32, [I32]), "", "=r,0")
        halves = []
        for at in (0, 4):
            place = builder.add(args[0], ir.Constant(I64, at))
            half = builder.load(builder.inttoptr(place, I32.as_pointer()), align=1)
            halves.append(builder.zext(builder.call(barrier, [half]), I64))
        return builder.or_(halves[0], builder.shl(halves[1], ir.Constant(I64, 32)))

    return types.uint64(types.int64), generate


@intrinsic
def choose(typing_context: Any, condition: Any, a: Any, b: Any) -> Any:
    """Return one of two words, without a jump."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        chosen = builder.select(*args)
        chosen.set_metadata("unpredictable", builder.module.add_metadata([]))
        return chosen

    return types.uint64(types.boolean, types.uint64, types.uint64), generate


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
    """Say whether RUN units follow, each a byte's literal and a copy of seven from offset 8."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        units = load(builder, args[0], I32, RUN)
        masked = builder.and_(units, ir.Constant(units.type, [UNIT_MASK] * RUN))
        others = builder.icmp_signed("!=", masked, ir.Constant(units.type, [UNIT] * RUN))
        return builder.icmp_signed(
            "==", builder.bitcast(others, ir.IntType(RUN)), ir.Constant(ir.IntType(RUN), 0)
        )

    return types.boolean(types.int64), generate


@intrinsic
def write_run(typing_context: Any, to: Any, source: Any, word: Any) -> Any:
    """Write RUN words: the one before them with its lowest byte from each unit."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        units = load(builder, args[1], I32, RUN)
        lowest = builder.and_(
            builder.lshr(units, ir.Constant(units.type, [8] * RUN)),
            ir.Constant(units.type, [255] * RUN),
        )
        wide = builder.zext(lowest, ir.VectorType(I64, RUN))
        rest = splat(builder, builder.and_(args[2], ir.Constant(I64, ~255)), RUN)
        place = builder.inttoptr(args[0], wide.type.as_pointer())
        builder.store(builder.or_(wide, rest), place, align=1)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.uint64), generate


@inner()
def read_size(at: Any, stop: Any) -> Any:
    """Read the varint that a block begins with; return it and where it ends, -1 where it is none."""
    value, shift = np.int64(0), np.int64(0)
    while at < stop and shift <= MOST_SHIFT:
        byte = np.int64(byte_at(at))
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return (value if value >> 32 == 0 else np.int64(-1)), at
        shift += 7
    return np.int64(-1), at


@inner()
def step(at: Any, stop: Any, to: Any, start: Any, end: Any) -> Any:
    """Do one element, and no more than it says; return where both sides are after it, or 0, 0."""
    none = (np.int64(0), np.int64(0))
    tag = np.int64(byte_at(at))
    at += 1
    kind, length = tag & 3, (tag >> 2) + 1
    more = length - 60 if kind == 0 else kind  # bytes that follow the tag
    more = max(more, np.int64(0)) if kind < 3 else np.int64(4)
    if stop - at < more:
        return none
    number = np.int64(0)
    for i in range(more):
        number |= np.int64(byte_at(at + i)) << (8 * i)
    at += more
    if kind == 0:
        if more > 0:
            length = number + 1
        if length > stop - at or length > end - to:
            return none
        copy_bytes(to, at, length)
        return at + length, to + length
    if kind == 1:
        length = ((tag >> 2) & 7) + 4
        number |= tag >> 5 << 8
    if number == 0 or number > to - start or length > end - to:
        return none
    done = np.int64(0)
    if number >= 8:
        while done + 8 <= length:
            put_word(to + done, word_at(to + done - number))
            done += 8
    while done < length:
        put_byte(to + done, byte_at(to + done - number))
        done += 1
    return at, to + length


@inner()
def repeat(to: Any, length: Any, offset: Any, before: Any) -> None:
    """Write a copy from an offset below 8, and up to seven bytes more; `before` ends where it begins."""
    bits = np.uint64(8) * np.uint64(offset)
    pattern = before >> (np.uint64(64) - bits)
    while bits < np.uint64(64):
        pattern |= pattern << bits
        bits += bits
    stride = np.int64(8) - np.int64(8) % offset
    done = np.int64(0)
    while done < length:
        put_word(to + done, pattern)
        done += stride


@inner()
def unpack_block(at: Any, size: Any, to: Any, target_size: Any) -> Any:
    """Decompress one block; say whether it gave exactly as much as it must."""
    stop, start, end = at + size, to, to + target_size
    says, at = read_size(at, stop)
    if says != target_size:
        return False
    last, most = stop - AHEAD, end - ROOM
    while at < stop:
        if at <= last and to <= most:
            code = word_at(at)
            if np.uint32(code) & UNIT_MASK == UNIT and to - start >= 8 and is_run(at):
                word = word_at(to - 8)
                while True:
                    write_run(to, at, word)
                    at += 4 * RUN
                    to += 8 * RUN
                    if at > last or to > most or not is_run(at):
                        break
                continue
            # The literal, if there is one, and the tag behind it.
            literal = code & THREE == 0
            if not literal or code & LONG == 0:
                skip = choose(literal, code + code + np.uint64(16), np.uint64(0))
                second = code >> (skip & np.uint64(63))
                entry = COPIES[second & BYTE]
                offset = ((second >> EIGHT) & (entry >> np.uint64(32))) + (
                    (entry >> np.uint64(16)) & np.uint64(0xFFFF)
                )
                length = np.int64(entry & BYTE)
                source = to - np.int64(offset)
                if offset >= EIGHT and source >= start:
                    bits = choose(literal, code + code + EIGHT, np.uint64(0)) & np.uint64(56)
                    mask = (ONE << bits) - ONE
                    own = (code >> EIGHT) & mask
                    put_word(to, (word_of_halves(source) & ~mask) | own)
                    put_word(to + 8, word_at(source + 8))
                    whole = np.int64(bits >> THREE) + length
                    at += np.int64((skip >> THREE) & np.uint64(7)) + np.int64(3 - (second & ONE))
                    if whole > 16:
                        if offset >= 16:
                            done = np.int64(16)
                            while done < whole:
                                copy_sixteen(to + done, source + done)
                                done += 16
                        else:
                            done = np.int64(16)
                            while done < whole:
                                put_word(to + done, word_at(source + done))
                                done += 8
                    to += whole
                    continue
                if offset < EIGHT and offset > 0 and source >= start and to - start >= 8:
                    bits = choose(literal, code + code + EIGHT, np.uint64(0)) & np.uint64(56)
                    n = np.int64(bits >> THREE)
                    mask = (ONE << bits) - ONE
                    own = (code >> EIGHT) & mask
                    before = word_of_halves(to - 8)
                    put_word(to, own)
                    if n > 0:
                        before = (before >> bits) | (own << (np.uint64(64) - bits))
                    bits = EIGHT * offset
                    pattern = (before >> (np.uint64(64) - bits)) * REPEATS[offset]
                    to += n
                    put_word(to, pattern)
                    if length > 8:
                        stride = np.int64(8) - np.int64(8) % np.int64(offset)
                        done = np.int64(stride)
                        while done < length:
                            put_word(to + done, pattern)
                            done += stride
                    to += length
                    at += np.int64((skip >> THREE) & np.uint64(7)) + np.int64(3 - (second & ONE))
                    continue
            elif code & BYTE < np.uint64(64):
                copy_sixteen(to, at + 1)
                n = np.int64((code & BYTE) >> np.uint64(2)) + 1
                at += 1 + n
                to += n
                continue
        at, to = step(at, stop, to, start, end)
        if at == 0:
            return False
    return to == end


@kernel
def unpack(sources: Any, source_sizes: Any, targets: Any, target_sizes: Any) -> Any:
    """Decompress raw Snappy blocks, one after another; stop at the first that is damaged.

    Parameters
    ----------
    sources, source_sizes : (k,) int64
        Addresses of the blocks and their bytes. Nothing else is read.
    targets, target_sizes : (k,) int64
        Where they go, and how many bytes each must give. Nothing else is written.

    Returns
    -------
    int
        k, or which block was not good; of its target anything may have been written over.
    """
    k = len(sources)
    for i in range(k):
        if not unpack_block(sources[i], source_sizes[i], targets[i], target_sizes[i]):
            return i
    return k

"""A hash table in groups of a cache line: hashes, and where a slot is entered and looked for.

An entry is a uint32: a slot in the low bits, and in those of `mask` bits of its hash. A group that
is full is followed by the next one; nothing is ever taken out.
"""

from typing import Any

import numpy as np

from fastdiv_kernels.cpu.jit import inner
from fastdiv_kernels.cpu.lines import GROUP, byte_at, fold, look, lowest, prefetch, word_at

MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
MIX_2 = np.uint64(0x94D049BB133111EB)
ODD_1 = np.uint64(0xD6E8FEB86659FD93)
ODD_2 = np.uint64(0xA0761D6478BD642F)
BITS = np.int64((1 << GROUP) - 1)


@inner()
def mix(x: Any) -> Any:
    """Spread the bits of a 64-bit number over all of it (the finaliser of splitmix64)."""
    h = np.uint64(x)
    h = (h ^ (h >> np.uint64(30))) * MIX_1
    h = (h ^ (h >> np.uint64(27))) * MIX_2
    return h ^ (h >> np.uint64(31))


@inner()
def hash_bytes(at: Any, n: Any, seed: Any) -> Any:
    """Hash n bytes at an address, eight at a time; the last eight may overlap those before."""
    h = (seed ^ np.uint64(n)) * ODD_2
    done = np.int64(0)
    while done + 8 <= n:
        h = fold(h ^ word_at(at + done), ODD_1)
        done += 8
    if done < n:
        rest = np.uint64(0)
        if n >= 8:
            rest = word_at(at + n - 8)
        else:
            while done < n:
                rest = (rest << np.uint64(8)) | byte_at(at + done)
                done += 1
        h = fold(h ^ rest, ODD_1)
    return mix(h ^ seed)


@inner()
def place(h: Any, size: Any) -> Any:
    """Map a hash to [0, size) by its high half; size < 2**32."""
    return np.int64(((h >> np.uint64(32)) * np.uint64(size)) >> np.uint64(32))


@inner()
def likely(table: Any, h: Any, mask: Any) -> Any:
    """Return the first slot in the group of a hash that may be the one sought, -1 if none."""
    at = place(h, len(table) // GROUP) * GROUP
    match = look(table.ctypes.data + np.uint64(4 * at), np.uint32(h) & mask, mask) & BITS
    if match == 0:
        return np.int64(-1)
    return np.int64(table[at + lowest(match)] & ~mask)


@inner()
def enter(table: Any, h: Any, mask: Any, slot: Any) -> Any:
    """Enter a slot that is not in the table."""
    groups = len(table) // GROUP
    at = place(h, groups)
    want = np.uint32(h) & mask
    free = look(table.ctypes.data + np.uint64(4 * GROUP * at), want, mask) >> GROUP
    while free == 0:
        at = at + 1 if at + 1 < groups else 0
        free = look(table.ctypes.data + np.uint64(4 * GROUP * at), want, mask) >> GROUP
    table[GROUP * at + lowest(free)] = want | np.uint32(slot)


@inner()
def ask_for_group(table: Any, h: Any) -> None:
    """Ask for the group of a hash."""
    at = place(h, len(table) // GROUP) * GROUP
    prefetch(table.ctypes.data + np.uint64(4 * at))

"""Finding the slot of an id: runs compared, dense integers by a table, others by a hash table.

The hash table holds uint32 entries in groups of a cache line: the slot in the low bits and, in
those that slots do not need, bits of the hash, so that of ids that are looked at nearly all are
the ones sought. A group is compared at once; the next one follows where it is full. An id's group
is found from its hash by multiplication, so that a table may have any size and stays between half
and four fifths full. Ids are compared in full: two ids never share a slot by their hash.

Ids come in blocks: all hashes first, then all groups, then all ids, each asked for before it is
used, so that waiting for memory is shared by a block. A run of ids that stand behind one another
as they do in slot order is compared, not sought. The slots do not depend on the seed of the hash.

Ids are given by address: arrays that may be written and arrays that may not would be two types.
"""

from typing import Any

import numpy as np

from fastdiv_kernels.cpu.groups import BITS, ask_for_group, enter, hash_bytes, likely, mix, place
from fastdiv_kernels.cpu.jit import carray, inner, kernel
from fastdiv_kernels.cpu.lines import (
    FREE,
    GROUP,
    STEP,
    byte_at,
    equal_words,
    halves_at,
    look,
    lowest,
    prefetch,
    same_bytes,
    step_falls,
    words,
)

BLOCK = 128  # ids sought together
AHEAD = 64  # ids in a table of places


# -- runs -------------------------------------------------------------------------------------


@kernel
def count_equal(a: Any, b: Any, n: Any) -> Any:
    """Count the leading int64, of n at two addresses, that are equal."""
    return equal_words(a, b, 0, n)


@kernel
def equal_bytes(a: Any, b: Any, n: Any) -> Any:
    """Say whether n bytes at two addresses are equal."""
    return same_bytes(a, b, n)


@kernel
def equal_strings(a: Any, a_data: Any, b: Any, b_data: Any, n: Any) -> Any:
    """Say whether n strings are equal; a and b are addresses of n + 1 offsets into the data."""
    x, y = words(a, n + 1), words(b, n + 1)
    if equal_words(a, b, x[0] - y[0], n + 1) <= n:
        return False
    return same_bytes(a_data + x[0], b_data + y[0], x[n] - x[0])


@kernel
def increasing(at: Any, n: Any, flip: Any) -> Any:
    """Say whether n int64 at an address increase, as they do with the bits of `flip` inverted."""
    x = words(at, n)
    done = np.int64(0)
    while done + STEP < n:
        if step_falls(at + 8 * done, flip):
            return False
        done += STEP
    while done + 1 < n:
        if x[done] ^ flip >= x[done + 1] ^ flip:
            return False
        done += 1
    return True


@kernel
def consecutive(slots: Any) -> Any:
    """Say whether slots (n,) int64 are a run without a gap."""
    for i in range(len(slots)):  # noqa: SIM110  # compiled
        if slots[i] != slots[0] + i:
            return False
    return True


@kernel
def same_labels(known: Any, slots: Any, at: Any) -> Any:
    """Say whether the int32 labels at an address are those known of the slots (n,)."""
    labels = carray(halves_at(at), (len(slots),))
    for start in range(0, len(slots), STEP):
        differs = np.int32(0)
        for i in range(start, min(start + STEP, len(slots))):
            differs |= known[slots[i]] ^ labels[i]
        if differs != 0:
            return False
    return True


# -- integers ---------------------------------------------------------------------------------


@kernel
def index_places(keys: Any, n: Any, base: Any, table: Any) -> None:
    """Enter keys[:n], all different, where they stand from `base` on."""
    for slot in range(n):
        table[np.uint64(keys[slot]) - base] = np.uint32(slot)


@kernel
def find_places(
    at: Any, m: Any, start: Any, next_: Any, keys: Any, n: Any, base: Any, table: Any,
    slots: Any, most: Any,
) -> Any:  # fmt: skip
    """As `find_ints`, in a table of the places from `base` on; stops before any id beyond it."""
    ids = words(at, m)
    size, origin = np.uint64(len(table)), table.ctypes.data
    i = np.int64(start)
    while i < m:
        run = min(m - i, n - next_)
        if run > 0 and keys[next_] == ids[i]:
            run = equal_words(np.int64(keys.ctypes.data) + 8 * next_, at + 8 * i, 0, run)
            for j in range(run):
                slots[i + j] = next_ + j
            i += run
            next_ += run
            continue
        stop = min(i + BLOCK, m)
        while i < stop:
            if i + AHEAD < m:
                prefetch(origin + np.uint64(4) * (np.uint64(ids[i + AHEAD]) - base))
            there = np.uint64(ids[i]) - base
            if there >= size:
                return i, n
            entry = table[there]
            if entry == FREE:
                if n >= most:
                    return i, n
                entry = np.uint32(n)
                table[there] = entry
                keys[n] = ids[i]
                n += 1
            slots[i] = np.int64(entry)
            i += 1
        next_ = slots[i - 1] + 1
    return m, n


@kernel
def index_ints(keys: Any, n: Any, table: Any, mask: Any, seed: Any) -> None:
    """Enter keys[:n], all different, into an empty table."""
    hashes = np.empty(BLOCK, np.uint64)
    for start in range(0, n, BLOCK):
        here = min(BLOCK, n - start)
        for j in range(here):
            hashes[j] = mix(np.uint64(keys[start + j]) ^ seed)
            ask_for_group(table, hashes[j])
        for j in range(here):
            enter(table, hashes[j], mask, start + j)


@inner()
def seek_int(key: Any, h: Any, keys: Any, table: Any, mask: Any) -> Any:
    """Return the slot of an id, -1 if it has none."""
    groups = len(table) // GROUP
    at = place(h, groups)
    while True:
        bits = look(table.ctypes.data + np.uint64(4 * GROUP * at), np.uint32(h) & mask, mask)
        match = bits & BITS
        while match != 0:
            slot = np.int64(table[GROUP * at + lowest(match)] & ~mask)
            if keys[slot] == key:
                return slot
            match &= match - 1
        if bits >> GROUP != 0:
            return np.int64(-1)
        at = at + 1 if at + 1 < groups else 0


@kernel
def find_ints(
    at: Any, m: Any, start: Any, next_: Any, keys: Any, n: Any, table: Any, mask: Any, seed: Any,
    slots: Any, most: Any,
) -> Any:  # fmt: skip
    """Write the slot of each of m ids from `start` on, adding new ids to keys; return (done, n).

    `next_` is the slot that the first of them likely has. Stops before an id that would be the
    `most`-th: the caller then makes room.
    """
    ids = words(at, m)
    origin = np.int64(keys.ctypes.data)
    hashes, candidates = np.empty(BLOCK, np.uint64), np.empty(BLOCK, np.int64)
    i = np.int64(start)
    while i < m:
        run = min(m - i, n - next_)
        if run > 0 and keys[next_] == ids[i]:
            run = equal_words(origin + 8 * next_, at + 8 * i, 0, run)
            for j in range(run):
                slots[i + j] = next_ + j
            i += run
            next_ += run
            continue
        here = min(BLOCK, m - i)
        for j in range(here):
            hashes[j] = mix(np.uint64(ids[i + j]) ^ seed)
            ask_for_group(table, hashes[j])
        for j in range(here):
            candidates[j] = likely(table, hashes[j], mask)
            prefetch(origin + 8 * candidates[j])
        for j in range(here):
            slot, key = candidates[j], ids[i + j]
            if slot < 0 or keys[slot] != key:
                slot = seek_int(key, hashes[j], keys, table, mask)
                if slot < 0:
                    if n >= most:
                        return i + j, n
                    keys[n] = key
                    enter(table, hashes[j], mask, n)
                    slot = n
                    n += 1
            slots[i + j] = slot
        i += here
        next_ = slots[i - 1] + 1
    return m, n


# -- byte strings -----------------------------------------------------------------------------


@kernel
def index_bytes(offsets: Any, data: Any, n: Any, table: Any, mask: Any, seed: Any) -> None:
    """Enter n byte strings, all different, into an empty table; string i ends at offsets[i + 1]."""
    origin = np.int64(data.ctypes.data)
    hashes = np.empty(BLOCK, np.uint64)
    for start in range(0, n, BLOCK):
        here = min(BLOCK, n - start)
        for j in range(here):
            a, b = offsets[start + j], offsets[start + j + 1]
            hashes[j] = hash_bytes(origin + a, b - a, seed)
            ask_for_group(table, hashes[j])
        for j in range(here):
            enter(table, hashes[j], mask, start + j)


@inner()
def is_string(at: Any, size: Any, slot: Any, offsets: Any, data: Any) -> Any:
    """Say whether the string of a slot is the bytes at an address."""
    a = offsets[slot]
    if offsets[slot + 1] - a != size:
        return False
    return same_bytes(at, np.int64(data.ctypes.data) + a, size)


@inner()
def seek_bytes(at: Any, size: Any, h: Any, offsets: Any, data: Any, table: Any, mask: Any) -> Any:
    """Return the slot of a byte string, -1 if it has none."""
    groups = len(table) // GROUP
    group = place(h, groups)
    while True:
        bits = look(table.ctypes.data + np.uint64(4 * GROUP * group), np.uint32(h) & mask, mask)
        match = bits & BITS
        while match != 0:
            slot = np.int64(table[GROUP * group + lowest(match)] & ~mask)
            if is_string(at, size, slot, offsets, data):
                return slot
            match &= match - 1
        if bits >> GROUP != 0:
            return np.int64(-1)
        group = group + 1 if group + 1 < groups else 0


@kernel
def find_bytes(
    at: Any, bytes_at: Any, m: Any, start: Any, next_: Any, offsets: Any, data: Any, n: Any,
    table: Any, mask: Any, seed: Any, slots: Any, most: Any,
) -> Any:  # fmt: skip
    """As `find_ints`, of byte strings: addresses of m + 1 offsets and of what they point into.

    Stops before a string that would be the `most`-th or does not fit into `data`.
    """
    ends = words(at, m + 1)
    origin = np.int64(data.ctypes.data)
    hashes, candidates = np.empty(BLOCK, np.uint64), np.empty(BLOCK, np.int64)
    i = np.int64(start)
    while i < m:
        run = i
        while i < m and next_ < n:
            a, size = bytes_at + ends[i], ends[i + 1] - ends[i]
            if not is_string(a, size, next_, offsets, data):
                break
            slots[i] = next_
            next_ += 1
            i += 1
        if i > run:
            continue
        here = min(BLOCK, m - i)
        for j in range(here):
            a, size = bytes_at + ends[i + j], ends[i + j + 1] - ends[i + j]
            hashes[j] = hash_bytes(a, size, seed)
            ask_for_group(table, hashes[j])
        for j in range(here):
            candidates[j] = likely(table, hashes[j], mask)
            prefetch(np.int64(offsets.ctypes.data) + 8 * candidates[j])
        for j in range(here):
            if candidates[j] >= 0:
                prefetch(origin + offsets[candidates[j]])
        for j in range(here):
            a, size, slot = bytes_at + ends[i + j], ends[i + j + 1] - ends[i + j], candidates[j]
            if slot < 0 or not is_string(a, size, slot, offsets, data):
                slot = seek_bytes(a, size, hashes[j], offsets, data, table, mask)
                if slot < 0:
                    to = offsets[n]
                    if n >= most or to + size > len(data):
                        return i + j, n
                    for k in range(size):
                        data[to + k] = np.uint8(byte_at(a + k))
                    offsets[n + 1] = to + size
                    enter(table, hashes[j], mask, n)
                    slot = n
                    n += 1
            slots[i + j] = slot
        i += here
        next_ = slots[i - 1] + 1
    return m, n


# -- rows to slots ----------------------------------------------------------------------------


@kernel
def scatter(start: Any, slots: Any, columns: Any, targets: Any, shift: Any) -> Any:
    """Write rows from `start` on to their slots; stop at the first slot taken, and return where.

    `columns` are loss, confidence, margin, brier, predicted and flags, (n,) each, and the profile
    (n, k) as words; the targets (blocks, 2**shift) and (blocks, 2**shift, k): slot s is at
    [s >> shift, s & (2**shift - 1)].
    """
    loss, confidence, margin, brier, predicted, flags, profile = columns
    to_loss, to_confidence, to_margin, to_brier, to_predicted, to_flags, to_profile = targets
    mask = (np.int64(1) << shift) - 1
    for i in range(start, len(slots)):
        block = slots[i] >> shift
        at = slots[i] & mask
        if to_flags[block, at] != 0:
            return i
        to_loss[block, at] = loss[i]
        to_confidence[block, at] = confidence[i]
        to_margin[block, at] = margin[i]
        to_brier[block, at] = brier[i]
        to_predicted[block, at] = predicted[i]
        for j in range(profile.shape[1]):
            to_profile[block, at, j] = profile[i, j]
        to_flags[block, at] = flags[i]
    return len(slots)

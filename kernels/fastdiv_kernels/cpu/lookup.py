"""Finding the slot of an id: an open-addressing table of slots, the ids kept beside it.

The table holds int32 slots, -1 where free; an id's place is found from its hash by
multiplication, so that a table may have any size and stays between half and four fifths full,
and probing is linear. Ids are compared in full: two ids never share a slot by their hash.
"""

from typing import Any

import numpy as np
from llvmlite import ir

from fastdiv_kernels.cpu.jit import inner, intrinsic, kernel, types
from fastdiv_kernels.cpu.lanes import pointer, prefetch

BLOCK = 4096  # numbers compared before anybody asks whether they differ
TOGETHER = 64  # ids whose places are fetched before the first is looked at

MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
MIX_2 = np.uint64(0x94D049BB133111EB)
FNV_PRIME = np.uint64(0x100000001B3)
FNV_OFFSET = np.uint64(0xCBF29CE484222325)


@inner()
def mix(x: Any) -> Any:
    """Spread the bits of a 64-bit number over all of it (the finaliser of splitmix64)."""
    h = np.uint64(x)
    h = (h ^ (h >> np.uint64(30))) * MIX_1
    h = (h ^ (h >> np.uint64(27))) * MIX_2
    return h ^ (h >> np.uint64(31))


@inner()
def hash_bytes(data: Any, start: Any, stop: Any) -> Any:
    """Hash data[start:stop] (FNV-1a, mixed at the end)."""
    h = FNV_OFFSET
    for i in range(start, stop):
        h = (h ^ np.uint64(data[i])) * FNV_PRIME
    return mix(h)


@inner()
def place(h: Any, size: Any) -> Any:
    """Map a hash to [0, size) by its high half; size < 2**32."""
    return np.int64(((h >> np.uint64(32)) * np.uint64(size)) >> np.uint64(32))


@intrinsic
def fetch(typing_context: Any, array: Any, at: Any) -> Any:
    """Have the processor fetch array[at] (an int64), which will be needed soon."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        place = pointer(context, builder, signature, args, 0, args[1])
        prefetch(builder, builder.bitcast(place, ir.IntType(8).as_pointer()), 3)
        return context.get_dummy_value()

    return types.void(array, at), generate


@inner()
def differ(a: Any, first: Any, b: Any, start: Any, stop: Any) -> Any:
    """Say whether a[first + i] differs from b[i] for some i from start to stop; vectorises."""
    differences = a[0] ^ a[0]
    for i in range(np.uint64(start), np.uint64(stop)):
        differences |= a[np.uint64(first) + i] ^ b[i]
    return differences != 0


@kernel
def same_ints(a: Any, first: Any, b: Any) -> Any:
    """Say whether a[first : first + len(b)] are the integers b; at most so many are there."""
    for start in range(0, len(b), BLOCK):
        if differ(a, first, b, start, min(start + BLOCK, len(b))):
            return 0
    return 1


@inner()
def falls(ids: Any, start: Any, stop: Any) -> Any:
    """Say whether one of ids[start:stop] is no larger than the one before it; vectorises."""
    bad = np.int32(0)
    for i in range(np.uint64(start), np.uint64(stop)):
        bad |= np.int32(ids[i] <= ids[i - np.uint64(1)])
    return bad != 0


@kernel
def increase(ids: Any) -> Any:
    """Say whether each of the ids is larger than the one before it."""
    for start in range(1, len(ids), BLOCK):
        if falls(ids, start, min(start + BLOCK, len(ids))):
            return 0
    return 1


@kernel
def index_ints(keys: Any, n: Any, table: Any) -> None:
    """Enter keys[:n], all different, into an empty table."""
    size = len(table)
    for slot in range(n):
        at = place(mix(keys[slot]), size)
        while table[at] >= 0:
            at = at + 1 if at + 1 < size else 0
        table[at] = slot


@kernel
def find_ints(ids: Any, start: Any, keys: Any, n: Any, table: Any, slots: Any, most: Any) -> Any:
    """Write the slot of each of ids[start:], adding new ids to keys; return (done, n).

    Stops before an id that would be the `most`-th: the caller then makes room.
    """
    size = len(table)
    places = np.zeros(TOGETHER, np.int64)
    for first in range(start, len(ids), TOGETHER):
        stop = min(first + TOGETHER, len(ids))
        # A place in a large table is far away, and so is the key there: all are fetched at once.
        for i in range(first, stop):
            at = place(mix(ids[i]), size)
            places[i - first] = at
            fetch(table, at)
        for i in range(first, stop):
            slot = table[places[i - first]]
            fetch(keys, slot if slot > 0 else 0)
        for i in range(first, stop):
            key = ids[i]
            at = places[i - first]
            while table[at] >= 0 and keys[table[at]] != key:
                at = at + 1 if at + 1 < size else 0
            if table[at] < 0:
                if n >= most:
                    return i, n
                keys[n] = key
                table[at] = n
                n += 1
            slots[i] = table[at]
    return len(ids), n


@inner()
def same_bytes(a: Any, a_start: Any, a_stop: Any, b: Any, b_start: Any, b_stop: Any) -> Any:
    """Compare a[a_start:a_stop] with b[b_start:b_stop]."""
    if a_stop - a_start != b_stop - b_start:
        return False
    for i in range(a_stop - a_start):  # noqa: SIM110  # compiled
        if a[a_start + i] != b[b_start + i]:
            return False
    return True


@kernel
def index_bytes(offsets: Any, data: Any, n: Any, table: Any) -> None:
    """Enter n byte strings, all different, into an empty table; string i ends at offsets[i + 1]."""
    size = len(table)
    for slot in range(n):
        at = place(hash_bytes(data, offsets[slot], offsets[slot + 1]), size)
        while table[at] >= 0:
            at = at + 1 if at + 1 < size else 0
        table[at] = slot


@kernel
def find_bytes(
    id_offsets: Any, id_data: Any, start: Any, offsets: Any, data: Any, n: Any, table: Any,
    slots: Any, most: Any,
) -> Any:  # fmt: skip
    """Write the slot of each byte string from `start` on, adding new ones; return (done, n).

    Stops before a string that would be the `most`-th or does not fit into `data`.
    """
    size = len(table)
    for i in range(start, len(id_offsets) - 1):
        a, b = id_offsets[i], id_offsets[i + 1]
        at = place(hash_bytes(id_data, a, b), size)
        while table[at] >= 0 and not same_bytes(
            id_data, a, b, data, offsets[table[at]], offsets[table[at] + 1]
        ):
            at = at + 1 if at + 1 < size else 0
        if table[at] < 0:
            if n >= most or offsets[n] + b - a > len(data):
                return i, n
            for j in range(b - a):
                data[offsets[n] + j] = id_data[a + j]
            offsets[n + 1] = offsets[n] + b - a
            table[at] = n
            n += 1
        slots[i] = table[at]
    return len(id_offsets) - 1, n


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

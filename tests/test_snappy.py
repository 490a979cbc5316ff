"""Snappy's blocks against what pyarrow compressed, and against a decoder of a few lines.

Both sides of a block end where memory ends: what is read or written beyond ends the process.
"""

import ctypes
import mmap
import sys
import threading

import numpy as np
import pyarrow as pa
import pytest

from fastdiv_kernels.cpu.snappy import unpack

PAGE = mmap.PAGESIZE
ROOM = 1 << 20  # bytes of a side
GUARD = 64  # bytes watched on either side of a target
SEALED = sys.platform == "linux"


class Side:
    """Memory with nothing before and behind it that may be touched, where that can be had."""

    def __init__(self):
        self.memory = mmap.mmap(-1, ROOM + 2 * PAGE)
        self.bytes = np.frombuffer(self.memory, np.uint8)[PAGE : PAGE + ROOM]
        self.start = self.bytes.ctypes.data
        if SEALED:
            protect = ctypes.CDLL(None, use_errno=True).mprotect
            for page in (self.start - PAGE, self.start + ROOM):
                assert protect(ctypes.c_void_p(page), ctypes.c_size_t(PAGE), 0) == 0

    def place(self, size, at_end):
        return ROOM - size if at_end else 0


SOURCE, TARGET = Side(), Side()


def numbers(*values):
    return [np.array([x], np.int64) for x in values]


def try_unpack(block, size, at_end=True):
    """Return what a block is unpacked to, None where it is refused."""
    a, b = SOURCE.place(len(block), at_end), TARGET.place(size, at_end)
    SOURCE.bytes[a : a + len(block)] = np.frombuffer(block, np.uint8)
    around = [slice(max(b - GUARD, 0), b), slice(b + size, b + size + GUARD)]
    for guard in around:
        TARGET.bytes[guard] = 0xA5
    done = unpack(*numbers(SOURCE.start + a, len(block), TARGET.start + b, size))
    for guard in around:
        assert (TARGET.bytes[guard] == 0xA5).all()
    return TARGET.bytes[b : b + size].tobytes() if done == 1 else None


def reference(block, size):
    """Return the same, decoded byte by byte."""
    at = says = 0
    while True:
        if at == len(block) or at == 5:
            return None
        says |= (block[at] & 127) << 7 * at
        at += 1
        if block[at - 1] < 128:
            break
    out = bytearray()
    while at < len(block):
        tag = block[at]
        kind, length = tag & 3, (tag >> 2) + 1
        more = (max(length - 60, 0), 1, 2, 4)[kind]
        number = int.from_bytes(block[at + 1 : at + 1 + more], "little")
        if at + 1 + more > len(block):
            return None
        at += 1 + more
        if kind == 0:
            length = number + 1 if more else length
            if at + length > len(block) or len(out) + length > size:
                return None
            out += block[at : at + length]
            at += length
            continue
        if kind == 1:
            length = 4 + (tag >> 2 & 7)
            number |= tag >> 5 << 8
        if not 0 < number <= len(out) or len(out) + length > size:
            return None
        for _ in range(length):
            out.append(out[-number])
    return bytes(out) if len(out) == size == says else None


def check_damaged(block, size):
    for at_end in (True, False):
        assert try_unpack(block, size, at_end) == reference(block, size)


def varint(n):
    return bytes([n]) if n < 128 else bytes([n & 127 | 128]) + varint(n >> 7)


def literal(data, extra=0):
    n = len(data) - 1
    if not extra:
        return bytes([n << 2]) + data
    return bytes([(59 + extra) << 2]) + n.to_bytes(extra, "little") + data


def copy(length, offset, kind):
    if kind == 1:
        return bytes([1 | (length - 4) << 2 | offset >> 8 << 5, offset & 255])
    return bytes([kind | (length - 1) << 2]) + offset.to_bytes(2 if kind == 2 else 4, "little")


def kinds(length, offset):
    return [1] * (4 <= length <= 11 and offset < 2048) + [2] * (offset < 65536) + [3]


def compressed(data):
    return pa.Codec("snappy").compress(data, asbytes=True)


def levels(n):
    """Return levels of lists of ten as Parquet has them, with what it puts before them."""
    bits = np.packbits(np.arange(n) % 10 != 0, bitorder="little")
    body = b"".join(
        bytes([2 * len(x) | 1]) + x.tobytes() for x in np.split(bits, range(63, len(bits), 63))
    )
    return len(body).to_bytes(4, "little") + body


def texts(rng, n):
    words = [bytes(rng.integers(97, 123, rng.integers(1, 12)).astype("u1")) for _ in range(300)]
    return b" ".join(words[i] for i in rng.zipf(1.3, n // 4) % 300)[:n]


KINDS = {
    "nothing": lambda rng, n: bytes(8 * n),
    "one number": lambda rng, n: np.full(n, 123456789).tobytes(),
    "ids": lambda rng, n: np.arange(n).tobytes(),
    "ids from far on": lambda rng, n: b"abc" + np.arange(10**12, 10**12 + n).tobytes(),
    "ids downwards": lambda rng, n: np.arange(n, 0, -1).tobytes(),
    "every seventh": lambda rng, n: (np.arange(n) * 7 - 50).tobytes(),
    "shuffled": lambda rng, n: rng.permutation(n).tobytes(),
    "below 2^40": lambda rng, n: rng.integers(0, 2**40, n).tobytes(),
    "any int64": lambda rng, n: rng.integers(-(2**62), 2**62, n).tobytes(),
    "labels": lambda rng, n: rng.integers(0, 10, n).tobytes(),
    "many labels": lambda rng, n: rng.integers(0, 1000, n).tobytes(),
    "int32 labels": lambda rng, n: rng.integers(0, 10, n).astype("i4").tobytes(),
    "small labels": lambda rng, n: (np.arange(n) // 100).astype("u1").tobytes(),
    "int32": lambda rng, n: np.arange(n, dtype="i4").tobytes(),
    "a page": lambda rng, n: levels(n) + rng.normal(0, 3, n).astype("f4").tobytes(),
    "rounded": lambda rng, n: np.round(rng.normal(0, 3, n), 1).tobytes(),
    "pixels": lambda rng, n: rng.integers(0, 5, (n, 3)).astype("u1").repeat(3, 0).tobytes(),
    "text": texts,
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_blocks_unpack_to_what_was_compressed(kind):
    rng = np.random.default_rng(7)
    for n in (1, 10, 300, 5000, 20000):
        data = KINDS[kind](rng, n)
        for at_end in (True, False):
            assert try_unpack(compressed(data), len(data), at_end) == data


@pytest.mark.parametrize("kind", KINDS)
def test_all_small_sizes(kind):
    data = KINDS[kind](np.random.default_rng(3), 200)
    for size in range(201):
        part = data[-size:] if size else b""
        assert try_unpack(compressed(part), size) == part


def test_several_blocks_and_which_is_damaged():
    parts = [np.arange(n).tobytes() for n in (1, 0, 1000, 7, 300)]
    blocks = [compressed(part) for part in parts]
    packed = np.frombuffer(b"".join(blocks), np.uint8).copy()
    out = np.zeros(sum(map(len, parts)), np.uint8)
    sizes, targets = ([len(x) for x in some] for some in (blocks, parts))
    begins, to = (np.cumsum([0, *x])[:-1] for x in (sizes, targets))
    arguments = [
        np.asarray(x, np.int64)
        for x in (packed.ctypes.data + begins, sizes, out.ctypes.data + to, targets)
    ]
    assert unpack(*arguments) == 5
    assert out.tobytes() == b"".join(parts)
    out[:] = 0
    packed[begins[3]] += 1
    assert unpack(*arguments) == 3
    assert out[: to[3]].tobytes() == b"".join(parts[:3])
    assert not out[to[4] :].any()
    assert unpack(*(x[:0] for x in arguments)) == 0


def test_threads_run_at_once_and_give_the_same():
    data = np.random.default_rng(1).permutation(20000).tobytes()
    block = np.frombuffer(compressed(data), np.uint8)
    outs = [np.zeros(len(data), np.uint8) for _ in range(4)]

    def repeat(out):
        for _ in range(20):
            assert unpack(*numbers(block.ctypes.data, len(block), out.ctypes.data, len(data))) == 1

    threads = [threading.Thread(target=repeat, args=(out,)) for out in outs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(out.tobytes() == data for out in outs)


# Streams made by hand --------------------------------------------------------------------------


def both(body, size, tail=b""):
    """Check a stream near the end of memory, and with so much behind it that units are taken."""
    for more in (b"", tail):
        block = varint(size + len(more)) + body + (literal(more, 2) if more else b"")
        wanted = reference(block, size + len(more))
        assert wanted is not None
        assert try_unpack(block, size + len(more)) == wanted


TAIL = bytes(range(200, 0, -1))
SEEDS = np.random.default_rng(5).integers(0, 256, 70000).astype("u1").tobytes()


@pytest.mark.parametrize("before", [0, 1, 2, 3, 4, 5, 16, 17])
def test_copies_of_every_offset_and_length_behind_literals(before):
    for offset in range(1, 21):
        for length in range(1, 65):
            for kind in kinds(length, offset):
                body = literal(SEEDS[:24])
                body += literal(SEEDS[50 : 50 + before]) if before else b""
                both(body + copy(length, offset, kind), 24 + before + length, TAIL)


def test_copies_one_behind_another():
    rng = np.random.default_rng(11)
    for _ in range(1500):
        body, size = literal(SEEDS[:12]), 12
        for _ in range(rng.integers(1, 30)):
            if rng.random() < 0.4:
                n = int(rng.integers(1, rng.choice([3, 6, 20, 80])))
                body += literal(SEEDS[size : size + n], 1 if n > 60 else 0)
            else:
                n = int(rng.integers(1, rng.choice([5, 9, 17, 65])))
                offset = int(rng.integers(1, min(size, rng.choice([4, 9, 17, 70])) + 1))
                body += copy(n, offset, rng.choice(kinds(n, offset)))
            size += n
        both(body, size, TAIL)


@pytest.mark.parametrize("offset", [2047, 2048, 4095, 65535, 65536, 70000])
def test_copies_from_afar(offset):
    for length in (1, 4, 8, 11, 16, 17, 33, 64):
        for kind in kinds(length, offset):
            body = literal(SEEDS[:70000], 3) + b"\x00x" + copy(length, offset, kind)
            both(body, 70001 + length, TAIL)


@pytest.mark.parametrize("extra", [0, 1, 2, 3, 4])
def test_literals_whose_length_has_bytes_of_its_own(extra):
    for n in (1, 4, 5, 16, 17, 60, 61, 255, 256, 257, 65535, 65536, 65537):
        if n <= (60, 256, 65536, 2**24, 2**32)[extra]:
            both(literal(SEEDS[:n], extra), n, TAIL)


@pytest.mark.parametrize("units", [7, 8, 9, 15, 16, 17, 40])
@pytest.mark.parametrize("broken", [None, 0, 3, 7, 8, 12])
def test_runs_of_a_byte_and_seven(units, broken):
    pieces = [literal(bytes([i * 37 % 256])) + copy(7, 8, 1) for i in range(units)]
    if broken is not None and broken < units:
        for other in (copy(7, 9, 1), copy(7, 8, 2), copy(7, 264, 1), copy(6, 8, 1)):
            pieces[broken] = b"\x00Z" + other
            body = literal(SEEDS[:300], 2) + b"".join(pieces)
            both(body, 300 + 8 * units - (other == copy(6, 8, 1)), TAIL)
    else:
        for head in range(8, 17):
            both(literal(SEEDS[:head]) + b"".join(pieces), head + 8 * units, TAIL)


def test_a_run_that_gives_too_much():
    body = literal(SEEDS[:8]) + 40 * (b"\x00a" + copy(7, 8, 1))
    for size in range(8, 8 + 8 * 40 + 2):
        check_damaged(varint(size) + body, size)
    for tags in range(8):  # and one that is cut
        check_damaged(varint(328) + body[: len(body) - tags], 328)


@pytest.mark.parametrize(
    ("block", "size"),
    [
        (b"", 0),
        (b"\x00", 0),
        (b"\x80", 0),
        (b"\x80\x00", 0),
        (b"\x80\x80\x80\x80\x00", 0),
        (b"\x80\x80\x80\x80\x10", 0),  # 2^32
        (b"\x80\x80\x80\x80\x80\x00", 0),
        (b"\x00\x00a", 0),  # more than it says
        (b"\x01", 1),
        (b"\x02\x00a", 1),
        (b"\x02\x00a", 2),
        (b"\x01\x00a", 2),
        (b"\x05\x00a" + copy(4, 1, 1), 5),
        (b"\x05\x00a" + copy(4, 0, 1), 5),
        (b"\x05\x00a" + copy(4, 2, 1), 5),
        (b"\x05\x00a" + copy(4, 2**32 - 1, 3), 5),
        (b"\x05\x00a" + copy(4, 2**31, 3), 5),
        (b"\x05\x00a" + copy(4, 1, 3)[:-1], 5),
        (b"\x05" + copy(5, 1, 2), 5),
        (b"\x05\xfc\xff\xff\xff\xff" + b"a" * 5, 5),
        (b"\x05\xfc\x04\x00\x00\x00" + b"a" * 5, 5),
        (b"\x05\xf0\x04" + b"a" * 4, 5),
    ],
)
def test_what_is_refused(block, size):
    check_damaged(block, size)


@pytest.mark.parametrize("size", [-1, -(2**31), -(2**63), 2**32, 2**62])
def test_sizes_that_no_block_can_have(size):
    block = np.frombuffer(b"\xff\xff\xff\xff\x0f\x00a", np.uint8)
    room = np.zeros(64, np.uint8)
    for length in (0, -1, -(2**63), 1, 5, 7):
        assert unpack(*numbers(block.ctypes.data, length, room.ctypes.data, size)) == 0
    assert not room.any()


# Damage ----------------------------------------------------------------------------------------


def test_a_block_cut_anywhere():
    rng = np.random.default_rng(2)
    for kind in ("ids", "shuffled", "labels", "int32 labels", "a page", "text", "pixels"):
        data = KINDS[kind](rng, 150)
        block = compressed(data)
        for cut in range(len(block)):
            assert try_unpack(block[:cut], len(data)) is None
        for size in (0, len(data) - 1, len(data) + 1, 2 * len(data)):
            assert try_unpack(block, size) is None
        for more in (b"\x00", b"\x00a", copy(4, 1, 1)):
            assert try_unpack(block + more, len(data)) is None


def test_every_byte_of_the_beginning_changed():
    rng = np.random.default_rng(8)
    for kind in ("ids", "labels", "text"):
        data = KINDS[kind](rng, 60)
        block = bytearray(compressed(data))
        for at in range(12):
            kept = block[at]
            for other in range(256):
                block[at] = other
                check_damaged(bytes(block), len(data))
            block[at] = kept


@pytest.mark.parametrize("kind", ["ids", "shuffled", "labels", "int32 labels", "a page", "text"])
def test_bytes_changed_at_random(kind):
    rng = np.random.default_rng(9)
    data = KINDS[kind](rng, 120)
    block = np.frombuffer(compressed(data), np.uint8)
    for _ in range(1000):
        changed = block.copy()
        for at in rng.integers(2, len(block), rng.integers(1, 4)):
            changed[at] = rng.integers(0, 256)
        check_damaged(changed.tobytes(), len(data))


def test_tags_at_random():
    """Many good elements and an odd one: the size is what the good ones give, or not."""
    rng = np.random.default_rng(10)
    for _ in range(1500):
        body, size = literal(SEEDS[:10]), 10
        for _ in range(rng.integers(1, 60)):
            offset = int(rng.integers(0 if rng.random() < 0.02 else 1, size + rng.integers(1, 3)))
            n = int(rng.integers(1, 65))
            offset = min(offset, size) if rng.random() < 0.99 else offset
            body += b"\x00" + SEEDS[n : n + 1] if n & 1 else b""
            body += copy(n, offset, rng.choice(kinds(n, offset)))
            size += n + (n & 1)
        size += int(rng.choice([0, 0, 0, 1, -1]))
        check_damaged(varint(size) + body, size)

"""Calls of kernels made tile by tile without Python between them: its lock is let go of once.

With threads that compete for it, the lock costs a call more than Python's own work does. So a
batch's calls are written down, with arrays of all rows, and `run_steps` makes them for one tile
after another. For this it copies the heads of arrays as NumPy lays them down (see `cpu.entry`),
in which it moves the address of the data on and puts the tile's number of rows. Which arrays go
by rows the names of a kernel's parameters say, which are the same in all kernels.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from llvmlite import ir

from fastdiv_kernels.cpu.addresses import BYTE, SIZE, address_of
from fastdiv_kernels.cpu.entry import DATA, DIMENSIONS, FLAGS_AT, ITEMS, SHAPE, STRIDES, Form
from fastdiv_kernels.cpu.jit import Kernel, intrinsic, kernel, recorded, types
from fastdiv_kernels.cpu.machine_code import ANY_PLACE, Call, exception_at, form_of

# What becomes of an argument from tile to tile.
SAME_NUMBER, ADDRESS, ROWS, SAME_ARRAY, BY_ROWS, GIVEN = range(6)  # the first three of numbers
ROLES = {
    "predictions": GIVEN, "address": ADDRESS, "n": ROWS,
    **dict.fromkeys(("stored", "c", "kind", "tolerance"), SAME_NUMBER),
    **dict.fromkeys(("counts", "bins", "loss_sums", "sums"), SAME_ARRAY),
    **dict.fromkeys(
        ("labels", "loss", "correct", "predicted", "confidence", "margin", "brier", "rank",
         "status", "flags", "profile"), BY_ROWS,
    ),
}  # fmt: skip
CODES = dict(
    zip(("i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f4", "f8"), "bhiqBHIQfd", strict=True)
)
CALL = 6  # numbers that describe a call: whose it is, function, items, first role, roles, numbers
WORDS = FLAGS_AT // 8  # of an array's head, as far as kernels look
LENGTHS = WORDS + 1  # where the copy of a head has its shape
MOST_DIMENSIONS = 2
PLACE = LENGTHS + MOST_DIMENSIONS
MOST_32 = (1 << 32) - 1


@intrinsic
def load(typing_context: Any, address: Any) -> Any:
    """Read 64 bits at an address."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.load(builder.inttoptr(args[0], SIZE.as_pointer()))

    return types.int64(types.int64), generate


@intrinsic
def call_at(typing_context: Any, function: Any, items: Any, numbers: Any) -> Any:
    """Call what `tile_code` made, at an address, and return its status."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        of = ir.FunctionType(SIZE, [BYTE.as_pointer()] * 2)
        given = [builder.inttoptr(x, BYTE.as_pointer()) for x in args[1:]]
        return builder.call(builder.inttoptr(args[0], of.as_pointer()), given)

    return types.int64(types.int64, types.int64, types.int64), generate


@kernel
def run_steps(steps: Any, calls: Any, roles: Any, numbers: Any) -> Any:
    """Make calls (k, CALL) in steps (m, 4) of them; return the first status that is not 0.

    `roles` are those of all arguments of all calls, one after the other; so are `numbers`, each in
    8 bytes, of which those that change are written.
    """
    heads = np.empty((len(roles), PLACE), np.int64)
    items = np.empty(len(roles), np.int64)
    for k in range(len(calls)):
        for i in range(calls[k, 4]):
            a = calls[k, 3] + i
            items[a] = load(calls[k, 2] + 8 * i)
            if roles[a] == BY_ROWS or roles[a] == GIVEN:
                for word in range(WORDS):
                    heads[a, word] = load(items[a] + 8 * word)
                shape = heads[a, SHAPE // 8]
                for j in range(load(items[a] + DIMENSIONS) & MOST_32):
                    heads[a, LENGTHS + j] = load(shape + 8 * j)
                head = address_of(heads) + 8 * PLACE * a
                heads[a, SHAPE // 8] = head + 8 * LENGTHS
                items[a] = head
    for s in range(len(steps)):
        group, start, rows, at = steps[s, 0], steps[s, 1], steps[s, 2], steps[s, 3]
        for k in range(len(calls)):
            if calls[k, 0] != group:
                continue
            number = calls[k, 5]
            for i in range(calls[k, 4]):
                a = calls[k, 3] + i
                role = roles[a]
                if role == BY_ROWS:
                    row_bytes = load(heads[a, STRIDES // 8])
                    heads[a, DATA // 8] = load(load(calls[k, 2] + 8 * i) + DATA) + start * row_bytes
                    heads[a, LENGTHS] = rows
                elif role == GIVEN:
                    heads[a, DATA // 8] = at
                    heads[a, LENGTHS] = rows
                elif role == ADDRESS:
                    numbers[number] = at
                elif role == ROWS:
                    numbers[number] = rows
                if role <= ROWS:
                    number += 1
            status = call_at(
                calls[k, 1], address_of(items) + 8 * calls[k, 3],
                address_of(numbers) + 8 * calls[k, 5],
            )  # fmt: skip
            if status != 0:
                return status
    return 0


@dataclass(frozen=True)
class _Way:
    """How machine code for arguments of a form is called tile by tile."""

    function: int  # address
    roles: tuple[int, ...]  # of the arguments
    numbers: tuple[int, ...]  # which arguments are numbers
    packing: struct.Struct  # of these


_ways: dict[Call, _Way | None] = {}


def in_tiles(groups: Sequence[Callable[[], None]], steps: Sequence[tuple[int, ...]]) -> bool:
    """Make the calls of groups tile by tile; see the contract."""
    if not ANY_PLACE and any(at % 8 for *_, at in steps):
        return False
    written = [(group, *call) for group, calls in enumerate(groups) for call in calls_of(calls)]
    calls: list[tuple[int, ...]] = []
    roles: list[int] = []
    numbers = bytearray()
    for group, of, arguments in written:
        form = form_of(arguments)
        call = of.of(form, arguments)
        way = _ways[call] if call in _ways else _ways.setdefault(call, way_of(of, call, form))
        if way is None:
            return False
        items, first = id(arguments) + ITEMS, len(numbers) // 8
        calls.append((group, way.function, items, len(roles), len(way.roles), first))
        roles += way.roles
        try:
            numbers += way.packing.pack(*[arguments[i] for i in way.numbers])
        except struct.error:
            raise OverflowError("an integer has more than 64 bits") from None
    status = run_steps(
        np.array(steps, np.int64).reshape(-1, 4), np.array(calls, np.int64).reshape(-1, CALL),
        np.array(roles, np.int64), np.frombuffer(numbers or bytearray(8), np.int64),
    )  # fmt: skip
    if status != 0:
        raise exception_at(status - 1)
    return True


def calls_of(group: Callable[[], None]) -> list[tuple[Kernel, tuple[Any, ...]]]:
    """Write down what kernels a group calls with what, on this thread, instead of calling them."""
    before, recorded.calls = recorded.calls, []
    try:
        group()
        return recorded.calls
    finally:
        recorded.calls = before


def way_of(of: Kernel, call: Call, form: Form) -> _Way | None:
    """Return how a kernel is called tile by tile; None where it cannot be, or nobody knows how."""
    function = getattr(call, "in_tiles", 0)
    code = of.__wrapped__.__code__
    names = code.co_varnames[: code.co_argcount]
    if not function or len(names) != len(form) or not ROLES.keys() >= set(names):
        return None
    roles = tuple(ROLES[name] for name in names)
    for role, one in zip(roles, form, strict=True):
        is_array = not isinstance(one, type)
        if is_array != (role > ROWS) or (is_array and not 0 < one[1] <= MOST_DIMENSIONS):
            return None
    numbers = tuple(i for i, one in enumerate(form) if isinstance(one, type))
    codes = [np.dtype(form[i]).str[1:] for i in numbers]
    packing = struct.Struct("=" + "".join(f"{CODES[x]}{8 - int(x[1])}x" for x in codes))
    return _Way(function, roles, numbers, packing)

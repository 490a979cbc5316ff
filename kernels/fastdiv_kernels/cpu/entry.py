"""How a kernel gets at Python's arguments: LLVM code that takes a tuple of arrays apart by itself.

Made of Python numbers, the seven or more words of an array take 3 µs; read from the array, some
nanoseconds. So the code is given where the tuple's items lie and reads what C's headers of CPython
and NumPy lay down: a type at the end of what every object begins with, items of a tuple after
what a tuple begins with, and data, dimensions, shape, strides, dtype and flags of an array. That
they lie there is tried out before it is relied on.
"""

from __future__ import annotations

import ctypes
import functools
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

Form = Any  # hashable: of each argument a type, or (dtype, dimensions, flags), or a tuple of these

CONTIGUOUS, FORTRAN, ALIGNED, WRITEABLE = 1, 2, 0x100, 0x400  # of NumPy's flags
FLAGS = CONTIGUOUS | FORTRAN | ALIGNED | WRITEABLE
HEADER = object.__basicsize__
TYPE = HEADER - 8
ITEMS = tuple.__basicsize__
# Of arrays, after the header.
DATA, DIMENSIONS, SHAPE, STRIDES, DTYPE, FLAGS_AT = (HEADER + at for at in (0, 8, 16, 24, 40, 48))
OTHER_FORM = -1  # what the code returns, having done nothing, where an argument has another form


@functools.cache
def layout_is_known() -> bool:
    """Say whether tuples and arrays lie in memory as this file has it."""
    if sys.implementation.name != "cpython" or np.ndarray.__basicsize__ < FLAGS_AT + 4:
        return False
    array = np.zeros((3, 5), np.int16)[:, ::2]
    inside = (array,)

    def word(at: int, of: Any = ctypes.c_ssize_t) -> int:
        return int(of.from_address(at).value)

    at = id(array)
    if word(id(inside) + ITEMS) != at or word(at + TYPE) != id(np.ndarray):
        return False
    known = (
        word(at + DATA) == array.__array_interface__["data"][0],
        word(at + DIMENSIONS, ctypes.c_int32) == array.ndim,
        word(at + DTYPE) == id(array.dtype),
        word(at + FLAGS_AT, ctypes.c_int32) & FLAGS == array.flags.num & FLAGS,
    )
    places = [word(at + SHAPE), word(at + STRIDES)]
    if not all(known) or not all(places):
        return False
    found = [[word(place + 8 * i) for i in range(array.ndim)] for place in places]
    return found == [list(array.shape), list(array.strides)]


class _Code:
    """LLVM code, line by line; values are numbered."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def line(self, text: str) -> None:
        """Append an instruction without a value, or a label."""
        self.lines.append(text)

    def value(self, text: str) -> str:
        """Append an instruction; return the name of its value."""
        name = f"%v{len(self.lines)}"
        self.lines.append(f"{name} = {text}")
        return name

    def load(self, pointer: str, offset: int, kind: str) -> str:
        """Read what lies some bytes behind a pointer."""
        at = self.value(f"getelementptr i8, ptr {pointer}, i64 {offset}")
        return self.value(f"load {kind}, ptr {at}")

    def go_on_if(self, conditions: Iterable[tuple[str, str, str]], label: str) -> None:
        """Jump to a label if words of a type are equal, pair by pair, else to `other`."""
        together = "true"
        for kind, a, b in conditions:
            equal = self.value(f"icmp eq {kind} {a}, {b}")
            together = self.value(f"and i1 {together}, {equal}")
        self.line(f"br i1 {together}, label %{label}, label %other")
        self.line(f"{label}:")

    def arguments(self, items: str, form: Form, numbers: Iterator[str]) -> Iterator[str]:
        """Read what a kernel is given for items of a form; `numbers` are at hand."""
        for i, one in enumerate(form):
            if isinstance(one, type):
                yield next(numbers)
                continue
            item = self.load(items, 8 * i, "ptr")
            if one[0] == "tuple":
                inner = self.value(f"getelementptr i8, ptr {item}, i64 {ITEMS}")
                yield from self.arguments(inner, one[1:], numbers)
                continue
            dtype, dimensions, _ = one
            places = [self.load(item, at, "ptr") for at in (SHAPE, STRIDES)]
            words = [self.load(at, 8 * i, "i64") for at in places for i in range(dimensions)]
            size = "1"
            for length in words[:dimensions]:
                size = self.value(f"mul i64 {size}, {length}")
            yield from ("ptr null", "ptr null", f"i64 {size}", f"i64 {dtype.itemsize}")
            yield f"ptr {self.load(item, DATA, 'ptr')}"
            yield from (f"i64 {word}" for word in words)

    def call(
        self, kernel: str, places: Sequence[str], form: Form, numbers: Sequence[str]
    ) -> list[str]:
        """Append the call of a kernel and the return of its status; return what it is given."""
        given = [*places, *self.arguments("%items", form, iter(numbers))]
        status = self.value(f'call i32 @"{kernel}"({", ".join(given)})')
        failed = self.value(f"icmp ne i32 {status}, 0")
        described = self.value(f"ptrtoint ptr {self.load('%exception', 0, 'ptr')} to i64")
        more = self.value(f"add i64 {described}, 1")
        self.line(f"ret i64 {self.value(f'select i1 {failed}, i64 {more}, i64 0')}")
        return given


def entry_code(name: str, kernel: str, numbers: Sequence[str], form: Form, ignored: int) -> str:
    """Return LLVM code of a function that calls a kernel for Python's arguments of a form.

    The function is given the address of a tuple's items; a place for the result, or null if there
    is none; the addresses of the type of arrays and of each array's dtype, or null, which leaves
    the form uncompared; and the numbers among the arguments, whose types are `numbers`. It returns
    0, OTHER_FORM, or one more than the address of what describes an exception. `ignored` are flags
    of arrays that are not compared.
    """
    code = _Code()
    code.line("%exception = alloca ptr")
    code.line("store ptr null, ptr %exception")
    code.line("%nothing = alloca i64")
    code.line("%no_place = icmp eq ptr %result, null")
    code.line("%to = select i1 %no_place, ptr %nothing, ptr %result")
    code.line("%any = icmp eq ptr %expected, null")
    code.line("br i1 %any, label %call, label %types")
    code.line("types:")
    arrays = [(i, one) for i, one in enumerate(form) if not isinstance(one, type)]
    if any(one[0] == "tuple" for _, one in arrays):
        code.line("br label %other")
    else:
        objects = [code.load("%items", 8 * i, "ptr") for i, _ in arrays]
        array = code.load("%expected", 0, "i64")
        code.go_on_if([("i64", code.load(x, TYPE, "i64"), array) for x in objects], "forms")
        compared = FLAGS & ~ignored
        conditions = []
        for k, (x, (_, (_, dimensions, flags))) in enumerate(zip(objects, arrays, strict=True)):
            dtype = code.load("%expected", 8 + 8 * k, "i64")
            said = code.value(f"and i32 {code.load(x, FLAGS_AT, 'i32')}, {compared}")
            conditions += [
                ("i64", code.load(x, DTYPE, "i64"), dtype),
                ("i32", code.load(x, DIMENSIONS, "i32"), str(dimensions)),
                ("i32", said, str(flags & compared)),
            ]
        code.go_on_if(conditions, "same")
        code.line("br label %call")
    code.line("other:")
    code.line(f"ret i64 {OTHER_FORM}")
    code.line("call:")
    named = [f"{kind} %n{i}" for i, kind in enumerate(numbers)]
    given = code.call(kernel, ["ptr %to", "ptr %exception"], form, named)
    types = ", ".join(one.split()[0] for one in given)
    parameters = ", ".join(("ptr %items", "ptr %result", "ptr %expected", *named))
    body = "\n  ".join(code.lines)
    return f"""
declare i32 @"{kernel}"({types})

define i64 @"{name}"({parameters}) {{
  {body}
}}
"""


def tile_code(name: str, kernel: str, numbers: Sequence[str], form: Form) -> str:
    """Return LLVM code of a function that calls a kernel without a result, whatever its numbers.

    The function is given the address of items as those of a tuple, and that of the numbers, each
    at the beginning of 8 bytes; it returns 0, or one more than the address of what describes an
    exception. So all kernels are called alike by code that has no other way to (`cpu.tiles`).
    """
    code = _Code()
    code.line("%exception = alloca ptr")
    code.line("store ptr null, ptr %exception")
    code.line("%nothing = alloca i64")
    named = [f"{kind} {code.load('%numbers', 8 * i, kind)}" for i, kind in enumerate(numbers)]
    given = code.call(kernel, ["ptr %nothing", "ptr %exception"], form, named)
    types = ", ".join(one.split()[0] for one in given)
    body = "\n  ".join(code.lines)
    return f"""
declare i32 @"{kernel}"({types})

define i64 @"{name}"(ptr %items, ptr %numbers) {{
  {body}
}}
"""

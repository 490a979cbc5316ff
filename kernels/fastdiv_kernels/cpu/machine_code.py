"""Machine code of one kernel for one form of arguments: made by Numba, called without it.

A function that Numba compiled takes, by C's calling convention: a place for its result, a place
for what describes an exception, and its arguments taken apart. An array is seven numbers or more:
two addresses that owners of memory would use (none here), its size, the size of an item, the
address of its data, its shape and its strides. It returns 0, or the number of an exception. What
calls it so, given Python's arguments, is beside it in the code (`cpu.entry`).
"""

from __future__ import annotations

import ctypes
import pickle
import platform
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import llvmlite.binding as llvm
import numpy as np

from fastdiv_kernels.cpu.entry import (
    ALIGNED,
    FLAGS,
    ITEMS,
    OTHER_FORM,
    Form,
    entry_code,
    layout_is_known,
    tile_code,
)
from fastdiv_kernels.cpu.memory import MEMORY

# Given arguments, and whether their form is compared first: gives OTHER, undone, where it differs.
Call = Callable[[tuple[Any, ...], bool], Any]
OTHER = object()

# Processors that read numbers from any address as fast as from a multiple of their size.
ANY_PLACE = ALIGNED if platform.machine().lower() in ("x86_64", "amd64", "aarch64", "arm64") else 0
SCALARS: dict[type, Any] = {int: ctypes.c_int64, float: ctypes.c_double}
SCALARS |= {
    dtype.type: np.ctypeslib.as_ctypes_type(dtype)
    for dtype in map(np.dtype, ("i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f4", "f8"))
}
NUMBERS = {int: "i64", float: "double", np.float32: "float", np.float64: "double"}  # in LLVM
RESULTS = {
    "int64": ctypes.c_int64, "float64": ctypes.c_double, "bool": ctypes.c_bool, "none": None,
}  # fmt: skip
MOST_RESULTS = 8  # words
LEAST, MOST = -(1 << 63), (1 << 63) - 1  # of int64


def supported() -> bool:
    """Say whether arguments are passed here as this file passes them."""
    return ctypes.sizeof(ctypes.c_void_p) == 8 and sys.platform != "win32" and layout_is_known()


def form_of(arguments: tuple[Any, ...]) -> Form:
    """Return what machine code depends on; None where it is for Numba to say."""
    form: list[Any] = []
    for x in arguments:
        kind = type(x)
        if kind is np.ndarray:
            form.append((x.dtype, x.ndim, (x.flags.num & FLAGS) | ANY_PLACE))
        elif kind in SCALARS:
            form.append(kind)
        elif kind is tuple:
            parts = form_of(x)
            if parts is None:
                return None
            form.append(("tuple", *parts))
        else:
            return None
    return tuple(form)


def text_of(form: Form) -> str:
    """Return a form in words that are the same in every process."""
    if isinstance(form, type):
        return form.__name__
    if isinstance(form, tuple):
        return f"({', '.join(map(text_of, form))})"
    return repr(form)


def numbers_of(arguments: tuple[Any, ...]) -> list[Any]:
    """Return the numbers among arguments, those in tuples too."""
    found: list[Any] = []
    for x in arguments:
        kind = type(x)
        if kind is tuple:
            found += numbers_of(x)
        elif kind is not np.ndarray:
            found.append(x)
    return found


def kinds_of(form: Form) -> list[type]:
    """Return the types of the numbers in a form, those in tuples too."""
    found: list[type] = []
    for one in form:
        if isinstance(one, type):
            found.append(one)
        elif one[0] == "tuple":
            found += kinds_of(one[1:])
    return found


@dataclass(frozen=True)
class Code:
    """Machine code as it is kept, and what must be known to call it."""

    entry: str  # name of the function
    result: tuple[str, int]  # name of a type, and how many there are: 0 for one, not in a tuple
    needs: tuple[str, ...]  # names that the process must have
    machine_code: bytes  # an object file; none where only Numba can call the kernel

    def load(self, form: Form, brief: bool = False) -> Call | None:
        """Return what calls the code with arguments of a form; None where only Numba can.

        Python's lock is let go meanwhile, unless it is `brief`.
        So it is where the process lacks a name: LLVM ends a process that loads such code.
        """
        if not self.machine_code:
            return None
        engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), _machine())
        if any(llvm.address_of_symbol(name) is None for name in self.needs):
            return None
        engine.add_object_file(llvm.ObjectFileRef.from_data(self.machine_code))
        engine.finalize_object()
        address = engine.get_function_address(self.entry)
        if not address:
            raise ValueError(f"no function {self.entry} in the code")
        kind, n = self.result
        result: Any = RESULTS[kind]
        room: Any = None if result is None else result * max(n, 1)
        kinds = kinds_of(form)
        numbers = tuple((i, one) for i, one in enumerate(form) if isinstance(one, type))
        arrays = [one for one in form if not isinstance(one, type) and one[0] != "tuple"]
        tuples = len(form) - len(numbers) - len(arrays)
        places = (ctypes.c_void_p,) * 3
        made_by: Any = ctypes.PYFUNCTYPE if brief else ctypes.CFUNCTYPE
        prototype = made_by(ctypes.c_int64, *places, *(SCALARS[x] for x in kinds))
        function = prototype(address)
        known = (np.ndarray, *(dtype for dtype, _, _ in arrays))
        expected = (ctypes.c_void_p * len(known))(*map(id, known))
        length = len(form)

        def call(arguments: tuple[Any, ...], compared: bool) -> Any:
            passed = []
            if compared:
                if tuples or len(arguments) != length:
                    return OTHER
                for i, kind in numbers:
                    x = arguments[i]
                    if type(x) is not kind:
                        return OTHER
                    passed.append(x)
            else:
                passed = numbers_of(arguments)
            for x in passed:  # ctypes would cut them off
                if type(x) is int and not LEAST <= x <= MOST:
                    raise OverflowError("an integer has more than 64 bits")
            result_at = room() if room else None
            status = function(
                id(arguments) + ITEMS, result_at, expected if compared else None, *passed
            )
            if status != 0:
                if status == OTHER_FORM:
                    return OTHER
                raise exception_at(status - 1)
            if result_at is None:
                return None
            return tuple(result_at) if n else result_at[0]

        # Kept in memory: the code, and dtypes that are known by their addresses.
        call.keeps = (engine, known)  # type: ignore[attr-defined]
        if kind == "none" and not tuples:
            in_tiles = engine.get_function_address(f"tiles.{self.entry}")
            call.in_tiles = in_tiles  # type: ignore[attr-defined]
        return call


NOT_HERE = Code("", ("none", 0), (), b"")


def _machine() -> Any:
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    return llvm.Target.from_triple(llvm.get_process_triple()).create_target_machine(
        codemodel="jitdefault", jit=True
    )


class _Description(ctypes.Structure):
    """What a function that Numba compiled says of an exception."""

    _fields_ = (("pickled", ctypes.c_void_p), ("size", ctypes.c_int32))


def exception_at(at: int) -> BaseException:
    """Return the exception that a kernel describes; in practice that memory ran out."""
    if at:
        description = _Description.from_address(at)
        if description.pickled:
            said = ctypes.string_at(description.pickled, description.size)
            kind, values, *_ = pickle.loads(said)  # written by Numba into the code itself
            exception = kind(*values)
            if isinstance(exception, BaseException):
                return exception
    return RuntimeError("a kernel failed and does not say why")


def compile_for(dispatcher: Any, arguments: tuple[Any, ...], form: Form) -> Code:
    """Compile a kernel for arguments; gives NOT_HERE where only Numba can call what comes of it."""
    import numba
    from numba.core import compiler
    from numba.core.compiler_lock import global_compiler_lock
    from numba.core.registry import cpu_target

    flags = compiler.Flags()
    dispatcher.targetdescr.options.parse_as_flags(flags, dispatcher.targetoptions)
    # Python does not call it by Numba's wrappers, which take a third of the time to compile.
    flags.no_compile = flags.no_cpython_wrapper = flags.no_cfunc_wrapper = True
    with global_compiler_lock:
        made = compiler.compile_extra(
            cpu_target.typing_context, cpu_target.target_context, dispatcher.py_func,
            tuple(map(_type_of, arguments)), None, flags, {},
        )  # fmt: skip
        made.library.finalize()
    result = _result(numba, made.signature.return_type)
    if result is None:
        return NOT_HERE
    module = llvm.parse_assembly(made.library.get_llvm_str())
    module.link_in(llvm.parse_assembly(MEMORY))
    kernel = made.fndesc.llvm_func_name
    entry = f"entry.{kernel}"
    numbers = [NUMBERS.get(kind) or f"i{8 * kind().itemsize}" for kind in kinds_of(form)]
    module.link_in(llvm.parse_assembly(entry_code(entry, kernel, numbers, form, ANY_PLACE)))
    entries = [entry]
    if result[0] == "none" and all(isinstance(one, type) or one[0] != "tuple" for one in form):
        entries.append(f"tiles.{entry}")
        module.link_in(llvm.parse_assembly(tile_code(entries[1], kernel, numbers, form)))
    for function in module.functions:
        if not function.is_declaration and function.name not in entries:
            function.linkage = "internal"
    module = _without_what_is_unused(module, made.library.codegen)
    needs = [f.name for f in module.functions if f.is_declaration]
    needs += [v.name for v in module.global_variables if v.is_declaration]
    needs = [name for name in needs if not name.startswith("llvm.")]
    own = [v.name for v in module.global_variables if v.name.startswith("numba.dynamic.globals")]
    if own or any(name.startswith(("NRT_", "numba_", "Py", "_Py")) for name in needs):
        return NOT_HERE  # addresses in this process, or what Numba alone gives a process
    return Code(entry, result, tuple(needs), made.library.codegen._tm.emit_object(module))


def _type_of(argument: Any) -> Any:
    """Return Numba's type of an argument; of arrays, wherever they lie."""
    import numba

    type_ = numba.typeof(argument)
    if not isinstance(type_, numba.types.Array) or not ANY_PLACE:
        return type_
    return numba.types.Array(type_.dtype, type_.ndim, type_.layout, readonly=not type_.mutable)


def _without_what_is_unused(module: Any, codegen: Any) -> Any:
    """Return a module without functions that nothing calls any more."""
    passes = llvm.create_new_module_pass_manager()
    passes.add_global_dead_code_eliminate_pass()
    passes.run(module, llvm.create_pass_builder(codegen._tm, llvm.create_pipeline_tuning_options()))
    return module


def _result(numba: Any, of: Any) -> tuple[str, int] | None:
    """Say what a kernel returns: name of a type, and how many; None where it is something else."""
    kind, n = (of.dtype, len(of)) if isinstance(of, numba.types.UniTuple) else (of, 0)
    known = str(kind) in RESULTS and n <= MOST_RESULTS and (n == 0 or str(kind) != "none")
    return (str(kind), n) if known else None

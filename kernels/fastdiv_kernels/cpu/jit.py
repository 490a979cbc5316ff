"""The one way kernels are compiled: kept on disk, without the GIL, without threads of their own.

Nothing here imports Numba before something has to be compiled: with machine code in the cache a
process calls kernels with llvmlite alone, which saves it 0.6 s. So what a decorator gives stands
in for what Numba makes of the function, and is made by Numba when it is first needed.
"""

from __future__ import annotations

import functools
import importlib
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar, cast

from fastdiv_kernels.cpu.cache import Cache
from fastdiv_kernels.cpu.entry import Form
from fastdiv_kernels.cpu.machine_code import OTHER, Call, compile_for, form_of, supported

Function = TypeVar("Function", bound=Callable[..., object])

OPTIONS = {"nogil": True, "error_model": "numpy"}
changing = threading.RLock()  # held while something is compiled or loaded
waiting: list[Callable[[], object]] = []  # what Numba has yet to be told of, in order


class _Later:
    """A module of Numba's, imported when something of it is asked for."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, name: str) -> Any:
        return getattr(importlib.import_module(self._name), name)


class _Function:
    """A function of Numba's that kernels call, imported when one is compiled."""

    def __init__(self, name: str) -> None:
        self._name = name

    @property
    def _numba_type_(self) -> Any:
        """Tell Numba, which asks any object for this, what type it has in compiled code."""
        import numba
        from numba.core.registry import cpu_target

        return cpu_target.typing_context.resolve_value_type(getattr(numba, self._name))

    def __call__(self, *arguments: Any) -> Any:
        """Call it, not compiled."""
        import numba

        return getattr(numba, self._name)(*arguments)


carray: Any = _Function("carray")  # an array where an address says
types: Any = _Later("numba.types")
cgutils: Any = _Later("numba.core.cgutils")  # pieces of LLVM code


class Inlined:
    """Stands in for a function that only kernels call, until Numba is needed."""

    def __init__(self, function: Callable[..., Any], make: Callable[[], Any]) -> None:
        functools.update_wrapper(self, function)
        self.py_func = function
        self._make = make
        self._made: Any = None
        waiting.append(self.made)

    def made(self) -> Any:
        """Return what Numba makes of the function."""
        with changing:
            if self._made is None:
                self._made = self._make()
            return self._made

    @property
    def _numba_type_(self) -> Any:
        """Tell Numba, which asks any object for this, what type it has in compiled code."""
        tell_numba()
        from numba.core.registry import cpu_target

        return cpu_target.typing_context.resolve_value_type(self.made())

    def __call__(self, *arguments: Any) -> Any:
        """Call it, compiled."""
        tell_numba()
        return self.made()(*arguments)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        tell_numba()
        return getattr(self.made(), name)


def tell_numba() -> None:
    """Give Numba all functions, intrinsics and overloads there are, in the order of the sources."""
    with changing:
        if not waiting:
            return
        from numba.core.registry import cpu_target

        while waiting:
            waiting.pop(0)()
        cpu_target.typing_context.refresh()
        cpu_target.target_context.refresh()


class _Recorded(threading.local):
    """Calls that a thread writes down instead of making them, while it does (`cpu.tiles`)."""

    calls: list[tuple[Kernel, tuple[Any, ...]]] | None = None


recorded = _Recorded()


def _no_call(arguments: tuple[Any, ...], compared: bool) -> Any:
    return OTHER


class Kernel:
    """An entry point that Python calls; has machine code for each form of arguments it was given.

    Code comes from the cache on disk, else it is compiled and put there. What machine code cannot
    be called for without Numba (an argument that is no array, number or tuple of these) goes to
    Numba's own dispatcher, of which this has all attributes.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        functools.update_wrapper(self, function)
        self._function = function
        self._calls: dict[Form, Call] = {}
        self._latest: Call = _no_call
        self._made: Any = None

    def __call__(self, *arguments: Any) -> Any:
        """Call the machine code for arguments of this form; find or make it where there is none."""
        if recorded.calls is not None:
            return recorded.calls.append((self, arguments))
        result = self._latest(arguments, True)
        if result is not OTHER:
            return result
        self._latest = self.of(form_of(arguments), arguments)
        return self._latest(arguments, False)

    def of(self, form: Form, arguments: tuple[Any, ...]) -> Call:
        """Return what calls the kernel with arguments of a form."""
        return self._calls.get(form) or self._find(form, arguments)

    def _find(self, form: Form, arguments: tuple[Any, ...]) -> Call:
        with changing:
            if form not in self._calls:
                code = None
                if form is not None and supported():
                    code = the_cache().find_or_make(
                        self._function, form, lambda: compile_for(self.made(), arguments, form)
                    )
                self._calls[form] = self._in_numba() if code is None else code
            return self._calls[form]

    def _in_numba(self) -> Call:
        """Return what calls the kernel by Numba, with Numba's own cache."""
        dispatcher = self.made()
        with suppress(RuntimeError, AttributeError):  # no directory to write to, or no compiling
            dispatcher.enable_caching()
            # Numba looks at the file of the kernel alone, but what is inlined comes from others.
            dispatcher._cache._cache_file._source_stamp = the_cache().stamp

        def call(arguments: tuple[Any, ...], compared: bool) -> Any:
            return OTHER if compared else dispatcher(*arguments)

        return call

    @property
    def py_func(self) -> Callable[..., Any]:
        """Return the function as it was written, for Numba to compile by itself."""
        tell_numba()
        return self._function

    def made(self) -> Any:
        """Return Numba's dispatcher of the function."""
        with changing:
            if self._made is None:
                import numba

                tell_numba()
                self._made = numba.njit(**OPTIONS)(self._function)
            return self._made

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.made(), name)


@functools.cache
def the_cache() -> Cache:
    """Return where machine code is kept."""
    return Cache()


def kernel(function: Function) -> Function:
    """Compile an entry point that Python calls.

    No fastmath: flags that a loop may have are given to the function that holds the loop
    (`inner`), because `nnan` anywhere would fold the NaN tests away.
    """
    return cast("Function", Kernel(function))


def brief_kernel(function: Function) -> Function:
    """Compile an entry point that takes a few microseconds, and keeps Python's lock meanwhile.

    To let it go and to wait for it again takes longer, where other threads want it.
    """
    function.__dict__["brief"] = True
    return kernel(function)


def inner(*flags: str) -> Callable[[Function], Function]:
    """Compile a function that only kernels call, with LLVM's fast-math `flags` one by one.

    It is always inlined: a call left in a loop keeps the loop from being vectorised.
    """

    def wrap(function: Function) -> Function:
        def make() -> Any:
            import numba

            return numba.njit(**OPTIONS, fastmath=set(flags), forceinline=True)(function)

        return cast("Function", Inlined(function, make))

    return wrap


def intrinsic(function: Callable[..., Any]) -> Callable[..., Any]:
    """Make an operation of LLVM a function that kernels call; as Numba's own decorator."""

    def make() -> Any:
        import numba.extending

        return numba.extending.intrinsic(function)

    return Inlined(function, make)


def overload(stub: Callable[..., Any]) -> Callable[[Function], Function]:
    """Give kernels an implementation of `stub` by type; always inlined, like `inner`."""

    def wrap(function: Function) -> Function:
        def make() -> None:
            import numba.extending

            numba.extending.overload(stub, jit_options={"forceinline": True})(function)

        waiting.append(make)
        return function

    return wrap

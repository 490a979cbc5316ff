"""The one way kernels are compiled: cached, without the GIL, without threads of their own."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numba
import numba.extending

Function = TypeVar("Function", bound=Callable[..., object])

# Numba's own decorators, with types that say what callers see: a function of any numbers.
intrinsic: Callable[[Callable[..., Any]], Callable[..., Any]] = numba.extending.intrinsic


def _stamp() -> tuple[tuple[str, int, int], ...]:
    """Return names, sizes and times of all sources of the kernels."""
    sources = sorted(Path(__file__).parent.parent.rglob("*.py"))
    stats = [(str(path), path.stat()) for path in sources]
    return tuple((name, stat.st_size, stat.st_mtime_ns) for name, stat in stats)


STAMP = _stamp()


def kernel(function: Function) -> Function:
    """Compile an entry point that Python calls.

    No fastmath: flags that a loop may have are given to the function that holds the loop
    (`inner`), because `nnan` anywhere would fold the NaN tests away.
    """
    compiled: Any = numba.njit(nogil=True, cache=True, error_model="numpy")(function)
    # Numba's cache looks at the file of the kernel alone, but what is inlined comes from others.
    compiled._cache._cache_file._source_stamp = STAMP
    entry: Function = compiled
    return entry


def inner(*flags: str) -> Callable[[Function], Function]:
    """Compile a function that only kernels call, with LLVM's fast-math `flags` one by one.

    It is always inlined: a call left in a loop keeps the loop from being vectorised.
    """

    def wrap(function: Function) -> Function:
        compiled: Function = numba.njit(
            nogil=True, error_model="numpy", fastmath=set(flags), forceinline=True
        )(function)
        return compiled

    return wrap


def overload(stub: Callable[..., Any]) -> Callable[[Function], Function]:
    """Give kernels an implementation of `stub` by type; always inlined, like `inner`."""
    inlined: Callable[[Function], Function] = numba.extending.overload(
        stub, jit_options={"forceinline": True}
    )
    return inlined

"""The one way kernels are compiled: cached, without the GIL, without threads of their own."""

from collections.abc import Callable
from typing import TypeVar

import numba

Function = TypeVar("Function", bound=Callable[..., object])


def kernel(function: Function) -> Function:
    """Compile an entry point that Python calls.

    No fastmath: flags that a loop may have are given to the function that holds the loop
    (`inner`), because `nnan` anywhere would fold the NaN tests away.
    """
    compiled: Function = numba.njit(nogil=True, cache=True, error_model="numpy")(function)
    return compiled


def inner(*flags: str) -> Callable[[Function], Function]:
    """Compile a function that only kernels call, with LLVM's fast-math `flags` one by one."""

    def wrap(function: Function) -> Function:
        compiled: Function = numba.njit(
            nogil=True, cache=True, error_model="numpy", fastmath=set(flags), inline="never"
        )(function)
        return compiled

    return wrap

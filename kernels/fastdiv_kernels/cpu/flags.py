"""What is stored of a row's correctness, rank and status: a byte of flags."""

from typing import Any

import numpy as np

from fastdiv_kernels.contract import CORRECT, PRESENT, TOP5
from fastdiv_kernels.cpu.jit import brief_kernel


@brief_kernel
def write_flags(correct: Any, rank: Any, status: Any, flags: Any) -> None:
    """Write flags (n,) uint8 of correct (n,) bool, rank (n,) int32 and status (n,) uint8."""
    for i in range(np.uint64(len(flags))):
        flag = status[i] | np.uint8(PRESENT)
        flag |= np.uint8(CORRECT) if correct[i] else np.uint8(0)
        # As unsigned, the rank of an invalid row, -1, is large.
        flags[i] = flag | (np.uint8(TOP5) if np.uint32(rank[i]) < 5 else np.uint8(0))

"""`score` on the CPU: every number of a row in one visit, in one of three shapes.

All compute, of a row's values x: the maximum m, how many attain it and the first that does, the
largest value below m, the label's rank, and two sums over the values beside the maximum, s = sum u
and q = sum u**2, where u = exp(x - m) or, for probabilities, u = x. Leaving the maximum out of s
keeps a confident right answer's loss, log1p(s), precise however small it is.

`score_few` works across 16 rows in vectors written by hand: few classes of float32 and 16 bits.
`score_tile` turns rows into columns of a scratch and works across them: few classes of float64.
`score_rows` works along the row: many classes. Which one is chosen by c and the dtype alone, and
in each the operations on a row and their order depend on c alone, so neighbours cannot change a
bit.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from fastdiv_kernels.contract import BFLOAT16, Array, Dtype
from fastdiv_kernels.cpu.score_few import score_few, score_three, score_two
from fastdiv_kernels.cpu.score_rows import score_rows
from fastdiv_kernels.cpu.score_tile import score_tile

FEW_UP_TO = 128  # classes; measured: beyond, working along the row is faster
TILED_UP_TO = 64  # classes, of float64; as measured
# Numbers stored as predictions are; Numba knows neither float16 nor bfloat16.
STORED: dict[Dtype, Any] = {
    np.dtype(np.float32): np.float32(0), np.dtype(np.float16): np.uint16(0), BFLOAT16: np.int16(0),
}  # fmt: skip


def few_kernel_for(classes: int) -> Callable[..., None]:
    """Return the kernel that scores rows of so few classes, given by their address."""
    if classes == 2:
        return score_two
    return score_three if classes == 3 else score_few


def kernel_for(classes: int, dtype: Dtype) -> Callable[..., None]:
    """Return the kernel that scores other rows, given as an array."""
    return score_tile if classes <= TILED_UP_TO and dtype == np.float64 else score_rows


def is_few(predictions: Array) -> bool:
    """Say whether predictions (n, c) are scored by a kernel for few classes."""
    return 2 <= predictions.shape[1] <= FEW_UP_TO and predictions.dtype in STORED

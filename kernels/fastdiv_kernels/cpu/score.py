"""`score` on the CPU: every number of a row in one visit, in one of two shapes.

Both compute, of a row's values x: the maximum m, how many attain it and the first that does, the
largest value below m, the label's rank, and two sums over the values below m, s = sum u and
q = sum u**2, where u = exp(x - m) or, for probabilities, u = x. `finish` makes the Scores of
these. Leaving the maximum out of s keeps a confident right answer's loss, log1p(s), precise
however small it is.

`score_tile` turns TILE rows into columns of a scratch and works across them: for few classes.
`score_rows` works along the row: for many. Which one is chosen by c alone, and in both the
operations on a row and their order depend on c alone, so neighbours cannot change a bit.
"""

from collections.abc import Callable

import numpy as np

from fastdiv_kernels.cpu.score_lanes import MOST_CLASSES, score_lanes
from fastdiv_kernels.cpu.score_rows import score_rows
from fastdiv_kernels.cpu.score_tile import score_tile

TILED_UP_TO = 64  # classes; measured: beyond, working along the row is faster


def kernel_for(classes: int, dtype: np.dtype[np.generic]) -> Callable[..., None]:
    """Return the kernel that scores rows of so many classes, stored in a dtype."""
    if dtype != np.float64:
        return score_lanes if classes <= MOST_CLASSES else score_rows
    return score_tile if classes <= TILED_UP_TO else score_rows

"""The contract on the CPU, compiled by Numba; kernels hold no lock and start no threads."""

from typing import Any

import llvmlite.binding as llvm
import numpy as np

from fastdiv_kernels.contract import (
    BFLOAT16,
    GRID,
    SUM_TOLERANCE,
    SUM_TOLERANCE_16_BIT,
    VECTORS_UP_TO,
    Array,
    Kind,
)
from fastdiv_kernels.cpu.cache import numba_version
from fastdiv_kernels.cpu.classes import tally_classes
from fastdiv_kernels.cpu.distributions import distributions
from fastdiv_kernels.cpu.flags import write_flags
from fastdiv_kernels.cpu.histories import dynamics
from fastdiv_kernels.cpu.jit import the_cache
from fastdiv_kernels.cpu.machine_code import ANY_PLACE
from fastdiv_kernels.cpu.profile import profile_rows, profile_tile, profile_vectors
from fastdiv_kernels.cpu.score import STORED, few_kernel_for, is_few, kernel_for
from fastdiv_kernels.cpu.tally import tally
from fastdiv_kernels.cpu.temper import temper_curves, temper_pairs, temper_vectors
from fastdiv_kernels.cpu.temperatures import tally_curves, tally_pairs, tally_vectors
from fastdiv_kernels.cpu.tiles import in_tiles
from fastdiv_kernels.cpu.transitions import transitions
from fastdiv_kernels.grid import weights

__all__ = [
    "copies",
    "describe",
    "distributions",
    "dynamics",
    "empty",
    "in_tiles",
    "name",
    "profile",
    "score",
    "tally",
    "tally_classes",
    "tally_temperatures",
    "temper",
    "transitions",
    "write_flags",
]

name = "cpu"
copies = False
BITS = {np.dtype(np.float16): np.uint16, BFLOAT16: np.int16}  # Numba knows neither dtype
CURVES_TILED_UP_TO = 96  # classes; as measured, of profiles


def describe() -> str:
    """Name the processor and its widest vectors, as the summary shows them."""
    features = llvm.get_host_cpu_features()
    widths = {"avx512f": "AVX-512", "avx2": "AVX2", "neon": "NEON"}
    width = next((label for key, label in widths.items() if features.get(key)), "baseline")
    return f"Numba {numba_version()}, {llvm.get_host_cpu_name()}, {width}"


def examination() -> dict[str, Any]:
    """Return where machine code is kept, and how much of it there is."""
    return {"cache": the_cache().examination()}


def empty(shape: int | tuple[int, ...], dtype: Any) -> Array:
    """Make an array of the host; see the contract."""
    return np.empty(shape, dtype)


def score(
    predictions: Array, labels: Array, kind: Kind, loss: Array, correct: Array,
    predicted: Array, confidence: Array, margin: Array, brier: Array, rank: Array, status: Array,
) -> None:  # fmt: skip
    """Score each row; see the contract."""
    tolerance = SUM_TOLERANCE_16_BIT if predictions.dtype in BITS else SUM_TOLERANCE
    n, c = predictions.shape
    given = np.ascontiguousarray(predictions)
    if is_few(given):
        few_kernel_for(c)(
            given.__array_interface__["data"][0], STORED[given.dtype], n, c, _same_type(labels),
            int(kind), tolerance, loss, correct, predicted, confidence, margin, brier, rank,
            status,
        )  # fmt: skip
        return
    kernel_for(c, given.dtype)(
        _values(given), _same_type(labels), int(kind), tolerance, loss, correct, predicted,
        confidence, margin, brier, rank, status,
    )  # fmt: skip


def profile(predictions: Array, kind: Kind, predicted: Array, profile: Array) -> None:
    """Keep of each row what its loss at other temperatures is made from; see the contract."""
    c = predictions.shape[1]
    kernel = profile_tile if c <= CURVES_TILED_UP_TO else profile_rows
    kernel = profile_vectors if c <= VECTORS_UP_TO else kernel
    kernel(_values(predictions), int(kind), _same_type(predicted), profile.view(np.uint16))


def tally_temperatures(
    loss: Array, margin: Array, flags: Array, profile: Array, classes: int, counts: Array,
    sums: Array,
) -> None:  # fmt: skip
    """Add the losses of one epoch at each temperature of the grid; see the contract."""
    columns = (_same_type(loss), _same_type(margin), _same_type(flags))
    if classes == 2:
        tally_pairs(*columns, counts, sums)
    else:
        kernel = tally_vectors if classes <= VECTORS_UP_TO else tally_curves
        kernel(*columns, _values(profile), counts, sums)


def temper(
    margin: Array, profile: Array, classes: int, beta: float, tempered: Array
) -> None:  # fmt: skip
    """Tell each row's log-partition function at an inverse temperature; see the contract."""
    beta = min(max(float(beta), GRID[0]), GRID[-1])
    if classes == 2:
        temper_pairs(_same_type(margin), beta, tempered)
    elif classes <= VECTORS_UP_TO:
        temper_vectors(_values(profile), beta, tempered)
    else:
        temper_curves(_values(profile), weights(beta), tempered)


def _values(predictions: Array) -> Array:
    """Return numbers in the form kernels are compiled for; `value` makes numbers of words."""
    bits = BITS.get(predictions.dtype)
    return _same_type(predictions if bits is None else predictions.view(bits))


class _Writable:
    """Shows an array's memory as writable, and keeps it alive."""

    def __init__(self, array: Array) -> None:
        self.array = array
        address, _ = array.__array_interface__["data"]
        self.__array_interface__ = {**array.__array_interface__, "data": (address, False)}


def _same_type(array: Array) -> Array:
    """Return an array in the one form kernels are compiled for.

    Numba compiles arrays apart that are read-only, unaligned or not in C order; what comes from
    Arrow is read-only, and what comes from pages of files may lie anywhere, which most processors
    do not mind.
    """
    if not (array.flags.c_contiguous and (array.flags.aligned or ANY_PLACE)):
        return array.copy("C")
    return array if array.flags.writeable else np.asarray(_Writable(array))

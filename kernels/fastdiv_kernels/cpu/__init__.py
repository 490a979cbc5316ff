"""The contract on the CPU, compiled by Numba; kernels hold no lock and start no threads."""

import llvmlite.binding as llvm
import numba
import numpy as np

from fastdiv_kernels.contract import BFLOAT16, SUM_TOLERANCE, SUM_TOLERANCE_16_BIT, Array, Kind
from fastdiv_kernels.cpu.score import score_rows, score_tile
from fastdiv_kernels.cpu.tally import tally, tally_classes
from fastdiv_kernels.cpu.transitions import dynamics, transitions

__all__ = [
    "describe",
    "dynamics",
    "name",
    "score",
    "tally",
    "tally_classes",
    "transitions",
]

name = "cpu"
BITS = {np.dtype(np.float16): np.uint16, BFLOAT16: np.int16}  # Numba knows neither dtype
TILED_UP_TO = 64  # classes; measured: beyond, working along the row is faster


def describe() -> str:
    """Name the processor and its widest vectors, as the summary shows them."""
    features = llvm.get_host_cpu_features()
    widths = {"avx512f": "AVX-512", "avx2": "AVX2", "neon": "NEON"}
    width = next((label for key, label in widths.items() if features.get(key)), "baseline")
    return f"Numba {numba.__version__}, {llvm.get_host_cpu_name()}, {width}"


def score(
    predictions: Array, labels: Array, kind: Kind, loss: Array, correct: Array,
    predicted: Array, confidence: Array, margin: Array, brier: Array, rank: Array, status: Array,
) -> None:  # fmt: skip
    """Score each row; see the contract."""
    bits = BITS.get(predictions.dtype)  # `value` makes numbers of them
    tolerance = SUM_TOLERANCE if bits is None else SUM_TOLERANCE_16_BIT
    values = predictions if bits is None else predictions.view(bits)
    kernel = score_tile if predictions.shape[1] <= TILED_UP_TO else score_rows
    kernel(
        _same_type(values), _same_type(labels), int(kind), tolerance, loss, correct, predicted,
        confidence, margin, brier, rank, status,
    )  # fmt: skip


class _Writable:
    """Shows an array's memory as writable, and keeps it alive."""

    def __init__(self, array: Array) -> None:
        self.array = array
        address, _ = array.__array_interface__["data"]
        self.__array_interface__ = {**array.__array_interface__, "data": (address, False)}


def _same_type(array: Array) -> Array:
    """Return an array in the one form kernels are compiled for.

    Numba compiles read-only and unaligned arrays apart; what comes from Arrow is read-only.
    """
    if not array.flags.aligned:
        return array.copy()
    return array if array.flags.writeable else np.asarray(_Writable(array))

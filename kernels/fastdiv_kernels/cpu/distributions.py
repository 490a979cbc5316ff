"""`distributions`: how confidence, loss and margin of the right and the wrong are spread."""

from typing import Any

import numpy as np

from fastdiv_kernels.contract import (
    CONFIDENCE_EDGES,
    CORRECT,
    LOSS_EDGES,
    MARGIN_EDGES,
    PRESENT,
    REASON,
)
from fastdiv_kernels.cpu.arithmetic import as_int
from fastdiv_kernels.cpu.jit import inner, kernel, overload, types
from fastdiv_kernels.cpu.sums import add
from fastdiv_kernels.cpu.tally import reliability_bin

LAST_CONFIDENCE = len(CONFIDENCE_EDGES) - 2
CONFIDENCES = len(CONFIDENCE_EDGES) - 1  # bins from 0 to 1
LAST_LOSS = len(LOSS_EDGES) - 2
LOWEST_OCTAVE = int(np.log2(LOSS_EDGES[1]))
LAST_MARGIN = len(MARGIN_EDGES) - 2
LOWEST_MARGIN, HIGHEST_MARGIN = float(MARGIN_EDGES[1]), float(MARGIN_EDGES[-2])
MARGINS = 1 / float(MARGIN_EDGES[2] - MARGIN_EDGES[1])  # bins a nat, exactly 2


@kernel
def distributions(
    loss: Any, confidence: Any, margin: Any, flags: Any, counts: Any, confidences: Any,
    losses: Any, margins: Any, bins: Any, loss_sums: Any, confidence_sums: Any,
) -> None:  # fmt: skip
    """Add the stored scores of one epoch to its distributions; see the contract."""
    for i in range(len(flags)):
        flag = flags[i]
        if flag & (PRESENT | REASON) != PRESENT:
            continue
        right = 1 if flag & CORRECT != 0 else 0
        counts[0] += 1
        if abs(loss[i]) < np.inf:
            k = loss_bin(loss[i])
            losses[right, k] += 1
            add(loss_sums, k, loss[i], 1)
        else:
            counts[1] += 1
        confidences[right, confidence_bin(confidence[i])] += 1
        margins[right, margin_bin(margin[i])] += 1
        b = reliability_bin(confidence[i])
        bins[b, 0] += 1
        bins[b, 1] += right
        if abs(confidence[i]) < np.inf:
            add(confidence_sums, b, confidence[i], 1)


@inner()
def confidence_bin(confidence: Any) -> Any:
    """Return the bin of CONFIDENCE_EDGES that a float32 is in.

    The product is exact in float64, and no float32 lies between an edge and its rounding.
    """
    p = np.float64(confidence)
    return int(CONFIDENCES * max(p, 0.0)) if p < 1.0 else LAST_CONFIDENCE


@inner()
def margin_bin(margin: Any) -> Any:
    """Return the bin of MARGIN_EDGES that a float32 is in: half a nat wide, but for the outer."""
    x = np.float64(margin)
    if x < LOWEST_MARGIN:
        return 0
    if not x < HIGHEST_MARGIN:
        return LAST_MARGIN
    # The lowest edge is taken off after rounding down: a difference of floats might round up.
    return int(np.floor(MARGINS * x)) - int(MARGINS * LOWEST_MARGIN) + 1


def loss_bin(loss: Any) -> Any:
    """Return the bin of LOSS_EDGES that a finite float32 or float64 is in.

    Octaves are exponents, and the two highest bits of the mantissa are the quarter of an octave.
    """
    raise NotImplementedError  # kernels get the overload below


@overload(loss_bin)
def _loss_bin(loss: Any) -> Any:
    bits, bias = (23, 127) if loss == types.float32 else (52, 1023)
    shift, first = bits - 2, 4 * (bias + LOWEST_OCTAVE) - 1

    def implementation(loss: Any) -> Any:
        quarters = np.int64(as_int(loss) >> shift)  # negative where the loss is
        return min(max(quarters - first, 0), LAST_LOSS)

    return implementation

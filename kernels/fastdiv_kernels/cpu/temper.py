"""`temper` on the CPU: what profiles say of losses at other temperatures.

Each for two classes, for which the margin is all; for few, whose profile is a vector of
differences; for many, whose profile is a curve. All work across the rows of a tile.
"""

from typing import Any

import numpy as np

from fastdiv_kernels.contract import LOWEST_KEPT
from fastdiv_kernels.cpu.arithmetic import exp, log, log1p, value
from fastdiv_kernels.cpu.blocks import SIDE, transpose
from fastdiv_kernels.cpu.jit import inner, kernel
from fastdiv_kernels.cpu.powers import CURVE, SCRATCH, TILE, tile_room, tile_turn

MEAN = TILE  # a tile's results in float64, flat: s, its first and its second derivative
SQUARE = 2 * TILE
LOWEST_IN_FLOAT32 = np.float32(LOWEST_KEPT)


@kernel
def temper_pairs(margin: Any, beta: Any, tempered: Any) -> None:
    """Tell the log-partition function of two classes, whose x is (0, -abs(margin))."""
    n = len(margin)
    w = np.zeros(3 * TILE)
    for start in range(0, n, TILE):
        live = min(TILE, n - start)
        pair_tempered(margin, start, live, beta, w)
        write_tempered(w, start, live, tempered)


@inner("contract")
def pair_tempered(margin: Any, start: Any, live: Any, beta: Any, w: Any) -> None:
    """Find what `temper` tells of a tile of margins; nothing here but NaN makes NaN."""
    at = np.uint64(start)
    for lane in range(np.uint64(live)):
        m = np.float64(margin[at + lane])
        t = beta * -abs(m)
        t = t if t > LOWEST_KEPT else LOWEST_KEPT
        u = exp(t)
        mean = t * (u / (1.0 + u))
        w[lane] = log1p(u) if m == m else m
        w[MEAN + lane] = mean if m == m else m
        w[SQUARE + lane] = mean + t * mean - mean * mean if m == m else m


@kernel
def temper_vectors(profile: Any, beta: Any, tempered: Any) -> None:
    """Tell the log-partition function of rows of differences (n, c)."""
    n, c = profile.shape
    values = profile.reshape(n * c)
    rows = np.zeros(TILE * c + SIDE, np.float32)
    columns = np.zeros(tile_room(c), np.float32)
    w = np.zeros(3 * TILE)
    for start in range(0, n, TILE):
        live = min(TILE, n - start)
        floats(values, start * c, live * c, LOWEST_IN_FLOAT32, rows)
        tile_turn(rows, c, columns)
        tile_tempered(columns, c, beta, w)
        write_tempered(w, start, live, tempered)


@inner()
def floats(values: Any, start: Any, size: Any, lowest: Any, x: Any) -> None:
    """Make float32 of `size` numbers in 16 bits, none below `lowest`."""
    at = np.uint64(start)
    for i in range(np.uint64(size)):
        t = value(values[at + i])
        x[i] = t if t > lowest else lowest


@inner("contract")
def tile_tempered(x: Any, c: Any, beta: Any, w: Any) -> None:
    """Find what `temper` tells of a tile of columns of differences."""
    for i in range(np.uint64(3 * TILE)):
        w[i] = 0.0
    for j in range(np.uint64(c)):
        for lane in range(np.uint64(TILE)):
            t = beta * np.float64(x[j * np.uint64(TILE) + lane])
            u = exp(t)
            w[lane] += u
            w[MEAN + lane] += u * t
            w[SQUARE + lane] += u * t * t
    for lane in range(np.uint64(TILE)):
        total = w[lane]
        mean = w[MEAN + lane] / total
        w[lane] = log(total)
        w[MEAN + lane] = mean
        w[SQUARE + lane] = mean + w[SQUARE + lane] / total - mean * mean


@inner()
def write_tempered(w: Any, start: Any, live: Any, tempered: Any) -> None:
    """Write a tile's results."""
    for i in range(np.uint64(live)):
        row = np.uint64(start) + i
        tempered[row, 0] = w[i]
        tempered[row, 1] = w[MEAN + i]
        tempered[row, 2] = w[SQUARE + i]


@kernel
def temper_curves(profile: Any, weights: Any, tempered: Any) -> None:
    """Interpolate rows of curves (n, CURVE) with the weights (3, CURVE) of a temperature."""
    n = len(profile)
    values = profile.reshape(n * CURVE)
    rows = np.zeros(TILE * CURVE + SIDE, np.float32)
    columns = np.zeros(SCRATCH, np.float32)
    w = np.zeros(3 * TILE)
    for start in range(0, n, TILE):
        live = min(TILE, n - start)
        floats(values, start * CURVE, live * CURVE, LOWEST_IN_FLOAT32, rows)
        transpose(rows, TILE, CURVE, CURVE, columns, TILE)
        tile_interpolated(columns, weights, w)
        write_tempered(w, start, live, tempered)


@inner("contract")
def tile_interpolated(x: Any, weights: Any, w: Any) -> None:
    """Find what `temper` tells of a tile of columns of curves."""
    for i in range(np.uint64(3 * TILE)):
        w[i] = 0.0
    for k in range(np.uint64(CURVE)):
        s, mean, square = weights[0, k], weights[1, k], weights[2, k]
        for lane in range(np.uint64(TILE)):
            y = np.float64(x[k * np.uint64(TILE) + lane])
            w[lane] += s * y
            w[MEAN + lane] += mean * y
            w[SQUARE + lane] += square * y

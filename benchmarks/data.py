"""What is measured on: logits in memory, and Parquet dumps of them, the same on every machine.

The logits are Gaussian noise with the label's raised, so that about four in five predictions are
right and losses spread over several orders of magnitude, as they do late in training. A later
epoch is the one before it, scaled up and shaken: most samples keep their answer, some change it.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastdiv_kernels.contract import BFLOAT16, CORRECT, PRESENT

VERSION = 2  # of the dumps; goes into their names, so that a change here makes new ones
PIECE_VALUES = 1 << 22  # logits are drawn once and used again in the next piece: 16 MB of them
NOISE = 2.0  # standard deviation of a logit
SHAKE = 0.8  # ... and of what changes from epoch to epoch
GROWTH = 1.15  # of all logits from epoch to epoch
KEEP = 0.85  # share of the predictions that stay from epoch to epoch, where scores are drawn

Logits = NDArray[np.float32]  # (n, c)
Labels = NDArray[np.int32]  # (n,)


def labels(n: int, c: int, seed: int = 0) -> Labels:
    """Draw n labels of c classes, all classes alike."""
    return np.random.default_rng(seed).integers(0, c, n, dtype=np.int32)


def logits(y: Labels, c: int, seed: int = 1, dtype: str = "float32") -> Logits:
    """Draw the logits of one epoch, in pieces: nothing but the result takes memory worth counting.

    The peak memory of a process that goes on to measure is then its own. Pieces have the same
    noise and other labels: to draw 512 MB afresh takes longer than to measure them.
    """
    raised = np.float32(NOISE * (np.sqrt(2 * np.log(c)) + 1))  # the largest of c draws, and more
    rows = max(1, PIECE_VALUES // c)
    noise = np.random.default_rng(seed).standard_normal((min(rows, len(y)), c), np.float32)
    noise *= np.float32(NOISE)
    z = np.empty((len(y), c), BFLOAT16 if dtype == "bfloat16" else dtype)
    for start in range(0, len(y), rows):
        of = y[start : start + rows]
        piece = noise[: len(of)]
        at = np.arange(len(of)), of
        piece[at] += raised
        z[start : start + rows] = _as(piece, dtype)
        piece[at] -= raised
    return z


def _as(values: NDArray[np.float32], dtype: str) -> NDArray[Any]:
    if dtype == "bfloat16":
        return (values.view(np.uint32) >> 16).astype(BFLOAT16)
    return values.astype(dtype, copy=False)


def next_epoch(z: Logits, seed: int) -> None:
    """Turn the logits of one epoch into those of the next, in place."""
    rows = max(1, PIECE_VALUES // z.shape[1])
    rng = np.random.default_rng(seed)
    noise = rng.standard_normal((min(rows, len(z)), z.shape[1]), np.float32) * np.float32(SHAKE)
    for start in range(0, len(z), rows):
        piece = z[start : start + rows]
        piece *= np.float32(GROWTH)
        piece += noise[: len(piece)]


def ids(n: int) -> NDArray[np.int64]:
    """Draw n different ids, in no order."""
    spread = np.arange(n, dtype=np.int64) * 1_000_003 + 12_345
    return np.random.default_rng(3).permutation(spread)


@dataclass(frozen=True)
class Dump:
    """What is read, and on how many threads."""

    path: Path  # a directory of Parquet files, one an epoch
    classes: int
    threads: int

    @property
    def files(self) -> list[Path]:
        """The files, by epoch."""
        return sorted(self.path.glob("*.parquet"))


@dataclass(frozen=True)
class Arrays:
    """What is scored, and on how many threads."""

    logits: Logits  # (n, c); another dtype where the case says so
    labels: Labels  # (n,)
    threads: int


@dataclass(frozen=True)
class StoredScores:
    """What the store keeps of an epoch, drawn."""

    loss: NDArray[np.float32]  # (n,) as all of these
    confidence: NDArray[np.float32]
    margin: NDArray[np.float32]
    brier: NDArray[np.float32]
    predicted: NDArray[np.int32]
    flags: NDArray[np.uint8]


@dataclass(frozen=True)
class StoredPair:
    """Stored scores of the same samples in two epochs, and on how many threads they are added."""

    first: StoredScores
    second: StoredScores
    labels: Labels  # (n,)
    threads: int


def stored(y: Labels, c: int, seed: int, before: StoredScores | None = None) -> StoredScores:
    """Draw scores of n samples: as often right as they are confident, losses down to 1e-20."""
    rng = np.random.default_rng(seed)
    n, one = len(y), np.float32(1)
    doubt = np.float32(1 - 1 / c) * (one - rng.random(n, np.float32)) ** 3
    right = rng.random(n, np.float32) >= doubt
    predicted = np.where(right, y, (y + rng.integers(1, c, n, dtype=np.int32)) % np.int32(c))
    if before is not None:
        predicted = np.where(rng.random(n, np.float32) < KEEP, before.predicted, predicted)
        right = predicted == y
    of_label = np.where(right, one - doubt, doubt * (one - rng.random(n, np.float32)))
    loss = np.where(right, -np.log1p(-doubt), -np.log(of_label))
    other = np.where(right, doubt, one - doubt)
    return StoredScores(
        loss, one - doubt, np.log(of_label / other), (one - of_label) ** 2 + other**2, predicted,
        np.where(right, np.uint8(PRESENT | CORRECT), np.uint8(PRESENT)),
    )  # fmt: skip


def cache_directory() -> Path:
    """Return where dumps are kept between runs, outside the repository."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "fastdiv-benchmarks"


@dataclass(frozen=True)
class Layout:
    """How a dump is written: the column of logits, and what pyarrow's writer is told."""

    binary: bool = False  # each row's logits are so many bytes; otherwise list<float>
    options: tuple[tuple[str, Any], ...] = ()


PLAIN = (("compression", "none"), ("use_dictionary", False))
LAYOUTS = {
    "snappy": Layout(),  # if nothing is asked of it: Snappy, dictionaries
    "plain": Layout(options=PLAIN),
    "binary": Layout(binary=True, options=PLAIN),
    "zstd": Layout(options=(("compression", "zstd"), ("use_dictionary", False))),
}


def dump(n: int, c: int, epochs: int, layout: str, directory: Path) -> Path:
    """Return a directory with a file for each epoch of n samples, written unless it is there.

    Row groups have a million rows, as pyarrow makes them. Columns: sample_id int64, label int32,
    logits. The epoch is in the name of the file.
    """
    path = directory / f"dump-v{VERSION}-{layout}-{n}x{c}x{epochs}"
    if not path.exists():
        partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
        partial.mkdir(parents=True)
        try:
            _write_dump(partial, n, c, epochs, LAYOUTS[layout])
            partial.replace(path)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return path


def _write_dump(directory: Path, n: int, c: int, epochs: int, layout: Layout) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    y = labels(n, c)
    z = logits(y, c)
    offsets = pa.array(np.arange(0, n * c + 1, c, dtype=np.int32))
    for epoch in range(epochs):
        if epoch:
            next_epoch(z, seed=1 + epoch)
        if layout.binary:
            predictions = pa.FixedSizeBinaryArray.from_buffers(
                pa.binary(4 * c), n, [None, pa.py_buffer(z)]
            )
        else:
            predictions = pa.ListArray.from_arrays(offsets, pa.array(z.ravel()))
        columns = {"sample_id": pa.array(np.arange(n)), "label": pa.array(y), "logits": predictions}
        pq.write_table(
            pa.table(columns), directory / f"preds_epoch_{epoch:03}.parquet", **dict(layout.options)
        )

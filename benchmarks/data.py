"""What is measured on: logits in memory, and a Parquet dump of them, the same on every machine.

The logits are Gaussian noise with the label's raised, so that about four in five predictions are
right and losses spread over several orders of magnitude, as they do late in training. A later
epoch is the one before it, scaled up and shaken: most samples keep their answer, some change it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fastdiv_kernels.contract import CORRECT, PRESENT

VERSION = 1  # of the dump; goes into its file name, so that a change here makes a new one
PIECE_ROWS = 1 << 16
NOISE = 2.0  # standard deviation of a logit
SHAKE = 0.8  # ... and of what changes from epoch to epoch
GROWTH = 1.15  # of all logits from epoch to epoch
KEEP = 0.85  # share of the predictions that stay from epoch to epoch, where scores are drawn

Logits = NDArray[np.float32]  # (n, c)
Labels = NDArray[np.int32]  # (n,)


def labels(n: int, c: int, seed: int = 0) -> Labels:
    """Draw n labels of c classes, all classes alike."""
    return np.random.default_rng(seed).integers(0, c, n, dtype=np.int32)


def logits(y: Labels, c: int, seed: int = 1) -> Logits:
    """Draw the logits of one epoch, in pieces: nothing but the result takes memory worth counting.

    The peak memory of a process that goes on to measure is then its own.
    """
    rng = np.random.default_rng(seed)
    raised = NOISE * (np.sqrt(2 * np.log(c)) + 1)  # the largest of c draws, and some more
    z = np.empty((len(y), c), np.float32)
    for start in range(0, len(y), PIECE_ROWS):
        piece = z[start : start + PIECE_ROWS]
        rng.standard_normal(out=piece, dtype=np.float32)
        piece *= np.float32(NOISE)
        piece[np.arange(len(piece)), y[start : start + PIECE_ROWS]] += np.float32(raised)
    return z


def next_epoch(z: Logits, seed: int) -> None:
    """Turn the logits of one epoch into those of the next, in place."""
    rng = np.random.default_rng(seed)
    for start in range(0, len(z), PIECE_ROWS):
        piece = z[start : start + PIECE_ROWS]
        piece *= np.float32(GROWTH)
        piece += rng.standard_normal(piece.shape, np.float32) * np.float32(SHAKE)


@dataclass(frozen=True)
class Dump:
    """What is read, and on how many threads."""

    path: Path
    classes: int
    threads: int


@dataclass(frozen=True)
class Arrays:
    """What is scored, and on how many threads."""

    logits: Logits  # (n, c)
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


def dump(n: int, c: int, epochs: int, directory: Path) -> Path:
    """Return a dump of n samples in each epoch, written unless it is there.

    It is what `pyarrow.parquet` writes if nothing is asked of it: Snappy, dictionaries, row
    groups of a million rows. Columns: sample_id int64, label int32, epoch int32, logits
    list<float>.
    """
    path = directory / f"dump-v{VERSION}-{n}x{c}x{epochs}.parquet"
    if not path.exists():
        directory.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(f".{os.getpid()}.partial")
        try:
            _write_dump(partial, n, c, epochs)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
    return path


def _write_dump(path: Path, n: int, c: int, epochs: int) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    y = labels(n, c)
    z = logits(y, c)
    offsets = pa.array(np.arange(0, n * c + 1, c, dtype=np.int32))
    schema = pa.schema(
        {
            "sample_id": pa.int64(),
            "label": pa.int32(),
            "epoch": pa.int32(),
            "logits": pa.list_(pa.float32()),
        }
    )
    with pq.ParquetWriter(path, schema) as writer:
        for epoch in range(epochs):
            if epoch:
                next_epoch(z, seed=1 + epoch)
            columns = [
                pa.array(np.arange(n, dtype=np.int64)),
                pa.array(y),
                pa.array(np.full(n, epoch, np.int32)),
                pa.ListArray.from_arrays(offsets, pa.array(z.ravel())),
            ]
            writer.write_table(pa.Table.from_arrays(columns, schema=schema))

"""Stored: what is kept of the scores of samples in one epoch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastdiv.batch import Scores
from fastdiv_kernels.contract import Array, profile_width

FIELDS = ("loss", "confidence", "margin", "brier", "predicted", "flags")
COLUMNS = (*FIELDS, "profile")


@dataclass(slots=True)
class Stored:
    """What is kept of the scores of consecutive slots in one epoch."""

    loss: Array  # (n,) float32 or float64
    confidence: Array  # (n,) float32
    margin: Array  # (n,) float32
    brier: Array  # (n,) float32
    predicted: Array  # (n,) int32
    flags: Array  # (n,) uint8: status, CORRECT, TOP5, PRESENT; 0 where the sample is missing
    labels: Array  # (n,) int32, of this epoch
    profile: Array  # (n, k) float16, see `profile_width`; k is 0 where none is kept
    classes: int

    def take(self, rows: NDArray[np.int64]) -> Stored:
        """Return some rows."""
        columns = {name: getattr(self, name)[rows] for name in (*FIELDS, "labels", "profile")}
        return Stored(**columns, classes=self.classes)

    @classmethod
    def joined(cls, parts: list[Stored]) -> Stored:
        """Return the scores of several runs of slots as one."""
        columns = {
            name: np.concatenate([getattr(part, name) for part in parts])
            for name in (*FIELDS, "labels", "profile")
        }
        return cls(**columns, classes=parts[0].classes)

    @property
    def has_profile(self) -> bool:
        """Whether losses at other temperatures can be had."""
        return bool(self.profile.shape[1] == profile_width(self.classes))


def flags_of(scores: Scores) -> NDArray[np.uint8]:
    """Return the flags (n,) that are stored of scores."""
    from fastdiv_kernels.cpu.flags import write_flags

    flags = np.empty(len(scores), np.uint8)
    write_flags(scores.correct, scores.rank, scores.status, flags)
    return flags


def stored_bytes(loss_dtype: np.dtype[Any], width: int) -> int:
    """Return how many bytes are kept of a sample in an epoch, with so many numbers of profile."""
    return loss_dtype.itemsize + 4 * 4 + 1 + 2 * width

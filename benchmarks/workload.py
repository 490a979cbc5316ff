"""What a case, a competitor and a workload are; `benchmarks.cases` lists them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from fastdiv_kernels.contract import profile_width

ROWS = 13_421_772  # of ten float32 logits: 512 MB, which no cache holds
QUICK_ROWS = 2_000
FEWEST_ROWS = 16
REPEATS = 5
LOSS_TOLERANCE = 1e-5  # relative; peers average float32
TEMPERED_TOLERANCE = 3e-4  # of what is kept in 16 bits: half a unit in the last place is 2.4e-4

Inputs = Literal["dump", "logits", "scores", "run", "ids", "nothing"]


@dataclass(frozen=True)
class Competitor:
    """One way to do the work."""

    name: str
    packages: tuple[str, ...]  # whose versions count
    function: str  # what prepares the call that is timed, and the module here that has it
    moves_bytes: int  # a row moves beside its logits and profile: labels and the like, and outputs
    computes: str
    keeps_profile: bool = False  # it writes what losses at other temperatures are made from
    logits_from: int = 2  # classes; of fewer it reads no logits: their scores say all
    only: tuple[int, ...] = ()  # classes it is measured with; none given: all of the case
    epochs: int = 0  # it works on, where these are not all of the case

    def row_bytes(self, classes: int) -> int:
        """Return what a row has to move beside its logits."""
        kept = 2 * profile_width(classes) if self.keeps_profile else 0
        return self.moves_bytes + kept


@dataclass(frozen=True)
class Case:
    """Work that several can do; the first competitor is the one the others are compared with."""

    name: str
    title: str
    classes: tuple[int, ...]
    reads_bytes: int  # that a row cannot do without, beside its logits; 0: there is no floor
    competitors: tuple[Competitor, ...]
    inputs: Inputs = "logits"  # what competitors are given; "run": logits to make one from
    finds: tuple[str, str] = ("loss", "accuracy")  # what competitors must agree on ...
    tolerances: tuple[float, float] = (LOSS_TOLERANCE, 0.0)  # ... to this, relative
    epochs: int = 1  # whose rows are counted
    one_in: int = 1  # takes one sample in so many of those that other cases do
    samples: int = 0  # in an epoch, where it is not the bytes of logits that are given
    dtype: str = "float32"  # of logits; bfloat16 too
    layout: str = ""  # of the dump, one of `data.LAYOUTS`
    repeats: int = REPEATS  # timed runs of each competitor

    @property
    def itemsize(self) -> int:
        """Bytes of a logit."""
        return 2 if self.dtype == "bfloat16" else np.dtype(self.dtype).itemsize

    @property
    def takes_logits(self) -> bool:
        """Whether a row costs its logits, and an exponential a class."""
        return self.inputs in ("dump", "logits")

    def logit_bytes(self, classes: int) -> int:
        """Return the bytes of the logits that a row cannot do without."""
        without = any(classes < competitor.logits_from for competitor in self.competitors)
        return self.itemsize * classes if self.takes_logits and not without else 0

    def exponentials(self, classes: int) -> int:
        """Return how many exponentials a row cannot do without: of a margin, it is one."""
        return classes if self.logit_bytes(classes) else int(self.takes_logits)

    def rows_of_epoch(self, asked: int, classes: int) -> int:
        """Return the samples of an epoch, where so many rows of ten float32 were asked for."""
        if self.samples:
            return max(FEWEST_ROWS, self.samples * asked // ROWS)
        values = asked * 10 * 4 // (self.itemsize * self.epochs * self.one_in)
        return max(FEWEST_ROWS, values // classes)

    def floor_rows_per_s(
        self, classes: int, read_bytes_per_s: float, exps_per_s: float
    ) -> tuple[float, str] | None:
        """Return the most rows a second that the machine allows, and what limits them."""
        if not self.reads_bytes:
            return None
        by_memory = read_bytes_per_s / (self.logit_bytes(classes) + self.reads_bytes)
        exponentials = self.exponentials(classes)
        by_exp = exps_per_s / exponentials if exponentials else float("inf")
        return (by_memory, "memory") if by_memory <= by_exp else (by_exp, "exp")

"""The cases and who takes part in them, as one table; `Workload` is one cell of it."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast

from benchmarks import data
from fastdiv_kernels.contract import profile_width

ROWS = 4_000_000
QUICK_ROWS = 2_000
EPOCHS = 2
VALUES_PER_ROW = 10  # of c classes there are rows * 10 / c rows: as many logits whatever c is
READ_BYTES = 512 << 20  # in a call that measures the floor: many times what caches hold
EXPONENTIALS = 1 << 27  # ... of a thread
QUICK_SHARE = 512  # ... of which a quick run takes one in so many
LOSS_TOLERANCE = 1e-5  # relative; peers average float32
TEMPERED_TOLERANCE = 3e-4  # of what is kept in 16 bits: half a unit in the last place is 2.4e-4

Inputs = Literal["dump", "logits", "scores", "run", "nothing"]


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
    reads_bytes: int  # that a row cannot do without, beside its logits
    competitors: tuple[Competitor, ...]
    inputs: Inputs = "logits"  # what competitors are given; "run": logits to make one from
    finds: tuple[str, str] = ("loss", "accuracy")  # what competitors must agree on ...
    tolerances: tuple[float, float] = (LOSS_TOLERANCE, 0.0)  # ... to this, relative
    epochs: int = 1  # whose rows are counted
    one_in: int = 1  # takes one sample in so many of those that other cases do

    @property
    def takes_logits(self) -> bool:
        """Whether a row costs 4 bytes and an exponential a class."""
        return self.inputs in ("dump", "logits")

    def logit_bytes(self, classes: int) -> int:
        """Return the bytes of the logits that a row cannot do without."""
        without = any(classes < competitor.logits_from for competitor in self.competitors)
        return 4 * classes if self.takes_logits and not without else 0

    def exponentials(self, classes: int) -> int:
        """Return how many exponentials a row cannot do without: of a margin, it is one."""
        return classes if self.logit_bytes(classes) else int(self.takes_logits)

    def rows(self, asked: int, classes: int) -> int:
        """Return the rows of all its epochs, where so many samples were asked for."""
        return self.epochs * max(2, asked * VALUES_PER_ROW // (classes * self.one_in))

    def floor_rows_per_s(
        self, classes: int, read_bytes_per_s: float, exps_per_s: float
    ) -> tuple[float, str]:
        """Return the most rows a second that the machine allows, and what limits them."""
        by_memory = read_bytes_per_s / (self.logit_bytes(classes) + self.reads_bytes)
        exponentials = self.exponentials(classes)
        by_exp = exps_per_s / exponentials if exponentials else float("inf")
        return (by_memory, "memory") if by_memory <= by_exp else (by_exp, "exp")


TWO = "loss, correct"
FULL = "loss, correct, confidence, margin, Brier"
ALL = f"{FULL}, rank, predicted"
EPOCH_TWO = "loss and accuracy of each epoch"

# reads_bytes: epoch 4 and label 4; of the ids, which only fastdiv reads, the floor knows nothing.
# moves_bytes: the same, and for fastdiv id 8; fastdiv stores 21 bytes a row, and unless slim the
# profile, 20 bytes of 10 classes.
DUMP = Case(
    name="dump",
    title="From a Parquet dump (`list<float>`, Snappy) to results",
    classes=(10,),
    reads_bytes=8,
    competitors=(
        Competitor(
            "fastdiv", ("fastdiv",), "dump_peers.fastdiv_all", 16 + 21,
            "all tables, all scores kept", keeps_profile=True,
        ),
        Competitor(
            "fastdiv, slim", ("fastdiv",), "dump_peers.fastdiv_slim", 16 + 21,
            "all tables but temperatures, scores alone kept",
        ),
        Competitor(
            "fastdiv, rolling", ("fastdiv",), "dump_peers.fastdiv_rolling", 16 + 21,
            "all tables, scores of two epochs kept", keeps_profile=True,
        ),
        Competitor("DuckDB", ("duckdb",), "dump_peers.duckdb", 8, EPOCH_TWO),
        Competitor("polars", ("polars",), "dump_peers.polars", 8, EPOCH_TWO),
        Competitor(
            "pyarrow + torch", ("pyarrow", "torch"), "dump_peers.pyarrow_torch", 8, EPOCH_TWO
        ),
        Competitor(
            "pyarrow + scikit-learn", ("pyarrow", "scikit-learn"), "dump_peers.pyarrow_sklearn", 8,
            EPOCH_TWO,
        ),
        Competitor("pyarrow", ("pyarrow",), "dump_peers.pyarrow_decode", 8, "nothing: decodes"),
    ),
    inputs="dump",
    epochs=EPOCHS,
)  # fmt: skip

# reads_bytes: label 4. moves_bytes: label 4 (int64: 8); loss 4, correct 1, confidence 4, margin 4,
# Brier 4, and for fastdiv predicted 4, rank 4, status 1.
ARRAYS = Case(
    name="arrays",
    title="From float32 logits in memory to scores of each row",
    classes=(2, 10, 100, 1000),
    reads_bytes=4,
    competitors=(
        Competitor("fastdiv", ("fastdiv",), "array_peers.fastdiv_score", 4 + 26, ALL),
        Competitor("torch.compile", ("torch",), "torch_peers.compile_full", 8 + 17, FULL),
        Competitor("torch.compile, two", ("torch",), "torch_peers.compile_two", 8 + 5, TWO),
        Competitor("torch", ("torch",), "torch_peers.eager_full", 8 + 17, FULL),
        Competitor("torch, two", ("torch",), "torch_peers.eager_two", 8 + 5, TWO),
        Competitor("scipy + numpy", ("scipy", "numpy"), "array_peers.scipy_numpy", 4 + 5, TWO),
        Competitor(
            "scikit-learn", ("scikit-learn",), "array_peers.sklearn", 4, "mean loss, accuracy"
        ),
    ),
)

# The functions of the contract, alone; the bytes of `score` are those of the arrays.
SCORE = Case(
    name="score",
    title="float32 logits to scores of each row",
    classes=ARRAYS.classes,
    reads_bytes=4,
    competitors=(
        Competitor("fastdiv", ("fastdiv",), "kernel_peers.fastdiv_score", 4 + 26, ALL),
        Competitor("torch.compile", ("torch",), "torch_peers.compile_full_batches", 8 + 17, FULL),
    ),
)

# Bytes: of an epoch loss 4, confidence 4, margin 4, Brier 4, flags 1; of each of two epochs
# loss 4, predicted 4, label 4, flags 1.
TALLY = Case(
    name="tally",
    title="stored scores to the totals of an epoch",
    classes=(10,),
    reads_bytes=17,
    competitors=(
        Competitor(
            "fastdiv", ("fastdiv",), "stored_peers.fastdiv_tally", 17,
            "counts, sums, calibration bins",
        ),
    ),
    inputs="scores",
)  # fmt: skip
CELLS = "samples and change in loss of each cell"
TRANSITIONS = Case(
    name="transitions",
    title="stored scores of two epochs to their transitions",
    classes=(10,),
    reads_bytes=26,
    competitors=(
        Competitor("fastdiv", ("fastdiv",), "stored_peers.fastdiv_transitions", 26, CELLS),
        Competitor("polars", ("polars",), "stored_peers.polars_transitions", 26, CELLS),
    ),
    inputs="scores",
    finds=("delta_loss", "share"),
)

# reads_bytes: label or margin 4. moves_bytes: loss 4, margin 4, flags 1; the prediction, which
# saves looking for the largest logit, is not counted. The peer reads the label, int64.
TEMPERATURES = Case(
    name="temperatures",
    title="float32 logits and their scores to the mean loss at eleven temperatures",
    classes=ARRAYS.classes,
    reads_bytes=4,
    competitors=(
        Competitor(
            "fastdiv", ("fastdiv",), "kernel_peers.fastdiv_temperatures", 9,
            "mean loss and its slope at eleven temperatures; what all others are made from, kept",
            keeps_profile=True, logits_from=3,
        ),
        Competitor(
            "torch.compile", ("torch",), "torch_peers.compile_temperatures", 8,
            "mean loss at eleven temperatures",
        ),
    ),
    finds=("loss_at_half", "loss_at_double"),  # the inverse temperature
    tolerances=(TEMPERED_TOLERANCE, TEMPERED_TOLERANCE),
)  # fmt: skip

# What keeping profiles costs a whole scan. reads_bytes: label 4; moves_bytes: the same, and 21
# stored bytes, see the dump.
SCAN = Case(
    name="scan",
    title="From float32 logits of two epochs in memory to results",
    classes=(10, 1000),
    reads_bytes=4,
    competitors=(
        Competitor(
            "fastdiv", ("fastdiv",), "scan.fastdiv_all", 4 + 21, "all tables, all scores kept",
            keeps_profile=True,
        ),
        Competitor(
            "fastdiv, slim", ("fastdiv",), "scan.fastdiv_slim", 4 + 21,
            "all tables but temperatures, scores alone kept",
        ),
    ),
    epochs=EPOCHS,
)  # fmt: skip

# Bytes: label 4; of each of two epochs loss 4, predicted 4, margin 4, flags 1, profile 20. Of a
# saved run there are confidence 4, Brier 4 and an id 8 besides.
EXPLAIN = Case(
    name="explain",
    title="Why loss and accuracy moved between two epochs",
    classes=(10,),
    reads_bytes=4 + 2 * 33,
    competitors=(
        Competitor(
            "explain_pair", ("fastdiv",), "explain.explain_pair", 4 + 2 * 33,
            "`explain_pair`: the verdict, from scores in memory",
        ),
        Competitor(
            "SplitView.explain", ("fastdiv",), "explain.split_view", 12 + 2 * 41,
            "`SplitView.explain`: the verdict and findings beside it, from a saved run",
        ),
    ),
    inputs="run",
    finds=("delta_loss", "delta_accuracy"),
    one_in=4,
)  # fmt: skip

KERNELS = (SCORE, TEMPERATURES, TALLY, TRANSITIONS)
CASES = {case.name: case for case in (DUMP, SCAN, *KERNELS, ARRAYS, EXPLAIN)}

# What the machine can do at best, in rows that are a byte read and an exponential taken.
FLOOR = Case(
    name="floor",
    title="What the machine can do at best",
    classes=(1,),
    reads_bytes=1,
    competitors=(
        Competitor("read", ("numba",), "floor.read_memory", 1, "reads memory"),
        Competitor("exp", ("numba",), "floor.exp_in_cache", 0, "takes exponentials in cache"),
    ),
    inputs="nothing",
)


@dataclass(frozen=True)
class Workload:
    """What one process measures; crosses to it as JSON."""

    case: str
    competitor: str
    classes: int
    rows: int  # in all epochs
    threads: int
    dump: str | None = None  # path, where the case reads one

    @property
    def of_case(self) -> Case:
        """The case it is of."""
        return FLOOR if self.case == FLOOR.name else CASES[self.case]

    def entry(self) -> Competitor:
        """Return the competitor's row of the table."""
        return next(c for c in self.of_case.competitors if c.name == self.competitor)

    def row_bytes(self) -> int:
        """Return the bytes that a row has to move once."""
        entry = self.entry()
        reads_logits = self.of_case.takes_logits and self.classes >= entry.logits_from
        return 4 * self.classes * reads_logits + entry.row_bytes(self.classes)

    def label(self) -> str:
        """Name it, as `--only` and `--skip` match it."""
        return f"{self.case}/{self.classes}/{self.competitor}"

    def as_json(self) -> dict[str, Any]:
        """Return what the constructor takes."""
        return asdict(self)

    def prepare(self) -> Callable[[], Any]:
        """Load the competitor and its data; return the call to time."""
        module, _, function = self.entry().function.partition(".")
        prepare: Any = getattr(importlib.import_module(f"benchmarks.{module}"), function)
        return cast(Callable[[], Any], prepare(self._inputs()))

    def _inputs(self) -> Any:
        """Make what the competitor works on."""
        if self.dump is not None:
            return data.Dump(Path(self.dump), self.classes, self.threads)
        case = self.of_case
        if case.inputs == "nothing":
            return self
        labels = data.labels(self.rows // case.epochs, self.classes)
        if case.inputs != "scores":
            return data.Arrays(data.logits(labels, self.classes), labels, self.threads)
        first = data.stored(labels, self.classes, seed=1)
        second = data.stored(labels, self.classes, seed=2, before=first)
        return data.StoredPair(first, second, labels, self.threads)


def workloads(
    case: Case, classes: int, rows: int, threads: int, cache: Path, wanted: Callable[[str], bool]
) -> list[Workload]:
    """Return what is to be measured of a case with so many classes, and write the dump it needs."""
    total = case.rows(rows, classes)
    entries = [
        Workload(case.name, competitor.name, classes, total, threads)
        for competitor in case.competitors
    ]
    entries = [entry for entry in entries if wanted(entry.label())]
    if case.inputs == "dump" and entries:
        path = str(data.dump(total // case.epochs, classes, case.epochs, cache))
        entries = [replace(entry, dump=path) for entry in entries]
    return entries


def floor_workloads(threads: int, quick: bool) -> list[Workload]:
    """Return what measures the machine: its memory, then its exponentials."""
    share = QUICK_SHARE if quick else 1
    units = READ_BYTES // share, threads * EXPONENTIALS // share
    return [
        Workload(FLOOR.name, competitor.name, 1, n, threads)
        for competitor, n in zip(FLOOR.competitors, units, strict=True)
    ]

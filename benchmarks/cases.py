"""The cases and who takes part in them, as one table; `Workload` is one cell of it."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, cast

from benchmarks import data
from benchmarks.workload import TEMPERED_TOLERANCE, Case, Competitor

READ_BYTES = 1 << 30  # in a call that measures the floor: many times what caches hold
EXPONENTIALS = 1 << 27  # ... of a thread
QUICK_SHARE = 512  # ... of which a quick run takes one in so many

TWO = "loss, correct"
FULL = "loss, correct, confidence, margin, Brier"
ALL = f"{FULL}, rank, predicted"
EPOCH_TWO = "loss and accuracy of each epoch"
DECODES = "nothing: decodes"
FASTDIV = ("fastdiv",)

# Of a dump. reads_bytes: label 4; of ids, which only fastdiv reads, the floor knows nothing.
# moves_bytes: label 4, and for fastdiv id 8 and 21 bytes a row that are kept, and the profile.
STORED = 4 + 8 + 21
ROLLING = Competitor(
    "fastdiv", FASTDIV, "dump_peers.fastdiv_rolling", STORED,
    "all tables, scores of two epochs kept", keeps_profile=True,
)  # fmt: skip
KEPT = Competitor(
    "fastdiv, all", FASTDIV, "dump_peers.fastdiv_all", STORED, "all tables, all scores kept",
    keeps_profile=True,
)  # fmt: skip
PYARROW = Competitor("pyarrow", ("pyarrow",), "dump_peers.pyarrow_decode", 4, DECODES)

SNAPPY = Case(
    name="snappy",
    title="Parquet as pyarrow writes it (`list<float>`, Snappy, dictionaries), a file an epoch",
    classes=(10,),
    reads_bytes=4,
    competitors=(
        ROLLING,
        KEPT,
        Competitor(
            "fastdiv, slim", FASTDIV, "dump_peers.fastdiv_slim", STORED,
            "all tables but temperatures, scores alone kept",
        ),
        Competitor("DuckDB", ("duckdb",), "dump_peers.duckdb", 4, EPOCH_TWO),
        Competitor("polars", ("polars",), "dump_peers.polars", 4, EPOCH_TWO),
        Competitor(
            "pyarrow + torch", ("pyarrow", "torch"), "dump_peers.pyarrow_torch", 4, EPOCH_TWO
        ),
        Competitor(
            "pyarrow + torchmetrics", ("pyarrow", "torchmetrics"),
            "dump_peers.pyarrow_torchmetrics", 4, EPOCH_TWO,
        ),
        Competitor(
            "pyarrow + scikit-learn", ("pyarrow", "scikit-learn"), "dump_peers.pyarrow_sklearn", 4,
            EPOCH_TWO,
        ),
        PYARROW,
    ),
    inputs="dump",
    epochs=2,
    layout="snappy",
)  # fmt: skip
PLAIN = Case(
    name="plain",
    title="Parquet, `list<float>`, uncompressed and PLAIN, a file an epoch",
    classes=(10, 1000),
    reads_bytes=4,
    competitors=(ROLLING, KEPT, PYARROW),
    inputs="dump",
    epochs=2,
    layout="plain",
)
BINARY = Case(
    name="binary",
    title="Parquet, fixed-size binary, uncompressed and PLAIN, a file an epoch",
    classes=(10, 1000),
    reads_bytes=4,
    competitors=(
        ROLLING,
        KEPT,
        Competitor("kernel", FASTDIV, "dump_peers.kernel_alone", 4 + 26, f"`score` alone: {ALL}"),
        PYARROW,
    ),
    inputs="dump",
    epochs=2,
    layout="binary",
)
ZSTD = Case(
    name="zstd",
    title="Parquet, `list<float>`, zstd and PLAIN, a file an epoch",
    classes=(10,),
    reads_bytes=4,
    competitors=(
        ROLLING,
        Competitor(
            "pyarrow, decompression", ("pyarrow",), "dump_peers.decompress", 4 + 8,
            "nothing: decompresses the same pages",
        ),
        PYARROW,
    ),
    inputs="dump",
    epochs=2,
    layout="zstd",
)  # fmt: skip
EPOCHS = Case(
    name="epochs",
    title="Twenty epochs of uncompressed Parquet, a file each, beside one of them alone",
    classes=(10,),
    reads_bytes=4,
    competitors=(
        ROLLING,
        Competitor(
            "fastdiv, one file", FASTDIV, "dump_peers.fastdiv_one", STORED, "the same, of one file",
            keeps_profile=True, epochs=1,
        ),
    ),
    inputs="dump",
    epochs=20,
    samples=1_000_000,
    layout="plain",
)  # fmt: skip

# reads_bytes: label 4. moves_bytes: label 4 (int64: 8); loss 4, correct 1, confidence 4, margin 4,
# Brier 4, and for fastdiv predicted 4, rank 4, status 1.
ARRAYS = Case(
    name="arrays",
    title="From float32 logits in memory to scores of each row",
    classes=(2, 10, 100, 1000, 32_000),
    reads_bytes=4,
    competitors=(
        Competitor("fastdiv", FASTDIV, "array_peers.fastdiv_score", 4 + 26, ALL),
        Competitor("torch.compile", ("torch",), "torch_peers.compile_full", 8 + 17, FULL),
        Competitor("torch.compile, two", ("torch",), "torch_peers.compile_two", 8 + 5, TWO),
        Competitor("torch", ("torch",), "torch_peers.eager_full", 8 + 17, FULL),
        Competitor("torch, two", ("torch",), "torch_peers.eager_two", 8 + 5, TWO),
        Competitor("JAX", ("jax",), "jax_peers.full", 4 + 17, FULL),
        Competitor("scipy + numpy", ("scipy", "numpy"), "array_peers.scipy_numpy", 4 + 5, TWO),
        Competitor(
            "scikit-learn", ("scikit-learn",), "array_peers.sklearn", 4, "mean loss, accuracy"
        ),
    ),
)

# The functions of the contract, alone; the bytes of `score` are those of the arrays.
SCORES = Competitor("fastdiv", FASTDIV, "kernel_peers.fastdiv_score", 4 + 26, ALL)
SCORE = Case(
    name="score",
    title="float32 logits to scores of each row",
    classes=(2, 3, 5, 10, 16, 32, 64, 100, 256, 1000, 4096, 32_000, 200_000),
    reads_bytes=4,
    competitors=(
        SCORES,
        Competitor(
            "torch.compile", ("torch",), "torch_peers.compile_full_batches", 8 + 17, FULL,
            only=(2, 10, 100, 1000, 32_000),
        ),
    ),
)  # fmt: skip
SCORE_FLOAT16, SCORE_BFLOAT16 = (
    Case(
        name=f"score-{dtype}",
        title=f"{dtype} logits to scores of each row",
        classes=(1000,),
        reads_bytes=4,
        competitors=(SCORES,),
        dtype=dtype,
    )
    for dtype in ("float16", "bfloat16")
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
            "fastdiv", FASTDIV, "stored_peers.fastdiv_tally", 17, "counts, sums, calibration bins"
        ),
    ),
    inputs="scores",
)
CELLS = "samples and change in loss of each cell"
TRANSITIONS = Case(
    name="transitions",
    title="stored scores of two epochs to their transitions",
    classes=(10,),
    reads_bytes=26,
    competitors=(
        Competitor("fastdiv", FASTDIV, "stored_peers.fastdiv_transitions", 26, CELLS),
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
    classes=(2, 10, 100, 1000),
    reads_bytes=4,
    competitors=(
        Competitor(
            "fastdiv", FASTDIV, "kernel_peers.fastdiv_temperatures", 9,
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
    one_in=4,
)  # fmt: skip

# Bytes: the id that comes and the one that is known, 8 each; of another order also the slot, 8.
IDS = Case(
    name="ids",
    title="Ten million int64 ids to the slots of their samples, in the same order as before",
    classes=(1,),
    reads_bytes=16,
    competitors=(Competitor("fastdiv", FASTDIV, "id_peers.same_order", 16, "slots"),),
    inputs="ids",
    finds=("slots_sum", "n"),
    samples=10_000_000,
)
SHUFFLED_IDS = Case(
    name="shuffled-ids",
    title="Ten million int64 ids to the slots of their samples, in another order",
    classes=(1,),
    reads_bytes=16,
    competitors=(
        Competitor("fastdiv", FASTDIV, "id_peers.shuffled", 24, "slots, from a table that is kept"),
        Competitor(
            "fastdiv, new", FASTDIV, "id_peers.shuffled_anew", 24,
            "slots, from a ledger and a table made anew",
        ),
        Competitor("polars", ("polars",), "id_peers.polars_join", 24, "slots, by a left join"),
    ),
    inputs="ids",
    finds=("slots_sum", "n"),
    samples=10_000_000,
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
            "fastdiv", FASTDIV, "scan.fastdiv_all", 4 + 21, "all tables, all scores kept",
            keeps_profile=True,
        ),
        Competitor(
            "fastdiv, slim", FASTDIV, "scan.fastdiv_slim", 4 + 21,
            "all tables but temperatures, scores alone kept",
        ),
    ),
    epochs=2,
)  # fmt: skip

# Bytes: label 4; of each of two epochs loss 4, predicted 4, margin 4, flags 1, profile 20. Of a
# saved run there are confidence 4, Brier 4 and an id 8 besides. It is no scan: there is no floor.
EXPLAIN = Case(
    name="explain",
    title="Why loss and accuracy moved between two epochs",
    classes=(10,),
    reads_bytes=0,
    competitors=(
        Competitor(
            "explain_pair", FASTDIV, "explain.explain_pair", 4 + 2 * 33,
            "`explain_pair`: the verdict, from scores in memory",
        ),
        Competitor(
            "SplitView.explain", FASTDIV, "explain.split_view", 12 + 2 * 41,
            "`SplitView.explain`: the verdict and findings beside it, from a saved run",
        ),
    ),
    inputs="run",
    finds=("delta_loss", "delta_accuracy"),
    samples=1_000_000,
)  # fmt: skip

# A process each time, so that what is timed is a whole call of the interpreter.
START_UP = Case(
    name="start-up",
    title="Start-up: a new process to its first result, kernels compiled before",
    classes=(10,),
    reads_bytes=0,
    competitors=(
        Competitor("analyze", FASTDIV, "start_up.analyze", 0, "`fastdiv.analyze` of 10,000 rows"),
        Competitor("command", FASTDIV, "start_up.command", 0, "`fastdiv analyze` of 10,000 rows"),
        Competitor("score", FASTDIV, "start_up.score", 0, "`fastdiv.score` of 100 rows"),
        Competitor("import", FASTDIV, "start_up.import_fastdiv", 0, "`import fastdiv`"),
        Competitor("DuckDB", ("duckdb",), "start_up.duckdb", 0, "its query of the same 10,000"),
        Competitor("pyarrow", ("pyarrow",), "start_up.import_pyarrow", 0, "`import pyarrow`"),
    ),
    inputs="dump",
    samples=10_000,
    layout="snappy",
    repeats=15,
)

DUMPS = (SNAPPY, PLAIN, BINARY, ZSTD, EPOCHS)
KERNELS = (SCORE, SCORE_FLOAT16, SCORE_BFLOAT16, TEMPERATURES, TALLY, TRANSITIONS)
OTHERS = (IDS, SHUFFLED_IDS, SCAN, EXPLAIN, START_UP)
CASES = {case.name: case for case in (*DUMPS, *KERNELS, ARRAYS, *OTHERS)}

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
    rows: int  # in all epochs that it works on
    threads: int
    dump: str | None = None  # directory, where the case reads one

    @property
    def of_case(self) -> Case:
        """The case it is of."""
        return FLOOR if self.case == FLOOR.name else CASES[self.case]

    def entry(self) -> Competitor:
        """Return the competitor's row of the table."""
        return next(c for c in self.of_case.competitors if c.name == self.competitor)

    def row_bytes(self) -> int:
        """Return the bytes that a row has to move once."""
        case, entry = self.of_case, self.entry()
        reads_logits = case.takes_logits and self.classes >= entry.logits_from
        return case.itemsize * self.classes * reads_logits + entry.row_bytes(self.classes)

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
        if case.inputs == "ids":
            return data.ids(self.rows)
        labels = data.labels(self.rows // case.epochs, self.classes)
        if case.inputs != "scores":
            logits = data.logits(labels, self.classes, dtype=case.dtype)
            return data.Arrays(logits, labels, self.threads)
        first = data.stored(labels, self.classes, seed=1)
        second = data.stored(labels, self.classes, seed=2, before=first)
        return data.StoredPair(first, second, labels, self.threads)


def workloads(
    case: Case, classes: int, rows: int, threads: int, cache: Path, wanted: Callable[[str], bool]
) -> list[Workload]:
    """Return what is to be measured of a case with so many classes, and write the dump it needs."""
    n = case.rows_of_epoch(rows, classes)
    entries = [
        Workload(case.name, entry.name, classes, (entry.epochs or case.epochs) * n, threads)
        for entry in case.competitors
        if not entry.only or classes in entry.only
    ]
    entries = [entry for entry in entries if wanted(entry.label())]
    if case.inputs == "dump" and entries:
        path = str(data.dump(n, classes, case.epochs, case.layout, cache))
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

"""The cases and who takes part in them, as one table; `Workload` is one cell of it."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

from benchmarks import data
from benchmarks.array_peers import Arrays
from benchmarks.dump_peers import Dump

ROWS = 4_000_000
QUICK_ROWS = 2_000
EPOCHS = 2
VALUES_PER_ROW = 10  # arrays of c classes have rows * 10 / c rows: as many logits whatever c is


@dataclass(frozen=True)
class Competitor:
    """One way to do the work."""

    name: str
    packages: tuple[str, ...]  # whose versions count
    function: str  # in the module of its case: what prepares the call that is timed
    moves_bytes: int  # a row has to move beside its logits: labels and the like, and outputs
    computes: str


@dataclass(frozen=True)
class Case:
    """Work that several can do; the first competitor is the one the others are compared with."""

    name: str
    title: str
    module: str
    classes: tuple[int, ...]
    competitors: tuple[Competitor, ...]


TWO = "loss, correct"
FULL = "loss, correct, confidence, margin, Brier"
EPOCH_TWO = "loss and accuracy of each epoch"

# moves_bytes: read epoch 4 and label 4, and for fastdiv id 8; fastdiv stores 21 bytes a row.
DUMP = Case(
    name="dump",
    title="From a Parquet dump (`list<float>`, Snappy) to results",
    module="benchmarks.dump_peers",
    classes=(10,),
    competitors=(
        Competitor("fastdiv", ("fastdiv",), "fastdiv_all", 16 + 21, "all tables, all scores kept"),
        Competitor(
            "fastdiv, rolling", ("fastdiv",), "fastdiv_rolling", 16 + 21,
            "all tables, scores of two epochs kept",
        ),
        Competitor("DuckDB", ("duckdb",), "duckdb", 8, EPOCH_TWO),
        Competitor("polars", ("polars",), "polars", 8, EPOCH_TWO),
        Competitor("pyarrow + torch", ("pyarrow", "torch"), "pyarrow_torch", 8, EPOCH_TWO),
        Competitor(
            "pyarrow + scikit-learn", ("pyarrow", "scikit-learn"), "pyarrow_sklearn", 8, EPOCH_TWO
        ),
        Competitor("pyarrow", ("pyarrow",), "pyarrow_decode", 8, "nothing: decodes"),
    ),
)  # fmt: skip

# moves_bytes: read label 4 (int64: 8); write loss 4, correct 1, confidence 4, margin 4, Brier 4,
# and for fastdiv predicted 4, rank 4, status 1.
ARRAYS = Case(
    name="arrays",
    title="From float32 logits in memory to scores of each row",
    module="benchmarks.array_peers",
    classes=(2, 10, 100, 1000),
    competitors=(
        Competitor("fastdiv", ("fastdiv",), "fastdiv_score", 4 + 26, f"{FULL}, rank, predicted"),
        Competitor("torch.compile", ("torch",), "torch_compile_full", 8 + 17, FULL),
        Competitor("torch.compile, two", ("torch",), "torch_compile_two", 8 + 5, TWO),
        Competitor("torch", ("torch",), "torch_eager_full", 8 + 17, FULL),
        Competitor("torch, two", ("torch",), "torch_eager_two", 8 + 5, TWO),
        Competitor("scipy + numpy", ("scipy", "numpy"), "scipy_numpy", 4 + 5, TWO),
        Competitor("scikit-learn", ("scikit-learn",), "sklearn", 4, "mean loss, accuracy"),
    ),
)

CASES = {case.name: case for case in (DUMP, ARRAYS)}


@dataclass(frozen=True)
class Workload:
    """What one process measures; crosses to it as JSON."""

    case: str
    competitor: str
    classes: int
    rows: int  # in all epochs
    threads: int
    dump: str | None  # path, where the case reads one

    def entry(self) -> Competitor:
        """Return the competitor's row of the table."""
        return next(c for c in CASES[self.case].competitors if c.name == self.competitor)

    def label(self) -> str:
        """Name it, as `--only` and `--skip` match it."""
        return f"{self.case}/{self.classes}/{self.competitor}"

    def as_json(self) -> dict[str, Any]:
        """Return what the constructor takes."""
        return asdict(self)

    def prepare(self) -> Callable[[], Any]:
        """Load the competitor and its data; return the call to time."""
        function: Any = getattr(
            importlib.import_module(CASES[self.case].module), self.entry().function
        )
        if self.dump is not None:
            call = function(Dump(Path(self.dump), self.classes, self.threads))
        else:
            labels = data.labels(self.rows, self.classes)
            call = function(Arrays(data.logits(labels, self.classes), labels, self.threads))
        return cast(Callable[[], Any], call)


def workloads(
    case: Case, classes: int, rows: int, threads: int, cache: Path, wanted: Callable[[str], bool]
) -> list[Workload]:
    """Return what is to be measured of a case with so many classes, and write the dump it needs."""
    total = rows * EPOCHS if case is DUMP else max(2, rows * VALUES_PER_ROW // classes)
    entries = [
        Workload(case.name, competitor.name, classes, total, threads, None)
        for competitor in case.competitors
    ]
    entries = [entry for entry in entries if wanted(entry.label())]
    if case is DUMP and entries:
        path = str(data.dump(rows, classes, EPOCHS, cache))
        entries = [Workload(**{**entry.as_json(), "dump": path}) for entry in entries]
    return entries

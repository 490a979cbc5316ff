"""What fastdiv means to reach, beside what was measured: `python -m benchmarks --goals`.

A goal compares two measurements of one result file: of rows a second with those of a peer, or with
what the machine allows. Which they are is named as the file names them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Record = dict[str, Any]  # a result file
Measured = Callable[[Record], float | None]

HEAD = ("| | must | goal | measured | |", "|---|--:|--:|--:|---|")


@dataclass(frozen=True)
class Goal:
    """What a ratio must be, and should be; above these, or below where `at_most`."""

    title: str
    must: float
    goal: float
    ratio: Measured
    at_most: bool = False
    unit: str = "×"  # or none, for a share

    def line(self, record: Record) -> str:
        """Return a row of the table."""
        ratio = self.ratio(record)
        must, goal = self._text(self.must), self._text(self.goal)
        if ratio is None:
            return f"| {self.title} | {must} | {goal} |  | not measured |"
        return f"| {self.title} | {must} | {goal} | {self._text(ratio)} | {self.verdict(ratio)} |"

    def verdict(self, ratio: float) -> str:
        """Say how far a ratio got."""
        for name, bound in (("goal", self.goal), ("must", self.must)):
            if (ratio <= bound) if self.at_most else (ratio >= bound):
                return name
        return "missed"

    def _text(self, x: float) -> str:
        return f"{x:.3g}×" if self.unit else f"{x:.2f}"


def _find(record: Record, case: str, classes: int, competitor: str) -> Record | None:
    of = (case, classes, competitor)
    return next(
        (m for m in record.get("measurements", ())
         if (m["case"], m["classes"], m["competitor"]) == of and "skipped" not in m),
        None,
    )  # fmt: skip


def faster(case: str, classes: int, peer: str, competitor: str = "fastdiv") -> Measured:
    """Compare rows a second with those of a peer."""

    def ratio(record: Record) -> float | None:
        ours, its = (_find(record, case, classes, name) for name in (competitor, peer))
        return ours["rows_per_s"] / its["rows_per_s"] if ours and its else None

    return ratio


def slower(case: str, classes: int, competitor: str) -> Measured:
    """Compare the time of a row with that of another way to do less of it."""
    times = faster(case, classes, competitor)

    def ratio(record: Record) -> float | None:
        found = times(record)
        return 1 / found if found else None

    return ratio


def of_floor(case: str, *classes: int) -> Measured:
    """Return the share of the floor; of several numbers of classes, the least."""

    def ratio(record: Record) -> float | None:
        found = [_find(record, case, c, "fastdiv") for c in classes]
        return min(m["share_of_floor"] for m in found if m) if all(found) else None

    return ratio


def of_rate(case: str, classes: int, rate: str, per_row: str) -> Measured:
    """Return the share of one of the two rates that the floor is made of."""

    def ratio(record: Record) -> float | None:
        ours = _find(record, case, classes, "fastdiv")
        floors = (f for f in record["floors"] if (f["case"], f["classes"]) == (case, classes))
        floor = next(floors, None)
        if ours is None or floor is None:
            return None
        allowed = floor[rate] * (1e9 if rate == "read_gb_per_s" else 1)
        share: float = ours["rows_per_s"] * floor[per_row] / allowed
        return share

    return ratio


def of_growth(name: str) -> Measured:
    """Return a ratio of what `benchmarks.growth` has found."""
    return lambda record: record.get("growth", {}).get(name)


def _exp(dtype: str) -> Measured:
    return of_rate(f"score-{dtype}", 1000, "exps_per_s", "exps_per_row")


SHARE = ""
GOALS = (
    Goal("`score`, float32, C = 64 … 32,000: share of the floor", 0.65, 0.9,
         of_floor("score", 64, 100, 256, 1000, 4096, 32_000), unit=SHARE),
    Goal("`score`, float32, C = 3 … 32: share of the floor", 0.45, 0.7,
         of_floor("score", 3, 5, 10, 16, 32), unit=SHARE),
    Goal("`score`, float32, C = 2: share of the floor", 0.4, 0.6, of_floor("score", 2), unit=SHARE),
    Goal("`score`, float32, C = 200,000: share of the floor", 0.6, 0.9,
         of_floor("score", 200_000), unit=SHARE),
    Goal("`score`, float16, C = 1000: share of the exponentials", 0.6, 0.85, _exp("float16"),
         unit=SHARE),
    Goal("`score`, bfloat16, C = 1000: share of the exponentials", 0.6, 0.85, _exp("bfloat16"),
         unit=SHARE),
    *(Goal(f"`fastdiv.score(out=)`, C = {c:,}: against torch.compile", must, goal,
           faster("arrays", c, "torch.compile"))
      for c, must, goal in (
          (2, 12, 25), (10, 20, 35), (100, 8, 12), (1000, 5, 9), (32_000, 5, 10))),
    Goal("Parquet, `list<float>`, Snappy, C = 10: against DuckDB", 4, 8,
         faster("snappy", 10, "DuckDB")),
    Goal("Parquet, uncompressed, C = 10: against pyarrow's decoding alone", 5, 10,
         faster("plain", 10, "pyarrow")),
    Goal("Parquet, uncompressed, C = 1000: against pyarrow's decoding alone", 5, 20,
         faster("plain", 1000, "pyarrow")),
    *(Goal(f"Parquet, fixed-size binary, C = {c:,}: share of the kernel in memory", 0.7, 0.95,
           faster("binary", c, "kernel"), unit=SHARE)
      for c in (10, 1000)),
    Goal("Parquet, zstd, C = 10: share of decompression alone", 0.8, 0.95,
         faster("zstd", 10, "pyarrow, decompression"), unit=SHARE),
    Goal("ids in the same order: share of the memory read", 0.5, 0.9,
         of_rate("ids", 1, "read_gb_per_s", "read_bytes_per_row"), unit=SHARE),
    Goal("ids in another order: against polars' join", 2, 4,
         faster("shuffled-ids", 1, "polars")),
    Goal("20 epochs: time of one, beside a file alone", 1.3, 1.1,
         slower("epochs", 10, "fastdiv, one file"), at_most=True),
    Goal("growth to 1,000 million rows: time off a straight line", 0.05, 0.05,
         of_growth("off_linear"), at_most=True, unit=SHARE),
    Goal("growth to 1,000 million rows: peak memory, beside that of 100", 1.1, 1.05,
         of_growth("memory_ratio"), at_most=True),
)  # fmt: skip


def table(record: Record) -> str:
    """Return the goals as a Markdown table."""
    return "\n".join([*HEAD, *(goal.line(record) for goal in GOALS)]) + "\n"

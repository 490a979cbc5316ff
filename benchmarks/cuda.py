"""How fast the GPU's kernels are, beside its memory and its peers: `python -m benchmarks.cuda`.

Times are medians between events on the device; inputs are larger than its second cache and take
turns, so that none is found there. The best of reading alone and of copying are measured in the
same run: the share of the former is what counts. Peers that are not installed are left out.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import statistics
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.cuda_dumps import dumps, pinned_copies
from benchmarks.cuda_peers import Call, peers
from benchmarks.machine import this_machine
from fastdiv_kernels.contract import BFLOAT16, Cell, Kind, PairCount
from fastdiv_kernels.exact import LIMBS_32

RESULTS = Path(__file__).parent / "results"
BYTES = 512 << 20  # of predictions
MANY = 1 << 22  # classes, of which there are few rows
FEW_ROWS_BYTES = 64 << 20
COPIES = 3  # of the inputs, which take turns
STREAM_BYTES = 4 << 30
PAIRED_ROWS = 1 << 30  # of transitions
TIMED = 20
TURNS = 3  # of dumps
# Dtypes and classes that are measured; of the last few a row is larger than any cache.
SHAPES = (
    *(("float32", c) for c in (2, 3, 5, 10, 16, 32, 33, 64, 100, 127, 255, 256, 1000, 1001, 4096)),
    *(("float32", c) for c in (32_000, 50_257, 200_000)),
    *((dtype, c) for dtype in ("float16", "bfloat16") for c in (10, 1000, 32_000)),
    ("float64", 1000),
    *(("float32", c) for c in (1 << 22, 1 << 24)),
)
STREAM = r"""
extern "C" __global__ void read(const float4* x, long long n, float* sums) {
    float4 a = make_float4(0, 0, 0, 0), b = a, c = a, d = a;
    long long step = (long long)gridDim.x * blockDim.x;
    long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    for (; i + 3 * step < n; i += 4 * step) {
        float4 p = __ldg(x + i), q = __ldg(x + i + step);
        float4 r = __ldg(x + i + 2 * step), s = __ldg(x + i + 3 * step);
        a.x += p.x; a.y += p.y; a.z += p.z; a.w += p.w;
        b.x += q.x; b.y += q.y; b.z += q.z; b.w += q.w;
        c.x += r.x; c.y += r.y; c.z += r.z; c.w += r.w;
        d.x += s.x; d.y += s.y; d.z += s.z; d.w += s.w;
    }
    float sum = a.x + a.y + a.z + a.w + b.x + b.y + b.z + b.w;
    sum += c.x + c.y + c.z + c.w + d.x + d.y + d.z + d.w;
    if (sum == 12345.678f) sums[0] = sum;
}
extern "C" __global__ void hold(long long clocks) {
    for (long long start = clock64(); clock64() - start < clocks;) {}
}
"""
HELD_CLOCKS = 4_000_000  # some 2 ms, in which the host queues what is timed


@dataclass(frozen=True)
class Result:
    """One competitor in one case."""

    case: str
    competitor: str
    rows: int
    classes: int
    dtype: str
    bytes_moved: int
    median_s: float
    best_s: float

    @property
    def gb_per_s(self) -> float:
        """Bytes that must be read and written, over the median."""
        return self.bytes_moved / self.median_s / 1e9


class Clock:
    """Times calls by events on the device.

    It is kept busy until a call is queued: what Python takes to queue it would count else.
    """

    def __init__(self, cupy: Any, timed: int) -> None:
        self._cupy = cupy
        self._timed = timed
        self._hold = cupy.RawModule(code=STREAM, options=()).get_function("hold")

    def times(self, call: Call) -> list[float]:
        """Return seconds of each call, after some that are not counted."""
        event = self._cupy.cuda.Event
        for i in range(COPIES):
            call(i)
        found = []
        for i in range(self._timed):
            start, stop = event(), event()
            self._hold((1,), (1,), (np.int64(HELD_CLOCKS),))
            start.record()
            call(i % COPIES)
            stop.record()
            stop.synchronize()
            found.append(self._cupy.cuda.get_elapsed_time(start, stop) / 1e3)
        return found


class Bench:
    """Runs all cases and keeps what was measured."""

    def __init__(self, cupy: Any, scale: float, timed: int) -> None:
        from fastdiv.backends import resolve

        self.cupy = cupy
        self.scale = scale
        self.clock = Clock(cupy, timed)
        self.kernels: Any = resolve("cuda")
        self.results: list[Result] = []

    def measure(
        self, case: str, competitor: str, rows: int, classes: int, dtype: str, moved: int,
        call: Call,
    ) -> None:  # fmt: skip
        """Time a competitor and say so."""
        self.keep(case, competitor, rows, classes, dtype, moved, self.clock.times(call))

    def keep(
        self, case: str, competitor: str, rows: int, classes: int, dtype: str, moved: int,
        times: list[float],
    ) -> None:  # fmt: skip
        """Keep what was timed, and say so."""
        found = Result(
            case, competitor, rows, classes, dtype, moved, statistics.median(times), min(times)
        )
        self.results.append(found)
        print(f"{case:<14} {dtype:<9}{classes:>7}  {competitor:<28}{found.gb_per_s:8.0f} GB/s")

    def stream(self) -> None:
        """Measure what memory gives: read alone, and copied."""
        n = max(1024, int(STREAM_BYTES * self.scale) // 4)
        x = self.cupy.ones(n, "float32")
        other = self.cupy.empty(n, "float32")
        sums = self.cupy.zeros(1, "float32")
        read = self.cupy.RawModule(code=STREAM, options=()).get_function("read")
        blocks = self.kernels.device.multiprocessors * 8
        arguments = (x, np.int64(n // 4), sums)
        self.measure(
            "stream", "read", n, 0, "float32", x.nbytes,
            lambda i: read((blocks,), (512,), arguments),
        )  # fmt: skip

        def copy(i: int) -> None:
            other[...] = x

        self.measure("stream", "copy", n, 0, "float32", 2 * x.nbytes, copy)
        size, from_pinned = pinned_copies(self.cupy, self.scale)
        self.measure("stream", "from pinned memory", size, 0, "uint8", size, from_pinned)

    def score(self) -> None:
        """Measure the full set of scores of every shape."""
        for dtype, c in SHAPES:
            itemsize = 2 if dtype == "bfloat16" else np.dtype(dtype).itemsize
            size = BYTES if c < MANY else FEW_ROWS_BYTES
            rows = max(1 if c >= MANY else 4, int(size * self.scale) // (itemsize * c))
            inputs = [self._logits(dtype, rows, c, seed) for seed in range(COPIES)]
            moved = rows * (c * itemsize + 4 + 22 + (4 if dtype == "float64" else 0))
            out = self._room(rows, dtype)
            self.measure(
                "score", "fastdiv", rows, c, dtype, moved,
                lambda i, inputs=inputs, out=out: self.kernels.score(
                    *inputs[i], Kind.LOGITS, *out
                ),
            )  # fmt: skip
            for name, call in peers(self.cupy, dtype, inputs):
                self.measure("score", name, rows, c, dtype, moved, call)

    def _logits(self, dtype: str, rows: int, c: int, seed: int) -> tuple[Any, Any]:
        random = self.cupy.random.RandomState(seed)
        x = random.standard_normal((rows, c), dtype="float32")
        y = random.randint(0, c, rows).astype("int32")
        if dtype == "bfloat16":
            return (x.view("uint32") >> 16).astype(BFLOAT16), y
        return x.astype(dtype), y

    def _room(self, rows: int, dtype: str) -> list[Any]:
        loss = "float64" if dtype == "float64" else "float32"
        names = (loss, "bool", "int32", "float32", "float32", "float32", "int32", "uint8")
        return [self.cupy.empty(rows, name) for name in names]

    def transitions(self) -> None:
        """Measure transitions of stored scores."""
        rows = max(64, int(PAIRED_ROWS * self.scale))
        random = self.cupy.random.RandomState(0)
        columns = []
        for _ in range(2):
            loss = random.standard_exponential(rows, dtype="float32")
            predicted = random.randint(0, 10, rows).astype("int32")
            labels = self.cupy.zeros(rows, "int32")
            flags = (0x80 | (predicted == 0).astype("uint8") << 5).astype("uint8")
            columns += [loss, predicted, labels, flags]
        counts = self.cupy.zeros(len(PairCount), "int64")
        sums = self.cupy.zeros((len(Cell), LIMBS_32), "int64")
        self.measure(
            "transitions", "fastdiv", rows, 10, "float32", 26 * rows,
            lambda i: self.kernels.transitions(*columns, counts, sums),
        )  # fmt: skip

    def dumps(self) -> None:
        """Measure Parquet dumps of the host, by the clock of the host."""
        for x in dumps(self.scale, TURNS if self.scale == 1 else 1):
            self.keep(
                f"dump, {x.layout}", x.competitor, x.rows, x.classes, "float32", x.moved, x.times
            )


def table(results: list[Result]) -> str:
    """Return a Markdown table: GB/s, the share of reading alone, how much faster fastdiv is."""
    best = max(r.gb_per_s for r in results if r.competitor == "read")
    lines = ["| case | dtype | classes | | GB/s | share of reading | fastdiv is faster by |",
             "|---|---|--:|---|--:|--:|--:|"]  # fmt: skip
    own: dict[tuple[str, str, int], Result] = {}
    for r in results:
        key = (r.case, r.dtype, r.classes)
        mine = own.setdefault(key, r)
        faster = "" if mine is r else f"{r.median_s / mine.median_s:.2f}×"
        lines.append(
            f"| {r.case} | {r.dtype} | {r.classes or ''} | {r.competitor} | {r.gb_per_s:,.0f} | "
            f"{r.gb_per_s / best:.0%} | {'' if r.case == 'stream' else faster} |"
        )
    return "\n".join(lines)


def _versions() -> dict[str, str]:
    found = {}
    for name in (
        "fastdiv",
        "numpy",
        "pyarrow",
        "cupy-cuda13x",
        "cupy-cuda12x",
        "torch",
        "triton",
        "liger-kernel",
        "quack-kernels",
    ):
        with suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def main(arguments: list[str] | None = None) -> Path:
    """Measure, print a table, and write all of it down; return where."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cuda", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="tiny sizes: does all still run?")
    parser.add_argument("-o", "--output", type=Path, help="where to write the JSON")
    asked = parser.parse_args(arguments)
    from fastdiv.backends import examination_of, resolve

    resolve("cuda")  # says what is missing
    import cupy

    bench = Bench(cupy, 1e-6 if asked.quick else 1.0, 3 if asked.quick else TIMED)
    bench.stream()
    bench.score()
    bench.transitions()
    bench.dumps()
    device = examination_of("cuda")
    now = datetime.now(UTC)
    name = "".join(x if x.isalnum() else "-" for x in device["devices"][0]["name"].lower())
    path = asked.output or RESULTS / f"cuda-{now:%Y-%m-%d}-{name}.json"
    content = {
        "schema_version": 1,
        "utc": now.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "machine": asdict(this_machine()),
        "gpu": device,
        "packages": _versions(),
        "measurements": [{**asdict(r), "gb_per_s": round(r.gb_per_s, 1)} for r in bench.results],
    }
    path.write_text(json.dumps(content, indent=1) + "\n")
    print(f"\n{table(bench.results)}\n\n{device['on']}. Written to {path}")
    return path


if __name__ == "__main__":
    main()

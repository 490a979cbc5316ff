"""Do time and memory stay in step as a dump grows: `python -m benchmarks.growth`.

One uncompressed file of 10 million samples of ten classes stands for every epoch, so that no disk
is needed for 1,000 million rows: `analyze` reads it again for each. Every size runs in a process of
its own, twice in turns; the shorter time counts. Takes minutes, and writes
`benchmarks/results/growth-<utc-date>-<cpu>.json`.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import data, record
from benchmarks.machine import this_machine, usable_cores
from benchmarks.measure import ROOT

SAMPLES = 10_000_000
CLASSES = 10
EPOCHS = (1, 10, 25, 50, 100)
TURNS = 2
FLAT_FROM = 10  # epochs: of fewer, two are not yet kept and buffers not yet full


def run_one(path: str, epochs: int, threads: int) -> dict[str, float]:
    """Analyze a file as so many epochs; return seconds and peak bytes. A small one comes first."""
    import time

    import fastdiv
    from benchmarks.worker import peak_bytes

    fastdiv.score(np.zeros((64, CLASSES), np.float32), np.zeros(64, np.int32), kind="logits")
    started = time.perf_counter()
    run = fastdiv.analyze(dict.fromkeys(range(epochs), path), scores="rolling", threads=threads)
    seconds = time.perf_counter() - started
    assert len(run.epochs) == epochs
    return {"seconds": seconds, "peak_bytes": peak_bytes()}


def straightness(rows: Sequence[float], seconds: Sequence[float]) -> float:
    """Return how far times are off the line through them, beside the times, at most.

    The line has a constant, what a run takes however few rows there are, and weighs all sizes
    alike.
    """
    x, y = np.asarray(rows, np.float64), np.asarray(seconds, np.float64)
    design = np.stack([np.ones_like(x), x], 1) / y[:, None]
    line, *_ = np.linalg.lstsq(design, np.ones_like(y), rcond=None)
    return float(np.abs(design @ line - 1).max())


def measure(path: Path, epochs: Sequence[int], turns: int, threads: int) -> list[dict[str, Any]]:
    """Return what each number of epochs took.

    The largest comes first: memory that the host of a virtual machine gives when it is touched
    for the first time, 2 s for 1.5 GB as seen, is then there for all.
    """
    found: dict[int, list[dict[str, float]]] = {e: [] for e in epochs}
    for _ in range(turns):
        for e in reversed(epochs):
            command = [sys.executable, "-m", "benchmarks.growth", "--one", str(path), str(e)]
            command += ["--threads", str(threads)]
            done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
            found[e].append(json.loads(done.stdout.splitlines()[-1]))
            print(f"{e} epochs: {found[e][-1]['seconds']:.2f} s", file=sys.stderr, flush=True)
    return [
        {
            "epochs": e,
            "seconds": round(min(one["seconds"] for one in of), 4),
            "peak_bytes": max(one["peak_bytes"] for one in of),
        }
        for e, of in found.items()
    ]


def main(argv: list[str] | None = None) -> int:
    """Measure all sizes, print them as Markdown, write them down."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.growth", description=__doc__)
    parser.add_argument("--samples", type=int, default=SAMPLES)
    parser.add_argument("--epochs", type=int, nargs="+", default=EPOCHS)
    parser.add_argument("--turns", type=int, default=TURNS)
    parser.add_argument("--threads", type=int, default=usable_cores())
    parser.add_argument("--cache", type=Path, default=data.cache_directory())
    parser.add_argument("-o", "--output", type=Path)
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    asked = parser.parse_args(argv)
    if asked.one:
        print(json.dumps(run_one(asked.one[0], int(asked.one[1]), asked.threads)))
        return 0
    (path,) = data.dump(asked.samples, CLASSES, 1, "plain", asked.cache).iterdir()
    epochs = sorted(asked.epochs)
    sizes = measure(path, epochs, asked.turns, asked.threads)
    rows = [size["epochs"] * asked.samples for size in sizes]
    from_flat = next((s for s in sizes if s["epochs"] >= FLAT_FROM), sizes[-1])
    machine, now = this_machine(), record.utc_now()
    content = {
        "utc": now.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "machine": asdict(machine),
        "packages": record.versions([]),
        "samples": asked.samples,
        "classes": CLASSES,
        "threads": asked.threads,
        "sizes": sizes,
        "off_linear": round(straightness(rows, [s["seconds"] for s in sizes]), 4),
        "memory_ratio": round(sizes[-1]["peak_bytes"] / from_flat["peak_bytes"], 4),
    }
    results = ROOT / "benchmarks" / "results"
    whole = asked.samples == SAMPLES and tuple(epochs) == EPOCHS
    place = results if whole else results / "local"
    output = asked.output or place / f"growth-{record.file_name(machine, now)}"
    record.write_json(output, content)
    print("| million rows | seconds | million rows/s | peak MB |\n|--:|--:|--:|--:|")
    for n, size in zip(rows, sizes, strict=True):
        print(
            f"| {n / 1e6:,.1f} | {size['seconds']:.2f} | {n / size['seconds'] / 1e6:.1f} "
            f"| {size['peak_bytes'] / 1e6:,.0f} |"
        )
    print(
        f"\nOff a straight line by {content['off_linear']:.1%} at most; peak memory of the largest "
        f"{content['memory_ratio']:.3f}× that of {from_flat['epochs']} epochs."
    )
    print(f"Written to {output}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())

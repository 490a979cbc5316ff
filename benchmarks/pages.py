"""How long a report takes, how large it is, and how soon it shows: `python -m benchmarks.pages`.

Makes a run of many epochs of synthetic predictions (100 x 1,000,000 x 10 unless told otherwise),
saves it, and in a process of its own loads it and writes the report; then opens that in headless
Chromium, where there is one, until the first picture is drawn. Prints a table as Markdown.

It needs the extra `test`, and 6 GB of disk.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.machine import this_machine

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FIRST_PICTURE = ".js-plotly-plot .main-svg"
BUILD = """
import resource, sys, time
import fastdiv
started = time.perf_counter()
fastdiv.load(sys.argv[1]).report(sys.argv[2])
peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(time.perf_counter() - started, peak_mb)
"""


def predictions(
    samples: int, classes: int, epochs: int, seed: int = 0
) -> Iterator[tuple[NDArray[np.float32], NDArray[np.int64]]]:
    """Yield logits (n, c) and labels (n,) of a model that learns, and grows too sure of itself."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, classes, samples)
    flipped = rng.random(samples) < 0.05
    labels = np.where(flipped, rng.integers(0, classes, samples), truth)
    base = rng.standard_normal((samples, classes), np.float32)
    skill = rng.random(samples, np.float32)
    for epoch in range(epochs):
        done = np.float32((epoch + 1) / epochs)
        logits = base + np.float32(0.3) * rng.standard_normal((samples, classes), np.float32)
        logits[np.arange(samples), truth] += 1 + 5 * done * skill
        yield logits * (1 + np.float32(2.5) * done), labels


def make_run(directory: Path, samples: int, classes: int, epochs: int) -> None:
    """Track the predictions, and save the run."""
    import fastdiv

    tracker = fastdiv.Tracker(kind="logits", classes=classes)
    ids = np.arange(samples)
    for logits, labels in predictions(samples, classes, epochs):
        tracker.update(logits, labels, ids)
        tracker.end_epoch()
    tracker.run().save(directory)


def seconds_to_show(page: Path) -> float | None:
    """Return how long a browser takes to the first picture; None where there is none."""
    browser = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if browser is None:
        return None
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        launched = play.chromium.launch(executable_path=browser)
        tab = launched.new_page()
        started = time.perf_counter()
        tab.goto(page.absolute().as_uri())
        tab.wait_for_selector(FIRST_PICTURE)
        took = time.perf_counter() - started
        launched.close()
    return took


def main(argv: list[str] | None = None) -> int:
    """Make the run, write the report, show it, and print what it took."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pages", description=__doc__)
    parser.add_argument("--samples", type=int, default=1_000_000)
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--run", type=Path, help="a saved run to take instead")
    asked = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as directory:
        run, page = asked.run, Path(directory) / "report.html"
        if run is None:
            run = Path(directory) / "run"
            make_run(run, asked.samples, asked.classes, asked.epochs)
        built = subprocess.run(
            [sys.executable, "-c", BUILD, str(run), str(page)],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        build_s, peak_mb = map(float, built.stdout.split())
        shown = seconds_to_show(page)
        print("| | seconds to build | peak MB | MB of the file | seconds to the first picture |")
        print("|---|--:|--:|--:|--:|")
        size = page.stat().st_size / 1e6
        what = f"{asked.epochs} epochs × {asked.samples:,} × {asked.classes}"
        what = what if asked.run is None else asked.run.name
        print(
            f"| {what} | {build_s:.1f} | {peak_mb:,.0f} | {size:.2f} | "
            f"{'no browser' if shown is None else f'{shown:.2f}'} |"
        )
    print(f"\n{this_machine().line()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

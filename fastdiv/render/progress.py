"""How far a scan is: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TimeRemainingColumn
from rich.text import Text

from fastdiv.plan import Plan, human_bytes
from fastdiv.sources import Source

LINE_EVERY_S = 5.0


class _Rows(ProgressColumn):
    """Rows read, and of how many where that is known."""

    def render(self, task: Task) -> Text:
        of = f" of {task.total:,.0f}" if task.total is not None else ""
        share = f" {task.percentage:>3.0f} %" if task.total is not None else ""
        return Text(f"{task.completed:,.0f}{of} rows{share}")


class _Rate(ProgressColumn):
    """GB of predictions, labels and ids a second."""

    def render(self, task: Task) -> Text:
        elapsed = task.elapsed or 0.0
        rate = task.fields["nbytes"] / elapsed / 1e9 if elapsed else 0.0
        return Text(f"{rate:.2f} GB/s")


class Bar:
    """A progress bar with rows, GB/s and the time left."""

    def __init__(self) -> None:
        self._bar = Progress(
            _Rows(),
            BarColumn(),
            _Rate(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            transient=True,
        )
        self._nbytes = 0

    def start(self, source: Source, plan: Plan) -> None:
        """Show an empty bar."""
        self._task = self._bar.add_task("", total=plan.rows, nbytes=0)
        self._bar.start()

    def advance(self, rows: int, nbytes: int) -> None:
        """Move the bar."""
        self._nbytes += nbytes
        self._bar.update(self._task, advance=rows, nbytes=self._nbytes)

    def finish(self) -> None:
        """Take the bar away."""
        self._bar.stop()


class Lines:
    """A line every few seconds."""

    def start(self, source: Source, plan: Plan) -> None:
        """Say what will be read."""
        self._plan = plan
        self._rows = self._nbytes = 0
        self._started = self._said = time.monotonic()
        rows = "rows" if plan.rows is None else f"{plan.rows:,} rows"
        print(f"reading {rows}, {human_bytes(plan.nbytes)}", file=sys.stderr)

    def advance(self, rows: int, nbytes: int) -> None:
        """Print a line if it is time for one."""
        self._rows += rows
        self._nbytes += nbytes
        now = time.monotonic()
        if now - self._said >= LINE_EVERY_S:
            self._said = now
            elapsed = now - self._started
            of = left = ""
            if (total := self._plan.rows) is not None:
                of = f" of {total:,}"
                left = f", {elapsed * (total / max(1, self._rows) - 1):.0f} s left"
            print(
                f"{self._rows:,}{of} rows, {self._nbytes / elapsed / 1e9:.2f} GB/s{left}",
                file=sys.stderr,
            )

    def finish(self) -> None:
        """Print nothing more."""

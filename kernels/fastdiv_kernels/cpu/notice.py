"""What is said on stderr where compiling takes long: what is compiled, and how far that is.

One line, rewritten on a terminal; elsewhere, and where something else draws on the terminal, one
plain line at the beginning. FASTDIV_QUIET=1 keeps it away.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

SLOW_S = 0.5  # of compiling, before anything is said
WHAT = "fastdiv: compiling kernels for this processor, once"


def quiet() -> bool:
    """Say whether nothing is to be said."""
    return os.environ.get("FASTDIV_QUIET", "0") not in ("", "0")


def tell(message: str) -> None:
    """Print a line."""
    if not quiet() and sys.stderr is not None:
        with suppress(OSError, ValueError):  # it may be closed
            print(f"fastdiv: {message}", file=sys.stderr, flush=True)


class Notice:
    """How far compiling is, in this process."""

    def __init__(self) -> None:
        self.kernels = 0
        self.seconds = 0.0
        self._shown = 0  # characters of a line that will be rewritten
        self._said = False
        self._drawing = threading.Lock()

    @contextmanager
    def compiling(self, name: str) -> Iterator[None]:
        """Count a kernel, and say so once compiling has taken long."""
        self.kernels += 1
        began = time.perf_counter()
        timer = threading.Timer(max(0.0, SLOW_S - self.seconds), self._show, (name,))
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()
            timer.join()
            self.seconds += time.perf_counter() - began
            self._erase()

    def _show(self, name: str) -> None:
        stream = sys.stderr
        if quiet() or stream is None:
            return
        with self._drawing, suppress(OSError, ValueError):
            # A progress bar puts itself in the place of stderr: it takes whole lines only.
            rewritable = stream.isatty() and stream is sys.__stderr__
            if rewritable:
                line = f"{WHAT}: {name}, the {_ordinal(self.kernels)}, {self.seconds:.0f} s so far"
                stream.write(f"\r{line}\x1b[K")
                stream.flush()
                self._shown = len(line)
            elif not self._said:
                self._said = True
                print(f"{WHAT}: {name} first", file=stream, flush=True)

    def _erase(self) -> None:
        with self._drawing, suppress(OSError, ValueError):
            if self._shown and sys.stderr is not None:
                sys.stderr.write("\r\x1b[K")
                sys.stderr.flush()
                self._shown = 0


def _ordinal(n: int) -> str:
    ending = "th" if n % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(n % 10, "th")
    return f"{n}{ending}"


compiling = Notice().compiling

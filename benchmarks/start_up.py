"""How soon a new process has its first result.

Each function takes a small `Dump` and returns what is timed: a call that starts an interpreter,
has it do the work and waits until it has ended. What fastdiv compiles is in its cache by then.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from benchmarks.dump_peers import duckdb_query

if TYPE_CHECKING:
    from benchmarks.data import Dump

Run = Callable[[], None]

ANALYZE = "import fastdiv, sys; print(fastdiv.analyze(sys.argv[1]).epochs['loss'])"
COMMAND = "import sys; from fastdiv.cli import main; sys.exit(main())"
SCORE = """
import numpy, fastdiv
x = numpy.ones((100, 10), numpy.float32)
print(fastdiv.score(x, numpy.zeros(100, numpy.int32), kind="logits").loss[0])
"""
DUCKDB = """
import duckdb, glob, sys
for file in sorted(glob.glob(sys.argv[1] + "/*.parquet")):
    print(duckdb.execute(sys.argv[2], [file]).fetchone())
"""


def analyze(dump: Dump) -> Run:
    return _python(ANALYZE, str(dump.path))


def command(dump: Dump) -> Run:
    return _python(COMMAND, "analyze", str(dump.path))


def score(dump: Dump) -> Run:
    return _python(SCORE)


def import_fastdiv(dump: Dump) -> Run:
    return _python("import fastdiv")


def duckdb(dump: Dump) -> Run:
    import duckdb as installed  # noqa: F401 - so that it is known to be missing

    return _python(DUCKDB, str(dump.path), duckdb_query(dump.classes))


def import_pyarrow(dump: Dump) -> Run:
    return _python("import pyarrow")


def _python(code: str, *arguments: str) -> Run:
    command = [sys.executable, "-c", code, *arguments]

    def run() -> None:
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)

    return run

"""Commands on damaged files, each where it is short of memory and of time, and how they ended.

The commands run in children of a server process (see fork_server.py).
"""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from base64 import b64decode, b64encode
from dataclasses import asdict, dataclass, field
from pathlib import Path

COMMAND = "fastdiv.cli:main"
LIMIT_S = 20.0  # what takes longer hangs
TOGETHER = 16  # cases that one child takes


@dataclass
class Case:
    """A command to run in a folder of its own.

    The folder is made and kept where there is something to see: a run, or a problem. Where there
    are no files to put into it, it is there already, and what is left in it is not looked at.
    """

    folder: str
    arguments: list[str]
    files: dict[str, str] | None = None  # name -> content, base64
    entry: str = COMMAND  # module:function, which finds the arguments in sys.argv
    limit_s: float = LIMIT_S
    together: int = TOGETHER

    @classmethod
    def of(cls, folder, files, *arguments, **options):
        """Make a case of files as bytes."""
        encoded = {name: b64encode(data).decode() for name, data in files.items()}
        return cls(str(folder), list(map(str, arguments)), encoded, **options)

    def keep(self):
        """Put the files where a person can look at them, if they are not there."""
        if self.files is not None and not os.path.exists(self.folder):
            os.mkdir(self.folder)
            for name, data in self.files.items():
                Path(self.folder, name).write_bytes(b64decode(data))


@dataclass
class Ended:
    """How a command ended."""

    code: int  # negative: the signal that ended it
    late: bool  # it was stopped, for it took too long
    out: str
    err: str
    left: list[str]  # files it left behind, beside a run that it reports
    taken: int  # bytes of memory beside what the server has, since its process began
    wall_s: float = field(compare=False, default=0.0)

    def problem(self, *names: str) -> str:
        """Return why this is not how a command may end on a damaged file, or nothing.

        It gives a result, or one line that says what is wrong with one of the files `names`.
        """
        if self.late:
            return f"hangs: stopped after {self.wall_s:.0f} s"
        if self.code < 0:
            return f"crash: {signal.Signals(-self.code).name}\n{self.err}"
        if "Traceback" in self.err:
            return f"traceback: {self.raised()}"
        if self.left:
            return f"leaves {self.left}, exit code {self.code}"
        said = [line for line in self.err.splitlines() if not is_progress(line)]
        if self.code == 0:
            if said:
                return f"exit code 0, but says {said}"
            return "" if self.out.strip() else "silence: exit code 0 without a result"
        if self.code != 2:
            return f"exit code {self.code}: {self.err}"
        if len(said) != 1 or not said[0].startswith("error: ") or not self.err.endswith("\n"):
            return f"exit code 2, but not with one line: {self.err!r}"
        if self.out:
            return f"exit code 2 after a result: {self.out!r}"
        if not any(name in said[0] for name in names):
            return f"a message that names no file: {said[0]}"
        return ""

    def raised(self) -> str:
        """Return what was raised, and through which lines of fastdiv."""
        found = re.findall(r'File "\S*/(fastdiv\w*/\S+)", line (\d+)', self.err)
        places = " > ".join(f"{name}:{line}" for name, line in found[-3:])
        return f"{self.err.strip().splitlines()[-1]} from {places}"


def is_progress(line):
    return line.startswith("reading ") or re.search(r" of .* rows.* GB/s", line) is not None


class Server:
    """The process whose children run the commands."""

    # OpenBLAS and jemalloc start a thread when they are loaded.
    no_threads = {  # noqa: RUF012
        "OPENBLAS_NUM_THREADS": "1", "JE_ARROW_MALLOC_CONF": "background_thread:false",
    }  # fmt: skip

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, Path(__file__).with_name("fork_server.py")],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env=os.environ | self.no_threads,
        )  # fmt: skip
        if self._process.stdout.readline() != "ready\n":
            self.close()
            raise RuntimeError("the server of damaged files did not start: see its stderr")

    def run(self, cases: list[Case]) -> list[Ended]:
        """Run commands and tell how each ended."""
        if not cases:
            return []
        with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
            json.dump([asdict(case) for case in cases], file)
            file.flush()
            print(file.name, file=self._process.stdin, flush=True)
            ended = {}
            while len(ended) < len(cases):
                line = self._process.stdout.readline()
                if not line:
                    raise RuntimeError("the server of damaged files has ended: see its stderr")
                number, found = json.loads(line)
                ended[number] = Ended(**found)
        return [ended[number] for number in range(len(cases))]

    def close(self) -> None:
        """End the process."""
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait()

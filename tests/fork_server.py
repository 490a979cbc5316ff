"""The process whose children run commands on damaged files; see damaged.py for its other side.

Importing fastdiv with its kernels costs 0.7 s, which is too much for thousands of files: this
process does it once and forks. It is started, not forked, from the tests, which have threads; it
has none itself, or a child could wait for ever for a lock that a thread held.

Forking and the page faults after it cost some 15 ms, several times what a command costs that soon
fails, so a child takes some commands one after another. When one ends it, the next child goes on
behind it.

A line on stdin names a file of cases, as JSON; a line on stdout tells how one ended.
"""

import ctypes
import faulthandler
import gc
import importlib
import json
import mmap
import os
import resource
import shutil
import signal
import struct
import sys
import tempfile
import threading
import time
import traceback
from base64 import b64decode
from contextlib import redirect_stderr, redirect_stdout, suppress
from dataclasses import asdict
from pathlib import Path

from damaged import Case, Ended

RUN = "run"  # where a command may leave a run, in its folder
ROOM_BYTES = 1 << 30  # address space a command may take beside what this process has
WORKERS = 2
AT = struct.Struct("qd")
TOLD_BYTES = 1 << 22
PR_SET_PDEATHSIG = 1


def main():
    """Run the cases of each file that is named on stdin."""
    faulthandler.enable()  # a crash says where it was
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})  # waited for by sigtimedwait
    home = Path.cwd()
    with tempfile.TemporaryDirectory() as folder, open(os.devnull, "w") as nowhere:
        os.chdir(folder)
        with redirect_stdout(nowhere), redirect_stderr(nowhere):
            warm()
        os.chdir(home)
    threads = os.listdir("/proc/self/task")
    if len(threads) > 1:
        raise RuntimeError(f"{len(threads)} threads run: what is forked from here may hang")
    gc.collect()
    gc.freeze()  # or collecting in children would copy all pages
    print("ready", flush=True)
    for line in sys.stdin:
        run_all([Case(**case) for case in json.loads(Path(line.rstrip("\n")).read_text())])


def warm():
    """Compile or load every kernel, and import what is imported late, on this one thread."""
    import numpy as np
    import second_reading  # noqa: F401
    from dumps import as_kind, make, whole, write

    from fastdiv.cli import main as command

    commands = [["inspect", "a.parquet"], ["analyze", "nothing.parquet"]]
    for dtype in (np.float16, np.float32, np.float64):
        dump = {e: as_kind(rows, "probs") for e, rows in make(n=9, dtype=dtype).items()}
        name = str(np.dtype(dtype))
        write(whole(dump), f"{name}.parquet")
        commands.append(["analyze", f"{name}.parquet", "--threads", "1", "-o", name])
    os.symlink("float32.parquet", "a.parquet")
    for arguments in commands:
        sys.argv = ["fastdiv", *arguments]
        with suppress(SystemExit):
            command()


def run_all(cases):
    """Run cases in children, and print how each ended, as JSON with its number."""
    waiting, start = [], 0
    while start < len(cases):
        numbers = range(len(cases))[start : start + cases[start].together]
        waiting.insert(0, list(numbers))
        start += len(numbers)
    running = []
    while waiting or running:
        while waiting and len(running) < WORKERS:
            running.append(Child(waiting.pop(), cases))
        signal.sigtimedwait({signal.SIGCHLD}, 0.5)
        for child in list(running):
            child.kill_if_late()
            if child.has_ended():
                running.remove(child)
                ended, rest = child.told()
                for found in ended.items():
                    print(json.dumps(found))
                if rest:
                    waiting.append(rest)
    sys.stdout.flush()


class Child:
    """A child that runs some cases, and what its parent knows of it."""

    def __init__(self, numbers, cases):
        self.numbers = numbers
        self.cases = [cases[number] for number in numbers]
        self.late = False
        self.code = 0
        self.at = mmap.mmap(-1, AT.size)  # which of its cases is under way, and since when
        self.at[:] = AT.pack(0, time.monotonic())
        self.ended = mmap.mmap(-1, TOLD_BYTES)  # how the others ended, as JSON lines
        sys.stdout.flush()
        self.pid = os.fork()
        if not self.pid:
            try:
                self.work()
                os._exit(0)
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(70)

    # In the child ----------------------------------------------------------------------------

    def work(self):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # not longer than its parent
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
        space, before = own_memory()
        resource.setrlimit(resource.RLIMIT_AS, (space + ROOM_BYTES, space + ROOM_BYTES))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        for i, case in enumerate(self.cases):
            self.at[:] = AT.pack(i, time.monotonic())
            os.chdir(prepared(case, os.getpid()))
            code = run_here(case)
            taken = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10) - before
            ended = self.how_ended(case, os.getpid(), code, max(0, taken))
            self.ended.write(f"{json.dumps(asdict(ended))}\n".encode())

    # In the parent ---------------------------------------------------------------------------

    def kill_if_late(self):
        i, started = AT.unpack(self.at)
        if not self.late and time.monotonic() > started + self.cases[i].limit_s:
            self.late = True
            os.kill(self.pid, signal.SIGKILL)

    def has_ended(self):
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        self.code = os.waitstatus_to_exitcode(status)
        return pid != 0

    def told(self):
        """Return {number: how it ended} and the numbers of the cases that no child has begun."""
        lines = self.ended[:].rstrip(b"\0").decode().splitlines()
        ended = dict(zip(self.numbers, map(json.loads, lines), strict=False))
        if len(lines) < len(self.cases):  # the child ended with this one
            found = self.how_ended(self.cases[len(lines)], self.pid, self.code)
            ended[self.numbers[len(lines)]] = asdict(found)
        shutil.rmtree(scratch(self.cases[0], self.pid), ignore_errors=True)
        return ended, self.numbers[len(ended) :]

    def how_ended(self, case, pid, code, taken=0):
        """Return how a case ended, and keep its folder if there is something to see."""
        folder = scratch(case, pid) if case.files is not None else Path(case.folder)
        out, err = ((folder / name).read_text(errors="replace") for name in ("stdout", "stderr"))
        left = contents(folder, case) if case.files is not None else []
        if code == 0 and (folder / RUN / "summary.json").is_file():
            left = [name for name in left if name != RUN]
        if case.files is not None and (code != 2 or left):
            folder.rename(case.folder)
        wall_s = time.monotonic() - AT.unpack(self.at)[1]
        return Ended(code, self.late, out, err, left, taken, wall_s)


def scratch(case, pid):
    return Path(case.folder).parent / f".child-{pid}"


def prepared(case, pid):
    """Return the folder to run a case in."""
    if case.files is None:
        return Path(case.folder)
    folder = scratch(case, pid)
    os.makedirs(folder / "tmp", exist_ok=True)
    for name in {*os.listdir(folder)} - {"tmp", *case.files}:  # of the case before
        (folder / name).unlink()
    for name, data in case.files.items():
        (folder / name).write_bytes(b64decode(data))
    return folder


def contents(folder, case):
    """Return what a command has put into its folder or its directory of temporary files."""
    mine = {"tmp", "stdout", "stderr", *case.files}
    return sorted({*os.listdir(folder)} - mine) + [f"tmp/{x}" for x in os.listdir(folder / "tmp")]


def own_memory():
    """Return the bytes of this process: its address space, and what is resident."""
    space, resident, *_ = Path("/proc/self/statm").read_text().split()
    return int(space) * resource.getpagesize(), int(resident) * resource.getpagesize()


def run_here(case):
    """Do what a new process would do: streams, the call, and waiting for threads."""
    os.environ["TMPDIR"] = os.path.abspath("tmp")
    tempfile.tempdir = None
    for number, name in ((0, os.devnull), (1, "stdout"), (2, "stderr")):
        flags = os.O_RDONLY if number == 0 else os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        opened = os.open(name, flags, 0o644)
        os.dup2(opened, number)
        os.close(opened)
    sys.argv = ["fastdiv", *case.arguments]
    module, _, function = case.entry.partition(":")
    code = 0
    try:
        getattr(importlib.import_module(module), function)()
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
        if isinstance(ended.code, str):
            print(ended.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
        code = 1
    for thread in threading.enumerate():
        if thread is not threading.main_thread() and not thread.daemon:
            thread.join()
    gc.collect()  # a run that was not saved is removed with the last reference to it
    sys.stdout.flush()
    sys.stderr.flush()
    return code


if __name__ == "__main__":
    main()

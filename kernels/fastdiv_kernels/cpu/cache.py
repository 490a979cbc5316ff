"""Machine code on disk: found by what it was made from, whole or not at all.

A directory for each stamp (sources of the kernels, versions, processor), in it a file for each
kernel and form of arguments. A file begins with a digest of the rest: one that was cut off or
changed counts as none. Files are written beside and put in place, so that processes may share a
directory. Where none can be written, code is compiled again by each process, and that is said.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import importlib.util
import json
import os
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import llvmlite
import llvmlite.binding as llvm
import numpy as np

from fastdiv_kernels.cpu.entry import HEADER, ITEMS, Form
from fastdiv_kernels.cpu.machine_code import Call, Code, text_of
from fastdiv_kernels.cpu.notice import compiling, tell
from fastdiv_kernels.places import cache_of_the_user

# Windows has none: there, several processes may compile the same at once.
LOCKS: Any = importlib.import_module("fcntl") if importlib.util.find_spec("fcntl") else None
PACKAGE = Path(__file__).parent.parent
DIGEST = 32  # bytes
MOST_STAMPS = 16  # directories of older versions and other processors that are kept
PATIENCE_S = 120.0  # that a process waits for what another compiles
NOT_OF_CODE = {"NUMBA_CACHE_DIR", "NUMBA_NUM_THREADS"}  # settings that code does not depend on


def stamp() -> str:
    """Return a digest of all that machine code is made from, but for kernel and arguments."""
    made_from = hashlib.blake2b(digest_size=16)
    for path in sorted(PACKAGE.rglob("*.py")):
        if path.is_relative_to(PACKAGE / "cuda"):
            continue
        source = path.read_bytes()
        made_from.update(f"{path.relative_to(PACKAGE).as_posix()} {len(source)}\n".encode())
        made_from.update(source)
    settings = sorted(
        (name, value)
        for name, value in os.environ.items()
        if name.startswith("NUMBA_") and name not in NOT_OF_CODE
    )
    features = llvm.get_host_cpu_features().flatten()
    versions = (
        sys.version_info[:2], sys.implementation.name, numba_version(), llvmlite.__version__,
        np.__version__, HEADER, ITEMS,
    )  # fmt: skip
    machine = (platform.machine(), llvm.get_process_triple(), llvm.get_host_cpu_name(), features)
    made_from.update(repr((versions, machine, settings)).encode())
    return made_from.hexdigest()


@functools.cache
def numba_version() -> str:
    """Return the version of Numba, which importing it would take 0.2 s to tell."""
    if "numba" in sys.modules:
        return str(sys.modules["numba"].__version__)
    found = importlib.util.find_spec("numba")
    for place in (found.submodule_search_locations or ()) if found else ():
        with suppress(OSError, ValueError, IndexError):
            said = (Path(place) / "_version.py").read_text().split("'''")[1]
            return str(json.loads(said)["version"])
    from importlib.metadata import version

    return version("numba")


def directories() -> list[Path]:
    """Return where code may be, in the order in which they are tried."""
    if os.environ.get("NUMBA_CACHE_DIR"):
        places = [Path(os.environ["NUMBA_CACHE_DIR"]) / "fastdiv"]
    else:
        of_the_user = cache_of_the_user()
        places = [Path(__file__).parent / "__pycache__" / "kernels"]
        places += [] if of_the_user is None else [of_the_user / "kernels"]
    return [*places, _temporary()]


def _temporary() -> Path:
    user = os.getuid() if hasattr(os, "getuid") else "user"
    return Path(tempfile.gettempdir()) / f"fastdiv-kernels-{user}"


def safe(directory: Path) -> bool:
    """Say whether nobody else can have put code there: temporary directories are everybody's."""
    if not hasattr(os, "getuid") or directory != _temporary():
        return True
    try:
        status = directory.lstat()
    except OSError:
        return False
    return status.st_uid == os.getuid() and (status.st_mode & 0o170022) == 0o040000


class Cache:
    """Machine code of kernels, on disk."""

    def __init__(self) -> None:
        self.stamp = stamp()
        self._directories = directories()
        self._told = False

    def find_or_make(
        self, function: Callable[..., Any], form: Form, make: Callable[[], Code]
    ) -> Call | None:
        """Return what calls a kernel; None where only Numba can."""
        name, brief = function.__name__, "brief" in function.__dict__
        digest = hashlib.blake2b(digest_size=16)
        digest.update(f"{function.__module__}.{function.__qualname__}{text_of(form)}".encode())
        source = Path(function.__code__.co_filename)
        if not source.is_relative_to(PACKAGE):  # all else is in the stamp
            try:
                digest.update(source.read_bytes())
            except OSError:  # nobody could tell whether it was changed
                with compiling(name):
                    return make().load(form, brief)
        file = f"{self.stamp}/{name}-{digest.hexdigest()}"
        code = self._read(file)
        if code is None:
            with compiling(name), self._alone(file):
                code = self._read(file)  # another process may have made it meanwhile
                if code is None:
                    code = make()
                    self._write(file, code)
        return code.load(form, brief)

    def examination(self) -> dict[str, Any]:
        """Return where code is kept, how much there is of this version, and if it can be added to.

        Nothing is written to find out.
        """
        found = []
        for directory in self._directories:
            sizes = [path.stat().st_size for path in (directory / self.stamp).glob("*-*")]
            there = next((p for p in (directory, *directory.parents) if p.exists()), directory)
            found.append(
                {
                    "directory": str(directory),
                    "writable": os.access(there, os.W_OK) and safe(directory),
                    "kernels": len(sizes),
                    "bytes": sum(sizes),
                }
            )
        used = next((one for one in found if one["kernels"]), None)
        return used or next((one for one in found if one["writable"]), found[0])

    def _read(self, file: str) -> Code | None:
        for directory in self._directories:
            with suppress(OSError):
                if safe(directory) and (code := unpacked((directory / file).read_bytes())):
                    return code
        return None

    def _write(self, file: str, code: Code) -> None:
        why = None
        for directory in self._directories:
            try:
                _prepare(directory)
                _put(directory / file, packed(code))
            except OSError as error:
                why = why or error
                continue
            _forget_old(directory, self.stamp)
            if directory == _temporary():
                self._tell_once(f"compiled kernels are kept in {directory}: {why}")
            return
        self._tell_once(f"compiled kernels cannot be kept, each process makes them again: {why}")

    def _tell_once(self, message: str) -> None:
        if not self._told:
            self._told = True
            tell(f"{message}; NUMBA_CACHE_DIR names another directory")

    @contextmanager
    def _alone(self, file: str) -> Iterator[None]:
        """Keep other processes from compiling the same meanwhile, where the system can."""
        lock = None
        for directory in self._directories if LOCKS is not None else ():
            try:
                _prepare(directory)
                (directory / file).parent.mkdir(exist_ok=True)
                lock = (directory / f"{file}.lock").open("wb")
                break
            except OSError:
                continue
        if lock is None:
            yield
            return
        with lock:
            _wait_for(lock.fileno())
            try:
                yield
            finally:
                with suppress(OSError):
                    os.unlink(lock.name)


def _wait_for(lock: int) -> None:
    """Wait for a lock, but not for ever: what it keeps from being done twice may be done twice."""
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until:
        try:
            LOCKS.flock(lock, LOCKS.LOCK_EX | LOCKS.LOCK_NB)
        except BlockingIOError:
            time.sleep(0.02)
        except OSError:  # a file system without locks
            return
        else:
            return


def _prepare(directory: Path) -> None:
    directory.mkdir(mode=0o700 if directory == _temporary() else 0o777, parents=True, exist_ok=True)
    if not safe(directory):
        raise PermissionError(f"others can write to {directory}")


def _put(path: Path, content: bytes) -> None:
    """Write a file beside and put it in place; leave nothing where that fails."""
    path.parent.mkdir(exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.urandom(8).hex()}")
    try:
        with beside.open("xb") as file:
            file.write(content)
        os.replace(beside, path)
    except BaseException:
        with suppress(OSError):
            beside.unlink()
        raise


def _forget_old(directory: Path, current: str) -> None:
    """Remove code that was made longest ago, of versions and processors long gone."""
    with suppress(OSError):
        stamps = [path for path in directory.iterdir() if path.name != current]
        stamps.sort(key=lambda path: path.stat().st_mtime, reverse=True)
        for path in stamps[MOST_STAMPS - 1 :]:
            shutil.rmtree(path, ignore_errors=True)


def packed(code: Code) -> bytes:
    """Return code as a file holds it."""
    head = json.dumps([code.entry, code.result, code.needs]).encode()
    content = len(head).to_bytes(4, "little") + head + code.machine_code
    return hashlib.blake2b(content, digest_size=DIGEST).digest() + content


def unpacked(file: bytes) -> Code | None:
    """Return the code of a file; None where it is damaged."""
    digest, content = file[:DIGEST], file[DIGEST:]
    if hashlib.blake2b(content, digest_size=DIGEST).digest() != digest:
        return None
    at = 4 + int.from_bytes(content[:4], "little")
    entry, (kind, n), needs = json.loads(content[4:at])
    return Code(entry, (kind, n), tuple(needs), content[at:])

"""Files: on this machine, or in another file system and read over a network."""

from __future__ import annotations

import io
import os
import threading
import weakref
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.fs

from fastdiv.errors import DataError
from fastdiv.sources.files.stream import Stream
from fastdiv.sources.files.transfers import Transfers

FAILURES = Exception  # whatever a file system raises: those of fsspec have errors of their own
CREDENTIALS = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS",
    "gcs": "GOOGLE_APPLICATION_CREDENTIALS",
    "abfs": "AZURE_STORAGE_ACCOUNT and what DefaultAzureCredential looks for",
    "abfss": "AZURE_STORAGE_ACCOUNT and what DefaultAzureCredential looks for",
}
REFUSED = ("denied", "credential", "403", "401", "forbidden", "unauthorized", "permission", "token")


class UnreadError(OSError):
    """Bytes of a remote file cannot be had; the message says why."""


def refusal(error: BaseException, name: str) -> str:
    """Return the first line of an error of a file system, and what to set if it let nobody in."""
    text = str(error).strip().split("\n")[0]
    hint = CREDENTIALS.get(name.partition("://")[0].lower())
    if hint is not None and any(word in text.lower() for word in REFUSED):
        text += f": give credentials in the environment ({hint})"
    return text


class LocalFile:
    """A file on this machine."""

    def __init__(self, path: str) -> None:
        self.name = self.path = path

    @property
    def whole_name(self) -> str:
        """What finds it again from anywhere."""
        return os.path.abspath(self.path)

    def size(self) -> int:
        """Return how many bytes it has."""
        return os.path.getsize(self.path)

    def check(self) -> None:
        """Do nothing: what is open stays as it is where tools are sane."""

    def begins(self, size: int) -> bytes:
        """Return its first bytes."""
        with self.open() as file:
            return file.read(size)

    def open(self) -> BinaryIO:
        """Open it for reading, at any place."""
        return open(self.path, "rb")

    def arrow(self) -> Any:
        """Open it for Arrow."""
        return pa.OSFile(self.path)

    def handle(self) -> None:
        """Return nothing: it is opened when it is read."""


class RemoteFile:
    """A file of a file system of Arrow.

    It is taken to be what it was when it was opened first: where it is another later, that is
    an error.
    """

    def __init__(
        self, name: str, path: str, filesystem: pa.fs.FileSystem, transfers: Transfers
    ) -> None:
        self.name = self.whole_name = name
        self.path = path
        self.filesystem = filesystem
        self.transfers = transfers
        self.found: tuple[int, Any] | None = None  # its size, and what changes when it does
        self._lock = threading.Lock()
        self._handle: weakref.ref[Handle] | None = None

    def handle(self) -> Handle:
        """Return what reads it, which is open as long as somebody holds it."""
        with self._lock:
            handle = None if self._handle is None else self._handle()
            if handle is None:
                handle = Handle(self)
                self._handle = weakref.ref(handle)
            return handle

    def size(self) -> int:
        """Return how many bytes it had when it was opened first."""
        if self.found is None:
            self.handle().open()
        assert self.found is not None
        return self.found[0]

    def begins(self, size: int) -> bytes:
        """Return its first bytes."""
        return self.handle().read(0, min(size, self.size()))

    def check(self) -> None:
        """Refuse a file that is no longer as it was."""
        Handle(self).open()

    def open(self) -> BinaryIO:
        """Open it for reading, at any place, in small pieces."""
        # In an error of another kind, for `zipfile` takes this one for no archive.
        opened: Any = io.BufferedReader(NamedStream(self))
        return opened  # type: ignore[no-any-return]

    def arrow(self) -> Any:
        """Open it for Arrow."""
        return pa.PythonFile(Stream(self.handle(), self.size(), self.transfers), "r")

    def at_places(self) -> Any:
        """Open it for Arrow, to read only what is asked for, when it is."""
        try:
            return self.filesystem.open_input_file(self.path)
        except FAILURES as error:
            raise UnreadError(refusal(error, self.name)) from error

    def tail(self, size: int) -> bytes:
        """Return its last bytes, all where there are fewer."""
        whole = self.size()
        return self.handle().read(max(0, whole - size), whole)


class NamedStream(Stream):
    """A stream that says itself which file cannot be read."""

    def __init__(self, file: RemoteFile) -> None:
        super().__init__(file.handle(), file.size(), file.transfers)
        self._name = file.name

    def read(self, size: int | None = -1) -> bytes:
        """Return the next bytes."""
        try:
            return super().read(size)
        except OSError as error:
            raise DataError(f"{self._name}: cannot be read: {error}") from error


class Handle:
    """A remote file that is open; any thread may read it."""

    def __init__(self, file: RemoteFile) -> None:
        self._file = file
        self._lock = threading.Lock()
        self._opened: Any = None
        handler = getattr(file.filesystem, "handler", None)
        # Files of fsspec are read by one thread at a time, and more than is asked for.
        self._fsspec = handler.fs if isinstance(handler, pa.fs.FSSpecHandler) else None

    def open(self) -> Any:
        """Open the file if it is not; UnreadError where it is no longer what it was."""
        with self._lock:
            if self._opened is None:
                file = self._file
                try:
                    if self._fsspec is not None:
                        opened = self._fsspec
                        size = int(opened.size(file.path))
                        found = size, opened.ukey(file.path)
                    else:
                        opened = file.filesystem.open_input_file(file.path)
                        found = opened.size(), self._tag(opened)
                except FAILURES as error:
                    raise UnreadError(refusal(error, file.name)) from error
                file.found = file.found or found
                if found != file.found:
                    raise UnreadError(
                        f"it was written over while it was read: it had {file.found[0]} bytes and "
                        f"has {found[0]}"
                        if found[0] != file.found[0]
                        else "it was written over while it was read"
                    )
                self._opened = opened
            return self._opened

    def _tag(self, opened: Any) -> Any:
        """Return what changes where a file is written over."""
        told = opened.metadata() or {}
        tag = next((v for k, v in told.items() if k.lower() in ("etag", b"etag")), None)
        return tag or self._file.filesystem.get_file_info(self._file.path).mtime_ns

    def read(self, start: int, stop: int) -> bytes:
        """Return some bytes, all of them."""
        opened = self.open()
        try:
            if self._fsspec is None:
                data = opened.read_at(stop - start, start)
            else:
                data = opened.cat_file(self._file.path, start=start, end=stop)
        except FAILURES as error:
            raise UnreadError(
                f"bytes {start} to {stop} cannot be had: {refusal(error, self._file.name)}"
            ) from error
        if len(data) != stop - start:
            raise UnreadError(
                f"it ends at byte {start + len(data)}, but had {self._file.size()} bytes: it was "
                "cut or written over"
            )
        return bytes(data)


File = LocalFile | RemoteFile


def as_file(file: File | str | os.PathLike[str]) -> File:
    """Return a file; a path is that of one on this machine."""
    return LocalFile(os.fspath(file)) if isinstance(file, str | os.PathLike) else file

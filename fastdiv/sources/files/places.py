"""Places: from paths, URIs and patterns to files, on this machine or in a file system of Arrow.

Whatever is not on this machine is named by its URI, without secrets; a name is as good as a path
wherever one is taken here.
"""

from __future__ import annotations

import fnmatch
import glob
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlencode

import pyarrow as pa
import pyarrow.fs

from fastdiv.errors import UsageError
from fastdiv.sources.files.file import FAILURES, File, LocalFile, RemoteFile, refusal
from fastdiv.sources.files.transfers import Transfers

URI = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]+)://([^/?]*)/?([^?]*)(?:\?(.*))?", re.DOTALL)
SHOWN = ("region", "scheme", "endpoint_override", "use_tls", "enable_tls")  # parameters: no secrets
SCHEMES = {"gcs": "gs"}  # of what Arrow calls its file systems otherwise
NO_ROOT = ("s3", "gcs", "abfs", "subtree")  # no path of theirs begins with a slash
FileType = pa.fs.FileType

Folder = tuple[str, list[str], list[str]]  # its name, and those of folders and files in it


def is_uri(path: str) -> bool:
    """Whether a path says in which file system it is."""
    return URI.fullmatch(path) is not None


def on_this_machine(output: str | os.PathLike[str]) -> Path:
    """Return where results are written; a URI is refused, not taken for a path."""
    if isinstance(output, str) and is_uri(output):
        raise UsageError(f"{output}: results are written to this machine: give a path, and copy it")
    return Path(output)


@dataclass(frozen=True, slots=True)
class Root:
    """A file system, and how what lies in it is named."""

    filesystem: pa.fs.FileSystem
    within: str  # the path that `shown` stands for
    shown: str
    query: str

    def path(self, rest: str) -> str:
        """Return the path of what lies below."""
        return f"{self.within}{rest}".rstrip("/") or self.within

    def name(self, rest: str) -> str:
        """Name what lies below."""
        return f"{self.shown}{rest}{self.query}"


class Places:
    """Where paths lie: on this machine, in the file system of their URI, or in the given one."""

    def __init__(self, filesystem: Any = None) -> None:
        self.transfers = Transfers()
        self._roots: dict[tuple[str, str, str], Root] = {}
        self._infos: dict[str, Any] = {}
        self._given = None if filesystem is None else _given(filesystem)
        self._below = ""  # the directory of this machine that is given as a file system
        if self._given is not None and (local := _local(self._given.filesystem)) is not None:
            self._given, self._below = None, local
        if self._given is not None:  # where paths may begin with a slash, they lie below it
            at_root = f"{self._given.shown}/"
            self._from_root = Root(self._given.filesystem, "/", at_root, "")

    @property
    def given(self) -> pa.fs.FileSystem | None:
        """The file system that was given; None: none that is not of this machine."""
        return None if self._given is None else self._given.filesystem

    # -- names -----------------------------------------------------------------------------

    def name(self, path: str) -> str:
        """Return the name of a path that was given; of one on this machine it is the path."""
        if self._given is not None:
            return f"{self._given.shown}{self._inside(path, self._given)}"
        uri = URI.fullmatch(path)
        if uri is None:
            return os.path.join(self._below, path) if self._below else path
        scheme, authority, rest, query = uri.groups()
        if scheme.lower() == "file":
            if authority not in ("", "localhost"):
                raise UsageError(f"{path}: a file of another machine cannot be read")
            return unquote(f"/{rest}")
        root = self._root(scheme.lower(), authority, query or "")
        return root.name(re.sub("/+", "/", rest).strip("/"))

    def _inside(self, path: str, root: Root) -> str:
        """Return a path within the given file system, which may be named as a whole."""
        handler = getattr(root.filesystem, "handler", None)
        if path.startswith(root.shown):
            path = path.removeprefix(root.shown)
        if isinstance(handler, pa.fs.FSSpecHandler):
            path = str(handler.fs._strip_protocol(path))
        if is_uri(path):
            raise UsageError(f"{path}: with filesystem, give paths in it and no URI")
        whole = path.startswith("/") and root.filesystem.type_name not in NO_ROOT
        return "/" * whole + re.sub("/+", "/", path).strip("/")

    def _root(self, scheme: str, authority: str, query: str) -> Root:
        user, at, host = authority.rpartition("@")
        shown_user = user.partition(":")[0] if not scheme.startswith("s3") else ""
        shown = f"{scheme}://{f'{shown_user}@' if at and shown_user else ''}{host}/"
        known = urlencode([(k, v) for k, v in parse_qsl(query) if k in SHOWN], safe=":/")
        key = scheme, shown, known
        if key not in self._roots:
            uri = f"{scheme}://{authority}" + (f"?{query}" if query else "")
            filesystem, within = _filesystem(uri, shown)
            within = within.rstrip("/") + "/" if within.strip("/") else within
            self._roots[key] = Root(filesystem, within, shown, f"?{known}" * bool(known))
        return self._roots[key]

    def _split(self, name: str) -> tuple[Root, str] | None:
        """Return the file system of a name, and what lies in it; None: it is on this machine."""
        if self._given is not None:
            rest = name.removeprefix(self._given.shown)
            return (self._from_root, rest[1:]) if rest[:1] == "/" else (self._given, rest)
        uri = URI.fullmatch(name)
        if uri is None:
            return None
        scheme, authority, rest, query = uri.groups()
        return self._root(scheme, authority, query or ""), rest

    def path(self, name: str) -> str:
        """Return a name without what belongs to its file system: only directories and a name."""
        split = self._split(name)
        return name if split is None else f"{split[0].shown}{split[1]}"

    def whole(self, name: str) -> str:
        """Return a name as an absolute path, to be compared with others."""
        split = self._split(name)
        return os.path.abspath(name if split is None else f"/{split[0].shown}{split[1]}")

    def real(self, name: str) -> str:
        """Return what is the same for all names of a file."""
        return os.path.realpath(name) if self._split(name) is None else name

    def below(self, folder: str, name: str) -> str:
        """Name what lies in a folder."""
        split = self._split(folder)
        if split is None:
            return os.path.join(folder, name)
        return split[0].name(f"{split[1]}/{name}".lstrip("/"))

    # -- what is there ---------------------------------------------------------------------

    def at(self, name: str) -> File:
        """Return the file of a name."""
        split = self._split(name)
        if split is None:
            return LocalFile(name)
        root, rest = split
        return RemoteFile(name, root.path(rest), root.filesystem, self.transfers)

    def exists(self, name: str) -> bool:
        """Whether there is a file or directory of a name."""
        split = self._split(name)
        return os.path.exists(name) if split is None else self._type(name) != FileType.NotFound

    def is_dir(self, name: str) -> bool:
        """Whether there is a directory of a name."""
        split = self._split(name)
        return os.path.isdir(name) if split is None else self._type(name) == FileType.Directory

    def is_file(self, name: str) -> bool:
        """Whether there is a file of a name."""
        split = self._split(name)
        return os.path.isfile(name) if split is None else self._type(name) == FileType.File

    def _type(self, name: str) -> Any:
        if name not in self._infos:
            root, rest = self._split(name)  # type: ignore[misc]
            if not rest:
                return FileType.Directory
            try:
                self._infos[name] = root.filesystem.get_file_info(root.path(rest)).type
            except FAILURES as error:
                raise UsageError(f"{name}: cannot be reached: {refusal(error, name)}") from error
        return self._infos[name]

    def has_magic(self, name: str) -> bool:
        """Whether a name is a pattern."""
        split = self._split(name)
        return glob.has_magic(name if split is None else split[1])

    def escape(self, name: str) -> str:
        """Return a pattern that matches a name only."""
        split = self._split(name)
        return glob.escape(name) if split is None else split[0].name(glob.escape(split[1]))

    def matches(self, pattern: str) -> list[str]:
        """Return what a pattern matches, in any order."""
        split = self._split(pattern)
        if split is None:
            return glob.glob(pattern, recursive=True)
        root, rest = split
        found = [""]
        parts = rest.split("/")
        for i, part in enumerate(parts):
            if part == "**":
                folders = i + 1 < len(parts)
                found = [f for top in found for f in (top, *self._deep(root, top, folders))]
            elif glob.has_magic(part):
                test = re.compile(fnmatch.translate(part)).match
                found = [
                    f"{top}/{name}".lstrip("/")
                    for top in dict.fromkeys(found)
                    for name, type_ in self._listed(root, top, False)
                    if test(name) and (name[0] != "." or part[0] == ".")
                    and (i + 1 == len(parts) or type_ == FileType.Directory)
                ]  # fmt: skip
            else:
                found = [f"{top}/{part}".lstrip("/") for top in dict.fromkeys(found)]
        names = [root.name(rest) for rest in dict.fromkeys(found) if rest]
        return [name for name in names if self.exists(name)]

    def _deep(self, root: Root, top: str, folders: bool) -> Iterator[str]:
        """Yield all that lies in a folder at any depth, or all folders; none that is hidden."""
        for name, type_ in self._listed(root, top, True):
            hidden = any(part.startswith(".") for part in name.split("/"))
            if not hidden and (not folders or type_ == FileType.Directory):
                yield f"{top}/{name}".lstrip("/")

    def _listed(self, root: Root, rest: str, deep: bool) -> list[tuple[str, Any]]:
        """List what lies in a folder, relative to it, with its type; nothing where it is none."""
        path = root.path(rest)
        try:
            selector = pa.fs.FileSelector(path, allow_not_found=True, recursive=deep)
            infos = root.filesystem.get_file_info(selector)
        except NotADirectoryError:
            return []
        except FAILURES as error:
            name = root.name(rest)
            raise UsageError(f"{name}: cannot be listed: {refusal(error, name)}") from error
        found = []
        for info in infos:
            name = info.path.strip("/").removeprefix(path.strip("/")).strip("/")
            if name:
                self._infos[root.name(f"{rest}/{name}".lstrip("/"))] = info.type
                found.append((name, info.type))
        return found

    def walk(self, folder: str) -> Iterator[Folder]:
        """Walk as `os.walk` does: names of folders that are taken away are not gone into."""
        split = self._split(folder)
        if split is None:
            yield from os.walk(folder)
            return
        inside: dict[str, tuple[list[str], list[str]]] = {"": ([], [])}
        for name, type_ in self._listed(*split, True):
            parts = name.split("/")
            above = ["/".join(parts[:i]) for i in range(len(parts))]
            for folder_, part in zip(above[:-1], parts[:-1], strict=True):  # some are not listed
                folders, _ = inside.setdefault(folder_, ([], []))
                if part not in folders:
                    folders.append(part)
            folders, names = inside.setdefault(above[-1], ([], []))
            kind = folders if type_ == FileType.Directory else names
            if parts[-1] not in kind:
                kind.append(parts[-1])
        waiting = [""]
        while waiting:
            at = waiting.pop()
            folders, names = inside.get(at, ([], []))
            yield self.below(folder, at) if at else folder, folders, names
            waiting += [f"{at}/{name}".lstrip("/") for name in reversed(folders)]


def _filesystem(uri: str, shown: str) -> tuple[pa.fs.FileSystem, str]:
    """Return the file system of a URI, by Arrow, or by fsspec where only that knows it."""
    try:
        found: tuple[pa.fs.FileSystem, str] = pa.fs.FileSystem.from_uri(uri)
        return found
    except FAILURES as error:
        why = error
    if "unrecognized" in str(why).lower():
        try:
            return pa.fs.FileSystem.from_uri(f"fsspec+{uri}")  # type: ignore[no-any-return]
        except FAILURES:
            scheme = uri.partition(":")[0]
            raise UsageError(
                f"{shown}: no file system is known for {scheme}://: there are s3, gs, abfs, hdfs "
                "and file, those of fsspec where it is installed, and in Python filesystem="
            ) from None
    raise UsageError(f"{shown}: cannot be reached: {refusal(why, shown)}") from why


def _given(filesystem: Any) -> Root:
    """Return a file system that the caller gives, of Arrow or fsspec."""
    if not isinstance(filesystem, pa.fs.FileSystem):
        fsspec: Any = sys.modules.get("fsspec")  # whoever has one of its has imported it
        if fsspec is None or not isinstance(filesystem, fsspec.AbstractFileSystem):
            raise UsageError(f"filesystem must be one of pyarrow.fs or fsspec, not {filesystem!r}")
        if type(filesystem).__name__ == "LocalFileSystem":
            filesystem = pa.fs.LocalFileSystem()
        else:
            filesystem = pa.fs.PyFileSystem(pa.fs.FSSpecHandler(filesystem))
    return Root(filesystem, "", _shown(filesystem), "")


def _shown(filesystem: pa.fs.FileSystem) -> str:
    """Return how paths in a file system begin, as far as it is known."""
    if isinstance(filesystem, pa.fs.SubTreeFileSystem):
        return f"{_shown(filesystem.base_fs)}{filesystem.base_path.strip('/')}/"
    type_ = str(filesystem.type_name)
    handler = getattr(filesystem, "handler", None)
    if isinstance(handler, pa.fs.FSSpecHandler):
        protocol = handler.fs.protocol
        type_ = protocol if isinstance(protocol, str) else protocol[0]
    scheme = quote(SCHEMES.get(type_, type_.rpartition("::")[2]), safe="+").replace("%", ".")
    return f"{scheme.replace('_', '-')}://"


def _local(filesystem: pa.fs.FileSystem) -> str | None:
    """Return the directory of this machine that a file system is, "" of all; None: it is none."""
    if isinstance(filesystem, pa.fs.LocalFileSystem):
        return ""
    if isinstance(filesystem, pa.fs.SubTreeFileSystem):
        above = _local(filesystem.base_fs)
        return None if above is None else os.path.join(above, filesystem.base_path)
    return None

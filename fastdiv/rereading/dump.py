"""Dump: the files that a run was made from, as far as they are there and as they were."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from fastdiv.errors import DataError, UsageError
from fastdiv.sources import Asked
from fastdiv.sources.container import Container
from fastdiv.sources.files.file import File, LocalFile
from fastdiv.sources.files.places import Places
from fastdiv.sources.files.transfers import READERS
from fastdiv.sources.formats import open_file

if TYPE_CHECKING:
    from fastdiv.run import Run

Part = dict[str, Any]  # what the summary of a run says of a file


class Dump:
    """The files of a run.

    Parameters
    ----------
    run : Run
    remote : bool
        Look also for files that are not on this machine: what nobody asked for is not worth
        waiting for a network.

    Attributes
    ----------
    parts : list of dict
        What the run says of those that are there.
    """

    def __init__(self, run: Run, remote: bool) -> None:
        self._said: dict[str, Any] | None = run.summary.get("dump")
        self._places = Places(run.filesystem)
        self._files: dict[str, File] = {}
        every = [p for p in (self._said or {}).get("parts", []) if p["path"] is not None]
        with ThreadPoolExecutor(READERS) as pool:
            there = list(pool.map(lambda part: self._is_there(part, remote), every))
        self.parts = [part for part, is_there in zip(every, there, strict=True) if is_there]

    def _is_there(self, part: Part, remote: bool) -> bool:
        try:
            file = self._places.at(self._places.name(part["path"]))
            if not remote and not isinstance(file, LocalFile):
                return False
            self._files[part["path"]] = file
            return self._places.is_file(file.name) and file.size() == part["bytes"]
        except (OSError, UsageError, DataError):
            return False

    def why_not(self) -> str:
        """Say why it is not there."""
        if self._said is None:
            return "the run does not say which files it was made from: analyze them again"
        gone = [part["path"] or "a part" for part in self._said["parts"] if part not in self.parts]
        if not any(part["path"] for part in self._said["parts"]):
            return "the run was not made from files"
        return f"{gone[0]} is not there any more, or not as it was"

    def open(self, part: Part) -> Container:
        """Open a file as it was opened for the run."""
        assert self._said is not None
        asked = Asked(**self._said["asked"], filesystem=self._places.given)
        return open_file(self._files[part["path"]], asked)

"""Tracked: what a tracker holds, the epochs that have ended and the one under way."""

from __future__ import annotations

import os
import shutil
import tempfile
import uuid
import weakref
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from fastdiv.batch import Chunk
from fastdiv.errors import UsageError
from fastdiv.scan import Options, Scan
from fastdiv.scoring import kind_of
from fastdiv.shares import SharedScan
from fastdiv.sources import Layout
from fastdiv.sources.arrays import IDS, array_layout, as_record_batch
from fastdiv.sources.fields import is_integer, is_string, is_uuid, plain_type
from fastdiv_kernels.contract import BFLOAT16, Backend, dtype_name

STATE_VERSION = 1
UNDER_WAY = 0  # the number of the epoch under way, which has none yet
ANY_ID = {
    "integers": pa.array([0]),
    "unsigned 64-bit integers": pa.array([0], pa.uint64()),
    "strings": pa.array(["0"]),
    "bytes": pa.array([b"0"]),
}


class InTurn(Executor):
    """Runs what it is given at once: threads take longer to start than an epoch to be totalled."""

    def submit(self, fn: Any, /, *arguments: Any, **options: Any) -> Future[Any]:
        """Call a function."""
        future: Future[Any] = Future()
        future.set_result(fn(*arguments, **options))
        return future


@dataclass(frozen=True, slots=True)
class Said:
    """What a tracker was told, checked."""

    kind: str
    class_names: tuple[str, ...] | None
    split: str | None
    options: Options
    kernels: Backend
    threads: int


class Tracked:
    """The epochs of a tracker, in a temporary directory of their own."""

    def __init__(self, said: Said, classes: int | None) -> None:
        self.said = said
        self.classes = classes  # None: the first update tells
        self.layout: Layout | None = None
        self.ids = "none"  # what they are, once there is a layout
        self.schema: pa.Schema | None = None  # of the last update
        self.under_way: SharedScan | None = None
        self.ended: SharedScan | None = None
        self.updates = 0  # of the epoch under way
        self.token = uuid.uuid4().hex  # of the rows that come from now on
        self._directory: Path | None = None
        self._begun = 0  # directories in it, whose names differ by this number
        self._forget: weakref.finalize[Any, Any] | None = None

    def discard(self) -> None:
        """Remove the files."""
        if self._forget is not None:
            self._forget()

    # -- layout ----------------------------------------------------------------------------

    def agree(self, rows: pa.RecordBatch, where: str) -> Layout:
        """Return the layout of a batch, which must be that of all others."""
        if self.layout is not None and rows.schema.equals(self.schema):
            return self.layout
        layout = array_layout(rows, kind_of(self.said.kind), self.said.class_names, where)
        if self.classes not in (None, layout.classes):
            raise UsageError(f"{where}: {layout.classes} classes, but {self.classes} are expected")
        ids = _ids_of(rows.schema)
        if self.layout is not None:
            dtypes = [dtype_name(x.dtype) for x in (layout, self.layout)]
            if dtypes[0] != dtypes[1]:
                raise UsageError(f"{where}: predictions are {dtypes[0]}, but {dtypes[1]} before it")
            if ids != self.ids:
                raise UsageError(f"{where}: its ids are {ids}, but {self.ids} before it")
            layout = self.layout
        else:
            evidence = {
                "predictions": f"updates of {dtype_name(layout.dtype)}",
                "label": "updates",
                "id": "position (no ids were given)" if ids == "none" else f"updates ({ids})",
                "epoch": "end_epoch",
                "kind": f"{self.said.kind}: as told",
            }
            layout = replace(layout, evidence=evidence)
        self.schema, self.layout, self.classes, self.ids = rows.schema, layout, layout.classes, ids
        return layout

    def facts(self) -> dict[str, Any]:
        """Return what must be the same where two are merged."""
        said, options = self.said, self.said.options
        return {
            "kind": said.kind,
            "class names": None if said.class_names is None else list(said.class_names),
            "split": said.split,
            "scores": options.scores,
            "duplicates": options.duplicates,
            "clip": options.clip,
        } | self._learned()

    def _learned(self) -> dict[str, Any]:
        """Return what the first update tells."""
        if self.layout is None:
            return {} if self.classes is None else {"classes": self.classes}
        return {
            "classes": self.classes, "dtype": dtype_name(self.layout.dtype), "ids": self.ids
        }  # fmt: skip

    def learn(self, facts: Mapping[str, Any], where: str) -> None:
        """Check what another is; take over what is not known here yet."""
        for what, mine in self.facts().items():
            if what in facts and facts[what] != mine:
                raise UsageError(f"{where}: its {what} is {facts[what]!r}, but {mine!r} here")
        if self.layout is None and "dtype" in facts:
            name, ids = facts["dtype"], facts["ids"]
            row = np.zeros((1, facts["classes"]), BFLOAT16 if name == "bfloat16" else name)
            dtype = name if name == "bfloat16" else None
            any_id = None if ids == "none" else ANY_ID[ids]
            self.agree(as_record_batch(row, np.zeros(1, np.int32), any_id, where, dtype), where)

    # -- epochs ----------------------------------------------------------------------------

    def begin(self, name: str) -> SharedScan:
        """Make an empty scan, of epochs that have ended or of the one under way."""
        assert self.layout is not None
        said, options, expected = self.said, self.said.options, 0
        if name == "under-way":
            options = replace(options, scores="all")
            expected = self.ended.part.ledger.n if self.ended is not None else 0
        scan = Scan(
            self.layout, place, said.kernels, options, None, self._new_path(name), InTurn(),
            said.threads, expected=expected,
        )  # fmt: skip
        return SharedScan(scan, said.split)

    def _new_path(self, name: str) -> Path:
        if self._directory is None:
            self._directory = Path(tempfile.mkdtemp(prefix="fastdiv-"))
            self._forget = weakref.finalize(self, _remove, self._directory, os.getpid())
        self._begun += 1
        return self._directory / f"{name}-{self._begun}"

    def forget_under_way(self) -> None:
        """Make ready for another epoch."""
        if self.under_way is not None:
            self.under_way.discard()
        self.under_way, self.updates, self.token = None, 0, uuid.uuid4().hex

    # -- merging ---------------------------------------------------------------------------

    def merge(self, others: Sequence[tuple[str, Tracked]]) -> None:
        """Take over what others have besides, wholly or not at all; each comes with its name."""
        before = self.schema, self.layout, self.classes, self.ids
        ended = None
        try:
            for where, other in others:
                other.token = uuid.uuid4().hex  # what it has is ours as well, what will come not
                self.learn(other.facts(), where)
            ended = self._with("ended", self.ended, [(where, x.ended) for where, x in others])
            rest = self._of_this_epoch(others, set() if ended is None else ended.tokens)
            under_way = self._with("under-way", self.under_way, rest)
        except BaseException:
            if ended is not None and ended is not self.ended:
                ended.discard()
            self.schema, self.layout, self.classes, self.ids = before
            raise
        for old, new in ((self.ended, ended), (self.under_way, under_way)):
            if old is not None and old is not new:
                old.discard()
        self.ended, self.under_way = ended, under_way

    def _of_this_epoch(
        self, others: Sequence[tuple[str, Tracked]], ended: set[str]
    ) -> list[tuple[str, SharedScan | None]]:
        """Return what others have under way, without what is part of epochs that have ended."""
        rest: list[tuple[str, SharedScan | None]] = []
        for where, other in others:
            tokens = set() if other.under_way is None else other.under_way.tokens
            if tokens <= ended:
                continue
            if tokens & ended:
                raise UsageError(
                    f"{where}: some of its rows are of an epoch that has ended here: merge the "
                    "states of all ranks before end_epoch"
                )
            rest.append((where, other.under_way))
        return rest

    def _with(
        self, name: str, mine: SharedScan | None, others: Sequence[tuple[str, SharedScan | None]]
    ) -> SharedScan | None:
        """Return what is here with what others have besides: a copy, unless that is nothing."""
        result = mine
        try:
            for where, other in others:
                for epoch in sorted(other.shares) if other is not None else ():
                    assert other is not None
                    if result is not None and not result.lacks(other, epoch):
                        continue
                    if name == "ended" and self.said.options.scores == "rolling":
                        raise UsageError(
                            f"{where}: epoch {epoch} has ended there, and rolling scores cannot "
                            "take it in: merge before end_epoch, and state_dict(ended=False)"
                        )
                    if result is mine:
                        result = mine.copy(self._new_path(name)) if mine else self.begin(name)
                    assert result is not None
                    result.absorb(other, epoch, epoch, where)
        except BaseException:
            if result is not None and result is not mine:
                result.discard()
            raise
        return result

    # -- states ----------------------------------------------------------------------------

    def pack(self, with_ended: bool) -> dict[str, Any]:
        """Return everything as plain containers."""
        self.token = uuid.uuid4().hex  # rows still to come are not those of this state
        return {
            "fastdiv_tracker": STATE_VERSION,
            "facts": self.facts(),
            "updates": self.updates,
            "under_way": None if self.under_way is None else self.under_way.pack(),
            "ended": self.ended.pack() if with_ended and self.ended is not None else None,
        }

    def unpack(self, state: Mapping[str, Any], where: str) -> None:
        """Fill this one, which is empty, with what was packed."""
        try:
            if state["fastdiv_tracker"] > STATE_VERSION:
                raise UsageError(f"{where} is of a later version: update fastdiv")
            self.learn(state["facts"], where)
            self.updates = state["updates"]
            if state["ended"] is not None:
                self.ended = self.begin("ended")
                self.ended.unpack(state["ended"])
            if state["under_way"] is not None:
                self.under_way = self.begin("under-way")
                self.under_way.unpack(state["under_way"])
        except (KeyError, TypeError, ValueError, AttributeError, pa.ArrowException) as error:
            raise UsageError(f"{where} is not of a fastdiv.Tracker: {error!r}") from error


def place(chunk: Chunk, row: int) -> str:
    """Name a row of an update to a person."""
    return f"update {chunk.row_group}, row {row}"


def _ids_of(schema: pa.Schema) -> str:
    """Say what ids are."""
    if IDS not in schema.names:
        return "none"
    type_ = schema.field(IDS).type
    if is_integer(type_) and plain_type(type_) == pa.uint64():
        return "unsigned 64-bit integers"
    if is_integer(type_):
        return "integers"
    return "strings" if is_string(type_) or is_uuid(type_) else "bytes"


def _remove(directory: Path, process: int) -> None:
    """Remove temporary files, unless this is a forked copy of the process that owns them."""
    if os.getpid() == process:
        shutil.rmtree(directory, ignore_errors=True)

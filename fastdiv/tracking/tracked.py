"""Tracked: what a tracker holds, the epochs that have ended and the one under way."""

from __future__ import annotations

import os
import uuid
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor, Future
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from fastdiv.batch import Batch, Scores
from fastdiv.errors import DataError, UsageError
from fastdiv.scan import Scan
from fastdiv.scratch import Scratch
from fastdiv.sources import Layout
from fastdiv.tracking.layout import TrackedLayout
from fastdiv.tracking.shares import SharedScan, in_order
from fastdiv.tracking.updates import UNDER_WAY, Said, place
from fastdiv_kernels.contract import Reason

Others = Sequence[tuple[str, SharedScan | None]]  # with what to call them in errors


class InTurn(Executor):
    """Runs what it is given at once: threads take longer to start than an epoch to be totalled."""

    def submit(self, fn: Any, /, *arguments: Any, **options: Any) -> Future[Any]:
        """Call a function."""
        future: Future[Any] = Future()
        future.set_result(fn(*arguments, **options))
        return future


class Tracked:
    """The epochs of a tracker, in a temporary directory of their own."""

    def __init__(self, said: Said, classes: int | None) -> None:
        self.said = said
        self.classes = classes  # as told; None: the first update tells
        self.common: TrackedLayout | None = None  # once an update was taken
        self.under_way: SharedScan | None = None
        self.ended: SharedScan | None = None
        self._scratch: Scratch | None = None
        self._begun = 0  # directories in it, whose names differ by this number
        self._process = os.getpid()
        self._fresh()

    def _fresh(self) -> None:
        """Begin what is known of the epoch under way."""
        self.updates = 0
        self.label_kinds: set[str] = set()  # of its updates
        self.merged = False  # rows of others are among it, and where these stand matters
        self.interrupted: str | None = None  # what was, so that it is not whole
        self.token = uuid.uuid4().hex  # of the rows that come from now on

    def discard(self) -> None:
        """Remove the files."""
        if self._scratch is not None:
            self._scratch.remove()

    def own(self) -> None:
        """Make sure that the files are those of this process: a forked copy takes its own."""
        if os.getpid() == self._process:
            return
        if self.under_way is not None:
            raise UsageError(
                "the process was forked while an epoch was under way, which its parent may go on "
                "with: fork between epochs, or call drop_epoch() or reset() here first"
            )
        self._scratch = None
        if self.ended is not None:
            self.ended = self.ended.copy(*self._new_path("ended"))
        self._fresh()
        self._process = os.getpid()  # last: where there is no room for a copy, it is tried again

    # -- updates ---------------------------------------------------------------------------

    def like(self, schema: pa.Schema, rows: pa.RecordBatch, where: str) -> TrackedLayout:
        """Return what an update has in common with all others, which it must have."""
        known = self.common
        classes = self.classes if known is None else known.classes
        found = TrackedLayout.of(schema, rows, classes, where)
        if known is not None:
            known.check(found, where)
        return found

    def take(
        self, batch: Batch, scores: Scores, common: TrackedLayout, kind_of_labels: str
    ) -> None:
        """Commit an update, whole or not at all."""
        if self.merged:
            raise UsageError(
                "states of others have been merged into this epoch, and without ids rows after "
                "theirs have no place in it: update first, merge then"
            )
        shared = self.begin("under-way", common) if self.under_way is None else self.under_way
        try:
            shared.commit(batch, scores, UNDER_WAY, self.token, self.said.rank)
        except DataError:
            if self.under_way is None:
                shared.discard()
            raise
        except BaseException:
            self.under_way, self.common = shared, common
            self.interrupted = f"update {self.updates}"
            raise
        self.under_way, self.common = shared, common
        self.label_kinds.add(kind_of_labels)
        self.updates += 1

    def seal(self) -> None:
        """Let the token stand for the rows that came, and no more; the epoch must be whole."""
        self.check_whole()
        if self.under_way is not None and self.token in self.under_way.tokens():
            self.token = uuid.uuid4().hex

    def check_whole(self) -> None:
        """Refuse to go on with an epoch of which a part may be missing."""
        if self.interrupted is not None:
            raise UsageError(
                f"{self.interrupted} was interrupted, and what it left of the epoch is not whole: "
                "call drop_epoch() and give the epoch's rows again"
            )

    def facts(self) -> dict[str, Any]:
        """Return what must be the same where two are merged."""
        said, options = self.said, self.said.options
        told = {} if self.classes is None else {"classes": self.classes}
        return {
            "kind": said.kind,
            "class names": None if said.class_names is None else list(said.class_names),
            "split": said.split,
            "scores": options.scores,
            "duplicates": options.duplicates,
            "clip": options.clip,
        } | (told if self.common is None else self.common.facts())

    def learn(self, facts: Mapping[str, Any], where: str) -> None:
        """Check what another is; take over what is not known here yet."""
        for what, mine in self.facts().items():
            if what in facts and facts[what] != mine:
                raise UsageError(f"{where}: its {what} is {facts[what]!r}, but {mine!r} here")
        if self.common is None and "dtype" in facts:
            self.common = TrackedLayout.known(facts)

    # -- epochs ----------------------------------------------------------------------------

    def layout(self, common: TrackedLayout) -> Layout:
        """Return where in the columns of an update what is."""
        if self.under_way is not None:
            return self.under_way.scan.layout
        return common.layout(self.said.kind, self.said.class_names)

    def begin(self, name: str, common: TrackedLayout | None = None) -> SharedScan:
        """Make an empty scan, of epochs that have ended or of the one under way."""
        common = self.common if common is None else common
        assert common is not None
        said, options, expected = self.said, self.said.options, 0
        if name == "under-way":
            if options.scores == "rolling":
                options = replace(options, scores="all")
            expected = self.ended.part.ledger.n if self.ended is not None else 0
        path, scratch = self._new_path(name)
        scan = Scan(
            common.layout(said.kind, said.class_names), place, said.kernels, options, None, path,
            InTurn(), said.threads, expected=expected,
        )  # fmt: skip
        return SharedScan(scan, said.split, scratch)

    def _new_path(self, name: str) -> tuple[Path, Scratch]:
        if self._scratch is None:
            self._scratch = Scratch(self)
        self._begun += 1
        return self._scratch.path / f"{name}-{self._begun}", self._scratch

    def check_labels(self) -> None:
        """Refuse an epoch whose labels are not what they are taken for."""
        under_way, common = self.under_way, self.common
        assert under_way is not None
        assert common is not None
        classes = common.classes
        labels = under_way.part.samples.labels
        there = labels[labels >= 0]
        counted_from_1 = len(there) and there.min() >= 1 and there.max() == classes
        by_number = under_way.scan.layout.label_values is None
        if "numbers" in self.label_kinds and by_number and counted_from_1:
            raise DataError(
                f"labels go from {there.min()} to {classes}, but {classes} classes are counted "
                "from 0: subtract 1, or say which each label is with class_names"
            )
        tally = under_way.tally(UNDER_WAY)
        if "lists" in self.label_kinds and 2 * tally.invalid.counts[Reason.LABEL] > tally.rows:
            raise DataError(
                "most labels are lists of several classes, or of shares of them: needed is one "
                "class a row, as an index, a name, or one-hot"
            )

    def forget_under_way(self) -> None:
        """Make ready for another epoch."""
        if self.under_way is not None:
            self.under_way.discard()
        self.under_way = None
        if self.ended is None:  # another first update may tell something else
            self.common = None
        self._fresh()

    # -- merging ---------------------------------------------------------------------------

    def merge(self, others: Sequence[tuple[str, Tracked]]) -> None:
        """Take over what others hold, all of it or nothing."""
        before, ended = self.common, self.ended
        try:
            self.seal()
            for where, other in others:
                other.seal()
                self.learn(other.facts(), where)
            ended = self._with("ended", self.ended, [(where, x.ended) for where, x in others])
            rest = self._of_this_epoch(others, set() if ended is None else ended.tokens())
            under_way = self._with("under-way", self.under_way, rest)
        except BaseException:
            if ended is not None and ended is not self.ended:
                ended.discard()
            self.common = before
            raise
        for old, new in ((self.ended, ended), (self.under_way, under_way)):
            if old is not None and old is not new:
                old.discard()
        if under_way is not None and under_way is not self.under_way:
            self.merged = under_way.part.ledger.positional
            self.label_kinds |= {kind for _, x in others for kind in x.label_kinds}
        self.ended, self.under_way = ended, under_way

    def _of_this_epoch(self, others: Sequence[tuple[str, Tracked]], ended: set[str]) -> Others:
        """Return what others have under way, without what is part of epochs that have ended."""
        rest: list[tuple[str, SharedScan | None]] = []
        for where, other in others:
            tokens = set() if other.under_way is None else other.under_way.tokens()
            if tokens <= ended:
                continue
            if tokens & ended:
                raise UsageError(
                    f"{where}: some of its rows are of an epoch that has ended here: merge the "
                    "states of all ranks before end_epoch"
                )
            rest.append((where, other.under_way))
        return rest

    def _with(self, name: str, mine: SharedScan | None, others: Others) -> SharedScan | None:
        """Return what is here with what others have besides: a copy, unless that is nothing."""
        parts = self._parts(mine, others)
        if all(part is mine for named in parts.values() for _, part in named):
            return mine
        if name == "ended" and self.said.options.scores == "rolling":
            where, epoch = next(
                (where, e) for e, named in parts.items() for where, part in named if part != mine
            )
            raise UsageError(
                f"{where}: epoch {epoch} has ended there, and rolling scores cannot take it in: "
                "merge before end_epoch, and state_dict(ended=False)"
            )
        # Others' rows come after those that are here, unless ranks tell otherwise.
        after = mine is not None and all(
            named[0][1] is mine for e, named in parts.items() if e in mine.shares
        )
        result = mine.copy(*self._new_path(name)) if mine and after else self.begin(name)
        try:
            for epoch, named in sorted(parts.items()):
                for where, part in named:
                    if not (after and part is mine):
                        result.absorb(part, epoch, epoch, where)
        except BaseException:
            result.discard()
            raise
        return result

    def _parts(
        self, mine: SharedScan | None, others: Others
    ) -> dict[int, list[tuple[str, SharedScan]]]:
        """Return what has rows of each epoch that nothing before it has, in order."""
        parts: dict[int, list[tuple[str, SharedScan]]] = {}
        positional = self.common is not None and self.common.ids == "none"
        known: dict[int, set[str]] = {}
        for where, part in (("", mine), *others):
            for epoch in part.shares if part is not None else ():
                assert part is not None
                tokens, here = part.tokens(epoch), known.setdefault(epoch, set())
                if tokens <= here:
                    continue
                if tokens & here and positional:
                    raise UsageError(
                        f"{where}: some of its rows are here already, and only ids would tell "
                        "which: give ids to update, or merge each state once"
                    )
                here |= tokens
                parts.setdefault(epoch, []).append((where, part))
        return {epoch: in_order(named, epoch, positional) for epoch, named in parts.items()}

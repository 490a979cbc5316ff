"""Links: where the samples of a run can be looked at, by their ids or by a column of the dump.

Of the dump only ids and that column are read, until the samples that are asked for are found.
"""

from __future__ import annotations

import os
import re
from collections.abc import Generator, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fastdiv.errors import DataError, UsageError
from fastdiv.rereading.addresses import address, address_of_id
from fastdiv.rereading.dump import Dump
from fastdiv.sources.container import Container
from fastdiv.sources.fields import flat_column, is_string, is_uuid, plain
from fastdiv.sources.naming import bare
from fastdiv.sources.values import strings

if TYPE_CHECKING:
    from fastdiv.explain.view import SplitView
    from fastdiv.run import Run

LINK_NAMES = (
    "url", "uri", "image_url", "image_uri", "path", "image_path", "filepath", "file_path",
    "file", "filename", "file_name", "image",
)  # fmt: skip
MOST_FOLDERS = 2  # of the dump, that relative paths may begin in
BATCH_ROWS = 1 << 16


def links(
    run: Run, view: SplitView, ids: Iterable[int | str], column: str | None = None
) -> dict[str, str]:
    """Return the addresses of samples, by the texts of their ids.

    Ids that are addresses or paths are their own. Otherwise the dump tells them, where it is still
    there and has a column of strings that is called as in `LINK_NAMES`. What is not on this
    machine is read only where a column is asked for.

    Parameters
    ----------
    run : Run
    view : SplitView
    ids : iterable of int or str
        As tables hold them, see `fastdiv.explain.wording.plain_id`.
    column : str, optional
        The column of the dump to take; ids then count for nothing.

    Raises
    ------
    UsageError
        Where a column is asked for and the dump is not there, or has no such column.
    """
    wanted = list(dict.fromkeys(map(str, ids)))
    if column is None:
        own = _of_ids(run, wanted)
        if own:
            return own
    found = _looked_up(run, view, wanted, column)
    return {i: found[i] for i in wanted if i in found}


def _of_ids(run: Run, wanted: Sequence[str]) -> dict[str, str]:
    """Return the addresses that ids are by themselves."""
    beside = dict.fromkeys(os.path.dirname(part["path"]) for part in Dump(run, False).parts)
    folders = [os.getcwd(), *list(beside)[:MOST_FOLDERS]]
    each = ((i, address_of_id(i, folders)) for i in wanted)
    return {i: found for i, found in each if found is not None}


def link_column(run: Run, asked: str | None = None) -> str | None:
    """Return the column of the dump that tells addresses; None where there is none.

    Raises
    ------
    UsageError
        Where it is asked for and the dump is not there, or has no such column.
    """
    return _column(run, asked, Dump(run, asked is not None))


def _column(run: Run, asked: str | None, dump: Dump) -> str | None:
    if not dump.parts:
        if asked is None:
            return None
        raise UsageError(f"no address is in column {asked!r}: {dump.why_not()}")
    for part in dump.parts:
        try:
            container = dump.open(part)
        except (DataError, UsageError):
            if asked is not None:
                raise
            return None  # the file was damaged since, and nobody asked for it
        if len(container.flat):
            return _column_of(container, asked, run)
    return None


def _column_of(container: Container, asked: str | None, run: Run) -> str | None:
    """Return the column of a file that tells addresses."""
    texts = [f.name for f in container.flat if is_string(f.type)]
    if asked is not None:
        if asked not in texts:
            raise UsageError(
                f"{container.name}: no column {asked!r} of text for links; there "
                f"{'is' if len(texts) == 1 else 'are'} {', '.join(texts) or 'none'}"
            )
        return asked
    roles = run.summary["dump"]["columns"].values()
    known = {bare(name.rpartition(".")[2]): name for name in reversed(texts) if name not in roles}
    return next((known[bare(name)] for name in LINK_NAMES if bare(name) in known), None)


# -- looking them up ---------------------------------------------------------------------------


@dataclass(slots=True)
class _Wanted:
    """Samples that are looked for, and what was found.

    Attributes
    ----------
    ids : pa.Array
        (n,) of the type that the run's ids have, ascending where they are positions.
    texts : dict
        From an id to its text.
    found : dict of str to str
        From the text of an id to an address.
    left : set
        Ids not met yet.
    """

    ids: pa.Array
    texts: dict[Any, str]
    found: dict[str, str]
    left: set[Any]

    @classmethod
    def of(cls, texts: Sequence[str], type_: pa.DataType) -> _Wanted:
        """Take the texts of ids, as tables show them; what is no id of the type is left out."""
        by_id: dict[Any, str] = {}
        for text in texts:
            if pa.types.is_integer(type_):
                limits = np.iinfo(type_.to_pandas_dtype())
                if re.fullmatch(r"-?\d{1,20}", text) and limits.min <= int(text) <= limits.max:
                    by_id[int(text)] = text
            elif pa.types.is_large_binary(type_):
                if re.fullmatch(r"([0-9a-f]{2})*", text):
                    by_id[bytes.fromhex(text)] = text
            else:
                by_id[text] = text
        return cls(pa.array(list(by_id), type_), by_id, {}, set(by_id))

    def meet(self, ids: pa.Array, values: pa.Array, folders: Sequence[str]) -> None:
        """Take rows that may be of samples that are looked for."""
        rows = pc.is_in(ids, value_set=self.ids)
        for i, value in zip(
            ids.filter(rows).to_pylist(), values.filter(rows).to_pylist(), strict=True
        ):
            if i in self.left:
                self.left.discard(i)
                target = None if value is None else address(value, folders)
                if target is not None:
                    self.found[self.texts[i]] = target


def _looked_up(
    run: Run, view: SplitView, texts: Sequence[str], asked: str | None
) -> dict[str, str]:
    """Return the addresses that the dump tells of samples."""
    dump = Dump(run, asked is not None)
    column = _column(run, asked, dump)
    if column is None:
        return {}
    parts = [part for part in dump.parts if part["split"] in (None, view.split)]
    entry = next(e for e in run.summary["splits"] if e["split"] == view.split)
    by_position = entry["ids"] == "position"
    wanted = _Wanted.of(texts, view.evidence.ids.type)
    epoch = _largest_epoch(view)
    if by_position:
        parts = [part for part in parts if part["epoch"] in (None, epoch)]
        needed = [
            part
            for part in run.summary["dump"]["parts"]
            if part["split"] in (None, view.split) and part["epoch"] in (None, epoch)
        ]
        if parts != needed:  # the places of all rows that follow are unknown
            if asked is None:
                return {}
            raise UsageError(f"no address is in column {asked!r}: {dump.why_not()}")
    parts.sort(key=lambda part: part["epoch"] != epoch)
    rows = _Rows(run, view, column, epoch if by_position else None)
    for part in parts:
        try:
            container = dump.open(part)
            if container.flat.get_field_index(column) < 0:
                if by_position:
                    return wanted.found  # the places of all rows that follow are unknown
                continue
            folders = [os.path.dirname(part["path"]), os.getcwd()]
            with closing(rows.of(container)) as each:
                for ids, values in each:
                    wanted.meet(ids, values, folders)
                    if not wanted.left:
                        return wanted.found
        except (DataError, UsageError):
            if asked is not None:
                raise
            return wanted.found  # the file was damaged since, and nobody asked for it
    return wanted.found


def _largest_epoch(view: SplitView) -> int | None:
    """Return the epoch of most samples, the first of equals."""
    rows = view.epochs.select(["epoch", "n"]).to_pylist()
    return max(rows, key=lambda row: (row["n"], -row["epoch"]))["epoch"] if rows else None


class _Rows:
    """Reads ids and a column of text of the files of a split.

    Parameters
    ----------
    run : Run
    view : SplitView
    column : str
    epoch : int or None
        Given where samples are told by their position: that within the rows of this epoch.
    """

    def __init__(self, run: Run, view: SplitView, column: str, epoch: int | None) -> None:
        dump = run.summary["dump"]
        self.column, self.epoch, self.split = column, epoch, view.split
        self.roles: dict[str, str | None] = dump["columns"]
        self.type = view.evidence.ids.type
        self.name = run.summary.get("epoch_names", {}).get(str(epoch))
        self.position = 0  # of the next row

    def of(self, container: Container) -> Generator[tuple[pa.Array, pa.Array]]:
        """Yield the ids (m,) and the texts (m,) of rows, some at a time."""
        id_, split, epoch = self.roles["id"], self.roles["split"], self.roles["epoch"]
        if self.epoch is None:
            epoch = None
        names = [name for name in (self.column, id_, split, epoch) if name is not None]
        for group in range(len(container.rows)):
            if epoch is not None and self.name is None:
                bounds = container.bounds(group, epoch)
                if bounds is not None and self.epoch not in bounds:
                    continue
            for batch in container.read(group, list(dict.fromkeys(names)), BATCH_ROWS):
                rows = self._of_split_and_epoch(batch, split, epoch)
                values = strings(flat_column(batch, self.column)).filter(rows)
                yield self._ids(batch, id_, rows), values

    def _of_split_and_epoch(
        self, batch: pa.RecordBatch, split: str | None, epoch: str | None
    ) -> pa.Array:
        """Say which rows (n,) are of the split and, by position, of the epoch."""
        rows = pa.array(np.ones(batch.num_rows, np.bool_))
        if split is not None:
            column = strings(flat_column(batch, split))
            same = pc.is_null(column) if self.split is None else pc.equal(column, self.split)
            rows = pc.and_(rows, pc.fill_null(same, False))
        if epoch is not None:
            column = plain(flat_column(batch, epoch))
            wanted = self.epoch if self.name is None else self.name
            type_ = pa.int64() if self.name is None else pa.large_string()
            same = pc.equal(column.cast(type_), pa.scalar(wanted, type_))
            rows = pc.and_(rows, pc.fill_null(same, False))
        return rows

    def _ids(self, batch: pa.RecordBatch, id_: str | None, rows: pa.Array) -> pa.Array:
        """Return the ids of some rows of a batch, as the run has them."""
        if id_ is None:
            first = self.position
            self.position += int(pc.sum(pc.cast(rows, pa.int64())).as_py() or 0)
            return pa.array(np.arange(first, self.position), self.type)
        column = flat_column(batch, id_).filter(rows)
        if is_uuid(column.type):
            return pa.array([str(x) for x in column.to_pylist()], self.type)
        return plain(column).cast(self.type)

"""Source: all parts of a data set, of whatever containers, as batches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from itertools import groupby, repeat
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fastdiv.batch import Batch, Chunk
from fastdiv.errors import DataError, UsageError
from fastdiv.sources.ahead import Ahead
from fastdiv.sources.arrays import as_record_batch, taken_apart
from fastdiv.sources.columns import detect, sampled_columns
from fastdiv.sources.container import Container
from fastdiv.sources.decode import decode, sound_predictions
from fastdiv.sources.discover import Item, has_key
from fastdiv.sources.epochs import EpochNames, numbered_names
from fastdiv.sources.fields import flat_column, flat_schema, is_string
from fastdiv.sources.files.file import File, RemoteFile
from fastdiv.sources.files.places import Places
from fastdiv.sources.files.transfers import READERS
from fastdiv.sources.formats import open_file
from fastdiv.sources.ipc import ReaderContainer
from fastdiv.sources.kinds import settle_kind
from fastdiv.sources.layout import SAMPLE_ROWS, Asked, Layout, agree
from fastdiv.sources.memory import TableContainer
from fastdiv.sources.metadata import said_by
from fastdiv.sources.naming import bare
from fastdiv.sources.numpy_files import is_named_array
from fastdiv.sources.pages.group import ReadBy
from fastdiv.sources.parquet import ParquetContainer
from fastdiv.sources.values import strings

EPOCH_ROWS = 1 << 20  # read at once of a column of epoch names
IN_MEMORY = ("pandas", "polars")  # frames of theirs are tables already, and not streams


class Source:
    """All parts of a data set: plans chunks, and reads them as batches.

    `left_out` are files beside those read; `epochs` are those the caller gave, in their order.
    """

    def __init__(
        self, items: Sequence[Item], asked: Asked, left_out: Sequence[str] = (),
        epochs: Sequence[int | str] = (),
    ) -> None:  # fmt: skip
        self.containers = _opened(items, asked)
        self._ahead = Ahead(self.containers, [item.data for item in items])
        readers = [item.data for item, c in zip(items, self.containers, strict=True) if c.once]
        if len({id(reader) for reader in readers}) < len(readers):
            raise UsageError("a reader is given twice, and can be read only once")
        for name, alike in groupby(sorted(self.containers, key=_name), _name):
            for i, container in enumerate(several if len(several := list(alike)) > 1 else ()):
                container.name = f"{name} [{i}]"  # as in a list of tables
        places = Places(asked.filesystem)
        if is_named_array(asked.label, places):
            asked = replace(asked, label="label")
        if is_named_array(asked.id, places):
            asked = replace(asked, id="id")
        self._items = [
            item
            if item.epoch is not None or container.epoch is None
            else replace(item, epoch=container.epoch, epoch_from="names of columns")
            for item, container in zip(items, self.containers, strict=True)
        ]
        self._epoch_of_name = self._numbers_of_names(epochs)
        self.layout = self._layout(asked)
        if left_out:
            some = ", ".join(left_out[:3]) + (" …" if len(left_out) > 3 else "")
            text = f"{len(left_out)} of other formats beside them not read ({some})"
            self.layout = self.layout.with_evidence(files=f"{self._count()}; {text}")

    # -- what is there ---------------------------------------------------------------------

    def _numbers_of_names(self, given: Sequence[int | str]) -> dict[str, int]:
        """Return the numbers of epochs, those given first, if there are names among them."""
        epochs = [*given, *(item.epoch for item in self._items if item.epoch is not None)]
        if all(isinstance(epoch, int) for epoch in epochs):
            return {}
        return numbered_names(map(str, epochs))

    def _layout(self, asked: Asked) -> Layout:
        """Find the layout by the first part that has rows, and check the others against it."""
        for container in self.containers:
            if _known_rows(container) != 0:
                head = self._head(container, asked)
                if head.num_rows:
                    break
        else:
            more = f" and {len(self.containers) - 1} more" if len(self.containers) > 1 else ""
            raise DataError(f"no rows in {self.containers[0].name}{more}: nothing to analyze")
        layout = self._without_what_is_given(self._detected(container, head, asked))
        for other in self.containers:
            layout = agree(layout, container.flat, other.flat, container.name, other.name)
        padded = [c for c in self.containers if c.padded]
        if padded:
            layout = self._with_most_choices(layout, padded)
        samples = self._samples(layout, container, head)
        layout = settle_kind(layout, samples, asked.kind, said_by(container.flat).kind)
        return self._with_epochs_and_splits(layout)

    def _head(self, container: Container, asked: Asked) -> pa.Table:
        with _left_out_named(container):
            columns = sampled_columns(container.flat, asked, container.name)
        return container.head(columns, SAMPLE_ROWS // min(2, len(self.containers)))

    def _detected(self, container: Container, head: pa.Table, asked: Asked) -> Layout:
        keys = {
            "epoch": any(i.epoch_given or has_key(i.path, asked.epoch) for i in self._items),
            "split": any(i.split_given or has_key(i.path, asked.split) for i in self._items),
        }
        schema = flat_schema(head.schema)
        flat = pa.table([flat_column(head, f.name) for f in schema], schema=schema)
        with _left_out_named(container):
            return detect(container.flat, flat, asked, container.name, keys)

    def _samples(self, layout: Layout, first: Container, head: pa.Table) -> list[tuple[Any, str]]:
        """Return predictions of the first rows of the first and the last part that have some."""
        heads = [(first.name, head)]
        for container in reversed(self.containers):
            if container is first:
                break
            if _known_rows(container) != 0:
                rows = container.head(list(layout.predictions), SAMPLE_ROWS // 2)
                if rows.num_rows:
                    heads.append((container.name, rows))
                    break
        return [
            (np.concatenate([sound_predictions(b, layout) for b in rows.to_batches()]), name)
            for name, rows in heads
        ]

    def _with_most_choices(self, layout: Layout, padded: list[Container]) -> Layout:
        """Settle the number of classes where rows have fewer or more choices."""
        (name,) = layout.predictions
        lengths: set[int] = set()
        for container in padded:
            for batch in container.read(0, [name], EPOCH_ROWS):
                found = pc.unique(pc.list_value_length(flat_column(batch, name))).drop_null()
                lengths |= set(found.to_pylist())
        lengths -= {0}
        if not lengths or max(lengths) < 2:
            raise DataError(f"{padded[0].name}: no row has log-likelihoods of two choices or more")
        choices = f"{min(lengths)} to {max(lengths)} choices a row, padded with -inf"
        text = f"{layout.evidence['predictions']}: log-likelihoods of choices"
        if len(lengths) > 1:
            text += f"; {choices}"
        return replace(layout, padded=True, classes=max(lengths)).with_evidence(predictions=text)

    def _without_what_is_given(self, layout: Layout) -> Layout:
        """Leave out columns of epochs and splits that are told otherwise."""
        by_paths = all(item.epoch is not None for item in self._items)
        if any(item.epoch_given for item in self._items) or (
            # A counter of batches is no epoch where paths name one.
            by_paths and layout.epoch is not None and not layout.epoch_asked
            and bare(layout.epoch) != "epoch"
        ):  # fmt: skip
            layout = replace(layout, epoch=None)
        if any(item.split_given for item in self._items):
            layout = replace(layout, split=None)
        return layout

    def _with_epochs_and_splits(self, layout: Layout) -> Layout:
        items = self._items
        if layout.epoch is None:
            known = [item for item in items if item.epoch is not None]
            if known and len(known) < len(items):
                missing = next(item for item in items if item.epoch is None)
                raise UsageError(
                    f"{known[0].name} is of epoch {known[0].epoch}, but the path of {missing.name} "
                    "names no epoch: name it like epoch_7, give --epoch COLUMN, or give each path "
                    "with --epoch-per-path"
                )
            none = f"no column and no path names one: {self._count()} taken as epoch 0"
            layout = layout.with_evidence(epoch=known[0].epoch_from if known else none)
        elif self._epoch_column_is_named(layout):
            once = [c for c in self.containers if c.once]
            if once and len(self.containers) > 1:
                raise UsageError(
                    f"{once[0].name}: epochs in column {layout.epoch!r} are names, and it can be "
                    "read only once: give it alone, or each epoch as a key of a mapping"
                )
            layout = replace(layout, epoch_names=EpochNames())
        if layout.split is None and items[0].split is not None:
            layout = layout.with_evidence(split=items[0].split_from)
        return layout

    def _epoch_column_is_named(self, layout: Layout) -> bool:
        schemas = (c.flat for c in self.containers if len(c.flat))
        return any(is_string(schema.field(layout.epoch).type) for schema in schemas)

    def _count(self) -> str:
        noun = "file" if all(isinstance(item.data, File) for item in self._items) else "part"
        return f"{len(self._items)} {noun}{'s' * (len(self._items) != 1)}"

    def name_epochs(self) -> None:
        """Read the names of all epochs, where a column holds them, so that they can be numbered."""
        column = self.layout.epoch
        if column is None or self.layout.epoch_names is None:
            return
        if any(c.once for c in self.containers):
            return  # numbered in the order in which they come
        names: dict[str, None] = {}
        for container in self.containers:
            for group in range(len(container.rows)):
                for batch in container.read(group, [column], EPOCH_ROWS):
                    found = pc.unique(strings(flat_column(batch, column))).drop_null()
                    names |= dict.fromkeys(found.to_pylist())
        self.layout = replace(self.layout, epoch_names=EpochNames(names))

    @property
    def epoch_names(self) -> Mapping[int, str]:
        """The names of epochs that have some; those a column holds may come while it is read."""
        if self.layout.epoch_names is not None:
            return self.layout.epoch_names.names
        return {number: name for name, number in self._epoch_of_name.items()}

    @property
    def tells_epochs(self) -> bool:
        """Whether a column, a path or a key says of which epoch rows are."""
        return self.layout.epoch is not None or any(i.epoch is not None for i in self._items)

    def plan(self) -> list[Chunk]:
        """List the row groups, in natural path order."""
        return [
            Chunk(
                part=i,
                row_group=g,
                rows=rows,
                split=item.split,
                epoch=None if self.layout.epoch is not None else self._number(item.epoch),
            )
            for i, (item, container) in enumerate(zip(self._items, self.containers, strict=True))
            for g, rows in enumerate(container.rows)
        ]

    def _number(self, epoch: int | str | None) -> int:
        if self._epoch_of_name:
            return self._epoch_of_name[str(epoch)]
        return int(epoch or 0)

    def epochs_in(self, chunk: Chunk) -> range | None:
        """Return the bounds of a chunk's epochs as far as they can be known without reading it."""
        if chunk.epoch is not None:
            return range(chunk.epoch, chunk.epoch + 1)
        return self.containers[chunk.part].bounds(chunk.row_group, str(self.layout.epoch))

    def nbytes(self, chunk: Chunk) -> int:
        """Return the stored size of the columns of a chunk that are read."""
        return self.containers[chunk.part].nbytes(chunk.row_group, self.layout.columns)

    def most_rows(self, chunk: Chunk) -> int | None:
        """Return at most how many rows a chunk has; None where nothing tells."""
        container = self.containers[chunk.part]
        return container.most_rows(chunk.row_group, self.layout.classes)

    @property
    def size(self) -> int:
        """Bytes that are really there, whatever headers claim."""
        return sum(container.size for container in self.containers)

    def read_by(self) -> dict[str, Any] | None:
        """Say how the column chunks of Parquet files were read; None where there are none."""
        parquet = [c.read_by for c in self.containers if isinstance(c, ParquetContainer)]
        total = ReadBy()
        for one in parquet:
            total.merge(one)
        return total.summary() if parquet else None

    @property
    def once(self) -> bool:
        """Whether a part can be read only once."""
        return any(container.once for container in self.containers)

    @property
    def files(self) -> list[File | None]:
        """The file that each part is, None of a part in memory."""
        return [item.data if isinstance(item.data, File) else None for item in self._items]

    @property
    def ahead_bytes(self) -> int:
        """At most how many bytes of remote files are held before they are used."""
        return self._ahead.most_bytes

    # -- reading ---------------------------------------------------------------------------

    def expect(self, chunks: Sequence[Chunk]) -> None:
        """Say which chunks will be read, in order, so that remote ones are fetched ahead."""
        self._ahead.expect(chunks)

    def read(self, chunk: Chunk) -> Iterator[Batch]:
        """Yield the rows of a chunk, in order. May run on any thread."""
        layout = self.layout
        container = self.containers[chunk.part]
        start = 0
        self._ahead.begin(chunk)
        try:
            for rows, pieces in _rows(container, chunk.row_group, layout):
                self._ahead.go_on(layout.columns)
                yield decode(rows, pieces, layout, chunk, start, self.place)
                start += rows.num_rows
        except MemoryError as error:
            raise _out_of_memory(self.place(chunk, start)) from error

    def place(self, chunk: Chunk, row: int) -> str:
        """Name a row of a chunk to a person."""
        return self.containers[chunk.part].place(chunk.row_group, row)


def _rows(
    container: Container, group: int, layout: Layout
) -> Iterator[tuple[pa.RecordBatch, list[pa.Array] | None]]:
    """Yield a row group, its predictions apart if they are one column."""
    if not layout.wide:
        yield from container.read_apart(
            group, layout.columns, layout.batch_rows, layout.predictions[0]
        )
        return
    for rows in container.read(group, layout.columns, layout.batch_rows):
        yield rows, None


@contextmanager
def _left_out_named(container: Container) -> Iterator[None]:
    """Name, in an error about columns, what of a container could be none."""
    try:
        yield
    except UsageError as error:
        raise UsageError(f"{error}{container.left_out}") from None


def _out_of_memory(where: str) -> DataError:
    return DataError(f"{where}: needs more memory than there is")


def _name(container: Container) -> str:
    return container.name


def _known_rows(container: Container) -> int | None:
    """Return the rows of a container, or None where only reading tells."""
    return None if None in container.rows else sum(n or 0 for n in container.rows)


def _opened(items: Sequence[Item], asked: Asked) -> list[Container]:
    """Open all parts; remote ones at once, for each takes a few answers to wait for."""
    if not any(isinstance(item.data, RemoteFile) for item in items[1:]):
        return [_open(item, asked) for item in items]
    with ThreadPoolExecutor(READERS) as pool:
        try:
            return list(pool.map(_open, items, repeat(asked)))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _open(item: Item, asked: Asked) -> Container:
    """Open whatever holds rows as a container."""
    data, name = item.data, item.name
    if isinstance(data, File):
        try:
            return open_file(data, asked)
        except MemoryError as error:
            raise _out_of_memory(name) from error
    if isinstance(data, pa.RecordBatch):
        return TableContainer(name, pa.Table.from_batches([data]))
    if isinstance(data, pa.Table):
        return TableContainer(name, data)
    if is_arrow(data):
        if type(data).__module__.partition(".")[0] in IN_MEMORY:
            try:
                return TableContainer(name, pa.table(data))
            except (pa.ArrowException, TypeError, ValueError) as error:
                raise UsageError(f"{name}: has columns that Arrow cannot hold: {error}") from None
        return ReaderContainer(name, data)
    batch = as_record_batch(*taken_apart(data, name), name, asked.dtype)
    return TableContainer(name, pa.Table.from_batches([batch]))


def is_arrow(data: Any) -> bool:
    """Whether data exports Arrow columns."""
    return hasattr(data, "__arrow_c_stream__") or isinstance(data, pa.RecordBatch)

"""Which columns are read by pages, and the Arrow arrays made of their values."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from fastdiv.sources.fields import is_list, plain_type
from fastdiv.sources.pages.chunk import Bytes, ChunkBytes, ColumnPages
from fastdiv.sources.pages.codec import UNCOMPRESSED
from fastdiv.sources.pages.headers import Unexpected
from fastdiv.sources.parquet_footer import ColumnChunk, Leaf
from fastdiv.sources.rooms import rooms

INT32, INT64, FLOAT, DOUBLE, FIXED = 1, 2, 4, 5, 7
LIST_STEPS = ((0, 2, 0), (0, 2, 1), (1, 2, 0), (1, 2, 1))  # list, its group, its elements
MOST_LIST = 1 << 24  # values

# Arrow types whose values are stored as they are, by the physical type and width.
AS_STORED = {
    (INT32, 0): (pa.int32(), pa.uint32()),
    (INT64, 0): (pa.int64(), pa.uint64()),
    (FLOAT, 0): (pa.float32(),),
    (DOUBLE, 0): (pa.float64(),),
    (FIXED, 2): (pa.float16(),),
}
NARROW = (pa.int8(), pa.uint8(), pa.int16(), pa.uint16())  # stored as int32
WIDTHS = {INT32: 4, INT64: 8, FLOAT: 4, DOUBLE: 8}


@dataclass(frozen=True, slots=True)
class Plan:
    """How a column is read."""

    width: int  # bytes of a stored value
    lists: bool
    type: pa.DataType  # of the array that is made: of a list, of its values


def plan_of(field: pa.Field, leaves: list[Leaf]) -> Plan:
    """Tell how a column is read by pages; Unexpected where it is not."""
    if len(leaves) != 1:
        raise Unexpected("a column of several parts")
    (leaf,) = leaves
    type_ = field.type
    if pa.types.is_dictionary(type_) or pa.types.is_run_end_encoded(type_):
        raise Unexpected(f"type {type_}")
    type_ = plain_type(type_)
    lists = is_list(type_)
    levels = leaf.repetitions
    if (levels not in LIST_STEPS) if lists else (levels not in ((0,), (1,))):
        raise Unexpected("a column that is nested")
    value = type_.value_type if lists else type_
    if not lists and leaf.type == FIXED and pa.types.is_fixed_size_binary(value):
        if value.byte_width != leaf.width or not leaf.width:
            raise Unexpected(f"type {value}")
        return Plan(leaf.width, False, value)
    stored = AS_STORED.get((leaf.type, leaf.width if leaf.type == FIXED else 0), ())
    if value in stored or (leaf.type == INT32 and value in NARROW):
        return Plan(leaf.width if leaf.type == FIXED else WIDTHS[leaf.type], lists, value)
    raise Unexpected(f"type {value}")


class Column:
    """A column of a row group, of which rows are taken in order.

    Raises
    ------
    Unexpected
        From any method, where its pages are not as expected; no row is lost by it.
    """

    def __init__(
        self, data: ChunkBytes, chunk: ColumnChunk, leaf: Leaf, plan: Plan, rows: int
    ) -> None:
        self._plan = plan
        self._size = 1
        if plan.lists:
            self._size, rest = divmod(chunk.num_values, rows) if rows else (0, 0)
            if rest or not 0 < self._size <= MOST_LIST:
                raise Unexpected("lists of several lengths, or none")
        elif chunk.num_values != rows:
            raise Unexpected("another number of values than rows")
        self._pages = ColumnPages(data, chunk, leaf, plan.width, self._size if plan.lists else 0)
        self.row_bytes = self._size * plan.width
        self.in_place = chunk.codec == UNCOMPRESSED  # but for values that a dictionary has
        self._waiting: list[Bytes] = []
        self._at = 0  # bytes of the first of them that are taken

    def take(self, rows: int) -> pa.Array:
        """Return the next rows: where they lie if one page has them, else copied together."""
        need = rows * self.row_bytes
        if not need:
            return self._array(np.empty(0, np.uint8), 0)
        joined: Bytes | None = None
        done = 0
        while True:
            values = self._page(need - done)
            part = values[self._at : self._at + need - done]
            self._at += len(part)
            if self._at == len(values):
                self._waiting.pop(0)
                self._at = 0
            if len(part) == need:
                return self._array(part, rows)
            if joined is None:
                joined = rooms.take(need)
            joined[done : done + len(part)] = part
            done += len(part)
            if done == need:
                return self._array(joined, rows)

    def pieces(self, rows: int) -> list[pa.Array]:
        """Return the next rows, one piece or more of each page, none of them copied.

        But for a row of which several pages have a part.
        """
        found = []
        while rows:
            there = len(self._page(rows * self.row_bytes)) - self._at
            n = max(1, min(rows, there // self.row_bytes))
            found.append(self.take(n))
            rows -= n
        return found

    def _page(self, need: int) -> Bytes:
        """Return the values of the page that is next, reading some if there are none."""
        if not self._waiting:
            self._waiting = self._pages.next(need // self._plan.width)
        return self._waiting[0]

    def check_end(self) -> None:
        """Refuse a chunk that has more than was taken."""
        if self._waiting:
            raise Unexpected("more values than rows")
        self._pages.check_end()

    def _array(self, values: Bytes, rows: int) -> pa.Array:
        type_, n = self._plan.type, rows * self._size
        if type_ in NARROW:
            wide = np.ndarray(n, np.int32, values if n else bytes(0))
            values = wide.astype(type_.to_pandas_dtype()).view(np.uint8)
        # They may not be aligned: Arrow does not mind, as long as it computes nothing.
        flat = pa.Array.from_buffers(type_, n, [None, pa.py_buffer(values)])
        if not self._plan.lists:
            return flat
        lists = pa.list_(type_, self._size)
        return pa.Array.from_buffers(lists, rows, [None], children=[flat])

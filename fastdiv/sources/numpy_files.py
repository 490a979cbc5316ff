"""NumPy's .npy and .npz files, an array a column; read in pieces and never unpickled."""

from __future__ import annotations

import ast
import io
import lzma
import math
import struct
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from threading import Lock
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa

from fastdiv.errors import DataError, UsageError
from fastdiv.sources.arrays import as_column
from fastdiv.sources.container import Whole, one_line, unchanged
from fastdiv.sources.files.file import File, LocalFile
from fastdiv.sources.files.places import Places
from fastdiv.sources.metadata import with_metadata
from fastdiv_kernels.contract import Array

PREDICTIONS = "predictions"  # the column that the one array of a .npy file is
CLASS_NAMES = ("class_names", "classes", "label_names", "target_names")
MOST_HEADER = 1 << 16  # bytes
PARSING = Lock()  # Python 3.11 fails where threads parse at once (python/cpython gh-106905)
MOST_VALUES = 1 << 62
MOST_SCATTERED = 64 << 20  # bytes of an array in Fortran order that must be read whole
MOST_INFLATED = 1032  # times as large as its compressed bytes a deflated array can be
FAILURES = (
    OSError, ValueError, EOFError, RuntimeError, struct.error, lzma.LZMAError, zlib.error,
    zipfile.BadZipFile,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Stored:
    """Where an array lies, and what its header says."""

    file: File
    member: str | None  # of a .npz file
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fortran_order: bool
    start: int  # bytes before the first row

    @property
    def name(self) -> str:
        """Name the array to a person."""
        path = self.file.name
        return path if self.member is None else f"{path}, array {self.member!r}"

    @property
    def row_bytes(self) -> int:
        """Bytes of a row."""
        return math.prod(self.shape[1:]) * self.dtype.itemsize

    def open(self, stack: ExitStack) -> BinaryIO:
        """Open the array at its first row."""
        file: Any = stack.enter_context(self.file.open())
        if self.member is not None:
            archive = stack.enter_context(zipfile.ZipFile(file))
            file = stack.enter_context(archive.open(f"{self.member}.npy"))
        file.seek(self.start)  # the header was read when the array was found
        opened: BinaryIO = file
        return opened

    def pieces(self, rows: int) -> Iterator[Array]:
        """Yield the rows, at most so many at a time."""
        with ExitStack() as stack:
            try:
                file = self.open(stack)
                if self.fortran_order and len(self.shape) > 1:  # its rows are scattered over it
                    whole = self._scattered(file)
                    yield from (whole[i : i + rows] for i in range(0, len(whole), rows))
                    return
                for start in range(0, self.shape[0], rows):
                    yield self._take(file, min(rows, self.shape[0] - start), start)
            except FAILURES as error:
                raise DataError(f"{self.name}: cannot be read: {one_line(error)}") from error

    def _scattered(self, file: BinaryIO) -> Array:
        """Return an array in Fortran order: mapped where that can be, else read whole."""
        if self.member is None and isinstance(self.file, LocalFile):
            return np.memmap(self.file.path, self.dtype, "r", file.tell(), self.shape, "F")
        size = self.shape[0] * self.row_bytes
        if size > MOST_SCATTERED:
            raise DataError(
                f"{self.name}: {size >> 20} MiB in Fortran order, whose rows cannot be read one by "
                "one: save it in C order, with numpy.ascontiguousarray"
            )
        return self._take(file, self.shape[0], 0).reshape(self.shape[::-1]).T

    def _take(self, file: BinaryIO, rows: int, start: int) -> Array:
        wanted = rows * self.row_bytes
        data = file.read(wanted)
        if len(data) != wanted:
            raise DataError(
                f"{self.name}, row {start + len(data) // max(1, self.row_bytes)}: the array ends "
                f"here, but its header says {self.shape[0]} rows: the file is cut"
            )
        return np.frombuffer(data, self.dtype).reshape(rows, *self.shape[1:])


class NumPyContainer(Whole):
    """The arrays of a file that have a row a sample, and those the caller names beside them."""

    def __init__(self, file: File, beside: Mapping[str, str], places: Places) -> None:
        self.path = path = file.name
        arrays = stored_arrays(file)
        for column, where in beside.items():
            arrays[column] = named_array(where, places)
        lengths = Counter(a.shape[0] for a in arrays.values() if len(a.shape) == 2)
        lengths = lengths or Counter(a.shape[0] for a in arrays.values() if a.shape)
        n = lengths.most_common(1)[0][0] if lengths else 0
        for column in beside:
            if arrays[column].shape[:1] != (n,):
                raise DataError(
                    f"{arrays[column].name}: shape {arrays[column].shape} for {n} rows of {path}"
                )
        fits = {
            k: a for k, a in arrays.items() if a.shape[:1] == (n,) and _column_type(a) is not None
        }
        left = [f"{k} {a.dtype} {a.shape}" for k, a in arrays.items() if k not in fits]
        self.left_out = f"; arrays that are no columns of {n} rows: {', '.join(left)}" * bool(left)
        self._arrays = fits
        schema = pa.schema([(name, _column_type(a)) for name, a in fits.items()])
        super().__init__(path, with_metadata(schema, **_class_names(arrays)), file.size())
        self.rows = [n]

    def most_rows(self, group: int, classes: int) -> int | None:
        """Return what the headers say."""
        return self.rows[group]

    def nbytes(self, group: int, columns: Sequence[str]) -> int:
        """Return the size of some arrays."""
        return sum(self._arrays[c].row_bytes * self._arrays[c].shape[0] for c in columns)

    def read(self, group: int, columns: Sequence[str], rows: int) -> Iterator[pa.RecordBatch]:
        """Yield rows, at most so many at a time."""
        schema = pa.schema([self.schema.field(name) for name in columns])
        pieces = [self._arrays[name].pieces(rows) for name in columns]
        for arrays in zip(*pieces, strict=True):
            yield pa.record_batch([as_column(a) for a in arrays], schema=schema)
        for name in columns:
            unchanged(self._arrays[name].file, self._arrays[name].name)


def stored_arrays(file: File) -> dict[str, Stored]:
    """Return the arrays of a file by name, from their headers."""
    path = file.name
    try:
        size = file.size()
        with file.open() as opened:
            if not zipfile.is_zipfile(opened):
                opened.seek(0)
                stored = Stored(file, None, *_header(opened), opened.tell())
                _check_size(stored, size)
                return {PREDICTIONS: stored}
        found = {}
        with file.open() as opened, zipfile.ZipFile(opened) as archive:
            for info in archive.infolist():
                if info.filename.endswith(".npy"):
                    name = info.filename.removesuffix(".npy")
                    with archive.open(info) as member:
                        found[name] = Stored(file, name, *_header(member), member.tell())
                    inflated = MOST_INFLATED if info.compress_type != zipfile.ZIP_STORED else 1
                    _check_size(found[name], min(info.compress_size, size) * inflated)
    except FAILURES as error:
        raise DataError(f"{path}: cannot be read as NumPy arrays: {one_line(error)}") from error
    if not found:
        raise DataError(
            f"{path}: is a zip file without NumPy arrays (of torch.save, or Excel?): save arrays "
            "with numpy.savez"
        )
    return found


def named_array(where: str, places: Places) -> Stored:
    """Return the array of `FILE.npy` or `FILE.npz:NAME`."""
    path, _, name = where.partition(".npz:")
    if name:
        path += ".npz"
    arrays = stored_arrays(places.at(places.name(path)))
    if name and name not in arrays:
        raise UsageError(f"{path}: no array {name!r}: there are {', '.join(arrays)}")
    if not name and len(arrays) != 1:
        raise UsageError(f"{path} holds {', '.join(arrays)}: name one as {path}:{min(arrays)}")
    return arrays[name] if name else next(iter(arrays.values()))


def is_named_array(text: str | None, places: Places) -> bool:
    """Whether a text names a file of NumPy's, and perhaps an array in it."""
    if text is None:
        return False
    path = text.partition(".npz:")[0] + ".npz" if ".npz:" in text else text
    return path.endswith((".npy", ".npz")) and places.is_file(places.name(path))


def _header(file: Any) -> tuple[tuple[int, ...], np.dtype[Any], bool]:
    """Read shape, dtype and whether the order is Fortran's; stop before the data."""
    version = np.lib.format.read_magic(file)
    formats: dict[Any, tuple[str, Any]] = {
        (1, 0): ("<H", np.lib.format.read_array_header_1_0),
        (2, 0): ("<I", np.lib.format.read_array_header_2_0),
    }
    if version not in formats:
        raise ValueError(f"version {version} of the format is not known")
    length, read = formats[version]
    prefix = file.read(struct.calcsize(length))
    (size,) = struct.unpack(length, prefix)
    text = file.read(min(size, MOST_HEADER))
    if len(text) != size:
        raise ValueError(f"its header claims {size} bytes")
    try:
        with PARSING:
            ast.literal_eval(text.decode("latin1"))  # numpy's own parser fails in many ways
            shape, fortran_order, dtype = read(io.BytesIO(prefix + text))
    except (SyntaxError, TypeError, ValueError, RecursionError, MemoryError) as error:
        raise ValueError("its header is damaged") from error
    if any(n < 0 for n in shape) or math.prod(shape) > MOST_VALUES:
        raise ValueError(f"shape {shape} is impossible")
    return shape, dtype, fortran_order


def _check_size(array: Stored, most: int) -> None:
    """Refuse a header that claims more than its file can hold."""
    claimed = math.prod(array.shape) * array.dtype.itemsize
    if claimed > most and not array.dtype.hasobject:
        raise DataError(
            f"{array.name}: its header claims shape {array.shape} of {array.dtype}, {claimed} "
            f"bytes, but there are at most {most}: the file is cut or damaged"
        )


def _column_type(array: Stored) -> pa.DataType | None:
    """Return the Arrow type of an array as a column, or None."""
    if not array.shape or array.dtype.hasobject:  # objects would have to be unpickled
        return None
    try:
        column = as_column(np.zeros((0, *array.shape[1:]), array.dtype))
    except (pa.ArrowException, UsageError, ValueError):
        return None
    return column.type


def _class_names(arrays: Mapping[str, Stored]) -> dict[str, Any]:
    """Return the class names that a file holds as an array of strings."""
    for name in CLASS_NAMES:
        array = arrays.get(name)
        if array is not None and len(array.shape) == 1 and array.dtype.kind == "U":
            names = [str(x) for piece in array.pieces(max(1, array.shape[0])) for x in piece]
            return {"class_names": names}
    return {}

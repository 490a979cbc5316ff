"""A run written down, in a folder or in memory, and read back by plain readers.

Those are pyarrow, NumPy, json and csv: slowly, a Python object a value, so that `Dump.read` can be
believed to say what is there.
"""

import bz2
import csv
import gzip
import io
import json
import math
import uuid
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from encoded import (
    GARBAGE,
    DLPack,
    Exporter,
    Interface,
    class_columns,
    epoch_column,
    extra_column,
    id_column,
    label_column,
    lists_of,
    one_hot,
    prediction_columns,
    recoded,
    said,
    string_column,
)
from truth import Row, checkpoint, from_bytes, from_words, of_other_class, rounded, to_words
from writing import (
    FILES,
    NAMING,
    NUMPY,
    PACKED,
    STRANGE,
    STRINGS,
    SUFFIX,
    TEXT,
    USUAL,
    WIDE,
    WORDS,
    can,
)


@dataclass
class Part:
    """One file, table or set of arrays, and the split and epoch that its place tells."""

    data: Any  # what `analyze` is given, or the path of a file
    split: str | None
    epoch: int | None
    rows: list[Row] = field(repr=False)


class Dump:
    """A truth, written down in a folder or in memory."""

    def __init__(self, truth, writing, folder):
        assert can(truth, writing), "this writing cannot hold this truth"
        self.truth = truth
        self.writing = w = writing
        self.folder = Path(folder) / "dump"
        usual = {role: names[w.seed % len(names)] for role, names in USUAL.items()}
        self.columns = STRANGE if w.asked else usual | {"predictions": usual[truth.kind]}
        if w.within:
            inner = {role: f"row.{self.columns[role]}" for role in ("label", "id")}
            self.columns = self.columns | inner
        self.name = ("model." if w.layout == "nested" else "") + self.columns["predictions"]
        self.parts = [self._part(*place, rows) for place, rows in self._pieces()]
        self.options = self._options()

    @property
    def rows(self):
        """What was written, part by part."""
        return [part.rows for part in self.parts]

    # -- what goes where -------------------------------------------------------------------

    def _pieces(self):
        """Yield ((split, epoch, piece), rows) of each part; None where a column tells them."""
        w, rng = self.writing, np.random.default_rng(self.writing.seed)
        groups = {}
        for (split, epoch), rows in self.truth.rows().items():
            if w.order != "as it is":
                rows = [rows[i] for i in rng.permutation(len(rows))]
            split = split if w.split_in != "column" else None
            epoch = epoch if w.epoch_in != "column" else None
            groups.setdefault((split, epoch), []).extend(rows)
        for (split, epoch), rows in groups.items():
            if w.order == "mixed":
                rows = [rows[i] for i in rng.permutation(len(rows))]
            pieces = w.pieces if w.container in FILES and w.container != "npy" else 1
            ends = [len(rows) * i // pieces for i in range(pieces + 1)]
            for i, (start, stop) in enumerate(pairwise(ends)):
                yield (split, epoch, i), rows[start:stop]

    def _part(self, split, epoch, piece, rows):
        w = self.writing
        made = self._arrays if w.container in ("arrays", *NUMPY) else self._table
        data = made(rows)
        if w.container in FILES:
            path = self._path(split, epoch, piece)
            path.parent.mkdir(parents=True, exist_ok=True)
            self._write(data, path)
            data = path
        return Part(data, split, epoch, rows)

    def _path(self, split, epoch, piece):
        w = self.writing
        path = self.folder
        if w.epoch_in == "paths":
            path /= checkpoint(epoch)
        if split is not None:
            path /= f"{self.columns['split']}={split}" if w.split_in == "hive" else split
        name = f"part-{piece}" if w.pieces > 1 else "data"
        if w.epoch_in == "hive":
            path /= f"{self.columns['epoch']}={epoch}"
        elif w.epoch_in == "names":
            name = f"preds_epoch_{epoch:03}" + (f".{name}" if w.pieces > 1 else "")
        elif w.epoch_in == "mapping":
            path /= f"e{epoch}"
        elif self._epochs_are_files:
            path, name = path.parent, path.name
        packed = COMPRESSED_TEXT.get(w.compression, "") if w.container in ("csv", "jsonl") else ""
        return path / (name + SUFFIX[w.container] + packed)

    @property
    def _epochs_are_files(self):
        """Whether each path that is an epoch is a file, and not a directory."""
        w = self.writing
        alone = w.pieces == 1 and w.split_in != "hive"
        return w.epoch_in == "paths" and alone and w.seed % 2 == 1

    def _write(self, data, path):
        w = self.writing
        if w.container == "parquet":
            pq.write_table(data, path, compression=w.compression, row_group_size=w.row_group,
                           **dict(w.parquet))  # fmt: skip
        elif w.container in ("ipc", "stream"):
            new = pa.ipc.new_file if w.container == "ipc" else pa.ipc.new_stream
            compression = w.compression if w.compression in ("lz4", "zstd") else None
            options = pa.ipc.IpcWriteOptions(
                compression=compression, unify_dictionaries=w.container == "ipc"
            )
            with pa.OSFile(str(path), "wb") as sink, new(sink, data.schema, options=options) as out:
                out.write_table(data, w.row_group)
        elif w.container == "npz":
            (np.savez if w.compression == "none" else np.savez_compressed)(path, **data)
        elif w.container == "npy":
            predictions, *beside = data.values()
            np.save(path, predictions)
            for name, array in zip(("labels", "ids"), beside, strict=False):
                np.save(self.folder / f"{name}.npy", array)
        else:
            text = self._csv(data) if w.container == "csv" else self._json(data)
            pack = {".gz": gzip.compress, ".bz2": bz2.compress}.get(path.suffix, bytes)
            path.write_bytes(pack(text.encode()))

    # -- what a part holds -----------------------------------------------------------------

    def _columns(self, rows):
        """Return {column: array} of rows, in the order in which they are written."""
        t, w, names = self.truth, self.writing, self.columns
        columns = prediction_columns(rows, t, w, self.name)
        row = {names["label"]: label_column(rows, t, w)}
        if t.ids != "position":
            row[names["id"]] = id_column([row.id for row in rows], w.id)
        if w.within:
            fields = [name.removeprefix("row.") for name in row]
            row = {"row": pa.StructArray.from_arrays(list(row.values()), fields)}
        columns |= row
        if w.epoch_in == "column":
            columns[names["epoch"]] = epoch_column([row.epoch for row in rows], w.epoch_type)
        if w.split_in == "column":
            kind = STRINGS[w.seed % 2 * 3] if w.container not in TEXT else "string"
            columns[names["split"]] = string_column([row.split for row in rows], kind)
        for name in w.extras:
            columns.setdefault(name, extra_column(name, len(rows)))
        if not w.seed:
            return columns
        items = list(columns.items())
        return dict(items[i] for i in np.random.default_rng(w.seed).permutation(len(items)))

    def _table(self, rows):
        w = self.writing
        data = pa.table(self._columns(rows))
        n = len(rows)
        if n and w.around != (0, 0):  # the rows are a slice of something larger
            before, after = (data.slice(0, min(k, n)) for k in w.around)
            data = pa.concat_tables([before, data, after]).combine_chunks().slice(len(before), n)
        if cuts := sorted({cut % n for cut in w.cuts} - {0}) if n else []:
            pieces = [data.slice(a, b - a) for a, b in pairwise([0, *cuts, n])]
            data = pa.concat_tables(map(recoded, pieces))
        if w.described:
            about = {"dtype": self.truth.dtype, "kind": self.truth.kind}
            about |= {"class_names": self.truth.names} if self.truth.named else {}
            data = data.replace_schema_metadata({"fastdiv": json.dumps(about)})
        if w.container == "batch":
            data = data.combine_chunks() if n else data
            return pa.record_batch([c.chunk(0) for c in data.columns], schema=data.schema)
        return data

    def _arrays(self, rows):
        """Return {name: array} of predictions, labels and perhaps ids."""
        t, names = self.truth, self._array_names()
        arrays = {names[0]: self._array_of_predictions(rows), names[1]: self._array_of_labels(rows)}
        if t.ids != "position":
            type_ = {"count": np.int16, "signed": np.int64, "unsigned": np.uint64}.get(t.ids, str)
            arrays[names[2]] = np.array([row.id for row in rows], type_)
        return arrays

    def _array_names(self):
        if self.writing.container != "npz":
            return "predictions", "labels", "ids"
        return self.name, self.columns["label"], self.columns["id"]

    def _array_of_predictions(self, rows):
        t, layout = self.truth, self.writing.layout
        if layout == "arrow lists":
            return lists_of([row.values for row in rows], "list", t.dtype, t.classes)
        x = np.array([row.values for row in rows], np.float64).reshape(len(rows), t.classes)
        x = to_words(x) if t.dtype == "bfloat16" else x.astype(t.dtype)
        if layout == "fortran":
            return np.asfortranarray(x)
        if layout == "swapped":
            return x.astype(x.dtype.newbyteorder())
        if layout == "strided":
            wide = np.full((2 * len(x), x.shape[1] + 1), GARBAGE, x.dtype)
            wide[::2, 1:] = x
            return wide[::2, 1:]
        return {"dlpack": DLPack, "interface": Interface}.get(layout, np.asarray)(x)

    def _array_of_labels(self, rows):
        c, kind, first = self.truth.classes, self.writing.label, self.writing.no_class
        if kind == "arrow array":
            return label_column(rows, self.truth, self.writing)
        if kind == "array of names":
            return np.array(said(rows, lambda y: self.truth.names[y], ["nobody", ""], first), str)
        if kind == "one-hot array":
            hot = said(rows, lambda y: one_hot(y, c), [[0] * c, [1] * c, [math.nan] * c], first)
            return np.array(hot, np.float32).reshape(len(rows), c)
        y = np.array(said(rows, int, [-1, c, -(2**63), 2**40], first), np.int64)
        return y[:, None] if kind == "array (n, 1)" else y

    def _csv(self, data):
        w = self.writing
        left_out = {"when", "tags", "meta", "blob"}
        columns = {n: data[n].to_pylist() for n in data.column_names if n not in left_out}
        lines = [["" if x is None else repr(x) if isinstance(x, float) else x for x in row]
                 for row in zip(*columns.values(), strict=True)]  # fmt: skip
        file = io.StringIO()
        file.write("# made by, a test\n" * self._skipped)
        writer = csv.writer(file, delimiter=",;\t|"[w.seed % 4], lineterminator="\n")
        writer.writerows([list(columns), *lines])
        return file.getvalue()

    @property
    def _skipped(self):
        """How many lines of a CSV file come before the header."""
        return self.writing.seed // 4 % 3 if self.writing.container == "csv" else 0

    def _json(self, data):
        kept = [n for n in data.column_names if n not in ("when", "blob")]
        records = data.select(kept).to_pylist()
        if self.writing.container == "json":
            return json.dumps(records)
        return "".join(json.dumps(record) + "\n" for record in records)

    # -- what `analyze` is given -----------------------------------------------------------

    def source(self):
        """Return the first argument of `analyze`, made anew: some can be read only once."""
        w = self.writing
        named = {}
        for part in self.parts:
            split = part.split if w.split_in == "mapping" else None
            epoch = part.epoch if w.epoch_in == "mapping" else None
            named.setdefault(split, {}).setdefault(epoch, []).append(part)
        for split, of_epoch in named.items():
            given = {epoch: self._given(parts) for epoch, parts in of_epoch.items()}
            named[split] = given[None] if set(given) == {None} else given
        return named[None] if set(named) == {None} else named

    def _given(self, parts):
        w, data = self.writing, parts[0].data
        if w.container == "reader":
            return pa.RecordBatchReader.from_batches(data.schema, data.to_batches())
        if w.container == "exporter":
            return Exporter(data)
        if w.container == "arrays":
            return data if w.form == "folder" else tuple(data.values())
        if w.container not in FILES:
            return data
        if w.epoch_in == "mapping" or w.container == "json":
            return [str(part.data) for part in parts]
        above = self.folder
        if w.split_in == "mapping":
            above /= parts[0].split
        if w.epoch_in == "paths" and w.form == "list" and len(self.truth.epochs) > 1:
            below = [above / checkpoint(epoch) for epoch in self.truth.epochs]
            return [str(part.data) for part in parts] if self._epochs_are_files else below
        if w.epoch_in == "paths":
            return str(above / "*") if w.form == "glob" else above
        if w.form == "list":
            return [str(part.data) for part in parts]
        if w.form == "glob":
            return str(above / "**" / f"*{SUFFIX[w.container]}*")
        return above if w.form == "path" else str(above)

    def _options(self):
        t, w = self.truth, self.writing
        options = {"kind": t.kind} if w.kind_asked else {}
        if t.named and not w.described:
            options["class_names"] = list(t.names)
        if w.id == "refused":
            options["id"] = "none"
        if w.layout in PACKED or (t.dtype == "bfloat16" and w.container not in TEXT):
            options |= {"dtype": t.dtype} if not w.described else {}
        if w.layout == "score":
            options["positive"] = t.names[t.score_of] if w.label in NAMING else str(t.score_of)
        if self._skipped:
            options["skip_lines"] = self._skipped
        if w.epoch_in == "paths":
            options["epoch_per_path"] = True
        if w.container == "npy":
            options["label"] = str(self.folder / "labels.npy")
            options |= {"id": str(self.folder / "ids.npy")} if t.ids != "position" else {}
        elif w.asked and w.container != "arrays":
            options |= {"label": self.columns["label"], "predictions": self.name}
            if w.layout in WIDE:
                options["predictions"] = class_columns(t, w, self.name)
            if t.ids != "position":
                options["id"] = self.columns["id"]
            if w.epoch_in in ("column", "hive"):
                options["epoch"] = self.columns["epoch"]
            if w.split_in in ("column", "hive"):
                options["split"] = self.columns["split"]
        return options

    # -- what plain readers find -----------------------------------------------------------

    def read(self):
        """Return the rows of each part as plain pyarrow, NumPy, csv and json read them."""
        return [self._read(part) for part in self.parts]

    def _read(self, part):
        w, t, names = self.writing, self.truth, self.columns
        if w.container in ("arrays", *NUMPY):
            return self._read_arrays(part)
        columns = self._read_columns(part.data)
        labels = [class_of(y, t) for y in at(columns, names["label"])]
        n = len(labels)
        splits, epochs = [part.split] * n, [part.epoch] * n
        if w.epoch_in == "column":
            epochs = [epoch_of(epoch) for epoch in columns[names["epoch"]]]
        if w.split_in == "column":
            splits = columns[names["split"]]
        ids = [row.id for row in part.rows]
        if t.ids != "position":
            ids = [str(i) if isinstance(i, uuid.UUID) else i for i in at(columns, names["id"])]
        if w.layout in WIDE:
            found = [columns[name] for name in class_columns(t, w, self.name)]
            values = [list(row) for row in zip(*found, strict=True)]
        else:
            values = [self._values(found) for found in at(columns, self.name)]
        return [Row(*row) for row in zip(splits, epochs, ids, labels, values, strict=True)]

    def _values(self, found):
        layout, dtype = self.writing.layout, self.truth.dtype
        if found is None:
            return None
        if layout == "score":
            second = float(rounded(of_other_class(found, self.truth.kind), dtype))
            return [second, found] if self.truth.score_of else [found, second]
        if layout in PACKED:
            return from_bytes(found, dtype)
        if layout in WORDS:
            return [None if word is None else float(from_words(word)) for word in found]
        return list(found)

    def _read_columns(self, data):
        container = self.writing.container
        if container in ("jsonl", "json"):
            text = unpacked(data)
            if container == "jsonl":
                text = f"[{','.join(text.splitlines())}]"
            records = json.loads(text)
            keys = records[0] if records else self._table([]).column_names
            return {key: [record[key] for record in records] for key in keys}
        if container == "csv":
            return self._read_csv(io.StringIO(unpacked(data)))
        if container == "parquet":
            # It cannot read dictionaries of no rows, nor nested ones of several row groups at once.
            file = pq.ParquetFile(data)
            if not file.metadata.num_rows:
                return {name: [] for name in file.schema_arrow.names}
            groups = range(file.metadata.num_row_groups)
            data = pa.concat_tables(map(file.read_row_group, groups))
        elif container == "ipc":
            data = pa.ipc.open_file(data).read_all()
        elif container == "stream":
            data = pa.ipc.open_stream(data.read_bytes()).read_all()
        return {name: data[name].to_pylist() for name in data.schema.names}

    def _read_csv(self, file):
        for _ in range(self._skipped):
            file.readline()
        header, *lines = csv.reader(file, delimiter=",;\t|"[self.writing.seed % 4])
        texts = {"split"} | {"id" for _ in [0] if self.truth.ids in ("words", "uuids")}
        texts |= {"label"} if self.writing.label == "string" else set()
        texts |= {"epoch"} if self.truth.checkpoints else set()
        strings = {self.columns[role] for role in texts}
        columns = zip(*lines, strict=True) if lines else [[] for _ in header]
        return {
            name: [cell or None if name in strings else from_text(cell) for cell in cells]
            for name, cells in zip(header, columns, strict=True)
        }

    def _read_arrays(self, part):
        data, t = part.data, self.truth
        predictions, label, id_ = self._array_names()
        if self.writing.container == "npz":
            with np.load(data) as arrays:
                data = dict(arrays)
        elif self.writing.container == "npy":
            data = {predictions: np.load(data), label: np.load(self.folder / "labels.npy")}
            data |= {id_: np.load(self.folder / "ids.npy")} if t.ids != "position" else {}
        x = data[predictions]
        if self.writing.layout == "arrow lists":
            values = x.to_pylist()
        else:
            x = getattr(x, "_array", x)
            values = (from_words(x) if t.dtype == "bfloat16" else x.astype(np.float64)).tolist()
        ids = data[id_].tolist() if id_ in data else [row.id for row in part.rows]
        labels = data[label]
        labels = labels.to_pylist() if isinstance(labels, pa.Array) else labels.tolist()
        rows = zip(ids, (class_of(y, t) for y in labels), values, strict=True)
        return [Row(part.split, part.epoch, *row) for row in rows]


COMPRESSED_TEXT = {"gzip": ".gz", "brotli": ".bz2"}


def unpacked(path):
    unpack = {".gz": gzip.decompress, ".bz2": bz2.decompress}.get(path.suffix, bytes)
    return unpack(path.read_bytes()).decode()


def at(columns, name):
    """Return a column by its name or its path."""
    if name in columns:
        return columns[name]
    outer, _, inner = name.partition(".")
    return [None if record is None else record[inner] for record in columns[outer]]


def from_text(cell):
    """Return what a cell of a CSV file says."""
    if cell in ("", "True", "False"):
        return {"": None, "True": True, "False": False}[cell]
    for number in (int, float):
        try:
            return number(cell)
        except ValueError:
            continue
    return cell


def epoch_of(epoch):
    return int(epoch.removeprefix("checkpoint-") if isinstance(epoch, str) else epoch)


def class_of(y, truth):
    """Return the class that a label of any type says, or None."""
    if isinstance(y, list) and len(y) != 1:
        return y.index(1) if y.count(1) == 1 and y.count(0) == len(y) - 1 else None
    if isinstance(y, list):
        (y,) = y
    if isinstance(y, str):
        return truth.names.index(y) if y in truth.names else None
    if y is None or not 0 <= y < truth.classes:  # NaN is neither
        return None
    return int(y)

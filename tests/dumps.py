"""Small prediction dumps, written in any layout, and a comparison of runs to the byte."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

TABLES = ("epochs", "transitions", "samples", "classes")


@dataclass
class Rows:
    """What one epoch holds."""

    x: np.ndarray  # (n, c) predictions
    y: np.ndarray  # (n,) labels
    ids: np.ndarray  # (n,)

    def __len__(self):
        return len(self.y)

    def take(self, rows):
        """Return some rows, in the order asked for."""
        return Rows(self.x[rows], self.y[rows], self.ids[rows])

    def shuffled(self, seed=0):
        """Return the rows in another order."""
        return self.take(np.random.default_rng(seed).permutation(len(self)))

    def arrays(self):
        """Return what a mapping from epoch to arrays takes."""
        return self.x, self.y, self.ids


def make(epochs=(0, 1, 2), n=40, c=3, seed=0, dtype=np.float32):
    """Return {epoch: Rows} of logits that learn; labels and ids stay."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, c, n)
    ids = rng.permutation(10 * n)[:n]
    dump = {}
    for i, epoch in enumerate(epochs):
        x = rng.normal(0, 2, (n, c))
        x[np.arange(n), y] += i
        dump[epoch] = Rows(x.astype(dtype), y, ids)
    return dump


def spoil(dump):
    """Make all go wrong that may, in three epochs of seven classes and 28 samples at least."""
    first, second, third = dump.values()
    first.x[10], first.x[11, 3], first.x[12] = np.nan, np.inf, -np.inf  # invalid
    first.x[13, first.y[13]] = -np.inf  # infinite loss
    second.x[14], third.x[15] = 0.5, np.nan  # a tie
    third.y = third.y.copy()
    third.y[20:25] = (third.y[20:25] + 1) % 7  # relabelled
    third.y[26], third.y[27] = -1, 7  # out of range
    # Six are new in the second epoch, three come later still, and four are gone in the third.
    for epoch, some in zip(dump, (slice(0, -6), slice(0, -3), slice(4, None)), strict=True):
        dump[epoch] = dump[epoch].take(some)


def as_kind(rows, kind):
    """Return rows of logits as probs or logprobs of the same dtype."""
    if kind == "logits":
        return rows
    x = rows.x.astype(np.float64)
    x = x - x.max(axis=1, keepdims=True)
    logs = x - np.log(np.exp(x).sum(axis=1, keepdims=True))
    return replace(rows, x=(np.exp(logs) if kind == "probs" else logs).astype(rows.x.dtype))


def as_list(x, layout="list"):
    """Return predictions (n, c) as a column of lists."""
    n, c = x.shape
    items = pa.array(np.ascontiguousarray(x).ravel())
    ends = np.arange(0, n * c + 1, c)
    if layout == "fixed_size_list":
        return pa.FixedSizeListArray.from_arrays(items, c)
    if layout == "large_list":
        return pa.LargeListArray.from_arrays(pa.array(ends), items)
    return pa.ListArray.from_arrays(pa.array(ends.astype(np.int32)), items)


def table(rows, layout="list", name="logits", **more):
    """Return a table of rows; `more` columns are added, replaced, or dropped where None.

    Layouts: list, large_list, fixed_size_list; wide0 and wide1 have a column a class, numbered
    from 0 and from 1, in an order that is not the numeric one.
    """
    n, c = rows.x.shape
    columns = {"sample_id": rows.ids, "label": rows.y}
    if layout in ("wide0", "wide1"):
        order = np.random.default_rng(c).permutation(c)
        columns |= {f"{name}_{k + int(layout[-1])}": rows.x[:, k] for k in order}
    else:
        columns[name] = as_list(rows.x, layout)
    for key, value in more.items():
        if value is None:
            columns.pop(key)
        else:
            columns[key] = value if is_column(value) else [value] * n
    return pa.table({key: pa.array(value) for key, value in columns.items()})


def is_column(value):
    return isinstance(value, np.ndarray | pa.Array | list)


def whole(dump, layout="list", **more):
    """Return one table of all epochs, with a column that tells them."""
    return pa.concat_tables([table(rows, layout, epoch=e, **more) for e, rows in dump.items()])


def write(data, path, **options):
    """Write a table to a file, with the directories above it."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(data, path, **options)
    return path


def write_files(folder, dump, layout="list", pattern="preds_epoch_{:03}.parquet", **options):
    """Write a file for each epoch; return the folder."""
    for epoch, rows in dump.items():
        write(table(rows, layout), Path(folder) / pattern.format(epoch), **options)
    return Path(folder)


def arrays(dump):
    """Return the mapping from epoch to arrays that `analyze` takes."""
    return {epoch: rows.arrays() for epoch, rows in dump.items()}


def to_bytes(data):
    """Return a table as Arrow IPC bytes, whatever its chunks are and whatever is under a null."""
    sink = pa.BufferOutputStream()
    for field in data.schema:
        for values in (data[field.name].is_valid(), data[field.name].drop_null()):
            one = pa.table({field.name: values}).combine_chunks()
            with pa.ipc.new_stream(sink, one.schema) as writer:
                writer.write_table(one)
    return sink.getvalue().to_pybytes()


def assert_same(run, wanted, tables=TABLES):
    """Compare the tables of two runs to the byte."""
    for name in tables:
        found, want = getattr(run, name), getattr(wanted, name)
        assert found.schema == want.schema, name
        if to_bytes(found) != to_bytes(want):  # say where before saying that
            assert found.to_pylist() == want.to_pylist(), name
            raise AssertionError(f"{name}: same values, other bytes")


def column(run, name, where="epochs"):
    """Return a column of a table of a run as a list."""
    return getattr(run, where)[name].to_pylist()


def learned(epochs, n, c, seed=1):
    """Make epochs of a model that learns and grows too sure: its loss falls and then rises."""
    made = make(range(epochs), n=n, c=c, seed=seed)
    rng = np.random.default_rng(seed)
    always = rng.normal(0, 2, (n, c))
    for epoch, rows in made.items():
        x = always + rng.normal(0, 0.5, (n, c))
        x[np.arange(n), rows.y] += 0.2 * epoch
        rows.x = (x * 0.3 * (1 + epoch)).astype(np.float32)
    return made

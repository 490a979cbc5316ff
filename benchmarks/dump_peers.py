"""From a Parquet dump, a file an epoch, to loss and accuracy of each, as each library does it best.

Each function takes a `Dump` and returns what is timed: a call that reads the dump from its start
and returns ``{epoch: (mean loss, accuracy)}``, or None where nothing is computed. All but fastdiv
compute these two numbers alone, and read no ids. Peers are imported when asked for, each in a
process of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.data import Arrays, Dump

if TYPE_CHECKING:
    import fastdiv
    from benchmarks.data import Labels, Logits

BATCH_ROWS = 1 << 16  # of pyarrow's batches; measured: the best of 16k, 64k, 256k and row groups

Epochs = dict[int, tuple[float, float]]
Run = Callable[[], Epochs | None]


def fastdiv_all(dump: Dump) -> Run:
    return _fastdiv(dump, "all")


def fastdiv_slim(dump: Dump) -> Run:
    return _fastdiv(dump, "slim")


def fastdiv_rolling(dump: Dump) -> Run:
    return _fastdiv(dump, "rolling")


def fastdiv_one(dump: Dump) -> Callable[[], None]:
    """Analyze the first file alone, for which nothing else has anything to compare."""
    run = _fastdiv(dump, "rolling", dump.files[0])

    def one() -> None:
        run()

    return one


def _fastdiv(dump: Dump, scores: str, path: Path | None = None) -> Run:
    import fastdiv

    path = path or dump.path
    binary = not _is_list(dump)
    dtype = "float32" if binary else None  # bytes do not say what they are

    def run() -> Epochs:
        return found(fastdiv.analyze(path, scores=scores, dtype=dtype, threads=dump.threads))

    return run


def found(run: fastdiv.Run) -> Epochs:
    """Return mean loss and accuracy of each epoch."""
    return {row["epoch"]: (row["loss"], row["accuracy"]) for row in run.epochs.to_pylist()}


def kernel_alone(dump: Dump) -> Callable[[], None]:
    """Score the same logits, of all epochs, where they lie in memory."""
    from benchmarks.kernel_peers import fastdiv_score

    parts = list(_on_threads(dump, list))
    batches = [batch for _, part in parts for batch in part]
    logits = np.concatenate([z for _, z in batches])
    labels = np.concatenate([y for y, _ in batches])
    run = fastdiv_score(Arrays(logits, labels, dump.threads))

    def alone() -> None:  # of means over both epochs nothing else knows
        run()

    return alone


def duckdb(dump: Dump) -> Run:
    """Query file by file; spell the classes out: list_transform with a lambda costs 7 % more."""
    import duckdb as database

    connection = database.connect()
    connection.sql(f"set threads = {dump.threads}")
    query = duckdb_query(dump.classes)

    def run() -> Epochs:
        rows = (connection.execute(query, [str(file)]).fetchone() for file in dump.files)
        return dict(enumerate(rows))

    return run


def duckdb_query(classes: int) -> str:
    """Return the query for mean loss and accuracy of a file."""
    terms = " + ".join(f"exp(logits[{i + 1}] - top)" for i in range(classes))
    return f"""
        select avg(top + ln({terms}) - logits[label + 1]),
               avg((list_position(logits, top) - 1 = label)::int)
        from (select label, logits, list_max(logits) as top from read_parquet(?))
    """


def polars(dump: Dump) -> Run:
    """Stream, with list arithmetic: taking the classes apart or fixed-size arrays cost as much."""
    import polars as pl

    top, logits = pl.col("top"), pl.col("logits")
    loss = (logits - top).list.eval(pl.element().exp()).list.sum().log() + top
    queries = [
        pl.scan_parquet(file)
        .with_columns(top=logits.list.max())
        .select(
            loss=(loss - logits.list.get(pl.col("label"))).cast(pl.Float64).mean(),
            correct=(logits.list.arg_max() == pl.col("label")).mean(),
        )
        for file in dump.files
    ]

    def run() -> Epochs:
        return dict(enumerate(query.collect(engine="streaming").row(0) for query in queries))

    return run


def pyarrow_torch(dump: Dump) -> Run:
    """Decode and compute on the same threads: torch's own would only wait for the decoder."""
    import torch
    from torch.nn.functional import cross_entropy

    torch.set_num_threads(1)

    def totals(logits: Logits, labels: Labels) -> tuple[float, int]:
        z, y = torch.from_numpy(logits), torch.from_numpy(labels.astype(np.int64))
        loss = cross_entropy(z, y, reduction="sum")
        return loss.item(), int((z.argmax(1) == y).sum())

    return lambda: _by_epoch(dump, totals)


def pyarrow_torchmetrics(dump: Dump) -> Run:
    """Let torchmetrics tell what is right; of the loss of a class index it has nothing."""
    import torch
    from torch.nn.functional import cross_entropy
    from torchmetrics.functional.classification import multiclass_accuracy

    torch.set_num_threads(1)

    def totals(logits: Logits, labels: Labels) -> tuple[float, float]:
        z, y = torch.from_numpy(logits), torch.from_numpy(labels.astype(np.int64))
        loss = cross_entropy(z, y, reduction="sum")
        accuracy = multiclass_accuracy(z, y, dump.classes, average="micro", validate_args=False)
        return loss.item(), round(accuracy.item() * len(y))

    return lambda: _by_epoch(dump, totals)


def pyarrow_sklearn(dump: Dump) -> Run:
    from scipy.special import softmax
    from sklearn.metrics import accuracy_score, log_loss

    classes = np.arange(dump.classes)

    def totals(logits: Logits, labels: Labels) -> tuple[float, int]:
        loss = log_loss(labels, softmax(logits, axis=1), labels=classes, normalize=False)
        return loss, accuracy_score(labels, logits.argmax(1), normalize=False)

    return lambda: _by_epoch(dump, totals)


def pyarrow_decode(dump: Dump) -> Run:
    def run() -> None:
        for _ in _on_threads(dump, lambda batches: sum(len(labels) for labels, _ in batches)):
            pass

    return run


def decompress(dump: Dump) -> Run:
    """Decompress the bodies of all pages, as they lie in the files, and leave the values alone."""
    import pyarrow as pa

    from benchmarks.page_bodies import bodies

    parts = [(codec, body) for file in dump.files for codec, body in bodies(file)]
    codecs = {name: pa.Codec(name) for name, _ in parts}

    def part(codec: str, body: tuple[Any, int]) -> None:
        data, size = body
        codecs[codec].decompress(data, size)

    pool = ThreadPoolExecutor(dump.threads)

    def run() -> None:
        list(pool.map(part, *zip(*parts, strict=True)))

    return run


def _by_epoch(dump: Dump, totals: Callable[[Logits, Labels], tuple[float, float]]) -> Epochs:
    """Sum loss and right answers of each epoch over batches."""

    def row_group(batches: Iterator[tuple[Labels, Logits]]) -> Any:
        return sum(np.array([len(y), *totals(z, y)]) for y, z in batches)

    sums: dict[int, Any] = {}
    for epoch, total in _on_threads(dump, row_group):
        sums[epoch] = sums.get(epoch, 0) + total
    return {epoch: (loss / n, right / n) for epoch, (n, loss, right) in sums.items()}


def _on_threads(dump: Dump, work: Callable[[Iterator[Any]], Any]) -> Iterator[tuple[int, Any]]:
    """Yield each row group's epoch and `work(batches)`, on a pool of threads.

    Batches are (labels (n,), logits (n, c)), views of what Arrow decoded.
    """
    import pyarrow.parquet as pq

    is_list = _is_list(dump)

    def decode(file: Path, row_group: int) -> Iterator[tuple[Labels, Logits]]:
        with pq.ParquetFile(file, memory_map=True) as opened:
            for batch in opened.iter_batches(
                BATCH_ROWS, [row_group], ["label", "logits"], use_threads=False
            ):
                column = batch["logits"]
                if is_list:
                    values = column.flatten().to_numpy()
                else:
                    values = np.frombuffer(column.buffers()[1], np.float32)
                    values = values[column.offset * dump.classes :][: len(column) * dump.classes]
                yield batch["label"].to_numpy(), values.reshape(-1, dump.classes)

    def task(epoch: int, file: Path, row_group: int) -> tuple[int, Any]:
        return epoch, work(decode(file, row_group))

    tasks = [
        (epoch, file, row_group)
        for epoch, file in enumerate(dump.files)
        for row_group in range(pq.read_metadata(file).num_row_groups)
    ]
    with ThreadPoolExecutor(dump.threads) as pool:
        yield from pool.map(task, *zip(*tasks, strict=True))


def _is_list(dump: Dump) -> bool:
    import pyarrow as pa
    import pyarrow.parquet as pq

    return not pa.types.is_fixed_size_binary(pq.read_schema(dump.files[0]).field("logits").type)

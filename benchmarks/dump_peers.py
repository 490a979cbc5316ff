"""From a Parquet dump to loss and accuracy of each epoch, as each library does it best.

Each function takes a `Dump` and returns what is timed: a call that reads the dump from its start
and returns ``{epoch: (mean loss, accuracy)}``, or None where nothing is computed. All but fastdiv
compute these two numbers alone. Peers are imported when asked for, each in a process of its own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import fastdiv
    from benchmarks.data import Dump, Labels, Logits

BATCH_ROWS = 1 << 16  # of pyarrow's batches; measured: the best of 16k, 64k, 256k and row groups

Epochs = dict[int, tuple[float, float]]
Run = Callable[[], Epochs | None]


def fastdiv_all(dump: Dump) -> Run:
    return _fastdiv(dump, "all")


def fastdiv_slim(dump: Dump) -> Run:
    return _fastdiv(dump, "slim")


def fastdiv_rolling(dump: Dump) -> Run:
    return _fastdiv(dump, "rolling")


def _fastdiv(dump: Dump, scores: str) -> Run:
    import fastdiv

    return lambda: found(fastdiv.analyze(dump.path, scores=scores, threads=dump.threads))


def found(run: fastdiv.Run) -> Epochs:
    """Return mean loss and accuracy of each epoch."""
    return {row["epoch"]: (row["loss"], row["accuracy"]) for row in run.epochs.to_pylist()}


def duckdb(dump: Dump) -> Run:
    """Spell the classes out: list_transform with a lambda costs 7 % more."""
    import duckdb as database

    connection = database.connect()
    connection.sql(f"set threads = {dump.threads}")
    terms = " + ".join(f"exp(logits[{i + 1}] - top)" for i in range(dump.classes))
    query = f"""
        select epoch, avg(top + ln({terms}) - logits[label + 1]),
               avg((list_position(logits, top) - 1 = label)::int)
        from (select epoch, label, logits, list_max(logits) as top from read_parquet(?))
        group by epoch
    """

    def run() -> Epochs:
        rows = connection.execute(query, [str(dump.path)]).fetchall()
        return {epoch: (loss, accuracy) for epoch, loss, accuracy in rows}

    return run


def polars(dump: Dump) -> Run:
    """Stream, with list arithmetic: taking the classes apart or fixed-size arrays cost as much."""
    import polars as pl

    top, logits = pl.col("top"), pl.col("logits")
    loss = (logits - top).list.eval(pl.element().exp()).list.sum().log() + top
    query = (
        pl.scan_parquet(dump.path)
        .with_columns(top=logits.list.max())
        .select(
            "epoch",
            loss=(loss - logits.list.get(pl.col("label"))).cast(pl.Float64),
            correct=logits.list.arg_max() == pl.col("label"),
        )
        .group_by("epoch")
        .agg(pl.col("loss").mean(), pl.col("correct").mean())
    )

    def run() -> Epochs:
        rows = query.collect(engine="streaming").rows()
        return {epoch: (loss, accuracy) for epoch, loss, accuracy in rows}

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
        for _ in _on_threads(dump, lambda batches: sum(len(epochs) for epochs, _, _ in batches)):
            pass

    return run


def _by_epoch(dump: Dump, totals: Callable[[Logits, Labels], tuple[float, int]]) -> Epochs:
    """Sum loss and right answers of each epoch over batches; a batch may hold several epochs."""

    def row_group(batches: Iterator[tuple[Any, Labels, Logits]]) -> list[tuple[int, Any]]:
        found = []
        for epochs, labels, logits in batches:
            first = epochs[0]
            if (epochs == first).all():
                found.append((int(first), (len(labels), *totals(logits, labels))))
                continue
            for epoch in np.unique(epochs):
                rows = epochs == epoch
                found.append((int(epoch), (rows.sum(), *totals(logits[rows], labels[rows]))))
        return found

    n: Counter[int] = Counter()
    loss: Counter[int] = Counter()
    right: Counter[int] = Counter()
    for found in _on_threads(dump, row_group):
        for epoch, (rows, loss_sum, right_rows) in found:
            n[epoch] += int(rows)
            loss[epoch] += loss_sum
            right[epoch] += int(right_rows)
    return {epoch: (loss[epoch] / n[epoch], right[epoch] / n[epoch]) for epoch in n}


def _on_threads(dump: Dump, work: Callable[[Iterator[Any]], Any]) -> Iterator[Any]:
    """Yield `work(batches)` of each row group, on a pool of threads.

    Batches are (epochs (n,), labels (n,), logits (n, c)), views of what Arrow decoded.
    """
    import pyarrow.parquet as pq

    def decode(row_group: int) -> Iterator[tuple[Any, Labels, Logits]]:
        with pq.ParquetFile(dump.path, memory_map=True) as file:
            for batch in file.iter_batches(
                BATCH_ROWS, [row_group], ["epoch", "label", "logits"], use_threads=False
            ):
                logits = batch["logits"].flatten().to_numpy().reshape(-1, dump.classes)
                yield batch["epoch"].to_numpy(), batch["label"].to_numpy(), logits

    with pq.ParquetFile(dump.path) as file:
        row_groups = range(file.metadata.num_row_groups)
    with ThreadPoolExecutor(dump.threads) as pool:
        yield from pool.map(lambda row_group: work(decode(row_group)), row_groups)

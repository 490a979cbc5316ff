"""The loop: chunks are read and scored on threads, and committed to the store in order."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from fastdiv.backends import resolve_for_dumps
from fastdiv.batch import Batch, Chunk
from fastdiv.errors import UsageError
from fastdiv.pipeline import Pipeline
from fastdiv.plan import (
    IN_FLIGHT_BYTES,
    SCORED_ROW_BYTES,
    Plan,
    Progress,
    kept_bytes,
    make_plan,
    selection,
)
from fastdiv.run import Run
from fastdiv.run_directory import check_target, directory_beside, put_in_place
from fastdiv.scan import Options, Scan
from fastdiv.scorer import Scored, Scorer
from fastdiv.scoring import usable_threads
from fastdiv.scratch import temporary_directory
from fastdiv.sources import Asked, Source, open_source, parse_class_names
from fastdiv.sources.files.places import on_this_machine


def analyze(
    source: Any,
    *,
    id: str | None = None,
    label: str | None = None,
    predictions: str | Iterable[str] | None = None,
    epoch: str | None = None,
    split: str | None = None,
    kind: str = "auto",
    class_names: str | Path | Iterable[str] | None = None,
    dtype: str | None = None,
    positive: str | None = None,
    skip_lines: int = 0,
    epoch_per_path: bool = False,
    epochs: str | int | Iterable[int | str] | slice | None = None,
    duplicates: str = "error",
    threads: int | None = None,
    memory: str | float | None = None,
    scores: str = "all",
    backend: str = "auto",
    clip: float | None = None,
    strict: bool = False,
    output: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
    filesystem: Any = None,
) -> Run:
    """Analyze prediction dumps: loss and accuracy by epoch, and which samples moved them.

    Parameters
    ----------
    source
        A path or URI (of a Parquet, Arrow IPC, .npz, .npy, CSV or JSON-lines file, a directory
        or a glob); anything that exports Arrow columns (pyarrow, polars, pandas, DuckDB) or a
        reader of record batches, which is streamed; ``(predictions, labels)`` or ``(predictions,
        labels, ids)`` of NumPy, or of anything with DLPack; a list of any of these; a mapping from
        epoch (int, or the name of a checkpoint) to any of these; or a mapping from split name
        (str, or None) to any of these.
    id, label, predictions, epoch, split : str, optional
        Column names, where they are not to be found by themselves. `predictions` also takes a
        list of columns, as a list or with commas, or a prefix with ``*``; `epoch` and `split`
        also name keys of hive directories; ``id="none"`` matches samples by position. Nested
        columns are named by their path (``outputs.logits``). With .npy and .npz files, `label`
        and `id` also take another file: ``"labels.npy"``, ``"labels.npz:true"``.
    kind : {"auto", "logits", "probs", "logprobs"}
    class_names : str or iterable of str, optional
        Names of the classes, in the order of the predictions: a list, ``"a,b,c"``, or the path of
        a file with one name a line. Where all are whole numbers, labels are these numbers.
    dtype : {"float16", "bfloat16", "float32", "float64"}, optional
        What the bytes of a binary column are, or 16-bit words.
    positive : str, optional
        Where there is one score a row: the label of the class that it is the score of.
    skip_lines : int
        Leave out so many lines at the beginning of a CSV file.
    epoch_per_path : bool
        Take each path that is given, and each key of a mapping, as an epoch (a checkpoint) of its
        own, by its name: numbered by the number that each holds, else in the order given.
    epochs : str, int, iterable of int or str, or slice, optional
        Only these, by number or name: ``"12,99"``, ``"0:100:10"`` (the end left out), ``[12, 99]``.
    duplicates : {"error", "first"}
        What to do with two contradicting rows of one sample in one epoch. Rows that agree
        (label, prediction, loss within 1e-6) count once.
    threads : int, optional
        Default: the processors this process may run on. Does not change a bit of the result.
    memory : str or number, optional
        Refuse to start where the estimate exceeds this: ``"4GB"``, or bytes.
    scores : {"all", "slim", "rolling"}
        What is kept on disk of each sample and epoch: "all" keeps what any verdict needs (21
        bytes for two classes, 21 + 2 C for up to 16, 65 beyond; 4 more for float64), "slim" 21
        bytes, without what the best temperature is found from where there are more than two
        classes, "rolling" keeps all of the last two epochs, and needs epochs to come in order.
    backend : {"auto", "cpu", "cuda", "reference"}
    clip : float, optional
        Clip the loss at ``-log(clip)`` nats. Default: never.
    strict : bool
        Make an invalid row an error instead of counting it.
    output : path, optional
        Save the run here, whole or not at all.
    overwrite : bool
        Replace a run that is there.
    progress : Progress, optional
        Is told what is read.
    filesystem : pyarrow.fs.FileSystem or fsspec file system, optional
        Where paths lie. Without it URIs say so (``s3://``, ``gs://``, ``abfs://``, ``hdfs://``),
        with credentials from the environment.

    Returns
    -------
    Run

    Raises
    ------
    UsageError
        Where the call cannot be carried out: an option, a missing column.
    DataError
        Where the data is not what it claims to be; the message names file, row group, row and
        column. Invalid rows are no error unless `strict`: they are counted and named.
    """
    started = time.perf_counter()
    options = Options(duplicates, scores, clip, strict)
    kernels = resolve_for_dumps(backend)
    threads = usable_threads(threads)
    names = parse_class_names(class_names)
    if predictions is not None and not isinstance(predictions, str):
        predictions = ",".join(predictions)
    if output is not None:
        if not isinstance(output, str | os.PathLike):
            raise UsageError(f"output must be a path, not {output!r}")
        check_target(on_this_machine(output), overwrite)
    asked = Asked(
        id, label, predictions, epoch, split, kind, names, dtype,
        None if positive is None else str(positive), skip_lines, epoch_per_path, filesystem,
    )  # fmt: skip
    data = open_source(source, asked)
    data.name_epochs()
    selected = selection(epochs, data.epoch_names)
    plan = make_plan(data, selected, threads, options.scores)
    plan.check_memory(memory)
    directory = temporary_directory() if output is None else directory_beside(Path(output))
    try:
        layout = data.layout
        scorer = Scorer(
            kernels, layout.kind, layout.dtype, layout.classes, layout.batch_rows,
            options.clip_nats, options.keeps_profiles,
        )  # fmt: skip

        def read_and_score(chunk: Chunk) -> Iterator[Scored]:
            return map(scorer.score, data.read(chunk))

        row_bytes = SCORED_ROW_BYTES + kept_bytes(layout, options.scores)
        pipeline = Pipeline(read_and_score, lambda item: len(item) * row_bytes, IN_FLIGHT_BYTES)

        def reread(last: Chunk) -> Iterator[Batch]:
            for chunk in plan.chunks[: plan.chunks.index(last) + 1]:
                yield from data.read(chunk)

        known = plan.epochs is not None and plan.splits is not None
        with ThreadPoolExecutor(threads) as pool:
            scan = Scan(
                data.layout, data.place, kernels, options, selected, directory, pool, threads,
                # Where only columns tell the epochs and splits, files begin small and grow.
                expected=plan.expected // len(plan.splits or (None,)) if known else 0,
                parts=plan.parts, epoch_names=data.epoch_names,
                reread=None if data.once else reread,
            )  # fmt: skip
            if progress is not None:
                progress.start(data, plan)

            def take(item: Scored) -> None:
                scan.commit(item.batch, item.scores, item.flags, totals=item.totals)
                scorer.give_back(item)
                if progress is not None:
                    progress.advance(len(item), item.batch.nbytes)

            try:
                pipeline.run(plan.chunks, threads, take)
            finally:
                if progress is not None:
                    progress.finish()
            read_s = time.perf_counter() - started
            tables = scan.finish()
        summary = scan.summary()
        summary["dump"] = _dump(data, plan, asked)
        summary["read_by"] = data.read_by()
        summary["read_s"] = round(read_s, 3)
        summary["elapsed_s"] = round(time.perf_counter() - started, 3)
        run = Run(
            directory, summary, tables, scan.samples, scan.histories, temporary=output is None
        )
        run.filesystem = filesystem
        if output is not None:
            run.write_tables(directory)
            scan.discard_working_files()
            put_in_place(directory, Path(output))
            run.adopt(Path(output))
    except BaseException:
        shutil.rmtree(directory, ignore_errors=True)
        raise
    return run


def _dump(data: Source, plan: Plan, asked: Asked) -> dict[str, Any]:
    """Say where samples may be looked up again: files, in order, and the columns that tell them."""
    of_part = {chunk.part: chunk for chunk in plan.chunks}
    files = {i: data.files[i] for i in of_part}
    return {
        "parts": [
            {
                "path": None if file is None else file.whole_name,
                "bytes": _size(file),
                "split": of_part[i].split,
                "epoch": of_part[i].epoch,
            }
            for i, file in files.items()
        ],
        "columns": {name: getattr(data.layout, name) for name in ("id", "epoch", "split")},
        "asked": {name: getattr(asked, name) for name in ("id", "label", "skip_lines")},
    }


def _size(file: Any) -> int | None:
    """Return the bytes of a file; None of what is in memory, or was taken away meanwhile."""
    try:
        return None if file is None else int(file.size())
    except OSError:
        return None

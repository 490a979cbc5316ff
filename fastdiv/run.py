"""Run: what a scan found, and where it came from. Plain data: it can be saved and loaded."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from fastdiv.backends import resolve_for_run
from fastdiv.errors import DataError, UsageError
from fastdiv.explain.pair import TRAINING, epochs_in_words
from fastdiv.metrics import EPOCH_METRICS, TRANSITION_METRICS, EpochRow, PairRow, table
from fastdiv.run_directory import (
    check_target,
    directory_beside,
    put_in_place,
    scores_directory,
)
from fastdiv.scoring import usable_threads
from fastdiv.scratch import Scratch
from fastdiv.store import Store
from fastdiv.tables import History, Samples, epoch_row, pair_row, sample_batches, sample_schema

if TYPE_CHECKING:
    from fastdiv.explain.chance.change import Change
    from fastdiv.explain.explanation import Explanation
    from fastdiv.explain.view import SplitView
    from fastdiv.render.pictures.plots import Plots

SCHEMA_VERSION = 1


class Run:
    """The result of `analyze`.

    Attributes
    ----------
    epochs : pyarrow.Table
        One row a split and epoch: counts, mean loss in nats, accuracy, calibration error.
    transitions : pyarrow.Table
        One row a split and pair of consecutive epochs: counts and loss changes by cell.
    samples : pyarrow.Table
        One row a sample, sorted by id within its split: training dynamics. Made when first
        asked for.
    classes : pyarrow.Table
        One row a split, epoch and class.
    summary : dict
        Where the tables came from, what was invalid, what it took; JSON can hold it.
    filesystem : pyarrow.fs.FileSystem or fsspec file system, optional
        Where the files that it was made from lie, if their names do not say so. Not saved.
    """

    def __init__(
        self, directory: Path, summary: dict[str, Any], tables: dict[str, pa.Table],
        samples: list[Samples], histories: list[History], temporary: bool,
    ) -> None:  # fmt: skip
        self.summary = summary
        self.filesystem: Any = None
        self.epochs: pa.Table = tables["epochs"]
        self.transitions: pa.Table = tables["transitions"]
        self.classes: pa.Table = tables["classes"]
        self._directory = directory.absolute()  # the working directory may change
        self._samples = samples
        self._histories = histories
        self._scratch = Scratch(self, directory) if temporary else None
        self._views: dict[str | None, SplitView] = {}

    def __repr__(self) -> str:
        splits = ", ".join(
            f"{s['split'] or 'data'}: {s['n_epochs']} epochs, {s['n_samples']:,} samples"
            for s in self.summary["splits"]
        )
        return f"<fastdiv.Run {splits}, {self.summary['classes']} classes>"

    def _repr_html_(self) -> str:
        from fastdiv.render.notebook import run_html

        return run_html(self)

    @property
    def name(self) -> str | None:
        """The last two parts of the path where the run is saved; None where it is not."""
        return None if self._scratch is not None else str(Path(*self._directory.parts[-2:]))

    @cached_property
    def samples(self) -> pa.Table:
        """One row a sample, sorted by id within its split."""
        saved = self._directory / "samples.parquet"
        if saved.exists():
            return pq.read_table(saved, memory_map=True)
        # Written to a file and mapped: the table may be larger than memory.
        path = self._directory / "samples.arrow"
        schema = self._sample_schema()
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
            for batch in self._sample_batches(schema):
                writer.write_batch(batch)
        return pa.ipc.open_file(pa.memory_map(str(path))).read_all()

    def _sample_schema(self) -> pa.Schema:
        types = {samples.ids.type for samples in self._samples}
        id_type = types.pop() if len(types) == 1 else pa.large_string()
        return sample_schema(id_type, self.summary["class_names"] is not None)

    def _sample_batches(self, schema: pa.Schema) -> Any:
        kernels = resolve_for_run(self.summary["backend"]["name"])
        threads = usable_threads(None)
        names = self.summary["class_names"]
        with ThreadPoolExecutor(threads) as pool:
            for samples, history in zip(self._samples, self._histories, strict=True):
                waiting = history.waiting(samples.store.files)
                if waiting:
                    history.carry_on(kernels, samples, waiting, pool, threads)
                yield from sample_batches(samples, history, names, schema)

    def split(self, name: str | None = None) -> SplitView:
        """Return one split, of which everything can be asked.

        Parameters
        ----------
        name : str, optional
            Where it is left out: the only split, or the last one that is not for training.

        Raises
        ------
        UsageError
            Where there is no such split.
        """
        from fastdiv.explain.evidence import Evidence
        from fastdiv.explain.view import SplitView

        splits = [samples.split for samples in self._samples]
        if name is None and None not in splits:
            name = next((s for s in reversed(splits) if s not in TRAINING), splits[-1])
        if name not in splits:
            raise UsageError(f"there is no split {name!r}: there are {', '.join(map(str, splits))}")
        if name not in self._views:
            samples = self._samples[splits.index(name)]
            names = self.summary["class_names"]
            kernels = resolve_for_run(self.summary["backend"]["name"])
            names = None if names is None else tuple(names)
            evidence = Evidence(samples, names, kernels, usable_threads(None))
            self._views[name] = SplitView(self, name, evidence)
        return self._views[name]

    def views(self) -> list[SplitView]:
        """Return all splits that are not for training, or the only one."""
        splits = [samples.split for samples in self._samples]
        return [self.split(s) for s in splits if s not in TRAINING or len(splits) == 1]

    def explain(
        self, a: int | str | None = None, b: int | str | None = None, *, split: str | None = None
    ) -> Explanation:
        """Name the causes of the change in loss and accuracy between two epochs.

        Parameters
        ----------
        a, b : int or str, optional
            Epochs, by number or by name: the change is from `a` to `b`. Where both are left out,
            the stretch that matters most: between the lowest loss and the highest accuracy, or
            where these are one epoch, where loss and accuracy part (see `SplitView.stretches`).
        split : str, optional
            Where it is left out: the only split, or the last one that is not for training.

        Returns
        -------
        Explanation
            Ranked causes with their shares in nats, which with what is unnamed add up to the
            change, and findings.

        Raises
        ------
        UsageError
            Where an epoch's scores are not stored, or only one of two epochs is given.
        """
        view = self.split(split)
        if (a is None) != (b is None):
            raise UsageError("give both epochs, or none")
        if a is None or b is None:
            found = view.stretches()
            if not found:
                raise UsageError("there are no two epochs with stored scores to be explained")
            a, b = found[0].epoch_from, found[0].epoch_to
        return view.explain(a, b)

    @property
    def plot(self) -> Plots:
        """The pictures of the run as plotly figures, such as ``run.plot.loss_accuracy()``."""
        from fastdiv.render.pictures.plots import Plots

        return Plots(self)

    def report(
        self,
        path: str | os.PathLike[str],
        *,
        compare: tuple[int | str, int | str] | None = None,
        splits: Iterable[str] | None = None,
        plotly: str = "inline",
        links: str | None = None,
    ) -> None:
        """Write the report: one HTML file that opens offline.

        Parameters
        ----------
        path : path
            Of the file; replaced where it is there.
        compare : (int or str, int or str), optional
            Two epochs, by number or by name, to put in front: what changed for whom. Default: the
            stretch that matters most.
        splits : iterable of str, optional
            Default: all that are not for training.
        plotly : {"inline", "cdn", "directory"}
            Where plotly's script (5 MB) lies: in the file, on its makers' server, or in a file
            ``plotly.min.js`` beside the report.
        links : str, optional
            The column of the dumps that holds an address or a path for each sample. Default:
            a column that is named so, where the dumps are still there, on this machine.

        Raises
        ------
        UsageError
            Where plotly or jinja2 is not installed, or an epoch or split is not there.
        """
        from fastdiv.render.report.build import write_report

        write_report(self, path, compare=compare, splits=splits, plotly=plotly, links=links)

    def compare(self, a: int | str, b: int | str) -> pa.Table:
        """Compare any two epochs, as a table; `change` says the same to people, with intervals.

        Parameters
        ----------
        a, b : int or str
            Epochs, by number or by name: the change is from `a` to `b`.

        Returns
        -------
        pyarrow.Table
            One row for each split that has both, with the columns of `transitions`.

        Raises
        ------
        UsageError
            Where no split has both epochs' scores, or no epoch has the name.
        """
        a, b = self.number(a), self.number(b)
        rows = [self._pair(samples, a, b) for samples in self._samples if _has(samples, a, b)]
        if not rows:
            kept = epochs_in_words({e for s in self._samples for e in s.store.files})
            raise UsageError(f"no split has stored scores of epochs {a} and {b}: there are {kept}")
        return table(TRANSITION_METRICS, rows)

    def change(self, a: int | str, b: int | str, *, split: str | None = None) -> Change:
        """Compare any two epochs of a split, to be printed, or shown by a notebook.

        Says how loss and accuracy changed, with intervals and p-values, and what the samples that
        went right → right, right → wrong … add to the change in loss. Parameters and errors are
        those of `explain`.
        """
        return self.split(split).change(a, b)

    def number(self, epoch: int | str) -> int:
        """Return the number of an epoch, which may be given by name."""
        if not isinstance(epoch, str):
            return int(epoch)
        names: dict[str, str] = self.summary.get("epoch_names", {})
        for number, name in names.items():
            if name == epoch:
                return int(number)
        raise UsageError(
            f"no epoch is named {epoch!r}: "
            + (f"there are {', '.join(names.values())}" if names else "epochs are numbers here")
        )

    def transition(self, split: str | None, a: int, b: int) -> dict[str, Any] | None:
        """Return the row of `compare(a, b)` of one split; None where its scores were not kept."""
        (samples,) = (samples for samples in self._samples if samples.split == split)
        if not _has(samples, a, b):
            return None
        rows: list[dict[str, Any]] = table(
            TRANSITION_METRICS, [self._pair(samples, a, b)]
        ).to_pylist()
        return rows[0]

    def _pair(self, samples: Samples, a: int, b: int) -> PairRow:
        """Total the transitions of a split from epoch a to epoch b."""
        kernels = resolve_for_run(self.summary["backend"]["name"])
        threads = usable_threads(None)
        classes = self.summary["classes"]
        with ThreadPoolExecutor(threads) as pool:
            before, after = (epoch_row(kernels, samples, e, classes, pool, threads) for e in (a, b))
            return pair_row(kernels, samples, before, after, pool, threads)

    def save(self, directory: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Write the run to a directory, whole or not at all.

        Raises
        ------
        UsageError
            Where the directory is there already and `overwrite` is not given, or is no run.
        """
        target = Path(directory)
        check_target(target, overwrite)
        partial = directory_beside(target)
        try:
            shutil.copytree(self._directory / "scores", partial / "scores")
            self.write_tables(partial)
            put_in_place(partial, target)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise

    def write_tables(self, directory: Path) -> None:
        """Write everything but the stored scores, which are there already."""
        for i, samples in enumerate(self._samples):
            save_slots(samples, scores_directory(directory, i))
        for name in ("epochs", "transitions", "classes"):
            pq.write_table(getattr(self, name), directory / f"{name}.parquet")
        schema = self._sample_schema()
        made = "samples" in self.__dict__ or (self._directory / "samples.parquet").exists()
        batches = self.samples.to_batches() if made else self._sample_batches(schema)
        # Dictionaries of numbers that hardly repeat cost most of the time of writing.
        repeating = ["split", "label", "n_epochs", "n_correct", "last_predicted"]
        path = directory / "samples.parquet"
        with pq.ParquetWriter(path, schema, use_dictionary=repeating) as writer:
            for batch in batches:
                writer.write_batch(batch)
        (directory / "summary.json").write_text(json.dumps(self.summary, indent=2) + "\n")

    def adopt(self, directory: Path) -> None:
        """Note that the run's directory has been moved to its place, to stay."""
        self._directory = directory = directory.absolute()
        if self._scratch is not None:
            self._scratch.keep()
            self._scratch = None
        for i, samples in enumerate(self._samples):
            samples.store.move(scores_directory(directory, i))


def _has(samples: Samples, *epochs: int) -> bool:
    """Whether a split has stored scores of some epochs."""
    return samples.store.files.keys() >= set(epochs)


def save_slots(samples: Samples, directory: Path) -> None:
    """Write ids and labels in slot order, and what is needed to open the store."""
    samples.store.describe(directory)
    slots = pa.table({"sample_id": samples.ids, "label": pa.array(samples.labels)})
    pq.write_table(slots, directory / "slots.parquet", use_dictionary=False, compression="zstd")


def load(directory: str | os.PathLike[str]) -> Run:
    """Load a run that was saved.

    Raises
    ------
    UsageError
        Where there is no saved run.
    DataError
        Where it was saved by a later version, or is damaged.
    """
    path = Path(directory).absolute()
    if not (path / "summary.json").is_file():
        raise UsageError(f"{path} is not a saved run: it holds no summary.json")
    try:
        summary = json.loads((path / "summary.json").read_text())
        if summary["schema_version"] > SCHEMA_VERSION:
            raise DataError(
                f"{path} has schema version {summary['schema_version']}, later than "
                f"{SCHEMA_VERSION}: update fastdiv"
            )
        for name in ("backend", "classes", "class_names", "splits"):
            _ = summary[name]
        tables = {
            name: pq.read_table(path / f"{name}.parquet")
            for name in ("epochs", "transitions", "classes")
        }
        samples = []
        for i, entry in enumerate(summary["splits"]):
            where = scores_directory(path, i)
            slots = pq.read_table(where / "slots.parquet").combine_chunks()
            samples.append(
                Samples(
                    entry["split"],
                    _one_array(slots["sample_id"]),
                    _one_array(slots["label"]).to_numpy(),
                    Store.open(where, summary["classes"]),
                )
            )
        if not (path / "samples.parquet").is_file():
            raise DataError(f"{path}: the saved run is damaged: samples.parquet is missing")
    except (OSError, KeyError, TypeError, AttributeError, ValueError, pa.ArrowException) as error:
        raise DataError(f"{path}: the saved run is damaged: {error!r}") from error
    return Run(path, summary, tables, samples, [], temporary=False)  # `samples` are made already


def _one_array(column: pa.ChunkedArray) -> pa.Array:
    return column.chunk(0) if column.num_chunks else pa.array([], column.type)


def tables_of(
    epochs: list[EpochRow], pairs: list[PairRow], classes: list[pa.Table]
) -> dict[str, pa.Table]:
    """Make the tables of the rows found."""
    return {
        "epochs": table(EPOCH_METRICS, epochs),
        "transitions": table(TRANSITION_METRICS, pairs),
        "classes": pa.concat_tables(classes),
    }

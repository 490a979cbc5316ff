"""Tracker: epochs analyzed inside a job, batch by batch, as `analyze` does it from files."""

from __future__ import annotations

import math
import operator
import shutil
import tempfile
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from fastdiv.backends import resolve
from fastdiv.batch import Batch, Chunk, Scores
from fastdiv.errors import DataError, UsageError
from fastdiv.metrics import EPOCH_METRICS, TRANSITION_METRICS, table
from fastdiv.run import Run
from fastdiv.scan import Options
from fastdiv.scoring import kind_of, score_batch, usable_threads
from fastdiv.sources import parse_class_names
from fastdiv.sources.arrays import as_record_batch
from fastdiv.sources.decode import decode
from fastdiv.tracked import UNDER_WAY, Said, Tracked, place


@dataclass(frozen=True, slots=True, repr=False)
class EpochResult:
    """What `Tracker.end_epoch` says of an epoch; its `repr` is one line.

    Attributes
    ----------
    epoch : int
    row : dict
        The epoch's row of `Run.epochs`.
    transition : dict or None
        The row of `Run.transitions` from the epoch that ended before; None for the first.
    before : dict or None
        That epoch's row of `Run.epochs`.
    """

    epoch: int
    row: dict[str, Any]
    transition: dict[str, Any] | None
    before: dict[str, Any] | None

    @property
    def loss(self) -> float:
        """The mean loss in nats; NaN where no sample is valid."""
        return _number(self.row["loss"])

    @property
    def accuracy(self) -> float:
        """The share of valid samples that are right; NaN where none is valid."""
        return _number(self.row["accuracy"])

    def __repr__(self) -> str:
        split = f"{self.row['split']}, " if self.row["split"] is not None else ""
        values = []
        for name in ("loss", "accuracy"):
            value = _number(self.row[name])
            change = value - _number(self.before[name]) if self.before else math.nan
            more = f" ({change:+.4f})" if math.isfinite(change) else ""
            values.append(f"{name} {value:.4f}{more}")
        line = f"{split}epoch {self.epoch}: {', '.join(values)}; "
        if self.transition is None:
            line += f"{self.row['n']:,} samples"
        else:
            wrong, right, n = (self.transition[name] for name in ("rw", "wr", "n"))
            line += f"{wrong:,} right→wrong, {right:,} wrong→right of {n:,}"
        invalid = self.row["n_invalid"]
        return line + (f"; {invalid:,} invalid" if invalid else "")


def _number(value: float | None) -> float:
    return math.nan if value is None else value


class Tracker:
    """Metrics of a training or evaluation job, epoch by epoch, without a dump.

    The same batches give the same tables, bit for bit, as `analyze` makes from files of them.
    Predictions are not kept: 21 bytes a sample and epoch go to temporary files (25 for float64).

    Parameters
    ----------
    kind : {"logits", "probs", "logprobs"}
    classes : int, optional
        Number of classes. Default: as many as the first update has.
    class_names : str or iterable of str, optional
        In the order of the predictions; labels may then be names.
    split : str, optional
        What the samples are called in the tables: ``"val"``.
    scores : {"all", "rolling"}
        Keep the scores of all epochs, or of the last two.
    duplicates : {"error", "first"}
        What to do with two contradicting rows of one sample in one epoch. Rows that agree (loss
        within 1e-6) count once, as the padding of a distributed sampler does. Where a model in
        16 bits gives two ranks other numbers for one sample, ``"first"`` takes this rank's.
    clip : float, optional
        Clip the loss at ``-log(clip)`` nats. Default: never.
    strict : bool
        Make an invalid row an error instead of counting it.
    backend : {"auto", "cpu", "reference"}
    threads : int, optional
        For updates larger than 4 MB. Default: the processors this process may run on. Does not
        change a bit of the result.

    Examples
    --------
    >>> tracker = fastdiv.Tracker(kind="logits", split="val")
    >>> for epoch in range(epochs):
    ...     train_one_epoch(model)
    ...     with torch.inference_mode():
    ...         for images, labels, ids in loader:
    ...             tracker.update(model(images).cpu(), labels, ids)
    ...     print(tracker.end_epoch())
    val, epoch 3: loss 0.4123 (-0.0211), accuracy 0.8712 (+0.0031); 12 right→wrong, …
    >>> tracker.run().save("run/")

    With ranks, of which each has seen a share of the samples, and some have seen padding:

    >>> states = [None] * torch.distributed.get_world_size()
    >>> torch.distributed.all_gather_object(states, tracker.state_dict(ended=False))
    >>> tracker.merge_state(states)
    >>> result = tracker.end_epoch()
    """

    def __init__(
        self,
        *,
        kind: str,
        classes: int | None = None,
        class_names: str | Path | Iterable[str] | None = None,
        split: str | None = None,
        scores: str = "all",
        duplicates: str = "error",
        clip: float | None = None,
        strict: bool = False,
        backend: str = "auto",
        threads: int | None = None,
    ) -> None:
        kind_of(kind)
        names = parse_class_names(class_names)
        if names is not None and classes is not None and classes != len(names):
            raise UsageError(f"{len(names)} class names for {classes} classes")
        self._arguments: dict[str, Any] = {
            "kind": kind, "classes": classes, "class_names": names, "split": split,
            "scores": scores, "duplicates": duplicates, "clip": clip, "strict": strict,
            "backend": backend, "threads": threads,
        }  # fmt: skip
        options = Options(duplicates, scores, clip, strict)
        threads = usable_threads(threads)
        self._said = Said(kind, names, split, options, resolve(backend), threads)
        self._tracked = self._nothing()
        self._seconds = 0.0

    def _nothing(self) -> Tracked:
        names = self._said.class_names
        return Tracked(self._said, self._arguments["classes"] if names is None else len(names))

    # -- batches and epochs ----------------------------------------------------------------

    def update(self, predictions: Any, labels: Any, ids: Any = None) -> None:
        """Take a batch of the epoch under way; the first one after `end_epoch` begins the next.

        Parameters
        ----------
        predictions : (n, c) float16, bfloat16, float32 or float64
            NumPy, anything with DLPack in host memory (torch, JAX), or Arrow lists; not copied,
            and not needed any more afterwards.
        labels : (n,) or (n, 1) integers, names, or one-hot (n, c)
        ids : (n,) integers or strings, optional
            Which sample a row is. Without ids samples are matched by their position within the
            epoch: the loader must not shuffle.

        Raises
        ------
        UsageError
            Where shapes or dtypes do not fit, or are not those of the updates before.
        DataError
            Where an id is missing, or a sample comes twice in an epoch and its rows disagree: the
            rows before it count. With `strict`, where a row is invalid: no row counts.
        """
        started = time.perf_counter()
        tracked, said = self._tracked, self._said
        name = f"update {tracked.updates}"
        rows = as_record_batch(predictions, labels, ids, name)
        if rows.num_rows == 0:
            return
        layout = tracked.agree(rows, name)
        if tracked.under_way is None:
            tracked.under_way = tracked.begin("under-way")
        chunk = Chunk(0, tracked.updates, rows.num_rows, said.split, UNDER_WAY)

        def work(start: int) -> tuple[Batch, Scores]:
            piece = rows.slice(start, layout.batch_rows)
            batch = decode(piece, layout, chunk, start, place)
            return batch, score_batch(said.kernels, batch, layout.kind, said.options.clip_nats)

        pieces = range(0, rows.num_rows, layout.batch_rows)
        if len(pieces) > 1 and said.threads > 1:
            with ThreadPoolExecutor(said.threads) as pool:
                scored = list(pool.map(work, pieces))
        else:
            scored = [work(start) for start in pieces]
        for batch, scores in scored:
            tracked.under_way.commit(batch, scores, UNDER_WAY, tracked.token)
        tracked.updates += 1
        self._seconds += time.perf_counter() - started

    def end_epoch(self, epoch: int | None = None) -> EpochResult:
        """End the epoch under way and say what it was; the next update begins another.

        Parameters
        ----------
        epoch : int, optional
            Its number, above those of the epochs before. Default: one more than the last, from 0.

        Raises
        ------
        UsageError
            Where there was no row since the last epoch, or the number is not above the last.
        DataError
            Where most rows contradict the kind; the epoch is then forgotten.
        """
        started = time.perf_counter()
        tracked = self._tracked
        last = None if tracked.ended is None else max(tracked.ended.shares, default=None)
        number = _after(last, epoch)
        under_way = tracked.under_way
        if under_way is None or not under_way.share(UNDER_WAY).rows:
            raise UsageError(f"epoch {number} cannot end: no row came since the last one ended")
        try:
            under_way.share(UNDER_WAY).invalid.check_structure()
        except DataError:
            tracked.forget_under_way()
            raise
        if tracked.ended is None:
            tracked.ended = tracked.begin("ended")
        ended = tracked.ended
        ended.absorb(under_way, UNDER_WAY, number, f"epoch {number}")
        ended.share(number).invalid.structural.clear()  # it has been checked
        tracked.forget_under_way()
        ended.scan.close(ended.part)
        rows = [ended.part.rows[e] for e in (number, last) if e is not None]
        row, *before = table(EPOCH_METRICS, rows).to_pylist()
        pairs = ended.part.pairs[-1:] if before else []
        transition = next(iter(table(TRANSITION_METRICS, pairs).to_pylist()), None)
        self._seconds += time.perf_counter() - started
        return EpochResult(number, row, transition, next(iter(before), None))

    def run(self) -> Run:
        """Return a Run of the epochs that have ended, as `analyze` returns it.

        It is a copy: the tracker can go on, be merged, and be closed.
        """
        ended = self._tracked.ended
        if ended is None:
            raise UsageError("no epoch has ended: call end_epoch first")
        started = time.perf_counter()
        ended.total()
        directory = Path(tempfile.mkdtemp(prefix="fastdiv-"))
        try:
            scan = ended.scan.copy(directory)
            tables = scan.finish()
            summary = scan.summary()
            summary["read_s"] = round(self._seconds, 3)
            summary["elapsed_s"] = round(self._seconds + time.perf_counter() - started, 3)
            return Run(directory, summary, tables, scan.samples, scan.histories, temporary=True)
        except BaseException:
            shutil.rmtree(directory, ignore_errors=True)
            raise

    def reset(self) -> None:
        """Forget everything, and remove the temporary files."""
        self._become(self._nothing())
        self._seconds = 0.0

    def _become(self, tracked: Tracked) -> None:
        self._tracked.discard()
        self._tracked = tracked

    def close(self) -> None:
        """Remove the temporary files, as `reset` does. Runs that were made stay."""
        self.reset()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __repr__(self) -> str:
        tracked = self._tracked
        ended = len(tracked.ended.shares) if tracked.ended is not None else 0
        rows = tracked.under_way.share(UNDER_WAY).rows if tracked.under_way is not None else 0
        classes = f", {tracked.classes} classes" if tracked.classes is not None else ""
        return (
            f"<fastdiv.Tracker {self._said.kind}{classes}: "
            f"{ended} epochs, {rows:,} rows of the next>"
        )

    # -- states ----------------------------------------------------------------------------

    def merge_state(self, other: Tracker | Mapping[str, Any] | Iterable[Any]) -> None:
        """Take over what other trackers were given: of the epoch under way and of ended ones.

        With ids a sample that several of them saw counts once, and the order of merging does not
        change a bit. Without ids their samples come after those that are here. What is here
        already is left out, so a state may be merged again, as the own one that
        ``all_gather_object`` brings.

        Parameters
        ----------
        other : Tracker, dict of `state_dict`, or iterable of these

        Raises
        ------
        UsageError
            Where they are of another kind or class count, or it cannot be told what is new.
        DataError
            Where rows of one sample disagree. Either way the tracker is left as it was.
        """
        single = isinstance(other, Tracker | Mapping)
        others: list[Any] = [other] if single else list(other)  # type: ignore[arg-type]
        named = [(f"merged state {i}", one) for i, one in enumerate(others)]
        made = []
        try:
            theirs = []
            for where, one in named:
                if not isinstance(one, Tracker):
                    made.append(self._nothing())
                    made[-1].unpack(one, where)
                theirs.append((where, one._tracked if isinstance(one, Tracker) else made[-1]))
            self._tracked.merge(theirs)
        finally:
            for tracked in made:
                tracked.discard()

    def state_dict(self, *, ended: bool = True) -> dict[str, Any]:
        """Return everything as dicts, lists, strings, numbers and bytes.

        It can be pickled, sent to other ranks, and saved by ``torch.save`` so that ``torch.load``
        reads it with ``weights_only``.

        Parameters
        ----------
        ended : bool
            Whether the epochs that have ended are in it. Ranks need not send them: without, it is
            as small as the epoch under way.
        """
        return {**self._tracked.pack(ended), "seconds": self._seconds}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Become what a tracker was when it gave this state; what was here is forgotten.

        Parameters
        ----------
        state : dict
            Of `state_dict`, of a tracker made with the same arguments.

        Raises
        ------
        UsageError
            Where it is not; the tracker is then left as it was.
        """
        tracked = self._nothing()
        try:
            tracked.unpack(state, "state")
        except BaseException:
            tracked.discard()
            raise
        self._become(tracked)
        self._seconds = state["seconds"]

    def __getstate__(self) -> dict[str, Any]:
        return {"arguments": self._arguments, "state": self.state_dict()}

    def __setstate__(self, pickled: dict[str, Any]) -> None:
        self.__init__(**pickled["arguments"])  # type: ignore[misc]
        self.load_state_dict(pickled["state"])


def _after(last: int | None, epoch: int | None) -> int:
    """Return the number of an epoch, which must come after the last."""
    if epoch is None:
        return 0 if last is None else last + 1
    try:
        number = operator.index(epoch)
    except TypeError:
        raise UsageError(f"epoch must be a whole number, not {epoch!r}") from None
    if last is not None and number <= last:
        raise UsageError(f"epoch {number} comes after epoch {last}: numbers must increase")
    return number

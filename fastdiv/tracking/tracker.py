"""Tracker: epochs analyzed inside a job, batch by batch, as `analyze` does it from files."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from threading import RLock
from typing import Any, Self

import pyarrow as pa

from fastdiv.backends import resolve
from fastdiv.errors import DataError, FastdivError, UsageError
from fastdiv.metrics import EPOCH_METRICS, TRANSITION_METRICS, table
from fastdiv.run import Run
from fastdiv.scan import Options
from fastdiv.scoring import kind_of, usable_threads
from fastdiv.scratch import remove, temporary_directory
from fastdiv.sources import parse_class_names
from fastdiv.sources.arrays import LABELS
from fastdiv.told import class_count, in_python, whole_number
from fastdiv.tracking.layout import kind_of_labels
from fastdiv.tracking.result import EpochResult
from fastdiv.tracking.state import pack, unpack
from fastdiv.tracking.tracked import Tracked
from fastdiv.tracking.updates import UNDER_WAY, Said, given, score_update

__all__ = ["EpochResult", "Tracker"]


class Tracker:
    """Metrics of a training or evaluation job, epoch by epoch, without a dump.

    The same batches give the same tables, bit for bit, as `analyze` makes from files of them.
    Predictions are not kept: what `analyze` keeps of a sample and epoch, 21 to 65 bytes, goes to
    temporary files.

    Parameters
    ----------
    kind : {"logits", "probs", "logprobs"}
    classes : int, optional
        Number of classes. Default: as many as the first update has.
    class_names : str or iterable of str, optional
        In the order of the predictions; labels may then be names.
    split : str, optional
        What the samples are called in the tables: ``"val"``.
    scores : {"all", "slim", "rolling"}
        Keep all that verdicts need, 21 bytes a sample and epoch, or the scores of the last two
        epochs; see `analyze`.
    duplicates : {"error", "first"}
        What to do with two contradicting rows of one sample in one epoch. Rows that agree (loss
        within 1e-6) count once, as the padding of a distributed sampler does. Where a model in
        16 bits gives two ranks other numbers for one sample, ``"first"`` takes this rank's.
    clip : float, optional
        Clip the loss at ``-log(clip)`` nats. Default: never.
    strict : bool
        Make an invalid row an error instead of counting it.
    backend : {"auto", "cpu", "cuda", "reference"}
    threads : int, optional
        For updates larger than 4 MB. Default: the processors this process may run on. Does not
        change a bit of the result.
    rank : int, optional
        Number of this process among those whose states are merged. Only needed without ids, where
        samples are what comes at the same place in each epoch: the rows of ranks are then put in
        their order. Padding cannot be told without ids: it counts twice.

    Examples
    --------
    >>> tracker = fastdiv.Tracker(kind="logits", split="val")
    >>> for epoch in range(epochs):
    ...     train_one_epoch(model)
    ...     with torch.inference_mode():
    ...         for images, labels, ids in loader:
    ...             tracker.update(model(images), labels, ids)
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
        rank: int | None = None,
    ) -> None:
        kind_of(kind)
        names = parse_class_names(class_names)
        self._classes = class_count(classes, names)
        if split is not None and not isinstance(split, str):
            raise UsageError(f"split must be a string, not {split!r}")
        rank = None if rank is None else whole_number(rank, "rank", 0)
        self._arguments: dict[str, Any] = {
            "kind": kind, "classes": classes, "class_names": names, "split": split,
            "scores": scores, "duplicates": duplicates, "clip": clip, "strict": strict,
            "backend": backend, "threads": threads, "rank": rank,
        }  # fmt: skip
        options = Options(duplicates, scores, clip, strict)
        threads = usable_threads(threads)
        self._said = Said(kind, names, split, options, backend, resolve(backend), threads, rank)
        self._lock, self._process = RLock(), os.getpid()
        self._closed = False
        self._begin(self._nothing())

    def _nothing(self) -> Tracked:
        return Tracked(self._said, self._classes)

    def _begin(self, tracked: Tracked, seconds: float = 0.0) -> None:
        self._tracked = tracked
        self._seconds = seconds
        self._schema: pa.Schema | None = None  # of the last update

    @contextmanager
    def _alone(self) -> Iterator[Tracked]:
        """Keep other threads out, and word errors for those who call it."""
        if self._process != os.getpid():  # a thread of the parent may have held the lock
            self._lock, self._process = RLock(), os.getpid()
        with self._lock:
            if self._closed:
                raise UsageError("the tracker is closed: make another Tracker")
            try:
                yield self._tracked
            except FastdivError as error:
                error.args = (in_python(str(error)),)
                raise

    # -- batches and epochs ----------------------------------------------------------------

    def update(self, predictions: Any, labels: Any, ids: Any = None) -> None:
        """Take a batch of the epoch under way; the first one after `end_epoch` begins the next.

        Parameters
        ----------
        predictions : (n, c) float16, bfloat16, float32 or float64
            NumPy, anything with DLPack (torch, JAX, CuPy), or Arrow lists; not copied, and not
            needed any more afterwards. What lies on a GPU is scored there, unless `backend` names
            another, and scores alone come to the host.
        labels : (n,) or (n, 1) integers, names, or one-hot (n, c)
        ids : (n,) integers or strings, optional
            Which sample a row is. Without ids samples are matched by their position within the
            epoch: the loader must not shuffle.

        Raises
        ------
        UsageError
            Where shapes or dtypes do not fit, or are not those of the updates before.
        DataError
            Where an id is missing, or a sample comes twice in an epoch and its rows disagree; with
            `strict`, where a row is invalid. Either way no row of the update counts.
        """
        with self._alone() as tracked:
            tracked.own()
            self._update(tracked, predictions, labels, ids)

    def _update(self, tracked: Tracked, predictions: Any, labels: Any, ids: Any) -> None:
        started = time.perf_counter()
        said, common = self._said, tracked.common
        tracked.check_whole()
        name = f"update {tracked.updates}"
        with given(predictions, labels, ids, name, said) as update:
            if update.rows.num_rows == 0:
                return
            schema = update.schema
            if common is None or self._schema is None or not schema.equals(self._schema):
                common = tracked.like(schema, update.rows, name)
            of_labels = kind_of_labels(schema.field(LABELS).type, said.class_names, name)
            scored = score_update(update, tracked.layout(common), said, tracked.updates)
        tracked.take(*scored, common, of_labels)
        self._schema = schema
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
            Where most rows contradict the kind, or labels are not what they are taken for; the
            epoch is then forgotten.
        """
        with self._alone() as tracked:
            tracked.own()
            return self._end_epoch(tracked, epoch)

    def _end_epoch(self, tracked: Tracked, epoch: int | None) -> EpochResult:
        started = time.perf_counter()
        last = None if tracked.ended is None else max(tracked.ended.shares, default=None)
        number = _after(last, epoch)
        tracked.check_whole()
        under_way = tracked.under_way
        if under_way is None or not under_way.rows(UNDER_WAY):
            raise UsageError(f"epoch {number} cannot end: no row came since the last one ended")
        try:
            under_way.tally(UNDER_WAY).invalid.check_structure()
            tracked.check_labels()
        except DataError:
            tracked.forget_under_way()
            raise
        if tracked.ended is None:
            tracked.ended = tracked.begin("ended")
        ended = tracked.ended
        samples = ended.part.ledger.n
        try:
            ended.absorb(under_way, UNDER_WAY, number, f"epoch {number}")
            ended.scan.close(ended.part)
        finally:
            if number in ended.part.rows:  # which comes last: the epoch is whole
                tracked.forget_under_way()
            else:  # it may be ended again
                ended.forget(number, samples)
        for share in ended.shares[number].values():
            share.tally.invalid.structural.clear()  # it has been checked
        rows = [ended.part.rows[e] for e in (number, last) if e is not None]
        row, *before = table(EPOCH_METRICS, rows).to_pylist()
        pairs = ended.part.pairs[-1:] if before else []
        transition = next(iter(table(TRANSITION_METRICS, pairs).to_pylist()), None)
        self._seconds += time.perf_counter() - started
        return EpochResult(number, row, transition, next(iter(before), None))

    def drop_epoch(self) -> None:
        """Forget the rows since the last epoch ended.

        As after a validation loop that failed and is tried again, or a sanity check that is no
        epoch.
        """
        with self._alone() as tracked:
            tracked.forget_under_way()
            tracked.own()

    def run(self) -> Run:
        """Return a Run of the epochs that have ended, as `analyze` returns it.

        It is a copy: the tracker can go on, be merged, and be closed.
        """
        with self._alone() as tracked:
            tracked.own()
            return self._run(tracked)

    def _run(self, tracked: Tracked) -> Run:
        ended = tracked.ended
        if ended is None or not ended.shares:
            raise UsageError("no epoch has ended: call end_epoch first")
        started = time.perf_counter()
        ended.scan.close(ended.part)
        directory = temporary_directory()
        try:
            scan = ended.scan.copy(directory)
            scan.tally, scan.parts = ended.tally(), len(ended.shares)
            tables = scan.finish()
            summary = scan.summary()
            summary["read_s"] = round(self._seconds, 3)
            summary["elapsed_s"] = round(self._seconds + time.perf_counter() - started, 3)
            return Run(directory, summary, tables, scan.samples, scan.histories, temporary=True)
        except BaseException:
            remove(directory)
            raise

    def reset(self) -> None:
        """Forget everything, and remove the temporary files."""
        with self._alone() as tracked:
            tracked.discard()
            self._begin(self._nothing())

    def close(self) -> None:
        """Forget everything, and remove the temporary files. Runs that were made stay."""
        if not self._closed:
            self.reset()
            self._closed = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __repr__(self) -> str:
        tracked = self._tracked
        ended = len(tracked.ended.shares) if tracked.ended is not None else 0
        rows = tracked.under_way.rows(UNDER_WAY) if tracked.under_way is not None else 0
        classes = tracked.facts().get("classes")
        of_classes = "" if classes is None else f", {classes} classes"
        state = "closed" if self._closed else f"{ended} epochs, {rows:,} rows of the next"
        return f"<fastdiv.Tracker {self._said.kind}{of_classes}: {state}>"

    # -- states ----------------------------------------------------------------------------

    def merge_state(self, other: Tracker | Mapping[str, Any] | Iterable[Any]) -> None:
        """Take over what other trackers were given: of the epoch under way and of ended ones.

        With ids a sample that several of them saw counts once, and the order of merging does not
        change a bit. Without ids trackers need a `rank`, by which their rows are put in order, and
        are merged in one call. What is here already is left out, so a state may be merged again,
        as the own one that ``all_gather_object`` brings.

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
        if not single and not isinstance(other, Iterable):
            raise UsageError(
                "merge_state takes trackers, what state_dict returns, or a list of these, not "
                f"{other!r}"
            )
        others: list[Any] = [other] if single else list(other)  # type: ignore[arg-type]
        named = [(f"merged state {i}", one) for i, one in enumerate(others)]
        made: list[Tracked] = []
        with ExitStack() as stack:
            # Always in one order, so that two that merge each other do not wait for each other.
            trackers = {id(one): one for one in (self, *others) if isinstance(one, Tracker)}
            for _, one in sorted(trackers.items()):
                stack.enter_context(one._alone()).own()
            try:
                theirs = []
                for where, one in named:
                    if not isinstance(one, Tracker):
                        made.append(self._nothing())
                        unpack(made[-1], one, where)
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
        with self._alone() as tracked:
            tracked.own()
            return pack(tracked, ended, self._seconds)

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
        with self._alone() as before:
            tracked = self._nothing()
            try:
                seconds = unpack(tracked, state, "state")
            except BaseException:
                tracked.discard()
                raise
            before.discard()
            self._begin(tracked, seconds)

    def __getstate__(self) -> dict[str, Any]:
        return {"arguments": self._arguments, "state": self.state_dict()}

    def __setstate__(self, pickled: dict[str, Any]) -> None:
        self.__init__(**pickled["arguments"])  # type: ignore[misc]
        self.load_state_dict(pickled["state"])


def _after(last: int | None, epoch: int | None) -> int:
    """Return the number of an epoch, which must come after the last."""
    if epoch is None:
        return 0 if last is None else last + 1
    number = whole_number(epoch, "epoch")
    if last is not None and number <= last:
        raise UsageError(
            f"epoch {number} comes after epoch {last}: numbers must increase; drop_epoch() forgets "
            "rows that are no epoch"
        )
    return number

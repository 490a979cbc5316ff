"""Re-reading: what takes all probabilities of an epoch, which a run of many classes has not kept.

One pass over the predictions of one epoch, in memory that does not grow with them: thresholds, and
all that tells whether this is the dump the run was made from, come from the stored scores.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fastdiv.backends import resolve_for_run
from fastdiv.errors import DataError, UsageError
from fastdiv.explain.calibration.by_class import ByClass, blocks
from fastdiv.explain.labels.joint import class_thresholds
from fastdiv.explain.ranking.one_vs_rest import ranking_of_curves
from fastdiv.rereading.epoch_rows import EpochRows, Once, ScoredRows
from fastdiv.rereading.same_dump import Seen, check_layout, check_same, listed
from fastdiv.scoring import usable_threads
from fastdiv.sources import Asked, Source, open_source, parse_class_names
from fastdiv_kernels.contract import REASON, Kind

if TYPE_CHECKING:
    from fastdiv.explain.evidence import Ints
    from fastdiv.explain.labels.joint import ConfidentJoint
    from fastdiv.explain.view import SplitView
    from fastdiv.run import Run

MOST_CURVES = 256  # of 1 MiB each


@dataclass(frozen=True, slots=True)
class Reread:
    """What all probabilities of one epoch tell.

    Attributes
    ----------
    epoch : int
    split : str or None
    n : int
        Valid samples.
    n_invalid : int
        Samples left out.
    confident_joint : ConfidentJoint
        Its `issues` are positions in ``run.split(split).ids(epoch)``. Thresholds come from stored
        losses: where these are float32, a sample whose probability is within 3e-8 of a threshold
        may be counted otherwise; where they were clipped, within what they were clipped at.
    issue_ids : pa.Array
        The ids (k,) of the issues, ascending.
    classwise : pa.Table or None
        A row for each class, see `explain.calibration.errors.Calibration`, from 15 bins of equal
        width. None of no samples.
    classwise_ece : float or None
        Its mean.
    ranking : pa.Table or None
        A row for each class of `curves`, in the order asked for, then the means over these; see
        `explain.ranking.one_vs_rest`. No score is sorted: how far an area may be off is told
        beside it. None where no class was asked for.
    """

    epoch: int
    split: str | None
    n: int
    n_invalid: int
    confident_joint: ConfidentJoint
    issue_ids: pa.Array
    classwise: pa.Table | None
    classwise_ece: float | None
    ranking: pa.Table | None


def reread(
    source: Any,
    run: Run,
    epoch: int | str,
    *,
    split: str | None = None,
    curves: str | int | Iterable[str | int] = (),
    threads: int | None = None,
    **asked: Any,
) -> Reread:
    """Read the predictions of one epoch again, once, for what stored scores do not tell.

    Up to 16 classes these tell it too: `confident_joint`, `calibration` and `ranking` of
    `Run.split`.

    Parameters
    ----------
    source
        Where the run was made from, or a part that has the whole epoch; see `analyze`. What has
        no splits is taken for the split that is asked for.
    run : Run
    epoch : int or str
        By number or by name.
    split : str, optional
        Where it is left out: the only split, or the last one that is not for training.
    curves : str, int, or iterable of these
        Classes to rank against the rest, by name or index, at most 256; or ``"all"``. Each takes
        1 MiB, and time.
    threads : int, optional
        Default: the processors this process may run on. Does not change a bit of the result.
    **asked
        What `analyze` was told of the data: id, label, predictions, kind, class_names, dtype,
        positive, skip_lines, epoch_per_path, filesystem; epoch and split as ``epoch_column`` and
        ``split_column``. The kind is by default the run's.

    Returns
    -------
    Reread

    Raises
    ------
    UsageError
        Where the epoch, the split or a class is not there, or the epoch's scores are not stored.
    DataError
        Where this is not the dump the run was made from, or is not read in the same way.
    """
    view = run.split(split)
    number = run.number(epoch)
    side = view.side(number)
    entry = next(e for e in run.summary["splits"] if e["split"] == view.split)
    names, clip = run.summary["class_names"], run.summary["options"]["clip"]
    of_curves = _classes(curves, names, side.classes)
    data = open_source(source, _asked(run, asked))
    data.name_epochs()
    check_layout(data, run, entry["ids"] == "position")
    rows = EpochRows(
        data, view.split, _number_in(data, run, number),
        resolve_for_run(run.summary["backend"]["name"]),
        None if clip is None else -float(np.log(clip)), usable_threads(threads),
    )  # fmt: skip
    thresholds = class_thresholds(side.labels, np.exp(-side.loss), side.classes)
    state = ByClass.zero(thresholds, of_curves)
    # Rows of one sample are rare, and then counted by one thread.
    once = Once() if entry.get("duplicates_by_epoch", {}).get(str(number)) else None
    seen = Seen(np.zeros((3, side.classes), np.int64))
    rows.each(lambda some: _count(some, state, data.layout.kind), once, seen.add)
    check_same(seen, side, f"epoch {epoch}")
    issues = _positions(seen, view, number)
    classwise = state.classwise()
    ranking = None
    if of_curves:
        ranking = ranking_of_curves(state.curves(), of_curves, names, side.classes)
    return Reread(
        epoch=number,
        split=view.split,
        n=seen.n,
        n_invalid=seen.n_invalid,
        confident_joint=state.confident_joint(issues),
        issue_ids=view.ids(number).take(pa.array(issues)),
        classwise=classwise,
        classwise_ece=None if classwise is None else float(np.mean(classwise["ece"])),
        ranking=ranking,
    )


# -- what is asked for -------------------------------------------------------------------------


def _asked(run: Run, given: dict[str, Any]) -> Asked:
    """Return what is said of the data, in the words of `analyze` but for two columns."""
    names = {f.name for f in fields(Asked)} - {"epoch", "split"} | {"epoch_column", "split_column"}
    if unknown := sorted(given.keys() - names):
        raise UsageError(f"reread takes no {unknown[0]!r}, only {', '.join(sorted(names))}")
    said = {name.removesuffix("_column"): value for name, value in given.items()}
    predictions, positive = said.get("predictions"), said.get("positive")
    if predictions is not None and not isinstance(predictions, str):
        said["predictions"] = ",".join(predictions)
    if positive is not None:
        said["positive"] = str(positive)
    if said.get("kind", "auto") == "auto":
        said["kind"] = run.summary["kind"]
    said["class_names"] = parse_class_names(said.get("class_names"))
    return Asked(**said)


def _classes(
    curves: str | int | Iterable[str | int], names: list[str] | None, classes: int
) -> list[int]:
    """Return the indices of the classes that curves are asked for, each once."""
    if isinstance(curves, str) and curves == "all":
        if classes > MOST_CURVES:
            raise UsageError(
                f"curves of all {classes} classes would take {classes} MiB: name up to "
                f"{MOST_CURVES} classes"
            )
        return list(range(classes))
    several = [curves] if isinstance(curves, str | int) else list(curves)
    found = list(dict.fromkeys(_class(one, names, classes) for one in several))
    if len(found) > MOST_CURVES:
        raise UsageError(
            f"curves of {len(found)} classes would take {len(found)} MiB: name up to {MOST_CURVES}"
        )
    return found


def _class(one: str | int, names: list[str] | None, classes: int) -> int:
    if isinstance(one, str):
        if names is not None and one in names:
            return names.index(one)
        if names is not None or not one.isdecimal():
            known = "classes have no names" if names is None else f"there are {listed(names)}"
            raise UsageError(f"no class is named {one!r}: {known}")
    if not 0 <= int(one) < classes:
        raise UsageError(f"there is no class {one}: {classes} classes are counted from 0")
    return int(one)


def _number_in(data: Source, run: Run, number: int) -> int:
    """Return the number that an epoch of the run has in a source: a part may count others."""
    name = run.summary.get("epoch_names", {}).get(str(number))
    numbers = {known: i for i, known in data.epoch_names.items()}
    if name is None or not numbers:
        return number
    if name not in numbers:
        raise UsageError(f"no epoch of the source is named {name!r}: there are {listed(numbers)}")
    return numbers[name]


# -- counting ----------------------------------------------------------------------------------


def _count(rows: ScoredRows, state: ByClass, kind: Kind) -> ScoredRows:
    """Add valid rows to the state, and find the issues among them; vectors are let go."""
    valid = np.flatnonzero((rows.scores.status & REASON) == 0)
    whole = len(valid) == len(rows)
    vectors = rows.vectors if whole else rows.vectors[valid]
    labels = rows.labels if whole else rows.labels[valid]
    found = [first + state.absorb(block) for first, block in blocks(vectors, labels, kind)]
    rows.found = valid[np.concatenate([*found, np.zeros(0, np.int64)])]
    rows.vectors = np.empty((0, 0))
    return rows


def _positions(seen: Seen, view: SplitView, epoch: int) -> Ints:
    """Return the issues (k,) as positions among the run's valid samples, ascending."""
    evidence = view.evidence
    places = np.concatenate([*seen.positions, np.zeros(0, np.int64)])
    if seen.ids:
        if others := {str(ids.type) for ids in seen.ids} - {str(evidence.ids.type)}:
            raise DataError(
                f"sample ids are {min(others)} here, {evidence.ids.type} in the run: name the same "
                "column with id="
            )
        ids = pa.chunked_array(seen.ids)
        found = pc.index_in(ids, value_set=evidence.ids)
        if found.null_count:
            stranger = ids.filter(found.is_null())[0].as_py()
            raise DataError(
                f"sample {stranger!r} is not in the run: give the dump it was made from"
            )
        places = found.to_numpy().astype(np.int64)
    valid = evidence.valid(epoch)
    if not valid[places].all():
        at = evidence.ids[int(places[~valid[places]][0])].as_py()
        raise DataError(f"sample {at!r} is not valid in the run: give the dump it was made from")
    return np.sort((np.cumsum(valid) - 1)[places])

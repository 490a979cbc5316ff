"""SplitView: all that can be asked of one split of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Any, TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from fastdiv.errors import UsageError
from fastdiv.explain.accounts import exact as account_module
from fastdiv.explain.accounts.concentration import (
    Concentration,
    concentration,
    concentration_of_change,
)
from fastdiv.explain.calibration.errors import Calibration, Scheme, calibration, reliability
from fastdiv.explain.calibration.murphy import Event, Murphy, murphy
from fastdiv.explain.calibration.refinement import RefinementChange, refinement, refinement_change
from fastdiv.explain.chance.change import Change, change, changes
from fastdiv.explain.classes.confusions import confusions
from fastdiv.explain.classes.imbalance import Imbalance, change_by_class, class_report, imbalance
from fastdiv.explain.counterfactuals import as_table, counterfactuals
from fastdiv.explain.evidence import Bools, Evidence, Ints, Pair, Side, across
from fastdiv.explain.explanation import Explanation
from fastdiv.explain.findings import beside_training, findings
from fastdiv.explain.labels.joint import ConfidentJoint, joint_of
from fastdiv.explain.labels.suspects import confident_elsewhere, suspects
from fastdiv.explain.pair import TRAINING, epochs_in_words
from fastdiv.explain.ranking.change import RankingChange, ranking_change
from fastdiv.explain.ranking.one_vs_rest import ranking
from fastdiv.explain.ranking.thresholds import accuracy_by_threshold
from fastdiv.explain.shapes import Shapes, shapes
from fastdiv.explain.training import dynamics
from fastdiv.explain.training import gap as gap_module
from fastdiv.explain.training.stretches import Stretch, stretches
from fastdiv.explain.training.subsets import subset
from fastdiv.explain.verdict.explain import explain_pair

if TYPE_CHECKING:
    from fastdiv.run import Run

Epoch = int | str
Named = TypeVar("Named", Change, Explanation)


class SplitView:
    """One split of a run: its tables, and the reasons behind them.

    Epochs are given by number or by name. What takes one epoch answers for its valid samples;
    what takes two, for the samples that are valid in both with the same label. Everything is
    computed from stored scores: no prediction is read again.

    Attributes
    ----------
    split : str or None
    evidence : Evidence
        The stored scores, as arrays.
    """

    def __init__(self, run: Run, split: str | None, evidence: Evidence) -> None:
        self._run = run
        self.split = split
        self.evidence = evidence
        self._shapes: dict[int, Shapes] = {}

    def __repr__(self) -> str:
        named = "" if self.split is None else f" {self.split}"
        return f"<fastdiv split{named}: {len(self.evidence.epochs)} epochs with scores>"

    # -- what there is -----------------------------------------------------------------------

    @property
    def _splits(self) -> list[str | None]:
        """The splits of the run."""
        return [entry["split"] for entry in self._run.summary["splits"]]

    @cached_property
    def epochs(self) -> pa.Table:
        """The split's rows of `Run.epochs`."""
        return _of_split(self._run.epochs, self.split)

    @cached_property
    def samples(self) -> pa.Table:
        """The split's rows of `Run.samples`, in the order of ids."""
        return _of_split(self._run.samples, self.split)

    @cached_property
    def transitions(self) -> pa.Table:
        """The split's rows of `Run.transitions`."""
        return _of_split(self._run.transitions, self.split)

    @cached_property
    def classes(self) -> pa.Table:
        """The split's rows of `Run.classes`: for each epoch, all classes in their order."""
        return _of_split(self._run.classes, self.split)

    def transition(self, a: Epoch, b: Epoch) -> dict[str, Any] | None:
        """Return the row of `Run.transitions` of two epochs, which need not be consecutive.

        None where they are not, and the scores of one of them are not stored.
        """
        ends = (self._run.number(a), self._run.number(b))
        known = pc.and_(
            pc.equal(self.transitions["epoch_from"], ends[0]),
            pc.equal(self.transitions["epoch_to"], ends[1]),
        )
        rows: list[dict[str, Any]] = self.transitions.filter(known).to_pylist()
        return rows[0] if rows else self._run.transition(self.split, *ends)

    def side(self, epoch: Epoch) -> Side:
        """Return the scores of the valid samples of an epoch."""
        return self.evidence.side(self._run.number(epoch))

    def pair(self, a: Epoch, b: Epoch) -> Pair:
        """Return the scores of the same samples in two epochs."""
        return self.evidence.pair(self._run.number(a), self._run.number(b))

    def ids(self, epoch: Epoch) -> pa.Array:
        """Return the ids of the valid samples of an epoch, in the order of its `side`."""
        valid = self.evidence.valid(self._run.number(epoch))
        return self.evidence.ids.filter(pa.array(valid))

    def rows_to_check(
        self, a: Epoch | None = None, b: Epoch | None = None
    ) -> tuple[dict[str, Any] | None, dict[str, Any] | None, dict[str, Any] | None]:
        """Return what rules are checked on: rows of `epochs` before and after, and of their pair.

        Default: the last epoch, after the one before it.
        """
        rows = {row["epoch"]: row for row in self.epochs.to_pylist()}
        order = sorted(rows)
        end = order[-1] if b is None and order else self._run.number(b) if b is not None else None
        if a is None:
            start = max((e for e in order if end is not None and e < end), default=None)
        else:
            start = self._run.number(a)
        for epoch in (start, end):
            if epoch is not None and epoch not in rows:
                raise UsageError(f"there is no epoch {epoch}: there are {epochs_in_words(order)}")
        if start is None or end is None:
            return None, rows.get(end) if end is not None else None, None
        return rows[start], rows[end], self.transition(start, end)

    # -- why -----------------------------------------------------------------------------------

    def stretches(self) -> list[Stretch]:
        """Choose the pairs of epochs that are worth explaining, of those with stored scores."""
        kept = set(self.evidence.epochs)
        return stretches([row for row in self.epochs.to_pylist() if row["epoch"] in kept])

    def explain(self, a: Epoch, b: Epoch) -> Explanation:
        """Name the causes of the change in loss and accuracy between two epochs.

        Parameters
        ----------
        a, b : int or str
            The change is from `a` to `b`.

        Returns
        -------
        Explanation
        """
        pair = self.pair(a, b)
        made = explain_pair(pair)
        found = [*made.findings, *findings(pair, made), *self._beside()]
        return self._named(replace(made, findings=tuple(found)))

    def _beside(self) -> list[Any]:
        """Return what a training split beside this one tells."""
        train = next((name for name in self._splits if name in TRAINING), None)
        if train is None or self.split in TRAINING:
            return []
        rows = self._rows_of(train)
        finding = beside_training(rows, self.epochs.to_pylist(), (train, self.split))
        return [] if finding is None else [finding]

    def change(self, a: Epoch, b: Epoch) -> Change:
        """Return the change in loss and accuracy with their intervals and p-values.

        Also what the samples that went right → wrong, wrong → right … add to it: print it, or
        let a notebook show it.
        """
        return self._named(change(self.pair(a, b)))

    def changes(self) -> list[Change]:
        """Return all changes between consecutive epochs, adjusted for their number (Holm)."""
        kept = self.evidence.epochs
        made = changes(self.evidence.pair(a, b) for a, b in pairwise(kept))
        return [self._named(one) for one in made]

    def _named(self, made: Named) -> Named:
        """Return a change or an explanation with the names of its epochs."""
        names = self._run.summary.get("epoch_names", {})
        before, after = (names.get(str(epoch)) for epoch in (made.epoch_from, made.epoch_to))
        return replace(made, name_from=before, name_to=after)

    def accounts(self, a: Epoch, b: Epoch) -> dict[str, Any]:
        """Return all exact accounts of the change in loss and Brier score, as plain data."""
        return account_module.accounts(self.pair(a, b))

    # -- calibration ---------------------------------------------------------------------------

    def reliability(self, epoch: Epoch, bins: int = 15, scheme: Scheme = "width") -> pa.Table:
        """Return the reliability table of an epoch; see `fastdiv.explain.calibration.errors`."""
        return reliability(self.side(epoch), bins, scheme)

    def calibration(self, epoch: Epoch, bins: int = 15) -> Calibration:
        """Return the calibration errors of an epoch."""
        return calibration(self.side(epoch), bins)

    def murphy(self, epoch: Epoch, event: Event = "correct", bins: int = 15) -> Murphy | None:
        """Return Murphy's decomposition of an epoch's Brier score, with within-bin terms."""
        return murphy(self.side(epoch), event, bins)

    def refinement_change(self, a: Epoch, b: Epoch) -> RefinementChange | None:
        """Split the change in loss into refinement and calibration; None of slim scores."""
        return refinement_change(self.pair(a, b))

    # -- distributions -------------------------------------------------------------------------

    def shapes(self, epoch: Epoch) -> Shapes:
        """Return how confidence, margin and loss are distributed in an epoch."""
        number = self._run.number(epoch)
        if number not in self._shapes:
            self._shapes[number] = shapes(self.evidence, number)
        return self._shapes[number]

    # -- concentration -------------------------------------------------------------------------

    def concentration(self, epoch: Epoch, most: int = 20) -> Concentration:
        """Return what the worst samples of an epoch carry of its loss, and who they are."""
        names = self.evidence.class_names
        return concentration(self.side(epoch), self.ids(epoch), most=most, class_names=names)

    def concentration_of_change(self, a: Epoch, b: Epoch, most: int = 20) -> Concentration:
        """Return what the samples that moved most carry of the change in loss."""
        return concentration_of_change(self.pair(a, b), most=most)

    # -- classes -------------------------------------------------------------------------------

    def class_report(self, epoch: Epoch, beta: float = 1.0) -> pa.Table:
        """Return precision, recall, F1, F-beta and support by class, with their means."""
        return class_report(self.side(epoch), beta, self.evidence.class_names)

    def imbalance(self, epoch: Epoch) -> Imbalance:
        """Return priors, what they alone would reach, and the skill against them."""
        return imbalance(self.side(epoch))

    def confusions(self, epoch: Epoch, most: int | None = None) -> pa.Table:
        """Return the confusions that occur, the most frequent first."""
        return confusions(self.side(epoch), self.evidence.class_names, most)

    def change_by_class(self, a: Epoch, b: Epoch) -> pa.Table:
        """Return what each class adds to the change in loss and accuracy."""
        return change_by_class(self.pair(a, b), self.evidence.class_names)

    # -- ranking and thresholds ----------------------------------------------------------------

    def ranking(self, epoch: Epoch, exact: bool = False) -> pa.Table | None:
        """Return ROC AUC, average precision and best thresholds; None where no vectors are kept."""
        return ranking(self.side(epoch), exact, self.evidence.class_names)

    def ranking_change(self, a: Epoch, b: Epoch, exact: bool = False) -> RankingChange | None:
        """Return the change in ROC AUC with its standard error, and what a threshold explains."""
        return ranking_change(self.pair(a, b), exact)

    def accuracy_by_threshold(
        self, epoch: Epoch, thresholds: Sequence[float] | None = None
    ) -> pa.Table:
        """Return accuracy, precision and recall as functions of the threshold, of two classes."""
        return accuracy_by_threshold(self.side(epoch), thresholds)

    # -- labels --------------------------------------------------------------------------------

    def suspects(
        self, a: Epoch | None = None, b: Epoch | None = None, *, rank_by: str = "score",
        limit: int | None = None,
    ) -> pa.Table:  # fmt: skip
        """Rank the samples that are wrong in two epochs, the most suspect label first.

        Default: the epochs of lowest loss and of highest accuracy; where their scores are not
        stored, the first and the last that are.
        """
        a, b = self.suspect_epochs(a, b)
        return suspects(self.pair(a, b), self.samples, rank_by=rank_by, limit=limit)

    def confident_joint(self, epoch: Epoch) -> ConfidentJoint | None:
        """Return how often labels and confident predictions meet; None above 16 classes."""
        return joint_of(self.side(epoch))

    # -- dynamics ------------------------------------------------------------------------------

    def regions(self, share: float = dynamics.TOP_SHARE) -> pa.Table:
        """Return how many samples are easy to learn, ambiguous and hard to learn."""
        return dynamics.regions(self.samples, share)

    def forgetting(self) -> dynamics.Forgetting:
        """Return how many samples were learned when, and forgotten how often."""
        return dynamics.forgetting(self.samples)

    def oscillation(self) -> pa.Table:
        """Return how often the correctness of samples changed."""
        return dynamics.oscillation(self.samples, self.epochs["epoch"].to_pylist())

    def flips(self) -> pa.Table:
        """Return churn, positive and negative flips from epoch to epoch."""
        return dynamics.flips(self.transitions)

    def subset(self, rows: Ints | Bools | pa.Array, a: Epoch, b: Epoch) -> pa.Table:
        """Compare some samples of two epochs with all others; see `training.subsets`."""
        pair = self.pair(a, b)
        return subset((pair.before, pair.after), rows, pair.ids)

    # -- training beside this split ------------------------------------------------------------

    def gap(self, train: str | None = None) -> pa.Table:
        """Return, by epoch, how far loss and accuracy are from those of a training split."""
        return gap_module.gap(self._rows_of(train), self.epochs.to_pylist())

    def overfitting(self, train: str | None = None) -> gap_module.Overfitting:
        """Say how training and validation loss stand, and call over-fitting by its name."""
        rows = self._rows_of(train)
        no_skill = gap_module.no_skill_loss(rows)
        return gap_module.overfitting(rows, self.epochs.to_pylist(), no_skill_loss=no_skill)

    def beside(
        self, other: str | None, epoch: Epoch, other_epoch: Epoch | None = None
    ) -> gap_module.Between:
        """Account for the difference to another split, over the samples that both hold by id."""
        theirs = self._run.split(other).evidence
        number = self._run.number(epoch)
        at = number if other_epoch is None else self._run.number(other_epoch)
        return gap_module.between_splits(across(theirs, at, self.evidence, number))

    def _rows_of(self, train: str | None) -> list[dict[str, Any]]:
        """Return the epochs of the training split, or of the one that is named."""
        name = next((s for s in self._splits if s in TRAINING), None) if train is None else train
        if name is None or name not in self._splits:
            raise UsageError(
                f"there is no split {'for training' if train is None else repr(train)}: there are "
                f"{', '.join(map(str, self._splits))}; name one"
            )
        rows: list[dict[str, Any]] = _of_split(self._run.epochs, name).to_pylist()
        return rows

    # -- had it been otherwise -----------------------------------------------------------------

    def counterfactuals(self, epoch: Epoch) -> pa.Table:
        """Return loss and accuracy of an epoch, had one thing been otherwise."""
        side = self.side(epoch)
        wrong = ~side.correct & confident_elsewhere(side)
        return as_table(counterfactuals(side, refinement(side), wrong))

    def best_epochs(self) -> Mapping[str, int | None]:
        """Return the epochs to stop at by loss, by accuracy and by refinement."""
        entry = next(e for e in self._run.summary["splits"] if e["split"] == self.split)
        return {key: value for key, value in entry.items() if key.startswith("epoch_")}

    def suspect_epochs(self, a: Epoch | None = None, b: Epoch | None = None) -> tuple[int, int]:
        """Return the two epochs that `suspects` takes."""
        best = self.best_epochs()
        chosen = (
            best["epoch_lowest_loss"] if a is None else a,
            best["epoch_highest_accuracy"] if b is None else b,
        )
        kept = self.evidence.epochs
        if kept and (a is None or b is None) and not set(chosen) <= {*kept, a, b}:
            chosen = (kept[0] if a is None else a, kept[-1] if b is None else b)
        if chosen[0] is None or chosen[1] is None:
            raise UsageError("no sample is valid: nothing can be said of any epoch")
        return self._run.number(chosen[0]), self._run.number(chosen[1])


def _of_split(table: pa.Table, split: str | None) -> pa.Table:
    """Return the rows of a split."""
    if split is None:
        return table.filter(pc.is_null(table["split"]))
    return table.filter(pc.equal(table["split"], split))

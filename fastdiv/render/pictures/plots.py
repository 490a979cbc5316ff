"""Plots: ``run.plot``, the pictures of a run as plotly figures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal

from fastdiv.errors import UsageError

if TYPE_CHECKING:
    from fastdiv.explain.view import SplitView
    from fastdiv.render.pictures.picture import Picture
    from fastdiv.run import Run

Epoch = int | str
NO_SAMPLES = "no sample is valid, or none has a loss to draw"
TWO_CLASSES = (
    "it takes two classes, and labels of both; for one of several classes against the rest, see "
    "SplitView.ranking"
)
FEW_CLASSES = "it takes valid samples of at most 20 classes; for more, see SplitView.confusions"
OfEpochs = Callable[["SplitView", Sequence[int]], "Picture | None"]


class Plots:
    """The pictures of a run, each a ``plotly.graph_objects.Figure``.

    Epochs are given by number or by name, and are the last one with stored scores where left out;
    splits by name, and are the one of `Run.split` where left out. A figure can be changed
    (``figure.update_layout(...)``), shown (``figure.show()``) and exported
    (``figure.write_html(...)``).

    Raises
    ------
    UsageError
        By every method: where plotly is not installed, there is no such epoch or split, or the
        picture cannot be made of what is stored; it says which.
    """

    def __init__(self, run: Run) -> None:
        self._run = run

    def __repr__(self) -> str:
        names = ", ".join(name for name in vars(type(self)) if not name.startswith("_"))
        return f"<fastdiv plots of {self._run!r}: {names}>"

    # -- over epochs ---------------------------------------------------------------------------

    def loss_accuracy(self, a: Epoch | None = None, b: Epoch | None = None) -> Any:
        """Draw loss and accuracy of all splits over epochs, and shade two epochs.

        Where they are left out: the stretch that matters most.
        """
        from fastdiv.render.pictures.loss_accuracy import loss_accuracy

        if (a is None) != (b is None):
            raise UsageError("give both epochs, or none")
        marked = None if a is None or b is None else (self._there(a), self._there(b))
        return loss_accuracy(self._run, marked).figure()

    def cells(self, split: str | None = None) -> Any:
        """Draw the change in loss from epoch to epoch, by what became of the samples."""
        from fastdiv.render.pictures.cells import cells

        return _figure(
            cells(self._run.split(split)), "there are no two epochs with finite losses in common"
        )

    def refinement(self, split: str | None = None) -> Any:
        """Draw what temperature can take off the loss of each epoch, and what it cannot."""
        from fastdiv.render.pictures.refinement import refinement

        return _figure(
            refinement(self._run.split(split)),
            "no epoch has a refinement: analyze without --scores slim and without --clip",
        )

    def cartography(self, split: str | None = None) -> Any:
        """Draw samples by the mean and the spread of the probability of their label."""
        from fastdiv.render.pictures.cartography import cartography

        return _figure(
            cartography(self._run.split(split)), "it takes samples that are valid in two epochs"
        )

    def forgetting(self, split: str | None = None) -> Any:
        """Draw how often samples were forgotten, and when they were learned."""
        from fastdiv.render.pictures.forgetting import forgetting

        return _figure(
            forgetting(self._run.split(split)),
            "it takes two epochs with valid samples: nothing is forgotten in one",
        )

    # -- of two epochs -------------------------------------------------------------------------

    def causes(
        self, a: Epoch | None = None, b: Epoch | None = None, split: str | None = None
    ) -> Any:
        """Draw the causes of a change in loss; by default, of the stretch that matters most."""
        from fastdiv.render.pictures.causes import causes

        made = self._run.explain(a, b, split=split)
        picture = causes({(made.epoch_from, made.epoch_to): made})
        return _figure(picture, "there is nothing to explain")

    def flow(self, a: Epoch, b: Epoch, split: str | None = None) -> Any:
        """Draw which samples got right and wrong between two epochs."""
        from fastdiv.render.pictures.flow import flow

        return self._of_pair(flow, a, b, split, "no sample is in both, or scores are not stored")

    def class_changes(self, a: Epoch, b: Epoch, split: str | None = None, most: int = 12) -> Any:
        """Draw what each class adds to the change in loss and in accuracy, the `most` largest."""
        from fastdiv.render.pictures.class_changes import class_changes

        def of(view: SplitView, pairs: Sequence[tuple[int, int]]) -> Picture | None:
            return class_changes(view, pairs, most)

        return self._of_pair(of, a, b, split, "one of them has no valid sample")

    # -- of one epoch --------------------------------------------------------------------------

    def reliability(self, epoch: Epoch | None = None, split: str | None = None) -> Any:
        """Draw accuracy by confidence."""
        from fastdiv.render.pictures.reliability import reliability

        return self._of_epoch(reliability, epoch, split)

    def confidence(self, epoch: Epoch | None = None, split: str | None = None) -> Any:
        """Draw the distribution of confidence, of the right and of the wrong."""
        return self._distribution("confidence", epoch, split)

    def margin(self, epoch: Epoch | None = None, split: str | None = None) -> Any:
        """Draw the distribution of the margin, of the right and of the wrong."""
        return self._distribution("margin", epoch, split)

    def loss(self, epoch: Epoch | None = None, split: str | None = None) -> Any:
        """Draw the distribution of the loss, of the right and of the wrong."""
        return self._distribution("loss", epoch, split)

    def concentration(self, epoch: Epoch | None = None, split: str | None = None) -> Any:
        """Draw what share of the loss the worst samples carry."""
        from fastdiv.render.pictures.concentration import concentration

        return self._of_epoch(concentration, epoch, split)

    def roc(self, epoch: Epoch | None = None, split: str | None = None) -> Any:
        """Draw receiver operating characteristics."""
        from fastdiv.render.pictures.curves import roc

        return self._of_epoch(roc, epoch, split, TWO_CLASSES)

    def precision_recall(self, epoch: Epoch | None = None, split: str | None = None) -> Any:
        """Draw precision by recall."""
        from fastdiv.render.pictures.curves import precision_recall

        return self._of_epoch(precision_recall, epoch, split, TWO_CLASSES)

    def thresholds(self, epoch: Epoch | None = None, split: str | None = None) -> Any:
        """Draw accuracy, precision and recall by the threshold, of two classes."""
        from fastdiv.render.pictures.curves import thresholds

        return self._of_epoch(thresholds, epoch, split, TWO_CLASSES)

    def confusion_matrix(self, epoch: Epoch | None = None, split: str | None = None) -> Any:
        """Draw which classes are taken for which."""
        from fastdiv.render.pictures.confusion_matrix import confusion_matrix

        return self._of_epoch(confusion_matrix, epoch, split, FEW_CLASSES)

    # -- how they are made ---------------------------------------------------------------------

    def _distribution(
        self, of: Literal["confidence", "margin", "loss"], epoch: Epoch | None, split: str | None
    ) -> Any:
        from fastdiv.render.pictures.distributions import distribution

        def drawn(view: SplitView, epochs: Sequence[int]) -> Picture | None:
            return distribution(view, epochs, of)

        return self._of_epoch(drawn, epoch, split)

    def _of_epoch(
        self, make: OfEpochs, epoch: Epoch | None, split: str | None, why: str = NO_SAMPLES
    ) -> Any:
        """Return the figure of one epoch whose scores are stored."""
        view = self._run.split(split)
        kept = view.evidence.epochs
        if not kept:
            raise UsageError("no epoch has stored scores")
        number = kept[-1] if epoch is None else self._there(epoch)
        if number not in kept:
            raise UsageError(
                f"the scores of epoch {number} are not stored: there are those of "
                f"{', '.join(map(str, kept))}"
            )
        return _figure(make(view, [number]), f"epoch {number} has no such picture: {why}")

    def _of_pair(
        self, make: Callable[[SplitView, Sequence[tuple[int, int]]], Picture | None],
        a: Epoch, b: Epoch, split: str | None, why: str,
    ) -> Any:  # fmt: skip
        """Return the figure of two epochs."""
        pair = self._there(a), self._there(b)
        if pair[0] == pair[1]:
            raise UsageError(f"epoch {pair[0]} is given twice: give two different ones")
        picture = make(self._run.split(split), [pair])
        return _figure(picture, f"epochs {pair[0]} and {pair[1]} cannot be compared: {why}")

    def _there(self, epoch: Epoch) -> int:
        """Return the number of an epoch that the run has."""
        number = self._run.number(epoch)
        known = sorted(set(self._run.epochs["epoch"].to_pylist()))
        if number not in known:
            raise UsageError(f"there is no epoch {number}: there are {', '.join(map(str, known))}")
        return number


def _figure(picture: Picture | None, why: str) -> Any:
    """Return the figure, or say why there is none."""
    if picture is None:
        raise UsageError(why)
    return picture.figure()

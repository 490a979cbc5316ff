"""Sections of the report: which pictures and tables come where."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fastdiv.render.pictures.cartography import cartography
from fastdiv.render.pictures.cells import cells
from fastdiv.render.pictures.class_changes import class_changes
from fastdiv.render.pictures.concentration import concentration
from fastdiv.render.pictures.confusion_matrix import confusion_matrix
from fastdiv.render.pictures.curves import precision_recall, roc, thresholds
from fastdiv.render.pictures.distributions import distribution
from fastdiv.render.pictures.flow import flow
from fastdiv.render.pictures.forgetting import forgetting
from fastdiv.render.pictures.refinement import refinement
from fastdiv.render.pictures.reliability import reliability
from fastdiv.render.tables.classes import classes
from fastdiv.render.tables.confusions import confusions
from fastdiv.render.tables.epochs import epochs
from fastdiv.render.tables.moved import moved
from fastdiv.render.tables.provenance import provenance
from fastdiv.render.tables.suspects import suspects
from fastdiv.render.tables.worst import worst

if TYPE_CHECKING:
    from fastdiv.render.report.contents import Scope


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the report.

    Attributes
    ----------
    id : str
        What links name it by.
    title : str
    parts : tuple of functions
        Each makes a picture or a table of a split; None where there is nothing to show.
    pairs : bool
        Whether it needs two epochs.
    side_by_side : bool
        Whether parts stand beside each other where there is room.
    """

    id: str
    title: str
    parts: tuple[Callable[[Scope], Any], ...]
    pairs: bool = False
    side_by_side: bool = False


CELLS = Section("cells", "Right and wrong, epoch by epoch", (lambda s: cells(s.view),), pairs=True)
FLOW = Section("flow", "From one epoch to another", (lambda s: flow(s.view, s.pairs),), pairs=True)
CLASSES = Section(
    "classes", "Classes",
    (lambda s: class_changes(s.view, s.pairs), lambda s: classes(s.view, s.pairs)),
    pairs=True,
)  # fmt: skip
MOVED = Section(
    "moved", "Samples that moved", (lambda s: moved(s.view, list(s.marked)),), pairs=True
)
SECTIONS = (
    CELLS,
    FLOW,
    CLASSES,
    Section(
        "reliability", "Whether confidence means what it says",
        (lambda s: reliability(s.view, s.epochs),),
    ),
    Section(
        "distributions", "Confidence, margin and loss",
        (
            lambda s: distribution(s.view, s.epochs, of="confidence"),
            lambda s: distribution(s.view, s.epochs, of="margin"),
            lambda s: distribution(s.view, s.epochs, of="loss"),
        ),
    ),
    Section(  # of a single epoch, the first screen shows it
        "refinement", "Calibration against refinement",
        (lambda s: refinement(s.view) if s.view.epochs.num_rows > 1 else None,),
    ),
    Section(
        "concentration", "Where the loss lies",
        (lambda s: concentration(s.view, s.epochs), lambda s: worst(s.view, s.epochs)),
    ),
    Section(
        "confusions", "Which classes are taken for which",
        (lambda s: confusion_matrix(s.view, s.epochs), lambda s: confusions(s.view, s.epochs)),
    ),
    Section(
        "ranking", "Ranking and thresholds",
        (
            lambda s: roc(s.view, s.epochs),
            lambda s: precision_recall(s.view, s.epochs),
            lambda s: thresholds(s.view, s.epochs),
        ),
        side_by_side=True,
    ),
    Section("suspects", "Labels to check", (lambda s: suspects(s.view),)),
    MOVED,
    Section(
        "dynamics", "Over all of training",
        (lambda s: cartography(s.view), lambda s: forgetting(s.view)),
    ),
    Section("epochs", "All epochs", (lambda s: epochs(s.view),)),
    Section("provenance", "Where this comes from", (lambda s: provenance(s.run),)),
)  # fmt: skip

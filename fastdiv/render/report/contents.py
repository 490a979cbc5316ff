"""Contents of the report: what is said and shown of each split, as plain data."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

import fastdiv
from fastdiv.errors import UsageError
from fastdiv.explain.explanation import Explanation
from fastdiv.explain.pair import epoch_label, sentence
from fastdiv.explain.view import SplitView
from fastdiv.explain.wording import plain_id
from fastdiv.render.pictures.causes import causes
from fastdiv.render.pictures.loss_accuracy import loss_accuracy
from fastdiv.render.pictures.picture import pair_key, plain
from fastdiv.render.report.alone import alone
from fastdiv.render.report.sections import CLASSES, MOVED, SECTIONS, Section
from fastdiv.render.tables.glossary import GLOSSARY
from fastdiv.render.tables.table import Table, shown_ids
from fastdiv.render.verdict import verdict
from fastdiv.rereading.links import links

if TYPE_CHECKING:
    from fastdiv.run import Run

# Every pair is explained where that takes some seconds: a pair costs as much as its samples, and
# as 20,000 of them besides.
EXPLAINED_ROWS = 4_000_000
A_PAIR = 20_000
# Every epoch has its frames up to so many samples times epochs; of more, some are left out, evenly.
DRAWN_ROWS = 500_000_000
MOST_EPOCHS = 1_000
FEWEST_EPOCHS = 20  # however many samples there are

Ends = tuple[int, int]


@dataclass(frozen=True)
class Scope:
    """One split, and the epochs and pairs of it that the reader may choose.

    Attributes
    ----------
    run : Run
    view : SplitView
    marked : dict of (int, int) to str
        The pairs to look at first, and why.
    epochs : list of int
        With stored scores, ascending.
    pairs : list of (int, int)
        The marked ones first, then from each of `epochs` to the next.
    """

    run: Run
    view: SplitView
    marked: dict[Ends, str]

    @cached_property
    def epochs(self) -> list[int]:
        """The epochs to choose from: all with stored scores, or of very many, some."""
        kept = self.view.evidence.epochs
        affordable = DRAWN_ROWS // max(1, len(self.view.evidence.ids))
        most = min(MOST_EPOCHS, max(FEWEST_EPOCHS, affordable))
        if len(kept) <= most:
            return kept
        places = np.unique(np.linspace(0, len(kept) - 1, most).round().astype(np.int64))
        ends = {epoch for pair in self.marked for epoch in pair}
        return sorted({kept[i] for i in places} | ends)

    @cached_property
    def pairs(self) -> list[Ends]:
        """The pairs to choose from."""
        return list(dict.fromkeys([*self.marked, *pairwise(self.epochs)]))

    @cached_property
    def every_pair_explained(self) -> bool:
        """Whether there are few enough samples and pairs to explain all of them."""
        return len(self.pairs) * (len(self.view.evidence.ids) + A_PAIR) <= EXPLAINED_ROWS

    @cached_property
    def explained(self) -> dict[Ends, Explanation]:
        """The explanations by pair."""
        chosen = self.pairs if self.every_pair_explained else list(self.marked)
        return {(a, b): self.view.explain(a, b) for a, b in chosen}

    def name(self, epoch: int) -> str:
        """Return what people call an epoch, as commands take it."""
        return epoch_label(epoch, self.run.summary.get("epoch_names", {}))

    def label(self, epoch: int) -> str:
        """Return what people call an epoch, on one line, cut where it is very long."""
        return plain(self.name(epoch))


def contents(
    run: Run,
    *,
    compare: tuple[int | str, int | str] | None = None,
    splits: Iterable[str] | None = None,
    column: str | None = None,
) -> dict[str, Any]:
    """Return what the page holds.

    Returns
    -------
    dict
        ``data``, which the page's script shows; ``texts``, the explanations where no script runs;
        ``glossary``, pairs of a term and what it means; ``name`` of the run; ``version``.

    Raises
    ------
    UsageError
        Where a split or an epoch is not there.
    """
    ends = None if compare is None else (run.number(compare[0]), run.number(compare[1]))
    if ends is not None and ends[0] == ends[1]:
        raise UsageError("the two epochs to compare are one: give two")
    names = None if splits is None else list(splits)
    if names is not None and not names:
        raise UsageError("no split is named: give one, or leave it out for all")
    views = run.views() if names is None else [run.split(name) for name in dict.fromkeys(names)]
    if ends is not None and not any(_has(view, ends) for view in views):
        views[-1].pair(*ends)  # says which epochs there are
    scopes = [Scope(run, view, _marked(view, ends)) for view in views]
    return {
        "data": {
            "title": _title(scopes, ends),
            "read": what_was_read(run),
            "picture": _plain(loss_accuracy(run, ends)) if _any_valid(run) else None,
            "split": views.index(run.split()) if run.split() in views else 0,
            "splits": [_split(scope, ends, column) for scope in scopes],
        },
        "texts": [text for scope in scopes for text in _texts(scope)],
        "glossary": glossary(),
        "name": None if run.name is None else plain(run.name),
        "version": fastdiv.__version__,
    }


def _marked(view: SplitView, ends: Ends | None) -> dict[Ends, str]:
    """Return the pairs to look at first, and why."""
    found = {ends: "as asked"} if ends is not None and _has(view, ends) else {}
    for stretch in view.stretches():
        found.setdefault((stretch.epoch_from, stretch.epoch_to), stretch.why)
    return found


def _has(view: SplitView, ends: Ends) -> bool:
    """Whether the scores of both epochs are stored."""
    return set(ends) <= set(view.evidence.epochs)


def _any_valid(run: Run) -> bool:
    """Whether there is a loss or an accuracy to draw."""
    return bool(run.summary["invalid"]["n"] < run.summary["rows"])


def _title(scopes: list[Scope], ends: Ends | None) -> str:
    if ends is not None:
        return f"Epoch {scopes[0].label(ends[0])} against epoch {scopes[0].label(ends[1])}"
    if any(scope.pairs for scope in scopes):
        return "Loss and accuracy: where they part, and why"
    return "Loss and accuracy of one epoch, and what they are made of"


def what_was_read(run: Run) -> str:
    """Say in a line what the report is about."""
    summary = run.summary
    said = [] if run.name is None else [plain(run.name)]
    said += [
        f"{plain(entry['split'] or 'data')}: {_counted(entry['n_samples'], 'sample')}, "
        f"{_counted(entry['n_epochs'], 'epoch')}"
        for entry in summary["splits"]
    ]
    said.append(_counted(summary["classes"], "class"))
    said.append(f"{summary['kind']}, {_counted(summary['rows'], 'row')}")
    if summary["invalid"]["n"]:
        said.append(f"{_counted(summary['invalid']['n'], 'row')} left out as invalid")
    return " · ".join(said)


def _counted(n: int, word: str) -> str:
    many = f"{word}es" if word.endswith("s") else f"{word}s"
    return f"{n:,} {word if n == 1 else many}"


def _split(scope: Scope, ends: Ends | None, column: str | None) -> dict[str, Any]:
    """Return all that is shown of one split."""
    view, pairs = scope.view, scope.pairs
    first = pairs[0] if pairs else None
    last = scope.epochs[-1] if scope.epochs else None
    shown = sections(scope, front=ends in scope.marked)
    return {
        "name": view.split or "data",
        "epochs": [{"epoch": e, "label": scope.label(e)} for e in scope.epochs],
        "pairs": [
            {
                "key": pair_key(a, b), "from": a, "to": b,
                "label": f"{scope.label(a)} → {scope.label(b)}", "why": scope.marked.get((a, b)),
            }
            for a, b in pairs
        ],
        "pair": None if first is None else pair_key(*first),
        "epoch": last if first is None else first[1],
        "verdicts": {
            pair_key(*pair): verdict(made, scope.marked.get(pair))
            for pair, made in scope.explained.items()
        },
        "accounts": {
            pair_key(*pair): _account(scope, pair) for pair in pairs if pair not in scope.explained
        },
        "causes": _plain(causes(scope.explained)) if scope.explained else None,
        "alone": [] if pairs else alone(view),
        "sections": [
            {
                "id": section.id, "title": section.title, "beside": section.side_by_side,
                "parts": [_plain(part) for part in parts],
            }
            for section, parts in shown
        ],
        "links": addresses(scope, shown, column),
    }  # fmt: skip


def _account(scope: Scope, pair: Ends) -> dict[str, str]:
    """Return what is said of a pair that is not explained."""
    row = scope.view.transition(*pair)
    names = scope.run.summary.get("epoch_names", {})
    words = ["fastdiv", "explain", "RUN", *map(scope.name, pair)]
    if scope.view.split is not None:
        words += ["--split", scope.view.split]
    return {
        "headline": "" if row is None else sentence(row, names),
        "why": (
            f"With {len(scope.view.evidence.ids):,} samples and {len(scope.pairs):,} pairs, only "
            "those to look at first are explained here. For the causes of this one, run"
        ),
        "command": shlex.join(words),
    }


def _texts(scope: Scope) -> list[str]:
    """Return what is read where no script runs."""
    if not scope.pairs:
        return ["\n".join(alone(scope.view))]
    return [
        f"{made}\n({scope.marked[pair]})"
        for pair, made in scope.explained.items()
        if pair in scope.marked
    ]


def sections(scope: Scope, front: bool) -> list[tuple[Section, list[Any]]]:
    """Return the sections that have something to show, in their order, and what they show.

    Parameters
    ----------
    scope : Scope
    front : bool
        Whether what changed between two epochs, and for whom, comes first.
    """
    order = dict.fromkeys([MOVED, CLASSES, *SECTIONS] if front else SECTIONS)
    made = []
    for section in order:
        if section.pairs and not scope.pairs:
            continue
        parts = [content for part in section.parts if (content := part(scope)) is not None]
        if parts:
            made.append((section, parts))
    return made


def addresses(
    scope: Scope, shown: list[tuple[Section, list[Any]]], column: str | None
) -> dict[str, str]:
    """Return the addresses of all samples that are shown, by the texts of their ids."""
    tables = [part for _, parts in shown for part in parts if isinstance(part, Table)]
    ids: list[int | str] = [i for table in tables for i in shown_ids(table)]
    for made in scope.explained.values():
        ids += [plain_id(i) for cause in made.causes for i in cause.sample_ids]
    return links(scope.run, scope.view, ids, column)


def glossary() -> list[tuple[str, str]]:
    """Return terms and what they mean, by name."""
    return sorted(GLOSSARY.items(), key=lambda item: item[0].lower())


def _plain(content: Any) -> dict[str, Any] | None:
    """Return a picture, a table or a list of facts as plain data, with what it is."""
    if content is None:
        return None
    if isinstance(content, list):
        return {"is": "facts", "rows": content}
    return {"is": "table" if isinstance(content, Table) else "picture", **content.to_dict()}

"""Does the explanation name what was planted: `python -m benchmarks.verdicts`.

Draws causes and pairs of them (`tests/planted.py`), asks for an explanation of each, and writes a
confusion table as Markdown: what was planted against what was named first. Only draws count whose
plant is at least 4 standard errors, of its own effect and of the whole change; weaker ones are told
apart. Draws go on until there are as many that count as were asked for, at most `MOST_TRIED` times
as many.

It runs where `tests` and `benchmarks` are: in the root of the repository.
"""

from __future__ import annotations

import argparse
import importlib
import json
import multiprocessing
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa

from fastdiv.backends import resolve
from fastdiv.explain.evidence import Pair
from tests.planted import CAUSES, PAIRS, STRONG, Case, cases
from tests.sides import side_of

EXPLAIN = "fastdiv.explain.verdict.explain:explain_pair"
MOST_TRIED = 5
NOISE = "noise"
LEADING = 3  # how many names of a pair are looked at for both


@dataclass(frozen=True, slots=True)
class Record:
    """What came of one draw.

    `named` are the causes in the order of the explanation, each with its nats; `z` and `z_change`
    are those of `Planted`.
    """

    case: Case
    expected: tuple[str, ...]
    reversed: bool
    planted_nats: float
    change_nats: float
    z: float
    z_change: float
    named: tuple[tuple[str, float], ...]
    seconds: float

    @property
    def planted(self) -> str:
        """The cause or the pair."""
        return " + ".join(self.case.causes)

    @property
    def first(self) -> str:
        """What was named first; where nothing was, that is `noise`."""
        return self.named[0][0] if self.named else NOISE

    @property
    def right(self) -> bool:
        """Whether that is what was planted."""
        return self.first in self.expected

    @property
    def counts(self) -> bool:
        """Whether the plant is strong enough to be found; noise always counts."""
        return self.planted == NOISE or min(self.z, self.z_change) >= STRONG

    @property
    def all_leading(self) -> bool:
        """Whether each of the causes has one of its names among the first three."""
        leading = {name for name, _ in self.named[:LEADING]}
        return all(leading & set(CAUSES[cause].expected) for cause in self.case.causes)


def judge(case: Case, explain: str) -> Record:
    """Draw a case, explain it by a function given as ``module:name``, and note what came of it."""
    module, name = explain.split(":")
    explain_pair: Callable[[Any], Any] = getattr(importlib.import_module(module), name)
    planted = case.draw()
    before, after = (
        side_of(logits, planted.labels, epoch=epoch, kernels=resolve())
        for epoch, logits in enumerate((planted.before, planted.after))
    )
    pair = Pair(None, before, after, pa.array(range(case.n)), None)
    start = time.perf_counter()
    explanation = explain_pair(pair)
    seconds = time.perf_counter() - start
    planted_nats = float(planted.planted_delta.mean())
    return Record(
        case=case,
        expected=planted.expected,
        reversed=planted.reversed,
        planted_nats=planted_nats,
        change_nats=planted_nats + float(planted.unplanted_delta.mean()),
        z=planted.z,
        z_change=planted.z_change,
        named=tuple((cause.name, float(cause.nats)) for cause in explanation.causes),
        seconds=seconds,
    )


def gather(
    entry: str | tuple[str, str],
    split: Literal["tuning", "proof"],
    draws: int,
    judged: Callable[[list[Case]], Iterable[Record]],
) -> Iterator[Record]:
    """Judge draws of a cause or a pair, the same ones on every machine, until enough count."""
    found = tried = 0
    while found < draws and tried < MOST_TRIED * draws:
        more = min(draws - found, MOST_TRIED * draws - tried)
        for record in judged([*cases(split, more, [entry], start=tried)]):
            found += record.counts
            yield record
        tried += more


def table(records: Sequence[Record]) -> list[str]:
    """Return the confusion table of single causes as lines of Markdown."""
    order = [*dict.fromkeys(name for cause in CAUSES.values() for name in cause.expected)]
    found = {r.first for r in records if r.counts}
    names = [name for name in order if name in found] + sorted(found - set(order))
    lines = [
        f"| planted | draws that count | right | {' | '.join(names)} | weaker | of them right |",
        f"|---|--:|--:|{'--:|' * len(names)}--:|--:|",
    ]
    for planted, mine in _by_planted(records):
        strong, weak = _split(mine)
        firsts = Counter(r.first for r in strong)
        cells = [
            f"**{firsts[name]}**" if name in mine[0].expected and firsts[name]
            else str(firsts[name] or "")
            for name in names
        ]  # fmt: skip
        lines.append(
            f"| {planted} | {len(strong)} | {_share(strong)} | {' | '.join(cells)} "
            f"| {len(weak)} | {sum(r.right for r in weak)} |"
        )
    return lines


def pair_table(records: Sequence[Record]) -> list[str]:
    """Return how often the first is one of the two, and both are among the first three."""
    lines = [
        "| planted | draws that count | first is one of the two | both among the first three "
        "| first is another |",
        "|---|--:|--:|--:|---|",
    ]
    for planted, mine in _by_planted(records):
        strong, _ = _split(mine)
        others = Counter(r.first for r in strong if not r.right)
        said = ", ".join(f"{name} {k}" for name, k in others.most_common())
        both = sum(r.all_leading for r in strong)
        lines.append(f"| {planted} | {len(strong)} | {_share(strong)} | {both} | {said} |")
    strong, _ = _split(records)
    both = sum(r.all_leading for r in strong)
    lines.append(f"| all | {len(strong)} | {_share(strong)} | {both} | |")
    return lines


def markdown(records: Sequence[Record], split: str) -> str:
    """Return both tables and what they are made from."""
    single = [r for r in records if len(r.case.causes) == 1]
    pairs = [r for r in records if len(r.case.causes) > 1]
    sizes = [(r.case.classes, r.case.n) for r in records]
    noise = [r for r in single if r.planted == NOISE]
    lines = [
        "# What was planted, and what was named",
        "",
        f"{len(records)} draws of the {split} split: {min(c for c, _ in sizes)} to "
        f"{max(c for c, _ in sizes)} classes, {min(n for _, n in sizes):,} to "
        f"{max(n for _, n in sizes):,} samples. A draw counts where what was planted changes the "
        f"mean loss by at least {STRONG:g} standard errors, both of that effect and of the whole "
        "change, chance between the epochs included.",
    ]
    if noise:
        false = sum(not r.right for r in noise)
        lines.append(f"False alarms under pure noise: {false} of {len(noise)}.")
    hidden = [r for r in records if r.z >= STRONG > r.z_change]
    if hidden:
        lines.append(
            f"Of the {len(hidden)} draws where it is so many of that effect alone, "
            f"{_share(hidden)} are right all the same."
        )
    for rows, of in ((single, table), (pairs, pair_table)):
        if rows:
            lines += ["", *of(rows)]
    return "\n".join(lines) + "\n"


def _by_planted(records: Iterable[Record]) -> Iterator[tuple[str, list[Record]]]:
    for planted, mine in groupby(records, key=lambda r: r.planted):
        yield planted, list(mine)


def _split(records: Iterable[Record]) -> tuple[list[Record], list[Record]]:
    strong: list[Record] = []
    weak: list[Record] = []
    for r in records:
        (strong if r.counts else weak).append(r)
    return strong, weak


def _share(records: Sequence[Record]) -> str:
    right = sum(r.right for r in records)
    return f"{right} ({100 * right / len(records):.0f} %)" if records else "0"


def arguments(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.verdicts", description="Does it name what was planted?"
    )
    add = parser.add_argument
    add("--draws", type=int, default=100, metavar="K", help="that count, of each cause (100)")
    add("--pair-draws", type=int, metavar="K", help="of each pair (a tenth of --draws)")
    add("--split", choices=("tuning", "proof"), default="tuning", help="default: tuning")
    add("--causes", nargs="+", choices=tuple(CAUSES), metavar="CAUSE", help="default: all")
    add("--no-pairs", action="store_true", help="single causes alone")
    add("--processes", type=int, default=2, metavar="N", help="default: 2")
    add("--explain", default=EXPLAIN, metavar="MODULE:NAME", help=f"default: {EXPLAIN}")
    add("-o", "--output", type=Path, metavar="FILE", help="where to write the Markdown")
    add("--json", type=Path, metavar="FILE", help="where to write every draw")
    asked = parser.parse_args(argv)
    if min(asked.draws, asked.processes) < 1:
        parser.error("--draws and --processes must be at least 1")
    return asked


def main(argv: list[str] | None = None) -> int:
    """Draw, explain, print and write the tables."""
    asked = arguments(argv)
    chosen: Sequence[str] = asked.causes or tuple(CAUSES)
    plan: list[tuple[str | tuple[str, str], int]] = [(name, asked.draws) for name in chosen]
    if not asked.no_pairs:
        k = asked.pair_draws if asked.pair_draws is not None else max(1, asked.draws // 10)
        plan += [(pair, k) for pair in PAIRS if set(pair) <= set(chosen)]
    records: list[Record] = []
    one = partial(judge, explain=asked.explain)
    with multiprocessing.get_context("spawn").Pool(asked.processes) as pool:
        for entry, draws in plan:
            mine = [*gather(entry, asked.split, draws, partial(pool.imap, one))]
            records += mine
            strong, weak = _split(mine)
            name = entry if isinstance(entry, str) else " + ".join(entry)
            wrong = Counter(r.first for r in strong if not r.right).most_common()
            print(
                f"{name}: {_share(strong)} of {len(strong)}, {len(weak)} weaker; "
                f"{max((r.seconds for r in mine), default=0):.2f} s at most; not {wrong}",
                file=sys.stderr,
                flush=True,
            )
    text = markdown(records, asked.split)
    print(text, end="")
    if asked.output:
        asked.output.write_text(text, encoding="utf-8")
    if asked.json:
        found = [{**asdict(r), "first": r.first, "right": r.right, "counts": r.counts}
                 for r in records]  # fmt: skip
        asked.json.write_text(json.dumps(found, indent=1), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())

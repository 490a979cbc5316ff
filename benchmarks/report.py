"""Measurements as Markdown tables, and their place in a README."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator

from benchmarks.cases import ARRAYS, DUMPS, KERNELS, OTHERS
from benchmarks.machine import Machine
from benchmarks.measure import Measurement
from benchmarks.record import versions
from benchmarks.workload import LOSS_TOLERANCE, TEMPERED_TOLERANCE, Case

GOALS_TITLE = "**What is aimed at, and what was reached**"
BEGIN, END = "<!-- benchmarks -->", "<!-- /benchmarks -->"

HEAD = (
    "| | computes | million rows/s | the first is faster by | share of the floor | CPU ns/row "
    "| GB/s | peak MB |",
    "|---|---|--:|--:|--:|--:|--:|--:|",
)
KERNELS_HEAD = (
    "| kernel | million rows/s | share of the floor | CPU ns/row | GB/s | peak MB | peer "
    "| its million rows/s | its share | fastdiv is faster by |",
    "|---|--:|--:|--:|--:|--:|---|--:|--:|--:|",
)
MS_HEAD = ("| | computes | ms | peak MB |", "|---|---|--:|--:|")
NOTES = """\
Medians, the best call in brackets. Competitors take turns, each in a process of its own. CPU time
is that of all threads. GB/s counts what the work itself has to move once: logits, labels, epochs
and (fastdiv) ids in, as they are in memory, and the outputs it makes; not what an implementation
moves besides. What kernels alone write stays in cache, but counts. `temperatures` goes from logits
and what `score` made of them to mean losses at eleven temperatures; fastdiv adds their slopes, and
keeps what the loss of a sample at any temperature is made from. Peak memory is that of the whole
process, libraries and data in memory included, over all calls, in brackets after the first."""
FLOOR_NOTES = """\
The floor is the most rows a second that the machine allows, by two rates measured in the same turns
on as many threads: memory read{gb}, over the bytes of a row that must be read (4C of logits, 2C in
16 bits, and 4 of label; 17 and 26 of stored scores; 16 of ids), and float32 exponentials taken in
cache{exps}, over the C of a row of logits (for `temperatures` of two classes: 4 bytes of margin,
one exponential). The lesser of the two is the floor, one for all in a table; of a dump, ids,
outputs and compression do not count. A share is rows/s over the floor. [How it is
measured](docs/decisions/benchmarks.md)."""
AGREE = f"""\
All agree on mean losses and their changes to {LOSS_TOLERANCE * 1e5:.0f}e-5, on mean losses at other
temperatures, made from 16 bits, to {TEMPERED_TOLERANCE * 1e4:.0f}e-4, and on counts exactly."""


def markdown(measurements: list[Measurement], machine: Machine, agreed: bool) -> str:
    """Return the tables, what the columns mean, and the machine."""
    done = [m for m in measurements if m.skipped is None]
    lines: list[str] = []
    tables = [(_title(done, case, c), _table(_of(done, case, c))) for case, c in _cells(DUMPS)]
    tables += [
        ("The kernels alone, from memory into buffers that are used again", _kernel_table(done)),
        (f"{ARRAYS.title}: million rows/s, share of the floor, how many times as fast fastdiv is",
         _array_table(done)),
    ]  # fmt: skip
    tables += [(_title(done, case, c), _table(_of(done, case, c))) for case, c in _cells(OTHERS)]
    for title, body in tables:
        if body:
            lines += [f"**{title}**", "", *body, ""]
    lines += _skipped(measurements)
    threads = {m.workload.threads for m in measurements}
    lines += [
        NOTES,
        "",
        _floor_notes(done),
        "",
        AGREE if agreed else "**They do not all agree on losses and counts.**",
        "",
        f"{', '.join(str(t) for t in sorted(threads))} threads each. {machine.line()}; "
        + ", ".join(f"{name} {version}" for name, version in versions(done).items())
        + ".",
    ]
    return "\n".join(lines) + "\n"


def _of(measurements: list[Measurement], case: Case, classes: int) -> list[Measurement]:
    return [
        m for m in measurements if (m.workload.case, m.workload.classes) == (case.name, classes)
    ]


def _ours(mine: list[Measurement]) -> Measurement | None:
    """Return what the others are compared with, if it was measured."""
    is_first = (m for m in mine if m.workload.competitor == m.workload.of_case.competitors[0].name)
    return next(is_first, None)


def _cells(cases: Iterable[Case]) -> Iterator[tuple[Case, int]]:
    return ((case, classes) for case in cases for classes in case.classes)


def _title(done: list[Measurement], case: Case, classes: int) -> str:
    """Say what is done, and on how much."""
    mine = _of(done, case, classes)
    if not mine:
        return case.title
    rows = max(m.workload.rows for m in mine) // case.epochs
    parts = [f"{rows:,} samples"] + [f"{classes:,} classes"] * (classes > 1)
    return f"{case.title}: " + " × ".join(parts + [f"{case.epochs} epochs"] * (case.epochs > 1))


def _table(mine: list[Measurement]) -> list[str]:
    """Return a row for each competitor; where none has rows to move, the milliseconds of a call."""
    if not any(m.workload.row_bytes() and m.workload.entry().moves_bytes for m in mine):
        rows = [(_named(m, mine), m.workload.entry().computes, _number(m.median_s * 1e3), _peak(m))
                for m in mine]  # fmt: skip
        return [*MS_HEAD, *_lines(rows)] if rows else []
    ours = _ours(mine)
    rows = [
        (
            _named(m, mine),
            m.workload.entry().computes,
            _speed(m),
            _faster(ours, m),
            _share(m),
            _number(m.cpu_ns_per_row),
            _number(m.gb_per_s),
            _peak(m),
        )
        for m in mine
    ]
    if mine and mine[0].floor_rows_per_s:
        case, classes = mine[0].workload.of_case, mine[0].workload.classes
        what = f"{case.logit_bytes(classes) + case.reads_bytes:,} bytes"
        if case.exponentials(classes):
            what += f", {case.exponentials(classes):,} exponentials"
        floor = _number(mine[0].floor_rows_per_s / 1e6)
        rows.append(("the floor", f"{what} a row", floor, "", "100%", "", "", ""))
    return [*HEAD, *_lines(rows)]


def _named(m: Measurement, mine: list[Measurement]) -> str:
    return f"**{_name(m)}**" if m is _ours(mine) else _name(m)


def _kernel_table(done: list[Measurement]) -> list[str]:
    rows = []
    for case in KERNELS:
        for classes in case.classes:
            mine = _of(done, case, classes)
            ours = _ours(mine)
            if ours is None:
                continue
            peers = [m for m in mine if m is not ours]
            peer = max(peers, key=lambda m: m.rows_per_s, default=None)
            of_peer = ("", "", "", "")
            if peer is not None:
                speed = _number(peer.rows_per_s / 1e6)
                of_peer = (_name(peer), speed, _share(peer), _faster(ours, peer))
            size = f", {ours.workload.rows:,} × {classes:,}" if case.takes_logits else ""
            numbers = (_number(ours.cpu_ns_per_row), _number(ours.gb_per_s), _peak(ours))
            rows.append((f"`{case.name}`{size}", _speed(ours), _share(ours), *numbers, *of_peer))
    return [*KERNELS_HEAD, *_lines(rows)] if rows else []


def _array_table(done: list[Measurement]) -> list[str]:
    """Return a row for each competitor and a column for each number of classes."""
    groups = [mine for c in ARRAYS.classes if (mine := _of(done, ARRAYS, c))]
    sizes = [f"{mine[0].workload.rows:,} × {mine[0].workload.classes:,}" for mine in groups]
    rows = []
    for competitor in ARRAYS.competitors:
        cells, its = [], []
        for mine in groups:
            ours = _ours(mine)
            m = next((m for m in mine if m.workload.competitor == competitor.name), None)
            if m is None:
                cells.append("")
                continue
            its.append(m)
            parts = (_number(m.rows_per_s / 1e6), _share(m), _faster(ours, m))
            cells.append(" · ".join(filter(None, parts)))
        if its:
            first = competitor is ARRAYS.competitors[0]
            name = f"**{_name(its[0])}**" if first else _name(its[0])
            gb = _range(_number(x) for x in sorted(m.gb_per_s for m in its))
            peak = _range(f"{x / 1e6:,.0f}" for x in sorted(m.peak_bytes for m in its))
            rows.append((name, competitor.computes, *cells, gb, peak))
    floors = [mine[0].floor_rows_per_s for mine in groups]
    if rows and any(floors):
        numbers = [_number(floor / 1e6) if floor else "" for floor in floors]
        rows.append(("the floor", "4C + 4 bytes, C exponentials a row", *numbers, "", ""))
    head = ("", "computes", *sizes, "GB/s", "peak MB")
    rule = "|---|---|" + "--:|" * (len(sizes) + 2)
    return [*_lines([head]), rule, *_lines(rows)] if rows else []


def _lines(rows: Iterable[tuple[str, ...]]) -> list[str]:
    return [f"| {' | '.join(cells)} |" for cells in rows]


def _name(m: Measurement) -> str:
    """Name libraries with their versions; what tells two entries of one apart is what it computes.

    "torch.compile, two" becomes "torch.compile 2.13.0".
    """
    if len(m.versions) == 1:
        ((package, version),) = m.versions.items()
        name = package if package == "fastdiv" else m.workload.competitor.partition(",")[0]
        return f"{name} {version}"
    return " + ".join(f"{package} {version}" for package, version in m.versions.items())


def _number(x: float) -> str:
    """Write three significant digits, and all of those before the point."""
    return f"{x:,.0f}" if x >= 100 else f"{x:#.3g}".rstrip(".")


def _speed(m: Measurement) -> str:
    return f"{_number(m.rows_per_s / 1e6)} ({_number(m.best_rows_per_s / 1e6)})"


def _peak(m: Measurement) -> str:
    return f"{m.peak_bytes / 1e6:,.0f} ({m.first_peak_bytes / 1e6:,.0f})"


def _faster(ours: Measurement | None, m: Measurement) -> str:
    return f"{_number(ours.rows_per_s / m.rows_per_s)}×" if ours and m is not ours else ""


def _share(m: Measurement) -> str:
    """Write two significant digits."""
    share = m.share_of_floor
    if share is None:
        return ""
    return f"{share:.0%}" if share >= 0.1 else f"{100 * share:#.2g}".rstrip(".") + "%"


def _range(sorted_texts: Iterable[str]) -> str:
    texts = list(sorted_texts)
    return texts[0] if texts[0] == texts[-1] else f"{texts[0]}–{texts[-1]}"


def _floor_notes(done: list[Measurement]) -> str:
    floors = [m.floor for m in done if m.floor is not None]
    gb = exps = ""
    if floors:
        gb_per_s = sorted(floor.read_bytes_per_s / 1e9 for floor in floors)
        exps_per_s = sorted(floor.exps_per_s / 1e9 for floor in floors)
        gb = f" ({_range(map(_number, gb_per_s))} GB/s)"
        exps = f" ({_range(map(_number, exps_per_s))} billion/s)"
    return textwrap.fill(FLOOR_NOTES.format(gb=gb, exps=exps), 100)


def _skipped(measurements: list[Measurement]) -> list[str]:
    reasons: dict[str, list[str]] = {}
    for m in measurements:
        if m.skipped is not None:
            reasons.setdefault(m.skipped, []).append(m.workload.label())
    lines = [f"Not measured ({why}): {', '.join(labels)}." for why, labels in reasons.items()]
    return [*lines, ""] if lines else []


def has_markers(readme: str) -> bool:
    """Say whether a text has a place for the tables."""
    return 0 <= readme.find(BEGIN) < readme.find(END)


def with_tables(readme: str, tables: str) -> str:
    """Return the text with what stands between its markers replaced."""
    before, _, rest = readme.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{tables}{END}{after}"

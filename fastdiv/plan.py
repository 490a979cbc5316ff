"""Plan: what would be read, and what it needs, before anything is read."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from fastdiv.batch import Chunk
from fastdiv.errors import UsageError
from fastdiv.sources import Layout, Source
from fastdiv_kernels.contract import DYNAMICS, profile_width

PROGRAM_BYTES = 320 << 20  # Python, Arrow, Numba and their caches; measured
IN_FLIGHT_BYTES = 96 << 20  # scores that wait for their turn
SCORED_ROW_BYTES = 48  # of a row between kernel and store: scores, id, label
STRING_ID_BYTES = 32  # of an id of unknown length: its bytes and its offset
INDEX_BYTES = 12  # of a sample in the ledger, besides its id
HISTORY_BYTES = DYNAMICS.itemsize  # of a sample whose history is carried on epoch by epoch


@dataclass(frozen=True, slots=True)
class Selection:
    """The epochs to read: some numbers, or a range with a step."""

    numbers: frozenset[int] | None
    start: int | None = None
    stop: int | None = None
    step: int = 1

    def __call__(self, epoch: int) -> bool:
        """Say whether an epoch is selected."""
        return self.meets(range(epoch, epoch + 1))

    def meets(self, epochs: range) -> bool:
        """Say whether one of the epochs from the first to the last of a range is selected."""
        if self.numbers is not None:
            return any(epochs.start <= number < epochs.stop for number in self.numbers)
        first = epochs.start if self.start is None else max(self.start, epochs.start)
        first += ((self.start or 0) - first) % self.step
        return first < (epochs.stop if self.stop is None else min(self.stop, epochs.stop))


@dataclass(frozen=True, slots=True)
class Plan:
    """The chunks to read and the estimates made from metadata alone."""

    chunks: list[Chunk]
    parts: int  # files, tables or arrays
    rows: int | None  # None: only reading tells
    nbytes: int  # stored size of the columns that are read
    epochs: list[int] | None  # None: only reading will tell
    splits: list[str | None] | None
    samples: int | None  # at most, over all splits; None: nothing tells, nor of what follows
    expected: int  # samples that room is made for: no more than can be in the bytes that are there
    memory_bytes: int | None
    disk_bytes: int | None

    def check_memory(self, allowed: str | float | None) -> None:
        """Refuse a plan that may need more memory than is allowed."""
        if allowed is None:
            return
        if self.memory_bytes is None:
            raise UsageError(
                f"whether {human_bytes(parse_bytes(allowed))} of memory are enough cannot be told "
                "before all is read, for nothing tells the number of rows: leave out --memory, or "
                "write Parquet"
            )
        if self.memory_bytes > parse_bytes(allowed):
            raise UsageError(
                f"an estimated {human_bytes(self.memory_bytes)} of memory is needed, more than the "
                f"{human_bytes(parse_bytes(allowed))} of --memory: give more, fewer --threads, or "
                "fewer samples"
            )


def selection(
    epochs: str | int | Iterable[int | str] | slice | None, names: Mapping[int, str] | None = None
) -> Selection | None:
    """Turn ``"12,99"``, ``"0:100:10"`` or some integers into a test of an epoch; None takes all.

    A range is one of Python's: its end is left out. `names` are those of named epochs.
    """
    if epochs is None:
        return None
    if isinstance(epochs, str):
        text = epochs.strip()
        if re.fullmatch(r"(-?\d+)?:(-?\d+)?(:[1-9]\d*)?", text):
            epochs = slice(*(int(x) if x else None for x in text.split(":")))
        else:
            epochs = [x.strip() for x in text.split(",")]
    if isinstance(epochs, slice):
        ends = (epochs.start, epochs.stop, epochs.step)
        if not all(end is None or isinstance(end, int) for end in ends):
            raise UsageError(f"epochs {epochs}: a range has whole numbers")
        if (epochs.step or 1) < 1:
            raise UsageError(f"epochs {epochs}: the step must be positive")
        return Selection(None, epochs.start, epochs.stop, epochs.step or 1)
    if not isinstance(epochs, Iterable):
        epochs = [epochs]
    return Selection(frozenset(_number_of(epoch, names or {}) for epoch in epochs))


def _number_of(epoch: Any, names: Mapping[int, str]) -> int:
    """Return the number of an epoch given by number or name."""
    numbers = {name: number for number, name in names.items()}
    if epoch in numbers:
        return numbers[epoch]
    if isinstance(epoch, int | np.integer) or (
        isinstance(epoch, str) and re.fullmatch(r"-?\d+", epoch)
    ):
        return int(epoch)
    known = f"; there are {', '.join(names.values())}" if names else ""
    raise UsageError(
        f"epochs {epoch!r}: give numbers like 12,99 or a range like 0:100:10, or names{known}"
    )


def make_plan(source: Source, selected: Selection | None, threads: int, scores: str) -> Plan:
    """Choose the chunks that hold selected epochs and estimate what reading them needs."""
    chunks: list[Chunk] = []
    known: set[int] = set()
    unknown = False
    everything = source.plan()
    for chunk in everything:
        bounds = source.epochs_in(chunk)
        if bounds is None:
            unknown = True
        else:
            # There may be gaps between the first and the last.
            unknown = unknown or bounds.stop - bounds.start > 2
            known.update((bounds.start, bounds.stop - 1))
        if selected is None or bounds is None or selected.meets(bounds):
            chunks.append(chunk)
    if not chunks:
        raise UsageError(f"no epoch is selected: there are {_listed(sorted(known))}")
    if selected is not None:
        known = set(filter(selected, known))
    layout = source.layout
    rows = _sum(chunk.rows for chunk in chunks)
    most = [source.most_rows(chunk) for chunk in chunks]
    samples = _samples(chunks, most, len(known) if known and not unknown else None)
    source.expect(chunks)
    memory, disk = _needs(layout, samples, _sum(most), threads, scores)
    if memory is not None:
        memory += source.ahead_bytes
    split_column = layout.split is not None
    return Plan(
        chunks=chunks,
        parts=len({chunk.part for chunk in chunks}),
        rows=rows,
        nbytes=sum(map(source.nbytes, chunks)),
        epochs=None if unknown else sorted(known),
        splits=None if split_column else sorted({c.split for c in chunks}, key=split_order),
        samples=samples,
        expected=min(samples or 0, source.size),
        memory_bytes=memory,
        disk_bytes=disk,
    )


def _sum(numbers: Iterable[int | None]) -> int | None:
    """Add numbers; None where one of them is."""
    total = 0
    for number in numbers:
        if number is None:
            return None
        total += number
    return total


def _needs(
    layout: Layout, samples: int | None, rows: int | None, threads: int, scores: str
) -> tuple[int | None, int | None]:
    """Return at most how many bytes of memory and disk are needed."""
    if samples is None or rows is None:
        return None, None
    width = layout.classes * layout.dtype.itemsize
    rolling, kept = scores == "rolling", kept_bytes(layout, scores)
    stored = 17 + (8 if layout.dtype == np.float64 else 4) + kept
    row_bytes = SCORED_ROW_BYTES + kept
    in_flight = min(rows * row_bytes, IN_FLIGHT_BYTES)
    # Arrow holds a batch as decoded and the pages it came from.
    reading = threads * 4 * min(rows, layout.batch_rows) * (width + row_bytes)
    id_bytes = 0 if layout.id is None else STRING_ID_BYTES if layout.string_ids else 8
    classes = layout.classes * (4 * 8 + (560 if layout.dtype == np.float64 else 96)) * (threads + 1)
    memory = samples * (INDEX_BYTES + id_bytes + 2 * stored) + in_flight + reading + classes
    memory += samples * HISTORY_BYTES if rolling else 0
    disk = samples * 2 * stored if rolling else rows * stored + samples * HISTORY_BYTES
    return PROGRAM_BYTES + memory, disk


def kept_bytes(layout: Layout, scores: str) -> int:
    """Return how many bytes are kept of a prediction's vector, with scores "all", "slim", ..."""
    return 0 if scores == "slim" else 2 * profile_width(layout.classes)


def split_order(split: str | None) -> tuple[bool, str]:
    """Return the sort key of splits: by name, those without a name first."""
    return split is not None, split or ""


def _samples(chunks: list[Chunk], most: Sequence[int | None], epochs: int | None) -> int | None:
    """Return at most how many samples there are; None where nothing tells."""
    by_epoch: dict[Any, int] = {}
    for chunk, rows in zip(chunks, most, strict=True):
        if rows is None:
            return None
        key = (chunk.split, chunk.epoch)
        by_epoch[key] = by_epoch.get(key, 0) + rows
    largest: dict[str | None, int] = {}
    for (split, epoch), rows in by_epoch.items():
        if epoch is None and epochs:
            rows = -(-rows // epochs)
        largest[split] = max(largest.get(split, 0), rows)
    return sum(largest.values())


def parse_bytes(text: str | float) -> int:
    """Turn ``"4GB"``, ``"512 MiB"`` or a number into bytes."""
    if not isinstance(text, str):
        text = repr(text)
    match = re.fullmatch(r"\s*(\d+\.?\d*(?:e\d+)?)\s*([kmgt]?)(i?)b?\s*", text, re.IGNORECASE)
    if not match:
        raise UsageError(f"memory {text!r}: give a size like 4GB or 512MiB")
    base = 1024 if match[3] else 1000
    if float(match[1]) > 1e18:
        raise UsageError(f"memory {text!r}: no machine has so much")
    return int(float(match[1]) * base ** " kmgt".index(match[2].lower() or " "))


def human_bytes(n: float) -> str:
    """Write a number of bytes for a person."""
    for unit in ("B", "kB", "MB", "GB"):
        if n < 999.5:
            return f"{n:.0f} {unit}" if unit in ("B", "kB") or n >= 10 else f"{n:.1f} {unit}"
        n /= 1000
    return f"{n:.1f} TB"


def _listed(epochs: list[int]) -> str:
    if len(epochs) > 12:
        return f"{', '.join(map(str, epochs[:5]))} … {epochs[-1]} ({len(epochs)} epochs)"
    return ", ".join(map(str, epochs)) or "none"


class Progress(Protocol):
    """What is told of the rows of a plan while they are read."""

    def start(self, source: Source, plan: Plan) -> None:
        """Say what will be read."""
        ...

    def advance(self, rows: int, nbytes: int) -> None:
        """Say that rows have been taken, and how many bytes they had; on any thread."""
        ...

    def finish(self) -> None:
        """Say that all has been read, or that reading has stopped."""
        ...

"""Fetch: parts of a remote file, in blocks that are read ahead; what was used is let go.

Parts that lie close together are read at once, long ones in several blocks. Blocks are read in the
order in which parts that are used side by side, as the columns of a row group are, come to them.
"""

from __future__ import annotations

import io
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from itertools import pairwise

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from fastdiv.sources.files.transfers import Block, Readable, Transfers

HOLE_BYTES = 1 << 20  # that cost less to read over than another request
BLOCK_BYTES = 8 << 20

Bytes = NDArray[np.uint8]
Span = tuple[int, int]  # where it begins and ends in the file


def blocks_of(file: Readable, spans: Sequence[Span]) -> list[Block]:
    """Return the blocks that hold some parts of a file, in the order of their places."""
    runs: list[list[int]] = []
    for start, stop in sorted(spans):
        if runs and start <= runs[-1][1] + HOLE_BYTES:
            runs[-1][1] = max(runs[-1][1], stop)
        else:
            runs.append([start, stop])
    blocks = []
    for start, stop in runs:
        n = max(1, -(-(stop - start) // BLOCK_BYTES))
        ends = [start + (stop - start) * i // n for i in range(n + 1)]
        blocks += [Block(file, a, b) for a, b in pairwise(ends)]
    return blocks


class Part:
    """A part of a file, sliced in order; the blocks before what was sliced last are let go."""

    def __init__(self, fetch: Fetch, span: Span, blocks: Sequence[Block]) -> None:
        self._fetch = fetch
        self.start, self.stop = span
        self._blocks = blocks
        self._passed = 0  # blocks
        for block in blocks:
            block.users += 1

    def __len__(self) -> int:
        return self.stop - self.start

    def __getitem__(self, part: slice) -> Bytes:
        first, last, _ = part.indices(len(self))
        return self._fetch.bytes(self.start + first, self.start + max(first, last), self)

    @property
    def kept_from(self) -> int:
        """Where what was not let go begins."""
        kept = self._blocks[self._passed :]
        return kept[0].start if kept else self.stop

    def pass_to(self, place: int) -> None:
        """Let go of what lies before a place."""
        while self._passed < len(self._blocks) and self._blocks[self._passed].stop <= place:
            self._fetch.leave(self._blocks[self._passed])
            self._passed += 1


class Fetch:
    """Parts of a remote file. One thread uses it.

    Parameters
    ----------
    file : Readable
    spans : sequence of (int, int)
        The parts; what else is asked for is read when it is.
    transfers : Transfers
    blocks : sequence of Block, optional
        How the parts are read, if not as `blocks_of` says.
    check : callable, optional
        Raises an error where what was read until now is not to be believed.
    """

    def __init__(
        self, file: Readable, spans: Sequence[Span], transfers: Transfers,
        blocks: Sequence[Block] | None = None, check: Callable[[], None] | None = None,
    ) -> None:  # fmt: skip
        self._file = file
        self._transfers = transfers
        self._blocks = blocks_of(file, spans) if blocks is None else list(blocks)
        self._starts = [block.start for block in self._blocks]
        self.parts = [Part(self, span, self._of(span)) for span in sorted(set(spans))]
        self._begins = [part.start for part in self.parts]
        self._again: dict[Part, Fetch] = {}
        self._check = check
        self._left = set(self._starts)  # of blocks that nobody has taken yet
        self._checked: Future[None] | None = None

    def _of(self, span: Span) -> list[Block]:
        first = max(0, bisect_right(self._starts, span[0]) - 1)
        last = bisect_right(self._starts, max(span[0], span[1] - 1))
        return self._blocks[first:last]

    def ahead(self) -> None:
        """Read all parts ahead."""
        turn: dict[int, float] = {}  # of a block: how much of a part comes before it
        for part in self.parts:
            for block in part._blocks:
                share = max(0, block.start - part.start) / max(1, len(part))
                turn[block.start] = min(share, turn.get(block.start, 1.0))
        order = sorted(self._blocks, key=lambda b: (turn.get(b.start, 1.0), b.start))
        self._transfers.ahead(order)

    def part(self, start: int, stop: int) -> Part | None:
        """Return one of the parts; None where it is none."""
        i = bisect_right(self._begins, start) - 1
        found = self.parts[i] if i >= 0 else None
        return found if found is not None and (found.start, found.stop) == (start, stop) else None

    def bytes(self, start: int, stop: int, part: Part | None = None) -> Bytes:
        """Return bytes: where they lie if one block has them, else copied together."""
        part = part or self._part_at(start)
        if part is not None:
            part.pass_to(start)
        pieces = list(self._pieces(start, stop))
        if len(pieces) == 1:
            return pieces[0]
        joined = np.frombuffer(pa.allocate_buffer(stop - start), np.uint8)
        at = 0
        for piece in pieces:
            joined[at : at + len(piece)] = piece
            at += len(piece)
        return joined

    def _part_at(self, place: int) -> Part | None:
        i = bisect_right(self._begins, place) - 1
        return self.parts[i] if i >= 0 and place < self.parts[i].stop else None

    def _pieces(self, start: int, stop: int) -> Iterator[Bytes]:
        while start < stop:
            i = bisect_right(self._starts, start) - 1
            block = self._blocks[i] if i >= 0 and start < self._blocks[i].stop else None
            if block is None:  # in no part
                end = self._starts[i + 1] if i + 1 < len(self._starts) else stop
                end = min(end, stop)
                yield self._read(start, end)
            elif block.done:  # a part is read again
                end = min(stop, block.stop)
                again = self._once_more(start)
                if again is not None:
                    yield again.bytes(start, end)
                else:
                    yield self._read(start, end)
            else:
                end = min(stop, block.stop)
                data = self._transfers.take(block)
                self._taken(block)
                yield np.frombuffer(data, np.uint8)[start - block.start : end - block.start]
            start = end

    def _read(self, start: int, stop: int) -> Bytes:
        self._checked = None
        return np.frombuffer(self._file.read(start, stop), np.uint8)

    def _taken(self, block: Block) -> None:
        """Begin to check after the last block, while it is used."""
        if self._left:
            self._left.discard(block.start)
            if not self._left and self._check is not None:
                self._checked = self._transfers.begin(self._check)

    def check(self) -> None:
        """Refuse what was read if it is not to be believed."""
        if self._checked is not None and not self._again:
            self._checked.result()
        elif self._check is not None:
            self._check()

    def _once_more(self, place: int) -> Fetch | None:
        part = self._part_at(place)
        if part is None:
            return None
        if part not in self._again:
            self._again[part] = Fetch(self._file, [(part.start, part.stop)], self._transfers)
            self._again[part].ahead()
        return self._again[part]

    def leave(self, block: Block) -> None:
        """Say that one of the users of a block has done with it."""
        block.users -= 1
        if not block.users:
            self._transfers.release([block])

    def close(self) -> None:
        """Let go of all."""
        self._transfers.release(self._blocks)
        for again in self._again.values():
            again.close()


class Seekable(io.RawIOBase):
    """A file of so many bytes that is read from any place on."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._at = 0

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def tell(self) -> int:
        """Return the place that is read next."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a place."""
        place = offset + (0, self._at, self._size)[whence]
        if place < 0:
            raise ValueError(f"there is no place {place} in a file")
        self._at = place
        return place


class Sparse(Seekable):
    """A file as Arrow reads it, of which some parts are fetched."""

    def __init__(self, fetch: Fetch, size: int) -> None:
        super().__init__(size)
        self._fetch = fetch

    def read(self, size: int | None = -1) -> memoryview:
        """Return the next bytes."""
        stop = self._size if size is None or size < 0 else min(self._size, self._at + size)
        data = self._fetch.bytes(self._at, max(self._at, stop))
        self._at += len(data)
        return data.data

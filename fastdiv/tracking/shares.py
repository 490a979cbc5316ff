"""SharedScan: epochs from one or several processes, to be merged."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from fastdiv.batch import Batch, Scores
from fastdiv.errors import UsageError
from fastdiv.invalid import InvalidRows, Tally
from fastdiv.scan import Scan
from fastdiv.scratch import Scratch
from fastdiv.split import SplitScan
from fastdiv.stored import flags_of


@dataclass(slots=True)
class Share:
    """Rows of an epoch that one process was given."""

    tally: Tally
    rank: int | None  # of the process, if it was told


class SharedScan:
    """A scan of one split and what each of its epochs is made of.

    A share has a token, which stands for its rows and for nothing else ever: it tells whether
    rows are there already, where no ids do.
    """

    def __init__(self, scan: Scan, split: str | None, scratch: Scratch) -> None:
        self.scan = scan
        self.split = split
        self.scratch = scratch  # in which the scan's directory is
        self.shares: dict[int, dict[str, Share]] = {}  # epoch -> token -> share

    @property
    def part(self) -> SplitScan:
        """What has been read."""
        return self.scan.split(self.split)

    def tokens(self, *epochs: int) -> set[str]:
        """Return what some epochs are made of, or all."""
        return {token for epoch in epochs or self.shares for token in self.shares.get(epoch, ())}

    def rows(self, epoch: int) -> int:
        """Return how many rows of an epoch came."""
        return sum(share.tally.rows for share in self.shares.get(epoch, {}).values())

    def tally(self, *epochs: int) -> Tally:
        """Sum up what some epochs are made of, or all."""
        total = Tally(InvalidRows(self.scan.layout))
        for epoch in epochs or sorted(self.shares):
            for share in self.shares[epoch].values():
                total.add(share.tally)
        return total

    def ranks(self, epoch: int) -> list[int | None]:
        """Return whose the rows of an epoch are, in the order in which they came."""
        return [share.rank for share in self.shares[epoch].values()]

    def commit(
        self, batch: Batch, scores: Scores, epoch: int, token: str, rank: int | None
    ) -> None:
        """Take a batch of an epoch, of rows that the token stands for: whole or not at all."""
        share = self.shares.get(epoch, {}).get(token)
        if share is None:
            share = Share(Tally(InvalidRows(self.scan.layout)), rank)
        self.scan.commit(batch, scores, flags_of(scores), share.tally)
        self.shares.setdefault(epoch, {})[token] = share

    def absorb(self, other: SharedScan, of: int, epoch: int, where: str) -> None:
        """Take over an epoch of another as `epoch`; `where` goes before the places it names."""
        part, theirs = self.part, other.shares[of]
        samples = self.rows(epoch) - part.duplicates[epoch]
        samples += self.scan.absorb(other.part, of, epoch, where)
        mine = self.shares.setdefault(epoch, {})
        for token, share in theirs.items():
            if token not in mine:
                mine[token] = Share(share.tally.copy(f"{where}, " if where else ""), share.rank)
        part.duplicates[epoch] = self.rows(epoch) - samples

    def forget(self, epoch: int, samples: int) -> None:
        """Forget an epoch, and the samples from one on, which came with it."""
        self.part.forget(epoch)
        self.part.ledger.cut(samples)
        self.shares.pop(epoch, None)

    def copy(self, directory: Path, scratch: Scratch) -> SharedScan:
        """Return the same in another directory, to go on by itself."""
        other = SharedScan(self.scan.copy(directory), self.split, scratch)
        for epoch, shares in self.shares.items():
            other.shares[epoch] = {t: Share(s.tally.copy(), s.rank) for t, s in shares.items()}
        return other

    def discard(self) -> None:
        """Remove the files."""
        self.scratch.remove(self.scan.directory)


def in_order(
    parts: list[tuple[str, SharedScan]], epoch: int, positional: bool
) -> list[tuple[str, SharedScan]]:
    """Return those that have rows of an epoch in the order in which these are to be taken.

    It matters without ids, where samples are what comes at the same place in each epoch.
    """
    if not positional or len(parts) < 2:
        return parts
    ranked = []
    for where, part in parts:
        ranks = part.ranks(epoch)
        known = [rank for rank in ranks if rank is not None]
        if len(known) < len(ranks):
            raise UsageError(
                f"{where or parts[1][0]}: without ids samples are matched by position, and nothing "
                "tells in which order those of several trackers come: give ids to update, or each "
                "tracker its number, as Tracker(rank=0)"
            )
        ranked.append((known, where, part))
    ranked.sort(key=lambda item: item[0][0])
    for (before, *_), (after, where, _) in pairwise(ranked):
        if before[-1] >= after[0]:
            raise UsageError(
                f"{where or parts[1][0]}: rows of rank {after[0]} and rank {before[-1]} have no "
                "order without ids: give each tracker a rank of its own, and merge the states of "
                "all ranks in one call"
            )
    return [(where, part) for _, where, part in ranked]

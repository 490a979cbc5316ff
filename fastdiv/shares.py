"""SharedScan: epochs from one or several processes, to be merged, packed and unpacked."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from fastdiv.batch import Batch, Scores
from fastdiv.errors import UsageError
from fastdiv.invalid import InvalidRows
from fastdiv.metrics import EpochRow, PairRow
from fastdiv.scan import Scan
from fastdiv.split import SplitScan
from fastdiv.states import EpochTotals, PairTotals
from fastdiv.store import FIELDS, Stored, flags_of
from fastdiv.tables import History
from fastdiv_kernels.contract import DYNAMICS


@dataclass(slots=True)
class Share:
    """What an epoch is made of.

    A token stands for rows that one process was given, and for nothing else ever: it tells
    whether rows are there already where no ids do.
    """

    invalid: InvalidRows
    tokens: set[str] = field(default_factory=set)
    rows: int = 0
    nbytes: int = 0


class SharedScan:
    """A scan of one split and what each of its epochs is made of."""

    def __init__(self, scan: Scan, split: str | None) -> None:
        self.scan = scan
        self.split = split
        self.shares: dict[int, Share] = {}

    @property
    def part(self) -> SplitScan:
        """What has been read."""
        return self.scan.split(self.split)

    @property
    def tokens(self) -> set[str]:
        """What all epochs are made of."""
        return set().union(*(share.tokens for share in self.shares.values()))

    def share(self, epoch: int) -> Share:
        """Return what an epoch is made of."""
        if epoch not in self.shares:
            self.shares[epoch] = Share(InvalidRows(self.scan.layout))
        return self.shares[epoch]

    def commit(self, batch: Batch, scores: Scores, epoch: int, token: str) -> None:
        """Take a batch of an epoch, of rows that the token stands for."""
        share, scan = self.share(epoch), self.scan
        share.tokens.add(token)
        scan.invalid = share.invalid
        rows, nbytes = scan.rows, scan.nbytes
        try:
            scan.commit(batch, scores, flags_of(scores))
        finally:
            share.rows += scan.rows - rows
            share.nbytes += scan.nbytes - nbytes

    def lacks(self, other: SharedScan, epoch: int) -> bool:
        """Whether an epoch of another has rows that are not here; an error where nothing tells."""
        mine = self.shares[epoch].tokens if epoch in self.shares else set()
        theirs = other.shares[epoch].tokens
        if theirs <= mine:
            return False
        if mine & theirs and other.part.ledger.positional:
            raise UsageError(
                "some of the rows of a merged state are here already, and only ids would tell "
                "which: give ids to update, or merge each state once"
            )
        return True

    def absorb(self, other: SharedScan, of: int, epoch: int, where: str) -> None:
        """Take over an epoch of another as `epoch`; `where` goes before the places it names."""
        self.scan.absorb(other.part, of, epoch, where)
        mine, theirs = self.share(epoch), other.shares[of]
        mine.invalid.merge(theirs.invalid, f"{where}, ")
        mine.tokens |= theirs.tokens
        mine.rows += theirs.rows
        mine.nbytes += theirs.nbytes

    def total(self) -> None:
        """Make the rows of the epochs, and sum up what they are made of."""
        self.scan.close(self.part)
        self.scan.invalid = InvalidRows(self.scan.layout)
        for _, share in sorted(self.shares.items()):
            self.scan.invalid.merge(share.invalid)
        self.scan.rows = sum(share.rows for share in self.shares.values())
        self.scan.nbytes = sum(share.nbytes for share in self.shares.values())
        self.scan.parts = len(self.shares)

    def copy(self, directory: Path) -> SharedScan:
        """Return the same in another directory, to go on by itself."""
        other = SharedScan(self.scan.copy(directory), self.split)
        for epoch, share in self.shares.items():
            mine = other.share(epoch)
            mine.invalid.merge(share.invalid)
            mine.tokens, mine.rows, mine.nbytes = set(share.tokens), share.rows, share.nbytes
        return other

    def discard(self) -> None:
        """Remove the files."""
        shutil.rmtree(self.scan.directory, ignore_errors=True)

    # -- as plain containers ---------------------------------------------------------------

    def pack(self) -> dict[str, Any]:
        """Return everything as dicts, lists, strings, ints and bytes."""
        part = self.part
        samples = part.samples
        slots = {"label": pa.array(samples.labels)}
        if not part.ledger.positional:
            slots["sample_id"] = samples.ids
        rolling = part.history.path is None and part.history.n > 0
        return {
            "samples": _to_bytes(slots),
            "positional": part.ledger.positional,
            "epochs": [self._pack_epoch(epoch) for epoch in sorted(part.store.files)],
            "shares": [
                {
                    "epoch": epoch,
                    "tokens": sorted(share.tokens),
                    "rows": share.rows,
                    "bytes": share.nbytes,
                    "invalid": share.invalid.pack(),
                }
                for epoch, share in sorted(self.shares.items())
            ],
            "rows": [{"epoch": e, "totals": row.totals.pack()} for e, row in part.rows.items()],
            "pairs": [
                {"from": p.before.epoch, "to": p.after.epoch, "totals": p.totals.pack()}
                for p in part.pairs
            ],
            "classes": [
                {
                    "epoch": epoch,
                    "table": _to_bytes(dict(zip(t.column_names, t.columns, strict=True))),
                }
                for epoch, t in part.classes.items()
            ],
            "duplicates": dict(part.duplicates),
            "history": part.history.records().tobytes() if rolling else None,
        }

    def _pack_epoch(self, epoch: int) -> dict[str, Any]:
        held = list(self.part.held(epoch))
        columns = {"slot": [x.slots.astype(np.int32) for x in held]}
        for name in ("labels", *FIELDS):
            columns[name] = [getattr(x.stored, name) for x in held]
        arrays = {name: pa.array(np.concatenate(parts)) for name, parts in columns.items()}
        highest = self.part.store.files[epoch].highest
        return {
            "epoch": epoch,
            "scores": _to_bytes(arrays),
            "highest": _to_bytes(
                {"slot": pa.array(highest, pa.int64()),
                 "loss": pa.array(list(highest.values()), pa.float64())}
            ),
        }  # fmt: skip

    def unpack(self, packed: Mapping[str, Any]) -> None:
        """Fill this one, which is empty, with what was packed."""
        part, layout = self.part, self.scan.layout
        samples = _from_bytes(packed["samples"])
        labels = samples["label"].to_numpy()
        ids = None
        if not packed["positional"]:
            ids = samples["sample_id"]
            ids = ids.to_numpy() if pa.types.is_integer(ids.type) else ids
        if len(labels):
            part.ledger.relabel(part.ledger.slots(ids, len(labels), 0), labels)
        for entry in packed["epochs"]:
            self._unpack_epoch(entry)
        for entry in packed["shares"]:
            self.shares[entry["epoch"]] = Share(
                InvalidRows.unpack(layout, entry["invalid"]),
                set(entry["tokens"]), entry["rows"], entry["bytes"],
            )  # fmt: skip
        of_epoch = EpochTotals.zero(part.store.loss_dtype)
        of_pair = PairTotals.zero(part.store.loss_dtype)
        for entry in packed["rows"]:
            totals, epoch = of_epoch.unpack(entry["totals"]), entry["epoch"]
            part.rows[epoch] = EpochRow(self.split, epoch, totals, layout.classes)
        for entry in packed["pairs"]:
            ends = part.rows[entry["from"]], part.rows[entry["to"]]
            part.pairs.append(PairRow(self.split, *ends, of_pair.unpack(entry["totals"])))
        for entry in packed["classes"]:
            part.classes[entry["epoch"]] = pa.table(_from_bytes(entry["table"]))
        part.duplicates.update(packed["duplicates"])
        if packed["history"] is not None:
            part.history = History.of(np.frombuffer(packed["history"], DYNAMICS))

    def _unpack_epoch(self, entry: Mapping[str, Any]) -> None:
        columns = {
            name: column.to_numpy().copy() for name, column in _from_bytes(entry["scores"]).items()
        }
        slots, part = columns.pop("slot").astype(np.int64), self.part
        stored = Stored(**columns)
        file, known = part.store.epoch(entry["epoch"]), part.ledger.labels[slots]
        differs = stored.labels != known
        if differs.any():
            file.relabel(slots[differs], stored.labels[differs])
        file.put(slots, stored, stored.flags, stored.labels, part.ledger.labels, True)
        part.ends[entry["epoch"]] = int(slots.max()) + 1
        highest = _from_bytes(entry["highest"])
        pairs = zip(highest["slot"].to_pylist(), highest["loss"].to_pylist(), strict=True)
        file.highest = dict(pairs)


def _to_bytes(columns: Any) -> bytes:
    """Return a table, or columns by name, as an Arrow IPC stream."""
    table, sink = pa.table(columns), pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


def _from_bytes(data: bytes) -> dict[str, Any]:
    """Return the columns of an Arrow IPC stream, each as one array."""
    table = pa.ipc.open_stream(data).read_all().combine_chunks()
    return {
        name: column.chunk(0) if column.num_chunks else pa.array([], column.type)
        for name, column in zip(table.column_names, table.columns, strict=True)
    }

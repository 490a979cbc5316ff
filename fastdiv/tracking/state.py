"""What a tracker holds as plain containers, and back: dicts, lists, strings, numbers, bytes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from fastdiv.errors import UsageError
from fastdiv.invalid import InvalidRows, Tally
from fastdiv.metrics import ClassMeans, EpochRow, PairRow
from fastdiv.states import CLASS_COUNTS, EpochTotals, PairTotals
from fastdiv.stored import FIELDS, Stored
from fastdiv.tables import History
from fastdiv.tracking.shares import Share, SharedScan
from fastdiv.tracking.tracked import Tracked
from fastdiv_kernels.contract import DYNAMICS

STATE_VERSION = 3
DAMAGED = (
    KeyError, IndexError, TypeError, ValueError, AttributeError, OverflowError, pa.ArrowException,
)  # fmt: skip


def pack(tracked: Tracked, with_ended: bool, seconds: float) -> dict[str, Any]:
    """Return everything as plain containers."""
    tracked.seal()  # rows still to come are not those of this state
    return {
        "fastdiv_tracker": STATE_VERSION,
        "facts": tracked.facts(),
        "updates": tracked.updates,
        "label_kinds": sorted(tracked.label_kinds),
        "merged": tracked.merged,
        "under_way": None if tracked.under_way is None else _pack(tracked.under_way),
        "ended": _pack(tracked.ended) if with_ended and tracked.ended is not None else None,
        "seconds": seconds,
    }


def unpack(tracked: Tracked, state: Any, where: str) -> float:
    """Fill one, which is empty, with what was packed; return the seconds."""
    try:
        if state["fastdiv_tracker"] > STATE_VERSION:
            raise UsageError(f"{where} is of a later version: update fastdiv")
        if state["fastdiv_tracker"] < STATE_VERSION:
            raise UsageError(f"{where} is of an earlier version, which kept less: begin anew")
        tracked.learn(state["facts"], where)
        tracked.updates, tracked.merged = int(state["updates"]), bool(state["merged"])
        tracked.label_kinds = set(state["label_kinds"])
        if state["ended"] is not None:
            tracked.ended = tracked.begin("ended")
            _unpack(tracked.ended, state["ended"])
        if state["under_way"] is not None:
            tracked.under_way = tracked.begin("under-way")
            _unpack(tracked.under_way, state["under_way"])
        return float(state["seconds"])
    except DAMAGED as error:
        raise UsageError(f"{where} is not of a fastdiv.Tracker: {error!r}") from error


def _pack(shared: SharedScan) -> dict[str, Any]:
    part = shared.part
    samples = part.samples
    slots = {"label": pa.array(samples.labels)}
    if not part.ledger.positional:
        slots["sample_id"] = samples.ids
    rolling = part.history.path is None and part.history.n > 0
    return {
        "samples": _to_bytes(slots),
        "positional": part.ledger.positional,
        "epochs": [_pack_epoch(shared, epoch) for epoch in sorted(part.store.files)],
        "shares": [
            {"epoch": epoch, "token": token, "rank": share.rank, "rows": share.tally.rows,
             "bytes": share.tally.nbytes, "invalid": share.tally.invalid.pack()}
            for epoch, shares in sorted(shared.shares.items())
            for token, share in shares.items()
        ],
        "rows": [{"epoch": e, "totals": row.totals.pack()} for e, row in part.rows.items()],
        "pairs": [
            {"from": p.before.epoch, "to": p.after.epoch, "totals": p.totals.pack()}
            for p in part.pairs
        ],
        "classes": [
            {"epoch": epoch, "table": _to_bytes(dict(zip(t.column_names, t.columns, strict=True)))}
            for epoch, t in part.classes.items()
        ],
        "duplicates": dict(part.duplicates),
        "history": part.history.records().tobytes() if rolling else None,
        "history_to": part.history.last,
    }  # fmt: skip


def _pack_epoch(shared: SharedScan, epoch: int) -> dict[str, Any]:
    held = list(shared.part.held(epoch))
    columns = {"slot": [x.slots.astype(np.int32) for x in held]}
    for name in ("labels", *FIELDS):
        columns[name] = [getattr(x.stored, name) for x in held]
    arrays = {name: pa.array(np.concatenate(parts)) for name, parts in columns.items()}
    if shared.part.store.width:
        profile = np.concatenate([x.stored.profile for x in held])
        arrays["profile"] = pa.FixedSizeBinaryArray.from_buffers(
            pa.binary(2 * profile.shape[1]), len(profile), [None, pa.py_buffer(profile)]
        )
    highest = shared.part.store.files[epoch].highest
    losses = {
        "slot": pa.array(highest, pa.int64()),
        "loss": pa.array(list(highest.values()), pa.float64()),
    }
    return {"epoch": epoch, "scores": _to_bytes(arrays), "highest": _to_bytes(losses)}


def _unpack(shared: SharedScan, packed: Mapping[str, Any]) -> None:
    part, layout = shared.part, shared.scan.layout
    samples = _from_bytes(packed["samples"])
    labels = samples["label"].to_numpy()
    ids = None
    if not packed["positional"]:
        ids = samples["sample_id"]
        ids = ids.to_numpy() if pa.types.is_integer(ids.type) else ids
    if len(labels):
        part.ledger.relabel(part.ledger.slots(ids, len(labels), 0), labels)
    for entry in packed["epochs"]:
        _unpack_epoch(shared, entry)
    for entry in packed["shares"]:
        invalid = InvalidRows.unpack(layout, entry["invalid"])
        share = Share(Tally(invalid, entry["rows"], entry["bytes"]), entry["rank"])
        shared.shares.setdefault(entry["epoch"], {})[entry["token"]] = share
    for entry in packed["classes"]:
        part.classes[entry["epoch"]] = pa.table(_from_bytes(entry["table"]))
    of_epoch = EpochTotals.zero(part.store.loss_dtype)
    of_pair = PairTotals.zero(part.store.loss_dtype)
    for entry in packed["rows"]:
        totals, epoch = of_epoch.unpack(entry["totals"]), entry["epoch"]
        counts = [part.classes[epoch][name].to_numpy() for name in CLASS_COUNTS[:3]]
        means = ClassMeans.of(np.stack(counts, axis=1))
        part.rows[epoch] = EpochRow(shared.split, epoch, totals, layout.classes, means=means)
    for entry in packed["pairs"]:
        ends = part.rows[entry["from"]], part.rows[entry["to"]]
        part.pairs.append(PairRow(shared.split, *ends, of_pair.unpack(entry["totals"])))
    part.duplicates.update(packed["duplicates"])
    if packed["history"] is not None:
        records = np.frombuffer(packed["history"], DYNAMICS)
        part.history = History.of(records, packed["history_to"])


def _unpack_epoch(shared: SharedScan, entry: Mapping[str, Any]) -> None:
    arrays, part = _from_bytes(entry["scores"]), shared.part
    words = arrays.pop("profile", None)
    columns = {name: column.to_numpy().copy() for name, column in arrays.items()}
    slots = columns.pop("slot").astype(np.int64)
    shape = len(slots), part.store.width
    profile = np.zeros(shape, np.float16)
    if part.store.width:
        data = np.frombuffer(words.buffers()[1], np.float16, offset=words.offset * 2 * shape[1])
        profile[:] = data[: shape[0] * shape[1]].reshape(shape)
    stored = Stored(**columns, profile=profile, classes=part.store.classes)
    file, known = part.store.epoch(entry["epoch"]), part.ledger.labels[slots]
    if slots.min() < 0 or slots.max() >= part.ledger.n:
        raise ValueError("a slot without a sample")
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

"""Random prediction dumps, and what an analysis of them must find.

`Truth` (truth.py) is a run in few numbers: its kind, dtype, classes, epochs and ids, and which rows
are odd and how. `Writing` (writing.py) is a way to write it: container, layout, types, order,
pieces. Every Writing that `can` hold a Truth holds the same rows. `Dump` (written.py) writes them,
and reads them back by plain readers; `expectation` makes the tables of what was read back with the
float64 oracle, or says which error is due.

    dump = Dump(truth, writing, folder)
    assert repr(dump.read()) == repr(dump.rows)  # of the writer itself
    run = fastdiv.analyze(dump.source(), **dump.options)
    assert_tables(run, expectation(dump).tables)

`truths` and `writings` draw them. To add a container, layout or type: its name in the tables of
writing.py, how it is made in encoded.py or written.py, and how a plain reader finds it there.
"""

import math
import zlib
from dataclasses import dataclass, field, replace

import numpy as np
from hypothesis import strategies as st
from oracle import Epoch, expect
from truth import DTYPES, IDS, NUMBERS, SAMPLES, SHAPES, WIDTH, Truth, checkpoint, reason_of
from writing import (
    ARROW,
    NAMING,
    TEXT,
    Writing,
    containers_for,
    epoch_places_for,
    epoch_types_for,
    extras_for,
    ids_for,
    labels_for,
    layouts_for,
    orders_for,
    read_dtype,
    split_places_for,
)

# What is due ----------------------------------------------------------------------------------


@dataclass
class Expected:
    """What an analysis of a dump must find."""

    tables: dict[str, list[dict]] = field(default_factory=dict)
    reasons: dict[str, int] = field(default_factory=dict)  # invalid rows
    rows: int = 0
    duplicates: int = 0
    error: str | None = None  # what the error that is due instead must say; "" for any
    perhaps: bool = False  # whether it may also be refused: most of a part is odd


def expectation(dump, clip=None, epochs=None, duplicates="error"):
    """Return what is due, from what plain readers find in a dump."""
    truth, w = dump.truth, dump.writing
    due, runs = Expected(), {}
    for rows in dump.read():
        reasons = [reason_of(row, truth) for row in rows]
        due.perhaps |= most_is_odd(reasons) or labels_are_odd(rows, w)
        chosen = [i for i, row in enumerate(rows) if epochs is None or row.epoch in epochs]
        rows, reasons = [rows[i] for i in chosen], [reasons[i] for i in chosen]
        due.rows += len(rows)
        for row, reason in zip(rows, reasons, strict=True):
            if reason is not None:
                due.reasons[reason] = due.reasons.get(reason, 0) + 1
            run = runs.setdefault((row.split, row.epoch), {})
            due.duplicates += row.id in run
            if repr(run.setdefault(row.id, row)) != repr(row) and duplicates == "error":
                due.error = due.error or "twice in epoch"
        if any(2 * reasons.count(r) > len(rows) for r in ("length", "contradicts_kind")):
            due.error = ""
    if not due.rows:
        due.error = ""
    due.perhaps |= not w.kind_asked and truth.kind == "logits"  # few may look like something else
    due.perhaps |= w.container in TEXT and not all(dump.rows)  # text of no rows has no types
    if due.error is None:
        dtype = read_dtype(truth, w.container)
        made = {k: as_epoch(list(run.values()), truth, dtype, clip) for k, run in runs.items()}
        due.tables = expect(made, truth.names if truth.named else None)
        for row in due.tables["epochs"]:
            row["epoch_name"] = checkpoint(row["epoch"]) if truth.checkpoints else None
            leave_out_what_rounding_decides(row, made[row["split"], row["epoch"]], dtype)
    return due


def most_is_odd(reasons):
    """Whether so many rows of a part are odd that its class count or kind may be mistaken."""
    whole = [r for r in reasons if r != "null"]
    numbers = [r for r in whole if r not in ("length", "nan", "positive_infinity")]
    lengths, kinds = whole.count("length"), numbers.count("contradicts_kind")
    return (
        0 < lengths >= len(whole) / 2
        or 0 < kinds >= len(numbers) / 2
        or (bool(reasons) and not numbers)
        or 2 * reasons.count("label") > len(reasons)
    )


def labels_are_odd(rows, writing):
    """Whether so many rows of a part are of no class that the type of labels may be mistaken."""
    labels = [row.label for row in rows]
    missing = labels.count(None)
    if "one-hot" in writing.label:
        return 0 < missing >= len(rows) / 2
    if writing.container in TEXT and 0 < missing == len(rows):
        return True
    counted_from_one = missing > 0 and 0 not in labels  # so they look where one of them is C
    return counted_from_one and writing.label not in NAMING


def leave_out_what_rounding_decides(row, epoch, dtype):
    """Drop what a confidence on the edge of a bin, or a sum on the edge of tolerance, decides."""
    scaled = 15 * epoch.confidence[epoch.valid]
    edge = np.round(scaled)
    if (np.isclose(scaled, edge, rtol=1e-5, atol=0) & (edge > 0) & (edge < 15)).any():
        del row["ece"]
    tolerance = 1e-2 if WIDTH[dtype] == 2 else 1e-3
    if (abs(abs(epoch.total[epoch.valid] - 1) - tolerance) < 1e-5).any():
        del row["n_unnormalized"]


def as_epoch(rows, truth, dtype, clip):
    """Return the rows of one epoch as the oracle takes them."""
    gone = [math.nan] * truth.classes
    values = [gone if reason_of(row, truth) in ("null", "length") else row.values for row in rows]
    x = np.array(values, np.float64).reshape(len(rows), truth.classes)
    x = x.astype("float32" if dtype == "bfloat16" else dtype)
    labels = np.array([-1 if row.label is None else row.label for row in rows], np.int64)
    ids = np.empty(len(rows), object)
    ids[:] = [row.id for row in rows]
    return Epoch(x, labels, truth.kind, ids, clip, sixteen_bits=WIDTH[dtype] == 2)


# What may be drawn ----------------------------------------------------------------------------

# fmt: off
CLASSES = (2, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12)
MANY_CLASSES = (64, 65, 70, 300)  # kernels change their shape after 64
EPOCHS = (  # of a run, in the order in which they are written
    (0,), (0, 1), (1, 0), (7,), (2, 10), (0, 1, 2), (0, 1, 2, 3), (3, 1, 2, 0), (2, 7, 10, 100),
    (300, 40_000), (0, 2**31 + 5), (-1, 0, 1), (5, -7),
)
SPLITS = ((None,), (None,), ("train", "val"), ("b", "a"), ("té st",))
COMPRESSIONS = ("none", "snappy", "gzip", "zstd", "lz4", "brotli")
PARQUET = {  # options of `pyarrow.parquet.write_table`; a page of 1 byte pyarrow cannot read again
    "version": ("2.6", "2.4", "1.0"),
    "data_page_version": ("1.0", "2.0"),
    "use_dictionary": (True, False),
    "data_page_size": (None, 8, 64),
    "write_batch_size": (None, 1, 10),
    "dictionary_pagesize_limit": (None, 16),
    "write_statistics": (True, False),
    "store_schema": (True, False),
    "use_compliant_nested_type": (True, False),
    "write_page_index": (False, True),
}
# fmt: on


def pick(draw, what, options):
    """Draw one of some options, the first being the simplest.

    Each `what` gets a label of its own: Hypothesis copies what was drawn from places with one
    label to each other, and would spend most of its examples on variations of a few.
    """
    first = zlib.crc32(what.encode())
    return options[draw(st.sampled_from(range(first, first + len(options)))) - first]


@st.composite
def truths(draw):
    """Draw a run."""
    many = pick(draw, "many classes", range(10)) == 9
    score_of = pick(draw, "score of", (*[None] * 8, 0, 1))
    classes = pick(draw, "classes", MANY_CLASSES if many else CLASSES)
    many, classes = (many, classes) if score_of is None else (False, 2)
    ids = pick(draw, "ids", IDS)
    checkpoints = pick(draw, "checkpoints", range(10)) == 9
    some = [*SAMPLES, *SAMPLES, *(["again"] * 3 if ids != "position" else [])]
    some += [*NUMBERS, *SHAPES] if score_of is None else ["null row"]
    number = pick(draw, "oddities", (0, 0, 0, 0, 0, 1, 2, 3, 5, 8))
    odd = [pick(draw, f"oddity {i}", some) for i in range(number)]
    if ids != "position" and pick(draw, "contradiction", range(20)) == 19:
        odd.append("contradicted")
    epochs = EPOCHS[:10] if checkpoints else EPOCHS
    return Truth(
        kind=pick(draw, "kind", ("logits", "probs", "logprobs")),
        dtype=pick(draw, "dtype", DTYPES),
        classes=classes,
        epochs=pick(draw, "epochs", epochs[:5] if many else epochs),
        splits=pick(draw, "splits", SPLITS),
        samples=pick(draw, "samples", range(9) if many else range(41)),
        seed=pick(draw, "seed", range(1 << 16)),
        scale=pick(draw, "scale", (1.0, 1.0, 1e-3, 20.0)),
        missing=pick(draw, "missing", (0.0, 0.1, 0.5)),
        ids=ids,
        named=pick(draw, "named", (False, True)),
        checkpoints=checkpoints,
        score_of=score_of,
        oddities=tuple(
            (what, pick(draw, f"row {i}", range(1000)), pick(draw, f"class {i}", range(300)))
            for i, what in enumerate(odd)
        ),
    )


@st.composite
def writings(draw, truth):
    """Draw a way to write a run down."""
    return draw_writing(draw, truth)


def draw_writing(draw, truth, dtype=None, which=""):
    """Draw a way to write a run down, so that its numbers are read as a dtype if one is given.

    Of several `which` tells them apart, see `pick`.
    """

    def choose(what, options):
        return pick(draw, which + what, options)

    container = choose("container", containers_for(truth, dtype))
    layout = choose("layout", layouts_for(truth, container))
    epoch_in = choose("epoch in", epoch_places_for(truth, container))
    plain = not truth.oddities and truth.scale == 1 and truth.score_of is None
    w = Writing(
        container=container,
        layout=layout,
        label=choose("label", labels_for(truth, container, layout)),
        id=choose("id", ids_for(truth, container)),
        epoch_in=epoch_in,
        split_in=choose("split in", split_places_for(truth, container, epoch_in)),
        epoch_type=choose("epoch type", epoch_types_for(truth, container)),
        order=choose("order", orders_for(truth)),
        seed=choose("order seed", range(1000)),
        asked=choose("asked", (False, True)),
        kind_asked=not plain or choose("kind asked", (True, False)),
        described=container in ARROW and choose("described", (False, False, True)),
        within=container in (*ARROW, "jsonl", "json") and choose("within", range(6)) == 5,
        pieces=choose("pieces", (1, 1, 2, 3)),
        cuts=choose("cuts", ((), (1,), (17,), (3, 8), (5, 10, 30))),
        around=choose("around", ((0, 0), (1, 0), (3, 2), (8, 1))),
        no_class=choose("no class", range(6)),
        form=choose("form", ("folder", "path", "glob", "list")),
        compression=choose("compression", COMPRESSIONS),
        row_group=choose("row group", (1024, 1, 2, 7, 33)),
    )
    if container == "parquet":
        options = {name: choose(name, values) for name, values in PARQUET.items()}
        options["store_schema"] |= w.described  # the metadata goes with it
        w = replace(w, parquet=tuple(options.items()))
    extras = extras_for(truth, w)
    some = {choose(f"extra {i}", extras) for i in range(choose("extras", range(4)))
            if extras}  # fmt: skip
    return replace(w, extras=tuple(sorted(some)))

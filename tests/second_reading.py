"""What a file holds according to readers that are not fastdiv's, and whether a run agrees.

A flipped bit in a value cannot be noticed where there is no checksum: the file then holds another
value, and what is right is what plain pyarrow, NumPy and json find there. `main` runs in a process
of its own (see damaged.py), for what is damaged may end it.
"""

import ast
import json
import re
import sys

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.ipc
import pyarrow.parquet as pq
from oracle import Epoch, assert_tables, expect

import fastdiv

INT32_MAX = 2**31 - 1
READER_REFUSES = "a plain reader refuses the file: "


def main():
    """Compare the run in argv[1] with the file argv[3], of the container argv[2]; say what differs.

    A file of labels may follow.
    """
    run = fastdiv.load(sys.argv[1])
    roles = {role: names_in(text) for role, text in run.summary["columns"].items()}
    wanted = [name for names in roles.values() for name in names]
    try:
        found = READERS[sys.argv[2]](*sys.argv[3:], wanted=wanted)
        columns = {name: found[name] for name in wanted}
    except (pa.ArrowException, OSError, ValueError, EOFError, KeyError, TypeError) as error:
        sys.exit(f"{READER_REFUSES}{error!r}")
    try:
        compare(run, columns, roles)
    except AssertionError as error:
        sys.exit(f"another result: {error}")


def names_in(evidence):
    """Return the columns that the evidence for a role names."""
    if found := re.match(r"column ('.*?'|\".*?\") \(", evidence, re.S):
        return [ast.literal_eval(found[1])]
    if found := re.match(r"columns (.*?), (?:numbered|named by class|as asked)", evidence, re.S):
        return found[1].split(", ")
    return []


# Readers: {name: a list of values} of the columns that are wanted -----------------------------


def read_parquet(path, wanted):
    file = pq.ParquetFile(path, pre_buffer=False, page_checksum_verification=True)
    return as_lists(file.read(list(dict.fromkeys(wanted)), use_threads=False))


def read_ipc_file(path, wanted):
    return as_lists(pa.ipc.open_file(pa.memory_map(path)).read_all().select(wanted))


def read_ipc_stream(path, wanted):
    return as_lists(pa.ipc.open_stream(pa.memory_map(path)).read_all().select(wanted))


def read_csv(path, wanted):
    nulls = ["", "NULL", "null", "NA", "N/A", "#N/A", "None", "none"]
    options = pyarrow.csv.ConvertOptions(null_values=nulls, strings_can_be_null=True)
    return as_lists(pyarrow.csv.read_csv(path, convert_options=options).select(wanted))


def read_json_lines(path, wanted):
    with open(path, encoding="utf-8") as file:
        rows = [json.loads(line) for line in file if line.strip()]
    return {name: [row.get(name) for row in rows] for name in wanted}


def read_npz(path, wanted):
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name].tolist() for name in wanted}


def read_npy(path, labels, wanted):
    found = {"predictions": path, "label": labels}
    return {name: np.load(found[name], allow_pickle=False).tolist() for name in wanted}


READERS = {
    "parquet": read_parquet, "arrow": read_ipc_file, "arrows": read_ipc_stream, "csv": read_csv,
    "jsonl": read_json_lines, "npz": read_npz, "npy": read_npy,
}  # fmt: skip


def as_lists(table):
    table.validate(full=True)
    return {name: table[name].to_pylist() for name in table.column_names}


# What the tables should be --------------------------------------------------------------------


def compare(run, columns, roles):
    """Compare the tables of a run with what the oracle makes of columns."""
    summary = run.summary
    labels = [as_label(value, summary["class_names"]) for value in columns[roles["label"][0]]]
    labels = np.array(labels, np.int64)
    x = as_predictions([columns[name] for name in roles["predictions"]], summary)
    epochs = columns[roles["epoch"][0]] if roles.get("epoch") else [0] * len(labels)
    ids = columns[roles["id"][0]] if roles.get("id") else None
    names = {row["epoch_name"]: row["epoch"] for row in run.epochs.to_pylist()}
    wanted = {}
    for epoch in dict.fromkeys(epochs):
        rows = [i for i, other in enumerate(epochs) if other == epoch]
        number = names[epoch] if isinstance(epoch, str) else int(epoch)
        of_epoch = None if ids is None else as_ids([ids[i] for i in rows])
        wanted[None, number] = Epoch(x[rows], labels[rows], summary["kind"], of_epoch)
    tables = expect(wanted, summary["class_names"])
    if None not in names:
        for row in tables["epochs"]:
            row["epoch_name"] = next(name for name, n in names.items() if n == row["epoch"])
    assert_tables(run, tables)


def as_ids(values):
    """Return ids as an array; NumPy's strings would lose the zeros at their end."""
    return np.array(values, object if isinstance(values[0], str) else None)


def as_label(value, names):
    if names is not None:
        return names.index(value) if value in names else -1
    return -1 if value is None or value != value or abs(value) > INT32_MAX else int(value)


def as_predictions(columns, summary):
    """Return (n, c); rows that are null, ragged or hold a null are NaN."""
    c = summary["classes"]
    rows = columns[0] if len(columns) == 1 else list(zip(*columns, strict=True))
    one_score = len(columns) == 1 and not any(isinstance(row, list) for row in rows)
    assert not one_score, "takes one score of two classes for the predictions"
    bad = [float("nan")] * c
    whole = [row if isinstance(row, list | tuple) and len(row) == c else bad for row in rows]
    whole = [bad if None in row else row for row in whole]
    with np.errstate(over="ignore"):
        return np.array(whole, np.float64).reshape(len(rows), c).astype(summary["dtype"])

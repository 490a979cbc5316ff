"""Which columns hold what: found from the schema and a sample of rows, never from more.

Whatever is found can be overridden by name, and the evidence is kept to be shown. Schemas and
samples are flat here: nested columns stand beside the others, named by their paths.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa

from fastdiv.errors import UsageError
from fastdiv.sources.fields import (
    is_binary,
    is_float,
    is_integer,
    is_list,
    is_number,
    is_string,
    is_uuid,
    plain_type,
)
from fastdiv.sources.found import Found
from fastdiv.sources.labels import label_texts
from fastdiv.sources.layout import DTYPES, Asked, Layout
from fastdiv.sources.metadata import Said, said_by
from fastdiv.sources.naming import (
    EPOCH_KEYS,
    INTEGER,
    SPLIT_KEYS,
    bare,
    missing,
    numbers_of,
)
from fastdiv.sources.predictions import (
    find_predictions,
    may_hold_predictions,
    names_of_wide,
)
from fastdiv_kernels.contract import Kind

LABEL_NAMES = (
    "label", "labels", "target", "targets", "y_true", "true_label", "ground_truth", "gt", "truth",
    "y", "true", "class", "class_label", "obs", "observed", "actual", "answer", "gold",
    "label_id", "label_ids", "label_idx", "true_labels", "gold_label",
)  # fmt: skip
ID_NAMES = (
    "sample_id", "id", "ids", "example_id", "uid", "uuid", "guid", "image_id", "item_id",
    "row_id", "doc_id", "index", "idx", "key", "filename", "file_name", "path", "image_path",
)  # fmt: skip
EPOCH_NAMES = tuple(sorted(EPOCH_KEYS - {"version"}, key=lambda name: (name != "epoch", name)))
SPLIT_NAMES = tuple(sorted(SPLIT_KEYS, key=lambda name: (name != "split", name)))
CLEARLY_IDS = ID_NAMES[:8]


def sampled_columns(schema: pa.Schema, asked: Asked, where: str) -> list[str]:
    """Return the columns of which `detect` needs a sample; fail at once where there is no label."""
    label, _ = _label_column(schema, asked, where)
    names = [f.name for f in schema if may_hold_predictions(f.type)]
    return [label, *(name for name in names if name != label and is_unique(schema, name))]


def detect(
    schema: pa.Schema, sample: pa.Table, asked: Asked, where: str, keys: Mapping[str, bool]
) -> Layout:
    """Find the layout of a table from its schema and some rows.

    `where` names the table in errors; `keys` says whether the "epoch" and the "split" are told
    otherwise, by a path or by the caller.
    """
    label, label_from = _label_column(schema, asked, where)
    taken = {label}
    split, split_from = _named(schema, asked.split, SPLIT_NAMES, taken, is_string, "split")
    epoch, epoch_from = _named(schema, asked.epoch, EPOCH_NAMES, taken, _epoch_like, "epoch")
    for role, name, column in (("epoch", asked.epoch, epoch), ("split", asked.split, split)):
        if name is not None and column is None and not keys.get(role):
            raise UsageError(missing(schema, name, role, where))
    id_, id_from = _id_column(schema, asked, taken, where)
    said = said_by(schema, label)
    if asked.class_names is None and not said.indexed:  # what the writer said is as good
        asked = replace(asked, class_names=said.class_names)
    words = asked.dtype or (said.dtype if said.dtype in DTYPES else None)
    found = find_predictions(schema, sample, asked, words, label, taken, where)
    label_type = schema.field(label).type
    class_names, found, label_more = _classes(found, sample, label, label_type, asked, said, where)
    evidence = {
        "predictions": found.evidence,
        "label": f"column {label!r} ({label_type}), {label_from}{label_more}",
        "id": id_from if id_ is None else f"column {id_!r} ({schema.field(id_).type}), {id_from}",
    }
    if epoch is not None:
        evidence["epoch"] = f"column {epoch!r} ({schema.field(epoch).type}), {epoch_from}"
    if split is not None:
        evidence["split"] = f"column {split!r}, {split_from}"
    id_type = None if id_ is None else schema.field(id_).type
    return Layout(
        predictions=found.names,
        classes=found.classes,
        dtype=found.dtype,
        kind=Kind.LOGITS,
        label=label,
        id=id_,
        epoch=epoch,
        split=split,
        class_names=class_names,
        epoch_asked=asked.epoch is not None,
        string_ids=id_type is not None and not is_integer(id_type),
        words=None if words is None else DTYPES[words],
        label_values=_values_of(
            None if said.indexed else class_names, sample, label, label_type, found, where
        ),
        positive=found.positive,
        against_rest=found.against_rest,
        evidence=evidence,
    )


def _classes(
    found: Found, sample: pa.Table, label: str, label_type: pa.DataType, asked: Asked, said: Said,
    where: str,
) -> tuple[tuple[str, ...] | None, Found, str]:  # fmt: skip
    """Settle the names of the classes, and with them the order of columns named by class."""
    strings = is_string(label_type)
    names, more = asked.class_names, ""
    if names is None and found.class_names is not None:
        names = found.class_names
    if names is None and strings:
        names = names_of_wide(found.names, sample, label)
    if names is None and said.class_names is not None and len(said.class_names) == found.classes:
        names, more = said.class_names, "; class names as the metadata says"
    if names is not None and asked.class_names is not None:
        found = found.in_order_of(names)
    if names is not None and len(names) != found.classes:
        raise UsageError(
            f"{where}: {len(names)} class names for {found.classes} classes: give one a class, in "
            "the order of the predictions"
        )
    if strings and names is None and found.against_rest is None:
        seen = ", ".join(sorted(label_texts(sample, label))[:5])
        raise UsageError(
            f"{where}: labels in column {label!r} are strings ({seen} …): say which class each "
            "stands for with --class-names a,b,c (in the order of the predictions)"
        )
    if is_list(plain_type(label_type)):
        _check_one_hot(sample, label, label_type, found.classes, where)
        more = "; one-hot or of length 1" + more
    return names, found, more


def _values_of(
    names: tuple[str, ...] | None, sample: pa.Table, label: str, type_: pa.DataType, found: Found,
    where: str,
) -> tuple[int, ...] | None:  # fmt: skip
    """Return the numbers that class names are, where labels are these and no indices."""
    plain = plain_type(type_)
    yes_or_no = pa.types.is_boolean(plain)
    if found.against_rest is not None or not (yes_or_no or is_number(type_) or is_list(plain)):
        return None
    seen = {int(text) for text in label_texts(sample, label) if INTEGER.fullmatch(text)}
    seen = {value for value in seen if value >= 0} or seen  # a missing label is often -1
    values = numbers_of(names, yes_or_no)
    every = range(found.classes)
    if values is not None:
        if seen - set(values) and seen <= set(every):
            raise UsageError(
                f"{where}: labels in column {label!r} go from {min(seen)} to {max(seen)}, and the "
                f"class names are the numbers {', '.join(map(str, values[:5]))}: labels must be "
                "these numbers, or indices of names that are no numbers"
            )
        return values
    if seen and min(seen) >= 1 and max(seen) == found.classes:
        counted = ",".join(str(i + 1) for i in every[:3])
        raise UsageError(
            f"{where}: labels in column {label!r} go from {min(seen)} to {max(seen)}, but "
            f"{found.classes} classes are counted from 0: say which each label is with "
            f"--class-names {counted}{',…' * (found.classes > 3)}, or subtract 1"
        )
    return None


def _check_one_hot(
    sample: pa.Table, label: str, type_: pa.DataType, classes: int, where: str
) -> None:
    """Refuse lists of labels most of which are not one label."""
    rows = [row for row in sample.column(label).to_pylist() if row is not None]
    single = [
        len(row) == 1 or (row.count(1) == 1 and row.count(0) == classes - 1 == len(row) - 1)
        for row in rows
    ]
    if rows and np.mean(single) < 0.5:
        raise UsageError(
            f"{where}: column {label!r} ({type_}) holds several labels a row, or shares of them: "
            "fastdiv needs one class a row, as an index, a name, or one-hot"
        )


def is_unique(schema: pa.Schema, name: str) -> bool:
    """Whether just one column has a name."""
    return bool(schema.get_field_index(name) >= 0)


def _named(
    schema: pa.Schema,
    asked: str | None,
    names: Sequence[str],
    taken: set[str],
    fits: Callable[[pa.DataType], bool],
    role: str,
) -> tuple[str | None, str]:
    """Return the column that was asked for, or the first whose name is one of the usual."""
    if asked is not None:
        if asked in schema.names:
            if not is_unique(schema, asked):
                raise UsageError(f"several columns are called {asked!r}: rename them")
            if not fits(schema.field(asked).type):
                raise UsageError(
                    f"column {asked!r} cannot be the {role}: it holds {schema.field(asked).type}"
                )
            taken.add(asked)
            return asked, "as asked"
        return None, ""
    for whole in (True, False):  # a nested column's own name comes after all others
        for usual in names:
            for name in schema.names:
                own = name if whole else name.rpartition(".")[2]
                alike = name not in taken and bare(own) == bare(usual) and is_unique(schema, name)
                if alike and fits(schema.field(name).type):
                    taken.add(name)
                    return name, "by its name"
    return None, ""


def _label_column(schema: pa.Schema, asked: Asked, where: str) -> tuple[str, str]:
    def fits(type_: pa.DataType) -> bool:
        plain = plain_type(type_)
        of_list = is_list(plain) and (
            is_number(plain.value_type) or pa.types.is_boolean(plain_type(plain.value_type))
        )
        return of_list or is_string(type_) or is_number(type_) or pa.types.is_boolean(plain)

    label, label_from = _named(schema, asked.label, LABEL_NAMES, set(), fits, "label")
    if label is None:
        raise UsageError(missing(schema, asked.label, "label", where))
    return label, label_from


def _id_column(
    schema: pa.Schema, asked: Asked, taken: set[str], where: str
) -> tuple[str | None, str]:
    if asked.id == "none" and "none" not in schema.names:
        return None, "position in natural path order, as asked"
    found, found_from = _named(schema, asked.id, ID_NAMES, taken, _id_like, "id")
    if found is not None:
        return found, found_from
    if asked.id is not None:
        raise UsageError(missing(schema, asked.id, "id", where))
    plain = {bare(name) for name in CLEARLY_IDS}
    unusable = [n for n in schema.names if bare(n) in plain and n not in taken]
    if unusable:
        said = ", ".join(f"{name} holds {schema.field(name).type}" for name in unusable)
        return None, f"position in natural path order (no column can be the id: {said})"
    return None, "position in natural path order (no column looks like an id)"


def _epoch_like(type_: pa.DataType) -> bool:
    return is_integer(type_) or is_float(type_) or is_string(type_)


def _id_like(type_: pa.DataType) -> bool:
    plain = plain_type(type_)
    whole = pa.types.is_decimal(plain) and plain.scale == 0
    whole = whole or pa.types.is_timestamp(plain) or pa.types.is_date(plain)  # names, to CSV
    return is_integer(type_) or is_string(type_) or is_binary(type_) or is_uuid(type_) or whole

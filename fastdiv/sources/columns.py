"""Which columns hold what: found from the schema and a sample of rows, never from more.

Whatever is found can be overridden by name, and the evidence is kept to be shown.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fastdiv.errors import DataError, UsageError
from fastdiv.sources.discover import EPOCH_KEYS, SPLIT_KEYS, natural
from fastdiv.sources.layout import NUMBERED, Asked, Layout, is_float_list, is_integer, is_string
from fastdiv_kernels.contract import Kind

LABEL_NAMES = (
    "label",
    "labels",
    "target",
    "targets",
    "y_true",
    "true_label",
    "ground_truth",
    "gt",
    "truth",
    "y",
    "true",
    "class",
    "class_label",
    "obs",
    "observed",
    "actual",
    "answer",
    "gold",
)
ID_NAMES = (
    "sample_id",
    "id",
    "example_id",
    "uid",
    "uuid",
    "guid",
    "image_id",
    "item_id",
    "row_id",
    "doc_id",
    "index",
    "idx",
    "key",
    "filename",
    "file_name",
    "path",
    "image_path",
)
PREDICTION_NAMES = (
    "logits",
    "probs",
    "probabilities",
    "log_probs",
    "logprobs",
    "predictions",
    "preds",
    "scores",
    "y_pred",
    "y_score",
    "y_prob",
    "softmax",
    "outputs",
    "output",
    "prob",
)
EPOCH_NAMES = tuple(sorted(EPOCH_KEYS, key=lambda name: (name != "epoch", name)))
SPLIT_NAMES = tuple(sorted(SPLIT_KEYS, key=lambda name: (name != "split", name)))


def sampled_columns(schema: pa.Schema, asked: Asked, where: str) -> list[str]:
    """Return the columns of which `detect` needs a sample; fail at once where there is no label."""
    label, _ = _label_column(schema, asked, where)
    floats = [f.name for f in schema if is_float_list(f.type) or pa.types.is_floating(f.type)]
    return [label, *(name for name in floats if name != label and _once(schema, name))]


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
    for role, name, found in (("epoch", asked.epoch, epoch), ("split", asked.split, split)):
        if name is not None and found is None and not keys.get(role):
            raise UsageError(_missing(schema, name, role, where))
    id_, id_from = None, "position in natural path order (no column looks like an id)"
    if asked.id == "none":
        id_from = "position in natural path order, as asked"
    if asked.id != "none" or "none" in schema.names:
        found, found_from = _named(schema, asked.id, ID_NAMES, taken, _id_like, "id")
        if asked.id is not None and found is None:
            raise UsageError(_missing(schema, asked.id, "id", where))
        if found is not None:
            id_, id_from = found, found_from
        elif unusable := _unusable_ids(schema, taken):
            id_from = f"position in natural path order (no column can be the id: {unusable})"
    names, predictions_from = _predictions(schema, sample, asked, label, taken, where)
    label_type = schema.field(label).type
    classes, dtype = _shape(schema, sample, names, where)
    class_names = asked.class_names or _names_of_wide(names, sample, label, label_type)
    if class_names is not None and len(class_names) != classes:
        raise UsageError(
            f"{where}: {len(class_names)} class names for {classes} classes: give one a class, in "
            "the order of the predictions"
        )
    if is_string(label_type) and class_names is None:
        raise UsageError(
            f"{where}: labels in column {label!r} are strings: say which class each stands for "
            "with --class-names a,b,c (in the order of the predictions)"
        )
    evidence = {
        "predictions": predictions_from,
        "label": f"column {label!r} ({label_type}), {label_from}",
        "id": id_from if id_ is None else f"column {id_!r} ({schema.field(id_).type}), {id_from}",
    }
    if epoch is not None:
        evidence["epoch"] = f"column {epoch!r} ({schema.field(epoch).type}), {epoch_from}"
    if split is not None:
        evidence["split"] = f"column {split!r}, {split_from}"
    return Layout(
        predictions=names,
        classes=classes,
        dtype=dtype,
        kind=Kind.LOGITS,
        label=label,
        id=id_,
        epoch=epoch,
        split=split,
        class_names=class_names,
        string_ids=id_ is not None and is_string(schema.field(id_).type),
        evidence=evidence,
    )


def _once(schema: pa.Schema, name: str) -> bool:
    """Whether just one column has a name."""
    return bool(schema.get_field_index(name) >= 0)


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _named(
    schema: pa.Schema,
    asked: str | None,
    names: Sequence[str],
    taken: set[str],
    fits: Any,
    role: str,
) -> tuple[str | None, str]:
    """Return the column that was asked for, or the first whose name is one of the usual."""
    if asked is not None:
        if asked in schema.names:
            if not _once(schema, asked):
                raise UsageError(f"several columns are called {asked!r}: rename them")
            if not fits(schema.field(asked).type):
                raise UsageError(
                    f"column {asked!r} cannot be the {role}: it holds {schema.field(asked).type}"
                )
            taken.add(asked)
            return asked, "as asked"
        return None, ""
    for usual in names:
        for name in schema.names:
            alike = name not in taken and _plain(name) == _plain(usual) and _once(schema, name)
            if alike and fits(schema.field(name).type):
                taken.add(name)
                return name, "by its name"
    return None, ""


def _label_column(schema: pa.Schema, asked: Asked, where: str) -> tuple[str, str]:
    def fits(type_: pa.DataType) -> bool:
        return is_integer(type_) or is_string(type_) or _whole_floats_may_be(type_)

    label, label_from = _named(schema, asked.label, LABEL_NAMES, set(), fits, "label")
    if label is None:
        raise UsageError(_missing(schema, asked.label, "label", where))
    return label, label_from


def _whole_floats_may_be(type_: pa.DataType) -> bool:
    return bool(pa.types.is_boolean(type_) or pa.types.is_floating(type_))


def _epoch_like(type_: pa.DataType) -> bool:
    return is_integer(type_) or bool(pa.types.is_floating(type_))


def _id_like(type_: pa.DataType) -> bool:
    return is_integer(type_) or is_string(type_)


def _missing(schema: pa.Schema, asked: str | None, role: str, where: str) -> str:
    """Say that a column is missing, which there are, and which of them may be meant."""
    have = ", ".join(f"{f.name} ({f.type})" for f in schema)
    if asked is None:
        return f"{where}: no column looks like the {role}; looked at {have}: name it with --{role}"
    near = difflib.get_close_matches(asked, schema.names, n=3, cutoff=0.5)
    meant = f"; did you mean {' or '.join(map(repr, near))}?" if near else ""
    return f"{where}: no column {asked!r} for --{role}{meant} There are: {have}"


def _predictions(
    schema: pa.Schema, sample: pa.Table, asked: Asked, label: str, taken: set[str], where: str
) -> tuple[tuple[str, ...], str]:
    """Find the list column, or the columns a class each, that hold the predictions."""
    once = [f for f in schema if f.name not in taken and _once(schema, f.name)]
    floats = [f.name for f in once if pa.types.is_floating(f.type)]
    if asked.predictions is not None:
        return _asked_predictions(schema, asked.predictions, where)
    lists = [f.name for f in once if is_float_list(f.type)]
    ranked = sorted(lists, key=_rank_of_prediction)
    if len(lists) == 1 or (lists and _rank_of_prediction(ranked[0]) < len(PREDICTION_NAMES)):
        return (ranked[0],), f"column {ranked[0]!r} ({schema.field(ranked[0]).type})"
    if lists:
        raise UsageError(
            f"{where}: several columns hold lists of floats ({', '.join(lists)}): "
            "name one with --predictions"
        )
    groups = _numbered(floats)
    by_class = _by_class(floats, sample, label, schema.field(label).type, where)
    if by_class:
        return tuple(by_class), f"columns {_shortened(by_class)}, named by class"
    ranked = sorted(groups, key=_rank_of_prediction)
    if len(groups) == 1 or (groups and _rank_of_prediction(ranked[0]) < len(PREDICTION_NAMES)):
        names = groups[ranked[0]]
        return tuple(names), f"columns {_shortened(names)}, numbered"
    if groups:
        raise UsageError(
            f"{where}: several groups of numbered columns ({', '.join(groups)}): "
            "name one with --predictions 'PREFIX*'"
        )
    hint = ""
    if len(floats) == 1:
        hint = f" (of two classes, column {floats[0]!r} is one: add 1 - p as another)"
    raise UsageError(_missing(schema, None, "predictions", where) + hint)


def _asked_predictions(schema: pa.Schema, asked: str, where: str) -> tuple[tuple[str, ...], str]:
    if asked in schema.names:
        type_ = schema.field(asked).type
        if not is_float_list(type_):
            raise UsageError(
                f"column {asked!r} cannot hold the predictions: it holds {type_}; "
                "needed is a list of floats, or a float column for each class"
            )
        return (asked,), f"column {asked!r} ({type_}), as asked"
    names = [name.strip() for name in asked.split(",")]
    if asked.endswith("*"):
        names = sorted((n for n in schema.names if n.startswith(asked[:-1])), key=natural)
        names = [n for n in names if pa.types.is_floating(schema.field(n).type)]
    for name in names:
        if name not in schema.names:
            raise UsageError(_missing(schema, name, "predictions", where))
        if not pa.types.is_floating(schema.field(name).type):
            raise UsageError(
                f"column {name!r} cannot hold predictions of a class: it holds "
                f"{schema.field(name).type}"
            )
    if len(names) < 2:
        raise UsageError(
            f"--predictions {asked!r} names {len(names)} column(s): needed is a list "
            "column, or a float column for each of at least 2 classes"
        )
    return tuple(names), f"columns {_shortened(names)}, as asked"


def _rank_of_prediction(name: str) -> int:
    plain = [_plain(usual) for usual in PREDICTION_NAMES]
    name = _plain(name)
    return plain.index(name) if name in plain else len(plain)


def _numbered(names: list[str]) -> dict[str, list[str]]:
    """Group columns PREFIX0 … PREFIXk (or from 1), in numeric order, by prefix."""
    groups: dict[str, dict[int, str]] = {}
    for name in names:
        if match := NUMBERED.fullmatch(name):
            groups.setdefault(match[1], {})[int(match[2])] = name
    complete = {}
    for prefix, members in groups.items():
        first = min(members)
        if len(members) > 1 and first in (0, 1) and max(members) == first + len(members) - 1:
            complete[prefix] = [members[i] for i in sorted(members)]
    return complete


def _by_class(
    floats: list[str], sample: pa.Table, label: str, label_type: pa.DataType, where: str
) -> list[str]:
    """Return the float columns that are named by class, if the labels are such names."""
    if not is_string(label_type) or len(floats) < 2:
        return []
    seen = _labels_seen(sample, label)
    for prefix in sorted({"", *(_prefix(name) for name in floats)}):
        members = [name for name in floats if name.startswith(prefix)]
        classes = [name for name in members if name[len(prefix) :] in seen]
        if not seen or len(classes) < len(seen) or len(members) < 2:
            continue
        if len(classes) == len(members) or _sums_to_one(sample, members):
            return members
        if len(classes) > 1 and _sums_to_one(sample, classes):
            return classes  # the others are something else
        raise UsageError(
            f"{where}: some float columns are named by class ({_shortened(classes)}), but which of "
            f"{_shortened(members)} are classes is not clear: name them with --predictions A,B,C"
        )
    return []


def _sums_to_one(sample: pa.Table, names: Sequence[str]) -> bool:
    """Whether some columns hold a distribution in most sampled rows."""
    total = sum(sample.column(name).to_numpy().astype(np.float64) for name in names)
    return bool(np.mean(np.abs(np.asarray(total) - 1) < 0.05) > 0.5)


def _unusable_ids(schema: pa.Schema, taken: set[str]) -> str:
    """Name the columns that are called like an id but hold what cannot be one."""
    plain = {_plain(name) for name in ID_NAMES[:7]}
    names = [n for n in schema.names if _plain(n) in plain and n not in taken]
    return ", ".join(f"{name} holds {schema.field(name).type}" for name in names)


def _names_of_wide(
    names: tuple[str, ...], sample: pa.Table, label: str, label_type: pa.DataType
) -> tuple[str, ...] | None:
    """Return the class names that wide columns give, if the labels are among them."""
    if len(names) < 2 or not is_string(label_type):
        return None
    seen = _labels_seen(sample, label)
    common = len(_prefix(names[0]))
    for start in (0, common):
        suffixes = tuple(name[start:] for name in names)
        if seen <= set(suffixes) and len({name[:start] for name in names}) == 1:
            return suffixes
    return None


def _prefix(name: str) -> str:
    """Return what stands before and with the first separator of a name."""
    match = re.match(r".*?[_.\-]", name)
    return match[0] if match else ""


def _labels_seen(sample: pa.Table, label: str) -> set[str]:
    return set(pc.unique(sample.column(label).cast(pa.large_string())).drop_null().to_pylist())


def _shape(
    schema: pa.Schema, sample: pa.Table, names: tuple[str, ...], where: str
) -> tuple[int, np.dtype[Any]]:
    """Return the number of classes and the dtype of the predictions."""
    if len(names) > 1:
        types = [schema.field(name).type for name in names]
        return len(names), np.result_type(*(t.to_pandas_dtype() for t in types))
    type_ = schema.field(names[0]).type
    dtype = np.dtype(type_.value_type.to_pandas_dtype())
    if pa.types.is_fixed_size_list(type_):
        classes = type_.list_size
    else:
        lengths = pc.value_counts(pc.list_value_length(sample.column(names[0])).drop_null())
        if not len(lengths):
            raise DataError(f"{where}: column {names[0]!r} holds no predictions in the first rows")
        classes = max(lengths.to_pylist(), key=lambda found: found["counts"])["values"]
    if classes < 2:
        raise DataError(
            f"{where}: predictions in {names[0]!r} have {classes} class(es): at least 2 are needed"
        )
    return classes, dtype


def _shortened(names: Sequence[str]) -> str:
    if len(names) <= 4:
        return ", ".join(names)
    return f"{names[0]}, {names[1]} … {names[-1]}"

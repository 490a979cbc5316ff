"""Layout: which columns hold what, and what the predictions are; found once, with the evidence.

Detection looks at the schema and at a sample of rows, never at more. Whatever it finds can be
overridden by name.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from fastdiv.errors import DataError, UsageError
from fastdiv.scoring import kind_of
from fastdiv.sources.discover import EPOCH_KEYS, SPLIT_KEYS, natural
from fastdiv_kernels.contract import (
    HIGHEST_PROB,
    LOWEST_PROB,
    SUM_TOLERANCE,
    SUM_TOLERANCE_16_BIT,
    Array,
    Kind,
)

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
NUMBERED = re.compile(r"(.*?)(\d+)")
MOST = 0.5  # share of sampled rows that decides
FEW = 0.05  # share of sampled rows that may be broken
SUM_OF_A_DISTRIBUTION = 0.05  # a row whose sum is no further from 1 may be probabilities


@dataclass(frozen=True, slots=True)
class Asked:
    """What the user said of the columns; None where nothing was said."""

    id: str | None = None
    label: str | None = None
    predictions: str | None = None
    epoch: str | None = None
    split: str | None = None
    kind: str = "auto"
    class_names: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class Layout:
    """Where in a table the ids, labels, predictions, epochs and splits are."""

    predictions: tuple[str, ...]  # one list column, or one float column a class
    classes: int
    dtype: np.dtype[Any]
    kind: Kind
    label: str | None  # None only for arrays in memory
    id: str | None = None
    epoch: str | None = None
    split: str | None = None
    class_names: tuple[str, ...] | None = None
    evidence: dict[str, str] = field(default_factory=dict)  # what was found -> by what

    @property
    def wide(self) -> bool:
        """Whether each class has a column of its own."""
        return len(self.predictions) > 1

    @property
    def columns(self) -> list[str]:
        """Names of the columns that must be read."""
        others = (self.id, self.label, self.epoch, self.split)
        return [*self.predictions, *(name for name in others if name is not None)]

    def with_evidence(self, **more: str) -> Layout:
        """Return the layout with more evidence."""
        return replace(self, evidence={**self.evidence, **more})


def parse_class_names(names: str | Iterable[str] | None) -> tuple[str, ...] | None:
    """Read class names from a list, a comma list, or a file with one a line."""
    if names is None:
        return None
    if isinstance(names, str):
        file = Path(names)
        names = file.read_text().splitlines() if file.is_file() else names.split(",")
    found = tuple(name.strip() for name in names)
    found = found[:-1] if found and not found[-1] else found  # a trailing comma or line
    if len(set(found)) < len(found):
        twice = next(name for name in found if found.count(name) > 1)
        raise UsageError(f"class name {twice!r} is given twice: give one a class, in order")
    return found


def is_float_list(type_: pa.DataType) -> bool:
    """Whether a column holds a list of floats a row."""
    lists = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    found: bool = any(is_(type_) for is_ in lists) and pa.types.is_floating(type_.value_type)
    return found


def is_string(type_: pa.DataType) -> bool:
    """Whether a column holds strings, dictionary-encoded or not."""
    if pa.types.is_dictionary(type_):
        type_ = type_.value_type
    return bool(pa.types.is_string(type_) or pa.types.is_large_string(type_))


def is_integer(type_: pa.DataType) -> bool:
    """Whether a column holds integers, dictionary-encoded or not."""
    if pa.types.is_dictionary(type_):
        type_ = type_.value_type
    return bool(pa.types.is_integer(type_))


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
        evidence=evidence,
    )


def settle_kind(layout: Layout, samples: Sequence[tuple[Array, str]], asked: str) -> Layout:
    """Find the kind of the predictions from samples (n, c) and the parts that they are of."""
    found = []
    readable = [(sample, where) for sample, where in samples if len(sample)]
    for sample, where in readable or samples:
        try:
            found.append((*_detect_kind(sample, layout.predictions[0], asked), where))
        except DataError as error:
            raise DataError(f"{where}: {error}") from None
    kinds = {kind for kind, _, _ in found}
    if len(kinds) > 1:
        said = " but ".join(
            f"{where} holds {kind.name.lower()} ({by})" for kind, by, where in found
        )
        raise DataError(f"predictions change their kind: {said}: give one --kind")
    kind, by, _ = found[0]
    return replace(layout, kind=kind).with_evidence(kind=f"{kind.name.lower()}: {by}")


def _detect_kind(sample: Array, name: str, asked: str) -> tuple[Kind, str]:
    """Tell what the numbers of a sample (n, c) are, and by what."""
    tolerance = SUM_TOLERANCE_16_BIT if sample.dtype.itemsize == 2 else SUM_TOLERANCE
    x = sample.astype(np.float64)
    x = x[~np.isnan(x).any(axis=1) & (x < np.inf).all(axis=1)]
    if asked != "auto":
        kind = kind_of(asked)
        against = contradicts(x, kind)
        if len(x) and against.mean() > MOST:
            raise DataError(
                f"predictions in {name!r} are said to be {asked}, but hold values from "
                f"{x[against].min():.4g} to {x[against].max():.4g}: give the right --kind"
            )
        return kind, "as asked"
    if not len(x):
        raise DataError(f"no sampled row of {name!r} has numbers only: give --kind")
    against = contradicts(x, Kind.PROBS)
    if against.mean() <= FEW:
        sums = x[~against].sum(axis=1)
        if (abs(sums - 1) <= SUM_OF_A_DISTRIBUTION).mean() > MOST:
            normal = int((abs(sums - 1) <= tolerance).sum())
            how = f"{normal} of {len(x)} sampled rows sum to 1 within {tolerance:g}"
            return Kind.PROBS, f"values lie in [0, 1]; {how}"
        if "prob" in name.lower() and "log" not in name.lower():
            return Kind.PROBS, "values lie in [0, 1]; by the name, for rows do not sum to 1"
        if "logit" in name.lower():
            return Kind.LOGITS, "by the name; values lie in [0, 1], but rows do not sum to 1"
        raise DataError(
            f"predictions in {name!r} lie in [0, 1] but their rows do not sum to 1 "
            f"(the first: {sums[0]:.4g}): give --kind probs or --kind logits"
        )
    against = contradicts(x, Kind.LOGPROBS)
    if against.mean() <= FEW:
        sums = np.exp(x[~against]).sum(axis=1)
        if (abs(sums - 1) <= SUM_OF_A_DISTRIBUTION).mean() > MOST:
            normal = int((abs(sums - 1) <= tolerance).sum())
            how = f"{normal} of {len(x)} sampled rows have exponentials that sum to 1"
            return Kind.LOGPROBS, f"no value above 0; {how} within {tolerance:g}"
    finite = x[np.isfinite(x)]
    return Kind.LOGITS, (
        f"{len(x)} sampled rows hold values from {finite.min():.4g} to {finite.max():.4g}"
    )


def contradicts(x: NDArray[np.float64], kind: Kind) -> NDArray[np.bool_]:
    """Say which rows (n, c), free of NaN, cannot be of a kind."""
    if kind == Kind.PROBS:
        return np.asarray((x.min(axis=1) < LOWEST_PROB) | (x.max(axis=1) > HIGHEST_PROB))
    if kind == Kind.LOGPROBS:
        return np.asarray(x.max(axis=1) > np.log(HIGHEST_PROB))
    return np.zeros(len(x), np.bool_)


def agree(layout: Layout, first: pa.Schema, schema: pa.Schema, first_at: str, at: str) -> Layout:
    """Check that a table has the columns of the first, of like type; widen the dtype if need be."""
    for name in layout.columns:
        if name not in schema.names:
            raise DataError(
                f"{at}: no column {name!r}, which {first_at} has: the parts of a data set must "
                f"agree; it has {', '.join(schema.names)}"
            )
        here, there = schema.field(name).type, first.field(name).type
        if _category(here) != _category(there):
            raise DataError(
                f"{at}: column {name!r} holds {here}, but {there} in {first_at}: "
                "write it as one type"
            )
        if name in layout.predictions:
            value = here.value_type if is_float_list(here) else here
            wider = np.promote_types(layout.dtype, value.to_pandas_dtype())
            layout = replace(layout, dtype=wider)
            if pa.types.is_fixed_size_list(here) and here.list_size != layout.classes:
                raise DataError(
                    f"{at}: {here.list_size} classes in column {name!r}, but "
                    f"{layout.classes} in {first_at}"
                )
    if layout.wide:
        more = set(schema.names) - set(first.names)
        numbered = [n for n in more if (m := NUMBERED.fullmatch(n)) and _same_group(m, layout)]
        if numbered:
            raise DataError(
                f"{at}: column {min(numbered)!r} is one class more than the {layout.classes} of "
                f"{first_at}: the class count must not change within a data set"
            )
    return layout


def _same_group(match: re.Match[str], layout: Layout) -> bool:
    """Whether a numbered column has the prefix of the numbered columns of a layout."""
    first = NUMBERED.fullmatch(layout.predictions[0])
    return first is not None and first[1] == match[1]


def _category(type_: pa.DataType) -> str:
    if is_float_list(type_):
        return "list of floats"
    if pa.types.is_dictionary(type_):
        type_ = type_.value_type
    if is_string(type_):
        return "string"
    if pa.types.is_integer(type_):
        return "unsigned 64" if type_ == pa.uint64() else "integer"
    return "float" if pa.types.is_floating(type_) else str(type_)


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
            if not fits(schema.field(asked).type):
                raise UsageError(
                    f"column {asked!r} cannot be the {role}: it holds {schema.field(asked).type}"
                )
            taken.add(asked)
            return asked, "as asked"
        return None, ""
    for usual in names:
        for name in schema.names:
            alike = name not in taken and _plain(name) == _plain(usual)
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
    floats = [f.name for f in schema if pa.types.is_floating(f.type) and f.name not in taken]
    if asked.predictions is not None:
        return _asked_predictions(schema, asked.predictions, where)
    lists = [f.name for f in schema if is_float_list(f.type) and f.name not in taken]
    ranked = sorted(lists, key=_rank_of_prediction)
    if len(lists) == 1 or (lists and _rank_of_prediction(ranked[0]) < len(PREDICTION_NAMES)):
        return (ranked[0],), f"column {ranked[0]!r} ({schema.field(ranked[0]).type})"
    if lists:
        raise UsageError(
            f"{where}: several columns hold lists of floats ({', '.join(lists)}): "
            "name one with --predictions"
        )
    groups = _numbered(floats)
    by_class = _by_class(floats, sample, label, schema.field(label).type)
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
    raise UsageError(_missing(schema, None, "predictions", where))


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
    floats: list[str], sample: pa.Table, label: str, label_type: pa.DataType
) -> list[str]:
    """Return the float columns that are named by class, if the labels are such names."""
    if not is_string(label_type) or len(floats) < 2:
        return []
    seen = _labels_seen(sample, label)
    for prefix in sorted({"", *(_prefix(name) for name in floats)}):
        members = [name for name in floats if name.startswith(prefix)]
        if seen and seen <= {name[len(prefix) :] for name in members} and len(members) > 1:
            return members
    return []


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

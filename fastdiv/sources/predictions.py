"""Which columns hold the predictions, in which shape: lists, a column a class, one score."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fastdiv.errors import DataError, UsageError
from fastdiv.sources.fields import (
    is_binary,
    is_float,
    is_float_list,
    is_number,
    is_string,
    is_word_list,
    plain_column,
    plain_type,
)
from fastdiv.sources.found import Found, prefix_of
from fastdiv.sources.labels import label_texts
from fastdiv.sources.layout import DTYPES, NUMBERED, Asked, dtype_of, numbered
from fastdiv.sources.naming import bare, missing, natural
from fastdiv.sources.one_score import one_score, usual_score
from fastdiv_kernels.contract import widest

PREDICTION_NAMES = (
    "logits", "probs", "probabilities", "log_probs", "logprobs", "predictions", "preds", "scores",
    "y_pred", "y_score", "y_prob", "softmax", "outputs", "output", "prob", "proba", "y_proba",
    "probability", "logit", "score", "log_likelihoods", "logp", "p",
)  # fmt: skip


def may_hold_predictions(type_: pa.DataType) -> bool:
    """Whether a column is worth a sample."""
    return is_float_list(type_) or is_word_list(type_) or is_binary(type_) or is_number(type_)


def find_predictions(
    schema: pa.Schema, sample: pa.Table, asked: Asked, words: str | None, label: str,
    taken: set[str], where: str,
) -> Found:  # fmt: skip
    """Find the predictions and their shape, from a flat schema and some rows."""
    if asked.predictions is not None:
        found = _as_asked(schema, asked.predictions, words, taken, where)
    else:
        found = _by_name_and_type(schema, sample, asked, words, label, taken, where)
    if len(found.names) == 1 and is_number(schema.field(found.names[0]).type):
        return one_score(found, schema, sample, asked, label, where)
    if asked.positive is not None:
        raise UsageError(
            f"{where}: --positive is for a single score a row, but predictions are in "
            f"{found.evidence}"
        )
    return _shaped(found, schema, sample, words, where)


def _by_name_and_type(
    schema: pa.Schema, sample: pa.Table, asked: Asked, words: str | None, label: str,
    taken: set[str], where: str,
) -> Found:  # fmt: skip
    """Choose among lists, groups of columns and single scores: a usual name counts before all."""
    fields = [f for f in schema if f.name not in taken and schema.get_field_index(f.name) >= 0]
    packed = [f for f in fields if is_word_list(f.type) or is_binary(f.type)]
    lists = [f.name for f in fields if is_float_list(f.type)]
    lists += [f.name for f in packed if words is not None and _is_usual(f.name)]
    numbers = [f.name for f in fields if is_number(f.type)]
    floats = [f.name for f in fields if is_float(f.type)]
    groups = {k: n for k, n in numbered(numbers).items() if set(n) & set(floats)}
    usual_lists = sorted(filter(_is_usual, lists), key=_rank)
    usual_groups = sorted(filter(_is_usual, groups), key=_rank)
    if usual_lists:
        name = usual_lists[0]
        return Found((name,), f"column {name!r} ({schema.field(name).type})")
    by_class = _by_class(numbers, floats, sample, label, schema.field(label).type, asked, where)
    if by_class:
        return Found(tuple(by_class), f"columns {_shortened(by_class)}, named by class")
    if usual_groups:
        names = groups[usual_groups[0]]
        _check_members(schema, names, where)
        return Found(tuple(names), f"columns {_shortened(names)}, numbered")
    if score := usual_score(floats, sample, asked):
        return Found((score,), f"column {score!r} ({schema.field(score).type})")
    if len(lists) == 1 and not groups:
        return Found((lists[0],), f"column {lists[0]!r} ({schema.field(lists[0]).type})")
    if lists:
        raise UsageError(
            f"{where}: several columns may hold the predictions ({', '.join([*lists, *groups])}): "
            "name one with --predictions"
        )
    if len(groups) == 1:
        (names,) = groups.values()
        _check_members(schema, names, where)
        return Found(tuple(names), f"columns {_shortened(names)}, numbered")
    if groups:
        raise UsageError(
            f"{where}: several groups of numbered columns ({', '.join(groups)}): "
            "name one with --predictions 'PREFIX*'"
        )
    raise UsageError(_nothing(schema, packed, floats, where))


def _check_members(schema: pa.Schema, names: list[str], where: str) -> None:
    """Refuse a group of which another column would be a member, if it held numbers."""
    prefix = names[0].rstrip("0123456789")
    for name in schema.names:
        match = NUMBERED.fullmatch(name)
        if match and match[1] == prefix and not is_number(schema.field(name).type):
            raise UsageError(
                f"{where}: column {name!r} holds {schema.field(name).type}, where {names[0]!r} "
                "holds numbers: mend what is no number in it, or name the predictions with "
                "--predictions A,B,C"
            )


def _nothing(schema: pa.Schema, packed: Sequence[pa.Field], floats: list[str], where: str) -> str:
    """Say that no column looks like predictions, and what may be meant."""
    have = ", ".join(f"{f.name} ({f.type})" for f in schema)
    hint = ""
    if packed:
        hint = f" (if {packed[0].name!r} holds numbers as bytes, say which with --dtype)"
    elif floats:
        hint = f" (if {floats[0]!r} is the score of one of two classes, give --positive LABEL)"
    return (
        f"{where}: no column looks like the predictions; looked at {have}: name it with "
        f"--predictions{hint}"
    )


def _as_asked(
    schema: pa.Schema, asked: str, words: str | None, taken: set[str], where: str
) -> Found:
    if schema.names.count(asked) == 1 and asked not in taken:
        type_ = schema.field(asked).type
        if is_float_list(type_) or is_number(type_):
            return Found((asked,), f"column {asked!r} ({type_}), as asked")
        if is_word_list(type_) or is_binary(type_):
            if words is None:
                raise UsageError(
                    f"{where}: column {asked!r} holds {type_}: say what its bytes are with "
                    f"--dtype {'|'.join(DTYPES)}"
                )
            return Found((asked,), f"column {asked!r} ({type_}), as asked")
        raise UsageError(
            f"column {asked!r} cannot hold the predictions: it holds {type_}; "
            "needed is a list of floats, or a float column for each class"
        )
    names = [name.strip() for name in asked.split(",")]
    if asked.endswith("*"):
        names = _with_prefix(schema, asked[:-1], where)
    if len(set(names)) < len(names):
        raise UsageError(f"--predictions {asked!r} names a column twice")
    for name in names:
        if name not in schema.names:
            raise UsageError(missing(schema, name, "predictions", where))
        if schema.get_field_index(name) < 0:
            raise UsageError(f"{where}: several columns are called {name!r}: rename them")
        if name in taken:
            raise UsageError(f"{where}: column {name!r} cannot hold predictions too")
        if not is_number(schema.field(name).type):
            raise UsageError(
                f"column {name!r} cannot hold predictions of a class: it holds "
                f"{schema.field(name).type}"
            )
    if len(names) < 2:
        raise UsageError(
            f"--predictions {asked!r} names {len(names)} column(s): needed is a list "
            "column, or a float column for each of at least 2 classes"
        )
    return Found(tuple(names), f"columns {_shortened(names)}, as asked")


def _with_prefix(schema: pa.Schema, prefix: str, where: str) -> list[str]:
    """Return the columns of numbers with a prefix: by number where they have one."""
    names = [n for n in schema.names if n.startswith(prefix) and is_number(schema.field(n).type)]
    with_number = [n for n in names if NUMBERED.fullmatch(n)]
    groups = [g for g in numbered(names).values() if g[0].startswith(prefix)]
    if with_number and (len(groups) != 1 or len(groups[0]) != len(names)):
        raise UsageError(
            f"{where}: columns {_shortened(sorted(names, key=natural))} are not numbered from 0 or "
            "1 without a gap: name them one by one, in the order of the classes, with "
            "--predictions A,B,C"
        )
    return groups[0] if with_number else names


def _shaped(
    found: Found, schema: pa.Schema, sample: pa.Table, words: str | None, where: str
) -> Found:
    """Find the number of classes and the dtype."""
    types = [schema.field(name).type for name in found.names]
    raw = None if words is None else DTYPES[words]
    if len(types) > 1:
        dtype = dtype_of(types[0], None)
        for type_ in types[1:]:
            dtype = widest(dtype, dtype_of(type_, None))
        return replace(found, classes=len(types), dtype=dtype)
    (name,), (type_,) = found.names, map(plain_type, types)
    if is_word_list(type_) and raw is not None and raw.itemsize != 2:
        raise UsageError(f"{where}: column {name!r} holds {type_}, which cannot be {words}")
    dtype = dtype_of(type_, raw)
    if is_binary(type_):
        width = _usual(
            pc.binary_length(plain_column(sample, name).cast(pa.large_binary())), name, where
        )
        if width % dtype.itemsize:
            raise DataError(
                f"{where}: column {name!r} holds {width} bytes a row, which is no whole number of "
                f"{words}: give the right --dtype"
            )
        classes = width // dtype.itemsize
    elif pa.types.is_fixed_size_list(type_):
        classes = type_.list_size
    else:
        classes = _usual(pc.list_value_length(plain_column(sample, name)), name, where)
    if classes < 2:
        raise DataError(
            f"{where}: predictions in {name!r} have {classes} class(es): at least 2 are needed"
        )
    _check_tensor(types[0], name, classes, where)
    return replace(found, classes=classes, dtype=dtype)


def _check_tensor(type_: pa.DataType, name: str, classes: int, where: str) -> None:
    if isinstance(type_, pa.FixedShapeTensorType) and max(type_.shape) != classes:
        raise UsageError(
            f"{where}: column {name!r} holds tensors of shape {tuple(type_.shape)}: needed is one "
            "number a class"
        )


def _usual(lengths: pa.Array, name: str, where: str) -> int:
    """Return the most frequent length of the sampled rows."""
    counts = pc.value_counts(lengths.drop_null())
    if not len(counts):
        raise DataError(f"{where}: column {name!r} holds no predictions in the first rows")
    return int(max(counts.to_pylist(), key=lambda found: found["counts"])["values"])


def _rank(name: str) -> int:
    """Return how usual a name is, of a column or the prefix of a group; nested ones by their own.

    Outside of PREDICTION_NAMES it is their number.
    """
    usual = [bare(n) for n in PREDICTION_NAMES]
    for text in (name, name.rpartition(".")[2]):
        if bare(text) in usual:
            return usual.index(bare(text))
    return len(usual)


def _is_usual(name: str) -> bool:
    return _rank(name) < len(PREDICTION_NAMES)


def _by_class(
    numbers: list[str], floats: list[str], sample: pa.Table, label: str, label_type: pa.DataType,
    asked: Asked, where: str,
) -> list[str]:  # fmt: skip
    """Return the columns that are named by class, if the labels or the user name classes."""
    if not is_string(label_type) and asked.class_names is None:
        return []
    seen = set(asked.class_names or ()) or label_texts(sample, label)
    for prefix in sorted({"", *(prefix_of(name) for name in floats)}):
        classes = [n for n in numbers if n.startswith(prefix) and n[len(prefix) :] in seen]
        members = [n for n in floats if n.startswith(prefix) or n in classes]
        if not seen or len(classes) < len(seen) or not set(classes) & set(floats):
            continue
        if asked.class_names is not None:
            return classes
        if len(classes) > 1 and (len(classes) == len(members) or _sums_to_one(sample, classes)):
            return classes  # the others are something else
        if len(members) > 1 and _sums_to_one(sample, members):
            return [n for n in numbers if n in members]
        raise UsageError(
            f"{where}: some float columns are named by class ({_shortened(classes)}), but which of "
            f"{_shortened(members)} are classes is not clear: name them with --predictions A,B,C"
        )
    return []


def names_of_wide(names: tuple[str, ...], sample: pa.Table, label: str) -> tuple[str, ...] | None:
    """Return the class names that wide columns give, if the labels are among them."""
    if len(names) < 2:
        return None
    seen = label_texts(sample, label)
    common = len(prefix_of(names[0]))
    for start in (0, common):
        suffixes = tuple(name[start:] for name in names)
        if seen <= set(suffixes) and len({name[:start] for name in names}) == 1:
            return suffixes
    return None


def _sums_to_one(sample: pa.Table, names: Sequence[str]) -> bool:
    """Whether some columns hold a distribution in most sampled rows."""
    columns = [plain_column(sample, name).cast(pa.float64()) for name in names]
    total = sum(np.asarray(column.to_numpy(zero_copy_only=False)) for column in columns)
    return bool(np.mean(np.abs(np.asarray(total) - 1) < 1e-2) > 0.5)


def _shortened(names: Sequence[str]) -> str:
    if len(names) <= 4:
        return ", ".join(names)
    return f"{names[0]}, {names[1]} … {names[-1]}"

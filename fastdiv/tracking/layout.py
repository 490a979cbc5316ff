"""TrackedLayout: what the updates of a tracker have in common, told by the first one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from fastdiv.errors import UsageError
from fastdiv.scoring import kind_of
from fastdiv.sources import Layout
from fastdiv.sources.arrays import IDS, LABELS, PREDICTIONS
from fastdiv.sources.fields import is_binary, is_list, is_number, is_string, plain, plain_type
from fastdiv.sources.layout import DTYPES, dtype_of
from fastdiv.sources.naming import numbers_of
from fastdiv.told import kind_of_ids
from fastdiv_kernels.contract import BFLOAT16, dtype_name

KINDS_OF_IDS = ("none", "integers", "unsigned 64-bit integers", "strings", "bytes")


@dataclass(frozen=True, slots=True)
class TrackedLayout:
    """Class count, dtype of predictions, kind of ids."""

    classes: int
    dtype: str
    ids: str

    @classmethod
    def of(
        cls, schema: pa.Schema, rows: pa.RecordBatch, classes: int | None, where: str
    ) -> TrackedLayout:
        """Return what an update has; `classes` are those expected, if any are."""
        type_ = plain_type(schema.field(PREDICTIONS).type)
        if pa.types.is_fixed_size_list(type_):
            found = int(type_.list_size)
        else:
            found = _usual_length(rows, where) if classes is None else classes
        if found < 2:
            raise UsageError(f"{where}: predictions of {found} class(es): at least 2 are needed")
        if classes not in (None, found):
            raise UsageError(f"{where}: {found} classes, but {classes} are expected")
        ids = schema.field(IDS).type if IDS in schema.names else None
        return cls(found, dtype_name(dtype_of(type_, BFLOAT16)), kind_of_ids(ids, where))

    @classmethod
    def known(cls, facts: Mapping[str, Any]) -> TrackedLayout:
        """Make it again of its facts."""
        classes, dtype, ids = (facts[name] for name in ("classes", "dtype", "ids"))
        if not isinstance(classes, int) or dtype not in DTYPES or ids not in KINDS_OF_IDS:
            raise ValueError(f"{classes!r} classes, {dtype!r}, {ids!r}")
        return cls(classes, dtype, ids)

    def facts(self) -> dict[str, Any]:
        """Return it as a dict."""
        return asdict(self)

    def check(self, other: TrackedLayout, where: str) -> None:
        """Check that an update is like those before it."""
        if other.dtype != self.dtype:
            raise UsageError(f"{where}: predictions are {other.dtype}, but {self.dtype} before it")
        if other.ids != self.ids:
            raise UsageError(f"{where}: its ids are {other.ids}, but {self.ids} before it")

    def layout(self, kind: str, class_names: tuple[str, ...] | None) -> Layout:
        """Return where in the columns of an update what is; by what was told, never by its rows."""
        position = self.ids == "none"
        return Layout(
            predictions=(PREDICTIONS,),
            classes=self.classes,
            dtype=DTYPES[self.dtype],
            kind=kind_of(kind),
            label=LABELS,
            id=None if position else IDS,
            class_names=class_names,
            string_ids=self.ids in ("strings", "bytes"),
            words=BFLOAT16 if self.dtype == "bfloat16" else None,
            label_values=numbers_of(class_names),
            evidence={
                "predictions": f"updates of {self.dtype}",
                "label": "updates",
                "id": "position (no ids were given)" if position else f"updates ({self.ids})",
                "epoch": "end_epoch",
                "kind": f"{kind}: as told",
            },
        )


def kind_of_labels(type_: pa.DataType, class_names: tuple[str, ...] | None, where: str) -> str:
    """Return whether labels are "numbers", "names" or "lists"."""
    plain_ = plain_type(type_)
    if is_string(type_) or is_binary(type_):
        if class_names is None:
            raise UsageError(
                f"{where}: labels are strings: say which class each stands for, with class_names "
                "in the order of the predictions"
            )
        return "names"
    if is_list(plain_):
        return "lists"
    if is_number(type_) or pa.types.is_boolean(plain_) or pa.types.is_null(plain_):
        return "numbers"
    raise UsageError(f"{where}: labels must be integers, names or one-hot rows, not {type_}")


def _usual_length(rows: pa.RecordBatch, where: str) -> int:
    """Return how many numbers most rows have."""
    lengths = plain(rows.column(PREDICTIONS)).value_lengths().drop_null()
    if not len(lengths):
        raise UsageError(
            f"{where}: no row has predictions, so the number of classes is not known: say it, "
            "with classes"
        )
    values, counts = np.unique(lengths.to_numpy(), return_counts=True)
    return int(values[counts.argmax()])

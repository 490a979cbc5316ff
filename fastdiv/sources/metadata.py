"""What a dump's own schema says of its predictions: kind, classes, names, dtype.

`PredictionWriter` writes it, as JSON under the key `fastdiv`; Hugging Face's `datasets` keeps
class names in its own metadata.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

KEY = b"fastdiv"
HUGGING_FACE = b"huggingface"
KINDS = ("logits", "probs", "logprobs")


@dataclass(frozen=True, slots=True)
class Said:
    """What the metadata of a schema says; None where it says nothing."""

    kind: str | None = None
    dtype: str | None = None
    class_names: tuple[str, ...] | None = None
    indexed: bool = False  # labels are indices, whatever the names


def with_metadata(schema: pa.Schema, **said: Any) -> pa.Schema:
    """Return a schema whose metadata says something of the predictions."""
    if not said:
        return schema
    known = _json(schema, KEY)
    return schema.with_metadata(
        {**(schema.metadata or {}), KEY: json.dumps({**known, **said}).encode()}
    )


def said_by(schema: pa.Schema, label: str | None = None) -> Said:
    """Read what a schema says; what is not as expected says nothing."""
    own = _json(schema, KEY)
    names, indexed = _names(own.get("class_names")), False
    if names is None and label is not None:
        features: Any = _json(schema, HUGGING_FACE)
        for key in ("info", "features", label):
            features = features.get(key) if isinstance(features, dict) else None
        names = _names(features.get("names")) if isinstance(features, dict) else None
        indexed = names is not None
    kind, dtype = own.get("kind"), own.get("dtype")
    return Said(
        kind=kind if kind in KINDS else None,
        dtype=dtype if isinstance(dtype, str) else None,
        class_names=names,
        indexed=indexed,
    )


def _json(schema: pa.Schema, key: bytes) -> dict[str, Any]:
    try:
        found = json.loads((schema.metadata or {}).get(key, b"{}"))
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _names(found: Any) -> tuple[str, ...] | None:
    if isinstance(found, list) and found and all(isinstance(name, str) for name in found):
        return tuple(found)
    return None

"""One score a row, of one of two classes: which column it is, and of which class."""

from __future__ import annotations

from dataclasses import replace

import pyarrow as pa
import pyarrow.compute as pc

from fastdiv.errors import UsageError
from fastdiv.sources.fields import is_string, plain_column
from fastdiv.sources.found import Found
from fastdiv.sources.labels import label_texts
from fastdiv.sources.layout import Asked, dtype_of
from fastdiv.sources.naming import bare

SCORE_NAMES = (  # of one class; hard predictions are often called like the last ones
    "prob", "proba", "probability", "yprob", "yproba", "probs", "p", "logit", "logits", "score",
    "scores", "yscore", "logp", "logprob", "ypred", "preds", "predictions", "output", "outputs",
)  # fmt: skip
AS_NUMBER = {"true": "1", "false": "0"}
ZERO_OR_ONE = {"0", "1"}


def usual_score(floats: list[str], sample: pa.Table, asked: Asked) -> str | None:
    """Return the column that is a single score by its name, if any."""
    names = [name for name in floats if bare(name) in SCORE_NAMES and name.isprintable()]
    graded = [name for name in names if not _is_decided(sample, name)]
    if not names and asked.positive is not None and len(floats) == 1:
        return floats[0]
    return min(graded or names, key=lambda n: SCORE_NAMES.index(bare(n)), default=None)


def _is_decided(sample: pa.Table, name: str) -> bool:
    """Whether a column holds predicted classes, and no scores: zeros and ones only."""
    values = pc.unique(plain_column(sample, name).cast(pa.float64(), safe=False)).drop_null()
    return set(values.to_pylist()) <= {0.0, 1.0}


def one_score(
    found: Found, schema: pa.Schema, sample: pa.Table, asked: Asked, label: str, where: str
) -> Found:
    """Settle which of two classes a single score is of."""
    name, seen, positive = found.names[0], label_texts(sample, label), asked.positive
    by_name = is_string(schema.field(label).type)
    if not by_name:
        seen = {AS_NUMBER.get(text, text) for text in seen}
        positive = positive and AS_NUMBER.get(positive.lower(), positive)
    if positive is None:
        positive = "1"
        _check_not_of_the_predicted(sample, name, seen, where)
        how = "for labels are 0 and 1"
    else:
        how = "as asked" + ("" if positive in seen else ", though no label of the first rows")
    names, class_, rest = asked.class_names, 1, None
    if names is not None and positive in names:
        class_ = names.index(positive)
    elif by_name and names is not None:
        raise UsageError(f"--positive {positive!r} is none of the class names {names}")
    elif by_name and len(seen - {positive}) == 1:
        names = (*(seen - {positive}), positive)
    elif by_name:
        rest, names = positive, (f"not {positive}", positive)
    elif positive in ("0", "1") and seen <= ZERO_OR_ONE:
        class_ = int(positive)
    else:
        rest = positive
    of = f"score of class {positive!r}" + (", all other labels being one class" if rest else "")
    return replace(
        found, evidence=f"{found.evidence}: {of}, {how}", classes=2, positive=class_,
        against_rest=rest, class_names=names,
        dtype=dtype_of(schema.field(name).type, None),
    )  # fmt: skip


def _check_not_of_the_predicted(sample: pa.Table, name: str, seen: set[str], where: str) -> None:
    """Refuse what may be no score of class 1, if the user does not say that it is."""
    if not seen <= ZERO_OR_ONE:
        raise UsageError(
            f"{where}: column {name!r} holds one score a row: say which label it is "
            f"the score of with --positive LABEL (labels seen: {_listed(seen)})"
        )
    lowest = pc.min(plain_column(sample, name).cast(pa.float64(), safe=False)).as_py()
    if len(seen) > 1 and lowest is not None and 0.5 <= lowest <= 1:
        raise UsageError(
            f"{where}: no score in column {name!r} is below 0.5: if it is the confidence of the "
            "predicted class, fastdiv needs the scores of both; if it is the probability of class "
            "1, give --positive 1"
        )


def _listed(seen: set[str]) -> str:
    some = sorted(seen)[:6]
    return ", ".join(some) + (" …" if len(seen) > len(some) else "")

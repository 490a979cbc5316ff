"""Sides and pairs made straight from predictions, by the reference."""

import numpy as np
import pyarrow as pa

from fastdiv.explain.evidence import Pair, Side
from fastdiv_kernels import reference
from fastdiv_kernels.contract import Kind, profile_width

KINDS = {"logits": Kind.LOGITS, "probs": Kind.PROBS, "logprobs": Kind.LOGPROBS}


def side_of(predictions, labels, kind="logits", epoch=0, kernels=reference):
    """Score predictions (n, c), of which every row must be valid."""
    predictions = np.ascontiguousarray(predictions)
    labels = np.asarray(labels, np.int32)
    n, c = predictions.shape
    wide = np.float64 if predictions.dtype == np.float64 else np.float32
    outputs = [np.empty(n, t) for t in (wide, bool, "i4", "f4", "f4", "f4", "i4", "u1")]
    kernels.score(predictions, labels, KINDS[kind], *outputs)
    loss, correct, predicted, confidence, margin, brier, _, status = outputs
    assert not (status & 7).any(), "every row must be valid"
    profile = np.zeros((n, profile_width(c)), np.float16)
    if c > 2:
        kernels.profile(predictions, KINDS[kind], predicted, profile)
    return Side(
        epoch, c, labels, loss.astype("f8"), correct, predicted, confidence.astype("f8"), margin,
        brier.astype("f8"), profile, True, kernels,
    )  # fmt: skip


def pair_of(before, after, labels, kind="logits", ids=None, class_names=None):
    """Score the same samples in two epochs, 0 and 1."""
    ids = pa.array(np.arange(len(labels)) if ids is None else ids)
    sides = (side_of(x, labels, kind, epoch) for epoch, x in enumerate((before, after)))
    return Pair(None, *sides, ids, class_names)

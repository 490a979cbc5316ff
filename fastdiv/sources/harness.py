"""Samples that lm-evaluation-harness logs: for each question the log-likelihood of each choice.

`samples_*.jsonl` holds, a line a question, `doc_id`, `target` and `filtered_resps` (or `resps`): a
pair of log-likelihood and whether greedy decoding would give it, for each choice. Newer versions
write all of them as strings.
"""

from __future__ import annotations

import math
from typing import Any

Record = dict[str, Any]


def is_answer(record: Record) -> bool:
    """Whether a record is a logged sample."""
    return "doc_id" in record and ("filtered_resps" in record or "resps" in record)


def answer(record: Record) -> Record:
    """Return id, label and log-likelihoods of a logged sample.

    The label is -1 where the target is none of the choices; the log-likelihoods are None where
    there are none, as for questions that are answered by generating text.
    """
    responses = record.get("filtered_resps") or record.get("resps") or []
    responses = responses if isinstance(responses, list) else []
    texts = _choices(record)
    half = len(responses) // 2
    if half and len(texts) == len(responses) and texts[:half] == texts[half:]:
        responses = responses[:half]  # the other half is without the question (mutual information)
    found = [_log_likelihood(response) for response in responses]
    usable = len(found) > 1 and all(x is not None for x in found)
    return {
        "doc_id": record.get("doc_id"),
        "target": _target(record.get("target"), texts[: len(responses)], len(responses)),
        "logits": found if usable else None,
    }


def _log_likelihood(response: Any) -> float | None:
    while isinstance(response, list) and response and isinstance(response[0], list):
        response = response[0]  # `resps` are wrapped once more
    if isinstance(response, list) and response:
        response = response[0]
    try:
        return float(response)
    except (TypeError, ValueError):
        return None


def _target(target: Any, texts: list[str], choices: int) -> int:
    """Return the index of the right choice, which is given by number or by its text."""
    if isinstance(target, list) and len(target) == 1:
        target = target[0]
    try:
        index = float(str(target))
        return int(index) if math.isfinite(index) and 0 <= index < choices else -1
    except ValueError:
        stripped = [text.strip() for text in texts]
        return stripped.index(str(target).strip()) if str(target).strip() in stripped else -1


def _choices(record: Record) -> list[str]:
    """Return the texts of the choices: what each request was to continue its context with."""
    arguments = record.get("arguments")
    if isinstance(arguments, dict):  # {"gen_args_0": {"arg_0": context, "arg_1": choice}, ...}
        arguments = [list(a.values()) for a in arguments.values() if isinstance(a, dict)]
    if not isinstance(arguments, list):
        return []
    return [str(a[1]) for a in arguments if isinstance(a, list) and len(a) > 1]

"""An Explanation as the plain data that every page and text shows."""

from __future__ import annotations

from typing import Any

from fastdiv.explain import wording
from fastdiv.explain.explanation import Explanation
from fastdiv.render.pictures.picture import pair_key


def verdict(made: Explanation, why: str | None = None) -> dict[str, Any]:
    """Return headline, account and causes, in words and numbers that JSON can hold.

    Parameters
    ----------
    made : Explanation
    why : str, optional
        Why these epochs are explained.
    """
    before, after = made.labels
    return {
        "key": pair_key(made.epoch_from, made.epoch_to),
        "split": made.split,
        "from": before,
        "to": after,
        "why": why,
        "headline": wording.headline(made),
        "quadrant": made.quadrant,
        "n": made.n,
        "delta_loss": made.delta_loss,
        "delta_accuracy": made.delta_accuracy,
        "notes": wording.notes(made),
        "rows": [
            {"name": name, "nats": nats, "share": share, "points": points}
            for name, nats, share, points in wording.rows(made)
        ],
        "causes": [
            {
                "name": cause.name,
                "title": wording.words(cause.name),
                "nats": cause.nats,
                "share": cause.share,
                "points": cause.points,
                "n": cause.n,
                "numbers": wording.numbers(cause),
                "evidence": cause.evidence,
                "advice": cause.advice,
                "ids": [wording.plain_id(i) for i in cause.sample_ids],
            }
            for cause in made.causes
        ],
        "findings": [
            {"name": finding.name, "sentence": finding.sentence} for finding in made.findings
        ],
    }

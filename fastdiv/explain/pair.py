"""What moved the loss between two epochs, in a sentence."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

TRAINING = ("train", "training", "fit")  # names of splits
LISTED = 20  # epochs that a message lists; of more, the first and the last
CELLS = {
    "rr": "right → right",
    "rw": "right → wrong",
    "wr": "wrong → right",
    "ww_same": "wrong → wrong, same prediction",
    "ww_changed": "wrong → wrong, other prediction",
}


def epoch_label(epoch: int, names: Mapping[str, str]) -> str:
    """Return the name of an epoch that has one, else its number; `names` are a summary's."""
    return names.get(str(epoch), str(epoch))


def epochs_in_words(epochs: Iterable[int]) -> str:
    """Say which epochs there are."""
    known = sorted(epochs)
    if len(known) > LISTED:
        return f"{len(known):,} from {known[0]} to {known[-1]}"
    return ", ".join(map(str, known)) or "none"


def sentence(row: dict[str, Any], names: Mapping[str, str]) -> str:
    """Say in one sentence which samples moved the loss between two epochs.

    `row` is a row of `transitions`, `names` are the names of epochs that a summary holds.
    """
    where = f"{row['split']}: " if row["split"] is not None else ""
    before, after = (epoch_label(row[key], names) for key in ("epoch_from", "epoch_to"))
    pair = f"{where}from epoch {before} to {after}"
    delta, points = row["delta_loss"], row["delta_accuracy"]
    if delta is None:
        if row["n"]:
            return f"{pair} every sample has an infinite loss in one of them: no change is finite."
        return f"{pair} no sample is valid in both, so nothing can be compared."
    parts = {cell: row[f"delta_loss_{cell}"] for cell in CELLS}
    way = "rose" if delta > 0 else "fell" if delta < 0 else "did not change"
    accuracy = (
        f"accuracy rose by {100 * points:.2f} points"
        if points > 0
        else f"accuracy fell by {-100 * points:.2f} points"
        if points < 0
        else "accuracy did not change"
    )
    moved = f"{pair} the loss {way} by {abs(delta):.4f} nats" if delta else f"{pair} the loss {way}"
    if not delta:
        return f"{moved} while {accuracy}."
    largest = max(parts, key=lambda cell: parts[cell] * (1 if delta > 0 else -1))
    n = row[largest]
    share = 100 * n / row["n"]
    joined = "and" if (delta > 0) == (points < 0) else "while"
    return (
        f"{moved} {joined} {accuracy}: what moved it most are the {n:,} samples "
        f"({share:.1f} %) that went {CELLS[largest]}, {parts[largest]:+.4f} nats."
    )

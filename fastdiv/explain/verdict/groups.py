"""What repairs leave, in groups that treat both epochs alike."""

from __future__ import annotations

import numpy as np

from fastdiv.explain.accounts.exact import BORDERLINE_NATS
from fastdiv.explain.evidence import Bools, Side
from fastdiv.explain.verdict.repairable import Repair

BORDERLINE_FLIPS, CONFIDENT_FLIPS, CERTAINTY = "borderline_flips", "confident_flips", "certainty"
GROUPS = (BORDERLINE_FLIPS, CONFIDENT_FLIPS, CERTAINTY)


def grouped(
    sides: tuple[Side, Side], right: tuple[Bools, Bools], repairs: tuple[Repair, Repair]
) -> dict[str, Bools]:
    """Split samples by whether they changed sides, and how far from the boundary.

    Parameters
    ----------
    sides : (Side, Side)
    right : ((n,) bool, (n,) bool)
        Which samples count as correct.
    repairs : (Repair, Repair)
        Whose temperatures margins are scaled by.

    Returns
    -------
    dict of str to (n,) bool
        By name, as in `GROUPS`; every sample is in one.
    """
    flipped = right[0] != right[1]
    scaled = [
        abs(r.beta * s.margin.astype(np.float64)) for s, r in zip(sides, repairs, strict=True)
    ]
    near = np.minimum(*scaled) <= BORDERLINE_NATS
    return {
        BORDERLINE_FLIPS: flipped & near,
        CONFIDENT_FLIPS: flipped & ~near,
        CERTAINTY: ~flipped,
    }

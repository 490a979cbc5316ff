"""Where samples went between two epochs: right, wrong as before, wrong in another way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from fastdiv.render.pictures.epoch_axis import EpochAxis
from fastdiv.render.pictures.picture import COLOURS, Frame, Picture, pair_key, signed
from fastdiv.render.pictures.single_epochs import percent, samples

if TYPE_CHECKING:
    from fastdiv.explain.view import SplitView

Row = Mapping[str, Any]
# Nodes: name, colour, which side.
NODES = (
    ("right", "right", 0),
    ("wrong", "wrong", 0),
    ("only before", "total", 0),
    ("only after", "total", 0),
    ("right", "right", 1),
    ("wrong, same prediction", "ww_same", 1),
    ("wrong, another prediction", "ww_changed", 1),
    ("gone", "total", 1),
    ("new", "total", 1),
)
# Links: from node, to node, count, what it carries of the change in loss, what it is.
LINKS = (
    (0, 4, "rr", "delta_loss_rr", "right, still right"),
    (0, 6, "rw", "delta_loss_rw", "right → wrong"),
    (1, 4, "wr", "delta_loss_wr", "wrong → right"),
    (1, 5, "ww_same", "delta_loss_ww_same", "wrong, same prediction"),
    (1, 6, "ww_changed", "delta_loss_ww_changed", "wrong, another prediction"),
    (2, 7, "n_only_from", None, "only in the first epoch"),
    (3, 8, "n_only_to", None, "only in the second epoch"),
)
OPACITY = 0.5


def flow(view: SplitView, pairs: Sequence[tuple[int, int]]) -> Picture | None:
    """Draw how many samples went where between two epochs; None where no pair can be compared.

    Parameters
    ----------
    view : SplitView
    pairs : sequence of (int, int)
        Those of which neither the scores nor the row of `transitions` are stored are left out.
    """
    axis = EpochAxis.of(view.epochs.to_pylist())
    frames: dict[str, Frame] = {}
    for a, b in pairs:
        row = view.transition(a, b)
        if row is not None and any(row[count] for _, _, count, _, _ in LINKS):
            frames[pair_key(a, b)] = _frame(row, axis.say(a), axis.say(b))
    if not frames:
        return None
    return Picture(
        name="flow",
        title="Where the samples went",
        how="Left, the first epoch; right, the second. The width of a band is its number of "
        "samples; hover for what it adds to the change in loss.",
        data=[{"type": "sankey", "arrangement": "fixed", "valueformat": ",d"}],
        layout={"height": 360, "margin": {"l": 10, "r": 10, "t": 10, "b": 10}},
        by="pair",
        frames=frames,
        note="A sample that got wrong has another prediction than before.",
    )


def _frame(row: Row, before: str, after: str) -> Frame:
    """Return what is shown of one pair."""
    links = [link for link in LINKS if row[link[2]]]
    used = sorted({node for link in links for node in link[:2]})
    place = {node: i for i, node in enumerate(used)}
    size = {node: sum(row[count] for a, b, count, _, _ in links if node in (a, b)) for node in used}
    n = sum(row[count] for _, _, count, _, _ in links)
    positions = _positions(used, size, n)
    nodes = {
        "label": [f"{NODES[k][0]}: {size[k]:,} ({percent(size[k] / n)})" for k in used],
        "color": [COLOURS[NODES[k][1]] for k in used],
        "x": [0.001 if NODES[k][2] == 0 else 0.999 for k in used],
        "y": [positions[k] for k in used],
        "pad": 24,
        "thickness": 16,
        "line": {"width": 0},
        "hovertemplate": "%{label}<extra></extra>",
    }
    bands = {
        "source": [place[a] for a, _, _, _, _ in links],
        "target": [place[b] for _, b, _, _, _ in links],
        "value": [row[count] for _, _, count, _, _ in links],
        "color": [_faded(COLOURS.get(count, COLOURS["total"])) for _, _, count, _, _ in links],
        "customdata": [_hover(row, link, n) for link in links],
        "hovertemplate": "%{customdata}<extra></extra>",
    }
    return Frame(_text(row, before, after), [{"node": nodes, "link": bands}], {})


def _positions(used: Sequence[int], size: Mapping[int, int], n: int) -> dict[int, float]:
    """Return the middle of each node from the top, as a share of the height."""
    gap = 0.09
    found: dict[int, float] = {}
    for side in (0, 1):
        nodes = [k for k in used if NODES[k][2] == side]
        free = 1.0 - gap * (len(nodes) - 1)
        top = 0.0
        for k in nodes:
            height = free * size[k] / n
            found[k] = min(max(top + height / 2, 0.001), 0.999)
            top += height + gap
    return found


def _hover(row: Row, link: tuple[int, int, str, str | None, str], n: int) -> str:
    """Say what a band is."""
    _, _, count, delta, words = link
    said = f"{words}: {samples(row[count])} ({percent(row[count] / n)})"
    if delta is not None and row[delta] is not None:
        return f"{said}<br>adds {signed(row[delta])} nats to the change in loss"
    if delta is None and row["delta_loss_membership"] is not None:
        moved = signed(row["delta_loss_membership"])
        return f"{said}<br>coming and going adds {moved} nats to the change in loss"
    return said


def _faded(colour: str) -> str:
    """Return a colour that lets others through."""
    r, g, b = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({r},{g},{b},{OPACITY})"


def _text(row: Row, before: str, after: str) -> str:
    """Say how many samples got right and wrong, and who was left out."""
    said = f"From epoch {before} to {after}"
    if row["n"]:
        said += (
            f", {samples(row['wr'])} got right and {row['rw']:,} got wrong, of {row['n']:,}; "
            f"{row['ww_same']:,} kept a wrong prediction and {row['ww_changed']:,} changed it for "
            "another wrong one."
        )
    else:
        said += " no sample can be compared."
    out = {
        "were only in the first": row["n_only_from"],
        "only in the second": row["n_only_to"],
        "were invalid in one of them": row["n_invalid"],
        "had another label": row["n_relabelled"],
    }
    left = [f"{k:,} {words}" for words, k in out.items() if k]
    return f"{said} Left out: {', '.join(left)}." if left else said

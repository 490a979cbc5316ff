"""What the history of samples tells beside any table of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa

from fastdiv.explain.evidence import Ints
from fastdiv.render.tables.glossary import GLOSSARY
from fastdiv.render.tables.table import Column, numbers

if TYPE_CHECKING:
    from fastdiv.explain.view import SplitView

HISTORY_COLUMNS = (
    Column("n_correct", "Times right", "count", GLOSSARY["times right"]),
    Column("n_epochs", "Epochs seen", "count", GLOSSARY["times right"]),
    Column("first_learned", "First learned", "epoch", GLOSSARY["first learned"]),
    Column("forgetting_events", "Forgotten", "count", GLOSSARY["forgetting event"]),
    Column("aum", "AUM", "number", GLOSSARY["AUM"]),
)


def history(view: SplitView, rows: Ints) -> dict[str, list[Any]]:
    """Return the columns of `HISTORY_COLUMNS` of some samples.

    Parameters
    ----------
    view : SplitView
    rows : (m,) int64
        Places of the samples in the order of ids.
    """
    taken = view.samples.select([column.name for column in HISTORY_COLUMNS]).take(pa.array(rows))
    values = {name: taken[name].to_pylist() for name in taken.column_names if name != "aum"}
    return {**values, "aum": numbers(taken["aum"].to_numpy())}

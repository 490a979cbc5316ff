"""Plots: ``run.plot``, the pictures of a run as plotly figures."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fastdiv.run import Run


class Plots:
    """The pictures of a run."""

    def __init__(self, run: Run) -> None:
        self._run = run

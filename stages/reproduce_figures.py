"""Draws the figures of a reproduction from the runs of its rows."""

from __future__ import annotations

from distinit.pipeline.progress import Progress
from distinit.pipeline.reproduction.expand import Reproduction
from distinit.schemas.reproduced import ReproducedTable

__all__ = ["draw_figure"]


def draw_figure(
    kind: str, table: ReproducedTable, reproduction: Reproduction, progress: Progress
) -> ReproducedTable:
    """``table`` with its figure, or with the reason why there is none."""
    return table.model_copy(update={"figure_note": f"The figure ({kind}) is not drawn yet."})

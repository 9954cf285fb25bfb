"""Which values of a network's last layers become a feature row, and how a row is laid out."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, WithJsonSchema

from distinit.schemas.wording import did_you_mean, shown

__all__ = ["MAX_GRID", "Pool", "grid_of", "pool_cells"]

MAX_GRID = 64
"""Most cells per side of a grid."""

_PATTERN = r"(cls|mean|cls\+mean|head|grid:([1-9][0-9]?))"


def grid_of(pool: str | None) -> int | None:
    """G of ``grid:G``; None for any other pool."""
    match = re.fullmatch(_PATTERN, pool or "")
    return int(match[2]) if match and match[2] else None


def pool_cells(pool: str | None) -> int:
    """Number of cells of a feature row: G x G for ``grid:G``, 1 for any other pool."""
    return (grid_of(pool) or 1) ** 2


def _known_pool(pool: str) -> str:
    grid = grid_of(pool)
    if re.fullmatch(_PATTERN, pool) is None or (grid is not None and grid > MAX_GRID):
        known = () if pool.startswith("grid:") else ("cls", "mean", "cls+mean", "grid:4", "head")
        guess = did_you_mean(pool[:40], known)
        raise ValueError(
            f"pool {shown(pool)} is none of cls, mean, cls+mean, head, "
            f"grid:G (G from 1 to {MAX_GRID})" + (f"; {guess}" if guess else "")
        )
    return pool


Pool = Annotated[
    str, AfterValidator(_known_pool), WithJsonSchema({"type": "string", "pattern": f"^{_PATTERN}$"})
]
"""``cls`` | ``mean`` | ``cls+mean`` | ``grid:G`` | ``head``.

==========  ==================================================================================
cls         the class token, after the network's last norm: [D]
mean        the mean over the patch tokens, or over the places of a feature map: [D]
cls+mean    both, one after the other: [2 D]
grid:G      G x G cells of patch tokens or of a feature map, each the mean of its part:
            [G * G * D], cell after cell from the upper left, row by row; D values per cell
head        the output of the network's own last layer, such as CLIP's projection: [D]
==========  ==================================================================================
"""

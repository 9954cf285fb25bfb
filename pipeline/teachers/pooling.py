"""Pools the tokens or the feature map of a network into one feature row per frame."""

from __future__ import annotations

from collections.abc import Callable
from math import isqrt
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn.functional import adaptive_avg_pool2d

from distinit.pipeline.plugins import in_words
from distinit.schemas.errors import TeacherError
from distinit.schemas.pooling import grid_of

__all__ = [
    "Features",
    "PooledNetwork",
    "Spatial",
    "map_of",
    "pooled_network",
    "row_width",
    "square_grid",
    "tokens_of",
]

type Features = Callable[[str | None], tuple[nn.Module, int]]
"""Turns a pool into a network that computes features [N, width], and their width.

It may take layers of the classifier apart, which cannot be used afterwards.
"""


class Spatial(NamedTuple):
    """What a network computes before it pools, for N frames."""

    class_token_ND: torch.Tensor | None
    patches_NPD: torch.Tensor
    grid: tuple[int, int] | None
    """Rows and columns of the patches, which are in row order; None: not known."""


def map_of(map_NDHW: torch.Tensor) -> Spatial:
    """The places of a feature map as patches."""
    height, width = map_NDHW.shape[2:]
    return Spatial(None, map_NDHW.flatten(2).transpose(1, 2), (int(height), int(width)))


def tokens_of(
    tokens_NTD: torch.Tensor, *, prefix: int, has_class_token: bool, grid: tuple[int, int] | None
) -> Spatial:
    """Tokens without the ``prefix`` ones in front, the first of which may be the class token.

    A ``grid`` that is not that of the tokens counts as not known.
    """
    patches_NPD = tokens_NTD[:, prefix:]
    fits = grid is not None and grid[0] * grid[1] == patches_NPD.shape[1]
    class_token_ND = tokens_NTD[:, 0] if has_class_token and prefix else None
    return Spatial(class_token_ND, patches_NPD, grid if fits else None)


def square_grid(patches: int) -> tuple[int, int] | None:
    """Rows and columns of this number of patches if they form a square."""
    side = isqrt(max(patches, 0))
    return (side, side) if side * side == patches else None


class PooledNetwork(nn.Module):
    """Pictures [N, 3, H, W] -> feature rows [N, width], as schemas/pooling.py describes them."""

    def __init__(self, spatial: nn.Module, pool: str, norm: nn.Module | None = None) -> None:
        """``spatial``: pictures -> Spatial. ``norm``: applied to each pooled vector of D values."""
        super().__init__()
        self.spatial = spatial
        self.norm = norm if norm is not None else nn.Identity()
        self._pool = pool

    def forward(self, input_NCHW: torch.Tensor) -> torch.Tensor:
        vectors_NKD = _vectors(self.spatial(input_NCHW), self._pool)
        rows: torch.Tensor = self.norm(vectors_NKD).flatten(1)
        return rows


def _vectors(spatial: Spatial, pool: str) -> torch.Tensor:
    """The pooled vectors of a row, [N, K, D]."""
    grid = grid_of(pool)
    if grid is not None and spatial.grid is not None:
        patches_NDP = spatial.patches_NPD.transpose(1, 2)
        map_NDHW = patches_NDP.reshape(*patches_NDP.shape[:2], *spatial.grid)
        return adaptive_avg_pool2d(map_NDHW, grid).flatten(2).transpose(1, 2)
    mean_ND = spatial.patches_NPD.mean(dim=1)
    if pool == "mean" or spatial.class_token_ND is None:
        return mean_ND[:, None]
    if pool == "cls":
        return spatial.class_token_ND[:, None]
    return torch.stack([spatial.class_token_ND, mean_ND], dim=1)


def pooled_network(
    spatial: nn.Module, pool: str, *, name: str, side: int, norm: nn.Module | None = None
) -> tuple[nn.Module, int]:
    """The network ``name`` with this pool, and the width of its rows, measured on a black frame.

    ``spatial``: pictures [N, 3, side, side] -> Spatial. Raises TeacherError if the network has no
    class token, or not enough places for the pool.
    """
    found = _on_black_frame(spatial.eval(), side)
    _require_pool(found, pool, name)
    network = PooledNetwork(spatial, pool, norm).eval()
    return network, row_width(network, side=side, name=name)


def row_width(network: nn.Module, *, side: int, name: str) -> int:
    """Number of values that a network computes for a frame, measured on a black one.

    Raises TeacherError if its output is not one row per frame.
    """
    output = _on_black_frame(network, side)
    if not isinstance(output, torch.Tensor) or output.ndim != 2 or len(output) != 1:
        raise TeacherError(
            f"the output of the network of {name} is not one row per frame",
            expected="a tensor of shape [1, values] for one frame",
            found=in_words(output),
            remedy="with target features, choose a pool for tokens or maps (cls, mean, cls+mean, "
            "grid:G); or pool and flatten the output inside the network",
        )
    return int(output.shape[1])


def _on_black_frame(network: nn.Module, side: int) -> Any:
    device = next((p.device for p in network.parameters()), torch.device("cpu"))
    with torch.inference_mode():
        return network(torch.zeros(1, 3, side, side, device=device))


def _require_pool(spatial: Spatial, pool: str, name: str) -> None:
    if pool in ("cls", "cls+mean") and spatial.class_token_ND is None:
        raise TeacherError(
            f"{name} has no class token",
            expected=f"a class token, for pool {pool}",
            found=_shown(spatial),
            remedy="choose pool mean or grid:G, or none for the network's own pooling",
        )
    grid = grid_of(pool)
    if grid is not None and (spatial.grid is None or grid > min(spatial.grid)):
        raise TeacherError(
            f"{name} cannot be pooled to {grid} x {grid} cells",
            expected=f"at least {grid} x {grid} patches or places of a feature map",
            found=_shown(spatial),
            remedy="choose a smaller grid, or pool mean" if spatial.grid else "choose pool mean",
        )


def _shown(spatial: Spatial) -> str:
    patches, width = spatial.patches_NPD.shape[1:]
    if spatial.grid is None:
        return f"{patches} tokens of {width} values, whose places are not known"
    return f"{spatial.grid[0]} x {spatial.grid[1]} places of {width} values"

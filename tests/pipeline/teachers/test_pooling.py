"""Pools of tokens and maps: which values a row holds, in which order, and what is refused."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from distinit.pipeline.teachers.pooling import (
    PooledNetwork,
    Spatial,
    map_of,
    pooled_network,
    square_grid,
    tokens_of,
)
from distinit.schemas.errors import TeacherError


class Tokens(nn.Module):
    """Pictures [N, 3, 8, 8] -> a class token, another token, and ``patches`` patches, all [N, 2].

    Patch p has the values p and -p, the class token 100 and 200.
    """

    def __init__(self, patches: int = 16) -> None:
        super().__init__()
        self._patches = patches

    def forward(self, input_NCHW: torch.Tensor) -> Spatial:
        patch_P = torch.arange(self._patches, dtype=torch.float32)
        front_22 = torch.tensor([[100.0, 200.0], [7.0, 7.0]])
        tokens_TD = torch.cat([front_22, torch.stack([patch_P, -patch_P], dim=1)])
        tokens_NTD = tokens_TD.expand(len(input_NCHW), -1, -1)
        grid = square_grid(self._patches)
        return tokens_of(tokens_NTD, prefix=2, has_class_token=True, grid=grid)


def row_of(spatial: nn.Module, pool: str) -> list[float]:
    network, width = pooled_network(spatial, pool, name="made", side=8)
    rows = network(torch.zeros(3, 3, 8, 8))
    assert rows.shape == (3, width)
    row: list[float] = rows[1].tolist()
    return row


def test_class_token_and_mean() -> None:
    assert row_of(Tokens(), "cls") == [100, 200]
    assert row_of(Tokens(), "mean") == [7.5, -7.5]
    assert row_of(Tokens(), "cls+mean") == [100, 200, 7.5, -7.5]


def test_cells_go_row_by_row_with_all_values_of_a_cell_together() -> None:
    # 4 x 4 patches 0..15: the upper left cell has 0, 1, 4, 5.
    assert row_of(Tokens(), "grid:2") == [2.5, -2.5, 4.5, -4.5, 10.5, -10.5, 12.5, -12.5]
    every_patch = [value for patch in range(16) for value in (patch, -patch)]
    assert row_of(Tokens(), "grid:4") == every_patch


@given(st.integers(1, 4), st.integers(1, 3), st.integers(1, 3))
def test_a_cell_is_the_mean_of_its_part_of_the_map(cells: int, places: int, values: int) -> None:
    side = cells * places
    map_NDHW = torch.rand(2, values, side, side, dtype=torch.float64)
    network = PooledNetwork(nn.Identity(), f"grid:{cells}")
    rows_NKD = network(map_of(map_NDHW)).reshape(2, cells, cells, values)
    for y in range(cells):
        for x in range(cells):
            part = map_NDHW[:, :, places * y : places * (y + 1), places * x : places * (x + 1)]
            torch.testing.assert_close(rows_NKD[:, y, x], part.mean(dim=(2, 3)))


def test_a_norm_after_the_pooling_is_applied_to_each_vector() -> None:
    norm = nn.LayerNorm(2)
    nn.init.constant_(norm.bias, 3.0)
    network, width = pooled_network(Tokens(), "cls+mean", name="made", side=8, norm=norm)
    assert width == 4
    row = network(torch.zeros(1, 3, 8, 8))[0].tolist()
    assert row == pytest.approx([2, 4, 4, 2], abs=1e-3)  # ±1 after the norm, plus the bias


@pytest.mark.parametrize("pool", ["cls", "cls+mean"])
def test_a_map_has_no_class_token(pool: str) -> None:
    class Map(nn.Module):
        def forward(self, input_NCHW: torch.Tensor) -> Spatial:
            return map_of(input_NCHW)

    with pytest.raises(TeacherError, match="made has no class token") as raised:
        pooled_network(Map(), pool, name="made", side=8)
    assert raised.value.found == "8 x 8 places of 3 values"


def test_a_grid_needs_known_places_and_enough_of_them() -> None:
    with pytest.raises(TeacherError, match="cannot be pooled to 5 x 5 cells") as raised:
        pooled_network(Tokens(16), "grid:5", name="made", side=8)
    assert raised.value.found == "4 x 4 places of 2 values"
    with pytest.raises(TeacherError, match="cannot be pooled to 2 x 2 cells") as raised:
        pooled_network(Tokens(12), "grid:2", name="made", side=8)
    assert raised.value.found == "12 tokens of 2 values, whose places are not known"
    assert row_of(Tokens(12), "mean") == [5.5, -5.5]


def test_a_grid_of_other_tokens_counts_as_unknown() -> None:
    tokens_NTD = torch.zeros(1, 10, 2)
    assert tokens_of(tokens_NTD, prefix=1, has_class_token=True, grid=(3, 3)).grid == (3, 3)
    assert tokens_of(tokens_NTD, prefix=1, has_class_token=True, grid=(4, 4)).grid is None
    assert tokens_of(tokens_NTD, prefix=0, has_class_token=True, grid=None).class_token_ND is None

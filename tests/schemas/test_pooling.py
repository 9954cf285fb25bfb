"""Pools of feature teachers: their names, their cells, and that older teachers stay the same."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from distinit.schemas.pooling import MAX_GRID, grid_of, pool_cells
from distinit.schemas.teacher import PreprocessSpec, TeacherIdentity, TeacherRequest

PREPROCESSING = PreprocessSpec(
    resize_mode="squash", resize_size=8, crop_size=8, mean=(0, 0, 0), std=(1, 1, 1)
)


def identity(pool: str | None, classes: int, target: str = "features") -> TeacherIdentity:
    return TeacherIdentity.model_validate(
        {
            "architecture": "made/up",
            "weights_sha256": "0" * 64,
            "preprocessing": PREPROCESSING.model_dump(),
            "target": target,
            "pool": pool,
            "classes": classes,
            "label_space": "features",
            "label_names": (),
        }
    )


@pytest.mark.parametrize(
    ("pool", "grid", "cells"),
    [
        (None, None, 1),
        ("cls", None, 1),
        ("cls+mean", None, 1),
        ("head", None, 1),
        ("grid:1", 1, 1),
        ("grid:7", 7, 49),
        (f"grid:{MAX_GRID}", 64, 4096),
    ],
)
def test_cells(pool: str | None, grid: int | None, cells: int) -> None:
    assert grid_of(pool) == grid
    assert pool_cells(pool) == cells


@pytest.mark.parametrize(
    "pool", ["grid:0", "grid:65", "grid:07", "grid:", "max", "CLS", "cls ", ""]
)
def test_other_pools_are_refused(pool: str) -> None:
    with pytest.raises(ValidationError, match="none of cls, mean, cls\\+mean, head, grid:G"):
        TeacherRequest(name="resnet18", target="features", pool=pool)


def test_a_misspelled_pool_is_recognised() -> None:
    with pytest.raises(ValidationError, match="did you mean grid:4"):
        TeacherRequest(name="resnet18", target="features", pool="gird:4")


@pytest.mark.parametrize("pool", ["grid:0", "grid:99", "grid:x"])
def test_an_impossible_grid_gets_its_limits_and_no_guess(pool: str) -> None:
    with pytest.raises(ValidationError, match="G from 1 to 64\\)") as caught:
        TeacherRequest(name="resnet18", target="features", pool=pool)
    assert "did you mean" not in str(caught.value)


def test_a_pool_needs_features() -> None:
    with pytest.raises(ValidationError, match="pool mean needs target features"):
        TeacherRequest(name="resnet18", pool="mean")
    with pytest.raises(ValidationError, match="pool mean needs target features"):
        identity("mean", 10, "logits")


def test_a_row_of_a_grid_has_cells_of_channels() -> None:
    grid = identity("grid:3", 9 * 32)
    assert (grid.cells, grid.channels) == (9, 32)
    both = identity("cls+mean", 64)
    assert (both.cells, both.channels) == (1, 64)
    with pytest.raises(ValidationError, match="100 values are not 9 cells of grid:3"):
        identity("grid:3", 100)


def test_identities_without_a_pool_are_as_before() -> None:
    before = identity(None, 512)
    assert "pool" not in before.model_dump(mode="json")
    # Computed by a version that had no pools.
    assert before.fingerprint == "034c3801f4fa35789b1f610f72c6727dd0f378848d257291ba7322c36a378a1e"
    assert identity("mean", 512).fingerprint != before.fingerprint
    assert TeacherIdentity.model_validate_json(identity("cls", 4).model_dump_json()).pool == "cls"

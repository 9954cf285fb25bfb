"""Counts as people read them."""

from __future__ import annotations

import pytest

from distinit.schemas.wording import counted


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 failed videos"), (1, "1 failed video"), (2, "2 failed videos")]
)
def test_one_is_singular(count: int, text: str) -> None:
    assert counted(count, "failed video") == text

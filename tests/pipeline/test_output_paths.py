"""Results are never written into a cache or a frame store."""

from __future__ import annotations

from pathlib import Path

import pytest

from distinit.pipeline.output_paths import refuse_inside_data, refuse_nested
from distinit.schemas.errors import ConfigError


@pytest.mark.parametrize("name", [".", "run", "teachers/x/run", "../link"])
@pytest.mark.parametrize("marks", [("manifest.json", "plan.parquet"), ("store.json",)])
def test_a_folder_inside_a_cache_or_store_is_refused(
    tmp_path: Path, marks: tuple[str, ...], name: str
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (tmp_path / "link").symlink_to(data)
    for mark in marks:
        refuse_inside_data(data / name)
        (data / mark).touch()
    with pytest.raises(ConfigError, match="nothing else is written there"):
        refuse_inside_data(data / name)
    refuse_inside_data(tmp_path / "sibling")


def test_a_cache_and_its_frame_store_must_not_contain_each_other(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    refuse_nested(cache, tmp_path / "cache frames")
    for other in (cache, cache / "frames", tmp_path):
        with pytest.raises(ConfigError, match="nothing else is written there"):
            refuse_nested(cache, other)

"""Results are never written into a cache or a frame store."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.command_line import run_command

from distinit.pipeline.output_paths import refuse_inside_data, refuse_nameless, refuse_nested
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


@pytest.mark.parametrize("out", [".", "/", "..", "./x/..", ""])
def test_a_path_without_a_name_is_refused(out: str) -> None:
    refuse_nameless(Path("x/../y"))
    with pytest.raises(ConfigError, match="does not name a new file or folder"):
        refuse_nameless(Path(out))


@pytest.mark.parametrize("out", [".", "/", "./x/.."])
@pytest.mark.parametrize(
    "command",
    [
        ["cache", "keygen", "--out"],
        ["cache", "match", "nothing", "--videos", "nothing", "--out"],
        ["cache", "pull", "nothing"],
    ],
)
def test_commands_refuse_an_output_without_a_name(command: list[str], out: str) -> None:
    code, text = run_command([*command, out])
    assert (code, "does not name a new file or folder" in text) == (2, True)

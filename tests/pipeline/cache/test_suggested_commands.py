"""Commands that messages suggest can be pasted into a shell, whatever the cache is called."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from distinit.pipeline.cache.checksums import check_listed
from distinit.pipeline.cache.layout import CacheLayout
from distinit.pipeline.storage import open_for_writing
from distinit.schemas.errors import CacheCorruptError, StorageError

NAME = "my cache's copy"


def test_the_command_names_the_folder_as_one_word(tmp_path: Path) -> None:
    layout = CacheLayout(tmp_path / NAME)
    words = ["distinit", "cache", "verify", str(tmp_path / NAME)]
    assert shlex.split(layout.verify_command()) == words


def test_a_file_with_another_checksum_suggests_a_quoted_command(tmp_path: Path) -> None:
    layout = CacheLayout(tmp_path / NAME)
    layout.root.mkdir()
    layout.manifest.write_text("{}")
    layout.checksums.write_text(f"{'0' * 64}  {layout.relative(layout.manifest)}\n")
    with pytest.raises(CacheCorruptError, match="does not match") as raised:
        check_listed(layout, [layout.manifest])
    assert f"`{layout.verify_command()}` lists all damage" in str(raised.value.remedy)


def test_the_copy_of_a_hard_link_is_quoted(tmp_path: Path) -> None:
    path = tmp_path / NAME
    path.write_text("content")
    path.with_name("second").hardlink_to(path)
    with pytest.raises(StorageError, match="cannot write") as raised:
        open_for_writing(path)
    copy = f"{path}.copy"
    words = ["cp", str(path), copy, "&&", "mv", copy, str(path)]
    assert shlex.split(str(raised.value.remedy).partition(": ")[2]) == words

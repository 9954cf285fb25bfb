"""A pull and a push do not mistake a folder of the user for their own."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from helpers.progress import RecordingProgress

from distinit.pipeline.cache.copies import Selection
from distinit.pipeline.cache.foreign import refuse_foreign_staging
from distinit.pipeline.cache.pull import pull_cache, pull_records
from distinit.pipeline.cache.remote_records import receive_records
from distinit.pipeline.transport.stores import open_store
from distinit.schemas.errors import ConfigError


def test_a_folder_of_the_user_keeps_its_files(built_cache: Path, tmp_path: Path) -> None:
    thesis = tmp_path / "copy.partial/thesis.txt"
    thesis.parent.mkdir()
    thesis.write_text("three years")
    store, progress, target = open_store(str(built_cache)), RecordingProgress(), tmp_path / "copy"
    with pytest.raises(ConfigError, match="holds files that are not of a pull"):
        pull_cache(store.shown, target, Selection(), workers=1, expect=None, progress=progress)
    with pytest.raises(ConfigError, match="holds files that are not of a pull"):
        pull_records(store, receive_records(store), target, workers=1, progress=progress)
    assert list(thesis.parent.iterdir()) == [thesis]
    assert thesis.read_text() == "three years"


def test_only_notes_or_the_list_of_the_cache_show_a_pull(built_cache: Path, tmp_path: Path) -> None:
    (tmp_path / ".pull").write_text("a diary")
    with pytest.raises(ConfigError, match="holds files that are not of a pull"):
        refuse_foreign_staging(tmp_path, "0" * 64)
    (tmp_path / ".pull").write_text("0" * 64)
    refuse_foreign_staging(tmp_path, "1" * 64)
    (tmp_path / ".pull").unlink()
    shutil.copy(built_cache / "manifest-sha256.txt", tmp_path)
    refuse_foreign_staging(tmp_path, receive_records(open_store(str(built_cache))).list_sha256)

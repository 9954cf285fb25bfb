"""A pull into a folder that an earlier pull filled hashes its files, and fetches damaged ones."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from helpers.progress import RecordingProgress

from distinit.pipeline.cache.copies import Selection
from distinit.pipeline.cache.pull import Pulled, pull_cache
from distinit.pipeline.cache.reader import TargetCache
from distinit.pipeline.cache.verify import verify_cache
from distinit.pipeline.cache.verify_copy import verify_copy
from distinit.schemas.errors import CacheError, ConfigError

SHARD = "teachers/alpha/logits/c/1/0"
TABLE = "teachers/beta/confidence/unit-00002.parquet"
PART = Selection(units="1")
WHOLE = Selection()


def pull(source: Path, target: Path, selection: Selection) -> Pulled:
    return pull_cache(
        str(source), target, selection, workers=2, expect=None, progress=RecordingProgress()
    )


def files_of(root: Path) -> dict[str, bytes]:
    paths = (path for path in root.rglob("*") if path.is_file())
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in paths}


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("selection", "name"),
    [
        (WHOLE, SHARD),
        (WHOLE, TABLE),
        (WHOLE, "manifest.json"),
        (WHOLE, "manifest-sha256.txt"),
        (WHOLE, "plan.parquet"),
        (WHOLE, "README.md"),
        (PART, SHARD),
        (PART, "copy.json"),
        (PART, "plan.parquet"),
        (PART, "teachers/alpha/teacher.json"),
    ],
)
@pytest.mark.parametrize("is_missing", [False, True])
def test_just_the_damaged_file_is_fetched_again(
    selection: Selection, name: str, is_missing: bool, built_cache: Path, tmp_path: Path
) -> None:
    target = tmp_path / "copy"
    first = pull(built_cache, target, selection)
    before = files_of(target)
    if is_missing and name != "copy.json":  # without it, the folder is not known to be a part
        (target / name).unlink()
    else:
        flip(target / name)
    again = pull(built_cache, target, selection)
    assert files_of(target) == before
    assert [path.name for path in tmp_path.iterdir()] == ["copy"]
    if selection is WHOLE and name != "manifest-sha256.txt":
        assert (again.files, again.kept) == (first.files, first.files - 2), "the list, and the file"
        assert again.received_bytes == len(before[name])


def test_an_intact_folder_is_only_read(built_cache: Path, tmp_path: Path) -> None:
    for selection, check in ((WHOLE, verify_cache), (PART, verify_copy)):
        target = tmp_path / (selection.units or "whole")
        first = pull(built_cache, target, selection)
        again = pull(built_cache, target, selection)
        assert (again.files, again.kept, again.received_bytes) == (first.files, first.files, 0)
        assert first.files == check(target, deep=True).files == len(files_of(target))


def test_a_missing_signature_is_fetched(cache_root: Path, tmp_path: Path) -> None:
    pull(cache_root, tmp_path / "copy", WHOLE)
    (cache_root / "cache.sig").write_bytes(b"signature")
    pull(cache_root, tmp_path / "copy", WHOLE)
    assert (tmp_path / "copy/cache.sig").read_bytes() == b"signature"


def test_folders_with_other_files_or_parts_stay_as_they_are(
    built_cache: Path, tmp_path: Path
) -> None:
    target = tmp_path / "copy"
    pull(built_cache, target, PART)
    for other in (WHOLE, Selection(units="0"), Selection(teachers=("alpha",), units="1")):
        with pytest.raises(ConfigError, match="exists already: nothing was copied"):
            pull(built_cache, target, other)
    flip(target / SHARD)
    (target / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match="files that are not part of the cache") as raised:
        pull(built_cache, target, PART)
    assert raised.value.found == "notes.txt"
    (target / "notes.txt").unlink()
    (tmp_path / "copy.partial").mkdir()
    with pytest.raises(ConfigError, match="cannot be fetched again"):
        pull(built_cache, target, PART)
    (target / "copy.json").unlink()
    with pytest.raises(ConfigError, match="exists already"):
        pull(built_cache, target, PART)


def test_a_folder_that_is_being_mended_is_not_a_cache(built_cache: Path, tmp_path: Path) -> None:
    pull(built_cache, tmp_path / "copy", WHOLE)
    digest = hashlib.sha256((tmp_path / "copy/manifest-sha256.txt").read_bytes()).hexdigest()
    (tmp_path / "copy/.pull").write_text(digest)
    with pytest.raises(CacheError, match="has not ended"):
        TargetCache.open(tmp_path / "copy", allow_incomplete=True)
    (tmp_path / "copy").rename(tmp_path / "copy.partial")
    assert pull(built_cache, tmp_path / "copy", WHOLE).received_bytes == 0
    assert TargetCache.open(tmp_path / "copy").manifest.complete


def test_a_list_of_unknown_videos_leaves_nothing_behind(built_cache: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not have 1 video"):
        pull(built_cache, tmp_path / "copy", Selection(videos=("nowhere.mp4",)))
    assert list(tmp_path.iterdir()) == []

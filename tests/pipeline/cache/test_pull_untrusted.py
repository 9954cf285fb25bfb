"""What a pull refuses of a sender: names, sizes, links and records that contradict each other."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest
from helpers.caches import resign
from helpers.pulls import pull

from distinit.pipeline.cache.copies import Selection
from distinit.schemas.errors import (
    CacheCorruptError,
    CacheError,
    ConfigError,
    StorageError,
    TransferError,
)
from distinit.schemas.manifest import UnitCommit

SHARD = "teachers/alpha/logits/c/1/0"
TABLE = "teachers/beta/confidence/unit-00002.parquet"


LINES = {
    "a path that leads outside": "../../outside",
    "an absolute path": "/etc/passwd",
    "a hidden file": ".lock",
    "a name with an escape code": "teachers/alpha/\x1b[2J",
    "a name that is not ASCII": "teachers/alpha/\u202e",
    "a unit that is not planned": "frames/unit-00099.parquet",
    "another way to write a unit": "frames/unit-000001.parquet",
    "a shard with a zero too many": "teachers/alpha/logits/c/01/0",
    "an array that the teacher does not have": "teachers/alpha/logits_affine/c/1/0",
    "another teacher": "teachers/gamma/teacher.json",
    "a file twice": SHARD,
    "a file that is not of the format": "teachers/alpha/notes.txt",
}


@pytest.mark.parametrize("name", LINES)
def test_a_list_with_other_names_is_refused(name: str, cache_root: Path, tmp_path: Path) -> None:
    listed = cache_root / "manifest-sha256.txt"
    listed.write_text(f"{listed.read_text()}{'0' * 64}  {LINES[name]}\n", encoding="utf-8")
    with pytest.raises(CacheCorruptError, match="does not list the files of this cache"):
        pull(cache_root, tmp_path / "copy")
    assert not (tmp_path / "copy").exists()
    assert not (tmp_path / "copy.partial").exists()


@pytest.mark.parametrize(
    "missing",
    ["plan.parquet", "frames/unit-00001.parquet", TABLE, "teachers/beta/logits_affine/zarr.json"],
)
def test_a_list_that_lacks_a_file_is_refused(
    missing: str, cache_root: Path, tmp_path: Path
) -> None:
    listed = cache_root / "manifest-sha256.txt"
    lines = listed.read_text().splitlines(keepends=True)
    listed.write_text("".join(line for line in lines if missing not in line))
    with pytest.raises(CacheCorruptError, match="does not list the files of this cache"):
        pull(cache_root, tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


def test_a_list_that_is_cut_is_refused(cache_root: Path, tmp_path: Path) -> None:
    listed = cache_root / "manifest-sha256.txt"
    listed.write_bytes(listed.read_bytes()[:-1])
    with pytest.raises(CacheCorruptError, match="does not list the files of this cache"):
        pull(cache_root, tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


def test_sizes_of_petabytes_are_refused(cache_root: Path, tmp_path: Path) -> None:
    """A sender who makes all digests agree still cannot announce sizes that no shard has."""
    commit = cache_root / "teachers/alpha/commits/unit-00001.json"
    resign(cache_root)
    record = json.loads(commit.read_text())
    record["files"][SHARD]["size"] = 10**15
    commit.write_text(UnitCommit.model_validate(record).resealed().model_dump_json())
    _list_again(cache_root, "teachers/alpha/commits/unit-00001.json")
    with pytest.raises(CacheCorruptError, match="contradict each other"):
        pull(cache_root, tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


def test_a_disk_that_is_too_small_is_refused_before_the_large_files(
    cache_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=10)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(StorageError, match="is too small for this cache"):
        pull(cache_root, tmp_path / "copy", Selection())
    assert not list((tmp_path / "copy.partial").glob("teachers/*/logits/c/*/0"))


def _list_again(root: Path, name: str) -> None:
    """Write the true sha256 of one file into the list."""
    listed = root / "manifest-sha256.txt"
    sha256 = hashlib.sha256((root / name).read_bytes()).hexdigest()
    lines = [line for line in listed.read_text().splitlines() if not line.endswith(f"  {name}")]
    listed.write_text("".join(f"{line}\n" for line in [*lines, f"{sha256}  {name}"]))


def test_another_content_digest_than_the_records_give_is_refused(
    cache_root: Path, tmp_path: Path
) -> None:
    path = cache_root / "manifest.json"
    digest = json.loads(path.read_text())["content_digest"]
    path.write_text(path.read_text().replace(digest, "0" * 64))
    _list_again(cache_root, "manifest.json")
    with pytest.raises(CacheError, match="is not the expected cache: nothing was copied"):
        pull(cache_root, tmp_path / "copy", expect=digest)
    assert not (tmp_path / "copy.partial").exists()
    with pytest.raises(CacheCorruptError, match="content digest in the manifest"):
        pull(cache_root, tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


def test_a_manifest_of_other_bytes_than_listed_is_refused(cache_root: Path, tmp_path: Path) -> None:
    path = cache_root / "manifest.json"
    path.write_text(path.read_text() + " ")
    with pytest.raises(TransferError, match=r"is not the one that manifest-sha256\.txt lists"):
        pull(cache_root, tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


def test_links_of_the_sender_do_not_lead_out_of_its_folder(
    cache_root: Path, tmp_path: Path
) -> None:
    (tmp_path / "secret").write_bytes((cache_root / SHARD).read_bytes())
    (cache_root / SHARD).unlink()
    (cache_root / SHARD).symlink_to(tmp_path / "secret")
    with pytest.raises(TransferError, match="cannot be transferred"):
        pull(cache_root, tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


def test_links_where_the_copy_is_written_are_refused(built_cache: Path, tmp_path: Path) -> None:
    (tmp_path / "copy.partial").mkdir()
    (tmp_path / "outside").mkdir()
    (tmp_path / "copy.partial/teachers").symlink_to(tmp_path / "outside")
    with pytest.raises(StorageError, match="holds a link"):
        pull(built_cache, tmp_path / "copy")
    assert not (tmp_path / "copy").exists()
    assert list((tmp_path / "outside").iterdir()) == []


def test_what_is_no_complete_cache_is_refused(tmp_path: Path, cache_root: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(CacheError, match="is not a target cache"):
        pull(tmp_path / "empty", tmp_path / "copy")
    assert not (tmp_path / "copy").exists()
    with pytest.raises(ConfigError, match="cannot be moved to or from ftp://host/c"):
        pull("ftp://host/c", tmp_path / "copy")
    assert not (tmp_path / "copy").exists()
    record = json.loads((cache_root / "manifest.json").read_text())
    record |= {"complete": False, "content_digest": ""}
    (cache_root / "manifest.json").write_text(json.dumps(record))
    with pytest.raises(CacheError, match="is not complete"):
        pull(cache_root, tmp_path / "copy")
    assert not (tmp_path / "copy").exists()

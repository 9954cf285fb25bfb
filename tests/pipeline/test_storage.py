"""Files are whole or absent; paths stay inside; a refusing disk is named."""

from __future__ import annotations

import errno
import hashlib
import os
from pathlib import Path

import pytest

from distinit.pipeline.storage import (
    atomic_path,
    atomic_write_bytes,
    safe_join,
    sha256_file,
    storage_errors,
)
from distinit.schemas.errors import CacheCorruptError, StorageError


def test_a_failed_write_leaves_the_old_file_and_no_partial(tmp_path: Path) -> None:
    target = tmp_path / "record.json"
    atomic_write_bytes(target, b"old")

    def write_half() -> None:
        with atomic_path(target) as partial:
            partial.write_bytes(b"ne")
            raise RuntimeError("half-way")

    with pytest.raises(RuntimeError, match="half-way"):
        write_half()
    assert target.read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["record.json"]


def test_a_write_makes_the_folder_and_replaces_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "er" / "record.json"
    atomic_write_bytes(target, b"old")
    atomic_write_bytes(target, b"new")
    assert target.read_bytes() == b"new"
    assert sha256_file(target) == hashlib.sha256(b"new").hexdigest()


@pytest.mark.parametrize(
    ("code", "remedy"), [(errno.ENOSPC, "free some space"), (errno.EROFS, "read-only")]
)
def test_a_refusing_disk_becomes_a_storage_error_with_a_remedy(code: int, remedy: str) -> None:
    with pytest.raises(StorageError, match=remedy), storage_errors(Path("x")):
        raise OSError(code, os.strerror(code))


def test_other_system_errors_pass_unchanged() -> None:
    with pytest.raises(FileNotFoundError), storage_errors(Path("x")):
        raise FileNotFoundError(errno.ENOENT, "gone")


def test_a_real_full_disk_is_reported(tmp_path: Path) -> None:
    target = tmp_path / "full"
    with (
        pytest.raises(StorageError, match="No space left"),
        storage_errors(target),
        Path("/dev/full").open("wb", buffering=0) as file,
    ):
        file.write(b"x")


@pytest.mark.parametrize("name", ["/etc/passwd", "../x", "a/../../x", "", "a\\b"])
def test_paths_that_leave_the_folder_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(CacheCorruptError, match="outside its own folder"):
        safe_join(tmp_path, name)


def test_a_link_that_leaves_the_folder_is_refused(tmp_path: Path) -> None:
    root = tmp_path / "cache"
    root.mkdir()
    (root / "link").symlink_to("/etc")
    with pytest.raises(CacheCorruptError, match="leads outside"):
        safe_join(root, "link/passwd")
    assert safe_join(root, "a/b.json") == root / "a" / "b.json"

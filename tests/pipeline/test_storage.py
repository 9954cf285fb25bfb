"""Files are complete or absent, paths stay inside their folder, disk errors are reported."""

from __future__ import annotations

import errno
import hashlib
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from distinit.pipeline.storage import (
    atomic_path,
    atomic_write_bytes,
    create_partial,
    open_for_writing,
    open_regular,
    read_bounded,
    refuse_links,
    remove_dead_partials,
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


def test_a_write_creates_the_folder_and_replaces_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "er" / "record.json"
    atomic_write_bytes(target, b"old")
    atomic_write_bytes(target, b"new")
    assert target.read_bytes() == b"new"
    assert sha256_file(target) == hashlib.sha256(b"new").hexdigest()


def test_concurrent_writers_of_one_path_never_mix_bytes(tmp_path: Path) -> None:
    target = tmp_path / "record.json"
    writers = 8
    all_half_written = threading.Barrier(writers)

    def write(number: int) -> Path:
        with atomic_path(target) as partial, partial.open("wb") as file:
            file.write(bytes([number]) * 100_000)
            file.flush()
            all_half_written.wait(timeout=60)
            file.write(bytes([number]) * 100_000)
        return partial

    with ThreadPoolExecutor(writers) as pool:
        names = list(pool.map(write, range(writers)))
    assert len(set(names)) == writers
    content = target.read_bytes()
    assert content == content[:1] * 200_000
    assert list(tmp_path.iterdir()) == [target]


def test_leftovers_of_killed_writers_are_removed_and_files_being_written_are_kept(
    tmp_path: Path,
) -> None:
    dead, descriptor = create_partial(tmp_path / "record.json")
    os.close(descriptor)
    others = {"movie.mp4.partial", "record.json.abcd.partial", "record.json"}
    for name in others:
        (tmp_path / name).touch()
    with atomic_path(tmp_path / "live.json") as live:
        remove_dead_partials(tmp_path)
        assert {path.name for path in tmp_path.iterdir()} == others | {live.name}
        live.write_bytes(b"new")
    assert not dead.exists()
    assert (tmp_path / "live.json").read_bytes() == b"new"
    remove_dead_partials(tmp_path / "missing")


def test_removing_leftovers_while_others_write_never_breaks_a_write(tmp_path: Path) -> None:
    finished = threading.Event()

    def sweep() -> None:
        while not finished.is_set():
            remove_dead_partials(tmp_path)

    with ThreadPoolExecutor(1) as pool:
        sweeping = pool.submit(sweep)
        try:
            for number in range(300):
                atomic_write_bytes(tmp_path / "record.json", b"%d" % number)
        finally:
            finished.set()
        sweeping.result()
    assert (tmp_path / "record.json").read_bytes() == b"299"


@pytest.mark.parametrize(
    ("code", "remedy"), [(errno.ENOSPC, "free some space"), (errno.EROFS, "read-only")]
)
def test_a_refusing_disk_becomes_a_storage_error_with_a_remedy(code: int, remedy: str) -> None:
    with pytest.raises(StorageError, match=remedy), storage_errors(Path("x")):
        raise OSError(code, os.strerror(code))


@pytest.mark.parametrize("name", ["record.json", "more/record.json"])
def test_a_file_in_the_place_of_a_folder_is_a_storage_error(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder").write_bytes(b"a file")
    with pytest.raises(StorageError, match="file"):
        atomic_write_bytes(tmp_path / "folder" / name, b"new")
    assert (tmp_path / "folder").read_bytes() == b"a file"


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


@pytest.mark.parametrize("name", ["/etc/passwd", "../x", "a/../../x", "", "a\\b", "a\0b", "a\nb"])
def test_paths_that_leave_the_folder_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(CacheCorruptError, match="outside of its folder"):
        safe_join(tmp_path, name)


def test_a_link_that_leaves_the_folder_is_refused(tmp_path: Path) -> None:
    root = tmp_path / "cache"
    root.mkdir()
    (root / "link").symlink_to("/etc")
    with pytest.raises(CacheCorruptError, match="leads outside"):
        safe_join(root, "link/passwd")
    assert safe_join(root, "a/b.json") == root / "a" / "b.json"


def test_a_link_in_the_place_of_a_file_is_replaced_not_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_bytes(b"precious")
    target = tmp_path / "record.json"
    target.symlink_to(outside)
    atomic_write_bytes(target, b"new")
    assert outside.read_bytes() == b"precious"
    assert target.read_bytes() == b"new"
    assert not target.is_symlink()


@pytest.mark.parametrize("kind", ["link", "dangling link", "folder", "pipe", "device"])
def test_only_a_regular_file_is_opened_for_writing(tmp_path: Path, kind: str) -> None:
    path, outside = tmp_path / "lock", tmp_path / "outside"
    if kind == "link":
        outside.write_bytes(b"precious")
        path.symlink_to(outside)
    elif kind == "dangling link":
        path.symlink_to(outside)
    elif kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path = Path("/dev/null")
    with pytest.raises(StorageError):
        open_for_writing(path)
    assert outside.exists() == (kind == "link")


def test_a_hard_link_to_a_file_with_content_is_not_written(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_bytes(b"precious")
    path = tmp_path / "lock"
    path.hardlink_to(outside)
    with pytest.raises(StorageError, match="2 names"):
        open_for_writing(path)
    assert outside.read_bytes() == b"precious"
    own = tmp_path / "lock.copy"
    own.write_bytes(path.read_bytes())
    own.replace(path)  # the remedy in the message
    os.close(open_for_writing(path))
    empty = tmp_path / "empty"  # a free lock in a copy by `cp -al`
    empty.touch()
    (tmp_path / "of a copy").hardlink_to(empty)
    os.close(open_for_writing(empty))


def test_a_pipe_or_folder_is_not_read_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path, Path("/dev/zero")):
        with pytest.raises(OSError, match="not a regular file"):
            open_regular(path)
        with pytest.raises(OSError, match="not a regular file"):
            sha256_file(path)


def test_a_read_is_bounded(tmp_path: Path) -> None:
    path = tmp_path / "record"
    path.write_bytes(b"12345")
    assert read_bounded(path, 5) == b"12345"
    with pytest.raises(OSError, match="more than 4 bytes"):
        read_bounded(path, 4)
    with pytest.raises(OSError, match="more than 4 bytes"):
        sha256_file(path, 4)


@pytest.mark.parametrize("kind", ["link to a file", "link to a folder", "dangling link", "pipe"])
def test_links_and_special_files_are_found_at_any_depth(tmp_path: Path, kind: str) -> None:
    root = tmp_path / "cache"
    (root / "teachers" / "a").mkdir(parents=True)
    (root / "teachers" / "a" / "teacher.json").write_bytes(b"{}")
    refuse_links(root)
    refuse_links(tmp_path / "not there")
    path = root / "teachers" / "a" / "commits"
    if kind == "pipe":
        os.mkfifo(path)
    else:
        targets = {"link to a file": root / "teachers/a/teacher.json", "link to a folder": tmp_path}
        path.symlink_to(targets.get(kind, tmp_path / "nowhere"))
    with pytest.raises(CacheCorruptError, match="teachers/a/commits"):
        refuse_links(root, CacheCorruptError)


def test_a_folder_that_is_a_link_itself_may_be_written(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    refuse_links(tmp_path / "link")
    atomic_write_bytes(tmp_path / "link" / "record.json", b"new")
    assert (tmp_path / "real" / "record.json").read_bytes() == b"new"

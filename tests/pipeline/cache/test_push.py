"""Caches are sent to other places: no damaged byte, and the manifest last."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers.caches import CORPUS, TEACHERS, open_writer, run_all
from helpers.objects import s3_bucket
from helpers.progress import RecordingProgress

from distinit.pipeline.cache import push as push_module
from distinit.pipeline.cache.copies import Selection
from distinit.pipeline.cache.published import PublishedFile
from distinit.pipeline.cache.pull import pull_cache
from distinit.pipeline.cache.push import Pushed, push_cache
from distinit.pipeline.cache.reader import TargetCache
from distinit.pipeline.cache.verify import verify_cache
from distinit.pipeline.lock import WriterLock
from distinit.pipeline.transport import receive as receive_module
from distinit.pipeline.transport import stores
from distinit.schemas.errors import (
    CacheCorruptError,
    CacheError,
    ConfigError,
    LockedError,
    StorageError,
    TransferError,
)

SHARD = "teachers/alpha/logits/c/1/0"


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receive_module, "_WAITS_SECONDS", (0.0, 0.0, 0.0))


@pytest.fixture
def bucket() -> Iterator[str]:
    """The URL of an empty place on an S3 server."""
    with s3_bucket("caches"):
        yield "s3://caches/team/one"


def push(root: Path, target: object, *, replace: bool = False) -> Pushed:
    progress = RecordingProgress()
    return push_cache(root, str(target), replace=replace, workers=4, progress=progress)


def pulled_files(source: str, target: Path) -> dict[str, bytes]:
    progress = RecordingProgress()
    pull_cache(source, target, Selection(), workers=4, expect=None, progress=progress)
    return files_of(target)


def files_of(root: Path) -> dict[str, bytes]:
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file() and path.name != ".lock"
    }


def test_s3_delivers_what_it_was_sent(bucket: str, built_cache: Path, tmp_path: Path) -> None:
    pushed = push(built_cache, bucket)
    whole = files_of(built_cache)
    assert (pushed.files, pushed.kept) == (len(whole), 0)
    assert pushed.sent_bytes == sum(map(len, whole.values()))
    assert pushed.target == bucket
    assert pulled_files(bucket, tmp_path / "copy") == whole
    again = push(built_cache, bucket)
    assert (again.kept, again.sent_bytes) == (len(whole), 0)


def test_a_signature_travels_with_its_cache(bucket: str, cache_root: Path, tmp_path: Path) -> None:
    (cache_root / "cache.sig").write_text("a signature")
    push(cache_root, bucket)
    assert pulled_files(bucket, tmp_path / "copy") == files_of(cache_root)
    run_all(tmp_path / "new", CORPUS, TEACHERS[1:])
    push(tmp_path / "new", bucket, replace=True)
    assert "cache.sig" not in pulled_files(bucket, tmp_path / "copy2")


def test_an_object_that_somebody_else_has_written_is_sent_again(
    bucket: str, built_cache: Path, tmp_path: Path
) -> None:
    import fsspec

    push(built_cache, bucket)
    size = (built_cache / SHARD).stat().st_size
    fsspec.filesystem("s3").pipe_file(f"{bucket}/{SHARD}", bytes(size))
    assert push(built_cache, bucket).sent_bytes == size
    assert pulled_files(bucket, tmp_path / "copy") == files_of(built_cache)


def test_a_folder_is_a_target_too(built_cache: Path, tmp_path: Path) -> None:
    push(built_cache, tmp_path / "there")
    assert files_of(tmp_path / "there") == files_of(built_cache)
    assert push(built_cache, (tmp_path / "there").as_uri()).sent_bytes == 0


def test_another_cache_is_only_replaced_on_request(
    bucket: str, built_cache: Path, tmp_path: Path
) -> None:
    run_all(tmp_path / "old", CORPUS, (*TEACHERS[:1],))
    run_all(tmp_path / "new", CORPUS, TEACHERS[1:])
    push(tmp_path / "old", bucket)
    with pytest.raises(CacheError, match="another cache is at s3://caches/team/one"):
        push(tmp_path / "new", bucket)
    assert pulled_files(bucket, tmp_path / "copy") == files_of(tmp_path / "old")
    push(tmp_path / "new", bucket, replace=True)
    assert pulled_files(bucket, tmp_path / "copy2") == files_of(tmp_path / "new")
    import fsspec

    found = {name.removeprefix("caches/team/one/") for name in fsspec.filesystem("s3").find(bucket)}
    assert found == files_of(tmp_path / "new").keys(), "nothing of the old cache is left"


class Breaks(stores.FolderStore):
    """A folder to which one file cannot be sent."""

    def write(self, name: str, path: Path, sha256: str) -> None:
        if name == SHARD:
            raise stores.NetworkError("the connection broke")
        super().write(name, path, sha256)


def test_a_push_that_fails_leaves_no_cache_and_is_resumed(
    built_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("distinit.pipeline.cache.push.open_store", lambda a: Breaks(Path(a)))
        with pytest.raises(TransferError, match=r"logits/c/1/0\" cannot be transferred"):
            push(built_cache, tmp_path / "there")
    assert not (tmp_path / "there/manifest.json").exists()
    with pytest.raises(CacheError, match="is not a target cache"):
        pulled_files(str(tmp_path / "there"), tmp_path / "copy")
    assert push(built_cache, tmp_path / "there").kept > 0
    assert files_of(tmp_path / "there") == files_of(built_cache)


def test_two_pushes_to_one_place_do_not_mix(
    bucket: str, built_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another cache is sent there while the first one is."""
    run_all(tmp_path / "new", CORPUS, TEACHERS[1:])
    send = push_module._Push._send_one

    def send_after_another(self: Any, file: PublishedFile, counter: Any, stopping: Any) -> None:
        if file.name == SHARD:
            push(tmp_path / "new", bucket)
        send(self, file, counter, stopping)

    with monkeypatch.context() as patch:
        patch.setattr(push_module._Push, "_send_one", send_after_another)
        with pytest.raises(TransferError, match="another push to s3://caches/team/one has begun"):
            push_cache(built_cache, bucket, replace=False, workers=1, progress=RecordingProgress())
    assert pulled_files(bucket, tmp_path / "copy") == files_of(tmp_path / "new")


@pytest.mark.parametrize("name", [SHARD, "manifest.json", "manifest-sha256.txt"])
def test_what_another_push_has_written_meanwhile_is_not_published(
    name: str, bucket: str, built_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fsspec

    flush = push_module._Push._flush

    def flush_and_change(self: Any) -> None:
        flush(self)
        fsspec.filesystem("s3").pipe_file(f"{bucket}/{name}", b"{}")

    monkeypatch.setattr(push_module._Push, "_flush", flush_and_change)
    with pytest.raises(TransferError, match="has begun: this one was ended"):
        push(built_cache, bucket)
    assert fsspec.filesystem("s3").cat_file(f"{bucket}/{name}") == b"{}"


def test_a_folder_takes_one_push_at_a_time(built_cache: Path, tmp_path: Path) -> None:
    with (
        WriterLock(tmp_path / "there/.lock"),
        pytest.raises(LockedError, match="another process is writing"),
    ):
        push(built_cache, tmp_path / "there")
    push(built_cache, tmp_path / "there")
    assert verify_cache(tmp_path / "there").problems == ()


@pytest.mark.parametrize("name", ["README.md", "thesis.txt", "manifest-sha256.txt"])
def test_a_folder_with_other_files_is_not_a_target(
    name: str, built_cache: Path, tmp_path: Path
) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / name).write_text(f"{'0' * 64}  data/mine.txt\n")
    with pytest.raises(ConfigError, match="holds files that are not of a cache"):
        push(built_cache, tmp_path / "there")
    assert files_of(tmp_path / "there") == {name: f"{'0' * 64}  data/mine.txt\n".encode()}


def test_a_damaged_cache_is_not_sent(cache_root: Path, tmp_path: Path) -> None:
    data = bytearray((cache_root / SHARD).read_bytes())
    data[100] ^= 1
    (cache_root / SHARD).write_bytes(data)
    with pytest.raises(CacheCorruptError, match="is damaged: it was not sent"):
        push(cache_root, tmp_path / "there")
    assert not (tmp_path / "there/manifest.json").exists()
    assert not (tmp_path / "there" / SHARD).exists()
    (cache_root / SHARD).write_bytes(data[:-1])
    with pytest.raises(CacheCorruptError, match="nothing was sent"):
        push(cache_root, tmp_path / "elsewhere")
    assert not (tmp_path / "elsewhere").exists()


def test_an_incomplete_cache_is_not_sent(tmp_path: Path) -> None:
    open_writer(tmp_path / "cache", CORPUS, TEACHERS).close()
    with pytest.raises(CacheError, match="is not complete"):
        push(tmp_path / "cache", tmp_path / "there")
    assert not (tmp_path / "there").exists()


def test_places_that_cannot_be_used_are_refused(cache_root: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="a web server takes no files"):
        push(cache_root, "https://host/caches")
    for inside in (cache_root, cache_root / "below", cache_root.parent):
        with pytest.raises(ConfigError, match="lie inside each other"):
            push(cache_root, inside)
    (tmp_path / "there").mkdir()
    (tmp_path / "there/frames").symlink_to(tmp_path)
    with pytest.raises(StorageError, match="holds a link"):
        push(cache_root, tmp_path / "there")
    shutil.rmtree(tmp_path / "there")
    (tmp_path / "there").mkdir()
    (tmp_path / "there/manifest.json").write_text("{}")
    with pytest.raises(CacheError, match="is not that of an intact cache"):
        push(cache_root, tmp_path / "there")


def test_a_bucket_that_does_not_exist_is_an_error(bucket: str, built_cache: Path) -> None:
    with pytest.raises(TransferError, match="s3://nowhere/one"):
        push(built_cache, "s3://nowhere/one")
    assert TargetCache.open(built_cache).manifest.complete

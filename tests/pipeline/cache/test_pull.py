"""Caches are copied from other places: every byte is checked, and a copy is whole or absent."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.caches import CORPUS, TEACHERS, resign, run_all
from helpers.progress import RecordingProgress
from helpers.web import WebFolder, serve

from distinit.pipeline.cache import remote_records
from distinit.pipeline.cache.copies import Selection
from distinit.pipeline.cache.published import max_list_bytes
from distinit.pipeline.cache.pull import Pulled, pull_cache
from distinit.pipeline.cache.reader import TargetCache
from distinit.pipeline.cache.verify import verify_cache
from distinit.pipeline.transport import receive as receive_module
from distinit.pipeline.transport import remote
from distinit.schemas.errors import (
    CacheCorruptError,
    CacheError,
    ConfigError,
    CorpusError,
    DistInitError,
    StorageError,
    TransferError,
)
from distinit.schemas.manifest import UnitCommit

SHARD = "teachers/alpha/logits/c/1/0"
TABLE = "teachers/beta/confidence/unit-00002.parquet"


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receive_module, "_WAITS_SECONDS", (0.0, 0.0, 0.0))


@pytest.fixture
def web(built_cache: Path) -> Iterator[WebFolder]:
    """A web server with the cache below ``/caches/one``."""
    for folder in serve(WebFolder(ranges=True)):
        folder.add(built_cache, "/caches/one")
        yield folder


def pull(
    source: object, target: Path, selection: Selection | None = None, expect: str | None = None
) -> Pulled:
    return pull_cache(
        str(source),
        target,
        selection or Selection(),
        workers=4,
        expect=expect,
        progress=RecordingProgress(),
    )


def files_of(root: Path) -> dict[str, bytes]:
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file() and path.name != ".lock"
    }


def refuse(error: type[DistInitError], text: str, source: object, folder: Path) -> None:
    """A pull to ``folder / "copy"`` fails with ``text``, and nothing has that name."""
    with pytest.raises(error, match=text):
        pull(source, folder / "copy")
    assert not (folder / "copy").exists()


def test_a_folder_is_copied_with_all_its_bytes(built_cache: Path, tmp_path: Path) -> None:
    digest = TargetCache.open(built_cache).manifest.content_digest
    pulled = pull(built_cache, tmp_path / "copy", expect=digest)
    assert files_of(tmp_path / "copy") == files_of(built_cache)
    assert [path.name for path in tmp_path.iterdir()] == ["copy"]
    assert (pulled.content_digest, pulled.copy, pulled.kept) == (digest, None, 0)
    assert (pulled.files, pulled.units, pulled.teachers) == (67, 7, ("alpha", "beta"))
    assert verify_cache(tmp_path / "copy").problems == ()
    assert pull(built_cache.as_uri(), tmp_path / "again").source == str(built_cache)


def test_the_same_pull_again_copies_nothing_and_others_are_refused(
    built_cache: Path, tmp_path: Path
) -> None:
    first = pull(built_cache, tmp_path / "copy")
    again = pull(built_cache, tmp_path / "copy")
    assert (again.received_bytes, again.kept) == (0, first.files)
    with pytest.raises(ConfigError, match="exists already: nothing was copied"):
        pull(built_cache, tmp_path / "copy", Selection(teachers=("alpha",)))
    (tmp_path / "other").mkdir()
    (tmp_path / "other/file").touch()
    with pytest.raises(ConfigError, match="exists already: nothing was copied"):
        pull(built_cache, tmp_path / "other")
    with pytest.raises(ConfigError, match="a target cache: nothing else is written there"):
        pull(built_cache, tmp_path / "copy/inside")


def test_a_web_server_is_read_without_listing(
    web: WebFolder, built_cache: Path, tmp_path: Path
) -> None:
    pull(f"{web.base}/caches/one/", tmp_path / "copy")
    assert files_of(tmp_path / "copy") == files_of(built_cache)
    names = {name.removeprefix("/caches/one/"): count for name, count in web.gets.items()}
    assert (names.pop("copy.json"), names.pop("cache.sig"), names.pop("manifest.json")) == (1, 1, 3)
    assert names == dict.fromkeys(files_of(built_cache).keys() - {"manifest.json"}, 1)


def test_broken_connections_are_tried_again(
    web: WebFolder, built_cache: Path, tmp_path: Path
) -> None:
    web.torn.update({f"/caches/one/{SHARD}": 3, f"/caches/one/{TABLE}": 1})
    web.statuses[f"/caches/one/{TABLE}"] = [503, 500]
    pull(f"{web.base}/caches/one", tmp_path / "copy")
    assert files_of(tmp_path / "copy") == files_of(built_cache)
    assert (web.gets[f"/caches/one/{SHARD}"], web.gets[f"/caches/one/{TABLE}"]) == (4, 4)


def test_a_server_without_ranges_starts_over(web: WebFolder, tmp_path: Path) -> None:
    web.ranges = False
    web.torn[f"/caches/one/{SHARD}"] = 2
    pull(f"{web.base}/caches/one", tmp_path / "copy")
    size = len(web.files[f"/caches/one/{SHARD}"])
    assert web.sent[f"/caches/one/{SHARD}"] == size + 2 * (size // 2)
    assert verify_cache(tmp_path / "copy").problems == ()


def test_a_pull_that_fails_keeps_what_has_arrived(
    web: WebFolder, built_cache: Path, tmp_path: Path
) -> None:
    kept = web.files.pop(f"/caches/one/{SHARD}")
    refuse(TransferError, "cannot be transferred", f"{web.base}/caches/one", tmp_path)
    assert (tmp_path / "copy.partial/manifest-sha256.txt").is_file()
    web.files[f"/caches/one/{SHARD}"] = kept
    web.gets.clear()
    pulled = pull(f"{web.base}/caches/one", tmp_path / "copy")
    assert files_of(tmp_path / "copy") == files_of(built_cache)
    assert pulled.kept > 20
    assert web.gets[f"/caches/one/{SHARD}"] == 1
    assert web.gets["/caches/one/videos.parquet"] == 0


def test_files_of_an_earlier_pull_of_another_cache_are_checked(
    web: WebFolder, built_cache: Path, tmp_path: Path
) -> None:
    """The server's cache has changed since the pull was interrupted."""
    del web.files["/caches/one/README.md"]
    refuse(TransferError, "README.md", f"{web.base}/caches/one", tmp_path)
    run_all(tmp_path / "new", CORPUS, TEACHERS[:1])
    web.files.clear()
    web.add(tmp_path / "new", "/caches/one")
    pull(f"{web.base}/caches/one", tmp_path / "copy")
    assert files_of(tmp_path / "copy") == files_of(tmp_path / "new")


def test_damage_at_the_sender_is_not_copied(web: WebFolder, tmp_path: Path) -> None:
    data = bytearray(web.files[f"/caches/one/{SHARD}"])
    data[100] ^= 1
    web.files[f"/caches/one/{SHARD}"] = bytes(data)
    refuse(
        TransferError,
        "has other bytes than its records say",
        f"{web.base}/caches/one",
        tmp_path / "copy",
    )
    assert not (tmp_path / "copy.partial" / SHARD).exists()
    assert web.gets[f"/caches/one/{SHARD}"] == 2, "once more, in case that the network did it"


def test_a_file_that_never_ends_is_refused_at_its_recorded_size(
    web: WebFolder, tmp_path: Path
) -> None:
    web.endless.add(f"/caches/one/{SHARD}")
    refuse(TransferError, "is larger than it may be", f"{web.base}/caches/one", tmp_path)
    arrived = sum(len(data) for data in files_of(tmp_path / "copy.partial").values())
    assert arrived < 1 << 20


def test_a_manifest_that_never_ends_is_refused(
    web: WebFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_records, "MAX_RECORD_BYTES", 1 << 21)
    web.endless.add("/caches/one/manifest.json")
    refuse(
        TransferError,
        'manifest.json" is larger than it may be',
        f"{web.base}/caches/one",
        tmp_path / "copy",
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["manifest.json", SHARD])
def test_a_server_that_sends_a_byte_now_and_then_is_not_waited_for(
    name: str, web: WebFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "_PACE_SECONDS", 0.5)
    web.drips.add(f"/caches/one/{name}")
    with pytest.raises(TransferError) as caught:
        pull(f"{web.base}/caches/one", tmp_path / "copy")
    assert "the server sends less than 64 KiB per minute" in str(caught.value)


def test_a_record_has_to_arrive_in_time(
    web: WebFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(receive_module, "_RECORD_SECONDS", -1e6)
    with pytest.raises(TransferError) as caught:
        pull(f"{web.base}/caches/one", tmp_path / "copy")
    assert "not received within" in str(caught.value)


def test_a_list_that_never_ends_is_refused_at_the_size_that_the_manifest_allows(
    web: WebFolder, built_cache: Path, tmp_path: Path
) -> None:
    limit = max_list_bytes(TargetCache.open(built_cache).manifest)
    size = (built_cache / "manifest-sha256.txt").stat().st_size
    assert 2 * size < limit < 8 * size
    web.endless.add("/caches/one/manifest-sha256.txt")
    with pytest.raises(TransferError) as caught:
        pull(f"{web.base}/caches/one", tmp_path / "copy")
    assert f"at most {limit:,} bytes" in str(caught.value)


def test_redirects_without_an_end_are_not_followed(web: WebFolder, tmp_path: Path) -> None:
    web.redirects[f"/caches/one/{SHARD}"] = f"{web.base}/caches/one/{SHARD}"
    with pytest.raises(TransferError) as caught:
        pull(f"{web.base}/caches/one", tmp_path / "copy")
    assert "it redirects again and again" in str(caught.value)


@pytest.mark.parametrize("url", ["http://127.0.0.1:99999/x", "http://[::1"])
def test_addresses_that_are_no_urls_are_refused(url: str, tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="a URL is malformed") as caught:
        pull(url, tmp_path / "copy")
    assert "check the URL" in str(caught.value)


def test_a_redirect_to_a_local_file_is_not_followed(web: WebFolder, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    web.redirects[f"/caches/one/{SHARD}"] = (tmp_path / "secret").as_uri()
    with pytest.raises(TransferError) as caught:
        pull(f"{web.base}/caches/one", tmp_path / "copy")
    assert "not on the web" in str(caught.value)
    web.redirects[f"/caches/one/{SHARD}"] = f"{web.base}/elsewhere"
    web.files["/elsewhere"] = web.files[f"/caches/one/{SHARD}"]
    assert pull(f"{web.base}/caches/one", tmp_path / "copy").kept > 20


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
    refuse(CacheCorruptError, "does not list the files of this cache", cache_root, tmp_path)
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
    refuse(CacheCorruptError, "does not list the files of this cache", cache_root, tmp_path)


def test_a_list_that_is_cut_is_refused(cache_root: Path, tmp_path: Path) -> None:
    listed = cache_root / "manifest-sha256.txt"
    listed.write_bytes(listed.read_bytes()[:-1])
    refuse(CacheCorruptError, "does not list the files of this cache", cache_root, tmp_path)


def test_sizes_of_petabytes_are_refused(cache_root: Path, tmp_path: Path) -> None:
    """A sender who makes all digests agree still cannot announce sizes that no shard has."""
    commit = cache_root / "teachers/alpha/commits/unit-00001.json"
    resign(cache_root)
    record = json.loads(commit.read_text())
    record["files"][SHARD]["size"] = 10**15
    commit.write_text(UnitCommit.model_validate(record).resealed().model_dump_json())
    _list_again(cache_root, "teachers/alpha/commits/unit-00001.json")
    refuse(CacheCorruptError, "contradict each other", cache_root, tmp_path)


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
    refuse(CacheCorruptError, "content digest in the manifest", cache_root, tmp_path)


def test_a_manifest_of_other_bytes_than_listed_is_refused(cache_root: Path, tmp_path: Path) -> None:
    path = cache_root / "manifest.json"
    path.write_text(path.read_text() + " ")
    refuse(
        TransferError,
        "is not the one that manifest-sha256.txt lists",
        cache_root,
        tmp_path / "copy",
    )


def test_links_of_the_sender_do_not_lead_out_of_its_folder(
    cache_root: Path, tmp_path: Path
) -> None:
    (tmp_path / "secret").write_bytes((cache_root / SHARD).read_bytes())
    (cache_root / SHARD).unlink()
    (cache_root / SHARD).symlink_to(tmp_path / "secret")
    refuse(TransferError, "cannot be transferred", cache_root, tmp_path)


def test_links_where_the_copy_is_written_are_refused(built_cache: Path, tmp_path: Path) -> None:
    (tmp_path / "copy.partial").mkdir()
    (tmp_path / "outside").mkdir()
    (tmp_path / "copy.partial/teachers").symlink_to(tmp_path / "outside")
    refuse(StorageError, "holds a link", built_cache, tmp_path)
    assert list((tmp_path / "outside").iterdir()) == []


def test_what_is_no_complete_cache_is_refused(tmp_path: Path, cache_root: Path) -> None:
    (tmp_path / "empty").mkdir()
    refuse(CacheError, "is not a target cache", tmp_path / "empty", tmp_path)
    refuse(ConfigError, "cannot be moved to or from ftp://host/c", "ftp://host/c", tmp_path)
    record = json.loads((cache_root / "manifest.json").read_text())
    record |= {"complete": False, "content_digest": ""}
    (cache_root / "manifest.json").write_text(json.dumps(record))
    refuse(CacheError, "is not complete", cache_root, tmp_path)


def test_the_progress_counts_bytes_and_files(built_cache: Path, tmp_path: Path) -> None:
    progress = RecordingProgress()
    pull_cache(
        str(built_cache),
        tmp_path / "copy",
        Selection(),
        workers=2,
        expect=None,
        progress=progress,
    )
    (records, pulled) = progress.started
    assert records[:3] == ("records", 24, "files")
    sized = sum(
        path.stat().st_size
        for pattern in ("frames/*", "teachers/*/confidence/*", "teachers/*/*/c/*/0")
        for path in built_cache.glob(pattern)
    )
    assert pulled == ("pull", round(sized / 1e6, 3), "MB", 0)
    assert progress.advances[-1][1] == {"files": (42, 42)}
    assert progress.finished == 2

"""Caches are copied from other places: every byte is checked, and a copy is whole or absent."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.caches import CORPUS, TEACHERS, run_all
from helpers.progress import RecordingProgress
from helpers.pulls import files_of, pull
from helpers.web import WebFolder, serve

from distinit.pipeline.cache import remote_records
from distinit.pipeline.cache.copies import Selection
from distinit.pipeline.cache.published import max_list_bytes
from distinit.pipeline.cache.pull import pull_cache
from distinit.pipeline.cache.reader import TargetCache
from distinit.pipeline.cache.verify import verify_cache
from distinit.pipeline.transport import receive as receive_module
from distinit.pipeline.transport import remote
from distinit.schemas.errors import (
    ConfigError,
    CorpusError,
    TransferError,
)

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
    with pytest.raises(TransferError, match="cannot be transferred"):
        pull(f"{web.base}/caches/one", tmp_path / "copy")
    assert not (tmp_path / "copy").exists()
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
    with pytest.raises(TransferError, match=r"README\.md"):
        pull(f"{web.base}/caches/one", tmp_path / "copy")
    assert not (tmp_path / "copy").exists()
    run_all(tmp_path / "new", CORPUS, TEACHERS[:1])
    web.files.clear()
    web.add(tmp_path / "new", "/caches/one")
    pull(f"{web.base}/caches/one", tmp_path / "copy")
    assert files_of(tmp_path / "copy") == files_of(tmp_path / "new")


def test_damage_at_the_sender_is_not_copied(web: WebFolder, tmp_path: Path) -> None:
    data = bytearray(web.files[f"/caches/one/{SHARD}"])
    data[100] ^= 1
    web.files[f"/caches/one/{SHARD}"] = bytes(data)
    with pytest.raises(TransferError, match="has other bytes than its records say"):
        pull(f"{web.base}/caches/one", tmp_path / "copy")
    assert not (tmp_path / "copy").exists()
    assert not (tmp_path / "copy.partial" / SHARD).exists()
    assert web.gets[f"/caches/one/{SHARD}"] == 2, "once more, in case that the network did it"


def test_a_file_that_never_ends_is_refused_at_its_recorded_size(
    web: WebFolder, tmp_path: Path
) -> None:
    web.endless.add(f"/caches/one/{SHARD}")
    with pytest.raises(TransferError, match="is larger than it may be"):
        pull(f"{web.base}/caches/one", tmp_path / "copy")
    assert not (tmp_path / "copy").exists()
    arrived = sum(len(data) for data in files_of(tmp_path / "copy.partial").values())
    assert arrived < 1 << 20


def test_a_manifest_that_never_ends_is_refused(
    web: WebFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_records, "MAX_RECORD_BYTES", 1 << 21)
    web.endless.add("/caches/one/manifest.json")
    with pytest.raises(TransferError, match=r'manifest\.json" is larger than it may be'):
        pull(f"{web.base}/caches/one", tmp_path / "copy")
    assert not (tmp_path / "copy").exists()
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

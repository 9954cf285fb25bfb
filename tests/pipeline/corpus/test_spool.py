"""The spool: downloads are complete or absent, its size is limited, processes share it."""

from __future__ import annotations

import fcntl
import hashlib
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from distinit.pipeline.corpus import spool as spool_module
from distinit.pipeline.corpus.spool import Spool
from distinit.schemas.corpus import SpoolConfig
from distinit.schemas.errors import CorpusError, DecodeError


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool_module, "_WAITS_SECONDS", (0.01, 0.01, 0.01))


def kept(spool: Spool) -> dict[str, int]:
    """The size of each file in the spool, by the first byte of its content."""
    files = [path for path in spool.folder.iterdir() if path.name != ".lock"]
    assert all(path.stem == hashlib.sha256(path.read_bytes()).hexdigest() for path in files)
    return {path.read_bytes()[:1].decode(): path.stat().st_size for path in files}


def test_a_video_is_stored_by_digest_and_fetched_again_without_a_request(
    web, tmp_path: Path
) -> None:
    web.files["/a b [1].MP4"] = data = os.urandom(100_000)
    spool = Spool(tmp_path / "spool", 1 << 20)
    url = web.url("/a b [1].MP4", "token=SECRET")
    with spool.fetch(url) as spooled:
        assert spooled.path.read_bytes() == data
        assert spooled.path.name == hashlib.sha256(data).hexdigest() + ".mp4"
        assert spooled.size_bytes == 100_000
        assert spooled.version > 0
    with spool.fetch(url, spooled.digest) as again:
        assert again.path == spooled.path
    assert web.gets["/a b [1].MP4"] == 1


def test_the_default_folder_is_private_and_below_xdg_cache_home(web) -> None:
    web.files["/a.mp4"] = b"a"
    spool = Spool.of(SpoolConfig(limit_gib=0.5))
    assert spool.folder == Path(os.environ["XDG_CACHE_HOME"]) / "distinit" / "spool"
    assert spool.limit_bytes == 1 << 29
    with spool.fetch(web.url("/a.mp4")):
        assert spool.folder.stat().st_mode & 0o777 == 0o700


def test_the_least_recently_used_video_is_evicted(web, tmp_path: Path) -> None:
    spool = Spool(tmp_path, 250)
    digests = {}
    for name in "abc":
        web.files[f"/{name}"] = name.encode() * 100
        with spool.fetch(web.url(f"/{name}")) as spooled:
            digests[name] = spooled.digest
        if name == "b":
            with spool.fetch(web.url("/a"), digests["a"]):
                pass  # now b is the older one
    assert kept(spool) == {"a": 100, "c": 100}


def test_videos_in_use_are_kept_and_a_download_waits_for_space(web, tmp_path: Path) -> None:
    spool = Spool(tmp_path, 150)
    web.files |= {"/a": b"a" * 100, "/b": b"b" * 100}
    fetched = threading.Event()

    def fetch_b() -> dict[str, int]:
        with spool.fetch(web.url("/b")):
            fetched.set()
            return kept(spool)

    with ThreadPoolExecutor(1) as threads, spool.fetch(web.url("/a")) as first:
        second = threads.submit(fetch_b)
        assert not fetched.wait(0.5)
        assert kept(spool) == {"a": 100}
        assert first.path.read_bytes() == b"a" * 100
        requests_for_b = web.gets["/b"]
    assert requests_for_b == 0
    assert second.result() == {"b": 100}


def test_waiting_and_downloading_end_when_the_video_is_no_longer_needed(
    web, tmp_path: Path
) -> None:
    spool = Spool(tmp_path, 150)
    web.files |= {"/a": b"a" * 100, "/b": b"b" * 100}
    stopping = threading.Event()
    with spool.fetch(web.url("/a")), ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(spool.fetch(web.url("/b"), None, stopping).__enter__)
        stopping.set()
        with pytest.raises(DecodeError, match="no longer needed"):
            waiting.result(60)
    with pytest.raises(DecodeError, match="no longer needed"):
        spool.fetch(web.url("/b"), None, stopping).__enter__()
    assert kept(spool) == {}, "a was evicted, and b was not downloaded"


def test_a_video_in_use_by_another_process_is_kept(web, tmp_path: Path) -> None:
    spool = Spool(tmp_path, 150)
    web.files |= {"/a": b"a" * 100, "/b": b"b" * 40, "/c": b"c" * 100}
    code = (
        "import sys; from pathlib import Path; from distinit.pipeline.corpus.spool import Spool\n"
        "with Spool(Path(sys.argv[1]), 150).fetch(sys.argv[2]):\n"
        "    print('held', flush=True); sys.stdin.read()"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path), web.url("/a")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        with spool.fetch(web.url("/b")):
            assert kept(spool) == {"a": 100, "b": 40}
        other.kill()
    with spool.fetch(web.url("/c")):
        assert kept(spool) in ({"c": 100}, {"b": 40, "c": 100})


def test_partial_downloads_of_dead_processes_only_are_removed(web, tmp_path: Path) -> None:
    web.files["/a"] = b"a"
    (tmp_path / "dead.partial").write_bytes(b"half")
    with (tmp_path / "live.partial").open("wb") as live:
        fcntl.flock(live, fcntl.LOCK_SH)
        with Spool(tmp_path, 1000).fetch(web.url("/a")):
            assert {path.name for path in tmp_path.glob("*.partial")} == {"live.partial"}


@pytest.mark.parametrize("lengths", [True, False])
def test_a_video_larger_than_the_spool_is_refused_and_leaves_nothing(
    lengths: bool, web, tmp_path: Path
) -> None:
    web.files["/a.mp4"] = b"a" * 101
    web.lengths = lengths
    with pytest.raises(DecodeError, match=r"a\.mp4: larger than the spool"):
        Spool(tmp_path, 100).fetch(web.url("/a.mp4")).__enter__()
    assert list(tmp_path.glob("*")) in ([], [tmp_path / ".lock"])


def test_broken_downloads_and_server_errors_are_retried(web, tmp_path: Path) -> None:
    web.files["/a"] = data = b"a" * 5000
    web.torn["/a"] = 1
    web.statuses["/a"] = [503, 200]
    with Spool(tmp_path, 1 << 20).fetch(web.url("/a")) as spooled:
        assert spooled.path.read_bytes() == data
    assert web.gets["/a"] == 3


def test_a_broken_download_resumes_where_it_stopped(web, tmp_path: Path) -> None:
    web.files["/a.mp4"] = data = os.urandom(8 << 20)
    web.ranges = True
    web.torn["/a.mp4"] = 5  # more than the attempts allowed without progress
    with Spool(tmp_path, 1 << 24).fetch(web.url("/a.mp4")) as spooled:
        assert spooled.path.read_bytes() == data
        assert spooled.digest == hashlib.sha256(data).hexdigest()
    assert web.gets["/a.mp4"] >= 6
    # Starting over each time, it would be five halves and a whole. The exact number varies: bytes
    # that had arrived when a connection broke, but were not read yet, are sent again.
    assert web.sent["/a.mp4"] < 3.5 * len(data)


@pytest.mark.parametrize("tags", [True, False])
def test_a_broken_download_starts_over_if_the_object_has_changed(
    tags: bool, web, tmp_path: Path
) -> None:
    web.files["/a"] = os.urandom(5000)
    web.ranges, web.tags, web.torn["/a"] = True, tags, 1
    new = os.urandom(5000)

    class ChangesBetweenAttempts(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            web.files["/a"] = new
            return False

    with Spool(tmp_path, 1 << 20).fetch(web.url("/a"), None, ChangesBetweenAttempts()) as spooled:
        assert spooled.path.read_bytes() == new
    assert web.sent["/a"] == 2500 + 5000


def test_a_download_without_progress_fails_after_a_few_attempts(web, tmp_path: Path) -> None:
    web.files["/a.mp4"] = b"a" * 4000
    web.torn["/a.mp4"] = 99  # and the server does not support ranges
    with pytest.raises(DecodeError, match=r"a\.mp4: cannot be fetched: "):
        Spool(tmp_path, 1 << 20).fetch(web.url("/a.mp4")).__enter__()
    assert 4 <= web.gets["/a.mp4"] < 20  # some attempts may deliver a few more bytes
    assert kept(Spool(tmp_path, 1 << 20)) == {}


def test_after_four_attempts_the_reason_is_reported_without_secrets(web, tmp_path: Path) -> None:
    web.files["/a.mp4"] = b"a"
    web.statuses["/a.mp4"] = [503] * 9
    url = web.url("/a.mp4", "token=SECRET").replace("http://", "http://me:PASSWORD@")
    with pytest.raises(DecodeError) as refused:
        Spool(tmp_path, 100).fetch(url).__enter__()
    assert refused.value.problem == "a.mp4: cannot be fetched: HTTP status 503"
    assert refused.value.__cause__ is None
    assert "SECRET" not in str(refused.value)
    assert "PASSWORD" not in str(refused.value)
    assert web.gets["/a.mp4"] == 4


def test_a_missing_file_is_requested_only_once(web, tmp_path: Path) -> None:
    with pytest.raises(DecodeError, match="no such file"):
        Spool(tmp_path, 100).fetch(web.url("/none.mp4")).__enter__()
    assert web.gets["/none.mp4"] <= 1


def test_a_video_that_changed_since_it_was_listed_is_refused(web, tmp_path: Path) -> None:
    web.files["/a.mp4"] = b"new"
    with pytest.raises(DecodeError) as refused:
        Spool(tmp_path, 100).fetch(web.url("/a.mp4"), "0" * 64).__enter__()
    assert refused.value.problem == "a.mp4: changed since it was listed"
    assert hashlib.sha256(b"new").hexdigest() in str(refused.value.found)


@pytest.mark.parametrize("lengths", [True, False])
def test_parallel_downloads_are_complete_and_stay_within_the_limit(
    lengths: bool, web, tmp_path: Path
) -> None:
    spool = Spool(tmp_path, 3000)
    web.lengths = lengths
    for name in "abcdef":
        web.files[f"/{name}"] = name.encode() * 1000

    def check(name: str) -> bool:
        with spool.fetch(web.url(f"/{name}")) as spooled:
            with (tmp_path / ".lock").open("ab") as lock:  # held by everyone who changes files
                fcntl.flock(lock, fcntl.LOCK_EX)
                assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 3000
            return spooled.path.read_bytes() == web.files[f"/{name}"]

    with ThreadPoolExecutor(6) as threads:
        assert all(threads.map(check, "abcdef" * 3))


@pytest.mark.parametrize(
    "url", ["nothing://host/a.mp4", "zip://a.mp4::http://127.0.0.1:9/b.zip", "http://[/a.mp4"]
)
def test_unusable_urls_are_refused(url: str, tmp_path: Path) -> None:
    with pytest.raises(CorpusError):
        Spool(tmp_path, 100).fetch(url).__enter__()

"""Extraction from a web server gives the same cache as from files, without secrets in it."""

from __future__ import annotations

import functools
import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pyarrow.parquet as pq
import pytest
from helpers.progress import RecordingProgress

from distinit.pipeline.cache.verify import verify_cache
from distinit.pipeline.corpus import spool as spool_module
from distinit.pipeline.progress import NullProgress, Progress
from distinit.pipeline.transport import remote as remote_module
from distinit.schemas.errors import TooManyFailuresError, UnreachableError
from distinit.schemas.extract import ExtractConfig
from distinit.stages.extract import ExtractResult, extract


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def serving(kind: type[Quiet], root: Path) -> Iterator[str]:
    """Run a web server on loopback; yields its address."""
    handler = functools.partial(kind, directory=str(root))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def served(corpus: Path) -> Iterator[str]:
    """The address of a server with the shared corpus."""
    with serving(Quiet, corpus) as base:
        yield base


def run(
    videos: Path | str,
    cache: Path,
    spool: Any = None,
    progress: Progress | None = None,
    **changes: Any,
) -> ExtractResult:
    values = {
        "videos": str(videos),
        "teachers": [{"name": "null"}],
        "cache": str(cache),
        "unit_rows": 64,
        "spool": spool
        if isinstance(spool, dict)
        else {"folder": None if spool is None else str(spool), "limit_gib": 2**-15},
    }
    return extract(ExtractConfig.model_validate(values | changes), progress=progress)


def write_list(path: Path, corpus: Path, base: str, names: list[str]) -> Path:
    """A CSV list: the first video as a file, the others as URLs with a secret."""
    urls = [f"{base}/{quote(name)}?token=SECRET" for name in names[1:]]
    path.write_text("\n".join(["path,label", *(f'"{p}",1' for p in [corpus / names[0], *urls])]))
    return path


def test_urls_give_the_digest_of_the_files_even_if_the_spool_is_too_small_for_all(
    corpus: Path, served: str, tmp_path: Path
) -> None:
    names = sorted(p.relative_to(corpus).as_posix() for p in corpus.rglob("*.mp4"))
    local = run(corpus, tmp_path / "local")
    listed = write_list(tmp_path / "list.csv", corpus, served, names)
    spool = tmp_path / "spool"
    remote = run(listed, tmp_path / "remote", spool)
    assert remote.content_digest == local.content_digest
    assert {v.error for v in remote.failed} == {v.error for v in local.failed}
    assert verify_cache(tmp_path / "remote").problems == ()
    kept = [path for path in spool.iterdir() if path.name != ".lock"]
    assert sum(path.stat().st_size for path in kept) <= 2**15
    assert sum((corpus / name).stat().st_size for name in names) > 2**15, "the spool must be small"
    paths = pq.read_table(tmp_path / "remote" / "videos.parquet").column("path").to_pylist()
    assert f"{served}/{quote(names[-1])}" in paths
    for file in (tmp_path / "remote").rglob("*"):
        assert file.is_dir() or b"SECRET" not in file.read_bytes(), file
    again = run(listed, tmp_path / "remote", spool)
    assert (again.frames_done, again.content_digest) == (0, local.content_digest)


def test_a_missing_url_is_a_failed_video_and_a_later_run_can_add_it(
    corpus: Path, served: str, tmp_path: Path
) -> None:
    names = ["a.mp4", "b/c.mp4", "none.mp4"]
    listed = write_list(tmp_path / "list.csv", corpus, served, names)
    cache, spool = tmp_path / "cache", tmp_path / "spool"
    result = run(listed, cache, spool)
    url = f"{served}/none.mp4"
    assert [(v.path, v.error) for v in result.failed] == [(url, "cannot be fetched: no such file")]
    assert (result.videos, result.frames, result.unavailable) == (3, 53, 1)
    assert (
        "1 of them could not be read or fetched: rerun the same command to try again"
        in result.summary()
    )
    with pytest.raises(TooManyFailuresError):
        run(listed, cache, spool, max_failed=0.1)
    listed = write_list(tmp_path / "list.csv", corpus, served, ["a.mp4", "b/c.mp4", "e.mp4"])
    later = run(listed, cache, spool)
    assert (later.failed, later.frames, later.frames_done) == ((), 94, 41)


def test_a_server_that_goes_away_ends_the_run_and_fails_no_video(
    corpus: Path, served: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spool_module, "_WAITS_SECONDS", (0.01, 0.01, 0.01))
    names = ["a.mp4", "b/c.mp4", "e.mp4"]
    listed = write_list(tmp_path / "list.csv", corpus, served, names)
    cache, spool = tmp_path / "cache", tmp_path / "spool"

    class GoesAway(NullProgress):
        def start(self, description: str, *_: Any) -> None:
            if description == "extract":
                empty(spool)
                monkeypatch.setattr(remote_module, "remote_system", nobody_there)

    system = remote_module.remote_system

    def nobody_there(url: str) -> Any:
        return system(url.replace(served, "http://127.0.0.1:1"))

    with pytest.raises(UnreachableError, match="the server does not respond"):
        run(listed, cache, spool, progress=GoesAway())
    monkeypatch.setattr(remote_module, "remote_system", system)
    again = run(listed, cache, spool)
    assert (again.failed, again.frames) == ((), 94)


def empty(spool: Path) -> None:
    for path in spool.iterdir():
        path.unlink()


def test_the_next_video_is_fetched_while_the_current_one_is_extracted(
    corpus: Path, tmp_path: Path
) -> None:
    """The server holds back the second video until frames of the first one are extracted."""
    extracting = asked_for_second = frames_seen = False
    waited: list[bool] = []
    changed = threading.Condition()
    asked: list[str] = []

    class KeepsBack(Quiet):
        def do_GET(self) -> None:
            nonlocal asked_for_second
            if extracting:
                asked.append(self.path)
                if len(asked) == 2:
                    with changed:
                        asked_for_second = True
                        changed.notify_all()
                        waited.append(changed.wait_for(lambda: frames_seen, 60))
            super().do_GET()

    class Watch(NullProgress):
        def start(self, description: str, *_: Any) -> None:
            nonlocal extracting
            if description == "extract":
                empty(tmp_path / "spool")
                extracting = True

        def advance(self, amount: float = 1, **_: Any) -> None:
            nonlocal frames_seen
            if extracting and amount:
                with changed:
                    frames_seen = True
                    changed.notify_all()
                    waited.append(changed.wait_for(lambda: asked_for_second, 60))

    with serving(KeepsBack, corpus) as base:
        urls = "\n".join(f"{base}/{name}" for name in ("a.mp4", "b/c.mp4", "e.mp4"))
        (tmp_path / "list.txt").write_text(urls)
        spool = {"folder": str(tmp_path / "spool"), "limit_gib": 1}
        result = run(
            tmp_path / "list.txt", tmp_path / "cache", spool, progress=Watch(), unit_rows=128
        )
    assert (result.frames, len(set(asked))) == (94, 3)
    assert all(waited)


def test_a_corpus_without_any_video_of_the_cache_gives_a_warning(
    corpus: Path, tmp_path: Path
) -> None:
    progress = RecordingProgress()
    for names in (["a.mp4"], ["a.mp4", "e.mp4"], ["b/c.mp4", "b/d [1].mp4"]):
        (tmp_path / "list.txt").write_text("\n".join(str(corpus / name) for name in names))
        run(tmp_path / "list.txt", tmp_path / "cache", progress=progress, max_gone=1.0)
    assert [text for text in progress.messages if text.startswith("warning")] == [
        "warning: none of the 2 given videos is among the 2 of the cache "
        f"{tmp_path / 'cache'}; they are added to it, and its own are left out of training. "
        "Check that --cache is the folder you intended"
    ]

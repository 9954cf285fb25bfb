"""Stage one from a web server: the same cache as from files, no secret in it."""

from __future__ import annotations

import functools
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pyarrow.parquet as pq
import pytest

from distinit.pipeline.cache.verify import verify_cache
from distinit.schemas.errors import CorpusError
from distinit.schemas.extract import ExtractConfig
from distinit.stages.extract import ExtractResult, extract


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def served(corpus: Path) -> Iterator[str]:
    """The address under which the shared corpus is."""
    handler = functools.partial(Quiet, directory=str(corpus))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def run(videos: Path, cache: Path, spool: Path | None = None, **changes: Any) -> ExtractResult:
    values = {
        "videos": str(videos),
        "teachers": [{"name": "null"}],
        "cache": str(cache),
        "unit_rows": 64,
        "spool": {"folder": None if spool is None else str(spool), "limit_gib": 2**-15},
    }
    return extract(ExtractConfig.model_validate(values | changes))


def write_list(path: Path, corpus: Path, base: str, names: list[str]) -> Path:
    """A CSV list: the first video as a file, the others as URLs with a secret."""
    urls = [f"{base}/{quote(name)}?token=SECRET" for name in names[1:]]
    path.write_text("\n".join(["path,label", *(f'"{p}",1' for p in [corpus / names[0], *urls])]))
    return path


def test_urls_give_the_digest_of_the_files_through_a_spool_too_small_for_them(
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


def test_a_url_that_is_not_there_ends_the_run_before_it_begins(
    corpus: Path, served: str, tmp_path: Path
) -> None:
    listed = write_list(tmp_path / "list.csv", corpus, served, ["a.mp4", "none.mp4"])
    with pytest.raises(CorpusError, match=r"none\.mp4"):
        run(listed, tmp_path / "cache", tmp_path / "spool")
    assert not (tmp_path / "cache" / "manifest.json").exists()

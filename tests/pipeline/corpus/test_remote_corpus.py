"""Corpora at URLs: downloaded once, identified by content, and no secrets are stored."""

from __future__ import annotations

import hashlib
import socket
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest
from helpers.objects import s3_bucket
from helpers.progress import RecordingProgress

from distinit.pipeline.corpus import list_corpus
from distinit.pipeline.corpus import spool as spool_module
from distinit.pipeline.corpus.listing import Duplicate, find_videos
from distinit.pipeline.corpus.spool import Spool
from distinit.pipeline.transport.remote import is_url, public_url
from distinit.schemas.errors import CorpusError, DecodeError, UnreachableError


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool_module, "_WAITS_SECONDS", (0.01, 0.01, 0.01))


def list_of(folder: Path, *lines: str) -> str:
    (folder / "list.txt").write_text("\n".join(lines))
    return str(folder / "list.txt")


def test_public_url_removes_all_secrets() -> None:
    assert public_url("https://me:pw@host:81/a b.mp4?sig=1#x") == "https://host:81/a b.mp4"
    assert public_url("s3://bucket/k/[1].mp4") == "s3://bucket/k/[1].mp4"
    assert is_url("s3://b/k")
    assert not is_url("a/b://c")
    assert not is_url("/a.mp4")


def test_a_list_may_mix_paths_and_urls_and_videos_are_identified_by_bytes(
    web, tmp_path: Path
) -> None:
    web.files["/v/a.mp4"] = b"same"
    web.files["/v/b 猫.mkv"] = b"other"
    (tmp_path / "here.mp4").write_bytes(b"same")
    (tmp_path / "abs.mp4").write_bytes(b"third")
    lines = ("here.mp4", web.url("/v/a.mp4", "k=SECRET"), web.url("/v/b 猫.mkv"))
    source = list_of(tmp_path, *lines, f"file://{tmp_path}/abs.mp4")
    corpus = list_corpus(source, spool=Spool(tmp_path / "spool", 1000))
    same, other, third = (hashlib.sha256(b).hexdigest() for b in (b"same", b"other", b"third"))
    by_path = {file.path: (file.video_id, file.size_bytes) for file in corpus.files}
    assert by_path == {
        "here.mp4": (same[:16], 4),
        web.url("/v/b 猫.mkv"): (other[:16], 5),
        "abs.mp4": (third[:16], 5),
    }
    assert corpus.duplicates == (Duplicate(web.url("/v/a.mp4"), "here.mp4"),)
    assert "SECRET" not in repr(corpus)
    for file in corpus.files:
        with corpus.source.open(file.path, file.digest) as path:
            assert hashlib.sha256(path.read_bytes()).hexdigest() == file.digest


def test_each_video_is_downloaded_once_until_its_tag_changes(web, tmp_path: Path) -> None:
    web.files |= {"/a.mp4": b"a" * 60, "/b.mp4": b"b" * 60}
    source = list_of(tmp_path, web.url("/a.mp4"), web.url("/b.mp4"))
    spool = Spool(tmp_path / "spool", 100)  # space for one of them
    seen: dict[str, bytes] = {}
    corpus = list_corpus(source, spool=spool, visit=lambda d, p: seen.update({d: p.read_bytes()}))
    assert {hashlib.sha256(data).hexdigest() for data in seen.values()} == seen.keys()
    assert len(seen) == 2
    assert web.gets == {"/a.mp4": 1, "/b.mp4": 1}
    known = {file.path: file for file in corpus.files}
    assert list_corpus(source, known, spool=spool).files == corpus.files
    assert web.gets == {"/a.mp4": 1, "/b.mp4": 1}
    web.files["/a.mp4"] = b"x" * 60
    changed = list_corpus(source, known, spool=spool)
    assert web.gets == {"/a.mp4": 2, "/b.mp4": 1}
    assert {file.digest for file in changed.files} != {file.digest for file in corpus.files}


def test_without_tags_a_video_is_downloaded_again(web, tmp_path: Path) -> None:
    web.files["/a.mp4"], web.tags = b"a", False
    source = list_of(tmp_path, web.url("/a.mp4"))
    corpus = list_corpus(source, spool=Spool(tmp_path, 1000))
    list_corpus(source, {f.path: f for f in corpus.files}, spool=Spool(tmp_path, 1000))
    assert web.gets["/a.mp4"] == 2


def test_an_evicted_video_is_downloaded_again_and_must_be_unchanged(web, tmp_path: Path) -> None:
    web.files |= {"/a.mp4": b"a" * 60, "/b.mp4": b"b" * 60}
    source = list_of(tmp_path, web.url("/a.mp4"), web.url("/b.mp4"))
    corpus = list_corpus(source, spool=Spool(tmp_path / "spool", 100))
    for file in corpus.files:
        with corpus.source.open(file.path, file.digest) as path:
            assert hashlib.sha256(path.read_bytes()).hexdigest() == file.digest
    assert sum(web.gets.values()) >= 3
    web.files |= {"/a.mp4": b"A" * 60, "/b.mp4": b"B" * 60}
    gone = next(f for f in corpus.files if not list(tmp_path.glob(f"spool/{f.digest}*")))
    with pytest.raises(DecodeError, match="changed since it was listed"):
        corpus.source.open(gone.path, gone.digest).__enter__()


def test_urls_that_differ_only_in_their_query_get_different_names(web, tmp_path: Path) -> None:
    web.files["/get"] = b"x"
    source = list_of(tmp_path, web.url("/get", "id=2"), web.url("/get", "id=1"))
    found = find_videos(source)
    assert found.urls == {
        web.url("/get"): web.url("/get", "id=1"),
        web.url("/get") + "#2": web.url("/get", "id=2"),
    }


def test_failed_downloads_are_reported_by_name_without_secrets(web, tmp_path: Path) -> None:
    web.files |= {"/ok.mp4": b"a", "/big.mp4": b"b" * 200, "/shut.mp4": b"c", "/ill.mp4": b"d"}
    web.statuses = {"/shut.mp4": [403] * 9, "/ill.mp4": [500] * 9}
    names = ("/ok.mp4", "/big.mp4", "/none.mp4", "/shut.mp4", "/ill.mp4")
    source = list_of(tmp_path, *(web.url(name, "k=SECRET") for name in names))
    corpus = list_corpus(source, spool=Spool(tmp_path / "spool", 100))
    assert [file.path for file in corpus.files] == [web.url("/ok.mp4")]
    assert corpus.unavailable == {
        web.url("/big.mp4"): "larger than the spool",
        web.url("/none.mp4"): "cannot be fetched: no such file",
        web.url("/shut.mp4"): "cannot be fetched: access denied",
        web.url("/ill.mp4"): "cannot be fetched: HTTP status 500",
    }
    assert (web.gets["/shut.mp4"], web.gets["/ill.mp4"]) == (1, 4), "403 is final, 500 is not"
    with pytest.raises(CorpusError) as refused:
        corpus.require_all()
    assert str(refused.value).startswith("4 of the videos cannot be read or fetched")
    assert "SECRET" not in str(refused.value)


def test_a_known_video_stays_listed_if_its_url_fails(web, tmp_path: Path) -> None:
    web.files |= {"/a.mp4": b"a", "/b.mp4": b"b"}
    source = list_of(tmp_path, web.url("/a.mp4"), web.url("/b.mp4"))
    spool = Spool(tmp_path / "spool", 100)
    corpus = list_corpus(source, spool=spool)
    del web.files["/a.mp4"]
    again = list_corpus(source, {file.path: file for file in corpus.files}, spool=spool)
    assert again.files == corpus.files
    assert again.unavailable == {}


def test_if_no_video_can_be_downloaded_there_is_one_early_error(web, tmp_path: Path) -> None:
    urls = [web.url(f"/{number}.mp4", "k=SECRET") for number in range(40)]
    with pytest.raises(CorpusError) as refused:
        list_corpus(list_of(tmp_path, *urls), spool=Spool(tmp_path / "spool", 100))
    text = str(refused.value)
    assert text.startswith("the first 16 of 40 videos at URLs cannot be fetched")
    assert "16 times: cannot be fetched: no such file" in text
    assert "SECRET" not in text
    assert len(web.gets) < 30
    with pytest.raises(CorpusError, match="none of the 2 videos at URLs can be fetched"):
        list_corpus(list_of(tmp_path, *urls[:2]), spool=Spool(tmp_path / "spool", 100))


def test_a_server_that_does_not_respond_has_a_separate_error(tmp_path: Path) -> None:
    with socket.socket() as reserved:  # bound, but nobody listens
        reserved.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{reserved.getsockname()[1]}/a.mp4"
        with pytest.raises(CorpusError, match="the server does not respond"):
            list_corpus(url, spool=Spool(tmp_path / "spool", 100))
        with pytest.raises(UnreachableError) as refused:
            Spool(tmp_path / "spool", 100).fetch(url, "0" * 64).__enter__()
    assert "rerun the same command to resume" in str(refused.value)


def test_listing_reports_progress(web, tmp_path: Path) -> None:
    web.files |= {"/a.mp4": b"a"}
    source = list_of(tmp_path, web.url("/a.mp4"), web.url("/none.mp4"))
    progress = RecordingProgress()
    list_corpus(source, spool=Spool(tmp_path / "spool", 100), progress=progress)
    assert progress.started == [("list", 2, "videos", 0)]
    assert [amount for amount, _ in progress.advances] == [1, 1]
    assert progress.advances[-1] == (1, {"failed": 1})
    assert progress.finished == 1


@pytest.mark.parametrize("name", ["list.csv", "list.parquet"])
def test_urls_are_read_from_tables(name: str, web, tmp_path: Path) -> None:
    web.files |= {"/a.mp4": b"a", "/b, c.mp4": b"b"}
    table = pa.table({"label": [3, 4], "url": [web.url("/a.mp4", "k=1"), web.url("/b, c.mp4")]})
    write = pq.write_table if name.endswith("parquet") else pa_csv.write_csv
    write(table, tmp_path / name)
    corpus = list_corpus(str(tmp_path / name), spool=Spool(tmp_path / "spool", 100))
    assert {file.path for file in corpus.files} == {web.url("/a.mp4"), web.url("/b, c.mp4")}


def test_a_url_is_a_corpus_of_one_video_and_web_folders_are_refused(web, tmp_path: Path) -> None:
    web.files["/a.mp4"] = b"a"
    corpus = list_corpus(web.url("/a.mp4", "k=1"), spool=Spool(tmp_path, 1000))
    assert [file.path for file in corpus.files] == [web.url("/a.mp4")]
    with pytest.raises(CorpusError, match="web servers do not list folders"):
        list_corpus(web.url("/folder/"), spool=Spool(tmp_path, 1000))


@pytest.fixture
def bucket() -> Iterator[dict[str, bytes]]:
    """An S3 server on the loopback interface with a bucket ``videos``; returns its files."""
    import fsspec

    files = {"a.mp4": b"a" * 10, "deep/b c [1].MKV": b"b" * 20, "notes.txt": b"", ".h/x.mp4": b"x"}
    with s3_bucket("videos"):
        for name, data in files.items():
            fsspec.filesystem("s3").pipe_file(f"videos/{name}", data)
        yield files


def test_s3_folders_and_s3_urls_in_lists_are_listed(
    bucket: dict[str, bytes], tmp_path: Path
) -> None:
    spool = Spool(tmp_path / "spool", 1000)
    corpus = list_corpus("s3://videos/", spool=spool)
    expected = ["s3://videos/a.mp4", "s3://videos/deep/b c [1].MKV"]
    assert sorted(file.path for file in corpus.files) == expected
    for file in corpus.files:
        data = bucket[file.path.removeprefix("s3://videos/")]
        assert file.digest == hashlib.sha256(data).hexdigest()
        assert file.mtime_ns > 0
    listed = list_corpus(list_of(tmp_path, *expected), spool=spool)
    assert listed.files == corpus.files
    some = list_corpus(list_of(tmp_path, "s3://videos/none.mp4", expected[0]), spool=spool)
    assert some.unavailable == {"s3://videos/none.mp4": "cannot be fetched: no such file"}
    with pytest.raises(CorpusError, match="1 times: cannot be fetched: no such file"):
        list_corpus(list_of(tmp_path, "s3://videos/none.mp4"), spool=spool)
    with pytest.raises(CorpusError, match="no videos in s3://videos/empty"):
        list_corpus("s3://videos/empty/", spool=spool)

"""Listing a corpus: identity by content, order, links, and errors."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distinit.pipeline.corpus import VIDEO_EXTENSIONS, list_corpus
from distinit.pipeline.corpus import local as local_module
from distinit.pipeline.corpus.listing import Duplicate
from distinit.schemas.corpus import VideoFile, left_out_lines
from distinit.schemas.errors import CorpusError


def put(path: Path, content: bytes = b"") -> str:
    """Write a file, by default with its name as content; returns its sha256."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data = content or path.name.encode()
    path.write_bytes(data)
    return hashlib.sha256(data).hexdigest()


def test_the_videos_of_a_folder_are_listed_by_digest(tmp_path: Path) -> None:
    digests = {
        name: put(tmp_path / name)
        for name in ("b/z.MP4", "a.mkv", "b/[1] -x y.avi", "-dash.webm", "löwe 猫.gif", "c/d/e.ts")
    }
    put(tmp_path / "notes.txt")
    put(tmp_path / ".hidden/x.mp4")
    put(tmp_path / "b/.x.mp4")
    corpus = list_corpus(str(tmp_path))
    assert corpus.root == tmp_path
    assert [(f.digest, f.path) for f in corpus.files] == sorted(
        (digest, name) for name, digest in digests.items()
    )
    for file in corpus.files:
        assert file.video_id == file.digest[:16]
        assert file.size_bytes == len(Path(file.path).name.encode())
        assert file.mtime_ns == (tmp_path / file.path).stat().st_mtime_ns


def test_files_with_equal_bytes_are_one_video_and_copies_are_reported(tmp_path: Path) -> None:
    for name in ("c.mp4", "a.mp4", "b/x.avi"):
        digest = put(tmp_path / name, b"same")
    other = put(tmp_path / "o.mp4", b"other")
    corpus = list_corpus(str(tmp_path))
    assert {f.path: f.video_id for f in corpus.files} == {
        "a.mp4": digest[:16],
        "o.mp4": other[:16],
    }
    assert corpus.duplicates == (Duplicate("b/x.avi", "a.mp4"), Duplicate("c.mp4", "a.mp4"))


def test_a_copy_of_a_known_video_does_not_rename_it(tmp_path: Path) -> None:
    put(tmp_path / "b.mp4", b"same")
    known = {file.path: file for file in list_corpus(str(tmp_path)).files}
    put(tmp_path / "a.mp4", b"same")
    corpus = list_corpus(str(tmp_path), known)
    assert [file.path for file in corpus.files] == ["b.mp4"]
    assert corpus.duplicates == (Duplicate("a.mp4", "b.mp4"),)


def test_spellings_of_one_path_are_one_video(tmp_path: Path) -> None:
    put(tmp_path / "d/a.mp4")
    names = ("d/a.mp4", "./d/a.mp4", "d/../d/a.mp4", f"{tmp_path}/d/a.mp4", "d/a.mp4")
    (tmp_path / "list.txt").write_text("\n".join(names))
    corpus = list_corpus(str(tmp_path / "list.txt"))
    assert [file.path for file in corpus.files] == ["d/a.mp4"]
    again = [Duplicate("d/a.mp4", "d/a.mp4")] * 3
    assert corpus.duplicates == (Duplicate("d/../d/a.mp4", "d/a.mp4"), *again)


@given(st.lists(st.binary(min_size=1, max_size=2), min_size=1, max_size=12))
def test_ids_are_unique_and_do_not_depend_on_order(
    tmp_path_factory: pytest.TempPathFactory, contents: list[bytes]
) -> None:
    root = tmp_path_factory.mktemp("corpus")
    for number, content in enumerate(contents):
        put(root / f"{number:02}.mp4", content)
    files = list_corpus(str(root)).files
    assert len({file.video_id for file in files}) == len(files) == len(set(contents))
    names = [f"{number:02}.mp4" for number in range(len(contents))]
    (root / "list.txt").write_text("\n".join(reversed(names)))
    assert list_corpus(str(root / "list.txt")).files == files


def test_links_are_followed_once(tmp_path: Path) -> None:
    root = tmp_path / "corpus"
    put(root / "real/a.mp4")
    put(tmp_path / "elsewhere/b.mp4")
    (root / "0-again").symlink_to(root / "real")
    (root / "real/loop").symlink_to(root)
    (root / "self").symlink_to(root / "self")
    (root / "more").symlink_to(tmp_path / "elsewhere")
    (root / "c.mp4").symlink_to(root / "real/a.mp4")
    corpus = list_corpus(str(root))
    assert sorted(file.path for file in corpus.files) == ["more/b.mp4", "real/a.mp4"]
    assert corpus.duplicates == (Duplicate("c.mp4", "real/a.mp4"),)


def test_paths_in_a_list_are_relative_to_it_or_absolute(tmp_path: Path) -> None:
    put(tmp_path / "lists/in/a.mp4")
    put(tmp_path / "lists/[x] no extension")
    put(tmp_path / "out/b.mp4")
    text = f"# mine\r\nin/a.mp4\r\n\r\n./in/a.mp4\n[x] no extension\n{tmp_path}/out/b.mp4\n"
    text += f"{tmp_path}/lists/in/a.mp4\n"
    (tmp_path / "lists/videos.txt").write_bytes(b"\xef\xbb\xbf" + text.encode())
    corpus = list_corpus(str(tmp_path / "lists/videos.txt"))
    assert corpus.root == tmp_path / "lists"
    assert sorted(file.path for file in corpus.files) == [
        f"{tmp_path}/out/b.mp4",
        "[x] no extension",
        "in/a.mp4",
    ]
    assert all((corpus.root / file.path).is_file() for file in corpus.files)


def test_known_files_are_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a.mp4", "b.mp4", "c.mp4"):
        put(tmp_path / name)
    first = list_corpus(str(tmp_path))
    os.utime(tmp_path / "b.mp4", ns=(1, 1))
    put(tmp_path / "c.mp4", b"longer than before")
    read: list[str] = []
    sha256_file = local_module.sha256_file

    def counting(path: Path) -> str:
        read.append(path.name)
        return sha256_file(path)

    monkeypatch.setattr(local_module, "sha256_file", counting)
    again = list_corpus(str(tmp_path), {file.path: file for file in first.files})
    assert sorted(read) == ["b.mp4", "c.mp4"]
    digests = {file.path: file.digest for file in again.files}
    assert digests["c.mp4"] == hashlib.sha256(b"longer than before").hexdigest()
    assert digests["a.mp4"] == hashlib.sha256(b"a.mp4").hexdigest()


def test_a_known_file_must_match_in_size_and_time(tmp_path: Path) -> None:
    digest = put(tmp_path / "a.mp4")
    found = list_corpus(str(tmp_path)).files[0]
    stale = VideoFile("x", "a.mp4", "f" * 64, found.size_bytes + 1, found.mtime_ns)
    assert list_corpus(str(tmp_path), {"a.mp4": stale}).files[0].digest == digest


def test_a_missing_source_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="cannot open the videos") as caught:
        list_corpus(str(tmp_path / "nowhere"))
    assert caught.value.remedy == "check the path"


def test_a_single_video_is_a_corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    digest = put(tmp_path / "v/a [1].MP4")
    put(tmp_path / "v/b.mp4")
    monkeypatch.chdir(tmp_path)
    for source, root in (("v/a [1].MP4", Path("v")), (str(tmp_path / "v/a [1].MP4"), None)):
        corpus = list_corpus(source)
        assert corpus.root == (root or tmp_path / "v")
        assert [(file.path, file.digest) for file in corpus.files] == [("a [1].MP4", digest)]


def test_a_file_that_is_neither_a_video_nor_a_list_is_refused(tmp_path: Path) -> None:
    for name, found in (("a.docx", "a file with the extension .docx"), ("a", "no extension")):
        put(tmp_path / name)
        with pytest.raises(CorpusError, match="is neither a video nor a list") as caught:
            list_corpus(str(tmp_path / name))
        assert caught.value.found == found
        assert ".mp4" in str(caught.value.expected)
        assert "write its path into a .txt file" in str(caught.value)


def test_the_error_for_an_empty_folder_names_some_extensions(tmp_path: Path) -> None:
    put(tmp_path / "a.jpg")
    with pytest.raises(CorpusError, match="no videos in") as caught:
        list_corpus(str(tmp_path))
    assert caught.value.expected == (
        f"a file with one of {len(VIDEO_EXTENSIONS)} extensions, such as .mp4 .mkv .avi .mov .webm "
        "(docs/video-files.md has all)"
    )


@pytest.mark.parametrize("content", [b"", b"\n# nothing\n\n"])
def test_an_empty_list_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "list.txt").write_bytes(content)
    with pytest.raises(CorpusError, match="has no videos"):
        list_corpus(str(tmp_path / "list.txt"))


def test_unreadable_videos_are_reported_with_reasons_and_the_others_are_listed(
    tmp_path: Path,
) -> None:
    put(tmp_path / "a.mp4")
    (tmp_path / "d.mp4").mkdir()
    os.mkfifo(tmp_path / "pipe.mp4")
    (tmp_path / "link.mp4").symlink_to(tmp_path / "nowhere.mp4")
    names = ["a.mp4", "d.mp4", "pipe.mp4", "link.mp4", "gone.mp4", "long" * 100, "a\0b.mp4"]
    (tmp_path / "list.txt").write_text("\n".join(names))
    corpus = list_corpus(str(tmp_path / "list.txt"))
    assert [file.path for file in corpus.files] == ["a.mp4"]
    assert corpus.unavailable == {
        "a\0b.mp4": "embedded null byte",
        "d.mp4": "not a regular file",
        "gone.mp4": "no such file",
        "link.mp4": "no such file",
        "long" * 100: "File name too long",
        "pipe.mp4": "not a regular file",
    }
    with pytest.raises(CorpusError, match="6 of the videos cannot be read") as caught:
        corpus.require_all()
    assert "gone.mp4 (no such file)" in str(caught.value)
    assert "and 1 more" in str(caught.value)


def test_a_corpus_without_a_readable_video_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").symlink_to(tmp_path / "gone.mp4")
    os.mkfifo(tmp_path / "b.mp4")
    with pytest.raises(CorpusError, match="2 of the listed videos cannot be read"):
        list_corpus(str(tmp_path))


def test_a_file_that_vanishes_while_it_is_hashed_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a.mp4", "b.mp4"):
        put(tmp_path / name)
    sha256_file = local_module.sha256_file

    def vanishing(path: Path) -> str:
        if path.name == "b.mp4":
            path.unlink()
        return sha256_file(path)

    monkeypatch.setattr(local_module, "sha256_file", vanishing)
    corpus = list_corpus(str(tmp_path))
    assert [file.path for file in corpus.files] == ["a.mp4"]
    assert corpus.unavailable == {"b.mp4": "no such file"}


def test_names_that_are_not_utf8_are_reported_escaped(tmp_path: Path) -> None:
    put(tmp_path / "a.mp4")
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/b\xff.mp4")).write_bytes(b"x")
    corpus = list_corpus(str(tmp_path))
    assert [file.path for file in corpus.files] == ["a.mp4"]
    assert corpus.unavailable == {"b\\udcff.mp4": "its name is not UTF-8 text: rename it"}


def test_files_that_are_left_out_are_counted(tmp_path: Path) -> None:
    for name in ("a.mp4", "b.txt", "c/d.TXT", "e.jpg", "README", ".f.mp4", ".g.txt", ".h/i.mp4"):
        put(tmp_path / name)
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/j.\xff")).write_bytes(b"x")
    corpus = list_corpus(str(tmp_path))
    assert [file.path for file in corpus.files] == ["a.mp4"]
    assert list(corpus.left_out.others.items()) == [
        (".txt", 2),
        (".\\udcff", 1),
        (".jpg", 1),
        ("none", 1),
    ]
    assert corpus.left_out.hidden == {".mp4": 1, "folder": 1}
    assert left_out_lines(corpus.left_out.others, corpus.left_out.hidden) == [
        "5 files with other extensions left out: .txt 2, .\\udcff 1, .jpg 1, none 1",
        "hidden files and folders left out: .mp4 1, folder 1",
    ]


def test_a_list_that_is_not_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_bytes(b"\xff\xfe\x00bad")
    with pytest.raises(CorpusError, match="cannot read the list"):
        list_corpus(str(tmp_path / "list.txt"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_files_without_permission_are_reported_and_such_folders_refused(tmp_path: Path) -> None:
    put(tmp_path / "a.mp4")
    put(tmp_path / "b.mp4")
    (tmp_path / "a.mp4").chmod(0)
    assert list_corpus(str(tmp_path)).unavailable == {"a.mp4": "no permission to read it"}
    (tmp_path / "closed").mkdir(mode=0)
    with pytest.raises(CorpusError, match="cannot read the folder"):
        list_corpus(str(tmp_path))

"""A receiver's files: hashed once, one per content, named by plain paths."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.progress import RecordingProgress

from distinit.pipeline.corpus import local
from distinit.pipeline.matching.copies import FoundCopies, find_copies, list_copies
from distinit.pipeline.progress import NullProgress
from distinit.schemas.errors import ConfigError, CorpusError


def listed(clips: Path, work: Path, preferred: dict[str, str] | None = None) -> FoundCopies:
    return list_copies(find_copies(str(clips)), preferred or {}, work, NullProgress())


def test_files_with_the_same_bytes_are_one_with_the_path_of_the_cache(tmp_path: Path) -> None:
    clips, work = tmp_path / "clips", tmp_path / "work"
    clips.mkdir()
    for name in ("a.mp4", "b.mp4", "c.mp4"):
        (clips / name).write_bytes(b"same")
    (file,) = listed(clips, work).files
    assert file.path == "a.mp4"
    (file,) = listed(clips, work, {"b.mp4": file.digest, "c.mp4": "0" * 64}).files
    assert file.path == "b.mp4"


def test_only_new_and_changed_files_are_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clips, work = tmp_path / "clips", tmp_path / "work"
    clips.mkdir()
    for name in ("a.mp4", "b.mp4"):
        (clips / name).write_text(name)
    first = listed(clips, work)
    assert len(first.files) == 2
    read: list[str] = []
    real = local.sha256_file
    monkeypatch.setattr(local, "sha256_file", lambda p: (read.append(p.name), real(p))[1])
    assert listed(clips, work) == first
    assert read == []
    (clips / "b.mp4").write_text("other content")
    listed(clips, work)
    assert read == ["b.mp4"]


def test_files_that_a_mapping_cannot_name_are_unreadable(tmp_path: Path) -> None:
    clips = tmp_path / "clips"
    clips.mkdir()
    (clips / "good.mp4").write_text("x")
    (clips / "tab\there.mp4").write_text("y")
    (clips / "back\\slash.mp4").write_text("z")
    (clips / "dead.mp4").symlink_to(clips / "nowhere")
    found = listed(clips, tmp_path / "work")
    assert [file.path for file in found.files] == ["good.mp4"]
    named = "not a plain path below the folder: move or rename it"
    assert found.unreadable == {
        "tab\there.mp4": named,
        "back\\slash.mp4": named,
        "dead.mp4": "no such file",
    }
    outside = tmp_path / "lists" / "clips.txt"
    outside.parent.mkdir()
    outside.write_text(f"{clips}/good.mp4\n")
    found = listed(outside, tmp_path / "work")
    assert (found.files, found.unreadable) == ((), {f"{clips}/good.mp4": named})


def test_progress_counts_files(tmp_path: Path) -> None:
    clips = tmp_path / "clips"
    clips.mkdir()
    for number in range(70):
        (clips / f"{number}.mp4").write_text(f"{number}")
    progress = RecordingProgress()
    list_copies(find_copies(str(clips)), {}, tmp_path / "work", progress)
    assert progress.started == [("hash files", 70, "files", 0)]
    assert [amount for amount, _ in progress.advances] == [64, 6]


def test_urls_and_empty_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="URLs cannot be matched"):
        find_copies("https://host/clips/a.mp4")
    (tmp_path / "list.txt").write_text("https://host/a.mp4\n")
    with pytest.raises(ConfigError, match="URLs cannot be matched"):
        find_copies(str(tmp_path / "list.txt"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(CorpusError, match="no videos"):
        find_copies(str(tmp_path / "empty"))

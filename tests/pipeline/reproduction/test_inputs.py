"""What is missing below the data folder: videos, lists and weights, by name."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.reproductions import scale_with

from distinit.pipeline.reproduction.inputs import Found, find_input, read_corpus_listing
from distinit.pipeline.reproduction.step import Need
from distinit.schemas.errors import ConfigError

PAPER = scale_with("paper")
HMDB = Need("hmdb51", "dataset", "videos")
LISTS = Need("splits/hmdb51", "splits", "lists")
CORPUS = Need("kinetics", "corpus", "videos")


def touch(path: Path, text: str = "") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def write_lists(data: Path, splits: tuple[int, ...] = (1, 2, 3)) -> None:
    for split in splits:
        for label in ("run", "sit"):
            lines = f"{label}_a.avi 1\n{label}_b.avi 2\n{label}_unused.avi 0\n"
            touch(data / "splits" / "hmdb51" / f"{label}_test_split{split}.txt", lines)


def test_an_empty_folder_has_nothing(tmp_path: Path) -> None:
    weights = Need("weights/w.pth", "weights", "a teacher")
    found = {need.path: find_input(need, PAPER, tmp_path) for need in (HMDB, LISTS, CORPUS)}
    assert found == {
        "hmdb51": Found("no videos"),
        "splits/hmdb51": Found("no such folder"),
        "kinetics": Found("no videos"),
    }
    assert find_input(weights, PAPER, tmp_path) == Found("no such file")
    touch(tmp_path / "weights" / "w.pth")
    assert find_input(weights, PAPER, tmp_path) == Found()


def test_the_module_of_a_plugin_must_be_importable(tmp_path: Path) -> None:
    found = [
        find_input(Need(name, "module", "a teacher"), PAPER, tmp_path)
        for name in (
            "distinit.pipeline.demo.digit_teacher",
            "nowhere_to_be_found",
            "nowhere.at.all",
        )
    ]
    missing = Found("no such module: set PYTHONPATH")
    assert found == [Found(), missing, missing]


def test_videos_that_the_lists_name_must_all_exist(tmp_path: Path) -> None:
    write_lists(tmp_path)
    for name in ("run/run_a", "run/run_b", "sit/sit_b"):
        touch(tmp_path / "hmdb51" / f"{name}.avi")
    assert find_input(LISTS, PAPER, tmp_path) == Found(note="4 videos listed")
    problem = "1 of 4 listed videos are missing: sit/sit_a.avi"
    assert find_input(HMDB, PAPER, tmp_path) == Found(problem)
    touch(tmp_path / "hmdb51" / "sit" / "sit_a.avi")
    assert find_input(HMDB, PAPER, tmp_path) == Found(videos=4)


def test_a_missing_split_is_a_problem_of_the_lists_only(tmp_path: Path) -> None:
    write_lists(tmp_path, splits=(1, 2))
    touch(tmp_path / "hmdb51" / "run" / "run_a.avi")
    assert "no complete split 3" in find_input(LISTS, PAPER, tmp_path).problem
    assert find_input(HMDB, PAPER, tmp_path) == Found(videos=1)


def test_missing_videos_of_a_listed_corpus_are_left_out(tmp_path: Path) -> None:
    listing = "path,label,split\na.mp4,run,train\nb.mp4,sit,train\nsub/c.mp4,sit,train\n"
    touch(tmp_path / "kinetics.csv", listing + "d.mp4,sit,test\n")
    assert find_input(CORPUS, PAPER, tmp_path) == Found("none of the 3 listed videos")
    touch(tmp_path / "kinetics" / "sub" / "c.mp4")
    touch(tmp_path / "kinetics" / "d.mp4")
    note = "2 listed videos are missing and left out: a.mp4, b.mp4"
    assert find_input(CORPUS, PAPER, tmp_path) == Found(note=note, videos=1)
    found = read_corpus_listing(tmp_path / "kinetics.csv", tmp_path / "kinetics")
    assert found.present == (("sub/c.mp4", "sit"),)
    assert found.missing == ("a.mp4", "b.mp4")


def test_without_a_list_the_corpus_is_what_the_folder_holds(tmp_path: Path) -> None:
    for name in ("a.mp4", "sub/b.mkv", "notes.txt"):
        touch(tmp_path / "kinetics" / name)
    assert find_input(CORPUS, PAPER, tmp_path) == Found(videos=2)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("path,label\na.mp4,run\n", "no column split"),
        ("path,label,split\n../a.mp4,run,train\n", 'line 2: "../a.mp4"'),
        ("path,label,split\n/a.mp4,run,train\n", 'line 2: "/a.mp4"'),
        ('path,label,split\n"a.mp4,run,train\n', "unexpected end of data"),
    ],
)
def test_a_malformed_list_is_refused(tmp_path: Path, text: str, found: str) -> None:
    touch(tmp_path / "kinetics.csv", text)
    with pytest.raises(ConfigError, match="cannot be used") as refused:
        read_corpus_listing(tmp_path / "kinetics.csv", tmp_path)
    assert found in str(refused.value)
    assert found in find_input(CORPUS, PAPER, tmp_path).problem

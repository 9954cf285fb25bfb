"""The data of the smoke scale have the layout of the paper's data: datasets, lists, corpus."""

from __future__ import annotations

from pathlib import Path

import pytest

from distinit.pipeline.datasets.splits import read_splits
from distinit.pipeline.progress import NullProgress
from distinit.pipeline.reproduction.inputs import read_corpus_listing
from distinit.pipeline.reproduction.moving_digits import has_moving_digits, make_moving_digits


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("digits")
    assert not has_moving_digits(root)
    make_moving_digits(root, NullProgress())
    return root


@pytest.mark.parametrize("name", ["hmdb51", "ucf101"])
def test_each_split_tests_one_film_of_each_class_and_trains_two(data: Path, name: str) -> None:
    tested: list[str] = []
    for split in (1, 2, 3):
        lists = read_splits(data / "splits" / name, split)
        assert (lists.kind, len(lists.classes)) == (name, 10)
        assert lists.classes[0] == "0_down"
        subsets = [video.subset for video in lists.videos]
        assert (subsets.count("train"), subsets.count("test")) == (20, 10)
        assert all((data / name / video.path).is_file() for video in lists.videos)
        tested += [video.path for video in lists.videos if video.subset == "test"]
    assert len(set(tested)) == 30


def test_the_datasets_and_the_corpus_share_no_film(data: Path) -> None:
    films = [path.read_bytes() for path in data.glob("*/**/*.mp4")]
    assert len(films) == len(set(films)) == 30 + 30 + 70


def test_the_corpus_has_a_list_with_labels(data: Path) -> None:
    listing = read_corpus_listing(data / "kinetics.csv", data / "kinetics")
    assert listing.missing == ()
    labels = [label for _, label in listing.present]
    assert (labels.count("0"), labels.count("1")) == (35, 35)


def test_a_second_call_changes_nothing(data: Path) -> None:
    assert has_moving_digits(data)
    before = {path: path.stat().st_mtime_ns for path in data.rglob("*") if path.is_file()}
    make_moving_digits(data, NullProgress())
    assert {path: path.stat().st_mtime_ns for path in data.rglob("*") if path.is_file()} == before

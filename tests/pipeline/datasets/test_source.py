"""A CSV alone is a dataset: where its paths lead, and what is refused with which message."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from distinit.pipeline.datasets.listing import list_dataset
from distinit.pipeline.datasets.source import LabelledSource, labelled_source
from distinit.schemas.dataset import DatasetRecord
from distinit.schemas.errors import CorpusError, DatasetError
from distinit.schemas.finetune import DatasetConfig


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of four files, each with its own bytes, next to one that lies outside."""
    for name in ("in/a.mp4", "in/b.mp4", "in/c.mp4", "in/d.mp4", "out.mp4"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    return tmp_path / "in"


def listed(folder: Path, *rows: str, head: str = "path,label,split") -> DatasetRecord:
    path = folder / "labels.csv"
    path.write_text("\n".join([head, *rows, ""]))
    return list_dataset(DatasetConfig(root=str(path)))


def refused(folder: Path, *rows: str, head: str = "path,label,split") -> DatasetError:
    with pytest.raises(DatasetError) as caught:
        listed(folder, *rows, head=head)
    return caught.value


def test_paths_are_relative_to_the_folder_of_the_csv_or_absolute(folder: Path) -> None:
    outside = str(folder.parent / "out.mp4")
    rows = ("a.mp4,run,train", f"{folder}/b.mp4,walk,train", "../out.mp4,run,test")
    record = listed(folder, *rows, "./c.mp4,walk,val", "d.mp4,walk,test")
    assert (record.kind, record.classes) == ("csv", ("run", "walk"))
    assert [(video.path, video.label, video.subset) for video in record.videos] == [
        ("a.mp4", 0, "train"),
        ("b.mp4", 1, "train"),  # below the folder: the list and its videos can be moved together
        ("../out.mp4", 0, "test"),
        ("c.mp4", 1, "val"),
        ("d.mp4", 1, "test"),
    ]
    absolute = listed(folder, *rows[:2], f"{outside},run,test", "d.mp4,walk,test")
    assert absolute.videos[2].path == outside
    assert absolute.videos[2].digest == record.videos[2].digest


def test_next_to_a_folder_the_paths_of_a_csv_stay_inside_it(folder: Path) -> None:
    lists = folder / "labels.csv"
    lists.write_text("path,label,split\na.mp4,run,train\n../out.mp4,run,test\n")
    with pytest.raises(DatasetError, match="line 3 cannot be read") as caught:
        list_dataset(DatasetConfig(root=str(folder), splits=str(lists)))
    assert caught.value.expected == "a path below the dataset's root"


def test_the_source_of_each_form_of_a_dataset(folder: Path) -> None:
    csv = folder / "LABELS.CSV"
    csv.touch()
    (folder / "old.csv").mkdir()
    alone = labelled_source(DatasetConfig(root=str(csv)))
    assert alone == LabelledSource(folder, csv, is_list=True)
    assert (alone.name, alone.listed) == (csv, ())
    both = labelled_source(DatasetConfig(root=str(folder), splits=str(csv)))
    assert both == LabelledSource(folder, csv, is_list=False)
    plain = labelled_source(DatasetConfig(root=str(folder / "old.csv")))
    assert plain == LabelledSource(folder / "old.csv", None, is_list=False)
    assert plain.name == folder / "old.csv"


def test_a_csv_with_other_lists_is_refused(folder: Path) -> None:
    (folder / "labels.csv").touch()
    config = DatasetConfig(root=str(folder / "labels.csv"), splits=str(folder))
    with pytest.raises(DatasetError, match="already says which videos are for training") as caught:
        labelled_source(config)
    assert caught.value.remedy == (
        "leave out --splits, or set --dataset to the folder of the videos"
    )


@pytest.mark.parametrize(
    ("name", "found"), [("absent.csv", "nothing at that path"), ("a.mp4", "a file")]
)
def test_other_files_are_no_dataset(folder: Path, name: str, found: str) -> None:
    with pytest.raises(DatasetError, match=f"no dataset at .*{name}") as caught:
        labelled_source(DatasetConfig(root=str(folder / name)))
    assert caught.value.found == found
    assert caught.value.expected is not None
    assert caught.value.expected.endswith("or a .csv with path,label,split")


def test_missing_columns_are_named(folder: Path) -> None:
    error = refused(folder, "a.mp4,run", head="path,label")
    assert error.problem == f"{folder}/labels.csv has no column split"
    assert error.found == "path,label"
    error = refused(folder, "b.mp4,run,train", head="a.mp4,run,train")
    assert error.problem == f"{folder}/labels.csv has no column label, path, split"
    assert error.remedy == "write path,label,split into the first line"


@pytest.mark.parametrize(("mark", "name"), [(";", ";"), ("\t", "tabs"), ("|", "|")])
def test_another_separator_is_named(folder: Path, mark: str, name: str) -> None:
    error = refused(folder, head=mark.join(("path", "label", "split")))
    assert error.problem == f"{folder}/labels.csv has no column label, path, split"
    assert error.remedy == f"columns are separated by {name} here: use commas"


def test_unknown_splits_are_named_with_their_line(folder: Path) -> None:
    error = refused(folder, "a.mp4,run,train", "b.mp4,run,training")
    assert error.problem == "labels.csv, line 3 cannot be read"
    assert error.expected == "PATH,LABEL,train|val|test|unused"
    assert error.found == '"b.mp4,run,training"'
    assert error.remedy == (
        'write train, val, test or unused into the column split instead of "training"'
    )


def test_missing_files_are_counted_and_named(folder: Path) -> None:
    rows = ("a.mp4,run,train", "x.mp4,walk,train", "b.mp4,run,test", "/absent/y.mp4,walk,test")
    error = refused(folder, *rows)
    assert error.problem == f"2 of 4 videos that {folder}/labels.csv lists are missing"
    assert error.expected == f"paths of files, absolute or relative to {folder}"
    assert error.found == "missing: x.mp4, /absent/y.mp4"
    assert error.remedy == "correct the column path, or write unused into the column split"


def test_urls_are_refused(folder: Path) -> None:
    error = refused(folder, "https://host.example/a.mp4,run,train", "b.mp4,run,test")
    assert error.problem == "labels.csv, line 2 cannot be read"
    assert error.expected == "the path of a file: download the videos first"


def test_one_class_and_one_subset_are_not_enough(folder: Path) -> None:
    error = refused(folder, "a.mp4,run,train", "b.mp4,run,test")
    assert error.problem == f"the dataset in {folder}/labels.csv has only one class"
    assert (error.found, error.remedy) == ("run", "add videos of another class")
    error = refused(folder, "a.mp4,run,train", "b.mp4,walk,train")
    assert error.problem == f"{folder}/labels.csv has no videos for testing"
    assert error.found == "2 for training, 0 for testing"
    assert error.remedy == "write train, val or test into the column split"


def test_contradictory_labels_are_refused_by_file_and_by_bytes(folder: Path) -> None:
    (folder / "link.mp4").symlink_to("a.mp4")
    (folder / "copy.mp4").write_bytes((folder / "a.mp4").read_bytes())
    rows = ("a.mp4,run,train", "b.mp4,walk,train", "c.mp4,run,test", "d.mp4,walk,test")
    for name in ("../in/a.mp4", "link.mp4", "copy.mp4"):
        error = refused(folder, *rows, f"{name},walk,train")
        assert error.problem == f"{folder}/labels.csv gives two labels to 1 video"
        assert error.found == f"a.mp4 (run) = {name} (walk)"
        assert error.remedy == "keep only the right one of each pair"


def test_one_file_may_not_be_listed_twice_but_copies_may(folder: Path) -> None:
    (folder / "link.mp4").symlink_to("a.mp4")
    (folder / "copy.mp4").write_bytes((folder / "a.mp4").read_bytes())
    rows = ("a.mp4,run,train", "b.mp4,walk,train", "c.mp4,run,test", "d.mp4,walk,test")
    for name in ("../in/a.mp4", "link.mp4"):
        error = refused(folder, *rows, f"{name},run,train")
        assert error.problem == f"{folder}/labels.csv lists 1 video twice, under other paths"
        assert error.found == f"a.mp4 = {name}"
    assert len(listed(folder, *rows, "copy.mp4,run,train").videos) == 5


def test_empty_files_are_no_videos_with_two_labels(folder: Path) -> None:
    for name in ("a.mp4", "b.mp4"):
        (folder / name).write_bytes(b"")
    rows = ("a.mp4,run,train", "b.mp4,walk,train", "c.mp4,run,test", "d.mp4,walk,test")
    assert [video.size_bytes for video in listed(folder, *rows).videos] == [0, 0, 8, 8]


def test_files_that_are_not_regular_are_refused_and_not_read(folder: Path) -> None:
    os.mkfifo(folder / "pipe.mp4")
    rows = ("pipe.mp4,run,train", "/dev/zero,walk,train", "c.mp4,run,test", "d.mp4,walk,test")
    with pytest.raises(CorpusError) as caught:
        listed(folder, *rows)
    assert caught.value.found == "pipe.mp4 (not a regular file), /dev/zero (not a regular file)"

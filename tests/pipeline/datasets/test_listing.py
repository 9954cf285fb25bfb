"""Datasets are listed completely, by the digests of their videos, or rejected with a reason."""

from __future__ import annotations

from pathlib import Path

import pytest

from distinit.pipeline.datasets.listing import known_files, leaked_videos, list_dataset
from distinit.pipeline.datasets.same_dataset import refuse_other_tests_in
from distinit.schemas.dataset import DatasetRecord
from distinit.schemas.errors import DatasetError
from distinit.schemas.finetune import DatasetConfig


def write(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(name.encode())


def rows(record: DatasetRecord) -> list[tuple[str, int, str]]:
    return [(video.path, video.label, video.subset) for video in record.videos]


def test_train_and_test_folders_are_listed(tmp_path: Path) -> None:
    write(tmp_path, "train/b/1 [x].mp4", "train/a/2.avi", "test/b/3.mp4", "test/a/4.MP4")
    write(tmp_path, "train/a/notes.txt", "train/a/.hidden.mp4")
    record = list_dataset(DatasetConfig(root=str(tmp_path)))
    assert record.kind == "folders"
    assert record.classes == ("a", "b")
    assert rows(record) == [
        ("train/a/2.avi", 0, "train"),
        ("train/b/1 [x].mp4", 1, "train"),
        ("test/a/4.MP4", 0, "test"),
        ("test/b/3.mp4", 1, "test"),
    ]
    assert len({video.digest for video in record.videos}) == 4


def test_another_split_needs_official_lists(tmp_path: Path) -> None:
    write(tmp_path, "train/a/1.mp4", "train/b/2.mp4", "test/a/3.mp4", "test/b/4.mp4")
    (tmp_path / "mine.csv").write_text(
        "path,label,split\ntrain/a/1.mp4,a,train\ntrain/b/2.mp4,b,train\n"
        "test/a/3.mp4,a,test\ntest/b/4.mp4,b,test\n"
    )
    for root, splits, found in (
        (tmp_path, None, f"the folders train and test (or val) in {tmp_path}"),
        (tmp_path / "mine.csv", None, "a CSV, whose column split names the videos of each subset"),
        (tmp_path, str(tmp_path / "mine.csv"), "a CSV, whose column split names the videos of "),
    ):
        given = DatasetConfig(root=str(root), splits=splits, split=2)
        with pytest.raises(DatasetError) as caught:
            list_dataset(given)
        assert caught.value.problem == "--split 2 needs --splits with official lists"
        assert str(caught.value.found).startswith(found)
        assert str(caught.value.remedy).startswith("leave --split out")
        record = list_dataset(given.model_copy(update={"split": 1}))
        # A run of an earlier version, which recorded the split, can be evaluated again.
        refuse_other_tests_in(given, record)


def test_official_lists_select_from_class_folders(tmp_path: Path) -> None:
    write(tmp_path / "root", "wave/a[1].avi", "wave/b.avi", "wave/unlisted.avi")
    lists = tmp_path / "lists"
    lists.mkdir()
    (lists / "wave_test_split1.txt").write_text("a[1].avi 2 \nb.avi 1 \n")
    write(tmp_path / "root", "run/c.avi", "run/d.avi")
    (lists / "run_test_split1.txt").write_text("c.avi 1 \nd.avi 2 \n")
    record = list_dataset(DatasetConfig(root=str(tmp_path / "root"), splits=str(lists)))
    assert rows(record) == [
        ("run/c.avi", 0, "train"),
        ("run/d.avi", 0, "test"),
        ("wave/a[1].avi", 1, "test"),
        ("wave/b.avi", 1, "train"),
    ]


def test_missing_videos_are_counted_and_named(tmp_path: Path) -> None:
    write(tmp_path, "x/a.mp4")
    lines = ["path,label,split", "x/a.mp4,x,train"] + [f"x/{i}.mp4,x,test" for i in range(8)]
    (tmp_path / "mine.csv").write_text("\n".join(lines))
    config = DatasetConfig(root=str(tmp_path), splits=str(tmp_path / "mine.csv"))
    with pytest.raises(DatasetError, match="8 of 9 videos") as raised:
        list_dataset(config)
    assert "x/0.mp4, x/1.mp4, x/2.mp4, x/3.mp4, x/4.mp4 and 3 more" in str(raised.value)


def test_a_leak_is_an_error_except_in_an_official_split(tmp_path: Path) -> None:
    write(tmp_path, "train/a/1.mp4", "test/a/2.mp4", "test/a/3.mp4")
    write(tmp_path, "train/b/4.mp4", "test/b/5.mp4")
    (tmp_path / "test/a/2.mp4").write_bytes((tmp_path / "train/a/1.mp4").read_bytes())
    with pytest.raises(DatasetError, match="the training and test sets share 1 video, byte"):
        list_dataset(DatasetConfig(root=str(tmp_path)))
    flat, lists = tmp_path / "flat", tmp_path / "lists"
    write(flat, "a/1.avi", "a/2.avi", "b/3.avi", "b/4.avi")
    (flat / "a/2.avi").write_bytes((flat / "a/1.avi").read_bytes())
    lists.mkdir()
    (lists / "a_test_split1.txt").write_text("1.avi 1\n2.avi 2\n")
    (lists / "b_test_split1.txt").write_text("3.avi 1\n4.avi 2\n")
    record = list_dataset(DatasetConfig(root=str(flat), splits=str(lists)))
    (leak,) = leaked_videos(record)
    assert (leak.first, leak.second) == ("a/1.avi", "a/2.avi")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ((), "has no folder train"),
        (("train/a/1.mp4",), "has no folder test"),
        (("train/a/1.mp4", "test/b/1.mp4"), "have different classes"),
        (("train/a/1.txt", "test/a/1.txt"), "have different classes"),
        (("train/a/1.mp4", "test/a/2.mp4"), "has only one class"),
    ],
)
def test_incomplete_folders_are_rejected(
    tmp_path: Path, names: tuple[str, ...], message: str
) -> None:
    write(tmp_path, *names)
    with pytest.raises(DatasetError, match=message):
        list_dataset(DatasetConfig(root=str(tmp_path)))


def test_a_missing_dataset_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no dataset at"):
        list_dataset(DatasetConfig(root=str(tmp_path / "absent")))


def test_unchanged_files_are_not_hashed_again(tmp_path: Path) -> None:
    write(tmp_path, "train/a/1.mp4", "test/a/2.mp4", "train/b/3.mp4", "test/b/4.mp4")
    config = DatasetConfig(root=str(tmp_path))
    first = list_dataset(config)
    marked = first.model_copy(
        update={
            "videos": tuple(
                v.model_copy(update={"digest": "f" * 64}) for v in first.videos if "/a/" in v.path
            )
        }
    )
    (tmp_path / "test/a/2.mp4").write_bytes(b"changed")
    again = list_dataset(config, known_files(marked))
    digests = {video.path: video.digest for video in again.videos}
    (old,) = (video.digest for video in first.videos if video.path == "test/a/2.mp4")
    assert digests["train/a/1.mp4"] == "f" * 64
    assert digests["test/a/2.mp4"] not in {"f" * 64, old}


def test_content_digest_depends_on_bytes_but_not_on_times(tmp_path: Path) -> None:
    write(tmp_path, "train/a/1.mp4", "test/a/2.mp4", "train/b/3.mp4", "test/b/4.mp4")
    config = DatasetConfig(root=str(tmp_path))
    first = list_dataset(config)
    (tmp_path / "train/a/1.mp4").touch()
    assert list_dataset(config).content_digest() == first.content_digest()
    (tmp_path / "train/a/1.mp4").write_bytes(b"else")
    assert list_dataset(config).content_digest() != first.content_digest()


@pytest.mark.parametrize(
    ("extra", "found"),
    [
        ("c/1.mp4,c,test", "not in train: c; not in test: none"),
        ("c/1.mp4,c,train", "not in train: none; not in test: c"),
    ],
)
def test_a_class_in_only_one_subset_of_a_csv_is_named_in_the_error(
    tmp_path: Path, extra: str, found: str
) -> None:
    names = {"a/1.mp4": "train", "a/2.mp4": "test", "b/1.mp4": "train", "b/2.mp4": "test"}
    write(tmp_path, *names, "c/1.mp4")
    lines = [f"{name},{name[0]},{subset}" for name, subset in names.items()]
    (tmp_path / "mine.csv").write_text("\n".join(["path,label,split", *lines, extra]))
    config = DatasetConfig(root=str(tmp_path), splits=str(tmp_path / "mine.csv"))
    with pytest.raises(DatasetError, match="have different classes") as raised:
        list_dataset(config)
    assert raised.value.found == found


def test_a_class_without_used_videos_is_left_out(tmp_path: Path) -> None:
    names = {"a/1.mp4": "train", "a/2.mp4": "test", "b/1.mp4": "train", "b/2.mp4": "test"}
    write(tmp_path, *names)
    lines = [f"{name},{name[0]},{subset}" for name, subset in names.items()]
    lines.append("c/1.mp4,c,unused")
    (tmp_path / "mine.csv").write_text("\n".join(["path,label,split", *lines]))
    config = DatasetConfig(root=str(tmp_path), splits=str(tmp_path / "mine.csv"))
    assert list_dataset(config).classes == ("a", "b")


def test_val_folders_lie_between_train_and_test(tmp_path: Path) -> None:
    write(tmp_path, "train/a/1.mp4", "train/b/2.mp4", "test/a/3.mp4", "test/b/4.mp4")
    without = list_dataset(DatasetConfig(root=str(tmp_path)))
    assert (without.final_subset, without.watched_subset) == ("test", "test")
    write(tmp_path, "val/b/5.mp4", "validation/b/6.mp4")
    record = list_dataset(DatasetConfig(root=str(tmp_path)))
    assert rows(record) == [
        ("train/a/1.mp4", 0, "train"),
        ("train/b/2.mp4", 1, "train"),
        ("val/b/5.mp4", 1, "val"),
        ("validation/b/6.mp4", 1, "val"),
        ("test/a/3.mp4", 0, "test"),
        ("test/b/4.mp4", 1, "test"),
    ]
    assert (record.final_subset, record.watched_subset) == ("test", "val")
    assert record.content_digest() != without.content_digest()


def test_the_digest_of_a_dataset_without_val_videos_has_not_changed(tmp_path: Path) -> None:
    """Runs of earlier versions can be resumed."""
    write(tmp_path, "train/a/1.mp4", "train/b/2.mp4", "test/a/3.mp4", "test/b/4.mp4")
    digest = list_dataset(DatasetConfig(root=str(tmp_path))).content_digest()
    assert digest == "f4516ae7c83877873244ae54d87776c16a8913d1253940d4bd9628d006b3a406"


def test_val_videos_take_the_place_of_missing_test_videos(tmp_path: Path) -> None:
    write(tmp_path, "train/a/1.mp4", "train/b/2.mp4", "val/a/3.mp4")
    with pytest.raises(DatasetError, match=r"train and val in .* have different classes"):
        list_dataset(DatasetConfig(root=str(tmp_path)))
    write(tmp_path, "val/b/4.mp4")
    record = list_dataset(DatasetConfig(root=str(tmp_path)))
    assert (record.final_subset, record.watched_subset) == ("val", "val")


@pytest.mark.parametrize(
    ("copy", "of", "message"),
    [
        ("val/a/5.mp4", "train/a/1.mp4", "training and val sets share 1 video"),
        ("val/a/5.mp4", "test/a/3.mp4", "val and test sets share 1 video"),
    ],
)
def test_val_videos_must_differ_from_all_others(
    tmp_path: Path, copy: str, of: str, message: str
) -> None:
    write(tmp_path, "train/a/1.mp4", "train/b/2.mp4", "test/a/3.mp4", "test/b/4.mp4", copy)
    (tmp_path / copy).write_bytes((tmp_path / of).read_bytes())
    with pytest.raises(DatasetError, match=message) as raised:
        list_dataset(DatasetConfig(root=str(tmp_path)))
    assert copy in str(raised.value)

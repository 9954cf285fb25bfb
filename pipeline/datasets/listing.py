"""Labelled video datasets: class folders on disk, with official splits or folders of their own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from distinit.pipeline.corpus.listing import VIDEO_EXTENSIONS, list_files
from distinit.pipeline.datasets.splits import (
    LabelledPath,
    SplitLists,
    check_classes,
    read_splits,
)
from distinit.schemas.corpus import VideoFile
from distinit.schemas.errors import DatasetError
from distinit.schemas.finetune import DatasetConfig
from distinit.schemas.run import DatasetRecord, DatasetVideo

__all__ = ["known_files", "leaked_videos", "list_dataset"]

_SHOWN = 5
_OFFICIAL = ("hmdb51", "ucf101")


@dataclass(frozen=True, slots=True)
class Leak:
    """The same bytes for training and for testing."""

    train: str
    test: str


def list_dataset(
    config: DatasetConfig, known: Mapping[str, VideoFile] | None = None
) -> DatasetRecord:
    """List and hash the videos of one split of a dataset.

    ``known`` spares hashing unchanged files (``corpus.listing``). Raises DatasetError when lists
    or videos are missing, when a class has videos of one subset only, or when a video is in both
    subsets of a split that is not an official one (an official one is kept as published: see
    ``leaked_videos``).
    """
    root = Path(config.root)
    if not root.is_dir():
        raise DatasetError(
            f"there is no dataset at {root}",
            expected="a folder of class folders with videos",
            found="a file" if root.exists() else "nothing at that path",
            remedy="check --dataset",
        )
    lists = (
        _subset_folders(root)
        if config.splits is None
        else read_splits(Path(config.splits), config.split)
    )
    _refuse_missing(root, lists.videos)
    check_classes(lists, root if config.splits is None else Path(config.splits))
    corpus = list_files(root, [video.path for video in lists.videos], known)
    file_of = {file.path: file for file in corpus.files}
    number_of = {label: number for number, label in enumerate(lists.classes)}
    record = DatasetRecord(
        kind=lists.kind,
        classes=lists.classes,
        videos=tuple(
            DatasetVideo(
                path=video.path,
                label=number_of[video.label],
                subset=video.subset,
                digest=file_of[video.path].digest,
                size_bytes=file_of[video.path].size_bytes,
                mtime_ns=file_of[video.path].mtime_ns,
            )
            for video in lists.videos
        ),
    )
    if lists.kind not in _OFFICIAL:
        _refuse_leaks(leaked_videos(record))
    return record


def known_files(record: DatasetRecord) -> dict[str, VideoFile]:
    """What an earlier listing found, for the next one."""
    return {
        video.path: VideoFile("", video.path, video.digest, video.size_bytes, video.mtime_ns)
        for video in record.videos
    }


def leaked_videos(record: DatasetRecord) -> tuple[Leak, ...]:
    """Test videos whose bytes are a training video's too."""
    train = {video.digest: video.path for video in record.subset("train")}
    return tuple(
        Leak(train[video.digest], video.path)
        for video in record.subset("test")
        if video.digest in train
    )


def _subset_folders(root: Path) -> SplitLists:
    """``root/train/CLASS/*`` and ``root/test/CLASS/*``, classes in alphabetical order."""
    videos = []
    for subset in ("train", "test"):
        if not (root / subset).is_dir():
            raise DatasetError(
                f"{root} has no folder {subset}",
                expected="train/CLASS/VIDEO and test/CLASS/VIDEO, or split lists",
                found=_first(sorted(path.name for path in root.iterdir())) or "an empty folder",
                remedy="give --splits a folder of HMDB-51 or UCF-101 lists, or a CSV",
            )
        for path in sorted((root / subset).glob("*/*")):
            if path.suffix.lower() in VIDEO_EXTENSIONS and not path.name.startswith("."):
                relative = path.relative_to(root).as_posix()
                videos.append(LabelledPath(relative, path.parent.name, subset))
    labels = {video.label for video in videos}
    return SplitLists("folders", tuple(sorted(labels)), tuple(videos))


def _refuse_missing(root: Path, videos: Iterable[LabelledPath]) -> None:
    listed = [video.path for video in videos]
    missing = [path for path in listed if not _is_file(root / path)]
    if missing:
        raise DatasetError(
            f"{len(missing)} of {len(listed)} videos of the dataset are missing in {root}",
            expected="CLASS/VIDEO below the dataset's root, as in the split lists",
            found=f"not there: {_first(missing)}",
            remedy="unpack the whole dataset, or point --dataset to the folder of class folders",
        )


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # such as a name that is too long
        return False


def _refuse_leaks(leaks: tuple[Leak, ...]) -> None:
    if leaks:
        raise DatasetError(
            f"{len(leaks)} test videos are training videos too, byte for byte",
            found=_first(f"{leak.test} = {leak.train}" for leak in leaks),
            remedy="remove one of each pair: the figures would be too good",
        )


def _first(names: Iterable[str]) -> str:
    listed = list(names)
    more = len(listed) - _SHOWN
    return ", ".join(listed[:_SHOWN]) + (f" and {more} more" if more > 0 else "")

"""Lists labelled video datasets: class folders, split by official lists, a CSV or subfolders."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from distinit.pipeline.corpus.listing import VIDEO_EXTENSIONS, list_files
from distinit.pipeline.datasets.source import LabelledSource, labelled_source
from distinit.pipeline.datasets.splits import (
    LabelledPath,
    SplitLists,
    check_classes,
)
from distinit.schemas.corpus import VideoFile
from distinit.schemas.dataset import DatasetRecord, DatasetVideo, Subset
from distinit.schemas.errors import DatasetError
from distinit.schemas.finetune import DatasetConfig
from distinit.schemas.wording import counted, first_names

__all__ = ["OFFICIAL", "known_files", "leaked_videos", "list_dataset"]

OFFICIAL = ("hmdb51", "ucf101")
_FOLDERS: dict[str, Subset] = {"train": "train", "val": "val", "validation": "val", "test": "test"}


@dataclass(frozen=True, slots=True)
class Leak:
    """Paths of two videos with the same bytes in different subsets, such as train and test."""

    subsets: tuple[Subset, Subset]
    first: str
    second: str

    def __str__(self) -> str:
        """For messages: the later path and what it equals."""
        return f"{self.second} = {self.first}"


def list_dataset(
    config: DatasetConfig, known: Mapping[str, VideoFile] | None = None
) -> DatasetRecord:
    """List and hash the videos of one split of a dataset.

    Files that are unchanged since ``known`` are not hashed again (``corpus.listing``). Raises
    DatasetError if lists or videos are missing, if a class lacks training or test videos, or if
    another split than 1 is asked for without official lists. Official splits are kept as published
    (see ``leaked_videos``). In others it is also raised if a video is in two subsets, has two
    labels, or is listed twice. Files with the same bytes may have the same label in the same
    subset. Raises CorpusError for files that cannot be read.
    """
    source = labelled_source(config)
    root = source.root
    lists = source.read(config.split) or _subset_folders(root)
    if config.split != 1 and lists.kind not in OFFICIAL:
        raise _unused_split(source, config.split)
    _refuse_missing(source, lists.videos)
    check_classes(lists, source.name)
    corpus = list_files(root, [video.path for video in lists.videos], known)
    file_of = {file.path: file for file in corpus.files}
    index_of = {label: index for index, label in enumerate(lists.classes)}
    record = DatasetRecord(
        kind=lists.kind,
        classes=lists.classes,
        videos=tuple(
            DatasetVideo(
                path=video.path,
                label=index_of[video.label],
                subset=video.subset,
                digest=file_of[video.path].digest,
                size_bytes=file_of[video.path].size_bytes,
                mtime_ns=file_of[video.path].mtime_ns,
            )
            for video in lists.videos
        ),
    )
    if lists.kind not in OFFICIAL:
        _refuse_leaks(leaked_videos(record))
        _refuse_repeated(source, record)
    return record


def known_files(record: DatasetRecord) -> dict[str, VideoFile]:
    """The files of an earlier listing by path, for ``list_dataset``."""
    return {
        video.path: VideoFile("", video.path, video.digest, video.size_bytes, video.mtime_ns)
        for video in record.videos
    }


def leaked_videos(record: DatasetRecord) -> tuple[Leak, ...]:
    """Videos that have the same bytes as one of another subset: val or test = train, test = val."""
    pairs: tuple[tuple[Subset, Subset], ...] = (
        ("train", "val"),
        ("train", "test"),
        ("val", "test"),
    )
    leaks = []
    for first, second in pairs:
        paths = {video.digest: video.path for video in record.subset(first)}
        leaks += [
            Leak((first, second), paths[video.digest], video.path)
            for video in record.subset(second)
            if video.digest in paths
        ]
    return tuple(leaks)


def _subset_folders(root: Path) -> SplitLists:
    """``root/train/CLASS/*``, ``root/val`` and ``root/test``, classes in alphabetical order.

    Without ``val`` (or ``validation``), there must be ``test``.
    """
    folders = [name for name in _FOLDERS if (root / name).is_dir()]
    for required, substitutes in (("train", {"train"}), ("test", {"test", "val", "validation"})):
        if substitutes.isdisjoint(folders):
            raise DatasetError(
                f"{root} has no folder {required}",
                expected="train/CLASS/VIDEO and test/CLASS/VIDEO (val/CLASS/VIDEO is optional), or "
                "split lists",
                found=first_names(sorted(path.name for path in root.iterdir()))
                or "an empty folder",
                remedy="set --splits to a folder of HMDB-51 or UCF-101 lists, or --dataset to a "
                "CSV with path,label,split",
            )
    videos = []
    for name in folders:
        for path in sorted((root / name).glob("*/*")):
            if path.suffix.lower() in VIDEO_EXTENSIONS and not path.name.startswith("."):
                relative = path.relative_to(root).as_posix()
                videos.append(LabelledPath(relative, path.parent.name, _FOLDERS[name]))
    labels = {video.label for video in videos}
    return SplitLists("folders", tuple(sorted(labels)), tuple(videos))


def _unused_split(source: LabelledSource, split: int) -> DatasetError:
    return DatasetError(
        f"--split {split} needs --splits with official lists",
        expected="--splits with the lists of HMDB-51 or UCF-101, which have the splits 1, 2 and 3",
        found="a CSV, whose column split names the videos of each subset"
        if source.lists is not None
        else f"the folders train and test (or val) in {source.root}",
        remedy="leave --split out, or set --splits to a folder of official lists",
    )


def _refuse_missing(source: LabelledSource, videos: Iterable[LabelledPath]) -> None:
    root = source.root
    listed = [video.path for video in videos]
    missing = [path for path in listed if not _exists(root / path)]
    if missing:
        if source.is_list:
            raise DatasetError(
                f"{len(missing)} of {len(listed)} videos that {source.name} lists are missing",
                expected=f"paths of files, absolute or relative to {root}",
                found=f"missing: {first_names(missing)}",
                remedy="correct the column path, or write unused into the column split",
            )
        raise DatasetError(
            f"{len(missing)} of {len(listed)} videos of the dataset are missing from {root}",
            expected="CLASS/VIDEO below the dataset's root, as in the split lists",
            found=f"missing: {first_names(missing)}",
            remedy="unpack the whole dataset, or set --dataset to the folder of class folders",
        )


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # for example, the name is too long
        return False


def _refuse_leaks(leaks: tuple[Leak, ...]) -> None:
    if leaks:
        first, second = leaks[0].subsets
        sets = f"{'training' if first == 'train' else first} and {second} sets"
        shared = [str(leak) for leak in leaks if leak.subsets == leaks[0].subsets]
        raise DatasetError(
            f"the {sets} share {counted(len(shared), 'video')}, byte for byte",
            found=first_names(shared),
            remedy="remove one video of each pair: otherwise the accuracy would be overestimated",
        )


def _refuse_repeated(source: LabelledSource, record: DatasetRecord) -> None:
    """Raise DatasetError if the same bytes have two labels, or if two paths lead to one file."""
    same_bytes: dict[str, list[DatasetVideo]] = {}
    for video in record.videos:
        if video.size_bytes:  # empty files are no videos
            same_bytes.setdefault(video.digest, []).append(video)
    contradictory, repeated = [], []
    for first, *others in same_bytes.values():
        seen = {(source.root / first.path).resolve(): first} if others else {}
        for other in others:
            labels = (record.classes[first.label], record.classes[other.label])
            if labels[0] != labels[1]:
                contradictory.append(f"{first.path} ({labels[0]}) = {other.path} ({labels[1]})")
            same = seen.setdefault((source.root / other.path).resolve(), other)
            if same is not other:
                repeated.append(f"{same.path} = {other.path}")
    if contradictory:
        raise DatasetError(
            f"{source.name} gives two labels to {counted(len(contradictory), 'video')}",
            expected="one label for the same file or the same bytes",
            found=first_names(contradictory),
            remedy="keep only the right one of each pair",
        )
    if repeated:
        raise DatasetError(
            f"{source.name} lists {counted(len(repeated), 'video')} twice, under other paths",
            expected="each file once",
            found=first_names(repeated),
            remedy="keep only one of each pair",
        )

"""Reads which videos of a labelled dataset are for training, validation and testing.

The splits are the official lists of HMDB-51 or UCF-101, or a CSV. No video is opened here. Lists
are untrusted input: their size is limited, they must be UTF-8 text, and their paths must stay
inside the dataset's folder. Only a CSV that is itself the dataset may name files anywhere, as the
lists of a corpus may: there is no other folder that its paths could stay inside.
"""

from __future__ import annotations

import csv
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from distinit.pipeline.corpus.listing import path_below
from distinit.pipeline.storage import read_bounded
from distinit.pipeline.transport.remote import is_url
from distinit.schemas.dataset import Subset
from distinit.schemas.errors import DatasetError
from distinit.schemas.wording import first_names, shown

__all__ = [
    "LabelledPath",
    "SplitLists",
    "check_classes",
    "listed_paths",
    "read_label_list",
    "read_splits",
]

_HMDB_NAME = re.compile(r"(?P<label>.+)_test_split(?P<split>[0-9]+)\.txt")
_UCF_NAME = re.compile(r"(?P<subset>train|test)list(?P<split>[0-9]+)\.txt")
_HMDB_SUBSETS: dict[str, Subset | None] = {"0": None, "1": "train", "2": "test"}
_MAX_LIST_BYTES = 256 << 20  # a list of a million videos takes about 100 MB
_MAX_LINE = 8_192  # characters: twice the longest path
_NUMBER = re.compile(r"[0-9]{1,9}")
_SEPARATORS = {";": ";", "\t": "tabs", "|": "|"}
"""What some programs write in place of commas, and its name in messages."""
_CONTROL = frozenset({"Cc", "Zl", "Zp"})  # Unicode: control characters and line breaks
_CSV_SUBSETS: dict[str, Subset | None] = {
    "train": "train",
    "val": "val",
    "validation": "val",
    "test": "test",
    "unused": None,
}


@dataclass(frozen=True, slots=True)
class LabelledPath:
    """One line of a split list."""

    path: str  # posix, relative to the dataset's root; absolute for files elsewhere
    label: str
    subset: Subset


@dataclass(frozen=True, slots=True)
class SplitLists:
    """All videos of one split, and the class names in order of their index."""

    kind: Literal["hmdb51", "ucf101", "csv", "folders"]
    classes: tuple[str, ...]
    videos: tuple[LabelledPath, ...]


def read_splits(source: Path, split: int) -> SplitLists:
    """Read ``source``: a folder of HMDB-51 or UCF-101 lists, one file of such a folder, or a CSV.

    Classes are ordered as in ``classInd.txt`` (UCF-101) or else alphabetically. ``split`` selects
    one of the official splits. Raises DatasetError if there is no list or a line is malformed.
    """
    if source.is_file() and source.suffix.lower() == ".csv":
        return _read_csv(source, lambda name, number: _inside(name, source, number))
    folder = source.parent if source.is_file() else source
    reader = _reader_for(folder)
    if reader is None:
        raise DatasetError(
            f"no split lists at {source}",
            expected="CLASS_test_split1.txt (HMDB-51), classInd.txt with trainlist01.txt and "
            "testlist01.txt (UCF-101), or a .csv with path,label,split",
            found="no such file or folder" if not source.exists() else "none of these",
            remedy="set --splits to the folder that holds them",
        )
    return reader(folder, split)


def read_label_list(source: Path) -> SplitLists:
    """Read a CSV that is itself the dataset: its paths are absolute or relative to its folder.

    Raises DatasetError as ``read_splits``.
    """
    return _read_csv(source, lambda name, _: path_below(source.parent, Path(name)))


def listed_paths(source: Path) -> tuple[str, ...]:
    """Sorted paths of the videos in any official split of ``source``, unused ones included.

    They are the same for every split of a dataset, so that all splits can share a frame store.
    Empty for a CSV, which has only one split. Raises DatasetError if a list is malformed.
    """
    if source.is_file() and source.suffix.lower() == ".csv":
        return ()
    folder = source.parent if source.is_file() else source
    if (folder / "classInd.txt").is_file():
        paths = set(_ucf101_paths(folder))
    else:
        lists = _hmdb51_lists(folder, split=None)
        paths = {video for path, label in lists for video, _ in _hmdb51_list(path, label)}
    return tuple(sorted(paths))


def _ucf101_paths(folder: Path) -> Iterator[str]:
    class_of = _ucf101_classes(folder)
    for path in sorted(folder.iterdir()):
        if (match := _UCF_NAME.fullmatch(path.name)) is not None:
            subset: Subset = "train" if match["subset"] == "train" else "test"
            yield from (video.path for video in _ucf101_list(path, subset, class_of))


def _reader_for(folder: Path) -> Callable[[Path, int], SplitLists] | None:
    if (folder / "classInd.txt").is_file():
        return _read_ucf101
    if folder.is_dir() and any(_HMDB_NAME.fullmatch(path.name) for path in folder.iterdir()):
        return _read_hmdb51
    return None


def _read_hmdb51(folder: Path, split: int) -> SplitLists:
    labels, videos = [], []
    for path, label in _hmdb51_lists(folder, split):
        labels.append(label)
        for video, subset in _hmdb51_list(path, label):
            if subset is not None:
                videos.append(LabelledPath(video, label, subset))
    return _checked(SplitLists("hmdb51", tuple(sorted(labels)), tuple(videos)), folder, split)


def _hmdb51_lists(folder: Path, split: int | None) -> Iterator[tuple[Path, str]]:
    """(list, class) of ``CLASS_test_splitK.txt``, of one split or, with None, of all splits."""
    for path in sorted(folder.iterdir()):
        match = _HMDB_NAME.fullmatch(path.name)
        if match is not None and split in (None, int(match["split"])):
            yield path, match["label"]


def _hmdb51_list(path: Path, label: str) -> Iterator[tuple[str, Subset | None]]:
    """(video, subset) of the lines ``file.avi N``: 0 unused, 1 training, 2 test."""
    for number, line in _lines(path):
        name, _, code = line.rpartition(" ")
        if code not in _HMDB_SUBSETS or not name.strip():
            raise _bad_line(path, number, line, "FILE 0|1|2")
        yield _inside(f"{label}/{name.strip()}", path, number), _HMDB_SUBSETS[code]


def _read_ucf101(folder: Path, split: int) -> SplitLists:
    """``classInd.txt`` (``1 ApplyEyeMakeup``), ``trainlist0K.txt`` and ``testlist0K.txt``."""
    class_of = _ucf101_classes(folder)
    classes = tuple(class_of[index] for index in sorted(class_of))
    subsets: tuple[Subset, Subset] = ("train", "test")
    videos = [
        video
        for subset in subsets
        for video in _ucf101_list(folder / f"{subset}list{split:02d}.txt", subset, class_of)
    ]
    return _checked(SplitLists("ucf101", classes, tuple(videos)), folder, split)


def _ucf101_classes(folder: Path) -> dict[int, str]:
    """Class number -> class name, of ``classInd.txt``."""
    class_of: dict[int, str] = {}
    for number, line in _lines(folder / "classInd.txt"):
        index, _, label = line.partition(" ")
        label = label.strip()
        if not _NUMBER.fullmatch(index) or not label:
            raise _bad_line(folder / "classInd.txt", number, line, "NUMBER CLASS")
        if int(index) in class_of or label in class_of.values():
            raise _bad_line(folder / "classInd.txt", number, line, "each number and class once")
        class_of[int(index)] = label
    return class_of


def _ucf101_list(path: Path, subset: Subset, class_of: dict[int, str]) -> Iterator[LabelledPath]:
    """The class is the folder in the path; if the line also has a class number, it must agree.

    ``class_of``: class number in ``classInd.txt`` -> class name.
    """
    if not path.is_file():
        raise DatasetError(
            f"the split list {path} is missing",
            expected="trainlist and testlist of the same split, next to classInd.txt",
            remedy="choose another --split, or add the file",
        )
    known = set(class_of.values())
    for number, line in _lines(path):
        name, _, index = line.rpartition(" ")
        if not _NUMBER.fullmatch(index):
            name, index = line, ""
        label = next(iter(PurePosixPath(name).parts), "")
        if label not in known or (index and class_of.get(int(index)) != label):
            raise _bad_line(path, number, line, "CLASS/FILE [NUMBER], as in classInd.txt")
        yield LabelledPath(_inside(name, path, number), label, subset)


type _Place = Callable[[str, int], str]
"""(name of a video in a list, line number) -> its path as it is stored. Raises DatasetError."""


def _read_csv(path: Path, place: _Place) -> SplitLists:
    """Columns path, label, split (train, val, test or unused); other columns are ignored.

    The classes are those of all videos in use.
    """
    rows = _csv_rows(path)
    names = [name.strip() for name in next(rows, (1, []))[1]]
    missing = {"path", "label", "split"} - set(names)
    if missing:
        raise _no_column(path, missing, names)
    videos = [
        video
        for number, row in rows
        for video in _csv_row(dict(zip(names, row, strict=False)), path, number, place)
    ]
    labels = {video.label for video in videos}
    return _checked(SplitLists("csv", tuple(sorted(labels)), tuple(videos)), path, 1)


def _csv_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """(number of its first line, cells) of each row that is not blank. Raises DatasetError."""
    reader = csv.reader((f"{line}\n" for line in _text_of(path)), strict=True)
    number = 1
    try:
        for row in reader:
            if row:
                yield number, row
            number = reader.line_num + 1
    except csv.Error as error:
        raise _bad_line(path, number, str(error), "PATH,LABEL,SPLIT") from error


def _no_column(path: Path, missing: Iterable[str], names: Sequence[str]) -> DatasetError:
    header = ",".join(names)
    other = next((name for mark, name in _SEPARATORS.items() if mark in header), None)
    return DatasetError(
        f"{path} has no column {', '.join(sorted(missing))}",
        expected="a header with the columns path,label,split",
        found=header[:200] or "an empty file",
        remedy="write path,label,split into the first line"
        if other is None
        else f"columns are separated by {other} here: use commas",
    )


def _csv_row(
    row: Mapping[str, str], path: Path, number: int, place: _Place
) -> Iterator[LabelledPath]:
    name, label, code = (row.get(key, "").strip() for key in ("path", "label", "split"))
    if not name or not label or code not in _CSV_SUBSETS:
        wrong = f"write train, val, test or unused into the column split instead of {shown(code)}"
        raise _bad_line(
            path,
            number,
            f"{name},{label},{code}",
            "PATH,LABEL,train|val|test|unused",
            remedy=wrong
            if name and label
            else "fill in the path and the label, or remove the line",
        )
    for text in (name, label):
        if any(unicodedata.category(character) in _CONTROL for character in text):
            expected = "paths and labels without line breaks and control characters"
            raise _bad_line(path, number, text, expected)
    if is_url(name):
        raise _bad_line(path, number, name, "the path of a file: download the videos first")
    subset = _CSV_SUBSETS[code]
    if subset is not None:
        yield LabelledPath(place(name, number), label, subset)


def _lines(path: Path) -> list[tuple[int, str]]:
    """(line number, text) of the lines that are not blank."""
    return [(number, line) for number, line in enumerate(_text_of(path), start=1) if line]


def _text_of(path: Path) -> list[str]:
    """The lines of a list, without byte order mark, line ends and surrounding spaces.

    Raises DatasetError if the file is too large, is not a regular file, is not UTF-8, or has too
    long a line.
    """
    try:
        text = read_bounded(path, _MAX_LIST_BYTES).decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(
            f"the list {path} cannot be read",
            expected=f"UTF-8 text of at most {_MAX_LIST_BYTES:,} bytes",
            found=getattr(error, "strerror", None) or str(error)[:200],
            remedy="check the path of the list, or save it as UTF-8",
        ) from error
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    lines = [line.strip() for line in text.split("\n")]
    for number, line in enumerate(lines, start=1):
        if len(line) > _MAX_LINE or "\0" in line:
            expected = f"at most {_MAX_LINE:,} characters, none of them NUL"
            raise _bad_line(path, number, line, expected)
    return lines


def _inside(name: str, path: Path, number: int) -> str:
    pure = PurePosixPath(name)
    if pure.is_absolute() or ".." in pure.parts or not pure.parts:
        raise _bad_line(path, number, name, "a path below the dataset's root")
    return pure.as_posix()


def _bad_line(
    path: Path, number: int, line: str, expected: str, remedy: str = "correct this line"
) -> DatasetError:
    return DatasetError(
        f"{path.name}, line {number} cannot be read",
        expected=expected,
        found=shown(line),
        remedy=remedy,
    )


def _checked(lists: SplitLists, source: Path, split: int) -> SplitLists:
    """Return ``lists``.

    Raises DatasetError if there are no training videos, neither test nor val videos, or if a path
    is listed twice.
    """
    duplicates = [p for p, count in Counter(v.path for v in lists.videos).items() if count > 1]
    if duplicates:
        raise DatasetError(
            f"the split lists in {source} list a video twice",
            found=duplicates[0],
            remedy="keep only one of these lines",
        )
    counts = Counter(video.subset for video in lists.videos)
    if not counts["train"] or not counts["test"] + counts["val"]:
        lacking = "testing" if counts["train"] else "training"
        raise DatasetError(
            f"{source} has no videos for {lacking}"
            if lists.kind == "csv"
            else f"the lists in {source} have no complete split {split}",
            expected="videos for training and for testing",
            found=f"{counts['train']} for training, {counts['test']} for testing",
            remedy="write train, val or test into the column split"
            if lists.kind == "csv"
            else "choose another --split, or add the missing lists",
        )
    return lists


def check_classes(lists: SplitLists, source: Path) -> None:
    """Raise DatasetError unless there are at least two classes, each in train and in test.

    A class that is never trained or never tested would distort the accuracy. Without test videos,
    the val videos take their place; next to test videos, they may lack classes.
    """
    subsets = {video.subset for video in lists.videos}
    final: Subset = "val" if "val" in subsets and "test" not in subsets else "test"
    train, test = (
        {video.label for video in lists.videos if video.subset == name} for name in ("train", final)
    )
    classes = set(lists.classes)
    if not train == test == classes or not classes:
        raise DatasetError(
            f"train and {final} in {source} have different classes",
            expected="videos of the same classes in both",
            found=f"not in train: {first_names(sorted(classes - train)) or 'none'}; "
            f"not in {final}: {first_names(sorted(classes - test)) or 'none'}",
            remedy="add videos of each class to both, or leave the class out",
        )
    if len(classes) == 1:
        raise DatasetError(
            f"the dataset in {source} has only one class",
            expected="at least two classes",
            found=first_names(classes),
            remedy="add videos of another class",
        )

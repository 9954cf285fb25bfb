"""Which videos of a labelled dataset are for training and which for testing.

Official lists of HMDB-51 and UCF-101, a CSV, or the folders ``train`` and ``test``. Nothing here
looks at a video.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from distinit.schemas.errors import DatasetError

__all__ = ["LabelledPath", "SplitLists", "read_splits"]

Subset = Literal["train", "test"]

_HMDB_NAME = re.compile(r"(?P<label>.+)_test_split(?P<split>\d+)\.txt")
_HMDB_SUBSETS: dict[str, Subset | None] = {"0": None, "1": "train", "2": "test"}
_CSV_SUBSETS: dict[str, Subset | None] = {"train": "train", "test": "test", "unused": None}


@dataclass(frozen=True, slots=True)
class LabelledPath:
    """One video of a list."""

    path: str  # posix, relative to the dataset's root
    label: str
    subset: Subset


@dataclass(frozen=True, slots=True)
class SplitLists:
    """All videos of one split, and the classes in the order of their numbers."""

    kind: Literal["hmdb51", "ucf101", "csv", "folders"]
    classes: tuple[str, ...]
    videos: tuple[LabelledPath, ...]


def read_splits(source: Path, split: int) -> SplitLists:
    """Read the lists in ``source``: a folder of HMDB-51 or UCF-101 lists, one of these, or a CSV.

    Classes are numbered as in ``classInd.txt`` (UCF-101), else in alphabetical order. ``split``
    chooses among official lists. Raises DatasetError if there are none or a line is malformed.
    """
    if source.is_file() and source.suffix.lower() == ".csv":
        return _read_csv(source)
    folder = source.parent if source.is_file() else source
    reader = _reader_for(folder)
    if reader is None:
        raise DatasetError(
            f"no split lists at {source}",
            expected="CLASS_test_split1.txt (HMDB-51), classInd.txt with trainlist01.txt and "
            "testlist01.txt (UCF-101), or a .csv with path,label,split",
            found="no such file or folder" if not source.exists() else "none of these",
            remedy="give --splits the folder that holds them",
        )
    return reader(folder, split)


def _reader_for(folder: Path) -> Callable[[Path, int], SplitLists] | None:
    if (folder / "classInd.txt").is_file():
        return _read_ucf101
    if folder.is_dir() and any(_HMDB_NAME.fullmatch(path.name) for path in folder.iterdir()):
        return _read_hmdb51
    return None


def _read_hmdb51(folder: Path, split: int) -> SplitLists:
    """``CLASS_test_splitK.txt``, lines ``file.avi N``: 0 unused, 1 training, 2 test."""
    videos: list[LabelledPath] = []
    labels = []
    for path in sorted(folder.iterdir()):
        match = _HMDB_NAME.fullmatch(path.name)
        if match is None or int(match["split"]) != split:
            continue
        labels.append(match["label"])
        for number, line in _lines(path):
            name, _, code = line.rpartition(" ")
            if code not in _HMDB_SUBSETS or not name.strip():
                raise _bad_line(path, number, line, "FILE 0|1|2")
            subset = _HMDB_SUBSETS[code]
            if subset is not None:
                inside = _inside(f"{match['label']}/{name.strip()}", path, number)
                videos.append(LabelledPath(inside, match["label"], subset))
    return _checked(SplitLists("hmdb51", tuple(sorted(labels)), tuple(videos)), folder, split)


def _read_ucf101(folder: Path, split: int) -> SplitLists:
    """``classInd.txt`` (``1 ApplyEyeMakeup``), ``trainlist0K.txt`` and ``testlist0K.txt``."""
    numbered: dict[int, str] = {}
    for number, line in _lines(folder / "classInd.txt"):
        index, _, label = line.partition(" ")
        if not index.isdigit() or not label.strip():
            raise _bad_line(folder / "classInd.txt", number, line, "NUMBER CLASS")
        numbered[int(index)] = label.strip()
    classes = tuple(numbered[index] for index in sorted(numbered))
    subsets: tuple[Subset, Subset] = ("train", "test")
    videos = [
        entry
        for subset in subsets
        for entry in _ucf101_list(folder / f"{subset}list{split:02d}.txt", subset, numbered)
    ]
    return _checked(SplitLists("ucf101", classes, tuple(videos)), folder, split)


def _ucf101_list(path: Path, subset: Subset, numbered: dict[int, str]) -> Iterator[LabelledPath]:
    """The class is the folder in the path; where a line has a number too, both must agree."""
    if not path.is_file():
        raise DatasetError(
            f"the split list {path} is missing",
            expected="trainlist and testlist of the same split beside classInd.txt",
            remedy="choose another --split, or add the file",
        )
    known = set(numbered.values())
    for number, line in _lines(path):
        name, _, index = line.rpartition(" ") if re.search(r" \d+$", line) else (line, "", "")
        label = PurePosixPath(name).parts[0]
        if label not in known or (index and numbered.get(int(index)) != label):
            raise _bad_line(path, number, line, "CLASS/FILE [NUMBER], as in classInd.txt")
        yield LabelledPath(_inside(name, path, number), label, subset)


def _read_csv(path: Path) -> SplitLists:
    """Columns path, label, split (train, test or unused); others are ignored."""
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        missing = {"path", "label", "split"} - set(reader.fieldnames or ())
        if missing:
            raise DatasetError(
                f"{path} has no column {', '.join(sorted(missing))}",
                expected="a header line with path,label,split",
                found=",".join(reader.fieldnames or ()) or "an empty file",
            )
        videos, labels = [], set()
        for row in reader:
            name, label, code = (str(row[key] or "").strip() for key in ("path", "label", "split"))
            if not name or not label or code not in _CSV_SUBSETS:
                line = f"{name},{label},{code}"
                raise _bad_line(path, reader.line_num, line, "PATH,LABEL,train|test|unused")
            labels.add(label)
            subset = _CSV_SUBSETS[code]
            if subset is not None:
                videos.append(LabelledPath(_inside(name, path, reader.line_num), label, subset))
    return _checked(SplitLists("csv", tuple(sorted(labels)), tuple(videos)), path, 1)


def _lines(path: Path) -> Iterable[tuple[int, str]]:
    """(number, text) of the lines that are not blank; CRLF and spaces at the end are dropped."""
    text = path.read_text(encoding="utf-8", errors="surrogateescape")
    lines = ((number, line.strip()) for number, line in enumerate(text.split("\n"), start=1))
    return [(number, line) for number, line in lines if line]


def _inside(name: str, path: Path, number: int) -> str:
    pure = PurePosixPath(name)
    if pure.is_absolute() or ".." in pure.parts:
        raise _bad_line(path, number, name, "a path below the dataset's root")
    return pure.as_posix()


def _bad_line(path: Path, number: int, line: str, expected: str) -> DatasetError:
    return DatasetError(
        f"{path.name}, line {number} cannot be read", expected=expected, found=repr(line[:200])
    )


def _checked(lists: SplitLists, source: Path, split: int) -> SplitLists:
    """Both subsets are there and no path is named twice."""
    paths = [video.path for video in lists.videos]
    if len(set(paths)) < len(paths):
        twice = next(path for path in paths if paths.count(path) > 1)
        raise DatasetError(
            f"the split lists in {source} name a video twice",
            found=twice,
            remedy="leave one of the lines",
        )
    counts = {name: sum(v.subset == name for v in lists.videos) for name in ("train", "test")}
    if not all(counts.values()):
        raise DatasetError(
            f"the lists in {source} have no complete split {split}",
            expected="videos for training and for testing",
            found=f"{counts['train']} for training, {counts['test']} for testing",
            remedy="choose another --split, or add the missing lists",
        )
    return lists

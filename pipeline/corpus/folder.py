"""Walks a folder: which of its files are videos, and which are left out."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from distinit.schemas.errors import CorpusError

__all__ = [
    "VIDEO_EXTENSIONS",
    "FolderListing",
    "LeftOut",
    "count_left_out",
    "is_video",
    "walk_folder",
]

# A test creates and decodes a file of each. Ambiguous extensions (.dat, .mod, .ps) are left out;
# such videos can be named in a list.
_EXTENSIONS = (
    "264 265 3g2 3gp 3gp2 3gpp asf avi divx dv dvr-ms evo f4v flv gif gxf h261 h263 h264 h265 hevc "
    "ivf m1v m2p m2t m2ts m2v m4v mj2 mk3d mkv mov mp2v mp4 mp4v mpe mpeg mpg mpv2 mts "
    "mxf nut obu ogg ogm ogv qt rm rmvb swf tod tp trp ts vob vro webm wm wmv wtv xvid y4m"
)
VIDEO_EXTENSIONS = frozenset(f".{name}" for name in _EXTENSIONS.split())

_NO_EXTENSION = "none"
_HIDDEN_FOLDER = "folder"
_KINDS_KEPT = 20  # a folder may hold as many extensions as files
_FURTHER = "others"


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Numbers of files that are not listed as videos, by extension, the most common first.

    ``others``: files with other extensions. ``hidden``: hidden files with the extension of a
    video; its key "folder" counts hidden folders, which are not entered.
    """

    others: Mapping[str, int] = field(default_factory=dict)
    hidden: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class FolderListing:
    """``paths``: sorted paths of the videos below a folder, relative to it, with slashes."""

    paths: tuple[str, ...]
    left_out: LeftOut


def is_video(name: str) -> bool:
    """Whether a file of this name is a video, by its extension; case does not matter."""
    return _extension(name) in VIDEO_EXTENSIONS


def count_left_out(names: list[str]) -> LeftOut:
    """Counts of files that are neither videos nor hidden, by extension."""
    return LeftOut(_most_common(Counter(_extension(name) for name in names)))


def walk_folder(root: Path) -> FolderListing:
    """List the videos below ``root``. Links are followed; each real folder is entered once.

    Raises CorpusError for a folder that cannot be read.
    """
    walk = _Walk(root)
    walk.enter(root)
    left_out = LeftOut(_most_common(walk.others), _most_common(walk.hidden))
    return FolderListing(tuple(sorted(walk.paths)), left_out)


@dataclass
class _Walk:
    root: Path
    paths: list[str] = field(default_factory=list)
    others: Counter[str] = field(default_factory=Counter)
    hidden: Counter[str] = field(default_factory=Counter)
    _entered: set[tuple[int, int]] = field(default_factory=set)

    def enter(self, folder: Path) -> None:
        for entry in self._entries(folder):
            is_folder = _is_folder(entry)
            if entry.name.startswith("."):
                self._count_hidden(entry.name, is_folder)
            elif is_folder:
                self.enter(Path(entry.path))
            elif is_video(entry.name):
                self.paths.append(Path(entry.path).relative_to(self.root).as_posix())
            else:
                self.others[_extension(entry.name)] += 1

    def _entries(self, folder: Path) -> list[os.DirEntry[str]]:
        """Entries with links last, so that a file gets a path without links if it has one."""
        try:
            here = folder.stat()
            if (here.st_dev, here.st_ino) in self._entered:
                return []
            self._entered.add((here.st_dev, here.st_ino))
            with os.scandir(folder) as entries:
                return sorted(entries, key=lambda entry: (entry.is_symlink(), entry.name))
        except OSError as error:
            raise CorpusError(
                f"cannot read the folder {folder}",
                found=error.strerror,
                remedy="change its permissions, or leave it out",
            ) from error

    def _count_hidden(self, name: str, is_folder: bool) -> None:
        if is_folder:
            self.hidden[_HIDDEN_FOLDER] += 1
        elif is_video(name):
            self.hidden[_extension(name)] += 1


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself
        return False


def _extension(name: str) -> str:
    """Extension in lower case, with bytes that are not UTF-8 escaped."""
    suffix = PurePosixPath(name).suffix.lower()
    return suffix.encode("utf-8", "backslashreplace").decode() or _NO_EXTENSION


def _most_common(counts: Counter[str]) -> dict[str, int]:
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    kept = dict(ordered[:_KINDS_KEPT])
    if rest := sum(count for _, count in ordered[_KINDS_KEPT:]):
        kept[_FURTHER] = rest
    return kept

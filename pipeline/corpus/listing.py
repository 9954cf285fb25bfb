"""Finding the videos of a corpus and knowing them by their bytes."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path

from distinit.pipeline.storage import sha256_file
from distinit.schemas.errors import CorpusError

__all__ = ["VIDEO_EXTENSIONS", "Corpus", "VideoFile", "list_corpus", "list_files"]

_EXTENSIONS = "3gp avi flv gif m2ts m4v mkv mov mp4 mpeg mpg mts ogv ts webm wmv"
VIDEO_EXTENSIONS = frozenset(f".{name}" for name in _EXTENSIONS.split())
_ID_DIGITS = 16
_HASH_THREADS = 4
_SHOWN = 5


@dataclass(frozen=True, slots=True)
class VideoFile:
    """One video of a corpus. ``path`` has slashes; it is relative to the corpus' root, or
    absolute where a list names a file outside of it.
    """

    video_id: str
    path: str
    digest: str
    size_bytes: int
    mtime_ns: int


@dataclass(frozen=True, slots=True)
class Corpus:
    """All videos below ``root``, sorted by (digest, path)."""

    root: Path
    files: tuple[VideoFile, ...]


def list_corpus(source: str, known: Mapping[str, VideoFile] | None = None) -> Corpus:
    """List a folder (recursively) or a ``.txt`` list of videos, and hash every file.

    Folders: files whose extension is in VIDEO_EXTENSIONS, whatever its case; hidden files and
    folders (``.name``) are skipped, symbolic links are followed, a folder that links lead to
    twice is entered once. Lists: one path a line, absolute or relative to the list's folder,
    any extension; empty lines and lines that start with ``#`` are skipped.

    A video's id is the first 16 hex digits of the sha256 of its bytes; further files with the
    same bytes get ``-1``, ``-2``, ... in the order of their paths. ``known`` maps paths to
    what an earlier listing found: where size and modification time agree, the file is not
    hashed again.

    Raises CorpusError when the source is missing, empty, or holds unreadable files.
    """
    return list_files(*_find(Path(source)), known)


def list_files(
    root: Path, paths: Sequence[str], known: Mapping[str, VideoFile] | None = None
) -> Corpus:
    """As ``list_corpus``, for paths that are known already: relative to ``root``, or absolute.

    Raises CorpusError for unreadable files.
    """
    _refuse_odd_names(paths)
    stats = _stat_all(root, paths)
    known = known or {}
    with ThreadPoolExecutor(_HASH_THREADS) as threads:
        digests = threads.map(
            lambda path: _digest(root / path, stats[path], known.get(path)), paths
        )
        found = [
            VideoFile("", path, digest, stats[path].st_size, stats[path].st_mtime_ns)
            for path, digest in zip(paths, digests, strict=True)
        ]
    return Corpus(root, tuple(_with_ids(found)))


def _with_ids(files: Iterable[VideoFile]) -> Iterator[VideoFile]:
    ordered = sorted(files, key=lambda file: (file.digest, file.path))
    for prefix, group in groupby(ordered, key=lambda file: file.digest[:_ID_DIGITS]):
        for number, file in enumerate(group):
            yield replace(file, video_id=f"{prefix}-{number}" if number else prefix)


def _find(source: Path) -> tuple[Path, list[str]]:
    try:
        mode = source.stat().st_mode
    except OSError as error:
        raise CorpusError(
            f"cannot open the videos {source}",
            expected="a folder of videos, or a .txt list of paths",
            found=error.strerror,
            remedy="check the path",
        ) from error
    if stat.S_ISDIR(mode):
        return source, _files_of_folder(source)
    if source.suffix.lower() == ".txt":
        return source.parent, _files_of_list(source)
    raise CorpusError(
        f"{source} is no list of videos",
        expected="a folder of videos, or a .txt list of paths, one a line",
        found=f"a file {source.name}",
        remedy="give its folder, or write its path into a .txt file",
    )


def _files_of_folder(root: Path) -> list[str]:
    paths = sorted(_walk(root, root, set()))
    if not paths:
        raise CorpusError(
            f"no videos in {root}",
            expected="files with one of the extensions " + " ".join(sorted(VIDEO_EXTENSIONS)),
            remedy="check the folder, or name files of other extensions in a .txt list",
        )
    return paths


def _walk(root: Path, folder: Path, entered: set[tuple[int, int]]) -> Iterator[str]:
    """Relative paths of the videos below ``folder``; each real folder is entered once."""
    try:
        here = folder.stat()
        if (here.st_dev, here.st_ino) in entered:
            return
        entered.add((here.st_dev, here.st_ino))
        with os.scandir(folder) as entries:
            # Links last: what can be reached without one is called by that name.
            listed = sorted(entries, key=lambda entry: (entry.is_symlink(), entry.name))
    except OSError as error:
        raise CorpusError(
            f"cannot read the folder {folder}",
            found=error.strerror,
            remedy="change its permissions, or leave it out",
        ) from error
    for entry in listed:
        path = Path(entry.path)
        if entry.name.startswith("."):
            continue
        if _leads_to_folder(entry):
            yield from _walk(root, path, entered)
        elif path.suffix.lower() in VIDEO_EXTENSIONS:
            yield path.relative_to(root).as_posix()


def _leads_to_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself
        return False


def _files_of_list(source: Path) -> list[str]:
    try:
        lines = source.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise CorpusError(
            f"cannot read the list {source}",
            expected="a UTF-8 text file, one path a line",
            found=error,
            remedy="check its permissions and encoding",
        ) from error
    stripped = (line.strip() for line in lines)
    paths = {
        _below(source.parent, Path(line)) for line in stripped if line and not line.startswith("#")
    }
    if not paths:
        raise CorpusError(
            f"the list {source} names no videos",
            expected="one path a line, absolute or relative to the list's folder",
            remedy="write the paths of the videos into it",
        )
    return sorted(paths)


def _below(root: Path, path: Path) -> str:
    """``path`` as it is stored: relative to ``root`` where it lies below it."""
    try:
        return path.relative_to(root.absolute()).as_posix()
    except ValueError:
        return path.as_posix()


def _refuse_odd_names(paths: Iterable[str]) -> None:
    """Paths become records in JSON and Parquet, so they must be text."""
    odd = [path for path in paths if not _is_text(path)]
    if odd:
        raise CorpusError(
            "some file names are not UTF-8 text",
            found=_first(ascii(path) for path in odd),
            remedy="rename these files",
        )


def _is_text(path: str) -> bool:
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True


def _stat_all(root: Path, paths: Iterable[str]) -> dict[str, os.stat_result]:
    stats: dict[str, os.stat_result] = {}
    problems: list[str] = []
    for path in paths:
        try:
            found = (root / path).stat()
        except OSError as error:
            problems.append(f"{path} ({error.strerror})")
            continue
        if not stat.S_ISREG(found.st_mode):
            problems.append(f"{path} (not a regular file)")
        elif not os.access(root / path, os.R_OK):
            problems.append(f"{path} (no permission to read it)")
        stats[path] = found
    if problems:
        raise CorpusError(
            f"{len(problems)} of the listed videos cannot be read",
            expected=f"readable files below {root}",
            found=_first(problems),
            remedy="restore these files or make them readable, or leave them out",
        )
    return stats


def _digest(path: Path, found: os.stat_result, known: VideoFile | None) -> str:
    same = (found.st_size, found.st_mtime_ns)
    if known is not None and (known.size_bytes, known.mtime_ns) == same:
        return known.digest
    try:
        return sha256_file(path)
    except OSError as error:
        raise CorpusError(
            f"cannot read {path}",
            found=error.strerror,
            remedy="make the file readable, or leave it out",
        ) from error


def _first(names: Iterable[str]) -> str:
    listed = list(names)
    more = len(listed) - _SHOWN
    return ", ".join(listed[:_SHOWN]) + (f" and {more} more" if more > 0 else "")

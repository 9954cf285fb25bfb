"""Finding the videos of a corpus and knowing them by their bytes."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import count, groupby
from pathlib import Path, PurePosixPath

from distinit.pipeline.corpus.lists import LIST_FORMATS, read_list
from distinit.pipeline.corpus.remote import find_remote, is_url, public_url
from distinit.pipeline.corpus.source import VideoFile, VideoSource, hash_remote
from distinit.pipeline.corpus.spool import Spool
from distinit.pipeline.progress import Progress
from distinit.pipeline.storage import sha256_file
from distinit.schemas.corpus import SpoolConfig
from distinit.schemas.errors import CorpusError

__all__ = [
    "VIDEO_EXTENSIONS",
    "Corpus",
    "FoundVideos",
    "VideoFile",
    "find_videos",
    "list_corpus",
    "list_files",
]

_EXTENSIONS = "3gp avi flv gif m2ts m4v mkv mov mp4 mpeg mpg mts ogv ts webm wmv"
VIDEO_EXTENSIONS = frozenset(f".{name}" for name in _EXTENSIONS.split())
_ID_DIGITS = 16
_HASH_THREADS = 4
_SHOWN = 5


@dataclass(frozen=True, slots=True)
class FoundVideos:
    """Sorted paths below ``root``, nothing of which was read yet; ``urls`` as in VideoSource."""

    root: Path
    paths: tuple[str, ...]
    urls: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Corpus:
    """All videos below ``root``, sorted by (digest, path), and how to come by them."""

    root: Path
    files: tuple[VideoFile, ...]
    source: VideoSource
    unavailable: Mapping[str, str] = field(default_factory=dict)
    """URLs that could not be fetched, and why: videos without an identity."""

    def require_all(self) -> None:
        """Raises CorpusError if some URLs could not be fetched."""
        if self.unavailable:
            raise CorpusError(
                f"{len(self.unavailable)} of the listed URLs cannot be fetched",
                expected="a video behind every URL",
                found=_first(f"{path} ({why})" for path, why in self.unavailable.items()),
                remedy="check them, the credentials and the network, or leave them out",
            )


def list_corpus(
    source: str,
    known: Mapping[str, VideoFile] | None = None,
    *,
    spool: Spool | None = None,
    look: Callable[[str, Path], None] | None = None,
    progress: Progress | None = None,
) -> Corpus:
    """List a folder (recursively), a list of videos or a URL, and hash every file.

    Folders: files whose extension is in VIDEO_EXTENSIONS, whatever its case; hidden files and
    folders (``.name``) are skipped, symbolic links are followed, a folder that links lead to
    twice is entered once. Lists (see ``read_list``): paths, absolute or relative to the list's
    folder, and URLs, any extension. URLs: a video, or a folder of an object store.

    A video's id is the first 16 hex digits of the sha256 of its bytes; further files with the
    same bytes get ``-1``, ``-2``, ... in the order of their paths. ``known`` maps paths to
    what an earlier listing found: where size and modification time agree, the file is not
    hashed again.

    Args:
        source: The folder, list or URL.
        known: What an earlier listing found, by path.
        spool: Where remote videos wait; None takes the default one.
        look: Called with the digest and the path of each remote video while it is here.
        progress: Shows how far the remote videos are.

    A URL that cannot be fetched is in ``unavailable``, unless ``known`` has it. Raises
    CorpusError when the source is missing, empty, or holds unreadable files, or when none of its
    URLs can be fetched.
    """
    found = find_videos(source)
    videos = VideoSource(found.root, found.urls, spool or Spool.of(SpoolConfig()))
    known = known or {}
    local = _hash_local(found.root, [path for path in found.paths if path not in found.urls], known)
    remote, unavailable = hash_remote(videos, known, look, progress)
    return Corpus(found.root, tuple(_with_ids([*local, *remote])), videos, unavailable)


def list_files(
    root: Path, paths: Sequence[str], known: Mapping[str, VideoFile] | None = None
) -> Corpus:
    """As ``list_corpus``, for paths that are known already: relative to ``root``, or absolute.

    Raises CorpusError for unreadable files.
    """
    local = _hash_local(root, paths, known or {})
    return Corpus(root, tuple(_with_ids(local)), VideoSource(root))


def find_videos(source: str) -> FoundVideos:
    """What ``list_corpus`` would list, without reading any video. Raises CorpusError."""
    if is_url(source):
        return _found(Path(), [source] if _is_video(source) else _remote_folder(source), source)
    path = Path(source)
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise CorpusError(
            f"cannot open the videos {source}",
            expected="a folder of videos, or a list of paths (.txt, .csv, .parquet)",
            found=error.strerror,
            remedy="check the path",
        ) from error
    if stat.S_ISDIR(mode):
        return FoundVideos(path, tuple(_files_of_folder(path)), {})
    if path.suffix.lower() in LIST_FORMATS:
        return _found(path.parent, read_list(path), source)
    raise CorpusError(
        f"{source} is no list of videos",
        expected="a folder of videos, or a list of paths (.txt, .csv, .parquet)",
        found=f"a file {path.name}",
        remedy="give its folder, or write its path into a .txt file",
    )


def _found(root: Path, entries: Sequence[str], source: str) -> FoundVideos:
    """Paths as they are stored; URLs without credentials, and the way back to them."""
    urls: dict[str, str] = {}
    paths: set[str] = set()
    for entry in sorted(set(entries)):
        if not is_url(entry):
            paths.add(_below(root, Path(entry)))
        elif entry.startswith("file://"):
            paths.add(_below(root, Path(entry.removeprefix("file://"))))
        else:
            urls[_unused(public_url(entry), urls)] = entry
    if not (paths or urls):
        raise _no_videos(public_url(source) if is_url(source) else source)
    return FoundVideos(root, tuple(sorted(paths | urls.keys())), urls)


def _unused(name: str, taken: Collection[str]) -> str:
    """``name``, numbered if URLs that differ only in their secret part share it."""
    numbered = (f"{name}#{number}" for number in count(2))
    return name if name not in taken else next(n for n in numbered if n not in taken)


def _remote_folder(url: str) -> list[str]:
    return [found for found in find_remote(url) if _is_video(found)]


def _is_video(name: str) -> bool:
    return PurePosixPath(public_url(name)).suffix.lower() in VIDEO_EXTENSIONS


def _hash_local(
    root: Path, paths: Sequence[str], known: Mapping[str, VideoFile]
) -> list[VideoFile]:
    _refuse_odd_names(paths)
    stats = _stat_all(root, paths)
    with ThreadPoolExecutor(_HASH_THREADS) as threads:
        digests = threads.map(
            lambda path: _digest(root / path, stats[path], known.get(path)), paths
        )
        return [
            VideoFile("", path, digest, stats[path].st_size, stats[path].st_mtime_ns)
            for path, digest in zip(paths, digests, strict=True)
        ]


def _with_ids(files: Iterable[VideoFile]) -> Iterator[VideoFile]:
    ordered = sorted(files, key=lambda file: (file.digest, file.path))
    for prefix, group in groupby(ordered, key=lambda file: file.digest[:_ID_DIGITS]):
        for number, file in enumerate(group):
            yield replace(file, video_id=f"{prefix}-{number}" if number else prefix)


def _files_of_folder(root: Path) -> list[str]:
    paths = sorted(_walk(root, root, set()))
    if not paths:
        raise _no_videos(str(root))
    return paths


def _no_videos(source: str) -> CorpusError:
    return CorpusError(
        f"no videos in {source}",
        expected="files with one of the extensions " + " ".join(sorted(VIDEO_EXTENSIONS)),
        remedy="check the folder, or name files of other extensions in a .txt list",
    )


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

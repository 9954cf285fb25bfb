"""Finding the videos of a corpus and knowing them by their bytes."""

from __future__ import annotations

import stat
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count, groupby
from pathlib import Path

from distinit.pipeline.corpus.folder import (
    VIDEO_EXTENSIONS,
    LeftOut,
    is_video,
    left_out_of,
    walk_folder,
)
from distinit.pipeline.corpus.lists import LIST_FORMATS, read_list
from distinit.pipeline.corpus.local import hash_local
from distinit.pipeline.corpus.remote import find_remote, is_url, public_url
from distinit.pipeline.corpus.source import VideoFile, VideoSource, hash_remote
from distinit.pipeline.corpus.spool import Spool
from distinit.pipeline.progress import Progress
from distinit.schemas.corpus import SpoolConfig
from distinit.schemas.errors import CorpusError

__all__ = [
    "VIDEO_EXTENSIONS",
    "Corpus",
    "Duplicate",
    "FoundVideos",
    "VideoFile",
    "find_videos",
    "list_corpus",
    "list_files",
]

_ID_DIGITS = 16
_SHOWN = 5
_NOT_TEXT = "its name is not UTF-8 text: rename it"


@dataclass(frozen=True, slots=True)
class FoundVideos:
    """Sorted paths below ``root``, nothing of which was read yet; ``urls`` as in VideoSource.

    ``repeated``: paths that a list names again, once for each time. ``refused``: names that
    cannot be stored, escaped, and why.
    """

    root: Path
    paths: tuple[str, ...]
    urls: Mapping[str, str]
    repeated: tuple[str, ...] = ()
    refused: Mapping[str, str] = field(default_factory=dict)
    left_out: LeftOut = field(default_factory=LeftOut)


@dataclass(frozen=True, slots=True)
class Duplicate:
    """``path`` holds the bytes of the video ``of``, or is ``of`` named once more."""

    path: str
    of: str


@dataclass(frozen=True, slots=True)
class Corpus:
    """All videos below ``root``, sorted by (digest, path), and how to come by them."""

    root: Path
    files: tuple[VideoFile, ...]
    source: VideoSource
    unavailable: Mapping[str, str] = field(default_factory=dict)
    """Files and URLs that cannot be read, and why: videos without an identity."""
    duplicates: tuple[Duplicate, ...] = ()
    """Further names of ``files``, sorted by path."""
    left_out: LeftOut = field(default_factory=LeftOut)

    def require_all(self) -> None:
        """Raises CorpusError if some videos cannot be read or fetched."""
        if self.unavailable:
            raise CorpusError(
                f"{len(self.unavailable)} of the videos cannot be read or fetched",
                expected="a readable video behind every name",
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

    A video's id is the first 16 hex digits of the sha256 of its bytes. Files of the same bytes
    are one video, under the path that ``known`` has for it or else the first; the others are
    ``duplicates``. Other bytes whose digest begins alike get ``-1``, ``-2``, ...

    Args:
        source: The folder, list or URL.
        known: What an earlier listing found, by path: where size and modification time agree,
            the file is not hashed again.
        spool: Where remote videos wait; None takes the default one.
        look: Called with the digest and the path of each remote video while it is here.
        progress: Shows how far the remote videos are.

    A file that cannot be read is in ``unavailable``, a URL that cannot be fetched too unless
    ``known`` has it. Raises CorpusError when the source is missing or empty, or when none of its
    videos can be had.
    """
    found = find_videos(source)
    videos = VideoSource(found.root, found.urls, spool or Spool.of(SpoolConfig()))
    known = known or {}
    paths = [path for path in found.paths if path not in found.urls]
    local, unreadable = hash_local(found.root, paths, known)
    remote, unreachable = hash_remote(videos, known, look, progress, alone=not local)
    unavailable = dict(sorted({**found.refused, **unreadable, **unreachable}.items()))
    if not (local or remote):
        raise _cannot_be_read(found.root, unavailable)
    files, copies = _one_each(found.root, [*local, *remote], known)
    copies += [Duplicate(path, path) for path in found.repeated]
    copies.sort(key=lambda copy: (copy.path, copy.of))
    return Corpus(
        found.root, tuple(_with_ids(files)), videos, unavailable, tuple(copies), found.left_out
    )


def list_files(
    root: Path, paths: Sequence[str], known: Mapping[str, VideoFile] | None = None
) -> Corpus:
    """Named files, relative to ``root`` or absolute, each of them a video of its own.

    Unlike ``list_corpus``, files of the same bytes stay apart (a dataset may label them twice):
    they get the ids ``-1``, ``-2``, ... in the order of their paths. Raises CorpusError for files
    that cannot be read.
    """
    files, problems = hash_local(root, paths, known or {})
    problems |= {_escaped(path): _NOT_TEXT for path in paths if not _is_text(path)}
    if problems:
        raise _cannot_be_read(root, problems)
    return Corpus(root, tuple(_with_ids(files)), VideoSource(root))


def find_videos(source: str) -> FoundVideos:
    """What ``list_corpus`` would list, without reading any video. Raises CorpusError."""
    if is_url(source):
        return _found_remote(source)
    path = Path(source)
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError) as error:
        raise CorpusError(
            f"cannot open the videos {source}",
            expected="a folder of videos, or a list of paths (.txt, .csv, .parquet)",
            found=error.strerror if isinstance(error, OSError) else error,
            remedy="check the path",
        ) from error
    if stat.S_ISDIR(mode):
        return _found_folder(path)
    if path.suffix.lower() in LIST_FORMATS:
        return _found(path.parent, read_list(path), source)
    raise CorpusError(
        f"{source} is no list of videos",
        expected="a folder of videos, or a list of paths (.txt, .csv, .parquet)",
        found=f"a file {path.name}",
        remedy="give its folder, or write its path into a .txt file",
    )


def _found_folder(root: Path) -> FoundVideos:
    listing = walk_folder(root)
    if not listing.paths:
        raise _no_videos(str(root), listing.left_out)
    texts = tuple(path for path in listing.paths if _is_text(path))
    refused = {_escaped(path): _NOT_TEXT for path in listing.paths if not _is_text(path)}
    return FoundVideos(root, texts, {}, refused=refused, left_out=listing.left_out)


def _found_remote(url: str) -> FoundVideos:
    if is_video(public_url(url)):
        return _found(Path(), [url], url)
    listed = find_remote(url)
    left_out = left_out_of([public_url(u) for u in listed if not is_video(public_url(u))])
    videos = [found for found in listed if is_video(public_url(found))]
    return replace(_found(Path(), videos, url, left_out), left_out=left_out)


def _found(
    root: Path, entries: Sequence[str], source: str, left_out: LeftOut | None = None
) -> FoundVideos:
    """Paths as they are stored; URLs without credentials, and the way back to them."""
    urls: dict[str, str] = {}
    paths: Counter[str] = Counter()
    again: list[str] = []
    for entry, times in sorted(Counter(entries).items()):
        if not is_url(entry):
            paths[_below(root, Path(entry))] += times
        elif entry.startswith("file://"):
            paths[_below(root, Path(entry.removeprefix("file://")))] += times
        else:
            name = _unused(public_url(entry), urls)
            urls[name] = entry
            again += [name] * (times - 1)
    if not (paths or urls):
        raise _no_videos(public_url(source) if is_url(source) else source, left_out or LeftOut())
    again += [path for path, times in paths.items() for _ in range(times - 1)]
    return FoundVideos(root, tuple(sorted(paths.keys() | urls.keys())), urls, tuple(again))


def _unused(name: str, taken: Collection[str]) -> str:
    """``name``, numbered if URLs that differ only in their secret part share it."""
    numbered = (f"{name}#{number}" for number in count(2))
    return name if name not in taken else next(n for n in numbered if n not in taken)


def _one_each(
    root: Path, files: Sequence[VideoFile], known: Mapping[str, VideoFile]
) -> tuple[list[VideoFile], list[Duplicate]]:
    """One file for each content, and the others."""
    kept: list[VideoFile] = []
    copies: list[Duplicate] = []
    ordered = sorted(files, key=lambda file: (file.digest, file.path))
    for _, same in groupby(ordered, key=lambda file: file.digest):
        group = list(same)
        first = group[0] if len(group) == 1 else _named_best(root, group, known)
        kept.append(first)
        copies += [Duplicate(other.path, first.path) for other in group if other is not first]
    return kept, copies


def _named_best(
    root: Path, group: Sequence[VideoFile], known: Mapping[str, VideoFile]
) -> VideoFile:
    """The name that it had before (names should not jump), else no URL, no detour, the first."""

    def rank(file: VideoFile) -> tuple[bool, bool, bool]:
        before = known.get(file.path)
        renamed = before is None or before.digest != file.digest
        path = Path(file.path)
        return renamed, is_url(file.path), ".." in path.parts or (root / path).is_symlink()

    return min(group, key=rank)


def _with_ids(files: Iterable[VideoFile]) -> Iterator[VideoFile]:
    ordered = sorted(files, key=lambda file: (file.digest, file.path))
    for prefix, group in groupby(ordered, key=lambda file: file.digest[:_ID_DIGITS]):
        for number, file in enumerate(group):
            yield replace(file, video_id=f"{prefix}-{number}" if number else prefix)


def _no_videos(source: str, left_out: LeftOut) -> CorpusError:
    others = ", ".join(f"{kind} {number}" for kind, number in left_out.others.items())
    return CorpusError(
        f"no videos in {source}",
        expected="files with one of the extensions " + " ".join(sorted(VIDEO_EXTENSIONS)),
        found=f"files with other extensions: {others}" if others else None,
        remedy="check the folder, or name files of other extensions in a .txt list",
    )


def _cannot_be_read(root: Path, problems: Mapping[str, str]) -> CorpusError:
    return CorpusError(
        f"{len(problems)} of the listed videos cannot be read",
        expected=f"readable files below {root}",
        found=_first(f"{path} ({why})" for path, why in problems.items()),
        remedy="restore these files or make them readable, or leave them out",
    )


def _below(root: Path, path: Path) -> str:
    """``path`` as it is stored: relative to ``root`` where it lies below it."""
    try:
        return path.relative_to(root.absolute()).as_posix()
    except ValueError:
        return path.as_posix()


def _is_text(path: str) -> bool:
    """Paths become records in JSON and Parquet, so they must be text."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True


def _escaped(path: str) -> str:
    return path.encode("utf-8", "backslashreplace").decode()


def _first(names: Iterable[str]) -> str:
    listed = list(names)
    more = len(listed) - _SHOWN
    return ", ".join(listed[:_SHOWN]) + (f" and {more} more" if more > 0 else "")

"""Lists the videos of a corpus and identifies them by their bytes."""

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
    count_left_out,
    is_video,
    walk_folder,
)
from distinit.pipeline.corpus.lists import LIST_FORMATS, read_list
from distinit.pipeline.corpus.local import hash_local
from distinit.pipeline.corpus.source import VideoSource, hash_remote
from distinit.pipeline.corpus.spool import Spool
from distinit.pipeline.progress import Progress
from distinit.pipeline.transport.remote import find_remote, is_url, public_url
from distinit.schemas.corpus import SpoolConfig, VideoFile
from distinit.schemas.errors import CorpusError
from distinit.schemas.wording import first_names

__all__ = [
    "VIDEO_EXTENSIONS",
    "Corpus",
    "Duplicate",
    "FoundVideos",
    "find_videos",
    "list_corpus",
    "list_files",
    "path_below",
]

_ID_DIGITS = 16
_SOURCES = "a folder of videos, a video, a list of paths (.txt, .csv, .parquet), or a URL"
_VIDEO_FILES = (
    f"a file with one of {len(VIDEO_EXTENSIONS)} extensions, such as .mp4 .mkv .avi .mov .webm "
    "(docs/video-files.md has all)"
)
_NOT_TEXT = "its name is not UTF-8 text: rename it"


@dataclass(frozen=True, slots=True)
class FoundVideos:
    """Sorted paths below ``root``, of files that were not read yet; ``urls`` as in VideoSource.

    ``repeated``: paths that a list names more than once, one entry per repetition. ``refused``:
    names that cannot be stored, escaped -> reason.
    """

    root: Path
    paths: tuple[str, ...]
    urls: Mapping[str, str]
    repeated: tuple[str, ...] = ()
    refused: Mapping[str, str] = field(default_factory=dict)
    left_out: LeftOut = field(default_factory=LeftOut)


@dataclass(frozen=True, slots=True)
class Duplicate:
    """``path`` holds the same bytes as the video ``of``, or is ``of`` itself, named twice."""

    path: str
    of: str


@dataclass(frozen=True, slots=True)
class Corpus:
    """All videos below ``root``, sorted by (digest, path), and the source to open them."""

    root: Path
    files: tuple[VideoFile, ...]
    source: VideoSource
    unavailable: Mapping[str, str] = field(default_factory=dict)
    """Files and URLs that cannot be read -> reason. They have no id."""
    duplicates: tuple[Duplicate, ...] = ()
    """Other paths of the same videos, sorted by path."""
    left_out: LeftOut = field(default_factory=LeftOut)

    def require_all(self) -> None:
        """Raise CorpusError if some videos cannot be read or fetched."""
        if self.unavailable:
            raise CorpusError(
                f"{len(self.unavailable)} of the videos cannot be read or fetched",
                expected="a readable video behind every name",
                found=first_names(f"{path} ({why})" for path, why in self.unavailable.items()),
                remedy="check them, the credentials and the network, or leave them out",
            )


def list_corpus(
    source: str,
    known: Mapping[str, VideoFile] | None = None,
    *,
    spool: Spool | None = None,
    visit: Callable[[str, Path], None] | None = None,
    progress: Progress | None = None,
) -> Corpus:
    """List the videos of a folder, a file, a list or a URL, and hash every file.

    A folder is searched recursively for files whose extension is in VIDEO_EXTENSIONS, in upper or
    lower case. Hidden files and folders (``.name``) are skipped, symbolic links are followed, and
    each real folder is entered once. A list (see ``read_list``) holds URLs, and paths that are
    absolute or relative to the list's folder, with any extension. A URL is that of a video, or of
    a folder in an object store.

    A video's id is the first 16 hex digits of the sha256 of its bytes. Files with the same bytes
    are one video, under the path in ``known`` if it has one, else under the first path; the
    others become ``duplicates``. If digests of different videos begin with the same 16 digits,
    the later ones get ``-1``, ``-2``, ... appended.

    Args:
        source: The folder, video file, list or URL.
        known: Videos of an earlier listing, by path. A file whose size and modification time
            are the same is not hashed again.
        spool: Where remote videos are downloaded to; None: the default spool.
        visit: Called with the digest and the local path of each remote video that is downloaded.
        progress: Shows the progress of the downloads.

    Files that cannot be read are listed in ``unavailable``, as are URLs that cannot be fetched,
    unless they are in ``known``. Raises CorpusError if the source is missing or empty, or if none
    of its videos can be read or fetched.
    """
    found = find_videos(source)
    videos = VideoSource(found.root, found.urls, spool or Spool.of(SpoolConfig()))
    known = known or {}
    paths = [path for path in found.paths if path not in found.urls]
    local, unreadable = hash_local(found.root, paths, known)
    remote, unreachable = hash_remote(videos, known, visit, progress, all_remote=not local)
    unavailable = dict(sorted({**found.refused, **unreadable, **unreachable}.items()))
    if not (local or remote):
        raise _unreadable_error(found.root, unavailable)
    files, copies = _without_duplicates(found.root, [*local, *remote], known)
    copies += [Duplicate(path, path) for path in found.repeated]
    copies.sort(key=lambda copy: (copy.path, copy.of))
    return Corpus(
        found.root, tuple(_with_ids(files)), videos, unavailable, tuple(copies), found.left_out
    )


def list_files(
    root: Path, paths: Sequence[str], known: Mapping[str, VideoFile] | None = None
) -> Corpus:
    """List the files at ``paths``, relative to ``root`` or absolute, each as a separate video.

    Unlike in ``list_corpus``, files with the same bytes stay separate, since a dataset may label
    them twice: their ids end in ``-1``, ``-2``, ... in the order of their paths. Raises
    CorpusError for files that cannot be read.
    """
    files, problems = hash_local(root, paths, known or {})
    problems |= {_escaped(path): _NOT_TEXT for path in paths if not _is_text(path)}
    if problems:
        raise _unreadable_error(root, problems)
    return Corpus(root, tuple(_with_ids(files)), VideoSource(root))


def find_videos(source: str) -> FoundVideos:
    """Find the videos of ``source`` as ``list_corpus`` does, without reading them.

    Raises CorpusError.
    """
    if is_url(source):
        return _find_remote_videos(source)
    path = Path(source)
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError) as error:
        raise CorpusError(
            f"cannot open the videos {source}",
            expected=_SOURCES,
            found=error.strerror if isinstance(error, OSError) else error,
            remedy="check the path",
        ) from error
    if stat.S_ISDIR(mode):
        return _find_in_folder(path)
    if path.suffix.lower() in LIST_FORMATS:
        return _from_entries(path.parent, read_list(path), source)
    if is_video(path.name):
        return _one_file(path)
    raise CorpusError(
        f"{source} is neither a video nor a list of videos",
        expected=f"{_SOURCES}; a video is {_VIDEO_FILES}",
        found=f"a file with the extension {path.suffix}" if path.suffix else "no extension",
        remedy="if it is a video, write its path into a .txt file: a list may name any file",
    )


def _find_in_folder(root: Path) -> FoundVideos:
    listing = walk_folder(root)
    if not listing.paths:
        raise _no_videos_error(str(root), listing.left_out)
    texts = tuple(path for path in listing.paths if _is_text(path))
    refused = {_escaped(path): _NOT_TEXT for path in listing.paths if not _is_text(path)}
    return FoundVideos(root, texts, {}, refused=refused, left_out=listing.left_out)


def _one_file(path: Path) -> FoundVideos:
    """The corpus of one video; its path is relative to its folder."""
    if not _is_text(path.name):
        return FoundVideos(path.parent, (), {}, refused={_escaped(path.name): _NOT_TEXT})
    return FoundVideos(path.parent, (path.name,), {})


def _find_remote_videos(url: str) -> FoundVideos:
    if is_video(public_url(url)):
        return _from_entries(Path(), [url], url)
    listed = find_remote(url)
    left_out = count_left_out([public_url(u) for u in listed if not is_video(public_url(u))])
    videos = [found for found in listed if is_video(public_url(found))]
    return replace(_from_entries(Path(), videos, url, left_out), left_out=left_out)


def _from_entries(
    root: Path, entries: Sequence[str], source: str, left_out: LeftOut | None = None
) -> FoundVideos:
    """The videos that a list of paths and URLs names; ``root``: the folder of relative paths."""
    urls: dict[str, str] = {}
    paths: Counter[str] = Counter()
    repeated: list[str] = []
    for entry, times in sorted(Counter(entries).items()):
        if not is_url(entry):
            paths[path_below(root, Path(entry))] += times
        elif entry.startswith("file://"):
            paths[path_below(root, Path(entry.removeprefix("file://")))] += times
        else:
            name = _unused(public_url(entry), urls)
            urls[name] = entry
            repeated += [name] * (times - 1)
    if not (paths or urls):
        raise _no_videos_error(
            public_url(source) if is_url(source) else source, left_out or LeftOut()
        )
    repeated += [path for path, times in paths.items() for _ in range(times - 1)]
    return FoundVideos(root, tuple(sorted(paths.keys() | urls.keys())), urls, tuple(repeated))


def _unused(name: str, taken: Collection[str]) -> str:
    """``name``, with a number if another URL differs from it only in its secret part."""
    numbered = (f"{name}#{number}" for number in count(2))
    return name if name not in taken else next(n for n in numbered if n not in taken)


def _without_duplicates(
    root: Path, files: Sequence[VideoFile], known: Mapping[str, VideoFile]
) -> tuple[list[VideoFile], list[Duplicate]]:
    """One file per content, and the other files as duplicates."""
    kept: list[VideoFile] = []
    copies: list[Duplicate] = []
    ordered = sorted(files, key=lambda file: (file.digest, file.path))
    for _, same in groupby(ordered, key=lambda file: file.digest):
        group = list(same)
        first = group[0] if len(group) == 1 else _preferred(root, group, known)
        kept.append(first)
        copies += [Duplicate(other.path, first.path) for other in group if other is not first]
    return kept, copies


def _preferred(root: Path, group: Sequence[VideoFile], known: Mapping[str, VideoFile]) -> VideoFile:
    """The file whose path to keep: the earlier path, else a local one without ``..`` or links."""

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


def _no_videos_error(source: str, left_out: LeftOut) -> CorpusError:
    others = ", ".join(f"{kind} {number}" for kind, number in left_out.others.items())
    return CorpusError(
        f"no videos in {source}",
        expected=_VIDEO_FILES,
        found=f"files with other extensions: {others}" if others else None,
        remedy="check the folder, or name files of other extensions in a .txt list",
    )


def _unreadable_error(root: Path, problems: Mapping[str, str]) -> CorpusError:
    return CorpusError(
        f"{len(problems)} of the listed videos cannot be read",
        expected=f"readable files below {root}",
        found=first_names(f"{path} ({why})" for path, why in problems.items()),
        remedy="restore these files or make them readable, or leave them out",
    )


def path_below(root: Path, path: Path) -> str:
    """``path`` as it is stored: relative to ``root`` if it lies below it."""
    try:
        return path.relative_to(root.absolute()).as_posix()
    except ValueError:
        return path.as_posix()


def _is_text(path: str) -> bool:
    """Whether a path can be stored in JSON and Parquet, which need valid Unicode."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True


def _escaped(path: str) -> str:
    return path.encode("utf-8", "backslashreplace").decode()

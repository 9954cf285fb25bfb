"""What a corpus knows of a video, and where its bytes come from."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from distinit.pipeline.corpus.remote import NetworkError, remote_stat
from distinit.pipeline.corpus.spool import Spool, spooled_name
from distinit.schemas.errors import CorpusError, DecodeError

__all__ = ["VideoFile", "VideoSource", "hash_remote"]

_THREADS = 4
_SHOWN = 5


@dataclass(frozen=True, slots=True)
class VideoFile:
    """One video of a corpus. ``path`` has slashes; it is relative to the corpus' root, or
    absolute where a list names a file outside of it, or a URL without credentials. For URLs
    ``mtime_ns`` is the version that the server tells (RemoteStat).
    """

    video_id: str
    path: str
    digest: str
    size_bytes: int
    mtime_ns: int


@dataclass(frozen=True, slots=True)
class VideoSource:
    """Opens videos by their stored path. ``urls``: stored path -> URL, with its credentials."""

    root: Path
    urls: Mapping[str, str] = field(default_factory=dict, repr=False)
    spool: Spool | None = None

    @contextmanager
    def open(self, path: str, digest: str | None) -> Iterator[Path]:
        """A local file with the video's bytes, there until the context ends.

        Raises DecodeError for a remote video that cannot be had, or has not this ``digest``.
        """
        if path not in self.urls:
            yield self.root / path
            return
        if self.spool is None:
            raise RuntimeError("remote videos need a spool")
        with self.spool.fetch(self.urls[path], digest) as spooled:
            yield spooled.path

    def reason(self, path: str, digest: str, error: DecodeError) -> str:
        """What ``error`` says of a video; it tells nothing of where its bytes lay."""
        text, name = error.problem, Path(path).name
        if path in self.urls:
            text = text.replace(spooled_name(self.urls[path], digest), name)
        return text.removeprefix(f"{name}: ")


def hash_remote(
    source: VideoSource,
    known: Mapping[str, VideoFile],
    look: Callable[[str, Path], None] | None = None,
) -> list[VideoFile]:
    """Fetch every remote video of ``source`` once, unless ``known`` has its version already.

    Videos come without an id. ``look`` sees digest and path of each while it is here. Raises
    CorpusError naming those that cannot be had.
    """

    if not source.urls:
        return []

    def hash_one(path: str) -> VideoFile | str:
        try:
            return _hash_one(source, path, known.get(path), look)
        except DecodeError as error:
            return f"{path} ({error.problem.partition(': ')[2]})"

    with ThreadPoolExecutor(_THREADS) as threads:
        found = list(threads.map(hash_one, source.urls))
    problems = [entry for entry in found if isinstance(entry, str)]
    if problems:
        more = f" and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
        raise CorpusError(
            f"{len(problems)} of the listed URLs cannot be fetched",
            expected="a video behind every URL",
            found=", ".join(problems[:_SHOWN]) + more,
            remedy="check them, the credentials and the network, or leave them out",
        )
    return [entry for entry in found if isinstance(entry, VideoFile)]


def _hash_one(
    source: VideoSource,
    path: str,
    known: VideoFile | None,
    look: Callable[[str, Path], None] | None,
) -> VideoFile:
    if source.spool is None:
        raise RuntimeError("remote videos need a spool")
    url = source.urls[path]
    if known is not None and _is_version(url, known):
        return known
    with source.spool.fetch(url) as spooled:
        if look is not None:
            look(spooled.digest, spooled.path)
        return VideoFile("", path, spooled.digest, spooled.size_bytes, spooled.version)


def _is_version(url: str, known: VideoFile) -> bool:
    try:
        found = remote_stat(url)
    except NetworkError:
        return False  # fetching it tries again, and says why
    same = (found.size_bytes, found.version) == (known.size_bytes, known.mtime_ns)
    return same and found.version != 0

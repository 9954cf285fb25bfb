"""Access to the bytes of videos, local or remote."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from distinit.pipeline.corpus.spool import Spool, spooled_name
from distinit.pipeline.progress import NullProgress, Progress
from distinit.pipeline.transport.remote import NetworkError, remote_stat
from distinit.pipeline.video.checks import decode_error, read_errors
from distinit.schemas.corpus import VideoFile
from distinit.schemas.errors import CorpusError, DecodeError, UnreachableError

__all__ = ["VideoSource", "hash_remote"]

_THREADS = 4
_MAX_FIRST_FAILURES = 16  # without any success, the videos are not the reason
_REASONS_SHOWN = 3


@dataclass(frozen=True, slots=True)
class VideoSource:
    """Opens videos by their stored path. ``urls``: stored path -> URL with credentials."""

    root: Path
    urls: Mapping[str, str] = field(default_factory=dict, repr=False)
    spool: Spool | None = None

    @contextmanager
    def open(
        self, path: str, digest: str | None, stopping: threading.Event | None = None
    ) -> Iterator[Path]:
        """A local file with the bytes of the video, which exists until the context ends.

        Raises DecodeError for a remote video that cannot be fetched or has another ``digest``,
        and UnreachableError, as ``Spool.fetch`` does.
        """
        if path not in self.urls:
            yield self.root / path
            return
        if self.spool is None:
            raise RuntimeError("remote videos need a spool")
        with self.spool.fetch(self.urls[path], digest, stopping) as spooled:
            yield spooled.path

    def check_unchanged(self, file: VideoFile) -> None:
        """Raise DecodeError if a local video was replaced or removed since it was hashed.

        What was decoded in the meantime may be of other bytes than those of its digest. Downloads
        are checked as they arrive.
        """
        if file.path in self.urls:
            return
        path = self.root / file.path
        with read_errors(path):
            found = path.stat()
        if (found.st_size, found.st_mtime_ns) != (file.size_bytes, file.mtime_ns):
            raise decode_error(path, "changed while it was read")

    def reason(self, path: str, digest: str, error: DecodeError) -> str:
        """The message of ``error`` without the local path of the video."""
        text, name = error.problem, Path(path).name
        if path in self.urls:
            text = text.replace(spooled_name(self.urls[path], digest), name)
        return text.removeprefix(f"{name}: ")


def hash_remote(
    source: VideoSource,
    known: Mapping[str, VideoFile],
    visit: Callable[[str, Path], None] | None = None,
    progress: Progress | None = None,
    *,
    all_remote: bool = True,
) -> tuple[list[VideoFile], dict[str, str]]:
    """Download and hash every remote video of ``source``, unless ``known`` has its version.

    Returns the videos, without ids, and a reason for each path that can neither be fetched nor
    is known. ``visit`` is called with the digest and the local path of each downloaded video.

    Raises CorpusError if none can be fetched, or if the first 16 attempts all fail.
    ``all_remote`` is False if there are local videos too: then fewer than 16 failures are not an
    error.
    """
    problems: dict[str, str] = {}
    files: list[VideoFile] = []
    if not source.urls:
        return files, problems
    progress = progress or NullProgress()

    def hash_one(path: str) -> VideoFile | str:
        try:
            return _hash_one(source, path, known.get(path), visit)
        except (DecodeError, UnreachableError) as error:
            return error.problem.partition(": ")[2]

    progress.start("list", len(source.urls), "videos")
    with ThreadPoolExecutor(_THREADS) as threads:
        futures = {threads.submit(hash_one, path): path for path in source.urls}
        try:
            for future in as_completed(futures):
                path, found = futures[future], future.result()
                if isinstance(found, VideoFile):
                    files.append(found)
                else:
                    problems[path] = found
                enough = (
                    min(_MAX_FIRST_FAILURES, len(futures)) if all_remote else _MAX_FIRST_FAILURES
                )
                if len(problems) == enough and not files:
                    raise _none_fetched(problems, len(futures))
                progress.advance(1, failed=len(problems))
        finally:
            threads.shutdown(cancel_futures=True)
            progress.finish()
    files += [known[path] for path in problems if path in known]
    return files, {path: reason for path, reason in problems.items() if path not in known}


def _none_fetched(problems: Mapping[str, str], videos: int) -> CorpusError:
    reasons = Counter(problems.values()).most_common(_REASONS_SHOWN)
    return CorpusError(
        f"none of the {videos} videos at URLs can be fetched"
        if len(problems) == videos
        else f"the first {len(problems)} of {videos} videos at URLs cannot be fetched",
        expected="a video at every URL",
        found="; ".join(f"{count} times: {reason}" for reason, count in reasons)
        + f"; the first is {next(iter(problems))}",
        remedy="check the URLs, the credentials and the network",
    )


def _hash_one(
    source: VideoSource,
    path: str,
    known: VideoFile | None,
    visit: Callable[[str, Path], None] | None,
) -> VideoFile:
    if source.spool is None:
        raise RuntimeError("remote videos need a spool")
    url = source.urls[path]
    if known is not None and _is_version(url, known):
        return known
    with source.spool.fetch(url) as spooled:
        if visit is not None:
            visit(spooled.digest, spooled.path)
        return VideoFile("", path, spooled.digest, spooled.size_bytes, spooled.version)


def _is_version(url: str, known: VideoFile) -> bool:
    try:
        found = remote_stat(url)
    except NetworkError:
        return False  # downloading it reports the reason
    same = (found.size_bytes, found.version) == (known.size_bytes, known.mtime_ns)
    return same and found.version != 0

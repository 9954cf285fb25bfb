"""Sends caches to other places and copies them from there."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from distinit.pipeline.cache.copies import Selection
from distinit.pipeline.cache.layout import CacheLayout
from distinit.pipeline.cache.pull import Pulled, pull_cache
from distinit.pipeline.cache.push import push_cache
from distinit.pipeline.corpus.lists import LIST_FORMATS, read_list
from distinit.pipeline.progress import NullProgress, Progress
from distinit.schemas.base import Record, Sha256
from distinit.schemas.errors import ConfigError
from distinit.schemas.wording import counted, one_line, shell_line
from distinit.stages.cache_verify import check_expected

__all__ = ["PullResult", "PushResult", "cache_pull", "cache_push"]

_MAX_WORKERS = 64


class PullResult(Record):
    """What `distinit cache pull` copied."""

    path: str = Field(description="folder of the copy")
    source: str = Field(description="where it was copied from, without credentials")
    content_digest: Sha256 = Field(
        description="content digest of the whole cache, computed from the received records"
    )
    partial: bool = Field(description="whether teachers or units were left out")
    teachers: tuple[str, ...] = Field(description="ids of the teachers in the copy")
    units: int = Field(ge=0, description="number of units in the copy")
    files: int = Field(ge=0, description="files that the copy was made of")
    kept: int = Field(ge=0, description="of these, intact files that were there already")
    received_bytes: int = Field(ge=0, description="bytes of the files that were received")

    def summary(self) -> str:
        """Text for the terminal."""
        what = "partial copy" if self.partial else "copy"
        layout = CacheLayout(Path(self.path))
        verify = layout.verify_command()
        if layout.signature.exists():
            verify += " --signed-by KEY.pub (the public key, which the sender publishes)"
        return "\n".join(
            [
                f"{what} of {one_line(self.source)}: {one_line(self.path)}",
                f"  {counted(self.units, 'unit')} of {', '.join(self.teachers)}",
                f"  {counted(self.files, 'file')}, all checked: {self.kept} of them were there, "
                f"{self.files - self.kept} received ({self.received_bytes / 1e6:.1f} MB)",
                f"  digest    {self.content_digest}",
                f"next: {verify}",
            ]
        )


class PushResult(Record):
    """What `distinit cache push` sent."""

    path: str = Field(description="folder of the cache")
    target: str = Field(description="where it was sent to, without credentials")
    content_digest: Sha256 = Field(description="content digest of the cache, to be published")
    files: int = Field(ge=0, description="files of the cache")
    kept: int = Field(ge=0, description="of these, files that the target had already")
    sent_bytes: int = Field(ge=0, description="bytes of the files that were sent")

    def summary(self) -> str:
        """Text for the terminal."""
        pull = ["distinit", "cache", "pull", self.target, "FOLDER"]
        return "\n".join(
            [
                f"sent {one_line(self.path)} to {one_line(self.target)}",
                f"  {counted(self.files, 'file')}, of which {self.kept} were there; "
                f"{self.sent_bytes / 1e6:.1f} MB sent",
                f"  digest    {self.content_digest} (publish it)",
                f"next: {shell_line([*pull, '--expect', self.content_digest])}",
            ]
        )


def cache_pull(
    source: str,
    target: Path,
    *,
    teachers: tuple[str, ...] = (),
    units: str | None = None,
    videos: Path | None = None,
    expect: str | None = None,
    workers: int = 8,
    progress: Progress | None = None,
) -> PullResult:
    """Copy a cache, or a part of it. Raises as ``pull_cache``, and CorpusError for the list."""
    _check_workers(workers)
    check_expected(expect)
    named = None if videos is None else _names_of(videos)
    selection = Selection(teachers or None, units, named)
    pulled = pull_cache(
        source,
        target,
        selection,
        workers=workers,
        expect=expect,
        progress=progress or NullProgress(),
    )
    return _pull_result(target, pulled)


def _names_of(videos: Path) -> tuple[str, ...]:
    if videos.suffix.lower() not in LIST_FORMATS:
        raise ConfigError(
            f"--videos: {videos} is not a list of videos",
            expected=f"a file whose name ends in {', '.join(sorted(LIST_FORMATS))}",
        )
    return tuple(read_list(videos))


def _pull_result(target: Path, pulled: Pulled) -> PullResult:
    return PullResult(
        path=str(target),
        source=pulled.source,
        content_digest=pulled.content_digest,
        partial=pulled.copy is not None,
        teachers=pulled.teachers,
        units=pulled.units,
        files=pulled.files,
        kept=pulled.kept,
        received_bytes=pulled.received_bytes,
    )


def cache_push(
    path: Path,
    target: str,
    *,
    replace: bool = False,
    workers: int = 8,
    progress: Progress | None = None,
) -> PushResult:
    """Send a complete cache. Raises as ``push_cache``."""
    _check_workers(workers)
    pushed = push_cache(
        path, target, replace=replace, workers=workers, progress=progress or NullProgress()
    )
    return PushResult(
        path=str(path),
        target=pushed.target,
        content_digest=pushed.content_digest,
        files=pushed.files,
        kept=pushed.kept,
        sent_bytes=pushed.sent_bytes,
    )


def _check_workers(workers: int) -> None:
    if not 1 <= workers <= _MAX_WORKERS:
        raise ConfigError(
            "--workers: no such number of files can be moved at a time",
            expected=f"1 to {_MAX_WORKERS}",
            found=workers,
        )

"""Builds and verifies frame stores, for users of a target cache that came without pixels."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

from pydantic import Field

from distinit.pipeline.corpus.listing import list_corpus
from distinit.pipeline.corpus.spool import Spool
from distinit.pipeline.frames.build import build_store
from distinit.pipeline.frames.verify import verify_store
from distinit.pipeline.frames.writer import store_lock
from distinit.pipeline.matching.mapped_corpus import list_matched
from distinit.pipeline.matching.mapping import read_mapping
from distinit.pipeline.output_paths import refuse_inside_data
from distinit.pipeline.progress import NullProgress, Progress
from distinit.schemas.base import Record
from distinit.schemas.exit_codes import ExitCode
from distinit.schemas.frames import FramesConfig
from distinit.schemas.wording import counted, first_lines, one_line

__all__ = ["FramesResult", "FramesVerification", "build_frames", "verify_frames"]

_FAILURES_SHOWN = 10
_PROBLEMS_SHOWN = 20


class FramesResult(Record):
    """Contents of a frame store that was built."""

    frames_store: str = Field(description="folder of the frame store")
    videos: int = Field(description="videos in the store")
    frames: int = Field(description="frames in the store")
    failed: dict[str, str] = Field(
        description="path -> reason, of videos that are not in the store"
    )
    damaged: dict[str, str] = Field(
        description="path -> what is wrong, of damaged videos that are in the store"
    )
    seconds: float = Field(description="duration of the build")

    def summary(self) -> str:
        """Counts, failures with their reasons, and the path of the store."""
        lines = [
            f"{counted(self.videos, 'video')}, {counted(self.frames, 'frame')} "
            f"in {self.seconds:.1f} s"
        ]
        if self.failed:
            lines.append(f"{counted(len(self.failed), 'video')} failed, not in the store:")
            lines += _reason_lines(self.failed)
        if self.damaged:
            lines.append(f"{counted(len(self.damaged), 'video')} damaged, but in the store:")
            lines += _reason_lines(self.damaged)
        return "\n".join([*lines, f"frames  {one_line(self.frames_store)}"])


class FramesVerification(Record):
    """Every difference between a frame store and its records."""

    path: str = Field(description="folder of the frame store")
    ok: bool = Field(description="there are no problems, and every unit of the store is committed")
    complete: bool = Field(description="every unit of the store is committed")
    deep: bool = Field(description="whether every byte was read, not only sizes")
    units: int = Field(description="committed units")
    frames: int = Field(description="frames in these units")
    bytes: int = Field(description="size of their files, bytes")
    problems: tuple[str, ...] = Field(description="what is wrong, one line each")

    @property
    def exit_code(self) -> ExitCode:
        """0: ok; 1: damaged; 3: no damage, but some units are not written yet."""
        if self.problems:
            return ExitCode.FAILED
        return ExitCode.OK if self.complete else ExitCode.INCOMPLETE

    def summary(self) -> str:
        """The result, then the problems and what to do about them."""
        checked = (
            f"{counted(self.units, 'unit')}, {counted(self.frames, 'frame')}, "
            f"{self.bytes / 1e6:.1f} MB"
        )
        how = "all bytes match" if self.deep else "files and sizes match (bytes not checked)"
        if self.ok:
            return f"ok: {checked}: {how}"
        rerun = "rerun the command that wrote it (extract --frames, frames build, flow build)"
        if not self.problems:
            return f"INCOMPLETE: {checked}: {how}; the store is not finished\n  to do: {rerun}"
        lines = [f"DAMAGED: {checked}: {counted(len(self.problems), 'problem')}"]
        lines += first_lines([one_line(problem) for problem in self.problems], _PROBLEMS_SHOWN)
        lines.append(
            "  to do: fetch it again, or delete commits/unit-NNNNN.json of the damaged units and "
            f"{rerun} to rebuild them"
        )
        return "\n".join(lines)


def verify_frames(
    path: Path, *, deep: bool, progress: Progress | None = None
) -> FramesVerification:
    """Check a frame store; damage is reported, not raised.

    Raises FrameStoreError if ``path`` is not a frame store.
    """
    progress = progress or NullProgress()
    report = verify_store(path, deep=deep, progress=progress)
    return FramesVerification(
        path=str(path),
        ok=report.complete and not report.problems,
        complete=report.complete,
        deep=deep,
        units=report.unit_count,
        frames=report.frame_count,
        bytes=report.byte_count,
        problems=report.problems,
    )


def _reason_lines(reasons: Mapping[str, str]) -> list[str]:
    lines = [f"{one_line(path)}: {one_line(why)}" for path, why in reasons.items()]
    return first_lines(lines, _FAILURES_SHOWN)


def build_frames(config: FramesConfig, *, progress: Progress | None = None) -> FramesResult:
    """Decode every video of ``config`` into a frame store; resumes an unfinished one.

    Raises:
        CorpusError: Videos cannot be listed.
        MatchError: The mapping file cannot be used, or a copy has changed since the match.
        FrameStoreError: ``config.out`` holds a store of other videos or another geometry.
        LockedError: Another process is writing the store.
        StorageError: The disk cannot be written.
    """
    began = time.monotonic()
    progress = progress or NullProgress()
    refuse_inside_data(Path(config.out).parent)
    if config.match is not None:
        corpus = list_matched(read_mapping(Path(config.match)), config.videos)
    else:
        corpus = list_corpus(config.videos, spool=Spool.of(config.spool), progress=progress)
        corpus.require_all()
    with store_lock(Path(config.out)):
        store = build_store(corpus, Path(config.out), config.geometry, config.decode, progress)
    return FramesResult(
        frames_store=config.out,
        videos=len(store.videos),
        frames=sum(video.frame_count for video in store.videos.values()),
        failed={
            file.path: store.failed[file.video_id].error
            for file in corpus.files
            if file.video_id in store.failed
        },
        damaged={
            file.path: store.damage[file.video_id]
            for file in corpus.files
            if file.video_id in store.damage
        },
        seconds=round(time.monotonic() - began, 2),
    )

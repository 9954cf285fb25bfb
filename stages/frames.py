"""Videos -> frame store, for those who received a target cache without pixels."""

from __future__ import annotations

import time
from pathlib import Path

from pydantic import Field

from distinit.pipeline.corpus.listing import list_corpus
from distinit.pipeline.corpus.spool import Spool
from distinit.pipeline.frames.build import build_store
from distinit.pipeline.progress import NullProgress, Progress
from distinit.schemas.base import Record
from distinit.schemas.frames import FramesConfig
from distinit.schemas.wording import counted

__all__ = ["FramesResult", "build_frames"]

_FAILURES_SHOWN = 10


class FramesResult(Record):
    """What the frame store holds."""

    frames_store: str
    videos: int
    frames: int
    failed: dict[str, str] = Field(description="path -> reason; these are not in the store")
    seconds: float

    def summary(self) -> str:
        """Counts, failures with reasons, the path."""
        lines = [
            f"{counted(self.videos, 'video')}, {counted(self.frames, 'frame')} "
            f"in {self.seconds:.1f} s"
        ]
        if self.failed:
            lines.append(f"{counted(len(self.failed), 'video')} failed, not in the store:")
            shown = list(self.failed.items())[:_FAILURES_SHOWN]
            lines += [f"  {path}: {error}" for path, error in shown]
            if len(self.failed) > len(shown):
                lines.append(f"  ... {len(self.failed) - len(shown)} more")
        return "\n".join([*lines, f"frames  {self.frames_store}"])


def build_frames(config: FramesConfig, *, progress: Progress | None = None) -> FramesResult:
    """Decode every video of ``config`` into its frame store; a second call goes on.

    Raises CorpusError, FrameStoreError for a store of other videos or another geometry, and
    StorageError when the disk refuses.
    """
    began = time.monotonic()
    progress = progress or NullProgress()
    corpus = list_corpus(config.videos, spool=Spool.of(config.spool), progress=progress)
    corpus.require_all()
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
        seconds=round(time.monotonic() - began, 2),
    )

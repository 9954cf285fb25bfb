"""What a driver sends to an extraction worker, and what the worker reports."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from distinit.pipeline.cache.group_spec import GroupSpec
from distinit.pipeline.cache.plan import PlannedRows
from distinit.pipeline.corpus.source import VideoSource
from distinit.schemas.frames import FrameGeometry
from distinit.schemas.manifest import VideoOutcome
from distinit.schemas.video import DecodeConfig, SamplingConfig

__all__ = ["ExtractionTask", "Note", "WorkerSpec"]


@dataclass(frozen=True, slots=True)
class WorkerSpec:
    """Settings of a worker; picklable. ``parallel_videos``: videos that it decodes at a time."""

    source: VideoSource
    frames_root: Path | None
    plan_digest: str
    geometry: FrameGeometry
    sampling: SamplingConfig
    decode: DecodeConfig
    parallel_videos: int = 2


@dataclass(frozen=True, slots=True)
class ExtractionTask:
    """A unit group to fill, and those of its videos that are known to kill workers.

    ``quarantined``: video id -> the error to record without opening the video.
    """

    spec: GroupSpec
    quarantined: Mapping[str, str] = field(default_factory=dict)
    deaths: tuple[str, ...] = ()  # what was in progress when a worker died: see ``requeue``

    @property
    def one_at_a_time(self) -> bool:
        """After a death, videos are processed one by one, so that its cause can be identified."""
        return bool(self.deaths)

    def path_of(self, video_id: str) -> str:
        """Path, relative to the corpus, of one of the task's videos."""
        return next(v.path for v in self.spec.group.videos if v.video_id == video_id)

    def frame_count_of(self, video: PlannedRows) -> int:
        """Frames of one of the task's videos: as decoded for another teacher, else as probed."""
        known = (
            o.frame_count for o in self.spec.committed_outcomes if o.video_id == video.video_id
        )
        return next(known, video.video.probe.frame_count)


@dataclass(frozen=True, slots=True)
class Note:
    """Progress of a worker: ``frame_count`` more frames of ``video_id`` were decoded.

    Without frames and outcome: the video has been started, perhaps once more.

    ``path``: of the video, relative to the corpus.
    ``outcome``: set when the video is finished.
    ``message``: a text for the user that concerns no video; then ``video_id`` is empty.
    ``unanswered``: the video failed because a teacher has no usable output for it.
    ``alone``: no other video was in progress.
    """

    video_id: str
    path: str = ""
    frame_count: int = 0
    outcome: VideoOutcome | None = None
    message: str = ""
    unanswered: bool = False
    alone: bool = False

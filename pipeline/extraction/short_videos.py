"""Which videos of a unit group are short enough to be decoded together by one ffmpeg."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from distinit.pipeline.extraction.group import VideoInProgress
from distinit.pipeline.extraction.task import WorkerSpec
from distinit.pipeline.open_files import files_at_once
from distinit.pipeline.video.short import DecodedVideo, runs_of
from distinit.schemas.video import DecodeConfig

__all__ = ["ShortVideos"]

_SHORT_BYTES = 256 << 10
_SHORT_FRAMES = 256
_MOST_TOGETHER = 8
_FILES_PER_VIDEO = 16  # both ends of the pipes of up to eight outputs
_TRIES = 3  # failures that are accepted while there are few successes


class ShortVideos:
    """Groups short videos, as long as decoding them together usually works.

    Where it does not, as with frames that are too large, each video would be decoded twice.
    """

    def __init__(self, spec: WorkerSpec, decode: DecodeConfig) -> None:
        self._spec = spec
        self._allowed = decode.hwaccel == "none"
        open_videos = files_at_once() // _FILES_PER_VIDEO
        self._most = max(1, min(_MOST_TOGETHER, open_videos // spec.parallel_videos))
        self._worked = 0
        self._failed = 0

    def runs(self, videos: Sequence[VideoInProgress]) -> Iterator[list[VideoInProgress]]:
        """``videos`` in order: short ones that follow each other together, the others alone."""
        most = math.ceil(len(videos) / self._spec.parallel_videos)  # every thread gets some
        return runs_of(videos, self._is_short, min(self._most, most))

    def may_share(self, videos: Sequence[VideoInProgress]) -> bool:
        """Whether to try it for ``videos``."""
        usual = self._failed < _TRIES + self._worked // 4
        return usual and not any(video.abandoned.is_set() for video in videos)

    def note(self, decoded: Sequence[DecodedVideo | None]) -> None:
        """Whether it has worked."""
        works = sum(video is not None for video in decoded) > len(decoded) // 2
        self._worked += works
        self._failed += not works

    def _is_short(self, video: VideoInProgress) -> bool:
        file = video.video.video.file
        return (
            self._allowed
            and file.path not in self._spec.source.urls
            and video.video.video_id not in video.group.task.quarantined
            and 0 < file.size_bytes <= _SHORT_BYTES
            and 0 < video.frame_count <= _SHORT_FRAMES
        )

"""Decode videos into the units of a frame store: no teachers, several units at a time."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field

from distinit.pipeline.corpus.source import VideoFile, VideoSource
from distinit.pipeline.frames.writer import FrameStoreWriter, UnitFrameWriter
from distinit.pipeline.progress import Progress
from distinit.pipeline.video.decode import open_video
from distinit.pipeline.video.views import View
from distinit.schemas.errors import DecodeError, DecodeKilledError
from distinit.schemas.frames import FrameGeometry, UndecodableVideo
from distinit.schemas.video import DecodeConfig

__all__ = ["UnitVideos", "fill_units", "store_view"]

_UNIT_TRIES = 3  # when something outside kills an ffmpeg of the unit


@dataclass(frozen=True, slots=True)
class UnitVideos:
    """What a unit of a store consists of: videos to decode, and some that are known to fail."""

    files: tuple[VideoFile, ...]
    failed: tuple[UndecodableVideo, ...] = ()
    fps: Mapping[str, float] = field(default_factory=dict)
    """Frames per second to record, by video id; of others what decoding finds."""


def store_view(geometry: FrameGeometry) -> View:
    """The picture of each frame that a store of this geometry keeps."""
    if geometry.mode == "128x171":
        return View.squash(128, 171)
    return View.short_edge(geometry.short_edge)


def fill_units(
    writer: FrameStoreWriter,
    source: VideoSource,
    units: Mapping[int, UnitVideos],
    decode: DecodeConfig,
    progress: Progress,
) -> None:
    """Decode every frame of the videos of ``units``, and commit these.

    ``decode.parallel_videos`` units are filled at a time. A video that cannot be decoded is
    recorded as failed. The caller holds the store's lock. Raises StorageError when the disk
    refuses; units that are committed stay.
    """
    filler = _Filler(writer, source, decode)
    failed = 0
    with ThreadPoolExecutor(decode.parallel_videos) as pool:
        try:
            jobs = [pool.submit(filler.fill, unit, videos) for unit, videos in units.items()]
            for job in as_completed(jobs):
                videos, of_unit = job.result()
                failed += of_unit
                progress.advance(videos, failed=failed)
        except BaseException:
            filler.stop()
            pool.shutdown(wait=True, cancel_futures=True)
            raise


class _Filler:
    """Fills one unit after another, in any number of threads, until it is told to stop."""

    def __init__(self, writer: FrameStoreWriter, source: VideoSource, decode: DecodeConfig) -> None:
        self._writer = writer
        self._source = source
        self._decode = decode
        self._view = store_view(writer.geometry)
        self._stopping = threading.Event()

    def stop(self) -> None:
        self._stopping.set()

    def fill(self, unit: int, videos: UnitVideos) -> tuple[int, int]:
        """(videos, how many of them failed)."""
        for _ in range(_UNIT_TRIES - 1):
            try:
                return self._fill_once(unit, videos, last_try=False)
            except DecodeKilledError:
                continue
        return self._fill_once(unit, videos, last_try=True)

    def _fill_once(self, unit: int, videos: UnitVideos, *, last_try: bool) -> tuple[int, int]:
        failed = 0
        with self._writer.open_unit(unit) as frames:
            for known in videos.failed:
                frames.fail_video(known.video_id, known.digest, known.error)
            for file in videos.files:
                try:
                    self._store_video(frames, file, videos.fps.get(file.video_id))
                except DecodeError as error:
                    if isinstance(error, DecodeKilledError) and not last_try:
                        raise
                    reason = self._source.reason(file.path, file.digest, error)
                    frames.fail_video(file.video_id, file.digest, reason)
                    failed += 1
                if self._stopping.is_set():
                    return 0, 0
            frames.commit()
        return len(videos.files), failed

    def _store_video(self, frames: UnitFrameWriter, file: VideoFile, fps: float | None) -> None:
        with (
            self._source.open(file.path, file.digest) as path,
            open_video(path, {"small": self._view}, self._decode) as stream,
        ):
            for block in stream:
                small = block.views["small"]
                frames.append(file.video_id, file.digest, block.first_index, small, 0.0)
                if self._stopping.is_set():
                    return
            summary = stream.summary
        if summary is None:
            raise RuntimeError("a stream without a summary is not exhausted")
        frames.set_fps(file.video_id, summary.fps if fps is None else fps)
        if summary.damage is not None:
            frames.note_damage(file.video_id, file.digest, summary.damage.text)

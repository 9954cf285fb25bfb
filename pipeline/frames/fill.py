"""Decodes videos into the units of a frame store, several units at a time, without teachers."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field

from distinit.pipeline.corpus.source import VideoSource
from distinit.pipeline.frames.writer import FrameStoreWriter, UnitFrameWriter
from distinit.pipeline.progress import Progress
from distinit.pipeline.video.decode import open_video
from distinit.pipeline.video.retry import KillLimit, retry_killed
from distinit.pipeline.video.views import View
from distinit.schemas.corpus import VideoFile
from distinit.schemas.errors import DecodeError
from distinit.schemas.frames import FrameGeometry, UndecodableVideo
from distinit.schemas.video import DecodeConfig

__all__ = ["UnitVideos", "fill_units", "store_view"]


@dataclass(frozen=True, slots=True)
class UnitVideos:
    """The contents of a unit: videos to decode, and videos that are known to be undecodable."""

    files: tuple[VideoFile, ...]
    failed: tuple[UndecodableVideo, ...] = ()
    fps: Mapping[str, float] = field(default_factory=dict)
    """video_id -> frames per second to record; for other videos it is measured while decoding."""


def store_view(geometry: FrameGeometry) -> View:
    """The view of each frame that a store of this geometry keeps."""
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
    """Decode every frame of the videos in ``units``, and commit each unit.

    ``decode.parallel_videos`` units are filled at a time. A video that cannot be decoded is
    recorded as failed. The caller must hold the store's lock. Raises StorageError if the disk
    cannot be written; committed units are kept.
    """
    filler = _Filler(writer, source, decode)
    failed_count = 0
    with ThreadPoolExecutor(decode.videos_at_once(os.cpu_count())) as pool:
        try:
            jobs = [pool.submit(filler.fill, unit, videos) for unit, videos in units.items()]
            for job in as_completed(jobs):
                video_count, unit_failed_count = job.result()
                failed_count += unit_failed_count
                progress.advance(video_count, failed=failed_count)
        except BaseException:
            filler.stop()
            pool.shutdown(wait=True, cancel_futures=True)
            raise


class _Filler:
    """Fills units, from any number of threads, until ``stop`` is called."""

    def __init__(self, writer: FrameStoreWriter, source: VideoSource, decode: DecodeConfig) -> None:
        self._writer = writer
        self._source = source
        self._decode = decode
        self._view = store_view(writer.geometry)
        self._stopping = threading.Event()

    def stop(self) -> None:
        self._stopping.set()

    def fill(self, unit: int, videos: UnitVideos) -> tuple[int, int]:
        """Fill and commit one unit; (number of its videos, number of those that failed)."""
        return retry_killed(lambda limit: self._fill_once(unit, videos, limit))

    def _fill_once(self, unit: int, videos: UnitVideos, limit: KillLimit) -> tuple[int, int]:
        failed_count = 0
        with self._writer.open_unit(unit) as unit_writer:
            for known in videos.failed:
                unit_writer.fail_video(known.video_id, known.digest, known.error)
            for file in videos.files:
                try:
                    self._store_video(unit_writer, file, videos.fps.get(file.video_id))
                except DecodeError as error:
                    limit.check(file.video_id, error)
                    reason = self._source.reason(file.path, file.digest, error)
                    unit_writer.fail_video(file.video_id, file.digest, reason)
                    failed_count += 1
                if self._stopping.is_set():
                    return 0, 0
            unit_writer.commit()
        return len(videos.files), failed_count

    def _store_video(self, writer: UnitFrameWriter, file: VideoFile, fps: float | None) -> None:
        with (
            self._source.open(file.path, file.digest) as path,
            open_video(path, {"store": self._view}, self._decode) as stream,
        ):
            for block in stream:
                frames_NHWC = block.views["store"]
                writer.append(file.video_id, file.digest, block.first_index, frames_NHWC, 0.0)
                if self._stopping.is_set():
                    return
            summary = stream.summary
        self._source.check_unchanged(file)
        if summary is None:
            raise RuntimeError("a stream that is exhausted must have a summary")
        writer.set_fps(file.video_id, summary.fps if fps is None else fps)
        if summary.damage is not None:
            writer.note_damage(file.video_id, file.digest, summary.damage.text)

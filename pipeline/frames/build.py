"""Decode videos straight into a frame store, for datasets and for users of a received cache."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from itertools import batched
from pathlib import Path

from distinit.pipeline.corpus.listing import Corpus
from distinit.pipeline.corpus.source import VideoFile, VideoSource
from distinit.pipeline.frames.reader import FrameStore
from distinit.pipeline.frames.writer import FrameStoreWriter, UnitFrameWriter
from distinit.pipeline.progress import Progress
from distinit.pipeline.video.decode import open_video
from distinit.pipeline.video.views import View
from distinit.schemas.base import sha256_of
from distinit.schemas.errors import DecodeError, DecodeKilledError
from distinit.schemas.frames import FrameGeometry
from distinit.schemas.video import DecodeConfig

__all__ = ["build_store", "store_view"]

_UNITS_WANTED = 64  # enough to keep the cores busy and to lose little on a crash
_MAX_VIDEOS_PER_UNIT = 256
_UNIT_TRIES = 3  # when something outside kills an ffmpeg of the unit


def store_view(geometry: FrameGeometry) -> View:
    """The picture of each frame that a store of this geometry keeps."""
    if geometry.mode == "128x171":
        return View.squash(128, 171)
    return View.short_edge(geometry.short_edge)


def build_store(
    corpus: Corpus, root: Path, geometry: FrameGeometry, decode: DecodeConfig, progress: Progress
) -> FrameStore:
    """Decode every frame of ``corpus`` into the store at ``root``, or finish one begun before.

    ``decode.parallel_videos`` videos are decoded at a time. A video that cannot be decoded is
    recorded in the store's ``failed``. Raises FrameStoreError if ``root`` holds a store of
    other videos or another geometry, StorageError when the disk refuses.
    """
    units = _plan(corpus.files)
    plan_digest = sha256_of([[file.video_id, file.digest] for unit in units for file in unit])
    writer = FrameStoreWriter(root, geometry, plan_digest)
    pending = [unit for unit in range(len(units)) if unit not in writer.committed_units()]
    done = len(corpus.files) - sum(len(units[unit]) for unit in pending)
    progress.start("frames", len(corpus.files), "videos", done)
    stopping = threading.Event()
    failed: set[str] = set()

    def build(unit: int, tries: int = _UNIT_TRIES) -> int:
        try:
            return build_once(unit, last_try=tries == 1)
        except DecodeKilledError:
            return build(unit, tries - 1)

    def build_once(unit: int, last_try: bool) -> int:
        with writer.open_unit(unit) as frames:
            for file in units[unit]:
                try:
                    _store_video(
                        frames, corpus.source, file, store_view(geometry), decode, stopping
                    )
                except DecodeError as error:
                    if isinstance(error, DecodeKilledError) and not last_try:
                        raise
                    reason = corpus.source.reason(file.path, file.digest, error)
                    frames.fail_video(file.video_id, file.digest, reason)
                    failed.add(file.video_id)
                if stopping.is_set():
                    return 0
            frames.commit()
        return len(units[unit])

    with ThreadPoolExecutor(decode.parallel_videos) as pool:
        try:
            for future in as_completed([pool.submit(build, unit) for unit in pending]):
                progress.advance(future.result(), failed=len(failed))
        except BaseException:
            stopping.set()
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    progress.finish()
    writer.finalise(range(len(units)))
    return FrameStore.open(root)


def _plan(files: Sequence[VideoFile]) -> list[tuple[VideoFile, ...]]:
    """Runs of videos, by the listing alone: the same for every run over the same files."""
    per_unit = min(_MAX_VIDEOS_PER_UNIT, max(1, -(-len(files) // _UNITS_WANTED)))
    return list(batched(files, per_unit))


def _store_video(
    frames: UnitFrameWriter,
    source: VideoSource,
    file: VideoFile,
    view: View,
    decode: DecodeConfig,
    stopping: threading.Event,
) -> None:
    with (
        source.open(file.path, file.digest) as path,
        open_video(path, {"small": view}, decode) as stream,
    ):
        for block in stream:
            small = block.views["small"]
            frames.append(file.video_id, file.digest, block.first_index, small, 0.0)
            if stopping.is_set():
                return
        if stream.summary is not None:
            frames.set_fps(file.video_id, stream.summary.fps)

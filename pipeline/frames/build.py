"""Builds a frame store directly from videos, for datasets and for users of a received cache."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import batched
from pathlib import Path

from distinit.pipeline.corpus.listing import Corpus
from distinit.pipeline.frames.fill import UnitVideos, fill_units
from distinit.pipeline.frames.reader import FrameStore
from distinit.pipeline.frames.writer import FrameStoreWriter
from distinit.pipeline.progress import Progress
from distinit.schemas.base import sha256_of
from distinit.schemas.corpus import VideoFile
from distinit.schemas.frames import FrameGeometry
from distinit.schemas.video import DecodeConfig

__all__ = ["build_store"]

_TARGET_UNIT_COUNT = 64  # enough to keep all cores busy, and to lose little in a crash
_MAX_VIDEOS_PER_UNIT = 256


def build_store(
    corpus: Corpus, root: Path, geometry: FrameGeometry, decode: DecodeConfig, progress: Progress
) -> FrameStore:
    """Decode every frame of ``corpus`` into the frame store at ``root``.

    An unfinished store is completed, and units whose files are missing or truncated are rebuilt.
    The caller must hold ``store_lock(root)``. A video that cannot be decoded is recorded in the
    store's ``failed``. Raises FrameStoreError if ``root`` holds a store of other videos or another
    geometry, StorageError if the disk cannot be written.
    """
    units = _plan(corpus.files)
    plan_digest = sha256_of([[file.video_id, file.digest] for unit in units for file in unit])
    writer = FrameStoreWriter(root, geometry, plan_digest)
    pending = {unit: UnitVideos(units[unit]) for unit in writer.pending_units(range(len(units)))}
    video_count = len(corpus.files)
    pending_count = sum(len(videos.files) for videos in pending.values())
    progress.start("frames", video_count, "videos", video_count - pending_count)
    fill_units(writer, corpus.source, pending, decode, progress)
    progress.finish()
    writer.finalise(range(len(units)))
    return FrameStore.open(root)


def _plan(files: Sequence[VideoFile]) -> list[tuple[VideoFile, ...]]:
    """Consecutive videos per unit. Depends only on the list of files, so it can be repeated."""
    per_unit = min(_MAX_VIDEOS_PER_UNIT, max(1, -(-len(files) // _TARGET_UNIT_COUNT)))
    return list(batched(files, per_unit))

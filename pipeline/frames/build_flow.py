"""Computes a flow store from an RGB frame store, several units at a time."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

import numpy as np

from distinit.pipeline.frames.flow import farneback, levels_of_flow, opencv_version
from distinit.pipeline.frames.reader import FrameStore
from distinit.pipeline.frames.writer import FrameStoreWriter
from distinit.pipeline.progress import Progress
from distinit.schemas.base import sha256_of
from distinit.schemas.errors import FrameStoreError
from distinit.schemas.frames import FlowConfig, FlowSpec, StoreCommit, VideoRows

__all__ = ["build_flow_store", "flow_spec"]

_BLOCK_FRAMES = 64  # held in memory at a time, per unit


def build_flow_store(config: FlowConfig, progress: Progress) -> FrameStore:
    """Compute the flow of every frame in the RGB store ``config.frames``.

    An unfinished flow store is completed, and units whose files are missing or truncated are
    rebuilt. Videos, units and frame counts are those of the RGB store, so that the flow of a frame
    has the same video id and index as the frame. The caller must hold ``store_lock`` of
    ``config.out``.

    Raises:
        ConfigError: OpenCV is not installed.
        FrameStoreError: ``config.frames`` is not an RGB store, or ``config.out`` holds another
            store.
        StorageError: The disk cannot be written.
    """
    spec = flow_spec(config)
    source = FrameStore.open(Path(config.frames))
    if source.manifest.flow is not None:
        raise FrameStoreError(
            f"{config.frames} is a flow store already",
            expected="a store of RGB frames",
            remedy="name the store that `distinit extract` or `distinit frames build` wrote",
        )
    manifest = source.manifest
    plan_digest = sha256_of(["flow of", manifest.plan_digest, manifest.geometry.record_digest()])
    writer = FrameStoreWriter(Path(config.out), manifest.geometry, plan_digest, spec)
    commits = {commit.unit: commit for commit in source.commits()}
    pending = writer.pending_units(sorted(commits))
    frame_count = sum(commit.frame_count for commit in commits.values())
    pending_count = sum(commits[unit].frame_count for unit in pending)
    progress.start("flow", frame_count, "frames", frame_count - pending_count)
    stopping = threading.Event()
    with ThreadPoolExecutor(config.parallel_units or os.cpu_count() or 1) as pool:
        try:
            jobs = [
                pool.submit(_build_unit, source, writer, commits[unit], spec, stopping)
                for unit in pending
            ]
            for job in as_completed(jobs):
                progress.advance(commits[job.result()].frame_count)
        except BaseException:
            stopping.set()
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    progress.finish()
    writer.finalise(commits)
    return FrameStore.open(Path(config.out))


def flow_spec(config: FlowConfig) -> FlowSpec:
    """How this machine computes flow for ``config``. Raises ConfigError without OpenCV."""
    return FlowSpec(
        flow_range=config.flow_range, jpeg_quality=config.jpeg_quality, opencv=opencv_version()
    )


def _build_unit(
    source: FrameStore,
    writer: FrameStoreWriter,
    commit: StoreCommit,
    spec: FlowSpec,
    stopping: threading.Event,
) -> int:
    with writer.open_unit(commit.unit) as unit:
        for rows in commit.videos:
            for first_frame, levels_NHW2 in _flow_of_rows(source, rows, spec):
                if stopping.is_set():
                    return commit.unit
                unit.append(rows.video_id, rows.digest, first_frame, levels_NHW2, rows.fps)
        for failed in commit.failed:
            unit.fail_video(failed.video_id, failed.digest, failed.error)
        for damaged in commit.damaged:
            unit.note_damage(damaged.video_id, damaged.digest, damaged.damage)
        unit.commit()
    return commit.unit


def _flow_of_rows(
    source: FrameStore, rows: VideoRows, spec: FlowSpec
) -> Iterator[tuple[int, np.ndarray]]:
    """Yield (first frame, levels uint8 [N, H, W, 2]) of consecutive rows, block by block."""
    last = source.videos[rows.video_id].frame_count - 1
    end = rows.first_frame + rows.frame_count
    for first in range(rows.first_frame, end, _BLOCK_FRAMES):
        stop = min(first + _BLOCK_FRAMES, end)
        # Pair p is frames p and p + 1. Frame i gets the flow of pair i; the last frame that of the
        # previous pair.
        pairs = [min(i, last - 1) for i in range(first, stop)]
        if last == 0:
            yield first, levels_of_flow(np.zeros((1, rows.height, rows.width, 2)), spec.flow_range)
            return
        needed = list(range(pairs[0], pairs[-1] + 2))
        frames_NHWC = source.clip(rows.video_id, needed).permute(0, 2, 3, 1).numpy()
        flow_NHW2 = farneback(frames_NHWC, spec)[[pair - pairs[0] for pair in pairs]]
        yield first, levels_of_flow(flow_NHW2, spec.flow_range)

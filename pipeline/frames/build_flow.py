"""RGB frame store -> flow frame store, unit by unit, several at a time."""

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

_BLOCK_FRAMES = 64  # in memory at a time, of each unit


def build_flow_store(config: FlowConfig, progress: Progress) -> FrameStore:
    """Compute the flow of every frame of ``config.frames``, finish what was begun before, or
    repair a store whose files are missing or cut short.

    Videos, units and frame counts are those of the RGB store, so that a frame's flow is found as
    the frame is. The caller holds ``store_lock`` of ``config.out``. Raises ConfigError without
    OpenCV; FrameStoreError if ``config.frames`` is no RGB store or ``config.out`` holds another
    one; StorageError when the disk refuses.
    """
    spec = flow_spec(config)
    source = FrameStore.open(Path(config.frames))
    if source.manifest.flow is not None:
        raise FrameStoreError(
            f"{config.frames} holds flow already",
            expected="a store of RGB frames",
            remedy="give the store that `distinit extract` or `distinit frames build` wrote",
        )
    manifest = source.manifest
    plan_digest = sha256_of(["flow of", manifest.plan_digest, manifest.geometry.record_digest()])
    writer = FrameStoreWriter(Path(config.out), manifest.geometry, plan_digest, spec)
    commits = {commit.unit: commit for commit in source.commits()}
    pending = writer.pending_units(sorted(commits))
    frames = {unit: sum(run.frame_count for run in c.videos) for unit, c in commits.items()}
    left = sum(frames[unit] for unit in pending)
    progress.start("flow", sum(frames.values()), "frames", sum(frames.values()) - left)
    stopping = threading.Event()
    with ThreadPoolExecutor(config.parallel_units or os.cpu_count() or 1) as pool:
        try:
            jobs = [
                pool.submit(_build_unit, source, writer, commits[u], spec, stopping)
                for u in pending
            ]
            for job in as_completed(jobs):
                progress.advance(frames[job.result()])
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
        for run in commit.videos:
            for first, levels_NHW2 in _flow_of_run(source, run, spec):
                if stopping.is_set():
                    return commit.unit
                unit.append(run.video_id, run.digest, first, levels_NHW2, run.fps)
        for failed in commit.failed:
            unit.fail_video(failed.video_id, failed.digest, failed.error)
        for damaged in commit.damaged:
            unit.note_damage(damaged.video_id, damaged.digest, damaged.damage)
        unit.commit()
    return commit.unit


def _flow_of_run(
    source: FrameStore, run: VideoRows, spec: FlowSpec
) -> Iterator[tuple[int, np.ndarray]]:
    """(first frame, levels uint8 [N, H, W, 2]) of one run, block by block."""
    last = source.videos[run.video_id].frame_count - 1
    end = run.first_frame + run.frame_count
    for first in range(run.first_frame, end, _BLOCK_FRAMES):
        stop = min(first + _BLOCK_FRAMES, end)
        # Pair p is the frames p and p + 1; frame i has pair i, the last frame the pair before.
        pairs = [min(i, last - 1) for i in range(first, stop)]
        if last == 0:
            yield first, levels_of_flow(np.zeros((1, run.height, run.width, 2)), spec.flow_range)
            return
        needed = list(range(pairs[0], pairs[-1] + 2))
        frames = source.clip(run.video_id, needed).permute(0, 2, 3, 1).numpy()
        flow_NHW2 = farneback(frames, spec)[[pair - pairs[0] for pair in pairs]]
        yield first, levels_of_flow(flow_NHW2, spec.flow_range)

"""Target caches of made-up logits and frame stores of made-up pictures: no videos are needed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from distinit.pipeline.cache.group_writer import GroupWriter
from distinit.pipeline.cache.plan import PlannedVideo
from distinit.pipeline.cache.writer import CacheWriter
from distinit.pipeline.frames.writer import FrameStoreWriter
from distinit.schemas.base import sha256_of
from distinit.schemas.corpus import ProbeSummary, VideoFile
from distinit.schemas.frames import FrameGeometry
from distinit.schemas.manifest import VideoOutcome
from distinit.schemas.teacher import PreprocessSpec, TeacherIdentity, TeacherRecord
from distinit.schemas.video import SamplingConfig


def made_up_teacher(
    name: str, classes: int, encoding: str = "float16", target: str = "logits"
) -> TeacherRecord:
    """Return the record of a teacher that does not exist."""
    identity = TeacherIdentity.model_validate(
        {
            "architecture": "made-up",
            "weights_sha256": "0" * 64,
            "preprocessing": PreprocessSpec(
                resize_mode="squash", resize_size=8, crop_size=8, mean=(0, 0, 0), std=(1, 1, 1)
            ),
            "target": target,
            "classes": classes,
            "label_space": "none",
            "label_names": (),
        }
    )
    return TeacherRecord(
        id=name,
        fingerprint=identity.fingerprint,
        identity=identity,
        encoding=encoding,
        batch_size=1,
        software={},
    )


def made_up_video(digest: str, path: str, frames: int) -> PlannedVideo:
    """Return a planned video with one row for each of its ``frames``."""
    file = VideoFile(digest[:16], path, digest, size_bytes=1, mtime_ns=1)
    return PlannedVideo(file, ProbeSummary(frames, 25.0), frames)


def write_made_up_cache(
    root: Path, frames: Sequence[int], teachers: Sequence[TeacherRecord], capacity: int
) -> None:
    """Write a complete cache; ``frames`` has the frame count of each video, 0 for a failed one."""
    digests = [sha256_of(number) for number in range(len(frames))]
    videos = [
        made_up_video(digest, f"{digest}.mp4", count)
        for digest, count in zip(digests, frames, strict=True)
    ]
    rng = np.random.default_rng(0)
    with CacheWriter.create_or_open(
        root,
        videos=videos,
        sampling=SamplingConfig(),
        teachers={teacher.id: teacher for teacher in teachers},
        unit_rows=capacity,
    ) as writer:
        for spec in writer.pending_groups():
            group = GroupWriter(spec)
            for video in spec.videos:
                index_N = np.arange(video.reserved_rows)
                logits = {
                    t.id: 3 * rng.standard_normal((len(index_N), t.identity.classes), np.float32)
                    for t in teachers
                }
                group.add(video, index_N, index_N, "1/25", index_N.astype(np.uint64), logits)
                outcome = _outcome_of(video.video_id, video.reserved_rows)
                (group.finish_video if video.reserved_rows else group.fail_video)(outcome)
            group.commit()
        writer.finalise()


def write_made_up_frames(root: Path, frames: Sequence[int], height: int, width: int) -> None:
    """Write a frame store of the videos of ``write_made_up_cache``: blurred noise, moving."""
    writer = FrameStoreWriter(root, FrameGeometry(short_edge=min(height, width)), "0" * 64)
    rng = np.random.default_rng(0)
    with writer.open_unit(0) as file:
        for number, count in enumerate(frames):
            digest = sha256_of(number)
            small = rng.integers(0, 256, (height // 16, width // 16, 3), np.uint8)
            picture = Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)
            moving = [np.roll(np.asarray(picture), 2 * step, axis=1) for step in range(count)]
            file.append(digest[:16], digest, 0, np.stack(moving), 25.0)
        file.commit()
    writer.finalise([0])


def _outcome_of(video_id: str, frames: int) -> VideoOutcome:
    return VideoOutcome(
        video_id=video_id,
        status="ok" if frames else "failed",
        frame_count=frames,
        width=8,
        height=8,
        duration_seconds=frames / 25,
        error=None if frames else "made to fail",
    )

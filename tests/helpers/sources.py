"""Small caches with made-up logits, and their frame store."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from helpers.caches import planned_video
from numpy.typing import NDArray

from distinit.pipeline.cache.group_writer import GroupWriter
from distinit.pipeline.cache.writer import CacheWriter
from distinit.pipeline.frames.writer import FrameStoreWriter
from distinit.schemas.frames import FrameGeometry
from distinit.schemas.manifest import VideoOutcome
from distinit.schemas.teacher import PreprocessSpec, TeacherIdentity, TeacherRecord
from distinit.schemas.video import SamplingConfig

FRAMES = {"a": 12, "b": 9, "c": 20, "short": 3, "d": 8, "bad": 6}
CLASSES = {"alpha": 7, "beta": 5, "gamma": 7, "alpha-flip": 7, "small": 24, "large": 24, "grid": 24}
POOLS = {"grid": "grid:2"}
SPACES = {"gamma": "test-alpha", "alpha-flip": "test-alpha"}


def digest_of(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


def video_id_of(name: str) -> str:
    return digest_of(name)[:16]


def logits_of(video_id: str, teacher: str, frame: int) -> NDArray[np.float32]:
    """Made-up logits, rounded to float16; their entropy differs between frames."""
    key = hashlib.sha256(f"{video_id}/{teacher}/{frame}".encode()).digest()
    rng = np.random.default_rng(int.from_bytes(key[:8], "little"))
    logits = rng.uniform(0.2, 6) * rng.standard_normal(CLASSES[teacher])
    return logits.astype(np.float16).astype(np.float32)


def teacher_record(name: str, target: str) -> TeacherRecord:
    spec = PreprocessSpec(
        resize_mode="short_edge",
        resize_size=8,
        crop_size=8,
        mean=(0.5,) * 3,
        std=(0.5,) * 3,
        flip=name.endswith("-flip"),
    )
    identity = TeacherIdentity.model_validate(
        {
            "architecture": "test/tiny",
            "weights_sha256": hashlib.sha256(name.removesuffix("-flip").encode()).hexdigest(),
            "preprocessing": spec,
            "target": target,
            "pool": POOLS.get(name),
            "classes": CLASSES[name],
            "label_space": SPACES.get(name, f"test-{name}"),
            "label_names": (),
        }
    )
    return TeacherRecord(
        id=name,
        fingerprint=identity.fingerprint,
        identity=identity,
        encoding="float16",
        batch_size=4,
        software={},
    )


def write_cache(
    root: Path,
    teachers: tuple[str, ...],
    every: int = 1,
    target: str = "logits",
    *,
    targets: Mapping[str, str] | None = None,
    frames: Mapping[str, int] = FRAMES,
    logits_of: Callable[[str, str, int], NDArray[np.float32]] = logits_of,
) -> None:
    """Write a cache of videos with a row for each ``every``-th frame; video ``bad`` has failed.

    ``targets``: teacher -> its target, where it is not ``target``.
    """
    sampling = SamplingConfig(mode="stride", stride=every) if every > 1 else SamplingConfig()
    planned = [
        planned_video(digest_of(n), f"{n}.mp4", -(-f // every), frames=f) for n, f in frames.items()
    ]
    records = {name: teacher_record(name, (targets or {}).get(name, target)) for name in teachers}
    names = {video_id_of(name): name for name in frames}
    with CacheWriter.create_or_open(
        root, videos=planned, sampling=sampling, teachers=records, unit_rows=64
    ) as writer:
        for spec in writer.pending_groups():
            task = GroupWriter(spec)
            for video in spec.videos:
                name = names[video.video_id]
                index_N = np.arange(0, frames[name], every)
                hash_N = index_N.astype(np.uint64) * np.uint64(2**40)
                logits = {
                    t: np.stack([logits_of(video.video_id, t, i) for i in index_N.tolist()])
                    for t in teachers
                }
                task.add(video, index_N, index_N * 512, "1/12800", hash_N, logits)
                if name == "bad":
                    task.fail_video(outcome(video.video_id, 0, "made to fail"))
                else:
                    task.finish_video(outcome(video.video_id, frames[name]))
            task.commit()
        writer.finalise()


def outcome(video_id: str, frames: int, error: str | None = None) -> VideoOutcome:
    return VideoOutcome(
        video_id=video_id,
        status="failed" if error else "ok",
        frame_count=frames,
        width=32,
        height=24,
        duration_seconds=frames / 25,
        error=error,
    )


def write_frames(root: Path, frames: Mapping[str, int]) -> None:
    """Write a store of moving ramps, 24 x 32 pixels; digests equal the cache's, ids do not."""
    writer = FrameStoreWriter(root, FrameGeometry(), "0" * 64)
    with writer.open_unit(0) as unit:
        for number, (name, count) in enumerate(frames.items()):
            ramp = np.add.outer(3 * np.arange(24), 4 * np.arange(32))
            levels = ramp[None] + 9 * np.arange(count)[:, None, None] + 20 * number
            pixels = np.repeat(levels[..., None] % 256, 3, axis=-1).astype(np.uint8)
            unit.append(f"store-{name}", digest_of(name), 0, pixels, 25.0)
        unit.commit()
    writer.finalise([0])

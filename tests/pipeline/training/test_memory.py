"""Opening a cache and a frame store takes only a few bytes of memory per video."""

from __future__ import annotations

import gc
import hashlib
import tracemalloc
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from helpers.caches import planned_video
from helpers.sources import outcome, teacher_record

from distinit.pipeline import derived
from distinit.pipeline.cache import tables
from distinit.pipeline.cache.group_writer import GroupWriter
from distinit.pipeline.cache.reader import TargetCache
from distinit.pipeline.cache.writer import CacheWriter
from distinit.pipeline.distillation.matching import MatchedVideos, match_videos
from distinit.pipeline.frames import derive
from distinit.pipeline.frames.reader import FrameStore
from distinit.pipeline.frames.writer import FrameStoreWriter
from distinit.schemas.frames import FrameGeometry
from distinit.schemas.video import SamplingConfig

SMALL, LARGE = 256, 1536
PER_UNIT = 256


def digest_of(number: int) -> str:
    return hashlib.sha256(str(number).encode()).hexdigest()


def write_stores(root: Path, videos: int) -> None:
    """Write a cache and a frame store of ``videos`` videos with one frame each."""
    digests = [digest_of(n) for n in range(videos)]
    planned = [planned_video(d, f"{d}.mp4", 1) for d in digests]
    teacher = teacher_record("alpha", "logits")
    classes = teacher.identity.classes
    zero_N = np.zeros(1, np.int64)
    with CacheWriter.create_or_open(
        root / "cache",
        videos=planned,
        sampling=SamplingConfig(),
        teachers={"alpha": teacher},
        unit_rows=PER_UNIT,
    ) as writer:
        for spec in writer.pending_groups():
            group = GroupWriter(spec)
            for video in spec.videos:
                logits = {"alpha": np.zeros((1, classes), np.float32)}
                group.add(video, zero_N, zero_N, "1/25", zero_N.astype(np.uint64), logits)
                group.finish_video(outcome(video.video_id, 1))
            group.commit()
        writer.finalise()
    frames = FrameStoreWriter(root / "frames", FrameGeometry(), "0" * 64)
    for unit in range(videos // PER_UNIT):
        with frames.open_unit(unit) as file:
            for digest in digests[unit * PER_UNIT : (unit + 1) * PER_UNIT]:
                file.append(f"store-{digest[:16]}", digest, 0, np.zeros((1, 8, 8, 3), "u1"), 25.0)
            file.commit()
    frames.finalise(range(videos // PER_UNIT))


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Folders with a cache and a frame store, by number of videos."""
    roots = {videos: tmp_path_factory.mktemp(f"of-{videos}") for videos in (SMALL, LARGE)}
    for videos, root in roots.items():
        write_stores(root, videos)
    return roots


def open_both(root: Path) -> tuple[TargetCache, FrameStore, MatchedVideos]:
    cache, store = TargetCache.open(root / "cache"), FrameStore.open(root / "frames")
    return cache, store, match_videos(cache, store)


def bytes_of(use: Callable[[], object]) -> tuple[int, int]:
    """(bytes that the result of ``use`` holds, peak bytes while it runs)."""
    arrow_before = pa.total_allocated_bytes()
    gc.collect()
    tracemalloc.start()
    try:
        kept = use()
        gc.collect()
        held, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    held += pa.total_allocated_bytes() - arrow_before
    del kept
    return held, peak


@pytest.mark.parametrize(
    ("opening", "held_bytes", "peak_bytes"),
    [
        # The first opening sorts the indexes, and pydantic caches up to 16,384 short strings.
        ("first", 128, 400),
        ("later", 32, 128),
    ],
)
def test_a_video_takes_few_bytes(
    tmp_path: Path,
    stores: dict[int, Path],
    monkeypatch: pytest.MonkeyPatch,
    opening: str,
    held_bytes: int,
    peak_bytes: int,
) -> None:
    """One Python object per video would take hundreds of bytes, and so would its strings."""
    monkeypatch.setattr(tables, "_BATCH_ROWS", 64)
    monkeypatch.setattr(derive, "_BLOCK", 64)
    monkeypatch.setattr(derived, "_BLOCK_BYTES", 4096)
    measured = []
    for videos in (SMALL, SMALL, LARGE):  # the first loads libraries and fills their caches
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / str(len(measured))))
        if opening == "later":
            open_both(stores[videos])
        measured.append(bytes_of(partial(open_both, stores[videos])))
    _, small, large = np.array(measured)
    held, peak = (large - small) / (LARGE - SMALL)
    assert held < held_bytes
    assert peak < peak_bytes


def test_all_videos_are_found(stores: dict[int, Path]) -> None:
    cache, store, videos = open_both(stores[LARGE])
    ids = sorted(digest_of(n)[:16] for n in range(LARGE))
    assert list(videos.cache_ids) == ids
    assert list(videos.store_ids) == [f"store-{video_id}" for video_id in ids]
    assert cache.index.video_ids[videos.cache_number_V].tolist() == [v.encode() for v in ids]
    assert store.frame_counts.tolist() == [1] * LARGE

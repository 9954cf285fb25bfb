"""Batches hold the clips that a slow, independent reference cuts, and decode each frame once."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from helpers.frame_stores import smooth_frames
from torch import Tensor

from distinit.pipeline.evaluation.clip_batches import (
    ProtocolClip,
    clip_batches,
    protocol_clips,
    student_input,
)
from distinit.pipeline.frames.reader import FrameStore
from distinit.pipeline.frames.writer import FrameStoreWriter
from distinit.schemas.errors import ConfigError
from distinit.schemas.frames import FrameGeometry
from distinit.schemas.training import ClipConfig

CLIP = ClipConfig(frames=5, crop=16, mean=(0.5, 0.4, 0.3), std=(0.5, 0.25, 0.2))
SIZES = {"long": (70, 20, 33), "short": (3, 33, 20), "square": (9, 16, 16)}
"""Frames, height and width."""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> FrameStore:
    root = tmp_path_factory.mktemp("batches") / "store"
    writer = FrameStoreWriter(root, FrameGeometry(short_edge=16), "0" * 64)
    with writer.open_unit(0) as unit:
        for name, (count, height, width) in SIZES.items():
            frames = smooth_frames(count, height=height, width=width)
            unit.append(name, hashlib.sha256(name.encode()).hexdigest(), 0, frames, 10.0)
        unit.commit()
    writer.finalise([0])
    return FrameStore.open(root)


class Decoded:
    """Counts the frames that a store decodes; each of them is really decoded."""

    def __init__(self, store: FrameStore, monkeypatch: pytest.MonkeyPatch) -> None:
        self.frames: Counter[tuple[str, int]] = Counter()
        clip = store.clip

        def counted(video_id: str, indices: Sequence[int]) -> Tensor:
            self.frames.update((video_id, index) for index in indices)
            return clip(video_id, indices)

        monkeypatch.setattr(store, "clip", counted)


def starts_of(protocol: str, frame_count: int) -> list[int]:
    """Starts of all clips, repeated ones too, by the formulas of the protocols."""
    last = max(0, frame_count - CLIP.frames)
    if protocol == "vmz-10":
        return [i * last // 9 for i in range(10)]
    if protocol == "slowfast-4x3":
        return [i * last // 4 for i in range(4) for _ in range(3)]
    return [*range(0, last + 1, int(protocol.removeprefix("dense-s")))]


def crops_of(protocol: str, height: int, width: int) -> list[tuple[int, int]]:
    if protocol != "slowfast-4x3":
        return [((height - 16) // 2, (width - 16) // 2)]
    top, left = -((16 - height) // 2), -((16 - width) // 2)
    if height > width:
        return [(0, left), (top, left), (height - 16, left)]
    return [(top, 0), (top, left), (top, width - 16)]


def slow_clips(store: FrameStore, video_ids: Sequence[str], protocol: str) -> list[Tensor]:
    """Every clip, repeated ones too: each frame is decoded for each clip."""
    clips = []
    for name in video_ids:
        count, height, width = SIZES[name]
        starts = starts_of(protocol, count)
        crops = crops_of(protocol, height, width)
        for number, start in enumerate(starts):
            top, left = crops[number % len(crops)]
            frames = [store.clip(name, [(start + i) % count])[0] for i in range(CLIP.frames)]
            clips.append(torch.stack(frames)[:, :, top : top + 16, left : left + 16])
    return clips


@pytest.mark.parametrize("protocol", ["vmz-10", "dense-s1", "dense-s3", "dense-s9", "slowfast-4x3"])
@pytest.mark.parametrize("loader_threads", [0, 2])
def test_clips_equal_those_of_a_slow_reference_and_each_frame_is_decoded_once(
    store: FrameStore, monkeypatch: pytest.MonkeyPatch, protocol: str, loader_threads: int
) -> None:
    video_ids = ["long", "short", "square", "long"]
    expected = slow_clips(store, video_ids, protocol)
    decoded = Decoded(store, monkeypatch)
    clips: list[ProtocolClip] = []
    found: list[Tensor] = []
    sizes = []
    for batch in clip_batches(
        store, video_ids, protocol, CLIP, batch_size=4, loader_threads=loader_threads
    ):
        assert batch.pixels_BTCHW.dtype == torch.uint8
        assert batch.pixels_BTCHW.shape == (len(batch.clips), 5, 3, 16, 16)
        sizes.append(len(batch.clips))
        for clip, pixels in zip(batch.clips, batch.pixels_BTCHW, strict=True):
            clips.append(clip)
            found += [pixels] * clip.weight
    assert set(sizes[:-1]) <= {4}
    assert [clip.video for clip in clips] == sorted(clip.video for clip in clips)
    assert sorted(p.numpy().tobytes() for p in found) == sorted(
        p.numpy().tobytes() for p in expected
    )
    needed: set[tuple[str, int]] = set()
    for name in video_ids:
        count = SIZES[name][0]
        starts = starts_of(protocol, count)
        needed |= {(name, (start + i) % count) for start in starts for i in range(CLIP.frames)}
    times = {"long": 2, "short": 1, "square": 1}  # "long" is in the list twice
    assert decoded.frames == {(name, frame): times[name] for name, frame in needed}


def test_clips_that_repeat_are_one_clip_with_a_weight(store: FrameStore) -> None:
    assert protocol_clips(store, "short", "vmz-10", CLIP) == [ProtocolClip(0, 0, 8, 2, 10)]
    # Square frames of the size of the crop: the three crops are the same.
    clips = protocol_clips(store, "square", "slowfast-2x3", CLIP, video=7)
    assert clips == [ProtocolClip(7, 0, 0, 0, 3), ProtocolClip(7, 2, 0, 0, 3)]


def test_a_long_video_is_not_held_in_memory(
    store: FrameStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded = Decoded(store, monkeypatch)
    batches = clip_batches(store, ["long"], "dense-s1", CLIP, batch_size=2)
    first = next(batches)
    assert [clip.start for clip in first.clips] == [0, 1]
    assert len(decoded.frames) == 32
    batches.close()


def test_the_input_of_a_student_is_normalised_and_not_flipped(store: FrameStore) -> None:
    batch = next(clip_batches(store, ["square"], "vmz-1", CLIP, batch_size=1))
    clip_BCTHW = student_input(batch.pixels_BTCHW, CLIP, torch.device("cpu"))
    assert clip_BCTHW.shape == (1, 3, 5, 16, 16)
    pixels = batch.pixels_BTCHW[0].permute(1, 0, 2, 3).numpy() / 255
    mean, std = (np.array(v).reshape(3, 1, 1, 1) for v in (CLIP.mean, CLIP.std))
    np.testing.assert_allclose(clip_BCTHW[0].numpy(), (pixels - mean) / std, atol=1e-5)


def test_unusable_requests_are_rejected(store: FrameStore) -> None:
    large = CLIP.model_copy(update={"crop": 32})
    with pytest.raises(ConfigError, match="crop is larger than the stored frames"):
        next(clip_batches(store, ["long"], "vmz-1", large, batch_size=1))
    with pytest.raises(ConfigError, match="unknown evaluation protocol"):
        protocol_clips(store, "long", "vmz-0", CLIP)

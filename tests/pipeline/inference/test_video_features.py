"""Features of any videos: of a frame store, and of video files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import frame_stores
from helpers.students import save_distilled
from helpers.videos import make_video

from distinit.pipeline.frames.reader import FrameStore
from distinit.pipeline.inference.features import extract_features
from distinit.pipeline.inference.student import TrainedStudent, load_student
from distinit.schemas.errors import ConfigError, FrameStoreError


@pytest.fixture
def student(tmp_path: Path) -> TrainedStudent:
    return load_student(save_distilled(tmp_path / "run", crop=16))


@pytest.fixture
def store(tmp_path: Path) -> FrameStore:
    return frame_stores.grey_store(tmp_path / "frames")


def test_features_of_a_store_are_means_over_clips(
    student: TrainedStudent, store: FrameStore
) -> None:
    found = extract_features(student, store, protocol="vmz-2", device="cpu", batch_size=3)
    assert found.video_ids == ("bright", "dark", "turns")
    assert (found.features_ND.shape, found.features_ND.dtype) == ((3, 128), np.float32)
    assert (found.paths, found.failed) == ({}, {})
    clips = [student.input_of(store.frames("turns", range(start, start + 4))) for start in (0, 8)]
    expected_D = student.features(torch.cat(clips)).mean(dim=0)
    assert np.allclose(found.features_ND[2], expected_D.numpy(), atol=1e-5)

    some = extract_features(
        student, store.root, video_ids=["turns", "bright"], protocol="vmz-2", device="cpu"
    )
    assert some.video_ids == ("turns", "bright")
    assert np.allclose(some.features_ND, found.features_ND[[2, 0]], atol=1e-5)


def test_an_unknown_video_is_named(student: TrainedStudent, store: FrameStore) -> None:
    with pytest.raises(FrameStoreError, match="video blue is not in the frame store"):
        extract_features(student, store, video_ids=["bright", "blue"], device="cpu")


def test_features_of_video_files_come_with_their_paths(
    student: TrainedStudent, tmp_path: Path
) -> None:
    make_video(tmp_path / "clips/a.mp4", frames=6)
    (tmp_path / "clips/torn.mp4").write_bytes(b"no video")
    found = extract_features(
        student, tmp_path / "clips", frames=tmp_path / "kept", protocol="vmz-1", device="cpu"
    )
    (video_id,) = found.video_ids
    assert found.paths == {video_id: "a.mp4"}
    assert list(found.failed) == ["torn.mp4"]
    kept = FrameStore.open(tmp_path / "kept")
    assert kept.video_ids == (video_id,)
    again = extract_features(student, kept, protocol="vmz-1", device="cpu")
    assert np.array_equal(again.features_ND, found.features_ND)
    alone = extract_features(student, tmp_path / "clips", protocol="vmz-1", device="cpu")
    assert np.array_equal(alone.features_ND, found.features_ND)


def test_a_student_of_flow_does_not_read_video_files(tmp_path: Path) -> None:
    network = {"name": "tiny_r2plus1d_10", "in_channels": 2}
    flow = load_student(save_distilled(tmp_path / "flow", student=network))
    with pytest.raises(ConfigError, match="a student of optical flow does not read videos"):
        extract_features(flow, tmp_path / "clips", device="cpu")

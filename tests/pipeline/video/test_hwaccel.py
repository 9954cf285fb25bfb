"""A missing hardware decoder: one warning, and the same frames decoded in software."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
from helpers.videos import make_video

from distinit.pipeline.video.binary import find_ffmpeg, supports_cuda
from distinit.pipeline.video.decode import _warn_once, open_video
from distinit.pipeline.video.views import View
from distinit.schemas.video import DecodeConfig

SOFTWARE, CUDA = DecodeConfig(), DecodeConfig(hwaccel="cuda")


def decoded(path: Path, config: DecodeConfig) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Frames, timestamps and hashes of a whole video."""
    with open_video(path, {"view": View.source()}, config) as stream:
        blocks = list(stream)
    assert stream.summary is not None
    assert stream.summary.frame_count == 12
    return (
        np.concatenate([block.views["view"] for block in blocks]),
        np.concatenate([block.pts_N for block in blocks]),
        np.concatenate([block.hash_N for block in blocks]),
    )


def test_without_cuda_frames_are_equal_and_there_is_one_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    if supports_cuda(find_ffmpeg()):
        pytest.skip("this ffmpeg decodes with CUDA here")
    path = make_video(tmp_path / "a.mp4")
    _warn_once.cache_clear()
    with caplog.at_level(logging.WARNING):
        expected = decoded(path, SOFTWARE)
        assert caplog.records == []
        for _ in range(2):
            for mine, theirs in zip(decoded(path, CUDA), expected, strict=True):
                np.testing.assert_array_equal(mine, theirs)
    ffmpeg = find_ffmpeg()
    assert [record.getMessage() for record in caplog.records] == [
        f"hwaccel cuda: {ffmpeg.path} {ffmpeg.version} cannot open a CUDA device here; videos are "
        "decoded in software"
    ]

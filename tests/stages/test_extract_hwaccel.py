"""An ffmpeg without CUDA is reported once, in the output of the driver."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from helpers.progress import RecordingProgress
from helpers.videos import make_video

from distinit.pipeline.video.binary import find_ffmpeg, supports_cuda
from distinit.schemas.extract import ExtractConfig
from distinit.stages.extract import extract


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.ray)])
def test_missing_cuda_is_reported_once_by_the_driver(
    workers: int,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    request: pytest.FixtureRequest,
) -> None:
    if supports_cuda(find_ffmpeg()):
        pytest.skip("this ffmpeg decodes with CUDA here")
    if workers:
        request.getfixturevalue("ray_session")
    for seed in range(4):
        make_video(tmp_path / "videos" / f"{seed}.mp4", frames=40, seed=seed)
    values = {
        "videos": str(tmp_path / "videos"),
        "teachers": [{"name": "null"}],
        "cache": str(tmp_path / "cache"),
        "unit_rows": 64,
        "decode": {"hwaccel": "cuda"},
        "compute": {"workers": workers},
    }
    progress = RecordingProgress()
    with caplog.at_level(logging.WARNING, "distinit"):
        result = extract(ExtractConfig.model_validate(values), progress=progress)
    assert (result.frames, result.failed) == (160, ())
    ffmpeg = find_ffmpeg()
    assert [m for m in progress.messages if m.startswith("hwaccel")] == [
        f"hwaccel cuda: {ffmpeg.path} {ffmpeg.version} cannot open a CUDA device here; videos are "
        "decoded in software"
    ]
    assert [record.getMessage() for record in caplog.records if "cuda" in record.getMessage()] == []

"""The default length of an epoch, and what the start of a run says."""

from __future__ import annotations

from typing import Any

import pytest
from helpers.progress import RecordingProgress
from helpers.toys import make_settings

from distinit.pipeline.training.workload import (
    Forecast,
    Workload,
    clips_of_epoch,
    with_epoch_length,
)


@pytest.mark.parametrize(
    ("videos", "optimizer", "runtime", "clips"),
    [
        (8, {"clips_per_epoch": "auto"}, {"batch_size": 32}, 320),  # ten steps
        (8, {"clips_per_epoch": "auto"}, {"batch_size": 4, "shards": 2}, 80),
        (321, {"clips_per_epoch": "auto"}, {"batch_size": 32}, 321),  # one per video
        (240_000, {"clips_per_epoch": "auto"}, {"batch_size": 32, "shards": 8}, 240_000),
        (8, {"clips_per_epoch": None}, {"batch_size": 4}, 8),
        (8, {"clips_per_epoch": 50}, {"batch_size": 4}, 50),
    ],
)
def test_an_epoch_has_one_clip_per_video_but_at_least_ten_steps(
    videos: int, optimizer: dict[str, Any], runtime: dict[str, Any], clips: int
) -> None:
    settings = make_settings(optimizer, runtime)
    assert clips_of_epoch(settings.optimizer, settings.runtime, videos) == clips
    recorded = with_epoch_length(settings.optimizer, settings.runtime, videos)
    # Only ``auto`` is replaced: explicit values are recorded as they are, and so is the digest.
    given = optimizer["clips_per_epoch"]
    assert recorded.clips_per_epoch == (clips if given == "auto" else given)
    others = {"clips_per_epoch"}
    assert recorded.model_dump(exclude=others) == settings.optimizer.model_dump(exclude=others)
    assert clips_of_epoch(recorded, settings.runtime, videos) == clips


@pytest.mark.parametrize(
    ("videos", "clips", "line"),
    [
        (
            320,
            "auto",
            "3,840 clips = 12 passes over 320 videos (12 epochs, 120 steps of 32 clips)",
        ),
        (
            8,
            "auto",
            "3,840 clips = 480 passes over 8 videos (12 epochs, 120 steps of 32 clips)",
        ),
        (
            50,
            32,
            "384 clips = about 7.7 passes over 50 videos (12 epochs, 12 steps of 32 clips)",
        ),
        (
            330,
            None,
            "3,840 clips = about 11.6 passes over 330 videos (12 epochs, 120 steps of 32 clips)",
        ),
    ],
)
def test_the_start_says_how_much_is_trained(videos: int, clips: Any, line: str) -> None:
    settings = make_settings({"epochs": 12, "clips_per_epoch": clips}, {"batch_size": 32})
    workload = Workload.of(settings, videos)
    progress = RecordingProgress()
    workload.report(progress)
    assert progress.messages == [line]
    assert progress.values[line] == {
        "clips": workload.steps * 32,
        "videos": videos,
        "epochs": 12,
        "steps": workload.steps,
        "clips_per_step": 32,
    }


def test_one_pass_and_skipped_clips_are_said() -> None:
    settings = make_settings({"epochs": 1, "clips_per_epoch": 8}, {"batch_size": 8})
    assert Workload.of(settings, 8, may_skip=True).line() == (
        "at most 8 clips = 1 pass over 8 videos (1 epoch, 1 step of 8 clips)"
    )


def test_the_time_is_said_once_after_the_first_steps_without_the_very_first() -> None:
    progress, now = RecordingProgress(), [0.0]
    forecast = Forecast(progress, 3840, clock=lambda: now[0])
    for seconds in (60.0, 2.0, 2.0):  # the first step compiles; two measured steps are too few
        now[0] += seconds
        forecast.advance(32)
        assert progress.messages == []
    for _ in range(3):
        now[0] += 2.0
        forecast.advance(32)
    line = "3,712 clips to go: about 4 min on this machine, at 16 clips/s"
    assert progress.messages == [line]
    assert progress.values[line] == {
        "clips_left": 3712,
        "seconds_left": 232.0,
        "clips_per_second": 16.0,
    }


@pytest.mark.parametrize("seconds", [0.01, 2.0])
def test_no_time_is_said_without_a_measurement_or_when_nothing_is_left(seconds: float) -> None:
    """Steps of 10 ms are not measured long enough; after four steps of 2 s nothing is left."""
    progress, now = RecordingProgress(), [0.0]
    forecast = Forecast(progress, 4 * 8, clock=lambda: now[0])
    for _ in range(4):
        now[0] += seconds
        forecast.advance(8)
    assert progress.messages == []

"""Frames that the training of a reproduction reads, and the speed of its finished runs."""

from __future__ import annotations

import json
from pathlib import Path

from helpers.reproductions import expanded, scale_with

from distinit.pipeline.reproduction.estimate import measured_frames_per_second, training_frames
from distinit.pipeline.reproduction.layout import Layout

DISTINIT = {"init": "distinit", "distill": {"pick": "center"}}


def test_frames_are_clips_times_frames_per_clip() -> None:
    # The smoke scale distils on 2 epochs of 128 clips and finetunes on 2 epochs of 64.
    assert training_frames(expanded(DISTINIT).steps.values()) == 8 * (256 + 128)
    assert training_frames(expanded({"frames": 16}).steps.values()) == 16 * 128


def test_frames_are_not_known_if_an_epoch_is_one_clip_per_video() -> None:
    scale = scale_with(scratch={"optimizer": {"clips_per_epoch": None}})
    assert training_frames(expanded({}, scale=scale).steps.values()) is None


def test_the_speed_is_the_median_over_lines_and_runs(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "data", tmp_path / "out")
    steps = expanded({}, {"frames": 16}, layout=layout).steps
    runs = [step for step in steps.values() if step.kind == "finetune"]
    for step, speeds in zip(runs, ([10, 20, 90], [5, 5, 8]), strict=True):
        folder = layout.run(step.name)
        folder.mkdir(parents=True)
        lines = [{"step": n, "clips_per_second": speed} for n, speed in enumerate(speeds)]
        text = "".join(json.dumps(line) + "\n" for line in [*lines, {"step": 9}])
        (folder / "metrics.jsonl").write_text(text)
    assert measured_frames_per_second(runs[:1]) == 8 * 20
    assert measured_frames_per_second(steps.values()) == (8 * 20 + 16 * 5) / 2


def test_without_finished_runs_there_is_no_speed() -> None:
    assert measured_frames_per_second([]) is None

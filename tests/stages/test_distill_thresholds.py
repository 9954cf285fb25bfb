"""The threshold of a filter is computed once per run and recorded in its folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.progress import RecordingProgress
from helpers.sources import FRAMES, write_cache, write_frames

from distinit.schemas.distill import DistillConfig
from distinit.schemas.errors import ConfigError
from distinit.stages.distill import distill


def written(root: Path) -> dict[str, Any]:
    """The values of a configuration for a cache and a frame store that are written here."""
    write_cache(root / "cache", ("alpha",))
    write_frames(root / "frames", {n: f for n, f in FRAMES.items() if n != "bad"})
    return {
        "cache": str(root / "cache"),
        "frames": str(root / "frames"),
        "out": str(root / "run"),
        "student": {"name": "tiny_r2plus1d_10"},
        "clip": {"frames": 4, "crop": 16},
        "optimizer": {"clips_per_epoch": 8, "epochs": 1},
        "runtime": {"batch_size": 4, "device": "cpu"},
    }


def test_a_resumed_run_uses_the_threshold_that_it_recorded(tmp_path: Path) -> None:
    half = {"pick": "all", "filter": {"keep_fraction": 0.5}}
    values = written(tmp_path) | {"targets": [half]}
    config = DistillConfig.model_validate(values)
    first = RecordingProgress()
    distill(config, progress=first)
    run = json.loads((tmp_path / "run" / "run.json").read_text())
    assert run["inputs"]["keep_fraction"] == "share of clips", "earlier versions kept frames"
    path = tmp_path / "run" / "thresholds.json"
    record = json.loads(path.read_text())
    (recorded,) = record["teachers"].values()
    assert recorded["sampled_clips"] == 65_536
    assert any(
        f"{recorded['threshold_nats']:.3f} nats, which keeps {recorded['kept']:.1%} of the clips"
        in message
        for message in first.messages
    )

    recorded["threshold_nats"] = 1.234  # shows which threshold the next process uses
    path.write_text(json.dumps(record))
    (tmp_path / "run" / "result.json").unlink()
    resumed = RecordingProgress()
    distill(config, progress=resumed)
    assert any("entropy at most 1.234 nats" in message for message in resumed.messages)
    assert json.loads(path.read_text()) == record


def test_a_command_that_failed_before_training_can_be_corrected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    values = written(tmp_path)
    half = {"targets": [{"pick": "all", "filter": {"keep_fraction": 0.5}}]}
    wrong = values | half | {"runtime": {**values["runtime"], "device": "cuda"}}
    with pytest.raises(ConfigError, match="CUDA"):
        distill(DistillConfig.model_validate(wrong))
    assert (tmp_path / "run" / "thresholds.json").is_file()
    distill(DistillConfig.model_validate(values))
    recorded = json.loads((tmp_path / "run" / "run.json").read_text())["config"]
    assert recorded["targets"][0]["filter"]["keep_fraction"] is None
    assert recorded["runtime"]["device"] == "cpu"
    assert json.loads((tmp_path / "run" / "thresholds.json").read_text())["teachers"] == {}


def test_a_filter_that_keeps_too_little_is_refused_or_warned_of(tmp_path: Path) -> None:
    values = written(tmp_path)
    nothing = {"targets": [{"filter": {"max_entropy_nats": 0.0}}]}
    with pytest.raises(ConfigError, match="keeps no clip"):
        distill(DistillConfig.model_validate(values | nothing))
    assert not (tmp_path / "run").exists()
    little = {"targets": [{"filter": {"keep_fraction": 0.4}}]}
    progress = RecordingProgress()
    distill(DistillConfig.model_validate(values | little), progress=progress)
    (warning,) = [text for text in progress.messages if "fewer than one step" in text]
    assert warning.startswith("warning: teacher alpha: the filter keeps about 3 clips per epoch")

"""The threshold of a filter is computed once per run and recorded in its folder."""

from __future__ import annotations

import json
from pathlib import Path

from helpers.progress import RecordingProgress
from helpers.sources import FRAMES, write_cache, write_frames

from distinit.schemas.distill import DistillConfig
from distinit.stages.distill import distill


def test_a_resumed_run_uses_the_threshold_that_it_recorded(tmp_path: Path) -> None:
    write_cache(tmp_path / "cache", ("alpha",))
    write_frames(tmp_path / "frames", {n: f for n, f in FRAMES.items() if n != "bad"})
    values = {
        "cache": str(tmp_path / "cache"),
        "frames": str(tmp_path / "frames"),
        "out": str(tmp_path / "run"),
        "student": {"name": "tiny_r2plus1d_10"},
        "clip": {"frames": 4, "crop": 16},
        "targets": [{"pick": "all", "filter": {"keep_fraction": 0.5}}],
        "optimizer": {"clips_per_epoch": 8, "epochs": 1},
        "runtime": {"batch_size": 4, "device": "cpu"},
    }
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

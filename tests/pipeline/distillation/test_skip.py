"""Skipping filtered clips saves steps and decoding; both are counted, not timed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from helpers import toys

from distinit.pipeline.distillation.target_coverage import target_shares
from distinit.pipeline.distillation.task import open_distill_task
from distinit.pipeline.progress import NullProgress
from distinit.pipeline.training import clips
from distinit.pipeline.training.loop import train
from distinit.pipeline.training.task import TrainingSettings
from distinit.schemas.distill import DistillConfig

BATCH = 4


def trained(
    stored: Path, run: Path, decoded: list[bytes], **changes: object
) -> tuple[int, int, float]:
    """(steps, frames decoded, share of clips with a weight) of one epoch of 120 one-frame clips."""
    values: dict[str, object] = {
        "cache": str(stored / "one"),
        "frames": str(stored / "frames"),
        "out": str(run),
        "student": {"name": "tiny_r2plus1d_10"},
        "clip": {"frames": 1, "crop": 16},
        "optimizer": {"clips_per_epoch": 120, "epochs": 1},
        "runtime": {"batch_size": BATCH, "device": "cpu"},
    }
    config = DistillConfig.model_validate(values | changes)
    decoded.clear()
    settings = TrainingSettings(config.clip, config.optimizer, config.runtime)
    directory = toys.make_run(run)
    outcome = train(open_distill_task(config), settings, directory, NullProgress())
    kept = target_shares(directory.read_metrics(), ["alpha"])["alpha"].kept
    return outcome.global_steps, len(decoded), kept


def test_an_epoch_without_filtered_clips_has_fewer_steps_and_decodes_less(
    stored: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[bytes] = []
    real = clips.decode_frames

    def counted(jpegs: Sequence[bytes], channels: int, device: torch.device) -> object:
        decoded.extend(jpegs)
        return real(jpegs, channels, device)

    monkeypatch.setattr(clips, "decode_frames", counted)
    filters = {"targets": [{"filter": {"keep_fraction": 0.5}}]}
    whole = trained(stored, tmp_path / "whole", decoded)
    weighted = trained(stored, tmp_path / "weighted", decoded, **filters)
    skipped = trained(stored, tmp_path / "skip", decoded, **filters, skip_filtered=True)
    assert whole == (30, 120, 1.0)
    assert weighted[:2] == (30, 120), "a weight of zero saves no work"
    kept = round(weighted[2] * 120)
    assert 45 <= kept <= 75
    assert skipped == (kept // BATCH, kept // BATCH * BATCH, 1.0)

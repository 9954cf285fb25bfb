"""``distill`` on a cache of features: its log, the recorded normalization, and resuming."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import sources

from distinit.pipeline.cache.reader import TargetCache
from distinit.pipeline.distillation.normalization import Normalization
from distinit.pipeline.distillation.normalization_file import (
    read_normalizations,
    write_normalizations,
)
from distinit.pipeline.distillation.task import open_distill_task
from distinit.pipeline.inference.student import load_student
from distinit.pipeline.records import read_record
from distinit.pipeline.storage import sha256_file
from distinit.pipeline.students.io import NORMALIZATION_NAME
from distinit.schemas.distill import DistillConfig
from distinit.schemas.errors import CheckpointError, RunMismatchError
from distinit.schemas.run import RunRecord, StudentRecord
from distinit.stages import distill_inputs
from distinit.stages.distill import distill


class Lines:
    """Keeps the messages."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def start(self, description: str, total: float | None, unit: str, done: float = 0) -> None:
        """See Progress."""

    def advance(self, amount: float = 1, **values: object) -> None:
        """See Progress."""

    def message(self, text: str, **values: object) -> None:
        """See Progress."""
        self.texts.append(text)

    def finish(self) -> None:
        """See Progress."""


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("features")
    sources.write_cache(root / "cache", ("alpha",), target="features")
    good = {name: count for name, count in sources.FRAMES.items() if name != "bad"}
    sources.write_frames(root / "frames", good)
    return root


def config_of(inputs: Path, out: Path, **target: Any) -> DistillConfig:
    return DistillConfig.model_validate(
        {
            "cache": str(inputs / "cache"),
            "frames": str(inputs / "frames"),
            "out": str(out),
            "student": {"name": "tiny_r2plus1d_10"},
            "clip": {"frames": 4, "crop": 16},
            "targets": [target],
            "optimizer": {"clips_per_epoch": 8, "epochs": 2},
            "runtime": {"batch_size": 4, "device": "cpu"},
        }
    )


def test_a_run_records_its_normalization_and_goes_on_with_it(inputs: Path, tmp_path: Path) -> None:
    run, lines = tmp_path / "run", Lines()
    distill(config_of(inputs, run), progress=lines)
    expected = "teacher alpha: cosine+smooth_l1 of features normalized by phi_s, on random frames"
    assert expected in lines.texts
    student = read_record(run / "student.json", StudentRecord, error=RunMismatchError, remedy="")
    assert student.heads[0].normalize == "phi_s"
    assert student.normalization is not None
    assert student.normalization.sha256 == sha256_file(run / NORMALIZATION_NAME)
    stored = read_normalizations(run)["alpha"]
    record = read_record(run / "run.json", RunRecord, error=RunMismatchError, remedy="")
    assert record.inputs["normalization alpha"] == stored.digest
    assert (record.config["targets"][0]["loss"]) == "cosine+smooth_l1"

    loaded = load_student(run)
    clip = torch.randn(2, 3, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected_BC = stored.undo(loaded.network(clip)["alpha"])
    assert torch.equal(loaded.teacher_outputs(clip)["alpha"], expected_BC)

    (run / "result.json").unlink()
    again = Lines()
    distill(config_of(inputs, run), progress=again)
    assert read_normalizations(run)["alpha"].digest == stored.digest

    (run / "result.json").unlink()
    assert stored.rotation_CC is not None
    turned = Normalization(stored.mean_C, stored.scale_C, stored.rotation_CC.flip(0))
    write_normalizations(run, {"alpha": turned})
    with pytest.raises(RunMismatchError) as changed:
        distill(config_of(inputs, run))
    assert "inputs.normalization alpha" in str(changed.value.found)
    with pytest.raises(CheckpointError, match="is damaged, or belongs to"):
        load_student(run)


def test_without_statistics_features_have_the_cosine_loss(inputs: Path, tmp_path: Path) -> None:
    shutil.copytree(inputs / "cache", tmp_path / "cache")
    TargetCache.open(tmp_path / "cache").layout.statistics("alpha").unlink()
    shutil.copytree(inputs / "frames", tmp_path / "frames")
    lines = Lines()
    distill(config_of(tmp_path, tmp_path / "run"), progress=lines)
    assert "teacher alpha: cosine of features as stored, on random frames" in lines.texts
    notes = [text for text in lines.texts if text.startswith("note: the cache has no statistics")]
    assert len(notes) == 1
    assert "distinit cache statistics" in notes[0]
    assert not (tmp_path / "run" / NORMALIZATION_NAME).exists()


def test_heads_that_are_larger_than_the_network_are_warned_of(
    inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(distill_inputs, "LARGE_HEADS", 1)
    monkeypatch.setattr(torch.nn.Module, "parameters", lambda _: iter([torch.zeros(3)]))
    lines = Lines()
    config = config_of(inputs, tmp_path / "run", loss="mse")
    distill_inputs.report_inputs(open_distill_task(config), config.targets, lines)
    assert any(
        text.startswith("warning: the heads have") and "head alpha has 7 outputs" in text
        for text in lines.texts
    )

"""In which precision teachers compute, and what it changes against fp32."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from helpers.caches import resign
from helpers.videos import make_video

from distinit.cli import main
from distinit.pipeline.cache.reader import TargetCache
from distinit.pipeline.teachers import base
from distinit.schemas.errors import ConfigError
from distinit.schemas.extract import ExtractConfig
from distinit.schemas.teacher import TeacherRequest
from distinit.stages.extract import extract
from distinit.stages.extract_precision import resolve_precision

PLUGIN = """
import torch
from distinit.schemas.teacher import PreprocessSpec


def teach(weights, device):
    spec = PreprocessSpec(
        resize_mode="squash", resize_size=8, crop_size=8, mean=(0.5,) * 3, std=(0.5,) * 3
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 5))
    return network, spec, list("abcde"), "letters"
"""
FRAMES = {"a.mp4": 70, "b.mp4": 20}  # in two unit groups of 64 rows each: the first takes two units
SAMPLED = 32 + 20  # the first batch of each group


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ExtractConfig:
    for seed, (name, frames) in enumerate(FRAMES.items()):
        make_video(tmp_path / "videos" / name, frames=frames, seed=seed)
    (tmp_path / "linear_teacher.py").write_text(PLUGIN)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "linear_teacher", raising=False)
    return ExtractConfig(
        videos=str(tmp_path / "videos"),
        teachers=(TeacherRequest(name="plugin:linear_teacher:teach", id="linear"),),
        cache=str(tmp_path / "cache"),
        unit_rows=64,
    )


def teacher_json(root: Path) -> dict[str, object]:
    record: dict[str, object] = json.loads((root / "teachers/linear/teacher.json").read_text())
    return record


def test_what_bf16_changes_is_in_the_record_and_shown(config: ExtractConfig) -> None:
    root = Path(config.cache)
    exact = config.model_copy(update={"cache": f"{config.cache}-fp32"})
    extract(exact)
    result = extract(config.model_copy(update={"precision": "bf16"}))
    assert result.complete
    record = TargetCache.open(root).teachers["linear"]
    loss = record.precision_loss
    assert (record.precision, loss is not None) == ("bf16", True)
    assert loss is not None
    assert loss.frames == SAMPLED
    # bf16 has 8 bits of mantissa: the logits, of about 1, are off by some thousandths.
    logits = [
        TargetCache.open(Path(path)).targets("linear").logits(np.arange(70))
        for path in (config.cache, exact.cache)
    ]
    assert 1e-4 < np.abs(logits[0] - logits[1]).max() < 0.05
    assert 0 < loss.mean_kl_nats <= loss.max_kl_nats < 1e-3
    shown = CliRunner().invoke(main, ["cache", "info", str(root)])
    assert f"computed in bf16: {loss.brief()}" in shown.output
    assert CliRunner().invoke(main, ["cache", "verify", str(root)]).exit_code == 0


def test_what_bf16_changes_of_features_is_in_the_record_and_shown(config: ExtractConfig) -> None:
    teacher = config.teachers[0].model_copy(update={"target": "features"})
    result = extract(config.model_copy(update={"teachers": (teacher,), "precision": "bf16"}))
    record = TargetCache.open(Path(config.cache)).teachers["linear"]
    loss = record.feature_precision_loss
    assert loss is not None
    assert (loss.frames, record.precision_loss) == (SAMPLED, None)
    # bf16 has 8 bits of mantissa.
    assert 2**-12 < loss.mean_relative_error < 2**-6
    assert 1e-9 < loss.mean_cosine_error < loss.max_cosine_error < 1e-3
    shown = CliRunner().invoke(main, ["cache", "info", config.cache])
    assert f"computed in bf16: {loss.brief()}" in shown.output
    assert record.feature_fidelity is not None
    assert f"stored as float16: {record.feature_fidelity.brief()}" in shown.output
    assert f"storing as float16 {record.feature_fidelity}" in result.summary()
    assert CliRunner().invoke(main, ["cache", "verify", config.cache]).exit_code == 0


def test_a_cache_in_fp32_has_no_key_for_it(config: ExtractConfig) -> None:
    extract(config)
    assert teacher_json(Path(config.cache))["precision"] == "fp32"
    for path in Path(config.cache).rglob("*.json"):
        assert "precision_loss" not in path.read_text()


def test_verification_compares_the_record_with_the_commits(config: ExtractConfig) -> None:
    root = Path(config.cache)
    extract(config.model_copy(update={"precision": "bf16"}))
    path = root / "teachers/linear/teacher.json"
    record = json.loads(path.read_text())
    record["precision_loss"]["frames"] += 1
    path.write_text(json.dumps(record))
    resign(root)
    found = CliRunner().invoke(main, ["cache", "verify", str(root)])
    assert found.exit_code == 1
    assert "its precision_loss is not that of the commits" in found.output


def test_auto_is_the_precision_of_the_cache_else_that_of_the_device(
    config: ExtractConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert resolve_precision(config) == "fp32"  # a CPU
    on_gpus = config.model_copy(
        update={"compute": config.compute.model_copy(update={"workers": 2, "gpus_per_worker": 1.0})}
    )
    assert resolve_precision(on_gpus) == "bf16"
    extract(config)
    assert resolve_precision(on_gpus) == "fp32"  # as the cache
    with pytest.raises(ConfigError, match="fp16 arithmetic needs a GPU"):
        resolve_precision(config.model_copy(update={"precision": "fp16", "device": "cpu"}))


@pytest.mark.parametrize(("capability", "precision"), [((7, 5), "fp32"), ((9, 0), "bf16")])
def test_a_gpu_without_bf16_computes_in_fp32(
    capability: tuple[int, int], precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert base.default_precision(torch.device("cuda")) == precision


def test_the_loss_of_a_failed_video_is_dropped(config: ExtractConfig) -> None:
    """The first video of the only group has no rows in the end: nothing was measured."""
    videos = Path(config.videos)
    whole = (videos / "a.mp4").read_bytes()
    (videos / "a.mp4").write_bytes(whole[: len(whole) // 2])
    decode = config.decode.model_copy(update={"damaged": "fail"})
    update = {"precision": "bf16", "decode": decode, "unit_rows": 1024, "max_failed": 1.0}
    result = extract(config.model_copy(update=update))
    assert [video.path for video in result.failed] == ["a.mp4"]
    record = TargetCache.open(Path(config.cache)).teachers["linear"]
    assert record.precision_loss is None

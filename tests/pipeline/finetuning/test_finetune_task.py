"""The loss and the student of a finetuning task."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import toys
from helpers.students import save_distilled
from torch import Tensor, nn

from distinit.pipeline.evaluation.score import LABELS_HEAD
from distinit.pipeline.finetuning.init import resolve_init
from distinit.pipeline.finetuning.task import FinetuneTask, TrainVideos
from distinit.pipeline.frames.reader import FrameStore
from distinit.pipeline.frames.writer import FrameStoreWriter
from distinit.schemas.frames import FrameGeometry
from distinit.schemas.training import StudentConfig

CLASSES = 4


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> TrainVideos:
    root = tmp_path_factory.mktemp("frames")
    writer = FrameStoreWriter(root, FrameGeometry(), "0" * 64)
    with writer.open_unit(0) as unit:
        for name in ("a", "b"):
            frames_NHWC = np.full((6, 128, 171, 3), 90, np.uint8)
            unit.append(f"id-{name}", name * 64, 0, frames_NHWC, 10.0)
        unit.commit()
    writer.finalise([0])
    return TrainVideos(FrameStore.open(root), ("id-a", "id-b"), (0, 3), CLASSES)


def make_task(videos: TrainVideos, **changes: Any) -> FinetuneTask:
    init = resolve_init("scratch", StudentConfig(name="tiny_r2plus1d_10"))
    return FinetuneTask(init, videos, toys.make_settings(), head_only=False, **changes)


def loss_of(task: FinetuneTask, logits_BC: Tensor, label_B: Tensor) -> tuple[float, float]:
    loss, metrics = task.loss({LABELS_HEAD: logits_BC}, {LABELS_HEAD: label_B})
    return loss.item(), metrics["accuracy"].item()


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.4])
def test_the_loss_is_the_cross_entropy_with_smoothed_labels(
    videos: TrainVideos, smoothing: float
) -> None:
    logits_BC = torch.randn(5, CLASSES, generator=torch.Generator().manual_seed(0))
    label_B = torch.tensor([0, 3, 1, 1, 2])
    target_BC = torch.full((5, CLASSES), smoothing / CLASSES)
    target_BC[torch.arange(5), label_B] += 1 - smoothing
    log_p_BC = logits_BC - logits_BC.exp().sum(dim=1, keepdim=True).log()
    expected = -(target_BC * log_p_BC).sum(dim=1).mean().item()
    correct = (logits_BC.argmax(dim=1) == label_B).sum().item()
    found = loss_of(make_task(videos, label_smoothing=smoothing), logits_BC, label_B)
    assert found == pytest.approx((expected, 100 * correct / 5), abs=1e-5)


class Ones(nn.Module):
    """A backbone whose features are all 1."""

    feature_dim = 128

    def forward(self, clip_BCTHW: Tensor) -> Tensor:
        return torch.ones(len(clip_BCTHW), self.feature_dim)


def test_features_are_dropped_in_training_only(videos: TrainVideos) -> None:
    student = make_task(videos, dropout=0.25).build()
    student.backbone = Ones()
    head = student.heads[LABELS_HEAD]
    assert isinstance(head, nn.Linear)
    nn.init.ones_(head.weight)
    clips_BCTHW = torch.zeros(500, 3, 2, 16, 16)
    assert (student.eval()(clips_BCTHW)[LABELS_HEAD] == 128).all()
    torch.manual_seed(0)
    outputs_BC = student.train()(clips_BCTHW)[LABELS_HEAD]
    kept_B = outputs_BC[:, 0] * 0.75  # what is kept is divided by 0.75
    assert torch.allclose(kept_B, kept_B.round(), atol=1e-3)
    assert kept_B.mean().item() == pytest.approx(96, abs=1)
    assert kept_B.std().item() == pytest.approx((128 * 0.25 * 0.75) ** 0.5, rel=0.15)


def test_without_dropout_training_and_evaluation_have_the_same_features(
    videos: TrainVideos,
) -> None:
    student = make_task(videos).build()
    student.backbone = Ones()
    clips_BCTHW = torch.zeros(2, 3, 2, 16, 16)
    training, evaluation = student.train()(clips_BCTHW), student.eval()(clips_BCTHW)
    assert torch.equal(training[LABELS_HEAD], evaluation[LABELS_HEAD])


def test_a_task_with_a_relative_init_is_rebuilt_in_another_working_folder(
    videos: TrainVideos, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_distilled(tmp_path / "distilled")
    monkeypatch.chdir(tmp_path)
    init = resolve_init("distinit:distilled", None)
    task = FinetuneTask(init, videos, toys.make_settings(), head_only=False)
    expected = task.build().state_dict()
    rebuild, arguments = task.__reduce__()
    monkeypatch.chdir("/")
    found = rebuild(*arguments).build().state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


def test_a_copied_task_has_the_same_loss_and_dropout(videos: TrainVideos) -> None:
    task = make_task(videos, label_smoothing=0.2, dropout=0.5)
    copy = deepcopy(task)  # by __reduce__, as pickle does
    logits_BC, label_B = torch.randn(3, CLASSES), torch.tensor([0, 1, 2])
    assert loss_of(copy, logits_BC, label_B) == loss_of(task, logits_BC, label_B)
    assert copy.build().dropout == 0.5
